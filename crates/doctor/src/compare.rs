//! Two runs side by side: what was declared differently, where their curves part, and which difference could explain it.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use trimtab_signals::{Column, Goal, Key, Run, keys, names};

use crate::finding::show;
use crate::options::Options;
use crate::series::{median, noise, smooth};
use crate::view::View;

/// Two runs side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Values declared differently, or by one run only; those that change training first.
    pub declared: Vec<Declared>,
    /// The learning rate over the samples of an update, where both runs tell.
    pub rate: Option<RatePerSample>,
    /// Columns that both runs have, those that part first.
    pub columns: Vec<Parted>,
    /// Differences that could explain the parting, likeliest first.
    pub suspects: Vec<Suspect>,
}

/// A value declared differently.
#[derive(Clone, Debug, Serialize)]
pub struct Declared {
    /// The key.
    pub key: String,
    /// In the first run.
    pub a: Option<Value>,
    /// In the second run.
    pub b: Option<Value>,
}

/// Learning rate per sample of an update.
#[derive(Clone, Debug, Serialize)]
pub struct RatePerSample {
    /// Learning rates.
    pub rate: [f64; 2],
    /// Samples of an update: batch, times accumulation, times devices.
    pub batch: [f64; 2],
    /// The first run's rate per sample over the second's.
    pub factor: f64,
    /// The rate that the second run would have with the first one's rate per sample.
    pub second_scaled: f64,
}

/// A column of both runs.
#[derive(Clone, Debug, Serialize)]
pub struct Parted {
    /// Name of the signal.
    pub name: String,
    /// Best levels, where better is known.
    pub best: [Option<f64>; 2],
    /// Last values.
    pub last: [f64; 2],
    /// The first step from which on they differ by more than noise.
    pub from: Option<u64>,
}

/// A difference that could explain the parting.
#[derive(Clone, Debug, Serialize)]
pub struct Suspect {
    /// The key.
    pub key: String,
    /// What differs, and why it could matter.
    pub why: String,
}

/// What is known to change training, and how. In order of how often it is the reason.
const REASONS: [(&Key, &str); 24] = [
    (&keys::OPTIM_LEARNING_RATE, "the size of every step"),
    (&keys::OPTIM_NAME, "another optimizer needs another rate"),
    (&keys::OPTIM_BATCH_SIZE, "the noise of every step, and the rate that fits"),
    (&keys::OPTIM_ACCUMULATION, "the samples an update, and the rate that fits"),
    (&keys::OPTIM_DEVICES, "the samples an update, and the rate that fits"),
    (&keys::SCHEDULE_NAME, "the rate over time"),
    (&keys::SCHEDULE_WARMUP_STEPS, "the first steps"),
    (&keys::SCHEDULE_WARMUP_EPOCHS, "the first steps"),
    (&keys::SCHEDULE_HORIZON_STEPS, "how long the rate stays high"),
    (&keys::EMA_DECAY, "which weights are validated"),
    (&keys::EMA_WARMUP, "which weights are validated early on"),
    (&keys::MODEL_PRETRAINED, "where training starts"),
    (&keys::MODEL_LOADED_SHARE, "where training starts"),
    (&keys::MODEL_FREEZE_EPOCHS, "what is trained"),
    (&keys::OPTIM_CLIP_NORM, "the size of large steps"),
    (&keys::OPTIM_WEIGHT_DECAY, "how far weights grow"),
    (&keys::OPTIM_MOMENTUM, "the size of a step, 1 / (1 - momentum) times the rate for SGD"),
    (&keys::OPTIM_BETA2, "how fast Adam's scale follows the gradient"),
    (&keys::LOSS_WEIGHT, "what is minimised"),
    (&keys::LOSS_CLASS_WEIGHTS, "what is minimised"),
    (&keys::OPTIM_LABEL_SMOOTHING, "what is minimised; the losses are not comparable"),
    (&keys::DATA_TRAIN_SAMPLES, "the data"),
    (&keys::DATA_BALANCED_SAMPLER, "which samples are seen"),
    (&keys::MODEL_PARAMETERS, "the network"),
];

/// Compares two runs.
pub fn compare(a: &Run, b: &Run) -> Comparison {
    let options = Options::default();
    let views = [View::new(a, &options), View::new(b, &options)];
    let declared = declared(a, b);
    let rate = rate(&views);
    let mut columns = columns(a, b);
    columns.sort_by_key(|c| (c.from.is_none(), c.from, c.name.clone()));
    let suspects = suspects(&declared, rate.as_ref(), columns.iter().any(|c| c.from.is_some()));
    Comparison { declared, rate, columns, suspects }
}

fn declared(a: &Run, b: &Run) -> Vec<Declared> {
    let names: BTreeSet<&str> = a.facts.iter().chain(b.facts.iter()).map(|(key, _)| key).collect();
    let mut differing: Vec<Declared> = names
        .into_iter()
        .filter(|key| a.facts.get(key) != b.facts.get(key))
        // Lists and tables are there element by element as well.
        .filter(|key| ![a, b].iter().any(|r| matches!(r.facts.get(key), Some(Value::Object(_)))))
        .map(|key| Declared {
            key: key.to_owned(),
            a: a.facts.get(key).cloned(),
            b: b.facts.get(key).cloned(),
        })
        .collect();
    let rank = |key: &str| {
        let reason = REASONS.iter().position(|(known, _)| keys::of(key) == Some(known));
        reason.unwrap_or(if keys::of(key).is_some() { REASONS.len() } else { REASONS.len() + 1 })
    };
    differing.sort_by(|x, y| rank(&x.key).cmp(&rank(&y.key)).then_with(|| x.key.cmp(&y.key)));
    differing
}

fn rate(views: &[View<'_>; 2]) -> Option<RatePerSample> {
    let rate_of = |view: &View<'_>| {
        let logged = || {
            view.groups(&names::OPTIM_LEARNING_RATE)
                .iter()
                .filter_map(|(_, c)| c.highest())
                .map(|(_, v)| v)
                .reduce(f64::max)
        };
        view.number(&keys::OPTIM_LEARNING_RATE).or_else(logged).filter(|r| *r > 0.0)
    };
    let rate = [rate_of(&views[0])?, rate_of(&views[1])?];
    let batch = [views[0].effective_batch()?, views[1].effective_batch()?];
    let factor = (rate[0] / batch[0]) / (rate[1] / batch[1]);
    factor.is_finite().then(|| RatePerSample {
        rate,
        batch,
        factor,
        second_scaled: rate[0] * batch[1] / batch[0],
    })
}

fn columns(a: &Run, b: &Run) -> Vec<Parted> {
    let both = a.trace.iter().filter_map(|(name, column)| Some((name, column, b.trace.get(name)?)));
    let parted = both.filter_map(|(name, a, b)| {
        let best = |column: &Column| {
            let better = names::goal(name)?;
            let level = smooth(column.values(), 3);
            level.into_iter().filter(|v| v.is_finite()).reduce(|x, y| if better.better(y, x) { y } else { x })
        };
        let last = [a.last()?.1, b.last()?.1];
        let curve = names::goal(name).is_some() || names::of(name).is_some();
        let from = if curve { part(a, b) } else { None };
        Some(Parted { name: name.to_owned(), best: [best(a), best(b)], last, from })
    });
    parted.collect()
}

/// The first step from which on two columns differ by more than their noise: at three measurements and at most of those after.
fn part(a: &Column, b: &Column) -> Option<u64> {
    let pairs: Vec<(u64, f64, f64)> = a
        .iter()
        .filter_map(|(step, x)| {
            let (at, y) = b.at_or_before(step)?;
            // Not beyond the end of the other, nor from long before.
            let close = step <= b.last()?.0 && (step == at || step - at <= step / 4);
            close.then_some((step, x, y))
        })
        .collect();
    if pairs.len() < 3 {
        return None;
    }
    let side = |which: fn(&(u64, f64, f64)) -> f64| pairs.iter().map(which).collect::<Vec<f64>>();
    let (x, y) = (side(|p| p.1), side(|p| p.2));
    let spread = noise(&x).unwrap_or(0.0).hypot(noise(&y).unwrap_or(0.0));
    let size = median(x.iter().chain(&y).map(|v| v.abs())).unwrap_or(0.0);
    // Rates and other plain schedules have no noise: there a hundredth is a difference.
    let bound = (4.0 * spread).max(0.01 * size);
    let apart: Vec<bool> = smooth(&x, 3)
        .iter()
        .zip(smooth(&y, 3))
        .map(|(x, y)| (x - y).abs() > bound || x.is_finite() != y.is_finite())
        .collect();
    // From the end: how many of those still to come are apart.
    let (mut later, mut from) = (0, None);
    for at in (0..apart.len()).rev() {
        later += usize::from(apart[at]);
        let rest = apart.len() - at;
        if rest >= 3 && apart[at..at + 3].iter().all(|a| *a) && later * 4 >= rest * 3 {
            from = Some(pairs[at].0);
        }
    }
    from
}

fn suspects(declared: &[Declared], rate: Option<&RatePerSample>, parted: bool) -> Vec<Suspect> {
    let mut suspects = Vec::new();
    if !parted {
        return suspects;
    }
    if let Some(r) = rate.filter(|r| !(0.5..=2.0).contains(&r.factor)) {
        let (factor, word) = if r.factor > 1.0 { (r.factor, "smaller") } else { (1.0 / r.factor, "larger") };
        suspects.push(Suspect {
            key: keys::OPTIM_LEARNING_RATE.name.to_owned(),
            why: format!(
                "the second run's rate per sample of an update is {factor:.1}x {word}: {} for {} samples against {} for {}; the same would be {}",
                show(r.rate[1]), show(r.batch[1]), show(r.rate[0]), show(r.batch[0]), show(r.second_scaled),
            ),
        });
    }
    for difference in declared {
        let Some((_, why)) = REASONS.iter().find(|(key, _)| keys::of(&difference.key) == Some(key)) else {
            continue;
        };
        let text = |v: &Option<Value>| v.as_ref().map_or_else(|| "not declared".to_owned(), value);
        let known = suspects.iter().any(|s: &Suspect| s.key == difference.key);
        if !known {
            let why = format!("{} against {}: {why}", text(&difference.a), text(&difference.b));
            suspects.push(Suspect { key: difference.key.clone(), why });
        }
    }
    let only_seed = suspects.is_empty() && declared.iter().any(|d| d.key == keys::RUN_SEED.name);
    if only_seed {
        suspects.push(Suspect {
            key: keys::RUN_SEED.name.to_owned(),
            why: "nothing else that is known to matter differs: chance, or what is not declared".to_owned(),
        });
    }
    suspects
}

/// A declared value for a person.
pub fn value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(n) => n.as_f64().filter(|v| v.fract() != 0.0).map_or_else(|| n.to_string(), show),
        other => {
            let text = other.to_string();
            if text.chars().count() > 60 {
                text.chars().take(57).chain("...".chars()).collect()
            } else {
                text
            }
        }
    }
}

/// Which of two values is better, `None` where they are equal or it is not known.
pub fn better(name: &str, a: f64, b: f64) -> Option<usize> {
    let goal: Goal = names::goal(name)?;
    if goal.better(a, b) {
        Some(0)
    } else if goal.better(b, a) {
        Some(1)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: f64, batch: u64, values: &[f64]) -> Run {
        let mut run = Run::default();
        run.facts.set(keys::OPTIM_LEARNING_RATE.name, rate);
        run.facts.set(keys::OPTIM_BATCH_SIZE.name, batch);
        for (step, value) in (1u64..).zip(values) {
            run.trace.insert(names::VAL_IOU.name, step, *value);
        }
        run
    }

    #[test]
    fn the_rate_per_sample_explains_where_the_curves_part() {
        let good = run(2.5e-4, 8, &[0.11, 0.12, 0.42, 0.45, 0.48, 0.5, 0.52]);
        let bad = run(1e-4, 128, &[0.11, 0.12, 0.011, 0.02, 0.05, 0.09, 0.11]);
        let found = compare(&good, &bad);
        assert_eq!(found.columns[0].from, Some(3));
        let rate = found.rate.expect("both declared");
        assert!((rate.factor - 40.0).abs() < 1e-9 && (rate.second_scaled - 0.004).abs() < 1e-12);
        assert!(found.suspects[0].why.contains("40.0x smaller"), "{}", found.suspects[0].why);
        assert_eq!(found.declared.len(), 2);
    }

    #[test]
    fn equal_runs_do_not_part() {
        let a = run(0.1, 8, &[0.1, 0.2, 0.3, 0.31, 0.29, 0.3]);
        let found = compare(&a, &a);
        assert!(found.declared.is_empty() && found.suspects.is_empty());
        assert!(found.columns.iter().all(|c| c.from.is_none()));
    }
}
