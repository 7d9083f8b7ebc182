//! A streaming ranking in constant memory.

use rayon::prelude::*;

use crate::bins::{BINS, bin_of, first_bin_above, lower_edge};
use crate::counts::{BinaryCounts, ratio_or};
use crate::curve::{self, Group};
use crate::error::{Error, check};
use crate::report::{BinaryReport, Scores};
use crate::tally::Tally;

/// Below this many pixels a second thread costs more than it saves.
const PIXELS_PER_THREAD: usize = 1 << 22;

/// Probabilities of any number of pixels, counted in 383,426 bins for each class (6.1 MB).
///
/// Bins have a constant relative width of at most `2^-13` measured from the nearer of 0 and 1, so the
/// ranking survives when all probabilities crowd at one end. Within a bin pixels are tied. The
/// result depends on nothing but the multiset of pixels: not on their order, nor on the way they
/// were split over calls, threads or [`merge`](Self::merge).
///
/// What can go wrong in the input is counted, not hidden: [`ignored`](Self::ignored) labels,
/// [`non_finite`](Self::non_finite) probabilities (left out) and [`out_of_range`](Self::out_of_range)
/// ones (clamped to `[0, 1]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinaryHistogram {
    tally: Tally,
    /// `[negatives, positives]` of each bin, ascending.
    counts: Vec<[u64; 2]>,
}

impl Default for BinaryHistogram {
    fn default() -> Self {
        Self::new()
    }
}

impl BinaryHistogram {
    /// A histogram without pixels.
    pub fn new() -> Self {
        Self { tally: Tally::default(), counts: vec![[0; 2]; BINS] }
    }

    /// Counts one probability for each label.
    ///
    /// # Errors
    ///
    /// When the lengths differ or a label is above 1; nothing is counted then.
    pub fn push(&mut self, probabilities: &[f32], labels: &[i8]) -> Result<(), Error> {
        check(probabilities, labels)?;
        self.push_checked(probabilities, labels);
        Ok(())
    }

    /// As [`push`](Self::push), on all threads of the current rayon pool; the same result.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_parallel(&mut self, probabilities: &[f32], labels: &[i8]) -> Result<(), Error> {
        check(probabilities, labels)?;
        let shares = (probabilities.len() / PIXELS_PER_THREAD).min(rayon::current_num_threads());
        if shares < 2 {
            self.push_checked(probabilities, labels);
            return Ok(());
        }
        let share = probabilities.len().div_ceil(shares);
        let parts: Vec<Self> = probabilities
            .par_chunks(share)
            .zip(labels.par_chunks(share))
            .map(|(probabilities, labels)| {
                let mut part = Self::new();
                part.push_checked(probabilities, labels);
                part
            })
            .collect();
        for part in &parts {
            self.merge(part);
        }
        Ok(())
    }

    pub(crate) fn push_checked(&mut self, probabilities: &[f32], labels: &[i8]) {
        let counts = &mut self.counts;
        self.tally.sift(probabilities, labels, |probability, positive| {
            counts[bin_of(probability)][usize::from(positive)] += 1;
        });
    }

    /// Takes over pixels that were sifted elsewhere, with their tally.
    pub(crate) fn from_sifted(tally: Tally, negatives: &[f32], positives: &[f32]) -> Self {
        let mut histogram = Self::new();
        histogram.tally = tally;
        for (class, probabilities) in [negatives, positives].into_iter().enumerate() {
            for &probability in probabilities {
                histogram.counts[bin_of(probability)][class] += 1;
            }
        }
        histogram
    }

    /// Adds the pixels of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.tally.merge(&other.tally);
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            mine[0] += theirs[0];
            mine[1] += theirs[1];
        }
    }

    /// Pixels counted: labelled 0 or 1, with a finite probability.
    pub fn valid(&self) -> u64 {
        self.tally.valid()
    }

    /// Pixels left out because their label is negative.
    pub fn ignored(&self) -> u64 {
        self.tally.ignored
    }

    /// Labelled pixels left out because their probability is `NaN` or infinite.
    pub fn non_finite(&self) -> u64 {
        self.tally.non_finite
    }

    /// Pixels counted after clamping a finite probability to `[0, 1]`. More than rounding errors of
    /// a softmax means that logits were given for probabilities.
    pub fn out_of_range(&self) -> u64 {
        self.tally.out_of_range
    }

    /// Fraction of valid pixels labelled positive; `NaN` without valid pixels.
    pub fn prevalence(&self) -> f64 {
        self.tally.prevalence()
    }

    /// Mean probability of the valid pixels, to within `2^-48`; `NaN` without valid pixels.
    pub fn mean_probability(&self) -> f64 {
        self.tally.mean_probability()
    }

    /// Fraction of valid pixels predicted positive at `threshold` (rounded as in
    /// [`counts_at`](Self::counts_at)); `NaN` without valid pixels.
    pub fn positive_rate(&self, threshold: f64) -> f64 {
        let counts = self.counts_at(threshold);
        ratio_or(counts.predicted_positives(), counts.total(), f64::NAN)
    }

    /// The threshold that [`counts_at`](Self::counts_at) uses for `threshold`: the nearest bin edge,
    /// at a relative distance of at most `2^-14` from the nearer of 0 and 1.
    pub fn effective_threshold(threshold: f64) -> f64 {
        lower_edge(first_bin_above(threshold))
    }

    /// The confusion matrix of the prediction `probability > threshold`.
    ///
    /// Exact when the threshold is a bin edge: 1/2, every multiple of 1/4096 up to 1/2 and its mirror
    /// image, and what [`best_threshold`](Self::best_threshold) returns. Otherwise the threshold is
    /// rounded to [`effective_threshold`](Self::effective_threshold). A negative threshold predicts
    /// everything positive; `NaN` and 1 or more, nothing.
    pub fn counts_at(&self, threshold: f64) -> BinaryCounts {
        let above = &self.counts[first_bin_above(threshold)..];
        let (false_positives, true_positives) =
            above.iter().fold((0, 0), |(fp, tp), bin| (fp + bin[0], tp + bin[1]));
        curve::counts(true_positives, false_positives, self.tally.positives, self.tally.negatives)
    }

    /// Area under the ROC curve, ties counted one half; `NaN` unless both classes are present.
    pub fn auc(&self) -> f64 {
        curve::auc(self.groups())
    }

    /// The most by which [`auc`](Self::auc) can differ from the exact one: half the fraction of
    /// positive-negative pairs that share a bin. `NaN` unless both classes are present.
    ///
    /// It is large when the network answers (nearly) the same for every pixel.
    pub fn auc_error_bound(&self) -> f64 {
        curve::auc_error_bound(self.groups())
    }

    /// Average precision, `sum (R_n - R_(n-1)) P_n`; `NaN` when no pixel is positive.
    ///
    /// Ties lower it: with a bin counted at the precision of its end, it is below the exact value by
    /// about half the change of precision over a bin. That is under 1e-3 unless all probabilities lie in
    /// a hundred bins or so (an interval of .002 around 1/3: 5e-3).
    pub fn average_precision(&self) -> f64 {
        curve::average_precision(self.groups())
    }

    /// The threshold with the highest F1, and that F1. Among equals, the highest threshold.
    ///
    /// The threshold is -1 when predicting everything positive is best and some probability is 0.
    /// `(NaN, 0)` when no pixel is positive.
    pub fn best_threshold(&self) -> (f64, f64) {
        curve::best_threshold(self.groups(), self.tally.positives)
    }

    /// All metrics at `threshold`, each with its floor.
    pub fn report(&self, threshold: f64) -> BinaryReport {
        let scores = Scores {
            counts: self.counts_at(threshold),
            auc: self.auc(),
            average_precision: self.average_precision(),
            best: self.best_threshold(),
        };
        BinaryReport::new(threshold, &self.tally, &scores)
    }

    fn groups(&self) -> impl Iterator<Item = Group> {
        self.counts
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, counts)| **counts != [0, 0])
            .map(|(bin, &[negatives, positives])| Group { threshold: lower_edge(bin), positives, negatives })
    }
}
