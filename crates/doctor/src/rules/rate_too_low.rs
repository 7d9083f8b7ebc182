use trimtab_signals::{Column, Key, keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::{median, noise, smooth};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "rate-too-low",
    summary: "the learning rate is too low for the batch, the budget or the weights",
    severity: Severity::Warning,
    docs: include_str!("rate_too_low.md"),
};

pub(super) static RULE: RateTooLow =
    RateTooLow { ratio: 1e-5, most: 0.75, factor: 4.0, hopeless: 10.0, measurements: 10 };

pub(super) struct RateTooLow {
    /// Update over weights: at 1e-5 the weights need the whole of 100,000 aligned steps to change.
    ratio: f64,
    /// Share of the measurements that is most of the run.
    most: f64,
    /// Against the reference: a factor of two or three is a matter of taste.
    factor: f64,
    /// An order of magnitude is not.
    hopeless: f64,
    /// Fewer are no run.
    measurements: usize,
}

impl Rule for RateTooLow {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let scaling = Scaling::of(view);
        let ratios = view.groups(&names::OPTIM_UPDATE_RATIO);
        let found = scaling.as_ref().ok().and_then(|scaling| self.against_reference(view, scaling));
        let found = found.or_else(|| self.small_updates(view, &ratios)).or_else(|| self.straight_line(view));
        settle(found, scaling, ratios.is_empty())
    }
}

impl RateTooLow {
    fn against_reference(&self, view: &View<'_>, scaling: &Scaling) -> Option<Finding> {
        let factor = scaling.linear();
        let low = factor >= self.factor;
        if !low {
            return None;
        }
        let severity = match learned(view) {
            Some(false) if factor >= self.hopeless => Severity::Critical,
            // Adaptive optimizers often do well with the square root of the batch, or none of it.
            Some(true) if scaling.square_root() < self.factor => Severity::Info,
            _ => Severity::Warning,
        };
        let why = "the reference's rate per sample; the square root of the batches is the careful variant, \
                   see the evidence";
        Some(scaling.finding(view, &META, factor, "small", why).severity(severity))
    }

    /// Updates that are nothing beside the weights, and a loss that shows it.
    fn small_updates(&self, view: &View<'_>, ratios: &[(&str, &Column)]) -> Option<Finding> {
        // A group that is never updated is frozen, unless all are.
        let moved: Vec<_> = ratios.iter().filter(|(_, c)| c.values().iter().any(|v| *v > 0.0)).collect();
        let judged: Vec<_> = if moved.is_empty() { ratios.iter().collect() } else { moved };
        let low = judged.iter().filter(|(_, column)| {
            let low = column.values().iter().filter(|v| v.abs() < self.ratio).count();
            column.len() >= self.measurements && low as f64 >= self.most * column.len() as f64
        });
        let low: Vec<&&(&str, &Column)> = low.collect();
        if judged.is_empty() || low.len() * 2 <= judged.len() || view.progresses_from(0) != Some(false) {
            return None;
        }
        let (_, column) = low.first()?;
        let level = median(low.iter().flat_map(|(_, column)| column.values().iter().copied()))?;
        let (first, last) = (column.first()?.0, column.last()?.0);
        let told = *column.steps().get(self.measurements - 1)?;
        let message = format!(
            "an update changes the weights by {} of their size (median over {} of {} groups), and \
            neither loss nor metric moves",
            show(level),
            low.len(),
            judged.len(),
        );
        let finding = Finding::new(&META, message)
            .at(told, first, last)
            .evidence("update_ratio", level)
            .evidence("groups", low.len() as f64);
        Some(finding.remedy(Remedy::scale(
            &keys::OPTIM_LEARNING_RATE,
            10.0,
            "updates near a thousandth of the weights are usual",
        )))
    }

    /// A loss that falls in a straight line to the end of the budget under a constant rate has more to give.
    fn straight_line(&self, view: &View<'_>) -> Option<Finding> {
        let (name, loss) = view.training_loss().ok()?;
        let (planned, (first, _), (last, _)) = (view.planned_steps()?, loss.first()?, loss.last()?);
        let rates = view.groups(&names::OPTIM_LEARNING_RATE);
        if !(last as f64 >= 0.9 * planned && planned > 0.0) || rates.is_empty() {
            return None;
        }
        // Quarters of the run, which are no quarters of the measurements where the first steps are logged one
        // by one.
        let span = last.saturating_sub(first) as f64 / 4.0;
        let quarters = |column: &Column| -> Vec<Vec<f64>> {
            let mut quarters = vec![Vec::new(); 4];
            for (step, v) in column.iter() {
                let at = (step.saturating_sub(first) as f64 / span) as usize;
                quarters[at.min(3)].push(v);
            }
            quarters
        };
        let keeps = |column: &Column| {
            let end = quarters(column).last().and_then(|part| median(part.iter().copied()));
            column.highest().zip(end).is_some_and(|((_, high), end)| high > 0.0 && end >= 0.5 * high)
        };
        if !rates.iter().all(|(_, column)| keeps(column)) {
            return None;
        }
        let parts = quarters(loss);
        let fewest = parts.iter().map(Vec::len).min().filter(|fewest| *fewest >= self.measurements)?;
        let levels: Vec<f64> = parts.into_iter().filter_map(median).collect();
        let [a, b, c, d] = levels[..] else { return None };
        // Four standard errors of the difference of two medians.
        let error = 4.0 * 1.25 * noise(loss.values())? * (2.0 / fewest as f64).sqrt();
        let falls = [a - b, b - c, c - d];
        if !falls.iter().all(|fall| *fall > error && (0.7..1.5).contains(&(fall / falls[0]))) {
            return None;
        }
        let logged = view.run().logged_name(name);
        let message = format!(
            "`{logged}` still falls in a straight line at the end of the budget ({} in the first half, \
            {} in the second): the rate or the budget is low",
            show(a - c),
            show(b - d),
        );
        let finding = Finding::new(&META, message)
            .severity(Severity::Info)
            .at(last, first, last)
            .evidence("fall_first_half", a - c)
            .evidence("fall_second_half", b - d)
            .draw(name);
        let finding = finding.remedy(Remedy::scale(
            &keys::OPTIM_LEARNING_RATE,
            2.0,
            "no sign of noise or curvature yet: a larger step gets further",
        ));
        Some(finding.remedy(Remedy::scale(&keys::RUN_STEPS, 2.0, "or more of the same")))
    }
}

/// What a rule of rates comes to: its finding, or that neither a reference nor update ratios are there.
pub(super) fn settle(
    found: Option<Finding>,
    scaling: Result<Scaling, Missing>,
    no_ratios: bool,
) -> Result<Vec<Finding>, Missing> {
    match (found, scaling) {
        (None, Err(Missing(mut needs))) if no_ratios => {
            needs.push(format!("or {}", names::OPTIM_UPDATE_RATIO.name));
            Err(Missing(needs))
        }
        (found, _) => Ok(found.into_iter().collect()),
    }
}

/// A run's rate beside that of the reference run.
pub(super) struct Scaling {
    rate: f64,
    batch: f64,
    reference_rate: f64,
    reference_batch: f64,
}

impl Scaling {
    /// From what is declared.
    pub(super) fn of(view: &View<'_>) -> Result<Self, Missing> {
        let positive = |v: &f64| *v > 0.0 && v.is_finite();
        let rate = |key: &Key| {
            let groups = view.numbers_by_group(key).into_iter().filter(|(_, v)| positive(v));
            // The ungrouped rate is the base; of groups the highest is.
            groups
                .max_by(|a, b| a.0.is_empty().cmp(&b.0.is_empty()).then(a.1.total_cmp(&b.1)))
                .map(|(_, v)| v)
        };
        let times = |key: &Key| view.number(key).filter(|n| *n >= 1.0).unwrap_or(1.0);
        let reference_batch = view
            .number(&keys::REFERENCE_BATCH_SIZE)
            .map(|batch| batch * times(&keys::REFERENCE_ACCUMULATION) * times(&keys::REFERENCE_DEVICES));
        let parts = [
            (rate(&keys::OPTIM_LEARNING_RATE), &keys::OPTIM_LEARNING_RATE),
            (view.effective_batch(), &keys::OPTIM_BATCH_SIZE),
            (rate(&keys::REFERENCE_LEARNING_RATE), &keys::REFERENCE_LEARNING_RATE),
            (reference_batch, &keys::REFERENCE_BATCH_SIZE),
        ];
        match parts.map(|(value, _)| value.filter(positive)) {
            [Some(rate), Some(batch), Some(reference_rate), Some(reference_batch)] => {
                Ok(Self { rate, batch, reference_rate, reference_batch })
            }
            found => {
                let missing = parts.iter().zip(found).filter(|(_, found)| found.is_none());
                Err(Missing(missing.map(|((_, key), _)| format!("{} (declared)", key.name)).collect()))
            }
        }
    }

    /// How many times lower than the reference's the rate per sample is.
    pub(super) fn linear(&self) -> f64 {
        (self.reference_rate / self.rate) * (self.batch / self.reference_batch)
    }

    /// The same, were rates to grow with the square root of the batch.
    pub(super) fn square_root(&self) -> f64 {
        (self.reference_rate / self.rate) * (self.batch / self.reference_batch).sqrt()
    }

    /// The reference's rate at this run's batch.
    fn recommended(&self) -> f64 {
        self.reference_rate * (self.batch / self.reference_batch)
    }

    /// The finding that the rate is too `small` or `large` by a factor.
    pub(super) fn finding(
        &self,
        view: &View<'_>,
        meta: &RuleMeta,
        factor: f64,
        size: &str,
        why: &str,
    ) -> Finding {
        let recommended = self.recommended();
        let message = format!(
            "the learning rate per sample of an update is {}x too {size} against the reference: {} at batch {} where the \
             reference has {} at batch {}; {} would match it",
            times(factor),
            show(self.rate),
            show(self.batch),
            show(self.reference_rate),
            show(self.reference_batch),
            show(recommended),
        );
        let finding = Finding::new(meta, message)
            .evidence("factor", factor)
            .evidence("recommended", recommended)
            .evidence(
                "square_root_factor",
                if factor == self.linear() { self.square_root() } else { 1.0 / self.square_root() },
            )
            .evidence(
                "square_root_recommended",
                self.reference_rate * (self.batch / self.reference_batch).sqrt(),
            )
            .evidence("learning_rate", self.rate)
            .evidence("effective_batch", self.batch)
            .evidence("reference_learning_rate", self.reference_rate)
            .evidence("reference_effective_batch", self.reference_batch)
            .remedy(Remedy::set(&keys::OPTIM_LEARNING_RATE, recommended, why));
        let first = view.run().trace.iter().filter_map(|(_, c)| c.first()).map(|(step, _)| step).min();
        match first {
            Some(first) => finding.at(first, first, view.last_step()),
            None => finding,
        }
    }
}

/// A factor to one decimal, as long as that is readable.
fn times(factor: f64) -> String {
    if factor < 1e4 { format!("{factor:.1}") } else { show(factor) }
}

/// Whether the metric that decides (or the training loss) ever got better than where it began, by a tenth of
/// itself or of what was missing to perfection. `None` under three measurements.
pub(super) fn learned(view: &View<'_>) -> Option<bool> {
    let (values, ceiling) = match view.headline() {
        Ok(metric) if metric.column.len() >= 3 => {
            let high = metric.column.highest().map_or(0.0, |(_, v)| v);
            let score = !metric.is_loss() && metric.goal == names::Goal::Higher;
            (metric.upward(), score.then_some(if high > 1.5 { 100.0 } else { 1.0 }))
        }
        _ => {
            let (_, loss) = view.training_loss().ok()?;
            (loss.values().iter().map(|v| -v).collect(), None)
        }
    };
    let finite: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
    let first = *finite.first().filter(|_| finite.len() >= 3)?;
    let best = smooth(&finite, 3).into_iter().skip(1).fold(f64::NEG_INFINITY, f64::max);
    let gain = best - first;
    let scale = ceiling.map_or(first.abs(), |ceiling: f64| first.abs().min((ceiling - first).abs()));
    Some(gain > 0.1 * scale && gain > 3.0 * noise(&finite).unwrap_or(0.0))
}
