//! Data sets of volumes: from files to training patches.

pub mod audit;
pub mod cache;
pub mod cases;
pub mod dataset;
pub mod folds;
pub mod patches;
pub mod preprocess;

pub use cases::{Case, CaseList, ClassificationSpec, LabelRule, SegmentationSpec, VolumeSource};
pub use dataset::{Generated, Prepared, VolumeDataset, VolumeOptions};
pub use preprocess::{Normalise3d, Preprocess, Scaling};
