//! Exact while small, constant memory when large.

use crate::counts::{BinaryCounts, ratio_or};
use crate::curve;
use crate::error::{Error, check};
use crate::exact::Store;
use crate::histogram::BinaryHistogram;
use crate::report::{BinaryReport, Scores};
use crate::tally::Tally;

/// Metrics of a stream of pixels: exact up to a number of valid pixels, from a [`BinaryHistogram`]
/// beyond it.
///
/// Whether the result is exact depends on the number of valid pixels alone, not on how they arrived.
#[derive(Clone, Debug)]
pub struct BinaryEvaluator {
    exact_limit: usize,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Exact(Tally, Store),
    Binned(Box<BinaryHistogram>),
}

impl Default for BinaryEvaluator {
    fn default() -> Self {
        Self::new()
    }
}

impl BinaryEvaluator {
    /// Valid pixels kept exactly by [`new`](Self::new): `2^20`, at most 4 MB.
    pub const EXACT_LIMIT: usize = 1 << 20;

    /// An evaluator without pixels, exact up to [`EXACT_LIMIT`](Self::EXACT_LIMIT) valid pixels.
    pub fn new() -> Self {
        Self::with_exact_limit(Self::EXACT_LIMIT)
    }

    /// An evaluator without pixels, exact up to `exact_limit` valid pixels (4 bytes each).
    pub fn with_exact_limit(exact_limit: usize) -> Self {
        Self { exact_limit, state: State::Exact(Tally::default(), Store::default()) }
    }

    /// Counts one probability for each label.
    ///
    /// # Errors
    ///
    /// When the lengths differ or a label is above 1; nothing is counted then.
    pub fn push(&mut self, probabilities: &[f32], labels: &[i8]) -> Result<(), Error> {
        check(probabilities, labels)?;
        // By pieces, so that one huge call cannot exceed the limit by more than a piece.
        const PIECE: usize = 1 << 18;
        let (mut probabilities, mut labels) = (probabilities, labels);
        while let State::Exact(tally, store) = &mut self.state {
            let piece = probabilities.len().min(PIECE);
            if piece == 0 {
                return Ok(());
            }
            store.push(tally, &probabilities[..piece], &labels[..piece]);
            (probabilities, labels) = (&probabilities[piece..], &labels[piece..]);
            self.spill_if_over_limit();
        }
        if let State::Binned(histogram) = &mut self.state {
            histogram.push_checked(probabilities, labels);
        }
        Ok(())
    }

    /// Adds the pixels of `other`. The limit of `self` stays in force.
    pub fn merge(&mut self, other: &Self) {
        match (&mut self.state, &other.state) {
            (State::Exact(tally, store), State::Exact(other_tally, other_store)) => {
                tally.merge(other_tally);
                store.negatives.extend(&other_store.negatives);
                store.positives.extend(&other_store.positives);
            }
            (State::Binned(histogram), _) => histogram.merge(&other.to_histogram()),
            (State::Exact(..), State::Binned(theirs)) => {
                let mut histogram = theirs.clone();
                histogram.merge(&self.to_histogram());
                self.state = State::Binned(histogram);
            }
        }
        self.spill_if_over_limit();
    }

    /// Whether the metrics are exact rather than binned.
    pub fn is_exact(&self) -> bool {
        matches!(self.state, State::Exact(..))
    }

    /// Pixels counted: labelled 0 or 1, with a finite probability.
    pub fn valid(&self) -> u64 {
        match &self.state {
            State::Exact(tally, _) => tally.valid(),
            State::Binned(histogram) => histogram.valid(),
        }
    }

    /// The confusion matrix of the prediction `probability > threshold`; see
    /// [`BinaryHistogram::counts_at`] for thresholds other than 1/2 beyond the exact limit.
    pub fn counts_at(&self, threshold: f64) -> BinaryCounts {
        match &self.state {
            State::Exact(tally, store) => {
                let (true_positives, false_positives) = store.above(threshold);
                curve::counts(true_positives, false_positives, tally.positives, tally.negatives)
            }
            State::Binned(histogram) => histogram.counts_at(threshold),
        }
    }

    /// Fraction of valid pixels predicted positive at `threshold`; `NaN` without valid pixels.
    pub fn positive_rate(&self, threshold: f64) -> f64 {
        let counts = self.counts_at(threshold);
        ratio_or(counts.predicted_positives(), counts.total(), f64::NAN)
    }

    /// Area under the ROC curve, ties counted one half; `NaN` unless both classes are present.
    pub fn auc(&self) -> f64 {
        match &self.state {
            State::Exact(_, store) => curve::auc(store.groups().into_iter()),
            State::Binned(histogram) => histogram.auc(),
        }
    }

    /// Average precision; `NaN` when no pixel is positive.
    pub fn average_precision(&self) -> f64 {
        match &self.state {
            State::Exact(_, store) => curve::average_precision(store.groups().into_iter()),
            State::Binned(histogram) => histogram.average_precision(),
        }
    }

    /// The threshold with the highest F1, and that F1; see [`crate::exact::best_threshold`].
    pub fn best_threshold(&self) -> (f64, f64) {
        match &self.state {
            State::Exact(tally, store) => curve::best_threshold(store.groups().into_iter(), tally.positives),
            State::Binned(histogram) => histogram.best_threshold(),
        }
    }

    /// All metrics at `threshold`, each with its floor.
    pub fn report(&self, threshold: f64) -> BinaryReport {
        match &self.state {
            State::Exact(tally, store) => {
                // One sort for the three rank metrics.
                let groups = store.groups();
                let scores = Scores {
                    counts: self.counts_at(threshold),
                    auc: curve::auc(groups.iter().copied()),
                    average_precision: curve::average_precision(groups.iter().copied()),
                    best: curve::best_threshold(groups.iter().copied(), tally.positives),
                };
                BinaryReport::new(threshold, tally, &scores)
            }
            State::Binned(histogram) => histogram.report(threshold),
        }
    }

    fn spill_if_over_limit(&mut self) {
        if self.is_exact() && self.valid() > self.exact_limit as u64 {
            self.state = State::Binned(Box::new(self.to_histogram()));
        }
    }

    fn to_histogram(&self) -> BinaryHistogram {
        match &self.state {
            State::Exact(tally, store) => {
                BinaryHistogram::from_sifted(tally.clone(), &store.negatives, &store.positives)
            }
            State::Binned(histogram) => (**histogram).clone(),
        }
    }
}
