//! Parameters and buffers of a network by their path, e.g. `encoder.0.conv1.weight` (PyTorch's `state_dict` keys).
//!
//! Everything that walks a network (optimizer, averages, checkpoints, counts) goes through the functions here, on
//! *flat* tensors `[n]`: the rank of a parameter matters to nobody outside its layer.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// Flat tensors by path, in the order of the paths.
pub type Flat = BTreeMap<String, Tensor<1>>;

/// Last part of the path of a buffer: saved and averaged like a parameter, but neither trained nor counted as one.
const BUFFERS: [&str; 2] = ["running_mean", "running_var"];

/// Whether the path names a buffer rather than a trained parameter.
pub fn is_buffer(path: &str) -> bool {
    BUFFERS.contains(&path.rsplit('.').next().unwrap_or(path))
}

/// The entry of a safetensors header that holds our metadata.
const METADATA: &str = "trimtab";

/// Number of trained values, per group of `group_of(path)`, in order of the group's name.
pub fn parameter_counts(module: &impl Module, group_of: fn(&str) -> &'static str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    visit(module, &mut |path, shape, _| {
        if !is_buffer(path) {
            *counts.entry(group_of(path).to_owned()).or_default() += shape.iter().product::<usize>() as u64;
        }
    });
    counts
}

/// All parameters and buffers, without gradients, flat.
pub fn flat(module: &impl Module) -> Flat {
    let mut all = Flat::new();
    visit(module, &mut |path, _, tensor| {
        all.insert(path.to_owned(), tensor());
    });
    all
}

/// The gradients of the trained parameters that have one, flat.
pub fn gradients(module: &impl Module, mut gradients: Gradients) -> Flat {
    struct Visitor<'a> {
        path: Vec<String>,
        gradients: &'a mut Gradients,
        found: Flat,
    }
    impl ModuleVisitor for Visitor<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad()
                && let Some(gradient) = param.val().grad_remove(self.gradients)
            {
                let count = gradient.shape().num_elements();
                self.found.insert(self.path.join("."), gradient.reshape([count]));
            }
        }
    }
    let mut visitor = Visitor { path: Vec::new(), gradients: &mut gradients, found: Flat::new() };
    module.visit(&mut visitor);
    visitor.found
}

/// Replaces every parameter and buffer by what `change(path, value)` returns: same length, no gradients.
/// Whether a parameter is trained stays as it was.
pub fn map<M: Module>(module: M, change: &mut dyn FnMut(&str, Tensor<1>) -> Tensor<1>) -> M {
    struct Mapper<'a> {
        path: Vec<String>,
        change: &'a mut dyn FnMut(&str, Tensor<1>) -> Tensor<1>,
    }
    impl ModuleMapper for Mapper<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, tensor, mapper) = param.consume();
            let (tracked, trained) = (tensor.is_autodiff(), tensor.is_require_grad());
            let shape = tensor.shape();
            let value = if tracked { tensor.inner() } else { tensor };
            let count = shape.num_elements();
            let value = (self.change)(&self.path.join("."), value.reshape([count])).reshape(shape);
            let value = if tracked { Tensor::from_inner(value) } else { value };
            let value = if trained { value.require_grad() } else { value };
            Param::from_mapped_value(id, value, mapper)
        }
    }
    module.map(&mut Mapper { path: Vec::new(), change })
}

/// Copies every value of `from` (as of [`flat`]) into `module`; paths that `from` lacks stay as they are.
pub fn copy<M: Module>(module: M, from: &Flat) -> M {
    map(module, &mut |path, old| from.get(path).cloned().unwrap_or(old))
}

/// Sets whether the trained parameters of `module` take gradients; buffers never do.
pub fn set_trainable<M: Module>(module: M, trainable: bool) -> M {
    struct Mapper {
        path: Vec<String>,
        trainable: bool,
    }
    impl ModuleMapper for Mapper {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let buffer = self.path.last().is_some_and(|name| is_buffer(name));
            if buffer { param } else { param.set_require_grad(self.trainable) }
        }
    }
    module.map(&mut Mapper { path: Vec::new(), trainable })
}

/// Sees path, shape and, if it asks, the flat value of a parameter or buffer.
pub(crate) type Visit<'a> = dyn FnMut(&str, &[usize], &dyn Fn() -> Tensor<1>) + 'a;

pub(crate) fn visit(module: &impl Module, each: &mut Visit<'_>) {
    struct Visitor<'a, 'b> {
        path: Vec<String>,
        each: &'a mut Visit<'b>,
    }
    impl ModuleVisitor for Visitor<'_, '_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let shape = param.shape();
            let dims: Vec<usize> = shape.iter().copied().collect();
            let value = || {
                let tensor = param.val();
                let tensor = if tensor.is_autodiff() { tensor.inner() } else { tensor };
                tensor.reshape([shape.num_elements()])
            };
            (self.each)(&self.path.join("."), &dims, &value);
        }
    }
    module.visit(&mut Visitor { path: Vec::new(), each });
}

/// Why weights could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Not a safetensors file, or a damaged one.
    #[error("{}: not a valid safetensors file: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found.
        problem: String,
    },
    /// The file's tensors are not those of the network.
    #[error("{}: the checkpoint is of another architecture: {report}", path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// What matched and what did not.
        report: LoadReport,
    },
    /// Not weights of another program that [`crate::weights::read`] takes.
    #[error("{}: cannot be read as weights (safetensors, or a file of torch.save): {problem}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What was found.
        problem: String,
    },
    /// Too few of the network's tensors are in the file.
    #[error("{}: {:.1} % of the network's tensors are in the file with their shape; at least {:.1} % are asked for: {report}", path.display(), 100.0 * share, 100.0 * least)]
    TooFew {
        /// The file.
        path: PathBuf,
        /// Share of the network's tensors that matched.
        share: f64,
        /// Share asked for.
        least: f64,
        /// What matched and what did not.
        report: LoadReport,
    },
}

/// What a file of weights held and what the network asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Paths loaded.
    pub matched: usize,
    /// Asked for, not in the file.
    pub missing: Vec<String>,
    /// In the file, not asked for.
    pub unexpected: Vec<String>,
    /// Of another shape: path, shape asked for, shape found.
    pub mismatched: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl LoadReport {
    /// Whether every tensor asked for was found with its shape, and no other was there.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }
}

impl std::fmt::Display for LoadReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tensors match", self.matched)?;
        if let Some((path, asked, found)) = self.mismatched.first() {
            write!(
                f,
                "; {} of another shape, e.g. {path}: {asked:?} asked for, {found:?} found",
                self.mismatched.len()
            )?;
        }
        for (what, paths) in [("missing", &self.missing), ("unexpected", &self.unexpected)] {
            if let Some(first) = paths.first() {
                write!(f, "; {} {what}, e.g. {first}", paths.len())?;
            }
        }
        Ok(())
    }
}

/// Parameters and buffers as the bytes of a safetensors file, f32, PyTorch's names and shapes.
pub fn to_safetensors(module: &impl Module, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut tensors = Vec::new();
    visit(module, &mut |path, shape, tensor| {
        tensors.push((path.to_owned(), shape.to_vec(), bytes(tensor())))
    });
    serialize(tensors, metadata)
}

/// Flat tensors (moments of an optimizer) as the bytes of a safetensors file.
pub fn flat_to_safetensors(flat: &Flat, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let tensors = flat.iter().map(|(path, t)| (path.clone(), vec![t.dims()[0]], bytes(t.clone()))).collect();
    serialize(tensors, metadata)
}

fn bytes(tensor: Tensor<1>) -> Vec<u8> {
    let values: Vec<f32> =
        tensor.into_data().convert::<f32>().try_into_vec().expect("converted to f32 just now");
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn serialize(tensors: Vec<(String, Vec<usize>, Vec<u8>)>, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let views = tensors.iter().map(|(path, shape, bytes)| {
        (
            path,
            TensorView::new(Dtype::F32, shape.clone(), bytes)
                .expect("four bytes for each value of the shape"),
        )
    });
    // One entry holding JSON: the header is written from a hash map, and the order of several would differ from run to run.
    let json = serde_json::to_string(metadata).expect("text by text is JSON");
    let metadata = (!metadata.is_empty()).then(|| HashMap::from([(METADATA.to_owned(), json)]));
    safetensors::serialize(views, metadata).expect("the views are valid and their names unique")
}

/// Tensors of a safetensors file.
#[derive(Debug)]
pub struct WeightsFile {
    pub(crate) path: PathBuf,
    pub(crate) tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// What was given as metadata when it was written; empty for files of other programs.
    pub metadata: BTreeMap<String, String>,
}

impl WeightsFile {
    /// Reads a safetensors file of f32 tensors.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or holds a type other than f32.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        let bytes =
            std::fs::read(path).map_err(|source| WeightsError::Io { path: path.to_owned(), source })?;
        let bad = |problem: String| WeightsError::Format { path: path.to_owned(), problem };
        let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
        let ours = header.metadata().as_ref().and_then(|m| m.get(METADATA));
        let metadata = ours.map(|json| serde_json::from_str(json)).transpose();
        let metadata = metadata
            .map_err(|e| bad(format!("the entry \"{METADATA}\" of the header: {e}")))?
            .unwrap_or_default();
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(bad(format!("tensor {name} is of type {:?}; F32 is accepted", view.dtype())));
            }
            let values =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            tensors.insert(name.to_owned(), (view.shape().to_vec(), values));
        }
        Ok(Self { path: path.to_owned(), tensors, metadata })
    }

    /// What [`Self::load`] would match.
    pub fn compare(&self, module: &impl Module) -> LoadReport {
        let mut report = LoadReport::default();
        let mut asked = std::collections::BTreeSet::new();
        visit(module, &mut |path, shape, _| {
            asked.insert(path.to_owned());
            match self.tensors.get(path) {
                None => report.missing.push(path.to_owned()),
                Some((found, _)) if found != shape => {
                    report.mismatched.push((path.to_owned(), shape.to_vec(), found.clone()));
                }
                Some(_) => report.matched += 1,
            }
        });
        report.unexpected = self.tensors.keys().filter(|path| !asked.contains(*path)).cloned().collect();
        report
    }

    /// Loads every parameter and buffer.
    ///
    /// # Errors
    /// Any tensor missing, left over or of another shape.
    pub fn load<M: Module>(&self, module: M) -> Result<M, WeightsError> {
        let report = self.compare(&module);
        if !report.is_complete() {
            return Err(WeightsError::Architecture { path: self.path.clone(), report });
        }
        Ok(map(module, &mut |path, old| {
            let values = self.tensors[path].1.clone();
            let count = values.len();
            Tensor::from_data(TensorData::new(values, [count]), &old.device())
        }))
    }

    /// All tensors, flat, on `device`.
    pub fn flat(&self, device: &burn::tensor::Device) -> Flat {
        let tensor =
            |values: &Vec<f32>| Tensor::from_data(TensorData::new(values.clone(), [values.len()]), device);
        self.tensors.iter().map(|(path, (_, values))| (path.clone(), tensor(values))).collect()
    }
}
