//! `run.json` and `summary.json`.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a run is: written once at its start, as `run.json`.
///
/// Fields that a later version adds are passed over on reading; absent optional ones read as empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunInfo {
    /// Version of Trimtab that wrote the run.
    pub version: String,
    /// Git commit of that program, where known.
    #[serde(default)]
    pub git_commit: Option<String>,
    /// Name of the recipe.
    pub recipe: String,
    /// Device, as given on the command line: `cpu`, `cuda:0`, …
    pub device: String,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Worker threads.
    #[serde(default)]
    pub threads: u64,
    /// A hash of the data set's file names and contents; equal data, equal hash.
    #[serde(default)]
    pub dataset_fingerprint: Option<String>,
    /// Labelled pixels (samples, for classification) of each class in the training set, `ignored` among
    /// them.
    #[serde(default)]
    pub class_counts: IndexMap<String, u64>,
    /// Parameters of each group.
    #[serde(default)]
    pub parameter_counts: IndexMap<String, u64>,
    /// Optimizer steps planned in all.
    pub steps_planned: u64,
    /// The step at which each schedule ends.
    #[serde(default)]
    pub schedule_horizons: IndexMap<String, u64>,
    /// Start of the run, RFC 3339 in UTC.
    pub started_at: String,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// All planned steps were done.
    Finished,
    /// A rule of the run ended it early: early stopping, an expectation, the guard.
    Stopped,
    /// The user or the system ended it; it can be resumed.
    Interrupted,
    /// An error ended it.
    Failed,
}

/// The outcome of a run: written at its end, as `summary.json`. Undefined numbers are `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// How the run ended.
    pub status: Status,
    /// Why it ended, where that is not plain from the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Optimizer steps done.
    pub steps: u64,
    /// Seconds the run took, excluding pauses between a stop and a resume.
    pub wall_seconds: Option<f64>,
    /// Steps over seconds.
    pub steps_per_second: Option<f64>,
    /// Best and last value of each metric, by signal name.
    pub metrics: IndexMap<String, MetricSummary>,
}

/// Best and last value of one metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricSummary {
    /// Best value; `null` when it was never defined.
    pub best: Option<f64>,
    /// Step of the best value.
    pub best_step: Option<u64>,
    /// Last value.
    pub last: Option<f64>,
    /// What a predictor blind to the data scores, at the best step.
    pub floor: Option<f64>,
}
