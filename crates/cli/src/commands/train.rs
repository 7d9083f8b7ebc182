//! `trimtab train`.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use trimtab_guard::preflight::{self, Options, Verdict};
use trimtab_guard::{Choice, Guarded, Guardianship, Job};
use trimtab_signals::{RunInfo, Status};
use trimtab_train::Outcome;

use crate::args::TrainArgs;
use crate::commands::open_run;
use crate::failure::{DONE, Failure, INTERRUPTED, STOPPED};
use crate::progress::{Progress, print_json, say};
use crate::table;

pub fn run(args: &TrainArgs) -> Result<u8, Failure> {
    let interrupted = watch_for_interruption()?;
    if args.folds {
        return super::folds::run(args, &interrupted);
    }
    let loaded = match (&args.recipe, args.resume) {
        (Some(recipe), false) => trimtab_guard::load(recipe, &args.set)?,
        (recipe, _) => resumed(recipe.as_deref(), args)?,
    };
    if !args.no_check && !args.resume {
        check(&loaded, args, &interrupted)?;
    }
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

/// What Ctrl-C sets; a second one quits at once. To be called once.
pub fn watch_for_interruption() -> Result<Arc<AtomicBool>, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        eprintln!("\ninterrupted: writing a checkpoint after this step (again to quit at once)");
    })
    .map_err(|e| Failure::usage(format!("cannot watch for Ctrl-C: {e}")))?;
    Ok(interrupted)
}

/// Seconds that the checks before training may spend on experiments; `trimtab check` takes its time.
const CHECK_SECONDS: f64 = 20.0;

/// Checks before training, and shows what did not pass; what failed must be mended first.
fn check(guarded: &Guarded, args: &TrainArgs, interrupted: &AtomicBool) -> Result<(), Failure> {
    // A device that is not there is no fault of the recipe.
    trimtab_train::device::open(&args.device)?;
    let options = Options { device: args.device.clone(), seconds: CHECK_SECONDS, ..Options::default() };
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let report = preflight::check(guarded, &options, &mut |item| {
        if !args.json && item.verdict >= Verdict::Warn {
            eprintln!("{}", super::check::line(item, color));
        }
    });
    trimtab_kernels::alloc::release();
    if args.json {
        print_json(&serde_json::json!({"type": "check", "report": report.to_json()}));
    } else {
        eprintln!("check: {}", report.summary());
    }
    // Ctrl-C ends what comes next.
    if report.worst() < Verdict::Fail || interrupted.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(Failure::usage("not trained; `trimtab check` says more, --no-check trains all the same"))
}

/// Trains in a run directory under guard and shows the outcome.
pub fn train(
    guarded: &Guarded,
    args: &TrainArgs,
    directory: &Path,
    resume: bool,
    interrupted: &Arc<AtomicBool>,
) -> Result<Outcome, Failure> {
    let metric = guarded.loaded.recipe.common().metric().to_owned();
    let mut progress = Progress::new(args.json, &metric, Arc::clone(interrupted));
    let (json, name) = (args.json, guarded.loaded.entry.name);
    let mut on_start = |info: &RunInfo| {
        // Reading the data takes memory of other sizes than training does.
        trimtab_kernels::alloc::release();
        if !json {
            eprintln!("{}", headline(name, info));
        }
    };
    let job = Job {
        directory: directory.to_owned(),
        device: &args.device,
        resume,
        observer: &mut progress,
        on_start: &mut on_start,
        choice: Choice::Doctor,
        load: &trimtab_guard::load,
    };
    let guarded = trimtab_guard::train(guarded, job);
    progress.end();
    let Guardianship { outcome, journal, cost, .. } = guarded?;
    if args.json {
        let summary = serde_json::to_value(&outcome.summary).unwrap_or_default();
        let watching = serde_json::json!({"looks": cost.looks, "seconds": cost.seconds});
        print_json(
            &serde_json::json!({"type": "summary", "summary": summary, "guard": journal, "watching": watching}),
        );
    } else {
        say(&table::metrics(&outcome.summary, &metric));
        let rate = outcome.summary.steps_per_second.unwrap_or(f64::NAN);
        let wall = outcome.summary.wall_seconds.unwrap_or(f64::NAN);
        let report = journal.report(&metric);
        if !report.is_empty() {
            say(&format!("guard\n{report}"));
        }
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
fn resumed(recipe: Option<&Path>, args: &TrainArgs) -> Result<Guarded, Failure> {
    let own = open_run(&args.out)?;
    let Some(recipe) = recipe else {
        if !args.set.is_empty() {
            return Err(Failure::usage(
                "--set with --resume needs the recipe, and must repeat the run's settings",
            ));
        }
        return Ok(own);
    };
    let given = trimtab_guard::load(recipe, &args.set)?;
    // A remedy of the guard may have changed them since.
    let first = trimtab_guard::load(&trimtab_guard::first_config(&args.out), &[])?;
    let (ours, theirs) = (first.loaded.resolved.values(), given.loaded.resolved.values());
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

fn headline(name: &str, info: &RunInfo) -> String {
    let parameters: u64 = info.parameter_counts.values().sum();
    let labelled: u64 = info.class_counts.iter().filter(|(label, _)| *label != "-1").map(|(_, n)| n).sum();
    let shares: Vec<String> = info
        .class_counts
        .iter()
        .filter(|(label, _)| *label != "-1")
        .map(|(label, n)| format!("class {label} {:.1} %", 100.0 * *n as f64 / labelled.max(1) as f64))
        .collect();
    format!(
        "{name}: {parameters} parameters, {} steps at most, {labelled} labels ({}), device {} with {} threads, seed {}",
        info.steps_planned,
        shares.join(", "),
        info.device,
        info.threads,
        info.seed
    )
}
