use trimtab_signals::{Column, keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::tail;
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "schedule-horizon-mismatch",
    summary: "a schedule ends long before or after the run, or a stage starts after its end",
    severity: Severity::Warning,
    docs: include_str!("schedule_horizon_mismatch.md"),
};

pub(super) static RULE: ScheduleHorizonMismatch =
    ScheduleHorizonMismatch { early: 0.8, late: 1.5, low: 1e-3, nothing: 1e-6, wasted: 0.2, measurements: 5 };

pub(super) struct ScheduleHorizonMismatch {
    /// A horizon below this share of the run leaves a fifth of it without a schedule.
    early: f64,
    /// Over this share the linear decay ends at a third of the highest rate.
    late: f64,
    /// Share of the highest rate that is low.
    low: f64,
    /// And under which training stands still; step decays do not go there.
    nothing: f64,
    /// Share of the run at such a rate.
    wasted: f64,
    /// Fewer at the end are chance.
    measurements: usize,
}

impl Rule for ScheduleHorizonMismatch {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        // These start over, by design.
        let cyclic = view.rate_restarts();
        let horizons = horizons(view);
        let rates = view.groups(&names::OPTIM_LEARNING_RATE);
        let starts = starts(view);
        if horizons.is_empty() && rates.is_empty() && starts.is_empty() {
            return Err(Missing(vec![
                format!("{} and {} (declared)", keys::SCHEDULE_HORIZON_STEPS.name, keys::RUN_STEPS.name),
                format!("or {}", names::OPTIM_LEARNING_RATE.name),
            ]));
        }
        let mut findings = Vec::new();
        if !cyclic {
            let declared = horizons.iter().find_map(|horizon| self.declared(horizon, &rates));
            findings.extend(declared.or_else(|| self.logged(view, &rates)));
        }
        findings.extend(starts.iter().find_map(|start| start.finding()));
        Ok(findings)
    }
}

/// A declared horizon beside the planned length, in the same unit.
struct Horizon<'a> {
    schedule: &'a str,
    end: f64,
    run: f64,
    unit: &'static str,
}

fn horizons<'a>(view: &View<'a>) -> Vec<Horizon<'a>> {
    let positive = |v: &f64| *v > 0.0 && v.is_finite();
    let planned = view.planned_steps().filter(positive);
    // A run that has gone on longer than planned, or has no plan, is as long as its log.
    let steps = planned.map_or(view.last_step() as f64, |planned| planned.max(view.last_step() as f64));
    let epochs = view.number(&keys::RUN_EPOCHS).filter(positive);
    let in_steps =
        view.numbers_by_group(&keys::SCHEDULE_HORIZON_STEPS).into_iter().filter_map(|(schedule, end)| {
            // Updates or batches: where accumulation explains the difference, nothing is said unless steps
            // were declared.
            let accumulation = view.number(&keys::OPTIM_ACCUMULATION).filter(|n| *n >= 1.0).unwrap_or(1.0);
            let unsure =
                view.number(&keys::RUN_STEPS).is_none() && (0.8..1.5).contains(&(end * accumulation / steps));
            (!unsure).then_some(Horizon { schedule, end, run: steps, unit: "steps" })
        });
    let in_epochs =
        view.numbers_by_group(&keys::SCHEDULE_HORIZON_EPOCHS).into_iter().filter_map(|(schedule, end)| {
            let run = match epochs {
                Some(epochs) => epochs,
                None => steps / view.steps_per_epoch().filter(positive)?,
            };
            Some(Horizon { schedule, end, run, unit: "epochs" })
        });
    let planned = planned.is_some() || epochs.is_some();
    // Without a plan, a run that is still short of the horizon may well get there.
    in_steps.chain(in_epochs).filter(|h| h.end > 0.0 && h.run > 0.0 && (planned || h.end < h.run)).collect()
}

impl ScheduleHorizonMismatch {
    fn declared(&self, horizon: &Horizon<'_>, rates: &[(&str, &Column)]) -> Option<Finding> {
        let share = horizon.end / horizon.run;
        let early = share < self.early;
        if !(early || share > self.late) {
            return None;
        }
        let of_rate = horizon.schedule.is_empty()
            || ["lr", "rate", "optim", "poly", "cosine"].iter().any(|word| horizon.schedule.contains(word));
        // A rate that keeps a part of itself behind its horizon was given a floor.
        let keeps = early
            && horizon.unit == "steps"
            && rates.iter().any(|(_, column)| {
                let high = column.highest().map_or(0.0, |(_, v)| v);
                column.last().is_some_and(|(step, v)| step as f64 > horizon.end && v > 0.05 * high)
            });
        // Ramps of weights and thresholds often end early on purpose.
        let severity = if of_rate && !keeps { Severity::Warning } else { Severity::Info };
        let key = if horizon.unit == "steps" {
            &keys::SCHEDULE_HORIZON_STEPS
        } else {
            &keys::SCHEDULE_HORIZON_EPOCHS
        };
        let what = if horizon.schedule.is_empty() { "the schedule" } else { horizon.schedule };
        let message = format!(
            "{what} ends after {} of {} {}: {}",
            show(horizon.end),
            show(horizon.run),
            horizon.unit,
            if early {
                "what comes after it has no schedule"
            } else {
                "the run ends long before it gets low"
            },
        );
        let mut remedy = Remedy::set(key, horizon.run, "a schedule is made for the length of its run");
        if !horizon.schedule.is_empty() {
            remedy = remedy.of_group(horizon.schedule);
        }
        let finding = Finding::new(&META, message)
            .severity(severity)
            .evidence("horizon", horizon.end)
            .evidence("run", horizon.run)
            .evidence("share", share)
            .remedy(remedy);
        Some(match rates.first().and_then(|(_, column)| column.first().zip(column.last())) {
            Some(((first, _), (last, _))) => finding.at(first, first, last),
            None => finding,
        })
    }

    /// A rate that is down to nothing long before the log ends.
    fn logged(&self, view: &View<'_>, rates: &[(&str, &Column)]) -> Option<Finding> {
        let ends: Vec<(u64, f64, bool)> =
            rates.iter().map(|(_, column)| self.low_from(column)).collect::<Option<_>>()?;
        // The group that lasts longest; a frozen one has no say, since it has no highest rate above zero.
        let &(since, share, stepped) = ends.iter().max_by_key(|(since, ..)| *since)?;
        let (group, column) = rates.first()?;
        let (first, last) = (column.first()?.0, column.last()?.0);
        let wasted = last.saturating_sub(since) as f64 / last.saturating_sub(first) as f64;
        if wasted.is_nan() || wasted < self.wasted {
            return None;
        }
        let name = if group.is_empty() {
            names::OPTIM_LEARNING_RATE.name.to_owned()
        } else {
            names::OPTIM_LEARNING_RATE.group(group)
        };
        let severity = if stepped || share > self.nothing { Severity::Info } else { Severity::Warning };
        let logged = view.run().logged_name(&name);
        let message = format!(
            "`{logged}` is at {} of its highest value from step {since} to {last}: the last {:.0} % of \
            the run train with next to no rate",
            show(share),
            100.0 * wasted,
        );
        let told = since.saturating_add((self.wasted * last.saturating_sub(first) as f64) as u64).min(last);
        let finding = Finding::new(&META, message)
            .severity(severity)
            .at(told, since, last)
            .evidence("share_of_highest", share)
            .evidence("share_of_run", wasted)
            .remedy(Remedy::set(
                &keys::SCHEDULE_HORIZON_STEPS,
                last,
                "a schedule is made for the length of its run",
            ))
            .draw(&name);
        Some(finding)
    }

    /// From which step on a rate stays low, its share of the highest one then, and whether it came down in
    /// steps.
    fn low_from(&self, column: &Column) -> Option<(u64, f64, bool)> {
        let values = column.values();
        let (_, high) = column.highest().filter(|(_, v)| *v > 0.0 && v.is_finite())?;
        let start = tail(values, |v| v < self.low * high);
        let rest = values.get(start..).filter(|rest| rest.len() >= self.measurements)?;
        // Printed with few digits, a low rate reads as zero long before it is.
        let digit = (0..=12).map(|digits| 10f64.powi(-digits)).find(|digit| {
            values.iter().all(|v| {
                let count = v / digit;
                (count - count.round()).abs() <= 1e-6
            })
        });
        // What is below a hundredth for a fifth of the run is low all the same.
        if digit.is_some_and(|digit| digit > 0.02 * high) {
            return None;
        }
        let lowest = rest.iter().copied().fold(f64::INFINITY, f64::min);
        let falls: Vec<bool> = values[..=start].windows(2).map(|w| w[1] < w[0]).collect();
        // On a plateau or by milestones: most of the way down it stands still.
        let stepped = falls.iter().filter(|fall| **fall).count() * 2 < falls.len();
        Some((*column.steps().get(start)?, lowest / high, stepped))
    }
}

/// A stage with the step or epoch at which it starts, and the length of the run in the same unit.
struct Start {
    key: &'static trimtab_signals::Key,
    what: &'static str,
    start: f64,
    run: f64,
    severity: Severity,
}

fn starts(view: &View<'_>) -> Vec<Start> {
    let planned = view.planned_steps().map(|planned| planned.max(view.last_step() as f64));
    let epochs = view.number(&keys::RUN_EPOCHS);
    let all = [
        (&keys::SSL_START_STEP, "self-training starts", planned, Severity::Warning),
        (&keys::MODEL_UNFREEZE_STEP, "the backbone is unfrozen", planned, Severity::Warning),
        // To train the head alone is a method.
        (&keys::MODEL_FREEZE_EPOCHS, "the backbone is unfrozen", epochs, Severity::Info),
    ];
    all.into_iter()
        .filter_map(|(key, what, run, severity)| {
            let (start, run) = (view.number(key)?, run.filter(|run| *run > 0.0)?);
            Some(Start { key, what, start, run, severity })
        })
        .collect()
}

impl Start {
    fn finding(&self) -> Option<Finding> {
        if self.start < self.run {
            return None;
        }
        let message = format!(
            "{} at {}, but the run ends at {}: it never happens ({})",
            self.what,
            show(self.start),
            show(self.run),
            self.key.name,
        );
        let finding = Finding::new(&META, message).severity(self.severity);
        let finding = finding.evidence("start", self.start).evidence("run", self.run);
        Some(finding.remedy(Remedy::set(
            self.key,
            (0.5 * self.run).floor(),
            "a stage has to start while the run lasts",
        )))
    }
}
