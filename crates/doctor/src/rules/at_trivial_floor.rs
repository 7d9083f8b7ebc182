use trimtab_signals::{keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::{Metric, START, View};

static META: RuleMeta = RuleMeta {
    id: "at-trivial-floor",
    summary: "the score is what a predictor that has not looked at the data gets",
    severity: Severity::Critical,
    docs: include_str!("at_trivial_floor.md"),
};

pub(super) static RULE: AtTrivialFloor = AtTrivialFloor { margin: 0.04, evaluations: 3 };

pub(super) struct AtTrivialFloor {
    /// Share of the way from the floor to a perfect score within which a score says nothing.
    margin: f64,
    /// Evaluations at the end that show it; fewer are worth a warning.
    evaluations: usize,
}

impl Rule for AtTrivialFloor {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let mut judged = false;
        let mut found: Vec<(Finding, bool)> = Vec::new();
        let mut beside = Vec::new();
        let headline = view.metrics().first().map(|m| m.name);
        // Not those of single classes: their own floors are not known.
        for metric in view.metrics().iter().filter(|m| m.name.matches('/').count() == 1) {
            // AUC says most: a score over a threshold may look like something at chance.
            let auc = names::VAL_AUC.group_of(metric.name).is_some();
            let (Some(floor), Some((_, perfect))) = (self.floor(view, metric), metric.range()) else {
                continue;
            };
            if (perfect - floor).abs() < 1e-9 {
                continue;
            }
            judged = true;
            let share = |v: f64| (v - floor) / (perfect - floor);
            let finite: Vec<(u64, f64)> = metric.column.iter().filter(|(_, v)| v.is_finite()).collect();
            let count = finite.iter().rev().take_while(|(_, v)| share(*v) < self.margin).count();
            // A rare dip to the floor at the end is not a run at its floor.
            if count == 0 || (count < finite.len() && count < self.evaluations.max(finite.len() / 4)) {
                continue;
            }
            let (from, end) = (finite[finite.len() - count].0, finite[finite.len() - 1]);
            let logged = view.run().logged_name(metric.name);
            if !auc {
                beside.push(format!("`{logged}` {} beside {}", show(end.1), show(floor)));
            }
            if !auc && Some(metric.name) != headline {
                continue;
            }
            let what = if auc { "chance" } else { "what predicting without looking at the data scores" };
            let than = if share(end.1) < -self.margin { ", less than" } else { ";" };
            let message = format!("`{logged}` is {} at the end{than} {what}: {}", show(end.1), show(floor));
            let finding = Finding::new(&META, message)
                .severity(if count >= self.evaluations { Severity::Critical } else { Severity::Warning })
                .at(finite[finite.len() - count + self.evaluations.min(count) - 1].0, from, end.0)
                .evidence("score", end.1)
                .evidence("floor", floor)
                .evidence("evaluations", count as f64)
                .remedy(Remedy::check(
                    &keys::DATA_LABEL_VALUES,
                    "look at images, labels and predictions side by side",
                    "labels that do not belong to their images give exactly this",
                ))
                .remedy(Remedy::check(
                    &keys::OPTIM_LEARNING_RATE,
                    "overfit one batch, then sweep the rate",
                    "tells whether the network can learn these labels at all",
                ))
                .draw(metric.name);
            found.push((finding, auc));
        }
        if !judged {
            return Err(Missing::new(
                "val/auc, or a validation score with the prevalence or the class counts that give its floor",
            ));
        }
        // One finding: of the AUC where there is one; then the others add nothing. An AUC over its floor clears a score whose
        // threshold is off.
        let clear_auc = view.metrics().iter().any(|m| names::VAL_AUC.group_of(m.name).is_some())
            && !found.iter().any(|(_, auc)| *auc);
        found.sort_by_key(|(finding, auc)| (!*auc, std::cmp::Reverse(finding.severity)));
        let Some((mut finding, of_auc)) = found.into_iter().next() else { return Ok(Vec::new()) };
        if of_auc && !beside.is_empty() {
            let rest = beside.join(", ");
            finding.message += &format!("; and without looking at the data one would score: {rest}");
        }
        let evaluations = view.headline().map_or(0, |m| m.column.len());
        if (self.evaluations..START).contains(&evaluations) && view.starting() {
            finding.severity = Severity::Info;
            finding.message += ", so far: training has only begun";
        }
        if clear_auc {
            finding.severity = finding.severity.min(Severity::Warning);
            finding.message +=
                ", though the AUC is over chance: the threshold is off rather than the ranking";
        }
        Ok(vec![finding])
    }
}

impl AtTrivialFloor {
    fn floor(&self, view: &View<'_>, metric: &Metric<'_>) -> Option<f64> {
        metric.chance.or_else(|| {
            // The precision of a predictor without skill is the prevalence; with an AUC at chance it may be read off.
            let last = |signal| view.column(signal).and_then(|c| c.last()).map(|(_, v)| v);
            let precision = last(&names::VAL_PRECISION).filter(|p| *p > 0.0 && *p < 1.0)?;
            let at_chance = last(&names::VAL_AUC).is_some_and(|auc| (auc - 0.5).abs() < 0.02);
            let f1 = [&names::VAL_F1, &names::VAL_DICE].iter().any(|s| s.group_of(metric.name).is_some());
            (at_chance && f1).then(|| 2.0 * precision / (1.0 + precision))
        })
    }
}
