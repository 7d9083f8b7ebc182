//! Settings of recipes that work on volumes: where they come from, how they are split, normalised and changed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use rayon::prelude::*;
use trimtab_data::augment3d::{Augment3d, Chance};
use trimtab_data::formats::{open_volumes, volume_stem};
use trimtab_data::rng::{Stream, rng};
use trimtab_data::volume::{IGNORE, Shape, VolumePatch, voxels};
use trimtab_data::volumes::cases::volumes_in;
use trimtab_data::volumes::folds::{self, Split};
use trimtab_data::volumes::patches::{Sampling, sample_as};
use trimtab_data::volumes::{
    Normalise3d, Prepared, SegmentationSpec, VolumeDataset, VolumeOptions, VolumeSource, audit,
};
use trimtab_data::{DataError, Volume};

use crate::config::ANY;
use crate::error::{Result, TrainError};
use crate::recipes::{Inspection, Problem, Severity};
use crate::settings::Reader;

/// Which cases are for validation.
#[derive(Debug, Clone)]
pub(crate) enum Validation {
    /// One of `folds` parts with alike classes, no patient on both sides.
    Folds { folds: u64, fold: u64 },
    /// A file of folds, as nnU-Net's `splits_final.json`.
    File { path: PathBuf, fold: u64 },
    /// Every n-th by the number in the name.
    Every(u64),
    /// The last by name.
    Last(usize),
    /// The last slices of every volume.
    Slices(usize),
}

impl Validation {
    /// Asks for the keys; `default` is the value of `data.validation`.
    pub(crate) fn read(r: &mut Reader, default: &str, slices: bool) -> Self {
        #[derive(Clone, Copy, PartialEq)]
        enum Kind {
            Folds,
            File,
            Every,
            Last,
            Slices,
        }
        let mut choices =
            vec![("folds", Kind::Folds), ("file", Kind::File), ("every", Kind::Every), ("last", Kind::Last)];
        if slices {
            choices.push(("slices", Kind::Slices));
        }
        let kind = r.choice(
            "data.validation",
            default,
            &choices,
            "Which cases are for validation: one of k folds (classes alike, patients never on both sides), a fold of a file like nnU-Net's splits_final.json, every n-th by the number in the name, the last by name, or (segmentation) the last slices of each volume.",
        );
        let idle = |r: &mut Reader, keys: &[(&str, Kind)]| {
            for (key, of) in keys.iter().filter(|(_, of)| *of != kind) {
                let name = choices.iter().find(|(_, k)| k == of).map_or("", |(name, _)| name);
                r.inactive(key, format!("only data.validation = \"{name}\" reads it"));
            }
        };
        idle(
            r,
            &[
                ("data.folds", Kind::Folds),
                ("data.folds_file", Kind::File),
                ("data.validation_every", Kind::Every),
                ("data.validation_last", Kind::Last),
                ("data.validation_slices", Kind::Slices),
            ],
        );
        if !matches!(kind, Kind::Folds | Kind::File) {
            r.inactive("data.fold", "only data.validation = \"folds\" and \"file\" read it");
        }
        let fold =
            |r: &mut Reader| r.count("data.fold", 0, 0..=999, "The fold that is for validation, from 0.");
        match kind {
            Kind::Folds => {
                let folds = r.count("data.folds", 5, 2..=1000, "Number of folds.");
                let fold = fold(r);
                if fold >= folds {
                    r.reject(
                        "data.fold",
                        format!("found {fold}; accepted is 0 to {} (data.folds = {folds})", folds - 1),
                    );
                }
                Self::Folds { folds, fold }
            }
            Kind::File => {
                let path = r.text(
                    "data.folds_file",
                    "",
                    "A JSON list of folds, each with the names of its `train` and `val` cases.",
                );
                if path.is_empty() {
                    r.reject("data.folds_file", "is needed with data.validation = \"file\"");
                }
                let fold = fold(r);
                Self::File { path: path.into(), fold }
            }
            Kind::Every => Self::Every(r.count(
                "data.validation_every",
                5,
                2..=ANY,
                "Cases whose number is a multiple of this are for validation.",
            )),
            Kind::Last => Self::Last(r.count(
                "data.validation_last",
                3,
                1..=ANY,
                "How many cases, the last by name, are for validation.",
            ) as usize),
            Kind::Slices => Self::Slices(r.count(
                "data.validation_slices",
                2,
                1..=ANY,
                "How many slices at the end of each volume are for validation.",
            ) as usize),
        }
    }

    /// Number of folds of a cross-validation.
    pub(crate) fn folds(&self) -> Result<Option<u64>> {
        Ok(match self {
            Self::Folds { folds, .. } => Some(*folds),
            Self::File { path, .. } => Some(folds::count(path)? as u64),
            _ => None,
        })
    }

    /// Splits a data set.
    pub(crate) fn split(&self, all: &VolumeDataset, seed: u64) -> Result<(VolumeDataset, VolumeDataset)> {
        let fold = |splits: Vec<Split>, fold: u64, place: &PathBuf| {
            let n = splits.len();
            splits.into_iter().nth(fold as usize).ok_or_else(|| {
                TrainError::Usage(format!("{}: has {n} folds; data.fold = {fold} is beyond", place.display()))
            })
        };
        let cases = all.cases();
        let split = match self {
            Self::Folds { folds, fold: k } => {
                fold(folds::stratified(cases, *folds as usize, seed)?, *k, &PathBuf::from("data"))?
            }
            Self::File { path, fold: k } => fold(folds::from_file(path, cases)?, *k, path)?,
            Self::Every(n) => folds::every(cases, *n)?,
            Self::Last(n) => folds::last_cases(cases, *n)?,
            Self::Slices(n) => return Ok(all.split_last_slices(*n)?),
        };
        Ok((all.subset(&split.train), all.subset(&split.validation)))
    }
}

/// Intensities, asked for with a default.
pub(crate) fn read_normalise(r: &mut Reader, default: &str, medicalnet: bool) -> Normalise3d {
    let mut choices = vec![
        ("zscore", Normalise3d::ZScore),
        ("percentile", Normalise3d::Percentile { lo: 0.5, hi: 99.5 }),
        ("none", Normalise3d::None),
    ];
    if medicalnet {
        choices.push(("medicalnet", Normalise3d::MedicalNet));
    }
    r.choice(
        "data.normalise",
        default,
        &choices,
        "Scale of intensities, per volume and channel: zero mean and unit deviation; clipped at percentiles .5 and 99.5 and scaled to 0 to 1; as in the file; or (classification) MedicalNet's: cropped to what is not 0, z-score of what is above 0, normal noise where it is 0.",
    )
}

/// Augmentation: a preset, each transformation's probability open to change; and the axes (depth, height, width) that may be
/// mirrored.
pub(crate) fn read_augment(r: &mut Reader, default: &str, patch: Shape) -> (Augment3d, [bool; 3]) {
    let mut augment = r.choice(
        "augment.preset",
        default,
        &[("none", Augment3d::none()), ("flips", Augment3d::light()), ("nnunet", Augment3d::nnunet(patch))],
        "none; mirroring only; or nnU-Net's default transformations. The keys below change probabilities of a preset; ranges are nnU-Net's.",
    );
    let typical = Augment3d::nnunet(patch);
    // Where patches are thin, what is added to a preset must know it too.
    augment.thin = typical.thin;
    let mut chance = |key: &'static str, doc: &'static str, now: &mut Chance, typical: Chance| {
        if let Some(p) = r.optional_number(key, 0.0..=1.0, doc) {
            *now = Chance { probability: p, ..if now.probability > 0.0 { *now } else { typical } };
        }
    };
    chance(
        "augment.rotation",
        "Probability of a rotation; not given: the preset's.",
        &mut augment.rotation,
        typical.rotation,
    );
    chance(
        "augment.scaling",
        "Probability of a change of scale by 0.7 to 1.4; not given: the preset's.",
        &mut augment.scaling,
        typical.scaling,
    );
    chance(
        "augment.elastic",
        "Probability of an elastic deformation by up to 2 to 6 voxels; not given: 0.",
        &mut augment.elastic,
        Chance::new(0.0, 2.0, 6.0),
    );
    chance(
        "augment.noise",
        "Probability of Gaussian noise; not given: the preset's.",
        &mut augment.noise,
        typical.noise,
    );
    chance(
        "augment.blur",
        "Probability of a Gaussian blur; not given: the preset's.",
        &mut augment.blur,
        typical.blur,
    );
    chance(
        "augment.brightness",
        "Probability of a change of brightness; not given: the preset's.",
        &mut augment.brightness,
        typical.brightness,
    );
    chance(
        "augment.contrast",
        "Probability of a change of contrast; not given: the preset's.",
        &mut augment.contrast,
        typical.contrast,
    );
    chance(
        "augment.low_resolution",
        "Probability of a simulated low resolution; not given: the preset's.",
        &mut augment.low_resolution,
        typical.low_resolution,
    );
    let before = augment.gamma.probability;
    chance(
        "augment.gamma",
        "Probability of a change of gamma, and a third of it of one of the inverted image; not given: the preset's.",
        &mut augment.gamma,
        typical.gamma,
    );
    if augment.gamma.probability != before {
        let inverted = if augment.inverted_gamma.probability > 0.0 {
            augment.inverted_gamma
        } else {
            typical.inverted_gamma
        };
        augment.inverted_gamma = Chance { probability: augment.gamma.probability / 3.0, ..inverted };
    }
    if let Some(p) = r.optional_number(
        "augment.mirror",
        0.0..=1.0,
        "Probability of mirroring along each axis; not given: the preset's.",
    ) {
        augment.mirror = [p; 3];
    }
    let axes = r.text(
        "augment.mirror_axes",
        "dhw",
        "Axes that may be mirrored, in training and in prediction: letters of d (depth), h (height), w (width, for NIfTI left and right).",
    );
    if let Some(other) = axes.chars().find(|c| !"dhw".contains(*c)) {
        r.reject(
            "augment.mirror_axes",
            format!("found \"{axes}\", with `{other}`; accepted are letters of \"dhw\""),
        );
    }
    let may = ['d', 'h', 'w'].map(|axis| axes.contains(axis));
    for (probability, may) in augment.mirror.iter_mut().zip(may) {
        *probability *= f64::from(u8::from(may));
    }
    (augment, may)
}

/// A depth, height and width of voxels under three keys `prefix_depth`, …; `doc`s in that order.
pub(crate) fn read_shape(
    r: &mut Reader,
    prefix: &str,
    default: Shape,
    least: u64,
    docs: [&'static str; 3],
) -> Shape {
    let mut shape = default;
    for ((axis, size), doc) in ["depth", "height", "width"].iter().zip(&mut shape).zip(docs) {
        *size = r.count(&format!("{prefix}_{axis}"), *size as u64, least..=4096, doc) as usize;
    }
    shape
}

/// Where prepared volumes are kept: bytes of memory, and a folder.
pub(crate) fn read_cache(r: &mut Reader, files: bool) -> (usize, Option<PathBuf>) {
    if !files {
        for key in ["data.cache_mib", "data.cache_dir"] {
            r.inactive(key, "generated volumes are kept in memory");
        }
        return (0, None);
    }
    let memory =
        r.count("data.cache_mib", 2048, 0..=1 << 20, "Bound on prepared volumes kept in memory, in MiB.");
    let folder = r.text(
        "data.cache_dir",
        "",
        "Folder in which prepared volumes are kept between runs; empty: none. What is there and fits is used, the rest is made anew.",
    );
    ((memory as usize) << 20, (!folder.is_empty()).then(|| folder.into()))
}

/// Examines files and their split, also such as could not be trained on.
pub(crate) fn inspect(
    source: VolumeSource,
    validation: &Validation,
    options: &VolumeOptions,
    seed: u64,
) -> Result<Inspection> {
    let all = VolumeDataset::open_unchecked(source, options.clone())?;
    let labelled = all.labelled();
    let Ok((train, validation)) = validation.split(&labelled, seed) else {
        // What can't be split can still be looked at; training will say why it can't be.
        return audited(&[("all", &all)]);
    };
    let mut splits = vec![("train", &train), ("validation", &validation)];
    let left_out: Vec<usize> = (0..all.len())
        .filter(|i| all.cases()[*i].labels.is_none() && all.cases()[*i].class.is_none())
        .collect();
    let left_out = all.subset(&left_out);
    if !left_out.is_empty() {
        splits.push(("left out", &left_out));
    }
    audited(&splits)
}

/// Examines generated volumes: what there is of them. Nothing can be wrong with their files.
pub(crate) fn inspect_generated(splits: &[(&str, &VolumeDataset)]) -> Result<Inspection> {
    let header = ["split", "volumes", "shape of the first", "classes"].map(str::to_owned).to_vec();
    let (mut rows, mut json) = (Vec::new(), serde_json::Map::new());
    for (name, dataset) in splits {
        let mut counts = BTreeMap::<String, u64>::new();
        for i in 0..dataset.len() {
            let volume = dataset.load(i)?;
            for label in volume.labels.iter().flatten() {
                let label = if *label == IGNORE { "ignored".to_owned() } else { label.to_string() };
                *counts.entry(label).or_default() += 1;
            }
            if let Some(class) = volume.class {
                *counts.entry(class.to_string()).or_default() += 1;
            }
        }
        let all = counts.values().sum::<u64>().max(1) as f64;
        let shares: Vec<String> =
            counts.iter().map(|(label, n)| format!("{label}: {:.1} %", 100.0 * *n as f64 / all)).collect();
        let shape = dataset.info(0)?.shape;
        rows.push(vec![
            (*name).to_owned(),
            dataset.len().to_string(),
            format!("{shape:?}"),
            shares.join(", "),
        ]);
        json.insert((*name).to_owned(), serde_json::json!({"volumes": dataset.len(), "counts": counts}));
    }
    Ok(Inspection { tables: vec![(header, rows)], problems: Vec::new(), json: json.into() })
}

fn audited(splits: &[(&str, &VolumeDataset)]) -> Result<Inspection> {
    let report = audit::audit(splits);
    let problems = report.findings.iter().map(|p| Problem {
        severity: match p.severity {
            audit::Severity::Error => Severity::Error,
            audit::Severity::Warning => Severity::Warning,
            audit::Severity::Note => Severity::Note,
        },
        code: Problem::code_of(p.code),
        message: p.message.clone(),
        files: p.files.clone(),
    });
    Ok(Inspection {
        tables: vec![report.table()],
        problems: problems.collect(),
        json: serde_json::to_value(&report).map_err(|e| TrainError::Internal(e.to_string()))?,
    })
}

/// Patches as tensors. Axes: b = batch, c = channel, d, h, w.
#[derive(Debug, Clone, Default)]
pub(crate) struct PatchBatch {
    pub(crate) count: usize,
    pub(crate) channels: usize,
    pub(crate) shape: Shape,
    /// `[b, c, d, h, w]`.
    pub(crate) images: Vec<f32>,
    /// `[b, d, h, w]`, class or [`IGNORE`].
    pub(crate) labels: Vec<u8>,
    /// `[b, f, d, h, w]` signed distances to the f foreground classes, in voxels; empty where no loss asks for them.
    pub(crate) distances: Vec<f32>,
}

impl PatchBatch {
    pub(crate) fn push(&mut self, patch: VolumePatch) {
        self.count += 1;
        self.channels = patch.channels;
        self.shape = patch.shape;
        self.images.extend(patch.image);
        self.labels.extend(patch.labels);
    }

    pub(crate) fn images_bcdhw(&self, device: &Device) -> Tensor<5> {
        let [d, h, w] = self.shape;
        Tensor::from_data(TensorData::new(self.images.clone(), [self.count, self.channels, d, h, w]), device)
    }

    /// Classes (0 where ignored) and validity.
    pub(crate) fn targets_bdhw(&self, device: &Device) -> (Tensor<4, Int>, Tensor<4>) {
        let [d, h, w] = self.shape;
        let shape = [self.count, d, h, w];
        let classes: Vec<i32> =
            self.labels.iter().map(|l| if *l == IGNORE { 0 } else { i32::from(*l) }).collect();
        let valid: Vec<f32> = self.labels.iter().map(|l| f32::from(*l != IGNORE)).collect();
        (
            Tensor::from_data(TensorData::new(classes, shape), device),
            Tensor::from_data(TensorData::new(valid, shape), device),
        )
    }

    pub(crate) fn distances_bfdhw(&self, device: &Device) -> Tensor<5> {
        let [d, h, w] = self.shape;
        let classes = self.distances.len() / (self.count * voxels(self.shape)).max(1);
        Tensor::from_data(TensorData::new(self.distances.clone(), [self.count, classes, d, h, w]), device)
    }

    pub(crate) fn non_finite(&self) -> usize {
        self.images.iter().filter(|v| !v.is_finite()).count()
    }

    /// Share of ignored voxels, and of foreground among the others.
    pub(crate) fn label_shares(&self) -> (f64, f64) {
        let ignored = self.labels.iter().filter(|l| **l == IGNORE).count();
        let positive = self.labels.iter().filter(|l| (1..IGNORE).contains(*l)).count();
        let valid = (self.labels.len() - ignored).max(1);
        (ignored as f64 / self.labels.len().max(1) as f64, positive as f64 / valid as f64)
    }
}

/// Patches drawn from a data set: pure functions of the step.
#[derive(Debug, Clone)]
pub(crate) struct PatchSampler {
    pub(crate) dataset: Arc<VolumeDataset>,
    pub(crate) batch: usize,
    pub(crate) patch: Shape,
    pub(crate) foreground: f64,
    pub(crate) augment: Augment3d,
    pub(crate) channels: usize,
    pub(crate) seed: u64,
}

impl PatchSampler {
    /// The patches of batch `step`.
    pub(crate) fn batch(&self, step: u64) -> Result<PatchBatch, DataError> {
        // What is done to each patch is drawn first: one that is turned or scaled must be cut larger, to have something to show.
        let draws: Vec<_> = (0..self.batch as u64)
            .map(|slot| {
                let mut rng = rng(self.seed, Stream::Augment, step * self.batch as u64 + slot);
                self.augment.draw(self.channels, self.patch, &mut rng)
            })
            .collect();
        let how = Sampling {
            patch: self.patch,
            foreground_share: self.foreground,
            pad_label: self.augment.pad_label,
        };
        let source = |slot: usize| draws[slot].source_shape(self.patch);
        let patches = sample_as(&self.dataset, self.seed, step, self.batch, &how, source)?;
        let mut batch = PatchBatch::default();
        for (patch, draw) in patches.into_iter().zip(&draws) {
            batch.push(draw.apply(patch, self.patch));
        }
        Ok(batch)
    }
}

/// Every volume can be read and has the channels the settings say.
pub(crate) fn check_channels(dataset: &VolumeDataset, channels: usize) -> Result<()> {
    for i in 0..dataset.len() {
        let found = dataset.info(i)?.channels;
        if found != channels {
            let case = &dataset.cases()[i];
            let place = case.images.first().cloned().unwrap_or_else(|| (&case.id).into());
            let problem = format!("has {found} channels; data.channels = {channels} is set");
            return Err(DataError::content(place, problem).into());
        }
    }
    (0..dataset.len()).into_par_iter().try_for_each(|i| dataset.load(i).map(drop))?;
    Ok(())
}

/// The cases that have labels or a class: an error where there is none, and a note about those left out.
pub(crate) fn labelled(all: &VolumeDataset) -> Result<(VolumeDataset, Option<String>)> {
    let labelled = all.labelled();
    let left_out = all.len() - labelled.len();
    if labelled.is_empty() {
        let list = all.list();
        let orphans = list.orphan_labels.first().map_or(String::new(), |path| {
            format!("; labels that belong to no image, e.g. {}", path.display())
        });
        let problem = format!("none of the {} images has labels{orphans}", all.len());
        return Err(DataError::content(all.source().place(), problem).into());
    }
    let note = (left_out > 0).then(|| {
        let unlabelled = all.cases().iter().find(|c| c.labels.is_none() && c.class.is_none());
        let first = unlabelled.map_or("", |c| c.id.as_str());
        format!("{left_out} of {} images have no labels and are left out, e.g. {first}", all.len())
    });
    Ok((labelled, note))
}

/// Volumes to predict, each by the name of its results and its files (one for each channel, or one of all channels), folders
/// opened, in natural order.
pub(crate) fn list(inputs: &[PathBuf], channels: usize) -> Result<Vec<(String, Vec<PathBuf>)>> {
    let mut found: Vec<(String, Vec<PathBuf>)> = Vec::new();
    for input in inputs {
        if !input.exists() {
            return Err(TrainError::Usage(format!("{}: no such file or folder", input.display())));
        }
        let single: Vec<_> = volumes_in(input)?.into_iter().map(|p| (volume_stem(&p), vec![p])).collect();
        // nnU-Net's case_0000, case_0001 … are the channels of one case.
        let numbered = |stem: &String| {
            stem.rsplit_once('_').is_some_and(|(_, n)| n.len() == 4 && n.bytes().all(|b| b.is_ascii_digit()))
        };
        if channels > 1 && single.iter().all(|(stem, _)| numbered(stem)) {
            let spec = SegmentationSpec {
                images: input.clone(),
                channel_files: Some(true),
                ..SegmentationSpec::default()
            };
            let cases = VolumeSource::Segmentation(spec).list()?.cases;
            found.extend(cases.into_iter().map(|case| (case.id, case.images)));
        } else {
            found.extend(single);
        }
    }
    let mut stems = BTreeMap::new();
    for (stem, paths) in &found {
        if let Some(other) = stems.insert(stem, &paths[0]).filter(|other| **other != paths[0]) {
            let (a, b) = (other.display(), paths[0].display());
            return Err(TrainError::Usage(format!("{a} and {b}: results of both would be named {stem}")));
        }
    }
    Ok(found)
}

/// Files read as one volume and prepared as a data set's are.
pub(crate) fn prepare(
    paths: &[PathBuf],
    id: &str,
    dataset: Option<&str>,
    options: &VolumeOptions,
    channels: usize,
) -> Result<Prepared> {
    let mut reader = open_volumes(paths, dataset)?;
    let info = reader.info().clone();
    if info.channels != channels {
        let problem = format!("has {} channels, the network takes {channels}", info.channels);
        return Err(DataError::content(&paths[0], problem).into());
    }
    let values = reader.slices(0..info.shape[0])?;
    let volume = Volume { channels, shape: info.shape, values, geometry: info.geometry };
    Ok(VolumeDataset::prepare(volume, id, options)
        .map_err(|problem| DataError::content(&paths[0], problem))?)
}
