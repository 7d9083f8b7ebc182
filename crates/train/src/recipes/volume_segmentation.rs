//! System 002: segmentation of volumes with losses that look at topology.
//!
//! A 3-D U-Net (Çiçek et al. 2016, <https://arxiv.org/abs/1606.06650>; instance norm, leaky ReLU and sampling as in nnU-Net, Isensee
//! et al. 2021, <https://doi.org/10.1038/s41592-020-01008-z>) is trained on patches with a sum of losses, each with its own weight
//! over time: cross-entropy, Dice, focal, boundary, centre-line Dice, connectivity. Whole volumes are predicted by a Gaussian sliding window.
//!
//! Axes: b = batch, c = channel, k = logit, f = foreground class, d, h, w.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Device, Tensor};
use trimtab_data::atomic::write_atomic;
use trimtab_data::rng::{Stream, rng};
use trimtab_data::volume::{IGNORE, Shape, voxels};
use trimtab_data::volumes::{
    LabelRule, Preprocess, SegmentationSpec, VolumeDataset, VolumeOptions, VolumeSource,
};
use trimtab_nn::losses::{
    DiceOptions, DistanceBand, bce_with_logits, boundary_loss, boundary_weighted_bce, cldice_loss,
    connectivity_loss, cross_entropy, deep_supervision_weights, downsample_nearest, focal_loss,
    multiclass_dice_loss,
};
use trimtab_nn::models::unet3d::{self, Down, UNet3d, UNet3dConfig};
use trimtab_nn::params;
use trimtab_nn::schedules::{self, Schedule};
use trimtab_signals::names::{self, Signal};
use trimtab_signals::{RunInfo, Status};

use super::{Entry, Inspection, Recipe, Request, Score, Scores, Session};
use crate::checkpoint;
use crate::config::Common;
use crate::error::Result;
use crate::measured::Measured;
use crate::optimization::{self, Defaults, Gathered, Learner, Network, Optimization};
use crate::probe::{self, Bench, Drift, Examination, Forward, Probe};
use crate::recipe::{BatchSource, Evaluation, Recipe as Training, RecipeState, Signals, StagePlan, Step};
use crate::run::Outcome;
use crate::segment3d::{self, Judge, Sums, Windows};
use crate::session::{self, Best};
use crate::settings::Reader;
use crate::volumes::{self, PatchBatch, PatchSampler, Validation};

/// This recipe in the list.
pub const ENTRY: Entry = Entry {
    name: "volume-segmentation",
    summary: "segmentation of volumes: a 3-D U-Net with losses for overlap, boundary, centre line and connectivity",
    read: |reader| Box::new(VolumeSegmentation::read(reader)),
    alternatives: &[
        ("data.source=files", "data.source = \"files\""),
        ("data.validation=folds", "data.validation = \"folds\""),
        ("data.validation=file", "data.validation = \"file\""),
        ("data.validation=every", "data.validation = \"every\""),
        ("data.validation=slices", "data.validation = \"slices\""),
        ("optim.kind=sgd", "optim.kind = \"sgd\""),
        ("optim.decay=plateau", "optim.decay = \"plateau\""),
        ("loss.boundary.weight=1", "loss.boundary.weight above 0"),
        ("loss.cldice.weight=1", "loss.cldice.weight above 0"),
        ("loss.connectivity.weight=1", "loss.connectivity.weight above 0"),
        ("loss.focal.weight=1", "loss.focal.weight above 0"),
    ],
};

/// What the best weights can be chosen by.
const SCORES: &[Signal] = &[
    names::VAL_DICE,
    names::VAL_IOU,
    names::VAL_SURFACE_DICE,
    names::VAL_CLDICE,
    names::VAL_TOPO_SCORE,
    names::VAL_VOI_SCORE,
    names::VAL_TOPOLOGY_MIX,
];

/// Every signal of this recipe, beside those of the loop and of [`Learner`].
const RECORDED: &[Signal] = &[
    names::LOSS_TOTAL,
    names::TRAIN_LOSS,
    names::LOSS_DICE,
    names::LOSS_CROSS_ENTROPY,
    names::LOSS_FOCAL,
    names::LOSS_BOUNDARY,
    names::LOSS_CLDICE,
    names::LOSS_CONNECTIVITY,
    names::LOSS_DEEP_SUPERVISION,
    names::WEIGHT_LOSS,
    names::TRAIN_LABELLED,
    names::TRAIN_PREVALENCE,
    names::TRAIN_POSITIVE_RATE,
    names::TRAIN_DICE,
    names::DATA_IGNORED,
    names::VAL_LOSS,
    names::VAL_DICE,
    names::VAL_IOU,
    names::VAL_ACCURACY,
    names::VAL_SURFACE_DICE,
    names::VAL_CLDICE,
    names::VAL_HD95,
    names::VAL_TOPO_SCORE,
    names::VAL_VOI_SCORE,
    names::VAL_TOPOLOGY_MIX,
    names::VAL_POSITIVE_RATE,
    names::VAL_PREVALENCE,
];

/// Settings.
#[derive(Debug)]
pub struct VolumeSegmentation {
    common: Common,
    data: Data,
    model: UNet3dConfig,
    loss: Losses,
    optim: Optimization,
    windows: Windows,
}

#[derive(Debug)]
struct Data {
    source: Source,
    options: VolumeOptions,
    patch: Shape,
    foreground: f64,
    augment: trimtab_data::augment3d::Augment3d,
    mirror_axes: [bool; 3],
    channels: usize,
}

#[derive(Debug)]
enum Source {
    Files { spec: SegmentationSpec, validation: Validation },
    Synth { kind: segment3d::Synthetic, count: usize, validation: usize, seed: u64 },
}

/// A loss whose weight may begin late and rise.
#[derive(Debug, Clone, Copy)]
struct Term {
    weight: f64,
    from_epoch: u64,
    ramp_epochs: u64,
}

#[derive(Debug)]
struct Losses {
    dice: Term,
    dice_smooth: f64,
    dice_batch: bool,
    cross_entropy: Term,
    focal: Term,
    focal_alpha: f64,
    focal_gamma: f64,
    boundary: Term,
    boundary_kind: Boundary,
    cldice: Term,
    cldice_iterations: usize,
    connectivity: Term,
    drop_lowest: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Boundary {
    Band,
    Distance,
}

/// Measured with `evaluate.topology` alone.
const SURFACES: [Signal; 6] = [
    names::VAL_SURFACE_DICE,
    names::VAL_CLDICE,
    names::VAL_HD95,
    names::VAL_TOPO_SCORE,
    names::VAL_VOI_SCORE,
    names::VAL_TOPOLOGY_MIX,
];

/// The terms in the order of their signals.
const TERMS: [&Signal; 6] = [
    &names::LOSS_DICE,
    &names::LOSS_CROSS_ENTROPY,
    &names::LOSS_FOCAL,
    &names::LOSS_BOUNDARY,
    &names::LOSS_CLDICE,
    &names::LOSS_CONNECTIVITY,
];

impl VolumeSegmentation {
    /// Reads the settings; problems gather in the reader.
    pub fn read(r: &mut Reader) -> Self {
        let common = Common::read(r, SCORES);
        let data = Data::read(r, common.seed);
        let classes = data.options.labels.classes;
        let model = read_model(r, data.channels, if classes == 2 { 1 } else { classes });
        let loss = Losses::read(r, classes, model.deep_supervision);
        let optim = Optimization::read(
            r,
            Defaults {
                optimizer: "adamw",
                learning_rate: 1e-3,
                weight_decay: 0.01,
                batch: 2,
                accumulate: 1,
                epochs: 100,
                warmup_epochs: 0,
                decay: "poly",
                clip_norm: 12.0,
                ema_decay: 0.0,
                buffers: false,
                rate_scales: &[("encoder", 1.0), ("decoder", 1.0), ("head", 1.0)],
            },
        );
        for (axis, (size, divisor)) in
            ["depth", "height", "width"].iter().zip(data.patch.iter().zip(model.divisors()))
        {
            if !size.is_multiple_of(divisor) {
                r.reject(
                    &format!("data.patch_{axis}"),
                    format!("found {size}; accepted is a multiple of {divisor}, by which the network divides this axis (model.depth, model.flat_levels)"),
                );
            }
        }
        if data.patch == model.divisors() {
            r.reject("model.depth", "leaves a single voxel of a patch, which instance norm makes 0: use larger patches or fewer levels");
        }
        let windows = Windows::read(r, data.patch, model.divisors(), classes, data.mirror_axes);
        if !windows.topology && SURFACES.iter().any(|s| s.name == common.metric()) {
            r.reject(
                "evaluate.metric",
                format!("{} is only measured with evaluate.topology = true", common.metric()),
            );
        }
        let epochs = optim.epochs;
        for (name, term) in loss.terms() {
            if term.weight > 0.0 && term.from_epoch >= epochs {
                r.reject(
                    &format!("loss.{name}.from_epoch"),
                    format!(
                        "found {}, but the run has {epochs} epochs: the term would never count",
                        term.from_epoch
                    ),
                );
            }
        }
        let end = Optimization::earliest_stop(common.early_stopping.patience, common.evaluate.every_epochs);
        for (name, term) in loss.terms() {
            if let Some(end) = end.filter(|end| term.weight > 0.0 && *end <= term.from_epoch) {
                let key = format!("loss.{name}.from_epoch");
                r.reject(&key, format!("found {}, but early stopping can end the run after epoch {end}: the term might never count", term.from_epoch));
            }
        }
        let idle: Vec<Signal> =
            TERMS.iter().zip(loss.terms()).filter(|(_, (_, t))| t.weight == 0.0).map(|(s, _)| **s).collect();
        let recorded = RECORDED.iter().chain(optimization::recorded(&optim)).copied();
        let recorded: Vec<Signal> = recorded
            .filter(|s| windows.topology || !SURFACES.contains(s))
            .filter(|s| *s != names::LOSS_DEEP_SUPERVISION || model.deep_supervision > 0)
            .filter(|s| !idle.contains(s))
            .collect();
        common.check_expectations(r, &recorded, epochs);
        Self { common, data, model, loss, optim, windows }
    }
}

fn read_model(r: &mut Reader, input: usize, output: usize) -> UNet3dConfig {
    let base =
        r.count("model.base", 32, 1..=512, "Channels of the first level; doubled at each level.") as usize;
    let depth = r.count(
        "model.depth",
        3,
        1..=8,
        "Number of downsamplings. base = 32, depth = 5 has 90,474,209 parameters.",
    ) as usize;
    let most = r.count(
        "model.most_channels",
        0,
        0..=65_536,
        "Bound on the channels of a level; 0: none (nnU-Net: 320).",
    ) as usize;
    let flat = r.count(
        "model.flat_levels",
        0,
        0..=8,
        "Downsamplings, the first ones, that leave the depth as it is: for thick slices.",
    ) as usize;
    if flat > depth {
        r.reject("model.flat_levels", format!("found {flat}, more than model.depth = {depth}"));
    }
    let affine = r.flag("model.affine", false, "Whether the instance norms have scale and shift.");
    let down = r.choice(
        "model.down",
        "pool",
        &[("pool", Down::MaxPool), ("strided", Down::Strided)],
        "Downsampling by maximum or by convolutions of stride 2.",
    );
    let deep = r.count(
        "model.deep_supervision",
        0,
        0..=7,
        "Decoder levels below the finest that predict too, each at its resolution; 0: none.",
    ) as usize;
    if deep >= depth.max(1) {
        r.reject(
            "model.deep_supervision",
            format!("found {deep}; accepted is less than model.depth = {depth}"),
        );
    }
    let mut config = UNet3dConfig::new(input, output, base, depth);
    config.most_channels = if most == 0 { usize::MAX } else { most };
    for stride in config.strides.iter_mut().take(flat) {
        stride[0] = 1;
    }
    config.affine = affine;
    config.down = down;
    config.deep_supervision = deep;
    config
}

impl Data {
    fn read(r: &mut Reader, seed: u64) -> Self {
        let files = r.choice(
            "data.source",
            "synth",
            &[("synth", false), ("files", true)],
            "Generated volumes, or files: NIfTI, TIFF stacks, folders of slices, NPY, HDF5, Zarr.",
        );
        let channels = r.count("data.channels", 1, 1..=64, "Channels of an image.") as usize;
        let mut rule = LabelRule::default();
        let source = if files {
            r.inactive("data.synth", "data.source is another");
            read_files(r, &mut rule)
        } else {
            for key in [
                "data.root",
                "data.images",
                "data.labels",
                "data.image_dataset",
                "data.label_dataset",
                "data.nested",
                "data.classes",
                "data.ignore_label",
                "data.positive_label",
                "data.mask_threshold",
                "data.instance_boundaries",
                "data.validation",
                "data.folds",
                "data.fold",
                "data.folds_file",
                "data.validation_every",
                "data.validation_last",
                "data.validation_slices",
            ] {
                r.inactive(key, "only data.source = \"files\" reads it");
            }
            let synth = segment3d::read_synthetic(r);
            rule.classes = synth.kind.classes();
            rule.ignore = synth.kind.ignored();
            Source::Synth {
                kind: synth.kind,
                count: synth.count,
                validation: synth.validation,
                seed: synth.seed,
            }
        };
        let patch = volumes::read_shape(
            r,
            "data.patch",
            [32, 48, 32],
            1,
            [
                "Depth of the patches that are trained on, in voxels.",
                "Height of the patches, in voxels.",
                "Width of the patches, in voxels.",
            ],
        );
        let foreground = r.number(
            "data.foreground",
            0.33,
            0.0..=1.0,
            "Share of the patches that are sure to hold foreground.",
        );
        let pad_label = r.choice(
            "data.pad_label",
            "ignore",
            &[("ignore", IGNORE), ("background", 0)],
            "Label of what a patch shows beyond its volume.",
        );
        let normalise = volumes::read_normalise(r, "zscore", false);
        let (cache_bytes, cache_folder) = volumes::read_cache(r, files);
        let (mut augment, mirror_axes) = volumes::read_augment(r, "nnunet", patch);
        augment.pad_label = pad_label;
        let preprocess = Preprocess { normalise, ..Preprocess::default() };
        let options = VolumeOptions { preprocess, labels: rule, cache_bytes, cache_folder, seed };
        Self { source, options, patch, foreground, augment, mirror_axes, channels }
    }

    /// Training and validation part, and what was left out.
    fn open(&self, seed: u64) -> Result<(VolumeDataset, VolumeDataset, Option<String>)> {
        let (train, validation, note) = match &self.source {
            Source::Files { spec, validation } => {
                let source = VolumeSource::Segmentation(spec.clone());
                let (all, note) = volumes::labelled(&VolumeDataset::open(source, self.options.clone())?)?;
                let (train, validation) = validation.split(&all, seed)?;
                (train, validation, note)
            }
            Source::Synth { kind, count, validation, seed } => {
                let part = |first: usize, n: usize| kind.dataset(*seed, first, n, self.options.clone());
                (part(0, *count)?, part(*count, *validation)?, None)
            }
        };
        Ok((train, validation, note))
    }
}

fn read_files(r: &mut Reader, rule: &mut LabelRule) -> Source {
    let root = r.text("data.root", "", "Folder that images and labels are relative to.");
    if root.is_empty() {
        r.reject(
            "data.root",
            "is needed with data.source = \"files\": give it in the file or by --set data.root=DIR",
        );
    }
    let images = r.text(
        "data.images",
        "images",
        "Sub-folder of the images; or one file, or a folder of slices or Zarr that is one volume.",
    );
    let labels = r.text("data.labels", "labels", "The same of the labels, paired with the images by name.");
    let part = |text: String| (!text.is_empty()).then_some(text);
    let image_dataset = part(r.text(
        "data.image_dataset",
        "",
        "Name of the images' array inside HDF5 or Zarr; empty: the only one of three or more dimensions.",
    ));
    let label_dataset =
        part(r.text("data.label_dataset", "", "Name of the labels' array inside HDF5 or Zarr."));
    let nested = r.flag("data.nested", false, "Whether sub-folders are searched too.");
    rule.classes =
        r.count("data.classes", 2, 2..=255, "Number of classes, background (0) included.") as usize;
    rule.ignore =
        r.whole_numbers("data.ignore_label", "Label values of voxels that count nowhere; empty: none.");
    let positive = r.whole_numbers(
        "data.positive_label",
        "Label values that are class 1, all others being class 0; empty: values are classes.",
    );
    rule.positive = (!positive.is_empty()).then_some(positive);
    rule.threshold = r
        .optional_count(
            "data.mask_threshold",
            0..=i32::MAX as u64,
            "Label values above this are class 1, others class 0; not given: values are classes.",
        )
        .map(|t| t as i32);
    rule.boundary = r.flag(
        "data.instance_boundaries",
        false,
        "Labels are ids of objects; class 1 is where two ids touch.",
    );
    if let Err(problem) = rule.check() {
        r.reject("data.classes", problem);
    }
    let validation = Validation::read(r, "last", true);
    let spec = SegmentationSpec {
        root: root.into(),
        images: images.into(),
        labels: part(labels).map(PathBuf::from),
        image_dataset,
        label_dataset,
        nested,
        channel_files: None,
    };
    Source::Files { spec, validation }
}

impl Term {
    fn read(r: &mut Reader, name: &str, default: f64, doc: &'static str) -> Self {
        let key = |part: &str| format!("loss.{name}.{part}");
        let weight = r.number(&key("weight"), default, 0.0..=1e6, doc);
        if weight == 0.0 {
            for part in ["from_epoch", "ramp_epochs"] {
                r.switched_off(&key(part), &key("weight"), format!("{} is 0", key("weight")));
            }
            return Self { weight, from_epoch: 0, ramp_epochs: 0 };
        }
        Self {
            weight,
            from_epoch: r.count(
                &key("from_epoch"),
                0,
                0..=1_000_000,
                "Epoch, from 0, in which the term begins to count.",
            ),
            ramp_epochs: r.count(
                &key("ramp_epochs"),
                0,
                0..=1_000_000,
                "Epochs over which its weight rises from 0.",
            ),
        }
    }

    /// The weight at each step.
    fn schedule(self, steps_per_epoch: u64) -> Schedule {
        let from = self.from_epoch * steps_per_epoch;
        schedules::ramp(self.weight, from, from + self.ramp_epochs * steps_per_epoch)
    }
}

impl Losses {
    fn read(r: &mut Reader, classes: usize, deep: usize) -> Self {
        let dice = Term::read(r, "dice", 1.0, "Weight of the Dice term, mean over foreground classes.");
        let (mut dice_smooth, mut dice_batch) = (1e-5, true);
        if dice.weight > 0.0 {
            dice_smooth = r.number(
                "loss.dice.smooth",
                dice_smooth,
                1e-12..=1e6,
                "Added to numerator and denominator of Dice.",
            );
            dice_batch = r.flag(
                "loss.dice.batch",
                dice_batch,
                "Whether Dice sums over the whole batch before it divides, or is a mean over samples.",
            );
        } else {
            for key in ["loss.dice.smooth", "loss.dice.batch"] {
                r.switched_off(key, "loss.dice.weight", "loss.dice.weight is 0");
            }
        }
        let cross_entropy =
            Term::read(r, "cross_entropy", 1.0, "Weight of the cross-entropy (binary for two classes).");
        let focal = Term::read(r, "focal", 0.0, "Weight of the focal term (two classes only).");
        let (mut focal_alpha, mut focal_gamma) = (0.25, 2.0);
        if focal.weight > 0.0 {
            focal_alpha = r.number(
                "loss.focal.alpha",
                focal_alpha,
                0.0..=1.0,
                "Focal weight of foreground; background gets 1 - alpha.",
            );
            focal_gamma = r.number("loss.focal.gamma", focal_gamma, 0.0..=20.0, "Focal exponent.");
        } else {
            r.switched_off("loss.focal.alpha", "loss.focal.weight", "loss.focal.weight is 0");
            r.switched_off("loss.focal.gamma", "loss.focal.weight", "loss.focal.weight is 0");
        }
        let boundary = Term::read(r, "boundary", 0.0, "Weight of the boundary term.");
        let mut boundary_kind = Boundary::Band;
        if boundary.weight > 0.0 {
            boundary_kind = r.choice(
                "loss.boundary.kind",
                "band",
                &[("band", Boundary::Band), ("distance", Boundary::Distance)],
                "band: cross-entropy in a band around the boundary, full up to 3 voxels, none from 5 on (two classes only). distance: mean of probability times signed distance (Kervadec et al. 2019).",
            );
        } else {
            r.switched_off("loss.boundary.kind", "loss.boundary.weight", "loss.boundary.weight is 0");
        }
        let cldice =
            Term::read(r, "cldice", 0.0, "Weight of the soft centre-line Dice term (Shit et al. 2021).");
        let mut cldice_iterations = 3;
        if cldice.weight > 0.0 {
            cldice_iterations = r.count("loss.cldice.iterations", 3, 1..=100, "Erosions of the soft skeleton: at least half the thickness of the thickest structure, in voxels.") as usize;
        } else {
            r.switched_off("loss.cldice.iterations", "loss.cldice.weight", "loss.cldice.weight is 0");
        }
        let connectivity = Term::read(
            r,
            "connectivity",
            0.0,
            "Weight of the connectivity term: squared difference of 3^3 maxima.",
        );
        let mut drop_lowest = false;
        if deep > 0 {
            drop_lowest = r.flag(
                "loss.drop_lowest",
                false,
                "Whether the coarsest of the deep supervision's outputs gets no weight, as in nnU-Net.",
            );
        } else {
            r.switched_off("loss.drop_lowest", "model.deep_supervision", "model.deep_supervision is 0");
        }
        if classes > 2 {
            if focal.weight > 0.0 {
                r.reject("loss.focal.weight", format!("is for two classes; there are {classes}"));
            }
            if boundary.weight > 0.0 && boundary_kind == Boundary::Band {
                r.reject(
                    "loss.boundary.kind",
                    format!("\"band\" is for two classes; there are {classes}: use \"distance\""),
                );
            }
        }
        let losses = Self {
            dice,
            dice_smooth,
            dice_batch,
            cross_entropy,
            focal,
            focal_alpha,
            focal_gamma,
            boundary,
            boundary_kind,
            cldice,
            cldice_iterations,
            connectivity,
            drop_lowest,
        };
        let region = [dice, cross_entropy, focal];
        if region.iter().all(|t| t.weight == 0.0 || t.from_epoch > 0 || t.ramp_epochs > 0) {
            r.reject("loss.dice.weight", "none of loss.dice, loss.cross_entropy and loss.focal counts from the first step: there is nothing to learn from");
        }
        losses
    }

    /// Name and term, in the order of [`TERMS`].
    fn terms(&self) -> [(&'static str, Term); 6] {
        [
            ("dice", self.dice),
            ("cross_entropy", self.cross_entropy),
            ("focal", self.focal),
            ("boundary", self.boundary),
            ("cldice", self.cldice),
            ("connectivity", self.connectivity),
        ]
    }

    /// Overlap terms of one resolution, unweighted, by their place in [`TERMS`]; only those of a positive weight.
    fn region(
        &self,
        logits: &Tensor<5>,
        target: &Tensor<4, burn::tensor::Int>,
        valid: &Tensor<4>,
        weights: &[f64; 6],
    ) -> Vec<(usize, Tensor<1>)> {
        let binary = logits.dims()[1] == 1;
        let mut terms = Vec::new();
        if weights[0] > 0.0 {
            let options =
                DiceOptions { background: false, per_sample: !self.dice_batch, smooth: self.dice_smooth };
            terms.push((0, multiclass_dice_loss(logits.clone(), target.clone(), valid.clone(), &options)));
        }
        let one = || (target.clone().float().unsqueeze_dim::<5>(1), valid.clone().unsqueeze_dim::<5>(1));
        if weights[1] > 0.0 {
            terms.push((
                1,
                if binary {
                    let (target, valid) = one();
                    bce_with_logits(logits.clone(), target, valid, 1.0)
                } else {
                    cross_entropy(logits.clone(), target.clone(), valid.clone(), None)
                },
            ));
        }
        if weights[2] > 0.0 {
            let (target, valid) = one();
            terms.push((
                2,
                focal_loss(logits.clone(), target, valid, self.focal_alpha, self.focal_gamma, 1.0),
            ));
        }
        terms
    }

    /// The overlap terms with their weights over a whole validation set: the train/loss of training, over all voxels at once.
    fn of_sums(&self, sums: &Sums, weights: &[f64; 6]) -> f64 {
        let n = sums.valid.max(1.0);
        let dice = sums.overlap.iter().map(|[both, predicted, labelled]| {
            1.0 - (2.0 * both + self.dice_smooth) / (predicted + labelled + self.dice_smooth)
        });
        let dice = dice.sum::<f64>() / sums.overlap.len().max(1) as f64;
        let [background, foreground] = sums.focal;
        let focal = (self.focal_alpha * foreground + (1.0 - self.focal_alpha) * background) / n;
        weights[0] * dice + weights[1] * sums.cross_entropy / n + weights[2] * focal
    }

    /// Terms about shape at full resolution, likewise.
    fn shape(
        &self,
        logits: &Tensor<5>,
        target: &Tensor<4, burn::tensor::Int>,
        valid: &Tensor<4>,
        distances: Option<Tensor<5>>,
        weights: &[f64; 6],
    ) -> Vec<(usize, Tensor<1>)> {
        if weights[3..].iter().all(|w| *w == 0.0) {
            return Vec::new();
        }
        let outputs = logits.dims()[1];
        let foreground = if outputs == 1 { 1 } else { outputs - 1 };
        let probs_bfdhw = if outputs == 1 {
            sigmoid(logits.clone())
        } else {
            softmax(logits.clone(), 1).narrow(1, 1, foreground)
        };
        let target_bfdhw = Tensor::cat(
            (1..=foreground)
                .map(|k| target.clone().equal_elem(k as i64).float().unsqueeze_dim::<5>(1))
                .collect(),
            1,
        );
        let valid_bfdhw = valid.clone().unsqueeze_dim::<5>(1).repeat_dim(1, foreground);
        let mut terms = Vec::new();
        if let Some(distances) = distances.filter(|_| weights[3] > 0.0) {
            terms.push((
                3,
                match self.boundary_kind {
                    Boundary::Band => boundary_weighted_bce(
                        logits.clone(),
                        target_bfdhw.clone(),
                        distances,
                        valid_bfdhw.clone(),
                        DistanceBand::default(),
                    ),
                    Boundary::Distance => boundary_loss(probs_bfdhw.clone(), distances, valid_bfdhw.clone()),
                },
            ));
        }
        if weights[4] > 0.0 {
            terms.push((
                4,
                cldice_loss(
                    probs_bfdhw.clone(),
                    target_bfdhw.clone(),
                    valid_bfdhw.clone(),
                    self.cldice_iterations,
                    1.0,
                ),
            ));
        }
        if weights[5] > 0.0 {
            terms.push((5, connectivity_loss(probs_bfdhw, target_bfdhw, valid_bfdhw)));
        }
        terms
    }
}

impl Network for UNet3d {
    const GROUPS: &'static [&'static str] = &unet3d::GROUPS;

    fn group_of(path: &str) -> &'static str {
        unet3d::group_of(path)
    }

    fn set_frozen(self, frozen: bool) -> Self {
        self.set_encoder_frozen(frozen)
    }
}

impl Recipe for VolumeSegmentation {
    fn common(&self) -> &Common {
        &self.common
    }

    fn train(&self, session: Session<'_>) -> Result<Outcome> {
        let (mut trainer, note) = self.trainer(session.device)?;
        let info = trainer.info(session.device)?;
        let directory = session.directory.clone();
        let outcome = session::drive(session, &self.common, &mut trainer, &info, note.as_slice())?;
        if outcome.status != Status::Interrupted && checkpoint::best_path(&directory).is_file() {
            let best = self.open_best(&directory, &trainer.plain, self.optim.half)?;
            let predict = segment3d::predictor(&best.net, &trainer.plain, &self.windows, self.classes());
            let caption = best.describe(self.common.metric());
            let png = segment3d::figure(&trainer.validation, &predict, &caption)?;
            write_atomic(&directory.join("overlay.png"), |w| w.write_all(&png))?;
        }
        Ok(outcome)
    }

    fn probe<'a>(&'a self, device: &str) -> Result<Box<dyn Probe + 'a>> {
        let (trainer, _) = self.trainer(device)?;
        let info = trainer.info(device)?;
        Ok(Box::new(Bench::new(trainer, info)?))
    }

    fn inspect(&self) -> Result<Inspection> {
        match &self.data.source {
            Source::Files { spec, validation } => {
                let source = VolumeSource::Segmentation(spec.clone());
                volumes::inspect(source, validation, &self.data.options, self.common.seed)
            }
            Source::Synth { .. } => {
                let (train, validation, _) = self.data.open(self.common.seed)?;
                volumes::inspect_generated(&[("train", &train), ("validation", &validation)])
            }
        }
    }

    fn evaluate(&self, run: &Path, device: &str, data: Option<&Path>) -> Result<Scores> {
        let name = device;
        let device = crate::device::open(name)?;
        let best = self.open_best(run, &device, self.half_on(name, &device))?;
        let dataset = match (data, &self.data.source) {
            (None, _) => self.data.open(self.common.seed)?.1,
            (Some(root), source) => {
                let spec = match source {
                    Source::Files { spec, .. } => SegmentationSpec { root: root.to_owned(), ..spec.clone() },
                    Source::Synth { .. } => SegmentationSpec {
                        root: root.to_owned(),
                        images: "images".into(),
                        labels: Some("labels".into()),
                        ..SegmentationSpec::default()
                    },
                };
                let source = VolumeSource::Segmentation(spec);
                volumes::labelled(&VolumeDataset::open(source, self.data.options.clone())?)?.0
            }
        };
        volumes::check_channels(&dataset, self.data.channels)?;
        let windows = Windows { topology: true, ..self.windows.clone() };
        let predict = segment3d::predictor(&best.net, &device, &windows, self.classes());
        let mut judge = Judge::new(self.classes(), &windows, self.loss.focal_gamma, true)?;
        for i in 0..dataset.len() {
            judge.push(&*dataset.load(i)?, &predict)?;
        }
        Ok(judge.scores(best.describe(self.common.metric())))
    }

    fn predict(&self, run: &Path, request: &Request, say: &mut dyn FnMut(&str)) -> Result<()> {
        let device = crate::device::open(&request.device)?;
        let best = self.open_best(run, &device, self.half_on(&request.device, &device))?;
        let dataset = match &self.data.source {
            Source::Files { spec, .. } => spec.image_dataset.clone(),
            Source::Synth { .. } => None,
        };
        let windows = Windows {
            threshold: request.threshold.unwrap_or(self.windows.threshold),
            ..self.windows.clone()
        };
        let predict = segment3d::predictor(&best.net, &device, &windows, self.classes());
        segment3d::predict_files(
            request,
            &predict,
            dataset.as_deref(),
            &self.data.options,
            self.data.channels,
            say,
        )
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

impl VolumeSegmentation {
    /// All that training needs, and what is worth a note.
    fn trainer(&self, device: &str) -> Result<(Trainer<'_>, Option<String>)> {
        let plain = crate::device::open(device)?;
        if self.optim.half {
            crate::device::check_bf16(device, &plain)?;
        }
        let (train, validation, note) = self.data.open(self.common.seed)?;
        volumes::check_channels(&train, self.data.channels)?;
        volumes::check_channels(&validation, self.data.channels)?;
        Ok((Trainer::new(self, Arc::new(train), validation, &plain), note))
    }

    fn classes(&self) -> usize {
        self.data.options.labels.classes
    }

    fn network(&self, device: &Device, half: bool) -> UNet3d {
        self.model.init(device, &mut rng(self.common.seed, Stream::Init, 0)).with_half(half)
    }

    /// Whether to compute in bf16 on a device that may be another than the run's.
    fn half_on(&self, name: &str, device: &Device) -> bool {
        self.optim.half && crate::device::check_bf16(name, device).is_ok()
    }

    fn open_best(&self, run: &Path, device: &Device, half: bool) -> Result<Best<UNet3d>> {
        session::best(run, self.network(device, half))
    }
}

/// Network and schedules in motion.
struct Trainer<'a> {
    settings: &'a VolumeSegmentation,
    plans: Vec<StagePlan>,
    train: Arc<VolumeDataset>,
    validation: VolumeDataset,
    plain: Device,
    tracked: Device,
    learner: Learner<UNet3d>,
    /// Weight of each of [`TERMS`] at a step.
    weights: [Schedule; 6],
    /// Weight of each output of deep supervision, the finest first.
    levels: Vec<f64>,
    /// Floors of the validation cases, once known.
    floors: BTreeMap<String, f64>,
}

/// What one optimizer step trains on: one batch, or several whose gradients are averaged.
struct Batch(Vec<PatchBatch>);

impl<'a> Trainer<'a> {
    fn new(
        settings: &'a VolumeSegmentation,
        train: Arc<VolumeDataset>,
        validation: VolumeDataset,
        plain: &Device,
    ) -> Self {
        let tracked = plain.clone().autodiff();
        let plan = settings.optim.plan(train.len());
        let learner = Learner::new(
            &settings.optim,
            &plan,
            settings.network(&tracked, settings.optim.half),
            settings.network(plain, settings.optim.half),
        );
        let weights = settings.loss.terms().map(|(_, term)| term.schedule(plan.steps_per_epoch));
        Self {
            settings,
            train,
            validation,
            plain: plain.clone(),
            tracked,
            learner,
            weights,
            levels: deep_supervision_weights(1 + settings.model.deep_supervision, settings.loss.drop_lowest),
            floors: BTreeMap::new(),
            plans: vec![plan],
        }
    }

    fn info(&self, device: &str) -> Result<RunInfo> {
        let mut class_counts = BTreeMap::new();
        for i in 0..self.train.len() {
            for label in self.train.load(i)?.labels.iter().flatten() {
                let name = if *label == IGNORE { "-1".to_owned() } else { label.to_string() };
                *class_counts.entry(name).or_insert(0u64) += 1;
            }
        }
        let fingerprint = format!("{}+{}", self.train.fingerprint()?, self.validation.fingerprint()?);
        let parameters = params::parameter_counts(&self.learner.net, unet3d::group_of);
        Ok(session::info(
            ENTRY.name,
            device,
            self.settings.common.seed,
            &self.plans,
            fingerprint,
            class_counts,
            parameters,
        ))
    }

    fn weights_at(&self, step: u64) -> [f64; 6] {
        std::array::from_fn(|i| (self.weights[i])(step))
    }

    /// The weights of the terms in use as signals.
    fn weight_signals(&self, weights: &[f64; 6]) -> Signals {
        let terms = self.settings.loss.terms().into_iter().zip(weights);
        let used = terms.filter(|((_, term), _)| term.weight > 0.0);
        used.map(|((name, _), weight)| (names::WEIGHT_LOSS.group(name), *weight)).collect()
    }

    /// The batch through the network, and every term of its loss: overlap at every level that predicts, shape at the finest.
    fn forward(&self, batch: &PatchBatch, weights: &[f64; 6]) -> Passed {
        let loss = &self.settings.loss;
        let mut logits = self.learner.net.forward_deep(batch.images_bcdhw(&self.tracked));
        let (target, valid) = batch.targets_bdhw(&self.tracked);
        let mut terms = Vec::new();
        for (level, (logits, level_weight)) in logits.iter().zip(&self.levels).enumerate() {
            if *level_weight == 0.0 {
                continue;
            }
            let [_, _, d, h, w] = logits.dims();
            let target = downsample_nearest(target.clone(), &[d, h, w]);
            let valid = downsample_nearest(valid.clone(), &[d, h, w]);
            let region = loss.region(logits, &target, &valid, weights).into_iter();
            terms.extend(region.map(|(of, value)| LossTerm { of, level: Some(level), value }));
        }
        let distances = (!batch.distances.is_empty()).then(|| batch.distances_bfdhw(&self.tracked));
        let shape = loss.shape(&logits[0], &target, &valid, distances, weights).into_iter();
        terms.extend(shape.map(|(of, value)| LossTerm { of, level: None, value }));
        Passed { logits: logits.swap_remove(0), target, valid, terms }
    }
}

/// A batch that has passed forward.
struct Passed {
    /// At full resolution.
    logits: Tensor<5>,
    target: Tensor<4, burn::tensor::Int>,
    valid: Tensor<4>,
    terms: Vec<LossTerm>,
}

/// A term of the loss, unweighted.
struct LossTerm {
    /// Its place in [`TERMS`].
    of: usize,
    /// The level of deep supervision it is of, the finest 0; none for terms about shape.
    level: Option<usize>,
    value: Tensor<1>,
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
        let (data, optim, loss) = (&self.settings.data, &self.settings.optim, &self.settings.loss);
        let sampler = PatchSampler {
            dataset: Arc::clone(&self.train),
            batch: optim.batch,
            patch: data.patch,
            foreground: data.foreground,
            augment: data.augment,
            channels: data.channels,
            seed: self.settings.common.seed,
        };
        let accumulate = optim.accumulate;
        let foreground = data.options.labels.classes as u8 - 1;
        let boundary = loss.boundary.schedule(self.plans[0].steps_per_epoch);
        // Where there is no boundary: beyond the band, or no gradient.
        let far = match loss.boundary_kind {
            Boundary::Band => f64::from(f32::MAX),
            Boundary::Distance => 0.0,
        };
        Arc::new(move |step| {
            let micro = (0..accumulate).map(|m| {
                let mut batch = sampler.batch(step * accumulate + m)?;
                let size = voxels(batch.shape).max(1);
                // Distances are dear: only once they count.
                let wanted = if boundary(step) > 0.0 { foreground } else { 0 };
                for labels in batch.labels.chunks_exact(size) {
                    for class in 1..=wanted {
                        batch.distances.extend(segment3d::distances(labels, class, batch.shape, far));
                    }
                }
                Ok(batch)
            });
            micro.collect::<trimtab_data::Result<_>>().map(Batch)
        })
    }

    fn step(&mut self, Batch(micro): Batch, at: Step) -> Result<Signals> {
        let buffers = self.learner.begin(at);
        let weights = self.weights_at(at.in_stage);
        let share = 1.0 / micro.len().max(1) as f64;
        let mut gathered = Gathered::default();
        let mut measured = Measured::default();
        let mut non_finite = 0;
        for batch in micro {
            // Forward and loss.
            non_finite += batch.non_finite();
            let Passed { logits, target, valid, terms } = self.forward(&batch, &weights);
            let mut total = Tensor::zeros([1], &self.tracked);
            for (level, level_weight) in self.levels.iter().enumerate() {
                let mut sum = Tensor::zeros([1], &self.tracked);
                let mut counts = false;
                for LossTerm { of, value, .. } in terms.iter().filter(|t| t.level == Some(level)) {
                    if level == 0 && at.measure {
                        measured.add(TERMS[*of], value, share);
                    }
                    sum = sum + value.clone() * weights[*of];
                    counts = true;
                }
                if !counts {
                    continue;
                }
                if at.measure {
                    // At the finest level it is what validation measures as its loss.
                    let signal = if level == 0 { &names::TRAIN_LOSS } else { &names::LOSS_DEEP_SUPERVISION };
                    measured.add(signal, &sum, share);
                }
                total = total + sum * *level_weight;
            }
            for LossTerm { of, value, .. } in terms.into_iter().filter(|t| t.level.is_none()) {
                if at.measure {
                    measured.add(TERMS[of], &value, share);
                }
                total = total + value * weights[of];
            }
            if at.measure {
                measured.add(&names::LOSS_TOTAL, &total, share);
                segment3d::measure(&mut measured, &logits, &target, &valid, share);
                let (ignored, prevalence) = batch.label_shares();
                measured.known(&names::DATA_IGNORED, ignored * share);
                measured.known(&names::TRAIN_PREVALENCE, prevalence * share);
                measured.known(&names::TRAIN_LABELLED, batch.count as f64);
            }

            // Gradients.
            self.learner.gather(&mut gathered, total, share);
        }

        // Update; one that is not finite reaches neither weights nor average.
        let mut signals = self.learner.update(gathered, &buffers, at)?;

        // Report.
        signals.push((names::DATA_NON_FINITE.name.to_owned(), non_finite as f64));
        if at.measure {
            signals.extend(self.weight_signals(&weights));
            signals.extend(measured.read()?);
        }
        Ok(signals)
    }

    fn evaluate(&mut self) -> Result<Evaluation> {
        let settings = self.settings;
        let weights = self.weights_at(self.learner.steps().saturating_sub(1));
        let mut kinds = Vec::new();
        for (kind, net) in self.learner.kinds() {
            let first = self.floors.is_empty();
            let mut judge =
                Judge::new(settings.classes(), &settings.windows, settings.loss.focal_gamma, first)?;
            let predict = segment3d::predictor(&net, &self.plain, &settings.windows, settings.classes());
            for i in 0..self.validation.len() {
                judge.push(&*self.validation.load(i)?, &predict)?;
            }
            let mut scores = judge.metrics(&self.floors);
            if first {
                self.floors = scores.iter().filter_map(|s| Some((s.name.clone(), s.floor?))).collect();
            }
            let value = settings.loss.of_sums(judge.sums(), &weights);
            scores.push(Score { name: names::VAL_LOSS.name.to_owned(), value, floor: None });
            kinds.push((kind, scores));
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

    fn weights(&self, kind: &str, metadata: BTreeMap<String, String>) -> Vec<u8> {
        self.learner.weights(kind, &metadata)
    }

    fn scheduled(&self, _: usize, in_stage: u64) -> Signals {
        let mut signals = self.learner.scheduled(in_stage);
        signals.extend(self.weight_signals(&self.weights_at(in_stage)));
        signals
    }

    fn force_rate(&mut self, rate: Option<f64>) {
        self.learner.force_rate(rate);
    }

    fn examine(&mut self, Batch(micro): Batch, at: Step) -> Result<Examination> {
        let weights = self.weights_at(at.in_stage);
        let names = self.settings.loss.terms().map(|(name, _)| name);
        let Some(batch) = micro.into_iter().next() else { return Ok(Examination::default()) };
        probe::examine(
            self,
            |t| &t.learner.net,
            unet3d::group_of,
            |t| {
                let passed = t.forward(&batch, &weights);
                let count = passed.logits.shape().num_elements();
                let terms = passed.terms.into_iter().map(|term| {
                    let level = term.level.map_or(1.0, |level| t.levels[level]);
                    (names[term.of], weights[term.of] * level, term.value)
                });
                Forward { terms: terms.collect(), logits: passed.logits.reshape([count]) }
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
        let patch: usize = self.settings.data.patch.iter().product();
        let each = |i: usize| self.validation.shapes().ok().map_or(0, |s| voxels(s[i]));
        let all: usize = (0..self.validation.len()).map(each).sum();
        let step = (1.0 - self.settings.windows.overlap).clamp(0.1, 1.0).powi(3);
        let kinds = self.learner.kinds().len() as f64;
        kinds * all as f64 / step / (patch * self.settings.optim.batch).max(1) as f64
    }
}
