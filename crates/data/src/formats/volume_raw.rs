//! Plain numbers in a file or a gzip stream as a volume: what NIfTI and NPY have in common.

use std::io::{BufReader, Error, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::raster::{Samples, Stored, checked_product};
use crate::error::{DataError, Result};
use crate::volume::{VolumeInfo, VolumeReader};

/// DEFLATE's best compression is 1032 to 1; a header that asks for more than that of the file's bytes lies.
pub(super) const MOST_COMPRESSION: u64 = 1032;

/// A file or bytes in memory.
pub(super) trait Input: Read + Seek + Send {}
impl<T: Read + Seek + Send> Input for T {}

/// Where the bytes come from.
pub(super) enum Source {
    Plain(Box<dyn Input>),
    Gzip(Box<Gzip>),
    /// All values, as the file has them.
    Whole(Vec<u8>),
}

/// A gzip stream that is decoded forward; going back starts again.
pub(super) struct Gzip {
    /// `None` after a failure, which leaves no known place in the stream.
    decoder: Option<MultiGzDecoder<BufReader<Box<dyn Input>>>>,
    at: u64,
}

impl Gzip {
    pub(super) fn new(input: Box<dyn Input>) -> Self {
        Self { decoder: Some(MultiGzDecoder::new(BufReader::with_capacity(1 << 16, input))), at: 0 }
    }

    /// Bytes `start..start + length` of the decoded stream; memory grows only with the bytes that really
    /// arrive.
    pub(super) fn read(&mut self, start: u64, length: u64) -> std::io::Result<Vec<u8>> {
        let lost = || Error::other("an earlier part of the file could not be read");
        let mut decoder = self.decoder.take().ok_or_else(lost)?;
        if start < self.at {
            let mut input = decoder.into_inner();
            input.rewind()?;
            decoder = MultiGzDecoder::new(input);
            self.at = 0;
        }
        let skipped = std::io::copy(&mut (&mut decoder).take(start - self.at), &mut std::io::sink())?;
        self.at += skipped;
        let bytes = read_growing(&mut decoder, length)?;
        self.at += length;
        self.decoder = Some(decoder);
        Ok(bytes)
    }
}

fn read_growing(reader: &mut dyn Read, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// How the values lie in the file.
pub(super) struct Layout {
    /// Byte of the first value (in the decoded stream).
    pub start: u64,
    pub number: Stored,
    pub big_endian: bool,
    /// For channel, depth, height and width: values from one to the next.
    pub steps: [usize; 4],
    /// For depth, height and width: whether they run backwards.
    pub reversed: [bool; 3],
    /// Multiplied with the stored value, then added.
    pub scale: Option<(f64, f64)>,
}

/// A volume of plain numbers.
pub(super) struct RawVolume {
    path: PathBuf,
    format: &'static str,
    info: VolumeInfo,
    layout: Layout,
    source: Source,
    /// Number of values, all channels.
    count: usize,
}

impl RawVolume {
    /// `length` is that of the file. The steps must be those of a dense array of the info's shape.
    ///
    /// # Errors
    /// [`DataError::Format`] when the values cannot be in a file of this length.
    pub(super) fn new(
        path: &Path,
        format: &'static str,
        info: VolumeInfo,
        layout: Layout,
        source: Source,
        length: u64,
    ) -> Result<Self> {
        let [d, h, w] = info.shape;
        let wrong = |problem: String| DataError::format(path, format, problem);
        let shown = if info.channels == 1 {
            format!("{w} x {h} x {d} voxels")
        } else {
            format!("{} channels of {w} x {h} x {d} voxels", info.channels)
        };
        // Eight bytes are the largest number, and of 32-bit floats there are as many again in memory.
        let count = checked_product([info.channels, d, h, w, 16])
            .map(|bytes| bytes / 16)
            .ok_or_else(|| wrong(format!("{shown} are too many")))?;
        let needed = (count * layout.number.size()) as u64;
        let present = match source {
            Source::Plain(_) => length.saturating_sub(layout.start),
            Source::Gzip(_) => length.saturating_mul(MOST_COMPRESSION).saturating_sub(layout.start),
            Source::Whole(ref bytes) => bytes.len() as u64,
        };
        if present < needed {
            let present = if matches!(source, Source::Gzip(_)) {
                format!("cannot come out of a compressed file of {length} bytes")
            } else {
                format!("but the file has {present}")
            };
            return Err(wrong(format!("{shown} need {needed} bytes, {present}")));
        }
        Ok(Self { path: path.to_owned(), format, info, layout, source, count })
    }

    pub(super) fn info(&self) -> &VolumeInfo {
        &self.info
    }

    /// Stored values `[c, slices, h, w]`.
    fn samples(&mut self, range: Range<usize>) -> Result<Samples> {
        let range = super::volume::checked_range(&self.path, range, self.info.shape[0])?;
        let [_, h, w] = self.info.shape;
        let (plane, slices, channels) = (h * w, range.len(), self.info.channels);
        let [_, step_d, ..] = self.layout.steps;
        let depth_is_slowest = step_d == plane;
        let channel_by_channel = channels == 1 || self.layout.steps[0] == plane * self.info.shape[0];
        let by_slice = match self.source {
            Source::Plain(_) => depth_is_slowest && channel_by_channel,
            // Anything but one pass would decode the file again and again.
            Source::Gzip(_) => depth_is_slowest && channels == 1 && !self.layout.reversed[0],
            Source::Whole(_) => false,
        };
        let size = self.layout.number.size();
        let mut ordered = Vec::new();
        if by_slice {
            let first = if self.layout.reversed[0] { self.info.shape[0] - range.end } else { range.start };
            for channel in 0..channels {
                let start = channel * self.layout.steps[0] + first * plane;
                let block = self.bytes(start * size, slices * plane * size)?;
                if channels == 1 && self.in_order() {
                    ordered = block;
                } else {
                    self.reorder(&block, 0..1, 0..slices, slices, &mut ordered)?;
                }
            }
        } else {
            if !matches!(self.source, Source::Whole(_)) {
                self.source = Source::Whole(self.bytes(0, self.count * size)?);
            }
            if let Source::Whole(bytes) = &self.source {
                self.reorder(bytes, 0..channels, range, self.info.shape[0], &mut ordered)?;
            }
        }
        let count = channels * slices * plane;
        self.layout
            .number
            .read(&mut &ordered[..], count, self.layout.big_endian, true)
            .map_err(|error| self.failed(error))
    }

    /// Bytes of the values, from the first.
    fn bytes(&mut self, start: usize, length: usize) -> Result<Vec<u8>> {
        let from = self.layout.start + start as u64;
        let read = match &mut self.source {
            Source::Plain(input) => {
                input.seek(SeekFrom::Start(from)).and_then(|_| read_growing(input, length as u64))
            }
            Source::Gzip(gzip) => gzip.read(from, length as u64),
            Source::Whole(bytes) => Ok(bytes[start..start + length].to_vec()),
        };
        read.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: Error) -> DataError {
        read_failed(error, &self.path, self.format, "the values")
    }

    /// Whether the values of a channel lie as `[d, h, w]`.
    fn in_order(&self) -> bool {
        let [_, h, w] = self.info.shape;
        self.layout.steps[1..] == [h * w, w, 1] && !self.layout.reversed.contains(&true)
    }

    /// Appends the values of `bytes`, which holds `stored_slices` slices, in the order `[c, slices, h, w]`.
    fn reorder(
        &self,
        bytes: &[u8],
        channels: Range<usize>,
        slices: Range<usize>,
        stored_slices: usize,
        ordered: &mut Vec<u8>,
    ) -> Result<()> {
        let [_, h, w] = self.info.shape;
        let steps = self.layout.steps;
        let size = self.layout.number.size();
        let needed = channels.len() * slices.len() * h * w * size;
        ordered.try_reserve(needed).map_err(|error| self.failed(error.into()))?;
        if self.in_order() {
            for channel in channels {
                let start = (channel * steps[0] + slices.start * steps[1]) * size;
                ordered.extend_from_slice(&bytes[start..start + slices.len() * steps[1] * size]);
            }
            return Ok(());
        }
        // First place and signed step of an axis of `length`.
        let walk = |axis: usize, length: usize| {
            let step = steps[axis] as isize;
            if self.layout.reversed[axis - 1] { ((length as isize - 1) * step, -step) } else { (0, step) }
        };
        let axes = [walk(1, stored_slices), walk(2, h), walk(3, w)];
        let rows = channels.flat_map(|c| {
            slices.clone().flat_map(move |d| (0..h).map(move |y| (c as isize, d as isize, y as isize)))
        });
        let starts = rows.map(|(c, d, y)| {
            c * steps[0] as isize + axes[0].0 + d * axes[0].1 + axes[1].0 + y * axes[1].1 + axes[2].0
        });
        let step = axes[2].1;
        match size {
            1 => copy_rows::<1>(bytes, starts, step, w, ordered),
            2 => copy_rows::<2>(bytes, starts, step, w, ordered),
            4 => copy_rows::<4>(bytes, starts, step, w, ordered),
            _ => copy_rows::<8>(bytes, starts, step, w, ordered),
        }
        Ok(())
    }

    /// Values `[slices, h, w]` of the one channel as labels.
    ///
    /// # Errors
    /// As for [`VolumeReader::slices`], and [`DataError::Content`] for a value that is not a 32-bit integer.
    pub(super) fn labels(&mut self, range: Range<usize>) -> Result<Vec<i32>> {
        let samples = self.samples(range)?;
        match self.layout.scale {
            None => samples.into_labels(&self.path),
            Some(scale) => Samples::F64(scaled(samples, scale)).into_labels(&self.path),
        }
    }
}

impl VolumeReader for RawVolume {
    fn info(&self) -> &VolumeInfo {
        &self.info
    }

    fn slices(&mut self, range: Range<usize>) -> Result<Vec<f32>> {
        let samples = self.samples(range)?;
        Ok(match self.layout.scale {
            None => samples.into_f32(),
            Some(scale) => scaled(samples, scale).into_iter().map(|value| value as f32).collect(),
        })
    }
}

#[expect(clippy::unnecessary_cast, reason = "one expression for all number types")]
fn scaled(samples: Samples, (slope, intercept): (f64, f64)) -> Vec<f64> {
    super::raster::with_samples!(samples, values => {
        values.into_iter().map(|value| value as f64 * slope + intercept).collect()
    })
}

fn copy_rows<const N: usize>(
    bytes: &[u8],
    starts: impl Iterator<Item = isize>,
    step: isize,
    width: usize,
    ordered: &mut Vec<u8>,
) {
    let (values, _) = bytes.as_chunks::<N>();
    for start in starts {
        for x in 0..width as isize {
            ordered.extend_from_slice(&values[(start + x * step) as usize]);
        }
    }
}

/// What went wrong in reading `part` of a file of this format.
pub(super) fn read_failed(error: Error, path: &Path, format: &'static str, part: &str) -> DataError {
    match error.kind() {
        ErrorKind::UnexpectedEof => DataError::format(path, format, format!("the file ends within {part}")),
        // What the decoder of a compressed file reports.
        ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::Other => {
            DataError::format(path, format, format!("{error}, in {part}"))
        }
        _ => DataError::io(path, "cannot read", error),
    }
}
