//! How weights change, for every recipe with one stage: optimizer, groups of rates, schedule, clipping, accumulation, freezing,
//! moving average. Settings and what moves them; the recipe's `step` calls the parts in the order they happen.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde_json::json;
use trimtab_nn::optim::{
    AdamConfig, AdamWConfig, Buffers, Optimizer, SgdConfig, accumulate, average, clip_by_global_norm,
    global_norm,
};
use trimtab_nn::params::{self, Flat, WeightsFile};
use trimtab_nn::plateau::{Plateau, PlateauConfig};
use trimtab_nn::schedules::{self, Schedule};
use trimtab_signals::names::{self, Signal};

use crate::error::{Result, TrainError};
use crate::measured::to_vec;
use crate::probe::{self, Drift};
use crate::recipe::{RecipeState, Signals, StagePlan, Step};
use crate::settings::Reader;

/// The weights that are trained, and their moving average: the kinds that are validated.
pub(crate) const LIVE: &str = "live";
/// See [`LIVE`].
pub(crate) const AVERAGE: &str = "average";

/// What [`Learner`] records.
const RECORDED: &[Signal] = &[
    names::GRAD_NORM,
    names::OPTIM_LEARNING_RATE,
    names::OPTIM_UPDATE_RATIO,
    names::OPTIM_UPDATES,
    names::PARAM_NORM,
    names::EMA_DECAY,
    names::EMA_INITIAL_WEIGHT,
    names::STAGE_FROZEN,
];

/// A network whose parameters fall into groups, the first of which can be frozen.
pub(crate) trait Network: Module + Clone {
    /// The groups' names.
    const GROUPS: &'static [&'static str];

    /// The group of a parameter.
    fn group_of(path: &str) -> &'static str;

    /// Freezes or thaws the first group: no gradients, and its norms neither use nor change by the batch.
    fn set_frozen(self, frozen: bool) -> Self;
}

/// Defaults of a recipe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults {
    pub(crate) optimizer: &'static str,
    pub(crate) learning_rate: f64,
    pub(crate) weight_decay: f64,
    pub(crate) batch: u64,
    pub(crate) accumulate: u64,
    pub(crate) epochs: u64,
    pub(crate) warmup_epochs: u64,
    pub(crate) decay: &'static str,
    pub(crate) clip_norm: f64,
    pub(crate) ema_decay: f64,
    /// Whether the network has running statistics.
    pub(crate) buffers: bool,
    /// Factor on the rate of each group, in the order of [`Network::GROUPS`].
    pub(crate) rate_scales: &'static [(&'static str, f64)],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    AdamW,
    Adam,
    Sgd,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Decay {
    Constant,
    Linear,
    Cosine,
    Poly,
    Plateau,
}

/// Settings.
#[derive(Debug, Clone)]
pub(crate) struct Optimization {
    kind: Kind,
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
    learning_rate: f64,
    rate_scales: BTreeMap<&'static str, f64>,
    pub(crate) epochs: u64,
    steps_per_epoch: u64,
    pub(crate) batch: usize,
    pub(crate) accumulate: u64,
    warmup_epochs: u64,
    by_epoch: bool,
    decay: Decay,
    poly_power: f64,
    plateau: PlateauConfig,
    clip_norm: f64,
    freeze_epochs: u64,
    ema_decay: f64,
    ema_warmup: bool,
    buffers: Buffers,
    /// Whether convolutions compute in bf16.
    pub(crate) half: bool,
}

/// Of [`RECORDED`], what these settings make happen.
pub(crate) fn recorded(settings: &Optimization) -> impl Iterator<Item = &'static Signal> {
    let averages = settings.averages();
    RECORDED.iter().filter(move |s| averages || ![names::EMA_DECAY, names::EMA_INITIAL_WEIGHT].contains(s))
}

impl Optimization {
    pub(crate) fn read(r: &mut Reader, d: Defaults) -> Self {
        let epochs = r.count("optim.epochs", d.epochs, 1..=1_000_000, "Epochs at most.");
        let steps_per_epoch = r.count(
            "optim.steps_per_epoch",
            0,
            0..=1_000_000_000,
            "Optimizer steps in an epoch; 0: once through the training samples.",
        );
        let batch = r.count("optim.batch", d.batch, 1..=4096, "Samples in a batch.") as usize;
        let accumulate = r.count(
            "optim.accumulate",
            d.accumulate,
            1..=4096,
            "Batches whose gradients are averaged for one optimizer step.",
        );
        let kind = r.choice(
            "optim.kind",
            d.optimizer,
            &[("adamw", Kind::AdamW), ("adam", Kind::Adam), ("sgd", Kind::Sgd)],
            "AdamW (decoupled weight decay), Adam (weight decay added to the gradient) or SGD with momentum.",
        );
        let (mut momentum, mut nesterov) = (0.0, false);
        if kind == Kind::Sgd {
            momentum = r.number("optim.momentum", 0.99, 0.0..=0.99999, "Momentum of SGD.");
            nesterov = r.flag("optim.nesterov", true, "Nesterov's form of the momentum.");
        } else {
            for key in ["optim.momentum", "optim.nesterov"] {
                r.switched_off(key, "optim.kind", "only optim.kind = \"sgd\" reads it");
            }
        }
        let learning_rate =
            r.number("optim.learning_rate", d.learning_rate, 0.0..=1e3, "Peak learning rate.");
        let mut rate_scales = BTreeMap::new();
        for (group, default) in d.rate_scales {
            let key = format!("optim.rate_scale.{group}");
            let scale = r.number(
                &key,
                *default,
                0.0..=1e3,
                "Factor on the learning rate of this group of parameters.",
            );
            rate_scales.insert(*group, scale);
        }
        let weight_decay = r.number("optim.weight_decay", d.weight_decay, 0.0..=1e3, "Weight decay.");
        let warmup_epochs = r.count(
            "optim.warmup_epochs",
            d.warmup_epochs,
            0..=1_000_000,
            "Epochs of linear warm-up to the peak rate.",
        );
        if warmup_epochs > epochs {
            r.reject("optim.warmup_epochs", format!("found {warmup_epochs}, more than the {epochs} epochs of the run: the peak rate would never be reached"));
        }
        let decay = r.choice(
            "optim.decay",
            d.decay,
            &[
                ("constant", Decay::Constant),
                ("linear", Decay::Linear),
                ("cosine", Decay::Cosine),
                ("poly", Decay::Poly),
                ("plateau", Decay::Plateau),
            ],
            "The rate after the warm-up: constant; to 0 at the end of the run by a line, half a cosine or a power of what is left; or lowered when evaluate.metric rises no more.",
        );
        let mut poly_power = 0.9;
        if decay == Decay::Poly {
            poly_power = r.number("optim.poly_power", poly_power, 0.01..=100.0, "Exponent of poly.");
        } else {
            r.switched_off("optim.poly_power", "optim.decay", "only optim.decay = \"poly\" reads it");
        }
        let mut plateau = PlateauConfig::default();
        if decay == Decay::Plateau {
            plateau.factor =
                r.number("optim.plateau_factor", 0.5, 1e-6..=0.999_999, "Factor on the rate at a plateau.");
            plateau.patience = r.count(
                "optim.plateau_patience",
                8,
                0..=1_000_000,
                "Validations after the warm-up without a better evaluate.metric that are not a plateau yet.",
            );
            plateau.min = r.number("optim.plateau_min", 0.0, 0.0..=1.0, "Least factor on the peak rate.");
        } else {
            for key in ["optim.plateau_factor", "optim.plateau_patience", "optim.plateau_min"] {
                r.switched_off(key, "optim.decay", "only optim.decay = \"plateau\" reads it");
            }
        }
        let by_epoch = r.choice(
            "optim.changes",
            if decay == Decay::Plateau { "epoch" } else { "step" },
            &[("step", false), ("epoch", true)],
            "Whether warm-up and decay move with every step or every epoch [default: step; epoch with plateau].",
        );
        if by_epoch && warmup_epochs == 1 {
            r.reject("optim.warmup_epochs", "is 1, but with optim.changes = \"epoch\" the first epoch of one has the peak rate already: use 0, 2 or more, or \"step\"");
        }
        let clip_norm = r.number(
            "optim.clip_norm",
            d.clip_norm,
            0.0..=1e12,
            "Largest global norm of the gradient; 0: no clipping.",
        );
        let freeze_epochs = r.count(
            "optim.freeze_epochs",
            0,
            0..=1_000_000,
            "Epochs at the start in which the backbone (of a U-Net: the encoder) is frozen.",
        );
        if freeze_epochs > epochs {
            r.reject(
                "optim.freeze_epochs",
                format!("found {freeze_epochs}, more than the {epochs} epochs of the run"),
            );
        }
        let ema_decay = r.number(
            "ema.decay",
            d.ema_decay,
            0.0..=1.0,
            "Decay of a moving average of the weights, validated beside the live weights; 0: no average.",
        );
        if ema_decay == 1.0 {
            r.reject(
                "ema.decay",
                "is 1: the average would stop following the weights; accepted is less than 1",
            );
        }
        let mut ema_warmup = true;
        if ema_decay == 0.0 {
            r.switched_off("ema.warmup", "ema.decay", "ema.decay is 0");
        } else {
            ema_warmup = r.flag("ema.warmup", true, "Whether the decay is reached by min(1 - 1/(update + 1), decay), so that the initial weights are forgotten at once; false: the decay from the first update on.");
        }
        let mut buffers = Buffers::Average;
        if !d.buffers {
            r.inactive("ema.buffers", "the network has no running statistics");
        } else if ema_decay == 0.0 {
            r.switched_off("ema.buffers", "ema.decay", "ema.decay is 0");
        } else {
            buffers = r.choice(
                "ema.buffers",
                "average",
                &[("copy", Buffers::Copy), ("average", Buffers::Average)],
                "Running statistics of the average's norms: the newest, or averaged like its weights.",
            );
        }
        let half = r.choice(
            "optim.precision",
            "f32",
            &[("f32", false), ("bf16", true)],
            "bf16: convolutions compute in bf16, weights, norms, losses and updates in f32; for GPUs that have it.",
        );
        Self {
            kind,
            momentum,
            nesterov,
            weight_decay,
            learning_rate,
            rate_scales,
            epochs,
            steps_per_epoch,
            batch,
            accumulate,
            warmup_epochs,
            by_epoch,
            decay,
            poly_power,
            plateau,
            clip_norm,
            freeze_epochs,
            ema_decay,
            ema_warmup,
            buffers,
            half,
        }
    }

    /// The earliest epoch after which early stopping, of so many validations `every` so many epochs, can end the run.
    pub(crate) fn earliest_stop(patience: u64, every: u64) -> Option<u64> {
        (patience > 0).then_some(patience.saturating_add(1).saturating_mul(every))
    }

    /// Whether a moving average is kept.
    pub(crate) fn averages(&self) -> bool {
        self.ema_decay > 0.0
    }

    /// The one stage, over `samples` training samples.
    pub(crate) fn plan(&self, samples: usize) -> StagePlan {
        let per_step = self.batch as u64 * self.accumulate;
        let natural = (samples as u64).div_ceil(per_step).max(1);
        let steps_per_epoch = if self.steps_per_epoch == 0 { natural } else { self.steps_per_epoch };
        let mut horizons = BTreeMap::new();
        if self.decay != Decay::Plateau {
            horizons.insert(names::OPTIM_LEARNING_RATE.name.to_owned(), self.epochs * steps_per_epoch);
        }
        StagePlan {
            name: "training".to_owned(),
            epochs: self.epochs,
            steps_per_epoch,
            advance_when: None,
            horizons,
        }
    }

    /// The rate of a step, without the plateau's factor.
    fn schedule(&self, plan: &StagePlan) -> Schedule {
        let unit = if self.by_epoch { 1 } else { plan.steps_per_epoch };
        let (warmup, all) = (self.warmup_epochs * unit, plan.epochs * unit);
        let (peak, rest) = (self.learning_rate, all - warmup);
        let after = match self.decay {
            Decay::Constant | Decay::Plateau => schedules::constant(peak),
            Decay::Linear => schedules::linear_decay(peak, rest),
            Decay::Cosine => schedules::cosine_decay(peak, rest),
            Decay::Poly => schedules::polynomial_decay(peak, rest, self.poly_power),
        };
        let by_unit = schedules::warmup(peak, warmup, after);
        let steps = if self.by_epoch { plan.steps_per_epoch } else { 1 };
        Box::new(move |step| by_unit(step / steps))
    }
}

/// A network in training.
pub(crate) struct Learner<M> {
    /// The weights that are trained.
    pub(crate) net: M,
    /// Their moving average, without gradients.
    pub(crate) average: Option<M>,
    /// A network of the same make without gradients, whose values do not matter.
    plain: M,
    settings: Optimization,
    rate: Schedule,
    ema_decay: Schedule,
    optimizer: Optimizer,
    plateau: Option<Plateau>,
    warmup_steps: u64,
    frozen_steps: u64,
    frozen: bool,
    /// Steps done, skipped updates included.
    steps: u64,
    updates: u64,
    /// Share of the initial weights in the average.
    initial_weight: f64,
    /// A rate to use instead of the schedule's.
    forced_rate: Option<f64>,
}

/// Gradients of a step on their way.
#[derive(Default)]
pub(crate) struct Gathered {
    gradients: Flat,
    /// The losses they are of.
    losses: Vec<Tensor<1>>,
}

impl<M: Network> Learner<M> {
    /// `tracked` takes gradients, `plain` is a network of the same make that does not.
    pub(crate) fn new(settings: &Optimization, plan: &StagePlan, tracked: M, plain: M) -> Self {
        let average =
            (settings.ema_decay > 0.0).then(|| params::copy(plain.clone(), &params::flat(&tracked)));
        let weight_decay = settings.weight_decay;
        let optimizer = match settings.kind {
            Kind::AdamW => Optimizer::adamw(AdamWConfig { weight_decay, ..AdamWConfig::default() }),
            Kind::Adam => Optimizer::adam(AdamConfig { weight_decay, ..AdamConfig::default() }),
            Kind::Sgd => Optimizer::sgd(SgdConfig {
                momentum: settings.momentum,
                nesterov: settings.nesterov,
                weight_decay,
                dampening: 0.0,
            }),
        };
        Self {
            net: tracked,
            average,
            plain,
            rate: settings.schedule(plan),
            ema_decay: average_decay(settings.ema_decay, settings.ema_warmup),
            optimizer,
            plateau: (settings.decay == Decay::Plateau).then(|| Plateau::new(1.0, settings.plateau)),
            warmup_steps: settings.warmup_epochs * plan.steps_per_epoch,
            frozen_steps: settings.freeze_epochs * plan.steps_per_epoch,
            frozen: false,
            steps: 0,
            updates: 0,
            initial_weight: 1.0,
            forced_rate: None,
            settings: settings.clone(),
        }
    }

    /// Steps done.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// The learning rate of a step, before the groups' factors.
    pub(crate) fn rate(&self, in_stage: u64) -> f64 {
        let scheduled = || (self.rate)(in_stage) * self.plateau.as_ref().map_or(1.0, Plateau::rate);
        self.forced_rate.unwrap_or_else(scheduled)
    }

    /// From now on this rate instead of the schedule's.
    pub(crate) fn force_rate(&mut self, rate: Option<f64>) {
        self.forced_rate = rate;
    }

    /// Rates, of each group too, whether the first group is frozen, and the average's decay, at a step.
    pub(crate) fn scheduled(&self, in_stage: u64) -> Signals {
        let rate = self.rate(in_stage);
        let frozen = in_stage < self.frozen_steps;
        let mut signals = self.rates(rate, frozen);
        if self.average.is_some() {
            signals.push((names::EMA_DECAY.name.to_owned(), (self.ema_decay)(in_stage)));
        }
        signals
    }

    fn rates(&self, rate: f64, frozen: bool) -> Signals {
        let mut signals = vec![(names::OPTIM_LEARNING_RATE.name.to_owned(), rate)];
        for (index, group) in M::GROUPS.iter().enumerate() {
            let scale = self.settings.rate_scales.get(group).copied().unwrap_or(1.0);
            let rate = if frozen && index == 0 { 0.0 } else { rate * scale };
            signals.push((names::OPTIM_LEARNING_RATE.group(group), rate));
        }
        signals.push((names::STAGE_FROZEN.group(M::GROUPS[0]), f64::from(u8::from(frozen))));
        signals
    }

    /// Distances of the weights from where they started, and of the average from them.
    pub(crate) fn drift(&self, start: &Flat) -> Vec<Drift> {
        let average = self.average.as_ref().map(params::flat);
        probe::drift(start, &params::flat(&self.net), average.as_ref(), M::group_of)
    }

    /// Freezes or thaws as the step asks, and remembers the norms' running statistics, which a step that is not finite must not
    /// keep.
    pub(crate) fn begin(&mut self, at: Step) -> Flat {
        let freeze = at.in_stage < self.frozen_steps;
        if freeze != self.frozen {
            self.net = self.net.clone().set_frozen(freeze);
            self.frozen = freeze;
        }
        params::flat(&self.net).into_iter().filter(|(path, _)| params::is_buffer(path)).collect()
    }

    /// Adds the gradients of one of the step's losses.
    pub(crate) fn gather(&self, gathered: &mut Gathered, loss: Tensor<1>, share: f64) {
        gathered.losses.push(loss.clone().inner());
        accumulate(&mut gathered.gradients, params::gradients(&self.net, loss.backward()), share);
    }

    /// Clips and updates weights and average, unless loss or gradient are not finite; says what happened.
    pub(crate) fn update(&mut self, gathered: Gathered, buffers: &Flat, at: Step) -> Result<Signals> {
        let mut gradients = gathered.gradients;
        self.steps = at.in_stage + 1;
        let rate = self.rate(at.in_stage);
        let norm = global_norm(&gradients);
        let finite = norm.is_finite() && all_finite(gathered.losses)?;
        let (mut clipped, mut sizes, mut decay) = (false, BTreeMap::new(), None);
        if finite {
            let clip = self.settings.clip_norm;
            clipped = clip > 0.0 && clip_by_global_norm(&mut gradients, norm, clip);
            let scales = &self.settings.rate_scales;
            let rate_of = |path: &str| rate * scales.get(M::group_of(path)).copied().unwrap_or(1.0);
            let group_of = at.measure.then_some(M::group_of as fn(&str) -> &'static str);
            (self.net, sizes) = self.optimizer.step(self.net.clone(), gradients, rate_of, group_of);
            if let Some(averaged) = self.average.take() {
                // By updates rather than steps: a skipped one moves neither.
                let keep = (self.ema_decay)(self.updates);
                let live = params::flat(&self.net);
                self.average = Some(average(averaged, &live, keep, self.settings.buffers));
                self.initial_weight *= keep;
                decay = Some(keep);
            }
            self.updates += 1;
        } else {
            self.net = params::copy(self.net.clone(), buffers);
        }
        let flag = |value: bool| f64::from(u8::from(value));
        let mut signals = vec![
            (names::GRAD_NORM.name.to_owned(), norm),
            (names::GRAD_CLIPPED.name.to_owned(), flag(clipped)),
            (names::GRAD_NON_FINITE.name.to_owned(), flag(!finite)),
        ];
        if at.measure {
            let mut push = |name: String, value: f64| signals.push((name, value));
            for (group, size) in sizes {
                push(names::OPTIM_UPDATE_RATIO.group(group), size.update / size.parameter);
                push(names::PARAM_NORM.group(group), size.parameter);
            }
            push(names::OPTIM_UPDATES.name.to_owned(), self.updates as f64);
            if let Some(decay) = decay {
                push(names::EMA_DECAY.name.to_owned(), decay);
                push(names::EMA_INITIAL_WEIGHT.name.to_owned(), self.initial_weight);
            }
            signals.extend(self.rates(rate, self.frozen));
        }
        Ok(signals)
    }

    /// Tells a plateau schedule the outcome of a validation; one within the warm-up does not count.
    pub(crate) fn validated(&mut self, score: f64) {
        if let Some(plateau) = self.plateau.as_mut().filter(|_| self.steps > self.warmup_steps) {
            plateau.observe(score);
        }
    }

    /// The weights that are validated, each without gradients.
    pub(crate) fn kinds(&self) -> Vec<(&'static str, M)> {
        let live = params::copy(self.plain.clone(), &params::flat(&self.net));
        let mut all = vec![(LIVE, live)];
        all.extend(self.average.clone().map(|average| (AVERAGE, average)));
        all
    }

    /// The weights of a kind as a safetensors file.
    pub(crate) fn weights(&self, kind: &str, metadata: &BTreeMap<String, String>) -> Vec<u8> {
        match &self.average {
            Some(average) if kind == AVERAGE => params::to_safetensors(average, metadata),
            _ => params::to_safetensors(&self.net, metadata),
        }
    }

    /// What changes while training.
    pub(crate) fn state(&self) -> RecipeState {
        let none = BTreeMap::new();
        let json = json!({
            "frozen": self.frozen, "steps": self.steps, "updates": self.updates, "initial_weight": self.initial_weight, "plateau": self.plateau.as_ref().map(Plateau::state),
        });
        let mut files = BTreeMap::from([
            ("model.safetensors".to_owned(), params::to_safetensors(&self.net, &none)),
            ("optimizer.safetensors".to_owned(), params::flat_to_safetensors(&self.optimizer.state(), &none)),
        ]);
        if let Some(average) = &self.average {
            files.insert("ema.safetensors".to_owned(), params::to_safetensors(average, &none));
        }
        RecipeState { json: json!({ "learner": json }), files }
    }

    /// Takes over a saved [`Self::state`].
    pub(crate) fn restore(&mut self, state: &RecipeState, folder: &Path, device: &Device) -> Result<()> {
        let state = &state.json["learner"];
        let bad = |problem: String| TrainError::Checkpoint { path: folder.join("state.json"), problem };
        self.net = WeightsFile::read(&folder.join("model.safetensors"))?.load(self.net.clone())?;
        if let Some(average) = self.average.take() {
            self.average = Some(WeightsFile::read(&folder.join("ema.safetensors"))?.load(average)?);
        }
        let optimizer = WeightsFile::read(&folder.join("optimizer.safetensors"))?;
        self.optimizer.restore(optimizer.flat(device), device);
        self.steps = state["steps"].as_u64().ok_or_else(|| bad("`steps` is missing".to_owned()))?;
        self.updates = state["updates"].as_u64().ok_or_else(|| bad("`updates` is missing".to_owned()))?;
        self.initial_weight = state["initial_weight"].as_f64().unwrap_or(1.0);
        if let Some(plateau) = &mut self.plateau {
            let state = serde_json::from_value(state["plateau"].clone());
            plateau.restore(state.map_err(|e| bad(format!("`plateau`: {e}")))?);
        }
        self.frozen = state["frozen"].as_bool().unwrap_or(false);
        self.net = self.net.clone().set_frozen(self.frozen);
        Ok(())
    }
}

/// The decay of an average at each update.
pub(crate) fn average_decay(decay: f64, warmup: bool) -> Schedule {
    if warmup { schedules::average_decay(decay) } else { schedules::constant(decay) }
}

/// Whether every loss is a finite number: one that is not can still have a finite gradient.
pub(crate) fn all_finite(losses: Vec<Tensor<1>>) -> Result<bool> {
    if losses.is_empty() {
        return Ok(true);
    }
    Ok(to_vec(Tensor::cat(losses, 0))?.iter().all(|loss| loss.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trimtab_data::rng::{Stream, rng};
    use trimtab_nn::models::unet3d::{UNet3d, UNet3dConfig};

    const DEFAULTS: Defaults = Defaults {
        optimizer: "adamw",
        learning_rate: 1e-4,
        weight_decay: 0.01,
        batch: 1,
        accumulate: 1,
        epochs: 40,
        warmup_epochs: 10,
        decay: "plateau",
        clip_norm: 2.0,
        ema_decay: 0.9,
        buffers: true,
        rate_scales: &[("encoder", 1.0), ("decoder", 1.0), ("head", 10.0)],
    };

    fn settings(text: &str) -> Optimization {
        let mut reader = Reader::new(Path::new("t.toml"), text, &[]).unwrap();
        Optimization::read(&mut reader, DEFAULTS)
    }

    fn learner(settings: &Optimization, plan: &StagePlan) -> Learner<UNet3d> {
        let plain = crate::device::open("cpu").unwrap();
        let net = |device: &Device| UNet3dConfig::new(1, 1, 2, 1).init(device, &mut rng(1, Stream::Init, 0));
        Learner::new(settings, plan, net(&plain.clone().autodiff()), net(&plain))
    }

    #[test]
    fn the_report_s_warm_up_rises_by_epochs_and_the_plateau_waits_for_its_end() {
        let settings = settings("[optim]\nplateau_patience = 1\n");
        let plan = settings.plan(7);
        assert_eq!((plan.steps_per_epoch, plan.epochs), (7, 40));
        let mut learner = learner(&settings, &plan);
        for (epoch, rate) in [(0, 1e-5), (5, 6e-5), (9, 1e-4), (10, 1e-4), (39, 1e-4)] {
            for step in [epoch * 7, epoch * 7 + 6] {
                assert!(
                    (learner.rate(step) / rate - 1.0).abs() < 1e-12,
                    "epoch {epoch}: {}",
                    learner.rate(step)
                );
            }
        }
        // Ten validations within the warm-up, none better than the first: nothing happens.
        for epoch in 1..=10 {
            learner.steps = epoch * 7;
            learner.validated(0.5);
        }
        assert_eq!(learner.rate(75), 1e-4);
        // The first after it sets the mark, two are waited for, the third lowers the rate.
        for (epoch, rate) in [(11, 1e-4), (12, 1e-4), (13, 5e-5)] {
            learner.steps = epoch * 7;
            learner.validated(0.5);
            assert_eq!(learner.rate(epoch * 7), rate, "after epoch {epoch}");
        }
    }

    #[test]
    fn groups_have_their_own_rates_and_share_the_cosine() {
        let settings = settings(
            "[optim]\ndecay = \"cosine\"\nwarmup_epochs = 0\nepochs = 2\n[optim.rate_scale]\nencoder = 0.5\n",
        );
        let plan = settings.plan(4);
        let mut learner = learner(&settings, &plan);
        let at = |in_stage| Step { global: in_stage, stage: 0, in_stage, measure: true };
        let buffers = learner.begin(at(4));
        let signals = learner.update(Gathered::default(), &buffers, at(4)).unwrap();
        let get = |name: &str| signals.iter().find(|(n, _)| n == name).map(|(_, v)| *v).unwrap();
        assert!((get("optim/learning_rate") - 5e-5).abs() < 1e-15);
        assert!((get("optim/learning_rate/encoder") - 2.5e-5).abs() < 1e-15);
        assert!((get("optim/learning_rate/head") - 5e-4).abs() < 1e-15);
    }

    #[test]
    fn an_average_forgets_the_initial_weights_at_once_and_says_so() {
        let settings = settings("");
        let plan = settings.plan(4);
        let mut learner = learner(&settings, &plan);
        let at = Step { global: 0, stage: 0, in_stage: 0, measure: true };
        let buffers = learner.begin(at);
        let signals = learner.update(Gathered::default(), &buffers, at).unwrap();
        let get = |name: &str| signals.iter().find(|(n, _)| n == name).map(|(_, v)| *v).unwrap();
        assert_eq!((get("ema/decay"), get("ema/initial_weight"), get("optim/updates")), (0.0, 0.0, 1.0));
    }
}
