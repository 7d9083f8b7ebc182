//! TIFF 6.0 and BigTIFF of a single page, through the `tiff` crate.

use std::io::{Cursor, Read, Seek};
use std::path::Path;

use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::encoder::{TiffEncoder, colortype};
use tiff::{ColorType, TiffResult};

use super::raster::{Raster, Samples, checked_product};
use crate::atomic::write_atomic;
use crate::error::{DataError, Result};
use crate::image::{Image, Labels};

const FORMAT: &str = "TIFF";

/// Above the best compression of the supported schemes (LZW: 4096 bytes from 12 bits).
const MOST_COMPRESSION: usize = 4096;

/// Decodes a single-page TIFF file: grey or colour, 1 to 64-bit integers, 16 to 64-bit floats, uncompressed,
/// PackBits, LZW, Deflate, JPEG or fax. A *white is zero* picture is inverted, as viewers do.
///
/// # Errors
/// [`DataError::Content`] with the number of pages when there are several; [`DataError::Format`] when the bytes
/// are not a complete TIFF file of these kinds.
pub fn decode(bytes: &[u8], path: &Path) -> Result<Raster> {
    let wrong = |problem: String| DataError::format(path, FORMAT, problem);
    let failed = |error: tiff::TiffError| wrong(error.to_string());
    let mut decoder = decoder(Cursor::new(bytes), bytes.len(), path)?;
    let pages = pages(&mut decoder).map_err(failed)?;
    if pages > 1 {
        return Err(DataError::content(
            path,
            format!(
                "a TIFF stack of {pages} pages; one picture a file is accepted, so split it into single files"
            ),
        ));
    }
    let (width, height) = decoder.dimensions().map_err(failed)?;
    let (width, height) = (width as usize, height as usize);
    let color = decoder.colortype().map_err(failed)?;
    let channels = match color {
        ColorType::Gray(_) => 1,
        ColorType::RGB(_) | ColorType::RGBA(_) | ColorType::YCbCr(8) => 3,
        other => return Err(wrong(format!("pixels of type {other:?}; grey and RGB are accepted"))),
    };
    let mut decoded = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut decoded).map_err(failed)?;
    let bits = usize::from(color.bit_depth());
    let stored_channels = usize::from(color.num_samples());
    let pixels = Pixels { count: width * height, stored_channels, channels, planar: layout.planes > 1 };
    let samples = match decoded {
        DecodingResult::U8(packed) if bits < 8 => {
            if !(matches!(bits, 1 | 2 | 4) && stored_channels == 1) {
                return Err(wrong(format!(
                    "{bits} bits a sample in {stored_channels} channels is not supported"
                )));
            }
            let bytes_a_row = (width * bits).div_ceil(8);
            Some(Samples::U8(super::png::unpack_bits(&packed, width, bytes_a_row, bits)))
        }
        DecodingResult::U8(values) => pixels.interleaved(values).map(Samples::U8),
        DecodingResult::I8(values) => pixels.interleaved(values).map(Samples::I8),
        DecodingResult::U16(values) => pixels.interleaved(values).map(Samples::U16),
        DecodingResult::I16(values) => pixels.interleaved(values).map(Samples::I16),
        DecodingResult::U32(values) => pixels.interleaved(values).map(Samples::U32),
        DecodingResult::I32(values) => pixels.interleaved(values).map(Samples::I32),
        DecodingResult::U64(values) => pixels.interleaved(values).map(Samples::U64),
        DecodingResult::I64(values) => pixels.interleaved(values).map(Samples::I64),
        DecodingResult::F16(values) => {
            pixels.interleaved(values.into_iter().map(half::f16::to_f32).collect()).map(Samples::F32)
        }
        DecodingResult::F32(values) => pixels.interleaved(values).map(Samples::F32),
        DecodingResult::F64(values) => pixels.interleaved(values).map(Samples::F64),
    };
    match samples {
        Some(samples) if Some(samples.len()) == checked_product([width, height, channels]) => {
            Ok(Raster { width, height, channels, samples, palette: None })
        }
        _ => Err(wrong(format!("the stored values do not make up {width} x {height} pixels of {color:?}"))),
    }
}

/// Width and height in pixels, from the first page's directory alone.
///
/// # Errors
/// As for [`decode`], as far as the directory goes.
pub fn size(reader: impl Read + Seek, path: &Path) -> Result<(usize, usize)> {
    let (width, height) = decoder(reader, 0, path)?
        .dimensions()
        .map_err(|error| DataError::format(path, FORMAT, error.to_string()))?;
    Ok((width as usize, height as usize))
}

fn decoder<R: Read + Seek>(reader: R, bytes: usize, path: &Path) -> Result<Decoder<R>> {
    let mut limits = Limits::default();
    limits.decoding_buffer_size = bytes.saturating_mul(MOST_COMPRESSION).max(1 << 20);
    limits.intermediate_buffer_size = limits.decoding_buffer_size;
    // Strip tables of large pictures are long, but never longer than the file.
    limits.ifd_value_size = bytes.max(1 << 20);
    Decoder::new(reader)
        .map(|decoder| decoder.with_limits(limits))
        .map_err(|error| DataError::format(path, FORMAT, error.to_string()))
}

fn pages<R: Read + Seek>(decoder: &mut Decoder<R>) -> TiffResult<usize> {
    let mut pages = 1;
    while decoder.more_images() {
        decoder.next_image()?;
        pages += 1;
    }
    if pages > 1 {
        decoder.seek_to_image(0)?;
    }
    Ok(pages)
}

struct Pixels {
    count: usize,
    stored_channels: usize,
    channels: usize,
    planar: bool,
}

impl Pixels {
    /// Drops alpha and turns channel planes into interleaved pixels; `None` when values are missing.
    fn interleaved<T: Copy>(&self, values: Vec<T>) -> Option<Vec<T>> {
        let Self { count, stored_channels, channels, planar } = *self;
        if Some(values.len()) != checked_product([count, stored_channels]) {
            return None;
        }
        if stored_channels == channels && !planar {
            return Some(values);
        }
        let place = |pixel: usize, channel: usize| {
            if planar { channel * count + pixel } else { pixel * stored_channels + channel }
        };
        Some(
            (0..count)
                .flat_map(|pixel| (0..channels).map(move |c| (pixel, c)))
                .map(|(p, c)| values[place(p, c)])
                .collect(),
        )
    }
}

/// Writes an uncompressed 32-bit float TIFF file with the image's own values.
///
/// # Errors
/// [`DataError::Content`] when there are not `width * height` (at least one) pixels; [`DataError::Io`].
pub fn write_f32(path: &Path, image: &Image) -> Result<()> {
    write::<colortype::Gray32Float>(path, image.width, image.height, &image.pixels)
}

/// Writes an 8-bit grey TIFF file, Deflate-compressed.
///
/// # Errors
/// As for [`write_f32`].
pub fn write_grey8(path: &Path, width: usize, height: usize, values: &[u8]) -> Result<()> {
    write::<colortype::Gray8>(path, width, height, values)
}

/// Writes a 16-bit grey TIFF file, Deflate-compressed.
///
/// # Errors
/// As for [`write_f32`].
pub fn write_grey16(path: &Path, width: usize, height: usize, values: &[u16]) -> Result<()> {
    write::<colortype::Gray16>(path, width, height, values)
}

/// Writes labels with their own values as a 32-bit integer TIFF file, Deflate-compressed.
///
/// # Errors
/// As for [`write_f32`].
pub fn write_labels(path: &Path, labels: &Labels) -> Result<()> {
    write::<colortype::GrayI32>(path, labels.width, labels.height, &labels.values)
}

fn write<C: colortype::ColorType>(path: &Path, width: usize, height: usize, values: &[C::Inner]) -> Result<()>
where
    [C::Inner]: tiff::encoder::TiffValue,
{
    let (columns, rows) = super::writable_size(path, width, height, values.len())?;
    // The encoder goes back to fill in offsets, which an atomic writer cannot.
    let mut bytes = Cursor::new(Vec::new());
    let encode = |bytes: &mut Cursor<Vec<u8>>| -> TiffResult<()> {
        let mut encoder = TiffEncoder::new(bytes)?;
        if std::mem::size_of::<C::Inner>() < 4 || C::SAMPLE_FORMAT[0] == tiff::tags::SampleFormat::Int {
            encoder = encoder.with_compression(tiff::encoder::Compression::Deflate(Default::default()));
        }
        encoder.write_image::<C>(columns, rows, values)
    };
    encode(&mut bytes)
        .map_err(|error| DataError::content(path, format!("cannot be written as TIFF: {error}")))?;
    write_atomic(path, |out| out.write_all(bytes.get_ref()))
}
