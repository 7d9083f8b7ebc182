//! `loss_log.txt` of pytorch-CycleGAN-and-pix2pix.
//!
//! Its `D_real` and `D_fake` are losses of the discriminator on real and on made images, not its outputs. Steps are images seen,
//! which is what its `iters` count anew in each epoch.

use serde_json::Value;
use trimtab_signals::keys;
use trimtab_signals::names::{GAN_LOSS_D, GAN_LOSS_G, LOSS_TERM};

use super::{Certainty, Format, Layout, Peek, in_the_run_folder};
use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;
use crate::key_values::{Item, is_noise, number, position, scan};
use crate::log_line::each_line;

pub(crate) static FORMAT: Format = Format {
    id: "pix2pix",
    summary: "pytorch-CycleGAN-and-pix2pix: loss_log.txt, with train_opt.txt",
    recognise,
    read,
    layout: Layout::File,
    rank: 30,
    depth: in_the_run_folder,
};

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    peek.lines()
        .take(100)
        .any(|line| {
            (line.starts_with("================ Training Loss (")
                && line.trim_end().ends_with("================"))
                || Record::new(line).is_some()
        })
        .then_some(Certainty::Sure)
}

/// `(epoch: 5, iters: 4, time: 0.095, data: 0.200) G_GAN: 0.353 D_real: 0.105`
struct Record<'a> {
    epoch: f64,
    iteration: f64,
    losses: &'a str,
}

impl<'a> Record<'a> {
    fn new(line: &'a str) -> Option<Self> {
        // Newer versions name the process first: `[Rank 0] (epoch: …`.
        let at = line.find("(epoch: ").filter(|&at| at < 16)?;
        let (place, losses) = line.get(at + 1..)?.split_once(')')?;
        let mut fields = place.split(", ").map(|field| field.split_once(": "));
        let (epoch, iteration) = (fields.next()??, fields.next()??);
        if epoch.0 != "epoch" || iteration.0 != "iters" {
            return None;
        }
        let count = |text: &str| text.trim().parse::<u32>().ok().map(f64::from);
        Some(Self { epoch: count(epoch.1)?, iteration: count(iteration.1)?, losses })
    }
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    let mut torn = 0_u64;
    for input in inputs {
        if let Some(options) = input.beside("train_opt.txt").or_else(|| input.beside("opt.txt")) {
            declare(&options, builder);
        }
        // The length of an epoch is not printed: it is the highest iteration of any.
        let mut length = 0.0_f64;
        let mut records = 0_u64;
        each_line(input, |line, whole| {
            if let Some(record) = Record::new(line).filter(|_| whole) {
                length = length.max(record.iteration);
                records += 1;
            }
        })?;
        if records == 0 {
            return Err(LogError::content(input.path(), "no record of losses in it"));
        }
        builder.fact(&keys::DATA_TRAIN_SAMPLES, length as u64);
        each_line(input, |line, whole| {
            let Some(record) = Record::new(line).filter(|_| whole) else {
                torn += u64::from(whole && line.contains("epoch: "));
                return;
            };
            let epoch = (record.epoch - 1.0).max(0.0);
            let step = (epoch * length + record.iteration) as i64;
            builder.epoch(step, epoch);
            losses(record.losses, step, builder);
        })?;
    }
    if torn > 0 {
        builder.note(format!("{torn} records that are broken were passed over"));
    }
    Ok(())
}

fn losses(text: &str, step: i64, builder: &mut RunBuilder) {
    let mut sides = (None, None);
    for item in scan(text) {
        let Item::Number(found) = item else { continue };
        if !found.separated || found.key.is_empty() {
            continue;
        }
        match found.key {
            "D_real" => sides.0 = Some(found.value),
            "D_fake" => sides.1 = Some(found.value),
            _ => {}
        }
        // `G_A` and `D_A` are the losses of the networks of one direction of CycleGAN.
        let signal = match found.key.split_once('_') {
            Some(("G", "GAN")) => GAN_LOSS_G.name.to_owned(),
            Some(("G", side @ ("A" | "B"))) => GAN_LOSS_G.group(side),
            Some(("D", side @ ("A" | "B"))) => GAN_LOSS_D.group(side),
            _ if is_noise(found.key) || position(found.key).is_some() => continue,
            _ => LOSS_TERM.group(found.key),
        };
        let column = builder.column(found.key);
        builder.is_signal(column, signal);
        builder.push(column, step, found.value);
    }
    if let (Some(real), Some(made)) = sides {
        // What the discriminator minimises.
        let column = builder.column("(D_real + D_fake) / 2");
        builder.is_signal(column, GAN_LOSS_D.name);
        builder.push(column, step, 0.5 * (real + made));
    }
}

/// `                    lr: 0.0001                        \t[default: 0.0002]`
fn declare(options: &Input, builder: &mut RunBuilder) {
    let Ok(text) = options.to_text(1 << 20) else { return };
    let mut epochs = 0;
    for line in text.lines().take(1_000) {
        let Some((name, value)) = line.split_once(':') else { continue };
        let (name, value) = (name.trim(), value.split('\t').next().unwrap_or("").trim());
        let value = value.split(" [default").next().unwrap_or(value).trim();
        if name.is_empty() || name.contains(' ') || value.is_empty() {
            continue;
        }
        if ["n_epochs", "n_epochs_decay", "niter", "niter_decay"].contains(&name) {
            epochs += value.parse::<u64>().unwrap_or(0).min(1 << 40);
        }
        let value = match value {
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            text => match (text.parse::<i64>(), number(text).filter(|v| v.is_finite())) {
                (Ok(whole), _) => whole.into(),
                (_, Some(real)) => real.into(),
                _ => text.into(),
            },
        };
        builder.declare(name, &value);
    }
    if epochs > 0 {
        builder.fact(&keys::RUN_EPOCHS, epochs);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trimtab_signals::Run;

    use super::*;
    use crate::read_bytes;

    const LOG: &str = "\
================ Training Loss (Sat Jun 18 08:01:30 2022) ================
(epoch: 1, iters: 4, time: 0.095, data: 0.200) G_GAN: 0.353 G_L1: 17.785 D_real: 0.1 D_fake: 0.5 
(epoch: 1, iters: 8, time: 0.155, data: 0.000) G_GAN: 0.623 G_L1: nan D_real: 0.4 D_fake: 0.8 

(epoch: 3, iters: 4, time: 0.097, data: 0.000) G_GAN: 0.643 G_L1: 9.652 D_real: 0.3 D_fake: 0.7 
(ep(epoch: 3, iters: 8, time: 0.1
(epoch: 3, iters: 8, time: 0.1, data: 0.0) G_GAN: 0.6";

    fn read(text: &str) -> Run {
        read_bytes("pix2pix", "loss_log.txt", text.as_bytes()).expect("readable")
    }

    #[test]
    fn losses_of_the_discriminator_are_not_its_outputs() {
        let run = read(LOG);
        let column = |name: &str| run.trace.get(name).unwrap_or_else(|| panic!("no column {name}"));
        assert_eq!(column("gan/loss_g").steps(), [4, 8, 20]);
        assert_eq!(column("gan/loss_g").values(), [0.353, 0.623, 0.643]);
        assert_eq!(column("gan/loss_d").values()[0], 0.3);
        assert_eq!(column("loss/term/D_real").values(), [0.1, 0.4, 0.3]);
        assert!(column("loss/term/G_L1").values()[1].is_nan());
        assert!(run.trace.get("gan/d_real").is_none());
        assert_eq!(run.trace.names().count(), 5);
        assert_eq!(run.trace.epochs().values(), [0.0, 0.0, 2.0]);
        assert_eq!(run.notes.len(), 1);
    }

    #[test]
    fn both_directions_of_cyclegan_are_told_apart() {
        let run = read(
            "[Rank 0] (epoch: 1, iters: 100, time: 0.1, data: 0.2) , D_A: 0.25, G_A: 0.5, cycle_A: 1.5, D_B: 0.2\n",
        );
        let names: Vec<&str> = run.trace.names().collect();
        assert_eq!(names, ["gan/loss_d/A", "gan/loss_d/B", "gan/loss_g/A", "loss/term/cycle_A"]);
    }

    #[test]
    fn options_are_declared() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("loss_log.txt");
        std::fs::write(&path, LOG).expect("written");
        let options = "----------------- Options ---------------\n               batch_size: 4                             \t[default: 1]\n\
                       lr: 0.0001\n n_epochs: 100\n n_epochs_decay: 50\n";
        std::fs::write(folder.path().join("train_opt.txt"), options).expect("written");
        let mut builder = RunBuilder::new();
        super::read(&[Input::file(path)], &mut builder).expect("readable");
        let run = builder.finish("a", "pix2pix");
        assert_eq!(run.facts.integer("run.epochs"), Some(150));
        assert!(run.facts.iter().any(|(_, value)| value == &Value::from(4)));
    }

    #[test]
    fn a_file_without_records_is_an_error() {
        assert!(read_bytes("pix2pix", "loss_log.txt", b"nothing").is_err());
    }

    proptest! {
        #[test]
        fn no_damage_makes_it_panic(at in 0..LOG.len(), bytes in proptest::collection::vec(any::<u8>(), 0..8)) {
            let mut log = LOG.as_bytes().to_vec();
            log.splice(at..(at + bytes.len()).min(LOG.len()), bytes);
            let _ = read_bytes("pix2pix", "loss_log.txt", &log);
            let _ = read_bytes("pix2pix", "loss_log.txt", &log[..at]);
        }
    }
}
