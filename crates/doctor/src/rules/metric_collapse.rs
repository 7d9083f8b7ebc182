use trimtab_signals::keys;

use crate::course::Course;
use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "metric-collapse",
    summary: "most of what a score had gained is lost again",
    severity: Severity::Critical,
    docs: include_str!("metric_collapse.md"),
};

pub(super) static RULE: MetricCollapse = MetricCollapse { share: 0.5, noise: 6.0, evaluations: 3 };

pub(super) struct MetricCollapse {
    /// Share of the gain that is lost: under a half the model still is more trained than untrained.
    share: f64,
    /// The loss over the deviation of one evaluation.
    noise: f64,
    /// Evaluations that show it: fewer are a dip.
    evaluations: usize,
}

impl Rule for MetricCollapse {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let metric = view.headline()?;
        if metric.is_loss() {
            return Err(Missing::new("a validation score (a loss has no level of no skill)"));
        }
        let course = Course::of(&metric)
            .ok_or_else(|| Missing::new(format!("five evaluations of {}", metric.name)))?;
        let gained = metric.at_stake(&course);
        let lost = course.lost();
        if gained <= 0.0
            || lost <= self.share * gained
            || lost <= self.noise * course.noise
            || course.tail < self.evaluations
        {
            return Ok(Vec::new());
        }
        let (logged, up) = (view.run().logged_name(metric.name), |v| metric.goal.upward(v));
        let (best, last, start) = (up(course.best), up(course.last), up(course.best - gained));
        let message = format!(
            "`{logged}` fell from {} to {} and stays there: {:.0} % of what it had gained over {} is lost",
            show(best),
            show(last),
            100.0 * (lost / gained).min(1.0),
            show(start),
        );
        let finding = Finding::new(&META, message)
            .at(
                course.steps[course.steps.len() - course.tail + self.evaluations - 1],
                course.lost_from(),
                course.end(),
            )
            .evidence("best", best)
            .evidence("best_step", course.steps[course.best_at] as f64)
            .evidence("last", last)
            .evidence("noise", course.noise)
            .remedy(Remedy::scale(
                &keys::OPTIM_LEARNING_RATE,
                0.1,
                "go back to the best checkpoint with a smaller rate",
            ))
            .remedy(Remedy::set(&keys::OPTIM_CLIP_NORM, 1.0, "bounds the step that threw it off"))
            .draw(metric.name);
        Ok(vec![finding])
    }
}
