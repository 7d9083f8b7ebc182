//! What a recipe is to the loop: networks, optimizers and schedules behind a few plain calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use trimtab_nn::params::Flat;

use crate::error::Result;
use crate::expect::Expectation;
use crate::probe::{Drift, Examination};
use crate::recipes::Score;

/// Signal names and values of one moment.
pub type Signals = Vec<(String, f64)>;

/// Where the loop stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Optimizer steps done in the whole run.
    pub global: u64,
    /// Index of the stage.
    pub stage: usize,
    /// Steps done in the stage.
    pub in_stage: u64,
    /// Whether signals that cost a pass or a read from the device are wanted.
    pub measure: bool,
}

/// A stage of training.
#[derive(Debug)]
pub struct StagePlan {
    /// Name for people.
    pub name: String,
    /// Epochs at most.
    pub epochs: u64,
    /// Optimizer steps in an epoch.
    pub steps_per_epoch: u64,
    /// The stage ends before its last epoch once a validation meets this.
    pub advance_when: Option<Expectation>,
    /// Steps of each schedule's horizon, by signal name, counted from the start of the stage.
    pub horizons: BTreeMap<String, u64>,
}

impl StagePlan {
    /// Steps at most.
    pub fn steps(&self) -> u64 {
        self.epochs * self.steps_per_epoch
    }
}

/// Makes the batch of a step of a stage: a pure function, so that loading can be threaded and resumed anywhere.
pub type BatchSource<B> = Arc<dyn Fn(u64) -> trimtab_data::Result<B> + Send + Sync>;

/// All that a recipe needs to go on as if it had never stopped.
#[derive(Debug, Clone, Default)]
pub struct RecipeState {
    /// Small values.
    pub json: Value,
    /// Files by name, e.g. `model.safetensors`.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// The outcome of a validation.
#[derive(Debug, Clone, Default)]
pub struct Evaluation {
    /// `val/…`: of the better weights, and of each kind under its group.
    pub signals: Signals,
    /// Trivial floors by signal name.
    pub floors: BTreeMap<String, f64>,
    /// Which weights were better, for people and for the file of the best weights.
    pub winner: &'static str,
}

impl Evaluation {
    /// The value of a signal; NaN where it is not there.
    pub(crate) fn score(&self, name: &str) -> f64 {
        self.signals.iter().find(|(n, _)| n == name).map_or(f64::NAN, |(_, value)| *value)
    }
}

/// Turns the judgements of several kinds of weights into signals: each under its group, and those of the better kind (by
/// `metric`; the first of equals) without a group.
pub(crate) fn evaluation(kinds: &[(&'static str, Vec<Score>)], metric: &str) -> Evaluation {
    let score = |scores: &[Score]| scores.iter().find(|s| s.name == metric).map_or(f64::NAN, |s| s.value);
    let winner =
        kinds.iter().reduce(|a, b| if score(&b.1) > score(&a.1) || score(&a.1).is_nan() { b } else { a });
    let Some((winner, best)) = winner else { return Evaluation::default() };
    let mut evaluation = Evaluation { winner, ..Evaluation::default() };
    let mut add = |scores: &[Score], kind: Option<&str>| {
        for s in scores {
            let name = kind.map_or(s.name.clone(), |kind| format!("{}/{kind}", s.name));
            evaluation.floors.extend(s.floor.map(|floor| (name.clone(), floor)));
            evaluation.signals.push((name, s.value));
        }
    };
    add(best, None);
    for (kind, scores) in kinds.iter().filter(|_| kinds.len() > 1) {
        add(scores, Some(kind));
    }
    evaluation
}

/// One kind of training.
pub trait Recipe {
    /// What one step trains on.
    type Batch: Send + 'static;

    /// The stages in order.
    fn stages(&self) -> &[StagePlan];

    /// Begins a stage: schedules, optimizer. `best` is the file of the best weights so far, where there is one.
    fn enter_stage(&mut self, stage: usize, best: Option<&std::path::Path>) -> Result<()>;

    /// The batches of a stage.
    fn batches(&self, stage: usize) -> BatchSource<Self::Batch>;

    /// One optimizer step.
    fn step(&mut self, batch: Self::Batch, at: Step) -> Result<Signals>;

    /// Validates live and averaged weights.
    fn evaluate(&mut self) -> Result<Evaluation>;

    /// Everything that changes while training.
    fn state(&self) -> RecipeState;

    /// Takes over a saved state.
    fn restore(&mut self, state: &RecipeState, directory: &std::path::Path) -> Result<()>;

    /// The weights of that kind (see [`Evaluation::winner`]) as the bytes of a safetensors file.
    fn weights(&self, kind: &str, metadata: BTreeMap<String, String>) -> Vec<u8>;

    /// What the schedules of a stage give at a step of it: rates, of each group too, decay of the average, weights of the loss.
    /// The same names as in the signals of a step.
    fn scheduled(&self, stage: usize, in_stage: u64) -> Signals;

    /// From now on this rate (before the groups' factors) instead of the schedule's; `None`: the schedule's again.
    fn force_rate(&mut self, rate: Option<f64>);

    /// The batch forward, and each term's gradient by itself. Changes nothing but running statistics.
    fn examine(&mut self, batch: Self::Batch, at: Step) -> Result<Examination>;

    /// How far the live weights have moved since `start`, and the averaged ones lag behind, by group.
    fn drift(&self, start: &Flat) -> Vec<Drift>;

    /// The live weights.
    fn live(&self) -> Flat;

    /// Work of one validation, in training batches passed forward.
    fn validation_batches(&self) -> f64;
}
