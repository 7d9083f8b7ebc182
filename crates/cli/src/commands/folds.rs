//! `trimtab train --folds`: a cross-validation in one command.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::json;
use trimtab_data::atomic::write_atomic;
use trimtab_guard::statistics::{Moments, moments};
use trimtab_signals::{RunReader, Status};

use crate::args::TrainArgs;
use crate::commands::train::train;
use crate::commands::{open_run, standing};
use crate::failure::{DONE, Failure, INTERRUPTED, STOPPED};
use crate::progress::{print_json, say};
use crate::table::table;

/// File with the outcome of all folds.
const RESULT: &str = "folds.json";

/// What a fold achieved: by metric, with the best weights and at the end, and the floor.
#[derive(Default)]
struct Fold {
    best: BTreeMap<String, f64>,
    last: BTreeMap<String, f64>,
    floor: BTreeMap<String, f64>,
}

pub fn run(args: &TrainArgs, interrupted: &Arc<AtomicBool>) -> Result<u8, Failure> {
    let Some(recipe) = &args.recipe else { return Err(Failure::usage("--folds needs a recipe")) };
    let whole = trimtab_guard::load(recipe, &args.set)?.loaded;
    let count = whole.recipe.folds()?.ok_or_else(|| {
        Failure::usage("the recipe's data are not split into folds: --folds needs data.validation = \"folds\" or \"file\"")
    })?;
    let of_fold = |fold: u64| {
        let mut overrides = args.set.clone();
        overrides.push(format!("data.fold={fold}"));
        trimtab_guard::load(recipe, &overrides)
    };
    // A fold that can't be trained is better known now than in an hour.
    for fold in 0..count {
        of_fold(fold)?.loaded.recipe.check().map_err(|e| Failure::usage(format!("fold {fold}: {e}")))?;
    }
    let mut folds = Vec::new();
    for fold in 0..count {
        let directory = args.out.join(format!("fold-{fold}"));
        let guarded = of_fold(fold)?;
        let standing = standing(&directory, &guarded)?;
        let done = standing.summary.is_some_and(|s| s.status == Status::Finished);
        if !args.json {
            eprintln!("fold {} of {count}{}", fold + 1, if done { ": done before" } else { "" });
        }
        if !done {
            // A remedy of the guard may have changed the settings since.
            let now = if standing.begun { &open_run(&directory)? } else { &guarded };
            match train(now, args, &directory, standing.begun, interrupted)?.status {
                Status::Finished => {}
                Status::Interrupted => {
                    eprintln!("interrupted; the same command goes on");
                    return Ok(INTERRUPTED);
                }
                _ => return Ok(STOPPED),
            }
        }
        let mut outcome = Fold::default();
        for metric in guarded.loaded.recipe.evaluate(&directory, &args.device, None)?.metrics {
            outcome.floor.extend(metric.floor.map(|floor| (metric.name.clone(), floor)));
            outcome.best.insert(metric.name, metric.value);
        }
        if let Some(summary) = RunReader::open(&directory)?.summary()? {
            outcome.last.extend(summary.metrics.into_iter().filter_map(|(name, m)| Some((name, m.last?))));
        }
        folds.push(outcome);
    }
    show(args, &folds)
}

fn show(args: &TrainArgs, folds: &[Fold]) -> Result<u8, Failure> {
    let names: Vec<&String> = folds.first().map(|f| f.best.keys().collect()).unwrap_or_default();
    let of = |part: fn(&Fold) -> &BTreeMap<String, f64>, name: &str| {
        moments(folds.iter().filter_map(|f| part(f).get(name).copied()))
    };
    let pair = |m: Option<Moments>| {
        let Some(Moments { mean, deviation, n }) = m else { return "–".to_owned() };
        let deviation = deviation.map(|d| format!(" ± {d:.4}")).unwrap_or_default();
        let fewer = if n < folds.len() { format!(" ({n} folds)") } else { String::new() };
        format!("{mean:.4}{deviation}{fewer}")
    };
    let rows = names.iter().map(|name| {
        let floor = of(|f| &f.floor, name).map_or_else(|| "–".to_owned(), |m| format!("{:.4}", m.mean));
        vec![(*name).clone(), floor, pair(of(|f| &f.best, name)), pair(of(|f| &f.last, name))]
    });
    let moments_json =
        |m: Option<Moments>| m.map(|m| json!({"mean": m.mean, "deviation": m.deviation, "folds": m.n}));
    let metrics: serde_json::Map<_, _> = names
        .iter()
        .map(|name| {
            let each: Vec<Option<f64>> = folds.iter().map(|f| f.best.get(*name).copied()).collect();
            let value = json!({
                "best": moments_json(of(|f| &f.best, name)), "last": moments_json(of(|f| &f.last, name)),
                "floor": of(|f| &f.floor, name).map(|m| m.mean), "best_by_fold": each,
            });
            ((*name).clone(), value)
        })
        .collect();
    let result = json!({"folds": folds.len(), "metrics": metrics});
    let text = serde_json::to_string_pretty(&result).map_err(|e| Failure::usage(e.to_string()))?;
    write_atomic(&args.out.join(RESULT), |w| w.write_all(text.as_bytes()))?;
    if args.json {
        print_json(&json!({"type": "folds", "result": result}));
    } else {
        say(&table(&["metric", "floor", "best weights", "at the end"], rows));
        say(&format!(
            "mean ± deviation over {} folds; the best weights of a fold are chosen on its own validation part; in {}",
            folds.len(),
            args.out.join(RESULT).display()
        ));
    }
    Ok(DONE)
}
