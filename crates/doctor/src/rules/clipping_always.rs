use trimtab_signals::{Column, keys, names};

use super::exploding_gradient::norms;
use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::median;
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "clipping-always",
    summary: "nearly every update is clipped, so the bound sets the step and not the gradient",
    severity: Severity::Info,
    docs: include_str!("clipping_always.md"),
};

pub(super) static RULE: ClippingAlways = ClippingAlways { most: 0.9, far: 10.0, measurements: 20 };

pub(super) struct ClippingAlways {
    /// Share of the updates that is nearly all.
    most: f64,
    /// Norm over bound from which on the bound is the rate.
    far: f64,
    /// Fewer are no long window.
    measurements: usize,
}

impl Rule for ClippingAlways {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let bound = view.number(&keys::OPTIM_CLIP_NORM).filter(|bound| *bound > 0.0 && bound.is_finite());
        // The bound is that of the whole gradient: norms by group say nothing about it.
        let norm = norms(view)
            .into_iter()
            .find(|(name, _)| *name == names::GRAD_NORM.name)
            .map(|(_, column)| column);
        let clipped = view.column(&names::GRAD_CLIPPED);
        let from = self.settled(view);
        let window = |column: &Column| -> Vec<(u64, f64)> {
            column.iter().filter(|(step, v)| *step >= from && v.is_finite()).collect()
        };
        let (name, shares): (&str, Vec<(u64, f64)>) = match (clipped, norm, bound) {
            (Some(column), ..) => (names::GRAD_CLIPPED.name, window(column)),
            (None, Some(column), Some(bound)) => {
                let over = |(step, v): (u64, f64)| (step, if v > bound { 1.0 } else { 0.0 });
                (names::GRAD_NORM.name, window(column).into_iter().map(over).collect())
            }
            _ => {
                let (clipped, norm) = (names::GRAD_CLIPPED.name, names::GRAD_NORM.name);
                return Err(Missing::new(format!(
                    "{clipped}, or {norm} and {} (declared)",
                    keys::OPTIM_CLIP_NORM.name
                )));
            }
        };
        let (Some(&(first, _)), Some(&(last, _))) = (shares.first(), shares.last()) else {
            return Ok(Vec::new());
        };
        let share = shares.iter().map(|(_, v)| v).sum::<f64>() / shares.len() as f64;
        // A column of other values is no share.
        if shares.len() < self.measurements || !(share > self.most && share <= 1.0) {
            return Ok(Vec::new());
        }
        let typical = norm.and_then(|column| median(window(column).into_iter().map(|(_, v)| v)));
        let over = typical.zip(bound).map(|(norm, bound)| norm / bound);
        // Many good recipes clip always; with an adaptive optimizer it hardly matters. Where nothing is
        // learned, it does.
        let grave = over.is_some_and(|over| over > self.far) && view.progresses_from(first) == Some(false);
        let severity = if grave { Severity::Warning } else { Severity::Info };
        let size = match (typical, bound, over) {
            (Some(norm), Some(bound), Some(over)) => {
                format!(
                    ": the median norm is {}, {} times the bound of {}",
                    show(norm),
                    show(over),
                    show(bound)
                )
            }
            _ => String::new(),
        };
        let (percent, stuck) =
            (100.0 * share, if grave { ", and neither loss nor metric gets better" } else { "" });
        let message = format!("{percent:.0} % of the updates from step {first} on are clipped{size}{stuck}");
        let told = shares.get(self.measurements - 1).map_or(last, |(step, _)| *step);
        let mut finding = Finding::new(&META, message)
            .severity(severity)
            .at(told, first, last)
            .evidence("clipped_share", share)
            .draw(name);
        if let (Some(norm), Some(over)) = (typical, over) {
            finding = finding.evidence("norm", norm).evidence("norm_over_bound", over);
            finding = finding.remedy(Remedy::set(
                &keys::OPTIM_CLIP_NORM,
                2.0 * norm,
                "a bound over the usual norm catches the exceptions only",
            ));
        }
        if grave {
            finding = finding.remedy(Remedy::scale(
                &keys::OPTIM_LEARNING_RATE,
                0.3,
                "or a rate that keeps the gradient small",
            ));
        }
        Ok(vec![finding])
    }
}

impl ClippingAlways {
    /// The first steps are clipped in any run: behind the warm-up, or behind the first tenth.
    fn settled(&self, view: &View<'_>) -> u64 {
        let epochs =
            view.number(&keys::SCHEDULE_WARMUP_EPOCHS).zip(view.steps_per_epoch()).map(|(e, s)| e * s);
        let warmup = view.number(&keys::SCHEDULE_WARMUP_STEPS).or(epochs).unwrap_or(0.0);
        let tenth = view.last_step() / 10;
        // A cast of what is negative or not a number gives 0, of what is too large the largest.
        tenth.max(warmup as u64)
    }
}
