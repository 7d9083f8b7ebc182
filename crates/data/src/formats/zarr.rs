//! Zarr, version 2 (<https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html>) and 3
//! (<https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html>), and what OME-Zarr
//! (<https://ngff.openmicroscopy.org/>) says about axes and scale.
//!
//! The reader is our own: the crates for Zarr bring a hundred dependencies, some of them in C. Integers and floats;
//! gzip, zlib, LZ4, Zstandard and Blosc; shards one level deep.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::codecs;
use super::grid::{self, Axes, BoxCopy, Listed, Numbers};
use super::raster::{Stored, checked_product};
use crate::error::{DataError, Result};
use crate::volume::{VolumeInfo, VolumeReader};

const FORMAT: &str = "Zarr";
/// Consolidated metadata of the largest collections stay far below.
const LARGEST_METADATA: u64 = 64 << 20;

/// Whether a path is the folder of a Zarr array or group.
pub fn is_zarr(path: &Path) -> bool {
    [".zarray", ".zgroup", "zarr.json"].iter().any(|name| path.join(name).is_file())
}

/// Opens an array `[d, h, w]` or `[c, d, h, w]`; `dataset` is its path in the folder and may be left out where the
/// folder is an array or holds only one of three or more dimensions. A group of OME-Zarr with several resolutions
/// stands for its first, the finest. Where axes have names (OME-Zarr, `dimension_names`, `_ARRAY_DIMENSIONS`), they may
/// come in any order, and those other than c, z, y and x must have length 1.
///
/// The spacing is the scale of OME-Zarr in its unit (as it stands where it has none), else the attribute
/// `element_size_um` (d, h, w in micrometres).
///
/// Slices are read by chunks, of which the last used 256 MiB are kept; a chunk that is missing holds the fill value.
///
/// # Errors
/// [`DataError::Content`] when there is no such array (with those there are) or it is no volume of numbers;
/// [`DataError::Format`] when metadata or a chunk are corrupt or of an unsupported kind; [`DataError::Io`].
pub fn open(path: &Path, dataset: Option<&str>) -> Result<Box<dyn VolumeReader>> {
    let folder = match dataset {
        Some(name) => {
            let inside = relative(name).ok_or_else(|| {
                DataError::content(
                    path,
                    format!("`{name}` is no place inside the folder, such as `volumes/raw`"),
                )
            })?;
            path.join(inside)
        }
        None => path.to_owned(),
    };
    let folder = match Node::read(&folder)? {
        Some(Node { array: Some(_), .. }) => folder,
        Some(Node { attributes, .. }) if finest(&attributes).is_some() => {
            folder.join(finest(&attributes).unwrap_or_default())
        }
        _ => {
            let arrays = arrays(path)?;
            match dataset {
                Some(name) => return Err(grid::no_such_array(path, name, &arrays)),
                None => path.join(&grid::only_volume(path, &arrays)?.name),
            }
        }
    };
    let Some(Node { array: Some(array), attributes }) = Node::read(&folder)? else {
        return Err(DataError::format(
            &folder,
            FORMAT,
            "no array, although the group's `multiscales` name it",
        ));
    };
    let problem = |problem| DataError::content(&folder, problem);
    let array = Array::parse(&array).map_err(problem)?;
    let (names, scale) = multiscale(&folder)?.unwrap_or_default();
    let names =
        names.or_else(|| array.names.clone()).or_else(|| strings(attributes.get("_ARRAY_DIMENSIONS")?));
    let axes = names.and_then(|names| Axes::by_names(&array.shape, &names));
    let axes = axes.unwrap_or_else(|| Axes::by_position(&array.shape)).map_err(problem)?;
    let spacing = match scale {
        Some(scale) if scale.len() == array.shape.len() => Some(axes.spatial().map(|axis| scale[axis])),
        _ => element_size(&attributes),
    };
    let info = axes.info(spacing);
    grid::plausible(&folder, FORMAT, &info, Lengths { folders: vec![folder.clone()], entries: None })?;
    Ok(Box::new(Reader { folder, array, axes, info, cache: Cache::default(), shard: None }))
}

/// A path that stays inside the folder; the root itself is empty.
fn relative(name: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for component in Path::new(name.trim_start_matches('/')).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(path)
}

/// What the metadata of a folder say.
struct Node {
    /// The array's own metadata; `None` for a group.
    array: Option<Value>,
    attributes: Value,
}

impl Node {
    /// `None` when the folder is no part of Zarr.
    fn read(folder: &Path) -> Result<Option<Self>> {
        if let Some(mut meta) = read_json(&folder.join("zarr.json"))? {
            let attributes = meta.get_mut("attributes").map(Value::take).unwrap_or_default();
            let is_array = meta.get("node_type").and_then(Value::as_str) == Some("array");
            return Ok(Some(Self { array: is_array.then_some(meta), attributes }));
        }
        let array = read_json(&folder.join(".zarray"))?;
        if array.is_none() && !folder.join(".zgroup").is_file() {
            return Ok(None);
        }
        Ok(Some(Self { array, attributes: read_json(&folder.join(".zattrs"))?.unwrap_or_default() }))
    }
}

fn read_json(path: &Path) -> Result<Option<Value>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(source) => return Err(DataError::io(path, "cannot read", source)),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST_METADATA)
        .read_to_end(&mut bytes)
        .map_err(|source| DataError::io(path, "cannot read", source))?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| DataError::format(path, FORMAT, format!("bad JSON: {error}")))
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| Some(item.as_str()?.to_owned())).collect()
}

fn lengths(value: &Value) -> Option<Vec<usize>> {
    value.as_array()?.iter().map(|item| usize::try_from(item.as_u64()?).ok()).collect()
}

/// The `multiscales` of OME-Zarr up to 0.4, or from 0.5 on.
fn multiscales(attributes: &Value) -> Option<&Value> {
    attributes.get("ome").unwrap_or(attributes).get("multiscales")?.get(0)
}

/// Path of the finest resolution.
fn finest(attributes: &Value) -> Option<PathBuf> {
    relative(multiscales(attributes)?.get("datasets")?.get(0)?.get("path")?.as_str()?)
}

type NamesAndScale = (Option<Vec<String>>, Option<Vec<f64>>);

/// Names of the axes and the scale in millimetres that the nearest group above gives an array.
fn multiscale(folder: &Path) -> Result<Option<NamesAndScale>> {
    /// Collections are plate / row / column / field / labels / name / level at the deepest.
    const LEVELS: usize = 8;
    for group in folder.ancestors().skip(1).take(LEVELS) {
        let Some(node) = Node::read(group)? else { break };
        let Some(scales) = multiscales(&node.attributes) else { continue };
        let level = scales.get("datasets").and_then(Value::as_array).into_iter().flatten().find(|level| {
            let place = level.get("path").and_then(Value::as_str).and_then(relative);
            place.is_some_and(|place| group.join(place) == folder)
        });
        let Some(level) = level else { continue };
        let axes = scales.get("axes").and_then(Value::as_array);
        // Up to 0.3 an axis is only its name.
        let name = |axis: &Value| Some(axis.get("name").unwrap_or(axis).as_str()?.to_owned());
        let names: Option<Vec<String>> = axes.and_then(|axes| axes.iter().map(name).collect());
        let unit = |axis: &Value| millimetres(axis.get("unit").and_then(Value::as_str));
        let units: Option<Vec<f64>> = axes.map(|axes| axes.iter().map(unit).collect());
        let scale = scale(level).map(|mut product| {
            if let Some(outer) = scale(scales).filter(|outer| outer.len() == product.len()) {
                product.iter_mut().zip(outer).for_each(|(step, outer)| *step *= outer);
            }
            product.iter_mut().zip(units.into_iter().flatten()).for_each(|(step, unit)| *step *= unit);
            product
        });
        return Ok(Some((names, scale)));
    }
    Ok(None)
}

fn scale(transformed: &Value) -> Option<Vec<f64>> {
    let transformations = transformed.get("coordinateTransformations")?.as_array()?;
    let scale = transformations.iter().find_map(|transformation| transformation.get("scale"))?;
    scale.as_array()?.iter().map(Value::as_f64).collect()
}

fn millimetres(unit: Option<&str>) -> f64 {
    match unit {
        Some("angstrom") => 1e-7,
        Some("nanometer") => 1e-6,
        Some("micrometer") => 1e-3,
        Some("centimeter") => 10.0,
        Some("meter") => 1000.0,
        _ => 1.0,
    }
}

fn element_size(attributes: &Value) -> Option<[f64; 3]> {
    let sizes: Option<Vec<f64>> = attributes
        .get("element_size_um")?
        .as_array()?
        .iter()
        .map(|size| Some(size.as_f64()? / 1000.0))
        .collect();
    sizes?.try_into().ok()
}

/// Every array below a folder.
fn arrays(path: &Path) -> Result<Vec<Listed>> {
    const DEEPEST: usize = 16;
    let mut found = Vec::new();
    let mut folders = vec![(String::new(), path.to_owned(), 0)];
    let mut seen = 0;
    while let Some((name, folder, depth)) = folders.pop() {
        seen += 1;
        if seen > grid::MOST_ARRAYS {
            break;
        }
        match Node::read(&folder) {
            Ok(Some(Node { array: Some(array), .. })) => {
                let shape = array.get("shape").and_then(lengths).unwrap_or_default();
                let kind = match Array::parse(&array) {
                    Ok(array) => grid::name(array.numbers.stored).to_owned(),
                    Err(problem) => format!("(unreadable: {problem})"),
                };
                found.push(Listed { name, shape, kind });
                continue;
            }
            Err(problem) if depth > 0 => {
                found.push(Listed { name, shape: Vec::new(), kind: format!("(unreadable: {problem})") });
                continue;
            }
            Err(problem) => return Err(problem),
            Ok(_) => {}
        }
        if depth == DEEPEST {
            continue;
        }
        let entries =
            std::fs::read_dir(&folder).map_err(|source| DataError::io(&folder, "cannot read", source))?;
        for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
            let inner = entry.file_name().to_string_lossy().into_owned();
            let name = if name.is_empty() { inner } else { format!("{name}/{inner}") };
            folders.push((name, entry.path(), depth + 1));
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Lengths of the files below a folder, found as they are asked for.
struct Lengths {
    folders: Vec<PathBuf>,
    entries: Option<std::fs::ReadDir>,
}

impl Iterator for Lengths {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        loop {
            let Some(entries) = &mut self.entries else {
                self.entries = std::fs::read_dir(self.folders.pop()?).ok();
                continue;
            };
            match entries.next() {
                None => self.entries = None,
                // Links to folders are not followed: they may lead round in circles.
                Some(Ok(entry)) if entry.file_type().is_ok_and(|kind| kind.is_dir()) => {
                    self.folders.push(entry.path())
                }
                Some(Ok(entry)) => return Some(std::fs::metadata(entry.path()).map_or(0, |meta| meta.len())),
                Some(Err(_)) => {}
            }
        }
    }
}

/// From bytes to bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Codec {
    Gzip,
    Zlib,
    Zstd,
    Lz4,
    Blosc,
    Shuffle(usize),
    Crc32c,
}

impl Codec {
    fn named(name: &str, settings: &Value) -> Result<Self, String> {
        Ok(match name.strip_prefix("numcodecs.").unwrap_or(name) {
            "gzip" => Self::Gzip,
            "zlib" => Self::Zlib,
            "zstd" => Self::Zstd,
            "lz4" => Self::Lz4,
            "blosc" => Self::Blosc,
            "crc32c" => Self::Crc32c,
            "shuffle" => {
                let size = settings.get("elementsize").and_then(Value::as_u64).unwrap_or(4);
                Self::Shuffle(usize::try_from(size.clamp(1, 256)).unwrap_or(1))
            }
            other => {
                return Err(format!(
                    "the codec `{other}` is not supported; accepted are blosc, crc32c, gzip, lz4, shuffle, zlib and zstd"
                ));
            }
        })
    }

    fn decode(self, bytes: Vec<u8>, most: usize) -> Result<Vec<u8>, String> {
        match self {
            Self::Gzip => codecs::gzip(&bytes, most),
            Self::Zlib => codecs::zlib(&bytes, most),
            Self::Zstd => codecs::zstd(&bytes, most),
            Self::Lz4 => codecs::lz4_with_length(&bytes, most),
            Self::Blosc => codecs::blosc(&bytes, most),
            Self::Shuffle(size) => Ok(codecs::unshuffle(&bytes, size)),
            Self::Crc32c => codecs::crc32c(&bytes).map(<[u8]>::to_vec),
        }
    }
}

/// Many chunks in one file, behind a table of their places.
#[derive(Debug, Clone, PartialEq)]
struct Shards {
    /// Chunks in a shard along each axis.
    chunks: Vec<usize>,
    index_at_end: bool,
    index_big_endian: bool,
    index_has_checksum: bool,
}

impl Shards {
    fn index_length(&self) -> usize {
        self.chunks.iter().product::<usize>() * 16 + if self.index_has_checksum { 4 } else { 0 }
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Array {
    shape: Vec<usize>,
    /// Of the smallest piece that is decoded at once.
    chunk: Vec<usize>,
    numbers: Numbers,
    fill: f32,
    /// Distance of neighbours in a decoded chunk along each axis.
    steps: Vec<usize>,
    /// In the order of writing.
    codecs: Vec<Codec>,
    shards: Option<Shards>,
    key_prefix: &'static str,
    separator: &'static str,
    names: Option<Vec<String>>,
}

fn separator(value: Option<&Value>, otherwise: &'static str) -> Result<&'static str, String> {
    match value.map(|value| (value, value.as_str())) {
        None | Some((Value::Null, _)) => Ok(otherwise),
        Some((_, Some("."))) => Ok("."),
        Some((_, Some("/"))) => Ok("/"),
        Some((other, _)) => {
            Err(format!("the separator {other} of chunk names; accepted are \".\" and \"/\""))
        }
    }
}

impl Array {
    fn parse(meta: &Value) -> Result<Self, String> {
        let array = match meta.get("zarr_format").and_then(Value::as_u64) {
            Some(2) => Self::version_2(meta)?,
            Some(3) => Self::version_3(meta)?,
            _ => return Err("`zarr_format` is missing or other than 2 and 3".to_owned()),
        };
        let bytes = checked_product(array.chunk.iter().copied().chain([array.numbers.stored.size()]));
        if array.chunk.contains(&0) || bytes.is_none_or(|bytes| bytes > grid::LARGEST_CHUNK) {
            return Err(format!(
                "chunks of shape {:?}; accepted are such of 1 value to {} bytes",
                array.chunk,
                grid::LARGEST_CHUNK
            ));
        }
        Ok(array)
    }

    fn version_2(meta: &Value) -> Result<Self, String> {
        let (shape, chunk) = shapes(meta.get("shape"), meta.get("chunks"))?;
        let kind = meta.get("dtype").and_then(Value::as_str).ok_or("`dtype` is not that of plain numbers")?;
        let (order, name) = kind.split_at_checked(1).unwrap_or_default();
        let stored = Stored::from_numpy(name)
            .ok_or_else(|| format!("numbers of the kind `{kind}`; accepted are bool, integers and floats"))?;
        let numbers = Numbers { stored, big_endian: order == ">" };
        let steps = match meta.get("order").and_then(Value::as_str) {
            Some("F") => {
                let reversed: Vec<usize> = chunk.iter().rev().copied().collect();
                row_major(&reversed)?.into_iter().rev().collect()
            }
            _ => row_major(&chunk)?,
        };
        let listed = meta.get("filters").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut codecs = Vec::new();
        for codec in listed.iter().chain(meta.get("compressor")).filter(|codec| !codec.is_null()) {
            codecs.push(Codec::named(codec.get("id").and_then(Value::as_str).unwrap_or_default(), codec)?);
        }
        Ok(Self {
            shape,
            chunk,
            numbers,
            fill: fill(meta.get("fill_value"), stored),
            steps,
            codecs,
            shards: None,
            key_prefix: "",
            separator: separator(meta.get("dimension_separator"), ".")?,
            names: None,
        })
    }

    fn version_3(meta: &Value) -> Result<Self, String> {
        let grid = meta.get("chunk_grid").ok_or("`chunk_grid` is missing")?;
        if name(grid) != "regular" {
            return Err(format!("the chunk grid `{}`; accepted is `regular`", name(grid)));
        }
        let (shape, mut chunk) = shapes(meta.get("shape"), settings(grid).get("chunk_shape"))?;
        let kind = meta.get("data_type").map(name).unwrap_or_default();
        let stored = match kind {
            "bool" => Stored::Bool,
            "uint8" => Stored::U8,
            "int8" => Stored::I8,
            "uint16" => Stored::U16,
            "int16" => Stored::I16,
            "uint32" => Stored::U32,
            "int32" => Stored::I32,
            "uint64" => Stored::U64,
            "int64" => Stored::I64,
            "float16" => Stored::F16,
            "float32" => Stored::F32,
            "float64" => Stored::F64,
            _ => return Err(format!("numbers of the kind `{kind}`; accepted are bool, integers and floats")),
        };
        let keys = meta.get("chunk_key_encoding").ok_or("`chunk_key_encoding` is missing")?;
        let (key_prefix, otherwise) = match name(keys) {
            "default" => ("c", "/"),
            "v2" => ("", "."),
            other => return Err(format!("the chunk names `{other}`; accepted are `default` and `v2`")),
        };
        let separator = separator(settings(keys).get("separator"), otherwise)?;
        if meta.get("storage_transformers").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
            return Err("storage transformers are not supported".to_owned());
        }
        let mut shards = None;
        let mut listed = meta.get("codecs").unwrap_or(&Value::Null);
        if let Some([only]) = listed.as_array().map(Vec::as_slice)
            && name(only) == "sharding_indexed"
        {
            let settings = settings(only);
            let inner = settings.get("chunk_shape").and_then(lengths).unwrap_or_default();
            if inner.len() != chunk.len()
                || inner
                    .iter()
                    .zip(&chunk)
                    .any(|(&inner, &shard)| inner == 0 || shard == 0 || shard % inner != 0)
            {
                return Err(format!(
                    "shards of shape {chunk:?} that are no multiple of their chunks {inner:?}"
                ));
            }
            let index = Chain::parse(settings.get("index_codecs").unwrap_or(&Value::Null), 1)?;
            if index.order.is_some()
                || index.codecs.iter().any(|codec| *codec != Codec::Crc32c)
                || index.codecs.len() > 1
            {
                return Err(
                    "a shard's index with codecs other than bytes and crc32c is not supported".to_owned()
                );
            }
            let counts: Vec<usize> = chunk.iter().zip(&inner).map(|(shard, inner)| shard / inner).collect();
            if checked_product(counts.iter().copied()).is_none_or(|count| count > 1 << 26) {
                return Err(format!("shards of {counts:?} chunks"));
            }
            shards = Some(Shards {
                chunks: counts,
                index_at_end: settings.get("index_location").and_then(Value::as_str) != Some("start"),
                index_big_endian: index.big_endian,
                index_has_checksum: !index.codecs.is_empty(),
            });
            chunk = inner;
            listed = settings.get("codecs").unwrap_or(&Value::Null);
        }
        let Chain { order, big_endian, codecs } = Chain::parse(listed, shape.len())?;
        let mut steps = row_major(&chunk)?;
        if let Some(order) = order {
            let permuted: Vec<usize> = order.iter().map(|&axis| chunk[axis]).collect();
            for (&axis, step) in order.iter().zip(row_major(&permuted)?) {
                steps[axis] = step;
            }
        }
        Ok(Self {
            shape,
            chunk,
            numbers: Numbers { stored, big_endian },
            fill: fill(meta.get("fill_value"), stored),
            steps,
            codecs,
            shards,
            key_prefix,
            separator,
            names: meta.get("dimension_names").and_then(strings),
        })
    }

    /// Name of the file of a chunk or shard.
    fn key(&self, index: &[usize]) -> String {
        let numbers = index.iter().map(usize::to_string);
        let prefix = Some(self.key_prefix.to_owned()).filter(|prefix| !prefix.is_empty());
        prefix.into_iter().chain(numbers).collect::<Vec<_>>().join(self.separator)
    }

    /// Bytes of a decoded chunk.
    fn chunk_bytes(&self) -> usize {
        self.chunk.iter().product::<usize>() * self.numbers.stored.size()
    }

    /// A chunk may be a little longer when it does not compress.
    fn most(&self) -> usize {
        self.chunk_bytes() + self.chunk_bytes() / 8 + (1 << 16)
    }

    fn decode(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        let expected = self.chunk_bytes();
        if !codecs::plausible(bytes.len(), expected) {
            return Err(format!("{} bytes for a chunk of {expected}", bytes.len()));
        }
        for codec in self.codecs.iter().rev() {
            bytes = codec.decode(bytes, self.most())?;
        }
        if bytes.len() != expected {
            return Err(format!("a chunk of {} bytes where {expected} are expected", bytes.len()));
        }
        Ok(bytes)
    }
}

/// The codecs of version 3 in order: of arrays, one to bytes, of bytes.
struct Chain {
    /// Axis that each axis of the stored chunk is.
    order: Option<Vec<usize>>,
    big_endian: bool,
    codecs: Vec<Codec>,
}

impl Chain {
    fn parse(list: &Value, rank: usize) -> Result<Self, String> {
        let mut chain = Self { order: None, big_endian: false, codecs: Vec::new() };
        let mut is_bytes = false;
        for codec in list.as_array().ok_or("`codecs` is missing")? {
            match name(codec) {
                "transpose" if !is_bytes && chain.order.is_none() => {
                    let order = settings(codec).get("order").and_then(lengths).unwrap_or_default();
                    let mut sorted = order.clone();
                    sorted.sort_unstable();
                    if !sorted.into_iter().eq(0..rank) {
                        return Err(format!("the order {order:?} of `transpose` for {rank} axes"));
                    }
                    chain.order = Some(order);
                }
                "bytes" if !is_bytes => {
                    is_bytes = true;
                    chain.big_endian = settings(codec).get("endian").and_then(Value::as_str) == Some("big");
                }
                "sharding_indexed" => {
                    return Err(
                        "shards are supported only as the one codec of an array, one level deep".to_owned()
                    );
                }
                other if is_bytes => chain.codecs.push(Codec::named(other, settings(codec))?),
                other => return Err(format!("the codec `{other}` before `bytes` is not supported")),
            }
        }
        if is_bytes { Ok(chain) } else { Err("no codec `bytes`".to_owned()) }
    }
}

/// Name of an extension point of version 3, which may stand alone.
fn name(value: &Value) -> &str {
    value.as_str().or_else(|| value.get("name")?.as_str()).unwrap_or_default()
}

fn settings(value: &Value) -> &Value {
    value.get("configuration").unwrap_or(&Value::Null)
}

fn shapes(shape: Option<&Value>, chunk: Option<&Value>) -> Result<(Vec<usize>, Vec<usize>), String> {
    /// NumPy's own limit.
    const MOST_AXES: usize = 64;
    let shape = shape.and_then(lengths).ok_or("`shape` is missing or no list of lengths")?;
    let chunk = chunk.and_then(lengths).ok_or("the shape of chunks is missing or no list of lengths")?;
    if shape.len() != chunk.len() || shape.len() > MOST_AXES {
        return Err(format!("chunks of shape {chunk:?} in an array of shape {shape:?}"));
    }
    Ok((shape, chunk))
}

fn row_major(shape: &[usize]) -> Result<Vec<usize>, String> {
    checked_product(shape.iter().copied())
        .ok_or_else(|| format!("chunks of shape {shape:?} do not fit the memory"))?;
    Ok(grid::row_major(shape))
}

/// The value of missing chunks; 0 where none is given.
fn fill(value: Option<&Value>, stored: Stored) -> f32 {
    match value {
        Some(Value::Bool(value)) => f32::from(u8::from(*value)),
        Some(Value::Number(number)) => number.as_f64().unwrap_or_default() as f32,
        Some(Value::String(text)) => match text.as_str() {
            "NaN" => f32::NAN,
            "Infinity" => f32::INFINITY,
            "-Infinity" => f32::NEG_INFINITY,
            // Version 3 may give the bits.
            other => {
                let bits = other.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
                let bits = bits.unwrap_or_default();
                match stored {
                    Stored::F16 => half::f16::from_bits(bits as u16).to_f32(),
                    Stored::F32 => f32::from_bits(bits as u32),
                    _ => f64::from_bits(bits) as f32,
                }
            }
        },
        _ => 0.0,
    }
}

/// The decoded bytes of a chunk; `None` where it is missing.
type Chunk = Option<Arc<Vec<u8>>>;

/// Decoded chunks, the least recently used of which make room.
#[derive(Default)]
struct Cache {
    chunks: HashMap<Vec<usize>, (u64, Chunk)>,
    bytes: usize,
    clock: u64,
}

impl Cache {
    fn get(&mut self, index: &[usize]) -> Option<Chunk> {
        self.clock += 1;
        let (used, chunk) = self.chunks.get_mut(index)?;
        *used = self.clock;
        Some(chunk.clone())
    }

    fn put(&mut self, index: Vec<usize>, chunk: Chunk) {
        /// Memory of an entry besides the chunk's bytes, roughly.
        const ENTRY: usize = 128;
        let size = |chunk: &Chunk| ENTRY + chunk.as_ref().map_or(0, |bytes| bytes.len());
        self.bytes += size(&chunk);
        if self.bytes > grid::CACHE_BYTES {
            // The older half goes at once, so that looking for the oldest costs little a chunk.
            let mut ages: Vec<u64> = self.chunks.values().map(|(used, _)| *used).collect();
            ages.sort_unstable();
            let keep_from = ages.get(ages.len() / 2).copied().unwrap_or(self.clock) + 1;
            self.chunks.retain(|_, (used, _)| *used >= keep_from);
            self.bytes = size(&chunk) + self.chunks.values().map(|(_, chunk)| size(chunk)).sum::<usize>();
        }
        self.clock += 1;
        self.chunks.insert(index, (self.clock, chunk));
    }
}

/// Offset and length in the file of each chunk of a shard.
type ShardTable = Vec<(u64, u64)>;

/// An open shard.
struct Shard {
    index: Vec<usize>,
    /// `None` when the shard is missing.
    content: Option<(File, PathBuf, ShardTable)>,
}

struct Reader {
    folder: PathBuf,
    array: Array,
    axes: Axes,
    info: VolumeInfo,
    cache: Cache,
    shard: Option<Shard>,
}

impl VolumeReader for Reader {
    fn info(&self) -> &VolumeInfo {
        &self.info
    }

    fn slices(&mut self, range: Range<usize>) -> Result<Vec<f32>> {
        let count = grid::count(&self.folder, &self.info, &range)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut output = grid::filled(&self.folder, count, self.array.fill)?;
        let selection = self.axes.selection(&range);
        let to_steps = self.axes.steps(range.len());
        let chunk = self.array.chunk.clone();
        let first: Vec<usize> =
            selection.iter().zip(&chunk).map(|(part, chunk)| part.start / chunk).collect();
        let counts: Vec<usize> =
            (0..chunk.len()).map(|axis| selection[axis].end.div_ceil(chunk[axis]) - first[axis]).collect();
        let mut place = vec![0; chunk.len()];
        loop {
            let index: Vec<usize> = place.iter().zip(&first).map(|(place, first)| place + first).collect();
            if let Some(bytes) = self.chunk(&index)? {
                let (mut size, mut from, mut to) = (Vec::new(), 0, 0);
                for axis in 0..chunk.len() {
                    let start = index[axis] * chunk[axis];
                    let begin = selection[axis].start.max(start);
                    let end = selection[axis].end.min(start.saturating_add(chunk[axis]));
                    size.push(end - begin);
                    from += (begin - start) * self.array.steps[axis];
                    to += (begin - selection[axis].start) * to_steps[axis];
                }
                let copy = BoxCopy {
                    numbers: self.array.numbers,
                    size: &size,
                    from_steps: &self.array.steps,
                    to_steps: &to_steps,
                };
                copy.run(&bytes, from, &mut output, to);
            }
            if !grid::advance(&mut place, &counts) {
                return Ok(output);
            }
        }
    }
}

impl Reader {
    fn chunk(&mut self, index: &[usize]) -> Result<Chunk> {
        if let Some(chunk) = self.cache.get(index) {
            return Ok(chunk);
        }
        let stored = match self.array.shards.clone() {
            Some(shards) => self.chunk_of_shard(&shards, index)?,
            None => {
                let path = self.folder.join(self.array.key(index));
                open_chunk(&path)?
                    .map(|file| read_chunk(file, &path, self.array.most() as u64))
                    .transpose()?
            }
        };
        let decode = |bytes| {
            self.array.decode(bytes).map(Arc::new).map_err(|problem| {
                DataError::format(&self.folder, FORMAT, format!("chunk {index:?}: {problem}"))
            })
        };
        let chunk = stored.map(decode).transpose()?;
        self.cache.put(index.to_vec(), chunk.clone());
        Ok(chunk)
    }

    fn chunk_of_shard(&mut self, shards: &Shards, index: &[usize]) -> Result<Option<Vec<u8>>> {
        /// Offset and length of a chunk that is not there.
        const MISSING: (u64, u64) = (u64::MAX, u64::MAX);
        let shard_index: Vec<usize> =
            index.iter().zip(&shards.chunks).map(|(index, count)| index / count).collect();
        if self.shard.as_ref().is_none_or(|shard| shard.index != shard_index) {
            let path = self.folder.join(self.array.key(&shard_index));
            let content = match open_chunk(&path)? {
                Some(mut file) => {
                    let table = shard_table(&mut file, &path, shards)?;
                    Some((file, path, table))
                }
                None => None,
            };
            self.shard = Some(Shard { index: shard_index, content });
        }
        let Some(Shard { content: Some((file, path, table)), .. }) = &mut self.shard else { return Ok(None) };
        let inside = index.iter().zip(&shards.chunks).map(|(index, count)| index % count);
        let position: usize =
            inside.zip(grid::row_major(&shards.chunks)).map(|(index, step)| index * step).sum();
        let entry = table.get(position).copied().unwrap_or(MISSING);
        if entry == MISSING {
            return Ok(None);
        }
        let (offset, length) = entry;
        if length > self.array.most() as u64 {
            return Err(DataError::format(
                &*path,
                FORMAT,
                format!("chunk {index:?} of {length} bytes in a shard"),
            ));
        }
        let io = |source| DataError::io(&*path, "cannot read", source);
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 != length {
            return Err(DataError::format(
                &*path,
                FORMAT,
                format!("chunk {index:?} lies beyond the end of the shard"),
            ));
        }
        Ok(Some(bytes))
    }
}

fn open_chunk(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataError::io(path, "cannot read", source)),
    }
}

fn read_chunk(file: File, path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| DataError::io(path, "cannot read", source))?;
    if bytes.len() as u64 > most {
        return Err(DataError::format(path, FORMAT, format!("more than {most} bytes for one chunk")));
    }
    Ok(bytes)
}

fn shard_table(file: &mut File, path: &Path, shards: &Shards) -> Result<ShardTable> {
    let io = |source| DataError::io(path, "cannot read", source);
    let length = shards.index_length();
    let total = file.metadata().map_err(io)?.len();
    let Some(before_end) = total.checked_sub(length as u64) else {
        return Err(DataError::format(
            path,
            FORMAT,
            format!("{total} bytes, less than a shard's index of {length}"),
        ));
    };
    file.seek(SeekFrom::Start(if shards.index_at_end { before_end } else { 0 })).map_err(io)?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes).map_err(io)?;
    let table = if shards.index_has_checksum {
        codecs::crc32c(&bytes)
            .map_err(|problem| DataError::format(path, FORMAT, format!("the shard's index: {problem}")))?
    } else {
        &bytes
    };
    let number =
        |bytes| if shards.index_big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) };
    Ok(table
        .as_chunks::<8>()
        .0
        .as_chunks::<2>()
        .0
        .iter()
        .map(|&[offset, length]| (number(offset), number(length)))
        .collect())
}
