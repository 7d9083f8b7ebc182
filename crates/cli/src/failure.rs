//! How a command fails: what is printed and the exit code.

use std::process::ExitCode;

use trimtab_data::DataError;
use trimtab_train::TrainError;

/// Done.
pub const DONE: u8 = 0;
/// Stopped by an expectation, or a problem found by an inspection.
pub const STOPPED: u8 = 3;
/// Interrupted by Ctrl-C.
pub const INTERRUPTED: u8 = 130;

const INTERNAL: u8 = 1;
const USAGE: u8 = 2;

/// An error with its exit code.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// A mistake of the user's, or a refusal of the system's.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }

    /// A fault of ours that has been told.
    pub fn internal() -> Self {
        Self {
            code: INTERNAL,
            message: "this is a fault of trimtab, not of yours; please report it".to_owned(),
        }
    }

    /// What it says.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Prints to standard error.
    pub fn report(&self) -> ExitCode {
        for line in self.message.lines() {
            eprintln!("error: {line}");
        }
        self.code.into()
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        let code = if matches!(error, TrainError::Internal(_)) { INTERNAL } else { USAGE };
        Self { code, message: error.to_string() }
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<trimtab_signals::Error> for Failure {
    fn from(error: trimtab_signals::Error) -> Self {
        Self::usage(error.to_string())
    }
}
