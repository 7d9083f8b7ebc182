//! Overlap by class over the volumes of a validation set, each beside its floor.
//!
//! Means are over cases first, as nnU-Net's (Isensee et al. 2021, <https://doi.org/10.1038/s41592-020-01008-z>): a case
//! in which a class occurs in neither labels nor prediction has no Dice there and is left out of that class's mean.

use serde::Serialize;

use crate::error::Error;
use crate::overlap::{ClassCounts, OverlapCounts, mean};
use crate::report::MetricValue;

/// Counts of each volume so far.
#[derive(Clone, Debug)]
pub struct VolumeEvaluator {
    classes: usize,
    cases: Vec<OverlapCounts>,
}

impl VolumeEvaluator {
    /// No volumes of `classes` classes, 2 to 255. Class 0 is the background.
    ///
    /// # Errors
    ///
    /// When there are fewer or more classes.
    pub fn new(classes: usize) -> Result<Self, Error> {
        if classes < 2 {
            return Err(Error::Classes { found: classes, least: 2, most: 255 });
        }
        OverlapCounts::new(classes)?;
        Ok(Self { classes, cases: Vec::new() })
    }

    /// Adds a volume; see [`OverlapCounts::push`].
    ///
    /// # Errors
    ///
    /// As [`OverlapCounts::push`].
    pub fn push(&mut self, prediction: &[u8], labels: &[u8]) -> Result<(), Error> {
        let mut counts = OverlapCounts::new(self.classes)?;
        counts.push(prediction, labels)?;
        self.cases.push(counts);
        Ok(())
    }

    /// Adds a volume counted elsewhere, piece by piece.
    ///
    /// # Errors
    ///
    /// When it has another number of classes.
    pub fn push_counts(&mut self, counts: OverlapCounts) -> Result<(), Error> {
        if counts.classes.len() != self.classes {
            return Err(Error::Classes {
                found: counts.classes.len(),
                least: self.classes,
                most: self.classes,
            });
        }
        self.cases.push(counts);
        Ok(())
    }

    /// All metrics, each with its floor.
    pub fn report(&self) -> VolumeReport {
        let per_class: Vec<ClassOverlap> =
            (0..self.classes).map(|class| ClassOverlap::new(class, &self.cases)).collect();
        let over_foreground = |value: &dyn Fn(&ClassOverlap) -> f64| mean(per_class[1..].iter().map(value));
        // The best of the predictors that answer the same class everywhere.
        let best = |score: fn(&ClassCounts) -> f64| {
            let of_constant = |constant: usize| {
                let means = (1..self.classes).map(|class| {
                    mean(self.cases.iter().map(|case| score(&answered(case, class, class == constant))))
                });
                mean(means)
            };
            (0..self.classes).map(of_constant).fold(f64::NAN, f64::max)
        };
        let metric = |name, value, floor| MetricValue { name, value, floor, higher_is_better: Some(true) };
        let mut all = OverlapCounts { classes: vec![ClassCounts::default(); self.classes], ignored: 0 };
        self.cases.iter().for_each(|case| all.merge(case));
        let most = all.classes.iter().map(|class| class.labelled).max().unwrap_or(0);
        VolumeReport {
            classes: self.classes,
            cases: self.cases.len(),
            valid: all.valid(),
            ignored: all.ignored,
            metrics: vec![
                metric("dice", over_foreground(&|class| class.dice.value), Some(best(ClassCounts::dice))),
                metric("iou", over_foreground(&|class| class.iou.value), Some(best(ClassCounts::iou))),
                metric(
                    "accuracy",
                    all.accuracy(),
                    Some(if all.valid() == 0 { f64::NAN } else { most as f64 / all.valid() as f64 }),
                ),
            ],
            per_class,
        }
    }
}

/// The counts of a predictor that answers the class everywhere, or nowhere.
fn answered(case: &OverlapCounts, class: usize, everywhere: bool) -> ClassCounts {
    let labelled = case.classes[class].labelled;
    if everywhere {
        ClassCounts { both: labelled, labelled, predicted: case.valid() }
    } else {
        ClassCounts { both: 0, labelled, predicted: 0 }
    }
}

/// One class over all cases.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassOverlap {
    /// The class; 0 is the background.
    pub class: usize,
    /// Cases in which the class is labelled.
    pub cases_labelled: usize,
    /// Cases in which it is labelled or predicted: those in the means.
    pub cases_counted: usize,
    /// Mean Dice over the cases counted. Floor: the better of the two below.
    pub dice: MetricValue,
    /// Mean intersection over union over the cases counted. Floor: as for Dice.
    pub iou: MetricValue,
    /// Mean Dice of predicting this class everywhere.
    pub dice_everywhere: f64,
    /// Mean Dice of predicting this class nowhere: 0, or `NaN` when it is labelled in no case.
    pub dice_nowhere: f64,
    /// Dice of each case, in order; `NaN` where the class occurs in neither.
    pub dice_by_case: Vec<f64>,
}

impl ClassOverlap {
    fn new(class: usize, cases: &[OverlapCounts]) -> Self {
        let blind = |score: fn(&ClassCounts) -> f64, everywhere| {
            mean(cases.iter().map(|case| score(&answered(case, class, everywhere))))
        };
        let metric = |name, score: fn(&ClassCounts) -> f64| MetricValue {
            name,
            value: mean(cases.iter().map(|case| score(&case.classes[class]))),
            floor: Some(blind(score, true).max(blind(score, false))),
            higher_is_better: Some(true),
        };
        let counted =
            |case: &&OverlapCounts| case.classes[class].labelled + case.classes[class].predicted > 0;
        Self {
            class,
            cases_labelled: cases.iter().filter(|case| case.classes[class].labelled > 0).count(),
            cases_counted: cases.iter().filter(counted).count(),
            dice: metric("dice", ClassCounts::dice),
            iou: metric("iou", ClassCounts::iou),
            dice_everywhere: blind(ClassCounts::dice, true),
            dice_nowhere: blind(ClassCounts::dice, false),
            dice_by_case: cases.iter().map(|case| case.classes[class].dice()).collect(),
        }
    }
}

/// Every metric of a set of segmented volumes.
///
/// In this order: `dice` and `iou`, the means over the foreground classes (all but 0) of their means over cases, and
/// `accuracy` over all voxels. Floors are those of the best predictor that answers one class everywhere. Without
/// volumes all are `NaN`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VolumeReport {
    /// Number of classes.
    pub classes: usize,
    /// Number of volumes.
    pub cases: usize,
    /// Voxels counted.
    pub valid: u64,
    /// Voxels left out because their label is [`IGNORE`](crate::overlap::IGNORE).
    pub ignored: u64,
    /// The metrics over all foreground classes.
    pub metrics: Vec<MetricValue>,
    /// The metrics of each class, the background first.
    pub per_class: Vec<ClassOverlap>,
}

impl VolumeReport {
    /// The metric of that name.
    pub fn get(&self, name: &str) -> Option<&MetricValue> {
        self.metrics.iter().find(|metric| metric.name == name)
    }

    /// The metrics over all foreground classes, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, MetricValue> {
        self.metrics.iter()
    }
}
