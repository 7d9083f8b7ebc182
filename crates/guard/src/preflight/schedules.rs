//! Declared against effective: what the keys say beside what the schedules give at the steps where it should be so.

use trimtab_doctor::show;
use trimtab_signals::names;

use super::declared::{Declared, Weight};
use super::{Bench, Checked, Item, Verdict, toml};

/// Schedules are arithmetic in double precision, some of them of epochs.
const ROUNDING: f64 = 0.01;
/// Under half of what is declared it is another run.
const HALF: f64 = 0.5;

/// The value of a signal at a step of the stage.
type Effective<'a> = &'a dyn Fn(u64, &str) -> Option<f64>;

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let all = bench.declared()?;
    let probe = bench.probe()?;
    let mut items = Vec::new();
    for (index, stage) in all.iter().enumerate() {
        let effective = |step: u64, name: &str| {
            probe.scheduled(index, step).into_iter().find(|(n, _)| n == name).map(|(_, value)| value)
        };
        let wrong = judge(stage, &effective);
        if wrong.is_empty() {
            items.push(all_well(stage));
        }
        items.extend(wrong);
    }
    Ok(items)
}

fn all_well(stage: &Declared) -> Item {
    let mut parts = Vec::new();
    let rate = show(stage.rate);
    parts.push(match stage.warmup {
        0 => format!("rate {rate} from the first step"),
        steps => format!("rate {rate} after {steps} steps of warm-up"),
    });
    parts.extend(stage.average.as_ref().map(|(_, decay)| format!("average decay {decay}")));
    parts.extend(stage.weights.iter().map(|w| format!("{} {}", w.signal, show(w.value))));
    parts.extend(stage.reweighting.map(|step| format!("re-weighting at step {step}")));
    parts.extend((stage.frozen > 0).then(|| format!("frozen for {} steps", stage.frozen)));
    let message = format!(
        "{}what is declared is reached within {} steps: {}",
        stage.label(),
        stage.steps,
        parts.join(", ")
    );
    Item::new("schedules", Verdict::Pass, message).number("steps", stage.steps)
}

fn judge(stage: &Declared, effective: Effective<'_>) -> Vec<Item> {
    let mut items = rates(stage, effective);
    items.extend(frozen(stage, effective));
    items.extend(average(stage, effective));
    items.extend(stage.weights.iter().filter_map(|weight| risen(stage, weight, effective)));
    items.extend(reweighted(stage, effective));
    items
}

fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= ROUNDING * a.abs().max(b.abs())
}

fn fault(stage: &Declared, verdict: Verdict, what: &str, declared: f64, effective: Option<f64>) -> Item {
    let found = effective.map_or_else(|| "absent".to_owned(), show);
    let message = format!("{}{what}: declared {}, effective {found}", stage.label(), show(declared));
    let item =
        Item::new("schedules", verdict, message).number("declared", declared).number("effective", effective);
    item.cause("configuration-not-effective")
}

fn rates(stage: &Declared, effective: Effective<'_>) -> Vec<Item> {
    let name = names::OPTIM_LEARNING_RATE.name;
    let mut items = Vec::new();
    if stage.rate == 0.0 {
        let message = format!("{}the learning rate is 0: no weight would change", stage.label());
        let item = Item::new("schedules", Verdict::Fail, message).number("learning_rate", 0.0);
        return vec![item.cause("learning-rate-too-low")];
    }
    let peak_at = stage.warmup.saturating_sub(1).min(stage.last());
    let peak = effective(peak_at, name);
    if !peak.is_some_and(|rate| same(rate, stage.rate)) {
        let what =
            format!("the rate at step {peak_at}, where {} should be reached", stage.key("learning_rate"));
        items.push(fault(stage, Verdict::Fail, &what, stage.rate, peak));
    }
    let first = effective(0, name);
    if stage.warmup > 1 && first.is_some_and(|rate| same(rate, stage.rate) || rate > stage.rate) {
        let what = format!("the rate at step 0 of {} steps of warm-up is the peak already", stage.warmup);
        let item = fault(stage, Verdict::Fail, &what, stage.rate / stage.warmup as f64, first);
        items.push(item.cause("no-effective-warm-up"));
    }
    // Of groups their own part of the whole, once nothing is frozen.
    let at = peak_at.max(stage.frozen);
    let whole = effective(at, name).filter(|rate| *rate > 0.0);
    for (group, scale) in stage.scales.iter().filter(|_| at < stage.steps) {
        let of_group = effective(at, &names::OPTIM_LEARNING_RATE.group(group));
        let Some(whole) = whole else { continue };
        if !of_group.is_some_and(|rate| same(rate, whole * scale)) {
            let what = format!("the rate of {group} at step {at}");
            items.push(fault(stage, Verdict::Fail, &what, whole * scale, of_group).cause("parameter-groups"));
        } else if *scale == 0.0 {
            let message =
                format!("{}the rate of {group} is 0 times the rate: it is never trained", stage.label());
            let item = Item::new("schedules", Verdict::Warn, message).number("scale", 0.0);
            items.push(item.cause("parameter-groups"));
        }
    }
    items
}

fn frozen(stage: &Declared, effective: Effective<'_>) -> Option<Item> {
    // One group can be frozen: whichever the recipe says it of.
    let flag = |step: u64| {
        ["encoder", "backbone"].into_iter().find_map(|g| effective(step, &names::STAGE_FROZEN.group(g)))
    };
    let steps = stage.frozen.min(stage.steps);
    let wrong = (steps > 0 && flag(steps - 1) != Some(1.0)).then(|| (steps - 1, 1.0));
    let wrong = wrong.or_else(|| (steps < stage.steps && flag(steps) != Some(0.0)).then_some((steps, 0.0)));
    wrong.map(|(step, declared)| {
        let what = format!("whether the backbone is frozen at step {step}");
        fault(stage, Verdict::Fail, &what, declared, flag(step)).cause("parameter-groups")
    })
}

/// An average of decay d is over about 1/(1 - d) updates: that many must fit into the stage before d says anything.
fn average(stage: &Declared, effective: Effective<'_>) -> Option<Item> {
    let (key, declared) = stage.average.as_ref()?;
    let reached = effective(stage.last(), names::EMA_DECAY.name);
    let share = reached.map_or(0.0, |reached| (1.0 - declared) / (1.0 - reached).max(1e-12));
    let verdict = match share {
        s if s < 0.1 => Verdict::Fail,
        s if s < HALF => Verdict::Warn,
        _ => return None,
    };
    let what = format!(
        "the decay of the average is never reached in {} steps, which are {:.1} % of the {:.0} updates it looks back on: it averages the whole stage from its first step",
        stage.steps,
        100.0 * share,
        1.0 / (1.0 - declared)
    );
    let mut item = fault(stage, verdict, &what, *declared, reached);
    if stage.steps >= 20 {
        // A tenth of the run is what an average can look back on and still be of the end of it.
        item = item.advise(key, toml(1.0 - 10.0 / stage.steps as f64));
    }
    Some(item.cause("averaged-weights-not-trained"))
}

fn risen(stage: &Declared, weight: &Weight, effective: Effective<'_>) -> Option<Item> {
    let at = weight.until.min(stage.last());
    let reached = effective(at, &weight.signal);
    if reached.is_some_and(|value| same(value, weight.value)) {
        return None;
    }
    let share = reached.map_or(0.0, |value| value / weight.value);
    let what = if weight.until > stage.last() {
        format!(
            "{} is never reached: it rises until step {}, the stage ends after {}",
            weight.key, weight.until, stage.steps
        )
    } else {
        format!("{} at step {at}, where its rise ends", weight.key)
    };
    let late = weight.until > stage.last();
    let verdict = if share >= HALF && late { Verdict::Warn } else { Verdict::Fail };
    let mut item = fault(stage, verdict, &what, weight.value, reached);
    let epochs = (stage.steps.saturating_sub(weight.from) / stage.steps_per_epoch.max(1)) / 2;
    if late && epochs > 0 {
        item = item.advise(&weight.ramp_key, epochs);
    }
    Some(item.cause(if late { "schedule-does-not-fit" } else { "configuration-not-effective" }))
}

fn reweighted(stage: &Declared, effective: Effective<'_>) -> Option<Item> {
    let start = stage.reweighting?;
    let weight = |step: u64, class: usize| effective(step, &names::WEIGHT_CLASS.group(&class.to_string()));
    let classes: Vec<usize> = (0..).take_while(|class| weight(0, *class).is_some()).collect();
    let all = |step: u64| classes.iter().filter_map(|class| weight(step, *class)).collect::<Vec<f64>>();
    let (before, after) = (all(0), all(stage.last()));
    let moves = before.iter().zip(&after).any(|(a, b)| !same(*a, *b));
    let wrong = if start > 0 && start < stage.steps && all(start - 1) != before {
        Some("class weights change before the re-weighting is to start")
    } else if start > 0 && (start >= stage.steps || !moves) {
        Some("the re-weighting changes no class weight within the run")
    } else {
        None
    };
    wrong.map(|what| {
        let message = format!(
            "{what}: it is declared for step {start} of {}; weights {before:?}, then {after:?}",
            stage.steps
        );
        let item = Item::new("schedules", Verdict::Warn, message).number("start", start);
        item.cause("re-weighting")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// 100 steps in 10 epochs at 1e-3.
    fn stage() -> Declared {
        let keys = trimtab_train::settings::Reader::empty().into_resolved();
        let plan = trimtab_train::StagePlan {
            name: "training".to_owned(),
            epochs: 10,
            steps_per_epoch: 10,
            advance_when: None,
            horizons: BTreeMap::new(),
        };
        let keys = super::super::declared::Keys::new(&keys);
        Declared { rate: 1e-3, ..Declared::of(&keys, &plan) }
    }

    fn verdicts(stage: &Declared, effective: impl Fn(u64, &str) -> Option<f64>) -> Vec<(Verdict, String)> {
        judge(stage, &effective).into_iter().map(|item| (item.verdict, item.message)).collect()
    }

    fn at_work(step: u64, name: &str, warmup: u64) -> Option<f64> {
        match name {
            "optim/learning_rate" => Some(1e-3 * ((step + 1) as f64 / warmup.max(1) as f64).min(1.0)),
            "stage/frozen/encoder" => Some(0.0),
            "ema/decay" => Some((1.0 - 1.0 / (step + 1) as f64).min(0.9)),
            _ => None,
        }
    }

    #[test]
    fn a_warm_up_that_does_not_happen_is_seen() {
        let stage = Declared { warmup: 20, ..stage() };
        assert!(verdicts(&stage, |step, name| at_work(step, name, 20)).is_empty());
        let flat = verdicts(&stage, |step, name| at_work(step, name, 0));
        assert!(flat.len() == 1 && flat[0].1.contains("the peak already"), "{flat:?}");
        let never = verdicts(&stage, |step, name| at_work(step, name, 400));
        assert!(never[0].1.contains("declared 0.001, effective 5e-5"), "{never:?}");
    }

    #[test]
    fn an_average_needs_as_many_steps_as_it_looks_back_on() {
        let with = |decay| Declared { average: Some(("ema.decay".to_owned(), decay)), ..stage() };
        let slow = |decay: f64| {
            move |step: u64, name: &str| match name {
                "ema/decay" => Some((1.0 - 1.0 / (step + 1) as f64).min(decay)),
                name => at_work(step, name, 0),
            }
        };
        assert!(verdicts(&with(0.99), slow(0.99)).is_empty());
        assert_eq!(verdicts(&with(0.997), slow(0.997))[0].0, Verdict::Warn);
        let found = verdicts(&with(0.9999), slow(0.9999));
        assert!(
            found[0].0 == Verdict::Fail && found[0].1.contains("1.0 % of the 10000 updates"),
            "{found:?}"
        );
    }

    #[test]
    fn a_ramp_beyond_the_end_is_told_with_both_values() {
        let ramp = |until| Weight {
            signal: "weight/loss/dice".to_owned(),
            key: "loss.dice.weight".to_owned(),
            ramp_key: "loss.dice.ramp_epochs".to_owned(),
            value: 1.0,
            from: 0,
            until,
        };
        let rising = |until: u64| {
            move |step: u64, name: &str| match name {
                "weight/loss/dice" => Some((step as f64 / until as f64).min(1.0)),
                name => at_work(step, name, 0),
            }
        };
        for (until, verdict) in [(50, None), (150, Some(Verdict::Warn)), (1000, Some(Verdict::Fail))] {
            let stage = Declared { weights: vec![ramp(until)], ..stage() };
            let found = verdicts(&stage, rising(until));
            assert_eq!(found.first().map(|f| f.0), verdict, "{found:?}");
        }
    }
}
