use trimtab_signals::{Column, keys, names};

use super::rate_too_low::{Scaling, learned, settle};
use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::{median, smooth, tail};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "rate-too-high",
    summary: "the learning rate is too high for the batch or the weights",
    severity: Severity::Warning,
    docs: include_str!("rate_too_high.md"),
};

pub(super) static RULE: RateTooHigh = RateTooHigh { ratio: 0.1, factor: 4.0, measurements: 5 };

pub(super) struct RateTooHigh {
    /// Update over weights: at a tenth, nothing learned outlives ten steps.
    ratio: f64,
    /// Against the reference: a factor of two or three is a matter of taste.
    factor: f64,
    /// Fewer in a row are chance.
    measurements: usize,
}

impl Rule for RateTooHigh {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let scaling = Scaling::of(view);
        let ratios = view.groups(&names::OPTIM_UPDATE_RATIO);
        let found = scaling.as_ref().ok().and_then(|scaling| self.against_reference(view, scaling));
        settle(found.or_else(|| self.large_updates(view, &ratios)), scaling, ratios.is_empty())
    }
}

impl RateTooHigh {
    fn against_reference(&self, view: &View<'_>, scaling: &Scaling) -> Option<Finding> {
        let factor = 1.0 / scaling.linear();
        if !(factor >= self.factor && factor.is_finite()) {
            return None;
        }
        // Too high a rate shows: what learns is not lost, and small batches bear more than their share.
        let severity = match learned(view) {
            Some(true) if 1.0 / scaling.square_root() < self.factor => Severity::Info,
            _ => Severity::Warning,
        };
        let why = "the reference's rate per sample; with the square root of the batches as in the evidence it \
                   would be higher";
        Some(scaling.finding(view, &META, factor, "large", why).severity(severity))
    }

    /// Updates that overwrite the weights for a window that lasts to the end, while nothing gets better.
    fn large_updates(&self, view: &View<'_>, ratios: &[(&str, &Column)]) -> Option<Finding> {
        // Weights that start at zero (biases, gates, heads) have any ratio at first: the first tenth does not
        // count.
        let from = view.last_step() / 10;
        let high: Vec<(u64, u64, u64, f64)> = ratios
            .iter()
            .filter_map(|(_, column)| {
                let smoothed = smooth(column.values(), 3);
                let start = tail(&smoothed, |v| v > self.ratio);
                let start = start.max(column.steps().partition_point(|&step| step < from));
                let told = *column.steps().get(start + self.measurements - 1)?;
                let level = median(column.values().get(start..)?.iter().copied())?;
                (level > self.ratio).then_some((*column.steps().get(start)?, told, column.last()?.0, level))
            })
            .collect();
        let &(first, told, last, _) = high.iter().max_by_key(|(first, ..)| *first)?;
        if high.len() * 2 <= ratios.len() || view.progresses_from(first) == Some(true) {
            return None;
        }
        // Without a loss nobody knows whether it hurts.
        let severity = if view.progresses_from(first).is_some() { Severity::Warning } else { Severity::Info };
        let level = median(high.iter().map(|(.., level)| *level))?;
        let message = format!(
            "an update changes the weights by {} of their size from step {first} on (median over {} of \
            {} groups), and the loss does not fall: nothing learned outlives a few steps",
            show(level),
            high.len(),
            ratios.len(),
        );
        let finding = Finding::new(&META, message)
            .severity(severity)
            .at(told, first, last)
            .evidence("update_ratio", level)
            .evidence("groups", high.len() as f64);
        Some(finding.remedy(Remedy::scale(
            &keys::OPTIM_LEARNING_RATE,
            0.1,
            "updates near a thousandth of the weights are usual",
        )))
    }
}
