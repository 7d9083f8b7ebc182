//! Binary segmentation of 2-D images: batches of tiles, whole-image prediction and its evaluation. Shared by the recipes
//! of that task.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::json;
use trimtab_data::atomic::write_atomic;
use trimtab_data::audit;
use trimtab_data::augment::{self, Augment};
use trimtab_data::dataset::{Dataset, normalise};
use trimtab_data::formats::{self, cryoppp, eman_box, png, star, tiff, topaz};
use trimtab_data::overlay::overlay;
use trimtab_data::picking::pick;
use trimtab_data::rng::{Stream, rng};
use trimtab_data::tiles::{self, BlendPlan, Patch, Tile};
use trimtab_data::{DataError, Image, MicrographParticles};
use trimtab_metrics::{BinaryEvaluator, BinaryReport};
use trimtab_nn::models::unet2d::UNet2d;
use trimtab_signals::names;

use crate::error::{Result, TrainError};
use crate::images::{Images, Windows};
use crate::measured::to_vec;
use crate::recipes::{Inspection, Problem, Request, Score, Scores, Severity};

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
    config: &Windows,
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

/// Examines both splits.
pub(crate) fn inspect(images: &Images) -> Result<Inspection> {
    let data = &images.data;
    let splits = data.open_unchecked()?;
    let report = audit::inspect(&[("train", &splits.train), ("validation", &splits.validation)], data.tile);
    let number = |v: Option<f64>| v.map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"));
    let rows = report.splits.iter().map(|s| {
        let labels = s.labels.as_ref();
        let sizes: Vec<String> =
            s.sizes.iter().map(|z| format!("{}x{} ({})", z.width, z.height, z.images)).collect();
        let values = labels.map_or_else(String::new, |l| {
            l.stored.iter().map(|v| v.value.to_string()).collect::<Vec<_>>().join(", ")
        });
        vec![
            s.name.clone(),
            s.images.to_string(),
            s.labelled.to_string(),
            s.tiles.to_string(),
            sizes.join(", "),
            values,
            number(labels.and_then(|l| l.prevalence)),
            number(labels.map(|l| l.ignored_fraction)),
            labels.map_or_else(String::new, |l| l.empty_masks.to_string()),
        ]
    });
    let tiles = format!("tiles of {}", report.tile);
    let header = [
        "split",
        "images",
        "labelled",
        &tiles,
        "sizes (images)",
        "label values",
        "prevalence",
        "ignored",
        "empty masks",
    ];
    let contents = (header.map(str::to_owned).to_vec(), rows.collect());
    let rows = report.splits.iter().filter_map(|s| s.intensity.as_ref().map(|i| (s, i))).map(|(s, i)| {
        let plain = |v: f64| format!("{v:.4}");
        vec![
            s.name.clone(),
            plain(f64::from(i.min)),
            plain(i.mean),
            plain(i.std),
            plain(f64::from(i.max)),
            s.non_finite.to_string(),
        ]
    });
    let header = ["intensity", "min", "mean", "deviation", "max", "non-finite"];
    let intensities = (header.map(str::to_owned).to_vec(), rows.collect());
    let problems = report.problems.iter().map(|p| Problem {
        severity: match p.severity {
            audit::Severity::Error => Severity::Error,
            audit::Severity::Warning => Severity::Warning,
        },
        code: Problem::code_of(p.code),
        message: p.message.clone(),
        files: p.files.clone(),
    });
    Ok(Inspection {
        tables: vec![contents, intensities],
        problems: problems.collect(),
        json: serde_json::to_value(&report).map_err(|e| TrainError::Internal(e.to_string()))?,
    })
}

/// Evaluates on the validation images, or on other ones.
pub(crate) fn scores(
    images: &Images,
    other: Option<&Path>,
    predict: impl FnMut(&Image) -> Result<Image>,
) -> Result<Scores> {
    let dataset = match other {
        None => images.data.open_once()?.validation,
        Some(path) => images.data.open_other(path)?,
    };
    let labelled = (0..dataset.len()).filter(|i| dataset.is_labelled(*i)).count();
    if labelled == 0 {
        return Err(TrainError::Usage("no image has labels: there is nothing to compare with".to_owned()));
    }
    let report = evaluate(&dataset, images.windows.threshold, predict, |_, _| {})?;
    let facts = json!({
        "images": labelled, "pixels": report.valid, "ignored": report.ignored, "threshold": report.threshold,
    });
    Ok(Scores {
        weights: String::new(),
        on: format!(
            "{labelled} images, {} pixels ({} ignored), threshold {}",
            report.valid, report.ignored, report.threshold
        ),
        facts: facts.as_object().cloned().unwrap_or_default(),
        metrics: report
            .iter()
            .map(|m| Score { name: format!("val/{}", m.name), value: m.value, floor: m.floor })
            .collect(),
    })
}

/// Predicts pictures and picks particles: probability map, mask, overlay and coordinates in four formats each.
/// `trained_diameter` is that of the particles in the training data, in pixels.
pub(crate) fn predict_files(
    images: &Images,
    request: &Request,
    trained_diameter: Option<f64>,
    predict: impl Fn(&Image) -> Result<Image>,
    say: &mut dyn FnMut(&str),
) -> Result<()> {
    let threshold = request.threshold.unwrap_or(images.windows.threshold);
    if !(0.0..=1.0).contains(&threshold) {
        return Err(TrainError::Usage(format!("--threshold {threshold}: accepted is 0 to 1")));
    }
    let diameter = request.diameter.or(trained_diameter);
    let Some(diameter) = diameter.filter(|d| d.is_finite() && *d > 0.0) else {
        let problem = "the diameter of the particles is not known: give --diameter PIXELS";
        return Err(TrainError::Usage(problem.to_owned()));
    };
    let inputs = list(&request.inputs)?;
    let out = &request.out;
    fs::create_dir_all(out).map_err(|e| DataError::io(out, "cannot create", e))?;
    for (stem, path) in &inputs {
        let image = formats::read_image(path)?;
        let mut scaled = image.clone();
        normalise(&mut scaled, images.data.normalise());
        let map = predict(&scaled)?;
        let picks = pick(&map, threshold as f32, diameter, request.min_score.unwrap_or(0.5));
        let at = |ending: &str| out.join(format!("{stem}{ending}"));

        tiff::write_f32(&at("_probability.tif"), &map)?;
        let mask: Vec<u8> =
            map.pixels.iter().map(|p| if f64::from(*p) > threshold { 255 } else { 0 }).collect();
        png::write_grey8(&at("_mask.png"), map.width, map.height, &mask)?;
        let picture = overlay(&image, Some(&map), None, &picks, threshold as f32).to_png();
        write_atomic(&at("_overlay.png"), |w| w.write_all(&picture))?;
        let name = path.file_name().map_or_else(|| stem.clone(), |n| n.to_string_lossy().into_owned());
        let count = picks.len();
        let list = MicrographParticles { micrograph: name, particles: picks };
        star::write_coordinates(&at(".star"), std::slice::from_ref(&list))?;
        eman_box::write(&at(".box"), &list, diameter.round().max(1.0) as usize)?;
        topaz::write(&at(".txt"), std::slice::from_ref(&list))?;
        cryoppp::write(&at(".csv"), &list)?;
        let covered = mask.iter().filter(|v| **v > 0).count() as f64 / mask.len().max(1) as f64;
        say(&format!("{}: {count} particles, {:.1} % of the area", path.display(), 100.0 * covered));
    }
    Ok(())
}

/// Images by the stem of their results' names, folders opened.
fn list(inputs: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for input in inputs {
        if input.is_dir() {
            let before = found.len();
            let entries = fs::read_dir(input).map_err(|e| DataError::io(input, "cannot list", e))?;
            for entry in entries {
                let path = entry.map_err(|e| DataError::io(input, "cannot list", e))?.path();
                if path.is_file() && stem_of(&path).is_some() {
                    add(&mut found, path)?;
                }
            }
            if found.len() == before {
                return Err(TrainError::Usage(format!(
                    "{}: no images in it (looked for {})",
                    input.display(),
                    formats::IMAGE_EXTENSIONS.join(", ")
                )));
            }
        } else if input.is_file() {
            add(&mut found, input.clone())?;
        } else {
            return Err(TrainError::Usage(format!("{}: no such file or folder", input.display())));
        }
    }
    Ok(found)
}

/// The name without its image extension; none where it has no such extension.
fn stem_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let lower = name.to_lowercase();
    let extension = formats::IMAGE_EXTENSIONS
        .iter()
        .filter(|e| lower.ends_with(&format!(".{e}")))
        .max_by_key(|e| e.len())?;
    let stem = &name[..name.len() - extension.len() - 1];
    (!stem.is_empty()).then(|| stem.to_owned())
}

fn add(found: &mut BTreeMap<String, PathBuf>, path: PathBuf) -> Result<()> {
    let fallback =
        || path.file_name().map_or_else(|| "image".to_owned(), |n| n.to_string_lossy().into_owned());
    let stem = stem_of(&path).unwrap_or_else(fallback);
    if let Some(other) = found.insert(stem.clone(), path.clone())
        && other != path
    {
        let (a, b) = (other.display(), path.display());
        return Err(TrainError::Usage(format!("{a} and {b}: results of both would be named {stem}")));
    }
    Ok(())
}
