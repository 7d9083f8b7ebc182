//! The records of MLCommons AlgoPerf: `measurements.csv`, `eval_measurements.csv` and the configuration beside them.
//!
//! pandas wrote them, and writes `NaN` as a blank. A row is of one kind and leaves the columns of the others blank:
//! - an evaluation has `total_duration`, and every `train/…`, `validation/…` and `test/…` column belongs to it;
//! - the last row of a run that came to its end has a `score` and no duration, and holds no measurement;
//! - any other is a training row, to which `loss`, `grad_norm`, `lr` and whatever else is not an evaluation's belong.
//!
//! A blank in a column of the row's own kind is a `NaN`: a training row with nothing but its step is a step whose loss was one.

use serde_json::Value;
use trimtab_signals::{Key, keys, names};

use super::{Certainty, Format, Layout, Peek, in_the_run_folder};
use crate::builder::{ColumnId, RunBuilder};
use crate::error::LogError;
use crate::input::Input;
use crate::table::{Cell, Row, Table};

pub(super) const FORMAT: Format = Format {
    id: "algoperf",
    summary: "measurements.csv and eval_measurements.csv of MLCommons AlgoPerf",
    recognise,
    read,
    layout: Layout::Together,
    rank: 35,
    depth: in_the_run_folder,
};

/// Bytes of a configuration that are read.
const CONFIGURATION: u64 = 1 << 20;
/// What an evaluation says about the run rather than about the network.
const BOOKKEEPING: [&str; 7] = [
    "global_step",
    "score",
    "total_duration",
    "accumulated_submission_time",
    "accumulated_eval_time",
    "accumulated_logging_time",
    "preemption_count",
];
/// Flags that say something about the training.
const FLAGS: [&str; 9] = [
    "workload",
    "framework",
    "tuning_ruleset",
    "num_tuning_trials",
    "hparam_start_index",
    "max_global_steps",
    "rng_seed",
    "torch_compile",
    "experiment_name",
];

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    let table = Table::peek(peek)?;
    let all = ["global_step", "score", "total_duration", "accumulated_submission_time", "preemption_count"];
    all.iter().all(|name| table.position(name).is_some()).then_some(Certainty::Sure)
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    if let Some(input) = inputs.first() {
        flags(input, builder);
        hyperparameters(input, builder);
    }
    // Both files hold the evaluations. They are taken from the one that has more: either may be older, or cut.
    let mut readable = Vec::new();
    let mut failed = None;
    for input in inputs {
        match evaluations(input, builder) {
            Ok(evaluations) => readable.push((input, evaluations)),
            Err(error) => failed = Some(error),
        }
    }
    if let Some(error) = failed {
        if readable.is_empty() {
            return Err(error);
        }
        builder.note(error.to_string());
    }
    let most = readable.iter().map(|(_, evaluations)| *evaluations).max();
    let chosen = readable.iter().position(|(_, evaluations)| Some(*evaluations) == most);
    for (at, (input, _)) in readable.iter().enumerate() {
        rows(input, chosen == Some(at), builder)?;
    }
    Ok(())
}

/// The signal of the translation workloads' metric.
const BLEU: &str = "val/metric/bleu";

/// Number of evaluations in a file.
fn evaluations(input: &Input, builder: &mut RunBuilder) -> Result<u64, LogError> {
    let mut table = Table::open(input)?;
    let header = Header::of(&table);
    let mut evaluations = 0;
    while let Some(row) = table.next_row() {
        evaluations += u64::from(header.kind(&row) == Kind::Evaluation);
    }
    table.finish(input, builder)?;
    Ok(evaluations)
}

/// Reads the training rows of a file, and its evaluations where they are wanted.
fn rows(input: &Input, evaluations: bool, builder: &mut RunBuilder) -> Result<(), LogError> {
    let mut table = Table::open(input)?;
    let header = Header::of(&table);
    let mut columns: Vec<Option<ColumnId>> = vec![None; table.header().len()];
    for (column, name) in columns.iter_mut().zip(table.header()) {
        if name.ends_with("/num_examples") || BOOKKEEPING.contains(&name.as_str()) {
            continue;
        }
        let id = builder.column(name);
        // Evaluations on samples of the three sets, in evaluation mode: the plain `loss` is that of the batch.
        let signal = match name.as_str() {
            "loss" => Some(names::LOSS_TOTAL.name),
            "train/loss" | "train/ctc_loss" => Some(names::TRAIN_LOSS.name),
            "validation/loss" | "validation/ctc_loss" => Some(names::VAL_LOSS.name),
            "test/loss" | "test/ctc_loss" => Some(names::TEST_LOSS.name),
            _ => None,
        };
        if let Some(signal) = signal {
            builder.is_signal(id, signal);
        }
        // The benchmark's BLEU is sacrebleu's, in percent: a run that stays under 1 has learned nothing.
        if name == "validation/bleu" {
            builder.is_signal(id, BLEU);
            builder.facts().set(keys::EVALUATE_PERFECT.group(BLEU), 100.0);
        }
        *column = Some(id);
    }
    // Of the training set only the samples that evaluations use are counted in the file.
    let samples =
        [("validation/num_examples", &keys::DATA_VAL_SAMPLES)].map(|(name, key)| (table.position(name), key));
    while let Some(row) = table.next_row() {
        let kind = header.kind(&row);
        let Some(step) = header.step.and_then(|at| row.whole(at)) else { continue };
        let wanted = match kind {
            Kind::Evaluation => evaluations,
            Kind::Training => true,
            Kind::End => {
                builder.fact(&keys::RUN_FINISHED, true);
                false
            }
        };
        if !wanted {
            continue;
        }
        if kind == Kind::Evaluation {
            if let Some(seconds) = header.duration.and_then(|at| row.number(at)) {
                builder.time(step, seconds);
            }
            for (at, key) in samples {
                if let Some(count) = at.and_then(|at| row.whole(at)) {
                    builder.fact(key, count);
                }
            }
        }
        for (at, cell) in row.values().enumerate() {
            let own = header.evaluated.get(at) == Some(&(kind == Kind::Evaluation));
            let Some(column) = columns.get(at).copied().flatten().filter(|_| own) else { continue };
            match cell {
                Cell::Number(value) => builder.push(column, step, value),
                Cell::Blank => builder.push(column, step, f64::NAN),
                Cell::Text => {}
            }
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Training,
    Evaluation,
    End,
}

struct Header {
    step: Option<usize>,
    duration: Option<usize>,
    score: Option<usize>,
    /// Whether a column belongs to the evaluations.
    evaluated: Vec<bool>,
}

impl Header {
    fn of<R: std::io::BufRead>(table: &Table<R>) -> Self {
        Self {
            step: table.position("global_step"),
            duration: table.position("total_duration"),
            score: table.position("score"),
            evaluated: table.header().iter().map(|name| name.contains('/')).collect(),
        }
    }

    fn kind(&self, row: &Row<'_>) -> Kind {
        let filled = |at: Option<usize>| at.is_some_and(|at| row.value(at) != Cell::Blank);
        if filled(self.duration) {
            Kind::Evaluation
        } else if filled(self.score) {
            Kind::End
        } else {
            Kind::Training
        }
    }
}

fn table_beside(
    input: &Input,
    name: &str,
    builder: &mut RunBuilder,
) -> Option<serde_json::Map<String, Value>> {
    let text = input.beside(name)?.to_text(CONFIGURATION).ok()?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(table)) => Some(table),
        Ok(_) | Err(_) => {
            builder.note(format!("{name} is not a table in JSON and was passed over"));
            None
        }
    }
}

fn flags(input: &Input, builder: &mut RunBuilder) {
    let Some(flags) = table_beside(input, "flags_0.json", builder) else { return };
    for name in FLAGS {
        let Some(value) = flags.get(name).filter(|value| !value.is_null()) else { continue };
        match (name, value.as_u64()) {
            ("framework", _) => builder.fact(&keys::RUN_FRAMEWORK, value.clone()),
            ("max_global_steps", Some(steps)) => builder.fact(&keys::RUN_STEPS, steps),
            ("rng_seed", Some(seed)) => builder.fact(&keys::RUN_SEED, seed),
            _ => builder.declare(name, value),
        }
    }
    // The folder of `…/nadamp/submission.py`, or the name of `…/jax_nadamw_full_budget.py`.
    if let Some(path) = flags.get("submission_path").and_then(Value::as_str) {
        let path = path.trim_end_matches(".py").trim_end_matches("/submission");
        builder.declare("submission", &path.rsplit('/').next().unwrap_or(path).into());
    }
}

fn hyperparameters(input: &Input, builder: &mut RunBuilder) {
    let Some(parameters) = table_beside(input, "hparams.json", builder) else { return };
    for (name, value) in &parameters {
        let one_minus: Option<&Key> = match name.as_str() {
            "one_minus_beta1" | "one_minus_momentum" => Some(&keys::OPTIM_MOMENTUM),
            "one_minus_beta2" => Some(&keys::OPTIM_BETA2),
            _ => None,
        };
        let known: Option<&Key> = match name.as_str() {
            "learning_rate" => Some(&keys::OPTIM_LEARNING_RATE),
            "weight_decay" => Some(&keys::OPTIM_WEIGHT_DECAY),
            "beta1" => Some(&keys::OPTIM_MOMENTUM),
            "beta2" => Some(&keys::OPTIM_BETA2),
            "label_smoothing" => Some(&keys::OPTIM_LABEL_SMOOTHING),
            _ => None,
        };
        match (one_minus, known, value.as_f64()) {
            (Some(key), _, Some(number)) => builder.fact(key, 1.0 - number),
            (_, Some(key), Some(number)) => builder.fact(key, number),
            _ => builder.declare(name, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::open::read_bytes;

    const HEADER: &str = "global_step,grad_norm,loss,lr,train/loss,train/ssim,validation/loss,\
        validation/num_examples,score,total_duration,accumulated_submission_time,preemption_count\n";
    const ROWS: &str = "1,2,0.5,0.1,,,,,,,,\n1,,,,0.75,0.25,0.8,50,9,10,9,0\n2,inf,0.25,0.1,,,,,,,,\n3,,,0.1,,,,,,,,\n\
        9,,,,,0.5,,50,90,100,90,0\n9,,,,,,,,95,,,0\n";

    fn log() -> String {
        format!("{HEADER}{ROWS}")
    }

    #[test]
    fn a_blank_is_nan_in_the_columns_of_its_rows_kind_only() {
        let run = read_bytes("algoperf", "measurements.csv", log().as_bytes()).unwrap();
        let loss = run.trace.get("loss/total").unwrap();
        assert_eq!(loss.steps(), [1, 2, 3]);
        assert_eq!(loss.values()[..2], [0.5, 0.25]);
        assert!(loss.values()[2].is_nan());
        for name in ["train/loss", "val/loss"] {
            let column = run.trace.get(name).unwrap();
            assert_eq!(column.steps(), [1, 9], "{name}");
            assert!(column.values()[0].is_finite() && column.values()[1].is_nan(), "{name}");
        }
        let ssim = run.trace.iter().find(|(name, _)| run.logged_name(name) == "train/ssim").unwrap().1;
        assert_eq!(ssim.values(), [0.25, 0.5]);
        assert_eq!(run.trace.times().at(9), Some(100.0));
        assert_eq!(run.facts.boolean("run.finished"), Some(true));
        assert_eq!(run.facts.integer("data.val_samples"), Some(50));
        assert!(
            run.trace.iter().all(|(name, _)| !BOOKKEEPING.contains(&name) && !name.contains("num_examples"))
        );
    }

    #[test]
    fn evaluations_in_both_files_count_once() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("measurements.csv", &log());
        write(
            "eval_measurements.csv",
            "global_step,train/loss,score,total_duration,accumulated_submission_time,preemption_count\n\
             1,0.75,9,10,9,0\n9,,9,100,9,0\n12,0.5,9,110,9,0\n",
        );
        write("hparams.json", r#"{"learning_rate": 0.5, "one_minus_beta1": 0.25, "beta2": 0.9, "power": 2}"#);
        write(
            "flags_0.json",
            r#"{"framework": "jax", "max_global_steps": 50, "submission_path": "a/b/submission.py"}"#,
        );
        let inputs =
            ["eval_measurements.csv", "measurements.csv"].map(|name| Input::file(folder.path().join(name)));
        let mut builder = RunBuilder::new();
        read(&inputs, &mut builder).unwrap();
        let run = builder.finish("a", "algoperf");
        assert_eq!(run.trace.get("train/loss").unwrap().steps(), [1, 9, 12]);
        assert_eq!(run.trace.get("loss/total").unwrap().len(), 3);
        assert_eq!(run.notes, Vec::<String>::new());
        assert_eq!(run.facts.number("optim.learning_rate"), Some(0.5));
        assert_eq!(run.facts.number("optim.momentum"), Some(0.75));
        assert_eq!(run.facts.integer("run.steps"), Some(50));
        assert_eq!(run.facts.text("run.framework"), Some("jax"));
        assert!(run.facts.iter().any(|(_, value)| value == "b"));
    }

    #[test]
    fn recognised_by_its_bookkeeping() {
        let path = std::path::Path::new("a.csv");
        let of =
            |text: &str| recognise(&Peek { path, head: text.as_bytes(), complete: true, text: Some(text) });
        assert_eq!(of(HEADER), Some(Certainty::Sure));
        assert_eq!(of("global_step,loss,score\n1,2,3\n"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..HEADER.len() + ROWS.len()) {
            let _ = read_bytes("algoperf", "measurements.csv", &bytes);
            let mut mutated = log().into_bytes();
            mutated.splice(at..(at + bytes.len() / 8).min(mutated.len()), bytes);
            let _ = read_bytes("algoperf", "measurements.csv", &mutated);
        }
    }
}
