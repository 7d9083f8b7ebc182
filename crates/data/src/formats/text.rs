//! What the text formats share.

use std::path::Path;

use crate::error::{DataError, Result};

/// The text without a byte-order mark.
pub(super) fn utf8<'a>(bytes: &'a [u8], path: &Path, format: &'static str) -> Result<&'a str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
            Err(DataError::format_at(path, line, format, "the text is not UTF-8"))
        }
    }
}

/// A finite number; `what` names the column.
pub(super) fn number(field: &str, what: &str, path: &Path, line: usize, format: &'static str) -> Result<f64> {
    field.trim().parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(|| {
        let shown: String = field.chars().take(60).collect();
        DataError::format_at(path, line, format, format!("{what} is `{shown}`; a finite number is expected"))
    })
}

/// A number that a length can have.
pub(super) fn positive(
    field: &str,
    what: &str,
    path: &Path,
    line: usize,
    format: &'static str,
) -> Result<f64> {
    let value = number(field, what, path, line, format)?;
    if value > 0.0 {
        Ok(value)
    } else {
        Err(DataError::format_at(
            path,
            line,
            format,
            format!("{what} is `{value}`; it must be greater than 0"),
        ))
    }
}

/// Whether every number of the particles can be written and read again.
pub(super) fn check_finite<'a>(
    particles: impl Iterator<Item = &'a crate::coordinates::Particle>,
    path: &Path,
) -> Result<()> {
    for (index, particle) in particles.enumerate() {
        let numbers = [Some(particle.x), Some(particle.y), particle.diameter, particle.score];
        if !numbers.into_iter().flatten().all(f64::is_finite) || particle.diameter.is_some_and(|d| d <= 0.0) {
            return Err(DataError::content(
                path,
                format!("particle {} cannot be written: {particle:?}", index + 1),
            ));
        }
    }
    Ok(())
}
