//! Experiments on a recipe before it trains: the same network, loss and batches, a step at a time.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Tensor;
use trimtab_data::atomic::write_atomic;
use trimtab_nn::optim::global_norm;
use trimtab_nn::params::{self, Flat};
use trimtab_signals::RunInfo;

use crate::error::{Result, TrainError};
use crate::measured::to_vec;
use crate::recipe::{Evaluation, Recipe as Training, RecipeState, Signals, StagePlan, Step};

/// What a network puts out for one batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outputs {
    /// Numbers put out.
    pub count: usize,
    /// Of these, how many are NaN or infinite.
    pub non_finite: usize,
    /// Least finite logit.
    pub least: f64,
    /// Greatest finite logit.
    pub greatest: f64,
    /// Standard deviation of the finite logits.
    pub deviation: f64,
}

/// One term of the loss on one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// As its signal is called, without `loss/`.
    pub name: String,
    /// Its weight in the sum at that step.
    pub weight: f64,
    /// Its value before the weight.
    pub value: f64,
    /// Norm of its gradient, times its weight, by group of parameters.
    pub gradient: BTreeMap<String, f64>,
}

/// One parameter tensor on one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Its name in the weights file.
    pub path: String,
    /// Its group.
    pub group: String,
    /// Norm of the whole loss's gradient; none where no gradient reaches it.
    pub gradient: Option<f64>,
    /// Norm of the parameter.
    pub parameter: f64,
}

/// What one batch shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Examination {
    /// The outputs.
    pub outputs: Outputs,
    /// Each term, by itself.
    pub terms: Vec<Term>,
    /// Each parameter, in the order of its name.
    pub layers: Vec<Layer>,
}

/// How far a group of parameters has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Drift {
    /// The group.
    pub group: String,
    /// Distance of the live weights from where they started.
    pub moved: f64,
    /// Distance of the averaged weights from the live ones; none without an average.
    pub lag: Option<f64>,
}

/// A recipe on the bench.
pub trait Probe {
    /// What `run.json` would say.
    fn info(&self) -> &RunInfo;

    /// The stages in order.
    fn stages(&self) -> &[StagePlan];

    /// Begins a stage anew from the initial weights.
    ///
    /// # Errors
    /// Weights that can't be read.
    fn enter(&mut self, stage: usize) -> Result<()>;

    /// What the schedules of a stage give at a step of it, by signal.
    fn scheduled(&self, stage: usize, in_stage: u64) -> Signals;

    /// Passes the stage's batch of that number forward and each term of the loss backward; `at` is the step whose schedules count.
    ///
    /// # Errors
    /// The data.
    fn examine(&mut self, batch: u64, at: u64) -> Result<Examination>;

    /// One optimizer step on the stage's batch of that number, as the step `at` of the stage, at the schedule's rate or another.
    ///
    /// # Errors
    /// The data.
    fn step(&mut self, batch: u64, at: u64, rate: Option<f64>) -> Result<Signals>;

    /// Validates the weights as they are.
    ///
    /// # Errors
    /// The data.
    fn evaluate(&mut self) -> Result<Evaluation>;

    /// How far weights and their average have come since the stage was entered.
    fn drift(&self) -> Vec<Drift>;

    /// Work of one validation, in training batches passed forward.
    fn validation_batches(&self) -> f64;
}

/// Any recipe's training on the bench.
pub(crate) struct Bench<T: Training> {
    trainer: T,
    info: RunInfo,
    stage: usize,
    start: Flat,
    initial: RecipeState,
    folder: tempfile::TempDir,
}

impl<T: Training> Bench<T> {
    /// `trainer` as it would begin.
    pub(crate) fn new(mut trainer: T, info: RunInfo) -> Result<Self> {
        let folder = tempfile::tempdir()
            .map_err(|e| TrainError::io(std::env::temp_dir(), "cannot make a folder in", e))?;
        trainer.enter_stage(0, None)?;
        let mut initial = trainer.state();
        for (name, bytes) in std::mem::take(&mut initial.files) {
            write_atomic(&folder.path().join(name), |w| w.write_all(&bytes))?;
        }
        let start = trainer.live();
        Ok(Self { trainer, info, stage: 0, start, initial, folder })
    }

    fn batch(&self, index: u64) -> Result<T::Batch> {
        Ok(self.trainer.batches(self.stage)(index)?)
    }
}

impl<T: Training> Probe for Bench<T> {
    fn info(&self) -> &RunInfo {
        &self.info
    }

    fn stages(&self) -> &[StagePlan] {
        self.trainer.stages()
    }

    fn enter(&mut self, stage: usize) -> Result<()> {
        self.trainer.force_rate(None);
        self.trainer.restore(&self.initial, self.folder.path())?;
        self.trainer.enter_stage(stage, None)?;
        self.stage = stage;
        self.start = self.trainer.live();
        Ok(())
    }

    fn scheduled(&self, stage: usize, in_stage: u64) -> Signals {
        self.trainer.scheduled(stage, in_stage)
    }

    fn examine(&mut self, batch: u64, at: u64) -> Result<Examination> {
        let batch = self.batch(batch)?;
        self.trainer.examine(batch, Step { global: at, stage: self.stage, in_stage: at, measure: true })
    }

    fn step(&mut self, batch: u64, at: u64, rate: Option<f64>) -> Result<Signals> {
        let batch = self.batch(batch)?;
        self.trainer.force_rate(rate);
        self.trainer.step(batch, Step { global: at, stage: self.stage, in_stage: at, measure: true })
    }

    fn evaluate(&mut self) -> Result<Evaluation> {
        self.trainer.evaluate()
    }

    fn drift(&self) -> Vec<Drift> {
        self.trainer.drift(&self.start)
    }

    fn validation_batches(&self) -> f64 {
        self.trainer.validation_batches()
    }
}

/// A batch's logits, and the terms of its loss with their weights.
pub(crate) struct Forward {
    /// All logits, in one row.
    pub(crate) logits: Tensor<1>,
    /// Name, weight and value; several of one name add up.
    pub(crate) terms: Vec<(&'static str, f64, Tensor<1>)>,
}

/// Passes forward once for each term, since a graph can be walked backward only once.
pub(crate) fn examine<T, M: Module>(
    trainer: &mut T,
    net: impl Fn(&T) -> &M,
    group_of: fn(&str) -> &'static str,
    mut forward: impl FnMut(&mut T) -> Forward,
) -> Result<Examination> {
    let whole = forward(trainer);
    let outputs = outputs(&to_vec(whole.logits.inner())?);
    let mut names: Vec<&'static str> = Vec::new();
    for (name, ..) in &whole.terms {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let gradients_of = |trainer: &T, terms: Vec<(&'static str, f64, Tensor<1>)>| {
        let sum = terms.into_iter().map(|(_, weight, value)| value * weight).reduce(|a, b| a + b);
        sum.map(|sum| params::gradients(net(trainer), sum.backward())).unwrap_or_default()
    };
    let gradients = gradients_of(trainer, whole.terms);
    let mut terms = Vec::new();
    for name in names {
        let mut all = forward(trainer).terms;
        all.retain(|(known, ..)| *known == name);
        let weight = all.first().map_or(0.0, |(_, weight, _)| *weight);
        let value = all.first().map(|(.., value)| to_vec(value.clone().inner())).transpose()?;
        let value = value.and_then(|v| v.first().copied()).map_or(f64::NAN, f64::from);
        let mut by_group: BTreeMap<&str, Flat> = BTreeMap::new();
        for (path, gradient) in gradients_of(trainer, all) {
            by_group.entry(group_of(&path)).or_default().insert(path, gradient);
        }
        let gradient =
            by_group.into_iter().map(|(group, flat)| (group.to_owned(), global_norm(&flat))).collect();
        terms.push(Term { name: name.to_owned(), weight, value, gradient });
    }
    let norm_of = |tensor: &Tensor<1>| global_norm(&Flat::from_iter([(String::new(), tensor.clone())]));
    let parameters = params::flat(net(trainer)).into_iter().filter(|(path, _)| !params::is_buffer(path));
    let layers = parameters.map(|(path, parameter)| Layer {
        group: group_of(&path).to_owned(),
        gradient: gradients.get(&path).map(norm_of),
        parameter: norm_of(&parameter),
        path,
    });
    Ok(Examination { outputs, terms, layers: layers.collect() })
}

fn outputs(values: &[f32]) -> Outputs {
    let finite: Vec<f64> = values.iter().filter(|v| v.is_finite()).map(|v| f64::from(*v)).collect();
    let n = finite.len().max(1) as f64;
    let mean = finite.iter().sum::<f64>() / n;
    Outputs {
        count: values.len(),
        non_finite: values.len() - finite.len(),
        least: finite.iter().copied().fold(f64::INFINITY, f64::min),
        greatest: finite.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        deviation: (finite.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt(),
    }
}

/// How far two sets of weights are apart, by group.
pub(crate) fn distances(a: &Flat, b: &Flat, group_of: fn(&str) -> &'static str) -> BTreeMap<String, f64> {
    let mut groups: BTreeMap<String, Flat> = BTreeMap::new();
    for (path, value) in a.iter().filter(|(path, _)| !params::is_buffer(path)) {
        if let Some(other) = b.get(path) {
            let group = groups.entry(group_of(path).to_owned()).or_default();
            group.insert(path.clone(), value.clone() - other.clone());
        }
    }
    groups.into_iter().map(|(group, flat)| (group, global_norm(&flat))).collect()
}

/// Both distances of [`Drift`].
pub(crate) fn drift(
    start: &Flat,
    live: &Flat,
    average: Option<&Flat>,
    group_of: fn(&str) -> &'static str,
) -> Vec<Drift> {
    let lag = average.map(|average| distances(average, live, group_of));
    let moved = distances(live, start, group_of).into_iter();
    moved
        .map(|(group, moved)| Drift {
            lag: lag.as_ref().and_then(|lag| lag.get(&group).copied()),
            group,
            moved,
        })
        .collect()
}
