//! `trainer_state.json` of the Hugging Face `Trainer`.

use std::path::Path;

use serde_json::Value;
use trimtab_signals::{keys, names};

use super::{Certainty, Format, Layout, Peek};
use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;
use crate::json_lines::{self, Object, Sink};

/// `trainer_state.json` of Transformers.
pub const FORMAT: Format = Format {
    id: "hf-trainer-state",
    summary: "trainer_state.json of the Hugging Face Trainer",
    recognise,
    read,
    layout: Layout::Folder,
    rank: 30,
    depth,
};

/// The fields of `trainer_state.json` that are declared under their own names.
const DECLARED: [&str; 8] = [
    "best_metric",
    "best_global_step",
    "global_step",
    "logging_steps",
    "save_steps",
    "trial_name",
    "num_input_tokens_seen",
    "total_flos",
];

/// Each checkpoint has a copy of the state so far in its own folder: all of them are one run.
fn depth(path: &Path) -> usize {
    let folder = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    usize::from(folder.is_some_and(|name| name.starts_with("checkpoint-") || name == "last-checkpoint"))
}

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    if !peek.text?.contains("\"log_history\"") {
        return None;
    }
    let document = json_lines::head_document(peek)?;
    let marked = document.get("global_step").is_some() || document.get("max_steps").is_some();
    let list = document.get("log_history").is_some_and(Value::is_array);
    (list && marked).then_some(Certainty::Sure)
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    let mut newest: Option<(&Input, Value)> = None;
    let mut failure = None;
    for input in inputs {
        match json_lines::document(input) {
            Ok((state, _)) => {
                if newest.as_ref().is_none_or(|(_, known)| progress(&state) > progress(known)) {
                    newest = Some((input, state));
                }
            }
            Err(error) => failure = Some(error),
        }
    }
    let Some((input, state)) = newest else { return failure.map_or(Ok(()), Err) };
    if inputs.len() > 1 {
        builder.note(format!(
            "of {} copies of the state the newest was read, `{}`",
            inputs.len(),
            input.path().display()
        ));
    }

    let mut sink = Sink::new();
    let (mut finished, mut evaluated) = (false, false);
    for record in history(&state) {
        let Value::Object(record) = record else { continue };
        finished |= record.contains_key("train_runtime");
        evaluated |= record.keys().any(|name| name.starts_with("eval_"));
        push(record, &mut sink, builder);
    }
    declare(&state, finished, evaluated, builder);
    sink.check(input)
}

fn history(state: &Value) -> &[Value] {
    state.get("log_history").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// How far a copy of the state has come.
fn progress(state: &Value) -> (Option<i64>, usize) {
    (state.get("global_step").and_then(json_lines::whole), history(state).len())
}

fn push(record: &Object, sink: &mut Sink, builder: &mut RunBuilder) {
    let Some(step) = record.get("step").and_then(json_lines::whole) else { return };
    // The record at the end of training has means over the whole run, not measurements at its step.
    if record.contains_key("train_runtime") {
        for (name, value) in record.iter().filter(|(name, _)| name.starts_with("train_")) {
            builder.facts().set(format!("declared.{name}"), value.clone());
        }
        return;
    }
    if let Some(epoch) = record.get("epoch").and_then(json_lines::finite) {
        sink.epoch(builder, step, epoch);
    }
    for (name, value) in record {
        // Speed and effort say nothing about the training.
        let effort =
            name.ends_with("_per_second") || ["step", "epoch", "total_flos"].contains(&name.as_str());
        if effort {
            continue;
        }
        json_lines::measurements(value, |path, value| {
            // What was not measured has no entry; `null` is what strict writers put for `NaN`.
            let Some(value) = json_lines::number(value) else { return };
            let name = if path.is_empty() { name.clone() } else { format!("{name}/{path}") };
            if let Some(column) = sink.put(builder, &name, step, value)
                && name == "eval_runtime"
            {
                builder.is_signal(column, names::TIME_EVALUATE_SECONDS.name);
            }
        });
    }
}

fn declare(state: &Value, finished: bool, evaluated: bool, builder: &mut RunBuilder) {
    let whole = |name: &str| state.get(name).and_then(json_lines::whole).filter(|&count| count > 0);
    builder.fact(&keys::RUN_FRAMEWORK, "transformers");
    let counts = [
        ("max_steps", &keys::RUN_STEPS),
        ("num_train_epochs", &keys::RUN_EPOCHS),
        ("train_batch_size", &keys::OPTIM_BATCH_SIZE),
    ];
    for (name, key) in counts {
        if let Some(count) = whole(name) {
            builder.fact(key, count);
        }
    }
    // The default is written also where nothing is ever evaluated. Below 1 it is a share of all steps.
    if let Some(steps) = whole("eval_steps").filter(|_| evaluated) {
        builder.fact(&keys::EVALUATE_INTERVAL, steps);
    }
    for name in DECLARED {
        if let Some(value) = state.get(name).filter(|value| !value.is_null()) {
            builder.declare(name, value);
        }
    }
    // Otherwise this may be the state within a checkpoint of a run that went on.
    if finished
        || matches!((whole("global_step"), whole("max_steps")), (Some(done), Some(all)) if done >= all)
    {
        builder.fact(&keys::RUN_FINISHED, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_lines::tests::{logged, read as read_files, recognised, survives};

    const STATE: &str = r#"{
  "best_metric": null, "epoch": 2.0, "eval_steps": 10, "global_step": 20,
  "log_history": [
    {"epoch": 0.5, "grad_norm": NaN, "learning_rate": 1e-4, "loss": 0.9, "step": 5},
    {"epoch": 1.0, "grad_norm": 2.5, "learning_rate": 5e-5, "loss": null, "step": 10},
    {"epoch": 1.0, "eval_loss": 0.8, "eval_runtime": 3.0, "eval_steps_per_second": 1.5, "step": 10},
    "rubbish", {"no": "step"},
    {"epoch": 2.0, "step": 20, "total_flos": 1e9, "train_loss": 0.7, "train_runtime": 77.0}
  ],
  "max_steps": 20, "num_train_epochs": 2, "train_batch_size": 4
}"#;

    #[test]
    fn the_history_is_read_without_the_means_of_the_last_record() {
        let run = read_files(&FORMAT, &[("trainer_state.json", STATE)]).expect("readable");
        let norm = logged(&run, "grad_norm");
        assert!(norm.first().is_some_and(|&(step, norm)| step == 5 && norm.is_nan()));
        assert!(logged(&run, "loss").get(1).is_some_and(|&(step, loss)| step == 10 && loss.is_nan()));
        assert_eq!(logged(&run, "eval_loss"), [(10, 0.8)]);
        assert_eq!(run.trace.last("time/evaluate_seconds"), Some((10, 3.0)));
        assert!(logged(&run, "train_loss").is_empty());
        assert!(logged(&run, "eval_steps_per_second").is_empty());
        assert_eq!(run.trace.epochs().iter().collect::<Vec<_>>(), [(5, 0.5), (10, 1.0)]);
        assert_eq!(run.facts.integer(keys::RUN_STEPS.name), Some(20));
        assert_eq!(run.facts.integer(keys::OPTIM_BATCH_SIZE.name), Some(4));
        assert_eq!(run.facts.integer(keys::EVALUATE_INTERVAL.name), Some(10));
        assert_eq!(run.facts.boolean(keys::RUN_FINISHED.name), Some(true));
        assert_eq!(run.facts.number("declared.train_loss"), Some(0.7));
    }

    #[test]
    fn of_several_checkpoints_the_newest_is_read() {
        let old = r#"{"global_step":5,"max_steps":20,"log_history":[{"loss":1.0,"step":5}]}"#;
        let run = read_files(&FORMAT, &[("root.json", STATE), ("checkpoint-5/trainer_state.json", old)]);
        assert_eq!(logged(&run.expect("readable"), "loss").len(), 2);
        let run = read_files(&FORMAT, &[("checkpoint-5/trainer_state.json", old)]).expect("readable");
        assert_eq!(run.facts.get(keys::RUN_FINISHED.name), None, "it may have gone on");
        assert_eq!(depth(Path::new("a/checkpoint-5/trainer_state.json")), 1);
        assert_eq!(depth(Path::new("a/trainer_state.json")), 0);
    }

    #[test]
    fn a_torn_state_gives_what_is_there() {
        let torn = STATE.split_once(r#", "eval_runtime"#).map(|(head, _)| head).expect("there");
        let run = read_files(&FORMAT, &[("trainer_state.json", torn)]).expect("readable");
        assert_eq!(logged(&run, "learning_rate").len(), 2);
    }

    #[test]
    fn results_without_a_history_are_none() {
        assert_eq!(recognised(&FORMAT, "x.json", STATE), Some(Certainty::Sure));
        assert_eq!(recognised(&FORMAT, "x.json", r#"{"epoch":3.0,"train_loss":2.3}"#), None);
        assert_eq!(recognised(&FORMAT, "x.json", r#"{"log_history":[]}"#), None);
        assert!(read_files(&FORMAT, &[("x.json", "{}")]).is_err());
        assert!(read_files(&FORMAT, &[("x.json", "")]).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        survives(&FORMAT, "trainer_state.json", STATE);
    }
}
