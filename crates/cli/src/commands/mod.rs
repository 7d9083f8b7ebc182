//! One file a command; each returns its exit code.

pub mod ablate;
pub mod check;
pub mod compare;
pub mod diagnose;
pub mod eval;
pub mod explain;
pub mod folds;
pub mod init;
pub mod inspect;
pub mod predict;
pub mod rules;
pub mod synth;
pub mod train;
pub mod watch;

use std::path::Path;

use trimtab_guard::Guarded;
use trimtab_signals::{RunReader, Summary};

use crate::failure::Failure;

/// The recipe of a run, from its own `config.toml`.
fn open_run(run: &Path) -> Result<Guarded, Failure> {
    let config = run.join(trimtab_signals::CONFIG);
    if !config.is_file() {
        return Err(Failure::usage(format!(
            "{}: not a run directory: no {}",
            run.display(),
            trimtab_signals::CONFIG
        )));
    }
    Ok(trimtab_guard::load(&config, &[])?)
}

/// Where one run of several stands.
struct Standing {
    /// Whether there is something to go on from.
    begun: bool,
    /// How it ended, where it has.
    summary: Option<Summary>,
}

/// Looks at the directory of one run of several; refuses one that was made with other settings than these.
fn standing(directory: &Path, guarded: &Guarded) -> Result<Standing, Failure> {
    if !directory.join(trimtab_signals::CONFIG).is_file() {
        return Ok(Standing { begun: false, summary: None });
    }
    // A remedy of the guard may have changed them since.
    let first = trimtab_guard::load(&trimtab_guard::first_config(directory), &[])?;
    if first.loaded.resolved.identity() != guarded.loaded.resolved.identity() {
        return Err(Failure::usage(format!(
            "{}: was made with other settings; give another --out",
            directory.display()
        )));
    }
    Ok(Standing { begun: true, summary: RunReader::open(directory)?.summary()? })
}
