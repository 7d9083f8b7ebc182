//! HDF5: <https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html>, read by the `hdf5-reader` crate.
//!
//! Contiguous, compact and chunked arrays of integers and IEEE floats; the filters deflate, shuffle, Fletcher-32, szip,
//! n-bit, scale-offset and, ours, LZF, LZ4, Blosc and Zstandard.

use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hdf5_reader::error::{ByteOrder, Error};
use hdf5_reader::{
    BlockCacheStorage, Dataset, Datatype, FileStorage, FilterRegistry, H5Type, Hdf5File, OpenOptions,
    SliceInfo, SliceInfoElem,
};

use super::codecs;
use super::grid::{self, Axes, Listed, Numbers};
use super::raster::Stored;
use crate::error::{DataError, Result};
use crate::volume::{VolumeInfo, VolumeReader};

const FORMAT: &str = "HDF5";
const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";

/// Whether a file that starts so is HDF5. A user block may come first: the signature is at 0, 512, 1024, 2048 …
pub fn is_hdf5(start: &[u8]) -> bool {
    let places =
        std::iter::once(0).chain(std::iter::successors(Some(512usize), |place| place.checked_mul(2)));
    places.take_while(|&place| place < start.len()).any(|place| start[place..].starts_with(SIGNATURE))
}

/// Opens an array `[d, h, w]` or `[c, d, h, w]` of a file; `dataset` is its path in the file, e.g. `volumes/raw`, and
/// may be left out where the file holds only one array of three or more dimensions. Other orders are read where an
/// attribute `axistags` (vigra, ilastik) names the axes. An attribute `element_size_um` (d, h, w in micrometres)
/// gives the spacing.
///
/// Slices are read by chunks, of which the last used 256 MiB are kept.
///
/// # Errors
/// [`DataError::Content`] when there is no such array (with those there are) or it is no volume of numbers;
/// [`DataError::Format`] when the file is truncated, corrupt or of an unsupported kind; [`DataError::Io`].
pub fn open(path: &Path, dataset: Option<&str>) -> Result<Box<dyn VolumeReader>> {
    let io = |source| DataError::io(path, "cannot read", source);
    let file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let wrong = |error| translate(path, error);
    // Not mapped into memory: a file cut short by another program while it is read must be an error, not a signal.
    let storage = FileStorage::from_file(file).map_err(wrong)?;
    let storage = Arc::new(BlockCacheStorage::new(Arc::new(storage), 1 << 16, 256));
    let options = OpenOptions {
        chunk_cache_bytes: grid::CACHE_BYTES,
        chunk_cache_slots: 1 << 14,
        filter_registry: Some(filters()),
        max_chunk_bytes: grid::LARGEST_CHUNK,
        ..OpenOptions::default()
    };
    let file = Hdf5File::from_storage_with_options(storage, options).map_err(wrong)?;
    let dataset = match dataset {
        Some(name) => match file.dataset(name) {
            Ok(dataset) => dataset,
            Err(error) if is_missing(&error) => {
                return Err(grid::no_such_array(path, name, &arrays(path, &file)?));
            }
            Err(error) => return Err(wrong(error)),
        },
        None => file.dataset(&grid::only_volume(path, &arrays(path, &file)?)?.name).map_err(wrong)?,
    };
    let problem = |problem| DataError::content(path, format!("{}: {problem}", dataset.name()));
    if numbers(dataset.dtype()).is_none() || !plain_bits(&dataset) {
        return Err(problem(format!(
            "numbers of the kind {}; accepted are integers and IEEE floats",
            kind(dataset.dtype())
        )));
    }
    let shape = shape(&dataset)
        .ok_or_else(|| problem(format!("shape {:?} does not fit the memory", dataset.shape())))?;
    let axes = axis_names(&dataset).and_then(|names| Axes::by_names(&shape, &names));
    let axes = axes.unwrap_or_else(|| Axes::by_position(&shape)).map_err(problem)?;
    let info = axes.info(element_size(&dataset));
    grid::plausible(path, FORMAT, &info, std::iter::once(length))?;
    Ok(Box::new(Reader { path: path.to_owned(), dataset, axes, info }))
}

struct Reader {
    path: PathBuf,
    dataset: Dataset,
    axes: Axes,
    info: VolumeInfo,
}

impl VolumeReader for Reader {
    fn info(&self) -> &VolumeInfo {
        &self.info
    }

    fn slices(&mut self, range: Range<usize>) -> Result<Vec<f32>> {
        let count = grid::count(&self.path, &self.info, &range)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let selection = self.axes.selection(&range);
        let part = |range: &Range<usize>| SliceInfoElem::Slice {
            start: range.start as u64,
            end: range.end as u64,
            step: 1,
        };
        let part = SliceInfo { selections: selection.iter().map(part).collect() };
        let wrong = |error| translate(&self.path, error);
        let values = self.dataset.read_slice::<Value>(&part).map_err(wrong)?.into_raw_vec_and_offset().0;
        let size: Vec<usize> = selection.iter().map(ExactSizeIterator::len).collect();
        if values.len() != count {
            return Err(DataError::format(&self.path, FORMAT, format!("{} values of {count}", values.len())));
        }
        let (from, to) = (grid::row_major(&size), self.axes.steps(range.len()));
        if (0..size.len()).all(|axis| from[axis] == to[axis] || size[axis] == 1) {
            return Ok(values.into_iter().map(|value| value.0).collect());
        }
        let mut output = grid::filled(&self.path, count, 0.0)?;
        let mut index = vec![0; size.len()];
        for value in values {
            output[index.iter().zip(&to).map(|(index, step)| index * step).sum::<usize>()] = value.0;
            grid::advance(&mut index, &size);
        }
        Ok(output)
    }
}

/// A number of any kind on its way to `f32`.
#[derive(Clone, Copy)]
struct Value(f32);

impl H5Type for Value {
    fn hdf5_type() -> Datatype {
        f32::hdf5_type()
    }

    fn from_bytes(bytes: &[u8], dtype: &Datatype) -> hdf5_reader::error::Result<Self> {
        let values = Self::decode_vec(bytes, dtype, 1).transpose()?.unwrap_or_default();
        values.first().copied().ok_or_else(|| Error::InvalidData(format!("{} is no number", kind(dtype))))
    }

    fn element_size(dtype: &Datatype) -> usize {
        numbers(dtype).map_or(0, |numbers| numbers.stored.size())
    }

    fn decode_vec(
        raw: &[u8],
        dtype: &Datatype,
        count: usize,
    ) -> Option<hdf5_reader::error::Result<Vec<Self>>> {
        let numbers = numbers(dtype)?;
        if count > raw.len() / numbers.stored.size() {
            return None;
        }
        let mut values = vec![0.0; count];
        numbers.copy(raw, 1, &mut values, 1, count);
        Some(Ok(values.into_iter().map(Value).collect()))
    }
}

fn numbers(dtype: &Datatype) -> Option<Numbers> {
    let (stored, order) = match dtype {
        Datatype::FixedPoint { size, signed, byte_order } => {
            let stored = match (size, signed) {
                (1, false) => Stored::U8,
                (1, true) => Stored::I8,
                (2, false) => Stored::U16,
                (2, true) => Stored::I16,
                (4, false) => Stored::U32,
                (4, true) => Stored::I32,
                (8, false) => Stored::U64,
                (8, true) => Stored::I64,
                _ => return None,
            };
            (stored, byte_order)
        }
        Datatype::FloatingPoint { size, byte_order } => {
            let stored = match size {
                2 => Stored::F16,
                4 => Stored::F32,
                8 => Stored::F64,
                _ => return None,
            };
            (stored, byte_order)
        }
        // h5py's booleans are an enumeration of bytes.
        Datatype::Enum { base, .. } => return numbers(base),
        _ => return None,
    };
    Some(Numbers { stored, big_endian: *order == ByteOrder::BigEndian })
}

fn kind(dtype: &Datatype) -> String {
    match numbers(dtype) {
        Some(numbers) => grid::name(numbers.stored).to_owned(),
        None => match dtype {
            Datatype::FixedPoint { size, .. } => format!("integer of {size} bytes"),
            Datatype::FloatingPoint { size, .. } => format!("float of {size} bytes"),
            Datatype::String { .. } => "text".to_owned(),
            Datatype::Compound { .. } => "compound".to_owned(),
            Datatype::Array { .. } => "array".to_owned(),
            Datatype::Enum { .. } => "enumeration".to_owned(),
            Datatype::VarLen { .. } => "variable length".to_owned(),
            Datatype::Opaque { .. } => "opaque".to_owned(),
            Datatype::Reference { .. } => "reference".to_owned(),
            Datatype::Bitfield { .. } => "bit field".to_owned(),
        },
    }
}

/// Whether the numbers use all their bits in the usual way. The crate tells only size and order, so that bfloat16
/// would pass for IEEE's half precision, and 12 bits in 16 for 16.
fn plain_bits(dataset: &Dataset) -> bool {
    let Ok(raw) = dataset.raw_datatype() else { return false };
    let number = |at: usize| raw.get(at..at + 2).map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let size = number(4);
    match raw.first().map(|class| class & 15) {
        Some(0) => number(8) == 0 && number(10) == size * 8,
        Some(1) => {
            let exponent = match size {
                2 => 5,
                4 => 8,
                _ => 11,
            };
            let mantissa = size * 8 - 1 - exponent;
            let fields = raw.get(8..20).unwrap_or_default();
            let vax = raw.get(1).is_none_or(|flags| flags & 0x40 != 0);
            let bias = (1u32 << (exponent - 1)) - 1;
            number(8) == 0
                && number(10) == size * 8
                && !vax
                && fields
                    .get(4..8)
                    .is_some_and(|f| f.iter().map(|&b| usize::from(b)).eq([mantissa, exponent, 0, mantissa]))
                && fields.get(8..).is_some_and(|f| f == bias.to_le_bytes())
        }
        // The base of an enumeration is an integer, which only deliberate work makes unusual.
        _ => true,
    }
}

fn shape(dataset: &Dataset) -> Option<Vec<usize>> {
    dataset.shape().iter().map(|&length| usize::try_from(length).ok()).collect()
}

/// `{"axes": [{"key": "z", …}, …]}` as vigra and ilastik write it.
fn axis_names(dataset: &Dataset) -> Option<Vec<String>> {
    let text = dataset.attribute("axistags").ok()?.read_string().ok()?;
    let tags: serde_json::Value = serde_json::from_str(&text).ok()?;
    tags.get("axes")?.as_array()?.iter().map(|axis| Some(axis.get("key")?.as_str()?.to_owned())).collect()
}

/// From micrometres to millimetres.
fn element_size(dataset: &Dataset) -> Option<[f64; 3]> {
    let attribute = dataset.attribute("element_size_um").ok()?;
    let sizes = attribute.read_1d::<f64>().or_else(|_| {
        Ok::<_, Error>(attribute.read_1d::<Value>()?.iter().map(|value| f64::from(value.0)).collect())
    });
    Some(<[f64; 3]>::try_from(sizes.ok()?).ok()?.map(|micrometres| micrometres / 1000.0))
}

/// Every array of the file, by its path. Links out of the file are not followed.
fn arrays(path: &Path, file: &Hdf5File) -> Result<Vec<Listed>> {
    let wrong = |error| translate(path, error);
    let mut found = Vec::new();
    let mut groups = vec![(String::new(), file.root_group().map_err(wrong)?)];
    // Links may lead back to a group above.
    let mut seen = HashSet::new();
    while let Some((prefix, group)) = groups.pop() {
        if !seen.insert(group.address()) || seen.len() > grid::MOST_ARRAYS {
            continue;
        }
        let (inner, names) = group.member_names().map_err(wrong)?;
        for name in names {
            if found.len() >= grid::MOST_ARRAYS {
                return Ok(found);
            }
            let full = format!("{prefix}{name}");
            found.push(match group.dataset(&name) {
                Ok(dataset) => Listed {
                    name: full,
                    shape: shape(&dataset).unwrap_or_default(),
                    kind: kind(dataset.dtype()),
                },
                Err(error) => {
                    Listed { name: full, shape: Vec::new(), kind: format!("(unreadable: {error})") }
                }
            });
        }
        for name in inner {
            if let Ok(inner) = group.group(&name) {
                groups.push((format!("{prefix}{name}/"), inner));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn is_missing(error: &Error) -> bool {
    match error {
        Error::DatasetNotFound(_) | Error::GroupNotFound(_) => true,
        Error::Context { source, .. } => is_missing(source),
        _ => false,
    }
}

fn translate(path: &Path, error: Error) -> DataError {
    match error {
        Error::Io(source) => DataError::io(path, "cannot read", source),
        other => DataError::format(path, FORMAT, other.to_string()),
    }
}

/// The crate's own filters and those that h5py, hdf5plugin and others write besides.
fn filters() -> FilterRegistry {
    let mut registry = FilterRegistry::new();
    let decoders: [(u16, codecs::Decode); 4] =
        [(32000, codecs::lzf), (32001, codecs::blosc), (32004, codecs::lz4_blocks), (32015, codecs::zstd)];
    for (id, decode) in decoders {
        registry.register(
            id,
            Box::new(move |_, bytes, _| {
                decode(bytes, grid::LARGEST_CHUNK).map_err(Error::DecompressionError)
            }),
        );
    }
    for (id, name) in [
        (305, "LZO"),
        (307, "bzip2"),
        (32008, "bitshuffle"),
        (32013, "ZFP"),
        (32017, "SZ"),
        (32026, "Blosc 2"),
    ] {
        registry.register(
            id,
            Box::new(move |_, _, _| {
                Err(Error::UnsupportedFilter(format!(
                    "{name}; store the array with gzip, LZF, LZ4, Blosc or Zstandard compression"
                )))
            }),
        );
    }
    registry
}
