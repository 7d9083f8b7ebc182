//! Examination of data sets of volumes before training: what is there, and what is wrong with it.
//!
//! [`audit`] reads every file once, images a few slices at a time, and goes on after a bad one, so that one run tells
//! everything. The report serialises to JSON; its fields and codes are public.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use crate::dataset::first_few;
use crate::formats::open_volume;
use crate::volume::{Geometry, IGNORE, Shape, VolumeLabels, voxels};
use crate::volumes::cases::{Case, Counts, count_values, percent};
use crate::volumes::dataset::VolumeDataset;
use crate::volumes::preprocess::slab_depth;
use crate::{DataError, Result};

/// What [`audit`] found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VolumeAudit {
    /// Number of findings of severity error; with any, training would fail or mislead.
    pub errors: usize,
    /// Number of findings of severity warning.
    pub warnings: usize,
    /// Number of findings of severity note.
    pub notes: usize,
    /// One for each split, in the order given.
    pub splits: Vec<SplitSummary>,
    /// Errors first, then warnings, then notes; each in the order of splits and cases.
    pub findings: Vec<Finding>,
}

/// What one split holds. Cases that cannot be read count in `cases` and nowhere else.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitSummary {
    /// Name of the split, as given.
    pub name: String,
    /// Number of cases.
    pub cases: usize,
    /// Number of cases with a readable label map of the image's shape.
    pub labelled: usize,
    /// Number of patients.
    pub patients: usize,
    /// Number of voxels of all images.
    pub voxels: u64,
    /// Depth, height and width: smallest, median and largest, each axis by itself; none if no image was read.
    pub shape: Option<Spread<Shape>>,
    /// Distance of voxels along depth, height and width in millimetres: smallest, median and largest.
    pub spacing: Option<Spread<[f64; 3]>>,
    /// Number of channels of the images, and of how many.
    pub channels: Vec<(usize, usize)>,
    /// Finite intensities as in the files; none if no voxel is finite.
    pub intensity: Option<IntensitySummary>,
    /// Number of voxels that are NaN or infinite.
    pub non_finite: u64,
    /// Label maps; none in a split without any.
    pub labels: Option<LabelSummary>,
    /// Number of cases of each class of whole volumes, by name; empty without.
    pub classes: Vec<(String, usize)>,
}

/// Smallest, median and largest; of an even number the upper median.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread<T> {
    /// Smallest.
    pub min: T,
    /// Median.
    pub median: T,
    /// Largest.
    pub max: T,
}

/// Intensities of all images of a split, in the units of the files.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct IntensitySummary {
    /// Smallest.
    pub min: f32,
    /// Largest.
    pub max: f32,
    /// Mean over all voxels.
    pub mean: f64,
    /// Smallest of the standard deviations of the images.
    pub least_std: f64,
    /// Largest of the standard deviations of the images.
    pub largest_std: f64,
}

/// Label maps of a split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelSummary {
    /// Values as stored with their numbers of voxels, the most frequent first, at most 16 of them.
    pub stored: Vec<(i32, u64)>,
    /// Number of different stored values.
    pub distinct: usize,
    /// Voxels of each class; only of maps that could be decoded.
    pub classes: Vec<u64>,
    /// Voxels that are ignored.
    pub ignored: u64,
    /// ignored / all labelled voxels, 0..=1.
    pub ignored_share: f64,
    /// Cases without a voxel of a class other than 0.
    pub empty: usize,
}

/// Something about the data that is worth telling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Which kind.
    pub code: Code,
    /// The files concerned.
    pub files: Vec<String>,
    /// What was found, in a sentence.
    pub message: String,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Training would fail or its numbers would mislead.
    Error,
    /// Worth a look.
    Warning,
    /// Good to know.
    Note,
}

/// Kind of a [`Finding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// A file that cannot be read or is corrupt.
    Unreadable,
    /// An image differs in shape from its labels or from its other channels.
    ShapeMismatch,
    /// Several files where one is expected.
    AmbiguousFiles,
    /// A label map with values that are neither a class nor ignored.
    LabelOutOfRange,
    /// One image in two splits.
    DuplicateAcrossSplits,
    /// One patient in two splits.
    PatientAcrossSplits,
    /// Images of two splits that have slices in common.
    SharedSlicesAcrossSplits,
    /// The same image with two classes.
    ConflictingClasses,
    /// Images with different numbers of channels.
    ChannelMismatch,
    /// A class no case or voxel of a split has.
    AbsentClass,
    /// An image without labels, or without a class.
    MissingLabels,
    /// A label map that belongs to no image.
    LabelsWithoutImage,
    /// One image twice in a split.
    DuplicateWithinSplit,
    /// Images of a split that have slices in common.
    SharedSlices,
    /// An image with a slice twice.
    RepeatedSlices,
    /// An image and its labels that lie in different places of the world.
    GeometryMismatch,
    /// Label values so rare that they look like an accident.
    StrayLabels,
    /// A label map in which one thing has different values in different slices.
    MixedCoding,
    /// A label map without a voxel of a class other than 0.
    EmptyLabels,
    /// A label map of which every voxel is ignored.
    AllIgnored,
    /// An image of a single value.
    ConstantImage,
    /// Voxels that are NaN or infinite.
    NonFiniteVoxels,
    /// Images whose intensities differ in scale by far.
    IntensityScales,
    /// Images whose spacings differ by more than a factor of two.
    SpacingDiffers,
    /// A large part of the labelled voxels is ignored.
    MostlyIgnored,
    /// Classes of which one has many times as many cases as another.
    ClassImbalance,
}

impl Code {
    /// How bad findings of this kind are.
    pub fn severity(self) -> Severity {
        match self {
            Self::Unreadable
            | Self::ShapeMismatch
            | Self::AmbiguousFiles
            | Self::LabelOutOfRange
            | Self::DuplicateAcrossSplits
            | Self::PatientAcrossSplits
            | Self::SharedSlicesAcrossSplits
            | Self::ConflictingClasses
            | Self::ChannelMismatch => Severity::Error,
            Self::AbsentClass
            | Self::MissingLabels
            | Self::LabelsWithoutImage
            | Self::DuplicateWithinSplit
            | Self::SharedSlices
            | Self::RepeatedSlices
            | Self::GeometryMismatch
            | Self::StrayLabels
            | Self::MixedCoding
            | Self::EmptyLabels
            | Self::AllIgnored
            | Self::ConstantImage
            | Self::NonFiniteVoxels
            | Self::IntensityScales => Severity::Warning,
            Self::SpacingDiffers | Self::MostlyIgnored | Self::ClassImbalance => Severity::Note,
        }
    }
}

/// Standard deviations of images whose quotient exceeds this were hardly measured in one unit.
const SCALE_FACTOR: f64 = 100.0;
/// Values that fewer of the voxels have than this, of ten thousand, are stray.
const STRAY: u64 = 1;
/// Shares of ignored voxels above this are told.
const MUCH_IGNORED: f64 = 0.3;
/// Quotients of the cases of two classes above this are told.
const IMBALANCE: usize = 3;

/// Examines data sets that are meant to be used together, each under the name of its split.
///
/// Open them with [`VolumeDataset::open_unchecked`], or files that do not fit are an error before this is reached.
/// Reads all files, on all cores and past the caches; the result does not depend on the number of threads. Of images it
/// holds a few slices at a time, of label maps the whole.
///
/// Duplicates are found by the voxels as read, also under another name or in another format of the same values, whole
/// volumes and single slices; rescaled, shifted or rotated copies are not found.
pub fn audit(splits: &[(&str, &VolumeDataset)]) -> VolumeAudit {
    let mut findings = Vec::new();
    let mut summaries = Vec::new();
    let mut examined = Vec::new();
    for &(name, dataset) in splits {
        list_findings(name, dataset, &mut findings);
        let cases: Vec<Examined> = dataset.cases().par_iter().map(|case| examine(dataset, case)).collect();
        summaries.push(summarise(name, dataset, &cases, &mut findings));
        examined.push(cases);
    }
    let names: Vec<&str> = splits.iter().map(|(name, _)| *name).collect();
    copies(&names, &examined, &mut findings);
    patients(&names, splits, &mut findings);

    // Parts of one source share its list, and with it what the list tells.
    let mut told = HashSet::new();
    findings.retain(|f| told.insert((f.code, f.files.clone(), f.message.clone())));
    findings.sort_by_key(|f| f.severity);
    let number = |severity| findings.iter().filter(|f| f.severity == severity).count();
    VolumeAudit {
        errors: number(Severity::Error),
        warnings: number(Severity::Warning),
        notes: number(Severity::Note),
        splits: summaries,
        findings,
    }
}

fn finding(code: Code, files: Vec<String>, message: impl Into<String>) -> Finding {
    Finding { severity: code.severity(), code, files, message: message.into() }
}

fn display(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn show(shape: Shape) -> String {
    let [d, h, w] = shape;
    format!("{d}x{h}x{w}")
}

fn list_findings(name: &str, dataset: &VolumeDataset, findings: &mut Vec<Finding>) {
    let list = dataset.list();
    for files in &list.ambiguous {
        let message = "these files have the same meaning; keep one";
        findings.push(finding(Code::AmbiguousFiles, files.iter().map(display).collect(), message));
    }
    let here: HashSet<&Path> =
        dataset.cases().iter().flat_map(|case| &case.images).map(|path| path.as_path()).collect();
    let missing: Vec<String> =
        list.unlabelled.iter().filter(|path| here.contains(path.as_path())).map(display).collect();
    if !missing.is_empty() {
        let what = if list.class_names.is_empty() { "labels" } else { "class" };
        let images = counted(missing.len(), "image", "images");
        let message = format!("{images} of {} in {name} without {what}: left out of training", dataset.len());
        findings.push(finding(Code::MissingLabels, missing, message));
    }
    if !list.orphan_labels.is_empty() {
        let maps = counted(list.orphan_labels.len(), "label map", "label maps");
        let files = list.orphan_labels.iter().map(display).collect();
        findings.push(finding(
            Code::LabelsWithoutImage,
            files,
            format!("{maps} for which there is no image"),
        ));
    }
}

/// What is kept of one case.
struct Examined {
    file: String,
    class: Option<usize>,
    picture: Option<Picture>,
    labels: Option<Tally>,
    findings: Vec<Finding>,
}

struct Picture {
    shape: Shape,
    channels: usize,
    geometry: Geometry,
    hash: [u8; 32],
    /// Of each slice, all channels; none for a slice of a single value.
    slices: Vec<Option<[u8; 16]>>,
    min: f32,
    max: f32,
    moments: Moments,
    non_finite: u64,
}

struct Tally {
    stored: Counts,
    /// Voxels of each class; empty if the map cannot be decoded.
    classes: Vec<u64>,
    ignored: u64,
}

/// Count, mean and sum of squared deviations of some voxels.
#[derive(Default, Clone, Copy)]
struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn of(values: &[f32]) -> Self {
        let (mut count, mut sum) = (0u64, 0.0);
        for &value in values.iter().filter(|v| v.is_finite()) {
            count += 1;
            sum += f64::from(value);
        }
        let mean = if count == 0 { 0.0 } else { sum / count as f64 };
        let finite = values.iter().filter(|v| v.is_finite());
        Self { count, mean, squares: finite.map(|&v| (f64::from(v) - mean).powi(2)).sum() }
    }

    /// Of the voxels of both, by Chan, Golub and LeVeque 1979.
    fn merge(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0 {
            return self;
        }
        let share = other.count as f64 / count as f64;
        let difference = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + difference * share,
            squares: self.squares + other.squares + difference * difference * share * self.count as f64,
        }
    }

    fn std(self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.squares / self.count as f64).sqrt() }
    }
}

fn examine(dataset: &VolumeDataset, case: &Case) -> Examined {
    let mut findings = Vec::new();
    let file = case.images.first().map(display).unwrap_or_default();
    let code_of = |error: &DataError| match error {
        DataError::Content { .. } => Code::ShapeMismatch,
        _ => Code::Unreadable,
    };
    let picture = match look(dataset, case) {
        Ok(picture) => Some(picture),
        Err(error) => {
            findings.push(finding(code_of(&error), vec![file.clone()], error.to_string()));
            None
        }
    };
    if let Some(picture) = &picture {
        tell_picture(picture, &file, &mut findings);
    }
    let mut labels = None;
    if let Some(path) = &case.labels {
        match dataset.read_labels(case, path) {
            Ok(map) => {
                let fits = picture
                    .as_ref()
                    .is_none_or(|picture| tell_grid(picture, &map, &file, &display(path), &mut findings));
                let tally = tally(dataset, &map, &display(path), &mut findings);
                // Labels of an image that cannot be read are checked but train nothing.
                labels = (fits && picture.is_some()).then_some(tally);
            }
            Err(error) => findings.push(finding(Code::Unreadable, vec![display(path)], error.to_string())),
        }
    }
    Examined { file, class: case.class, picture, labels, findings }
}

fn look(dataset: &VolumeDataset, case: &Case) -> Result<Picture> {
    let name = dataset.source().image_dataset();
    let mut readers = Vec::new();
    for path in &case.images {
        readers.push(open_volume(path, name)?);
    }
    let Some(first) = readers.first() else {
        return Err(DataError::content(dataset.source().place(), format!("case {} has no image", case.id)));
    };
    let info = first.info().clone();
    for (path, reader) in case.images.iter().zip(&readers) {
        let found = reader.info().shape;
        if found != info.shape {
            return Err(DataError::content(
                path,
                format!("has {} voxels, {} has {}", show(found), display(&case.images[0]), show(info.shape)),
            ));
        }
    }
    let range = case.slices.clone().unwrap_or(0..info.shape[0]);
    if range.end > info.shape[0] || range.is_empty() || info.shape[1] * info.shape[2] == 0 {
        return Err(DataError::content(
            &case.images[0],
            format!("has no voxels: {}, slices {range:?}", show(info.shape)),
        ));
    }
    let mut geometry = info.geometry.clone();
    for row in &mut geometry.affine {
        row[3] += row[2] * range.start as f64;
    }
    let plane = info.shape[1] * info.shape[2];
    let channels: usize = readers.iter().map(|reader| reader.info().channels).sum();
    let mut picture = Picture {
        shape: [range.len(), info.shape[1], info.shape[2]],
        channels,
        geometry,
        hash: [0; 32],
        slices: Vec::with_capacity(range.len()),
        min: f32::INFINITY,
        max: f32::NEG_INFINITY,
        moments: Moments::default(),
        non_finite: 0,
    };
    let mut whole = blake3::Hasher::new();
    for length in [channels, range.len(), info.shape[1], info.shape[2]] {
        whole.update(&(length as u64).to_le_bytes());
    }
    let depth = slab_depth(channels, info.shape);
    let mut bytes = Vec::with_capacity(plane * 4);
    let mut start = range.start;
    while start < range.end {
        let end = (start + depth).min(range.end);
        let mut slabs = Vec::new();
        for reader in &mut readers {
            slabs.push(reader.slices(start..end)?);
        }
        for d in 0..end - start {
            let mut hasher = blake3::Hasher::new();
            let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
            for channel in slabs.iter().flat_map(|slab| slab.chunks_exact((end - start) * plane)) {
                let slice = &channel[d * plane..][..plane];
                bytes.clear();
                // Adding 0 makes -0 into 0.
                bytes.extend(slice.iter().flat_map(|v| (v + 0.0).to_le_bytes()));
                hasher.update(&bytes);
                let finite = slice.iter().filter(|v| v.is_finite());
                (low, high) = finite.fold((low, high), |(a, b), &v| (a.min(v), b.max(v)));
                let moments = Moments::of(slice);
                picture.non_finite += plane as u64 - moments.count;
                picture.moments = picture.moments.merge(moments);
            }
            (picture.min, picture.max) = (picture.min.min(low), picture.max.max(high));
            let hash = hasher.finalize();
            whole.update(hash.as_bytes());
            let mut short = [0; 16];
            short.copy_from_slice(&hash.as_bytes()[..16]);
            picture.slices.push((low < high).then_some(short));
        }
        start = end;
    }
    picture.hash = *whole.finalize().as_bytes();
    Ok(picture)
}

fn tell_picture(picture: &Picture, file: &str, findings: &mut Vec<Finding>) {
    let mut tell = |code, message: String| findings.push(finding(code, vec![file.to_owned()], message));
    if picture.non_finite > 0 {
        let all = picture.channels as u64 * voxels(picture.shape) as u64;
        tell(
            Code::NonFiniteVoxels,
            format!(
                "{} of {all} voxels are NaN or infinite; they become the image's mean",
                picture.non_finite
            ),
        );
    }
    if picture.min >= picture.max {
        tell(Code::ConstantImage, format!("all voxels are {}", picture.min));
    }
    let mut first: HashMap<[u8; 16], usize> = HashMap::new();
    let mut repeated = Vec::new();
    for (d, hash) in picture.slices.iter().enumerate() {
        if let Some(hash) = hash {
            match first.get(hash) {
                Some(other) => repeated.push(format!("{d} equals {other}")),
                None => {
                    first.insert(*hash, d);
                }
            }
        }
    }
    if !repeated.is_empty() {
        let slices = counted(repeated.len(), "slice", "slices");
        tell(
            Code::RepeatedSlices,
            format!("{slices} of {} repeated: {}", picture.shape[0], first_few(&repeated)),
        );
    }
}

/// Tells whether the labels are of the image's shape, and what is wrong about their place.
fn tell_grid(
    picture: &Picture,
    map: &VolumeLabels,
    file: &str,
    label_file: &str,
    findings: &mut Vec<Finding>,
) -> bool {
    let files = vec![file.to_owned(), label_file.to_owned()];
    if picture.shape != map.shape {
        let message = format!("the image has {} voxels, its labels {}", show(picture.shape), show(map.shape));
        findings.push(finding(Code::ShapeMismatch, files, message));
        return false;
    }
    // A file that says nothing of the place has spacing 1 and no shift; there is nothing to compare.
    let silent = Geometry::default();
    let says = |geometry: &Geometry| {
        geometry.affine.map(|row| [row[0], row[1], row[2]])
            != silent.affine.map(|row| [row[0], row[1], row[2]])
            || geometry.affine.iter().any(|row| row[3] != 0.0)
    };
    if says(&picture.geometry) && says(&map.geometry) {
        let size = picture.geometry.spacing.iter().copied().fold(f64::INFINITY, f64::min);
        // The largest shift between corresponding corners, in millimetres.
        let corners = (0..8).map(|corner| {
            let at: [f64; 3] = std::array::from_fn(|axis| {
                if corner >> axis & 1 == 1 { (picture.shape[2 - axis] - 1) as f64 } else { 0.0 }
            });
            let place = |row: &[f64; 4]| row[0] * at[0] + row[1] * at[1] + row[2] * at[2] + row[3];
            let pairs = picture.geometry.affine.iter().zip(&map.geometry.affine);
            pairs.map(|(a, b)| (place(a) - place(b)).powi(2)).sum::<f64>().sqrt()
        });
        let shift = corners.fold(0.0, f64::max);
        if shift > 0.5 * size {
            let message = format!(
                "the headers place image and labels up to {shift:.2} mm apart, {:.1} voxels; the voxels are \
                 paired by their index",
                shift / size
            );
            findings.push(finding(Code::GeometryMismatch, files, message));
        }
    }
    true
}

fn tally(dataset: &VolumeDataset, map: &VolumeLabels, file: &str, findings: &mut Vec<Finding>) -> Tally {
    let rule = &dataset.options().labels;
    let stored = count_values(&map.values);
    let mut tally = Tally { stored, classes: Vec::new(), ignored: 0 };
    match rule.apply(map) {
        Ok(classes) => {
            tally.classes = vec![0; rule.classes];
            for run in classes.chunk_by(|a, b| a == b) {
                match tally.classes.get_mut(usize::from(run[0])) {
                    Some(count) if run[0] != IGNORE => *count += run.len() as u64,
                    _ => tally.ignored += run.len() as u64,
                }
            }
        }
        Err(problem) => findings.push(finding(Code::LabelOutOfRange, vec![file.to_owned()], problem)),
    }
    // Ids of objects may be as small as they like.
    if !rule.boundary {
        let all = map.values.len() as u64;
        let stray: Vec<(i32, u64)> =
            tally.stored.iter().filter(|(_, n)| **n * 10_000 < STRAY * all).map(|(v, n)| (*v, *n)).collect();
        let common = tally.stored.len() - stray.len();
        if !stray.is_empty() && common <= 16 && stray.len() > common {
            let values: Vec<String> = stray.iter().map(|(value, _)| value.to_string()).collect();
            let voxels: u64 = stray.iter().map(|(_, n)| n).sum();
            let message = format!(
                "{} label values ({}) in {} of voxels ({voxels}): as smoothing or lossy compression leaves them",
                stray.len(),
                first_few(&values),
                percent(voxels, all)
            );
            findings.push(finding(Code::StrayLabels, vec![file.to_owned()], message));
        }
        mixed_coding(map, file, findings);
    }
    tally
}

/// One structure that is 1 in some slices and 255 (or 65535) in others.
fn mixed_coding(map: &VolumeLabels, file: &str, findings: &mut Vec<Finding>) {
    let plane = (map.shape[1] * map.shape[2]).max(1);
    let mut slices: BTreeMap<i32, usize> = BTreeMap::new();
    for slice in map.values.chunks_exact(plane) {
        let counts = count_values(slice);
        let foreground = counts.into_iter().filter(|(value, _)| *value != 0).max_by_key(|(_, n)| *n);
        if let Some((value, _)) = foreground {
            *slices.entry(value).or_default() += 1;
        }
    }
    let ones = slices.get(&1).copied().unwrap_or_default();
    let full = slices.iter().find(|(value, _)| [255, 65_535].contains(*value));
    if let (true, Some((value, n))) = (ones > 0 && slices.len() == 2, full) {
        let message = format!(
            "the foreground is 1 in {} and {value} in {n}: different codings of one thing?",
            counted(ones, "slice", "slices")
        );
        findings.push(finding(Code::MixedCoding, vec![file.to_owned()], message));
    }
}

// ---------------------------------------------------------------------------------------------------------------
// A split

fn summarise(
    name: &str,
    dataset: &VolumeDataset,
    examined: &[Examined],
    findings: &mut Vec<Finding>,
) -> SplitSummary {
    findings.extend(grouped(name, dataset, examined));
    let pictures: Vec<(&Examined, &Picture)> =
        examined.iter().filter_map(|e| e.picture.as_ref().map(|p| (e, p))).collect();
    let tallies: Vec<(&Examined, &Tally)> =
        examined.iter().filter_map(|e| e.labels.as_ref().map(|t| (e, t))).collect();

    let mut tell = |code, files: Vec<String>, message: String| {
        if !files.is_empty() {
            let cases = counted(files.len(), "case", "cases");
            findings.push(finding(code, files, format!("{cases} of {} in {name} {message}", examined.len())));
        }
    };
    let where_ = |wanted: &dyn Fn(&Tally) -> bool| -> Vec<String> {
        tallies.iter().filter(|(_, t)| wanted(t)).map(|(e, _)| e.file.clone()).collect()
    };
    let decoded = |t: &Tally| !t.classes.is_empty();
    let is_ignored = |t: &Tally| decoded(t) && t.classes.iter().all(|&n| n == 0);
    let is_empty = |t: &Tally| decoded(t) && t.classes[1..].iter().all(|&n| n == 0) && t.classes[0] > 0;
    tell(Code::EmptyLabels, where_(&is_empty), "without a voxel of a class other than 0".into());
    tell(Code::AllIgnored, where_(&is_ignored), "with every voxel ignored".into());

    let mut channels: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (e, picture) in &pictures {
        channels.entry(picture.channels).or_default().push(e.file.clone());
    }
    if let Some((&usual, _)) = channels.iter().max_by_key(|(_, files)| files.len()) {
        for (&number, files) in channels.iter().filter(|(number, _)| **number != usual) {
            tell(
                Code::ChannelMismatch,
                files.clone(),
                format!("with {}, the others with {usual}", counted(number, "channel", "channels")),
            );
        }
    }
    scales(name, &pictures, findings);
    let labels = (!tallies.is_empty()).then(|| label_summary(name, dataset, &tallies, findings));
    let classes = class_counts(name, dataset, findings);

    let moments = pictures.iter().fold(Moments::default(), |all, (_, p)| all.merge(p.moments));
    let stds = || pictures.iter().filter(|(_, p)| p.moments.count > 0).map(|(_, p)| p.moments.std());
    let intensity = (moments.count > 0).then(|| IntensitySummary {
        min: pictures.iter().fold(f32::INFINITY, |a, (_, p)| a.min(p.min)),
        max: pictures.iter().fold(f32::NEG_INFINITY, |a, (_, p)| a.max(p.max)),
        mean: moments.mean,
        least_std: stds().fold(f64::INFINITY, f64::min),
        largest_std: stds().fold(0.0, f64::max),
    });
    let patients: HashSet<&str> = dataset.cases().iter().map(|case| case.patient.as_str()).collect();
    SplitSummary {
        name: name.to_owned(),
        cases: examined.len(),
        labelled: tallies.len(),
        patients: patients.len(),
        voxels: pictures.iter().map(|(_, p)| voxels(p.shape) as u64).sum(),
        shape: spread(&pictures.iter().map(|(_, p)| p.shape).collect::<Vec<_>>(), usize::cmp),
        spacing: spread(
            &pictures.iter().map(|(_, p)| p.geometry.spacing).collect::<Vec<_>>(),
            f64::total_cmp,
        ),
        channels: channels.into_iter().map(|(number, files)| (number, files.len())).collect(),
        intensity,
        non_finite: pictures.iter().map(|(_, p)| p.non_finite).sum(),
        labels,
        classes,
    }
}

/// The findings of the cases; those of a kind that many cases have become one.
fn grouped(name: &str, dataset: &VolumeDataset, examined: &[Examined]) -> Vec<Finding> {
    const TOLD_ONE_BY_ONE: usize = 3;
    let mut kinds: BTreeMap<Code, Vec<&Finding>> = BTreeMap::new();
    for found in examined.iter().flat_map(|e| &e.findings) {
        kinds.entry(found.code).or_default().push(found);
    }
    let mut told = Vec::new();
    for (code, found) in kinds {
        if found.len() <= TOLD_ONE_BY_ONE {
            told.extend(found.into_iter().cloned());
            continue;
        }
        let cases = format!("{} cases of {} in {name}", found.len(), examined.len());
        let message = match out_of_range(dataset, examined) {
            Some(all) if code == Code::LabelOutOfRange => format!("{cases}: {all}"),
            _ => format!("{cases}; of the first: {}", found[0].message),
        };
        told.push(finding(code, found.iter().flat_map(|f| f.files.clone()).collect(), message));
    }
    told
}

/// What is wrong with the labels of all cases together.
fn out_of_range(dataset: &VolumeDataset, examined: &[Examined]) -> Option<String> {
    let rule = &dataset.options().labels;
    let mut stored = Counts::new();
    for tally in examined.iter().filter_map(|e| e.labels.as_ref()) {
        tally.stored.iter().for_each(|(&value, n)| *stored.entry(value).or_default() += n);
    }
    let most = stored.iter().filter(|(value, _)| rule.is_outside(**value)).max_by_key(|(_, n)| **n)?;
    Some(rule.outside(*most.0, None, &stored))
}

fn spread<T: Copy + Default>(
    values: &[[T; 3]],
    compare: impl Fn(&T, &T) -> std::cmp::Ordering,
) -> Option<Spread<[T; 3]>> {
    let mut all = Spread { min: [T::default(); 3], median: [T::default(); 3], max: [T::default(); 3] };
    for axis in 0..3 {
        let mut sorted: Vec<T> = values.iter().map(|v| v[axis]).collect();
        sorted.sort_by(&compare);
        all.min[axis] = *sorted.first()?;
        all.median[axis] = sorted[sorted.len() / 2];
        all.max[axis] = *sorted.last()?;
    }
    Some(all)
}

fn scales(name: &str, pictures: &[(&Examined, &Picture)], findings: &mut Vec<Finding>) {
    let mut stds: Vec<(f64, &str)> = pictures
        .iter()
        .map(|(e, p)| (p.moments.std(), e.file.as_str()))
        .filter(|(std, _)| *std > 0.0 && std.is_finite())
        .collect();
    stds.sort_by(|a, b| a.0.total_cmp(&b.0));
    if let (Some(least), Some(most)) = (stds.first(), stds.last())
        && most.0 > SCALE_FACTOR * least.0
    {
        // Far from the median, on either side.
        let median = stds[stds.len() / 2].0;
        let far = stds.iter().filter(|(std, _)| *std > 10.0 * median || *std * 10.0 < median).count();
        let message = format!(
            "the standard deviations of the images in {name} range from {:.3} to {:.3}, {far} of {} more than ten times \
             off their median {median:.3}: not one unit; normalise each image by itself",
            least.0,
            most.0,
            stds.len()
        );
        findings.push(finding(Code::IntensityScales, vec![least.1.to_owned(), most.1.to_owned()], message));
    }
    for (axis, letter) in ["depth", "height", "width"].into_iter().enumerate() {
        let spacing = |p: &Picture| p.geometry.spacing[axis];
        let by =
            |a: &&(&Examined, &Picture), b: &&(&Examined, &Picture)| spacing(a.1).total_cmp(&spacing(b.1));
        if let (Some(least), Some(most)) = (pictures.iter().min_by(by), pictures.iter().max_by(by))
            && spacing(most.1) > 2.0 * spacing(least.1)
        {
            let message = format!(
                "the spacing along {letter} in {name} ranges from {} to {} mm; resample to a common one?",
                spacing(least.1),
                spacing(most.1)
            );
            let files = vec![least.0.file.clone(), most.0.file.clone()];
            findings.push(finding(Code::SpacingDiffers, files, message));
        }
    }
}

fn label_summary(
    name: &str,
    dataset: &VolumeDataset,
    tallies: &[(&Examined, &Tally)],
    findings: &mut Vec<Finding>,
) -> LabelSummary {
    const SHOWN: usize = 16;
    let mut stored = Counts::new();
    let mut classes = vec![0u64; dataset.options().labels.classes];
    for (_, tally) in tallies {
        tally.stored.iter().for_each(|(&value, n)| *stored.entry(value).or_default() += n);
        classes.iter_mut().zip(&tally.classes).for_each(|(sum, n)| *sum += n);
    }
    let ignored: u64 = tallies.iter().map(|(_, t)| t.ignored).sum();
    let all = classes.iter().sum::<u64>() + ignored;
    let ignored_share = if all == 0 { 0.0 } else { ignored as f64 / all as f64 };
    if ignored_share > MUCH_IGNORED {
        let message = format!("{} of the labelled voxels in {name} are ignored", percent(ignored, all));
        findings.push(finding(Code::MostlyIgnored, Vec::new(), message));
    }
    // With maps that could not be decoded the counts say little.
    if tallies.iter().all(|(_, t)| !t.classes.is_empty()) {
        for (class, _) in classes.iter().enumerate().filter(|(_, n)| **n == 0) {
            let message = format!("no voxel in {name} is of class {class}");
            findings.push(finding(Code::AbsentClass, Vec::new(), message));
        }
    }
    let distinct = stored.len();
    let mut stored: Vec<(i32, u64)> = stored.into_iter().collect();
    stored.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    stored.truncate(SHOWN);
    let is_empty = |t: &Tally| t.classes.iter().skip(1).all(|&n| n == 0) && !t.classes.is_empty();
    LabelSummary {
        stored,
        distinct,
        classes,
        ignored,
        ignored_share,
        empty: tallies.iter().filter(|(_, t)| is_empty(t)).count(),
    }
}

fn class_counts(name: &str, dataset: &VolumeDataset, findings: &mut Vec<Finding>) -> Vec<(String, usize)> {
    let names = &dataset.list().class_names;
    let number = |class: usize| dataset.cases().iter().filter(|case| case.class == Some(class)).count();
    let counts: Vec<(String, usize)> =
        names.iter().enumerate().map(|(class, name)| (name.clone(), number(class))).collect();
    for (class, _) in counts.iter().filter(|(_, n)| *n == 0) {
        findings.push(finding(
            Code::AbsentClass,
            Vec::new(),
            format!("no case in {name} is of class {class}"),
        ));
    }
    let present = || counts.iter().filter(|(_, n)| *n > 0);
    if let (Some(least), Some(most)) = (present().min_by_key(|(_, n)| *n), present().max_by_key(|(_, n)| *n))
        && most.1 >= IMBALANCE * least.1
    {
        let message = format!(
            "class {} has {} cases in {name}, class {} has {}: {:.1} times as many; whoever always answers {} has an \
             accuracy of {}",
            most.0,
            most.1,
            least.0,
            least.1,
            most.1 as f64 / least.1 as f64,
            most.0,
            percent(most.1 as u64, counts.iter().map(|(_, n)| *n as u64).sum()),
        );
        findings.push(finding(Code::ClassImbalance, Vec::new(), message));
    }
    counts
}

// ---------------------------------------------------------------------------------------------------------------
// Across cases

fn copies(names: &[&str], examined: &[Vec<Examined>], findings: &mut Vec<Finding>) {
    type Place<'a> = (usize, &'a str);
    let all = || {
        examined.iter().enumerate().flat_map(|(split, cases)| {
            cases.iter().filter_map(move |e| e.picture.as_ref().map(|p| (split, e, p)))
        })
    };
    let where_ = |places: &[Place]| {
        let splits: BTreeSet<usize> = places.iter().map(|(split, _)| *split).collect();
        splits.into_iter().map(|split| names[split]).collect::<Vec<_>>()
    };
    let files = |places: &[Place]| places.iter().map(|(_, file)| (*file).to_owned()).collect::<Vec<_>>();

    let mut whole: BTreeMap<[u8; 32], Vec<(usize, &Examined)>> = BTreeMap::new();
    for (split, e, picture) in all() {
        whole.entry(picture.hash).or_default().push((split, e));
    }
    let mut groups: Vec<Vec<(usize, &Examined)>> = whole.into_values().filter(|g| g.len() > 1).collect();
    groups.sort_by_key(|group| group.iter().map(|(split, e)| (*split, e.file.as_str())).collect::<Vec<_>>());
    for group in groups {
        let places: Vec<Place> = group.iter().map(|(split, e)| (*split, e.file.as_str())).collect();
        let splits = where_(&places);
        let (code, message) = if splits.len() > 1 {
            let both = splits.join(" and ");
            (
                Code::DuplicateAcrossSplits,
                format!("the same image is in {both}: the scores of one are not independent of the other"),
            )
        } else {
            let message = format!("the same image is {} times in {}", places.len(), splits[0]);
            (Code::DuplicateWithinSplit, message)
        };
        findings.push(finding(code, files(&places), message));
        let classes: BTreeSet<usize> = group.iter().filter_map(|(_, e)| e.class).collect();
        if classes.len() > 1 {
            let message = format!("the same image has {} different classes", classes.len());
            findings.push(finding(Code::ConflictingClasses, files(&places), message));
        }
    }

    // Pairs that have slices in common, but not all.
    let mut by_slice: HashMap<[u8; 16], BTreeSet<Place>> = HashMap::new();
    let mut hashes: HashMap<Place, [u8; 32]> = HashMap::new();
    for (split, e, picture) in all() {
        hashes.insert((split, &e.file), picture.hash);
        for hash in picture.slices.iter().flatten() {
            by_slice.entry(*hash).or_default().insert((split, &e.file));
        }
    }
    let mut pairs: BTreeMap<(Place, Place), usize> = BTreeMap::new();
    for places in by_slice.values().filter(|places| places.len() > 1) {
        // A slice many volumes have, such as a logo, says no more with every further pair.
        let places: Vec<&Place> = places.iter().take(16).collect();
        for (i, &&a) in places.iter().enumerate() {
            for &&b in &places[i + 1..] {
                if hashes[&a] != hashes[&b] {
                    *pairs.entry((a, b)).or_default() += 1;
                }
            }
        }
    }
    for across in [true, false] {
        let found: Vec<_> = pairs.iter().filter(|((a, b), _)| (a.0 != b.0) == across).collect();
        if found.is_empty() {
            continue;
        }
        let volumes: BTreeSet<Place> = found.iter().flat_map(|((a, b), _)| [*a, *b]).collect();
        let places: Vec<Place> = volumes.into_iter().collect();
        let most = found.iter().map(|(_, n)| **n).max().unwrap_or_default();
        let overlap = format!(
            "{} of volumes in {} have up to {} in common: they overlap",
            counted(found.len(), "pair", "pairs"),
            where_(&places).join(" and "),
            counted(most, "slice", "slices")
        );
        let (code, message) = if across {
            let why = "the scores of one split are not independent of the other";
            (Code::SharedSlicesAcrossSplits, format!("{overlap}, and {why}"))
        } else {
            (Code::SharedSlices, format!("{overlap}; keep them on one side of a split (same patient)"))
        };
        findings.push(finding(code, files(&places), message));
    }
}

fn patients(names: &[&str], splits: &[(&str, &VolumeDataset)], findings: &mut Vec<Finding>) {
    let mut seen: BTreeMap<&str, Vec<(usize, &Case)>> = BTreeMap::new();
    for (split, (_, dataset)) in splits.iter().enumerate() {
        for case in dataset.cases() {
            seen.entry(&case.patient).or_default().push((split, case));
        }
    }
    let mut shared = Vec::new();
    let mut files = Vec::new();
    let mut involved = BTreeSet::new();
    for (patient, cases) in seen {
        let in_splits: BTreeSet<usize> = cases.iter().map(|(split, _)| *split).collect();
        // Splits by slices put a volume on both sides on purpose.
        if in_splits.len() > 1 && cases.iter().any(|(_, case)| case.slices.is_none()) {
            shared.push(patient);
            involved.extend(in_splits);
            files.extend(cases.iter().filter_map(|(_, case)| case.images.first()).map(display));
        }
    }
    if !shared.is_empty() {
        let both: Vec<&str> = involved.into_iter().map(|split| names[split]).collect();
        let message = format!(
            "{} ({}) in {}: the scores of one are not independent of the other",
            counted(shared.len(), "patient", "patients"),
            first_few(&shared),
            both.join(" and ")
        );
        findings.push(finding(Code::PatientAcrossSplits, files, message));
    }
}

// ---------------------------------------------------------------------------------------------------------------
// As text

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

impl VolumeAudit {
    /// A table for people: header and rows, one column a split.
    pub fn table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let mut header = vec!["split".to_owned()];
        header.extend(self.splits.iter().map(|split| split.name.clone()));
        let mut rows: Vec<Vec<String>> = Vec::new();
        let mut row = |name: &str, of: &dyn Fn(&SplitSummary) -> String| {
            let mut cells: Vec<String> = self.splits.iter().map(of).collect();
            if cells.iter().any(|cell| !cell.is_empty()) {
                cells.insert(0, name.to_owned());
                rows.push(cells);
            }
        };
        row("cases", &|s| s.cases.to_string());
        row("labelled", &|s| if s.labels.is_some() { s.labelled.to_string() } else { String::new() });
        row("patients", &|s| if s.patients < s.cases { s.patients.to_string() } else { String::new() });
        row("classes", &|s| {
            s.classes.iter().map(|(name, n)| format!("{name}: {n}")).collect::<Vec<_>>().join(", ")
        });
        let shape = |pick: fn(&Spread<Shape>) -> Shape| {
            move |s: &SplitSummary| s.shape.as_ref().map(|spread| show(pick(spread))).unwrap_or_default()
        };
        row("shape, smallest", &shape(|s| s.min));
        row("shape, median", &shape(|s| s.median));
        row("shape, largest", &shape(|s| s.max));
        row("spacing, mm", &|s| {
            let number = |v: f64| format!("{}", (v * 1e6).round() / 1e6);
            let show = |v: [f64; 3]| v.map(number).join("x");
            match &s.spacing {
                Some(spread) if spread.min == spread.max => show(spread.median),
                Some(spread) => format!("{} .. {}", show(spread.min), show(spread.max)),
                None => String::new(),
            }
        });
        row("channels", &|s| {
            s.channels.iter().map(|(number, _)| number.to_string()).collect::<Vec<_>>().join(", ")
        });
        row("intensity", &|s| s.intensity.map(|i| format!("{} .. {}", i.min, i.max)).unwrap_or_default());
        row("mean", &|s| s.intensity.map(|i| format!("{:.4}", i.mean)).unwrap_or_default());
        row("not finite", &|s| if s.non_finite > 0 { s.non_finite.to_string() } else { String::new() });
        row("stored labels", &|s| {
            let Some(labels) = &s.labels else { return String::new() };
            let all: u64 = labels.stored.iter().map(|(_, n)| n).sum();
            let shown: Vec<String> = labels
                .stored
                .iter()
                .take(6)
                .map(|(value, n)| format!("{value}: {}", percent(*n, all)))
                .collect();
            let more = labels.distinct - shown.len();
            format!(
                "{}{}",
                shown.join(", "),
                if more > 0 { format!(" and {more} more") } else { String::new() }
            )
        });
        row("ignored", &|s| match &s.labels {
            Some(labels) if labels.ignored > 0 => format!("{:.1} %", 100.0 * labels.ignored_share),
            _ => String::new(),
        });
        (header, rows)
    }
}

/// A table of the splits, one column each, then the findings.
impl fmt::Display for VolumeAudit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (header, mut rows) = self.table();
        rows.insert(0, header);
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns)
            .map(|c| {
                rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in &rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        for found in &self.findings {
            writeln!(f, "{:<8} {}", found.severity, found.message)?;
            if let Some(first) = found.files.first() {
                let more = found.files.len() - 1;
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                writeln!(f, "         {first}{more}")?;
            }
        }
        Ok(())
    }
}
