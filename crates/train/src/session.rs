//! From settings to a finished run: what is the same for every recipe around [`Run`].

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use trimtab_nn::params::WeightsFile;
use trimtab_signals::tensorboard::TensorBoardWriter;
use trimtab_signals::{Event, RunInfo, RunReader, RunWriter};

use crate::checkpoint::{self, LoopState};
use crate::config::Common;
use crate::error::{Result, TrainError};
use crate::recipe::{Recipe as Training, StagePlan};
use crate::recipes::Session;
use crate::run::{Outcome, Report, Run};

/// Trains: goes on from the newest checkpoint or begins, and runs the loop to its end. Everything that can be wrong with data
/// and settings has been found before, so that no run directory is made or changed in vain. `notes` become the first events.
pub(crate) fn drive(
    session: Session<'_>,
    common: &Common,
    trainer: &mut impl Training,
    info: &RunInfo,
    notes: &[String],
) -> Result<Outcome> {
    let settings = session.resolved.identity();
    let (mut state, mut damaged) = (None, Vec::new());
    if session.resume {
        check_same_data(&session.directory, info)?;
        (state, damaged) = restore(&session.directory, &settings, trainer)?;
    }
    if state.is_none() {
        trainer.enter_stage(0, None)?;
    }
    let done = state.as_ref().map_or(0, |s| s.global);
    let directory = &session.directory;
    let mut writer =
        if session.resume { RunWriter::resume(directory, done)? } else { RunWriter::create(directory)? };
    let mut tensorboard = None;
    if common.run.tensorboard {
        tensorboard = Some(if session.resume {
            TensorBoardWriter::resume(directory, done)?
        } else {
            TensorBoardWriter::create(directory)?
        });
    }
    // The settings last: a directory with them has all it takes to go on.
    if !session.resume || RunReader::open(directory)?.info()?.is_none() {
        writer.write_run_json(info)?;
    }
    if !session.resume {
        writer.write_config(&session.resolved.to_toml())?;
    }
    (session.on_start)(info);
    let notes = notes.iter().filter(|_| !session.resume).map(|note| ("note", note));
    for (kind, message) in notes.chain(damaged.iter().map(|damage| ("warning", damage))) {
        let event = Event {
            step: done,
            epoch: 0,
            time: 0.0,
            kind: kind.to_owned(),
            message: message.clone(),
            data: serde_json::Value::Null,
        };
        writer.event(&event)?;
        session.observer.report(&Report::Event(&event));
    }
    let run = Run {
        recipe: trainer,
        common,
        directory: session.directory,
        writer,
        tensorboard,
        observer: session.observer,
        settings,
        resume: state,
    };
    run.train()
}

/// Goes back to the newest checkpoint that can be read. One that can't is set aside, since the one before is as good but for some
/// steps; what was wrong with it is told.
fn restore(
    run: &Path,
    settings: &str,
    trainer: &mut impl Training,
) -> Result<(Option<LoopState>, Vec<String>)> {
    let mut damaged: Vec<(std::path::PathBuf, TrainError)> = Vec::new();
    for (_, path) in checkpoint::list(run)?.into_iter().rev() {
        let restored = checkpoint::read(&path, settings).and_then(|(looped, recipe)| {
            trainer.restore(&recipe, &path)?;
            Ok(looped)
        });
        match restored {
            Ok(looped) => {
                let mut told = Vec::new();
                for (path, error) in damaged {
                    checkpoint::set_aside(&path)?;
                    told.push(format!("a checkpoint can't be read, going on from the one before: {error}"));
                }
                return Ok((Some(looped), told));
            }
            Err(error) => damaged.push((path, error)),
        }
    }
    match damaged.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok((None, Vec::new())),
    }
}

/// A run goes on with the data it was made with: other files would give the same steps another meaning.
fn check_same_data(run: &Path, now: &RunInfo) -> Result<()> {
    let before = RunReader::open(run)?.info()?;
    if let Some(before) = before.filter(|b| b.dataset_fingerprint != now.dataset_fingerprint) {
        let started = before.started_at;
        let problem =
            format!("the data are not those the run was started with at {started}; start a new run");
        return Err(TrainError::Checkpoint { path: run.to_owned(), problem });
    }
    Ok(())
}

/// What `run.json` says of any recipe.
pub(crate) fn info(
    recipe: &str,
    device: &str,
    seed: u64,
    plans: &[StagePlan],
    fingerprint: String,
    class_counts: BTreeMap<String, u64>,
    parameter_counts: BTreeMap<String, u64>,
) -> RunInfo {
    let horizons = plans.iter().enumerate().flat_map(|(i, plan)| {
        plan.horizons.iter().map(move |(name, steps)| (format!("stage{}/{name}", i + 1), *steps))
    });
    RunInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git_commit: option_env!("TRIMTAB_GIT_COMMIT").map(str::to_owned),
        recipe: recipe.to_owned(),
        device: device.to_owned(),
        seed,
        threads: rayon::current_num_threads() as u64,
        dataset_fingerprint: Some(fingerprint),
        class_counts: class_counts.into_iter().collect(),
        parameter_counts: parameter_counts.into_iter().collect(),
        steps_planned: plans.iter().map(StagePlan::steps).sum(),
        schedule_horizons: horizons.collect(),
        started_at: trimtab_signals::rfc3339_utc(std::time::SystemTime::now()),
    }
}

/// The best weights of a run in a network.
pub(crate) struct Best<M> {
    /// The network.
    pub(crate) net: M,
    /// What was written beside the weights.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Loads the best weights of a run into `net`.
pub(crate) fn best<M: Module>(run: &Path, net: M) -> Result<Best<M>> {
    best_by(run, |_| net)
}

/// As [`best`], for a network that depends on what was written beside the weights.
pub(crate) fn best_by<M: Module>(
    run: &Path,
    net: impl FnOnce(&BTreeMap<String, String>) -> M,
) -> Result<Best<M>> {
    let path = checkpoint::best_path(run);
    if !path.is_file() {
        let problem =
            "no best weights: the run has had no validation, or its evaluate.metric was never a number"
                .to_owned();
        return Err(TrainError::Checkpoint { path, problem });
    }
    let file = WeightsFile::read(&path)?;
    let net = file.load(net(&file.metadata))?;
    Ok(Best { net, metadata: file.metadata })
}

impl<M> Best<M> {
    /// Step, kind and score, for people.
    pub(crate) fn describe(&self, metric: &str) -> String {
        let of = |key: &str| self.metadata.get(key).map_or("?", String::as_str);
        let score = of(metric).parse::<f64>().map_or_else(|_| "?".to_owned(), |s| format!("{s:.4}"));
        format!("{} of step {}, {metric} {score}", of("weights"), of("step"))
    }
}
