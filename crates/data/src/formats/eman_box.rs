//! EMAN1 box files, one a micrograph: a line `x y width height [flag]` for each particle, where (x, y) is the
//! corner of the box with the smallest coordinates, in pixels: <https://blake.bcm.edu/emanwiki/EMAN1>.

use std::fmt::Write as _;
use std::path::Path;

use super::text;
use crate::atomic::write_atomic;
use crate::coordinates::{MicrographParticles, Particle};
use crate::error::{DataError, Result};

const FORMAT: &str = "EMAN box";

/// Whether a line has the numbers of a box.
pub(super) fn is_row(line: &str) -> bool {
    let mut fields = 0;
    line.split_whitespace().all(|field| {
        fields += 1;
        field.parse::<f64>().is_ok()
    }) && fields >= 4
}

/// Reads the centres of the boxes, corner + size / 2. The size of a box is how much is cut out, commonly 1.5 to
/// 2 times the particle, so it is not taken as the diameter; the flag is ignored. The format has no micrograph
/// name.
///
/// # Errors
/// [`DataError::Format`] with the line for a short row or a bad number; [`DataError::Io`].
pub fn read(path: &Path) -> Result<MicrographParticles> {
    let bytes = std::fs::read(path).map_err(|source| DataError::io(path, "cannot read", source))?;
    from_bytes(&bytes, path)
}

/// [`read`] from bytes in memory; `path` is only used in messages.
///
/// # Errors
/// As for [`read`].
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<MicrographParticles> {
    let mut particles = Vec::new();
    for (index, row) in text::utf8(bytes, path, FORMAT)?.lines().enumerate() {
        let line = index + 1;
        let fields: Vec<&str> = row.split_whitespace().collect();
        match fields[..] {
            [] => {}
            [comment, ..] if comment.starts_with('#') => {}
            [x, y, width, height, ..] => {
                let width = text::positive(width, "the width (column 3)", path, line, FORMAT)?;
                let height = text::positive(height, "the height (column 4)", path, line, FORMAT)?;
                let x = text::number(x, "x (column 1)", path, line, FORMAT)? + width / 2.0;
                let y = text::number(y, "y (column 2)", path, line, FORMAT)? + height / 2.0;
                if !(x.is_finite() && y.is_finite()) {
                    return Err(DataError::format_at(path, line, FORMAT, "the box is too far away"));
                }
                particles.push(Particle { x, y, diameter: None, score: None });
            }
            _ => {
                return Err(DataError::format_at(
                    path,
                    line,
                    FORMAT,
                    format!("{} columns; x, y, width and height are expected", fields.len()),
                ));
            }
        }
    }
    Ok(MicrographParticles { micrograph: String::new(), particles })
}

/// Writes square boxes of `box_size` pixels (at least 1) around the particles of one micrograph. Name, diameters
/// and scores are not kept. Positions are not rounded to whole pixels; they come back exactly when the file is
/// read, except that a centre with more digits than `corner + box_size / 2` can hold in 64-bit floats moves by
/// less than 10⁻⁹ pixels for any box that fits a micrograph.
///
/// # Errors
/// [`DataError::Content`] for a box size of 0 or a number that is not finite; [`DataError::Io`].
pub fn write(path: &Path, micrograph: &MicrographParticles, box_size: usize) -> Result<()> {
    let bytes = to_bytes(micrograph, box_size, path)?;
    write_atomic(path, |out| out.write_all(bytes.as_bytes()))
}

pub(super) fn to_bytes(micrograph: &MicrographParticles, box_size: usize, path: &Path) -> Result<String> {
    text::check_finite(micrograph.particles.iter(), path)?;
    if box_size == 0 {
        return Err(DataError::content(path, "a box of 0 pixels; it must have at least 1"));
    }
    let half = box_size as f64 / 2.0;
    let mut text = String::new();
    for particle in &micrograph.particles {
        let _ = writeln!(text, "{}\t{}\t{box_size}\t{box_size}", particle.x - half, particle.y - half);
    }
    Ok(text)
}
