//! All metrics of a binary prediction, each beside its floor.

use serde::Serialize;

use crate::counts::BinaryCounts;
use crate::floors;
use crate::tally::Tally;

/// One metric. Undefined numbers are `NaN`, which JSON shows as `null`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MetricValue {
    /// Name, the `quantity` of the signal `val/<name>`.
    pub name: &'static str,
    /// The value; all but `best_threshold` lie in `[0, 1]`.
    pub value: f64,
    /// What a predictor blind to the image scores (see [`floors`]); `None` for descriptive quantities.
    pub floor: Option<f64>,
    /// Whether more is better; `None` for quantities that are neither good nor bad.
    pub higher_is_better: Option<bool>,
}

/// Every metric of one evaluation at one threshold.
///
/// In this order: `f1`, `precision`, `recall`, `iou`, `auc`, `average_precision`, `best_f1`,
/// `best_threshold`, `mean_probability`, `positive_rate`, `prevalence`. Without a single valid pixel
/// all of them are `NaN`: nothing was measured, which is not a score of zero.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BinaryReport {
    /// A pixel was predicted positive when its probability was greater than this.
    pub threshold: f64,
    /// Pixels counted.
    pub valid: u64,
    /// Pixels left out because their label is negative.
    pub ignored: u64,
    /// Labelled pixels left out because their probability is not finite.
    pub non_finite: u64,
    /// Pixels whose probability was clamped to `[0, 1]`.
    pub out_of_range: u64,
    /// The metrics.
    pub metrics: Vec<MetricValue>,
}

/// What a report needs beside the tally.
pub(crate) struct Scores {
    pub counts: BinaryCounts,
    pub auc: f64,
    pub average_precision: f64,
    /// Threshold and F1.
    pub best: (f64, f64),
}

impl BinaryReport {
    pub(crate) fn new(threshold: f64, tally: &Tally, scores: &Scores) -> Self {
        let empty = tally.valid() == 0;
        let prevalence = tally.prevalence();
        let counts = &scores.counts;
        let positive_rate = counts.positive_rate();
        let scored = |name, value, floor| MetricValue {
            name,
            value: if empty { f64::NAN } else { value },
            floor: Some(floor),
            higher_is_better: Some(true),
        };
        let described = |name, value| MetricValue { name, value, floor: None, higher_is_better: None };
        let metrics = vec![
            scored("f1", counts.f1(), floors::f1(prevalence)),
            scored("precision", counts.precision(), floors::precision(prevalence)),
            scored("recall", counts.recall(), floors::recall(positive_rate)),
            scored("iou", counts.iou(), floors::iou(prevalence)),
            scored("auc", scores.auc, floors::auc()),
            scored("average_precision", scores.average_precision, floors::average_precision(prevalence)),
            scored("best_f1", scores.best.1, floors::best_f1(prevalence)),
            described("best_threshold", scores.best.0),
            described("mean_probability", tally.mean_probability()),
            described("positive_rate", positive_rate),
            described("prevalence", prevalence),
        ];
        Self {
            threshold,
            valid: tally.valid(),
            ignored: tally.ignored,
            non_finite: tally.non_finite,
            out_of_range: tally.out_of_range,
            metrics,
        }
    }

    /// The metric of that name.
    pub fn get(&self, name: &str) -> Option<&MetricValue> {
        self.metrics.iter().find(|metric| metric.name == name)
    }

    /// The metrics in order.
    pub fn iter(&self) -> std::slice::Iter<'_, MetricValue> {
        self.metrics.iter()
    }
}

impl IntoIterator for BinaryReport {
    type Item = MetricValue;
    type IntoIter = std::vec::IntoIter<MetricValue>;

    fn into_iter(self) -> Self::IntoIter {
        self.metrics.into_iter()
    }
}

impl<'a> IntoIterator for &'a BinaryReport {
    type Item = &'a MetricValue;
    type IntoIter = std::slice::Iter<'a, MetricValue>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
