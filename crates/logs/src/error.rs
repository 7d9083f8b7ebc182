//! What can go wrong with a log.

use std::path::PathBuf;

/// A log that could not be read. Names the file, and the line where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The operating system refused.
    #[error("failed to read `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The content is not what its format promises, from the start.
    #[error("{}{}: {reason}", path.display(), line.map_or_else(String::new, |l| format!(":{l}")))]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, where there are lines.
        line: Option<u64>,
        /// What is wrong with it.
        reason: String,
    },
}

impl LogError {
    /// Content that is not what the format promises.
    pub fn content(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Content { path: path.into(), line: None, reason: reason.into() }
    }
}
