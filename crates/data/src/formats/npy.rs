//! NumPy arrays: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
//!
//! The reader is our own: the header of a `.npy` file is a Python literal, and general parsers of it recurse
//! and multiply the dimensions without a bound, so that a corrupt file could bring the process down. The
//! tests compare reader and writer with the `npyz` crate.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::raster::{Raster, Samples, Stored, checked_product};
use super::volume_raw::{Input, Layout, RawVolume, Source};
use crate::atomic::write_atomic;
use crate::error::{DataError, Result};
use crate::image::{Image, Labels};
use crate::volume::{Geometry, VolumeInfo};

const FORMAT: &str = "NPY";
pub(super) const MAGIC: [u8; 6] = *b"\x93NUMPY";
/// NumPy itself refuses more than 10 000.
const LONGEST_HEADER: usize = 1 << 16;

/// What the header of an array says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Length of each axis; all are at least 1.
    pub shape: Vec<usize>,
    stored: Stored,
    big_endian: bool,
    fortran_order: bool,
}

impl Header {
    /// (pictures, height, width) of an array `[h, w]`, `[n, h, w]`, `[n, 1, h, w]` or `[n, h, w, 1]`.
    ///
    /// # Errors
    /// [`DataError::Content`] with the shape for any other.
    pub fn pictures(&self, path: &Path) -> Result<(usize, usize, usize)> {
        pictures(&self.shape, path)
    }
}

fn pictures(shape: &[usize], path: &Path) -> Result<(usize, usize, usize)> {
    match *shape {
        [h, w] => Ok((1, h, w)),
        [n, h, w] | [n, 1, h, w] | [n, h, w, 1] => Ok((n, h, w)),
        _ => Err(DataError::content(
            path,
            format!(
                "an array of shape {shape:?}; accepted are [h, w], [n, h, w], [n, 1, h, w] and [n, h, w, 1]"
            ),
        )),
    }
}

/// An array in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// Values, the last axis running fastest whatever the order in the file.
    pub samples: Samples,
}

impl Array {
    /// As images, first axis first; see [`Header::pictures`] for the accepted shapes.
    ///
    /// # Errors
    /// [`DataError::Content`] for any other shape.
    pub fn into_images(self, path: &Path) -> Result<Vec<Image>> {
        let (_, height, width) = pictures(&self.shape, path)?;
        let pixels = self.samples.into_f32();
        Ok(pixels.chunks_exact(width * height).map(|p| Image { width, height, pixels: p.to_vec() }).collect())
    }

    /// As label maps, first axis first.
    ///
    /// # Errors
    /// [`DataError::Content`] for a shape that is not accepted and for values that are not 32-bit integers.
    pub fn into_labels(self, path: &Path) -> Result<Vec<Labels>> {
        let (_, height, width) = pictures(&self.shape, path)?;
        let values = self.samples.into_labels(path)?;
        Ok(values
            .chunks_exact(width * height)
            .map(|v| Labels { width, height, values: v.to_vec() })
            .collect())
    }

    fn into_raster(self, path: &Path) -> Result<Raster> {
        match pictures(&self.shape, path)? {
            (1, height, width) => {
                Ok(Raster { width, height, channels: 1, samples: self.samples, palette: None })
            }
            (count, ..) => Err(DataError::content(
                path,
                format!(
                    "an array of {count} pictures (shape {:?}); one picture a file is accepted here",
                    self.shape
                ),
            )),
        }
    }
}

/// Reads the header alone.
///
/// # Errors
/// [`DataError::Format`] when it is not a NumPy array of numbers or booleans; [`DataError::Io`].
pub fn read_header(path: &Path) -> Result<Header> {
    let (mut reader, _) = open(path)?;
    Ok(parse_header(&mut reader, path)?.0)
}

/// Reads an array of any shape.
///
/// # Errors
/// [`DataError::Format`] when it is not a complete NumPy array of numbers or booleans; [`DataError::Io`].
pub fn read(path: &Path) -> Result<Array> {
    let (mut reader, length) = open(path)?;
    parse(&mut reader, Some(length), path)
}

/// Reads an array as images: `[h, w]`, `[n, h, w]`, `[n, 1, h, w]` or `[n, h, w, 1]`.
///
/// # Errors
/// As for [`read`], and [`DataError::Content`] for any other shape.
pub fn read_images(path: &Path) -> Result<Vec<Image>> {
    read(path)?.into_images(path)
}

pub(super) fn read_raster(path: &Path) -> Result<Raster> {
    read(path)?.into_raster(path)
}

/// [`read`] from bytes in memory; `path` is only used in messages.
///
/// # Errors
/// As for [`read`].
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Array> {
    parse(&mut &bytes[..], Some(bytes.len() as u64), path)
}

/// An array `[d, h, w]`, `[c, d, h, w]`, `[d, h, w, 1]` or, as a single slice, `[h, w]` as a volume; `length`
/// is that of the file.
///
/// # Errors
/// As for [`read`], and [`DataError::Content`] with the shape for any other.
pub(super) fn open_volume(mut input: Box<dyn Input>, length: u64, path: &Path) -> Result<RawVolume> {
    let (header, start) = parse_header(&mut input, path)?;
    let (channels, shape) = match header.shape[..] {
        [h, w] => (None, [1, h, w]),
        // One column would be no volume.
        [d, h, w] | [d, h, w, 1] => (None, [d, h, w]),
        [c, d, h, w] => (Some(c), [d, h, w]),
        ref other => {
            return Err(DataError::content(
                path,
                format!(
                    "an array of shape {other:?}; as volumes are accepted [d, h, w], [c, d, h, w] and [d, h, w, 1]"
                ),
            ));
        }
    };
    // Products of a shape fit, as the header's reader has checked.
    let [d, h, w] = shape;
    let steps = if header.fortran_order {
        let first = channels.unwrap_or(1);
        [1, first, first * d, first * d * h]
    } else {
        [d * h * w, h * w, w, 1]
    };
    let channels = channels.unwrap_or(1);
    let info = VolumeInfo { channels, shape, geometry: Geometry::default() };
    let layout = Layout {
        start,
        number: header.stored,
        big_endian: header.big_endian,
        steps,
        reversed: [false; 3],
        scale: None,
    };
    RawVolume::new(path, FORMAT, info, layout, Source::Plain(input), length)
}

fn open(path: &Path) -> Result<(BufReader<File>, u64)> {
    let failed = |source| DataError::io(path, "cannot read", source);
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    Ok((BufReader::with_capacity(1 << 16, file), length))
}

fn read_failed(error: std::io::Error, path: &Path, while_reading: &str) -> DataError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            DataError::format(path, FORMAT, format!("the file ends within {while_reading}"))
        }
        // What the decoders of a compressed archive report.
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData | std::io::ErrorKind::Other => {
            DataError::format(path, FORMAT, format!("{error}, in {while_reading}"))
        }
        _ => DataError::io(path, "cannot read", error),
    }
}

/// The header and its length in bytes.
pub(super) fn parse_header(reader: &mut dyn Read, path: &Path) -> Result<(Header, u64)> {
    let wrong = |problem: String| DataError::format(path, FORMAT, problem);
    let mut start = [0u8; 8];
    reader.read_exact(&mut start).map_err(|error| read_failed(error, path, "the header"))?;
    if start[..6] != MAGIC {
        return Err(wrong("it does not start with \\x93NUMPY".into()));
    }
    let mut number = [0u8; 4];
    let width = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(wrong(format!("version {version}; 1, 2 and 3 are accepted"))),
    };
    reader.read_exact(&mut number[..width]).map_err(|error| read_failed(error, path, "the header"))?;
    let length = u32::from_le_bytes(number) as usize;
    if length > LONGEST_HEADER {
        return Err(wrong(format!("a header of {length} bytes; {LONGEST_HEADER} are accepted")));
    }
    let mut text = vec![0u8; length];
    reader.read_exact(&mut text).map_err(|error| read_failed(error, path, "the header"))?;
    let text = std::str::from_utf8(&text).map_err(|_| wrong("the header is not text".into()))?;
    let header = parse_dictionary(text).map_err(wrong)?;
    Ok((header, (8 + width + length) as u64))
}

pub(super) fn parse(reader: &mut dyn Read, length: Option<u64>, path: &Path) -> Result<Array> {
    let wrong = |problem: String| DataError::format(path, FORMAT, problem);
    let (header, header_bytes) = parse_header(reader, path)?;
    let count = header.shape.iter().product::<usize>();
    let needed = (count * header.stored.size()) as u64;
    if let Some(present) = length.map(|length| length.saturating_sub(header_bytes))
        && present < needed
    {
        return Err(wrong(format!(
            "shape {:?} needs {needed} bytes, but the file has {present}",
            header.shape
        )));
    }
    let samples = header
        .stored
        .read(reader, count, header.big_endian, length.is_some())
        .map_err(|error| read_failed(error, path, "the values"))?;
    let shape = header.shape;
    let samples = if header.fortran_order { first_axis_last(samples, &shape) } else { samples };
    Ok(Array { shape, samples })
}

/// From Fortran order (first axis fastest) to C order (last axis fastest).
fn first_axis_last(samples: Samples, shape: &[usize]) -> Samples {
    fn reorder<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
        let mut index = vec![0usize; shape.len()];
        let mut steps = Vec::with_capacity(shape.len());
        let mut step = 1;
        for &length in shape {
            steps.push(step);
            step *= length;
        }
        let mut ordered = Vec::with_capacity(values.len());
        let mut from = 0;
        while ordered.len() < values.len() {
            ordered.push(values[from]);
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                from += steps[axis];
                if index[axis] < shape[axis] {
                    break;
                }
                from -= steps[axis] * shape[axis];
                index[axis] = 0;
            }
        }
        ordered
    }
    match samples {
        Samples::U8(v) => Samples::U8(reorder(&v, shape)),
        Samples::I8(v) => Samples::I8(reorder(&v, shape)),
        Samples::U16(v) => Samples::U16(reorder(&v, shape)),
        Samples::I16(v) => Samples::I16(reorder(&v, shape)),
        Samples::U32(v) => Samples::U32(reorder(&v, shape)),
        Samples::I32(v) => Samples::I32(reorder(&v, shape)),
        Samples::U64(v) => Samples::U64(reorder(&v, shape)),
        Samples::I64(v) => Samples::I64(reorder(&v, shape)),
        Samples::F32(v) => Samples::F32(reorder(&v, shape)),
        Samples::F64(v) => Samples::F64(reorder(&v, shape)),
    }
}

/// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, keys in any order.
fn parse_dictionary(text: &str) -> Result<Header, String> {
    let mut scan = Scan { rest: text };
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    scan.expect('{')?;
    while !scan.take('}') {
        let key = scan.string()?;
        scan.expect(':')?;
        match key {
            "descr" if scan.peek() == Some('[') => {
                return Err("a structured array; arrays of plain numbers or booleans are accepted".into());
            }
            "descr" => descr = Some(scan.string()?),
            "fortran_order" => {
                fortran_order = Some(match scan.word() {
                    "True" => true,
                    "False" => false,
                    other => return Err(format!("fortran_order is `{other}`")),
                });
            }
            "shape" => shape = Some(scan.dimensions()?),
            other => return Err(format!("unknown header key `{other}`")),
        }
        if !scan.take(',') {
            scan.expect('}')?;
            break;
        }
    }
    let missing = |key| format!("the header has no `{key}`");
    let descr = descr.ok_or_else(|| missing("descr"))?;
    let shape = shape.ok_or_else(|| missing("shape"))?;
    let fortran_order = fortran_order.ok_or_else(|| missing("fortran_order"))?;

    let big_endian = match descr.as_bytes().first() {
        Some(b'<' | b'|' | b'=') => false,
        Some(b'>') => true,
        _ => return Err(format!("unknown number type `{descr}`")),
    };
    let stored = Stored::from_numpy(&descr[1..]).ok_or_else(|| {
        format!("values of type `{descr}`; booleans, integers and floats of 2 to 8 bytes are accepted")
    })?;
    if shape.contains(&0) {
        return Err(format!("an empty array of shape {shape:?}"));
    }
    checked_product(shape.iter().copied().chain([8]))
        .ok_or_else(|| format!("shape {shape:?} is too large"))?;
    Ok(Header { shape, stored, big_endian, fortran_order })
}

/// A scanner for the few Python literals of a header; it never recurses.
struct Scan<'a> {
    rest: &'a str,
}

impl<'a> Scan<'a> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.rest = &self.rest[wanted.len_utf8()..];
        }
        found
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.take(wanted) { Ok(()) } else { Err(self.unexpected(&format!("`{wanted}`"))) }
    }

    fn unexpected(&mut self, wanted: &str) -> String {
        match self.peek() {
            Some(found) => format!("expected {wanted} in the header, found `{found}`"),
            None => format!("expected {wanted} in the header, found its end"),
        }
    }

    fn string(&mut self) -> Result<&'a str, String> {
        for quote in ['\'', '"'] {
            if self.take(quote) {
                let end = self.rest.find(quote).ok_or("a text in the header is not closed")?;
                let text = &self.rest[..end];
                self.rest = &self.rest[end + 1..];
                return Ok(text);
            }
        }
        Err(self.unexpected("a quoted text"))
    }

    fn word(&mut self) -> &'a str {
        self.peek();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn dimensions(&mut self) -> Result<Vec<usize>, String> {
        let mut shape = Vec::new();
        self.expect('(')?;
        while !self.take(')') {
            let word = self.word();
            // Python 2 wrote long integers as `3L`.
            let digits = word.strip_suffix('L').unwrap_or(word);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(format!("a dimension `{word}` that is not a number"));
            }
            shape.push(digits.parse().map_err(|_| format!("a dimension of {digits}"))?);
            if !self.take(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(shape)
    }
}

/// Number types that arrays are written in.
pub(super) trait Number: Copy {
    const DESCR: &'static str;
    fn put(self, bytes: &mut Vec<u8>);
}

macro_rules! numbers {
    ($($type:ty = $descr:literal),*) => {
        $(impl Number for $type {
            const DESCR: &'static str = $descr;
            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }
        })*
    };
}
numbers!(u8 = "|u1", i16 = "<i2", u16 = "<u2", i32 = "<i4", f32 = "<f4");

pub(super) fn to_bytes<T: Number>(shape: &[usize], values: impl Iterator<Item = T>) -> Vec<u8> {
    let sizes: String = shape.iter().map(|length| format!("{length}, ")).collect();
    let dictionary =
        format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", T::DESCR, sizes.trim_end());
    // The format asks that magic (6), version (2), length (2), dictionary and newline end at a multiple of 64.
    let length = (10 + dictionary.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    // At most 4 axes of 20 digits: far below 65536.
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{dictionary:<width$}\n", width = length - 1).bytes());
    for value in values {
        value.put(&mut bytes);
    }
    bytes
}

/// The one size of all pictures, given as (width, height, values).
pub(super) fn common_size(
    path: &Path,
    sizes: impl Iterator<Item = (usize, usize, usize)>,
) -> Result<(usize, usize)> {
    let mut common = None;
    for (width, height, values) in sizes {
        super::writable_size(path, width, height, values)?;
        let (w, h) = *common.get_or_insert((width, height));
        if (w, h) != (width, height) {
            return Err(DataError::content(
                path,
                format!("an array needs pictures of one size, found {w} x {h} and {width} x {height}"),
            ));
        }
    }
    common.ok_or_else(|| DataError::content(path, "an array needs at least one picture"))
}

/// Writes one image as a `[h, w]` array of 32-bit floats.
///
/// # Errors
/// [`DataError::Content`] when there are not `width * height` (at least one) pixels; [`DataError::Io`].
pub fn write(path: &Path, image: &Image) -> Result<()> {
    super::writable_size(path, image.width, image.height, image.pixels.len())?;
    let bytes = to_bytes(&[image.height, image.width], image.pixels.iter().copied());
    write_atomic(path, |out| out.write_all(&bytes))
}

/// Writes images of one size as a `[n, h, w]` array of 32-bit floats.
///
/// # Errors
/// As for [`write()`], and [`DataError::Content`] when there is no image or when sizes differ.
pub fn write_images(path: &Path, images: &[Image]) -> Result<()> {
    let bytes = images_to_bytes(path, images)?;
    write_atomic(path, |out| out.write_all(&bytes))
}

/// Writes a label map as a `[h, w]` array of 32-bit integers.
///
/// # Errors
/// As for [`write()`].
pub fn write_labels(path: &Path, labels: &Labels) -> Result<()> {
    super::writable_size(path, labels.width, labels.height, labels.values.len())?;
    let bytes = to_bytes(&[labels.height, labels.width], labels.values.iter().copied());
    write_atomic(path, |out| out.write_all(&bytes))
}

pub(super) fn images_to_bytes(path: &Path, images: &[Image]) -> Result<Vec<u8>> {
    let (width, height) =
        common_size(path, images.iter().map(|image| (image.width, image.height, image.pixels.len())))?;
    let pixels = images.iter().flat_map(|image| image.pixels.iter().copied());
    Ok(to_bytes(&[images.len(), height, width], pixels))
}
