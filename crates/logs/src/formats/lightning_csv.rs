//! `metrics.csv` of PyTorch Lightning's `CSVLogger`, with the `hparams.yaml` beside it.
//!
//! A row holds what was logged at once: training values, validation values or the learning rate. A blank cell is therefore not
//! measured; `NaN` is written as `nan`.

use trimtab_signals::keys;

use super::{Certainty, Format, Layout, Peek, in_the_run_folder};
use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;
use crate::table::{Cell, Row, Table};
use crate::yaml;

pub(super) const FORMAT: Format = Format {
    id: "lightning-csv",
    summary: "metrics.csv of PyTorch Lightning's CSVLogger",
    recognise,
    read,
    layout: Layout::File,
    rank: 30,
    depth: in_the_run_folder,
};

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    let mut table = Table::peek(peek)?;
    let (step, epoch) = (table.position("step")?, table.position("epoch")?);
    // Others log a step and an epoch, too. Lightning's own marks: the name, its suffixes, and rows of different kinds.
    let own = |name: &String| name.ends_with("_step") || name.ends_with("_epoch") || name.starts_with("lr-");
    let mut marked = peek.name() == "metrics.csv" || table.header().iter().any(own);
    let mut sparse = 0;
    for _ in 0..100 {
        let Some(row) = table.next_row() else { break };
        if row.value(step) == Cell::Text || row.value(epoch) == Cell::Text {
            return None;
        }
        sparse += usize::from(row.values().any(|cell| cell == Cell::Blank));
    }
    marked |= sparse > 1;
    marked.then_some(Certainty::Sure)
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    builder.fact(&keys::RUN_FRAMEWORK, "lightning");
    for input in inputs {
        if let Some(parameters) = input.beside("hparams.yaml") {
            yaml::declare(&parameters, builder);
        }
        let mut table = Table::open(input)?;
        let at = |name| table.position(name);
        let (step_at, epoch_at) = (at("step"), at("epoch"));
        let columns: Vec<_> = (0..table.header().len())
            .map(|at| {
                let metric = Some(at) != step_at && Some(at) != epoch_at;
                metric.then(|| builder.column(&table.header()[at]))
            })
            .collect();
        let (mut step, mut last_epoch) = (0, None);
        while let Some(row) = table.next_row() {
            let whole = |at: Option<usize>| at.and_then(|at| row.whole(at));
            // Some rows of old versions carry neither: they belong to the row before.
            step = whole(step_at).unwrap_or(step);
            if let Some(epoch) = epoch_at.and_then(|at| row.number(at))
                && last_epoch != Some((step, epoch))
            {
                // Training and validation rows share a step: it is told once.
                if last_epoch.is_none_or(|(known, _)| known != step) {
                    builder.epoch(step, epoch);
                }
                last_epoch = Some((step, epoch));
            }
            push(&row, &columns, step, builder);
        }
        table.finish(input, builder)?;
    }
    Ok(())
}

fn push(row: &Row<'_>, columns: &[Option<crate::builder::ColumnId>], step: i64, builder: &mut RunBuilder) {
    for (cell, column) in row.values().zip(columns) {
        if let (Cell::Number(value), Some(column)) = (cell, column) {
            builder.push(*column, step, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::open::read_bytes;

    const LOG: &str =
        "epoch,step,train_loss,val_loss\r\n0,9,0.5,\r\n0,12,,0.75\r\n1,19,nan,\r\n1,25,,0.7\r\n";

    fn certainty(name: &str, text: &str) -> Option<Certainty> {
        let path = std::path::Path::new(name);
        recognise(&Peek { path, head: text.as_bytes(), complete: true, text: Some(text) })
    }

    #[test]
    fn a_blank_cell_is_not_measured_and_nan_is() {
        let run = read_bytes("lightning-csv", "metrics.csv", LOG.as_bytes()).unwrap();
        let loss = run.trace.iter().find(|(name, _)| run.logged_name(name) == "train_loss").unwrap().1;
        assert_eq!(loss.steps(), [9, 19]);
        assert!(loss.values()[1].is_nan());
        assert_eq!(run.trace.epochs().at(25), Some(1.0));
        assert_eq!(run.facts.text("run.framework"), Some("lightning"));
    }

    #[test]
    fn parameters_beside_the_log_are_declared() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("metrics.csv"), LOG).unwrap();
        std::fs::write(folder.path().join("hparams.yaml"), "net: !!python/object:a.B\n  width: 7\n").unwrap();
        let mut builder = RunBuilder::new();
        read(&[Input::file(folder.path().join("metrics.csv"))], &mut builder).unwrap();
        assert!(builder.facts().iter().any(|(_, value)| value["width"] == 7 || *value == 7));
    }

    #[test]
    fn step_and_epoch_alone_are_no_mark_of_lightning() {
        assert_eq!(certainty("metrics.csv", LOG), Some(Certainty::Sure));
        assert_eq!(certainty("log.csv", LOG), Some(Certainty::Sure));
        assert_eq!(certainty("log.csv", "epoch,step,loss\n0,1,0.5\n"), None);
        assert_eq!(certainty("metrics.csv", "epoch,loss\n0,0.5\n"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..LOG.len()) {
            let _ = read_bytes("lightning-csv", "metrics.csv", &bytes);
            let mut mutated = LOG.as_bytes().to_vec();
            mutated.splice(at..(at + bytes.len() / 8).min(LOG.len()), bytes);
            let _ = read_bytes("lightning-csv", "metrics.csv", &mutated);
        }
    }
}
