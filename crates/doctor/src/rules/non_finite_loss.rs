use trimtab_signals::{Column, keys, names};

use crate::finding::{Finding, Remedy, Severity};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "non-finite-loss",
    summary: "the loss became NaN or infinite and did not come back",
    severity: Severity::Critical,
    docs: include_str!("non_finite_loss.md"),
};

pub(super) static RULE: NonFiniteLoss = NonFiniteLoss;

pub(super) struct NonFiniteLoss;

impl Rule for NonFiniteLoss {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let mut losses: Vec<(&str, &Column)> = Vec::new();
        for signal in [&names::LOSS_TOTAL, &names::TRAIN_LOSS, &names::VAL_LOSS] {
            losses.extend(view.column(signal).map(|column| (signal.name, column)));
        }
        if losses.is_empty() {
            return Err(Missing::new("a loss"));
        }
        let mut findings = Vec::new();
        for (name, column) in losses {
            let (steps, values) = (column.steps(), column.values());
            let Some(first) = values.iter().position(|v| !v.is_finite()) else { continue };
            let finite = values.iter().filter(|v| v.is_finite()).count();
            let last_finite = values.iter().rposition(|v| v.is_finite());
            let bad = values.len() - finite;
            let lost = last_finite.is_none_or(|at| at + 1 < values.len());
            let first_bad = if lost { last_finite.map_or(0, |at| at + 1) } else { first };
            let logged = view.run().logged_name(name);
            let (severity, message) = if lost {
                let since = values.len() - first_bad;
                let message = format!(
                    "`{logged}` is {} from step {} to the end ({since} of {} measurements)",
                    values[first_bad],
                    steps[first_bad],
                    values.len(),
                );
                (Severity::Critical, message)
            } else {
                let message = format!(
                    "`{logged}` was not finite {bad} times, first at step {}, and came back",
                    steps[first]
                );
                (Severity::Info, message)
            };
            let finding = Finding::new(&META, message)
                .severity(severity)
                .at(steps[first_bad], steps[first_bad], steps[values.len() - 1])
                .evidence("non_finite", bad as f64)
                .evidence("measurements", values.len() as f64)
                .remedy(Remedy::scale(
                    &keys::OPTIM_LEARNING_RATE,
                    0.1,
                    "the step that broke it was too large",
                ))
                .remedy(Remedy::set(&keys::OPTIM_CLIP_NORM, 1.0, "bounds the step of a single bad batch"))
                .draw(name);
            findings.push(finding);
        }
        Ok(findings)
    }
}
