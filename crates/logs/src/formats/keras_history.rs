//! The `history` of Keras' `fit`, dumped as JSON: a list of values for each metric.

use serde_json::Value;
use trimtab_signals::keys;

use super::{Certainty, Format, Layout, Peek, in_the_run_folder};
use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;
use crate::json_lines::{self, Sink};

/// A Keras history as JSON.
pub const FORMAT: Format = Format {
    id: "keras-history",
    summary: "history of Keras' fit() as JSON: a list of values for each metric",
    recognise,
    read,
    layout: Layout::File,
    // Of a framework, but others write the same and have better logs beside it.
    rank: 25,
    depth: in_the_run_folder,
};

/// Tables that only hold the metrics.
const WRAPPERS: [&str; 5] = ["history", "metrics", "logs", "log", "results"];
/// Names of the list of positions.
const POSITIONS: [&str; 6] = ["epoch", "epochs", "step", "steps", "iteration", "iterations"];
/// Most other values of the document that are declared.
const MOST_DECLARED: usize = 1000;

/// What a document holds.
#[derive(Default)]
struct History<'v> {
    columns: Vec<(String, Vec<f64>)>,
    positions: Option<(String, Vec<f64>)>,
    others: Vec<(String, &'v Value)>,
}

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    let document = json_lines::head_document(peek)?;
    let named = peek.name().contains("history");
    if let Value::Array(epochs) = &document {
        let of_an_epoch = |epoch: &Value| epoch.get("loss").and_then(json_lines::number).is_some();
        return (named && !epochs.is_empty() && epochs.iter().all(of_an_epoch)).then_some(Certainty::Sure);
    }
    let history = History::of(&document);
    let longest = history.columns.iter().map(|(_, values)| values.len()).max()?;
    // A configuration has lists too, but more of other things, and none of losses.
    let lists = history.columns.len() >= history.others.len();
    let metric = history.columns.iter().any(|(name, values)| {
        values.len() == longest && json_lines::is_metric(name.rsplit('/').next().unwrap_or(name))
    });
    let several = longest >= 2 || (history.others.is_empty() && history.columns.len() >= 2);
    (lists && metric && several).then_some(Certainty::Generic)
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    let mut sink = Sink::new();
    for input in inputs {
        let (document, torn) = json_lines::document(input)?;
        if let Value::Array(epochs) = &document {
            read_epochs(epochs, &mut sink, builder);
        } else {
            read_history(&document, torn, &mut sink, builder);
        }
        sink.check(input)?;
    }
    Ok(())
}

/// A list of one table an epoch.
fn read_epochs(epochs: &[Value], sink: &mut Sink, builder: &mut RunBuilder) {
    for (at, record) in epochs.iter().enumerate() {
        let logged = record.get("epoch").and_then(json_lines::whole);
        let step = logged.unwrap_or(at as i64);
        sink.epoch(builder, step, at as f64);
        json_lines::measurements(record, |name, value| {
            // Keras measures all or nothing in an epoch: `null` is what strict writers put for `NaN`.
            if let Some(value) = json_lines::number(value)
                && name != "epoch"
            {
                sink.put(builder, name, step, value);
            }
        });
    }
}

fn read_history(document: &Value, torn: bool, sink: &mut Sink, builder: &mut RunBuilder) {
    let history = History::of(document);
    let longest = history.columns.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
    let positions = history.positions.filter(|(_, values)| values.len() >= longest && !torn);
    let step = |at: usize| match &positions {
        Some((_, values)) => values.get(at).map_or(at as i64, |&position| position as i64),
        None => at as i64,
    };
    // Where there are validation columns of the same length these are epochs; training loops also dump lists with a loss of each
    // batch.
    let epochs = match &positions {
        Some((name, _)) => name.starts_with("epoch"),
        None => history.columns.iter().any(|(name, values)| {
            values.len() == longest
                && json_lines::words(name).any(|w| json_lines::split_of(&w) == Some("val"))
        }),
    };
    if epochs {
        for at in 0..longest {
            sink.epoch(builder, step(at), at as f64);
        }
    }
    for (name, values) in &history.columns {
        // A column of a whole fraction of the length was measured at the end of every so many.
        let every = match longest.checked_div(values.len()) {
            Some(every) if !torn && every * values.len() == longest => every,
            _ => 1,
        };
        for (at, &value) in values.iter().enumerate() {
            sink.put(builder, name, step((at + 1) * every - 1), value);
        }
    }
    for (name, value) in history.others.into_iter().take(MOST_DECLARED) {
        match name.as_str() {
            "params.epochs" => builder.facts().set(keys::RUN_EPOCHS.name, value.clone()),
            "params.steps" => builder.facts().set(keys::RUN_STEPS_PER_EPOCH.name, value.clone()),
            _ => builder.declare(&name, value),
        }
    }
}

impl<'v> History<'v> {
    fn of(document: &'v Value) -> Self {
        let mut history = Self::default();
        // A column as pandas writes it: a table from row to value.
        let mut rows: Option<(String, Vec<f64>)> = None;
        json_lines::leaves(document, '/', |path, value| {
            if let Value::Array(list) = value {
                let values: Option<Vec<f64>> = list.iter().map(json_lines::number).collect();
                match values {
                    Some(values) if !values.is_empty() => history.add(path, values),
                    _ => {}
                }
                return;
            }
            if let Some((column, row)) = path.rsplit_once('/')
                && let (Ok(row), Some(number)) = (row.parse::<usize>(), json_lines::number(value))
            {
                match &mut rows {
                    Some((known, values)) if known == column && values.len() == row => {
                        values.push(number);
                        return;
                    }
                    _ if row == 0 => {
                        if let Some((column, values)) = rows.replace((column.to_owned(), vec![number])) {
                            history.add(&column, values);
                        }
                        return;
                    }
                    _ => {}
                }
            }
            let scalar = value.is_string() || value.is_boolean() || value.is_number();
            if scalar && history.others.len() < MOST_DECLARED * 4 {
                history.others.push((path.replace('/', "."), value));
            }
        });
        if let Some((column, values)) = rows {
            history.add(&column, values);
        }
        history
    }

    fn add(&mut self, path: &str, values: Vec<f64>) {
        let mut name = path;
        while let Some((first, rest)) = name.split_once('/')
            && WRAPPERS.contains(&first.to_ascii_lowercase().as_str())
        {
            name = rest;
        }
        if POSITIONS.contains(&name.to_ascii_lowercase().as_str()) {
            if self.positions.is_none() && values.is_sorted_by(|a, b| a < b) {
                self.positions = Some((name.to_ascii_lowercase(), values));
            }
        } else {
            self.columns.push((name.to_owned(), values));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_lines::tests::{logged, read as read_files, recognised, survives};

    const PLAIN: &str =
        r#"{"loss": [0.9, NaN, null], "val_loss": [0.8, 0.7, 0.6], "lr": [1e-3, 1e-3, 1e-4]}"#;

    fn run(text: &str) -> trimtab_signals::Run {
        read_files(&FORMAT, &[("history.json", text)]).expect("readable")
    }

    #[test]
    fn every_variant_gives_the_same_columns() {
        let variants = [
            PLAIN,
            r#"{"epochs":[0.0,1.0,2.0],"metrics":{"loss":[0.9,NaN,NaN],"val_loss":[0.8,0.7,0.6]}}"#,
            r#"{"history":{"loss":[0.9,NaN,NaN],"val_loss":[0.8,0.7,0.6]},"params":{"epochs":3,"verbose":1}}"#,
            r#"[{"loss":0.9,"val_loss":0.8},{"loss":NaN,"val_loss":0.7},{"loss":null,"val_loss":0.6}]"#,
            r#"{"loss":{"0":0.9,"1":null,"2":null},"val_loss":{"0":0.8,"1":0.7,"2":0.6}}"#,
        ];
        for text in variants {
            assert!(recognised(&FORMAT, "history.json", text).is_some(), "{text}");
            let run = run(text);
            assert_eq!(logged(&run, "val_loss"), [(0, 0.8), (1, 0.7), (2, 0.6)], "{text}");
            let loss = logged(&run, "loss");
            assert_eq!(loss.len(), 3, "{text}");
            assert!(loss[1].1.is_nan() && loss[2].1.is_nan(), "{text}");
            assert_eq!(run.trace.epochs().values(), [0.0, 1.0, 2.0], "{text}");
        }
    }

    #[test]
    fn nested_splits_keep_their_names_and_shorter_columns_their_place() {
        let run = run(r#"{"train":{"loss":[4,3,2,1]},"val":{"dice":[0.1,0.2]},"config":{"lr":0.1}}"#);
        assert_eq!(logged(&run, "train/loss").len(), 4);
        assert_eq!(logged(&run, "val/dice"), [(1, 0.1), (3, 0.2)]);
        assert!(run.trace.epochs().is_empty(), "four batches or four epochs");
        assert!(run.facts.iter().any(|(_, value)| value.as_f64() == Some(0.1)));
    }

    #[test]
    fn a_torn_history_gives_what_is_there() {
        let run = run(r#"{"loss": [0.9, 0.8, 0.7, 0.6], "val_loss": [0.5, 0.4, 0."#);
        assert_eq!(logged(&run, "loss").len(), 4);
        assert_eq!(logged(&run, "val_loss"), [(0, 0.5), (1, 0.4)]);
    }

    #[test]
    fn configurations_and_results_are_none() {
        for text in [
            r#"{"learning_rate":0.1,"betas":[0.9,0.99]}"#,
            r#"{"optimizer":"adam","loss_weights":[0.5,0.5]}"#,
            r#"{"betas":[0.9,0.99],"milestones":[10,20]}"#,
            r#"{"train_loss":2.3,"epoch":3.0}"#,
            r#"{"all_tr_losses":"[]","batch_size":"2"}"#,
            r#"[{"image_id":1,"score":0.5}]"#,
            "[]",
            "{}",
            "[1,2,3]",
            "loss",
        ] {
            assert_eq!(recognised(&FORMAT, "history.json", text), None, "{text}");
        }
        assert!(read_files(&FORMAT, &[("history.json", "{}")]).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        survives(&FORMAT, "history.json", PLAIN);
        survives(
            &FORMAT,
            "history.json",
            r#"{"epochs":[0,1],"m":{"loss":{"0":0.9,"1":0.5}},"params":{"epochs":3}}"#,
        );
    }
}
