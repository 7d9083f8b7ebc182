use trimtab_signals::{Column, keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::median;
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "loss-term-outweighs",
    summary: "a term that uses no labels is most of the loss",
    severity: Severity::Info,
    docs: include_str!("loss_term_outweighs.md"),
};

pub(super) static RULE: LossTermOutweighs =
    LossTermOutweighs { most: 0.75, tolerated: 0.01, measurements: 5 };

pub(super) struct LossTermOutweighs {
    /// Share of the whole loss.
    most: f64,
    /// Mean squared difference of two probabilities that costs as much as all the labels: under this, agreeing is all that counts, and
    /// where everything is predicted alike the term is 0.
    tolerated: f64,
    /// Fewer are no window.
    measurements: usize,
}

impl Rule for LossTermOutweighs {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let term = view.need(&names::LOSS_CONSISTENCY)?;
        let supervised = view.need(&names::LOSS_SUPERVISED)?;
        let weight = view.need(&names::WEIGHT_CONSISTENCY)?;
        let shares = shares(term, supervised, weight);
        // The last third: a ramp-up may have just begun before.
        let from = shares.len() * 2 / 3;
        let late = &shares[from..];
        if late.len() < self.measurements {
            return Err(Missing::new(format!("{} measurements of the terms", 3 * self.measurements)));
        }
        let share = median(late.iter().map(|(_, v)| *v)).unwrap_or(0.0);
        let labels = median(supervised.values().iter().copied()).unwrap_or(f64::NAN);
        let tolerated = labels / weight.last().map_or(f64::NAN, |(_, w)| w);
        if share < self.most && (tolerated.is_nan() || tolerated >= self.tolerated) {
            return Ok(Vec::new());
        }
        // Two terms may well be uneven where the model learns all the same.
        let stuck = view.metrics().iter().any(|m| {
            let (Some((_, best)), Some(floor)) = (m.column.highest(), m.no_skill()) else { return false };
            !m.is_loss() && (best - floor) < 0.5 * (1.0 - floor)
        });
        let message = if share < self.most {
            format!(
                "with its weight, a mean squared difference of {} between student and teacher costs as much as all the labels: agreeing is worth more than being right",
                show(tolerated)
            )
        } else {
            format!(
                "the consistency is {} of the loss in the last {} measurements: agreeing with the teacher is worth more than the labels",
                percent(share),
                late.len()
            )
        };
        let (first, last) = (late.first().map_or(0, |f| f.0), late.last().map_or(0, |l| l.0));
        Ok(vec![
            Finding::new(&META, message)
                .severity(if stuck { Severity::Warning } else { Severity::Info })
                .at(first, first, last)
                .evidence("share", share)
                .evidence("tolerated", tolerated)
                .evidence("weight", weight.last().map_or(f64::NAN, |(_, w)| w))
                .remedy(
                    Remedy::scale(
                        &keys::LOSS_WEIGHT,
                        0.01,
                        "a term without labels helps as long as the labels lead",
                    )
                    .of_group("consistency"),
                )
                .draw(names::LOSS_CONSISTENCY.name),
        ])
    }
}

/// The weighted term's share of both, at each step where all were measured.
fn shares(term: &Column, supervised: &Column, weight: &Column) -> Vec<(u64, f64)> {
    let at = |step, value: f64| {
        let term = value * weight.at(step)?;
        let all = term + supervised.at(step)?;
        let share = term / all;
        (share.is_finite() && term >= 0.0 && all > 0.0).then_some((step, share))
    };
    term.iter().filter_map(|(step, value)| at(step, value)).collect()
}

fn percent(share: f64) -> String {
    format!("{} %", show(100.0 * share))
}
