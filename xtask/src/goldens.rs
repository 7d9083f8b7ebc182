//! Regenerates golden values.

use std::fs;
use std::process::Command;

use crate::{Outcome, root};

/// What to run them with.
#[derive(clap::Args)]
pub struct Args {
    /// A Python with torch, numpy, scipy and scikit-learn.
    #[arg(long, default_value = "python3")]
    python: String,
}

/// Runs every `goldens/<name>.py` that has a `goldens/<name>.json`.
pub fn run(args: &Args) -> Outcome {
    let folder = root().join("goldens");
    let mut scripts: Vec<_> =
        fs::read_dir(&folder)?.collect::<Result<Vec<_>, _>>()?.into_iter().map(|e| e.path()).collect();
    scripts.retain(|p| p.extension().is_some_and(|e| e == "py") && p.with_extension("json").exists());
    scripts.sort();
    for script in scripts {
        let values = script.with_extension("json");
        let before = fs::read(&values)?;
        let status = Command::new(&args.python).arg(&script).current_dir(&folder).status()?;
        if !status.success() {
            return Err(format!("{}: failed with {status}", script.display()).into());
        }
        let changed = fs::read(&values)? != before;
        println!("{}: {}", values.display(), if changed { "CHANGED" } else { "the same" });
    }
    Ok(())
}
