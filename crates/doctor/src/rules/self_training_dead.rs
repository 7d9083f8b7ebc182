use trimtab_signals::names::Signal;
use trimtab_signals::{Column, keys, names};

use crate::course::Course;
use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::median;
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "self-training-dead",
    summary: "self-training admits nothing any more, so unlabelled data teaches nothing",
    severity: Severity::Warning,
    docs: include_str!("self_training_dead.md"),
};

pub(super) static RULE: SelfTrainingDead =
    SelfTrainingDead { measurements: 5, gap: 3, alive: 3, never: 20, share: 0.1, loss_d: 0.1, disc_gap: 0.9 };

pub(super) struct SelfTrainingDead {
    /// Zeros in a row to the end: fewer are chance.
    measurements: usize,
    /// Zeros in a row over the longest such row before: where admission is rare, rows of zeros are normal.
    gap: usize,
    /// Measurements with admission before self-training counts as having lived.
    alive: usize,
    /// Zeros where it has never lived: scores start under any sensible threshold.
    never: usize,
    /// and their share of the planned (else the logged) run.
    share: f64,
    /// A discriminator that only guesses has a loss of ln 2; a tenth is far from any balance.
    loss_d: f64,
    /// D(real) - D(fake): 0 for guessing, 1 for certainty.
    disc_gap: f64,
}

impl Rule for SelfTrainingDead {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let signals = [&names::SSL_ADMITTED_IMAGES, &names::SSL_ADMITTED_PIXELS, &names::LOSS_SELF_TRAINING];
        let found = signals.into_iter().find_map(|signal| Some((signal, view.column(signal)?)));
        let (signal, column) = found.ok_or_else(|| {
            Missing::new(format!("{}, {} or {}", signals[0].name, signals[1].name, signals[2].name))
        })?;
        let start = view.number(&keys::SSL_START_STEP);
        let offered = self.offered(view, signal, column, start);
        // Zeros at the end, and what was before them.
        let zeros = offered.iter().rev().take_while(|(_, v)| *v == 0.0).count();
        let (before, tail) = offered.split_at(offered.len() - zeros);
        let (Some(&(first, _)), Some(&(last, _))) = (tail.first(), tail.last()) else {
            return Ok(Vec::new());
        };
        let alive = before.iter().filter(|(_, v)| *v > 0.0).count();
        let lived = alive >= self.alive;
        let told = if lived {
            let first_alive = before.iter().position(|(_, v)| *v > 0.0).unwrap_or(0);
            let quiet = before[first_alive..].split(|(_, v)| *v > 0.0).map(<[_]>::len).max().unwrap_or(0);
            self.measurements.max(self.gap.saturating_mul(quiet).saturating_add(1))
        } else {
            // Zero from the start says something only where images are known to have been offered.
            let known = start.is_some() || view.column(&names::SSL_CANDIDATES).is_some();
            let run = view.planned_steps().filter(|s| *s > 0.0).unwrap_or(view.last_step() as f64);
            if !known || signal == &names::LOSS_SELF_TRAINING || ((last - first) as f64) < self.share * run {
                return Ok(Vec::new());
            }
            self.never
        };
        if zeros < told || (signal == &names::LOSS_SELF_TRAINING && rounded_away(before)) {
            return Ok(Vec::new());
        }

        let logged = view.run().logged_name(signal.name);
        let start_step = offered.first().map_or(first, |(step, _)| *step);
        let candidates = view.column(&names::SSL_CANDIDATES);
        let offered_in_all: f64 =
            tail.iter().filter_map(|(step, _)| candidates?.at(*step)).filter(|c| c.is_finite()).sum();
        let mut message = if lived {
            format!("`{logged}` is 0 at the last {zeros} measurements, from step {first} on")
        } else {
            let sometimes = if alive > 0 { format!(" but {alive} of") } else { String::new() };
            format!(
                "`{logged}` is 0 at all{sometimes} {} measurements since step {start_step}",
                offered.len()
            )
        };
        if offered_in_all > 0.0 {
            message += &format!(", out of {} candidates", show(offered_in_all));
        }
        message += if lived {
            ": unlabelled data teaches nothing any more"
        } else {
            ": unlabelled data teaches nothing"
        };
        let mut finding = Finding::new(&META, String::new())
            .at(tail[(told - 1).min(tail.len() - 1)].0, first, last)
            .evidence("zeros", zeros as f64)
            .evidence("admitting_before", alive as f64)
            .draw(signal.name);
        if offered_in_all > 0.0 {
            finding = finding.evidence("candidates", offered_in_all);
        }
        if let Some((step, what, value)) = self.discriminator(view, first) {
            message += &format!(
                "; the discriminator, which decides, was certain by step {step} ({what} {})",
                show(value)
            );
            finding = finding
                .evidence("discriminator_step", step as f64)
                .evidence(if what == "loss" { "loss_d" } else { "gap" }, value)
                .remedy(Remedy::scale(
                    &keys::GAN_LEARNING_RATE,
                    0.1,
                    "a slower discriminator can be convinced again",
                ))
                .remedy(Remedy::set(
                    &keys::GAN_INTERVAL,
                    5,
                    "fewer updates of the discriminator for each of the generator",
                ));
        } else {
            let level = |signal: &Signal| {
                let column = view.column(signal)?;
                median(column.iter().filter(|(s, _)| *s >= first).map(|(_, v)| v))
            };
            let threshold = level(&names::SSL_THRESHOLD).or_else(|| view.number(&keys::SSL_THRESHOLD));
            if let (Some(score), Some(threshold)) = (level(&names::SSL_SCORE), threshold) {
                message +=
                    &format!("; scores average {} against a threshold of {}", show(score), show(threshold));
                finding = finding.evidence("score", score).evidence("threshold", threshold);
            }
            finding = finding.remedy(Remedy::check(
                &keys::SSL_THRESHOLD,
                "quantiles of the scores beside the threshold",
                "a threshold above every score admits nothing; one at a quantile keeps its share",
            ));
        }
        // With the metric falling since, the run as a whole is going down.
        let course = view.headline().ok().filter(|m| !m.is_loss()).and_then(|m| Some((m, Course::of(&m)?)));
        if let Some((metric, course)) = course
            && lived
            && course.lost() > 0.5 * course.gained()
            && course.tail >= 3
            && course.lost_beyond_noise(6.0)
            && course.lost_from() >= first
        {
            let up = |v| metric.goal.upward(v);
            let name = view.run().logged_name(metric.name);
            message +=
                &format!("; `{name}` fell from {} to {} since", show(up(course.best)), show(up(course.last)));
            finding = finding
                .severity(Severity::Critical)
                .evidence("best", up(course.best))
                .evidence("last", up(course.last));
        }
        finding.message = message;
        Ok(vec![finding])
    }
}

impl SelfTrainingDead {
    /// The measurements after the start at which something was offered and the term was switched on.
    fn offered(
        &self,
        view: &View<'_>,
        signal: &Signal,
        column: &Column,
        start: Option<f64>,
    ) -> Vec<(u64, f64)> {
        let candidates = view.column(&names::SSL_CANDIDATES);
        let term = signal.name.rsplit('/').next().unwrap_or_default();
        let term = if signal == &names::LOSS_SELF_TRAINING { term } else { "self_training" };
        let weight = view.run().trace.get(&names::WEIGHT_LOSS.group(term));
        let off = |column: Option<&Column>, step| {
            column.is_some_and(|c| c.at_or_before(step).is_none_or(|(_, v)| v.is_nan() || v <= 0.0))
        };
        column
            .iter()
            .filter(|(step, v)| v.is_finite() && start.is_none_or(|s| *step as f64 >= s))
            .filter(|(step, _)| !off(candidates, *step) && !off(weight, *step))
            .collect()
    }

    /// The step by which the discriminator was certain, if it is while nothing is admitted, and what says so.
    fn discriminator(&self, view: &View<'_>, first: u64) -> Option<(u64, &'static str, f64)> {
        let won = |course: Vec<(u64, f64)>, sure: &dyn Fn(f64) -> bool| {
            let level =
                median(course.iter().filter(|(s, _)| *s >= first).map(|(_, v)| *v)).filter(|v| sure(*v))?;
            let since = course.iter().rev().take_while(|(_, v)| sure(*v)).last().or(course.last())?;
            Some((since.0, level))
        };
        if let (Some(real), Some(fake)) = (view.column(&names::GAN_D_REAL), view.column(&names::GAN_D_FAKE)) {
            let gap =
                real.iter().filter_map(|(s, r)| Some((s, r - fake.at(s)?))).filter(|(_, v)| v.is_finite());
            if let Some((step, level)) = won(gap.collect(), &|v| v > self.disc_gap) {
                return Some((step, "D(real) - D(fake)", level));
            }
        }
        let loss = view.column(&names::GAN_LOSS_D)?.iter().filter(|(_, v)| v.is_finite());
        let (step, level) = won(loss.collect(), &|v| v.abs() < self.loss_d)?;
        Some((step, "loss", level))
    }
}

/// Whether zeros may be small numbers: the values before them are only a few units of the last logged digit.
fn rounded_away(before: &[(u64, f64)]) -> bool {
    let values: Vec<f64> = before.iter().map(|(_, v)| *v).filter(|v| *v > 0.0).collect();
    let unit = (0..=7).map(|digits| 10f64.powi(-digits)).find(|unit| {
        values.iter().all(|v| {
            let units = v / unit;
            (units - units.round()).abs() < 1e-6 * units.max(1.0)
        })
    });
    let level = median(values.iter().rev().take(3).copied());
    unit.zip(level).is_some_and(|(unit, level)| level < 10.0 * unit)
}
