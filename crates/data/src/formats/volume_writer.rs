//! Writing a volume slice by slice.

use std::fs::File;
use std::io::{BufWriter, Error, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use tempfile::NamedTempFile;
use tiff::TiffResult;
use tiff::encoder::colortype::{ColorType, Gray8, Gray16, Gray32Float, GrayI16};
use tiff::encoder::compression::DeflateLevel;
use tiff::encoder::{Compression, Rational, TiffEncoder, TiffKind, TiffKindBig, TiffKindStandard, TiffValue};
use tiff::tags::Tag;

use super::raster::{Stored as Number, checked_product};
use super::{nifti, npy, volume};
use crate::error::{DataError, Result};
use crate::volume::VolumeInfo;

/// The number type of a written volume. Integers are rounded to the nearest and kept within the type's range;
/// what is not a number becomes 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// 32-bit floats.
    F32,
    /// 8-bit unsigned integers.
    U8,
    /// 16-bit signed integers.
    I16,
    /// 16-bit unsigned integers.
    U16,
}

impl Stored {
    fn number(self) -> Number {
        match self {
            Self::F32 => Number::F32,
            Self::U8 => Number::U8,
            Self::I16 => Number::I16,
            Self::U16 => Number::U16,
        }
    }

    /// Appends values, little-endian.
    fn encode(self, values: &[f32], bytes: &mut Vec<u8>) {
        match self {
            Self::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::U8 => bytes.extend(values.iter().map(|value| value.round() as u8)),
            Self::I16 => bytes.extend(values.iter().flat_map(|value| (value.round() as i16).to_le_bytes())),
            Self::U16 => bytes.extend(values.iter().flat_map(|value| (value.round() as u16).to_le_bytes())),
        }
    }
}

/// Writes a volume of one channel a few slices at a time, as `.nii`, `.nii.gz`, `.tif`, `.tiff` or `.npy` by
/// its name.
///
/// The file has the axes of the file that the info was read from ([`crate::Geometry::stored`]): a prediction
/// in NIfTI lies on its input. In memory is one slice, where the stored axes allow it; else the whole volume
/// in its number type. The file appears when [`finish`](Self::finish) has written all; a writer that is
/// dropped before leaves nothing.
pub struct VolumeWriter {
    path: PathBuf,
    temporary: NamedTempFile,
    sink: Sink,
    number: Stored,
    info: VolumeInfo,
    /// Slices so far.
    pushed: usize,
    /// All slices so far, where the file wants them in another order.
    pending: Option<Vec<u8>>,
}

enum Sink {
    /// Slices can come in any order.
    Plain {
        out: BufWriter<File>,
        start: u64,
    },
    Gzip(GzEncoder<BufWriter<File>>),
    Tiff(TiffPages<TiffKindStandard>),
    BigTiff(TiffPages<TiffKindBig>),
}

impl VolumeWriter {
    /// Begins a file beside `path`, whose folder exists.
    ///
    /// # Errors
    /// [`DataError::Content`] when the name has another extension, or the info several channels, an empty or
    /// too large shape or no order of axes; [`DataError::Io`].
    pub fn create(path: &Path, info: &VolumeInfo, number: Stored) -> Result<Self> {
        let wrong = |problem: String| DataError::content(path, problem);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let extension = volume::split(&name).map(|(_, extension)| extension);
        let Some(extension) =
            extension.filter(|extension| ["nii", "nii.gz", "tif", "tiff", "npy"].contains(extension))
        else {
            return Err(wrong(
                "cannot be written: volumes are written as .nii, .nii.gz, .tif, .tiff or .npy".into(),
            ));
        };
        if info.channels != 1 {
            return Err(wrong(format!("cannot write {} channels; one is accepted", info.channels)));
        }
        let [d, h, w] = info.shape;
        let bytes = checked_product([d, h, w, number.number().size()])
            .filter(|&bytes| bytes > 0 && isize::try_from(bytes).is_ok())
            .ok_or_else(|| wrong(format!("cannot write {w} x {h} x {d} voxels")))?;
        let stored = info.geometry.stored;
        let mut axes = stored.map(|(axis, _)| axis);
        axes.sort_unstable();
        if axes != [0, 1, 2] {
            return Err(wrong(format!("cannot write axes in the order {:?}", stored.map(|(axis, _)| axis))));
        }
        let [columns, rows, slices] = stored.map(|(axis, _)| [w, h, d][axis]);

        let failed = |source| DataError::io(path, "cannot write", source);
        let temporary = temporary(path)?;
        let mut out = temporary.as_file().try_clone().map_err(failed)?;
        let sink = match extension {
            "nii" => {
                let header = nifti::header(info, number.number());
                out.write_all(&header).map_err(failed)?;
                Sink::Plain { out: BufWriter::new(out), start: header.len() as u64 }
            }
            "nii.gz" => {
                let mut out =
                    GzEncoder::new(BufWriter::with_capacity(1 << 16, out), flate2::Compression::default());
                out.write_all(&nifti::header(info, number.number())).map_err(failed)?;
                Sink::Gzip(out)
            }
            "npy" => {
                let shape = [slices, rows, columns];
                let header = match number {
                    Stored::F32 => npy::to_bytes(&shape, std::iter::empty::<f32>()),
                    Stored::U8 => npy::to_bytes(&shape, std::iter::empty::<u8>()),
                    Stored::I16 => npy::to_bytes(&shape, std::iter::empty::<i16>()),
                    Stored::U16 => npy::to_bytes(&shape, std::iter::empty::<u16>()),
                };
                out.write_all(&header).map_err(failed)?;
                Sink::Plain { out: BufWriter::new(out), start: header.len() as u64 }
            }
            _ => {
                let size = |length: usize| {
                    u32::try_from(length)
                        .map_err(|_| wrong(format!("cannot write {columns} x {rows} pixels as TIFF")))
                };
                let size = (size(columns)?, size(rows)?);
                let [z, y, x] = info.geometry.spacing;
                let spacing = stored.map(|(axis, _)| [x, y, z][axis]);
                // Offsets of classic TIFF have 32 bits; each page's directory takes about 300 bytes.
                if bytes as u64 + 512 * slices as u64 > 4_000_000_000 {
                    Sink::BigTiff(TiffPages::new(out, size, slices, spacing, number, path)?)
                } else {
                    Sink::Tiff(TiffPages::new(out, size, slices, spacing, number, path)?)
                }
            }
        };
        // A plain file is filled from any end.
        let in_order = match stored[2] {
            (2, reversed) => !reversed || matches!(sink, Sink::Plain { .. }),
            _ => false,
        };
        Ok(Self {
            path: path.to_owned(),
            temporary,
            sink,
            number,
            info: info.clone(),
            pushed: 0,
            pending: (!in_order).then(Vec::new),
        })
    }

    /// Appends whole slices `[slices, h, w]`, in the order of d.
    ///
    /// # Errors
    /// [`DataError::Content`] for parts of a slice and for more slices than the info has; [`DataError::Io`].
    pub fn push(&mut self, slices: &[f32]) -> Result<()> {
        let [d, h, w] = self.info.shape;
        let plane = h * w;
        let count = slices.len() / plane;
        if !slices.len().is_multiple_of(plane) || count > d - self.pushed {
            return Err(DataError::content(
                &self.path,
                format!(
                    "cannot write {} values after {} of {d} slices of {w} x {h} pixels",
                    slices.len(),
                    self.pushed
                ),
            ));
        }
        if let Some(pending) = &mut self.pending {
            let more = slices.len() * self.number.number().size();
            let refused = |error: std::collections::TryReserveError| {
                DataError::io(&self.path, "cannot write", error.into())
            };
            pending.try_reserve(more).map_err(refused)?;
            self.number.encode(slices, pending);
            self.pushed += count;
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(plane * self.number.number().size());
        for slice in slices.chunks_exact(plane) {
            bytes.clear();
            self.number.encode(slice, &mut bytes);
            let index = if self.info.geometry.stored[2].1 { d - 1 - self.pushed } else { self.pushed };
            let stored = self.stored_plane(&bytes, 0);
            self.put(index, &stored)?;
            self.pushed += 1;
        }
        Ok(())
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// [`DataError::Content`] when slices are missing; [`DataError::Io`]. Then nothing is left and a file of
    /// that name is as it was.
    pub fn finish(mut self) -> Result<()> {
        let [d, h, w] = self.info.shape;
        if self.pushed != d {
            return Err(DataError::content(
                &self.path,
                format!("{} of {d} slices were written", self.pushed),
            ));
        }
        if let Some(pending) = self.pending.take() {
            let (axis, reversed) = self.info.geometry.stored[2];
            let length = [w, h, d][axis];
            for index in 0..length {
                let place = if reversed { length - 1 - index } else { index };
                let plane = self.stored_plane(&pending, place * [1, w, h * w][axis]);
                self.put(index, &plane)?;
            }
        }
        let Self { path, temporary, sink, .. } = self;
        let failed = |source| DataError::io(&path, "cannot write", source);
        match sink {
            Sink::Plain { mut out, .. } => out.flush(),
            Sink::Gzip(encoder) => encoder.finish().and_then(|mut out| out.flush()),
            Sink::Tiff(_) | Sink::BigTiff(_) => Ok(()),
        }
        .map_err(failed)?;
        temporary.as_file().sync_all().map_err(failed)?;
        // On failure the error carries the temporary file, whose destructor removes it.
        temporary.persist(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// The stored plane of the two fastest stored axes, from values `[.., h, w]` whose plane begins at `start`.
    fn stored_plane(&self, bytes: &[u8], start: usize) -> Vec<u8> {
        let [d, h, w] = self.info.shape;
        let walk = |(axis, reversed): (usize, bool)| {
            let (length, step) = ([w, h, d][axis], [1, w, h * w][axis] as isize);
            if reversed { (length, (length as isize - 1) * step, -step) } else { (length, 0, step) }
        };
        let [fast, slow, _] = self.info.geometry.stored;
        let (fast, slow) = (walk(fast), walk(slow));
        let size = self.number.number().size();
        let mut plane = Vec::with_capacity(fast.0 * slow.0 * size);
        for row in 0..slow.0 as isize {
            let from = start as isize + fast.1 + slow.1 + row * slow.2;
            for column in 0..fast.0 as isize {
                let place = (from + column * fast.2) as usize * size;
                plane.extend_from_slice(&bytes[place..place + size]);
            }
        }
        plane
    }

    /// Writes the plane at `index` along the slowest stored axis.
    fn put(&mut self, index: usize, plane: &[u8]) -> Result<()> {
        let written = match &mut self.sink {
            Sink::Plain { out, start } => {
                let place = *start + index as u64 * plane.len() as u64;
                out.seek(SeekFrom::Start(place)).and_then(|_| out.write_all(plane))
            }
            Sink::Gzip(out) => out.write_all(plane),
            Sink::Tiff(pages) => pages.put(plane),
            Sink::BigTiff(pages) => pages.put(plane),
        };
        written.map_err(|source| DataError::io(&self.path, "cannot write", source))
    }
}

/// A file beside `path`, with the mode of any created file, that is removed when it is dropped.
fn temporary(path: &Path) -> Result<NamedTempFile> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder).map_err(|error| {
        let source = match error.kind() {
            ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "its folder does not exist"),
            // The kind alone: `tempfile` adds the temporary name, which tells a user nothing.
            kind => Error::from(kind),
        };
        DataError::io(path, "cannot write", source)
    })
}

/// A TIFF file that grows page by page. The first page has ImageJ's description of a stack with its distances.
struct TiffPages<K: TiffKind> {
    encoder: TiffEncoder<File, K>,
    size: (u32, u32),
    number: Stored,
    /// Description and pixels a millimetre along width and height, until the first page has them.
    first: Option<(String, [Rational; 2])>,
}

impl<K: TiffKind> TiffPages<K> {
    /// `spacing` is along width, height and depth.
    fn new(
        out: File,
        size: (u32, u32),
        pages: usize,
        spacing: [f64; 3],
        number: Stored,
        path: &Path,
    ) -> Result<Self> {
        let encoder = TiffEncoder::new_generic(out)
            .map_err(|error| DataError::io(path, "cannot write", tiff_failed(error)))?;
        // Also floats: in uncompressed pages under this description some readers (tifffile) seek ImageJ's own
        // layout, all pixels after the first directory.
        let encoder = encoder.with_compression(Compression::Deflate(DeflateLevel::Fast));
        let [x, y, z] = spacing;
        let description =
            format!("ImageJ=1.54f\nimages={pages}\nslices={pages}\nunit=mm\nspacing={z}\nloop=false\n");
        Ok(Self { encoder, size, number, first: Some((description, [x, y].map(resolution))) })
    }

    fn put(&mut self, plane: &[u8]) -> std::io::Result<()> {
        let page = match self.number {
            Stored::F32 => self.page::<Gray32Float, 4>(plane, f32::from_le_bytes),
            Stored::U8 => self.page::<Gray8, 1>(plane, u8::from_le_bytes),
            Stored::I16 => self.page::<GrayI16, 2>(plane, i16::from_le_bytes),
            Stored::U16 => self.page::<Gray16, 2>(plane, u16::from_le_bytes),
        };
        page.map_err(tiff_failed)
    }

    fn page<C: ColorType, const N: usize>(
        &mut self,
        plane: &[u8],
        decode: impl Fn([u8; N]) -> C::Inner,
    ) -> TiffResult<()>
    where
        [C::Inner]: TiffValue,
    {
        let (values, _) = plane.as_chunks::<N>();
        let values: Vec<C::Inner> = values.iter().map(|&bytes| decode(bytes)).collect();
        let mut page = self.encoder.new_image::<C>(self.size.0, self.size.1)?;
        if let Some((description, [x, y])) = self.first.take() {
            page.encoder().write_tag(Tag::ImageDescription, &*description)?;
            page.encoder().write_tag(Tag::XResolution, x)?;
            page.encoder().write_tag(Tag::YResolution, y)?;
        }
        page.write_data(&values)
    }
}

/// Pixels a millimetre, with as many digits as fit.
fn resolution(spacing: f64) -> Rational {
    let pixels = 1.0 / spacing;
    if !(pixels.is_finite() && pixels > 0.0) {
        return Rational { n: 1, d: 1 };
    }
    let denominator = (0..=9)
        .rev()
        .map(|digits| 10u32.pow(digits))
        .find(|&denominator| pixels * f64::from(denominator) < f64::from(u32::MAX))
        .unwrap_or(1);
    Rational { n: (pixels * f64::from(denominator)).round().max(1.0) as u32, d: denominator }
}

fn tiff_failed(error: tiff::TiffError) -> Error {
    match error {
        tiff::TiffError::IoError(error) => error,
        other => Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::read_volume;

    #[test]
    fn a_stack_beyond_the_offsets_of_classic_tiff_reads_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tif");
        for number in [Stored::F32, Stored::U8] {
            let file = File::create(&path).unwrap();
            let spacing = [0.5, 0.25, 3.0];
            let mut pages = TiffPages::<TiffKindBig>::new(file, (3, 2), 2, spacing, number, &path).unwrap();
            for first in [0.0, 6.0] {
                let mut bytes = Vec::new();
                number.encode(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0].map(|value| value + first), &mut bytes);
                pages.put(&bytes).unwrap();
            }
            drop(pages);
            assert!(std::fs::read(&path).unwrap().starts_with(b"II+\0"));
            let volume = read_volume(&path, None).unwrap();
            assert_eq!(volume.shape, [2, 2, 3]);
            assert_eq!(volume.values, (0..12).map(|value| value as f32).collect::<Vec<_>>());
            assert_eq!(volume.geometry.spacing, [3.0, 0.25, 0.5]);
        }
    }

    #[test]
    fn a_resolution_keeps_its_digits_at_any_scale() {
        for spacing in [1e-6, 4e-6, 0.3, 1.0, 1.0 / 3.0, 7.0, 1e4] {
            let Rational { n, d } = resolution(spacing);
            assert!((f64::from(d) / f64::from(n) / spacing - 1.0).abs() < 1e-5, "{spacing}: {n} / {d}");
        }
        for spacing in [0.0, f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(resolution(spacing).n, 1);
        }
    }
}
