//! One file a command; each returns its exit code.

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

use trimtab_train::Loaded;

use crate::failure::Failure;

/// The recipe of a run, from its own `config.toml`.
fn open_run(run: &Path) -> Result<Loaded, Failure> {
    let config = run.join(trimtab_signals::CONFIG);
    if !config.is_file() {
        return Err(Failure::usage(format!(
            "{}: not a run directory: no {}",
            run.display(),
            trimtab_signals::CONFIG
        )));
    }
    Ok(trimtab_train::load(&config, &[])?)
}
