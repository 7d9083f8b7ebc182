use trimtab_signals::keys;

use crate::course::Course;
use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "truncated-run",
    summary: "the run ended with an error, or its log ends before the run was to",
    severity: Severity::Warning,
    docs: include_str!("truncated_run.md"),
};

pub(super) static RULE: TruncatedRun = TruncatedRun { done: 0.95, text: 160 };

pub(super) struct TruncatedRun {
    /// Share of the plan from which on the rest may be steps that were not logged.
    done: f64,
    /// Characters of the error that are shown.
    text: usize,
}

impl Rule for TruncatedRun {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        if let Some(crash) = view.run().facts.text(keys::RUN_CRASH.name).filter(|t| !t.trim().is_empty()) {
            return Ok(vec![self.crashed(view, crash)]);
        }
        if view.flag(&keys::RUN_FINISHED) == Some(true) {
            return Ok(Vec::new());
        }
        let (unit, reached, planned) = reached(view).ok_or_else(|| {
            Missing::new(format!(
                "{}, or {} or {} (declared) with a log",
                keys::RUN_CRASH.name,
                keys::RUN_STEPS.name,
                keys::RUN_EPOCHS.name
            ))
        })?;
        if reached >= self.done * planned || stopped_early(view) {
            return Ok(Vec::new());
        }
        let (first, last) = (view.run().trace.steps().first().copied().unwrap_or(0), view.last_step());
        let message = format!(
            "the log ends at {unit} {} of {} without a final record: it was stopped, or is still going on",
            show(reached),
            show(planned)
        );
        let finding = Finding::new(&META, message)
            .severity(Severity::Info)
            .at(last, first, last)
            .evidence("reached", reached)
            .evidence("planned", planned);
        Ok(vec![finding])
    }
}

impl TruncatedRun {
    fn crashed(&self, view: &View<'_>, crash: &str) -> Finding {
        // The last line of a traceback is the error itself.
        let line = crash.lines().rev().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
        let line = line.trim_end_matches('.');
        let mut short: String = line.chars().take(self.text).collect();
        if short.len() < line.len() {
            short.push('…');
        }
        let lower = crash.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|w| lower.contains(w));
        let last = view.last_step();
        let at = if view.run().trace.last_step().is_some() {
            format!(" after step {last}")
        } else {
            String::new()
        };
        let mut severity = Severity::Warning;
        let mut finding = Finding::new(&META, String::new()).evidence_text("error", short.clone());
        let kind = if has(&["out of memory", "outofmemory", "cuda oom", "oom-kill", "oom_kill", "bad_alloc"])
        {
            let accumulation = view.number(&keys::OPTIM_ACCUMULATION).filter(|n| (1.0..1e6).contains(n));
            finding = finding
                .remedy(Remedy::scale(
                    &keys::OPTIM_BATCH_SIZE,
                    0.5,
                    "half the samples need about half the memory",
                ))
                .remedy(Remedy::set(
                    &keys::OPTIM_ACCUMULATION,
                    (accumulation.unwrap_or(1.0) * 2.0) as u64,
                    "keeps the samples an update sees, and with them the learning rate that fits",
                ));
            "ran out of memory"
        } else if has(&["keyboardinterrupt", "sigint"]) {
            severity = Severity::Info;
            "was stopped by hand"
        } else if has(&["time limit", "timelimit", "sigterm", "preempt"]) {
            finding = finding.remedy(Remedy::check(
                &keys::EVALUATE_INTERVAL,
                "save a checkpoint before the time is up, and resume from it",
                "the machine was taken away; nothing was wrong with the training",
            ));
            "was ended from outside"
        } else {
            finding = finding.remedy(Remedy::check(
                &keys::RUN_CRASH,
                "the traceback above this line",
                "what is logged before it is of a run that did not reach its end",
            ));
            "ended with an error"
        };
        // A message must be one line without a full stop; an error in quotes is both.
        finding.message = format!("the run {kind}{at}: `{short}`");
        if view.run().trace.last_step().is_some() {
            finding = finding.at(last, last, last);
        }
        finding.severity(severity)
    }
}

/// How far the log goes and how far it should, in epochs where those are known, else in steps.
fn reached(view: &View<'_>) -> Option<(&'static str, f64, f64)> {
    let plan = |key| view.number(key).filter(|n| n.is_finite() && *n >= 1.0);
    if let (Some(planned), Some((_, epoch))) = (plan(&keys::RUN_EPOCHS), view.run().trace.epochs().last()) {
        // An epoch counted from 0 that is logged is at its end when the next one is its number.
        return epoch.is_finite().then_some((
            "epoch",
            if epoch + 1.0 >= planned { planned } else { epoch },
            planned,
        ));
    }
    let last = view.run().trace.last_step()?;
    Some(("step", last as f64, plan(&keys::RUN_STEPS)?))
}

/// Whether early stopping explains the end: no better validation for as long as its patience.
fn stopped_early(view: &View<'_>) -> bool {
    let Some(patience) = view.number(&keys::RUN_PATIENCE_EPOCHS) else { return false };
    // Whatever early stopping looked at, some validation metric must have stood still for that long.
    view.metrics().iter().any(|metric| {
        let Some(course) = Course::of(metric) else { return false };
        let best = course.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let Some(at) = course.values.iter().position(|v| *v >= best) else { return false };
        let epochs = view.run().trace.epochs();
        let epoch = |step| epochs.at_or_before(step).map(|(_, epoch)| epoch);
        let since = match (course.steps.get(at).and_then(|s| epoch(*s)), epoch(course.end())) {
            (Some(best), Some(end)) => end - best,
            _ => (course.values.len() - 1 - at) as f64,
        };
        since + 1.0 >= patience
    })
}
