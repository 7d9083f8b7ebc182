use trimtab_signals::keys;

use crate::course::Course;
use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::{median, smooth};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "plateau",
    summary: "the score learned a little and has stood still since",
    severity: Severity::Warning,
    docs: include_str!("plateau.md"),
};

pub(super) static RULE: Plateau =
    Plateau { share: 0.6, missing: 0.25, evaluations: 8, noise: 2.0, good: 0.75 };

pub(super) struct Plateau {
    /// Share of the run without progress.
    share: f64,
    /// Share of what was missing at the first evaluation that was learned at all: a run that learned more has converged.
    missing: f64,
    /// Fewer evaluations show no plateau.
    evaluations: usize,
    /// Progress over the noise of one evaluation.
    noise: f64,
    /// A first evaluation this far from no skill to perfect is of a good model.
    good: f64,
}

impl Rule for Plateau {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let metric = view.headline()?;
        let Some((_, perfect)) = metric.range() else {
            return Err(Missing::new("a validation score with a known perfect value"));
        };
        let course = Course::of(&metric).filter(|c| c.values.len() >= self.evaluations);
        let course = course
            .ok_or_else(|| Missing::new(format!("{} evaluations of {}", self.evaluations, metric.name)))?;
        let missing = metric.goal.upward(perfect) - course.first;
        if missing <= 0.0
            || course.best - course.first > self.missing * missing
            || course.lost() > 4.0 * course.noise.max(0.02 * missing)
        {
            return Ok(Vec::new());
        }
        // The part of the run before the plateau holds a level that the rest exceeds by no more than noise.
        let level = smooth(&course.values, 3);
        let split = ((1.0 - self.share) * level.len() as f64).ceil() as usize;
        let before = level[..split].iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let rest = &course.values[split..];
        let risen = median(rest[rest.len() * 2 / 3..].iter().copied()).unwrap_or(before) - before;
        let allowed = (self.noise * course.noise).max(0.01 * missing);
        if risen > allowed || course.trend_of_last(rest.len()) > 0.6 {
            return Ok(Vec::new());
        }
        // What was good from the start had little to learn, and what has only begun may still take off.
        let floor = metric.no_skill().map_or(course.first, |v| metric.goal.upward(v));
        let good = course.first - floor > self.good * (course.first - floor + missing);
        let severity = if good || view.starting() { Severity::Info } else { META.severity };
        let up = |v| metric.goal.upward(v);
        let from = course.steps[split];
        let message = format!(
            "`{}` has stood at {} since step {from}, {:.0} % of the run, having learned {:.0} % of what was missing at its first evaluation",
            view.run().logged_name(metric.name),
            show(up(course.last)),
            100.0 * self.share,
            100.0 * ((course.best - course.first) / missing).max(0.0),
        );
        let finding = Finding::new(&META, message)
            .severity(severity)
            .at(course.end(), from, course.end())
            .evidence("level", up(course.last))
            .evidence("first", up(course.first))
            .evidence("perfect", perfect)
            .evidence("noise", course.noise)
            .remedy(Remedy::scale(
                &keys::OPTIM_LEARNING_RATE,
                0.1,
                "a rate that is too high to settle stops progress; a sweep tells",
            ))
            .remedy(Remedy::check(
                &keys::MODEL_PARAMETERS,
                "overfit one batch",
                "tells too small a network or unlearnable labels from a bad rate",
            ))
            .draw(metric.name);
        Ok(vec![finding])
    }
}
