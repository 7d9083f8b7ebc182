//! Volumes with labels or classes, read and prepared when asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::cache::{Bytes, MemoryCache};
use crate::formats::{open_volume, open_volume_labels, read_volume, volume_info};
use crate::rng::{Stream, rng};
use crate::tiles::below;
use crate::volume::{IGNORE, Shape, Volume, VolumeInfo, VolumeLabels, voxels};
use crate::volumes::cache::{DiskCache, identity};
use crate::volumes::cases::{Case, CaseList, LabelRule, SegmentationSpec, VolumeSource};
use crate::volumes::folds;
use crate::volumes::preprocess::{Placement, Preprocess, case_number};
use crate::{DataError, Result};

/// How volumes are read.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeOptions {
    /// What is done to them.
    pub preprocess: Preprocess,
    /// How stored labels become classes.
    pub labels: LabelRule,
    /// Bound on the prepared volumes kept in memory, in bytes (4 a voxel and channel, 1 for its label). What is in use
    /// elsewhere is not counted. A volume larger than this is made anew each time.
    pub cache_bytes: usize,
    /// Folder to keep prepared volumes in from run to run; nothing is kept if none.
    pub cache_folder: Option<PathBuf>,
    /// Seed of what is drawn while volumes are prepared.
    pub seed: u64,
}

impl Default for VolumeOptions {
    fn default() -> Self {
        Self {
            preprocess: Preprocess::default(),
            labels: LabelRule::default(),
            cache_bytes: 2 << 30,
            cache_folder: None,
            seed: 0,
        }
    }
}

/// A volume ready to cut patches from.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Normalised intensities, all finite.
    pub image: Volume,
    /// Class of every voxel, or [`IGNORE`]; `None` for an unlabelled volume.
    pub labels: Option<Vec<u8>>,
    /// Class of the whole volume.
    pub class: Option<usize>,
    /// What the file holds (of the slices that belong to the case).
    pub original: VolumeInfo,
    /// Which voxels of the original it was made from.
    pub placement: Placement,
    /// For each class but 0, whose list is empty: indices into `labels` of up to 10 000 of its voxels, drawn evenly,
    /// ascending. Empty without labels.
    pub foreground: Vec<Vec<u32>>,
}

/// As many places as nnU-Net keeps.
const FOREGROUND_VOXELS: usize = 10_000;

impl Prepared {
    pub(crate) fn new(
        image: Volume,
        labels: Option<Vec<u8>>,
        class: Option<usize>,
        original: VolumeInfo,
        placement: Placement,
        foreground: Vec<Vec<u32>>,
    ) -> Self {
        Self { image, labels, class, original, placement, foreground }
    }

    /// Memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let places: usize = self.foreground.iter().map(Vec::len).sum();
        (self.image.values.len() + places) * 4 + self.labels.as_ref().map_or(0, Vec::len)
    }
}

impl Bytes for Prepared {
    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}

/// Volumes with labels or classes, read when asked for. Cheap to clone and to split; clones and parts share one cache.
#[derive(Clone)]
pub struct VolumeDataset {
    store: Arc<Store>,
    cases: Arc<[Case]>,
}

struct Store {
    source: VolumeSource,
    options: VolumeOptions,
    list: CaseList,
    memory: MemoryCache<String, Prepared>,
    disk: Option<DiskCache>,
    /// Volumes that come from no file, by id.
    made: BTreeMap<String, Arc<Prepared>>,
}

/// A volume that comes from no file.
#[derive(Debug, Clone)]
pub struct Generated {
    /// Unique name.
    pub id: String,
    /// Intensities.
    pub volume: Volume,
    /// Stored label of every voxel, where there are labels.
    pub labels: Option<Vec<i32>>,
    /// Class of the whole volume, where there is one.
    pub class: Option<usize>,
}

impl VolumeDataset {
    /// Volumes that come from no file, prepared like those that do and all kept in memory.
    ///
    /// # Errors
    /// Labels outside the rule's classes, volumes without voxels.
    pub fn generated(volumes: impl IntoIterator<Item = Generated>, options: VolumeOptions) -> Result<Self> {
        let (mut cases, mut made) = (Vec::new(), BTreeMap::new());
        for Generated { id, volume, labels, class } in volumes {
            let wrong = |problem: String| DataError::content(&id, problem);
            let shape = volume.shape;
            if voxels(shape) == 0 || volume.channels == 0 {
                return Err(wrong(format!("has no voxels: {}", show(shape))));
            }
            let original = VolumeInfo { channels: volume.channels, shape, geometry: volume.geometry.clone() };
            let geometry = volume.geometry.clone();
            let (image, placement) = options.preprocess.image(volume, options.seed, &id).map_err(wrong)?;
            let labels = labels.map(|values| {
                let labels = placement.labels(VolumeLabels { shape, values, geometry });
                options.labels.apply(&labels)
            });
            let labels = labels.transpose().map_err(wrong)?;
            let foreground = labels
                .as_ref()
                .map(|labels| sample_foreground(labels, options.labels.classes, options.seed, &id))
                .unwrap_or_default();
            let prepared = Prepared::new(image, labels, class, original, placement, foreground);
            made.insert(id.clone(), Arc::new(prepared));
            cases.push(Case {
                patient: id.clone(),
                id,
                images: Vec::new(),
                labels: None,
                class,
                slices: None,
            });
        }
        let store = Store {
            source: VolumeSource::Segmentation(SegmentationSpec::default()),
            options,
            list: CaseList::default(),
            memory: MemoryCache::new(0),
            disk: None,
            made,
        };
        Ok(Self { store: Arc::new(store), cases: cases.into() })
    }

    /// A hash of everything the cases are made of: contents of files, classes, parts.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn fingerprint(&self) -> Result<String> {
        let hashes: Vec<Result<blake3::Hash>> = self
            .cases
            .par_iter()
            .map(|case| {
                let mut hasher = blake3::Hasher::new();
                hasher.update(format!("{} {:?} {:?}\n", case.id, case.class, case.slices).as_bytes());
                for path in case.images.iter().chain(&case.labels) {
                    hash_files(path, &mut hasher)?;
                }
                if let Some(made) = self.store.made.get(&case.id) {
                    for values in made.image.values.chunks(1 << 14) {
                        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                        hasher.update(&bytes);
                    }
                    hasher.update(made.labels.as_deref().unwrap_or_default());
                }
                Ok(hasher.finalize())
            })
            .collect();
        let mut all = blake3::Hasher::new();
        for hash in hashes {
            all.update(hash?.as_bytes());
        }
        Ok(all.finalize().to_hex().to_string())
    }

    /// Prepares a volume that belongs to no data set, for prediction.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn prepare(volume: Volume, id: &str, options: &VolumeOptions) -> Result<Prepared, String> {
        let original =
            VolumeInfo { channels: volume.channels, shape: volume.shape, geometry: volume.geometry.clone() };
        if voxels(volume.shape) == 0 {
            return Err(format!("has no voxels: {}", show(volume.shape)));
        }
        let (image, placement) = options.preprocess.image(volume, options.seed, id)?;
        Ok(Prepared::new(image, None, None, original, placement, Vec::new()))
    }

    /// Opens a data set: lists the files, pairs them and compares the shapes in their headers. Voxels are read later.
    ///
    /// # Errors
    /// Places that are missing or empty, several files where one is expected, an image of another shape than its
    /// labels or its other channels, unreadable headers, options out of range. Images without labels are no error.
    pub fn open(source: VolumeSource, options: VolumeOptions) -> Result<Self> {
        let dataset = Self::open_unchecked(source, options)?;
        if let Some(files) = dataset.store.list.ambiguous.first() {
            let names: Vec<_> = files[1..].iter().map(|f| f.display().to_string()).collect();
            return Err(DataError::content(
                &files[0],
                format!("is one of several files with the same meaning ({} too); keep one", names.join(", ")),
            ));
        }
        let checks: Vec<Result<()>> =
            (0..dataset.len()).into_par_iter().map(|i| dataset.check_shape(i)).collect();
        checks.into_iter().collect::<Result<()>>()?;
        Ok(dataset)
    }

    /// Opens a data set whose files may not fit together, to have them examined by [`super::audit::audit`].
    ///
    /// # Errors
    /// Places that are missing or empty, options out of range.
    pub fn open_unchecked(source: VolumeSource, options: VolumeOptions) -> Result<Self> {
        let checked = options.preprocess.check().and_then(|()| options.labels.check());
        checked.map_err(|problem| DataError::content(source.place(), problem))?;
        let list = source.list()?;
        let disk = options.cache_folder.as_deref().map(DiskCache::open).transpose()?;
        let memory = MemoryCache::new(options.cache_bytes);
        let cases = list.cases.clone().into();
        Ok(Self {
            store: Arc::new(Store { source, options, list, memory, disk, made: BTreeMap::new() }),
            cases,
        })
    }

    /// Number of cases.
    pub fn len(&self) -> usize {
        self.cases.len()
    }

    /// Whether there are no cases; only a part of a data set can be empty.
    pub fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    /// The cases, in order.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// What the source found, all of it, whatever part this is.
    pub fn list(&self) -> &CaseList {
        &self.store.list
    }

    /// Where it comes from.
    pub fn source(&self) -> &VolumeSource {
        &self.store.source
    }

    /// How it is read.
    pub fn options(&self) -> &VolumeOptions {
        &self.store.options
    }

    /// Bytes of the prepared volumes that are kept in memory now.
    pub fn cached_bytes(&self) -> usize {
        self.store.memory.bytes()
    }

    /// The cases `picks` of this data set, in that order.
    ///
    /// # Panics
    /// If there is no such case.
    pub fn subset(&self, picks: &[usize]) -> Self {
        self.with_cases(picks.iter().map(|&i| self.cases[i].clone()).collect())
    }

    /// The cases that can be trained on: with labels, or with a class.
    pub fn labelled(&self) -> Self {
        let has = |case: &&Case| case.labels.is_some() || case.class.is_some();
        self.with_cases(self.cases.iter().filter(has).cloned().collect())
    }

    /// Other cases, or parts of cases, of the same source.
    pub fn with_cases(&self, cases: Vec<Case>) -> Self {
        Self { store: Arc::clone(&self.store), cases: cases.into() }
    }

    /// Every volume but its last `n` slices, and the last `n` slices of every volume.
    ///
    /// # Errors
    /// Unreadable headers; a volume without slices left on either side.
    pub fn split_last_slices(&self, n: usize) -> Result<(Self, Self)> {
        let depths: Vec<usize> =
            (0..self.len()).map(|i| self.stored_info(i).map(|info| info.shape[0])).collect::<Result<_>>()?;
        let (train, validation) = folds::last_slices(&self.cases, &depths, n)?;
        Ok((self.with_cases(train), self.with_cases(validation)))
    }

    /// Depth, height and width of every case as its file has them (before anything is done to it), from the headers.
    ///
    /// # Errors
    /// An unreadable header.
    pub fn shapes(&self) -> Result<Vec<Shape>> {
        let shapes: Vec<Result<Shape>> =
            (0..self.len()).into_par_iter().map(|i| self.info(i).map(|info| info.shape)).collect();
        shapes.into_iter().collect()
    }

    /// What the files of case `i` hold, all channels together, of the slices that belong to it; from the headers.
    ///
    /// # Errors
    /// An unreadable header.
    ///
    /// # Panics
    /// If there is no case `i`.
    pub fn info(&self, i: usize) -> Result<VolumeInfo> {
        let mut info = self.stored_info(i)?;
        if let Some(range) = &self.cases[i].slices {
            check_slices(&self.place(i), range, info.shape)?;
            take_slices(&mut info.shape, &mut info.geometry, range);
        }
        Ok(info)
    }

    /// What to name in a message about case `i`.
    fn place(&self, i: usize) -> PathBuf {
        self.cases[i].images.first().cloned().unwrap_or_else(|| PathBuf::from(&self.cases[i].id))
    }

    fn stored_info(&self, i: usize) -> Result<VolumeInfo> {
        let case = &self.cases[i];
        if let Some(made) = self.store.made.get(&case.id) {
            return Ok(made.original.clone());
        }
        let mut whole: Option<VolumeInfo> = None;
        for path in &case.images {
            let info = volume_info(path, self.store.source.image_dataset())?;
            match &mut whole {
                None => whole = Some(info),
                Some(whole) => {
                    same_shape(&case.images[0], whole.shape, path, info.shape)?;
                    whole.channels += info.channels;
                }
            }
        }
        whole.ok_or_else(|| {
            DataError::content(self.store.source.place(), format!("case {} has no image", case.id))
        })
    }

    fn check_shape(&self, i: usize) -> Result<()> {
        let info = self.stored_info(i)?;
        let case = &self.cases[i];
        if let (Some(labels), Some(image)) = (&case.labels, case.images.first()) {
            let found = volume_info(labels, self.store.source.label_dataset())?;
            same_shape(image, info.shape, labels, found.shape)?;
        }
        Ok(())
    }

    /// Case `i`, prepared; from memory, from the folder of prepared volumes, or from its files. Any number of threads
    /// may call this at once.
    ///
    /// # Errors
    /// Unreadable files, labels of another shape than their image, labels that are no class, a folder of prepared
    /// volumes that cannot be written to.
    ///
    /// # Panics
    /// If there is no case `i`.
    pub fn load(&self, i: usize) -> Result<Arc<Prepared>> {
        let case = &self.cases[i];
        let store = &*self.store;
        if let Some(made) = store.made.get(&case.id) {
            return match case.slices {
                None => Ok(Arc::clone(made)),
                Some(_) => {
                    Err(DataError::content(&case.id, "a part of a generated volume; accepted: all of it"))
                }
            };
        }
        // Also the files: of two cases given by hand the names might be the same.
        let place = format!("{} {:?} {:?} {:?}", case.id, case.images, case.labels, case.slices);
        store.memory.get(format!("{place} {:?}", case.class), || match &store.disk {
            None => store.prepare(case),
            Some(disk) => {
                let key = store.key(case)?;
                let mut prepared = disk.get(&place, &key, || store.prepare(case))?;
                prepared.class = case.class;
                Ok(prepared)
            }
        })
    }
}

impl std::fmt::Debug for VolumeDataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VolumeDataset")
            .field("source", &self.store.source)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

fn show(shape: Shape) -> String {
    let [d, h, w] = shape;
    format!("{d}x{h}x{w}")
}

fn same_shape(image: &Path, shape: Shape, other: &Path, found: Shape) -> Result<()> {
    if shape == found {
        return Ok(());
    }
    Err(DataError::content(
        other,
        format!(
            "has {} voxels (depth x height x width), {} has {}; expected the same",
            show(found),
            image.display(),
            show(shape)
        ),
    ))
}

fn check_slices(path: &Path, range: &std::ops::Range<usize>, shape: Shape) -> Result<()> {
    if range.start < range.end && range.end <= shape[0] {
        return Ok(());
    }
    Err(DataError::content(
        path,
        format!("slices {range:?} of {}; accepted: a part of 0..{}", shape[0], shape[0]),
    ))
}

fn take_slices(shape: &mut Shape, geometry: &mut crate::volume::Geometry, range: &std::ops::Range<usize>) {
    shape[0] = range.len();
    for row in &mut geometry.affine {
        row[3] += row[2] * range.start as f64;
    }
}

impl Store {
    /// The image of a case as its files have it, all channels, the case's slices.
    fn read_image(&self, case: &Case) -> Result<Volume> {
        let mut whole: Option<Volume> = None;
        for path in &case.images {
            let volume = match &case.slices {
                None => read_volume(path, self.source.image_dataset())?,
                Some(range) => {
                    let mut reader = open_volume(path, self.source.image_dataset())?;
                    let mut info = reader.info().clone();
                    check_slices(path, range, info.shape)?;
                    let values = reader.slices(range.clone())?;
                    take_slices(&mut info.shape, &mut info.geometry, range);
                    Volume { channels: info.channels, shape: info.shape, values, geometry: info.geometry }
                }
            };
            match &mut whole {
                None => whole = Some(volume),
                Some(whole) => {
                    same_shape(&case.images[0], whole.shape, path, volume.shape)?;
                    whole.channels += volume.channels;
                    whole.values.extend(volume.values);
                }
            }
        }
        whole.ok_or_else(|| DataError::content(self.source.place(), format!("case {} has no image", case.id)))
    }

    /// The labels of a case as their file has them, the case's slices.
    fn read_labels(&self, case: &Case, path: &Path) -> Result<VolumeLabels> {
        let mut reader = open_volume_labels(path, self.source.label_dataset())?;
        let VolumeInfo { mut shape, mut geometry, .. } = reader.info().clone();
        let range = case.slices.clone().unwrap_or(0..shape[0]);
        if case.slices.is_some() {
            check_slices(path, &range, shape)?;
            take_slices(&mut shape, &mut geometry, &range);
        }
        Ok(VolumeLabels { shape, values: reader.slices(range)?, geometry })
    }

    fn prepare(&self, case: &Case) -> Result<Prepared> {
        let place = || case.images.first().cloned().unwrap_or_default();
        let image = self.read_image(case)?;
        if voxels(image.shape) == 0 || image.channels == 0 {
            return Err(DataError::content(place(), format!("has no voxels: {}", show(image.shape))));
        }
        let original =
            VolumeInfo { channels: image.channels, shape: image.shape, geometry: image.geometry.clone() };
        let labels = match &case.labels {
            Some(path) => {
                let labels = self.read_labels(case, path)?;
                same_shape(&place(), image.shape, path, labels.shape)?;
                Some((path, labels))
            }
            None => None,
        };
        let (image, placement) = self
            .options
            .preprocess
            .image(image, self.options.seed, &case.id)
            .map_err(|problem| DataError::content(place(), problem))?;
        if voxels(image.shape) > u32::MAX as usize {
            return Err(DataError::content(
                place(),
                format!("{} voxels when prepared; accepted: fewer than 2^32", show(image.shape)),
            ));
        }
        let labels = match labels {
            Some((path, labels)) => {
                // Resampled as they are stored: a boundary between objects would not survive it, the objects do.
                let classes = self.options.labels.apply(&placement.labels(labels));
                Some(classes.map_err(|problem| DataError::content(path, problem))?)
            }
            None => None,
        };
        let foreground = match &labels {
            Some(labels) => {
                sample_foreground(labels, self.options.labels.classes, self.options.seed, &case.id)
            }
            None => Vec::new(),
        };
        Ok(Prepared::new(image, labels, case.class, original, placement, foreground))
    }

    /// Everything that decides what a prepared volume looks like.
    fn key(&self, case: &Case) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        let options = &self.options;
        hasher.update(
            format!(
                "{:?} {:?} {} {:?} {:?} {:?} {}\n",
                options.preprocess,
                options.labels,
                options.seed,
                case.slices,
                self.source.image_dataset(),
                self.source.label_dataset(),
                case.id
            )
            .as_bytes(),
        );
        for path in case.images.iter().chain(&case.labels) {
            hasher.update(identity(path)?.as_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// See [`Prepared::foreground`].
fn sample_foreground(labels: &[u8], classes: usize, seed: u64, case: &str) -> Vec<Vec<u32>> {
    let mut left = vec![0u64; classes];
    for run in labels.chunk_by(|a, b| a == b) {
        if let Some(count) = left.get_mut(usize::from(run[0])) {
            *count += run.len() as u64;
        }
    }
    let mut places: Vec<Vec<u32>> = left
        .iter()
        .enumerate()
        .map(|(class, &n)| {
            Vec::with_capacity(if class == 0 { 0 } else { n.min(FOREGROUND_VOXELS as u64) as usize })
        })
        .collect();
    let mut draw = rng(seed, Stream::Prepare, case_number(case));
    for (at, &label) in labels.iter().enumerate() {
        let class = usize::from(label);
        if label == 0 || label == IGNORE || class >= classes {
            continue;
        }
        // Each with the chance that fills the list exactly (Knuth, The Art of Computer Programming 2, 3.4.2 S).
        let wanted = (FOREGROUND_VOXELS - places[class].len()) as u64;
        if wanted > 0 && (left[class] <= wanted || below(&mut draw, left[class]) < wanted) {
            places[class].push(at as u32);
        }
        left[class] -= 1;
    }
    places
}

impl VolumeDataset {
    pub(crate) fn read_labels(&self, case: &Case, path: &Path) -> Result<VolumeLabels> {
        self.store.read_labels(case, path)
    }
}

/// Contents of a file, or of every file in a folder by name.
fn hash_files(path: &Path, hasher: &mut blake3::Hasher) -> Result<()> {
    if !path.is_dir() {
        let file = std::fs::File::open(path).map_err(|e| DataError::io(path, "cannot read", e))?;
        hasher.update_reader(file).map_err(|e| DataError::io(path, "cannot read", e))?;
        return Ok(());
    }
    let failed = |e| DataError::io(path, "cannot list the folder", e);
    let entries = std::fs::read_dir(path).map_err(failed)?;
    let mut below: Vec<PathBuf> =
        entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>().map_err(failed)?;
    below.sort();
    for path in below {
        hasher.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hash_files(&path, hasher)?;
    }
    Ok(())
}
