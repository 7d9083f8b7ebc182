use trimtab_signals::{keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::{START, View};

static META: RuleMeta = RuleMeta {
    id: "all-negative-collapse",
    summary: "the model predicts one class everywhere",
    severity: Severity::Critical,
    docs: include_str!("all_negative_collapse.md"),
};

pub(super) static RULE: AllNegativeCollapse =
    AllNegativeCollapse { rate: 1e-4, times: 50.0, evaluations: 3, share: 0.3 };

pub(super) struct AllNegativeCollapse {
    /// Where the prevalence is unknown, a positive rate under this, or over one minus this, is one class everywhere;
    rate: f64,
    /// where it is known, one this many times smaller.
    times: f64,
    /// Measurements at the end that show it.
    evaluations: usize,
    /// The share of a run that a score must be exactly 0: first epochs often are.
    share: f64,
}

impl Rule for AllNegativeCollapse {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let rates = [
            (&names::VAL_POSITIVE_RATE, &names::VAL_PREVALENCE),
            (&names::TRAIN_POSITIVE_RATE, &names::TRAIN_PREVALENCE),
        ];
        let scores = [&names::VAL_F1, &names::VAL_DICE, &names::VAL_IOU, &names::VAL_RECALL];
        let mut any = false;
        for (signal, prevalence) in rates {
            let Some(column) = view.column(signal) else { continue };
            any = true;
            let known = view.prevalence(prevalence);
            let few = known.map_or(self.rate, |p| p / self.times);
            let many = known.map_or(self.rate, |p| (1.0 - p) / self.times);
            for (collapsed, what) in [
                (&(|v: f64| v < few) as &dyn Fn(f64) -> bool, "nothing"),
                (&|v| v > 1.0 - many, "everything"),
            ] {
                let count = column.values().iter().rev().take_while(|v| collapsed(**v)).count();
                if count < self.evaluations {
                    continue;
                }
                let steps = column.steps();
                let last = column.values()[steps.len() - 1];
                let beside = known.map_or_else(String::new, |p| format!("; {} of the labels are", show(p)));
                let message = format!(
                    "the model predicts {what} positive: `{}` is {} at the last {count} measurements{beside}",
                    view.run().logged_name(signal.name),
                    show(last),
                );
                let finding =
                    self.finding(message, steps, count).evidence("positive_rate", last).draw(signal.name);
                return Ok(vec![finding]);
            }
        }
        if let Some(finding) = self.so_far(view) {
            return Ok(vec![finding]);
        }
        for signal in scores {
            let Some(column) = view.column(signal) else { continue };
            any = true;
            let count = column.values().iter().rev().take_while(|v| **v == 0.0).count();
            if count < self.evaluations.max((column.len() as f64 * self.share) as usize) {
                continue;
            }
            let message = format!(
                "`{}` is exactly 0 at the last {count} evaluations: nothing is predicted positive",
                view.run().logged_name(signal.name)
            );
            let finding =
                self.finding(message, column.steps(), count).evidence("score", 0.0).draw(signal.name);
            let early = column.len() < START && view.starting();
            let severity = if early { Severity::Info } else { META.severity };
            return Ok(vec![finding.severity(severity)]);
        }
        if any {
            Ok(Vec::new())
        } else {
            Err(Missing::new("val/positive_rate, train/positive_rate or a validation score such as val/f1"))
        }
    }
}

impl AllNegativeCollapse {
    /// Too few evaluations to tell it from a start, but all of them have it, and the mean probability has fallen under the
    /// prevalence, where a calibrated start would end.
    fn so_far(&self, view: &View<'_>) -> Option<Finding> {
        let rate =
            view.column(&names::VAL_POSITIVE_RATE).filter(|c| (1..self.evaluations).contains(&c.len()))?;
        let mean = view.column(&names::VAL_MEAN_PROBABILITY)?;
        let prevalence = view.prevalence(&names::VAL_PREVALENCE)?;
        let (first, last) = (mean.first()?.1, mean.last()?.1);
        if !(rate.values().iter().all(|v| *v < prevalence / (20.0 * self.times))
            && first > prevalence
            && last < 0.8 * prevalence)
        {
            return None;
        }
        let message = format!(
            "the model predicts nothing positive so far: `{}` is {}, {} of the labels are; the mean probability fell from {} to {}",
            view.run().logged_name(names::VAL_POSITIVE_RATE.name),
            show(rate.last()?.1),
            show(prevalence),
            show(first),
            show(last),
        );
        let finding =
            self.finding(message, rate.steps(), rate.len()).severity(crate::finding::Severity::Info);
        Some(finding.evidence("positive_rate", rate.last()?.1).draw(names::VAL_POSITIVE_RATE.name))
    }

    fn finding(&self, message: String, steps: &[u64], count: usize) -> Finding {
        let from = steps.len() - count;
        Finding::new(&META, message)
            .at(
                steps[(from + self.evaluations - 1).min(steps.len() - 1)],
                steps[from],
                steps[steps.len() - 1],
            )
            .evidence("measurements", count as f64)
            .remedy(Remedy::scale(
                &keys::OPTIM_LEARNING_RATE,
                0.1,
                "a first phase at too high a rate ends in the trivial solution",
            ))
            .remedy(Remedy::check(
                &keys::LOSS_CLASS_WEIGHTS,
                "weigh the rare class, or add a Dice term",
                "a mean over pixels is content with the common class",
            ))
            .remedy(Remedy::check(
                &keys::DATA_LABEL_VALUES,
                "look at the masks as they are loaded",
                "empty or misread masks teach exactly this",
            ))
    }
}
