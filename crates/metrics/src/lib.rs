//! Streaming metrics on plain arrays. Every metric knows its *trivial floor*: the score that a
//! predictor without any knowledge of the image reaches, such as "everything is foreground".
//!
//! A metric without its floor misleads: F1 .47 is a fair score at a prevalence of .02, and worse
//! than no network at all at a prevalence of .33, where predicting foreground everywhere scores .50.
//!
//! Conventions used throughout:
//!
//! - probabilities are `f32` in `[0, 1]`; labels are `i8`: 1 positive, 0 negative, below 0 ignored;
//! - a pixel is predicted positive when its probability is *greater than* the threshold;
//! - a quantity that is undefined (the AUC when only one class is present) is `NaN`;
//! - volumes are `[depth, height, width]`, width fastest, and so are shapes and spacings; masks are `bool`, class maps
//!   `u8` with 255 ignored.
//!
//! ```
//! use trimtab_metrics::BinaryEvaluator;
//!
//! let mut evaluator = BinaryEvaluator::new();
//! evaluator.push(&[0.9, 0.4, 0.2, 0.7], &[1, 1, 0, -1])?;
//! let report = evaluator.report(0.5);
//! assert_eq!(report.get("auc").map(|m| (m.value, m.floor)), Some((1.0, Some(0.5))));
//! assert_eq!(report.ignored, 1);
//! # Ok::<(), trimtab_metrics::Error>(())
//! ```

pub mod betti;
mod bins;
mod cells;
pub mod classification;
pub mod cldice;
pub mod components;
mod counts;
mod curve;
pub mod distance;
mod error;
mod evaluator;
pub mod exact;
pub mod floors;
mod forest;
mod histogram;
pub mod overlap;
mod report;
pub mod skeleton;
pub mod surface;
pub mod surface_score;
mod tally;
pub mod topology;
pub mod voi;
pub mod volumes;

pub use classification::{ClassificationEvaluator, ClassificationReport};
pub use counts::BinaryCounts;
pub use error::Error;
pub use evaluator::BinaryEvaluator;
pub use histogram::BinaryHistogram;
pub use report::{BinaryReport, MetricValue};
pub use volumes::{VolumeEvaluator, VolumeReport};
