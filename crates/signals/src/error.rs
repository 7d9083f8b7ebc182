//! What can go wrong with a run directory.

use std::io;
use std::path::{Path, PathBuf};

/// A failure to write or read a run directory. Names the file, and the line where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A new run was to be started in a directory with files in it.
    #[error(
        "run directory `{}` is already used: choose another name, resume the run in it, or remove the \
         directory",
        path.display()
    )]
    AlreadyUsed {
        /// The directory.
        path: PathBuf,
    },
    /// A directory holds no run.
    #[error(
        "`{}` is not a run directory: it has no signals.jsonl",
        path.display()
    )]
    NotARun {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("failed to {action} `{}`", path.display())]
    Io {
        /// What was tried: `read`, `write`, …
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A line of `signals.jsonl` or `events.jsonl` is not what it should be.
    #[error("{}:{line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// `run.json` or `summary.json` is not what it should be.
    #[error("failed to understand `{}`", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A record that cannot be told apart after reading it back.
    #[error("step {step}: `{name}` {problem}")]
    Record {
        /// The step of the record.
        step: u64,
        /// The offending name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn line(path: &Path, line: u64, reason: impl Into<String>) -> Self {
        Self::Line { path: path.to_owned(), line, reason: reason.into() }
    }
}
