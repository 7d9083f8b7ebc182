//! System 001: classification of imbalanced volumes.
//!
//! MedicalNet's 3-D residual network (Chen et al. 2019, <https://arxiv.org/abs/1904.00625>), with its weights where they are at hand, is
//! fine-tuned with label-distribution-aware margins and deferred re-weighting (LDAM-DRW, Cao et al. 2019,
//! <https://arxiv.org/abs/1906.07413>): uniform weights until `loss.drw_start`, class-balanced ones (Cui et al. 2019,
//! <https://arxiv.org/abs/1901.05555>) from then on.
//!
//! Axes: b = batch, c = channel, k = class, d, h, w.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::json;
use trimtab_data::atomic::write_atomic;
use trimtab_data::augment3d::Augment3d;
use trimtab_data::rng::{Stream, rng};
use trimtab_data::tiles;
use trimtab_data::volume::{Shape, VolumePatch};
use trimtab_data::volumes::{
    ClassificationSpec, Generated, Normalise3d, Prepared, Preprocess, VolumeDataset, VolumeOptions,
    VolumeSource,
};
use trimtab_data::{DataError, synth};
use trimtab_metrics::classification::{ClassificationEvaluator, ClassificationReport};
use trimtab_nn::losses::{cross_entropy, drw_weights, ldam_loss, ldam_margins};
use trimtab_nn::models::resnet3d::{self, Depth, ResNet3d, ResNet3dConfig};
use trimtab_nn::params;
use trimtab_nn::weights::{self, Fit, Names};
use trimtab_signals::RunInfo;
use trimtab_signals::names::{self, Signal};

use super::{Entry, Inspection, Recipe, Request, Score, Scores, Session};
use crate::config::Common;
use crate::error::{Result, TrainError};
use crate::measured::{Measured, to_vec};
use crate::optimization::{self, Defaults, Gathered, Learner, Network, Optimization};
use crate::probe::{self, Bench, Drift, Examination, Forward, Probe};
use crate::recipe::{BatchSource, Evaluation, Recipe as Training, RecipeState, Signals, StagePlan, Step};
use crate::run::Outcome;
use crate::session::{self, Best};
use crate::settings::Reader;
use crate::volumes::{self, Validation};

/// This recipe in the list.
pub const ENTRY: Entry = Entry {
    name: "volume-classification",
    summary: "classification of imbalanced volumes: a 3-D ResNet (MedicalNet) with LDAM and deferred re-weighting",
    read: |reader| Box::new(VolumeClassification::read(reader)),
    alternatives: &[
        ("data.source=table", "data.source = \"table\""),
        ("data.source=folders", "data.source = \"folders\""),
        ("data.validation=file", "data.validation = \"file\""),
        ("data.validation=every", "data.validation = \"every\""),
        ("data.validation=last", "data.validation = \"last\""),
        ("optim.kind=sgd", "optim.kind = \"sgd\""),
        ("optim.decay=plateau", "optim.decay = \"plateau\""),
        ("model.pretrained=x", "model.pretrained"),
    ],
};

/// What the best weights can be chosen by.
const SCORES: &[Signal] =
    &[names::VAL_AUC, names::VAL_BALANCED_ACCURACY, names::VAL_ACCURACY, names::VAL_F1, names::VAL_MACRO_F1];

/// Every signal of this recipe, beside those of the loop and of [`Learner`].
const RECORDED: &[Signal] = &[
    names::LOSS_TOTAL,
    names::LOSS_LDAM,
    names::LOSS_CROSS_ENTROPY,
    names::WEIGHT_CLASS,
    names::TRAIN_LABELLED,
    names::TRAIN_ACCURACY,
    names::TRAIN_PREVALENCE,
    names::VAL_LOSS,
    names::VAL_AUC,
    names::VAL_ACCURACY,
    names::VAL_BALANCED_ACCURACY,
    names::VAL_F1,
    names::VAL_MACRO_F1,
    names::VAL_RECALL,
    names::VAL_CALIBRATION_ERROR,
];

/// Settings.
#[derive(Debug)]
pub struct VolumeClassification {
    common: Common,
    data: Data,
    model: ResNet3dConfig,
    pretrained: Option<Pretrained>,
    loss: Loss,
    optim: Optimization,
    batch: usize,
}

#[derive(Debug)]
struct Pretrained {
    path: PathBuf,
    match_share: f64,
}

#[derive(Debug)]
struct Data {
    source: Source,
    options: VolumeOptions,
    balanced: bool,
    augment: Augment3d,
    channels: usize,
}

#[derive(Debug)]
enum Source {
    Files { spec: ClassificationSpec, validation: Validation },
    Synth { config: synth::PatchClassConfig, seed: u64, count: usize, validation: usize },
}

#[derive(Debug, Clone, Copy)]
struct Loss {
    ldam: bool,
    max_margin: f64,
    scale: f64,
    /// Epoch of the re-weighting, where there is one.
    drw_start: Option<u64>,
    drw_beta: f64,
}

impl VolumeClassification {
    /// Reads the settings; problems gather in the reader.
    pub fn read(r: &mut Reader) -> Self {
        let common = Common::read(r, SCORES);
        let data = Data::read(r, common.seed);
        let (mut model, pretrained) = read_model(r, data.channels);
        let optim = Optimization::read(
            r,
            Defaults {
                optimizer: "adam",
                learning_rate: 1e-4,
                weight_decay: 0.0,
                batch: 6,
                accumulate: 2,
                epochs: 60,
                warmup_epochs: 0,
                decay: "cosine",
                clip_norm: 1.0,
                ema_decay: 0.995,
                buffers: true,
                rate_scales: &[("backbone", 1.0), ("head", 10.0)],
            },
        );
        let loss = Loss::read(r, &common, &data, &optim);
        model.normalised_head = r.choice(
            "model.head",
            if loss.ldam { "normalised" } else { "plain" },
            &[("normalised", true), ("plain", false)],
            "Last layer: cosines between features and class weights, as LDAM is defined on, or a plain linear layer [default: normalised with LDAM, plain with cross_entropy].",
        );
        if model.normalised_head && !loss.ldam {
            r.reject(
                "model.head",
                "\"normalised\" gives logits within -1..1, which cross-entropy can't separate: use \"plain\"",
            );
        }
        let batch = r.count("evaluate.batch", 8, 1..=4096, "Volumes predicted at once.") as usize;
        if data.options.preprocess.normalise == Normalise3d::MedicalNet
            && data.options.preprocess.shape.is_none()
            && optim.batch > 1
        {
            r.reject("data.size_depth", "data.normalise = \"medicalnet\" cuts every volume to another shape: set data.size_depth, _height and _width, or optim.batch = 1");
        }
        let unused = if loss.ldam { names::LOSS_CROSS_ENTROPY } else { names::LOSS_LDAM };
        let recorded = RECORDED.iter().chain(optimization::recorded(&optim)).copied();
        let recorded: Vec<Signal> = recorded.filter(|s| *s != unused).collect();
        common.check_expectations(r, &recorded, optim.epochs);
        Self { common, data, model, pretrained, loss, optim, batch }
    }
}

fn read_model(r: &mut Reader, input: usize) -> (ResNet3dConfig, Option<Pretrained>) {
    let layers =
        r.count("model.depth", 50, 10..=101, "Layers of the residual network: 10, 18, 34, 50 or 101.");
    let depth = match layers {
        10 => Depth::D10,
        18 => Depth::D18,
        34 => Depth::D34,
        101 => Depth::D101,
        50 => Depth::D50,
        other => {
            r.reject("model.depth", format!("found {other}; accepted is 10, 18, 34, 50 or 101"));
            Depth::D50
        }
    };
    let width =
        r.count("model.width", 64, 1..=512, "Channels of the stem; pretrained weights have 64.") as usize;
    let dilated = r.flag(
        "model.dilated",
        true,
        "Layers 3 and 4 with dilation 2 and 4 instead of stride 2, as MedicalNet's own.",
    );
    let dropout = r.number(
        "model.dropout",
        0.4,
        0.0..=0.99,
        "Share of the features dropped before the last layer in training.",
    );
    let path = r.text(
        "model.pretrained",
        "",
        "Weights to start from: MedicalNet's or another .pth, or safetensors, whose names fit; empty: random ones.",
    );
    let mut pretrained = None;
    if path.is_empty() {
        r.inactive("model.pretrained_match", "model.pretrained is empty");
    } else {
        let match_share = r.number(
            "model.pretrained_match",
            0.9,
            0.0..=1.0,
            "Least share of the backbone's tensors that the file must hold in the right shape; below it training does not start.",
        );
        pretrained = Some(Pretrained { path: path.into(), match_share });
    }
    let config = ResNet3dConfig { width, dilated, dropout, ..ResNet3dConfig::new(depth, input, 2) };
    (config, pretrained)
}

impl Data {
    fn read(r: &mut Reader, seed: u64) -> Self {
        #[derive(Clone, Copy, PartialEq)]
        enum Kind {
            Synth,
            Table,
            Folders,
        }
        let kind = r.choice(
            "data.source",
            "synth",
            &[("synth", Kind::Synth), ("table", Kind::Table), ("folders", Kind::Folders)],
            "Generated volumes; a table (CSV) of files and classes; or one sub-folder of files for each class.",
        );
        let channels = r.count("data.channels", 1, 1..=64, "Channels of a volume.") as usize;
        if kind != Kind::Table {
            for key in ["data.table", "data.path_column", "data.label_column", "data.patient_column"] {
                r.inactive(key, "only data.source = \"table\" reads it");
            }
        }
        let source = if kind == Kind::Synth {
            for key in [
                "data.root",
                "data.dataset",
                "data.validation",
                "data.folds",
                "data.fold",
                "data.folds_file",
                "data.validation_every",
                "data.validation_last",
            ] {
                r.inactive(key, "data.source = \"synth\" does not read it");
            }
            let count =
                r.count("data.synth.count", 120, 2..=1_000_000, "Generated volumes for training.") as usize;
            let validation =
                r.count("data.synth.validation", 60, 2..=1_000_000, "Generated volumes for validation.")
                    as usize;
            let seed = r.count("data.synth.seed", 7, 0..=i64::MAX as u64, "Seed of the generated volumes.");
            Source::Synth { config: synth::PatchClassConfig::default(), seed, count, validation }
        } else {
            r.inactive("data.synth", "data.source is another");
            let root = r.text(
                "data.root",
                "",
                "Folder of the classes' folders, or that the table's paths are relative to.",
            );
            if root.is_empty() {
                r.reject("data.root", "is needed with data.source = \"table\" or \"folders\": give it in the file or by --set data.root=DIR");
            }
            let mut spec = ClassificationSpec { root: root.into(), ..ClassificationSpec::default() };
            if kind == Kind::Table {
                spec.table =
                    Some(r.text("data.table", "labels.csv", "The table, relative to data.root.").into());
                spec.path_column =
                    r.text("data.path_column", "path", "Column of the files, with or without extension.");
                spec.label_column = r.text("data.label_column", "label", "Column of the classes.");
                let patient = r.text(
                    "data.patient_column",
                    "",
                    "Column of what must not be on both sides of a split; empty: every file alone.",
                );
                spec.patient_column = (!patient.is_empty()).then_some(patient);
            }
            let dataset = r.text(
                "data.dataset",
                "",
                "Name of the array inside HDF5 or Zarr; empty: the only one of three or more dimensions.",
            );
            spec.dataset = (!dataset.is_empty()).then_some(dataset);
            Source::Files { spec, validation: Validation::read(r, "folds", false) }
        };
        let shape = volumes::read_shape(
            r,
            "data.size",
            [0; 3],
            0,
            [
                "Depth that every volume is resized to, in voxels; 0 for all three: as the files have it.",
                "Height that every volume is resized to, in voxels.",
                "Width that every volume is resized to, in voxels.",
            ],
        );
        let resized = shape.iter().filter(|s| **s > 0).count();
        if resized != 0 && resized != 3 {
            r.reject("data.size_depth", "either all of data.size_depth, _height and _width are 0 or none is");
        }
        let balanced = r.choice(
            "data.sampler",
            "natural",
            &[("natural", false), ("balanced", true)],
            "natural: every volume once an epoch. balanced: classes equally often.",
        );
        let normalise = volumes::read_normalise(r, "zscore", true);
        let (cache_bytes, cache_folder) = volumes::read_cache(r, kind != Kind::Synth);
        let (augment, _) = volumes::read_augment(r, "flips", if resized == 3 { shape } else { [64; 3] });
        let preprocess =
            Preprocess { normalise, shape: (resized == 3).then_some(shape), ..Preprocess::default() };
        let options =
            VolumeOptions { preprocess, cache_bytes, cache_folder, seed, ..VolumeOptions::default() };
        Self { source, options, balanced, augment, channels }
    }

    /// Training and validation part, the names of the classes, and what was left out.
    fn open(&self, seed: u64) -> Result<Opened> {
        match &self.source {
            Source::Files { spec, validation } => {
                let source = VolumeSource::Classification(spec.clone());
                let all = VolumeDataset::open(source, self.options.clone())?;
                let names = all.list().class_names.clone();
                let (labelled, note) = volumes::labelled(&all)?;
                let (train, validation) = validation.split(&labelled, seed)?;
                let opened = Opened { train, validation, names, note };
                opened.check()?;
                Ok(opened)
            }
            Source::Synth { config, seed, count, validation } => {
                let part = |first: usize, n: usize| {
                    let made = (first..first + n).map(|i| {
                        let (volume, class) = synth::patch_class(config, *seed, i as u64);
                        Generated {
                            id: format!("generated_{i:04}"),
                            volume,
                            labels: None,
                            class: Some(class),
                        }
                    });
                    VolumeDataset::generated(made, self.options.clone())
                };
                let (train, validation) = (part(0, *count)?, part(*count, *validation)?);
                Ok(Opened { train, validation, names: vec!["0".to_owned(), "1".to_owned()], note: None })
            }
        }
    }
}

/// Data ready to train on.
struct Opened {
    train: VolumeDataset,
    validation: VolumeDataset,
    names: Vec<String>,
    note: Option<String>,
}

impl Opened {
    /// There are classes to tell apart, in both parts.
    fn check(&self) -> Result<()> {
        let wrong = |problem: String| Err(TrainError::Usage(problem));
        if self.names.len() < 2 {
            return wrong(format!(
                "the data have {} class: there is nothing to tell apart",
                self.names.len()
            ));
        }
        let counts = |dataset: &VolumeDataset| {
            let mut counts = vec![0u64; self.names.len()];
            dataset.cases().iter().filter_map(|case| case.class).for_each(|class| counts[class] += 1);
            counts
        };
        let (train, validation) = (counts(&self.train), counts(&self.validation));
        if let Some(absent) = train.iter().position(|n| *n == 0) {
            let name = &self.names[absent];
            return wrong(format!("class {name} has no volume in the training part: {train:?}"));
        }
        if validation.iter().filter(|n| **n > 0).count() < 2 {
            return wrong(format!(
                "the validation part has volumes of one class only: {validation:?}; fewer folds, or another data.validation, would leave it some of each"
            ));
        }
        Ok(())
    }
}

impl Loss {
    fn read(r: &mut Reader, common: &Common, data: &Data, optim: &Optimization) -> Self {
        let ldam = r.choice(
            "loss.kind",
            "ldam",
            &[("ldam", true), ("cross_entropy", false)],
            "Cross-entropy, or LDAM: cross-entropy with a margin that is wider for rarer classes.",
        );
        let (mut max_margin, mut scale) = (0.5, 30.0);
        if ldam {
            max_margin = r.number(
                "loss.max_margin",
                max_margin,
                0.0..=100.0,
                "Margin of the rarest class, in units of the logits before the scale.",
            );
            scale = r.number("loss.scale", scale, 1e-3..=1e4, "Factor on the logits after the margin.");
        } else {
            for key in ["loss.max_margin", "loss.scale"] {
                r.switched_off(key, "loss.kind", "only loss.kind = \"ldam\" reads it");
            }
        }
        let deferred = r.choice(
            "loss.reweighting",
            "deferred",
            &[("deferred", true), ("none", false)],
            "deferred: from drw_start on, classes weigh by their effective number (DRW).",
        );
        let (mut drw_start, mut drw_beta) = (None, 0.9999);
        if deferred {
            let start = r.count(
                "loss.drw_start",
                25,
                0..=1_000_000,
                "Epoch, from 0, in which the re-weighting begins.",
            );
            drw_beta = r.number(
                "loss.drw_beta",
                drw_beta,
                0.0..=0.999_999_999,
                "Beta of the effective number (1 - beta) / (1 - beta^n).",
            );
            let key = "loss.drw_start";
            if start >= optim.epochs {
                r.reject(
                    key,
                    format!(
                        "found {start}, but the run has {} epochs: the re-weighting would never begin",
                        optim.epochs
                    ),
                );
            }
            let every = common.evaluate.every_epochs;
            let patience = common.early_stopping.patience;
            if let Some(end) = Optimization::earliest_stop(patience, every).filter(|end| *end <= start) {
                r.reject(key, format!("found {start}, but early stopping can end the run after epoch {end}: the re-weighting might never begin; accepted is less than {end}, or early_stopping.patience of at least {}", start / every));
            }
            if data.balanced {
                r.reject("loss.reweighting", "the balanced sampler already makes up for the imbalance; with both it counts twice: use data.sampler = \"natural\" or loss.reweighting = \"none\"");
            }
            drw_start = Some(start);
        } else {
            for key in ["loss.drw_start", "loss.drw_beta"] {
                r.switched_off(key, "loss.reweighting", "only loss.reweighting = \"deferred\" reads it");
            }
        }
        Self { ldam, max_margin, scale, drw_start, drw_beta }
    }
}

impl Network for ResNet3d {
    const GROUPS: &'static [&'static str] = &resnet3d::GROUPS;

    fn group_of(path: &str) -> &'static str {
        resnet3d::group_of(path)
    }

    fn set_frozen(self, frozen: bool) -> Self {
        self.set_backbone_frozen(frozen)
    }
}

impl Recipe for VolumeClassification {
    fn common(&self) -> &Common {
        &self.common
    }

    fn train(&self, session: Session<'_>) -> Result<Outcome> {
        // What is resumed has its weights in the checkpoint.
        let pretrained = self.pretrained.as_ref().filter(|_| !session.resume);
        let (mut trainer, notes) = self.trainer(session.device, pretrained)?;
        let info = trainer.info(session.device)?;
        session::drive(session, &self.common, &mut trainer, &info, &notes)
    }

    fn probe<'a>(&'a self, device: &str) -> Result<Box<dyn Probe + 'a>> {
        let (trainer, _) = self.trainer(device, self.pretrained.as_ref())?;
        let info = trainer.info(device)?;
        Ok(Box::new(Bench::new(trainer, info)?))
    }

    fn inspect(&self) -> Result<Inspection> {
        match &self.data.source {
            Source::Files { spec, validation } => {
                let source = VolumeSource::Classification(spec.clone());
                volumes::inspect(source, validation, &self.data.options, self.common.seed)
            }
            Source::Synth { .. } => {
                let opened = self.data.open(self.common.seed)?;
                volumes::inspect_generated(&[("train", &opened.train), ("validation", &opened.validation)])
            }
        }
    }

    fn evaluate(&self, run: &Path, device: &str, data: Option<&Path>) -> Result<Scores> {
        let name = device;
        let device = crate::device::open(name)?;
        let (dataset, names) = match (data, &self.data.source) {
            (None, _) => {
                let opened = self.data.open(self.common.seed)?;
                (opened.validation, opened.names)
            }
            (Some(root), Source::Files { spec, .. }) => {
                let spec = ClassificationSpec { root: root.to_owned(), ..spec.clone() };
                let all = VolumeDataset::open(VolumeSource::Classification(spec), self.data.options.clone())?;
                (volumes::labelled(&all)?.0, all.list().class_names.clone())
            }
            (Some(_), Source::Synth { .. }) => {
                let problem = "the run was trained on generated volumes: --data needs a recipe with data.source = \"table\" or \"folders\"";
                return Err(TrainError::Usage(problem.to_owned()));
            }
        };
        let best = self.open_best(run, &device, self.half_on(name, &device))?;
        let own = class_names(&best.metadata);
        // Other data number their classes by what they have.
        let index: Vec<usize> = names
            .iter()
            .map(|name| {
                own.iter().position(|n| n == name).ok_or_else(|| {
                    TrainError::Usage(format!(
                        "the data have a class {name}; the weights tell {} apart",
                        own.join(", ")
                    ))
                })
            })
            .collect::<Result<_>>()?;
        check(&dataset, self.data.channels, &self.optim, self.data.options.preprocess.shape)?;
        let classes = own.len();
        let mut evaluator = ClassificationEvaluator::new(classes).map_err(wrong)?;
        self.judge(&best.net, &device, &dataset, &index, &mut evaluator)?;
        let report = evaluator.report();
        let counts: Vec<u64> = report.confusion.iter().map(|row| row.iter().sum()).collect();
        let facts = json!({ "volumes": dataset.len(), "classes": own, "class_counts": counts, "confusion": report.confusion });
        Ok(Scores {
            weights: best.describe(self.common.metric()),
            on: format!("{} volumes, {classes} classes ({}) with {counts:?}", dataset.len(), own.join(", ")),
            facts: facts.as_object().cloned().unwrap_or_default(),
            metrics: scores(&report),
        })
    }

    fn predict(&self, run: &Path, request: &Request, say: &mut dyn FnMut(&str)) -> Result<()> {
        if request.threshold.is_some() || request.diameter.is_some() || request.min_score.is_some() {
            let problem = "--threshold, --diameter and --min-score are for masks and particles; a volume gets its most probable class";
            return Err(TrainError::Usage(problem.to_owned()));
        }
        let device = crate::device::open(&request.device)?;
        let best = self.open_best(run, &device, self.half_on(&request.device, &device))?;
        let dataset = match &self.data.source {
            Source::Files { spec, .. } => spec.dataset.clone(),
            Source::Synth { .. } => None,
        };
        let inputs = volumes::list(&request.inputs, self.data.channels)?;
        std::fs::create_dir_all(&request.out).map_err(|e| DataError::io(&request.out, "cannot create", e))?;
        let names = class_names(&best.metadata);
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let mut table = "file,class".to_owned();
        for name in &names {
            let _ = write!(table, ",{}", quoted(&format!("probability_{name}")));
        }
        table.push('\n');
        for (id, paths) in inputs {
            let prepared =
                volumes::prepare(&paths, &id, dataset.as_deref(), &self.data.options, self.data.channels)?;
            let probs = self.probabilities(&best.net, &device, &[&prepared])?;
            let class = argmax(&probs);
            let file = paths[0].display().to_string();
            let _ = write!(table, "{},{}", quoted(&file), quoted(&names[class]));
            for p in &probs {
                let _ = write!(table, ",{p:.6}");
            }
            table.push('\n');
            say(&format!("{file}: class {}, probability {:.3}", names[class], probs[class]));
        }
        Ok(write_atomic(&request.out.join("predictions.csv"), |w| w.write_all(table.as_bytes()))?)
    }

    fn folds(&self) -> Result<Option<u64>> {
        match &self.data.source {
            Source::Files { validation, .. } => validation.folds(),
            Source::Synth { .. } => Ok(None),
        }
    }

    fn check(&self) -> Result<()> {
        self.data.open(self.common.seed).map(drop)
    }
}

/// Every volume can be read, has the channels the settings say and the shape of the others (one batch holds several).
fn check(
    dataset: &VolumeDataset,
    channels: usize,
    optim: &Optimization,
    resized: Option<Shape>,
) -> Result<()> {
    volumes::check_channels(dataset, channels)?;
    let shapes = dataset.shapes()?;
    let other = shapes.iter().position(|s| *s != shapes[0]);
    if let Some(other) = other.filter(|_| resized.is_none() && optim.batch > 1) {
        let [a, b] = [0, other].map(|i| &dataset.cases()[i].id);
        let problem = format!(
            "{a} has {:?} voxels, {b} {:?}; volumes of a batch must have one shape: set data.size_depth, _height and _width, or optim.batch = 1",
            shapes[0], shapes[other]
        );
        return Err(TrainError::Usage(problem));
    }
    Ok(())
}

/// The report as signals. Its plain cross-entropy is the validation loss: margins and class weights would change that one's
/// meaning within a run.
fn scores(report: &ClassificationReport) -> Vec<Score> {
    let of =
        |name: &str| if name == "log_loss" { names::VAL_LOSS.name.to_owned() } else { format!("val/{name}") };
    let mut all: Vec<Score> =
        report.iter().map(|m| Score { name: of(m.name), value: m.value, floor: m.floor }).collect();
    all.extend(report.per_class.iter().enumerate().map(|(class, c)| Score {
        name: names::VAL_RECALL.group(&format!("class{class}")),
        value: c.recall.value,
        floor: c.recall.floor,
    }));
    all
}

fn wrong(error: trimtab_metrics::Error) -> TrainError {
    TrainError::Internal(error.to_string())
}

fn argmax(values: &[f32]) -> usize {
    values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i)
}

/// Names of the classes the weights tell apart, by number.
fn class_names(metadata: &BTreeMap<String, String>) -> Vec<String> {
    metadata.get(CLASS_NAMES).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

/// Key of the class names beside weights.
const CLASS_NAMES: &str = "class_names";

impl VolumeClassification {
    /// All that training needs, and what is worth a note.
    fn trainer(&self, device: &str, pretrained: Option<&Pretrained>) -> Result<(Trainer<'_>, Vec<String>)> {
        let plain = crate::device::open(device)?;
        if self.optim.half {
            crate::device::check_bf16(device, &plain)?;
        }
        let Opened { train, validation, names, note } = self.data.open(self.common.seed)?;
        if names.len() > 2 && self.common.metric() == names::VAL_F1.name {
            let problem = format!(
                "evaluate.metric = \"val/f1\" is for two classes, the data have {}: use \"val/macro_f1\"",
                names.len()
            );
            return Err(TrainError::Usage(problem));
        }
        check(&train, self.data.channels, &self.optim, self.data.options.preprocess.shape)?;
        check(&validation, self.data.channels, &self.optim, self.data.options.preprocess.shape)?;
        let (trainer, loaded) = Trainer::new(self, Arc::new(train), validation, names, pretrained, &plain)?;
        Ok((trainer, note.into_iter().chain(loaded).collect()))
    }

    fn network(&self, classes: usize, device: &Device, half: bool) -> ResNet3d {
        let config = ResNet3dConfig { classes, ..self.model };
        config.init(device, &mut rng(self.common.seed, Stream::Init, 0)).with_half(half)
    }

    /// Whether to compute in bf16 on a device that may be another than the run's.
    fn half_on(&self, name: &str, device: &Device) -> bool {
        self.optim.half && crate::device::check_bf16(name, device).is_ok()
    }

    fn open_best(&self, run: &Path, device: &Device, half: bool) -> Result<Best<ResNet3d>> {
        session::best_by(run, |metadata| self.network(class_names(metadata).len(), device, half))
    }

    /// `[k]` probabilities of each volume, one after the other. All of one shape.
    fn probabilities(&self, net: &ResNet3d, device: &Device, volumes: &[&Prepared]) -> Result<Vec<f32>> {
        let images = volumes.iter().flat_map(|v| v.image.values.iter().copied()).collect();
        let images_bcdhw = tensor(images, volumes.len(), self.data.channels, volumes[0].image.shape, device);
        let logits_bk = net.forward(images_bcdhw) * self.scale();
        to_vec(softmax(logits_bk, 1))
    }

    /// Cosine logits are within -1..1: probabilities are of scaled ones, as in training.
    fn scale(&self) -> f64 {
        if self.loss.ldam { self.loss.scale } else { 1.0 }
    }

    /// Predicts every volume that has a class; `index` says which class of the weights a class of the data is.
    fn judge(
        &self,
        net: &ResNet3d,
        device: &Device,
        dataset: &VolumeDataset,
        index: &[usize],
        evaluator: &mut ClassificationEvaluator,
    ) -> Result<()> {
        let all: Vec<usize> = (0..dataset.len()).collect();
        // Volumes that were not resized may differ in shape.
        let batch =
            if self.data.options.preprocess.shape.is_some() || self.optim.batch > 1 { self.batch } else { 1 };
        for chunk in all.chunks(batch) {
            let loaded = chunk.iter().map(|i| dataset.load(*i)).collect::<trimtab_data::Result<Vec<_>>>()?;
            let volumes: Vec<&Prepared> = loaded.iter().map(|v| &**v).collect();
            let probs = self.probabilities(net, device, &volumes)?;
            for (volume, probs) in volumes.iter().zip(probs.chunks_exact(probs.len() / volumes.len())) {
                let Some(class) = volume.class else { continue };
                evaluator.push(probs, &[index[class] as i32]).map_err(wrong)?;
            }
        }
        Ok(())
    }
}

fn tensor(values: Vec<f32>, count: usize, channels: usize, [d, h, w]: Shape, device: &Device) -> Tensor<5> {
    Tensor::from_data(TensorData::new(values, [count, channels, d, h, w]), device)
}

/// Network and schedules in motion.
struct Trainer<'a> {
    settings: &'a VolumeClassification,
    plans: Vec<StagePlan>,
    train: Arc<VolumeDataset>,
    validation: VolumeDataset,
    plain: Device,
    tracked: Device,
    learner: Learner<ResNet3d>,
    /// Volumes of each class in the training part.
    class_counts: Vec<u64>,
    class_names: Vec<String>,
    margins: Vec<f64>,
}

/// What one optimizer step trains on: one batch, or several whose gradients are averaged.
struct Batch(Vec<MicroBatch>);

#[derive(Clone, Default)]
struct MicroBatch {
    shape: Shape,
    images: Vec<f32>,
    classes: Vec<i32>,
}

impl<'a> Trainer<'a> {
    fn new(
        settings: &'a VolumeClassification,
        train: Arc<VolumeDataset>,
        validation: VolumeDataset,
        class_names: Vec<String>,
        pretrained: Option<&Pretrained>,
        plain: &Device,
    ) -> Result<(Self, Option<String>)> {
        let classes = class_names.len();
        let mut class_counts = vec![0u64; classes];
        for class in train.cases().iter().filter_map(|case| case.class) {
            class_counts[class] += 1;
        }
        let tracked = plain.clone().autodiff();
        let half = settings.optim.half;
        let mut net = settings.network(classes, &tracked, half);
        let mut load_report = None;
        if let Some(pretrained) = pretrained {
            let file = weights::read(&pretrained.path, &Names::default())?;
            let fit = Fit {
                repeat_channels: vec!["conv1.weight".to_owned()],
                least_share: pretrained.match_share,
                counted: |path| resnet3d::group_of(path) == "backbone",
            };
            let (loaded, report) = weights::load(net, &file, &fit)?;
            net = loaded;
            load_report = Some(format!("{}: {report}", pretrained.path.display()));
        }
        let plan = settings.optim.plan(train.len());
        let learner = Learner::new(&settings.optim, &plan, net, settings.network(classes, plain, half));
        let margins = ldam_margins(&class_counts, settings.loss.max_margin);
        let trainer = Self {
            settings,
            plans: vec![plan],
            train,
            validation,
            plain: plain.clone(),
            tracked,
            learner,
            class_counts,
            class_names,
            margins,
        };
        Ok((trainer, load_report))
    }

    fn info(&self, device: &str) -> Result<RunInfo> {
        let counts = self.class_counts.iter().enumerate().map(|(class, n)| (class.to_string(), *n)).collect();
        let fingerprint = format!("{}+{}", self.train.fingerprint()?, self.validation.fingerprint()?);
        let parameters = params::parameter_counts(&self.learner.net, resnet3d::group_of);
        Ok(session::info(
            ENTRY.name,
            device,
            self.settings.common.seed,
            &self.plans,
            fingerprint,
            counts,
            parameters,
        ))
    }

    /// The classes' weights in the loss of a step.
    fn class_weights(&self, in_stage: u64) -> Vec<f64> {
        let loss = &self.settings.loss;
        let epoch = in_stage / self.plans[0].steps_per_epoch;
        drw_weights(&self.class_counts, loss.drw_beta, loss.drw_start.is_some_and(|start| epoch >= start))
    }
}

impl Trainer<'_> {
    /// Logits of a batch, and its loss. `dropout` numbers the draw of the features that are dropped.
    fn forward(
        &mut self,
        batch: MicroBatch,
        class_weights: &[f64],
        dropout: u64,
    ) -> (Tensor<2>, (&'static Signal, Tensor<1>)) {
        let loss = &self.settings.loss;
        let floats = |values: &[f64]| {
            let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
            Tensor::<1>::from_floats(values.as_slice(), &self.tracked)
        };
        let n = batch.classes.len();
        let target_b = batch.target_b(&self.tracked);
        let channels = self.settings.data.channels;
        let images_bcdhw = tensor(batch.images, n, channels, batch.shape, &self.tracked);
        let mut dropout = rng(self.settings.common.seed, Stream::Dropout, dropout);
        let logits_bk = self.learner.net.forward_train(images_bcdhw, &mut dropout);
        let weight_k = Some(floats(class_weights));
        let term = if loss.ldam {
            let margin_k = floats(&self.margins);
            (&names::LOSS_LDAM, ldam_loss(logits_bk.clone(), target_b, margin_k, loss.scale, weight_k))
        } else {
            let valid_b = Tensor::ones([n], &self.tracked);
            (&names::LOSS_CROSS_ENTROPY, cross_entropy(logits_bk.clone(), target_b, valid_b, weight_k))
        };
        (logits_bk, term)
    }
}

/// The classes' weights as signals.
fn weight_signals(weights: &[f64]) -> impl Iterator<Item = (String, f64)> {
    weights.iter().enumerate().map(|(class, w)| (names::WEIGHT_CLASS.group(&class.to_string()), *w))
}

impl MicroBatch {
    fn target_b(&self, device: &Device) -> Tensor<1, Int> {
        Tensor::from_data(TensorData::new(self.classes.clone(), [self.classes.len()]), device)
    }
}

impl Training for Trainer<'_> {
    type Batch = Batch;

    fn stages(&self) -> &[StagePlan] {
        &self.plans
    }

    fn enter_stage(&mut self, _: usize, _: Option<&Path>) -> Result<()> {
        Ok(())
    }

    fn batches(&self, _: usize) -> BatchSource<Batch> {
        let (data, optim, seed) = (&self.settings.data, &self.settings.optim, self.settings.common.seed);
        let train = Arc::clone(&self.train);
        let mut by_class = vec![Vec::new(); self.class_counts.len()];
        for (i, case) in train.cases().iter().enumerate() {
            by_class[case.class.unwrap_or(0)].push(i);
        }
        let (balanced, augment) = (data.balanced, data.augment);
        let (accumulate, batch) = (optim.accumulate, optim.batch);
        Arc::new(move |step| {
            let micro = (0..accumulate).map(|m| {
                let index = step * accumulate + m;
                let first = index * batch as u64;
                let picks: Vec<usize> = if balanced {
                    // Classes take turns, each with its own stream of shuffles.
                    let of = |slot: u64| {
                        let turns = by_class.len() as u64;
                        let (class, turn) = ((first + slot) % turns, (first + slot) / turns);
                        let members = &by_class[class as usize];
                        let own = seed.wrapping_add(class + 1);
                        tiles::stream_indices(own, turn, 1, members.len()).into_iter().map(|i| members[i])
                    };
                    (0..batch as u64).flat_map(of).collect()
                } else {
                    tiles::stream_indices(seed, first, batch, train.len())
                };
                let mut made = MicroBatch::default();
                for (slot, pick) in picks.into_iter().enumerate() {
                    let volume = train.load(pick)?;
                    let image = &volume.image;
                    let patch = VolumePatch {
                        channels: image.channels,
                        shape: image.shape,
                        image: image.values.clone(),
                        labels: Vec::new(),
                    };
                    let mut rng = rng(seed, Stream::Augment, first + slot as u64);
                    made.shape = image.shape;
                    made.images.extend(augment.apply(patch, image.shape, &mut rng).image);
                    made.classes.push(volume.class.unwrap_or(0) as i32);
                }
                Ok(made)
            });
            micro.collect::<trimtab_data::Result<_>>().map(Batch)
        })
    }

    fn step(&mut self, Batch(micro): Batch, at: Step) -> Result<Signals> {
        let buffers = self.learner.begin(at);
        let class_weights = self.class_weights(at.in_stage);
        let share = 1.0 / micro.len().max(1) as f64;
        let mut gathered = Gathered::default();
        let mut measured = Measured::default();
        let (mut samples, mut rare, mut non_finite) = (0, 0, 0);
        let draws = at.in_stage * micro.len() as u64;
        for (index, batch) in micro.into_iter().enumerate() {
            // Forward and loss.
            let n = batch.classes.len();
            samples += n;
            rare += batch.classes.iter().filter(|c| **c > 0).count();
            non_finite += batch.images.iter().filter(|v| !v.is_finite()).count();
            let target_b = batch.target_b(&self.tracked);
            let (logits_bk, (signal, term)) = self.forward(batch, &class_weights, draws + index as u64);
            if at.measure {
                measured.add(signal, &term, share);
                measured.add(&names::LOSS_TOTAL, &term, share);
                let right = logits_bk.inner().argmax(1).reshape([n]).equal(target_b.inner()).float().mean();
                measured.add(&names::TRAIN_ACCURACY, &right, share);
            }

            // Gradients.
            self.learner.gather(&mut gathered, term, share);
        }

        // Update; one that is not finite reaches neither weights nor running statistics nor average.
        let mut signals = self.learner.update(gathered, &buffers, at)?;

        // Report.
        signals.push((names::DATA_NON_FINITE.name.to_owned(), non_finite as f64));
        if at.measure {
            signals.push((names::TRAIN_LABELLED.name.to_owned(), samples as f64));
            signals.push((names::TRAIN_PREVALENCE.name.to_owned(), rare as f64 / samples.max(1) as f64));
            signals.extend(weight_signals(&class_weights));
            signals.extend(measured.read()?);
        }
        Ok(signals)
    }

    fn evaluate(&mut self) -> Result<Evaluation> {
        let settings = self.settings;
        let classes = self.class_counts.len();
        let index: Vec<usize> = (0..classes).collect();
        let mut kinds = Vec::new();
        for (kind, net) in self.learner.kinds() {
            let mut evaluator = ClassificationEvaluator::new(classes).map_err(wrong)?;
            settings.judge(&net, &self.plain, &self.validation, &index, &mut evaluator)?;
            kinds.push((kind, scores(&evaluator.report())));
        }
        let evaluation = crate::recipe::evaluation(&kinds, settings.common.metric());
        self.learner.validated(evaluation.score(settings.common.metric()));
        Ok(evaluation)
    }

    fn state(&self) -> RecipeState {
        self.learner.state()
    }

    fn restore(&mut self, state: &RecipeState, folder: &Path) -> Result<()> {
        self.learner.restore(state, folder, &self.plain)
    }

    fn weights(&self, kind: &str, mut metadata: BTreeMap<String, String>) -> Vec<u8> {
        let names = serde_json::to_string(&self.class_names).unwrap_or_default();
        metadata.insert(CLASS_NAMES.to_owned(), names);
        self.learner.weights(kind, &metadata)
    }

    fn scheduled(&self, _: usize, in_stage: u64) -> Signals {
        let mut signals = self.learner.scheduled(in_stage);
        signals.extend(weight_signals(&self.class_weights(in_stage)));
        signals
    }

    fn force_rate(&mut self, rate: Option<f64>) {
        self.learner.force_rate(rate);
    }

    fn examine(&mut self, Batch(micro): Batch, at: Step) -> Result<Examination> {
        let class_weights = self.class_weights(at.in_stage);
        let Some(batch) = micro.into_iter().next() else { return Ok(Examination::default()) };
        probe::examine(
            self,
            |t| &t.learner.net,
            resnet3d::group_of,
            |t| {
                let (logits_bk, (signal, term)) = t.forward(batch.clone(), &class_weights, at.in_stage);
                let count = logits_bk.shape().num_elements();
                let name = signal.name.trim_start_matches("loss/");
                Forward { logits: logits_bk.reshape([count]), terms: vec![(name, 1.0, term)] }
            },
        )
    }

    fn drift(&self, start: &params::Flat) -> Vec<Drift> {
        self.learner.drift(start)
    }

    fn live(&self) -> params::Flat {
        params::flat(&self.learner.net)
    }

    fn validation_batches(&self) -> f64 {
        let kinds = self.learner.kinds().len() as f64;
        kinds * self.validation.len() as f64 / (self.settings.optim.batch as f64)
    }
}
