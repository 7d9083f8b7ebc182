//! System 000: two-stage Mean Teacher for particle segmentation in micrographs.
//!
//! A 2-D U-Net is trained on a few labelled tiles (stage 1) and then on more (stage 2), in both stages with a Mean Teacher
//! (Tarvainen & Valpola 2017, <https://arxiv.org/abs/1703.01780>) on the unlabelled ones. Details of the Mean Teacher (ramp-up of
//! the weight, decay of the average, noise) follow SSL4MIS, <https://github.com/HiLab-git/SSL4MIS>.
//!
//! Axes: b = batch, h, w; the channel axis is 1.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};
use rayon::prelude::*;
use serde_json::json;
use trimtab_data::atomic::write_atomic;
use trimtab_data::augment;
use trimtab_data::dataset::Dataset;
use trimtab_data::picking::estimate_diameter;
use trimtab_data::rng::{Stream, rng};
use trimtab_data::tiles::{self, Tile};
use trimtab_data::{DataError, Image, Labels, overlay};
use trimtab_nn::losses::{bce_with_logits, dice_loss, focal_loss, probability_mse};
use trimtab_nn::models::unet2d::{self, UNet2d, UNet2dConfig};
use trimtab_nn::optim::{AdamW, AdamWConfig, Buffers, accumulate, average, clip_by_global_norm, global_norm};
use trimtab_nn::params::{self, Flat, WeightsFile};
use trimtab_nn::schedules::{self, Schedule};
use trimtab_signals::RunInfo;
use trimtab_signals::names::{self, Signal};

use super::{Entry, Inspection, Recipe, Request, Scores, Session};
use crate::checkpoint;
use crate::config::Common;
use crate::error::{Result, TrainError};
use crate::expect::{Expectation, parse_condition};
use crate::images::{self, Images, Splits};
use crate::measured::Measured;
use crate::optimization::{all_finite, average_decay};
use crate::probe::{self, Bench, Drift, Examination, Forward, Probe};
use crate::recipe::{BatchSource, Evaluation, Recipe as Training, RecipeState, Signals, StagePlan, Step};
use crate::run::Outcome;
use crate::segment2d::{self, Patches, TileSampler, tensor_b1hw};
use crate::session::{self, Best};
use crate::settings::Reader;

/// This recipe in the list.
pub const ENTRY: Entry = Entry {
    name: "two-stage",
    summary: "two-stage Mean Teacher: a U-Net on a few labelled and many unlabelled tiles of micrographs",
    read: |reader| Box::new(TwoStage::read(reader)),
    alternatives: images::ALTERNATIVES,
};

/// What the best weights can be chosen by.
const SCORES: &[Signal] = &[
    names::VAL_F1,
    names::VAL_PRECISION,
    names::VAL_RECALL,
    names::VAL_IOU,
    names::VAL_AUC,
    names::VAL_AVERAGE_PRECISION,
    names::VAL_BEST_F1,
];

/// The kinds of weights that are validated.
const STUDENT: &str = "student";
const TEACHER: &str = "teacher";

/// Every signal of this recipe, beside those of the loop.
const RECORDED: &[Signal] = &[
    names::LOSS_TOTAL,
    names::LOSS_SUPERVISED,
    names::LOSS_FOCAL,
    names::LOSS_DICE,
    names::LOSS_BCE,
    names::LOSS_CONSISTENCY,
    names::WEIGHT_CONSISTENCY,
    names::GRAD_NORM,
    names::OPTIM_LEARNING_RATE,
    names::OPTIM_UPDATE_RATIO,
    names::PARAM_NORM,
    names::EMA_DECAY,
    names::TRAIN_MEAN_PROBABILITY,
    names::TRAIN_POSITIVE_RATE,
    names::TRAIN_PREVALENCE,
    names::TRAIN_LABELLED,
    names::TRAIN_UNLABELLED,
    names::DATA_IGNORED,
    names::STAGE_FROZEN,
    names::VAL_F1,
    names::VAL_PRECISION,
    names::VAL_RECALL,
    names::VAL_IOU,
    names::VAL_AUC,
    names::VAL_AVERAGE_PRECISION,
    names::VAL_BEST_F1,
    names::VAL_BEST_THRESHOLD,
    names::VAL_MEAN_PROBABILITY,
    names::VAL_POSITIVE_RATE,
    names::VAL_PREVALENCE,
    names::VAL_LOSS,
];

/// Settings.
#[derive(Debug)]
pub struct TwoStage {
    common: Common,
    images: Images,
    base: usize,
    loss: Loss,
    teacher: Teacher,
    stages: Vec<Stage>,
}

#[derive(Debug, Clone, Copy)]
struct Loss {
    focal: f64,
    focal_alpha: f64,
    focal_gamma: f64,
    positive_weight: f64,
    dice: f64,
    dice_smooth: f64,
    bce: f64,
}

#[derive(Debug)]
struct Teacher {
    noise: f64,
    buffers: Buffers,
}

#[derive(Debug)]
struct Stage {
    name: &'static str,
    checkpoint: Option<PathBuf>,
    start_from_best: bool,
    labelled_ratio: f64,
    epochs: u64,
    steps_per_epoch: u64,
    batch: usize,
    unlabelled_batch: usize,
    accumulate: u64,
    learning_rate: f64,
    encoder_rate_scale: f64,
    weight_decay: f64,
    warmup_epochs: u64,
    decay: Decay,
    clip_norm: f64,
    freeze_encoder_epochs: u64,
    consistency_weight: f64,
    rampup_epochs: u64,
    ema_decay: f64,
    ema_warmup: bool,
    advance_when: Option<Expectation>,
}

#[derive(Debug, Clone, Copy)]
enum Decay {
    Constant,
    Linear,
    Cosine,
}

impl TwoStage {
    /// Reads the settings; problems gather in the reader.
    pub fn read(r: &mut Reader) -> Self {
        let common = Common::read(r, SCORES);
        let images = Images::read(r);
        let base = r.count(
            "model.base",
            64,
            1..=512,
            "Channels of the U-Net's first level; 64 gives 31,042,369 parameters.",
        ) as usize;
        let loss = Loss::read(r);
        let teacher = Teacher::read(r);
        // With a checkpoint for stage 2 there is no stage 1 to run.
        let skip = r.has_text("stage2.checkpoint");
        let mut stages = Vec::new();
        if skip {
            r.inactive("stage1", "stage2.checkpoint is set, so training starts with stage 2");
        } else {
            stages.push(Stage::read(r, 1));
        }
        stages.push(Stage::read(r, 2));
        let epochs: u64 = stages.iter().map(|s| s.epochs).sum();
        common.check_expectations(r, RECORDED, epochs);
        Self { common, images, base, loss, teacher, stages }
    }
}

impl Loss {
    fn read(r: &mut Reader) -> Self {
        let any = 0.0..=1e6;
        let loss = Self {
            focal: r.number("loss.focal", 0.7, any.clone(), "Weight of the focal term."),
            focal_alpha: r.number(
                "loss.focal_alpha",
                0.7,
                0.0..=1.0,
                "Focal weight of positive pixels; negatives get 1 - alpha.",
            ),
            focal_gamma: r.number(
                "loss.focal_gamma",
                2.0,
                0.0..=20.0,
                "Focal exponent; 0: plain weighted cross-entropy.",
            ),
            positive_weight: r.number(
                "loss.positive_weight",
                1.0,
                any.clone(),
                "Factor on the cross-entropy of positive pixels, in the focal and the BCE term.",
            ),
            dice: r.number("loss.dice", 0.3, any.clone(), "Weight of the Dice term."),
            dice_smooth: r.number(
                "loss.dice_smooth",
                1.0,
                any.clone(),
                "Added to numerator and denominator of Dice.",
            ),
            bce: r.number("loss.bce", 0.0, any, "Weight of the binary cross-entropy term."),
        };
        if loss.focal + loss.dice + loss.bce <= 0.0 {
            r.reject(
                "loss.focal",
                "all of loss.focal, loss.dice and loss.bce are 0: there is nothing to learn",
            );
        }
        loss
    }
}

impl Teacher {
    fn read(r: &mut Reader) -> Self {
        Self {
            noise: r.number("mean_teacher.noise", 0.1, 0.0..=100.0, "Deviation of the noise on the teacher's input, in deviations of the image, cut at twice that."),
            buffers: r.choice(
                "mean_teacher.buffers",
                "average",
                &[("copy", Buffers::Copy), ("average", Buffers::Average)],
                "Running statistics of the teacher's norms: the student's newest, or averaged like its weights.",
            ),
        }
    }
}

impl Stage {
    fn read(r: &mut Reader, number: u8) -> Self {
        let key = |name: &str| format!("stage{number}.{name}");
        let first = number == 1;
        // Bounds that keep every product of epochs and steps far from overflow.
        let (epochs_at_most, steps_at_most) = (1_000_000, 1_000_000_000);
        let checkpoint = if first {
            String::new()
        } else {
            r.text("stage2.checkpoint", "", "A model.safetensors or best.safetensors to start stage 2 from; stage 1 is then skipped. Empty: stage 1 comes first.")
        };
        let start_from_best = if first {
            false
        } else if !checkpoint.is_empty() {
            r.inactive("stage2.start_from", "stage2.checkpoint is set");
            false
        } else {
            r.choice(
                "stage2.start_from",
                "best",
                &[("best", true), ("last", false)],
                "Start from stage 1's best weights (student or teacher) or from its last student.",
            )
        };
        let labelled_ratio = r.number(&key("labelled_ratio"), if first { 0.01 } else { 0.1 }, 0.0..=1.0, "Share of the training tiles whose labels are used (at least one tile); the others are unlabelled.");
        let epochs =
            r.count(&key("epochs"), if first { 50 } else { 100 }, 1..=epochs_at_most, "Epochs at most.");
        let steps_per_epoch = r.count(
            &key("steps_per_epoch"),
            0,
            0..=steps_at_most,
            "Optimizer steps in an epoch; 0: once through the labelled tiles.",
        );
        let batch = r.count(&key("batch"), 4, 1..=4096, "Labelled patches in a batch.") as usize;
        let unlabelled_batch = r.count(
            &key("unlabelled_batch"),
            4,
            0..=4096,
            "Unlabelled patches in a batch, where the consistency weight is not 0.",
        ) as usize;
        let accumulate = r.count(
            &key("accumulate"),
            1,
            1..=4096,
            "Batches whose gradients are averaged for one optimizer step.",
        );
        let learning_rate = r.number(
            &key("learning_rate"),
            if first { 1e-3 } else { 1e-5 },
            0.0..=1e3,
            "Peak learning rate of AdamW.",
        );
        let encoder_rate_scale =
            r.number(&key("encoder_rate_scale"), 1.0, 0.0..=1e3, "Factor on the encoder's learning rate.");
        let weight_decay =
            r.number(&key("weight_decay"), 0.01, 0.0..=1e3, "Decoupled weight decay of AdamW.");
        let warmup_epochs = r.count(
            &key("warmup_epochs"),
            if first { 0 } else { 10 },
            0..=epochs_at_most,
            "Epochs of linear warm-up to the peak rate.",
        );
        if warmup_epochs > epochs {
            r.reject(&key("warmup_epochs"), format!("found {warmup_epochs}, more than the {epochs} epochs of the stage: the peak rate would never be reached"));
        }
        let decay = r.choice(
            &key("decay"),
            "linear",
            &[("constant", Decay::Constant), ("linear", Decay::Linear), ("cosine", Decay::Cosine)],
            "The rate after the warm-up: constant, or to 0 at the end of the stage.",
        );
        let clip_norm = r.number(
            &key("clip_norm"),
            1.0,
            0.0..=1e12,
            "Largest global norm of the gradient; 0: no clipping.",
        );
        let freeze_encoder_epochs = r.count(
            &key("freeze_encoder_epochs"),
            0,
            0..=epochs_at_most,
            "Epochs at the start in which the encoder is frozen.",
        );
        if freeze_encoder_epochs > epochs {
            r.reject(
                &key("freeze_encoder_epochs"),
                format!("found {freeze_encoder_epochs}, more than the {epochs} epochs of the stage"),
            );
        }
        let consistency_weight = r.number(&key("consistency_weight"), 0.1, 0.0..=1e6, "Final weight of the consistency with the teacher; 0: no unlabelled patches are used, and unlabelled_batch and rampup_epochs are idle.");
        if consistency_weight > 0.0 && unlabelled_batch == 0 {
            r.reject(
                &key("unlabelled_batch"),
                format!("is 0, so {} has no effect", &key("consistency_weight")),
            );
        }
        let rampup_epochs = r.count(
            &key("rampup_epochs"),
            if first { 20 } else { 40 },
            0..=epochs_at_most,
            "Epochs over which the consistency weight rises.",
        );
        let ema_decay = r.number(&key("ema_decay"), 0.99, 0.0..=1.0, "Decay of the teacher's average.");
        let ema_warmup = r.flag(&key("ema_warmup"), true, "Whether that decay is reached by min(1 - 1/(step + 1), decay), so that the teacher forgets the initial weights at once; false: the decay from the first step on.");
        if ema_decay == 1.0 {
            r.reject(
                &key("ema_decay"),
                "is 1: the teacher would stop following the student; accepted is less than 1",
            );
        }
        let mut advance_when = None;
        if first {
            let text = r.text(
                "stage1.advance_when",
                "val/f1 > 0.5",
                "Ends stage 1 once a validation meets this; empty: after its last epoch.",
            );
            if !text.is_empty() {
                match read_condition(&text) {
                    Ok(condition) => advance_when = Some(condition),
                    Err(problem) => r.reject("stage1.advance_when", problem),
                }
            }
        }
        Self {
            name: if first { "stage 1" } else { "stage 2" },
            checkpoint: (!checkpoint.is_empty()).then(|| checkpoint.into()),
            start_from_best,
            labelled_ratio,
            epochs,
            steps_per_epoch,
            batch,
            unlabelled_batch: if consistency_weight == 0.0 { 0 } else { unlabelled_batch },
            accumulate,
            learning_rate,
            encoder_rate_scale,
            weight_decay,
            warmup_epochs,
            decay,
            clip_norm,
            freeze_encoder_epochs,
            consistency_weight,
            rampup_epochs,
            ema_decay,
            ema_warmup,
            advance_when,
        }
    }

    fn plan(&self, tiles: usize) -> StagePlan {
        let labelled = tiles::labelled_subset(tiles, self.labelled_ratio, 0).len();
        let natural = (tiles::epoch_batches(labelled, self.batch) as u64).div_ceil(self.accumulate);
        let steps_per_epoch = if self.steps_per_epoch == 0 { natural } else { self.steps_per_epoch };
        let steps = self.epochs * steps_per_epoch;
        let mut horizons = BTreeMap::from([(names::OPTIM_LEARNING_RATE.name.to_owned(), steps)]);
        if self.consistency_weight > 0.0 {
            horizons.insert(names::WEIGHT_CONSISTENCY.name.to_owned(), self.rampup_epochs * steps_per_epoch);
        }
        StagePlan {
            name: self.name.to_owned(),
            epochs: self.epochs,
            steps_per_epoch,
            advance_when: self.advance_when.clone(),
            horizons,
        }
    }
}

fn read_condition(text: &str) -> Result<Expectation, String> {
    let condition = parse_condition(text)?;
    for signal in condition.signals() {
        crate::config::known_signal(signal)?;
        if !signal.starts_with("val/") {
            return Err(format!("found `{signal}`; accepted is a signal of validation, e.g. val/f1"));
        }
    }
    Ok(condition)
}

impl Recipe for TwoStage {
    fn common(&self) -> &Common {
        &self.common
    }

    fn train(&self, session: Session<'_>) -> Result<Outcome> {
        // Everything that can be wrong is found before the run directory is made or changed.
        let mut trainer = self.trainer(session.device)?;
        let info = trainer.info(session.device)?;
        let directory = session.directory.clone();
        let outcome = session::drive(session, &self.common, &mut trainer, &info, &[])?;
        if checkpoint::best_path(&directory).is_file() {
            let predictor = self.open_predictor(&directory, &trainer.plain)?;
            let pair = trainer.validation.load(0)?;
            let map = predictor.predict(&pair.image)?;
            let truth = pair.labels.as_ref().map(|l| Labels {
                width: map.width,
                height: map.height,
                values: l.iter().map(|v| i32::from(*v)).collect(),
            });
            let caption = format!("{}: {}", pair.name, predictor.describe());
            let picture = overlay::panel(
                &pair.image,
                truth.as_ref(),
                Some(&map),
                &[],
                self.images.windows.threshold as f32,
                &caption,
            );
            let png = picture.to_png();
            write_atomic(&directory.join("overlay.png"), |w| w.write_all(&png))?;
        }
        Ok(outcome)
    }

    fn probe<'a>(&'a self, device: &str) -> Result<Box<dyn Probe + 'a>> {
        let trainer = self.trainer(device)?;
        let info = trainer.info(device)?;
        Ok(Box::new(Bench::new(trainer, info)?))
    }

    fn inspect(&self) -> Result<Inspection> {
        segment2d::inspect(&self.images)
    }

    fn evaluate(&self, run: &Path, device: &str, data: Option<&Path>) -> Result<Scores> {
        let best = self.open_predictor(run, &crate::device::open(device)?)?;
        let report = segment2d::scores(&self.images, data, |image| best.predict(image))?;
        Ok(Scores { weights: best.describe(), ..report })
    }

    fn predict(&self, run: &Path, request: &Request, say: &mut dyn FnMut(&str)) -> Result<()> {
        let best = self.open_predictor(run, &crate::device::open(&request.device)?)?;
        let diameter = best.weights.metadata.get("particle_diameter").and_then(|d| d.parse().ok());
        segment2d::predict_files(&self.images, request, diameter, |image| best.predict(image), say)
    }
}

/// Both parts have images, every image can be read and has labels that can be used.
fn check_data(splits: &Splits) -> Result<()> {
    for dataset in [&splits.train, &splits.validation] {
        let place = |i: usize| dataset.path(i).unwrap_or(Path::new("data"));
        if dataset.is_empty() {
            return Err(DataError::content(place(0), "no images").into());
        }
        if let Some(i) = (0..dataset.len()).find(|i| !dataset.is_labelled(*i)) {
            return Err(DataError::content(
                place(i),
                "has no labels; every image needs a mask or coordinates",
            )
            .into());
        }
        (0..dataset.len()).into_par_iter().try_for_each(|i| dataset.load(i).map(drop))?;
    }
    Ok(())
}

impl TwoStage {
    /// All that training needs.
    fn trainer(&self, device: &str) -> Result<Trainer<'_>> {
        let plain = crate::device::open(device)?;
        let splits = self.images.data.open()?;
        check_data(&splits)?;
        let (train, validation) = (Arc::new(splits.train), splits.validation);
        let tiles = Arc::new(tiles::grid(&train.sizes()?, self.images.data.tile));
        Trainer::new(self, train, tiles, validation, &plain)
    }

    fn network(&self, device: &Device) -> UNet2d {
        UNet2dConfig { input: 1, output: 1, base: self.base }
            .init(device, &mut rng(self.common.seed, Stream::Init, 0))
    }

    fn open_predictor(&self, run: &Path, device: &Device) -> Result<BestWeights<'_>> {
        let weights = session::best(run, self.network(device))?;
        Ok(BestWeights { recipe: self, weights, device: device.clone() })
    }
}

/// The best weights of a run.
struct BestWeights<'a> {
    recipe: &'a TwoStage,
    weights: Best<UNet2d>,
    device: Device,
}

impl BestWeights<'_> {
    fn predict(&self, image: &Image) -> Result<Image> {
        segment2d::probability_map(&self.weights.net, &self.device, image, &self.recipe.images.windows)
    }

    fn describe(&self) -> String {
        self.weights.describe(self.recipe.common.metric())
    }
}

/// Networks, optimizer and schedules in motion.
struct Trainer<'a> {
    settings: &'a TwoStage,
    plans: Vec<StagePlan>,
    train: Arc<Dataset>,
    tiles: Arc<Vec<Tile>>,
    validation: Dataset,
    /// Without gradients: teacher and evaluation.
    plain: Device,
    tracked: Device,
    student: UNet2d,
    teacher: UNet2d,
    optimizer: AdamW,
    schedules: Option<StageSchedules>,
    encoder_frozen: bool,
    particle_diameter: Option<f64>,
    /// A rate to use instead of the schedule's.
    forced_rate: Option<f64>,
}

struct StageSchedules {
    stage: usize,
    learning_rate: Schedule,
    consistency: Schedule,
    ema_decay: Schedule,
    frozen_steps: u64,
}

/// What one optimizer step trains on: one batch, or several whose gradients are averaged.
struct Batch(Vec<MicroBatch>);

struct MicroBatch {
    labelled: Patches,
    unlabelled: Patches,
    /// The unlabelled images as the teacher sees them.
    noisy: Vec<f32>,
}

impl<'a> Trainer<'a> {
    fn new(
        settings: &'a TwoStage,
        train: Arc<Dataset>,
        tiles: Arc<Vec<Tile>>,
        validation: Dataset,
        plain: &Device,
    ) -> Result<Self> {
        let tracked = plain.clone().autodiff();
        let student = settings.network(&tracked);
        let teacher = params::copy(settings.network(plain), &params::flat(&student));
        let mut particle_diameter = settings.images.data.particle_diameter();
        if particle_diameter.is_none() {
            let pair = train.load(0)?;
            particle_diameter = pair.labels.as_ref().and_then(|l| {
                let values = l.iter().map(|v| i32::from(*v)).collect();
                estimate_diameter(&Labels { width: pair.image.width, height: pair.image.height, values })
            });
        }
        Ok(Self {
            settings,
            plans: settings.stages.iter().map(|s| s.plan(tiles.len())).collect(),
            train,
            tiles,
            validation,
            plain: plain.clone(),
            tracked,
            student,
            teacher,
            optimizer: AdamW::new(AdamWConfig::default()),
            schedules: None,
            encoder_frozen: false,
            particle_diameter,
            forced_rate: None,
        })
    }

    /// Tiles whose labels a stage uses, and the rest (all, where there is no rest).
    fn split_tiles(&self, stage: usize) -> (Vec<Tile>, Vec<Tile>) {
        let all = &self.tiles;
        let picked = tiles::labelled_subset(
            all.len(),
            self.settings.stages[stage].labelled_ratio,
            self.settings.common.seed,
        );
        let labelled: HashSet<usize> = picked.iter().copied().collect();
        let mut rest: Vec<Tile> = (0..all.len()).filter(|i| !labelled.contains(i)).map(|i| all[i]).collect();
        if rest.is_empty() {
            rest = all.to_vec();
        }
        (picked.into_iter().map(|i| all[i]).collect(), rest)
    }

    fn info(&self, device: &str) -> Result<RunInfo> {
        let (labelled, _) = self.split_tiles(self.plans.len() - 1);
        let mut class_counts = BTreeMap::new();
        for tile in &labelled {
            for label in tiles::cut(&*self.train.load(tile.entry)?, *tile).labels.iter().flatten() {
                *class_counts.entry(label.to_string()).or_insert(0u64) += 1;
            }
        }
        Ok(session::info(
            ENTRY.name,
            device,
            self.settings.common.seed,
            &self.plans,
            format!("{}+{}", self.train.fingerprint()?, self.validation.fingerprint()?),
            class_counts,
            params::parameter_counts(&self.student, unet2d::group_of),
        ))
    }

    /// The schedules of a stage.
    fn schedules(&self, stage: usize) -> StageSchedules {
        let (settings, plan) = (&self.settings.stages[stage], &self.plans[stage]);
        let (warmup, steps) = (settings.warmup_epochs * plan.steps_per_epoch, plan.steps());
        let peak = settings.learning_rate;
        let after = match settings.decay {
            Decay::Constant => schedules::constant(peak),
            Decay::Linear => schedules::linear_decay(peak, steps - warmup),
            Decay::Cosine => schedules::cosine_decay(peak, steps - warmup),
        };
        StageSchedules {
            stage,
            learning_rate: schedules::warmup(peak, warmup, after),
            consistency: schedules::sigmoid_rampup(
                settings.consistency_weight,
                settings.rampup_epochs * plan.steps_per_epoch,
            ),
            ema_decay: average_decay(settings.ema_decay, settings.ema_warmup),
            frozen_steps: settings.freeze_encoder_epochs * plan.steps_per_epoch,
        }
    }

    /// Sets up what a stage needs beside weights.
    fn begin(&mut self, stage: usize) {
        self.schedules = Some(self.schedules(stage));
        let weight_decay = self.settings.stages[stage].weight_decay;
        self.optimizer = AdamW::new(AdamWConfig { weight_decay, ..AdamWConfig::default() });
    }

    /// Unweighted terms of the supervised loss, each with its weight.
    fn supervised(
        &self,
        logits: Tensor<4>,
        target: Tensor<4>,
        valid: Tensor<4>,
    ) -> Vec<(&'static Signal, f64, Tensor<1>)> {
        let l = &self.settings.loss;
        let mut terms = Vec::new();
        if l.focal > 0.0 {
            let (alpha, gamma) = (l.focal_alpha, l.focal_gamma);
            let (z, t, v) = (logits.clone(), target.clone(), valid.clone());
            terms.push((&names::LOSS_FOCAL, l.focal, focal_loss(z, t, v, alpha, gamma, l.positive_weight)));
        }
        if l.dice > 0.0 {
            let term = dice_loss(logits.clone(), target.clone(), valid.clone(), l.dice_smooth);
            terms.push((&names::LOSS_DICE, l.dice, term));
        }
        if l.bce > 0.0 {
            terms.push((&names::LOSS_BCE, l.bce, bce_with_logits(logits, target, valid, l.positive_weight)));
        }
        terms
    }

    /// Labelled and unlabelled patches through the network in one batch, so that the norms see both; the terms of the loss.
    fn forward(&mut self, batch: &MicroBatch) -> Passed {
        let n = batch.labelled.count;
        let mut images_b1hw = batch.labelled.images_b1hw(&self.tracked);
        if batch.unlabelled.count > 0 {
            images_b1hw = Tensor::cat(vec![images_b1hw, batch.unlabelled.images_b1hw(&self.tracked)], 0);
        }
        let logits_b1hw = self.student.forward_train(images_b1hw);
        let (target_b1hw, valid_b1hw) = batch.labelled.targets_b1hw(&self.tracked);
        let student_b1hw = logits_b1hw.clone().narrow(0, 0, n);
        let terms = self.supervised(student_b1hw.clone(), target_b1hw, valid_b1hw.clone());
        let consistency = (batch.unlabelled.count > 0).then(|| {
            let (count, size) = (batch.unlabelled.count, batch.unlabelled.size);
            let noisy_b1hw = tensor_b1hw(batch.noisy.clone(), count, size, &self.plain);
            let probs_b1hw = sigmoid(self.teacher.forward(noisy_b1hw));
            let student_b1hw = logits_b1hw.narrow(0, n, count);
            probability_mse(student_b1hw, Tensor::from_inner(probs_b1hw))
        });
        Passed { student_b1hw, valid_b1hw, terms, consistency }
    }

    /// Rates of a step, of each group too, and what of the network is frozen.
    fn rates(&self, stage: &Stage, rate: f64, frozen: bool) -> Signals {
        let mut signals = vec![(names::OPTIM_LEARNING_RATE.name.to_owned(), rate)];
        for group in unet2d::GROUPS {
            let scaled = if group == "encoder" { rate * stage.encoder_rate_scale } else { rate };
            let value = if frozen && group == "encoder" { 0.0 } else { scaled };
            signals.push((names::OPTIM_LEARNING_RATE.group(group), value));
        }
        signals.push((names::STAGE_FROZEN.group("encoder"), f64::from(u8::from(frozen))));
        signals
    }
}

/// A batch that has passed forward.
struct Passed {
    /// Logits of the labelled patches.
    student_b1hw: Tensor<4>,
    valid_b1hw: Tensor<4>,
    /// Terms of the supervised loss with their weights.
    terms: Vec<(&'static Signal, f64, Tensor<1>)>,
    /// The consistency with the teacher, where there are unlabelled patches.
    consistency: Option<Tensor<1>>,
}

impl Training for Trainer<'_> {
    type Batch = Batch;

    fn stages(&self) -> &[StagePlan] {
        &self.plans
    }

    fn enter_stage(&mut self, stage: usize, best: Option<&Path>) -> Result<()> {
        let settings = &self.settings.stages[stage];
        let start = settings.checkpoint.as_deref().or(if settings.start_from_best { best } else { None });
        if let Some(path) = start {
            let weights = WeightsFile::read(path)?.load(self.teacher.clone())?;
            let student = self.student.clone().set_encoder_frozen(false);
            self.student = params::copy(student, &params::flat(&weights));
            self.encoder_frozen = false;
        }
        self.teacher = params::copy(self.teacher.clone(), &params::flat(&self.student));
        self.begin(stage);
        Ok(())
    }

    fn batches(&self, stage: usize) -> BatchSource<Batch> {
        let (settings, common) = (&self.settings.stages[stage], &self.settings.common);
        let images = &self.settings.images;
        let (labelled, unlabelled) = self.split_tiles(stage);
        let sampler = |tiles: Vec<Tile>, batch: usize, labelled: bool| TileSampler {
            dataset: Arc::clone(&self.train),
            tiles: Arc::new(tiles),
            batch,
            crop: images.data.crop,
            augment: images.augment,
            // Two streams of numbers, or both kinds of patches would be drawn and turned alike.
            seed: common.seed.wrapping_mul(2).wrapping_add(u64::from(!labelled)),
            labelled,
            short_last: labelled && settings.steps_per_epoch == 0 && settings.accumulate == 1,
        };
        let labelled = sampler(labelled, settings.batch, true);
        let unlabelled = sampler(unlabelled, settings.unlabelled_batch, false);
        let (accumulate, seed, noise) = (settings.accumulate, common.seed, self.settings.teacher.noise);
        Arc::new(move |step| {
            let micro = (0..accumulate).map(|m| {
                let index = step * accumulate + m;
                let unlabelled =
                    if unlabelled.batch == 0 { Patches::default() } else { unlabelled.batch(index)? };
                let mut delta = vec![0.0; unlabelled.images.len()];
                augment::add_noise(&mut delta, noise, &mut rng(seed, Stream::TeacherNoise, index));
                let limit = 2.0 * noise as f32;
                let noisy =
                    unlabelled.images.iter().zip(&delta).map(|(x, d)| x + d.clamp(-limit, limit)).collect();
                Ok(MicroBatch { labelled: labelled.batch(index)?, unlabelled, noisy })
            });
            micro.collect::<trimtab_data::Result<_>>().map(Batch)
        })
    }

    fn step(&mut self, Batch(micro): Batch, at: Step) -> Result<Signals> {
        let stage = &self.settings.stages[at.stage];
        let schedules = self
            .schedules
            .as_ref()
            .ok_or_else(|| TrainError::Internal("a step before its stage began".into()))?;
        let rate = self.forced_rate.unwrap_or_else(|| (schedules.learning_rate)(at.in_stage));
        let consistency_weight = (schedules.consistency)(at.in_stage);
        let decay = (schedules.ema_decay)(at.in_stage);
        let freeze = at.in_stage < schedules.frozen_steps;
        if freeze != self.encoder_frozen {
            self.student = self.student.clone().set_encoder_frozen(freeze);
            self.encoder_frozen = freeze;
        }
        let share = 1.0 / micro.len().max(1) as f64;
        let buffers: Flat =
            params::flat(&self.student).into_iter().filter(|(path, _)| params::is_buffer(path)).collect();
        let mut gradients = Flat::new();
        let mut losses = Vec::new();
        let mut measured = Measured::default();
        let (mut labelled, mut unlabelled, mut non_finite_inputs) = (0, 0, 0);

        for batch in micro {
            // Forward and loss.
            labelled += batch.labelled.count;
            unlabelled += batch.unlabelled.count;
            non_finite_inputs += batch.labelled.non_finite() + batch.unlabelled.non_finite();
            let Passed { student_b1hw, valid_b1hw, terms, consistency } = self.forward(&batch);
            let mut total = Tensor::zeros([1], &self.tracked);
            for (signal, weight, term) in terms {
                if at.measure {
                    measured.add(signal, &term, share);
                }
                total = total + term * weight;
            }
            if at.measure {
                measured.add(&names::LOSS_SUPERVISED, &total, share);
                predictions(&mut measured, student_b1hw, valid_b1hw, share);
                let (ignored, prevalence) = batch.labelled.label_shares();
                measured.known(&names::DATA_IGNORED, ignored * share);
                measured.known(&names::TRAIN_PREVALENCE, prevalence * share);
            }
            if let Some(term) = consistency {
                if at.measure {
                    measured.add(&names::LOSS_CONSISTENCY, &term, share);
                }
                total = total + term * consistency_weight;
            }
            if at.measure {
                measured.add(&names::LOSS_TOTAL, &total, share);
            }

            // Gradients.
            losses.push(total.clone().inner());
            accumulate(&mut gradients, params::gradients(&self.student, total.backward()), share);
        }

        // Update; one that is not finite reaches neither weights nor running statistics nor teacher.
        let norm = global_norm(&gradients);
        let finite = norm.is_finite() && all_finite(losses)?;
        let mut sizes = BTreeMap::new();
        let mut clipped = false;
        if finite {
            clipped = stage.clip_norm > 0.0 && clip_by_global_norm(&mut gradients, norm, stage.clip_norm);
            let scale = stage.encoder_rate_scale;
            let rate_of = |path: &str| if unet2d::group_of(path) == "encoder" { rate * scale } else { rate };
            let group_of = at.measure.then_some(unet2d::group_of as fn(&str) -> &'static str);
            (self.student, sizes) = self.optimizer.step(self.student.clone(), gradients, rate_of, group_of);
            self.teacher = average(
                self.teacher.clone(),
                &params::flat(&self.student),
                decay,
                self.settings.teacher.buffers,
            );
        } else {
            self.student = params::copy(self.student.clone(), &buffers);
        }

        // Report.
        let mut signals = vec![
            (names::GRAD_NORM.name.to_owned(), norm),
            (names::GRAD_CLIPPED.name.to_owned(), f64::from(u8::from(clipped))),
            (names::GRAD_NON_FINITE.name.to_owned(), f64::from(u8::from(!finite))),
            (names::DATA_NON_FINITE.name.to_owned(), non_finite_inputs as f64),
        ];
        if at.measure {
            let mut push = |name: String, value: f64| signals.push((name, value));
            for (group, size) in sizes {
                push(names::OPTIM_UPDATE_RATIO.group(group), size.update / size.parameter);
                push(names::PARAM_NORM.group(group), size.parameter);
            }
            push(names::EMA_DECAY.name.to_owned(), decay);
            if stage.unlabelled_batch > 0 {
                push(names::WEIGHT_CONSISTENCY.name.to_owned(), consistency_weight);
            }
            push(names::TRAIN_LABELLED.name.to_owned(), labelled as f64);
            push(names::TRAIN_UNLABELLED.name.to_owned(), unlabelled as f64);
            signals.extend(self.rates(stage, rate, freeze));
            signals.extend(measured.read()?);
        }
        Ok(signals)
    }

    fn evaluate(&mut self) -> Result<Evaluation> {
        let windows = &self.settings.images.windows;
        let live = params::copy(self.teacher.clone(), &params::flat(&self.student));
        let mut reports = Vec::new();
        let mut losses = Vec::new();
        for (kind, net) in [(STUDENT, &live), (TEACHER, &self.teacher)] {
            let mut loss = HostLoss::default();
            let report = segment2d::evaluate(
                &self.validation,
                windows.threshold,
                |image| segment2d::probability_map(net, &self.plain, image, windows),
                |map, labels| loss.push(&self.settings.loss, &map.pixels, labels),
            )?;
            reports.push((kind, report));
            losses.push((kind, loss.value(&self.settings.loss)));
        }
        let (mut signals, floors, winner) = segment2d::signals(&reports, self.settings.common.metric());
        for (kind, loss) in losses {
            if kind == winner {
                signals.push((names::VAL_LOSS.name.to_owned(), loss));
            }
            signals.push((names::VAL_LOSS.group(kind), loss));
        }
        Ok(Evaluation { signals, floors, winner })
    }

    fn state(&self) -> RecipeState {
        let none = BTreeMap::new();
        RecipeState {
            json: json!({ "stage": self.schedules.as_ref().map_or(0, |s| s.stage), "encoder_frozen": self.encoder_frozen }),
            files: BTreeMap::from([
                ("model.safetensors".to_owned(), params::to_safetensors(&self.student, &none)),
                ("teacher.safetensors".to_owned(), params::to_safetensors(&self.teacher, &none)),
                (
                    "optimizer.safetensors".to_owned(),
                    params::flat_to_safetensors(&self.optimizer.state(), &none),
                ),
            ]),
        }
    }

    fn restore(&mut self, state: &RecipeState, folder: &Path) -> Result<()> {
        let stage = state.json["stage"].as_u64().unwrap_or(0) as usize;
        if stage >= self.plans.len() {
            let problem = format!("of stage {}; the settings have {}", stage + 1, self.plans.len());
            return Err(TrainError::Checkpoint { path: folder.to_owned(), problem });
        }
        self.begin(stage);
        self.student = WeightsFile::read(&folder.join("model.safetensors"))?.load(self.student.clone())?;
        self.teacher = WeightsFile::read(&folder.join("teacher.safetensors"))?.load(self.teacher.clone())?;
        let optimizer = WeightsFile::read(&folder.join("optimizer.safetensors"))?;
        self.optimizer.restore(optimizer.flat(&self.plain), &self.plain);
        self.encoder_frozen = state.json["encoder_frozen"].as_bool().unwrap_or(false);
        self.student = self.student.clone().set_encoder_frozen(self.encoder_frozen);
        Ok(())
    }

    fn weights(&self, kind: &str, mut metadata: BTreeMap<String, String>) -> Vec<u8> {
        if let Some(diameter) = self.particle_diameter {
            metadata.insert("particle_diameter".to_owned(), diameter.to_string());
        }
        params::to_safetensors(if kind == TEACHER { &self.teacher } else { &self.student }, &metadata)
    }

    fn scheduled(&self, stage: usize, in_stage: u64) -> Signals {
        let (schedules, settings) = (self.schedules(stage), &self.settings.stages[stage]);
        let rate = (schedules.learning_rate)(in_stage);
        let mut signals = self.rates(settings, rate, in_stage < schedules.frozen_steps);
        signals.push((names::EMA_DECAY.name.to_owned(), (schedules.ema_decay)(in_stage)));
        if settings.unlabelled_batch > 0 {
            signals.push((names::WEIGHT_CONSISTENCY.name.to_owned(), (schedules.consistency)(in_stage)));
        }
        signals
    }

    fn force_rate(&mut self, rate: Option<f64>) {
        self.forced_rate = rate;
    }

    fn examine(&mut self, Batch(micro): Batch, at: Step) -> Result<Examination> {
        let consistency_weight =
            self.schedules.as_ref().map_or(0.0, |schedules| (schedules.consistency)(at.in_stage));
        let Some(batch) = micro.into_iter().next() else { return Ok(Examination::default()) };
        probe::examine(
            self,
            |t| &t.student,
            unet2d::group_of,
            |t| {
                let passed = t.forward(&batch);
                let name = |signal: &'static Signal| signal.name.trim_start_matches("loss/");
                let mut terms: Vec<_> = passed
                    .terms
                    .into_iter()
                    .map(|(signal, weight, term)| (name(signal), weight, term))
                    .collect();
                terms.extend(
                    passed.consistency.map(|t| (name(&names::LOSS_CONSISTENCY), consistency_weight, t)),
                );
                let count = passed.student_b1hw.shape().num_elements();
                Forward { logits: passed.student_b1hw.reshape([count]), terms }
            },
        )
    }

    fn drift(&self, start: &Flat) -> Vec<Drift> {
        let average = params::flat(&self.teacher);
        probe::drift(start, &params::flat(&self.student), Some(&average), unet2d::group_of)
    }

    fn live(&self) -> Flat {
        params::flat(&self.student)
    }

    fn validation_batches(&self) -> f64 {
        let pixels = |(width, height): (usize, usize)| (width * height) as f64;
        let all: f64 = self.validation.sizes().unwrap_or_default().into_iter().map(pixels).sum();
        let images = &self.settings.images;
        let stage = self.schedules.as_ref().map_or(0, |s| s.stage);
        let stage = &self.settings.stages[stage];
        let shared = images.windows.overlap as f64 / images.windows.tile as f64;
        let step = (1.0 - shared).clamp(0.1, 1.0).powi(2);
        // Student and teacher.
        let batch = (stage.batch + stage.unlabelled_batch) as f64;
        2.0 * all / step / (batch * (images.data.crop * images.data.crop) as f64)
    }
}

/// Mean probability and share of positives among the valid pixels.
fn predictions(measured: &mut Measured, logits: Tensor<4>, valid: Tensor<4>, share: f64) {
    let (logits, valid) = (logits.inner(), valid.inner());
    let count = valid.clone().sum().clamp_min(1.0);
    let mean = (sigmoid(logits.clone()) * valid.clone()).sum() / count.clone();
    let rate = (logits.greater_elem(0.0).float() * valid).sum() / count;
    measured.add(&names::TRAIN_MEAN_PROBABILITY, &mean, share);
    measured.add(&names::TRAIN_POSITIVE_RATE, &rate, share);
}

/// The supervised loss over a whole validation set, from blended probabilities, in f64 and constant memory.
#[derive(Default)]
struct HostLoss {
    valid: f64,
    focal: f64,
    bce: f64,
    overlap: f64,
    probability: f64,
    positive: f64,
}

impl HostLoss {
    fn push(&mut self, l: &Loss, probs: &[f32], labels: &[i8]) {
        for (p, label) in probs.iter().zip(labels).filter(|(_, label)| **label >= 0) {
            // Blended probabilities can be exactly 0 or 1; f32 logits of training could not tell either from this bound.
            let p = f64::from(*p).clamp(1e-7, 1.0 - 1e-7);
            let positive = *label == 1;
            let (right, alpha, weight) = if positive {
                (p, l.focal_alpha, l.positive_weight)
            } else {
                (1.0 - p, 1.0 - l.focal_alpha, 1.0)
            };
            let bce = -weight * right.ln();
            self.valid += 1.0;
            self.bce += bce;
            self.focal += alpha * (1.0 - right).powf(l.focal_gamma) * bce;
            self.probability += p;
            if positive {
                self.positive += 1.0;
                self.overlap += p;
            }
        }
    }

    fn value(&self, l: &Loss) -> f64 {
        let n = self.valid.max(1.0);
        let dice =
            1.0 - (2.0 * self.overlap + l.dice_smooth) / (self.probability + self.positive + l.dice_smooth);
        l.focal * self.focal / n + l.dice * dice + l.bce * self.bce / n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: &str = "[data]\ntile = 32\n[data.synth]\ncount = 1\nvalidation = 1\nsize = 64\n[model]\nbase = 2\n[stage1]\nbatch = 2\nunlabelled_batch = 2\nadvance_when = \"\"\n";

    fn settings(more: &str) -> TwoStage {
        let mut reader = Reader::new(Path::new("t.toml"), &format!("{TINY}{more}"), &[]).unwrap();
        TwoStage::read(&mut reader)
    }

    fn trainer(settings: &TwoStage) -> Trainer<'_> {
        let splits = settings.images.data.open().unwrap();
        let tiles = Arc::new(tiles::grid(&splits.train.sizes().unwrap(), settings.images.data.tile));
        let mut trainer = Trainer::new(
            settings,
            Arc::new(splits.train),
            tiles,
            splits.validation,
            &crate::device::open("cpu").unwrap(),
        )
        .unwrap();
        trainer.enter_stage(0, None).unwrap();
        trainer
    }

    fn at(in_stage: u64) -> Step {
        Step { global: in_stage, stage: 0, in_stage, measure: true }
    }

    fn get(signals: &Signals, name: &str) -> f64 {
        signals.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1
    }

    #[test]
    fn the_report_s_stage_2_has_the_rates_that_were_logged() {
        // 5,170 tiles, of which 10 % are labelled: 517 samples, 130 batches of 4.
        let settings = settings("");
        let plan = settings.stages[1].plan(5170);
        assert_eq!(plan.steps_per_epoch, 130);
        assert_eq!(plan.horizons[names::OPTIM_LEARNING_RATE.name], 13_000);
        let mut trainer = trainer(&settings);
        trainer.plans = settings.stages.iter().map(|s| s.plan(5170)).collect();
        trainer.begin(1);
        let rate = &trainer.schedules.as_ref().unwrap().learning_rate;
        assert_eq!(format!("{:.2e} {:.2e}", rate(0), rate(129)), "7.69e-9 1.00e-6");
    }

    #[test]
    fn a_gradient_that_is_not_finite_reaches_neither_weights_nor_statistics_nor_teacher() {
        let settings = settings("");
        let mut trainer = trainer(&settings);
        let source = trainer.batches(0);
        trainer.step(source(0).unwrap(), at(0)).unwrap();
        let before = trainer.state().files;
        let mut batch = source(1).unwrap();
        batch.0[0].labelled.images[7] = f32::NAN;
        let signals = trainer.step(batch, at(1)).unwrap();
        assert_eq!(get(&signals, "grad/non_finite"), 1.0);
        assert_eq!(get(&signals, "data/non_finite"), 1.0);
        assert!(get(&signals, "grad/norm").is_nan());
        assert!(trainer.state().files == before);
        let signals = trainer.step(source(2).unwrap(), at(2)).unwrap();
        assert!(get(&signals, "loss/total").is_finite());
        assert!(trainer.state().files != before);
    }

    #[test]
    fn accumulated_batches_count_together_and_their_losses_are_averaged() {
        let settings = settings("accumulate = 3\n");
        let mut trainer = trainer(&settings);
        let batch = trainer.batches(0)(0).unwrap();
        assert_eq!(batch.0.len(), 3);
        let signals = trainer.step(batch, at(0)).unwrap();
        assert_eq!(get(&signals, "train/labelled"), 6.0);
        let (focal, dice) = (get(&signals, "loss/focal"), get(&signals, "loss/dice"));
        assert!((get(&signals, "loss/supervised") - 0.7 * focal - 0.3 * dice).abs() < 1e-5);
    }

    #[test]
    fn the_validation_loss_is_the_training_loss_on_whole_images() {
        let l = Loss {
            focal: 0.7,
            focal_alpha: 0.7,
            focal_gamma: 2.0,
            positive_weight: 1.5,
            dice: 0.3,
            dice_smooth: 1.0,
            bce: 0.2,
        };
        let logits = [-2.0f32, 0.5, 3.0, -0.1, 1.0];
        let labels = [0i8, 1, 1, -1, 0];
        let device = crate::device::open("cpu").unwrap();
        let tensor = |v: Vec<f32>| Tensor::<1>::from_floats(v.as_slice(), &device);
        let z = tensor(logits.to_vec());
        let t = tensor(labels.iter().map(|l| f32::from(*l == 1)).collect());
        let v = tensor(labels.iter().map(|l| f32::from(*l >= 0)).collect());
        let direct = focal_loss(z.clone(), t.clone(), v.clone(), 0.7, 2.0, 1.5) * 0.7
            + dice_loss(z.clone(), t.clone(), v.clone(), 1.0) * 0.3
            + bce_with_logits(z, t, v, 1.5) * 0.2;
        let mut host = HostLoss::default();
        host.push(&l, &logits.map(|z| 1.0 / (1.0 + (-z).exp())), &labels);
        assert!((host.value(&l) - f64::from(direct.into_scalar::<f32>())).abs() < 1e-5);
    }

    #[test]
    fn labelled_subsets_are_nested_and_the_rest_is_unlabelled() {
        let settings = settings("labelled_ratio = 0.3\n[stage2]\nlabelled_ratio = 0.8\n");
        let trainer = trainer(&settings);
        let ((small, rest), (large, _)) = (trainer.split_tiles(0), trainer.split_tiles(1));
        assert_eq!((small.len(), rest.len(), large.len()), (1, 3, 3));
        assert!(small.iter().all(|t| large.contains(t) && !rest.contains(t)));
    }
}
