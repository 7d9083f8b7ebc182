//! Scores of a ranking, from groups of equally ranked pixels in descending order.

use crate::counts::{BinaryCounts, ratio_or};

/// Pixels that no threshold can tell apart: equal probabilities, or one bin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    /// The threshold that this group and all before it exceed, and none after it.
    pub threshold: f64,
    pub positives: u64,
    pub negatives: u64,
}

/// Area under the ROC curve by trapezoids: a tie between a positive and a negative counts one half.
/// `NaN` unless both classes are present.
pub(crate) fn auc(groups: impl Iterator<Item = Group>) -> f64 {
    // Twice the area in units of one positive times one negative, which makes it an exact integer.
    let (mut twice_area, mut positives, mut negatives) = (0_u128, 0_u64, 0_u64);
    for group in groups {
        let beaten_by = 2 * u128::from(positives) + u128::from(group.positives);
        twice_area += u128::from(group.negatives) * beaten_by;
        positives += group.positives;
        negatives += group.negatives;
    }
    if positives == 0 || negatives == 0 {
        return f64::NAN;
    }
    twice_area as f64 / (2.0 * positives as f64 * negatives as f64)
}

/// The most by which [`auc`] can differ from that of the same pixels without ties: half of all
/// positive-negative pairs inside one group.
pub(crate) fn auc_error_bound(groups: impl Iterator<Item = Group>) -> f64 {
    let (mut tied_pairs, mut positives, mut negatives) = (0_u128, 0_u64, 0_u64);
    for group in groups {
        tied_pairs += u128::from(group.positives) * u128::from(group.negatives);
        positives += group.positives;
        negatives += group.negatives;
    }
    if positives == 0 || negatives == 0 {
        return f64::NAN;
    }
    tied_pairs as f64 / (2.0 * positives as f64 * negatives as f64)
}

/// Average precision: the sum over groups of (gain in recall) times precision, without
/// interpolation, as scikit-learn. `NaN` when no pixel is positive.
pub(crate) fn average_precision(groups: impl Iterator<Item = Group>) -> f64 {
    let (mut true_positives, mut predicted, mut weighted) = (0_u64, 0_u64, 0.0);
    for group in groups {
        true_positives += group.positives;
        predicted += group.positives + group.negatives;
        if group.positives > 0 {
            weighted += group.positives as f64 * (true_positives as f64 / predicted as f64);
        }
    }
    if true_positives == 0 {
        return f64::NAN;
    }
    weighted / true_positives as f64
}

/// The threshold of the highest F1 and that F1. Among equals, the highest threshold.
/// `(NaN, 0)` when no pixel is positive: F1 is then 0 at every threshold.
pub(crate) fn best_threshold(groups: impl Iterator<Item = Group>, positives: u64) -> (f64, f64) {
    let mut best = (f64::NAN, 0.0);
    let (mut true_positives, mut predicted) = (0_u64, 0_u64);
    for group in groups {
        true_positives += group.positives;
        predicted += group.positives + group.negatives;
        let f1 = ratio_or(2 * true_positives, positives + predicted, 0.0);
        if f1 > best.1 {
            best = (group.threshold, f1);
        }
    }
    best
}

/// The confusion matrix when `true_positives` and `false_positives` pixels are predicted positive.
pub(crate) fn counts(
    true_positives: u64,
    false_positives: u64,
    positives: u64,
    negatives: u64,
) -> BinaryCounts {
    BinaryCounts {
        true_positives,
        false_positives,
        false_negatives: positives - true_positives,
        true_negatives: negatives - false_positives,
    }
}
