use trimtab_signals::names;

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::median;
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "prevalence-mismatch",
    summary: "positives are much more, or less, common in training than in validation",
    severity: Severity::Warning,
    docs: include_str!("prevalence_mismatch.md"),
};

pub(super) static RULE: PrevalenceMismatch = PrevalenceMismatch { times: 1.6, apart: 0.1, measurements: 5 };

pub(super) struct PrevalenceMismatch {
    /// One share over the other.
    times: f64,
    /// Their difference: of rare positives many times more may still be few.
    apart: f64,
    /// Batches, of which each has another share.
    measurements: usize,
}

impl Rule for PrevalenceMismatch {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let train = view.need(&names::TRAIN_PREVALENCE)?;
        let validation = view.need(&names::VAL_PREVALENCE)?;
        if train.len() < self.measurements {
            return Err(Missing::new(format!(
                "{} measurements of {}",
                self.measurements,
                names::TRAIN_PREVALENCE.name
            )));
        }
        let shares: Vec<f64> = train.values().iter().copied().filter(|v| v.is_finite()).collect();
        let (Some(ours), Some((validated, theirs)), Some((first, _)), Some((last, _))) =
            (median(shares.iter().copied()), validation.last(), train.first(), train.last())
        else {
            return Ok(Vec::new());
        };
        let (more, less) = (ours.max(theirs), ours.min(theirs));
        if !theirs.is_finite() || more - less < self.apart || more < self.times * less {
            return Ok(Vec::new());
        }
        // Nearly every batch on the same side: not the luck of small ones.
        let beyond = shares.iter().filter(|v| (**v > theirs) == (ours > theirs)).count();
        if (beyond as f64) < 0.75 * shares.len() as f64 {
            return Ok(Vec::new());
        }
        let message = format!(
            "{} of the training labels are positive and {} of those of validation: they do not mean the same, or the samples are not of one kind",
            show(ours),
            show(theirs)
        );
        // Known once both have been measured often enough, in whichever order they were.
        let told = train.steps()[self.measurements - 1].max(validation.steps()[0]);
        Ok(vec![
            Finding::new(&META, message)
                .at(told, first, last.max(validated))
                .evidence("training", ours)
                .evidence("validation", theirs)
                .remedy(Remedy::check(
                    &trimtab_signals::keys::DATA_PREVALENCE,
                    "the labels of both parts side by side, and how batches are drawn",
                    "ignored pixels taken as positive, empty masks or another coding look like this",
                ))
                .draw(names::TRAIN_PREVALENCE.name),
        ])
    }
}
