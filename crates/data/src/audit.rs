//! Examination of datasets before training: what is there, and what is wrong with it.
//!
//! [`inspect`] reads every file once and goes on after a bad one, so that one run tells everything. It keeps counts
//! and hashes, and the contents of no more files than there are threads. The report serialises to JSON; its fields and codes are
//! public.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use crate::dataset::{Dataset, RawEntry, Source, Store, count_values};
use crate::image::{Image, Labels};
use crate::tiles;

/// What [`inspect`] found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditReport {
    /// Side of the tiles that were counted, in pixels.
    pub tile: usize,
    /// Number of problems of severity error; with any, training would fail or mislead.
    pub errors: usize,
    /// Number of problems of severity warning.
    pub warnings: usize,
    /// One for each split, in the order given.
    pub splits: Vec<SplitReport>,
    /// Errors first, then warnings; each in the order of splits and files.
    pub problems: Vec<Problem>,
}

/// What one split holds. Images that cannot be read count in `images` and nowhere else.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitReport {
    /// Name of the split, as given.
    pub name: String,
    /// Number of images.
    pub images: usize,
    /// Number of images with readable labels of the image's size.
    pub labelled: usize,
    /// Number of pixels of all images.
    pub pixels: u64,
    /// Number of whole tiles, see [`tiles::grid`].
    pub tiles: usize,
    /// How many images there are of each size; by width, then height.
    pub sizes: Vec<SizeCount>,
    /// Intensities as in the files; none if no pixel is finite.
    pub intensity: Option<Intensity>,
    /// Number of pixels that are NaN or infinite.
    pub non_finite: u64,
    /// Labels; none in a split without any.
    pub labels: Option<LabelSummary>,
}

/// Number of images of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SizeCount {
    /// Columns, in pixels.
    pub width: usize,
    /// Rows, in pixels.
    pub height: usize,
    /// Number of images.
    pub images: usize,
}

/// Distribution of the finite pixels of all images of a split, in the units of the files.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Intensity {
    /// Smallest.
    pub min: f32,
    /// Largest.
    pub max: f32,
    /// Mean.
    pub mean: f64,
    /// Standard deviation over all pixels.
    pub std: f64,
}

/// Labels of a split, after the rules for masks have been applied.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelSummary {
    /// Values as stored, the most frequent first, at most 16 of them.
    pub stored: Vec<ValueCount>,
    /// Pixels labelled 1.
    pub positive: u64,
    /// Pixels labelled 0.
    pub negative: u64,
    /// Pixels labelled -1.
    pub ignored: u64,
    /// positive / (positive + negative), 0..=1; none if all pixels are ignored.
    pub prevalence: Option<f64>,
    /// ignored / all labelled pixels, 0..=1.
    pub ignored_fraction: f64,
    /// Number of images without a positive pixel.
    pub empty_masks: usize,
}

/// Number of pixels of one stored value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ValueCount {
    /// The value.
    pub value: i32,
    /// Number of pixels.
    pub pixels: u64,
}

/// Something wrong with the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// Which kind.
    pub code: Code,
    /// The files concerned; names for images that come from no file or share one.
    pub files: Vec<String>,
    /// What was found, in a sentence.
    pub message: String,
}

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Training would fail or its numbers would mislead.
    Error,
    /// Worth a look.
    Warning,
}

/// Kind of a [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// A file that cannot be read or is corrupt.
    Unreadable,
    /// An image and its mask differ in size.
    SizeMismatch,
    /// An image without a mask or coordinates.
    MissingMask,
    /// Several files where one is expected: images of one stem, masks of one image.
    AmbiguousFiles,
    /// A mask with values that are no labels.
    LabelOutOfRange,
    /// One image in two splits.
    DuplicateAcrossSplits,
    /// One image twice in a split.
    DuplicateWithinSplit,
    /// A mask that belongs to no image.
    MaskWithoutImage,
    /// A mask without a positive pixel.
    EmptyMask,
    /// A mask of which every pixel is ignored.
    AllIgnored,
    /// An image of a single value.
    ConstantImage,
    /// An image with an area of a single value: a part that is missing.
    FlatArea,
    /// Pixels that are NaN or infinite.
    NonFinitePixels,
    /// An image narrower or lower than a tile.
    SmallerThanTile,
}

impl Code {
    /// How bad problems of this kind are.
    pub fn severity(self) -> Severity {
        match self {
            Self::Unreadable
            | Self::SizeMismatch
            | Self::MissingMask
            | Self::AmbiguousFiles
            | Self::LabelOutOfRange
            | Self::DuplicateAcrossSplits => Severity::Error,
            Self::DuplicateWithinSplit
            | Self::MaskWithoutImage
            | Self::EmptyMask
            | Self::AllIgnored
            | Self::ConstantImage
            | Self::FlatArea
            | Self::NonFinitePixels
            | Self::SmallerThanTile => Severity::Warning,
        }
    }
}

/// Examines datasets that are meant to be used together, each under the name of its split; `tile` is the side of the
/// training tiles in pixels.
///
/// Open them with [`Dataset::open_unchecked`], or files that do not pair are an error before this is reached. Reads
/// all files, on all cores and past the datasets' caches; the result does not depend on the number of threads.
///
/// Duplicates are found by the decoded pixels, so also under another name or in another format of the same values;
/// rescaled or cropped copies are not found.
pub fn inspect(splits: &[(&str, &Dataset)], tile: usize) -> AuditReport {
    let mut problems = Vec::new();
    let mut reports = Vec::new();
    let mut seen: BTreeMap<[u8; 32], Vec<(usize, String)>> = BTreeMap::new();
    for (number, &(name, dataset)) in splits.iter().enumerate() {
        listing_problems(name, dataset, &mut problems);
        let findings = examine_all(dataset);
        for finding in &findings {
            if let Some(picture) = &finding.picture {
                seen.entry(picture.hash).or_default().push((number, finding.file.clone()));
            }
        }
        reports.push(summarise(name, &findings, tile, &mut problems));
    }
    let names: Vec<&str> = splits.iter().map(|(name, _)| *name).collect();
    duplicate_problems(&names, seen, &mut problems);

    // Parts of one folder share its listing, and with it what the listing tells.
    let mut told = BTreeSet::new();
    problems.retain(|p| told.insert((p.code, p.files.clone(), p.message.clone())));
    problems.sort_by_key(|p| p.severity);
    let errors = problems.iter().filter(|p| p.severity == Severity::Error).count();
    AuditReport { tile, errors, warnings: problems.len() - errors, splits: reports, problems }
}

fn problem(code: Code, files: Vec<String>, message: impl Into<String>) -> Problem {
    Problem { severity: code.severity(), code, files, message: message.into() }
}

fn display(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn listing_problems(name: &str, dataset: &Dataset, problems: &mut Vec<Problem>) {
    for (path, why) in &dataset.store.unreadable {
        problems.push(problem(Code::Unreadable, vec![display(path)], why));
    }
    let (Some(listing), Source::Folder(spec)) = (&dataset.store.listing, &dataset.store.source) else {
        return;
    };
    for files in &listing.ambiguous {
        let message = "these files have the same meaning; keep one";
        problems.push(problem(Code::AmbiguousFiles, files.iter().map(display).collect(), message));
    }
    if !spec.unlabelled_ok {
        let here: BTreeSet<&Path> = (0..dataset.len()).filter_map(|i| dataset.path(i)).collect();
        let missing: Vec<String> =
            listing.missing_labels.iter().filter(|f| here.contains(f.as_path())).map(display).collect();
        if !missing.is_empty() {
            let what = if spec.masks.is_some() { "mask" } else { "coordinates" };
            let images = counted(missing.len(), "image", "images");
            let message = format!("{images} of {} in {name} without {what}", dataset.len());
            problems.push(problem(Code::MissingMask, missing, message));
        }
    }
    if !listing.orphan_masks.is_empty() {
        let masks = counted(listing.orphan_masks.len(), "mask", "masks");
        let files = listing.orphan_masks.iter().map(display).collect();
        problems.push(problem(Code::MaskWithoutImage, files, format!("{masks} for which there is no image")));
    }
}

/// What is kept of one image.
struct Finding {
    file: String,
    picture: Option<Picture>,
    labels: Option<Counts>,
    problems: Vec<Problem>,
}

struct Picture {
    width: usize,
    height: usize,
    hash: [u8; 32],
    min: f32,
    max: f32,
    moments: Moments,
    non_finite: u64,
    /// Share of the pixels that equal both their left and their upper neighbour.
    flat: f64,
}

#[derive(Default)]
struct Counts {
    stored: BTreeMap<i32, u64>,
    positive: u64,
    negative: u64,
    ignored: u64,
}

/// Share of flat pixels that no picture of something has; smooth backgrounds of drawings aside.
const FLAT: f64 = 0.3;

/// Count, mean and sum of squared deviations of some pixels.
#[derive(Default, Clone, Copy)]
struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Of the pixels of both, by Chan, Golub and LeVeque 1979.
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
}

/// One finding for each image of the dataset, in its order.
fn examine_all(dataset: &Dataset) -> Vec<Finding> {
    let store = &*dataset.store;
    let wanted: Vec<usize> = (0..dataset.len()).map(|i| dataset.index(i)).collect();
    let groups: BTreeSet<usize> = wanted.iter().map(|&index| store.entries[index].group).collect();
    let groups: Vec<usize> = groups.into_iter().collect();
    let needed: BTreeSet<usize> = wanted.iter().copied().collect();
    let found: Vec<Vec<(usize, Finding)>> =
        groups.par_iter().map(|&group| examine_group(store, group, &needed)).collect();
    let mut found: HashMap<usize, Finding> = found.into_iter().flatten().collect();
    // A subset may name an image twice; it is then examined once.
    wanted.into_iter().filter_map(|index| found.remove(&index)).collect()
}

fn examine_group(store: &Store, group: usize, needed: &BTreeSet<usize>) -> Vec<(usize, Finding)> {
    let members = &store.groups[group];
    match store.read_group(group) {
        Ok(raw) => members
            .iter()
            .zip(raw)
            .filter(|(index, _)| needed.contains(index))
            .map(|(&index, raw)| (index, examine(store, index, raw)))
            .collect(),
        // The whole file is unreadable: told once, with its first image.
        Err(error) => {
            let mut error = Some(error);
            let blank = |index: usize| {
                let problems = error
                    .take()
                    .map(|e| problem(Code::Unreadable, vec![file_of(store, index)], e.to_string()))
                    .into_iter()
                    .collect();
                (index, Finding { file: file_of(store, index), picture: None, labels: None, problems })
            };
            members.iter().copied().filter(|index| needed.contains(index)).map(blank).collect()
        }
    }
}

/// The image's file, or its name where there is none of its own.
fn file_of(store: &Store, index: usize) -> String {
    match store.image_path(index) {
        Some(path) if store.groups[store.entries[index].group].len() == 1 => display(path),
        Some(path) => display(path.with_file_name(&store.entries[index].name)),
        None => store.entries[index].name.clone(),
    }
}

fn examine(store: &Store, index: usize, raw: RawEntry) -> Finding {
    let file = file_of(store, index);
    let label_file = display(store.label_path(index));
    let mut problems = Vec::new();
    let picture = match &raw.image {
        Ok(image) => Some(look_at(image, &file, &mut problems)),
        Err(e) => {
            problems.push(problem(Code::Unreadable, vec![file.clone()], e.to_string()));
            None
        }
    };
    let labels = match raw.labels {
        Ok(None) => None,
        Ok(Some(labels)) => {
            let size = picture.as_ref().map(|p| (p.width, p.height));
            match size {
                Some((width, height)) if (width, height) != (labels.width, labels.height) => {
                    let message = format!(
                        "the image is {width}x{height} pixels, its mask {}x{}",
                        labels.width, labels.height
                    );
                    problems.push(problem(Code::SizeMismatch, vec![file.clone(), label_file], message));
                    None
                }
                _ => tally(store, index, &labels, label_file, &mut problems),
            }
        }
        Err(e) => {
            problems.push(problem(Code::Unreadable, vec![label_file], e.to_string()));
            None
        }
    };
    // Labels of an image that cannot be read are checked but train nothing.
    let labels = labels.filter(|_| picture.is_some());
    Finding { file, picture, labels, problems }
}

fn look_at(image: &Image, file: &str, problems: &mut Vec<Problem>) -> Picture {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(image.width as u64).to_le_bytes());
    hasher.update(&(image.height as u64).to_le_bytes());
    let mut bytes = Vec::new();
    for row in image.pixels.chunks(image.width.max(1)) {
        bytes.clear();
        // Adding 0 makes -0 into 0.
        bytes.extend(row.iter().flat_map(|p| (p + 0.0).to_le_bytes()));
        hasher.update(&bytes);
    }

    let finite = || image.pixels.iter().filter(|p| p.is_finite());
    let (min, max) = finite().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), &p| (a.min(p), b.max(p)));
    let count = finite().count() as u64;
    let mean = if count == 0 { 0.0 } else { finite().map(|&p| f64::from(p)).sum::<f64>() / count as f64 };
    let squares = finite().map(|&p| (f64::from(p) - mean).powi(2)).sum();
    let non_finite = image.pixels.len() as u64 - count;
    if non_finite > 0 {
        let message = format!(
            "{non_finite} of {} pixels are NaN or infinite; they are replaced by the image's mean",
            image.pixels.len()
        );
        problems.push(problem(Code::NonFinitePixels, vec![file.to_owned()], message));
    }
    let moments = Moments { count, mean, squares };
    let hash = *hasher.finalize().as_bytes();
    let flat = flat(image);
    Picture { width: image.width, height: image.height, hash, min, max, moments, non_finite, flat }
}

/// Share of the pixels that equal both their left and their upper neighbour.
fn flat(image: &Image) -> f64 {
    let (width, pixels) = (image.width.max(1), &image.pixels);
    let same =
        |i: usize| !i.is_multiple_of(width) && pixels[i] == pixels[i - 1] && pixels[i] == pixels[i - width];
    let count = (width..pixels.len()).filter(|i| same(*i)).count();
    count as f64 / pixels.len().max(1) as f64
}

fn tally(
    store: &Store,
    index: usize,
    labels: &Labels,
    label_file: String,
    problems: &mut Vec<Problem>,
) -> Option<Counts> {
    match store.decode(index, labels) {
        Ok(decoded) => {
            let mut counts = Counts { stored: count_values(labels), ..Counts::default() };
            for label in decoded {
                match label {
                    1 => counts.positive += 1,
                    0 => counts.negative += 1,
                    _ => counts.ignored += 1,
                }
            }
            Some(counts)
        }
        Err(e) => {
            problems.push(problem(Code::LabelOutOfRange, vec![label_file], e.to_string()));
            None
        }
    }
}

fn summarise(name: &str, findings: &[Finding], tile: usize, problems: &mut Vec<Problem>) -> SplitReport {
    problems.extend(findings.iter().flat_map(|f| f.problems.iter().cloned()));
    let files_where = |wanted: &dyn Fn(&Finding) -> bool| -> Vec<String> {
        findings.iter().filter(|f| wanted(f)).map(|f| f.file.clone()).collect()
    };
    let mut tell = |code, files: Vec<String>, message: &str| {
        if !files.is_empty() {
            let images = counted(files.len(), "image", "images");
            problems.push(problem(
                code,
                files,
                format!("{images} of {} in {name} {message}", findings.len()),
            ));
        }
    };
    let is_ignored = |c: &Counts| c.positive + c.negative == 0;
    let is_empty = |c: &Counts| c.positive == 0 && !is_ignored(c);
    let empty = files_where(&|f| f.labels.as_ref().is_some_and(is_empty));
    tell(Code::EmptyMask, empty, "without a positive pixel");
    let ignored = files_where(&|f| f.labels.as_ref().is_some_and(is_ignored));
    tell(Code::AllIgnored, ignored, "with every pixel ignored");
    let constant = files_where(&|f| f.picture.as_ref().is_some_and(|p| p.min == p.max));
    tell(Code::ConstantImage, constant, "with all pixels of one value");
    let holed = files_where(&|f| f.picture.as_ref().is_some_and(|p| p.min < p.max && p.flat > FLAT));
    let message =
        format!("with a single value over more than {} % of the area: is a part missing?", 100.0 * FLAT);
    tell(Code::FlatArea, holed, &message);
    let small = files_where(&|f| f.picture.as_ref().is_some_and(|p| p.width.min(p.height) < tile));
    let message = format!("smaller than a tile of {tile}x{tile} pixels, to be padded by reflection");
    tell(Code::SmallerThanTile, small, &message);

    let pictures = || findings.iter().filter_map(|f| f.picture.as_ref());
    let mut sizes: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for picture in pictures() {
        *sizes.entry((picture.width, picture.height)).or_default() += 1;
    }
    let all_sizes: Vec<(usize, usize)> = pictures().map(|p| (p.width, p.height)).collect();
    let moments = pictures().fold(Moments::default(), |all, p| all.merge(p.moments));
    let intensity = (moments.count > 0).then(|| Intensity {
        min: pictures().fold(f32::INFINITY, |a, p| a.min(p.min)),
        max: pictures().fold(f32::NEG_INFINITY, |a, p| a.max(p.max)),
        mean: moments.mean,
        std: (moments.squares / moments.count as f64).sqrt(),
    });
    let labelled: Vec<&Counts> = findings.iter().filter_map(|f| f.labels.as_ref()).collect();
    SplitReport {
        name: name.to_owned(),
        images: findings.len(),
        labelled: labelled.len(),
        pixels: all_sizes.iter().map(|&(w, h)| w as u64 * h as u64).sum(),
        tiles: tiles::grid(&all_sizes, tile).len(),
        sizes: sizes
            .into_iter()
            .map(|((width, height), images)| SizeCount { width, height, images })
            .collect(),
        intensity,
        non_finite: pictures().map(|p| p.non_finite).sum(),
        labels: (!labelled.is_empty()).then(|| label_summary(&labelled)),
    }
}

fn label_summary(labelled: &[&Counts]) -> LabelSummary {
    const SHOWN: usize = 16;
    let mut stored: BTreeMap<i32, u64> = BTreeMap::new();
    for (&value, &pixels) in labelled.iter().flat_map(|c| &c.stored) {
        *stored.entry(value).or_default() += pixels;
    }
    let mut stored: Vec<ValueCount> =
        stored.into_iter().map(|(value, pixels)| ValueCount { value, pixels }).collect();
    stored.sort_by_key(|v| std::cmp::Reverse(v.pixels));
    stored.truncate(SHOWN);
    let positive = labelled.iter().map(|c| c.positive).sum::<u64>();
    let negative = labelled.iter().map(|c| c.negative).sum::<u64>();
    let ignored = labelled.iter().map(|c| c.ignored).sum::<u64>();
    let valid = positive + negative;
    LabelSummary {
        stored,
        positive,
        negative,
        ignored,
        prevalence: (valid > 0).then(|| positive as f64 / valid as f64),
        ignored_fraction: if ignored == 0 { 0.0 } else { ignored as f64 / (valid + ignored) as f64 },
        empty_masks: labelled.iter().filter(|c| c.positive == 0).count(),
    }
}

fn duplicate_problems(
    names: &[&str],
    seen: BTreeMap<[u8; 32], Vec<(usize, String)>>,
    problems: &mut Vec<Problem>,
) {
    let mut copies: Vec<Vec<(usize, String)>> =
        seen.into_values().filter(|copies| copies.len() > 1).collect();
    // The copies of an image are in order already; bring the images into the order of their first copies.
    copies.sort();
    for copies in copies {
        let splits: BTreeSet<usize> = copies.iter().map(|(split, _)| *split).collect();
        let splits: Vec<&str> = splits.into_iter().map(|split| names[split]).collect();
        let across = splits.len() > 1;
        let message = if across {
            format!(
                "the same image is in {}: the scores of one are not independent of the other",
                splits.join(" and ")
            )
        } else {
            format!("the same image is {} times in {}", copies.len(), splits[0])
        };
        let code = if across { Code::DuplicateAcrossSplits } else { Code::DuplicateWithinSplit };
        problems.push(problem(code, copies.into_iter().map(|(_, file)| file).collect(), message));
    }
}
