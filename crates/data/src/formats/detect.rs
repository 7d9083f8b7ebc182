//! Which format a file has, from its content; the name decides only where the content does not.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::raster::{Raster, checked_product};
use super::{cryoppp, eman_box, jpeg, mrc, npy, png, star, text, tiff, topaz};
use crate::coordinates::MicrographParticles;
use crate::error::{DataError, Result};
use crate::image::{Image, Labels};

/// Extensions of image files, for listing a folder; lower-case, without the leading dot.
pub const IMAGE_EXTENSIONS: &[&str] = &["png", "jpg", "jpeg", "tif", "tiff", "mrc", "mrc.gz", "map", "npy"];

/// Whether the file's name ends in one of [`IMAGE_EXTENSIONS`], in upper or lower case.
pub fn has_image_extension(path: &Path) -> bool {
    has_extension(path, IMAGE_EXTENSIONS)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let Some(name) = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()) else {
        return false;
    };
    extensions.iter().any(|extension| {
        name.strip_suffix(extension)
            .and_then(|stem| stem.strip_suffix('.'))
            .is_some_and(|stem| !stem.is_empty())
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Png,
    Jpeg,
    Tiff,
    Mrc,
    Npy,
}

/// Reads a picture: PNG, JPEG, TIFF, MRC (plain or gzip) or NPY. The values keep the units of the file;
/// colour becomes luminance.
///
/// # Errors
/// [`DataError::Format`] when the content is none of these, or truncated or corrupt; [`DataError::Content`] when
/// the file holds several pictures; [`DataError::Io`].
pub fn read_image(path: &Path) -> Result<Image> {
    read_raster(path)?.into_image(path)
}

/// Reads a label map from the same formats; the values are those stored (a palette picture's indices, the bits
/// of a 1-bit picture as 0 and 1).
///
/// # Errors
/// As for [`read_image`], and [`DataError::Content`] when the values are colours or not 32-bit integers.
pub fn read_labels(path: &Path) -> Result<Labels> {
    read_raster(path)?.into_labels(path)
}

/// Width and height of a picture in pixels, from its header.
///
/// # Errors
/// As for [`read_image`], as far as the header goes.
pub fn image_size(path: &Path) -> Result<(usize, usize)> {
    let kind = kind(path)?;
    let open =
        || File::open(path).map(BufReader::new).map_err(|source| DataError::io(path, "cannot read", source));
    match kind {
        Kind::Png => png::size(open()?, path),
        Kind::Jpeg => jpeg::size(&read_bytes(path)?, path),
        Kind::Tiff => tiff::size(open()?, path),
        Kind::Mrc => mrc::read_header(path).map(|header| (header.width, header.height)),
        Kind::Npy => npy::read_header(path)?.pictures(path).map(|(_, height, width)| (width, height)),
    }
}

fn read_raster(path: &Path) -> Result<Raster> {
    match kind(path)? {
        Kind::Png => png::decode(&read_bytes(path)?, path),
        Kind::Jpeg => jpeg::decode(&read_bytes(path)?, path),
        Kind::Tiff => tiff::decode(&read_bytes(path)?, path),
        Kind::Mrc => mrc::read_raster(path),
        Kind::Npy => npy::read_raster(path),
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| DataError::io(path, "cannot read", source))
}

fn kind(path: &Path) -> Result<Kind> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(1024).read_to_end(&mut start))
        .map_err(|source| DataError::io(path, "cannot read", source))?;
    let starts = |magic: &[u8]| start.starts_with(magic);
    if starts(b"\x89PNG\r\n\x1a\n") {
        return Ok(Kind::Png);
    }
    if starts(&[0xFF, 0xD8, 0xFF]) {
        return Ok(Kind::Jpeg);
    }
    if [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"].iter().any(|magic| starts(*magic)) {
        return Ok(Kind::Tiff);
    }
    if starts(&npy::MAGIC) {
        return Ok(Kind::Npy);
    }
    if starts(b"PK") {
        return Err(DataError::content(
            path,
            "an archive, which holds several pictures; one picture a file is accepted here",
        ));
    }
    // MRC is the only compressed picture we take, so its reader gives the better message.
    if mrc::has_identifier(&start) || starts(&mrc::GZIP_MAGIC) {
        return Ok(Kind::Mrc);
    }
    // Only MRC has files without any magic number (before the year 2000).
    if has_extension(path, &["mrc", "mrcs", "map", "st"]) && start.len() == 1024 {
        return Ok(Kind::Mrc);
    }
    let problem = if start.is_empty() {
        "the file is empty".to_owned()
    } else {
        let first: Vec<String> = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("the content is not recognised (it starts with {})", first.join(" "))
    };
    Err(DataError::format(
        path,
        "image",
        format!("{problem}; accepted are PNG, JPEG, TIFF, MRC (also .mrc.gz) and NPY"),
    ))
}

/// Reads particle coordinates: RELION STAR, EMAN box, Topaz table or CryoPPP CSV.
///
/// # Errors
/// [`DataError::Format`] with the line when the content is none of these or has a bad number or a short row;
/// [`DataError::Content`] when a STAR file has no coordinates; [`DataError::Io`].
pub fn read_coordinates(path: &Path) -> Result<Vec<MicrographParticles>> {
    coordinates_from_bytes(&read_bytes(path)?, path)
}

/// [`read_coordinates`] from bytes in memory; `path` is used in messages and, for an empty file, its extension.
///
/// # Errors
/// As for [`read_coordinates`].
pub fn coordinates_from_bytes(bytes: &[u8], path: &Path) -> Result<Vec<MicrographParticles>> {
    let text = text::utf8(bytes, path, "coordinates")?;
    let first = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let first = first.into_iter().find(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    match first {
        Some((_, line)) if line.to_ascii_lowercase().starts_with("data_") => {
            star::from_bytes(bytes, path)?.coordinates(path)
        }
        Some((_, line)) if topaz::is_header(line) => topaz::from_bytes(bytes, path),
        Some((_, line)) if cryoppp::is_header(line) => Ok(vec![cryoppp::from_bytes(bytes, path)?]),
        Some((_, line)) if eman_box::is_row(line) => Ok(vec![eman_box::from_bytes(bytes, path)?]),
        // A micrograph without particles is an empty box file.
        None if has_extension(path, &["box"]) => Ok(vec![eman_box::from_bytes(bytes, path)?]),
        Some((number, line)) => {
            let shown: String = line.chars().take(60).collect();
            Err(DataError::format_at(
                path,
                number,
                "coordinates",
                format!("`{shown}` is not recognised; {ACCEPTED}"),
            ))
        }
        None => Err(DataError::format(path, "coordinates", format!("the file is empty; {ACCEPTED}"))),
    }
}

const ACCEPTED: &str = "accepted are RELION STAR (data_ blocks), EMAN box (x y width height), \
                        Topaz (columns image_name, x_coord, y_coord) and CryoPPP CSV (X-Coordinate,Y-Coordinate)";

/// Width and height for a writer, once they fit the number of values.
pub(super) fn writable_size(path: &Path, width: usize, height: usize, values: usize) -> Result<(u32, u32)> {
    let wrong =
        || DataError::content(path, format!("cannot write {values} values as {width} x {height} pixels"));
    if values == 0 || checked_product([width, height]) != Some(values) {
        return Err(wrong());
    }
    Ok((u32::try_from(width).map_err(|_| wrong())?, u32::try_from(height).map_err(|_| wrong())?))
}
