//! Checkpoints: `checkpoints/<step>/`, written under a temporary name and renamed, so that one that exists is whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trimtab_data::atomic::write_atomic;
use trimtab_nn::params::WeightsFile;

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
    /// BLAKE3 of each file beside it: a disk may give back something else than was written.
    #[serde(default)]
    files: BTreeMap<String, String>,
}

fn folder(run: &Path) -> PathBuf {
    run.join(trimtab_signals::CHECKPOINTS)
}

/// File of the best weights of a run.
pub fn best_path(run: &Path) -> PathBuf {
    folder(run).join("best.safetensors")
}

/// What was written beside weights: step, kind and score.
///
/// # Errors
/// It is no file of weights.
pub fn metadata(weights: &Path) -> Result<BTreeMap<String, String>> {
    Ok(WeightsFile::read(weights)?.metadata)
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
        let hash = |bytes: &Vec<u8>| blake3::hash(bytes).to_hex().to_string();
        let files = recipe.files.iter().map(|(name, bytes)| (name.clone(), hash(bytes))).collect();
        let (run, recipe) = (state.clone(), recipe.json.clone());
        let file = StateFile { version: VERSION, seed, random, run, recipe, files };
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

/// Copies a checkpoint, or any folder of files that are never changed in place, by links where the file system has them. The
/// target is whole or not there.
///
/// # Errors
/// The operating system refuses.
pub fn link(from: &Path, to: &Path) -> Result<()> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let temporary = to.with_file_name(format!(".tmp-{name}"));
    for old in [&temporary, to] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(|e| TrainError::io(old, "cannot remove", e))?;
        }
    }
    fs::create_dir_all(&temporary).map_err(|e| TrainError::io(&temporary, "cannot create", e))?;
    let entries = fs::read_dir(from).map_err(|e| TrainError::io(from, "cannot list", e))?;
    for entry in entries {
        let source = entry.map_err(|e| TrainError::io(from, "cannot list", e))?.path();
        let target = temporary.join(source.file_name().unwrap_or_default());
        link_file(&source, &target)?;
    }
    fs::rename(&temporary, to).map_err(|e| TrainError::io(to, "cannot rename to", e))
}

/// Makes `to` the file `from`, replacing what was there at once.
///
/// # Errors
/// The operating system refuses.
pub fn link_file(from: &Path, to: &Path) -> Result<()> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let temporary = to.with_file_name(format!(".tmp-{name}"));
    let _ = fs::remove_file(&temporary);
    if fs::hard_link(from, &temporary).is_err() {
        fs::copy(from, &temporary).map_err(|e| TrainError::io(from, "cannot copy", e))?;
    }
    fs::rename(&temporary, to).map_err(|e| TrainError::io(to, "cannot rename to", e))
}

/// Puts a checkpoint made elsewhere, or with other settings, into a run, as one of settings with this identity (see
/// [`crate::settings::Resolved::identity`]). The settings must be such that weights, optimizer and schedules still fit.
///
/// # Errors
/// It is no checkpoint; the operating system refuses.
pub fn adopt(checkpoint: &Path, run: &Path, settings: &str) -> Result<()> {
    let target = folder(run).join(checkpoint.file_name().unwrap_or_default());
    let file = checkpoint.join("state.json");
    let text = fs::read_to_string(&file).map_err(|e| TrainError::io(&file, "cannot read", e))?;
    let mut state: StateFile = serde_json::from_str(&text).map_err(|e| TrainError::Checkpoint {
        path: file.clone(),
        problem: format!("not a checkpoint's state: {e}"),
    })?;
    state.run.settings = settings.to_owned();
    let json = serde_json::to_vec_pretty(&state).map_err(|e| TrainError::Internal(e.to_string()))?;
    // Beside the target first: it must never stand there with the other identity.
    let aside = folder(run).join(".adopted");
    link(checkpoint, &aside)?;
    write_atomic(&aside.join("state.json"), |w| w.write_all(&json))?;
    if target.exists() {
        fs::remove_dir_all(&target).map_err(|e| TrainError::io(&target, "cannot remove", e))?;
    }
    fs::rename(&aside, &target).map_err(|e| TrainError::io(&target, "cannot rename to", e))
}

/// Removes the checkpoints of a run that lie after a step.
///
/// # Errors
/// The operating system refuses.
pub fn remove_after(run: &Path, step: u64) -> Result<()> {
    for (_, path) in list(run)?.into_iter().filter(|(known, _)| *known > step) {
        fs::remove_dir_all(&path).map_err(|e| TrainError::io(&path, "cannot remove", e))?;
    }
    Ok(())
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

/// Reads a checkpoint's state; its files are read by the recipe.
///
/// # Errors
/// It can't be read, is of another version of the format or of other settings (see [`crate::settings::Resolved::identity`]).
pub fn read(path: &Path, settings: &str) -> Result<(LoopState, RecipeState)> {
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
    for (name, written) in &state.files {
        let file = path.join(name);
        let bytes = fs::read(&file).map_err(|e| TrainError::io(&file, "cannot read", e))?;
        if blake3::hash(&bytes).to_hex().as_str() != written {
            let problem = "is not what was written when the checkpoint was made".to_owned();
            return Err(TrainError::Checkpoint { path: file, problem });
        }
    }
    Ok((state.run, RecipeState { json: state.recipe, files: BTreeMap::new() }))
}

/// Takes a checkpoint that can't be read out of the way, so that the run can write one at its step again.
///
/// # Errors
/// The operating system refuses.
pub fn set_aside(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!("damaged-{name}"));
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(|e| TrainError::io(&aside, "cannot remove", e))?;
    }
    fs::rename(path, &aside).map_err(|e| TrainError::io(path, "cannot rename", e))
}
