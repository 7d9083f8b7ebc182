//! A JSON list of evaluations, each with a position: `[{"stage": "epoch_10", "iou": 0.51}, …]`.

use serde_json::Value;
use trimtab_signals::keys;

use super::{Certainty, Format, Layout, Peek, in_the_run_folder};
use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;
use crate::json_lines::{self, EpochBase, Object, Sink};

/// A list of evaluations as JSON.
pub const FORMAT: Format = Format {
    id: "evaluation-list-json",
    summary: "a JSON list of evaluations, each with its epoch or step",
    recognise,
    read,
    layout: Layout::File,
    rank: 20,
    depth: in_the_run_folder,
};

/// Fields that give the position, best first.
const POSITIONS: [&str; 10] =
    ["global_step", "step", "iteration", "iter", "epoch", "stage", "checkpoint", "name", "tag", "model"];

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    let document = json_lines::head_document(peek)?;
    let list = document.as_array()?;
    let evaluation = |entry: &Value| {
        let Some(entry) = entry.as_object() else { return false };
        let scores = entry.iter().any(|(name, value)| {
            json_lines::is_score(name)
                && json_lines::number(value).is_some()
                && json_lines::words(name).all(|word| json_lines::split_of(&word).is_none())
        });
        scores && position(entry).is_some()
    };
    // What has losses or a learning rate, or says itself of which samples a metric is, is the log of a training.
    let training = |entry: &Value| {
        entry.as_object().is_none_or(|entry| {
            entry.keys().filter(|name| json_lines::is_metric(name)).any(|name| {
                json_lines::words(name).any(|word| {
                    matches!(json_lines::split_of(&word), Some("train" | "val"))
                        || ["loss", "losses", "lr", "rate", "grad"].contains(&word.as_str())
                })
            })
        })
    };
    // An entry at the end, `final` or `best`, may lack a position.
    let evaluations = list.iter().filter(|entry| evaluation(entry)).count();
    (evaluations > 0 && evaluations + 1 >= list.len() && !list.iter().any(training))
        .then_some(Certainty::Generic)
}

/// The position of an evaluation, and whether it is an epoch.
fn position(entry: &Object) -> Option<(i64, bool)> {
    POSITIONS.iter().find_map(|&name| match entry.get(name)? {
        Value::String(text) => {
            let epoch = name == "epoch" || text.to_lowercase().contains("ep");
            json_lines::position_in_text(text).map(|position| (position, epoch))
        }
        value => json_lines::whole(value).map(|position| (position, name == "epoch")),
    })
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    let mut sink = Sink::new();
    for input in inputs {
        let (document, _) = json_lines::document(input)?;
        let list = document.as_array().map_or(&[][..], Vec::as_slice);
        let mut evaluations: Vec<((i64, bool), &Value)> =
            list.iter().filter_map(|entry| Some((entry.as_object().and_then(position)?, entry))).collect();
        if evaluations.len() < list.len() {
            let others = list.len() - evaluations.len();
            builder.note(format!("{others} evaluations have no position and were passed over"));
        }
        // Lists made from file names have `epoch_100` before `epoch_20`.
        evaluations.sort_by_key(|((step, _), _)| *step);
        let mut base = EpochBase::default();
        for ((step, is_epoch), entry) in evaluations {
            if is_epoch {
                sink.epoch(builder, step, base.zero_based(step as f64));
            }
            push(entry, step, &mut sink, builder);
        }
        sink.check(input)?;
    }
    Ok(())
}

fn push(entry: &Value, step: i64, sink: &mut Sink, builder: &mut RunBuilder) {
    json_lines::measurements(entry, |name, value| {
        if POSITIONS.contains(&name) {
            return;
        }
        // An evaluation has all its metrics; `null` is what strict writers put for `NaN`.
        let Some(number) = json_lines::number(value) else { return };
        if name == "num_val_samples" {
            builder.fact(&keys::DATA_VAL_SAMPLES, value.clone());
        } else if name.starts_with("num_") || name.starts_with("n_") {
            builder.declare(name, value);
        } else if json_lines::words(name).any(|word| json_lines::split_of(&word).is_some()) {
            sink.put(builder, name, step, number);
        } else {
            sink.put(builder, &format!("val/{name}"), step, number);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_lines::tests::{logged, read as read_files, recognised, survives};

    const LIST: &str = r#"[
  {"stage": "epoch_10", "precision": 0.7, "iou": 0.51, "num_val_samples": 534},
  {"stage": "epoch_100", "precision": null, "iou": 0.55, "num_val_samples": 534},
  {"stage": "epoch_20", "precision": 0.8, "iou": NaN, "test_iou": 0.5, "num_val_samples": 534},
  {"stage": "final", "precision": 0.8, "iou": 0.56, "num_val_samples": 534}
]"#;

    #[test]
    fn evaluations_are_of_validation_and_in_order() {
        assert_eq!(recognised(&FORMAT, "metrics.json", LIST), Some(Certainty::Generic));
        let run = read_files(&FORMAT, &[("metrics.json", LIST)]).expect("readable");
        let iou = logged(&run, "val/iou");
        assert_eq!(iou.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [10, 20, 100]);
        assert!(iou[1].1.is_nan());
        assert!(logged(&run, "val/precision")[2].1.is_nan());
        assert_eq!(logged(&run, "test_iou"), [(20, 0.5)]);
        assert_eq!(run.trace.epochs().values(), [9.0, 19.0, 99.0]);
        assert_eq!(run.facts.integer(keys::DATA_VAL_SAMPLES.name), Some(534));
        assert_eq!(run.notes.len(), 1);
    }

    #[test]
    fn lists_of_other_things_are_none() {
        for text in [
            r#"[{"image_id":1,"category_id":2,"bbox":[1,2,3,4],"score":0.5}]"#,
            r#"[{"epoch":1,"loss":0.5,"accuracy":0.6}]"#,
            r#"[{"epoch":1,"train_loss":0.5,"val_acc":0.6}]"#,
            r#"[{"epoch":1,"lr":0.5}]"#,
            r#"{"epoch":1,"iou":0.5}"#,
            "[1,2]",
            "[]",
        ] {
            assert_eq!(recognised(&FORMAT, "metrics.json", text), None, "{text}");
        }
        assert!(
            recognised(&FORMAT, "metrics.json", r#"[{"epoch":1,"f1":0.5},{"epoch":2,"f1":0.6}]"#).is_some()
        );
        assert!(read_files(&FORMAT, &[("metrics.json", "[]")]).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        survives(&FORMAT, "metrics.json", LIST);
    }
}
