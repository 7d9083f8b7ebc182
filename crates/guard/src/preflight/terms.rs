//! Each term of the loss by itself: whether it is a number, and whether its gradient, with its weight, reaches the network. Looked at
//! where its weight has risen.

use std::collections::BTreeMap;

use serde_json::Value;
use trimtab_doctor::show;
use trimtab_train::{Examination, Term};

use super::{Bench, Checked, Item, Trouble, Verdict};

/// Relative to the largest term's: what rounding leaves.
const NOTHING: f64 = 1e-9;
/// Relative to the largest term's: it decides nothing.
const LITTLE: f64 = 1e-4;
/// A weight this small is rarely meant, and a share so large, but for the weight, rarely useless.
const SMALL: f64 = 1e-2;
/// Exponents of the focal loss that were found of use end here (Lin et al. 2017, <https://arxiv.org/abs/1708.02002>, table 1b).
const STEEP: f64 = 5.0;
/// Steps after which a term may wake up: teacher and student, e.g., are the same to begin with.
const WAKE: u64 = 8;

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let mut found = bench.examined()?;
    let asleep = found.terms.iter().any(|term| share(term, &found) <= LITTLE);
    if asleep && bench.afford(WAKE as f64 + 6.0).is_ok() {
        let stage = bench.first_stage()?;
        let at = stage.settled();
        bench.enter()?;
        for step in 0..WAKE {
            bench.step(at + step, at, Some(stage.rate))?;
        }
        let later = bench.probe()?.examine(at, at)?;
        found = awake(&found, &later);
    }
    let keys = bench.keys.clone();
    let mut items: Vec<Item> = found
        .terms
        .iter()
        .filter_map(|term| {
            let item = fault(term, &found)?;
            // Too small a weight is all that keeps it from counting; terms are of one size, so about 1 is usual.
            let slight = term.weight > 0.0 && share(term, &found) / term.weight > SMALL;
            let key = format!("loss.{}.weight", term.name);
            let own = slight && term.weight < SMALL && keys.number(&key) == Some(term.weight);
            Some(if own { item.advise(key, "1.0") } else { item })
        })
        .collect();
    for (on, key) in [("loss.focal", "loss.focal_gamma"), ("loss.focal.weight", "loss.focal.gamma")] {
        let on = keys.number(on).is_some_and(|weight| weight > 0.0);
        if let Some(gamma) = keys.number(key).filter(|gamma| on && *gamma > STEEP) {
            let message = format!(
                "{key} = {}: where the network is undecided the focal term counts {} of a plain one",
                show(gamma),
                show(0.5f64.powf(gamma))
            );
            let item = Item::new("terms", Verdict::Warn, message).number("gamma", gamma).advise(key, "2.0");
            items.push(item.cause("configuration-not-effective"));
        }
    }
    if found.terms.is_empty() {
        return Err(Trouble::Skip("the loss has no terms to take apart".to_owned()));
    }
    if items.is_empty() {
        let told: Vec<String> = found
            .terms
            .iter()
            .map(|t| format!("{} {} (gradient {})", t.name, show(t.value), show(norm(t))))
            .collect();
        let mut item = Item::new("terms", Verdict::Pass, format!("every term counts: {}", told.join(", ")));
        for term in &found.terms {
            item = item.number(&term.name, numbers(term));
        }
        items.push(item);
    }
    Ok(items)
}

/// Of each term the look that shows more of it, in the measure of the first.
fn awake(first: &Examination, later: &Examination) -> Examination {
    let scale = largest(first) / largest(later);
    let better = |term: &Term| {
        let again = later.terms.iter().find(|again| again.name == term.name);
        let more = again.filter(|again| share(again, later) > share(term, first));
        more.map_or_else(|| term.clone(), |again| scaled(again, scale))
    };
    Examination { terms: first.terms.iter().map(better).collect(), ..first.clone() }
}

fn numbers(term: &Term) -> Value {
    serde_json::json!({ "value": term.value, "weight": term.weight, "gradient": term.gradient })
}

/// The norm over all groups.
fn norm(term: &Term) -> f64 {
    term.gradient.values().map(|g| g * g).sum::<f64>().sqrt()
}

fn largest(examination: &Examination) -> f64 {
    examination.terms.iter().map(norm).fold(0.0, f64::max)
}

/// A term's gradient relative to the largest term's, in the group where that is most.
fn share(term: &Term, all: &Examination) -> f64 {
    let greatest =
        |group: &str| all.terms.iter().filter_map(|t| t.gradient.get(group)).copied().fold(0.0, f64::max);
    let shares = term.gradient.iter().filter(|(group, _)| greatest(group) > 0.0);
    shares.map(|(group, norm)| norm / greatest(group)).fold(0.0, f64::max)
}

fn scaled(term: &Term, factor: f64) -> Term {
    let gradient: BTreeMap<String, f64> =
        term.gradient.iter().map(|(g, n)| (g.clone(), n * factor)).collect();
    Term { gradient, ..term.clone() }
}

fn fault(term: &Term, all: &Examination) -> Option<Item> {
    let name = &term.name;
    let item = |verdict, message: String, cause: &'static str| {
        let mut item = Item::new("terms", verdict, message).number(name, numbers(term));
        item.cause = Some(cause);
        Some(item)
    };
    if !term.value.is_finite() || !norm(term).is_finite() {
        let what = if term.value.is_finite() { "its gradient" } else { "its value" };
        return item(
            Verdict::Fail,
            format!("{name}: {what} is not a finite number on the first batch"),
            "numbers-overflow",
        );
    }
    if term.weight == 0.0 {
        return item(
            Verdict::Warn,
            format!("{name} has weight 0 even at the end of its rise"),
            "configuration-not-effective",
        );
    }
    let share = share(term, all);
    let weight = show(term.weight);
    if share <= NOTHING {
        let message = format!(
            "{name} is inert: it has weight {weight} and value {}, but its gradient reaches no parameter",
            show(term.value)
        );
        return item(Verdict::Fail, message, "configuration-not-effective");
    }
    if share < LITTLE {
        let message = format!(
            "{name} is as good as inert: with weight {weight} its gradient is {} of the largest term's, in every group",
            show(share)
        );
        return item(Verdict::Warn, message, "configuration-not-effective");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(name: &str, value: f64, gradient: &[(&str, f64)]) -> Term {
        let gradient = gradient.iter().map(|(g, n)| ((*g).to_owned(), *n)).collect();
        Term { name: name.to_owned(), weight: 1.0, value, gradient }
    }

    #[test]
    fn a_term_is_judged_in_the_group_where_it_says_most() {
        let all = Examination {
            terms: vec![
                term("dice", 0.7, &[("encoder", 1.0), ("head", 2.0)]),
                term("edge", 0.3, &[("encoder", 1e-7), ("head", 1e-3)]),
                term("faint", 0.3, &[("encoder", 1e-6), ("head", 1e-6)]),
                term("inert", 0.3, &[("encoder", 0.0), ("head", 0.0)]),
                term("wild", f64::NAN, &[("encoder", 1.0)]),
            ],
            ..Examination::default()
        };
        let verdicts: Vec<_> = all.terms.iter().map(|t| fault(t, &all).map(|i| i.verdict)).collect();
        assert_eq!(verdicts, [None, None, Some(Verdict::Warn), Some(Verdict::Fail), Some(Verdict::Fail)]);
    }
}
