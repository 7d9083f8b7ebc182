//! The recipes: one file each, and one line here.

use std::path::{Path, PathBuf};

use trimtab_data::Image;
use trimtab_metrics::BinaryReport;
use trimtab_signals::RunInfo;

use crate::config::Common;
use crate::error::Result;
use crate::run::{Observer, Outcome};
use crate::settings::{Reader, Resolved};

pub mod two_stage;

/// A recipe as the rest of the program sees it.
pub trait Recipe: std::fmt::Debug {
    /// Settings shared by all recipes.
    fn common(&self) -> &Common;

    /// Trains in a run directory.
    ///
    /// # Errors
    /// Data, device or disk.
    fn train(&self, session: Session<'_>) -> Result<Outcome>;

    /// The best weights of a run, ready to predict.
    ///
    /// # Errors
    /// No weights there, or of another architecture.
    fn predictor(&self, run: &Path, device: &str) -> Result<Box<dyn Predictor + '_>>;
}

/// Trained weights that predict whole images.
pub trait Predictor {
    /// Probability of the positive class for each pixel of an image (normalised as in training).
    ///
    /// # Errors
    /// The device fails.
    fn predict(&self, image: &Image) -> Result<Image>;

    /// Diameter in pixels of the particles the weights were trained on, where known.
    fn particle_diameter(&self) -> Option<f64>;

    /// Which weights: step, kind and score, for people.
    fn describe(&self) -> String;

    /// Evaluates on a dataset.
    ///
    /// # Errors
    /// The data or the device.
    fn evaluate(&self, dataset: &trimtab_data::dataset::Dataset) -> Result<BinaryReport>;
}

/// What training needs beside the settings.
pub struct Session<'a> {
    /// The run directory: new, or one to go on with.
    pub directory: PathBuf,
    /// All keys in force.
    pub resolved: &'a Resolved,
    /// Device by name; see [`crate::device`].
    pub device: &'a str,
    /// Whether to go on from the newest checkpoint.
    pub resume: bool,
    /// Who watches.
    pub observer: &'a mut dyn Observer,
    /// Told before the first step.
    pub on_start: &'a mut dyn FnMut(&RunInfo),
}

/// A recipe in the list.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The value of the key `recipe`.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Reads its settings; problems gather in the reader.
    pub read: fn(&mut Reader) -> Box<dyn Recipe>,
}

/// Every recipe.
pub const ALL: &[Entry] = &[two_stage::ENTRY];
