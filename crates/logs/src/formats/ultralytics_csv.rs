//! `results.csv` of Ultralytics (YOLOv5 and later), with the files of arguments beside it.
//!
//! One row an epoch, names padded with blanks. Everything is measured in every epoch: a blank cell does not occur and would say
//! nothing; `NaN` is written as `nan`.

use trimtab_signals::{keys, names};

use super::{Certainty, Format, Layout, Peek, in_the_run_folder};
use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;
use crate::table::{Cell, Table};
use crate::yaml;

pub(super) const FORMAT: Format = Format {
    id: "ultralytics-csv",
    summary: "results.csv of Ultralytics YOLO",
    recognise,
    read,
    layout: Layout::File,
    rank: 30,
    depth: in_the_run_folder,
};

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    let table = Table::peek(peek)?;
    let header = table.header();
    let any = |before: &str| header.iter().any(|name| name.starts_with(before));
    let own = header.first().is_some_and(|name| name == "epoch")
        && any("metrics/")
        && any("train/")
        && (any("lr/pg") || any("x/lr"));
    own.then_some(Certainty::Sure)
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    builder.fact(&keys::RUN_FRAMEWORK, "ultralytics");
    for input in inputs {
        // YOLOv5 splits the arguments over two files.
        for name in ["args.yaml", "opt.yaml", "hyp.yaml"] {
            if let Some(arguments) = input.beside(name) {
                yaml::declare(&arguments, builder);
            }
        }
        let mut table = Table::open(input)?;
        let (epoch_at, time_at) = (table.position("epoch"), table.position("time"));
        let columns: Vec<_> = (0..table.header().len())
            .map(|at| {
                let name = &table.header()[at];
                let metric = Some(at) != epoch_at && Some(at) != time_at;
                metric.then(|| {
                    let column = builder.column(name);
                    // Computed on the validation set, which the name does not say.
                    if let Some(group) = name.strip_prefix("metrics/") {
                        builder.is_signal(column, names::VAL_METRIC.group(group));
                    }
                    column
                })
            })
            .collect();
        // Some versions count from 0, others from 1.
        let mut first = None;
        let mut row_number = 0;
        while let Some(row) = table.next_row() {
            let step = epoch_at.and_then(|at| row.whole(at)).unwrap_or(row_number);
            row_number = step.saturating_add(1);
            let first = *first.get_or_insert(i64::from(step == 1));
            builder.epoch(step, (step - first) as f64);
            if let Some(seconds) = time_at.and_then(|at| row.number(at)) {
                builder.time(step, seconds);
            }
            for (cell, column) in row.values().zip(&columns) {
                if let (Cell::Number(value), Some(column)) = (cell, column) {
                    builder.push(*column, step, value);
                }
            }
        }
        table.finish(input, builder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::open::read_bytes;

    const LOG: &str = "   epoch,   train/box_loss,  metrics/mAP50-95(B),   val/box_loss,   lr/pg0\n\
        \x20      1,   1.5,   0.25,   2.5,   0.01\n       2,   nan,   0.5,   2,   0.005\n";

    #[test]
    fn padded_cells_are_read_and_metrics_are_of_validation() {
        let run = read_bytes("ultralytics-csv", "results.csv", LOG.as_bytes()).unwrap();
        let map = run.trace.get("val/metric/mAP50-95(B)").unwrap();
        assert_eq!((map.steps(), map.values()), (&[1, 2][..], &[0.25, 0.5][..]));
        assert_eq!(run.logged_name("val/metric/mAP50-95(B)"), "metrics/mAP50-95(B)");
        assert_eq!(run.trace.epochs().at(1), Some(0.0));
        let boxes = run.trace.iter().find(|(name, _)| run.logged_name(name) == "train/box_loss").unwrap().1;
        assert!(boxes.at(2).unwrap().is_nan());
    }

    #[test]
    fn recognised_by_its_names() {
        let path = std::path::Path::new("a.csv");
        let of =
            |text: &str| recognise(&Peek { path, head: text.as_bytes(), complete: true, text: Some(text) });
        assert_eq!(of(LOG), Some(Certainty::Sure));
        assert_eq!(of("epoch,train/loss,val/loss,lr\n1,2,3,4\n"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..LOG.len()) {
            let _ = read_bytes("ultralytics-csv", "results.csv", &bytes);
            let mut mutated = LOG.as_bytes().to_vec();
            mutated.splice(at..(at + bytes.len() / 8).min(LOG.len()), bytes);
            let _ = read_bytes("ultralytics-csv", "results.csv", &mutated);
        }
    }
}
