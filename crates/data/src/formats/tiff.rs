//! TIFF 6.0 and BigTIFF through the `tiff` crate: single pages as pictures, stacks of pages as volumes.

use std::io::{BufReader, Cursor, Read, Seek};
use std::ops::Range;
use std::path::{Path, PathBuf};

use tiff::decoder::ifd::Value;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::encoder::{TiffEncoder, colortype};
use tiff::tags::{CompressionMethod, Tag};
use tiff::{ColorType, TiffResult};

use super::raster::{Raster, Samples, checked_product};
use super::volume_raw::Input;
use crate::atomic::write_atomic;
use crate::error::{DataError, Result};
use crate::image::{Image, Labels};
use crate::volume::{Geometry, VolumeInfo, VolumeReader};

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
    decode_page(&mut decoder, bytes.len() as u64, path)
}

/// The page that the decoder is at, of a file of `length` bytes.
fn decode_page<R: Read + Seek>(decoder: &mut Decoder<R>, length: u64, path: &Path) -> Result<Raster> {
    let wrong = |problem: String| DataError::format(path, FORMAT, problem);
    let failed = |error: tiff::TiffError| wrong(error.to_string());
    let (width, height) = decoder.dimensions().map_err(failed)?;
    let (width, height) = (width as usize, height as usize);
    let color = decoder.colortype().map_err(failed)?;
    let channels = match color {
        ColorType::Gray(_) => 1,
        ColorType::RGB(_) | ColorType::RGBA(_) | ColorType::YCbCr(8) => 3,
        other => return Err(wrong(format!("pixels of type {other:?}; grey and RGB are accepted"))),
    };
    let compression = decoder.find_tag_unsigned::<u16>(Tag::Compression).map_err(failed)?.unwrap_or(1);
    let most = match CompressionMethod::from_u16_exhaustive(compression) {
        CompressionMethod::None => 1,
        CompressionMethod::Deflate | CompressionMethod::OldDeflate => 1032,
        CompressionMethod::PackBits => 64,
        _ => MOST_COMPRESSION as u64,
    };
    let bits =
        checked_product([width, height, usize::from(color.num_samples()), usize::from(color.bit_depth())]);
    if bits.is_none_or(|bits| (bits / 8) as u64 > length.saturating_mul(most)) {
        return Err(wrong(format!(
            "{width} x {height} pixels of {color:?} cannot come out of a file of {length} bytes"
        )));
    }
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

/// A stack of pages of one size, read page by page.
pub(super) struct Stack {
    path: PathBuf,
    length: u64,
    decoder: Decoder<BufReader<Box<dyn Input>>>,
    info: VolumeInfo,
    /// Pages from one channel to the next and from one slice to the next.
    steps: [usize; 2],
}

/// Opens a file of `length` bytes. Pages are slices; the descriptions of ImageJ, OME-TIFF and tifffile say
/// which are channels, and the first two give the distances (from nm, um, mm, cm or inch; a bare number is
/// taken as it is).
///
/// # Errors
/// [`DataError::Format`] when a page's directory is damaged; [`DataError::Content`] for more axes than
/// channel and depth.
pub(super) fn open_stack(input: Box<dyn Input>, length: u64, path: &Path) -> Result<Stack> {
    let failed = |error: tiff::TiffError| DataError::format(path, FORMAT, error.to_string());
    let mut decoder = decoder(BufReader::new(input), usize::try_from(length).unwrap_or(usize::MAX), path)?;
    let pages = pages(&mut decoder).map_err(failed)?;
    let (width, height) = decoder.dimensions().map_err(failed)?;
    let description = match decoder.find_tag(Tag::ImageDescription) {
        Ok(Some(text)) => text.into_string().unwrap_or_default(),
        // A picture is as good without.
        _ => String::new(),
    };
    let mut resolution = |tag| {
        let value = match decoder.find_tag(tag).ok().flatten()? {
            Value::Rational(numerator, denominator) => f64::from(numerator) / f64::from(denominator),
            other => other.into_f64().ok()?,
        };
        (value.is_finite() && value > 0.0).then_some(value)
    };
    let resolution = [resolution(Tag::YResolution), resolution(Tag::XResolution)];
    let (width, height) = (width as usize, height as usize);
    let Arrangement { channels, steps, spacing } =
        arrangement(&description, pages, [height, width], resolution)
            .map_err(|problem| DataError::content(path, problem))?;
    let info = VolumeInfo {
        channels,
        shape: [pages / channels, height, width],
        geometry: Geometry::with_spacing(spacing),
    };
    Ok(Stack { path: path.to_owned(), length, decoder, info, steps })
}

impl Stack {
    pub(super) fn info(&self) -> &VolumeInfo {
        &self.info
    }

    fn page(&mut self, channel: usize, slice: usize) -> Result<Raster> {
        let page = channel * self.steps[0] + slice * self.steps[1];
        let wrong =
            |problem: String| DataError::format(&self.path, FORMAT, format!("page {page}: {problem}"));
        self.decoder.seek_to_image(page).map_err(|error| wrong(error.to_string()))?;
        let raster = decode_page(&mut self.decoder, self.length, &self.path)?;
        let [_, h, w] = self.info.shape;
        if (raster.width, raster.height) != (w, h) {
            return Err(wrong(format!(
                "it has {} x {} pixels, but the first page has {w} x {h}; a volume needs pages of one size",
                raster.width, raster.height
            )));
        }
        Ok(raster)
    }

    /// Labels `[slices, h, w]` of the one channel; of a page with a palette these are the indices.
    ///
    /// # Errors
    /// As for [`VolumeReader::slices`], and [`DataError::Content`] for colours and values that are not 32-bit
    /// integers.
    pub(super) fn labels(&mut self, range: Range<usize>) -> Result<Vec<i32>> {
        let mut values = Vec::new();
        for slice in super::volume::checked_range(&self.path, range, self.info.shape[0])? {
            let page = self.page(0, slice)?.into_labels(&self.path)?;
            values.extend_from_slice(&page.values);
        }
        Ok(values)
    }
}

impl VolumeReader for Stack {
    fn info(&self) -> &VolumeInfo {
        &self.info
    }

    fn slices(&mut self, range: Range<usize>) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        for channel in 0..self.info.channels {
            for slice in super::volume::checked_range(&self.path, range.clone(), self.info.shape[0])? {
                let page = self.page(channel, slice)?.into_image(&self.path)?;
                values.extend_from_slice(&page.pixels);
            }
        }
        Ok(values)
    }
}

/// What the pages of a stack are.
#[derive(Debug, PartialEq)]
struct Arrangement {
    channels: usize,
    steps: [usize; 2],
    spacing: [f64; 3],
}

/// From the description of the first page. `resolution` is pixels a unit along height and width.
fn arrangement(
    description: &str,
    pages: usize,
    size: [usize; 2],
    resolution: [Option<f64>; 2],
) -> Result<Arrangement, String> {
    let plain = Arrangement { channels: 1, steps: [pages, 1], spacing: [1.0; 3] };
    let too_many = |axes: &str| {
        format!("a TIFF stack of {axes}; accepted are volumes of one time with any number of channels")
    };
    if description.starts_with("ImageJ=") {
        let value =
            |key: &str| description.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let count = |key| value(key).and_then(|text| text.trim().parse::<usize>().ok()).unwrap_or(1).max(1);
        let [images, channels, slices, frames] = ["images", "channels", "slices", "frames"].map(count);
        if pages == 1 && images > 1 {
            return Err(format!(
                "an ImageJ stack of {images} slices in a single page, as ImageJ writes beyond 4 GB; \
                 accepted is one page a slice: save it as BigTIFF"
            ));
        }
        let unit = value("unit").map_or(1.0, |unit| millimetres(&unit.trim().replace("\\u00B5", "u")));
        let positive = |value: f64| if value.is_finite() && value > 0.0 { value } else { 1.0 };
        let between = value("spacing").and_then(|text| text.trim().parse::<f64>().ok()).map_or(1.0, f64::abs);
        let [h, w] = resolution.map(|resolution| 1.0 / resolution.unwrap_or(1.0));
        let spacing = [between, h, w].map(|length| positive(length * unit));
        if frames > 1 && slices > 1 {
            return Err(too_many(&format!("{frames} times of {slices} slices")));
        }
        return Ok(if checked_product([channels, slices, frames]) == Some(pages) {
            Arrangement { channels, steps: [1, channels], spacing }
        } else {
            Arrangement { spacing, ..plain }
        });
    }
    if description.contains("<OME") {
        // The first of each attribute, which is that of the first image.
        let value = |key: &str| {
            let key = format!(" {key}=\"");
            let rest = &description[description.find(&key)? + key.len()..];
            Some(&rest[..rest.find('"')?])
        };
        let count = |key| value(key).and_then(|text| text.parse::<usize>().ok()).unwrap_or(1).max(1);
        let [channels, slices, frames] = ["SizeC", "SizeZ", "SizeT"].map(count);
        let spacing = ["Z", "Y", "X"].map(|axis| {
            let size = value(&format!("PhysicalSize{axis}")).and_then(|text| text.parse::<f64>().ok());
            let unit = value(&format!("PhysicalSize{axis}Unit")).map_or(1e-3, millimetres);
            size.map(|size| size * unit).filter(|size| size.is_finite() && *size > 0.0).unwrap_or(1.0)
        });
        if frames > 1 && slices > 1 {
            return Err(too_many(&format!("{frames} times of {slices} slices")));
        }
        if checked_product([channels, slices, frames]) != Some(pages) {
            return Ok(Arrangement { spacing, ..plain });
        }
        let order = value("DimensionOrder").unwrap_or("XYZCT");
        let channel_first = order.find('C') < order.find(if frames > 1 { 'T' } else { 'Z' });
        let steps = if channel_first { [1, channels] } else { [pages / channels, 1] };
        return Ok(Arrangement { channels, steps, spacing });
    }
    // tifffile notes the shape of the array.
    if let Some(shape) = description.strip_prefix("{\"shape\": [").and_then(|rest| rest.split(']').next()) {
        let shape: Vec<usize> = shape.split(',').filter_map(|length| length.trim().parse().ok()).collect();
        match shape[..] {
            [c, d, h, w] if checked_product([c, d]) == Some(pages) && [h, w] == size => {
                return Ok(Arrangement { channels: c, steps: [d, 1], ..plain });
            }
            [_, _, _, h, w] if [h, w] == size && pages > 1 => {
                return Err(too_many(&format!("shape {shape:?}")));
            }
            _ => {}
        }
    }
    Ok(plain)
}

/// Of a unit's name; a name that is not known counts as a millimetre.
fn millimetres(unit: &str) -> f64 {
    match unit {
        "m" => 1e3,
        "cm" => 10.0,
        "inch" => 25.4,
        "um" | "µm" | "μm" | "micron" | "microns" => 1e-3,
        "nm" => 1e-6,
        "pm" => 1e-9,
        "\u{c5}" | "\u{212b}" | "angstrom" => 1e-7,
        _ => 1.0,
    }
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
