use trimtab_signals::keys;

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "double-balancing",
    summary: "a balanced sampler and class weights both make up for the same imbalance",
    severity: Severity::Warning,
    docs: include_str!("double_balancing.md"),
};

pub(super) static RULE: DoubleBalancing = DoubleBalancing { uneven: 1.05, imbalance: 1.5 };

pub(super) struct DoubleBalancing {
    /// Highest over lowest weight from which on weights are meant: less is rounding.
    uneven: f64,
    /// Most over least frequent class under which there is no imbalance to make up for twice.
    imbalance: f64,
}

impl Rule for DoubleBalancing {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let sampler = view.flag(&keys::DATA_BALANCED_SAMPLER);
        if !sampler.ok_or_else(|| Missing::new(format!("{} (declared)", keys::DATA_BALANCED_SAMPLER.name)))? {
            return Ok(Vec::new());
        }
        let facts = &view.run().facts;
        let counts = facts.numbers(keys::DATA_CLASS_COUNTS.name).unwrap_or_default();
        let counts: Vec<f64> = counts.into_iter().filter(|n| n.is_finite() && *n > 0.0).collect();
        let ratio = |values: &[f64]| {
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            Some(high / low).filter(|r| low > 0.0 && r.is_finite())
        };
        if counts.len() >= 2 && ratio(&counts).is_some_and(|r| r < self.imbalance) {
            return Ok(Vec::new());
        }
        // A list, or a table by class.
        let weights = facts.numbers(keys::LOSS_CLASS_WEIGHTS.name).unwrap_or_else(|| {
            let by_class = view.numbers_by_group(&keys::LOSS_CLASS_WEIGHTS);
            by_class.into_iter().filter(|(class, _)| !class.is_empty()).map(|(_, w)| w).collect()
        });
        // Weights that favour the frequent class undo the sampler; they do not double it.
        let doubles = if weights.len() == counts.len() && weights.len() >= 2 {
            let by_count = |a: &usize, b: &usize| counts[*a].total_cmp(&counts[*b]);
            let (rare, common) = ((0..counts.len()).min_by(by_count), (0..counts.len()).max_by(by_count));
            rare.zip(common).is_none_or(|(rare, common)| weights[rare] > weights[common])
        } else {
            true
        };
        let uneven = ratio(&weights).filter(|r| weights.len() >= 2 && *r > self.uneven && doubles);
        let named =
            facts.text(keys::LOSS_CLASS_WEIGHTS.name).is_some_and(|t| t.eq_ignore_ascii_case("balanced"));
        let later = [&keys::LOSS_REWEIGHT_EPOCH, &keys::LOSS_REWEIGHT_STEP]
            .into_iter()
            .find_map(|key| Some((key, view.number(key)?)));

        let mut finding = Finding::new(&META, String::new())
            .severity(Severity::Warning)
            .evidence_text(keys::DATA_BALANCED_SAMPLER.name, "true");
        let what = if let Some(ratio) = uneven {
            finding = finding.evidence("weight_ratio", ratio);
            format!("the loss weights them 1 to {} on top", show(ratio))
        } else if named {
            finding = finding.evidence_text(keys::LOSS_CLASS_WEIGHTS.name, "balanced");
            "the loss weights them by their count on top".to_owned()
        } else if let Some((key, start)) = later {
            finding = finding.evidence(key.name, start);
            let unit = if *key == keys::LOSS_REWEIGHT_EPOCH { "epoch" } else { "step" };
            format!("the loss is re-weighted by class from {unit} {} on", show(start))
        } else {
            return Ok(Vec::new());
        };
        finding.message = format!(
            "the sampler draws classes equally often and {what}: rare classes count twice, \
             and the others are given up for them"
        );
        finding = finding.remedy(Remedy::set(
            &keys::DATA_BALANCED_SAMPLER,
            false,
            "weights alone make up for the imbalance, and rare samples are not repeated",
        ));
        finding = if uneven.is_some() || named {
            finding.remedy(Remedy::remove(
                &keys::LOSS_CLASS_WEIGHTS,
                "or keep the sampler, and weigh classes alike",
            ))
        } else {
            let (key, _) = later.unwrap_or((&keys::LOSS_REWEIGHT_EPOCH, 0.0));
            finding.remedy(Remedy::remove(key, "or keep the sampler, and weigh classes alike"))
        };
        Ok(vec![finding])
    }
}
