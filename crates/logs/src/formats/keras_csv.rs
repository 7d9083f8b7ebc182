//! The table of Keras' `CSVLogger`, and a `History` that pandas wrote: `loss` and `val_loss`, one row an epoch.
//!
//! `CSVLogger` writes `NA` for what was not measured in an epoch and `nan` for `NaN`. Blanks are pandas', and are judged as in
//! any table.

use std::collections::HashSet;

use trimtab_signals::keys;

use super::generic_csv;
use super::{Certainty, Format, Layout, Peek, in_the_run_folder};
use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;
use crate::table::{Cell, Table};

pub(super) const FORMAT: Format = Format {
    id: "keras-csv",
    summary: "table of Keras' CSVLogger, or its History written by pandas",
    recognise,
    read,
    layout: Layout::File,
    rank: 30,
    depth: in_the_run_folder,
};

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    let mut table = Table::peek(peek)?;
    let names: HashSet<&str> = table.header().iter().map(String::as_str).collect();
    if names.len() > 1000 || !names.contains("loss") {
        return None;
    }
    let other = ["epoch", "lr", "learning_rate", "Unnamed: 0"];
    let validation = |name: &&str| name.strip_prefix("val_").is_some_and(|of| names.contains(of));
    let metrics: Vec<&str> =
        table.header().iter().map(String::as_str).filter(|name| !other.contains(name)).collect();
    let pairs = metrics.iter().filter(|name| validation(name)).count();
    let bare = metrics.iter().filter(|name| !name.starts_with("val_") && !name.contains('/')).count();
    // Every metric has its `val_` twin, as `fit` makes them; one pair alone others write, too. Without validation: an epoch and
    // sorted metrics, none of them named after the training set.
    let twins = pairs > 1 && pairs == bare && pairs + bare == metrics.len();
    let alone = names.contains("epoch")
        && metrics.len() > 1
        && metrics.is_sorted()
        && bare == metrics.len()
        && metrics
            .iter()
            .all(|name| ["loss", "accuracy", "acc"].contains(name) || name.ends_with("_accuracy"));
    if !twins && !alone {
        return None;
    }
    for _ in 0..20 {
        let Some(row) = table.next_row() else { break };
        if row.values().any(|cell| cell == Cell::Text) {
            return None;
        }
    }
    Some(Certainty::Sure)
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    builder.fact(&keys::RUN_FRAMEWORK, "keras");
    generic_csv::read(inputs, builder)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::open::read_bytes;

    const LOG: &str = "epoch,accuracy,loss,val_accuracy,val_loss\n0,0.5,1.5,NA,NA\n1,0.6,nan,0.25,2\n";

    fn certainty(text: &str) -> Option<Certainty> {
        let path = std::path::Path::new("log.csv");
        recognise(&Peek { path, head: text.as_bytes(), complete: true, text: Some(text) })
    }

    #[test]
    fn na_is_not_measured_and_nan_is() {
        let run = read_bytes("keras-csv", "training.log", LOG.as_bytes()).unwrap();
        let column =
            |logged: &str| run.trace.iter().find(|(name, _)| run.logged_name(name) == logged).unwrap().1;
        assert_eq!(column("val_loss").steps(), [1]);
        assert!(column("loss").at(1).unwrap().is_nan());
        assert_eq!(run.facts.text("run.framework"), Some("keras"));
    }

    #[test]
    fn a_history_without_epochs_counts_its_rows() {
        let run =
            read_bytes("keras-csv", "history.csv", b"val_loss,val_acc,loss,acc\n3,0,4,0\n2,0,3,0\n").unwrap();
        assert!(run.trace.iter().all(|(_, column)| column.steps() == [0, 1]));
    }

    #[test]
    fn recognised_by_the_twins_of_its_metrics() {
        assert_eq!(certainty(LOG), Some(Certainty::Sure));
        assert_eq!(certainty(",loss,acc,val_loss,val_acc\n0,1,2,3,4\n"), Some(Certainty::Sure));
        assert_eq!(certainty("epoch,accuracy,loss\n0,1,2\n"), Some(Certainty::Sure));
        assert_eq!(certainty("epoch,train_loss,val_loss\n0,1,2\n"), None);
        assert_eq!(certainty("epoch,loss,val_loss,val_dice\n0,1,2,3\n"), None);
        assert_eq!(certainty("epoch,loss,val_loss\n0,1,2\n"), None);
        assert_eq!(certainty("acc,loss,val_acc,val_loss\nno,low,no,high\n"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..LOG.len()) {
            let _ = read_bytes("keras-csv", "log.csv", &bytes);
            let mut mutated = LOG.as_bytes().to_vec();
            mutated.splice(at..(at + bytes.len() / 8).min(LOG.len()), bytes);
            let _ = read_bytes("keras-csv", "log.csv", &mutated);
        }
    }
}
