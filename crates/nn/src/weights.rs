//! Weights of other programs: safetensors and every container that `torch.save` has written, in the names of our networks.
//!
//! Nothing of a pickle is executed: the reader knows the few calls that rebuild tensors and refuses the others.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::Read;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use half::{bf16, f16};
use pytorch_reader::{DType, PytorchReader};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use crate::params::{LoadReport, WeightsError, WeightsFile, map, visit};

/// Keys under which checkpoints keep their weights, in the order tried.
const TOP_LEVEL_KEYS: [&str; 6] =
    ["state_dict", "model_state_dict", "model", "network_weights", "net", "weights"];

/// A tensor of a file may share its values with others (tied weights), but all together may not be more than this many times
/// the file: a few bytes can claim any number of views.
const VALUES_PER_BYTE_AT_MOST: u64 = 8;

/// How the names in a file become those of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Key of the dictionary that holds the weights in a file of `torch.save`. None: the first of the usual ones
    /// (`state_dict`, `model_state_dict`, `model`, `network_weights`, `net`, `weights`) that is there, else the whole file.
    pub top_level_key: Option<String>,
    /// Prefixes taken off, each as often as it stands in front: `module.` is what `DataParallel` adds.
    pub strip: Vec<String>,
    /// (prefix, replacement), after stripping; the first whose prefix fits is applied. The empty prefix fits every name.
    pub rename: Vec<(String, String)>,
}

impl Default for Names {
    /// The usual keys, `module.` taken off.
    fn default() -> Self {
        Self { top_level_key: None, strip: vec!["module.".to_owned()], rename: Vec::new() }
    }
}

impl Names {
    fn apply(&self, name: &str) -> String {
        let mut name = name;
        for prefix in self.strip.iter().filter(|prefix| !prefix.is_empty()) {
            while let Some(rest) = name.strip_prefix(prefix.as_str()) {
                name = rest;
            }
        }
        let renamed = self
            .rename
            .iter()
            .find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from.as_str())?)));
        renamed.unwrap_or_else(|| name.to_owned())
    }
}

/// Reads a safetensors file or one of `torch.save` (zip, and the containers before it). Tensors of f64, f16 and bf16 become
/// f32; those of integers (counters such as `num_batches_tracked`) are left out.
///
/// # Errors
/// The file cannot be read, is damaged or of another kind, lacks the top-level key, claims more values than it can hold, has
/// no tensors of floats, or two of its names become the same.
pub fn read(path: &Path, names: &Names) -> Result<WeightsFile, WeightsError> {
    let io = |source| WeightsError::Io { path: path.to_owned(), source };
    let bad = |problem: String| WeightsError::Foreign { path: path.to_owned(), problem };
    let file = std::fs::metadata(path).map_err(io)?;
    if !file.is_file() {
        return Err(bad("not a file".to_owned()));
    }
    let mut start = Vec::new();
    std::fs::File::open(path).map_err(io)?.take(9).read_to_end(&mut start).map_err(io)?;
    // A safetensors file begins with the length of its header, then the header, a JSON object.
    let found = if start.get(8) == Some(&b'{') && start[4..8] == [0; 4] {
        if let Some(key) = &names.top_level_key {
            return Err(bad(format!("a safetensors file has no top-level keys; {key} was asked for")));
        }
        read_safetensors(&std::fs::read(path).map_err(io)?)
    } else {
        read_pytorch(path, file.len(), names.top_level_key.as_deref())
    };
    let mut tensors = BTreeMap::new();
    let mut origins = BTreeMap::<String, String>::new();
    for (name, tensor) in found.map_err(bad)? {
        let ours = names.apply(&name);
        match origins.entry(ours) {
            Entry::Occupied(taken) => {
                let (ours, theirs) = (taken.key(), taken.get());
                return Err(bad(format!("the tensors {theirs} and {name} both become {ours}")));
            }
            Entry::Vacant(free) => {
                tensors.insert(free.key().clone(), tensor);
                free.insert(name);
            }
        }
    }
    if tensors.is_empty() {
        return Err(bad("it holds no tensors of floats".to_owned()));
    }
    Ok(WeightsFile { path: path.to_owned(), tensors, metadata: BTreeMap::new() })
}

/// Shape and values by name, as in the file.
type Found = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn read_safetensors(bytes: &[u8]) -> Result<Found, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let float = |dtype| match dtype {
        Dtype::F64 => Some(Float::F64),
        Dtype::F32 => Some(Float::F32),
        Dtype::F16 => Some(Float::F16),
        Dtype::BF16 => Some(Float::Bf16),
        _ => None,
    };
    let tensors = file.iter().filter_map(|(name, view)| {
        let values = float(view.dtype())?.values(view.data());
        Some((name.to_owned(), (view.shape().to_vec(), values)))
    });
    Ok(tensors.collect())
}

fn read_pytorch(path: &Path, size: u64, key: Option<&str>) -> Result<Found, String> {
    let reader = match key {
        Some(key) => PytorchReader::with_top_level_key(path, key).map_err(|e| e.to_string())?,
        None => {
            let whole = PytorchReader::new(path).map_err(|e| e.to_string())?;
            let under = |key: &&str| whole.keys().iter().any(|name| name.starts_with(&format!("{key}.")));
            // A network may have a part of such a name: only a dictionary of the file's root counts.
            let part = TOP_LEVEL_KEYS
                .into_iter()
                .filter(under)
                .find_map(|key| PytorchReader::with_top_level_key(path, key).ok().filter(|r| !r.is_empty()));
            part.unwrap_or(whole)
        }
    };
    let (mut found, mut total) = (Found::new(), 0u64);
    for (name, tensor) in reader.tensors() {
        let float = match tensor.dtype() {
            DType::F64 => Float::F64,
            DType::F32 => Float::F32,
            DType::F16 => Float::F16,
            DType::BF16 => Float::Bf16,
            _ => continue,
        };
        let bytes = tensor.byte_len() as u64;
        total = total.saturating_add(bytes);
        if bytes > size || total > size.saturating_mul(VALUES_PER_BYTE_AT_MOST) {
            let shape = tensor.shape();
            return Err(format!(
                "tensor {name} of shape {shape:?} is more than the file of {size} bytes can hold"
            ));
        }
        let values = float.values(&tensor.read().map_err(|e| e.to_string())?);
        found.insert(name.clone(), (tensor.shape().to_vec(), values));
    }
    Ok(found)
}

/// Types of values that become f32.
#[derive(Clone, Copy)]
enum Float {
    F64,
    F32,
    F16,
    Bf16,
}

impl Float {
    /// The values of little-endian bytes.
    fn values(self, bytes: &[u8]) -> Vec<f32> {
        fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks::<N>().0.iter().map(|b| value(*b)).collect()
        }
        match self {
            Self::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            Self::F32 => each(bytes, f32::from_le_bytes),
            Self::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        }
    }
}

/// What [`load`] may do to make a file fit, and how well it must.
#[derive(Debug, Clone)]
pub struct Fit {
    /// Paths of weights of a first convolution, `[output, channels, kernel...]`: where the file has another number of
    /// channels than the network, the file's are repeated in turn and scaled by found / asked, so that equal channels give
    /// what one gave (one channel becomes N, each divided by N).
    pub repeat_channels: Vec<String>,
    /// Share of the network's tensors, buffers included, that must be in the file with their shape, in 0..=1.
    pub least_share: f64,
    /// Which tensors, by path, that share is of: a new head need not be in the file of a backbone.
    pub counted: fn(&str) -> bool,
}

/// Loads what the file has of the network's parameters and buffers; the others stay as they are. The report says which are
/// which, as [`WeightsFile::compare`] after the channels were repeated.
///
/// # Errors
/// Fewer tensors match than [`Fit::least_share`], or one of them holds a value that is not finite.
pub fn load<M: Module>(module: M, file: &WeightsFile, fit: &Fit) -> Result<(M, LoadReport), WeightsError> {
    let mut report = file.compare(&module);
    let mut repeated = BTreeMap::new();
    report.mismatched.retain(|(path, asked, _)| {
        let fitting =
            fit.repeat_channels.contains(path).then(|| repeat_channels(&file.tensors[path], asked)).flatten();
        let stays = fitting.is_none();
        repeated.extend(fitting.map(|values| (path.clone(), values)));
        stays
    });
    report.matched += repeated.len();
    let lacking: Vec<&String> =
        report.missing.iter().chain(report.mismatched.iter().map(|(path, ..)| path)).collect();
    let mut asked = 0;
    visit(&module, &mut |path, _, _| asked += usize::from((fit.counted)(path)));
    let absent = lacking.into_iter().filter(|path| (fit.counted)(path)).count();
    let share = if asked == 0 { 1.0 } else { (asked - absent) as f64 / asked as f64 };
    if share < fit.least_share {
        return Err(WeightsError::TooFew { path: file.path.clone(), share, least: fit.least_share, report });
    }
    let mut wrong = None;
    let module = map(module, &mut |path, old| {
        if report.mismatched.iter().any(|(other, ..)| other == path) {
            return old;
        }
        let values = repeated.remove(path).or_else(|| Some(file.tensors.get(path)?.1.clone()));
        let Some(values) = values else { return old };
        if wrong.is_none() && values.iter().any(|v| !v.is_finite()) {
            wrong = Some(path.to_owned());
        }
        let count = values.len();
        Tensor::from_data(TensorData::new(values, [count]), &old.device())
    });
    match wrong {
        Some(path) => {
            let problem = format!("tensor {path} holds values that are not finite");
            Err(WeightsError::Foreign { path: file.path.clone(), problem })
        }
        None => Ok((module, report)),
    }
}

/// The values of a weight with `asked[1]` channels, where that is all that differs.
fn repeat_channels((found, values): &(Vec<usize>, Vec<f32>), asked: &[usize]) -> Option<Vec<f32>> {
    let same = found.len() == asked.len()
        && found.len() > 2
        && found[0] == asked[0]
        && found[2..] == asked[2..]
        && found[1] > 0;
    if !same {
        return None;
    }
    let taps: usize = found[2..].iter().product();
    let scale = found[1] as f32 / asked[1] as f32;
    let mut repeated = Vec::with_capacity(asked.iter().product());
    for output in values.chunks_exact((found[1] * taps).max(1)) {
        for channel in 0..asked[1] {
            let from = channel % found[1] * taps;
            repeated.extend(output[from..from + taps].iter().map(|v| v * scale));
        }
    }
    Some(repeated)
}
