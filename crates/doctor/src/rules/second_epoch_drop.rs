use trimtab_signals::{Goal, keys};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::median;
use crate::view::{Metric, View};

static META: RuleMeta = RuleMeta {
    id: "second-epoch-drop",
    summary: "the score fell by half after the first evaluation and did not come back",
    severity: Severity::Warning,
    docs: include_str!("second_epoch_drop.md"),
};

pub(super) static RULE: SecondEpochDrop = SecondEpochDrop { drop: 0.5, above: 1.25, evaluations: 4 };

pub(super) struct SecondEpochDrop {
    /// The second evaluation over the first.
    drop: f64,
    /// A score that later exceeds the first by this factor has come back.
    above: f64,
    /// Fewer evaluations do not say that it stays down.
    evaluations: usize,
}

impl Rule for SecondEpochDrop {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let score = |m: &&Metric<'_>| !m.is_loss() && m.goal == Goal::Higher;
        let metric = view
            .metrics()
            .iter()
            .find(score)
            .copied()
            .ok_or_else(|| Missing::new("a validation score where higher is better"))?;
        let finite: Vec<(u64, f64)> = metric.column.iter().filter(|(_, v)| v.is_finite()).collect();
        if finite.len() < self.evaluations {
            return Err(Missing::new(format!("{} evaluations of {}", self.evaluations, metric.name)));
        }
        let (first, second) = (finite[0], finite[1]);
        let floor = metric.range().map_or(0.0, |(worst, _)| worst);
        let of = |v: f64| v - floor;
        // What is near no skill already has nothing to lose.
        let something = metric.range().is_none_or(|(worst, perfect)| of(first.1) > 0.02 * (perfect - worst));
        let best_after = finite[1..].iter().map(|(_, v)| *v).fold(f64::NEG_INFINITY, f64::max);
        let level = median(finite[1..].iter().map(|(_, v)| *v)).unwrap_or(f64::NAN);
        let down = of(second.1) < self.drop * of(first.1)
            && of(level) < of(first.1) * self.above
            && of(best_after) < of(first.1) * self.above;
        if !(something && of(first.1) > 0.0 && down) {
            return Ok(Vec::new());
        }
        let end = finite[finite.len() - 1];
        let message = format!(
            "`{}` fell from {} at its first evaluation to {} at the second and has not come back: its best since is {}, after {} evaluations",
            view.run().logged_name(metric.name),
            show(first.1),
            show(second.1),
            show(best_after),
            finite.len(),
        );
        let lost = of(end.1) < self.drop * of(first.1);
        let finding = Finding::new(&META, message)
            .severity(if lost { Severity::Critical } else { Severity::Warning })
            .at(finite[self.evaluations - 1].0, second.0, end.0)
            .evidence("first", first.1)
            .evidence("second", second.1)
            .evidence("best_since", best_after)
            .evidence("last", end.1)
            .remedy(Remedy::check(
                &keys::EMA_DECAY,
                "validate the live weights beside the averaged ones",
                "an average of mostly initial weights gets worse before it gets better",
            ))
            .remedy(Remedy::check(
                &keys::OPTIM_LEARNING_RATE,
                "compare the rate per effective batch with a run that worked",
                "steps that are too large or too small both look like this",
            ))
            .draw(metric.name);
        Ok(vec![finding])
    }
}
