//! The training log of nnU-Net, versions 1 and 2. Steps are epochs, counted from 0 as the log does.
//!
//! A run that is continued writes a further file, so that all files of a folder are one run.

use serde_json::Value;
use trimtab_signals::names::VAL_DICE;
use trimtab_signals::{Key, keys};

use super::{Certainty, Format, Layout, Peek, in_the_run_folder};
use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;
use crate::key_values::{Item, scan};
use crate::log_line::{Clock, Ending, each_line, time_and_message};
use crate::python;

/// Longest `debug.json` that is read: it may hold the splits of all folds.
const LONGEST_DEBUG: u64 = 64 << 20;
/// Most classes that get a column of their own.
const MOST_CLASSES: usize = 256;

pub(crate) static FORMAT: Format = Format {
    id: "nnunet",
    summary: "nnU-Net: training_log_*.txt, with debug.json",
    recognise,
    read,
    layout: Layout::Folder,
    rank: 30,
    depth: in_the_run_folder,
};

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    const MARKS: [&str; 3] =
        ["Desired fold for training: ", "Average global foreground Dice: [", "Pseudo dice ["];
    // Tables and code may quote a line; a log has it behind the time.
    peek.lines()
        .take(2_000)
        .any(|line| {
            let (stamp, message) = time_and_message(line);
            let heading = line.trim_end() == "This is the configuration used by this training:";
            heading || (stamp.is_some() && MARKS.iter().any(|mark| message.starts_with(mark)))
        })
        .then_some(Certainty::Sure)
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    builder.fact(&keys::RUN_FRAMEWORK, "nnU-Net");
    // The numbers in the names have no leading zeros: `_2023_9_1_` comes before `_2023_10_1_`.
    let mut ordered: Vec<(Vec<u64>, &Input)> =
        inputs.iter().map(|input| (numbers(&input.name()), input)).collect();
    ordered.sort_by(|(a, _), (b, _)| a.cmp(b));
    if let Some((_, input)) = ordered.last()
        && let Some(debug) = input.beside("debug.json")
    {
        declare(&debug, builder);
    }
    let mut log = Log::default();
    for (_, input) in &ordered {
        each_line(input, |line, whole| log.line(line, whole, builder))?;
    }
    let known = log.epoch.is_some() || log.ending.is_known();
    log.ending.declare(builder);
    match ordered.first() {
        Some((_, input)) if !known && builder.is_empty() && builder.facts().iter().nth(1).is_none() => {
            Err(LogError::content(input.path(), "no epoch and no configuration in it"))
        }
        _ => Ok(()),
    }
}

fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[derive(Default)]
struct Log {
    clock: Clock,
    ending: Ending,
    epoch: Option<i64>,
    /// Time of the last line that had one: version 1 prints epochs without.
    seconds: Option<f64>,
}

impl Log {
    fn line(&mut self, line: &str, whole: bool, builder: &mut RunBuilder) {
        let (stamp, message) = time_and_message(line);
        if self.ending.look(message) || !whole {
            return;
        }
        let message = message.trim();
        if let Some(stamp) = stamp {
            self.seconds = Some(self.clock.seconds(stamp));
        }
        if let Some(cases) = message.strip_prefix("This split has ") {
            self.cases(cases, builder);
            return;
        }
        // Version 2 prints its plan as a table.
        if message.starts_with("{'") {
            if let Some((plan, _)) = python::literal(message)
                && let Some(size) = plan.get("batch_size").and_then(Value::as_u64)
            {
                builder.fact(&keys::OPTIM_BATCH_SIZE, size);
            }
            return;
        }
        let epoch = self.epoch.unwrap_or(0);
        for item in scan(message).into_iter().take(2) {
            match item {
                Item::Number(n) if n.key.eq_ignore_ascii_case("epoch") && (0.0..1e9).contains(&n.value) => {
                    let epoch = n.value as i64;
                    self.epoch = Some(epoch);
                    builder.epoch(epoch, n.value);
                    if let Some(seconds) = self.seconds {
                        builder.time(epoch, seconds);
                    }
                }
                Item::Number(n) => match n.key {
                    "train_loss" | "train loss" => builder.put("train_loss", epoch, n.value),
                    "val_loss" | "validation loss" => {
                        builder.put("val_loss", epoch, n.value);
                        self.ending.went_on();
                    }
                    "Current learning rate" => builder.put("lr", epoch, n.value),
                    // Version 1 prints the rate of the next epoch at the end of each.
                    "lr" => builder.put("lr", self.epoch.map_or(0, |epoch| epoch + 1), n.value),
                    "Pseudo dice" | "Average global foreground Dice" => {
                        self.dice(&[n.value], epoch, builder);
                    }
                    // Of whole cases after training, not of patches: another measure than the one above.
                    "Mean Validation Dice" => builder.put("val/Mean Validation Dice", epoch, n.value),
                    _ => {}
                },
                Item::List { key: "Pseudo dice" | "Average global foreground Dice", values } => {
                    self.dice(&values, epoch, builder);
                }
                _ => {}
            }
        }
    }

    /// Dice of each class of the foreground, and their mean without classes that do not occur.
    fn dice(&mut self, values: &[f64], epoch: i64, builder: &mut RunBuilder) {
        let present: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
        let mean =
            if present.is_empty() { f64::NAN } else { present.iter().sum::<f64>() / present.len() as f64 };
        let column = builder.column("val/dice");
        builder.is_signal(column, VAL_DICE.name);
        builder.push(column, epoch, mean);
        if values.len() > 1 {
            for (class, value) in values.iter().enumerate().take(MOST_CLASSES) {
                let column = builder.column(&format!("val/dice.{class}"));
                builder.is_signal(column, VAL_DICE.group(&class.to_string()));
                builder.push(column, epoch, *value);
            }
        }
        self.ending.went_on();
    }

    /// `208 training and 52 validation cases.`
    fn cases(&self, text: &str, builder: &mut RunBuilder) {
        let mut words = text.split(' ');
        let (train, validation) = (words.next(), words.nth(2));
        for (key, count) in [(&keys::DATA_TRAIN_SAMPLES, train), (&keys::DATA_VAL_SAMPLES, validation)] {
            if let Some(count) = count.and_then(|count| count.parse::<u64>().ok()) {
                builder.fact(key, count);
            }
        }
    }
}

/// Declares the attributes of the trainer, which `debug.json` has as texts of Python values.
fn declare(debug: &Input, builder: &mut RunBuilder) {
    let Ok(text) = debug.to_text(LONGEST_DEBUG) else { return };
    let Ok(Value::Object(attributes)) = serde_json::from_str::<Value>(&text) else {
        builder.note("debug.json is no JSON object");
        return;
    };
    let facts: [(&str, &Key); 9] = [
        ("batch_size", &keys::OPTIM_BATCH_SIZE),
        ("initial_lr", &keys::OPTIM_LEARNING_RATE),
        ("weight_decay", &keys::OPTIM_WEIGHT_DECAY),
        ("num_epochs", &keys::RUN_EPOCHS),
        ("max_num_epochs", &keys::RUN_EPOCHS),
        ("num_iterations_per_epoch", &keys::RUN_STEPS_PER_EPOCH),
        ("num_batches_per_epoch", &keys::RUN_STEPS_PER_EPOCH),
        ("num_classes", &keys::DATA_CLASSES),
        ("lr", &keys::OPTIM_LEARNING_RATE),
    ];
    for (name, value) in &attributes {
        let Value::String(text) = value else { continue };
        if name == "optimizer" {
            optimizer(text, builder);
            continue;
        }
        // State rather than configuration; long texts are printed objects.
        if ["epoch", "current_epoch", "was_initialized"].contains(&name.as_str()) || text.len() > 40 {
            continue;
        }
        let Some((value @ (Value::Number(_) | Value::Bool(_)), _)) = python::literal(text) else { continue };
        match facts.iter().find(|(known, _)| known == name) {
            Some((_, key)) => builder.fact(key, value),
            None => builder.declare(name, &value),
        }
    }
}

/// The printed optimizer: its name, then a parameter a line.
fn optimizer(text: &str, builder: &mut RunBuilder) {
    if let Some((name, _)) = text.split_once(" (") {
        builder.fact(&keys::OPTIM_NAME, name.to_lowercase());
    }
    for line in text.lines() {
        if let Some(("momentum", value)) = line.trim().split_once(": ")
            && let Ok(momentum) = value.parse::<f64>()
        {
            builder.fact(&keys::OPTIM_MOMENTUM, momentum);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trimtab_signals::Run;

    use super::*;
    use crate::read_bytes;

    const V2: &str = "
This is the configuration used by this training:
Configuration name: 3d_fullres
 {'data_identifier': 'x', 'batch_size': 9, 'patch_size': [40, 56, 40]}

2023-03-21 20:23:51.245114: Desired fold for training: 0 
2023-03-21 20:23:51.245231: This split has 208 training and 52 validation cases. 
2023-03-21 20:23:51.357583: Epoch 0 
2023-03-21 20:23:51.357936: Current learning rate: 0.01 
2023-03-21 20:24:10.388566: train_loss -0.2464 
2023-03-21 20:24:10.388956: val_loss -0.5226 
2023-03-21 20:24:10.389075: Pseudo dice [0.25, nan, 0.75] 
2023-03-21 20:24:10.389417: Epoch time: 19.03 s 
2023-03-21 20:24:10.389791: Yayy! New best EMA pseudo Dice: 0.4756 
2023-03-21 20:24:11.357583: Epoch 1 
2023-03-21 20:24:11.784069: Current learning rate: 0.00982 
2023-03-21 20:24:25.930831: train_loss nan 
2023-03-21 20:24:25.931143: val_loss nan 
2023-03-21 20:24:25.931267: Pseudo dice [np.float32(0.5), np.float32(0.0), 0.5] 
2023-03-21 20:24:26.388566: Training done. 
2023-03-21 20:38:45.343440: Mean Validation Dice:  0.8920046426174826 
";

    const V1: &str = "Starting... 
2023-09-01 02:27:40.216563: Desired fold for training: 0 
2023-09-01 02:27:52.247850: lr: 0.01 
2023-09-01 02:54:50.907490: 
epoch:  0 
2023-09-01 02:54:59.907490: train loss : -0.3867 
2023-09-01 02:55:24.263481: validation loss: -0.6847 
2023-09-01 02:55:25.429051: Average global foreground Dice: [0.5, 0.25] 
2023-09-01 02:55:28.187753: lr: 0.009991 
2023-09-01 02:55:29.143649: This epoch took 1490.162358 s
 
2023-09-01 02:55:29.162100: 
epoch:  1 
";

    fn read(text: &str) -> Run {
        read_bytes("nnunet", "training_log_2023_3_21_20_23_43.txt", text.as_bytes()).expect("readable")
    }

    fn logged<'a>(run: &'a Run, name: &str) -> &'a trimtab_signals::Column {
        run.logged(name).unwrap_or_else(|| panic!("no column {name}"))
    }

    #[test]
    fn version_2_is_read() {
        let run = read(V2);
        assert_eq!(run.trace.get("val/dice").map(|c| c.values().to_vec()), Some(vec![0.5, 1.0 / 3.0]));
        assert_eq!(run.trace.get("val/dice/2").map(|c| c.values().to_vec()), Some(vec![0.75, 0.5]));
        assert_eq!(logged(&run, "lr").values(), [0.01, 0.00982]);
        assert_eq!(logged(&run, "train_loss").values()[0], -0.2464);
        assert!(logged(&run, "val_loss").values()[1].is_nan());
        assert_eq!(logged(&run, "val/Mean Validation Dice").len(), 1);
        assert_eq!(run.facts.boolean("run.finished"), Some(true));
        assert_eq!(run.facts.integer("optim.batch_size"), Some(9));
        assert_eq!(run.facts.integer("data.train_samples"), Some(208));
        assert_eq!(run.facts.integer("data.val_samples"), Some(52));
        assert_eq!(run.trace.times().steps(), [0, 1]);
    }

    #[test]
    fn version_1_is_read() {
        let run = read(V1);
        assert_eq!(run.trace.get("val/dice").map(|c| c.values().to_vec()), Some(vec![0.375]));
        assert_eq!(logged(&run, "train_loss").values(), [-0.3867]);
        let rate = logged(&run, "lr");
        assert_eq!((rate.steps(), rate.values()), (&[0, 1][..], &[0.01, 0.009991][..]));
        assert_eq!(run.trace.epochs().steps(), [0, 1]);
        assert_eq!(run.trace.times().steps(), [0, 1]);
    }

    #[test]
    fn a_continued_run_is_one_with_the_trainer_s_attributes() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            Input::file(path)
        };
        let line = |epoch: u32, loss: f64| {
            format!(
                "2023-09-0{epoch} 02:00:00.1: Epoch {epoch} \n2023-09-0{epoch} 03:00:00.1: val_loss {loss} \n"
            )
        };
        let second = write("training_log_2023_10_1_0_0_0.txt", &(line(2, 3.0) + &line(3, 4.0)));
        let first = write("training_log_2023_9_1_0_0_0.txt", &(line(1, 1.0) + &line(2, 2.0)));
        write(
            "debug.json",
            r#"{"batch_size": "2", "initial_lr": "0.01", "max_num_epochs": "1000", "fold": "0",
                "optimizer": "SGD (\nParameter Group 0\n    momentum: 0.99\n)", "network": "<x>"}"#,
        );
        let mut builder = RunBuilder::new();
        super::read(&[second, first], &mut builder).expect("readable");
        let run = builder.finish("a", "nnunet");
        assert_eq!(logged(&run, "val_loss").values(), [1.0, 3.0, 4.0]);
        for (key, value) in [
            ("optim.batch_size", 2.0),
            ("optim.learning_rate", 0.01),
            ("optim.momentum", 0.99),
            ("run.epochs", 1000.0),
        ] {
            assert_eq!(run.facts.number(key), Some(value), "{key}");
        }
        assert_eq!(run.facts.text("optim.name"), Some("sgd"));
    }

    #[test]
    fn a_file_without_epochs_is_an_error() {
        assert!(read_bytes("nnunet", "training_log.txt", b"nothing").is_err());
    }

    proptest! {
        #[test]
        fn no_damage_makes_it_panic(
            old in any::<bool>(), at in 0..V1.len(), bytes in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            let text = if old { V1 } else { V2 };
            let mut log = text.as_bytes().to_vec();
            log.splice(at..(at + bytes.len()).min(text.len()), bytes);
            let _ = read_bytes("nnunet", "training_log.txt", &log);
            let _ = read_bytes("nnunet", "training_log.txt", &log[..at]);
        }
    }
}
