//! Binary segmentation of 2-D images: batches of tiles, whole-image prediction and its evaluation. Shared by the recipes
//! of that task.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor, TensorData};
use trimtab_data::augment::{self, Augment};
use trimtab_data::dataset::Dataset;
use trimtab_data::rng::{Stream, rng};
use trimtab_data::tiles::{self, BlendPlan, Patch, Tile};
use trimtab_data::{DataError, Image};
use trimtab_metrics::{BinaryEvaluator, BinaryReport};
use trimtab_nn::models::unet2d::UNet2d;
use trimtab_signals::names;

use crate::config::EvaluateConfig;
use crate::error::{Result, TrainError};

/// Patches of one kind, stacked. Axes: b = batch, h, w.
#[derive(Debug, Clone, Default)]
pub struct Patches {
    /// Number of patches.
    pub count: usize,
    /// Side, in pixels.
    pub size: usize,
    /// `[b, h, w]` intensities.
    pub images: Vec<f32>,
    /// `[b, h, w]` labels in {-1, 0, 1}; empty for unlabelled patches.
    pub labels: Vec<i8>,
}

impl Patches {
    fn push(&mut self, patch: Patch) {
        self.count += 1;
        self.size = patch.size;
        self.images.extend(patch.image);
        self.labels.extend(patch.labels.unwrap_or_default());
    }

    /// Intensities as `[b, 1, h, w]`.
    pub fn images_b1hw(&self, device: &Device) -> Tensor<4> {
        tensor_b1hw(self.images.clone(), self.count, self.size, device)
    }

    /// Targets (1 where positive) and validity (0 where ignored), each `[b, 1, h, w]`.
    pub fn targets_b1hw(&self, device: &Device) -> (Tensor<4>, Tensor<4>) {
        let of = |f: &dyn Fn(i8) -> bool| {
            let values = self.labels.iter().map(|l| f32::from(f(*l))).collect();
            tensor_b1hw(values, self.count, self.size, device)
        };
        (of(&|l| l == 1), of(&|l| l >= 0))
    }

    /// Input values that are NaN or infinite.
    pub fn non_finite(&self) -> usize {
        self.images.iter().filter(|v| !v.is_finite()).count()
    }

    /// Share of ignored and share of positive pixels (among those not ignored).
    pub fn label_shares(&self) -> (f64, f64) {
        let ignored = self.labels.iter().filter(|l| **l < 0).count();
        let positive = self.labels.iter().filter(|l| **l == 1).count();
        let valid = (self.labels.len() - ignored).max(1);
        (ignored as f64 / self.labels.len().max(1) as f64, positive as f64 / valid as f64)
    }
}

/// `[b, size, size]` values as `[b, 1, size, size]`.
pub fn tensor_b1hw(values: Vec<f32>, count: usize, size: usize, device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(values, [count, 1, size, size]), device)
}

/// Which tiles of a dataset a batch is drawn from, and how.
#[derive(Debug, Clone)]
pub struct TileSampler {
    /// Images.
    pub dataset: Arc<Dataset>,
    /// Candidates.
    pub tiles: Arc<Vec<Tile>>,
    /// Patches a batch.
    pub batch: usize,
    /// Side of the crop, in pixels.
    pub crop: usize,
    /// Augmentation.
    pub augment: Augment,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// Whether patches carry labels.
    pub labelled: bool,
    /// Whether an epoch ends with a short batch (`false`: an endless stream of shuffles in full batches).
    pub short_last: bool,
}

impl TileSampler {
    /// The patches of batch `step`, a pure function of it.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn batch(&self, step: u64) -> Result<Patches, DataError> {
        let n = self.tiles.len();
        let picks = if self.short_last {
            tiles::epoch_batch(self.seed, step, n, self.batch)
        } else {
            tiles::stream_indices(self.seed, step * self.batch as u64, self.batch, n)
        };
        let mut patches = Patches::default();
        for (slot, pick) in picks.into_iter().enumerate() {
            let tile = self.tiles[pick];
            let pair = self.dataset.load(tile.entry)?;
            let mut patch = tiles::cut(&pair, tile);
            let mut rng = rng(self.seed, Stream::Augment, step * self.batch as u64 + slot as u64);
            if self.crop < tile.size {
                patch = tiles::random_crop(&patch, self.crop, &mut rng);
            }
            augment::apply(&self.augment, &mut patch, &mut rng);
            if !self.labelled {
                patch.labels = None;
            }
            patches.push(patch);
        }
        Ok(patches)
    }
}

/// Probability map of a whole image by overlapping windows.
pub(crate) fn probability_map(
    net: &UNet2d,
    device: &Device,
    image: &Image,
    config: &EvaluateConfig,
) -> Result<Image> {
    // A window larger than the image would only predict padding.
    let side = image.width.max(image.height).next_multiple_of(16).min(config.tile);
    let mut plan = BlendPlan::new(image.width, image.height, side, config.overlap.min(side / 2));
    let windows: Vec<usize> = (0..plan.len()).collect();
    for chunk in windows.chunks(config.batch) {
        let values = chunk.iter().flat_map(|i| plan.window(*i, image)).collect();
        let logits = net.forward(tensor_b1hw(values, chunk.len(), side, device));
        let probs = to_vec(sigmoid(logits))?;
        for (i, window) in chunk.iter().zip(probs.chunks_exact(side * side)) {
            plan.accumulate(*i, window);
        }
    }
    Ok(plan.finish())
}

/// A tensor's values on the host.
pub(crate) fn to_vec<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor
        .try_into_data()
        .map_err(|e| TrainError::Internal(format!("cannot read from the device: {e:?}")))?;
    data.convert::<f32>()
        .try_into_vec()
        .map_err(|e| TrainError::Internal(format!("cannot read from the device: {e:?}")))
}

/// Evaluates a predictor on every labelled image, one at a time, in constant memory. `each` sees every probability map
/// with its labels.
pub(crate) fn evaluate(
    dataset: &Dataset,
    threshold: f64,
    mut predict: impl FnMut(&Image) -> Result<Image>,
    mut each: impl FnMut(&Image, &[i8]),
) -> Result<BinaryReport> {
    let mut evaluator = BinaryEvaluator::new();
    for i in 0..dataset.len() {
        let pair = dataset.load(i)?;
        let Some(labels) = &pair.labels else { continue };
        let map = predict(&pair.image)?;
        each(&map, labels);
        evaluator.push(&map.pixels, labels).map_err(|e| TrainError::Internal(e.to_string()))?;
    }
    Ok(evaluator.report(threshold))
}

/// Turns the reports of several kinds of weights into signals: each under its group, and those of the better kind (by
/// `metric`; the first of equals) without a group. Returns signals, floors and the better kind.
pub(crate) fn signals(
    reports: &[(&'static str, BinaryReport)],
    metric: &str,
) -> (Vec<(String, f64)>, BTreeMap<String, f64>, &'static str) {
    let quantity = metric.strip_prefix("val/").unwrap_or(metric);
    let score = |report: &BinaryReport| report.get(quantity).map_or(f64::NAN, |m| m.value);
    let winner =
        reports.iter().reduce(|a, b| if score(&b.1) > score(&a.1) || score(&a.1).is_nan() { b } else { a });
    let Some((winner, report)) = winner else { return Default::default() };
    let (mut out, mut floors) = (Vec::new(), BTreeMap::new());
    let mut add = |report: &BinaryReport, group: Option<&str>| {
        for metric in report.iter() {
            let plain = format!("val/{}", metric.name);
            debug_assert!(names::of(&plain).is_some(), "{plain}");
            let name = group.map_or(plain.clone(), |g| format!("{plain}/{g}"));
            if let Some(floor) = metric.floor {
                floors.insert(name.clone(), floor);
            }
            out.push((name, metric.value));
        }
    };
    add(report, None);
    for (kind, report) in reports {
        add(report, Some(kind));
    }
    (out, floors, winner)
}
