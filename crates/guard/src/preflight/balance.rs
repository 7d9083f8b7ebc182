//! Class balancing: by how much the loss lets rare labels count, beside how rare they are. Factors of several keys multiply.

use trimtab_doctor::show;
use trimtab_signals::names;

use super::declared::{Declared, Keys};
use super::{Bench, Checked, Item, Verdict, times, toml};

/// Counting more than this many times what the imbalance asks for is too much of it.
const TOO_MUCH: f64 = 3.0;
/// Share of the run before which a re-weighting is not deferred.
const EARLIEST: f64 = 0.1;
/// A factor up to here is harmless whatever the imbalance.
const HARMLESS: f64 = 5.0;
/// Nothing else is learned.
const EXTREME: f64 = 20.0;

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let last = bench.declared()?.pop();
    let keys = bench.keys.clone();
    let probe = bench.probe()?;
    let counts: Vec<f64> = probe
        .info()
        .class_counts
        .iter()
        .filter(|(label, _)| *label != "-1")
        .map(|(_, n)| *n as f64)
        .collect();
    let total: f64 = counts.iter().sum();
    let first = probe.info().class_counts.get("0").copied().unwrap_or(0) as f64;
    if counts.len() < 2 || counts.contains(&0.0) {
        let message = "the training labels are all of one class: there is nothing to tell apart";
        let item = Item::new("balance", Verdict::Fail, message).number("labels", total);
        return Ok(vec![item.cause("labels-or-loss-wrong")]);
    }
    let index = probe.stages().len().saturating_sub(1);
    let mut items = Vec::new();
    if let Some(item) =
        last.and_then(|stage| class_weights(&probe.scheduled(index, stage.last()), &counts, &stage))
    {
        items.push(item);
    }
    // Positives of a binary loss are whatever is not class 0.
    let imbalance = first / (total - first).max(1.0);
    items.extend(factors(&keys).into_iter().map(|(key, factor)| of_factor(key, factor, imbalance)));
    if items.is_empty() {
        let (least, most) = ends(&counts);
        let message = format!(
            "the rarest class has {:.2} % of the labels; the loss weighs all alike",
            100.0 * least / total
        );
        items.push(Item::new("balance", Verdict::Pass, message).number("imbalance", most / least));
    }
    Ok(items)
}

fn ends(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    (least, values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

/// By how much a positive counts over a negative, in each term that weighs them, with the key that says so.
fn factors(keys: &Keys<'_>) -> Vec<(&'static str, f64)> {
    let on = |key: &str| keys.number(key).is_some_and(|w| w > 0.0);
    let odds = |key: &str| keys.number(key).map(|alpha| alpha / (1.0 - alpha).max(1e-12));
    let positive = keys.number("loss.positive_weight").unwrap_or(1.0);
    let mut factors = Vec::new();
    if on("loss.focal") {
        let key = if positive == 1.0 { "loss.focal_alpha" } else { "loss.positive_weight" };
        factors.extend(odds("loss.focal_alpha").map(|odds| (key, odds * positive)));
    }
    if on("loss.bce") {
        factors.push(("loss.positive_weight", positive));
    }
    if on("loss.focal.weight") {
        factors.extend(odds("loss.focal.alpha").map(|odds| ("loss.focal.alpha", odds)));
    }
    factors
}

/// How a factor for positives, that are `1 / (1 + imbalance)` of the labels, does.
fn judged(factor: f64, imbalance: f64) -> (Verdict, bool) {
    // Seen from the rarer side.
    let (factor, imbalance) =
        if imbalance >= 1.0 { (factor, imbalance) } else { (1.0 / factor, 1.0 / imbalance) };
    let against = 1.0 / factor;
    let over = factor / imbalance;
    let verdict = if over > EXTREME || against > EXTREME {
        Verdict::Fail
    } else if (over > TOO_MUCH && factor > HARMLESS) || against > HARMLESS {
        Verdict::Warn
    } else {
        Verdict::Pass
    };
    (verdict, factor >= 1.0)
}

fn of_factor(key: &'static str, factor: f64, imbalance: f64) -> Item {
    let (verdict, for_the_rare) = judged(factor, imbalance);
    let share = 100.0 / (1.0 + imbalance);
    let mut message = format!(
        "positives are {share:.2} % of the labels (1 : {}) and count {} by {key}",
        show(imbalance),
        times(factor)
    );
    if verdict != Verdict::Pass {
        message += if for_the_rare {
            ": the imbalance is made up for more than once"
        } else {
            ": the loss hears the rare side even less than it is there"
        };
    }
    let mut item =
        Item::new("balance", verdict, message).number("factor", factor).number("imbalance", imbalance);
    if verdict != Verdict::Pass {
        item = if key.ends_with("alpha") { item.advise(key, 0.5) } else { item.advise(key, toml(1.0)) };
        item = item.cause(match (verdict, for_the_rare) {
            (Verdict::Fail, _) => "class-weights-extreme",
            (_, true) => "classes-balanced-twice",
            (_, false) => "rare-class-unheard",
        });
    }
    item
}

/// Class weights at the end of the run beside the counts.
fn class_weights(scheduled: &[(String, f64)], counts: &[f64], stage: &Declared) -> Option<Item> {
    let weights: Vec<f64> = scheduled
        .iter()
        .filter(|(name, _)| names::WEIGHT_CLASS.group_of(name).is_some())
        .map(|(_, w)| *w)
        .collect();
    if weights.len() != counts.len() {
        return None;
    }
    let ((rarest, commonest), (least, most)) = (ends(counts), ends(&weights));
    let (imbalance, ratio) = (commonest / rarest, most / least);
    let verdict = if !(ratio.is_finite() && least > 0.0) || ratio > EXTREME * imbalance {
        Verdict::Fail
    } else if ratio > TOO_MUCH * imbalance && ratio > HARMLESS {
        Verdict::Warn
    } else {
        Verdict::Pass
    };
    let started = stage.reweighting.map_or_else(String::new, |step| format!(" from step {step}"));
    // Deferred means: once there are features to tell the classes apart by.
    let hasty = stage.reweighting.is_some_and(|step| (step as f64) < EARLIEST * stage.steps as f64);
    let verdict = if hasty { verdict.max(Verdict::Warn) } else { verdict };
    let before = if hasty { ", before features have formed" } else { "" };
    let message = format!(
        "classes are {} : 1; their weights are {} : 1{started}{before}",
        show(imbalance),
        show(ratio)
    );
    let item =
        Item::new("balance", verdict, message).number("imbalance", imbalance).number("weights", weights);
    Some(if verdict == Verdict::Pass { item } else { item.cause("re-weighting") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_is_judged_by_the_imbalance() {
        // One in ten is positive.
        for (factor, verdict) in
            [(2.3, Verdict::Pass), (9.0, Verdict::Pass), (30.0, Verdict::Warn), (200.0, Verdict::Fail)]
        {
            assert_eq!(judged(factor, 9.0).0, verdict, "{factor}");
        }
        // Focal's own .25 for positives is no fault; a thirtieth is.
        assert_eq!(judged(1.0 / 3.0, 9.0), (Verdict::Pass, false));
        assert_eq!(judged(1.0 / 30.0, 9.0), (Verdict::Fail, false));
        // Where positives are the majority, the same the other way round.
        assert_eq!(judged(1.0 / 9.0, 1.0 / 9.0), (Verdict::Pass, true));
        assert_eq!(judged(30.0, 1.0 / 9.0), (Verdict::Fail, false));
    }
}
