use trimtab_signals::{keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::median;
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "ignored-label-mass",
    summary: "most labels are ignored by the loss",
    severity: Severity::Warning,
    docs: include_str!("ignored_label_mass.md"),
};

pub(super) static RULE: IgnoredLabelMass = IgnoredLabelMass { most: 0.5, nearly_all: 0.9, measurements: 5 };

pub(super) struct IgnoredLabelMass {
    /// From here on more is ignored than used.
    most: f64,
    /// From here on a batch holds under a tenth of the labels its size suggests.
    nearly_all: f64,
    /// Fewer batches than these may all be unlucky.
    measurements: usize,
}

impl Rule for IgnoredLabelMass {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let declared = view.number(&keys::DATA_IGNORED_SHARE);
        let column = view.column(&names::DATA_IGNORED);
        if declared.is_none() && column.is_none() {
            let (signal, key) = (names::DATA_IGNORED.name, keys::DATA_IGNORED_SHARE.name);
            return Err(Missing::new(format!("{signal}, or {key} (declared)")));
        }
        let share = |v: &f64| (0.0..=1.0).contains(v);
        let measured: Vec<(u64, f64)> =
            column.into_iter().flat_map(|c| c.iter()).filter(|(_, v)| share(v)).collect();
        let typical =
            median(measured.iter().map(|(_, v)| *v)).filter(|_| measured.len() >= self.measurements);
        // What was seen counts more than what was declared.
        let Some(level) = typical.or(declared.filter(share)) else { return Ok(Vec::new()) };
        if level <= self.most {
            return Ok(Vec::new());
        }
        let all = if typical.is_some() { measured.iter().all(|(_, v)| *v >= 1.0) } else { level >= 1.0 };
        let (severity, rest) = if all {
            (Severity::Critical, "nothing is left to learn from")
        } else if level > self.nearly_all {
            (Severity::Warning, "a batch holds far fewer labels than its size suggests")
        } else {
            (Severity::Info, "less is learned from than is computed")
        };
        let per = if typical.is_some() { "of a typical batch's labels" } else { "of all labels" };
        let message = format!("{} % {per} are ignored: {rest}", show(100.0 * level));
        let mut finding = Finding::new(&META, message)
            .severity(severity)
            .evidence("ignored_share", level)
            .remedy(Remedy::check(
                &keys::DATA_IGNORE_LABEL,
                "which value is ignored, and whether it is not a class",
                "a background or a foreground taken for the ignored value looks the same",
            ))
            .remedy(Remedy::check(
                &keys::OPTIM_BATCH_SIZE,
                "crops around annotated places, or a larger batch",
                "where labels are sparse on purpose, each batch should still hold enough of them",
            ));
        if let (true, Some((first, _)), Some((last, _))) =
            (typical.is_some(), measured.first(), measured.last())
        {
            let told = measured.get(self.measurements - 1).map_or(*last, |(step, _)| *step);
            finding = finding.at(told, *first, *last).draw(names::DATA_IGNORED.name);
        }
        Ok(vec![finding])
    }
}
