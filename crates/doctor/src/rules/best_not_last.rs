use trimtab_signals::keys;

use crate::course::Course;
use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "best-not-last",
    summary: "the last score is far under the best",
    severity: Severity::Warning,
    docs: include_str!("best_not_last.md"),
};

pub(super) static RULE: BestNotLast = BestNotLast { warn: 0.1, inform: 0.05, noise: 4.0 };

pub(super) struct BestNotLast {
    /// Share of the gain lost for a warning.
    warn: f64,
    /// Share of the gain lost to be worth knowing.
    inform: f64,
    /// The loss over the noise of one evaluation.
    noise: f64,
}

impl Rule for BestNotLast {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let metric = view.headline()?;
        let course = Course::of(&metric)
            .ok_or_else(|| Missing::new(format!("five evaluations of {}", metric.name)))?;
        // For a loss the gain over its first value, which may be of any size, says little: its own size does.
        let gained = if metric.is_loss() { course.best.abs() } else { metric.at_stake(&course) };
        if gained <= 0.0
            || course.tail < 2
            || course.lost() <= self.noise * course.noise
            || course.lost() <= self.inform * gained
        {
            return Ok(Vec::new());
        }
        let up = |v| metric.goal.upward(v);
        let best_step = course.steps[course.best_at];
        let share = course.lost() / gained;
        let of = if metric.is_loss() { "worse" } else { "of what it had over no skill lost" };
        let message = format!(
            "`{}` ends at {}, after {} at step {best_step} ({:.0} % {of})",
            view.run().logged_name(metric.name),
            show(up(course.last)),
            show(up(course.best)),
            100.0 * share,
        );
        let expected = view.rate_restarts();
        let severity = if share > self.warn && !expected { Severity::Warning } else { Severity::Info };
        let finding = Finding::new(&META, message)
            .severity(severity)
            .at(course.end(), best_step, course.end())
            .evidence("best", up(course.best))
            .evidence("best_step", best_step as f64)
            .evidence("last", up(course.last))
            .evidence("noise", course.noise)
            .remedy(Remedy::set(&keys::RUN_STEPS, best_step, "use the checkpoint of the best evaluation"))
            .draw(metric.name);
        Ok(vec![finding])
    }
}
