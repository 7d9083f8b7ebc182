//! The one error type of this crate.

use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// What can go wrong with a user's data. Every variant names the place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system refused: missing file, permission, disk full …
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, e.g. `cannot read`.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that is not what its format asks for: truncated, corrupt or of an unsupported kind.
    #[error("{}{}: not a valid {format} file: {problem}", path.display(), line.map(|l| format!(":{l}")).unwrap_or_default())]
    Format {
        /// The file.
        path: PathBuf,
        /// Line number (from 1) in a text file.
        line: Option<usize>,
        /// e.g. `MRC`.
        format: &'static str,
        /// What was found and what was expected.
        problem: String,
    },
    /// Files that are readable but do not fit together or the task (sizes, labels, pairs).
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file or folder.
        path: PathBuf,
        /// What was found and what is accepted.
        problem: String,
    },
}

impl DataError {
    /// An [`DataError::Io`].
    pub fn io(path: impl AsRef<Path>, action: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_owned(), action, source }
    }
    /// A [`DataError::Format`] without a line.
    pub fn format(path: impl AsRef<Path>, format: &'static str, problem: impl Into<String>) -> Self {
        Self::Format { path: path.as_ref().to_owned(), line: None, format, problem: problem.into() }
    }
    /// A [`DataError::Format`] at a line (from 1).
    pub fn format_at(
        path: impl AsRef<Path>,
        line: usize,
        format: &'static str,
        problem: impl Into<String>,
    ) -> Self {
        Self::Format { path: path.as_ref().to_owned(), line: Some(line), format, problem: problem.into() }
    }
    /// A [`DataError::Content`].
    pub fn content(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Content { path: path.as_ref().to_owned(), problem: problem.into() }
    }
}
