//! `trimtab ablate`: what each of several changes is worth.

use std::sync::atomic::Ordering;

use serde_json::json;
use trimtab_guard::ablate::{Ablation, Ending, Factors, MARKDOWN, Options, Plan, RESULT};

use crate::args::{AblateArgs, TrainArgs};
use crate::commands::standing;
use crate::commands::train::{train, watch_for_interruption};
use crate::failure::{DONE, Failure, INTERRUPTED, STOPPED};
use crate::progress::{print_json, say};
use crate::table::table;

pub fn run(args: &AblateArgs) -> Result<u8, Failure> {
    let interrupted = watch_for_interruption()?;
    // What would end every run is a mistake of the whole command.
    trimtab_train::device::open(&args.device)?;
    let factors = Factors::read(&args.factors)?;
    let options = Options { set: args.set.clone(), seeds: args.seeds, leave_one_out: args.leave_one_out };
    let plan = Plan::new(&args.recipe, &factors, &options)?;
    let mut attempts = plan.attempts();
    let mut begun = Vec::new();
    for (run, attempt) in plan.runs.iter().zip(&mut attempts) {
        let standing = standing(&args.out.join(&run.directory), &run.guarded)?;
        if let Some(summary) = &standing.summary {
            attempt.ended(summary, &plan.metric);
        }
        begun.push(standing.begun);
    }
    std::fs::create_dir_all(&args.out)
        .map_err(|e| Failure::usage(format!("{}: cannot create: {e}", args.out.display())))?;
    let training = training(args);
    for (index, run) in plan.runs.iter().enumerate() {
        let attempt = &mut attempts[index];
        // One that was stopped would stop again.
        let done = matches!(attempt.ending, Ending::Finished | Ending::Stopped);
        let directory = args.out.join(&run.directory);
        let place =
            format!("run {} of {}: {}, seed {}", index + 1, plan.runs.len(), attempt.variant, run.seed);
        if args.json {
            print_json(
                &json!({"type": "run", "variant": attempt.variant, "seed": run.seed, "directory": directory, "done": done}),
            );
        } else {
            eprintln!("{place}{}", if done { ": done before" } else { "" });
        }
        if done {
            continue;
        }
        match train(&run.guarded, &training, &directory, begun[index], &interrupted) {
            Ok(outcome) => attempt.ended(&outcome.summary, &plan.metric),
            Err(failure) => {
                if !args.json {
                    eprintln!("{place}: failed: {}; going on with the others", failure.message());
                }
                attempt.failed(failure.message().to_owned());
            }
        }
        plan.outcome(&attempts).write(&args.out)?;
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
    }
    // All done before, perhaps, and never written.
    let ablation = plan.outcome(&attempts);
    ablation.write(&args.out)?;
    show(&ablation, args);
    Ok(if !ablation.complete {
        INTERRUPTED
    } else if attempts.iter().any(|a| a.ending == Ending::Failed) {
        STOPPED
    } else {
        DONE
    })
}

/// The arguments of each training.
fn training(args: &AblateArgs) -> TrainArgs {
    TrainArgs {
        recipe: Some(args.recipe.clone()),
        out: args.out.clone(),
        set: args.set.clone(),
        device: args.device.clone(),
        resume: false,
        folds: false,
        // All settings and data have been checked by now.
        no_check: true,
        json: args.json,
    }
}

fn show(ablation: &Ablation, args: &AblateArgs) {
    let place = |file: &str| args.out.join(file).display().to_string();
    if args.json {
        print_json(&json!({"type": "ablation", "result": ablation}));
        return;
    }
    let header = ablation.header();
    say(&table(&header.iter().map(String::as_str).collect::<Vec<_>>(), ablation.rows()));
    for note in ablation.notes() {
        say(&note);
    }
    say(&format!("in {} and {}", place(RESULT), place(MARKDOWN)));
}
