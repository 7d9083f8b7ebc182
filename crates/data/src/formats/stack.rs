//! A folder of pictures as a volume: one picture a slice, in natural order of the names (`z2.png` before
//! `z10.png`).

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{has_image_extension, image_size, read_image, read_labels};
use crate::dataset::natural;
use crate::error::{DataError, Result};
use crate::volume::{Geometry, VolumeInfo, VolumeReader};

/// The slices of a folder.
pub(super) struct Folder {
    files: Vec<PathBuf>,
    info: VolumeInfo,
}

/// Lists a folder; the size is the first picture's. Other files, hidden ones and folders inside are passed
/// over.
///
/// # Errors
/// [`DataError::Content`] for a folder without pictures; as for [`image_size`] of the first;
/// [`DataError::Io`].
pub(super) fn open(path: &Path) -> Result<Folder> {
    let failed = |source| DataError::io(path, "cannot list", source);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && has_image_extension(&file) && file.is_file() {
            files.push(file);
        }
    }
    let name = |file: &PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    files.sort_by_cached_key(|file| Natural(name(file)));
    let Some(first) = files.first() else {
        return Err(DataError::content(
            path,
            format!(
                "a folder without pictures; as a volume, a folder holds one picture a slice ({}) or a Zarr array",
                super::IMAGE_EXTENSIONS.join(", ")
            ),
        ));
    };
    let (width, height) = image_size(first)?;
    let info = VolumeInfo { channels: 1, shape: [files.len(), height, width], geometry: Geometry::default() };
    Ok(Folder { files, info })
}

#[derive(PartialEq, Eq)]
struct Natural(String);

impl Ord for Natural {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        natural(&self.0, &other.0)
    }
}

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Folder {
    pub(super) fn info(&self) -> &VolumeInfo {
        &self.info
    }

    /// Values `[slices, h, w]` of a range of files, through a reader that gives (width, height, values).
    fn read<T: Clone>(
        &self,
        range: Range<usize>,
        read: impl Fn(&Path) -> Result<(usize, usize, Vec<T>)>,
    ) -> Result<Vec<T>> {
        let [d, h, w] = self.info.shape;
        let folder = self.files[0].parent().unwrap_or(Path::new(""));
        let range = super::volume::checked_range(folder, range, d)?;
        let mut values = Vec::new();
        for file in &self.files[range] {
            let (width, height, slice) = read(file)?;
            if (width, height) != (w, h) {
                return Err(DataError::content(
                    file,
                    format!(
                        "a slice of {width} x {height} pixels, but the first of the folder, {}, has {w} x {h}",
                        self.files[0].file_name().unwrap_or_default().to_string_lossy()
                    ),
                ));
            }
            values.extend_from_slice(&slice);
        }
        Ok(values)
    }

    /// Labels `[slices, h, w]`; of a picture with a palette these are the indices.
    ///
    /// # Errors
    /// As for [`read_labels`], and [`DataError::Content`] for a picture of another size.
    pub(super) fn labels(&self, range: Range<usize>) -> Result<Vec<i32>> {
        self.read(range, |file| read_labels(file).map(|labels| (labels.width, labels.height, labels.values)))
    }
}

impl VolumeReader for Folder {
    fn info(&self) -> &VolumeInfo {
        &self.info
    }

    fn slices(&mut self, range: Range<usize>) -> Result<Vec<f32>> {
        self.read(range, |file| read_image(file).map(|image| (image.width, image.height, image.pixels)))
    }
}
