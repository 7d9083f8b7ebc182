//! Checkpoints: `checkpoints/<step>/`, written under a temporary name and renamed, so that one that exists is whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trimtab_data::atomic::write_atomic;

use crate::error::{Result, TrainError};
use crate::expect::Progress;
use crate::recipe::RecipeState;

/// Changes when an older reader could misread a newer checkpoint.
const VERSION: u32 = 1;
/// Behind the step in the name of a checkpoint at the start of a later stage.
const STAGE_START: &str = "-stage";

/// Best and last value of a validation metric.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricHistory {
    /// Highest (or lowest, for losses) finite value.
    #[serde(with = "lossless")]
    pub best: f64,
    /// The step it was seen at.
    pub best_step: Option<u64>,
    /// Newest value.
    #[serde(with = "lossless")]
    pub last: f64,
    /// Trivial floor at the newest validation.
    pub floor: Option<f64>,
}

/// JSON has no NaN; a metric may well be one.
mod lossless {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    pub fn serialize<S: Serializer>(value: &f64, s: S) -> Result<S::Ok, S::Error> {
        value.is_finite().then_some(*value).serialize(s)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        Ok(Option::<f64>::deserialize(d)?.unwrap_or(f64::NAN))
    }
}

/// What the loop itself must remember.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LoopState {
    /// Optimizer steps done.
    pub global: u64,
    /// Index of the stage.
    pub stage: usize,
    /// Steps done in the stage: with the seed, the position of the loader and of every random stream.
    pub in_stage: u64,
    /// Whether the condition to end the stage has been met.
    pub stage_over: bool,
    /// What that condition has seen in this stage.
    pub advance: Progress,
    /// Identifies the settings of the run.
    pub settings: String,
    /// Epochs done in earlier stages.
    pub epochs_before: u64,
    /// Wall time spent training so far, in seconds.
    pub seconds: f64,
    /// Validation metrics by signal name.
    pub metrics: BTreeMap<String, MetricHistory>,
    /// Best value of `evaluate.metric` that early stopping has seen in this stage.
    pub stopping_best: Option<f64>,
    /// Validations since then.
    pub stopping_since: u64,
    /// One for each `[[expect]]`.
    pub expectations: Vec<Progress>,
    /// Clipped and skipped updates since the last record, and the steps it spans.
    pub interval: Interval,
    /// Newest value of every signal, for expectations that compare two.
    pub newest: BTreeMap<String, Option<f64>>,
}

/// Sums between two records.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Steps.
    pub steps: u64,
    /// Steps whose gradient was clipped.
    pub clipped: f64,
    /// Updates skipped because the gradient was not finite.
    pub non_finite: f64,
    /// Input values that are not finite.
    pub non_finite_inputs: f64,
}

#[derive(Serialize, Deserialize)]
struct StateFile {
    version: u32,
    /// For readers; the settings' identity covers it.
    seed: u64,
    /// Random numbers are pure functions of seed, stream and position, so the seed and the positions are the whole state.
    random: String,
    run: LoopState,
    recipe: serde_json::Value,
}

fn folder(run: &Path) -> PathBuf {
    run.join(trimtab_signals::CHECKPOINTS)
}

/// File of the best weights of a run.
pub fn best_path(run: &Path) -> PathBuf {
    folder(run).join("best.safetensors")
}

/// Writes a checkpoint, unless it is there, and removes all but the newest `keep`. Returns whether it wrote one.
///
/// # Errors
/// The operating system refuses (disk full …); the checkpoints that were there stay.
pub fn save(run: &Path, seed: u64, state: &LoopState, recipe: &RecipeState, keep: u64) -> Result<bool> {
    let folder = folder(run);
    // The start of a later stage falls on the step of the last stage's end, and must not take its place: both are whole.
    let stage_start = state.stage > 0 && state.in_stage == 0;
    let name = format!("{:08}{}", state.global, if stage_start { STAGE_START } else { "" });
    let target = folder.join(&name);
    if target.is_dir() {
        return Ok(false);
    }
    let temporary = folder.join(format!(".tmp-{name}"));
    let made = (|| {
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(|e| TrainError::io(&temporary, "cannot remove", e))?;
        }
        fs::create_dir_all(&temporary).map_err(|e| TrainError::io(&temporary, "cannot create", e))?;
        for (name, bytes) in &recipe.files {
            write_atomic(&temporary.join(name), |w| w.write_all(bytes))?;
        }
        let random = "counter-based ChaCha8 by (seed, stream, position)".to_owned();
        let file =
            StateFile { version: VERSION, seed, random, run: state.clone(), recipe: recipe.json.clone() };
        let json = serde_json::to_vec_pretty(&file).map_err(|e| TrainError::Internal(e.to_string()))?;
        write_atomic(&temporary.join("state.json"), |w| w.write_all(&json))?;
        fs::rename(&temporary, &target).map_err(|e| TrainError::io(&target, "cannot rename to", e))
    })();
    if made.is_err() {
        // Best effort: the error that counts is the one above.
        let _ = fs::remove_dir_all(&temporary);
    }
    made?;
    let all = list(run)?;
    for (_, path) in all.iter().rev().skip(keep.max(1) as usize) {
        fs::remove_dir_all(path).map_err(|e| TrainError::io(path, "cannot remove", e))?;
    }
    Ok(true)
}

/// Checkpoints by step, oldest first.
///
/// # Errors
/// The folder is there and can't be read.
pub fn list(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let folder = folder(run);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(TrainError::io(folder, "cannot list", e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| TrainError::io(&folder, "cannot list", e))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        if let Ok(step) = name.strip_suffix(STAGE_START).unwrap_or(name).parse() {
            // The bare name of a step sorts before that of the stage that starts there.
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The newest checkpoint, where there is one, and its folder.
///
/// # Errors
/// It can't be read, is of another version of the format or of other settings (see [`crate::settings::Resolved::identity`]).
pub fn newest(run: &Path, settings: &str) -> Result<Option<(LoopState, RecipeState, PathBuf)>> {
    let Some((_, path)) = list(run)?.pop() else { return Ok(None) };
    let file = path.join("state.json");
    let bad = |problem: String| TrainError::Checkpoint { path: file.clone(), problem };
    let text = fs::read_to_string(&file).map_err(|e| TrainError::io(&file, "cannot read", e))?;
    let state: StateFile =
        serde_json::from_str(&text).map_err(|e| bad(format!("not a checkpoint's state: {e}")))?;
    if state.version != VERSION {
        return Err(bad(format!(
            "written by version {} of the format; this program reads version {VERSION}",
            state.version
        )));
    }
    if state.run.settings != settings {
        return Err(bad(
            "made with other settings than the run's config.toml now holds; start a new run".to_owned()
        ));
    }
    Ok(Some((state.run, RecipeState { json: state.recipe, files: BTreeMap::new() }, path)))
}
