//! Overlap of class maps, counted over any number of volumes or pictures.

use serde::{Deserialize, Serialize};

use crate::counts::ratio_or;
use crate::error::Error;

/// The label of voxels that count nowhere.
pub const IGNORE: u8 = 255;

/// Voxels of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCounts {
    /// Voxels both labelled and predicted as this class.
    pub both: u64,
    /// Voxels labelled as this class.
    pub labelled: u64,
    /// Voxels predicted as this class.
    pub predicted: u64,
}

impl ClassCounts {
    /// `2 both / (labelled + predicted)`; `NaN` when the class occurs in neither, as nnU-Net.
    pub fn dice(&self) -> f64 {
        ratio_or(2 * self.both, self.labelled + self.predicted, f64::NAN)
    }

    /// `both / (labelled + predicted - both)`; `NaN` when the class occurs in neither.
    pub fn iou(&self) -> f64 {
        ratio_or(self.both, self.labelled + self.predicted - self.both, f64::NAN)
    }

    /// `both / labelled`; `NaN` when the class is not labelled.
    pub fn recall(&self) -> f64 {
        ratio_or(self.both, self.labelled, f64::NAN)
    }

    /// `both / predicted`; `NaN` when the class is not predicted.
    pub fn precision(&self) -> f64 {
        ratio_or(self.both, self.predicted, f64::NAN)
    }
}

/// Counts of every class over a stream of class maps. Voxels labelled [`IGNORE`] are left out, whatever is predicted
/// there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlapCounts {
    /// By class.
    pub classes: Vec<ClassCounts>,
    /// Voxels left out.
    pub ignored: u64,
}

impl OverlapCounts {
    /// No voxels of `classes` classes, 1 to 255.
    ///
    /// # Errors
    ///
    /// When there are fewer or more classes.
    pub fn new(classes: usize) -> Result<Self, Error> {
        if !(1..=usize::from(IGNORE)).contains(&classes) {
            return Err(Error::Classes { found: classes, least: 1, most: usize::from(IGNORE) });
        }
        Ok(Self { classes: vec![ClassCounts::default(); classes], ignored: 0 })
    }

    /// Counts one predicted class for each label.
    ///
    /// # Errors
    ///
    /// When the lengths differ, or a voxel that is not ignored has a label or prediction outside the classes; nothing
    /// is counted then.
    pub fn push(&mut self, prediction: &[u8], labels: &[u8]) -> Result<(), Error> {
        if prediction.len() != labels.len() {
            return Err(Error::Voxels { voxels: prediction.len(), shape: [1, 1, labels.len()] });
        }
        // Four tables of pairs would be faster still; one is enough to keep up with reading the volumes.
        let mut pairs = vec![0_u64; 1 << 16];
        for (&predicted, &label) in prediction.iter().zip(labels) {
            pairs[usize::from(label) << 8 | usize::from(predicted)] += 1;
        }
        let classes = self.classes.len();
        let counted = &pairs[..usize::from(IGNORE) << 8];
        let stray =
            |&(pair, &count): &(usize, &u64)| count > 0 && (pair >> 8 >= classes || pair & 255 >= classes);
        if counted.iter().enumerate().any(|pair| stray(&pair)) {
            return Err(self.stray(prediction, labels));
        }
        for label in 0..classes {
            for predicted in 0..classes {
                let count = pairs[label << 8 | predicted];
                self.classes[label].labelled += count;
                self.classes[predicted].predicted += count;
                if label == predicted {
                    self.classes[label].both += count;
                }
            }
        }
        self.ignored += pairs[usize::from(IGNORE) << 8..].iter().sum::<u64>();
        Ok(())
    }

    /// The first label or prediction outside the classes.
    fn stray(&self, prediction: &[u8], labels: &[u8]) -> Error {
        let classes = self.classes.len();
        for (index, (&predicted, &label)) in prediction.iter().zip(labels).enumerate() {
            let stray = |what, value: u8| Error::Class { what, index, value: i64::from(value), classes };
            if label != IGNORE && usize::from(label) >= classes {
                return stray("label", label);
            }
            if label != IGNORE && usize::from(predicted) >= classes {
                return stray("prediction", predicted);
            }
        }
        Error::Classes { found: classes, least: 1, most: usize::from(IGNORE) }
    }

    /// Adds the voxels of `other`; classes that `self` does not have are added.
    pub fn merge(&mut self, other: &Self) {
        if self.classes.len() < other.classes.len() {
            self.classes.resize(other.classes.len(), ClassCounts::default());
        }
        for (mine, theirs) in self.classes.iter_mut().zip(&other.classes) {
            mine.both += theirs.both;
            mine.labelled += theirs.labelled;
            mine.predicted += theirs.predicted;
        }
        self.ignored += other.ignored;
    }

    /// Voxels counted.
    pub fn valid(&self) -> u64 {
        self.classes.iter().map(|class| class.labelled).sum()
    }

    /// Mean intersection over union of the classes that occur; `NaN` when none does.
    pub fn mean_iou(&self) -> f64 {
        mean(self.classes.iter().map(ClassCounts::iou))
    }

    /// Mean Dice of the classes that occur; `NaN` when none does.
    pub fn mean_dice(&self) -> f64 {
        mean(self.classes.iter().map(ClassCounts::dice))
    }

    /// Share of voxels predicted as labelled; `NaN` without voxels.
    pub fn accuracy(&self) -> f64 {
        ratio_or(self.classes.iter().map(|class| class.both).sum(), self.valid(), f64::NAN)
    }
}

/// Mean of the values that are not `NaN`; `NaN` when none is.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values
        .filter(|value| !value.is_nan())
        .fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { f64::NAN } else { sum / count as f64 }
}
