use trimtab_signals::{keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "self-training-admits-all",
    summary: "self-training admits every candidate: its threshold selects nothing",
    severity: Severity::Warning,
    docs: include_str!("self_training_admits_all.md"),
};

pub(super) static RULE: SelfTrainingAdmitsAll =
    SelfTrainingAdmitsAll { share: 0.99, measurements: 20, images: 50.0 };

pub(super) struct SelfTrainingAdmitsAll {
    /// Share of the candidates that are admitted.
    share: f64,
    /// Fewer measurements are a lucky stretch.
    measurements: usize,
    /// and fewer candidates in them as well: of under 50, one is more than the rest of the share.
    images: f64,
}

impl Rule for SelfTrainingAdmitsAll {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let (candidates, admitted) =
            (view.need(&names::SSL_CANDIDATES)?, view.need(&names::SSL_ADMITTED_IMAGES)?);
        let start = view.number(&keys::SSL_START_STEP);
        let offered: Vec<(u64, f64, f64)> = candidates
            .iter()
            .filter(|(step, c)| c.is_finite() && *c > 0.0 && start.is_none_or(|s| *step as f64 >= s))
            .filter_map(|(step, c)| Some((step, c, admitted.at(step).filter(|a| a.is_finite())?)))
            .collect();
        // A threshold of nothing admits all on purpose.
        if view.number(&keys::SSL_THRESHOLD).is_some_and(|t| t <= 0.0) {
            return Ok(Vec::new());
        }
        let share = |part: &[(u64, f64, f64)]| {
            let (c, a) = part.iter().fold((0.0, 0.0), |(c, a), (_, of, n)| (c + of, a + n));
            (c >= self.images && part.len() >= self.measurements)
                .then_some((a / c, c))
                .filter(|(s, _)| *s >= self.share)
        };
        // All of it, else the later half: a threshold that scores have grown past is only worth knowing.
        let late = &offered[offered.len() / 2..];
        let (part, severity) = if share(&offered).is_some() {
            (&offered[..], Severity::Warning)
        } else {
            (late, Severity::Info)
        };
        let Some((level, of)) = share(part) else { return Ok(Vec::new()) };
        let (Some(&(first, ..)), Some(&(last, ..))) = (part.first(), part.last()) else {
            return Ok(Vec::new());
        };
        let since =
            if severity == Severity::Warning { "from the start" } else { "in the later half of the run" };
        let message = format!(
            "`{}` is {} % of {} candidates {since}: the threshold selects nothing",
            view.run().logged_name(names::SSL_ADMITTED_IMAGES.name),
            show(100.0 * level),
            show(of),
        );
        let finding = Finding::new(&META, message)
            .severity(severity)
            .at(part[(self.measurements - 1).min(part.len() - 1)].0, first, last)
            .evidence("share", level)
            .evidence("candidates", of)
            .remedy(Remedy::check(
                &keys::SSL_THRESHOLD,
                "quantiles of the scores beside the threshold",
                "wrong pseudo-labels are learned like right ones unless the threshold keeps them out",
            ))
            .draw(names::SSL_ADMITTED_IMAGES.name);
        Ok(vec![finding])
    }
}
