//! `trimtab train`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use trimtab_signals::{RunInfo, Status};
use trimtab_train::{Loaded, Outcome, Session};

use crate::args::TrainArgs;
use crate::commands::open_run;
use crate::failure::{DONE, Failure, INTERRUPTED, STOPPED};
use crate::progress::{Progress, print_json, say};
use crate::table;

pub fn run(args: &TrainArgs) -> Result<u8, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        eprintln!("\ninterrupted: writing a checkpoint after this step (again to quit at once)");
    })
    .map_err(|e| Failure::usage(format!("cannot watch for Ctrl-C: {e}")))?;
    if args.folds {
        return super::folds::run(args, &interrupted);
    }
    let loaded = match (&args.recipe, args.resume) {
        (Some(recipe), false) => trimtab_train::load(recipe, &args.set)?,
        (recipe, _) => resumed(recipe.as_deref(), args)?,
    };
    let outcome = train(&loaded, args, &args.out, args.resume, &interrupted)?;
    Ok(match outcome.status {
        Status::Finished => DONE,
        Status::Interrupted => {
            eprintln!("interrupted; go on with: trimtab train --resume --out {}", args.out.display());
            INTERRUPTED
        }
        _ => STOPPED,
    })
}

/// Trains in a run directory and shows the outcome.
pub fn train(
    loaded: &Loaded,
    args: &TrainArgs,
    directory: &Path,
    resume: bool,
    interrupted: &Arc<AtomicBool>,
) -> Result<Outcome, Failure> {
    let mut progress = Progress::new(args.json, loaded.recipe.common().metric(), Arc::clone(interrupted));
    let json = args.json;
    let mut on_start = |info: &RunInfo| {
        // Reading the data takes memory of other sizes than training does.
        trimtab_kernels::alloc::release();
        if !json {
            eprintln!("{}", headline(loaded, info));
        }
    };
    let session = Session {
        directory: directory.to_owned(),
        resolved: &loaded.resolved,
        device: &args.device,
        resume,
        observer: &mut progress,
        on_start: &mut on_start,
    };
    let outcome = loaded.recipe.train(session);
    progress.end();
    let outcome = outcome?;
    if args.json {
        let summary = serde_json::to_value(&outcome.summary).unwrap_or_default();
        print_json(&serde_json::json!({"type": "summary", "summary": summary}));
    } else {
        say(&table::metrics(&outcome.summary, loaded.recipe.common().metric()));
        let rate = outcome.summary.steps_per_second.unwrap_or(f64::NAN);
        let wall = outcome.summary.wall_seconds.unwrap_or(f64::NAN);
        say(&format!(
            "{} steps in {wall:.0} s ({rate:.2} steps/s); results in {}",
            outcome.summary.steps,
            directory.display()
        ));
        if let Some(reason) = &outcome.reason {
            say(&format!(
                "{}: {reason}",
                if outcome.status == Status::Finished { "ended early" } else { "stopped" }
            ));
        }
    }
    Ok(outcome)
}

/// The settings of the run to go on with; a recipe given beside `--resume` must agree with them.
fn resumed(recipe: Option<&std::path::Path>, args: &TrainArgs) -> Result<Loaded, Failure> {
    let own = open_run(&args.out)?;
    let Some(recipe) = recipe else {
        if !args.set.is_empty() {
            return Err(Failure::usage(
                "--set with --resume needs the recipe, and must repeat the run's settings",
            ));
        }
        return Ok(own);
    };
    let given = trimtab_train::load(recipe, &args.set)?;
    let (ours, theirs) = (own.resolved.values(), given.resolved.values());
    let different: Vec<String> = theirs
        .iter()
        .filter(|(key, value)| ours.get(*key) != Some(*value))
        .map(|(key, value)| {
            format!("`{key}` was {}, now {value}", ours.get(key).map_or("not set", String::as_str))
        })
        .collect();
    if !different.is_empty() {
        let place = args.out.display();
        return Err(Failure::usage(format!(
            "{place}: the run was made with other settings: {}",
            different.join("; ")
        )));
    }
    Ok(own)
}

fn headline(loaded: &Loaded, info: &RunInfo) -> String {
    let parameters: u64 = info.parameter_counts.values().sum();
    let labelled: u64 = info.class_counts.iter().filter(|(label, _)| *label != "-1").map(|(_, n)| n).sum();
    let shares: Vec<String> = info
        .class_counts
        .iter()
        .filter(|(label, _)| *label != "-1")
        .map(|(label, n)| format!("class {label} {:.1} %", 100.0 * *n as f64 / labelled.max(1) as f64))
        .collect();
    format!(
        "{}: {parameters} parameters, {} steps at most, {labelled} labels ({}), device {} with {} threads, seed {}",
        loaded.entry.name,
        info.steps_planned,
        shares.join(", "),
        info.device,
        info.threads,
        info.seed
    )
}
