use trimtab_signals::names::Signal;
use trimtab_signals::{keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "degenerate-labels",
    summary: "labels are all alike, or classes and masks are empty",
    severity: Severity::Warning,
    docs: include_str!("degenerate_labels.md"),
};

pub(super) static RULE: DegenerateLabels = DegenerateLabels { empty: 0.5, batches: 20, evaluations: 2 };

pub(super) struct DegenerateLabels {
    /// Share of masks without foreground from which on the typical mask is empty.
    empty: f64,
    /// Batches that are all alike: where positives are rare, a few batches without any are normal.
    batches: usize,
    /// Evaluations that are all alike: each has seen the whole validation set.
    evaluations: usize,
}

impl Rule for DegenerateLabels {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let counts = view.run().facts.numbers(keys::DATA_CLASS_COUNTS.name);
        let counts = counts.filter(|c| c.len() >= 2 && c.iter().all(|n| n.is_finite() && *n >= 0.0));
        let masks = view.number(&keys::DATA_MASKS).filter(|n| *n >= 1.0);
        let empty = view.number(&keys::DATA_EMPTY_MASKS).zip(masks).filter(|(e, of)| (0.0..=*of).contains(e));
        let declared = view.number(&keys::DATA_PREVALENCE).filter(|p| (0.0..=1.0).contains(p));
        let prevalences = [&names::TRAIN_PREVALENCE, &names::VAL_PREVALENCE];
        let measured = prevalences.into_iter().any(|s| view.column(s).is_some());
        if counts.is_none() && empty.is_none() && declared.is_none() && !measured {
            let [counts, empty, masks, prevalence] =
                [keys::DATA_CLASS_COUNTS, keys::DATA_EMPTY_MASKS, keys::DATA_MASKS, keys::DATA_PREVALENCE]
                    .map(|k| k.name);
            let [train, val] = prevalences.map(|s| s.name);
            return Err(Missing::new(format!(
                "{train} or {val}, or declared: {counts}, {prevalence}, or {empty} and {masks}"
            )));
        }

        let mut findings = Vec::new();
        // Labels all alike: one finding, from the surest evidence there is.
        let single = self.alike(view, declared, counts.as_deref(), empty);
        findings.extend(single);
        if let Some((empty, masks)) = empty
            && empty / masks > self.empty
            && findings.is_empty()
        {
            let message = format!("{} of {} training masks hold no foreground", show(empty), show(masks));
            let finding =
                Finding::new(&META, message).evidence("empty_masks", empty).evidence("masks", masks);
            findings.push(finding.remedy(Remedy::check(
                &keys::DATA_EMPTY_MASKS,
                "look at pairs of images and masks, and draw crops with foreground more often",
                "an empty mask says only what is not there; predicting nothing becomes the easy answer",
            )));
        }
        if let Some(counts) = &counts
            && findings.is_empty()
            && counts.iter().any(|n| *n > 0.0)
        {
            let none: Vec<String> = counts
                .iter()
                .enumerate()
                .filter(|(_, n)| **n == 0.0)
                .map(|(class, _)| class.to_string())
                .collect();
            if !none.is_empty() {
                let (word, has) = if none.len() == 1 { ("class", "has") } else { ("classes", "have") };
                let few =
                    if none.len() > 8 { format!("{}, …", none[..8].join(", ")) } else { none.join(", ") };
                let message = format!(
                    "{word} {few} {has} no training sample out of {}: it cannot be learned, \
                     and weights by class count are infinite",
                    show(counts.iter().sum()),
                );
                let finding = Finding::new(&META, message)
                    .evidence("empty_classes", none.len() as f64)
                    .evidence("classes", counts.len() as f64)
                    .remedy(Remedy::check(
                        &keys::DATA_CLASS_COUNTS,
                        "how label values are mapped to classes",
                        "a class without samples is often one mapped to another, or lost in the split",
                    ));
                findings.push(finding);
            }
        }
        Ok(findings)
    }
}

impl DegenerateLabels {
    /// All labels alike.
    fn alike(
        &self,
        view: &View<'_>,
        declared: Option<f64>,
        counts: Option<&[f64]>,
        empty: Option<(f64, f64)>,
    ) -> Option<Finding> {
        let end = |p: f64| p == 0.0 || p == 1.0;
        let what = |p: f64| if p == 0.0 { "negative" } else { "positive" };
        let both = counts.is_some_and(|c| c.iter().filter(|n| **n > 0.0).count() >= 2);
        let finding = |message: String| {
            Finding::new(&META, message).severity(Severity::Critical).remedy(Remedy::check(
                &keys::DATA_PREVALENCE,
                "look at pairs of images and labels as they are loaded",
                "a wrong threshold, channel or path makes labels all alike",
            ))
        };
        if let Some(p) = declared.filter(|p| end(*p) && !both) {
            return Some(
                finding(format!("all labels are {}: there is nothing to tell apart", what(p)))
                    .evidence("prevalence", p),
            );
        }
        if let Some(counts) = counts
            && counts.iter().filter(|n| **n > 0.0).count() == 1
        {
            let message = format!(
                "only one of {} classes has training samples: there is nothing to tell apart",
                counts.len()
            );
            return Some(finding(message).evidence("classes", counts.len() as f64));
        }
        if let Some((empty, masks)) = empty.filter(|(empty, masks)| empty == masks) {
            let message = format!("none of {} training masks holds any foreground", show(masks));
            return Some(finding(message).evidence("empty_masks", empty).evidence("masks", masks));
        }
        let column = |signal: &Signal, enough: usize| {
            let column = view.column(signal)?;
            let finite: Vec<(u64, f64)> = column.iter().filter(|(_, v)| v.is_finite()).collect();
            let (&(first, p), &(last, _)) = (finite.first()?, finite.last()?);
            let alike = end(p) && finite.len() >= enough && finite.iter().all(|(_, v)| *v == p);
            alike.then_some((
                p,
                finite.len(),
                finite[enough.saturating_sub(1).min(finite.len() - 1)].0,
                first,
                last,
            ))
        };
        let training = (!both && !declared.is_some_and(|p| p > 0.0 && p < 1.0))
            .then(|| column(&names::TRAIN_PREVALENCE, self.batches))
            .flatten()
            .map(|found| (&names::TRAIN_PREVALENCE, found));
        let (signal, (p, n, told, first, last)) = training.or_else(|| {
            let found = column(&names::VAL_PREVALENCE, self.evaluations)?;
            // A prevalence rounded to 0 is none of nothing: a hit shows that positives exist.
            let hits = [
                &names::VAL_F1,
                &names::VAL_DICE,
                &names::VAL_IOU,
                &names::VAL_RECALL,
                &names::VAL_PRECISION,
            ];
            let hit = |s: &&Signal| view.groups(s).iter().any(|(_, c)| c.values().iter().any(|v| *v > 0.0));
            (found.0 == 1.0 || !hits.iter().any(hit)).then_some((&names::VAL_PREVALENCE, found))
        })?;
        let logged = view.run().logged_name(signal.name);
        let message =
            format!("`{logged}` is {} at all {n} measurements: every label is {}", show(p), what(p));
        Some(
            finding(message)
                .at(told, first, last)
                .evidence("prevalence", p)
                .evidence("measurements", n as f64)
                .draw(signal.name),
        )
    }
}
