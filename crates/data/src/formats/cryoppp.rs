//! CryoPPP ground truth, one CSV file a micrograph: `X-Coordinate,Y-Coordinate,Diameter`, in pixels, and further
//! columns that are ignored (Dhakal et al. 2023, <https://doi.org/10.1038/s41597-023-02280-2>). A column `Score`,
//! which CryoPPP does not have, is read and written for our own picks.

use std::path::Path;

use super::delimited::{self, Columns};
use crate::atomic::write_atomic;
use crate::coordinates::MicrographParticles;
use crate::error::{DataError, Result};

const FORMAT: &str = "CryoPPP CSV";
const COLUMNS: Columns =
    Columns { micrograph: None, x: "X-Coordinate", y: "Y-Coordinate", diameter: "Diameter", score: "Score" };

/// Whether a line is the header of such a table.
pub(super) fn is_header(line: &str) -> bool {
    delimited::is_header(line, &COLUMNS)
}

/// Reads the particles of one micrograph; the format does not name it.
///
/// # Errors
/// [`DataError::Format`] with the line for a missing column, a short row or a bad number; [`DataError::Io`].
pub fn read(path: &Path) -> Result<MicrographParticles> {
    let bytes = std::fs::read(path).map_err(|source| DataError::io(path, "cannot read", source))?;
    from_bytes(&bytes, path)
}

/// [`read`] from bytes in memory; `path` is only used in messages.
///
/// # Errors
/// As for [`read`].
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<MicrographParticles> {
    let mut micrographs = delimited::particles(bytes, &COLUMNS, path, FORMAT)?;
    Ok(micrographs
        .pop()
        .unwrap_or_else(|| MicrographParticles { micrograph: String::new(), particles: Vec::new() }))
}

/// Writes the particles of one micrograph. The name of the micrograph is not kept; a particle without a diameter
/// gets an empty cell.
///
/// # Errors
/// [`DataError::Content`] for a number that is not finite; [`DataError::Io`].
pub fn write(path: &Path, micrograph: &MicrographParticles) -> Result<()> {
    let bytes = delimited::to_bytes(std::slice::from_ref(micrograph), &COLUMNS, b',', true, path)?;
    write_atomic(path, |out| out.write_all(&bytes))
}
