//! The moving average of the weights: how much of it is still the initial weights when it is validated, and how far behind it is after a few
//! steps.

use trimtab_doctor::show;
use trimtab_signals::names;
use trimtab_train::Drift;

use super::declared::Declared;
use super::{Bench, Checked, Item, Trouble, Verdict, toml};

/// Share of initial weights that an average can bear, as the doctor has it.
const BEARABLE: f64 = 0.1;
/// Steps after which it is measured.
const STEPS: u64 = 20;

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let stages = bench.declared()?;
    let every = bench.keys.count("evaluate.every_epochs").unwrap_or(1).max(1);
    let mut items = Vec::new();
    for (index, stage) in stages.iter().enumerate() {
        let Some((key, declared)) = &stage.average else { continue };
        let probe = bench.probe()?;
        let decay = |step: u64| {
            let value =
                probe.scheduled(index, step).into_iter().find(|(name, _)| name == names::EMA_DECAY.name);
            value.map_or(*declared, |(_, decay)| decay)
        };
        let first = (every * stage.steps_per_epoch).min(stage.steps);
        let (at_first, at_end) = (initial(first, decay), initial(stage.steps, decay));
        items.push(judge(stage, key, *declared, (first, at_first), at_end));
    }
    if items.is_empty() {
        return Err(Trouble::Skip("no average of the weights is kept".to_owned()));
    }
    match measure(bench, &stages[0]) {
        Ok(mut measured) => items.append(&mut measured),
        Err(Trouble::Skip(why)) => {
            items.push(Item::new("average", Verdict::Skip, format!("not measured: {why}")))
        }
        Err(error) => return Err(error),
    }
    Ok(items)
}

/// Share of the initial weights after so many updates: the product of the decays.
fn initial(updates: u64, decay: impl Fn(u64) -> f64) -> f64 {
    let mut share = 1.0;
    for step in 0..updates {
        let decay = decay(step);
        share *= decay;
        // Below this nobody cares; a decay that stays as it is needs no loop to its end.
        if share < 1e-9 {
            return 0.0;
        }
        if step >= 100_000 {
            return share * decay.powf((updates - step - 1) as f64);
        }
    }
    share
}

fn judge(stage: &Declared, key: &str, decay: f64, (updates, at_first): (u64, f64), at_end: f64) -> Item {
    let verdict = if at_end > BEARABLE {
        Verdict::Fail
    } else if at_first > BEARABLE {
        Verdict::Warn
    } else {
        Verdict::Pass
    };
    let message = format!(
        "{}of the average ({key} = {decay}) {:.1} % are initial weights at the first validation ({updates} updates), {:.1} % at the end ({})",
        stage.label(),
        100.0 * at_first,
        100.0 * at_end,
        stage.steps
    );
    let item = Item::new("average", verdict, message)
        .number("decay", decay)
        .number("initial_at_first_validation", at_first)
        .number("initial_at_end", at_end);
    if verdict == Verdict::Pass {
        return item;
    }
    item.advise(key, toml(1.0 - 10.0 / stage.steps.max(20) as f64)).cause("averaged-weights-not-trained")
}

/// Trains a little and looks at live and averaged weights, with the backbone frozen too where it is to be.
fn measure(bench: &mut Bench<'_>, stage: &Declared) -> Checked {
    if stage.average.is_none() {
        return Ok(Vec::new());
    }
    let frozen = stage.frozen.min(stage.last());
    let runs: &[(u64, &str)] =
        if frozen > 0 { &[(0, "with a frozen backbone "), (1, "with an unfrozen one ")] } else { &[(0, "")] };
    let steps = STEPS.min(stage.steps);
    bench.afford((steps * runs.len() as u64) as f64)?;
    let mut item = Item::new("average", Verdict::Pass, String::new()).number("steps", steps);
    let mut told = Vec::new();
    for (run, words) in runs {
        let from = if *run == 0 { 0 } else { frozen };
        bench.enter()?;
        for step in 0..steps {
            bench.step(step, from + step, None)?;
        }
        let drift = bench.probe()?.drift();
        for Drift { group, moved, lag } in &drift {
            item = item
                .number(&format!("moved/{run}/{group}"), *moved)
                .number(&format!("lag/{run}/{group}"), *lag);
        }
        let groups: Vec<String> = drift.iter().map(|d| format!("{} {}", d.group, behind(d))).collect();
        told.push(format!("{words}{}", groups.join(", ")));
    }
    item.message = format!(
        "after {steps} steps the average is behind the live weights by, in parts of what these have moved: {}",
        told.join("; ")
    );
    Ok(vec![item])
}

fn behind(drift: &Drift) -> String {
    match drift.lag {
        Some(_) if drift.moved == 0.0 => "not moved".to_owned(),
        Some(lag) => show((lag / drift.moved * 100.0).round() / 100.0),
        None => "no average".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_without_warm_up_is_mostly_initial_weights() {
        // Report 004: .9999 over 1,380 updates.
        assert!((initial(1380, |_| 0.9999) - 0.871).abs() < 1e-3);
        assert_eq!(initial(10_000_000_000, |_| 0.999), 0.0);
        // With a warm-up the first update copies.
        assert_eq!(initial(5, |step| 1.0 - 1.0 / (step + 1) as f64), 0.0);
        assert_eq!(initial(0, |_| 0.5), 1.0);
    }
}
