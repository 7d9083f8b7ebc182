use trimtab_signals::keys;

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "class-weights-extreme",
    summary: "the weights of the classes turn their imbalance round, or make it much worse",
    severity: Severity::Warning,
    docs: include_str!("class_weights_extreme.md"),
};

pub(super) static RULE: ClassWeightsExtreme = ClassWeightsExtreme { far: 20.0 };

pub(super) struct ClassWeightsExtreme {
    /// How many times more than another a class may weigh in the loss, all its samples together, where weights made it so.
    far: f64,
}

impl Rule for ClassWeightsExtreme {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let numbers = |key: &trimtab_signals::Key| {
            let list = view.run().facts.numbers(key.name);
            list.filter(|list| list.len() >= 2 && list.iter().all(|v| *v > 0.0 && v.is_finite()))
        };
        let declared = |key: &trimtab_signals::Key| Missing::new(format!("{} (declared)", key.name));
        let weights =
            numbers(&keys::LOSS_CLASS_WEIGHTS).ok_or_else(|| declared(&keys::LOSS_CLASS_WEIGHTS))?;
        let counts = numbers(&keys::DATA_CLASS_COUNTS)
            .filter(|counts| counts.len() == weights.len())
            .ok_or_else(|| declared(&keys::DATA_CLASS_COUNTS))?;
        let weighed: Vec<f64> = weights.iter().zip(&counts).map(|(w, n)| w * n).collect();
        let place = |list: &[f64], most: bool| {
            let indexed = list.iter().copied().enumerate();
            let found = if most {
                indexed.max_by(|a, b| a.1.total_cmp(&b.1))
            } else {
                indexed.min_by(|a, b| a.1.total_cmp(&b.1))
            };
            found.unwrap_or((0, 1.0))
        };
        let ((heavy, most), (light, least)) = (place(&weighed, true), place(&weighed, false));
        let ratio = most / least;
        let before = counts[heavy] / counts[light];
        // An imbalance of the data alone is another rule's business.
        if ratio < self.far || ratio < 2.0 * before {
            return Ok(Vec::new());
        }
        let message = format!(
            "with the weights of the loss, class {heavy} counts {} times as much as class {light}; without them it would be {}",
            show(ratio),
            show(before)
        );
        let last = view.last_step();
        Ok(vec![
            Finding::new(&META, message)
                .at(0, 0, last)
                .evidence("ratio", ratio)
                .evidence("ratio_without", before)
                .remedy(Remedy::remove(
                    &keys::LOSS_CLASS_WEIGHTS,
                    "weights of at most the imbalance itself make classes count alike",
                )),
        ])
    }
}
