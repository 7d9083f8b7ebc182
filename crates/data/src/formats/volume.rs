//! Which format a volume has, from its content, and reading it whole.

use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::ops::Range;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::volume_raw::{Input, RawVolume};
use super::{hdf5, mrc, nifti, npy, stack, tiff, zarr};
use crate::error::{DataError, Result};
use crate::volume::{Volume, VolumeInfo, VolumeLabels, VolumeReader};

/// Extensions of volumes, for listing a folder; lower-case, without the leading dot. A `zarr` is a folder.
pub const VOLUME_EXTENSIONS: &[&str] = &["nii", "nii.gz", "tif", "tiff", "npy", "h5", "hdf5", "hdf", "zarr"];

const ACCEPTED: &str = "accepted are NIfTI (.nii, .nii.gz), TIFF stacks, NPY, HDF5, Zarr \
                        and folders with a picture for each slice";

/// Whether the name ends in one of [`VOLUME_EXTENSIONS`], in upper or lower case.
pub fn has_volume_extension(path: &Path) -> bool {
    path.file_name().is_some_and(|name| split(&name.to_string_lossy()).is_some())
}

/// The name of a file or folder without its volume extension: `case_1` of `case_1.nii.gz`, `a.b` of `a.b`.
pub fn volume_stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    split(&name).map_or(&*name, |(stem, _)| stem).to_owned()
}

/// Stem and lower-case extension.
pub(super) fn split(name: &str) -> Option<(&str, &'static str)> {
    VOLUME_EXTENSIONS.iter().find_map(|extension| {
        let dot = name.len().checked_sub(extension.len() + 1).filter(|&dot| dot > 0)?;
        let (stem, end) = name.split_at_checked(dot)?;
        end.strip_prefix('.')?.eq_ignore_ascii_case(extension).then_some((stem, *extension))
    })
}

/// A volume of any format.
enum Opened {
    Raw(Box<RawVolume>),
    Tiff(Box<tiff::Stack>),
    Folder(Box<stack::Folder>),
    Chunked(Box<dyn VolumeReader>),
}

/// Opens a volume of one or more channels: NIfTI (plain or gzip), a stack of TIFF pages, a NumPy array `[d,
/// h, w]` or `[c, d, h, w]`, an array in an HDF5 file or a Zarr folder, or a folder with a picture for each
/// slice. Nothing but the header is read. `dataset` names the array inside HDF5 and Zarr. Colour becomes
/// luminance.
///
/// # Errors
/// [`DataError::Format`] when the content is none of these, or truncated or corrupt; [`DataError::Content`]
/// when it is no volume, or when `dataset` is given for a format that holds one array; [`DataError::Io`].
pub fn open_volume(path: &Path, dataset: Option<&str>) -> Result<Box<dyn VolumeReader>> {
    Ok(match open(path, dataset)? {
        Opened::Raw(reader) => reader,
        Opened::Tiff(reader) => reader,
        Opened::Folder(reader) => reader,
        Opened::Chunked(reader) => reader,
    })
}

/// Several files of one shape as the channels of one volume, in their order; the geometry is the first one's.
///
/// # Errors
/// As [`open_volume`]; no file, or files of different shapes.
pub fn open_volumes(paths: &[PathBuf], dataset: Option<&str>) -> Result<Box<dyn VolumeReader>> {
    struct Joined {
        readers: Vec<Box<dyn VolumeReader>>,
        info: VolumeInfo,
    }
    impl VolumeReader for Joined {
        fn info(&self) -> &VolumeInfo {
            &self.info
        }
        fn slices(&mut self, range: Range<usize>) -> Result<Vec<f32>> {
            let parts: Result<Vec<_>> = self.readers.iter_mut().map(|r| r.slices(range.clone())).collect();
            Ok(parts?.concat())
        }
    }
    let mut readers = paths.iter().map(|path| open_volume(path, dataset)).collect::<Result<Vec<_>>>()?;
    if readers.len() == 1 {
        return Ok(readers.remove(0));
    }
    let Some(mut info) = readers.first().map(|r| r.info().clone()) else {
        return Err(DataError::content("", "no file of this volume"));
    };
    if let Some(other) = readers.iter().position(|r| r.info().shape != info.shape) {
        let problem = format!(
            "has {:?} voxels (depth, height, width), {} has {:?}; channels must have one shape",
            readers[other].info().shape,
            paths[0].display(),
            info.shape
        );
        return Err(DataError::content(&paths[other], problem));
    }
    info.channels = readers.iter().map(|r| r.info().channels).sum();
    Ok(Box::new(Joined { readers, info }))
}

/// Opens a label map, for reading a few slices at a time.
///
/// # Errors
/// As for [`open_volume`], and [`DataError::Content`] when there are several channels.
pub fn open_volume_labels(path: &Path, dataset: Option<&str>) -> Result<VolumeLabelReader> {
    let opened = open(path, dataset)?;
    let reader = VolumeLabelReader { path: path.to_owned(), opened };
    match reader.info().channels {
        1 => Ok(reader),
        channels => {
            Err(DataError::content(path, format!("a volume of {channels} channels; a label map has one")))
        }
    }
}

/// What a volume holds, from its header; see [`open_volume`].
///
/// # Errors
/// As for [`open_volume`].
pub fn volume_info(path: &Path, dataset: Option<&str>) -> Result<VolumeInfo> {
    Ok(open_volume(path, dataset)?.info().clone())
}

/// Reads a volume whole; see [`open_volume`].
///
/// # Errors
/// As for [`open_volume`].
pub fn read_volume(path: &Path, dataset: Option<&str>) -> Result<Volume> {
    let mut reader = open_volume(path, dataset)?;
    let VolumeInfo { channels, shape, geometry } = reader.info().clone();
    let values = reader.slices(0..shape[0])?;
    Ok(Volume { channels, shape, values, geometry })
}

/// Reads a label map whole; the values are those stored (a palette's indices).
///
/// # Errors
/// As for [`open_volume_labels`], and [`DataError::Content`] at the first value that is not an integer of 32
/// bits.
pub fn read_volume_labels(path: &Path, dataset: Option<&str>) -> Result<VolumeLabels> {
    let mut reader = open_volume_labels(path, dataset)?;
    let VolumeInfo { shape, geometry, .. } = reader.info().clone();
    let values = reader.slices(0..shape[0])?;
    Ok(VolumeLabels { shape, values, geometry })
}

/// [`open_volume`] of a NIfTI, TIFF or NPY file in memory; `path` is only used in messages.
///
/// # Errors
/// As for [`open_volume`].
pub fn volume_from_bytes(bytes: Vec<u8>, path: &Path) -> Result<Box<dyn VolumeReader>> {
    let start = bytes[..bytes.len().min(START)].to_vec();
    let length = bytes.len() as u64;
    Ok(match kind(&start, path)? {
        Kind::Nifti { gzip } => Box::new(nifti::open(Box::new(Cursor::new(bytes)), gzip, length, path)?),
        Kind::Tiff => Box::new(tiff::open_stack(Box::new(Cursor::new(bytes)), length, path)?),
        Kind::Npy => Box::new(npy::open_volume(Box::new(Cursor::new(bytes)), length, path)?),
        Kind::Hdf5 => {
            return Err(DataError::content(
                path,
                "an HDF5 file; in memory, NIfTI, TIFF and NPY are accepted",
            ));
        }
    })
}

/// A label map that is read a few slices at a time.
pub struct VolumeLabelReader {
    path: PathBuf,
    opened: Opened,
}

impl VolumeLabelReader {
    /// What the file holds.
    pub fn info(&self) -> &VolumeInfo {
        match &self.opened {
            Opened::Raw(reader) => reader.info(),
            Opened::Tiff(reader) => reader.info(),
            Opened::Folder(reader) => reader.info(),
            Opened::Chunked(reader) => reader.info(),
        }
    }

    /// The labels `[slices, h, w]` of a range of slices (along d). Cheapest for ranges in ascending order.
    ///
    /// # Errors
    /// The file is truncated or corrupt, or can't be read; [`DataError::Content`] at the first value that is
    /// not an integer of 32 bits.
    pub fn slices(&mut self, range: Range<usize>) -> Result<Vec<i32>> {
        match &mut self.opened {
            Opened::Raw(reader) => reader.labels(range),
            Opened::Tiff(reader) => reader.labels(range),
            Opened::Folder(reader) => reader.labels(range),
            Opened::Chunked(reader) => {
                let values = reader.slices(range)?;
                values
                    .into_iter()
                    .enumerate()
                    .map(|(index, value)| self::label(value, index, &self.path))
                    .collect()
            }
        }
    }
}

/// From a 32-bit float, which tells whole numbers from their neighbours only below 2^24.
fn label(value: f32, index: usize, path: &Path) -> Result<i32> {
    const MOST: f32 = 16_777_216.0;
    let problem = if value.fract() != 0.0 {
        "labels are whole numbers of 32 bits"
    } else if value.abs() >= MOST {
        "of this format labels below 16777216 are accepted"
    } else {
        return Ok(value as i32);
    };
    Err(DataError::content(path, format!("value {value} at index {index} is not a label; {problem}")))
}

/// Bytes that tell the format: a NIfTI-2 header's first ones, also after decompression.
const START: usize = 1024;

enum Kind {
    Nifti { gzip: bool },
    Tiff,
    Npy,
    Hdf5,
}

fn kind(start: &[u8], path: &Path) -> Result<Kind> {
    if nifti::is_nifti(start) {
        return Ok(Kind::Nifti { gzip: false });
    }
    if [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"].iter().any(|magic| start.starts_with(*magic)) {
        return Ok(Kind::Tiff);
    }
    if start.starts_with(&npy::MAGIC) {
        return Ok(Kind::Npy);
    }
    if hdf5::is_hdf5(start) {
        return Ok(Kind::Hdf5);
    }
    let problem = if start.is_empty() {
        "the file is empty".to_owned()
    } else if start.starts_with(&mrc::GZIP_MAGIC) {
        let mut first = Vec::new();
        // What has arrived before an error is enough to tell.
        let _ = MultiGzDecoder::new(start).take(4).read_to_end(&mut first);
        if nifti::is_nifti(&first) {
            return Ok(Kind::Nifti { gzip: true });
        }
        "a compressed file that holds no NIfTI".to_owned()
    } else {
        let first: Vec<String> = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("the content is not recognised (it starts with {})", first.join(" "))
    };
    Err(DataError::format(path, "volume", format!("{problem}; {ACCEPTED}")))
}

fn open(path: &Path, dataset: Option<&str>) -> Result<Opened> {
    let failed = |source| DataError::io(path, "cannot read", source);
    let one_array = |what: &str| match dataset {
        None => Ok(()),
        Some(name) => Err(DataError::content(
            path,
            format!(
                "the dataset `{name}` is named, but {what} holds a single array; HDF5 and Zarr have names"
            ),
        )),
    };
    if std::fs::metadata(path).map_err(failed)?.is_dir() {
        if zarr::is_zarr(path) {
            return Ok(Opened::Chunked(zarr::open(path, dataset)?));
        }
        one_array("a folder of pictures")?;
        return Ok(Opened::Folder(Box::new(stack::open(path)?)));
    }
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut start = Vec::new();
    (&mut file).take(START as u64).read_to_end(&mut start).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let input: Box<dyn Input> = Box::new(file);
    Ok(match kind(&start, path)? {
        Kind::Nifti { gzip } => {
            one_array("a NIfTI file")?;
            Opened::Raw(Box::new(nifti::open(input, gzip, length, path)?))
        }
        Kind::Tiff => {
            one_array("a TIFF file")?;
            Opened::Tiff(Box::new(tiff::open_stack(input, length, path)?))
        }
        Kind::Npy => {
            one_array("an NPY file")?;
            Opened::Raw(Box::new(npy::open_volume(input, length, path)?))
        }
        Kind::Hdf5 => Opened::Chunked(hdf5::open(path, dataset)?),
    })
}

/// A range of slices that a volume of `depth` slices has.
pub(super) fn checked_range(path: &Path, range: Range<usize>, depth: usize) -> Result<Range<usize>> {
    if range.start <= range.end && range.end <= depth {
        return Ok(range);
    }
    Err(DataError::content(
        path,
        format!("slices {}..{} are wanted, but there are {depth}", range.start, range.end),
    ))
}
