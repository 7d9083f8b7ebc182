//! What every binary metric keeps besides the ranking: class totals, left-out pixels, the sum of
//! probabilities.

use crate::counts::ratio_or;

/// Probabilities are summed as integers in units of `2^-48`: integer addition is associative, so the
/// sum does not depend on the order of the pixels, nor on how they were split over threads. The
/// error of one term is at most `2^-49`.
const UNITS_PER_ONE: f64 = (1_u64 << 48) as f64;
/// Adding 16 puts the unit `2^-48` at the last mantissa bit of an `f64`.
const ALIGN: f64 = 16.0;

/// Pixels of a chunk: `2^14` probabilities of at most `2^48` units fit a `u64` easily.
pub(crate) const CHUNK: usize = 1 << 14;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub positives: u64,
    pub negatives: u64,
    pub ignored: u64,
    pub non_finite: u64,
    pub out_of_range: u64,
    sum_units: u128,
}

impl Tally {
    /// Calls `each(probability, is_positive)` for every valid pixel, with the probability in `[0, 1]`.
    /// The caller has checked lengths and labels.
    #[inline]
    pub fn sift(&mut self, probabilities: &[f32], labels: &[i8], mut each: impl FnMut(f32, bool)) {
        for (probabilities, labels) in probabilities.chunks(CHUNK).zip(labels.chunks(CHUNK)) {
            let (mut positives, mut valid, mut ignored, mut units) = (0_u64, 0_u64, 0_u64, 0_u64);
            for (&given, &label) in probabilities.iter().zip(labels) {
                if label < 0 {
                    ignored += 1;
                    continue;
                }
                let probability = if (0.0..=1.0).contains(&given) {
                    given
                } else if given.is_finite() {
                    self.out_of_range += 1;
                    given.clamp(0.0, 1.0)
                } else {
                    self.non_finite += 1;
                    continue;
                };
                valid += 1;
                positives += u64::from(label == 1);
                units += (f64::from(probability) + ALIGN).to_bits() - ALIGN.to_bits();
                each(probability, label == 1);
            }
            self.positives += positives;
            self.negatives += valid - positives;
            self.ignored += ignored;
            self.sum_units += u128::from(units);
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.positives += other.positives;
        self.negatives += other.negatives;
        self.ignored += other.ignored;
        self.non_finite += other.non_finite;
        self.out_of_range += other.out_of_range;
        self.sum_units += other.sum_units;
    }

    pub fn valid(&self) -> u64 {
        self.positives + self.negatives
    }

    pub fn prevalence(&self) -> f64 {
        ratio_or(self.positives, self.valid(), f64::NAN)
    }

    pub fn mean_probability(&self) -> f64 {
        if self.valid() == 0 {
            return f64::NAN;
        }
        self.sum_units as f64 / UNITS_PER_ONE / self.valid() as f64
    }
}
