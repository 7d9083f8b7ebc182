//! The recipes: one file each, and one line here.

use std::path::{Path, PathBuf};

use serde_json::Value;
use trimtab_signals::RunInfo;

use crate::config::Common;
use crate::error::Result;
use crate::probe::Probe;
use crate::run::{Observer, Outcome};
use crate::settings::{Reader, Resolved};

pub mod two_stage;
pub mod volume_classification;
pub mod volume_segmentation;

/// Every recipe.
pub const ALL: &[Entry] = &[two_stage::ENTRY, volume_classification::ENTRY, volume_segmentation::ENTRY];

/// A recipe in the list.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The value of the key `recipe`.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Reads its settings; problems gather in the reader.
    pub read: fn(&mut Reader) -> Box<dyn Recipe>,
    /// Settings that make other keys count than the defaults do, as overrides, and in words.
    pub alternatives: &'static [(&'static str, &'static str)],
}

/// A recipe as the rest of the program sees it.
pub trait Recipe: std::fmt::Debug {
    /// Settings shared by all recipes.
    fn common(&self) -> &Common;

    /// Trains in a run directory.
    ///
    /// # Errors
    /// Data, device or disk.
    fn train(&self, session: Session<'_>) -> Result<Outcome>;

    /// Data, network and loss on the bench, for experiments before training.
    ///
    /// # Errors
    /// As [`Self::train`].
    fn probe<'a>(&'a self, device: &str) -> Result<Box<dyn Probe + 'a>>;

    /// Examines the data, also such as could not be trained on.
    ///
    /// # Errors
    /// Folders missing or empty.
    fn inspect(&self) -> Result<Inspection>;

    /// Evaluates the best weights of a run, on the run's validation data or on others laid out alike.
    ///
    /// # Errors
    /// No weights there, or of another architecture; the data; the device.
    fn evaluate(&self, run: &Path, device: &str, data: Option<&Path>) -> Result<Scores>;

    /// Predicts files with the best weights of a run. `say` gets a line a file.
    ///
    /// # Errors
    /// As [`Self::evaluate`], and a wrong request.
    fn predict(&self, run: &Path, request: &Request, say: &mut dyn FnMut(&str)) -> Result<()>;

    /// Number of folds of a cross-validation, where the settings split the data so. The fold of a run is the key `data.fold`.
    ///
    /// # Errors
    /// A file of folds that can't be read.
    fn folds(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Opens and splits the data without training: what would fail fails here.
    ///
    /// # Errors
    /// The data.
    fn check(&self) -> Result<()> {
        Ok(())
    }
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

/// What an examination of data found.
#[derive(Debug, Clone, Default)]
pub struct Inspection {
    /// Header and rows.
    pub tables: Vec<(Vec<String>, Vec<Vec<String>>)>,
    /// What is wrong, the worst first.
    pub problems: Vec<Problem>,
    /// All of it, for programs.
    pub json: Value,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Training would fail or its numbers would mislead.
    Error,
    /// Worth a look.
    Warning,
    /// Good to know.
    Note,
}

/// Something wrong with data.
#[derive(Debug, Clone)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// Which kind, in kebab-case; see [`trimtab_data::audit::Code`] and [`trimtab_data::volumes::audit::Code`].
    pub code: String,
    /// What was found, in a sentence.
    pub message: String,
    /// The files concerned.
    pub files: Vec<String>,
}

impl Problem {
    /// The name of a kind as it is serialised.
    pub(crate) fn code_of(code: impl serde::Serialize) -> String {
        serde_json::to_value(code).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// What trained weights achieve.
#[derive(Debug, Clone, Default)]
pub struct Scores {
    /// Which weights: step, kind and score.
    pub weights: String,
    /// What they were evaluated on, in words.
    pub on: String,
    /// The same for programs.
    pub facts: serde_json::Map<String, Value>,
    /// Metrics in the order to show them.
    pub metrics: Vec<Score>,
}

/// A metric beside its floor.
#[derive(Debug, Clone)]
pub struct Score {
    /// As the signal of validation is called.
    pub name: String,
    /// Measured; NaN where it has no meaning.
    pub value: f64,
    /// What a predictor that has learned nothing gets.
    pub floor: Option<f64>,
}

/// What to predict.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Files, or folders of files.
    pub inputs: Vec<PathBuf>,
    /// Folder for the results.
    pub out: PathBuf,
    /// Device by name; see [`crate::device`].
    pub device: String,
    /// Probability above which a pixel belongs to the mask, instead of the recipe's.
    pub threshold: Option<f64>,
    /// Diameter of particles to pick, in pixels.
    pub diameter: Option<f64>,
    /// Least mean probability within the disc of a particle that is picked.
    pub min_score: Option<f64>,
}
