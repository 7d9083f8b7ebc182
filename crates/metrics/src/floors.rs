//! The trivial floor of each metric: the score of a predictor that has not looked at the image.
//!
//! `prevalence` is the fraction of positive pixels among the valid ones, in `[0, 1]`; a `NaN`
//! prevalence (no valid pixel) gives a `NaN` floor.

/// F1 of predicting everything positive, `2 pi / (1 + pi)`. This is the highest F1 that any predictor
/// blind to the image can expect (Lipton, Elkan & Narayanaswamy 2014, <https://arxiv.org/abs/1402.1892>).
pub fn f1(prevalence: f64) -> f64 {
    2.0 * prevalence / (1.0 + prevalence)
}

/// Highest F1 over thresholds of a blind predictor: that of predicting everything positive.
pub fn best_f1(prevalence: f64) -> f64 {
    f1(prevalence)
}

/// Precision of any prediction blind to the image: the prevalence.
pub fn precision(prevalence: f64) -> f64 {
    prevalence
}

/// Recall of a random guess that predicts as many pixels positive as the prediction at hand: its
/// positive rate. Recall alone can be raised at will, so its floor is not a function of the data.
pub fn recall(positive_rate: f64) -> f64 {
    positive_rate
}

/// Intersection over union of predicting everything positive: the prevalence.
pub fn iou(prevalence: f64) -> f64 {
    prevalence
}

/// Area under the ROC curve of a random ranking: 1/2, whatever the prevalence.
pub fn auc() -> f64 {
    0.5
}

/// Average precision of a random ranking of many pixels: the prevalence.
pub fn average_precision(prevalence: f64) -> f64 {
    prevalence
}

/// Accuracy of always answering the more frequent class, `max(pi, 1 - pi)`.
pub fn accuracy(prevalence: f64) -> f64 {
    if prevalence.is_nan() {
        return f64::NAN;
    }
    prevalence.max(1.0 - prevalence)
}

/// Balanced accuracy of always answering one of `classes` classes, `1 / K`, which is also the accuracy
/// of a uniform guess; `NaN` for no class.
pub fn balanced_accuracy(classes: usize) -> f64 {
    if classes == 0 {
        return f64::NAN;
    }
    1.0 / classes as f64
}

/// Mean F1 over `classes` classes of always answering the most frequent one, whose share of the cases is `prevalence`:
/// its own F1, and 0 for every other class. `NaN` for no class.
pub fn macro_f1(prevalence: f64, classes: usize) -> f64 {
    if classes == 0 {
        return f64::NAN;
    }
    f1(prevalence) / classes as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BinaryCounts;

    #[test]
    fn the_f1_floor_is_the_f1_of_predicting_everything_positive() {
        for (positives, negatives) in [(1, 2), (33, 67), (999, 1), (1, 1_000_000)] {
            let everything = BinaryCounts {
                true_positives: positives,
                false_positives: negatives,
                ..BinaryCounts::default()
            };
            let prevalence = everything.prevalence();
            assert!((f1(prevalence) - everything.f1()).abs() < 1e-12);
            assert!((iou(prevalence) - everything.iou()).abs() < 1e-12);
            assert!((precision(prevalence) - everything.precision()).abs() < 1e-12);
            assert_eq!(recall(everything.positive_rate()), everything.recall());
        }
    }

    #[test]
    fn a_third_of_positives_makes_f1_one_half_free() {
        assert!((f1(1.0 / 3.0) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn an_unknown_prevalence_gives_an_unknown_floor() {
        for floor in [f1, best_f1, precision, iou, average_precision, accuracy] {
            assert!(floor(f64::NAN).is_nan());
        }
        assert!(balanced_accuracy(0).is_nan());
        assert_eq!(balanced_accuracy(4), 0.25);
    }
}
