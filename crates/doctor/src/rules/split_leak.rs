use trimtab_signals::{Column, keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "split-leak",
    summary: "validation shares its samples with training or with the test set",
    severity: Severity::Warning,
    docs: include_str!("split_leak.md"),
};

pub(super) static RULE: SplitLeak = SplitLeak { values: 5, half: 0.5 };

pub(super) struct SplitLeak {
    /// Different values that all agree to the last digit: rounded scores agree at times, perfect ones always.
    values: usize,
    /// Share of the validation set from which on it measures memory rather than skill.
    half: f64,
}

impl Rule for SplitLeak {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let shared = view.number(&keys::DATA_SHARED_SAMPLES);
        let mut pairs = Vec::new();
        for (name, column) in view.run().trace.iter() {
            for (other, kind) in counterparts(name) {
                pairs.extend(view.run().trace.get(&other).map(|beside| (name, column, other, beside, kind)));
            }
        }
        if shared.is_none() && pairs.is_empty() {
            return Err(Missing::new(format!(
                "the same metric of two splits, or {} (declared)",
                keys::DATA_SHARED_SAMPLES.name
            )));
        }
        let mut findings: Vec<Finding> = shared.and_then(|n| self.declared(view, n)).into_iter().collect();
        // One finding for each pair of splits, with the pair of columns that agrees most often.
        for kind in [Split::Training, Split::Test] {
            let agreeing = pairs
                .iter()
                .filter(|pair| pair.4 == kind)
                .filter_map(|pair| Some((self.agree(pair.1, pair.3)?, pair)))
                .max_by_key(|(steps, _)| steps.len());
            let Some((steps, (name, _, other, ..))) = agreeing else { continue };
            let (Some(first), Some(last)) = (steps.first(), steps.last()) else { continue };
            let (rest, severity) = match kind {
                Split::Training => ("validation does not tell what was learned by heart", Severity::Critical),
                Split::Test => ("what was chosen by validation was chosen by the test", Severity::Warning),
            };
            let message = format!(
                "`{}` and `{}` are the same to the last digit at all {} evaluations: {rest}",
                view.run().logged_name(name),
                view.run().logged_name(other),
                steps.len()
            );
            let finding = Finding::new(&META, message)
                .severity(severity)
                .at(steps.get(self.values - 1).copied().unwrap_or(*last), *first, *last)
                .evidence("equal_evaluations", steps.len() as f64)
                .remedy(Remedy::check(
                    &keys::DATA_VAL_SAMPLES,
                    "which files each split reads, and whether one number is logged under two names",
                    "two sets of samples never score alike to the last digit",
                ))
                .draw(name);
            findings.push(finding);
        }
        Ok(findings)
    }
}

impl SplitLeak {
    fn declared(&self, view: &View<'_>, shared: f64) -> Option<Finding> {
        if !(shared.is_finite() && shared > 0.0) {
            return None;
        }
        let of = view.number(&keys::DATA_VAL_SAMPLES).filter(|n| *n >= 1.0);
        let share = of.map(|of| shared / of).filter(|s| *s <= 1.0);
        // Unlabelled samples leak their looks, not their labels.
        let signals = [
            &names::TRAIN_UNLABELLED,
            &names::SSL_CANDIDATES,
            &names::SSL_THRESHOLD,
            &names::LOSS_CONSISTENCY,
        ];
        let unlabelled = signals.into_iter().any(|s| view.column(s).is_some());
        let part = share.map_or_else(String::new, |s| format!(", {:.0} % of the validation set", 100.0 * s));
        let message = format!(
            "{} samples are both in training and in validation{part}: validation promises too much",
            show(shared)
        );
        let severe = share.is_some_and(|s| s >= self.half) && !unlabelled;
        let mut finding = Finding::new(&META, message)
            .severity(if severe { Severity::Critical } else { Severity::Warning })
            .evidence("shared_samples", shared);
        if let Some(of) = of {
            finding = finding.evidence("val_samples", of);
        }
        Some(finding.remedy(Remedy::check(
            &keys::DATA_SHARED_SAMPLES,
            "take them out of training, unlabelled ones too, and split by patient or scene",
            "near copies leak as well as copies",
        )))
    }

    /// The steps at which two columns agree, if they agree wherever both were measured, and often enough.
    fn agree(&self, a: &Column, b: &Column) -> Option<Vec<u64>> {
        let both: Vec<(u64, f64, f64)> = a
            .iter()
            .filter_map(|(step, value)| Some((step, value, b.at(step)?)))
            .filter(|(_, a, b)| a.is_finite() && b.is_finite())
            .collect();
        let mut values: Vec<f64> = both.iter().map(|(_, a, _)| *a).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let same = values.len() >= self.values && both.iter().all(|(_, a, b)| a == b);
        same.then(|| both.into_iter().map(|(step, ..)| step).collect())
    }
}

/// What validation is compared with.
#[derive(Clone, Copy, PartialEq)]
enum Split {
    Training,
    Test,
}

/// The names under which other splits have a validation metric.
fn counterparts(name: &str) -> Vec<(String, Split)> {
    let Some(quantity) = name.strip_prefix("val/") else { return Vec::new() };
    // What describes the labels rather than the model may well be equal.
    if names::goal(name).is_none() {
        return Vec::new();
    }
    let bare = quantity.strip_prefix("metric/").unwrap_or(quantity);
    let mut found = vec![(format!("train/{quantity}"), Split::Training)];
    if names::VAL_LOSS.group_of(name).is_some() {
        found.push((format!("test/{quantity}"), Split::Test));
    } else {
        found.push((names::TEST_METRIC.group(bare), Split::Test));
    }
    if bare == quantity && names::VAL_LOSS.group_of(name).is_none() {
        found.push((names::TRAIN_METRIC.group(bare), Split::Training));
    }
    found
}
