//! JPEG (ITU-T T.81), reading only: a lossy file is no place for predictions or labels.

use std::io::Cursor;
use std::path::Path;

use image::codecs::jpeg::JpegDecoder;
use image::{ColorType, ImageDecoder};

use super::raster::{Raster, Samples};
use crate::error::{DataError, Result};

const FORMAT: &str = "JPEG";

/// Every 8 x 8 block costs at least one bit (its DC coefficient), so a byte holds at most 512 pixels; twice
/// that leaves room for chroma subsampling.
const MOST_PIXELS_A_BYTE: usize = 1024;

/// Decodes 8-bit grey and colour JPEG files. EXIF orientation is ignored: masks are drawn on the stored pixels.
///
/// # Errors
/// [`DataError::Format`] when the bytes are not a complete JPEG file.
pub fn decode(bytes: &[u8], path: &Path) -> Result<Raster> {
    let wrong = |problem: String| DataError::format(path, FORMAT, problem);
    // The decoder fills what is missing with grey; a truncated download must not become training data.
    if !has_end_after_scan(bytes) {
        return Err(wrong("the file ends before the picture does (no end-of-image marker)".into()));
    }
    let decoder = decoder(bytes, path)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    if width.saturating_mul(height) / MOST_PIXELS_A_BYTE > bytes.len() {
        return Err(wrong(format!(
            "{width} x {height} pixels cannot come out of a file of {} bytes",
            bytes.len()
        )));
    }
    let channels = match decoder.color_type() {
        ColorType::L8 => 1,
        ColorType::Rgb8 => 3,
        other => return Err(wrong(format!("pixels of type {other:?}; 8-bit grey and colour are accepted"))),
    };
    let mut values = Vec::new();
    let size = usize::try_from(decoder.total_bytes()).unwrap_or(usize::MAX);
    values.try_reserve_exact(size).map_err(|error| wrong(error.to_string()))?;
    values.resize(size, 0);
    decoder.read_image(&mut values).map_err(|error| wrong(error.to_string()))?;
    Ok(Raster { width, height, channels, samples: Samples::U8(values), palette: None })
}

/// Width and height in pixels, from the headers alone.
///
/// # Errors
/// As for [`decode`], as far as the headers go.
pub fn size(bytes: &[u8], path: &Path) -> Result<(usize, usize)> {
    let (width, height) = decoder(bytes, path)?.dimensions();
    Ok((width as usize, height as usize))
}

fn decoder<'a>(bytes: &'a [u8], path: &Path) -> Result<JpegDecoder<Cursor<&'a [u8]>>> {
    JpegDecoder::new(Cursor::new(bytes)).map_err(|error| DataError::format(path, FORMAT, error.to_string()))
}

/// Whether an end-of-image marker follows the first scan (a thumbnail in the headers has its own).
fn has_end_after_scan(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xDA;
    const END_OF_IMAGE: [u8; 2] = [0xFF, 0xD9];
    let mut rest = bytes.get(2..).unwrap_or_default();
    loop {
        match rest {
            // Fill bytes and markers without a length.
            [0xFF, after @ ..] if after.first() == Some(&0xFF) => rest = after,
            [0xFF, 0x01 | 0xD0..=0xD8, after @ ..] => rest = after,
            [0xFF, START_OF_SCAN, after @ ..] => return after.windows(2).any(|pair| pair == END_OF_IMAGE),
            [0xFF, _, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                let Some(next) = rest.get(2 + length..) else { return false };
                rest = next;
            }
            _ => return false,
        }
    }
}
