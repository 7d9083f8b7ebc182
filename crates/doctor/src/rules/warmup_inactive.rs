use trimtab_signals::{Column, keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::median;
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "warmup-inactive",
    summary: "a warm-up is declared, but the learning rate is not warmed up",
    severity: Severity::Warning,
    docs: include_str!("warmup_inactive.md"),
};

pub(super) static RULE: WarmupInactive = WarmupInactive { full: 0.97, measurements: 2 };

pub(super) struct WarmupInactive {
    /// Share of the full rate that no warm-up, of whatever shape, has in its first half.
    full: f64,
    /// Measurements within the first half of the warm-up that all show it.
    measurements: usize,
}

impl Rule for WarmupInactive {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let (warmup, declared) = warmup(view)?;
        if let Some(planned) = planned(view).filter(|planned| warmup >= *planned && *planned > 0.0) {
            let message = format!(
                "the warm-up of {declared} is as long as the whole run or longer ({} of {} steps): the \
                full rate comes at the end or never",
                show(warmup),
                show(planned),
            );
            let finding = Finding::new(&META, message)
                .evidence("warmup_steps", warmup)
                .evidence("planned_steps", planned)
                .remedy(Remedy::set(
                    &keys::SCHEDULE_WARMUP_STEPS,
                    (0.05 * planned).ceil(),
                    "a few percent of the run are enough for a warm-up",
                ));
            return Ok(vec![finding]);
        }
        let rates = view.need_groups(&names::OPTIM_LEARNING_RATE)?;
        if !in_updates(view, warmup) {
            return Err(Missing::new(
                "epochs of the log's steps, to tell whether a step is an update or an epoch",
            ));
        }
        let judged: Vec<Option<f64>> =
            rates.iter().filter_map(|(group, column)| self.inactive(view, group, column, warmup)).collect();
        if judged.is_empty() {
            return Err(Missing::new(format!(
                "{} within the first half of the warm-up",
                names::OPTIM_LEARNING_RATE.name
            )));
        }
        // Some warm up only one of their groups.
        let (Some(full), Some((group, column))) =
            (judged.iter().copied().collect::<Option<Vec<f64>>>(), rates.first())
        else {
            return Ok(Vec::new());
        };
        let name = if group.is_empty() {
            names::OPTIM_LEARNING_RATE.name.to_owned()
        } else {
            names::OPTIM_LEARNING_RATE.group(group)
        };
        let rate = full.first().copied().unwrap_or(f64::NAN);
        let first = column.first().map_or(0, |(step, _)| step);
        let logged = view.run().logged_name(&name);
        let message = format!(
            "a warm-up of {declared} is declared, but `{logged}` is at its full {} from the first \
            measurement on (step {first})",
            show(rate),
        );
        let finding = Finding::new(&META, message)
            .at(column.steps().get(self.measurements - 1).copied().unwrap_or(first), first, view.last_step())
            .evidence("warmup_steps", warmup)
            .evidence("learning_rate", rate)
            .remedy(Remedy::check(
                &keys::SCHEDULE_NAME,
                "whether the schedule that is built reads the warm-up, and is stepped once an update",
                "a declared warm-up that nothing reads leaves the first steps at the full rate",
            ))
            .draw(&name);
        Ok(vec![finding])
    }
}

impl WarmupInactive {
    /// The full rate where a group has it already within the first half of the warm-up, `Some(None)` where it
    /// has not; `None` where the log cannot tell.
    fn inactive(&self, view: &View<'_>, group: &str, column: &Column, warmup: f64) -> Option<Option<f64>> {
        // With accumulation, the warm-up may count batches where the log counts updates.
        let accumulation = view.number(&keys::OPTIM_ACCUMULATION).filter(|n| *n >= 1.0).unwrap_or(1.0);
        // A row may be written at the end of its interval: an interval more has passed.
        let interval = median(column.steps().windows(2).map(|w| w[1].saturating_sub(w[0]) as f64))?;
        let inside: Vec<f64> = column
            .iter()
            .take_while(|(step, _)| *step as f64 + interval <= 0.5 * warmup / accumulation)
            .map(|(_, v)| v)
            .collect();
        let (_, highest) = column.highest().filter(|(_, v)| v.is_finite() && *v > 0.0)?;
        if inside.len() < self.measurements || inside.iter().any(|v| !v.is_finite()) {
            return None;
        }
        // What is full, a log tells that goes beyond the warm-up; a shorter one needs the declaration.
        let declared = view.numbers_by_group(&keys::OPTIM_LEARNING_RATE);
        let declared = declared.iter().find(|(g, _)| *g == group).map(|(_, v)| *v).filter(|v| *v > 0.0);
        let beyond = view.last_step() as f64 > warmup;
        let full = if beyond { highest } else { highest.max(declared?) };
        let first = *inside.first()?;
        // Decay may have begun by the second: what counts is that it does not rise.
        let active = first < self.full * full || inside.iter().any(|v| *v > first * 1.001);
        Some((!active).then_some(full))
    }
}

/// The warm-up in steps, and as it was declared.
fn warmup(view: &View<'_>) -> Result<(f64, String), Missing> {
    let positive = |v: &f64| *v > 0.0 && v.is_finite();
    if let Some(steps) = view.number(&keys::SCHEDULE_WARMUP_STEPS).filter(positive) {
        return Ok((steps, format!("{} steps", show(steps))));
    }
    let epochs = view.number(&keys::SCHEDULE_WARMUP_EPOCHS).filter(positive);
    let epochs = epochs.ok_or_else(|| {
        let [steps, epochs] = [&keys::SCHEDULE_WARMUP_STEPS, &keys::SCHEDULE_WARMUP_EPOCHS].map(|k| k.name);
        Missing::new(format!("{steps} or {epochs} (declared)"))
    })?;
    let per_epoch = view.steps_per_epoch().filter(positive);
    let per_epoch = match (per_epoch, view.number(&keys::RUN_STEPS), view.number(&keys::RUN_EPOCHS)) {
        (Some(steps), ..) => steps,
        (None, Some(steps), Some(all)) if steps > 0.0 && all > 0.0 => steps / all,
        // Both lengths in epochs can still be compared.
        (None, None, Some(_)) => 1.0,
        _ => {
            return Err(Missing::new(format!(
                "{} (declared), or epochs in the log",
                keys::RUN_STEPS_PER_EPOCH.name
            )));
        }
    };
    Ok((epochs * per_epoch, format!("{} epochs", show(epochs))))
}

fn planned(view: &View<'_>) -> Option<f64> {
    let in_epochs = view.number(&keys::SCHEDULE_WARMUP_STEPS).is_none();
    match view.steps_per_epoch() {
        // As in the warm-up above.
        None if in_epochs => view.number(&keys::RUN_STEPS).or_else(|| view.number(&keys::RUN_EPOCHS)),
        // A log by epoch does not say how many updates the planned epochs are.
        Some(steps) if !in_epochs && steps < 1.5 => view.number(&keys::RUN_STEPS),
        _ => view.planned_steps(),
    }
}

/// Whether the log's steps are what the warm-up is counted in, and not epochs.
fn in_updates(view: &View<'_>, warmup: f64) -> bool {
    let epochs = view.run().trace.epochs();
    let per_epoch = match (epochs.first(), epochs.last()) {
        (Some((first, from)), Some((last, to))) if to > from => {
            last.saturating_sub(first) as f64 / (to - from)
        }
        _ => 0.0,
    };
    let declared_in_epochs = view.number(&keys::SCHEDULE_WARMUP_STEPS).is_none();
    // In an epoch's log a warm-up by epochs is as good, as long as its length was counted by the log's own
    // epochs.
    let same = declared_in_epochs && view.number(&keys::RUN_STEPS_PER_EPOCH).is_none() && per_epoch > 0.0;
    same || per_epoch > 1.5 || view.last_step() as f64 > warmup
}
