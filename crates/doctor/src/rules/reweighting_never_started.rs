use trimtab_signals::{Column, keys, names};

use crate::course::Course;
use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "reweighting-never-started",
    summary: "deferred re-weighting is declared, but the run does not get there or the weights do not change",
    severity: Severity::Warning,
    docs: include_str!("reweighting_never_started.md"),
};

pub(super) static RULE: ReweightingNeverStarted = ReweightingNeverStarted { measurements: 3 };

pub(super) struct ReweightingNeverStarted {
    /// Logged weights on either side of the start.
    measurements: usize,
}

impl Rule for ReweightingNeverStarted {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let Some(start) = Start::of(view) else {
            let [epoch, step] = [keys::LOSS_REWEIGHT_EPOCH, keys::LOSS_REWEIGHT_STEP].map(|k| k.name);
            return Err(Missing::new(format!("{epoch} or {step} (declared)")));
        };
        let (unit, at) = (start.unit, show(start.at));
        let last = view.last_step();
        let finding = |message: String| {
            let finding = Finding::new(&META, message).evidence("start", start.at);
            if view.run().trace.last_step().is_some() { finding.at(last, last, last) } else { finding }
        };
        let earlier = |end: f64| {
            Remedy::set(
                start.key,
                (end * 0.4).floor(),
                "early enough for a rate that still moves weights, late enough for features",
            )
        };
        // By the plan alone: told before a single step is taken.
        if let Some(planned) = start.planned(view)
            && start.at >= planned
        {
            let message = format!(
                "re-weighting is to start at {unit} {at}, but the run ends at {unit} {}: it never starts",
                show(planned)
            );
            return Ok(vec![finding(message).evidence("planned", planned).remedy(earlier(planned))]);
        }
        // By the end that the run came to.
        if let Some(reached) = start.reached(view).filter(|reached| start.at > *reached) {
            let early = patience_ran_out(view);
            if view.flag(&keys::RUN_FINISHED) == Some(true) || early {
                let why = if early { "early stopping ended the run" } else { "the run ended" };
                let message =
                    format!("{why} at {unit} {}, before re-weighting started at {unit} {at}", show(reached));
                let mut finding = finding(message).evidence("reached", reached).remedy(earlier(reached));
                if early {
                    finding = finding.remedy(Remedy::scale(
                        &keys::RUN_PATIENCE_EPOCHS,
                        2.0,
                        "patience must outlast the time without progress before re-weighting",
                    ));
                }
                return Ok(vec![finding]);
            }
            return Ok(Vec::new());
        }
        // By the weights of classes, where they are logged: passed, and nothing changed.
        let Some(step) = start.step(view) else { return Ok(Vec::new()) };
        let classes: Vec<(&str, &Column)> =
            view.groups(&names::WEIGHT_LOSS).into_iter().filter(|(group, _)| is_class(group)).collect();
        let still = |column: &Column| {
            let before = column.steps().iter().filter(|s| **s < step).count();
            let same =
                column.first().is_some_and(|(_, f)| f.is_finite() && column.values().iter().all(|v| *v == f));
            same && before >= self.measurements && column.len() - before > self.measurements
        };
        if classes.len() >= 2 && classes.iter().all(|(_, column)| still(column)) {
            let message = format!(
                "re-weighting was to start at {unit} {at}, \
                 but the logged weights of all {} classes never change",
                classes.len()
            );
            let first = classes[0].1;
            let finding = Finding::new(&META, message)
                .at(last, step, last)
                .evidence("start", start.at)
                .evidence("classes", classes.len() as f64)
                .evidence("weight", first.last().map_or(f64::NAN, |(_, w)| w))
                .remedy(Remedy::check(
                    start.key,
                    "whether the loss is told the epoch, and builds its weights anew",
                    "a loss that is made once keeps the weights it was made with",
                ));
            return Ok(vec![finding]);
        }
        Ok(Vec::new())
    }
}

/// When re-weighting is declared to start.
pub(super) struct Start {
    /// The key that says so.
    pub(super) key: &'static trimtab_signals::Key,
    /// `epoch` or `step`.
    pub(super) unit: &'static str,
    /// Which.
    pub(super) at: f64,
}

impl Start {
    /// As declared; `None` where it is not, or is no point of a run.
    pub(super) fn of(view: &View<'_>) -> Option<Self> {
        let by = |key, unit| {
            let at = view.number(key).filter(|at| at.is_finite() && *at > 0.0)?;
            Some(Self { key, unit, at })
        };
        by(&keys::LOSS_REWEIGHT_EPOCH, "epoch").or_else(|| by(&keys::LOSS_REWEIGHT_STEP, "step"))
    }

    /// The step of the trace at which it starts, if the trace gets there.
    pub(super) fn step(&self, view: &View<'_>) -> Option<u64> {
        if self.unit == "step" {
            return view
                .run()
                .trace
                .last_step()
                .filter(|last| self.at <= *last as f64)
                .map(|_| self.at as u64);
        }
        view.run().trace.epochs().iter().find(|(_, epoch)| *epoch >= self.at).map(|(step, _)| step)
    }

    /// The planned end, in the unit of the start.
    fn planned(&self, view: &View<'_>) -> Option<f64> {
        let planned = |key| view.number(key).filter(|n| n.is_finite() && *n >= 1.0);
        if self.unit == "epoch" { planned(&keys::RUN_EPOCHS) } else { planned(&keys::RUN_STEPS) }
    }

    /// How far the trace goes, in the unit of the start.
    fn reached(&self, view: &View<'_>) -> Option<f64> {
        if self.unit == "epoch" {
            return view.run().trace.epochs().last().map(|(_, epoch)| epoch).filter(|e| e.is_finite());
        }
        view.run().trace.last_step().map(|step| step as f64)
    }
}

/// Whether a group of loss weights is a class, as `class_3` is: bare numbers may be side outputs.
pub(super) fn is_class(group: &str) -> bool {
    group.to_ascii_lowercase().starts_with("class")
}

/// Whether the deciding metric stood still for as many epochs as early stopping has patience.
fn patience_ran_out(view: &View<'_>) -> bool {
    let Some(patience) = view.number(&keys::RUN_PATIENCE_EPOCHS).filter(|p| *p >= 1.0) else { return false };
    let Some(course) = view.headline().ok().and_then(|m| Course::of(&m)) else { return false };
    let best = course.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let at = course.values.iter().position(|v| *v >= best).and_then(|at| course.steps.get(at));
    let epochs = view.run().trace.epochs();
    let epoch = |step: u64| epochs.at_or_before(step).map(|(_, epoch)| epoch);
    match (at.and_then(|step| epoch(*step)), epoch(course.end())) {
        (Some(best), Some(end)) => end - best >= patience,
        _ => false,
    }
}
