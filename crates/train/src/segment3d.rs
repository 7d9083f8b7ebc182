//! Segmentation of volumes: prediction by overlapping windows in bounded memory, and its judgement.
//!
//! Axes: b = batch, c = channel, k = output (one probability of foreground for two classes, else one for each class), d, h, w.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::json;
use trimtab_data::formats::{Stored, VolumeWriter, open_volumes};
use trimtab_data::overlay;
use trimtab_data::synth;
use trimtab_data::volume::{IGNORE, Shape, Volume, voxels};
use trimtab_data::volumes::patches::{Slab, SlabBlend, gaussian, windows};
use trimtab_data::volumes::{Generated, Prepared, Scaling, VolumeDataset, VolumeOptions};
use trimtab_data::{DataError, Image, Labels};
use trimtab_metrics::cldice::cldice;
use trimtab_metrics::distance::distance_to;
use trimtab_metrics::surface::surface_distances;
use trimtab_metrics::surface_score::{SurfaceScoreOptions, surface_score};
use trimtab_metrics::{Error as MetricError, VolumeEvaluator};
use trimtab_nn::models::unet3d::UNet3d;
use trimtab_signals::names;

use crate::error::{Result, TrainError};
use crate::measured::{Measured, to_vec};
use crate::recipes::{Request, Score, Scores};
use crate::settings::Reader;
use crate::volumes;

/// How whole volumes are predicted and judged.
#[derive(Debug, Clone)]
pub(crate) struct Windows {
    pub(crate) threshold: f64,
    pub(crate) window: Shape,
    pub(crate) overlap: f64,
    /// Axes (depth, height, width) over whose mirror images predictions are averaged.
    pub(crate) mirror: [bool; 3],
    pub(crate) batch: usize,
    /// Whether surfaces and topology are measured too.
    pub(crate) topology: bool,
    pub(crate) tolerance: f64,
}

impl Windows {
    pub(crate) fn read(
        r: &mut Reader,
        patch: Shape,
        divisors: [usize; 3],
        classes: usize,
        axes: [bool; 3],
    ) -> Self {
        let mut threshold = 0.5;
        if classes > 2 {
            r.inactive("evaluate.threshold", "with more than two classes the most probable one is taken");
        } else {
            threshold = r.number(
                "evaluate.threshold",
                0.5,
                0.0..=1.0,
                "With two classes, a voxel is foreground above this probability.",
            );
        }
        let window = volumes::read_shape(
            r,
            "evaluate.window",
            patch,
            1,
            [
                "Depth of the windows whole volumes are predicted in, in voxels [default: of the patches].",
                "Height of the windows, in voxels.",
                "Width of the windows, in voxels.",
            ],
        );
        for ((axis, size), divisor) in ["depth", "height", "width"].iter().zip(window).zip(divisors) {
            if !size.is_multiple_of(divisor) {
                r.reject(
                    &format!("evaluate.window_{axis}"),
                    format!("found {size}; accepted is a multiple of {divisor}"),
                );
            }
        }
        let overlap = r.number(
            "evaluate.overlap",
            0.5,
            0.0..=0.95,
            "Share of a window that the next one covers too; windows weigh by a Gaussian.",
        );
        let mirror = r.flag("evaluate.mirror", false, "Whether predictions are averaged over windows mirrored along augment.mirror_axes: twice the time for each axis.");
        let mirror = axes.map(|may| mirror && may);
        let batch = r.count("evaluate.batch", 1, 1..=1024, "Windows predicted at once.") as usize;
        let topology = r.flag(
            "evaluate.topology",
            false,
            "Whether every validation measures surfaces and topology too (`trimtab eval` always does).",
        );
        let tolerance = r.number("evaluate.tolerance", 2.0, 1e-6..=1e6, "Distance within which surfaces agree, in the unit of the spacing (mm; voxels where files say nothing).");
        Self { threshold, window, overlap, mirror, batch, topology, tolerance }
    }
}

/// Predicts volumes with a network.
pub(crate) struct Predictor<'a> {
    net: &'a UNet3d,
    device: &'a Device,
    windows: &'a Windows,
    outputs: usize,
}

pub(crate) fn predictor<'a>(
    net: &'a UNet3d,
    device: &'a Device,
    windows: &'a Windows,
    classes: usize,
) -> Predictor<'a> {
    Predictor { net, device, windows, outputs: if classes == 2 { 1 } else { classes } }
}

impl Predictor<'_> {
    /// Predicts a volume of `shape` that is read a few slices at a time by `slices` (`[c, range, h, w]`), and hands out
    /// `[k, n, h, w]` probabilities of slices as soon as they are final, in order, with the number of the first. No more
    /// than a window's depth of slices is held. A volume smaller than a window lies in its middle among zeros, as in
    /// a patch of training.
    fn run(
        &self,
        shape: Shape,
        channels: usize,
        mut slices: impl FnMut(Range<usize>) -> Result<Vec<f32>>,
        mut emit: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let window = self.windows.window;
        let padded: Shape = std::array::from_fn(|axis| shape[axis].max(window[axis]));
        let before: Shape = std::array::from_fn(|axis| (padded[axis] - shape[axis]) / 2);
        let origins = windows(padded, window, self.windows.overlap);
        let mut blend = SlabBlend::new(self.outputs, padded, window, gaussian(window, 0.125));
        let mut finished = |slab: Slab| {
            let (first, values) = self.within(&slab, padded, before, shape);
            if values.is_empty() { Ok(()) } else { emit(first, &values) }
        };
        let size = voxels(window);
        let plane = shape[1] * shape[2];
        let (mut values, mut held) = (Vec::<f32>::new(), 0..0);
        let mut at = 0;
        while at < origins.len() {
            let depth = origins[at][0];
            let end = origins.partition_point(|o| o[0] <= depth);
            let range = depth.saturating_sub(before[0])..(depth + window[0] - before[0]).min(shape[0]);
            // What the last windows had of it is kept: going back is dear in a compressed file.
            let kept = range.start.max(held.start)..held.end.max(range.start);
            let fresh = slices(kept.end..range.end)?;
            let mut joined = Vec::with_capacity(channels * range.len() * plane);
            for channel in 0..channels {
                let old = (channel * held.len() + kept.start - held.start) * plane;
                joined.extend_from_slice(&values[old..old + kept.len() * plane]);
                let count = (range.end - kept.end) * plane;
                joined.extend_from_slice(&fresh[channel * count..][..count]);
            }
            (values, held) = (joined, range.clone());
            let slab = Held { values: &values, first: range.start, shape: [range.len(), shape[1], shape[2]] };
            for chunk in origins[at..end].chunks(self.windows.batch) {
                let cut = chunk.iter().flat_map(|origin| slab.cut(*origin, before, window));
                let [d, h, w] = window;
                let data = TensorData::new(cut.collect::<Vec<f32>>(), [chunk.len(), channels, d, h, w]);
                let probs = to_vec(self.probabilities(Tensor::from_data(data, self.device)))?;
                for (origin, probs) in chunk.iter().zip(probs.chunks_exact(size * self.outputs)) {
                    finished(blend.add(*origin, probs))?;
                }
            }
            at = end;
        }
        finished(blend.finish())
    }

    /// The part of a slab of the padded volume that is the volume's own: number of its first slice, and values.
    fn within(&self, slab: &Slab, padded: Shape, before: Shape, shape: Shape) -> (usize, Vec<f32>) {
        let from = slab.first.max(before[0]);
        let to = (slab.first + slab.depth).min(before[0] + shape[0]);
        let mut values = Vec::new();
        for k in 0..self.outputs {
            for d in from..to {
                for h in before[1]..before[1] + shape[1] {
                    let row = ((k * slab.depth + d - slab.first) * padded[1] + h) * padded[2] + before[2];
                    values.extend_from_slice(&slab.values[row..row + shape[2]]);
                }
            }
        }
        (from.saturating_sub(before[0]), values)
    }

    fn probabilities(&self, x_bcdhw: Tensor<5>) -> Tensor<5> {
        let activate =
            |logits: Tensor<5>| if self.outputs == 1 { sigmoid(logits) } else { softmax(logits, 1) };
        if self.windows.mirror == [false; 3] {
            return activate(self.net.forward(x_bcdhw));
        }
        let axes: Vec<isize> = (2..5)
            .filter(|axis| self.windows.mirror[*axis as usize - 2] && x_bcdhw.dims()[*axis as usize] > 1)
            .collect();
        let mut sum: Option<Tensor<5>> = None;
        for flips in 0..1usize << axes.len() {
            let flipped: Vec<isize> =
                axes.iter().enumerate().filter(|(i, _)| flips >> i & 1 == 1).map(|(_, axis)| *axis).collect();
            let turn = |x: Tensor<5>| flipped.iter().fold(x, |x, axis| x.flip([*axis]));
            let probs = turn(activate(self.net.forward(turn(x_bcdhw.clone()))));
            sum = Some(match sum {
                None => probs,
                Some(sum) => sum + probs,
            });
        }
        sum.unwrap_or(x_bcdhw) / (1 << axes.len()) as f64
    }

    /// `[k, d, h, w]` probabilities of a volume in memory.
    pub(crate) fn whole(&self, image: &Volume) -> Result<Vec<f32>> {
        let plane = image.shape[1] * image.shape[2];
        let all = voxels(image.shape);
        let mut out = vec![0.0; self.outputs * all];
        let slices = |range: Range<usize>| Ok(planes(image, range));
        self.run(image.shape, image.channels, slices, |first, values| {
            let count = values.len() / self.outputs;
            for (k, part) in values.chunks_exact(count).enumerate() {
                out[k * all + first * plane..][..count].copy_from_slice(part);
            }
            Ok(())
        })?;
        Ok(out)
    }

    /// The class of each of `n` voxels from `[k, n]` probabilities.
    fn classes(&self, probs: &[f32]) -> Vec<u8> {
        let n = probs.len() / self.outputs;
        if self.outputs == 1 {
            return probs.iter().map(|p| u8::from(f64::from(*p) > self.windows.threshold)).collect();
        }
        let best = |voxel: usize| {
            (0..self.outputs)
                .fold(0, |best, k| if probs[k * n + voxel] > probs[best * n + voxel] { k } else { best })
        };
        (0..n).map(|voxel| best(voxel) as u8).collect()
    }
}

/// Slices `[c, range, h, w]` of a volume in memory.
fn planes(image: &Volume, range: Range<usize>) -> Vec<f32> {
    let plane = image.shape[1] * image.shape[2];
    let channels = image.values.chunks_exact(voxels(image.shape).max(1));
    channels.flat_map(|c| c[range.start * plane..range.end * plane].iter().copied()).collect()
}

/// Slices that are held, `[c, d, h, w]`, the first of them slice `first` of the volume.
struct Held<'a> {
    values: &'a [f32],
    first: usize,
    shape: Shape,
}

impl Held<'_> {
    /// The window that begins at `origin` of the volume padded by `before`.
    fn cut(&self, origin: [usize; 3], before: Shape, window: Shape) -> Vec<f32> {
        let [depth, height, width] = self.shape;
        let mut out = Vec::with_capacity(self.values.len() / voxels(self.shape).max(1) * voxels(window));
        let left = before[2].saturating_sub(origin[2]).min(window[2]);
        let start = (origin[2] + left - before[2]).min(width);
        for channel in self.values.chunks_exact(voxels(self.shape).max(1)) {
            for d in origin[0]..origin[0] + window[0] {
                let slice = d.checked_sub(before[0] + self.first).filter(|d| *d < depth);
                for h in origin[1]..origin[1] + window[1] {
                    let row = h.checked_sub(before[1]).filter(|h| *h < height);
                    let (Some(d), Some(h)) = (slice, row) else {
                        out.extend(std::iter::repeat_n(0.0, window[2]));
                        continue;
                    };
                    let row = &channel[(d * height + h) * width..][..width];
                    let inside = &row[start..(start + window[2] - left).min(width)];
                    out.extend(std::iter::repeat_n(0.0, left));
                    out.extend_from_slice(inside);
                    out.extend(std::iter::repeat_n(0.0, window[2] - left - inside.len()));
                }
            }
        }
        out
    }
}

/// Sums over all voxels that count, from which losses of overlap follow.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sums {
    /// Voxels.
    pub(crate) valid: f64,
    /// Sum of -log p of the right class.
    pub(crate) cross_entropy: f64,
    /// By place of the (1 - p) class: for two classes, of background and foreground: (1 - p)^gamma -log p.
    pub(crate) focal: [f64; 2],
    /// Of each foreground class: sums of p t, p and t.
    pub(crate) overlap: Vec<[f64; 3]>,
    /// Voxels predicted to be foreground.
    predicted: u64,
    /// Voxels of each class.
    labelled: Vec<u64>,
}

/// Judges predictions, case by case.
pub(crate) struct Judge<'a> {
    classes: usize,
    windows: &'a Windows,
    gamma: f64,
    overlap: VolumeEvaluator,
    /// Of each case, each foreground class and each quantity.
    cases: Vec<Vec<Shapes>>,
    /// The same of predicting a class nowhere, and everywhere; empty where the floors are known already.
    constants: [Vec<Vec<Shapes>>; 2],
    floors_wanted: bool,
    sums: Sums,
}

type Shapes = BTreeMap<&'static str, f64>;

fn wrong(error: MetricError) -> TrainError {
    TrainError::Internal(error.to_string())
}

/// Quantities of shape: means over cases and foreground classes.
const SURFACES: [&str; 6] = ["surface_dice", "hd95", "cldice", "topo_score", "voi_score", "topology_mix"];

impl<'a> Judge<'a> {
    /// `gamma` is the exponent of the focal loss. Floors of quantities of shape cost twice what the quantities do, and do not
    /// change in a run.
    pub(crate) fn new(classes: usize, windows: &'a Windows, gamma: f64, floors: bool) -> Result<Self> {
        Ok(Self {
            classes,
            windows,
            gamma,
            overlap: VolumeEvaluator::new(classes).map_err(wrong)?,
            cases: Vec::new(),
            constants: [Vec::new(), Vec::new()],
            floors_wanted: floors,
            sums: Sums {
                overlap: vec![[0.0; 3]; classes - 1],
                labelled: vec![0; classes],
                ..Sums::default()
            },
        })
    }

    /// Predicts a labelled case and compares.
    pub(crate) fn push(&mut self, case: &Prepared, predictor: &Predictor<'_>) -> Result<()> {
        let Some(labels) = &case.labels else { return Ok(()) };
        let probs = predictor.whole(&case.image)?;
        let predicted = predictor.classes(&probs);
        self.sum(&probs, &predicted, labels);
        self.overlap.push(&predicted, labels).map_err(wrong)?;
        if !self.windows.topology {
            return Ok(());
        }
        let (shape, spacing) = (case.image.shape, case.image.geometry.spacing);
        let of = |predicted: &[u8], class: u8| self.shape_of(predicted, labels, shape, spacing, class);
        let classes = 1..self.classes as u8;
        let shapes = classes.clone().map(|class| of(&predicted, class)).collect::<Result<_>>()?;
        let mut constants = None;
        if self.floors_wanted {
            let constant = |fill: fn(u8) -> u8| -> Result<Vec<Shapes>> {
                classes.clone().map(|class| of(&vec![fill(class); labels.len()], class)).collect()
            };
            constants = Some([constant(|_| 0)?, constant(|class| class)?]);
        }
        self.cases.push(shapes);
        if let Some([nowhere, everywhere]) = constants {
            self.constants[0].push(nowhere);
            self.constants[1].push(everywhere);
        }
        Ok(())
    }

    fn sum(&mut self, probs: &[f32], predicted: &[u8], labels: &[u8]) {
        let n = labels.len();
        for (voxel, label) in labels.iter().enumerate().filter(|(_, l)| **l != IGNORE) {
            let label = usize::from(*label);
            let p = |class: usize| {
                let p = if self.classes > 2 {
                    probs[class * n + voxel]
                } else if class == 1 {
                    probs[voxel]
                } else {
                    1.0 - probs[voxel]
                };
                // Blended probabilities can be exactly 0 or 1; f32 logits of training could not tell either from this bound.
                f64::from(p).clamp(1e-7, 1.0 - 1e-7)
            };
            let right = p(label);
            self.sums.valid += 1.0;
            self.sums.labelled[label] += 1;
            self.sums.predicted += u64::from(predicted[voxel] > 0);
            self.sums.cross_entropy -= right.ln();
            if self.classes == 2 {
                self.sums.focal[label] -= (1.0 - right).powf(self.gamma) * right.ln();
            }
            for (k, [both, predicted, labelled]) in self.sums.overlap.iter_mut().enumerate() {
                let (p, t) = (p(k + 1), f64::from(u8::from(label == k + 1)));
                *both += p * t;
                *predicted += p;
                *labelled += t;
            }
        }
    }

    fn shape_of(
        &self,
        predicted: &[u8],
        labels: &[u8],
        shape: Shape,
        spacing: [f64; 3],
        class: u8,
    ) -> Result<Shapes> {
        let p: Vec<bool> = predicted.iter().zip(labels).map(|(c, l)| *l != IGNORE && *c == class).collect();
        let t: Vec<bool> = labels.iter().map(|l| *l == class).collect();
        let surfaces = surface_distances(&p, &t, shape, spacing).map_err(wrong)?;
        let options =
            SurfaceScoreOptions { tolerance: self.windows.tolerance, ..SurfaceScoreOptions::default() };
        let flat = |mask: &[bool]| -> Vec<u8> { mask.iter().map(|m| u8::from(*m)).collect() };
        let mix = surface_score(&flat(&p), &flat(&t), shape, spacing, &options).map_err(wrong)?;
        Ok(BTreeMap::from([
            ("hd95", surfaces.hausdorff(95.0)),
            ("cldice", cldice(&p, &t, shape).map_err(wrong)?.cldice),
            ("surface_dice", mix.surface_dice),
            ("topo_score", mix.topo_score),
            ("voi_score", mix.voi_score),
            ("topology_mix", mix.score),
        ]))
    }

    /// Sums for the validation loss.
    pub(crate) fn sums(&self) -> &Sums {
        &self.sums
    }

    /// All metrics with their floors: means over the cases and foreground classes in which they have a meaning. Dice, IoU and clDice
    /// leave out a class that is in neither mask, surface Dice, TopoScore and VOI count it as 1; the surface distance leaves out what has
    /// no prediction, so read it beside Dice. `floors` are those of shape that are known from another judgement of the same cases.
    pub(crate) fn metrics(&self, floors: &BTreeMap<String, f64>) -> Vec<Score> {
        let report = self.overlap.report();
        let mut all: Vec<Score> = report
            .metrics
            .iter()
            .map(|m| Score { name: format!("val/{}", m.name), value: m.value, floor: m.floor })
            .collect();
        let classes = if self.classes > 2 { 1..self.classes } else { 0..0 };
        for class in classes.clone() {
            let dice = &report.per_class[class].dice;
            all.push(Score { name: format!("val/dice/class{class}"), value: dice.value, floor: dice.floor });
        }
        let mean = |cases: &[Vec<Shapes>], name: &str, class: Option<usize>| {
            let of_classes = cases.iter().flat_map(|of_classes| {
                of_classes
                    .iter()
                    .enumerate()
                    .filter(move |(k, _)| class.is_none_or(|c| c == *k + 1))
                    .map(|(_, s)| s)
            });
            let values: Vec<f64> =
                of_classes.filter_map(|s| s.get(name).copied()).filter(|v| v.is_finite()).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        for quantity in SURFACES.iter().filter(|_| self.windows.topology) {
            for class in std::iter::once(None).chain(classes.clone().map(Some)) {
                let name = class.map_or(format!("val/{quantity}"), |k| format!("val/{quantity}/class{k}"));
                // Distances have no floor: where nothing is predicted there are none.
                let floor = (*quantity != "hd95").then(|| {
                    let constants = || self.constants.iter().map(|cases| mean(cases, quantity, class));
                    floors.get(&name).copied().unwrap_or_else(|| constants().fold(f64::NAN, f64::max))
                });
                let value = mean(&self.cases, quantity, class);
                all.push(Score { name, value, floor: floor.filter(|f| f.is_finite()) });
            }
        }
        let valid = report.valid.max(1) as f64;
        let foreground = self.sums.labelled.iter().skip(1).sum::<u64>() as f64;
        let predicted = self.sums.predicted as f64;
        let plain =
            |signal: &names::Signal, value: f64| Score { name: signal.name.to_owned(), value, floor: None };
        all.push(plain(&names::VAL_POSITIVE_RATE, predicted / valid));
        all.push(plain(&names::VAL_PREVALENCE, foreground / valid));
        all
    }

    /// For `trimtab eval`.
    pub(crate) fn scores(&self, weights: String) -> Scores {
        let report = self.overlap.report();
        let facts = json!({
            "volumes": report.cases, "voxels": report.valid, "ignored": report.ignored, "classes": self.classes,
        });
        Scores {
            weights,
            on: format!(
                "{} volumes, {} voxels ({} ignored), {} classes; means over volumes and foreground classes",
                report.cases, report.valid, report.ignored, self.classes
            ),
            facts: facts.as_object().cloned().unwrap_or_default(),
            metrics: self.metrics(&BTreeMap::new()),
        }
    }
}

/// Signed distance of every voxel to the boundary of a class in voxels, negative within it. Voxels without a known label are no
/// boundary. Where there is none, `far` outside and `-far` within.
pub(crate) fn distances(labels: &[u8], class: u8, shape: Shape, far: f64) -> Vec<f32> {
    let to = |mask: Vec<bool>| {
        let none = !mask.contains(&true);
        // Nothing but the sizes can be wrong, and they are those of the patch.
        let cap = if none { f64::INFINITY } else { shape.iter().sum::<usize>() as f64 };
        let found = if none { None } else { distance_to(&mask, shape, [1.0; 3], cap).ok() };
        found.unwrap_or_else(|| vec![far; labels.len()])
    };
    let outside = to(labels.iter().map(|l| *l == class).collect());
    let inside = to(labels.iter().map(|l| *l != class && *l != IGNORE).collect());
    let signed = labels.iter().zip(outside.iter().zip(inside));
    signed.map(|(l, (outside, inside))| if *l == class { -inside as f32 } else { *outside as f32 }).collect()
}

/// Dice and share of foreground among the valid voxels of a training batch.
pub(crate) fn measure(
    measured: &mut Measured,
    logits: &Tensor<5>,
    target: &Tensor<4, Int>,
    valid: &Tensor<4>,
    share: f64,
) {
    let (logits, target, valid) = (logits.clone().inner(), target.clone().inner(), valid.clone().inner());
    let [b, k, d, h, w] = logits.dims();
    let predicted = if k == 1 {
        logits.reshape([b, d, h, w]).greater_elem(0.0).int()
    } else {
        logits.argmax(1).reshape([b, d, h, w])
    };
    let foreground = |x: Tensor<4, Int>| x.greater_elem(0).float() * valid.clone();
    let both = predicted.clone().equal(target.clone()).float() * foreground(target.clone());
    let (p, t) = (foreground(predicted).sum(), foreground(target).sum());
    let dice = (both.sum() * 2.0 + 1e-5) / (p.clone() + t + 1e-5);
    measured.add(&names::TRAIN_DICE, &dice, share);
    measured.add(&names::TRAIN_POSITIVE_RATE, &(p / valid.sum().clamp_min(1.0)), share);
}

/// A picture of one slice of a case: image, truth, probability of foreground, overlay.
pub(crate) fn figure(dataset: &VolumeDataset, predictor: &Predictor<'_>, caption: &str) -> Result<Vec<u8>> {
    let case = dataset.load(0)?;
    let probs = predictor.whole(&case.image)?;
    let [depth, height, width] = case.image.shape;
    // The slice with most foreground tells most; without any, the middle one.
    let plane = height * width;
    let foreground = |d: &usize| {
        case.labels
            .as_ref()
            .map_or(0, |l| l[d * plane..][..plane].iter().filter(|l| (1..IGNORE).contains(*l)).count())
    };
    let slice = (0..depth).max_by_key(foreground).filter(|d| foreground(d) > 0).unwrap_or(depth / 2);
    let part = |values: &[f32]| Image { width, height, pixels: values[slice * plane..][..plane].to_vec() };
    let map = if predictor.outputs == 1 {
        part(&probs)
    } else {
        let background = part(&probs);
        Image { pixels: background.pixels.iter().map(|p| 1.0 - p).collect(), ..background }
    };
    let truth = case.labels.as_ref().map(|l| Labels {
        width,
        height,
        values: l[slice * plane..][..plane]
            .iter()
            .map(|l| if *l == IGNORE { -1 } else { i32::from(*l) })
            .collect(),
    });
    let caption = format!("{}, slice {slice}: {caption}", dataset.cases()[0].id);
    let threshold = predictor.windows.threshold as f32;
    Ok(overlay::panel(&part(&case.image.values), truth.as_ref(), Some(&map), &[], threshold, &caption)
        .to_png())
}

/// Predicts files: the classes of each in its own format and grid, `NAME_labels`, and, with two classes, the probability,
/// `NAME_probability`. Memory is bounded by a window's depth of slices, where the file can be read so.
pub(crate) fn predict_files(
    request: &Request,
    predictor: &Predictor<'_>,
    dataset: Option<&str>,
    options: &VolumeOptions,
    channels: usize,
    say: &mut dyn FnMut(&str),
) -> Result<()> {
    if request.diameter.is_some() || request.min_score.is_some() {
        return Err(TrainError::Usage(
            "--diameter and --min-score are for particles in micrographs".to_owned(),
        ));
    }
    if request.threshold.is_some() && predictor.outputs > 1 {
        return Err(TrainError::Usage(
            "--threshold: with more than two classes the most probable one is taken".to_owned(),
        ));
    }
    if !(0.0..=1.0).contains(&predictor.windows.threshold) {
        let threshold = predictor.windows.threshold;
        return Err(TrainError::Usage(format!("--threshold {threshold}: accepted is 0 to 1")));
    }
    let inputs = volumes::list(&request.inputs, channels)?;
    let out = &request.out;
    std::fs::create_dir_all(out).map_err(|e| DataError::io(out, "cannot create", e))?;
    for (stem, paths) in inputs {
        let path = &paths[0];
        let mut reader = open_volumes(&paths, dataset)?;
        let info = reader.info().clone();
        if info.channels != channels {
            let problem = format!("has {} channels, the network takes {channels}", info.channels);
            return Err(DataError::content(path, problem).into());
        }
        let extension = extension_for(path);
        let at = |what: &str| out.join(format!("{stem}_{what}.{extension}"));
        let single = trimtab_data::VolumeInfo { channels: 1, ..info.clone() };
        let mut classes = VolumeWriter::create(&at("labels"), &single, Stored::U8)?;
        let mut probability = if predictor.outputs == 1 {
            Some(VolumeWriter::create(&at("probability"), &single, Stored::F32)?)
        } else {
            None
        };
        // The scale of intensities needs a pass of its own; spacing is taken as it is.
        let scaling = Scaling::stream(&mut *reader, options.preprocess.normalise, options.seed, &stem)?;
        let plane = info.shape[1] * info.shape[2];
        let mut foreground = 0u64;
        predictor.run(
            info.shape,
            channels,
            |range| {
                let mut values = reader.slices(range.clone())?;
                scaling.apply_planes(&mut values, range.start, plane);
                Ok(values)
            },
            |_, probs| {
                let found = predictor.classes(probs);
                foreground += found.iter().filter(|c| **c > 0).count() as u64;
                let found: Vec<f32> = found.into_iter().map(f32::from).collect();
                classes.push(&found)?;
                if let Some(writer) = &mut probability {
                    writer.push(probs)?;
                }
                Ok(())
            },
        )?;
        classes.finish()?;
        if let Some(writer) = probability {
            writer.finish()?;
        }
        let share = 100.0 * foreground as f64 / voxels(info.shape).max(1) as f64;
        say(&format!("{}: {share:.2} % foreground", path.display()));
    }
    Ok(())
}

/// The format of a prediction: that of its input where we write it.
fn extension_for(path: &Path) -> &'static str {
    let name = path.to_string_lossy().to_lowercase();
    if name.ends_with(".nii.gz") {
        "nii.gz"
    } else if name.ends_with(".nii") {
        "nii"
    } else if name.ends_with(".npy") {
        "npy"
    } else {
        "tif"
    }
}

/// Generated volumes.
#[derive(Debug, Clone)]
pub(crate) enum Synthetic {
    /// An organ of two parts.
    Organ(synth::OrganConfig),
    /// Thin surfaces, a part of them ignored.
    Membranes(synth::MembraneConfig),
}

/// Settings of generated data.
pub(crate) struct SyntheticData {
    pub(crate) kind: Synthetic,
    pub(crate) count: usize,
    pub(crate) validation: usize,
    pub(crate) seed: u64,
}

impl Synthetic {
    pub(crate) fn classes(&self) -> usize {
        match self {
            Self::Organ(_) => 3,
            Self::Membranes(_) => 2,
        }
    }

    pub(crate) fn ignored(&self) -> Vec<i32> {
        match self {
            Self::Organ(_) => Vec::new(),
            Self::Membranes(_) => vec![2],
        }
    }

    pub(crate) fn dataset(
        &self,
        seed: u64,
        first: usize,
        count: usize,
        options: VolumeOptions,
    ) -> Result<VolumeDataset> {
        let made = (first..first + count).map(|i| {
            let (volume, labels) = match self {
                Self::Organ(config) => synth::organ(config, seed, i as u64),
                Self::Membranes(config) => synth::membranes(config, seed, i as u64),
            };
            Generated { id: format!("generated_{i:04}"), volume, labels: Some(labels), class: None }
        });
        Ok(VolumeDataset::generated(made, options)?)
    }
}

pub(crate) fn read_synthetic(r: &mut Reader) -> SyntheticData {
    let organ = r.choice(
        "data.synth.kind",
        "organ",
        &[("organ", true), ("membranes", false)],
        "organ: an organ of two parts (classes 1 and 2). membranes: thin surfaces (class 1), a part of them ignored.",
    );
    let count = r.count("data.synth.count", 12, 1..=1_000_000, "Generated volumes for training.") as usize;
    let validation =
        r.count("data.synth.validation", 4, 1..=1_000_000, "Generated volumes for validation.") as usize;
    let seed = r.count("data.synth.seed", 7, 0..=i64::MAX as u64, "Seed of the generated volumes.");
    let kind = if organ {
        Synthetic::Organ(synth::OrganConfig::default())
    } else {
        Synthetic::Membranes(synth::MembraneConfig::default())
    };
    SyntheticData { kind, count, validation, seed }
}
