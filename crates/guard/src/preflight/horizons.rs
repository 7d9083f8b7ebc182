//! Whether what takes time fits into the run: schedules, warm-up, validations, checkpoints, patience.

use trimtab_train::StagePlan;

use super::declared::{Declared, Keys};
use super::{Bench, Checked, Item, Verdict};

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let all = bench.declared()?;
    let keys = bench.keys.clone();
    let probe = bench.probe()?;
    let mut items = Vec::new();
    for (plan, stage) in probe.stages().iter().zip(&all) {
        items.extend(beyond(plan, stage));
        items.extend(beginnings(stage));
    }
    items.extend(of_the_run(&keys, &all));
    if items.is_empty() {
        let validations: u64 = all.iter().map(|s| validations(&keys, s)).sum();
        let steps: u64 = all.iter().map(|s| s.steps).sum();
        let message = format!("schedules, {validations} validations and checkpoints fit into {steps} steps");
        items.push(
            Item::new("horizons", Verdict::Pass, message)
                .number("validations", validations)
                .number("steps", steps),
        );
    }
    Ok(items)
}

/// Validations of a stage: every so many epochs, and at its end.
pub(super) fn validations(keys: &Keys<'_>, stage: &Declared) -> u64 {
    stage.epochs.div_ceil(keys.count("evaluate.every_epochs").unwrap_or(1).max(1))
}

fn tell(message: String) -> Item {
    Item::new("horizons", Verdict::Warn, message).cause("schedule-does-not-fit")
}

/// Horizons beyond the stage's end.
fn beyond<'a>(plan: &'a StagePlan, stage: &'a Declared) -> impl Iterator<Item = Item> + 'a {
    plan.horizons.iter().filter(|(_, horizon)| **horizon > stage.steps).map(|(name, horizon)| {
        let item = tell(format!(
            "{}the schedule of {name} is made for {horizon} steps, the stage has {}",
            stage.label(),
            stage.steps
        ));
        item.number("horizon", *horizon).number("steps", stage.steps)
    })
}

/// What comes before the real training, and takes most of it.
fn beginnings(stage: &Declared) -> Vec<Item> {
    let long = |what: &str, steps: u64, key: String| {
        (steps * 2 > stage.steps).then(|| {
            let share = 100.0 * steps as f64 / stage.steps.max(1) as f64;
            let epochs = (stage.epochs / 10).max(u64::from(stage.epochs > 1));
            let item = tell(format!(
                "{}{what} takes {steps} of {} steps ({share:.0} %)",
                stage.label(),
                stage.steps
            ));
            item.number("of_steps", steps).number("steps", stage.steps).advise(key, epochs)
        })
    };
    let warmup = long("the warm-up", stage.warmup, stage.key("warmup_epochs"));
    let frozen_key = if stage.label().is_empty() { "freeze_epochs" } else { "freeze_encoder_epochs" };
    let frozen = long("the time in which the backbone is frozen", stage.frozen, stage.key(frozen_key));
    warmup.into_iter().chain(frozen).collect()
}

fn of_the_run(keys: &Keys<'_>, all: &[Declared]) -> Vec<Item> {
    let mut items = Vec::new();
    let steps: u64 = all.iter().map(|s| s.steps).sum();
    let count: u64 = all.iter().map(|s| validations(keys, s)).sum();
    if count < 2 {
        let item = tell(format!(
            "the run has {count} validation: no course can be seen, and the best weights are the last"
        ));
        items.push(item.number("validations", count).advise("evaluate.every_epochs", 1));
    }
    let checkpoint = keys.count("run.checkpoint_every").unwrap_or(u64::MAX);
    if checkpoint > steps {
        let item = tell(format!(
            "run.checkpoint_every = {checkpoint} is more than the {steps} steps of the run: after an interruption it begins anew"
        ));
        items.push(
            item.number("checkpoint_every", checkpoint).advise("run.checkpoint_every", (steps / 5).max(1)),
        );
    }
    let every = keys.count("evaluate.every_epochs").unwrap_or(1).max(1);
    if let (Some(patience @ 1..), Some(last)) = (keys.count("early_stopping.patience"), all.last()) {
        let earliest = patience.saturating_add(1).saturating_mul(every);
        if earliest.saturating_mul(last.steps_per_epoch) <= last.warmup {
            let item = tell(format!(
                "early stopping can end the run after epoch {earliest}, within the warm-up of {} epochs",
                last.warmup / last.steps_per_epoch.max(1)
            ));
            let enough = last.warmup / last.steps_per_epoch.max(1) / every + 1;
            items.push(item.number("earliest_epoch", earliest).advise("early_stopping.patience", enough));
        }
    }
    items
}
