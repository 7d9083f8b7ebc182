//! The one error type of this crate.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

/// Why a run could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The settings.
    #[error(transparent)]
    Config(#[from] crate::settings::ConfigError),
    /// The data.
    #[error(transparent)]
    Data(#[from] trimtab_data::DataError),
    /// Weights that can't be written or read.
    #[error(transparent)]
    Weights(#[from] trimtab_nn::params::WeightsError),
    /// The run directory.
    #[error(transparent)]
    RunDirectory(#[from] trimtab_signals::Error),
    /// The operating system refused.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A checkpoint that is not one, or of another run.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What was found and what is accepted.
        problem: String,
    },
    /// A device that is not there or not compiled in.
    #[error("{0}")]
    Device(String),
    /// A request that makes no sense here.
    #[error("{0}")]
    Usage(String),
    /// A fault of ours.
    #[error("internal error: {0}")]
    Internal(String),
}

impl TrainError {
    /// A refusal of the operating system's.
    pub fn io(path: impl Into<PathBuf>, action: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), action, source }
    }
}
