//! Topaz coordinate tables: <https://github.com/tbepler/topaz>, tab-separated with the columns `image_name`,
//! `x_coord`, `y_coord` and, where known, `diameter` and `score`. The same columns separated by commas, and a
//! table of one micrograph without `image_name`, are read too.

use std::path::Path;

use super::delimited::{self, Columns};
use crate::atomic::write_atomic;
use crate::coordinates::MicrographParticles;
use crate::error::{DataError, Result};

const FORMAT: &str = "Topaz";
const COLUMNS: Columns = Columns {
    micrograph: Some("image_name"),
    x: "x_coord",
    y: "y_coord",
    diameter: "diameter",
    score: "score",
};

/// Whether a line is the header of such a table.
pub(super) fn is_header(line: &str) -> bool {
    delimited::is_header(line, &COLUMNS)
}

/// Reads a table. Topaz gives micrograph names without their extension; without `image_name` the name is empty.
/// Coordinates and diameters are in pixels.
///
/// # Errors
/// [`DataError::Format`] with the line for a missing column, a short row or a bad number; [`DataError::Io`].
pub fn read(path: &Path) -> Result<Vec<MicrographParticles>> {
    let bytes = std::fs::read(path).map_err(|source| DataError::io(path, "cannot read", source))?;
    from_bytes(&bytes, path)
}

/// [`read`] from bytes in memory; `path` is only used in messages.
///
/// # Errors
/// As for [`read`].
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Vec<MicrographParticles>> {
    delimited::particles(bytes, &COLUMNS, path, FORMAT)
}

/// Writes a tab-separated table; `diameter` and `score` only when a particle has one, `image_name` only when a
/// micrograph has a name. A micrograph without particles leaves no trace.
///
/// # Errors
/// [`DataError::Content`] for a number that is not finite; [`DataError::Io`].
pub fn write(path: &Path, micrographs: &[MicrographParticles]) -> Result<()> {
    let bytes = delimited::to_bytes(micrographs, &COLUMNS, b'\t', false, path)?;
    write_atomic(path, |out| out.write_all(&bytes))
}
