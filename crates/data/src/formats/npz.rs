//! NumPy archives (`numpy.savez`, `numpy.savez_compressed`): a zip file of `.npy` arrays. A batch has `images`
//! and, for training, `masks`.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, Write};
use std::path::Path;

use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::npy::{self, Array};
use crate::atomic::write_atomic;
use crate::error::{DataError, Result};
use crate::image::{Image, Labels};

const FORMAT: &str = "NPZ";

/// The pictures of one archive.
#[derive(Debug, Clone, PartialEq)]
pub struct NpzBatch {
    /// From the array `images`: `[n, h, w]`, `[n, 1, h, w]`, `[n, h, w, 1]` or `[h, w]`.
    pub images: Vec<Image>,
    /// From the array `masks` of the same `n`, `h`, `w`, where there is one.
    pub masks: Option<Vec<Labels>>,
}

/// What an archive holds, from its headers alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NpzInfo {
    /// Number of images.
    pub count: usize,
    /// Columns of each image, in pixels.
    pub width: usize,
    /// Rows of each image, in pixels.
    pub height: usize,
    /// Whether there is an array `masks`.
    pub has_masks: bool,
}

/// Reads a batch.
///
/// # Errors
/// [`DataError::Content`] when there is no array `images`, when an array has another shape, when masks are not
/// integers or do not fit the images; [`DataError::Format`] when the archive is truncated or corrupt;
/// [`DataError::Io`].
pub fn read(path: &Path) -> Result<NpzBatch> {
    parse(open(path)?, path)
}

/// Reads number and size of the images without their pixels.
///
/// # Errors
/// As for [`read`], as far as the headers go.
pub fn inspect(path: &Path) -> Result<NpzInfo> {
    let mut archive = archive(open(path)?, path)?;
    let header = |archive: &mut ZipArchive<_>, name| {
        with_entry(archive, name, path, |entry| npy::parse_header(entry, path))
    };
    let Some((images, _)) = header(&mut archive, "images")? else { return Err(no_images(&archive, path)) };
    let (count, height, width) = images.pictures(path)?;
    let masks = header(&mut archive, "masks")?;
    if let Some((masks, _)) = &masks {
        check_masks((count, height, width), masks.pictures(path)?, path)?;
    }
    Ok(NpzInfo { count, width, height, has_masks: masks.is_some() })
}

/// [`read`] from bytes in memory; `path` is only used in messages.
///
/// # Errors
/// As for [`read`].
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<NpzBatch> {
    parse(Cursor::new(bytes), path)
}

fn open(path: &Path) -> Result<BufReader<File>> {
    File::open(path).map(BufReader::new).map_err(|source| DataError::io(path, "cannot read", source))
}

fn archive<R: Read + Seek>(reader: R, path: &Path) -> Result<ZipArchive<R>> {
    ZipArchive::new(reader).map_err(|error| failed(error, path))
}

fn failed(error: ZipError, path: &Path) -> DataError {
    match error {
        ZipError::Io(source)
            if !matches!(
                source.kind(),
                std::io::ErrorKind::UnexpectedEof
                    | std::io::ErrorKind::InvalidData
                    | std::io::ErrorKind::InvalidInput
                    | std::io::ErrorKind::Other
            ) =>
        {
            DataError::io(path, "cannot read", source)
        }
        other => DataError::format(path, FORMAT, other.to_string()),
    }
}

/// Runs `then` on the array's content; `None` when the archive has no such array.
fn with_entry<R: Read + Seek, T>(
    archive: &mut ZipArchive<R>,
    name: &str,
    path: &Path,
    then: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<Option<T>> {
    let mut entry = match archive.by_name(&format!("{name}.npy")) {
        Ok(entry) => entry,
        Err(ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(failed(error, path)),
    };
    then(&mut entry).map(Some).map_err(|error| match error {
        // Name the array: a batch has two.
        DataError::Format { path, problem, .. } => {
            DataError::format(path, FORMAT, format!("array `{name}`: {problem}"))
        }
        other => other,
    })
}

fn no_images<R: Read + Seek>(archive: &ZipArchive<R>, path: &Path) -> DataError {
    let names: Vec<String> = archive
        .file_names()
        .filter_map(|name| name.ok())
        .map(|name| name.strip_suffix(".npy").unwrap_or(&name).to_owned())
        .take(20)
        .collect();
    let found = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    DataError::content(path, format!("no array `images`; the archive holds {found}"))
}

fn check_masks(images: (usize, usize, usize), masks: (usize, usize, usize), path: &Path) -> Result<()> {
    if images == masks {
        return Ok(());
    }
    let show = |(n, h, w): (usize, usize, usize)| format!("{n} of {w} x {h}");
    Err(DataError::content(
        path,
        format!("the masks ({}) do not fit the images ({})", show(masks), show(images)),
    ))
}

fn parse<R: Read + Seek>(reader: R, path: &Path) -> Result<NpzBatch> {
    let mut archive = archive(reader, path)?;
    // The sizes in a zip directory are claims; the array reader grows with the bytes that arrive.
    let array = |archive: &mut ZipArchive<R>, name| -> Result<Option<Array>> {
        with_entry(archive, name, path, |entry| npy::parse(entry, None, path))
    };
    let Some(images) = array(&mut archive, "images")? else { return Err(no_images(&archive, path)) };
    let images = images.into_images(path)?;
    let masks = array(&mut archive, "masks")?.map(|masks| masks.into_labels(path)).transpose()?;
    if let Some(masks) = &masks {
        let image = |image: &Image| (images.len(), image.height, image.width);
        let mask = |mask: &Labels| (masks.len(), mask.height, mask.width);
        check_masks(
            images.first().map(image).unwrap_or_default(),
            masks.first().map(mask).unwrap_or_default(),
            path,
        )?;
    }
    Ok(NpzBatch { images, masks })
}

/// Writes a compressed archive: `images` as 32-bit floats `[n, h, w]`, `masks` as unsigned bytes where they fit,
/// else as 32-bit integers.
///
/// # Errors
/// [`DataError::Content`] when there is no image, when sizes differ or when masks do not fit the images;
/// [`DataError::Io`].
pub fn write(path: &Path, batch: &NpzBatch) -> Result<()> {
    let NpzBatch { images, masks } = batch;
    let mut arrays = vec![("images.npy", npy::images_to_bytes(path, images)?)];
    if let Some(masks) = masks {
        let image_size = npy::common_size(path, images.iter().map(|i| (i.width, i.height, i.pixels.len())))?;
        let (width, height) =
            npy::common_size(path, masks.iter().map(|m| (m.width, m.height, m.values.len())))?;
        check_masks((images.len(), image_size.1, image_size.0), (masks.len(), height, width), path)?;
        let shape = [masks.len(), height, width];
        let values = || masks.iter().flat_map(|mask| mask.values.iter().copied());
        let bytes = if values().all(|value| u8::try_from(value).is_ok()) {
            npy::to_bytes(&shape, values().map(|value| value as u8))
        } else {
            npy::to_bytes(&shape, values())
        };
        arrays.push(("masks.npy", bytes));
    }
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    // The default date is fixed, so the same batch gives the same bytes.
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    let mut fill = || -> zip::result::ZipResult<()> {
        for (name, bytes) in &arrays {
            zip.start_file(*name, options.large_file(bytes.len() > u32::MAX as usize / 2))?;
            zip.write_all(bytes)?;
        }
        Ok(())
    };
    let not_written =
        |error: ZipError| DataError::content(path, format!("cannot be written as NPZ: {error}"));
    fill().map_err(not_written)?;
    let bytes = zip.finish().map_err(not_written)?.into_inner();
    write_atomic(path, |out| out.write_all(&bytes))
}
