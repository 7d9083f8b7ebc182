//! Whether what is meant to keep a network from learning by heart leaves it something to learn with.

use trimtab_doctor::show;
use trimtab_signals::names;

use super::declared::Declared;
use super::{Bench, Checked, Item, Trouble, Verdict};

/// Share of the features that may be dropped.
const DROPPED: f64 = 0.8;
/// Beyond this next to nothing arrives.
const NEARLY_ALL: f64 = 0.95;
/// Share of a weight that must be left after a run without gradient: decoupled decay takes rate x decay of it at each step.
const LEFT: f64 = 0.5;
/// Under this the decay is stronger than any gradient.
const GONE: f64 = 0.05;
/// Weight of a mean squared difference of probabilities, at most 1, beside losses that are mostly under 1.
const CONSISTENCY: f64 = 20.0;
/// Noise on an image of unit deviation beyond which there is more noise than image.
const NOISE: f64 = 2.0;

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let keys = bench.keys.clone();
    let stages = bench.declared()?;
    let mut items: Vec<Item> = Vec::new();
    let judged = |bad: bool| if bad { Verdict::Fail } else { Verdict::Warn };
    if let Some(share) = keys.number("model.dropout").filter(|share| *share > DROPPED) {
        let message = format!("model.dropout = {}: so much of the features is dropped", show(share));
        let item = Item::new("regularisation", judged(share > NEARLY_ALL), message).number("dropout", share);
        items.push(item.advise("model.dropout", 0.4).cause("units-dead"));
    }
    let adaptive = keys.text("optim.kind").is_none_or(|kind| kind.contains("adamw"));
    for (index, stage) in stages.iter().enumerate().filter(|_| adaptive) {
        let key = stage.key("weight_decay");
        let Some(decay) = keys.number(&key) else { continue };
        let rates = rates(bench, index, stage)?;
        let left = (-decay * rates).exp();
        if left < LEFT {
            let message = format!(
                "{}{key} = {} takes all but {} of each weight over the run, where no gradient holds against it",
                stage.label(),
                show(decay),
                show(left)
            );
            let item = Item::new("regularisation", judged(left < GONE), message).number("left", left);
            items.push(item.advise(key, 0.01).cause("weights-decayed-away"));
        }
    }
    for stage in &stages {
        let key = stage.key("consistency_weight");
        if let Some(weight) = keys.number(&key).filter(|weight| *weight > CONSISTENCY) {
            let message = format!(
                "{}{key} = {}: a mean squared difference of {} between student and teacher costs 1, more than all labels do",
                stage.label(),
                show(weight),
                show(1.0 / weight)
            );
            let item = Item::new("regularisation", Verdict::Warn, message).number("weight", weight);
            items.push(item.advise(key, 0.1).cause("regulariser-outweighs-labels"));
        }
    }
    if let Some(noise) = keys.number("mean_teacher.noise").filter(|noise| *noise > NOISE) {
        let message = format!(
            "mean_teacher.noise = {} deviations: the teacher sees more noise than image",
            show(noise)
        );
        let item = Item::new("regularisation", Verdict::Warn, message).number("noise", noise);
        items.push(item.advise("mean_teacher.noise", 0.1).cause("regulariser-outweighs-labels"));
    }
    if items.is_empty() {
        items.push(Item::new(
            "regularisation",
            Verdict::Pass,
            "dropout, weight decay and consistency leave the labels the lead",
        ));
    }
    Ok(items)
}

/// The sum of the rates of a stage's steps.
fn rates(bench: &mut Bench<'_>, index: usize, stage: &Declared) -> Result<f64, Trouble> {
    let probe = bench.probe()?;
    // A few hundred places are enough for a sum of smooth schedules.
    let count = stage.steps.clamp(1, 400);
    let each = stage.steps as f64 / count as f64;
    let at = |i: u64| {
        let step = (i as f64 * each) as u64;
        let signals = probe.scheduled(index, step);
        signals
            .iter()
            .find(|(name, _)| name == names::OPTIM_LEARNING_RATE.name)
            .map_or(0.0, |(_, rate)| *rate)
    };
    Ok((0..count).map(at).sum::<f64>() * each)
}
