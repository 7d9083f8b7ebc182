use trimtab_signals::keys;

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "label-out-of-range",
    summary: "labels have values that the loss is not defined for",
    severity: Severity::Critical,
    docs: include_str!("label_out_of_range.md"),
};

pub(super) static RULE: LabelOutOfRange = LabelOutOfRange;

pub(super) struct LabelOutOfRange;

impl Rule for LabelOutOfRange {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let facts = &view.run().facts;
        let list = |key: &trimtab_signals::Key| {
            let values = facts.numbers(key.name).filter(|v| !v.is_empty());
            values.ok_or_else(|| Missing::new(format!("{} (declared)", key.name)))
        };
        let (values, accepted) = (list(&keys::DATA_LABEL_VALUES)?, list(&keys::LOSS_LABELS_ACCEPTED)?);
        let ignored = view.number(&keys::DATA_IGNORE_LABEL);
        let lowest = accepted.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = accepted.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let outside = |value: &f64| {
            let is = |other: f64| (value - other).abs() < 1e-6;
            // Soft labels lie between hard ones.
            let soft = value.fract() != 0.0 && (lowest..=highest).contains(value);
            !soft && !accepted.iter().any(|a| is(*a)) && !ignored.is_some_and(is)
        };
        let wrong: Vec<f64> = values.iter().copied().filter(outside).collect();
        let Some(&worst) = wrong.last() else { return Ok(Vec::new()) };

        // How many there are of them, where the counts belong to the values.
        let counts = facts.numbers(keys::DATA_CLASS_COUNTS.name).filter(|c| c.len() == values.len());
        let share = counts.and_then(|counts| {
            let total: f64 = counts.iter().sum();
            let of: f64 = values.iter().zip(&counts).filter(|(v, _)| outside(v)).map(|(_, n)| n).sum();
            Some(of / total).filter(|s| (0.0..=1.0).contains(s))
        });
        let text = |values: &[f64]| {
            let few: Vec<String> = values.iter().take(8).map(|v| show(*v)).collect();
            if values.len() > 8 { format!("{}, …", few.join(", ")) } else { few.join(", ") }
        };
        let part = share.map_or_else(String::new, |s| format!(" ({:.0} % of all labels)", 100.0 * s));
        // Masks stored with 8 bits are often divided only when they are loaded.
        let eight_bit = wrong == [255.0] && values.iter().all(|v| [0.0, 255.0].contains(v));
        let (severity, rest) = if eight_bit {
            (Severity::Warning, "an 8-bit mask, which must be divided or thresholded before it")
        } else {
            (Severity::Critical, "what it says means nothing, whatever the learning rate")
        };
        let message = format!(
            "labels have the value {}{part}, but the loss is only defined for {}: {rest}",
            text(&wrong),
            text(&accepted)
        );
        let finding = Finding::new(&META, message)
            .severity(severity)
            .evidence_text("outside", text(&wrong))
            .evidence_text("accepted", text(&accepted));
        let finding = match share {
            Some(share) => finding.evidence("share", share),
            None => finding,
        };
        let finding = if wrong.len() == 1 && !eight_bit {
            finding.remedy(Remedy::set(
                &keys::DATA_IGNORE_LABEL,
                worst,
                "where it marks what was not annotated, loss and metrics must pass over it",
            ))
        } else {
            finding.remedy(Remedy::check(
                &keys::DATA_LABEL_VALUES,
                "map each value to a class or to the ignored one",
                "the loss takes only the classes it was made for",
            ))
        };
        Ok(vec![finding.remedy(Remedy::check(
            &keys::DATA_CLASSES,
            "count the classes that the labels mean",
            "one value more than expected may be a class of its own",
        ))])
    }
}
