//! Metrics of a classifier of `K` classes, each beside its floor. Equal to scikit-learn's.
//!
//! Axes: n = case, k = class. The predicted class is the most probable one, of equals the first.

use serde::Serialize;

use crate::counts::ratio_or;
use crate::error::Error;
use crate::exact;
use crate::floors;
use crate::overlap::mean;
use crate::report::MetricValue;

/// Probabilities and labels of every case so far.
///
/// Cases of a classifier are few, one for a volume or picture, so all are kept and all metrics are exact.
#[derive(Clone, Debug)]
pub struct ClassificationEvaluator {
    classes: usize,
    /// `[n, k]`.
    probabilities: Vec<f32>,
    labels: Vec<u32>,
    ignored: u64,
    non_finite: u64,
}

impl ClassificationEvaluator {
    /// Bins of the calibration error.
    pub const BINS: usize = 15;
    /// Most classes; a confusion matrix of these takes 128 MB.
    pub const MAX_CLASSES: usize = 4096;

    /// No cases of `classes` classes, 2 to [`MAX_CLASSES`](Self::MAX_CLASSES).
    ///
    /// # Errors
    ///
    /// When there are fewer or more classes.
    pub fn new(classes: usize) -> Result<Self, Error> {
        if !(2..=Self::MAX_CLASSES).contains(&classes) {
            return Err(Error::Classes { found: classes, least: 2, most: Self::MAX_CLASSES });
        }
        Ok(Self { classes, probabilities: Vec::new(), labels: Vec::new(), ignored: 0, non_finite: 0 })
    }

    /// Adds cases. Those with a label below 0 or a probability that is not finite are counted and left out.
    ///
    /// # Shapes
    /// - probabilities `[n, k]`, in `[0, 1]` and each row of sum 1 (clamped, but not checked), labels `[n]`
    ///
    /// # Errors
    ///
    /// When there are not `k` probabilities for each label, or a label is `k` or more; nothing is added then.
    pub fn push(&mut self, probabilities: &[f32], labels: &[i32]) -> Result<(), Error> {
        let classes = self.classes;
        if labels.len().checked_mul(classes) != Some(probabilities.len()) {
            return Err(Error::Length { probabilities: probabilities.len(), labels: labels.len() });
        }
        if let Some(index) = labels.iter().position(|&label| label >= classes as i32) {
            return Err(Error::Class { what: "label", index, value: i64::from(labels[index]), classes });
        }
        for (row, &label) in probabilities.chunks_exact(classes).zip(labels) {
            match u32::try_from(label) {
                Err(_) => self.ignored += 1,
                Ok(_) if row.iter().any(|probability| !probability.is_finite()) => self.non_finite += 1,
                Ok(label) => {
                    self.labels.push(label);
                    self.probabilities.extend(row.iter().map(|probability| probability.clamp(0.0, 1.0)));
                }
            }
        }
        Ok(())
    }

    /// Adds the cases of `other`.
    ///
    /// # Errors
    ///
    /// When `other` has another number of classes.
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        if other.classes != self.classes {
            return Err(Error::Classes { found: other.classes, least: self.classes, most: self.classes });
        }
        self.labels.extend(&other.labels);
        self.probabilities.extend(&other.probabilities);
        self.ignored += other.ignored;
        self.non_finite += other.non_finite;
        Ok(())
    }

    /// Cases counted.
    pub fn valid(&self) -> u64 {
        self.labels.len() as u64
    }

    /// Cases by label and predicted class, `[label, predicted]`.
    pub fn confusion(&self) -> Vec<Vec<u64>> {
        let mut confusion = vec![vec![0; self.classes]; self.classes];
        for (row, label) in self.rows() {
            confusion[label][most_probable(row).0] += 1;
        }
        confusion
    }

    /// Area under the ROC curve of class `class` against the rest; `NaN` unless both occur.
    fn auc(&self, class: usize) -> f64 {
        let probabilities: Vec<f32> = self.rows().map(|(row, _)| row[class]).collect();
        let labels: Vec<i8> = self.rows().map(|(_, label)| i8::from(label == class)).collect();
        exact::auc(&probabilities, &labels).unwrap_or(f64::NAN)
    }

    /// Expected calibration error of the predicted class: Guo et al. 2017, <https://arxiv.org/abs/1706.04599>.
    /// `sum_bins |cases| / n * |accuracy - mean confidence|` over bins of equal width, each with its upper edge.
    /// In `[0, 1]`; `NaN` without cases.
    pub fn calibration_error(&self, bins: usize) -> f64 {
        if self.labels.is_empty() || bins == 0 {
            return f64::NAN;
        }
        let mut gaps = vec![0.0_f64; bins];
        for (row, label) in self.rows() {
            let (class, confidence) = most_probable(row);
            let bin = (f64::from(confidence) * bins as f64).ceil() as usize;
            gaps[bin.clamp(1, bins) - 1] += f64::from(u8::from(class == label)) - f64::from(confidence);
        }
        gaps.iter().map(|gap| gap.abs()).sum::<f64>() / self.labels.len() as f64
    }

    /// Mean of `-ln p(label)`, probabilities kept off 0 and 1 by the precision of an `f32`, as scikit-learn does.
    fn log_loss(&self) -> f64 {
        let margin = f64::from(f32::EPSILON);
        let sum: f64 =
            self.rows().map(|(row, label)| -f64::from(row[label]).clamp(margin, 1.0 - margin).ln()).sum();
        sum / self.labels.len() as f64
    }

    /// All metrics, each with its floor.
    pub fn report(&self) -> ClassificationReport {
        let confusion = self.confusion();
        let total = self.valid();
        let per_class: Vec<ClassScores> =
            (0..self.classes).map(|class| ClassScores::new(class, &confusion, self.auc(class))).collect();
        let hits: u64 = (0..self.classes).map(|class| confusion[class][class]).sum();
        let prevalence = |class: usize| per_class[class].prevalence;
        let most = per_class.iter().map(|class| class.prevalence).fold(0.0, f64::max);
        let binary = self.classes == 2;
        let (f1, f1_floor, auc) = if binary {
            (per_class[1].f1.value, per_class[1].f1.floor, per_class[1].auc.value)
        } else {
            (f64::NAN, None, mean(per_class.iter().map(|class| class.auc.value)))
        };
        let seen = per_class.iter().filter(|class| class.support > 0).count();
        let macro_f1 = per_class.iter().map(|class| class.f1.value).sum::<f64>() / self.classes as f64;
        let entropy: f64 = (0..self.classes)
            .map(prevalence)
            .filter(|&share| share > 0.0)
            .map(|share| -share * share.ln())
            .sum();
        let of = |name, value: f64, floor: f64, higher_is_better| MetricValue {
            name,
            value: if total == 0 { f64::NAN } else { value },
            floor: Some(if total == 0 { f64::NAN } else { floor }),
            higher_is_better: Some(higher_is_better),
        };
        let mut metrics = vec![
            of("accuracy", ratio_or(hits, total, f64::NAN), most, true),
            of(
                "balanced_accuracy",
                mean(per_class.iter().filter(|class| class.support > 0).map(|class| class.recall.value)),
                floors::balanced_accuracy(seen),
                true,
            ),
            of("macro_f1", macro_f1, floors::macro_f1(most, self.classes), true),
            of("auc", auc, floors::auc(), true),
            of("log_loss", self.log_loss(), entropy, false),
            MetricValue {
                floor: None,
                ..of("calibration_error", self.calibration_error(Self::BINS), f64::NAN, false)
            },
        ];
        if let Some(floor) = f1_floor {
            metrics.insert(2, of("f1", f1, floor, true));
        }
        ClassificationReport {
            classes: self.classes,
            valid: total,
            ignored: self.ignored,
            non_finite: self.non_finite,
            confusion,
            metrics,
            per_class,
        }
    }

    fn rows(&self) -> impl Iterator<Item = (&[f32], usize)> {
        self.probabilities
            .chunks_exact(self.classes)
            .zip(&self.labels)
            .map(|(row, &label)| (row, label as usize))
    }
}

/// The class of the highest probability, of equals the first, and that probability.
fn most_probable(row: &[f32]) -> (usize, f32) {
    let first = (0, row.first().copied().unwrap_or(f32::NAN));
    row.iter().copied().enumerate().fold(first, |best, next| if next.1 > best.1 { next } else { best })
}

/// One class against the rest. A ratio whose denominator is zero is 0, as scikit-learn's with `zero_division=0`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassScores {
    /// The class.
    pub class: usize,
    /// Cases labelled as this class.
    pub support: u64,
    /// Their share; `NaN` without cases.
    pub prevalence: f64,
    /// Share of the class's cases that are predicted as it. Floor: the share of all cases that are.
    pub recall: MetricValue,
    /// Share of the predictions of the class that are right. Floor: the prevalence.
    pub precision: MetricValue,
    /// Harmonic mean of both. Floor: predicting the class always.
    pub f1: MetricValue,
    /// Area under the ROC curve of its probability; `NaN` unless the class and others occur. Floor: 1/2.
    pub auc: MetricValue,
}

impl ClassScores {
    fn new(class: usize, confusion: &[Vec<u64>], auc: f64) -> Self {
        let total: u64 = confusion.iter().flatten().sum();
        let hits = confusion[class][class];
        let support: u64 = confusion[class].iter().sum();
        let predicted: u64 = confusion.iter().map(|row| row[class]).sum();
        let prevalence = ratio_or(support, total, f64::NAN);
        let of = |name, value: f64, floor| MetricValue {
            name,
            value: if total == 0 { f64::NAN } else { value },
            floor: Some(floor),
            higher_is_better: Some(true),
        };
        let positive_rate = ratio_or(predicted, total, f64::NAN);
        Self {
            class,
            support,
            prevalence,
            recall: of("recall", ratio_or(hits, support, 0.0), floors::recall(positive_rate)),
            precision: of("precision", ratio_or(hits, predicted, 0.0), floors::precision(prevalence)),
            f1: of("f1", ratio_or(2 * hits, support + predicted, 0.0), floors::f1(prevalence)),
            auc: of("auc", auc, floors::auc()),
        }
    }
}

/// Every metric of a classifier.
///
/// In this order: `accuracy`, `balanced_accuracy`, `f1` (of class 1; only of two classes), `macro_f1`, `auc` (of class
/// 1; of more than two classes the mean of each against the rest, over those for which it is defined), `log_loss`
/// (nats), `calibration_error` ([`ClassificationEvaluator::BINS`] bins). Without cases all are `NaN`.
///
/// The floors are those of always answering one class, for the log loss of always answering the prevalences. The
/// calibration error has none: always answering the prevalences is calibrated perfectly.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassificationReport {
    /// Number of classes.
    pub classes: usize,
    /// Cases counted.
    pub valid: u64,
    /// Cases left out because their label is negative.
    pub ignored: u64,
    /// Labelled cases left out because a probability is not finite.
    pub non_finite: u64,
    /// Cases by label and predicted class, `[label, predicted]`.
    pub confusion: Vec<Vec<u64>>,
    /// The metrics over all classes.
    pub metrics: Vec<MetricValue>,
    /// The metrics of each class.
    pub per_class: Vec<ClassScores>,
}

impl ClassificationReport {
    /// The metric of that name.
    pub fn get(&self, name: &str) -> Option<&MetricValue> {
        self.metrics.iter().find(|metric| metric.name == name)
    }

    /// The metrics over all classes, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, MetricValue> {
        self.metrics.iter()
    }
}
