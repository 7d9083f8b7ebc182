//! MRC2014 images and stacks, plain or gzip-compressed: <https://www.ccpem.ac.uk/mrc-format/mrc2014/>
//! (Cheng et al. 2015, <https://doi.org/10.1016/j.jsb.2015.04.002>); IMOD's stamp for unsigned bytes:
//! <https://bio3d.colorado.edu/imod/doc/mrc_format.txt>.
//!
//! Rows are taken in file order as y = 0, 1, …, the way RELION, EMAN and Topaz count particle coordinates,
//! although the standard puts the origin at the bottom left when a picture is shown.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::raster::{Raster, Stored, checked_product};
use crate::atomic::write_atomic;
use crate::error::{DataError, Result};
use crate::image::Image;

const FORMAT: &str = "MRC";
const HEADER_BYTES: usize = 1024;
pub(super) const GZIP_MAGIC: [u8; 2] = [0x1F, 0x8B];

/// How pixels are stored; the number is the MRC2014 mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Mode 0: 8-bit integers, signed (unsigned when IMOD wrote them so).
    Int8,
    /// Mode 1: 16-bit signed integers.
    Int16,
    /// Mode 2: 32-bit floats.
    Float32,
    /// Mode 6: 16-bit unsigned integers.
    Uint16,
    /// Mode 12: 16-bit floats.
    Float16,
}

impl Mode {
    /// The number in the header.
    pub fn number(self) -> i32 {
        match self {
            Self::Int8 => 0,
            Self::Int16 => 1,
            Self::Float32 => 2,
            Self::Uint16 => 6,
            Self::Float16 => 12,
        }
    }

    fn from_number(number: i32) -> Option<Self> {
        [Self::Int8, Self::Int16, Self::Float32, Self::Uint16, Self::Float16]
            .into_iter()
            .find(|m| m.number() == number)
    }
}

/// What the first 1024 bytes say.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Columns, in pixels.
    pub width: usize,
    /// Rows, in pixels.
    pub height: usize,
    /// Sections: 1 for a micrograph, more for a stack, a movie or a volume.
    pub depth: usize,
    /// How pixels are stored.
    pub mode: Mode,
    /// Whether 8-bit integers are unsigned (files by IMOD with its stamp and without its *signed* flag).
    pub unsigned_bytes: bool,
    /// Whether numbers are big-endian.
    pub big_endian: bool,
    /// Pixel size along x and y in Å, where the header has one (cell size / sampling, both greater than 0).
    pub pixel_size: Option<(f64, f64)>,
    /// Length of the extended header (SerialEM, FEI, …) in bytes; it is skipped.
    pub extended_bytes: usize,
}

impl Header {
    fn stored(&self) -> Stored {
        match self.mode {
            Mode::Int8 if self.unsigned_bytes => Stored::U8,
            Mode::Int8 => Stored::I8,
            Mode::Int16 => Stored::I16,
            Mode::Float32 => Stored::F32,
            Mode::Uint16 => Stored::U16,
            Mode::Float16 => Stored::F16,
        }
    }
}

/// Whether these first bytes of a file carry the `MAP` identifier of the format.
pub(super) fn has_identifier(start: &[u8]) -> bool {
    start.get(208..211) == Some(b"MAP")
}

/// Reads the header; of a gzip file only its first block is unpacked.
///
/// # Errors
/// [`DataError::Format`] when it is not an MRC header of a supported mode; [`DataError::Io`].
pub fn read_header(path: &Path) -> Result<Header> {
    let (mut reader, _) = open(path)?;
    parse_header(&mut reader, path)
}

/// Reads a file of one section.
///
/// # Errors
/// [`DataError::Content`] with the number of sections when there are several (see [`read_stack`]);
/// [`DataError::Format`] when it is not a complete MRC file of a supported mode; [`DataError::Io`].
pub fn read(path: &Path) -> Result<Image> {
    read_raster(path)?.into_image(path)
}

/// Reads every section, in file order.
///
/// # Errors
/// As for [`read`], but for the number of sections.
pub fn read_stack(path: &Path) -> Result<(Header, Vec<Image>)> {
    let (mut reader, length) = open(path)?;
    parse_stack(&mut reader, length, path)
}

pub(super) fn read_raster(path: &Path) -> Result<Raster> {
    let (mut reader, length) = open(path)?;
    parse_single(&mut reader, length, path)
}

/// [`read_stack`] from bytes in memory, plain or gzip; `path` is only used in messages.
///
/// # Errors
/// As for [`read_stack`].
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<(Header, Vec<Image>)> {
    if bytes.starts_with(&GZIP_MAGIC) {
        parse_stack(&mut MultiGzDecoder::new(bytes), None, path)
    } else {
        parse_stack(&mut Cursor::new(bytes), Some(bytes.len() as u64), path)
    }
}

/// The unpacked content and, for a plain file, its length in bytes.
fn open(path: &Path) -> Result<(Box<dyn Read>, Option<u64>)> {
    let failed = |source| DataError::io(path, "cannot read", source);
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut magic = Vec::new();
    (&mut reader).take(2).read_to_end(&mut magic).map_err(failed)?;
    reader.seek(SeekFrom::Start(0)).map_err(failed)?;
    if magic == GZIP_MAGIC {
        Ok((Box::new(MultiGzDecoder::new(reader)), None))
    } else {
        Ok((Box::new(reader), Some(length)))
    }
}

fn read_failed(error: std::io::Error, path: &Path, while_reading: &str) -> DataError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            DataError::format(path, FORMAT, format!("the file ends within {while_reading}"))
        }
        // What the gzip decoder reports of corrupt data.
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => {
            DataError::format(path, FORMAT, format!("{error}, in {while_reading}"))
        }
        _ => DataError::io(path, "cannot read", error),
    }
}

fn parse_header(reader: &mut dyn Read, path: &Path) -> Result<Header> {
    let wrong = |problem: String| DataError::format(path, FORMAT, problem);
    let mut bytes = [0u8; HEADER_BYTES];
    reader.read_exact(&mut bytes).map_err(|error| read_failed(error, path, "the header of 1024 bytes"))?;

    let raw = |offset: usize| [bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]];
    let big_endian = match bytes[212] {
        0x44 => false,
        0x11 => true,
        // Files older than the stamp: as a little-endian number the mode of a big-endian file is huge.
        _ => !(0..=127).contains(&i32::from_le_bytes(raw(12))),
    };
    let int =
        |offset| if big_endian { i32::from_be_bytes(raw(offset)) } else { i32::from_le_bytes(raw(offset)) };
    let float =
        |offset| if big_endian { f32::from_be_bytes(raw(offset)) } else { f32::from_le_bytes(raw(offset)) };
    let dimension = |offset, name| {
        usize::try_from(int(offset))
            .ok()
            .filter(|&value| value > 0)
            .ok_or_else(|| wrong(format!("the number of {name} is {}; it must be at least 1", int(offset))))
    };

    let (width, height, depth) = (dimension(0, "columns")?, dimension(4, "rows")?, dimension(8, "sections")?);
    let mode = Mode::from_number(int(12)).ok_or_else(|| {
        wrong(format!(
            "mode {} is not supported; accepted are 0 (8-bit), 1 (16-bit), 2 (32-bit float), \
             6 (unsigned 16-bit) and 12 (16-bit float)",
            int(12)
        ))
    })?;
    let extended_bytes =
        usize::try_from(int(92)).map_err(|_| wrong(format!("the extended header has {} bytes", int(92))))?;
    let unsigned_bytes = {
        const IMOD_STAMP: i32 = 1_146_047_817;
        const SIGNED_FLAG: i32 = 1;
        int(152) == IMOD_STAMP && int(156) & SIGNED_FLAG == 0
    };
    let spacing = |cell_offset, sampling_offset| {
        let (cell, sampling) = (f64::from(float(cell_offset)), int(sampling_offset));
        (cell.is_finite() && cell > 0.0 && sampling > 0).then(|| cell / f64::from(sampling))
    };
    let pixel_size = spacing(40, 28).zip(spacing(44, 32));
    Ok(Header { width, height, depth, mode, unsigned_bytes, big_endian, pixel_size, extended_bytes })
}

/// Checks the sizes against the file's length, where it is known, before anything is allocated.
fn skip_to_pixels(reader: &mut dyn Read, header: &Header, length: Option<u64>, path: &Path) -> Result<usize> {
    let wrong = |problem: String| DataError::format(path, FORMAT, problem);
    let Header { width, height, depth, extended_bytes, .. } = *header;
    let start = (HEADER_BYTES + extended_bytes) as u64;
    let needed = checked_product([width, height, depth, header.stored().size()])
        .and_then(|bytes| start.checked_add(bytes as u64))
        .ok_or_else(|| wrong(format!("{width} x {height} x {depth} pixels are too many")))?;
    if let Some(length) = length
        && length < needed
    {
        return Err(wrong(format!(
            "{width} x {height} x {depth} pixels of mode {} need {needed} bytes, but the file has {length}",
            header.mode.number()
        )));
    }
    let skipped = std::io::copy(&mut reader.take(extended_bytes as u64), &mut std::io::sink())
        .map_err(|error| read_failed(error, path, "the extended header"))?;
    if skipped < extended_bytes as u64 {
        return Err(wrong("the file ends within the extended header".into()));
    }
    // Fits: the product with the size of a pixel did.
    Ok(width * height * depth)
}

fn parse_single(reader: &mut dyn Read, length: Option<u64>, path: &Path) -> Result<Raster> {
    let header = parse_header(reader, path)?;
    if header.depth != 1 {
        return Err(DataError::content(
            path,
            format!(
                "an MRC stack of {} sections; one picture a file is accepted, so average or split it",
                header.depth
            ),
        ));
    }
    let pixels = skip_to_pixels(reader, &header, length, path)?;
    let samples = header
        .stored()
        .read(reader, pixels, header.big_endian, length.is_some())
        .map_err(|error| read_failed(error, path, "the pixels"))?;
    Ok(Raster { width: header.width, height: header.height, channels: 1, samples, palette: None })
}

fn parse_stack(reader: &mut dyn Read, length: Option<u64>, path: &Path) -> Result<(Header, Vec<Image>)> {
    let header = parse_header(reader, path)?;
    let pixels = skip_to_pixels(reader, &header, length, path)?;
    let mut images = Vec::new();
    for section in 1..=header.depth {
        let samples = header
            .stored()
            .read(reader, pixels / header.depth, header.big_endian, length.is_some())
            .map_err(|error| read_failed(error, path, &format!("section {section} of {}", header.depth)))?;
        images.push(Image { width: header.width, height: header.height, pixels: samples.into_f32() });
    }
    Ok((header, images))
}

/// Writes one image. See [`write_stack`].
///
/// # Errors
/// As for [`write_stack`].
pub fn write(path: &Path, image: &Image, mode: Mode, pixel_size: f64) -> Result<()> {
    write_stack(path, std::slice::from_ref(image), mode, pixel_size)
}

/// Writes a little-endian MRC2014 image stack, gzip-compressed when the name ends in `.gz`. `pixel_size` is in
/// Å, greater than 0. Integer modes hold only values that are whole numbers of their range; mode 12 rounds to
/// the nearest 16-bit float.
///
/// # Errors
/// [`DataError::Content`] when there is no image, when images differ in size, when the pixel size is not
/// positive, and at the first pixel that the mode cannot hold; [`DataError::Io`].
pub fn write_stack(path: &Path, images: &[Image], mode: Mode, pixel_size: f64) -> Result<()> {
    let content = to_bytes(path, images, mode, pixel_size)?;
    write_atomic(path, |out| {
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz")) {
            let mut encoder = GzEncoder::new(out, Compression::default());
            encoder.write_all(&content)?;
            encoder.finish()?;
            Ok(())
        } else {
            out.write_all(&content)
        }
    })
}

fn to_bytes(path: &Path, images: &[Image], mode: Mode, pixel_size: f64) -> Result<Vec<u8>> {
    let wrong = |problem: String| DataError::content(path, problem);
    let first = images.first().ok_or_else(|| wrong("an MRC file needs at least one image".into()))?;
    let (width, height) = (first.width, first.height);
    for image in images {
        super::writable_size(path, image.width, image.height, image.pixels.len())?;
        if (image.width, image.height) != (width, height) {
            return Err(wrong(format!(
                "an MRC stack needs images of one size, found {width} x {height} and {} x {}",
                image.width, image.height
            )));
        }
    }
    if !(pixel_size.is_finite() && pixel_size > 0.0) {
        return Err(wrong(format!("the pixel size is {pixel_size}; it must be greater than 0 Å")));
    }
    let too_large = |_| wrong("the stack is too large for an MRC file".into());
    let (nx, ny) = (i32::try_from(width).map_err(too_large)?, i32::try_from(height).map_err(too_large)?);
    let nz = i32::try_from(images.len()).map_err(too_large)?;

    let (mut least, mut most, mut sum, mut squares) = (f32::INFINITY, f32::NEG_INFINITY, 0.0f64, 0.0f64);
    let pixels = || images.iter().flat_map(|image| image.pixels.iter().copied());
    for value in pixels() {
        least = least.min(value);
        most = most.max(value);
        sum += f64::from(value);
        squares += f64::from(value) * f64::from(value);
    }
    let count = (width * height * images.len()) as f64;
    let mean = sum / count;
    let rms = (squares / count - mean * mean).max(0.0).sqrt();

    let mut header = [0u8; HEADER_BYTES];
    let mut put = |offset: usize, bytes: [u8; 4]| header[offset..offset + 4].copy_from_slice(&bytes);
    for (offset, value) in [(0, nx), (4, ny), (8, nz), (12, mode.number()), (28, nx), (32, ny), (36, 1)] {
        put(offset, value.to_le_bytes());
    }
    for (offset, sampling) in [(40, nx), (44, ny), (48, 1)] {
        put(offset, ((pixel_size * f64::from(sampling)) as f32).to_le_bytes());
    }
    for offset in [52, 56, 60] {
        put(offset, 90.0f32.to_le_bytes());
    }
    for (offset, axis) in [(64, 1i32), (68, 2), (72, 3)] {
        put(offset, axis.to_le_bytes());
    }
    for (offset, value) in [(76, least), (80, most), (84, mean as f32), (216, rms as f32)] {
        put(offset, value.to_le_bytes());
    }
    // Space group 0 (word 23, left zero): a stack of images rather than a volume.
    put(108, 20140i32.to_le_bytes());
    put(208, *b"MAP ");
    put(212, [0x44, 0x44, 0, 0]);
    put(220, 1i32.to_le_bytes());
    header[224..304].fill(b' ');
    header[224..231].copy_from_slice(b"Trimtab");

    let mut bytes = header.to_vec();
    for (index, value) in pixels().enumerate() {
        let stored = match mode {
            Mode::Float32 => {
                bytes.extend(value.to_le_bytes());
                true
            }
            Mode::Float16 => {
                let half = half::f16::from_f32(value);
                bytes.extend(half.to_le_bytes());
                half.is_finite() || !value.is_finite()
            }
            Mode::Int8 => {
                bytes.extend((value as i8).to_le_bytes());
                f32::from(value as i8) == value
            }
            Mode::Int16 => {
                bytes.extend((value as i16).to_le_bytes());
                f32::from(value as i16) == value
            }
            Mode::Uint16 => {
                bytes.extend((value as u16).to_le_bytes());
                f32::from(value as u16) == value
            }
        };
        if !stored {
            let (x, y) = (index % width, index / width % height);
            return Err(wrong(format!(
                "the value {value} at x {x}, y {y} does not fit MRC mode {}",
                mode.number()
            )));
        }
    }
    Ok(bytes)
}
