//! Rank metrics without bins, for inputs small enough to sort.

use crate::curve::{self, Group};
use crate::error::{Error, check};
use crate::tally::Tally;

/// Area under the ROC curve, ties counted one half, as scikit-learn's `roc_auc_score`.
/// `NaN` unless both classes are present.
///
/// # Errors
///
/// When the lengths differ or a label is above 1.
pub fn auc(probabilities: &[f32], labels: &[i8]) -> Result<f64, Error> {
    Ok(curve::auc(groups(probabilities, labels)?.into_iter()))
}

/// Average precision, as scikit-learn's `average_precision_score`; `NaN` when no pixel is positive
/// (scikit-learn: 0 and a warning).
///
/// # Errors
///
/// When the lengths differ or a label is above 1.
pub fn average_precision(probabilities: &[f32], labels: &[i8]) -> Result<f64, Error> {
    Ok(curve::average_precision(groups(probabilities, labels)?.into_iter()))
}

/// The threshold with the highest F1 under the prediction `probability > threshold`, and that F1.
/// Among equals, the highest threshold.
///
/// The threshold is the largest probability that is predicted negative, or 0 when none is; -1 when
/// even a probability of 0 has to be predicted positive. `(NaN, 0)` when no pixel is positive.
///
/// # Errors
///
/// When the lengths differ or a label is above 1.
pub fn best_threshold(probabilities: &[f32], labels: &[i8]) -> Result<(f64, f64), Error> {
    let groups = groups(probabilities, labels)?;
    let positives = groups.iter().map(|group| group.positives).sum();
    Ok(curve::best_threshold(groups.into_iter(), positives))
}

fn groups(probabilities: &[f32], labels: &[i8]) -> Result<Vec<Group>, Error> {
    check(probabilities, labels)?;
    let mut store = Store::default();
    store.push(&mut Tally::default(), probabilities, labels);
    Ok(store.groups())
}

/// The probabilities of each class, in the order of arrival.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub negatives: Vec<f32>,
    pub positives: Vec<f32>,
}

impl Store {
    pub fn push(&mut self, tally: &mut Tally, probabilities: &[f32], labels: &[i8]) {
        tally.sift(probabilities, labels, |probability, positive| {
            let class = if positive { &mut self.positives } else { &mut self.negatives };
            class.push(probability);
        });
    }

    /// Pixels above `threshold`: `(positives, negatives)`.
    pub fn above(&self, threshold: f64) -> (u64, u64) {
        let above = |class: &[f32]| class.iter().filter(|&&p| f64::from(p) > threshold).count();
        (above(&self.positives) as u64, above(&self.negatives) as u64)
    }

    /// Groups of equal probability, descending.
    pub fn groups(&self) -> Vec<Group> {
        let negatives = runs(&self.negatives);
        let positives = runs(&self.positives);
        let mut merged: Vec<(u32, u64, u64)> = Vec::with_capacity(positives.len() + negatives.len());
        let (mut n, mut p) = (negatives.iter().peekable(), positives.iter().peekable());
        loop {
            let highest = match (p.peek(), n.peek()) {
                (None, None) => break,
                (Some(&&(bits, _)), None) | (None, Some(&&(bits, _))) => bits,
                (Some(&&(a, _)), Some(&&(b, _))) => a.max(b),
            };
            let positive = p.next_if(|run| run.0 == highest).map_or(0, |run| run.1);
            let negative = n.next_if(|run| run.0 == highest).map_or(0, |run| run.1);
            merged.push((highest, positive, negative));
        }
        let following = merged.iter().skip(1).map(|group| Some(group.0));
        merged
            .iter()
            .zip(following.chain([None]))
            .map(|(&(bits, positives, negatives), next)| Group {
                threshold: match next {
                    Some(next) => f64::from(f32::from_bits(next)),
                    None if bits > 0 => 0.0,
                    None => -1.0,
                },
                positives,
                negatives,
            })
            .collect()
    }
}

/// `(bit pattern, pixels)` of each distinct probability, descending. Patterns of non-negative floats
/// sort as the floats do, and as integers they sort faster.
fn runs(probabilities: &[f32]) -> Vec<(u32, u64)> {
    // Without the sign, so that -0 is 0.
    let mut bits: Vec<u32> = probabilities.iter().map(|p| p.to_bits() & 0x7FFF_FFFF).collect();
    bits.sort_unstable_by(|a, b| b.cmp(a));
    bits.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as u64)).collect()
}
