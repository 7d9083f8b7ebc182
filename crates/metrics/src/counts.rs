//! The confusion matrix of a binary prediction and the scores that follow from it.

use serde::{Deserialize, Serialize};

use crate::error::{Error, check};

/// A binary confusion matrix, in pixels.
///
/// Scores follow scikit-learn with `zero_division=0`: a ratio whose denominator is zero is 0, except
/// that a *rate over all pixels* (accuracy, positive rate, prevalence) of no pixels at all is `NaN`,
/// because 0 would be a statement about pixels that do not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinaryCounts {
    /// Positive pixels predicted positive.
    pub true_positives: u64,
    /// Negative pixels predicted positive.
    pub false_positives: u64,
    /// Positive pixels predicted negative.
    pub false_negatives: u64,
    /// Negative pixels predicted negative.
    pub true_negatives: u64,
}

impl BinaryCounts {
    /// Counts `probabilities` against `labels` with the prediction `probability > threshold`.
    ///
    /// Ignored labels and non-finite probabilities are left out.
    ///
    /// # Errors
    ///
    /// When the lengths differ or a label is above 1.
    pub fn count(probabilities: &[f32], labels: &[i8], threshold: f64) -> Result<Self, Error> {
        check(probabilities, labels)?;
        let mut counts = Self::default();
        for (&probability, &label) in probabilities.iter().zip(labels) {
            if label < 0 || !probability.is_finite() {
                continue;
            }
            match (label == 1, f64::from(probability) > threshold) {
                (true, true) => counts.true_positives += 1,
                (false, true) => counts.false_positives += 1,
                (true, false) => counts.false_negatives += 1,
                (false, false) => counts.true_negatives += 1,
            }
        }
        Ok(counts)
    }

    /// Pixels counted.
    pub fn total(&self) -> u64 {
        self.positives() + self.false_positives + self.true_negatives
    }

    /// Pixels whose label is positive.
    pub fn positives(&self) -> u64 {
        self.true_positives + self.false_negatives
    }

    /// Pixels predicted positive.
    pub fn predicted_positives(&self) -> u64 {
        self.true_positives + self.false_positives
    }

    /// `2 tp / (2 tp + fp + fn)`, the harmonic mean of precision and recall (also called Dice).
    /// 0 when no pixel is positive in either label or prediction.
    pub fn f1(&self) -> f64 {
        let denominator = self.positives() + self.predicted_positives();
        ratio_or(2 * self.true_positives, denominator, 0.0)
    }

    /// `tp / (tp + fp)`; 0 when nothing is predicted positive.
    pub fn precision(&self) -> f64 {
        ratio_or(self.true_positives, self.predicted_positives(), 0.0)
    }

    /// `tp / (tp + fn)`; 0 when no label is positive.
    pub fn recall(&self) -> f64 {
        ratio_or(self.true_positives, self.positives(), 0.0)
    }

    /// `tp / (tp + fp + fn)`, the Jaccard index; 0 when no pixel is positive in either.
    pub fn iou(&self) -> f64 {
        let union = self.positives() + self.false_positives;
        ratio_or(self.true_positives, union, 0.0)
    }

    /// `(tp + tn) / all`; `NaN` when nothing was counted.
    pub fn accuracy(&self) -> f64 {
        ratio_or(self.true_positives + self.true_negatives, self.total(), f64::NAN)
    }

    /// Fraction of pixels predicted positive; `NaN` when nothing was counted.
    pub fn positive_rate(&self) -> f64 {
        ratio_or(self.predicted_positives(), self.total(), f64::NAN)
    }

    /// Fraction of pixels labelled positive; `NaN` when nothing was counted.
    pub fn prevalence(&self) -> f64 {
        ratio_or(self.positives(), self.total(), f64::NAN)
    }

    /// Adds the pixels of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.true_positives += other.true_positives;
        self.false_positives += other.false_positives;
        self.false_negatives += other.false_negatives;
        self.true_negatives += other.true_negatives;
    }
}

/// `numerator / denominator`, or `undefined` when the denominator is zero.
pub(crate) fn ratio_or(numerator: u64, denominator: u64, undefined: f64) -> f64 {
    if denominator == 0 { undefined } else { numerator as f64 / denominator as f64 }
}
