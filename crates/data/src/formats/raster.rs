//! Samples as a file stores them, and their conversion to an image or a label map.

use std::io::Read;
use std::path::Path;

use crate::error::{DataError, Result};
use crate::image::{Image, Labels};

/// Values in the file's own number type; 16-bit floats are widened to 32, booleans are 0 and 1.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant is named after the number type it holds")]
pub enum Samples {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// Runs the same expression whatever the number type.
macro_rules! with_samples {
    ($samples:expr, $values:ident => $body:expr) => {
        match $samples {
            Samples::U8($values) => $body,
            Samples::I8($values) => $body,
            Samples::U16($values) => $body,
            Samples::I16($values) => $body,
            Samples::U32($values) => $body,
            Samples::I32($values) => $body,
            Samples::U64($values) => $body,
            Samples::I64($values) => $body,
            Samples::F32($values) => $body,
            Samples::F64($values) => $body,
        }
    };
}
pub(super) use with_samples;

/// The numbers a binary format can hold. The name says what is stored; see [`Samples`] for what it becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    F32,
    F64,
}

impl Stored {
    /// By NumPy's letter and number of bytes, e.g. `f4`, as NPY and Zarr 2 write it behind the byte order.
    pub(crate) fn from_numpy(name: &str) -> Option<Self> {
        Some(match name {
            "b1" => Self::Bool,
            "u1" => Self::U8,
            "i1" => Self::I8,
            "u2" => Self::U16,
            "i2" => Self::I16,
            "u4" => Self::U32,
            "i4" => Self::I32,
            "u8" => Self::U64,
            "i8" => Self::I64,
            "f2" => Self::F16,
            "f4" => Self::F32,
            "f8" => Self::F64,
            _ => return None,
        })
    }

    /// Bytes a value.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Reads `count` values. `length_is_known` says that the caller has compared `count` with the length of
    /// the file; without it memory grows only with the bytes that really arrive.
    pub(crate) fn read(
        self,
        reader: &mut dyn Read,
        count: usize,
        big_endian: bool,
        length_is_known: bool,
    ) -> std::io::Result<Samples> {
        let capacity = if length_is_known { count } else { count.min(1 << 16) };
        macro_rules! numbers {
            ($type:ty, $variant:ident) => {
                Samples::$variant(if big_endian {
                    read_values(reader, count, capacity, <$type>::from_be_bytes)?
                } else {
                    read_values(reader, count, capacity, <$type>::from_le_bytes)?
                })
            };
        }
        Ok(match self {
            Self::Bool => {
                Samples::U8(read_values(reader, count, capacity, |[byte]: [u8; 1]| u8::from(byte != 0))?)
            }
            Self::U8 => numbers!(u8, U8),
            Self::I8 => numbers!(i8, I8),
            Self::U16 => numbers!(u16, U16),
            Self::I16 => numbers!(i16, I16),
            Self::U32 => numbers!(u32, U32),
            Self::I32 => numbers!(i32, I32),
            Self::U64 => numbers!(u64, U64),
            Self::I64 => numbers!(i64, I64),
            Self::F16 => Samples::F32(read_values(reader, count, capacity, |bytes: [u8; 2]| {
                half::f16::from_bits(if big_endian {
                    u16::from_be_bytes(bytes)
                } else {
                    u16::from_le_bytes(bytes)
                })
                .to_f32()
            })?),
            Self::F32 => numbers!(f32, F32),
            Self::F64 => numbers!(f64, F64),
        })
    }
}

fn read_values<const N: usize, T>(
    reader: &mut dyn Read,
    count: usize,
    capacity: usize,
    decode: impl Fn([u8; N]) -> T,
) -> std::io::Result<Vec<T>> {
    // Divisible by every value size.
    const BLOCK: usize = 1 << 16;
    let mut values = Vec::new();
    values.try_reserve_exact(capacity)?;
    let mut block = [0u8; BLOCK];
    while values.len() < count {
        let wanted = ((count - values.len()).saturating_mul(N)).min(BLOCK);
        reader.read_exact(&mut block[..wanted])?;
        let (numbers, _) = block[..wanted].as_chunks::<N>();
        values.try_reserve(numbers.len())?;
        values.extend(numbers.iter().map(|&bytes| decode(bytes)));
    }
    Ok(values)
}

impl Samples {
    /// Number of values.
    pub fn len(&self) -> usize {
        with_samples!(self, values => values.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values as intensities. 32- and 64-bit integers and 64-bit floats are rounded to the nearest `f32`.
    #[expect(clippy::unnecessary_cast, reason = "one expression for all number types")]
    pub fn into_f32(self) -> Vec<f32> {
        match self {
            Self::F32(values) => values,
            other => with_samples!(other, values => values.into_iter().map(|value| value as f32).collect()),
        }
    }

    /// The values as labels, exactly.
    ///
    /// # Errors
    /// [`DataError::Content`] at the first value that is not an integer of 32 bits.
    pub fn into_labels(self, path: &Path) -> Result<Vec<i32>> {
        fn convert<T: Copy + std::fmt::Display>(
            values: Vec<T>,
            path: &Path,
            exact: impl Fn(T) -> Option<i32>,
        ) -> Result<Vec<i32>> {
            values
                .into_iter()
                .enumerate()
                .map(|(index, value)| {
                    exact(value).ok_or_else(|| {
                        DataError::content(
                            path,
                            format!("value {value} at index {index} is not a label; labels are whole numbers of 32 bits"),
                        )
                    })
                })
                .collect()
        }
        let whole = |value: f64| {
            let label = value as i32;
            (f64::from(label) == value).then_some(label)
        };
        match self {
            Self::U8(values) => Ok(values.into_iter().map(i32::from).collect()),
            Self::I8(values) => Ok(values.into_iter().map(i32::from).collect()),
            Self::U16(values) => Ok(values.into_iter().map(i32::from).collect()),
            Self::I16(values) => Ok(values.into_iter().map(i32::from).collect()),
            Self::I32(values) => Ok(values),
            Self::U32(values) => convert(values, path, |value| value.try_into().ok()),
            Self::U64(values) => convert(values, path, |value| value.try_into().ok()),
            Self::I64(values) => convert(values, path, |value| value.try_into().ok()),
            Self::F32(values) => convert(values, path, |value| whole(f64::from(value))),
            Self::F64(values) => convert(values, path, whole),
        }
    }
}

/// One decoded picture, before it is read as an image or as labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Raster {
    /// Columns, in pixels.
    pub width: usize,
    /// Rows, in pixels.
    pub height: usize,
    /// 1 (grey, or palette indices) or 3 (red, green, blue; interleaved).
    pub channels: usize,
    /// `width * height * channels` values, row-major. Low bit depths (1, 2, 4) are not scaled up to 255.
    pub samples: Samples,
    /// The colours that the values index, where the file has a palette.
    pub palette: Option<Vec<[u8; 3]>>,
}

impl Raster {
    /// As an image. Colour becomes luminance, `(299 R + 587 G + 114 B) / 1000` (ITU-R BT.601, the weights
    /// that Pillow's and OpenCV's grey conversions use), without rounding; transparency is ignored.
    ///
    /// # Errors
    /// [`DataError::Content`] for a palette index beyond the palette.
    #[expect(clippy::unnecessary_cast, reason = "one expression for all number types")]
    pub fn into_image(self, path: &Path) -> Result<Image> {
        let Self { width, height, channels, samples, palette } = self;
        let pixels = match (palette, channels) {
            (Some(palette), _) => {
                let grey: Vec<f32> =
                    palette.iter().map(|&[r, g, b]| luminance(r.into(), g.into(), b.into())).collect();
                let indices = samples.into_labels(path)?;
                let value =
                    |index: i32| usize::try_from(index).ok().and_then(|index| grey.get(index).copied());
                indices
                    .into_iter()
                    .map(|index| {
                        value(index).ok_or_else(|| {
                            DataError::content(
                                path,
                                format!(
                                    "palette index {index} is outside the palette of {} colours",
                                    grey.len()
                                ),
                            )
                        })
                    })
                    .collect::<Result<_>>()?
            }
            (None, 3) => with_samples!(samples, values => {
                values.as_chunks::<3>().0.iter().map(|&[r, g, b]| luminance(r as f64, g as f64, b as f64)).collect()
            }),
            (None, _) => samples.into_f32(),
        };
        Ok(Image { width, height, pixels })
    }

    /// As labels: the values as stored (for a palette, the indices). A colour picture is accepted only when its
    /// three channels are equal everywhere.
    ///
    /// # Errors
    /// [`DataError::Content`] for real colours and for values that are not 32-bit integers.
    pub fn into_labels(self, path: &Path) -> Result<Labels> {
        let Self { width, height, channels, samples, .. } = self;
        if channels != 3 {
            return Ok(Labels { width, height, values: samples.into_labels(path)? });
        }
        let values = samples.into_labels(path)?;
        let (pixels, _) = values.as_chunks::<3>();
        if let Some(index) = pixels.iter().position(|&[r, g, b]| r != g || g != b) {
            let [r, g, b] = pixels[index];
            return Err(DataError::content(
                path,
                format!(
                    "a label map has one channel, but this is a colour picture: ({r}, {g}, {b}) at x {}, y {}; \
                     store the class numbers as grey values or as palette indices",
                    index % width,
                    index / width
                ),
            ));
        }
        Ok(Labels { width, height, values: pixels.iter().map(|&[value, ..]| value).collect() })
    }
}

/// In `f64`, so that equal channels come out exactly.
fn luminance(r: f64, g: f64, b: f64) -> f32 {
    ((299.0 * r + 587.0 * g + 114.0 * b) / 1000.0) as f32
}

/// Multiplies dimensions that a file claims; `None` when the product does not fit.
pub(crate) fn checked_product(dimensions: impl IntoIterator<Item = usize>) -> Option<usize> {
    dimensions.into_iter().try_fold(1usize, usize::checked_mul)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rgb(values: Vec<u8>) -> Raster {
        Raster {
            width: values.len() / 3,
            height: 1,
            channels: 3,
            samples: Samples::U8(values),
            palette: None,
        }
    }

    #[test]
    fn luminance_of_equal_channels_is_their_value() {
        let image = rgb((0..=255).flat_map(|v| [v, v, v]).collect()).into_image(Path::new("a")).unwrap();
        assert_eq!(image.pixels, (0..=255u8).map(f32::from).collect::<Vec<_>>());
    }

    #[test]
    fn colour_weights_are_those_of_bt601() {
        let image = rgb(vec![255, 0, 0, 0, 255, 0, 0, 0, 255]).into_image(Path::new("a")).unwrap();
        assert_eq!(image.pixels, [76.245, 149.685, 29.07]);
    }

    #[test]
    fn a_colour_label_map_is_an_error_with_its_place() {
        assert_eq!(rgb(vec![7, 7, 7]).into_labels(Path::new("a")).unwrap().values, [7]);
        let error = rgb(vec![7, 7, 7, 1, 2, 3]).into_labels(Path::new("m.png")).unwrap_err().to_string();
        assert!(
            error.contains("m.png: a label map has one channel") && error.contains("(1, 2, 3) at x 1, y 0")
        );
    }

    #[test]
    fn only_whole_numbers_of_32_bits_are_labels() {
        let path = Path::new("a");
        assert_eq!(Samples::F32(vec![-1.0, 3.0]).into_labels(path).unwrap(), [-1, 3]);
        assert!(Samples::F32(vec![0.5]).into_labels(path).is_err());
        assert!(Samples::F64(vec![f64::NAN]).into_labels(path).is_err());
        assert!(Samples::F64(vec![2147483648.0]).into_labels(path).is_err());
        assert!(Samples::U32(vec![u32::MAX]).into_labels(path).is_err());
        assert!(Samples::I64(vec![i64::MIN]).into_labels(path).is_err());
    }

    #[test]
    fn memory_grows_with_the_bytes_that_arrive_when_the_length_is_unknown() {
        let error = Stored::F64.read(&mut &[0u8; 8][..], usize::MAX, false, false).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    }
}
