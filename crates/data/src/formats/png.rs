//! PNG: <https://www.w3.org/TR/png-3/>, through the `png` crate (the `image` crate would scale low bit depths
//! up to 255 and resolve palettes, which ruins label maps).

use std::borrow::Cow;
use std::io::{BufRead, Cursor, Seek};
use std::path::Path;

use png::{BitDepth, ColorType};

use super::raster::{Raster, Samples, checked_product};
use crate::atomic::write_atomic;
use crate::error::{DataError, Result};
use crate::image::Labels;

const FORMAT: &str = "PNG";

/// DEFLATE's best compression is 1032 to 1; a header that asks for more than that of the file's bytes lies.
const MOST_COMPRESSION: usize = 1032;

/// Decodes grey, palette and colour PNG files of 1 to 16 bits, interlaced ones too. Of an animation it takes
/// the first picture. `path` is only used in messages.
///
/// # Errors
/// [`DataError::Format`] when the bytes are not a complete PNG file.
pub fn decode(bytes: &[u8], path: &Path) -> Result<Raster> {
    let wrong = |problem: String| DataError::format(path, FORMAT, problem);
    let mut reader = reader(Cursor::new(bytes), path)?;
    let size = reader.output_buffer_size().unwrap_or(usize::MAX);
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    if size / MOST_COMPRESSION > bytes.len() {
        return Err(wrong(format!(
            "{width} x {height} pixels cannot come out of a file of {} bytes",
            bytes.len()
        )));
    }
    let mut packed = Vec::new();
    packed.try_reserve_exact(size).map_err(|error| wrong(error.to_string()))?;
    packed.resize(size, 0);
    let frame = reader.next_frame(&mut packed).map_err(|error| wrong(error.to_string()))?;
    // An animation's frames may be smaller than its canvas; the first picture never is in a valid file.
    if (frame.width as usize, frame.height as usize) != (width, height) {
        return Err(wrong(format!(
            "the picture is {} x {} on a canvas of {width} x {height}",
            frame.width, frame.height
        )));
    }
    packed.truncate(frame.buffer_size());

    let palette = match (frame.color_type, &reader.info().palette) {
        (ColorType::Indexed, Some(palette)) => Some(palette.as_chunks::<3>().0.to_vec()),
        (ColorType::Indexed, None) => return Err(wrong("no palette (PLTE chunk)".into())),
        _ => None,
    };
    let stored_channels = frame.color_type.samples();
    let samples = match frame.bit_depth {
        BitDepth::Sixteen => {
            let (pairs, _) = packed.as_chunks::<2>();
            let values = pairs.iter().map(|&pair| u16::from_be_bytes(pair)).collect();
            Samples::U16(without_alpha(values, stored_channels))
        }
        BitDepth::Eight => Samples::U8(without_alpha(packed, stored_channels)),
        depth => Samples::U8(unpack_bits(&packed, width, frame.line_size, depth as usize)),
    };
    let channels = if stored_channels >= 3 { 3 } else { 1 };
    if Some(samples.len()) != checked_product([width, height, channels]) {
        return Err(wrong(format!("{} values for {width} x {height} pixels", samples.len())));
    }
    Ok(Raster { width, height, channels, samples, palette })
}

/// Width and height in pixels, from the header alone.
///
/// # Errors
/// As for [`decode`], as far as the header goes.
pub fn size(reader_: impl BufRead + Seek, path: &Path) -> Result<(usize, usize)> {
    let reader = reader(reader_, path)?;
    Ok((reader.info().width as usize, reader.info().height as usize))
}

fn reader<R: BufRead + Seek>(input: R, path: &Path) -> Result<png::Reader<R>> {
    let mut decoder = png::Decoder::new(input);
    // Raw samples: no scaling of low bit depths, palette indices stay indices.
    decoder.set_transformations(png::Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.read_info().map_err(|error| DataError::format(path, FORMAT, error.to_string()))
}

/// Samples of 1, 2 or 4 bits, most significant first; every row starts at a byte.
pub(super) fn unpack_bits(packed: &[u8], width: usize, bytes_a_row: usize, bits: usize) -> Vec<u8> {
    let mask = ((1u16 << bits) - 1) as u8;
    let mut values = Vec::new();
    for row in packed.chunks_exact(bytes_a_row.max(1)) {
        let unpacked =
            row.iter().flat_map(|byte| (0..8 / bits).rev().map(move |place| (byte >> (place * bits)) & mask));
        values.extend(unpacked.take(width));
    }
    values
}

/// Grey + alpha becomes grey and RGBA becomes RGB.
fn without_alpha<T: Copy>(values: Vec<T>, channels: usize) -> Vec<T> {
    match channels {
        2 => values.as_chunks::<2>().0.iter().map(|&[grey, _]| grey).collect(),
        4 => values.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect(),
        _ => values,
    }
}

/// Writes an 8-bit grey PNG file.
///
/// # Errors
/// [`DataError::Content`] when there are not `width * height` (at least one) values; [`DataError::Io`].
pub fn write_grey8(path: &Path, width: usize, height: usize, values: &[u8]) -> Result<()> {
    write(path, width, height, values.len(), ColorType::Grayscale, BitDepth::Eight, values.into())
}

/// Writes a 16-bit grey PNG file.
///
/// # Errors
/// As for [`write_grey8`].
pub fn write_grey16(path: &Path, width: usize, height: usize, values: &[u16]) -> Result<()> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_be_bytes()).collect();
    write(path, width, height, values.len(), ColorType::Grayscale, BitDepth::Sixteen, bytes.into())
}

/// Writes an 8-bit colour PNG file from (red, green, blue) triples.
///
/// # Errors
/// As for [`write_grey8`].
pub fn write_rgb8(path: &Path, width: usize, height: usize, pixels: &[[u8; 3]]) -> Result<()> {
    write(path, width, height, pixels.len(), ColorType::Rgb, BitDepth::Eight, pixels.as_flattened().into())
}

/// Writes labels with their own values: as 8-bit grey where they fit, else as 16-bit grey.
///
/// # Errors
/// [`DataError::Content`] for a label outside 0..=65535; else as for [`write_grey8`].
pub fn write_labels(path: &Path, labels: &Labels) -> Result<()> {
    let Labels { width, height, values } = labels;
    if let Ok(bytes) = values.iter().map(|&value| u8::try_from(value)).collect::<Result<Vec<u8>, _>>() {
        return write_grey8(path, *width, *height, &bytes);
    }
    let words = values
        .iter()
        .map(|&value| {
            u16::try_from(value).map_err(|_| {
                DataError::content(path, format!("label {value} does not fit a PNG file (0 to 65535)"))
            })
        })
        .collect::<Result<Vec<u16>>>()?;
    write_grey16(path, *width, *height, &words)
}

fn write(
    path: &Path,
    width: usize,
    height: usize,
    pixels: usize,
    color: ColorType,
    depth: BitDepth,
    bytes: Cow<'_, [u8]>,
) -> Result<()> {
    let (columns, rows) = super::writable_size(path, width, height, pixels)?;
    write_atomic(path, |out| {
        let mut encoder = png::Encoder::new(out, columns, rows);
        encoder.set_color(color);
        encoder.set_depth(depth);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&bytes)?;
        writer.finish()?;
        Ok(())
    })
}
