//! Which files make up a data set of volumes: the images, and the labels or the class of each; and how the labels in
//! the files become classes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::dataset::{file_name, files_in, first_few, natural};
use crate::formats::{has_image_extension, has_volume_extension, volume_info, volume_stem};
use crate::volume::{IGNORE, Shape, VolumeLabels};
use crate::{DataError, Result};

/// A volume and what is known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Stem of the image; unique in its data set.
    pub id: String,
    /// The image: one path, or one for each channel. A path is a file, or a folder that is one volume.
    pub images: Vec<PathBuf>,
    /// The label map.
    pub labels: Option<PathBuf>,
    /// Class of the whole volume.
    pub class: Option<usize>,
    /// Cases of one patient belong to one side of a split. The id where nothing else is known.
    pub patient: String,
    /// Only these slices (along the depth) of the volume; all of them if none.
    pub slices: Option<Range<usize>>,
}

/// Where a data set of volumes comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeSource {
    /// A label for every voxel.
    Segmentation(SegmentationSpec),
    /// One class for the whole volume.
    Classification(ClassificationSpec),
}

/// Images and label maps, paired by stem.
///
/// - `root/images` is a file, a folder of volumes, or a folder that is itself one volume: slices as pictures, or
///   Zarr. Slices are told from volumes by their files: pictures that are no volume format (PNG, JPEG), or two or
///   more TIFF files all of a single page. Sub-folders that are one volume each count as volumes.
/// - The label map of `<stem>` is `<stem>.*`, `<stem>_mask.*`, `<stem>_label.*`, `<stem>_labels.*` or `<stem>_seg.*`
///   in `root/labels`. That may be the images' place: then labels are told by these suffixes or, with another
///   `label_dataset`, lie in the image's own file. A single image and a single label map belong together whatever
///   their names.
/// - Images without labels stay in the list, for prediction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SegmentationSpec {
    /// The folder the others are relative to.
    pub root: PathBuf,
    /// Folder or file of the images.
    pub images: PathBuf,
    /// Folder or file of the label maps.
    pub labels: Option<PathBuf>,
    /// Name of the image inside HDF5 and Zarr.
    pub image_dataset: Option<String>,
    /// Name of the label map inside HDF5 and Zarr.
    pub label_dataset: Option<String>,
    /// Whether sub-folders are searched too.
    pub nested: bool,
    /// Whether `<case>_0000.*`, `<case>_0001.*` … are the channels of one case, as nnU-Net names them. Unset: yes
    /// if the label maps are named without the number.
    pub channel_files: Option<bool>,
}

/// Volumes and their classes: from a table, or one sub-folder of `root` for each class.
///
/// Classes are numbered in the order of their names: as numbers if all are, else in natural order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassificationSpec {
    /// Folder of the classes, and the place paths of the table may be relative to.
    pub root: PathBuf,
    /// Comma-, semicolon- or tab-separated table with a header line, relative to `root`; folders are classes if none.
    pub table: Option<PathBuf>,
    /// Column of the image's path: relative to the table or to `root`, with or without extension; the channels of
    /// an image in several files separated by `|`, or all files `<path>_0000.*`, `<path>_0001.*` ….
    pub path_column: String,
    /// Column of the class; an empty field leaves the case without.
    pub label_column: String,
    /// Column of the patient.
    pub patient_column: Option<String>,
    /// Name of the image inside HDF5 and Zarr.
    pub dataset: Option<String>,
}

/// What a [`VolumeSource`] finds, before anything is decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaseList {
    /// In natural order of their ids; of a table, in its order.
    pub cases: Vec<Case>,
    /// Names of the classes of whole volumes, by number; empty for segmentation.
    pub class_names: Vec<String>,
    /// Images without labels or class, where labels are asked for.
    pub unlabelled: Vec<PathBuf>,
    /// Label maps that belong to no image.
    pub orphan_labels: Vec<PathBuf>,
    /// Several files where one is expected.
    pub ambiguous: Vec<Vec<PathBuf>>,
}

impl VolumeSource {
    /// Looks which files are there and pairs them. Opens no more than headers of TIFF files and the table.
    ///
    /// # Errors
    /// Places that are missing or empty, channels of a case that are missing, a table that cannot be read or names
    /// missing files. Files that do not pair are no error here but part of the list.
    pub fn list(&self) -> Result<CaseList> {
        match self {
            Self::Segmentation(spec) => spec.list(),
            Self::Classification(spec) => spec.list(),
        }
    }

    /// The folder or file to name in a message about the whole.
    pub fn place(&self) -> PathBuf {
        match self {
            Self::Segmentation(spec) => spec.root.join(&spec.images),
            Self::Classification(spec) => match &spec.table {
                Some(table) => spec.root.join(table),
                None => spec.root.clone(),
            },
        }
    }

    pub(crate) fn image_dataset(&self) -> Option<&str> {
        match self {
            Self::Segmentation(spec) => spec.image_dataset.as_deref(),
            Self::Classification(spec) => spec.dataset.as_deref(),
        }
    }

    pub(crate) fn label_dataset(&self) -> Option<&str> {
        match self {
            Self::Segmentation(spec) => spec.label_dataset.as_deref(),
            Self::Classification(_) => None,
        }
    }
}

const LABEL_SUFFIXES: [&str; 4] = ["_mask", "_label", "_labels", "_seg"];

impl SegmentationSpec {
    fn list(&self) -> Result<CaseList> {
        let images_at = self.root.join(&self.images);
        let labels_at = self.labels.as_ref().map(|labels| self.root.join(labels));
        let same_place = labels_at.as_ref().is_some_and(|labels| same_place(labels, &images_at));
        let same_file = same_place && self.image_dataset != self.label_dataset;
        let by_suffix = same_place && !same_file;

        let mut images = volumes_at(&images_at, self.nested, "the images")?;
        if by_suffix {
            images.retain(|path| label_base(&stem(path)).is_none());
        }
        let mut labels: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        if let Some(labels_at) = &labels_at
            && !same_file
        {
            for path in volumes_at(labels_at, self.nested, "the labels")? {
                let stem = stem(&path);
                if !by_suffix || label_base(&stem).is_some() {
                    labels.entry(stem).or_default().push(path);
                }
            }
        }

        let mut list = CaseList::default();
        let joined = self.channel_files.unwrap_or_else(|| {
            images.iter().any(|image| {
                let stem = stem(image);
                label_key(&labels, &stem).is_none()
                    && channel_of(&stem).is_some_and(|(case, _)| label_key(&labels, case).is_some())
            })
        });
        let only_pair = images.len() == 1 && labels.len() == 1;
        let images = if joined { join_channels(images, &mut list)? } else { single(images, &mut list) };
        for (id, images) in images {
            let found = if same_file {
                images.first().cloned()
            } else {
                let key = if only_pair { labels.keys().next().cloned() } else { label_key(&labels, &id) };
                key.and_then(|key| labels.remove(&key)).and_then(|mut found| {
                    if found.len() > 1 {
                        list.ambiguous.push(found.clone());
                    }
                    (!found.is_empty()).then(|| found.swap_remove(0))
                })
            };
            if self.labels.is_some() && found.is_none() {
                list.unlabelled.extend(images.first().cloned());
            }
            list.cases.push(Case {
                patient: id.clone(),
                id,
                images,
                labels: found,
                class: None,
                slices: None,
            });
        }
        list.cases.sort_by(|a, b| natural(&a.id, &b.id));
        list.orphan_labels = labels.into_values().flatten().collect();
        list.orphan_labels.sort_by(|a, b| natural(&a.to_string_lossy(), &b.to_string_lossy()));
        Ok(list)
    }
}

fn same_place(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// The stem of the image whose labels a file of this stem would be.
fn label_base(stem: &str) -> Option<&str> {
    LABEL_SUFFIXES.iter().find_map(|suffix| stem.strip_suffix(suffix)).filter(|base| !base.is_empty())
}

fn label_key(labels: &BTreeMap<String, Vec<PathBuf>>, stem: &str) -> Option<String> {
    [""].iter()
        .chain(&LABEL_SUFFIXES)
        .map(|suffix| format!("{stem}{suffix}"))
        .find(|key| labels.contains_key(key))
}

/// `case_0003` is channel 3 of `case`.
fn channel_of(stem: &str) -> Option<(&str, usize)> {
    let (case, number) = stem.rsplit_once('_')?;
    let digits = number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit());
    (digits && !case.is_empty()).then(|| number.parse().ok().map(|n| (case, n))).flatten()
}

fn stem(path: &Path) -> String {
    if path.is_dir() {
        let name = file_name(path);
        match name.strip_suffix(".zarr").filter(|stem| !stem.is_empty()) {
            Some(stem) => stem.to_owned(),
            None => name,
        }
    } else if has_volume_extension(path) {
        volume_stem(path)
    } else {
        path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }
}

fn by_stem(paths: Vec<PathBuf>) -> BTreeMap<String, Vec<PathBuf>> {
    let mut map: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in paths {
        map.entry(stem(&path)).or_default().push(path);
    }
    map
}

fn single(images: Vec<PathBuf>, list: &mut CaseList) -> Vec<(String, Vec<PathBuf>)> {
    let mut cases = Vec::new();
    for (id, mut paths) in by_stem(images) {
        if paths.len() > 1 {
            list.ambiguous.push(paths.clone());
        }
        paths.truncate(1);
        cases.push((id, paths));
    }
    cases
}

fn join_channels(images: Vec<PathBuf>, list: &mut CaseList) -> Result<Vec<(String, Vec<PathBuf>)>> {
    let mut cases: BTreeMap<String, BTreeMap<usize, Vec<PathBuf>>> = BTreeMap::new();
    for path in images {
        let stem = stem(&path);
        let Some((case, channel)) = channel_of(&stem) else {
            return Err(DataError::content(
                &path,
                "has no channel number; expected <case>_0000, <case>_0001 … as for the other images",
            ));
        };
        cases.entry(case.to_owned()).or_default().entry(channel).or_default().push(path);
    }
    let mut joined = Vec::new();
    let mut first: Option<(String, usize)> = None;
    for (id, channels) in cases {
        let numbers: Vec<String> = channels.keys().map(|n| format!("{n:04}")).collect();
        let place = || channels.values().flatten().next().cloned().unwrap_or_default();
        if channels.keys().enumerate().any(|(i, &n)| i != n) {
            return Err(DataError::content(
                place(),
                format!(
                    "case {id} has the channels {}; expected 0000, 0001 … without a gap",
                    numbers.join(", ")
                ),
            ));
        }
        let (other, expected) = first.get_or_insert_with(|| (id.clone(), numbers.len()));
        if *expected != numbers.len() {
            return Err(DataError::content(
                place(),
                format!("case {id} has {} channels, case {other} has {expected}", numbers.len()),
            ));
        }
        let mut images = Vec::new();
        for paths in channels.into_values() {
            if paths.len() > 1 {
                list.ambiguous.push(paths.clone());
            }
            images.extend(paths.into_iter().take(1));
        }
        joined.push((id, images));
    }
    Ok(joined)
}

/// The volumes at a place, in natural order: a file or a folder that is one volume, or those in a folder.
///
/// # Errors
/// The place does not exist, can't be read or holds none.
pub fn volumes_in(place: &Path) -> Result<Vec<PathBuf>> {
    volumes_at(place, false, "volumes")
}

/// The volumes at a place, in natural order.
fn volumes_at(place: &Path, nested: bool, what: &str) -> Result<Vec<PathBuf>> {
    if place.is_file() {
        return Ok(vec![place.to_owned()]);
    }
    if !place.is_dir() {
        return Err(DataError::content(
            place,
            format!("does not exist; expected the file or folder of {what}"),
        ));
    }
    if is_one_volume(place)? {
        return Ok(vec![place.to_owned()]);
    }
    let mut volumes = Vec::new();
    collect(place, nested, &mut HashSet::new(), &mut volumes)?;
    if volumes.is_empty() {
        let extensions = crate::formats::VOLUME_EXTENSIONS.join(", ");
        let hint = if nested { "" } else { " (sub-folders are not searched)" };
        return Err(DataError::content(
            place,
            format!(
                "no volumes here{hint}; looked for files ending in {extensions}, Zarr folders and folders of slices"
            ),
        ));
    }
    volumes.sort_by(|a, b| natural(&a.to_string_lossy(), &b.to_string_lossy()));
    Ok(volumes)
}

fn collect(
    folder: &Path,
    nested: bool,
    seen: &mut HashSet<PathBuf>,
    volumes: &mut Vec<PathBuf>,
) -> Result<()> {
    // A link back up would otherwise be followed for ever.
    if folder.canonicalize().is_ok_and(|real| !seen.insert(real)) {
        return Ok(());
    }
    volumes.extend(files_in(folder, "volumes")?.into_iter().filter(|f| has_volume_extension(f)));
    for sub in folders_in(folder)? {
        if is_one_volume(&sub)? {
            volumes.push(sub);
        } else if nested {
            collect(&sub, nested, seen, volumes)?;
        }
    }
    Ok(())
}

fn folders_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| DataError::io(folder, "cannot list the folder", e);
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if !file_name(&path).starts_with('.') && path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort_by(|a, b| natural(&file_name(a), &file_name(b)));
    Ok(folders)
}

/// Whether a folder is a single volume: Zarr, or slices as pictures.
fn is_one_volume(folder: &Path) -> Result<bool> {
    if [".zarray", ".zgroup", "zarr.json"].iter().any(|name| folder.join(name).is_file()) {
        return Ok(true);
    }
    let files = files_in(folder, "volumes")?;
    let (volumes, others): (Vec<&PathBuf>, Vec<&PathBuf>) =
        files.iter().partition(|f| has_volume_extension(f));
    if volumes.is_empty() {
        return Ok(others.iter().any(|f| has_image_extension(f)));
    }
    let tiff = |path: &&PathBuf| {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        extension == "tif" || extension == "tiff"
    };
    // A file that cannot be read is named when it is opened as a volume.
    let flat = |path: &&PathBuf| volume_info(path, None).is_ok_and(|info| info.shape[0] == 1);
    Ok(volumes.len() > 1 && volumes.iter().all(tiff) && volumes.iter().all(flat))
}

// ---------------------------------------------------------------------------------------------------------------
// Classes

impl ClassificationSpec {
    fn list(&self) -> Result<CaseList> {
        match &self.table {
            Some(table) => self.list_table(&self.root.join(table)),
            None => self.list_folders(),
        }
    }

    fn list_folders(&self) -> Result<CaseList> {
        if !self.root.is_dir() {
            return Err(DataError::content(
                &self.root,
                "is not a folder; expected one sub-folder for each class",
            ));
        }
        let mut list = CaseList::default();
        for folder in folders_in(&self.root)? {
            let class = list.class_names.len();
            for image in volumes_at(&folder, false, "a class")? {
                let id = stem(&image);
                list.cases.push(Case {
                    patient: id.clone(),
                    id,
                    images: vec![image],
                    labels: None,
                    class: Some(class),
                    slices: None,
                });
            }
            list.class_names.push(file_name(&folder));
        }
        if list.class_names.len() < 2 {
            return Err(DataError::content(
                &self.root,
                format!(
                    "{} sub-folders with volumes; expected one for each of two or more classes, or a table",
                    list.class_names.len()
                ),
            ));
        }
        let mut seen = HashMap::<String, usize>::new();
        for case in &list.cases {
            *seen.entry(case.id.clone()).or_default() += 1;
        }
        for case in list.cases.iter_mut().filter(|case| seen[&case.id] > 1) {
            let class = &list.class_names[case.class.unwrap_or_default()];
            case.id = format!("{class}/{}", case.id);
            case.patient.clone_from(&case.id);
        }
        Ok(list)
    }

    fn list_table(&self, table: &Path) -> Result<CaseList> {
        const FORMAT: &str = "CSV";
        let bytes = std::fs::read(table).map_err(|e| DataError::io(table, "cannot read", e))?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| DataError::format(table, FORMAT, "it is not UTF-8 text"))?
            .trim_start_matches('\u{feff}');
        let header = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let delimiter = [b'\t', b';'].into_iter().find(|&d| header.as_bytes().contains(&d)).unwrap_or(b',');
        let mut reader =
            csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).from_reader(text.as_bytes());
        let wrong = |error: csv::Error| {
            let line = error.position().map(|p| p.line() as usize);
            match line {
                Some(line) => DataError::format_at(table, line, FORMAT, error.to_string()),
                None => DataError::format(table, FORMAT, error.to_string()),
            }
        };
        let names: Vec<String> = reader.headers().map_err(wrong)?.iter().map(str::to_owned).collect();
        let column = |name: &str| {
            names.iter().position(|found| found == name).ok_or_else(|| {
                DataError::format_at(
                    table,
                    1,
                    FORMAT,
                    format!("no column `{name}`; found {}", names.join(", ")),
                )
            })
        };
        let path_at = column(&self.path_column)?;
        let label_at = column(&self.label_column)?;
        let patient_at = self.patient_column.as_deref().map(column).transpose()?;

        let mut files = Files::default();
        let folders = [table.parent().unwrap_or(Path::new("")), self.root.as_path()];
        let mut list = CaseList::default();
        let mut labels: Vec<String> = Vec::new();
        let mut lines: HashMap<PathBuf, usize> = HashMap::new();
        let mut ids: HashMap<String, usize> = HashMap::new();
        for record in reader.records() {
            let record = record.map_err(wrong)?;
            // The parser counts a record's position from before the blank lines it skipped.
            let start = record.position().map_or(0, |p| p.byte() as usize).min(text.len());
            let skipped = text.as_bytes()[start..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
            let line = record.position().map_or(1, |p| p.line() as usize)
                + skipped.filter(|&&byte| byte == b'\n').count();
            let at = |problem: String| DataError::format_at(table, line, FORMAT, problem);
            let field = |index: usize| record.get(index).unwrap_or_default();
            let cell = field(path_at);
            if cell.is_empty() {
                return Err(at(format!(
                    "column `{}` is empty; expected the path of a volume",
                    self.path_column
                )));
            }
            let mut images = Vec::new();
            for part in cell.split('|').map(str::trim).filter(|part| !part.is_empty()) {
                images.extend(files.find(&folders, part).map_err(at)?);
            }
            for image in &images {
                if let Some(first) = lines.insert(image.clone(), line) {
                    return Err(at(format!("{} is listed on line {first} already", image.display())));
                }
            }
            let mut id = images.first().map(|image| stem(image)).unwrap_or_default();
            if images.len() > 1 {
                id = channel_of(&id).map_or(id.clone(), |(case, _)| case.to_owned());
            }
            // Images of one name in several folders are told apart by what the table calls them.
            let uses = ids.entry(id.clone()).or_default();
            *uses += 1;
            if *uses > 1 {
                id = cell.to_owned();
            }
            let patient =
                patient_at.map(field).filter(|p| !p.is_empty()).map_or_else(|| id.clone(), str::to_owned);
            labels.push(field(label_at).to_owned());
            list.cases.push(Case { id, images, labels: None, class: None, patient, slices: None });
        }
        if list.cases.is_empty() {
            return Err(DataError::content(table, "the table has no rows"));
        }
        let distinct: BTreeSet<&String> = labels.iter().filter(|label| !label.is_empty()).collect();
        let mut distinct: Vec<&String> = distinct.into_iter().collect();
        let numbers: Option<Vec<i64>> = distinct.iter().map(|label| label.parse().ok()).collect();
        match numbers {
            Some(_) => distinct.sort_by_key(|label| label.parse::<i64>().unwrap_or_default()),
            None => distinct.sort_by(|a, b| natural(a, b)),
        }
        if distinct.len() > usize::from(IGNORE) {
            return Err(DataError::content(
                table,
                format!(
                    "column `{}` has {} different values ({}); up to {IGNORE} classes are accepted",
                    self.label_column,
                    distinct.len(),
                    first_few(&distinct)
                ),
            ));
        }
        for (case, label) in list.cases.iter_mut().zip(&labels) {
            case.class = distinct.iter().position(|name| *name == label);
            if case.class.is_none() {
                list.unlabelled.extend(case.images.first().cloned());
            }
        }
        list.class_names = distinct.into_iter().cloned().collect();
        Ok(list)
    }
}

/// Finds files by name with or without extension; lists each folder once.
#[derive(Default)]
struct Files {
    listed: HashMap<PathBuf, BTreeMap<String, Vec<PathBuf>>>,
}

impl Files {
    fn find(&mut self, folders: &[&Path], name: &str) -> Result<Vec<PathBuf>, String> {
        for folder in folders {
            let path = folder.join(name);
            if path.exists() {
                return Ok(vec![path]);
            }
            let (Some(parent), Some(last)) = (path.parent(), path.file_name()) else { continue };
            let stems = self.listed.entry(parent.to_owned()).or_insert_with(|| {
                let files = files_in(parent, "volumes").unwrap_or_default();
                let folders = folders_in(parent).unwrap_or_default();
                by_stem(files.into_iter().filter(|f| has_volume_extension(f)).chain(folders).collect())
            });
            let last = last.to_string_lossy();
            if let Some(found) = stems.get(&*last) {
                return match found.as_slice() {
                    [one] => Ok(vec![one.clone()]),
                    several => Err(format!(
                        "{name} may be any of {}; give the extension",
                        several.iter().map(|p| file_name(p)).collect::<Vec<_>>().join(", ")
                    )),
                };
            }
            let channels: Vec<PathBuf> = (0..10_000)
                .map_while(|n| stems.get(&format!("{last}_{n:04}")).and_then(|found| found.first().cloned()))
                .collect();
            if !channels.is_empty() {
                return Ok(channels);
            }
        }
        let places: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        Err(format!("no volume {name}; looked in {}, with and without extension", places.join(" and ")))
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Labels

/// How the labels in a file become classes. `ignore` is looked at first, then at most one of `positive`, `threshold`
/// and `boundary`; with none of them the values are the classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRule {
    /// Number of classes, background included; 1..=255.
    pub classes: usize,
    /// These values are class 1, all others class 0.
    pub positive: Option<Vec<i32>>,
    /// Values greater than this are class 1, all others class 0.
    pub threshold: Option<i32>,
    /// These values are [`IGNORE`].
    pub ignore: Vec<i32>,
    /// The values are ids of objects (0, background, is one too): class 1 are the voxels of which one of the 6
    /// neighbours has another id, on both sides of the boundary; all others are class 0. Ignored voxels have no id.
    pub boundary: bool,
}

impl Default for LabelRule {
    /// Two classes, 0 and 1, as they are stored.
    fn default() -> Self {
        Self { classes: 2, positive: None, threshold: None, ignore: Vec::new(), boundary: false }
    }
}

/// A stored value and the number of voxels that have it.
pub(crate) type Counts = BTreeMap<i32, u64>;

pub(crate) fn count_values(values: &[i32]) -> Counts {
    // Nearly all label maps are of bytes; a map looked up for each run of a noisy one is slow.
    let mut bytes = [0u64; 256];
    let mut others: HashMap<i32, u64> = HashMap::new();
    for run in values.chunk_by(|a, b| a == b) {
        match usize::try_from(run[0]).ok().and_then(|value| bytes.get_mut(value)) {
            Some(count) => *count += run.len() as u64,
            None => *others.entry(run[0]).or_default() += run.len() as u64,
        }
    }
    others.extend((0..).zip(bytes).filter(|(_, n)| *n > 0));
    others.into_iter().collect()
}

impl LabelRule {
    /// Whether the rule makes sense.
    ///
    /// # Errors
    /// What was found and what is accepted.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=usize::from(IGNORE)).contains(&self.classes) {
            return Err(format!("{} classes; accepted: 1..={IGNORE}", self.classes));
        }
        let ways = [self.positive.is_some(), self.threshold.is_some(), self.boundary];
        let given = ways.iter().filter(|&&given| given).count();
        if given > 1 {
            return Err(
                "more than one of positive labels, threshold and boundary; accepted: one of them".into()
            );
        }
        if given == 1 && self.classes != 2 {
            let why = "positive labels, a threshold and boundaries give two classes";
            return Err(format!("{} classes, but {why}; accepted: 2", self.classes));
        }
        Ok(())
    }

    /// Whether stored values become classes as they are.
    pub(crate) fn as_stored(&self) -> bool {
        self.positive.is_none() && self.threshold.is_none() && !self.boundary
    }

    /// Whether a stored value is neither ignored nor a class.
    pub(crate) fn is_outside(&self, value: i32) -> bool {
        let class = usize::try_from(value).is_ok_and(|value| value < self.classes);
        self.as_stored() && !class && !self.ignore.contains(&value)
    }

    /// A class or [`IGNORE`] for every voxel.
    ///
    /// # Errors
    /// Values that are no class: which, where first, in how many voxels, and what may be meant.
    pub fn apply(&self, labels: &VolumeLabels) -> Result<Vec<u8>, String> {
        let ignored = |value: i32| self.ignore.contains(&value);
        if self.boundary {
            return Ok(boundaries(labels.shape, &labels.values, &ignored));
        }
        if let Some(threshold) = self.threshold {
            let class = |&v: &i32| if ignored(v) { IGNORE } else { u8::from(v > threshold) };
            return Ok(labels.values.par_iter().map(class).collect());
        }
        if let Some(positive) = &self.positive {
            let class = |&v: &i32| if ignored(v) { IGNORE } else { u8::from(positive.contains(&v)) };
            return Ok(labels.values.par_iter().map(class).collect());
        }
        if let Some(first) = labels.values.iter().position(|&v| self.is_outside(v)) {
            let [_, h, w] = labels.shape;
            let (plane, row) = ((h * w).max(1), w.max(1));
            let place = (first / plane, first % plane / row, first % row);
            return Err(self.outside(labels.values[first], Some(place), &count_values(&labels.values)));
        }
        let class = |&v: &i32| if ignored(v) { IGNORE } else { v as u8 };
        Ok(labels.values.iter().map(class).collect())
    }

    /// The message about a value that is no class.
    pub(crate) fn outside(
        &self,
        value: i32,
        place: Option<(usize, usize, usize)>,
        counts: &Counts,
    ) -> String {
        let voxels = counts.get(&value).copied().unwrap_or_default();
        let all: u64 = counts.values().sum();
        let others: Vec<String> = counts
            .keys()
            .filter(|&&other| other != value && self.is_outside(other))
            .map(|other| other.to_string())
            .collect();
        let place = place.map_or_else(String::new, |(d, h, w)| format!(", first at [{d}, {h}, {w}]"));
        let also = match others.len() {
            0 => String::new(),
            n => format!("; so are {n} other values ({})", first_few(&others)),
        };
        let hint = if others.len() >= 8 {
            "if these are ids of objects, ask for their boundaries or say which are positive"
        } else if value == 255 && counts.keys().all(|&v| v == 0 || v == 255 || self.ignore.contains(&v)) {
            "if it is the foreground, set positive = [255]; if it means ignore, set ignore_label"
        } else {
            "if it means ignore, set ignore_label"
        };
        format!(
            "label {value} outside 0..={}; {} of voxels ({voxels}{place}){also}; {hint}",
            self.classes - 1,
            percent(voxels, all)
        )
    }
}

/// A share in a form that never calls something nothing.
pub(crate) fn percent(part: u64, all: u64) -> String {
    let share = if all == 0 { 0.0 } else { 100.0 * part as f64 / all as f64 };
    if part > 0 && share < 0.01 {
        "less than 0.01 %".to_owned()
    } else if share < 1.0 {
        format!("{share:.2} %")
    } else if share < 10.0 {
        format!("{share:.1} %")
    } else {
        format!("{share:.0} %")
    }
}

fn boundaries(shape: Shape, values: &[i32], ignored: &(dyn Fn(i32) -> bool + Sync)) -> Vec<u8> {
    let [depth, height, width] = shape;
    let plane = height * width;
    let mut out = vec![0; values.len()];
    if plane == 0 {
        return out;
    }
    out.par_chunks_mut(plane).enumerate().for_each(|(d, slice)| {
        for h in 0..height {
            for w in 0..width {
                let at = (d * height + h) * width + w;
                let own = values[at];
                if ignored(own) {
                    slice[h * width + w] = IGNORE;
                    continue;
                }
                let differs = |other: i32| other != own && !ignored(other);
                let boundary = w > 0 && differs(values[at - 1])
                    || w + 1 < width && differs(values[at + 1])
                    || h > 0 && differs(values[at - width])
                    || h + 1 < height && differs(values[at + width])
                    || d > 0 && differs(values[at - plane])
                    || d + 1 < depth && differs(values[at + plane]);
                slice[h * width + w] = u8::from(boundary);
            }
        }
    });
    out
}
