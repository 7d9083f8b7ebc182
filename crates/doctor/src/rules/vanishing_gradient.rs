use std::collections::BTreeMap;

use trimtab_signals::{Column, keys, names};

use super::exploding_gradient::norms;
use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::{median, quantile, smooth, tail};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "vanishing-gradient",
    summary: "the gradient is gone although the loss has not been learned",
    severity: Severity::Critical,
    docs: include_str!("vanishing_gradient.md"),
};

pub(super) static RULE: VanishingGradient =
    VanishingGradient { gone: 1e-7, depth: 1e-5, gained: 0.1, patience: 5, layers: 4 };

pub(super) struct VanishingGradient {
    /// Share of its former size under which single precision has nothing left of it.
    gone: f64,
    /// First layer's norm over the last's. Adaptive steps make up for some decades; five are beyond that.
    depth: f64,
    /// Share of the first loss that must have been gained for a vanished gradient to be a minimum.
    gained: f64,
    /// Measurements in a row that are not chance.
    patience: usize,
    /// Fewer layers do not make a depth.
    layers: usize,
}

impl Rule for VanishingGradient {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let columns = norms(view);
        if columns.is_empty() {
            return Err(Missing::new(names::GRAD_NORM.name));
        }
        view.training_loss()?;
        let mut gone = Vec::new();
        for &(name, column) in &columns {
            let Some(since) = self.gone(column) else { break };
            gone.push((name, column, since));
        }
        // One group may be frozen or done; the gradient is gone when all of it is.
        if gone.len() == columns.len()
            && let Some((name, column, since)) = gone.iter().max_by_key(|(.., since)| *since)
        {
            return Ok(self.vanished(view, name, column, *since).into_iter().collect());
        }
        Ok(self.deep(view).into_iter().collect())
    }
}

impl VanishingGradient {
    /// The step from which on nothing is left of it.
    fn gone(&self, column: &Column) -> Option<u64> {
        let (steps, values) = (column.steps(), column.values());
        let peak = quantile(values.iter().map(|v| v.abs()), 0.9).unwrap_or(0.0);
        let high = values[..values.len().div_ceil(2)].iter().map(|v| v.abs());
        // Late in a long run the dead part outweighs the living one: the first half counts too.
        let peak =
            peak.max(quantile(high, 0.5).unwrap_or(0.0)).max(column.first().map_or(0.0, |(_, v)| v.abs()));
        let bound = if peak.is_finite() { self.gone * peak } else { 0.0 };
        // A value that is not finite is not small.
        let start = tail(values, |v| v.abs() <= bound);
        let long = values.len() - start >= self.patience.max(values.len() / 10);
        (long && (start > 0 || values.len() >= 2 * self.patience)).then(|| steps.get(start).copied())?
    }

    fn vanished(&self, view: &View<'_>, name: &str, column: &Column, since: u64) -> Option<Finding> {
        let (_, loss) = view.training_loss().ok()?;
        let tail = loss.steps().partition_point(|&step| step < since);
        let start = median(loss.values().iter().filter(|v| v.is_finite()).take(3).copied())?;
        let end = median(loss.values()[tail..].iter().copied())?;
        if loss.len() - tail < self.patience || view.progresses_from(since) == Some(true) {
            return None;
        }
        let best = smooth(loss.values(), 5).into_iter().filter(|v| v.is_finite()).fold(start, f64::min);
        // Near a minimum nothing is wrong with a gradient of zero. What the minimum is nobody knows, but a
        // loss that was never gained on, or whose gain is lost again, is not there. Losses below zero have no
        // such scale.
        let never = start > 0.0 && end >= 0.0 && end > (1.0 - self.gained) * start;
        let lost = best < start && end - best > 0.5 * (start - best);
        if !(never || lost) {
            return None;
        }
        let (told, last) =
            (column.steps().iter().filter(|&&s| s >= since).nth(self.patience - 1)?, column.last()?.0);
        let level = median(column.iter().filter(|(step, _)| *step >= since).map(|(_, v)| v))?;
        let logged = view.run().logged_name(name);
        let message = format!(
            "`{logged}` is {} from step {since} to the end while the loss stands at {} (it began at \
            {}): no weight moves any more",
            show(level),
            show(end),
            show(start),
        );
        let finding = Finding::new(&META, message)
            .at(*told, since, last)
            .evidence("norm", level)
            .evidence("loss", end)
            .evidence("first_loss", start)
            .draw(name);
        Some(remedies(finding))
    }

    /// The first of many layers gets next to nothing of what the last one gets.
    fn deep(&self, view: &View<'_>) -> Option<Finding> {
        let mut stacks: BTreeMap<&str, BTreeMap<u64, f64>> = BTreeMap::new();
        let mut last_step = 0;
        for (group, column) in view.groups(&names::GRAD_NORM) {
            let Some((stack, index)) = layer(group) else { continue };
            let tail = &column.values()[column.len().saturating_sub(self.patience)..];
            // Frozen layers report zero: nothing to compare.
            let Some(level) =
                median(tail.iter().copied()).filter(|v| *v > 0.0 && tail.len() == self.patience)
            else {
                continue;
            };
            let of_layer = stacks.entry(stack).or_default().entry(index).or_insert(0.0);
            *of_layer = of_layer.max(level);
            last_step = last_step.max(column.last().map_or(0, |(step, _)| step));
        }
        let (stack, layers) = stacks.into_iter().max_by_key(|(_, layers)| layers.len())?;
        let ((_, first), (_, last)) = (layers.first_key_value()?, layers.last_key_value()?);
        let ratio = first / last;
        let starved = ratio < self.depth && layers.len() >= self.layers;
        if !starved || view.progresses_from(0) != Some(false) {
            return None;
        }
        let message = format!(
            "the first of {} layers ({stack}…) gets {} of the last one's gradient, and the loss does \
            not fall",
            layers.len(),
            show(ratio),
        );
        let finding = Finding::new(&META, message)
            .severity(Severity::Warning)
            .at(last_step, 0, last_step)
            .evidence("first_over_last", ratio)
            .evidence("layers", layers.len() as f64);
        Some(remedies(finding))
    }
}

/// `encoder.layers.3.conv` is number 3 of `encoder.layers.`.
fn layer(group: &str) -> Option<(&str, u64)> {
    let at = group.find(|c: char| c.is_ascii_digit())?;
    let (stack, rest) = group.split_at(at);
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((stack, digits.parse().ok()?))
}

fn remedies(finding: Finding) -> Finding {
    finding
        .remedy(Remedy::scale(
            &keys::OPTIM_LEARNING_RATE,
            0.1,
            "too large a step leaves units dead for good: start again lower",
        ))
        .remedy(Remedy::check(
            &keys::MODEL_PARAMETERS,
            "initial weights, normalisation layers, residual connections, saturating activations",
            "a gradient of zero at a high loss is dead or saturated units",
        ))
}
