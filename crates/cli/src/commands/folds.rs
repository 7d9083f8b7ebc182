//! `trimtab train --folds`: a cross-validation in one command.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::json;
use trimtab_data::atomic::write_atomic;
use trimtab_signals::{RunReader, Status};

use crate::args::TrainArgs;
use crate::commands::open_run;
use crate::commands::train::train;
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
    let whole = trimtab_train::load(recipe, &args.set)?;
    let count = whole.recipe.folds()?.ok_or_else(|| {
        Failure::usage("the recipe's data are not split into folds: --folds needs data.validation = \"folds\" or \"file\"")
    })?;
    let of_fold = |fold: u64| {
        let mut overrides = args.set.clone();
        overrides.push(format!("data.fold={fold}"));
        trimtab_train::load(recipe, &overrides)
    };
    // A fold that can't be trained is better known now than in an hour.
    for fold in 0..count {
        of_fold(fold)?.recipe.check().map_err(|e| Failure::usage(format!("fold {fold}: {e}")))?;
    }
    let mut folds = Vec::new();
    for fold in 0..count {
        let directory = args.out.join(format!("fold-{fold}"));
        let loaded = of_fold(fold)?;
        let begun = directory.join(trimtab_signals::CONFIG).is_file();
        if begun && open_run(&directory)?.resolved.identity() != loaded.resolved.identity() {
            return Err(Failure::usage(format!(
                "{}: was made with other settings; give another --out",
                directory.display()
            )));
        }
        let done = begun && finished(&directory)?;
        if !args.json {
            eprintln!("fold {} of {count}{}", fold + 1, if done { ": done before" } else { "" });
        }
        if !done {
            match train(&loaded, args, &directory, begun, interrupted)?.status {
                Status::Finished => {}
                Status::Interrupted => {
                    eprintln!("interrupted; the same command goes on");
                    return Ok(INTERRUPTED);
                }
                _ => return Ok(STOPPED),
            }
        }
        let mut outcome = Fold::default();
        for metric in loaded.recipe.evaluate(&directory, &args.device, None)?.metrics {
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

fn finished(directory: &Path) -> Result<bool, Failure> {
    Ok(RunReader::open(directory)?.summary()?.is_some_and(|s| s.status == Status::Finished))
}

/// Mean and sample deviation of the finite values, and their number; none without any.
fn moments(values: impl Iterator<Item = f64>) -> Option<(f64, f64, usize)> {
    let values: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (n > 0.0).then_some((mean, square.sqrt(), values.len()))
}

fn show(args: &TrainArgs, folds: &[Fold]) -> Result<u8, Failure> {
    let names: Vec<&String> = folds.first().map(|f| f.best.keys().collect()).unwrap_or_default();
    let of = |part: fn(&Fold) -> &BTreeMap<String, f64>, name: &str| {
        moments(folds.iter().filter_map(|f| part(f).get(name).copied()))
    };
    let pair = |m: Option<(f64, f64, usize)>| match m {
        None => "–".to_owned(),
        Some((mean, deviation, n)) if n < folds.len() => format!("{mean:.4} ± {deviation:.4} ({n} folds)"),
        Some((mean, deviation, _)) => format!("{mean:.4} ± {deviation:.4}"),
    };
    let rows = names.iter().map(|name| {
        let floor = of(|f| &f.floor, name).map_or_else(|| "–".to_owned(), |(mean, ..)| format!("{mean:.4}"));
        vec![(*name).clone(), floor, pair(of(|f| &f.best, name)), pair(of(|f| &f.last, name))]
    });
    let moments_json = |m: Option<(f64, f64, usize)>| {
        m.map(|(mean, deviation, n)| json!({"mean": mean, "deviation": deviation, "folds": n}))
    };
    let metrics: serde_json::Map<_, _> = names
        .iter()
        .map(|name| {
            let each: Vec<Option<f64>> = folds.iter().map(|f| f.best.get(*name).copied()).collect();
            let value = json!({
                "best": moments_json(of(|f| &f.best, name)), "last": moments_json(of(|f| &f.last, name)),
                "floor": of(|f| &f.floor, name).map(|(mean, ..)| mean), "best_by_fold": each,
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
