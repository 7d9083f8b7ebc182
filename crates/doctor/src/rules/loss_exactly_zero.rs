use trimtab_signals::{keys, names};

use crate::finding::{Finding, Remedy, Severity};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::{median, resolution};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "loss-exactly-zero",
    summary: "the training loss is exactly 0 for long: there is nothing left to learn, or never was",
    severity: Severity::Warning,
    docs: include_str!("loss_exactly_zero.md"),
};

pub(super) static RULE: LossExactlyZero = LossExactlyZero { measurements: 10, share: 0.05 };

pub(super) struct LossExactlyZero {
    /// Zeros in a row to the end.
    measurements: usize,
    /// and their share of the run.
    share: f64,
}

impl Rule for LossExactlyZero {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let (name, column) = view.training_loss()?;
        let (steps, values) = (column.steps(), column.values());
        let zeros = values.iter().filter(|v| **v == 0.0).count();
        // Most of the measurements since the first zero, not all: a rare sample may still cost something.
        let Some(first) = values.iter().position(|v| *v == 0.0) else { return Ok(Vec::new()) };
        let since = values.len() - first;
        let enough = self.measurements.max((values.len() as f64 * self.share) as usize);
        if zeros < enough || zeros * 2 <= since {
            return Ok(Vec::new());
        }
        // Printed with few digits, a small loss reads 0; and where there is a gradient there is a loss.
        let smallest = values.iter().copied().filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
        let rounded = smallest <= 10.0 * resolution(values);
        let gradient = view.column(&names::GRAD_NORM).and_then(|c| median(c.values().iter().copied()));
        if rounded || gradient.is_some_and(|g| g > 0.0) || view.is_reinforcement() {
            return Ok(Vec::new());
        }
        let logged = view.run().logged_name(name);
        let everywhere = zeros == values.len();
        let message = if everywhere {
            format!("`{logged}` is exactly 0 from the start: it reaches no label")
        } else {
            format!(
                "`{logged}` is exactly 0 at {zeros} of {since} measurements since step {}: the labels can be read off the input, or are all alike",
                steps[first]
            )
        };
        let finding = Finding::new(&META, message)
            .at(steps[(first + enough - 1).min(steps.len() - 1)], steps[first], steps[steps.len() - 1])
            .evidence("zeros", zeros as f64)
            .evidence("measurements", values.len() as f64)
            .remedy(Remedy::check(
                &keys::DATA_SHARED_SAMPLES,
                "look whether the label is among the inputs, and hold data out",
                "a real task with noise leaves a loss",
            ))
            .remedy(Remedy::check(
                &keys::DATA_CLASS_COUNTS,
                "count the labels as they are loaded",
                "a single class gives exactly this",
            ))
            .draw(name);
        Ok(vec![finding])
    }
}
