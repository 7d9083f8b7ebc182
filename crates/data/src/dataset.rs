//! Datasets: images with labels, read when asked for and kept in a cache of bounded size.
//!
//! A [`Dataset`] comes from a [`Source`]: folders of images and masks (or particle coordinates), `.npz` batches, or
//! generated micrographs. It can be split and shared between threads; parts share one cache.
//!
//! Labels are in {-1, 0, 1}: background 0, foreground 1, and -1 for pixels to be ignored.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use crate::cache::{Bytes, MemoryCache};
use crate::coordinates::{MicrographParticles, Particle};
use crate::image::{Image, Labels};
use crate::synth::{self, MicrographConfig};
use crate::{DataError, Result, discs, formats};

/// An image, normalised, with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// File stem, `file#index` in an `.npz` batch, or `synth-000000`.
    pub name: String,
    /// Normalised intensities, all finite.
    pub image: Image,
    /// Labels in {-1, 0, 1} in the layout of the image; `None` for an unlabelled image.
    pub labels: Option<Vec<i8>>,
}

/// How the intensities of an image are brought to a common scale. Each image by itself, over its finite pixels;
/// pixels that are not finite then get the image's mean. An image of one value becomes 0 (except with `None`).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Normalise {
    /// Mean 0, standard deviation 1.
    #[default]
    ZScore,
    /// As in the file.
    None,
    /// The `lo`-th percentile becomes 0, the `hi`-th 1; what lies outside is clipped. 0 <= lo < hi <= 100.
    Percentile {
        /// Lower percentile, 0..100.
        lo: f64,
        /// Upper percentile, 0..100.
        hi: f64,
    },
}

/// How a dataset is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Scale of the intensities.
    pub normalise: Normalise,
    /// Bound on the decoded images and labels that are kept, in bytes (5 for a labelled pixel). What is in use
    /// elsewhere is not counted. An image, or an `.npz` file, larger than this is read anew each time.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { normalise: Normalise::ZScore, cache_bytes: 2 << 30 }
    }
}

/// Where a dataset comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Folders of image files.
    Folder(FolderSpec),
    /// `.npz` batches.
    Npz(NpzSpec),
    /// Generated micrographs.
    Synth(SynthSpec),
}

/// Folders of images with masks or particle coordinates, paired by file stem.
///
/// - Images: every file in `root/images` with one of the extensions [`formats::IMAGE_EXTENSIONS`], in natural order
///   (`m2` before `m10`). Hidden files and sub-folders are passed over.
/// - Masks: `<stem>.*` or `<stem>_mask.*` in `root/masks`, which may be the images' folder (then only `_mask` files
///   are masks). Values {-1, 0, 1}, any part of them, are taken as they are; a mask of {0, 255} is 0 and 1. All
///   else is an error unless `mask_threshold` is set. A file of unsigned bytes cannot hold -1: `ignore_value` names
///   the value that stands for it.
/// - Coordinates: `root/coordinates` is a folder with `<stem>.{star,box,txt,csv}`, or with a file that names several
///   micrographs, or is itself such a file. Particles are drawn as filled discs; everything else is background.
///
/// With both masks and coordinates, labels come from the masks.
#[derive(Debug, Clone, PartialEq)]
pub struct FolderSpec {
    /// The folder the others are relative to.
    pub root: PathBuf,
    /// Folder of the images; may be empty or `.` for `root` itself.
    pub images: PathBuf,
    /// Folder of the masks.
    pub masks: Option<PathBuf>,
    /// Folder or file of the particle coordinates.
    pub coordinates: Option<PathBuf>,
    /// Diameter in pixels of particles whose file gives none; > 0.
    pub particle_diameter: Option<f64>,
    /// Mask values greater than this are 1, all others 0.
    pub mask_threshold: Option<i32>,
    /// The mask value that means *ignore*; looked at before anything else.
    pub ignore_value: Option<i32>,
    /// Whether images without a mask (or coordinates) are accepted, as unlabelled.
    pub unlabelled_ok: bool,
}

impl FolderSpec {
    /// Images in `root/images`, no labels, everything else unset.
    pub fn new(root: impl Into<PathBuf>, images: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            images: images.into(),
            masks: None,
            coordinates: None,
            particle_diameter: None,
            mask_threshold: None,
            ignore_value: None,
            unlabelled_ok: false,
        }
    }
}

/// `.npz` files, each with an array `images` and possibly `masks`.
#[derive(Debug, Clone, PartialEq)]
pub struct NpzSpec {
    /// Files, read in the given order, and folders, of which every `.npz` file is read in natural order.
    pub paths: Vec<PathBuf>,
    /// As in [`FolderSpec::mask_threshold`].
    pub mask_threshold: Option<i32>,
    /// As in [`FolderSpec::ignore_value`].
    pub ignore_value: Option<i32>,
}

/// Generated micrographs `first_index..first_index + count`.
#[derive(Debug, Clone)]
pub struct SynthSpec {
    /// What they look like.
    pub config: MicrographConfig,
    /// Seed of the generator.
    pub seed: u64,
    /// How many.
    pub count: usize,
    /// Index of the first: give training and validation ranges that do not overlap.
    pub first_index: u64,
}

// ---------------------------------------------------------------------------------------------------------------
// What lies in the folders

/// What a [`FolderSpec`] finds, before anything is decoded.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// One for each image, in natural order of the stems. Of images with the same stem, only the first.
    pub pairs: Vec<Listed>,
    /// Images that have no mask, or where only coordinates are asked for, no coordinates.
    pub missing_labels: Vec<PathBuf>,
    /// Masks that belong to no image.
    pub orphan_masks: Vec<PathBuf>,
    /// Several files where one is expected: images of one stem, or masks (or coordinates) of one image.
    pub ambiguous: Vec<Vec<PathBuf>>,
    /// Coordinate files that belong to no image by their name and cannot be read, each with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// An image file and what belongs to it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// File stem of the image.
    pub stem: String,
    /// The image file.
    pub image: PathBuf,
    /// The mask file, where there is one.
    pub mask: Option<PathBuf>,
    /// The coordinates, where there are some.
    pub coordinates: Option<Coordinates>,
}

/// Coordinates of one image.
#[derive(Debug, Clone)]
pub enum Coordinates {
    /// A file for this image alone, read when needed.
    File(PathBuf),
    /// Taken from a file that names several micrographs.
    Shared {
        /// The file.
        path: PathBuf,
        /// The particles of this image.
        particles: Arc<Vec<Particle>>,
    },
}

impl Coordinates {
    fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Shared { path, .. } => path,
        }
    }

    fn read(&self, stem: &str) -> Result<Vec<Particle>> {
        match self {
            Self::Shared { particles, .. } => Ok(particles.to_vec()),
            Self::File(path) => {
                let mut groups = formats::read_coordinates(path)?;
                let position = groups
                    .iter()
                    .position(|g| stem_candidates(&g.micrograph).any(|c| c == stem))
                    // A file of this image's own that names no micrograph, or another one, is still its own.
                    .or((groups.len() == 1).then_some(0));
                match position {
                    Some(position) => Ok(groups.swap_remove(position).particles),
                    None if groups.is_empty() => Ok(Vec::new()),
                    None => {
                        let names: Vec<_> = groups.iter().map(|g| g.micrograph.as_str()).collect();
                        let found = some_of(&names, "micrographs");
                        Err(DataError::content(path, format!("names {found}, none of which is {stem}")))
                    }
                }
            }
        }
    }
}

impl FolderSpec {
    /// Looks which files are there and pairs them. Decodes nothing but shared coordinate files.
    ///
    /// # Errors
    /// A folder that does not exist or cannot be read, no image in it. Files that do not pair are no error here but
    /// part of the listing.
    pub fn list(&self) -> Result<Listing> {
        let images_dir = self.root.join(&self.images);
        let masks_dir = self.masks.as_ref().map(|masks| self.root.join(masks));
        let same_dir = masks_dir.as_ref().is_some_and(|masks| same_place(masks, &images_dir));

        let files = files_in(&images_dir, "the images")?;
        let mut by_stem: BTreeMap<NaturalKey, Vec<PathBuf>> = BTreeMap::new();
        for file in files.iter().filter(|f| is_image(f)) {
            let stem = stem_of(file);
            if !(same_dir && stem.ends_with(MASK_SUFFIX)) {
                by_stem.entry(NaturalKey(stem)).or_default().push(file.clone());
            }
        }
        if by_stem.is_empty() {
            let extensions = formats::IMAGE_EXTENSIONS.join(", ");
            let others = match files.len() {
                0 => "the folder is empty".to_owned(),
                n => format!("{n} other files, such as {}", files[0].display()),
            };
            return Err(DataError::content(
                &images_dir,
                format!("no images here; looked for files ending in {extensions}; found {others}"),
            ));
        }

        let mut listing = Listing::default();
        let mut masks = match &masks_dir {
            Some(dir) => list_masks(dir, same_dir)?,
            None => HashMap::new(),
        };
        let mut coordinates = match &self.coordinates {
            Some(coordinates) => CoordinateFiles::list(&self.root.join(coordinates))?,
            None => CoordinateFiles::default(),
        };
        for (NaturalKey(stem), mut images) in by_stem {
            if images.len() > 1 {
                listing.ambiguous.push(images.clone());
            }
            let image = images.swap_remove(0);
            let plain = if same_dir { None } else { masks.remove(&stem) };
            let suffixed = masks.remove(&format!("{stem}{MASK_SUFFIX}"));
            let mut found: Vec<PathBuf> = plain.into_iter().chain(suffixed).flatten().collect();
            if found.len() > 1 {
                listing.ambiguous.push(found.clone());
            }
            let mask = (!found.is_empty()).then(|| found.swap_remove(0));
            if self.masks.is_some() && mask.is_none() {
                listing.missing_labels.push(image.clone());
            }
            let coordinates = coordinates.take(&stem, &mut listing.ambiguous);
            listing.pairs.push(Listed { stem, image, mask, coordinates });
        }
        listing.orphan_masks = masks.into_values().flatten().collect();
        listing.orphan_masks.sort_by(|a, b| natural(&a.to_string_lossy(), &b.to_string_lossy()));
        if self.coordinates.is_some() {
            coordinates.share(&mut listing, self.masks.is_none());
        }
        Ok(listing)
    }

    fn check(&self, listing: &Listing) -> Result<()> {
        if let Some(files) = listing.ambiguous.first() {
            let names: Vec<_> = files[1..].iter().map(|f| f.display().to_string()).collect();
            return Err(DataError::content(
                &files[0],
                format!("is one of several files with the same meaning ({} too); keep one", names.join(", ")),
            ));
        }
        if !self.unlabelled_ok && !listing.missing_labels.is_empty() {
            let names: Vec<_> = listing.missing_labels.iter().map(|f| file_name(f)).collect();
            let (folder, what, accepted) = match (&self.masks, &self.coordinates) {
                (Some(masks), _) => (masks, "mask", "<stem>.* or <stem>_mask.*".to_owned()),
                (None, Some(c)) => {
                    (c, "coordinates", format!("<stem>.{{{}}}", COORDINATE_EXTENSIONS.join(",")))
                }
                (None, None) => return Ok(()),
            };
            let not_read: String =
                listing.unreadable.iter().map(|(_, why)| format!("; not read: {why}")).collect();
            return Err(DataError::content(
                self.root.join(folder),
                format!(
                    "no {what} for {} of {} images: {}; looked for {accepted}{not_read}",
                    names.len(),
                    listing.pairs.len(),
                    first_few(&names)
                ),
            ));
        }
        Ok(())
    }
}

const MASK_SUFFIX: &str = "_mask";
const COORDINATE_EXTENSIONS: [&str; 4] = ["star", "box", "txt", "csv"];

fn list_masks(dir: &Path, same_dir: bool) -> Result<HashMap<String, Vec<PathBuf>>> {
    let mut masks: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for file in files_in(dir, "the masks")? {
        let stem = stem_of(&file);
        if is_image(&file) && (!same_dir || stem.ends_with(MASK_SUFFIX)) {
            masks.entry(stem).or_default().push(file);
        }
    }
    if masks.is_empty() {
        let extensions = formats::IMAGE_EXTENSIONS.join(", ");
        return Err(DataError::content(
            dir,
            format!("no masks here; looked for files ending in {extensions}"),
        ));
    }
    Ok(masks)
}

#[derive(Default)]
struct CoordinateFiles {
    by_stem: BTreeMap<String, Vec<PathBuf>>,
}

impl CoordinateFiles {
    fn list(place: &Path) -> Result<Self> {
        let mut by_stem: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        if place.is_file() {
            by_stem.entry(stem_of(place)).or_default().push(place.to_owned());
            return Ok(Self { by_stem });
        }
        for file in files_in(place, "the particle coordinates")? {
            if has_extension(&file, &COORDINATE_EXTENSIONS) {
                by_stem.entry(stem_of(&file)).or_default().push(file);
            }
        }
        if by_stem.is_empty() {
            let problem = format!(
                "no coordinates here; looked for files ending in {}",
                COORDINATE_EXTENSIONS.join(", ")
            );
            return Err(DataError::content(place, problem));
        }
        Ok(Self { by_stem })
    }

    fn take(&mut self, stem: &str, ambiguous: &mut Vec<Vec<PathBuf>>) -> Option<Coordinates> {
        let mut files = self.by_stem.remove(stem)?;
        if files.len() > 1 {
            ambiguous.push(files.clone());
        }
        Some(Coordinates::File(files.swap_remove(0)))
    }

    /// Gives the images without a file of their own what the remaining files have under their names.
    fn share(self, listing: &mut Listing, labels_needed: bool) {
        if listing.pairs.iter().all(|pair| pair.coordinates.is_some()) {
            return;
        }
        let mut named: HashMap<String, (PathBuf, Arc<Vec<Particle>>)> = HashMap::new();
        for path in self.by_stem.into_values().flatten() {
            let groups = match formats::read_coordinates(&path) {
                Ok(groups) => groups,
                Err(e) => {
                    listing.unreadable.push((path, e.to_string()));
                    continue;
                }
            };
            for MicrographParticles { micrograph, particles } in groups {
                let particles = Arc::new(particles);
                for stem in stem_candidates(&micrograph) {
                    named.entry(stem.to_owned()).or_insert_with(|| (path.clone(), Arc::clone(&particles)));
                }
            }
        }
        for pair in listing.pairs.iter_mut().filter(|pair| pair.coordinates.is_none()) {
            if let Some((path, particles)) = named.get(&pair.stem) {
                pair.coordinates =
                    Some(Coordinates::Shared { path: path.clone(), particles: Arc::clone(particles) });
            }
        }
        if labels_needed {
            let without = listing.pairs.iter().filter(|pair| pair.coordinates.is_none());
            listing.missing_labels = without.map(|pair| pair.image.clone()).collect();
        }
    }
}

/// The stems a micrograph name such as `MotionCorr/job002/m01.mrc` may stand for: the last part of the path as it is
/// (a stem may contain dots) and without its extension.
fn stem_candidates(micrograph: &str) -> impl Iterator<Item = &str> {
    let name = micrograph.rsplit(['/', '\\']).next().unwrap_or(micrograph);
    let cut = name.rsplit_once('.').map(|(stem, _)| stem);
    [Some(name), cut].into_iter().flatten().filter(|stem| !stem.is_empty())
}

pub(crate) fn files_in(dir: &Path, what: &str) -> Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        let problem = if dir.exists() { "is not a folder" } else { "does not exist" };
        return Err(DataError::content(dir, format!("{problem}; expected the folder of {what}")));
    }
    let entries = std::fs::read_dir(dir).map_err(|e| DataError::io(dir, "cannot list the folder", e))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| DataError::io(dir, "cannot list the folder", e))?.path();
        if !file_name(&path).starts_with('.') && path.is_file() {
            files.push(path);
        }
    }
    files.sort_by(|a, b| natural(&file_name(a), &file_name(b)));
    Ok(files)
}

fn same_place(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    extensions.contains(&extension.as_str())
}

fn is_image(path: &Path) -> bool {
    formats::has_image_extension(path)
}

/// The name without its extension; `.mrc.gz` is one extension.
fn stem_of(path: &Path) -> String {
    let name = file_name(path);
    let cut =
        formats::IMAGE_EXTENSIONS.iter().filter(|extension| extension.contains('.')).find_map(|extension| {
            let at = name.len().checked_sub(extension.len() + 1)?;
            let tail = name.get(at..)?.strip_prefix('.')?;
            tail.eq_ignore_ascii_case(extension).then(|| name[..at].to_owned())
        });
    cut.unwrap_or_else(|| path.file_stem().unwrap_or_default().to_string_lossy().into_owned())
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

pub(crate) fn first_few(names: &[impl AsRef<str>]) -> String {
    let shown: Vec<&str> = names.iter().take(5).map(AsRef::as_ref).collect();
    let more = names.len() - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

fn some_of(names: &[impl AsRef<str>], what: &str) -> String {
    format!("{} {what} ({})", names.len(), first_few(names))
}

struct NaturalKey(String);

impl Ord for NaturalKey {
    fn cmp(&self, other: &Self) -> Ordering {
        natural(&self.0, &other.0)
    }
}
impl PartialOrd for NaturalKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for NaturalKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for NaturalKey {}

/// Text order, but runs of digits compare as numbers; equal only for equal texts.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    fn digits(s: &[u8]) -> (&[u8], &[u8]) {
        s.split_at(s.iter().position(|c| !c.is_ascii_digit()).unwrap_or(s.len()))
    }
    fn significant(digits: &[u8]) -> &[u8] {
        &digits[digits.iter().position(|&c| c != b'0').unwrap_or(digits.len())..]
    }
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    while let (Some(x), Some(y)) = (left.first(), right.first()) {
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let ((m, rest_left), (n, rest_right)) = (digits(left), digits(right));
            let (m, n) = (significant(m), significant(n));
            match m.len().cmp(&n.len()).then_with(|| m.cmp(n)) {
                Ordering::Equal => (left, right) = (rest_left, rest_right),
                unequal => return unequal,
            }
        } else if x == y {
            (left, right) = (&left[1..], &right[1..]);
        } else {
            return x.cmp(y);
        }
    }
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}

// ---------------------------------------------------------------------------------------------------------------
// The dataset

/// Images with labels, read when asked for. Cheap to clone and to split; clones and parts share one cache.
#[derive(Clone)]
pub struct Dataset {
    pub(crate) store: Arc<Store>,
    indices: Arc<[usize]>,
}

/// All entries of a source.
pub(crate) struct Store {
    pub(crate) source: Source,
    pub(crate) listing: Option<Listing>,
    /// Files passed over because they cannot be read, each with the reason.
    pub(crate) unreadable: Vec<(PathBuf, String)>,
    options: Options,
    pub(crate) entries: Vec<Entry>,
    /// What is read and cached together: one image, or all of an `.npz` file. `groups[g]` are its entries.
    pub(crate) groups: Vec<Vec<usize>>,
    cache: Cache,
}

pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) group: usize,
    /// Number of the entry in its group.
    member: usize,
    place: Place,
    labelled: bool,
    size: OnceLock<(usize, usize)>,
}

enum Place {
    /// Index into the listing's pairs.
    Listed(usize),
    Npz(PathBuf),
    Synth(u64),
}

/// An entry as its files have it.
pub(crate) struct RawEntry {
    pub(crate) image: Result<Image>,
    pub(crate) labels: Result<Option<Labels>>,
}

impl Dataset {
    /// Opens a dataset: lists the files, pairs them and compares the sizes in their headers. Pixels are read later.
    ///
    /// # Errors
    /// Folders that are missing or empty, files that do not pair, images of another size than their masks,
    /// unreadable headers, options out of range.
    pub fn open(source: Source, options: Options) -> Result<Self> {
        let dataset = Self::build(source, options, true)?;
        if let (Source::Folder(spec), Some(listing)) = (&dataset.store.source, &dataset.store.listing) {
            spec.check(listing)?;
            let checks: Vec<Result<()>> =
                (0..dataset.len()).into_par_iter().map(|i| dataset.check_size(i)).collect();
            checks.into_iter().collect::<Result<()>>()?;
        }
        Ok(dataset)
    }

    /// Opens a dataset whose files may not fit together, to have them examined by [`crate::audit::inspect`]. An
    /// image without a mask is unlabelled; of several images with one stem, the first counts.
    ///
    /// # Errors
    /// Folders that are missing or empty, options out of range.
    pub fn open_unchecked(source: Source, options: Options) -> Result<Self> {
        Self::build(source, options, false)
    }

    fn build(source: Source, options: Options, strict: bool) -> Result<Self> {
        if let Normalise::Percentile { lo, hi } = options.normalise
            && !(0.0 <= lo && lo < hi && hi <= 100.0)
        {
            return Err(DataError::content(
                source.place(),
                format!("normalisation percentiles {lo} and {hi}; accepted: 0 <= lo < hi <= 100"),
            ));
        }
        let mut listing = None;
        let mut entries = Vec::new();
        let mut groups = Vec::new();
        let mut unreadable = Vec::new();
        match &source {
            Source::Folder(spec) => {
                if let Some(d) = spec.particle_diameter
                    && !(d > 0.0 && d.is_finite())
                {
                    return Err(DataError::content(
                        source.place(),
                        format!("data.particle_diameter = {d}; accepted: a positive number of pixels"),
                    ));
                }
                let found = spec.list()?;
                for (i, pair) in found.pairs.iter().enumerate() {
                    groups.push(vec![i]);
                    let labelled = pair.mask.is_some() || spec.masks.is_none() && pair.coordinates.is_some();
                    entries.push(Entry::new(pair.stem.clone(), i, 0, Place::Listed(i), labelled));
                }
                unreadable.clone_from(&found.unreadable);
                listing = Some(found);
            }
            Source::Npz(spec) => {
                for path in spec.files()? {
                    let info = match formats::npz::inspect(&path) {
                        Ok(info) => info,
                        Err(e) if strict => return Err(e),
                        Err(e) => {
                            unreadable.push((path, e.to_string()));
                            continue;
                        }
                    };
                    let group = groups.len();
                    let first = entries.len();
                    for member in 0..info.count {
                        let name = format!("{}#{member}", stem_of(&path));
                        let entry = Entry::new(name, group, member, Place::Npz(path.clone()), info.has_masks);
                        entry.size.get_or_init(|| (info.width, info.height));
                        entries.push(entry);
                    }
                    groups.push((first..entries.len()).collect());
                }
            }
            Source::Synth(spec) => {
                for i in 0..spec.count {
                    let index = spec.first_index.wrapping_add(i as u64);
                    groups.push(vec![i]);
                    entries.push(Entry::new(format!("synth-{index:06}"), i, 0, Place::Synth(index), true));
                }
            }
        }
        if entries.is_empty() && unreadable.is_empty() {
            return Err(DataError::content(source.place(), "the dataset has no images"));
        }
        let indices = (0..entries.len()).collect::<Vec<_>>().into();
        let cache = Cache::new(options.cache_bytes);
        Ok(Self {
            store: Arc::new(Store { source, listing, unreadable, options, entries, groups, cache }),
            indices,
        })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there are no images; only a part of a dataset can be empty.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Name of image `i`, see [`Pair::name`].
    ///
    /// # Panics
    /// If there is no image `i`.
    pub fn name(&self, i: usize) -> &str {
        &self.entry(i).name
    }

    /// Width and height of image `i` in pixels, from the file's header.
    ///
    /// # Errors
    /// An unreadable header.
    ///
    /// # Panics
    /// If there is no image `i`.
    pub fn size(&self, i: usize) -> Result<(usize, usize)> {
        self.store.size(self.indices[i])
    }

    /// Whether image `i` has labels. Only a folder with `unlabelled_ok`, without masks and coordinates, or a batch
    /// without masks has images without.
    ///
    /// # Panics
    /// If there is no image `i`.
    pub fn is_labelled(&self, i: usize) -> bool {
        self.entry(i).labelled
    }

    /// Sizes of all images, for [`crate::tiles::grid`].
    ///
    /// # Errors
    /// As [`size`](Self::size).
    pub fn sizes(&self) -> Result<Vec<(usize, usize)>> {
        (0..self.len()).map(|i| self.size(i)).collect()
    }

    /// Image `i`, normalised, with its labels; from the cache or from its file. Any number of threads may call this
    /// at once; two that want the same image wait for one reading of it.
    ///
    /// # Errors
    /// Unreadable files, a mask of another size than its image, values that are no labels.
    ///
    /// # Panics
    /// If there is no image `i`.
    pub fn load(&self, i: usize) -> Result<Arc<Pair>> {
        let entry = self.entry(i);
        let group = self.store.cache.get(entry.group, || self.store.load_group(entry.group))?;
        Ok(Arc::clone(&group[entry.member]))
    }

    /// Particles of image `i`; `None` where the dataset has no coordinates for it.
    ///
    /// # Errors
    /// An unreadable file.
    ///
    /// # Panics
    /// If there is no image `i`.
    pub fn particles(&self, i: usize) -> Result<Option<Vec<Particle>>> {
        self.store.particles(self.indices[i])
    }

    /// The image file that entry `i` comes from; `None` for a generated one.
    ///
    /// # Panics
    /// If there is no image `i`.
    pub fn path(&self, i: usize) -> Option<&Path> {
        self.store.image_path(self.indices[i])
    }

    /// The images `picks` of this dataset, in that order.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn subset(&self, picks: &[usize]) -> Self {
        Self { store: Arc::clone(&self.store), indices: picks.iter().map(|&i| self.indices[i]).collect() }
    }

    /// All but the last `n` images, and the last `n`.
    ///
    /// # Errors
    /// If nothing would be left for either part.
    pub fn split_last(&self, n: usize) -> Result<(Self, Self)> {
        if n == 0 || n >= self.len() {
            let last = self.len().saturating_sub(1);
            return Err(DataError::content(
                self.store.source.place(),
                format!("cannot set apart the last {n} of {} images; accepted: 1 to {last}", self.len()),
            ));
        }
        let (first, last) = self.indices.split_at(self.len() - n);
        let part = |indices: &[usize]| Self { store: Arc::clone(&self.store), indices: indices.into() };
        Ok((part(first), part(last)))
    }

    /// The images whose names match none of the patterns, and those that match one. In a pattern `*` stands for
    /// any text and `?` for any character; all of the name must match.
    ///
    /// # Errors
    /// A pattern that matches no image; no image left for the first part.
    pub fn split_named(&self, patterns: &[impl AsRef<str>]) -> Result<(Self, Self)> {
        let place = self.store.source.place();
        for pattern in patterns.iter().map(AsRef::as_ref) {
            if !(0..self.len()).any(|i| glob(pattern, self.name(i))) {
                let names: Vec<_> = (0..self.len()).map(|i| self.name(i)).collect();
                let problem =
                    format!("no image is named {pattern:?}; there are {}", some_of(&names, "images"));
                return Err(DataError::content(place, problem));
            }
        }
        let (named, rest): (Vec<usize>, Vec<usize>) =
            (0..self.len()).partition(|&i| patterns.iter().any(|p| glob(p.as_ref(), self.name(i))));
        if rest.is_empty() {
            let all: Vec<_> = patterns.iter().map(AsRef::as_ref).collect();
            return Err(DataError::content(
                place,
                format!("the patterns {} match every image", all.join(", ")),
            ));
        }
        Ok((self.subset(&rest), self.subset(&named)))
    }

    /// A hash (BLAKE3, 64 hexadecimal digits) over everything that decides what images and labels there are: the
    /// names in order, the bytes of all files, how masks are read; for generated images, the configuration, seed
    /// and indices. Does not depend on where the files lie. Reads every file once, on all cores.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn fingerprint(&self) -> Result<String> {
        self.store.fingerprint(&self.indices)
    }

    fn entry(&self, i: usize) -> &Entry {
        &self.store.entries[self.indices[i]]
    }

    /// Index in the store of image `i`.
    pub(crate) fn index(&self, i: usize) -> usize {
        self.indices[i]
    }

    fn check_size(&self, i: usize) -> Result<()> {
        let size = self.size(i)?;
        match self.store.mask_path(self.indices[i]) {
            Some(mask) => {
                compare_sizes(self.store.image_path(self.indices[i]), size, mask, formats::image_size(mask)?)
            }
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataset")
            .field("source", &self.store.source)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

fn compare_sizes(
    image: Option<&Path>,
    size: (usize, usize),
    mask: &Path,
    mask_size: (usize, usize),
) -> Result<()> {
    if size == mask_size {
        return Ok(());
    }
    let image = image.map(|p| p.display().to_string()).unwrap_or_default();
    Err(DataError::content(
        mask,
        format!(
            "the mask is {}x{} pixels, its image {image} is {}x{}",
            mask_size.0, mask_size.1, size.0, size.1
        ),
    ))
}

impl Source {
    /// The folder or file to name in a message about the whole.
    pub(crate) fn place(&self) -> PathBuf {
        match self {
            Self::Folder(spec) => spec.root.join(&spec.images),
            Self::Npz(spec) => spec.paths.first().cloned().unwrap_or_default(),
            Self::Synth(_) => PathBuf::from("synthetic data"),
        }
    }

    fn label_rule(&self) -> (Option<i32>, Option<i32>) {
        match self {
            Self::Folder(FolderSpec { mask_threshold, ignore_value, .. })
            | Self::Npz(NpzSpec { mask_threshold, ignore_value, .. }) => (*mask_threshold, *ignore_value),
            Self::Synth(_) => (None, None),
        }
    }
}

impl NpzSpec {
    fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for path in &self.paths {
            if path.is_dir() {
                let found = files_in(path, "the .npz batches")?;
                let before = files.len();
                files.extend(found.into_iter().filter(|f| has_extension(f, &["npz"])));
                if files.len() == before {
                    return Err(DataError::content(path, "no files ending in npz here"));
                }
            } else if path.is_file() {
                files.push(path.clone());
            } else {
                return Err(DataError::content(
                    path,
                    "does not exist; expected an .npz file or a folder of them",
                ));
            }
        }
        if files.is_empty() {
            return Err(DataError::content("data", "no .npz files are named"));
        }
        Ok(files)
    }
}

impl Entry {
    fn new(name: String, group: usize, member: usize, place: Place, labelled: bool) -> Self {
        Self { name, group, member, place, labelled, size: OnceLock::new() }
    }
}

impl Store {
    fn listed(&self, index: usize) -> Option<&Listed> {
        match (&self.entries[index].place, &self.listing) {
            (Place::Listed(i), Some(listing)) => listing.pairs.get(*i),
            _ => None,
        }
    }

    pub(crate) fn image_path(&self, index: usize) -> Option<&Path> {
        match &self.entries[index].place {
            Place::Npz(path) => Some(path),
            _ => self.listed(index).map(|listed| listed.image.as_path()),
        }
    }

    fn mask_path(&self, index: usize) -> Option<&Path> {
        self.listed(index).and_then(|listed| listed.mask.as_deref())
    }

    /// The file to blame for wrong labels.
    pub(crate) fn label_path(&self, index: usize) -> PathBuf {
        let listed = self.listed(index);
        let own = listed.and_then(|l| l.mask.as_deref().or(l.coordinates.as_ref().map(Coordinates::path)));
        own.or(self.image_path(index))
            .map_or_else(|| PathBuf::from(&self.entries[index].name), Path::to_owned)
    }

    pub(crate) fn size(&self, index: usize) -> Result<(usize, usize)> {
        let entry = &self.entries[index];
        if let Some(&size) = entry.size.get() {
            return Ok(size);
        }
        let size = match (&self.source, self.image_path(index)) {
            (Source::Synth(spec), _) => (spec.config.width, spec.config.height),
            (_, Some(path)) => formats::image_size(path)?,
            (_, None) => (0, 0),
        };
        Ok(*entry.size.get_or_init(|| size))
    }

    fn particles(&self, index: usize) -> Result<Option<Vec<Particle>>> {
        if let (Source::Synth(spec), Place::Synth(i)) = (&self.source, &self.entries[index].place) {
            return Ok(Some(synth::generate(&spec.config, spec.seed, *i).particles));
        }
        match self.listed(index) {
            Some(Listed { stem, coordinates: Some(coordinates), .. }) => coordinates.read(stem).map(Some),
            _ => Ok(None),
        }
    }

    /// All entries of a group as their files have them.
    ///
    /// # Errors
    /// When the group's one file is unreadable.
    pub(crate) fn read_group(&self, group: usize) -> Result<Vec<RawEntry>> {
        let Some(&index) = self.groups[group].first() else {
            return Ok(Vec::new());
        };
        match (&self.entries[index].place, &self.source) {
            (Place::Npz(path), _) => {
                let batch = formats::npz::read(path)?;
                let wanted = self.groups[group].len();
                let masks =
                    batch.masks.map_or_else(|| vec![None; wanted], |m| m.into_iter().map(Some).collect());
                if batch.images.len() != wanted || masks.len() != wanted {
                    let problem = format!(
                        "{} images and {} masks; {wanted} images were here when it was opened",
                        batch.images.len(),
                        masks.len()
                    );
                    return Err(DataError::content(path, problem));
                }
                let both = batch.images.into_iter().zip(masks);
                Ok(both.map(|(image, mask)| RawEntry { image: Ok(image), labels: Ok(mask) }).collect())
            }
            (Place::Synth(i), Source::Synth(spec)) => {
                let made = synth::generate(&spec.config, spec.seed, *i);
                Ok(vec![RawEntry { image: Ok(made.image), labels: Ok(Some(made.mask)) }])
            }
            _ => Ok(vec![self.read_listed(index)]),
        }
    }

    fn read_listed(&self, index: usize) -> RawEntry {
        let (Some(listed), Source::Folder(spec)) = (self.listed(index), &self.source) else {
            let missing = || DataError::content(&self.entries[index].name, "is not in the dataset");
            return RawEntry { image: Err(missing()), labels: Err(missing()) };
        };
        let image = formats::read_image(&listed.image);
        let labels = match (&listed.mask, &listed.coordinates) {
            (Some(mask), _) => formats::read_labels(mask).map(Some),
            (None, Some(coordinates)) if spec.masks.is_none() => {
                let size = match &image {
                    Ok(image) => Ok((image.width, image.height)),
                    // The image's own error is reported with the image.
                    Err(_) => self.size(index),
                };
                size.and_then(|(width, height)| {
                    let particles = coordinates.read(&listed.stem)?;
                    render(coordinates.path(), width, height, &particles, spec.particle_diameter).map(Some)
                })
            }
            _ => Ok(None),
        };
        RawEntry { image, labels }
    }

    /// Labels as they are trained on.
    pub(crate) fn decode(&self, index: usize, labels: &Labels) -> Result<Vec<i8>> {
        let (threshold, ignore) = self.source.label_rule();
        let rendered = self.listed(index).is_some_and(|l| l.mask.is_none());
        let decoded = if rendered {
            decode_labels(labels, None, None)
        } else {
            decode_labels(labels, threshold, ignore)
        };
        decoded.map_err(|problem| DataError::content(self.label_path(index), problem))
    }

    fn load_group(&self, group: usize) -> Result<Vec<Arc<Pair>>> {
        let raw = self.read_group(group)?;
        self.groups[group]
            .iter()
            .zip(raw)
            .map(|(&index, raw)| self.prepare(index, raw).map(Arc::new))
            .collect()
    }

    fn prepare(&self, index: usize, raw: RawEntry) -> Result<Pair> {
        let mut image = raw.image?;
        let labels = match raw.labels? {
            Some(labels) => {
                let size = (image.width, image.height);
                compare_sizes(
                    self.image_path(index),
                    size,
                    &self.label_path(index),
                    (labels.width, labels.height),
                )?;
                Some(self.decode(index, &labels)?)
            }
            None => None,
        };
        normalise(&mut image, self.options.normalise);
        Ok(Pair { name: self.entries[index].name.clone(), image, labels })
    }

    fn fingerprint(&self, indices: &[usize]) -> Result<String> {
        // An .npz file counts once, however many of its images are here.
        let files: BTreeMap<&Path, ()> =
            indices.iter().flat_map(|&i| self.files_of(i)).map(|f| (f, ())).collect();
        let files: Vec<&Path> = files.into_keys().collect();
        let hashes: Vec<Result<(&Path, blake3::Hash)>> =
            files.par_iter().map(|&path| hash_file(path).map(|hash| (path, hash))).collect();
        let hashes: HashMap<&Path, blake3::Hash> = hashes.into_iter().collect::<Result<_>>()?;

        let mut all = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            // Lengths keep neighbouring fields apart.
            all.update(&(bytes.len() as u64).to_le_bytes());
            all.update(bytes);
        };
        add(b"trimtab dataset 1");
        let (threshold, ignore) = self.source.label_rule();
        add(format!("{threshold:?} {ignore:?}").as_bytes());
        match &self.source {
            Source::Folder(spec) => add(format!("{:?}", spec.particle_diameter).as_bytes()),
            Source::Npz(_) => {}
            Source::Synth(spec) => add(format!("{:?} {}", spec.config, spec.seed).as_bytes()),
        }
        for &index in indices {
            let (width, height) = self.size(index)?;
            add(self.entries[index].name.as_bytes());
            add(format!("{width}x{height}").as_bytes());
            for path in self.files_of(index) {
                add(hashes[path].as_bytes());
            }
        }
        Ok(all.finalize().to_hex().to_string())
    }

    fn files_of(&self, index: usize) -> impl Iterator<Item = &Path> {
        let listed = self.listed(index);
        let mask = listed.and_then(|l| l.mask.as_deref());
        let coordinates = listed.and_then(|l| l.coordinates.as_ref()).map(Coordinates::path);
        [self.image_path(index), mask, coordinates].into_iter().flatten()
    }
}

fn render(
    path: &Path,
    width: usize,
    height: usize,
    particles: &[Particle],
    diameter: Option<f64>,
) -> Result<Labels> {
    // The renderer names the particle; the user also needs the file.
    discs::render(width, height, particles, diameter).map_err(|e| DataError::content(path, e.to_string()))
}

fn hash_file(path: &Path) -> Result<blake3::Hash> {
    let file = std::fs::File::open(path).map_err(|e| DataError::io(path, "cannot read", e))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(|e| DataError::io(path, "cannot read", e))?;
    Ok(hasher.finalize())
}

/// Whether all of `name` matches `pattern`, in which `*` is any text and `?` any character.
fn glob(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Where to go on if the text after the last star turns out not to match.
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, n + 1));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((after_star, from)) => {
                    (p, n) = (after_star, from);
                    retry = Some((after_star, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

// ---------------------------------------------------------------------------------------------------------------
// Pixels

/// Counts of the values of a label map.
pub(crate) fn count_values(labels: &Labels) -> BTreeMap<i32, u64> {
    let mut counts = BTreeMap::new();
    // Runs of one value are long in masks: look the counter up once a run.
    for run in labels.values.chunk_by(|a, b| a == b) {
        *counts.entry(run[0]).or_insert(0) += run.len() as u64;
    }
    counts
}

/// Maps stored values to {-1, 0, 1}, see [`FolderSpec`]. The error says what was found and what is accepted.
pub(crate) fn decode_labels(
    labels: &Labels,
    threshold: Option<i32>,
    ignore: Option<i32>,
) -> Result<Vec<i8>, String> {
    if let Some(threshold) = threshold {
        let decode = |&v: &i32| {
            if Some(v) == ignore { -1 } else { i8::from(v > threshold) }
        };
        return Ok(labels.values.iter().map(decode).collect());
    }
    let counts = count_values(labels);
    let meant = || counts.keys().copied().filter(|&v| Some(v) != ignore);
    let foreground = if meant().all(|v| (-1..=1).contains(&v)) {
        1
    } else if meant().all(|v| v == 0 || v == 255) {
        255
    } else {
        return Err(unknown_labels(&counts));
    };
    let decode = |&v: &i32| {
        if v == -1 || Some(v) == ignore { -1 } else { i8::from(v == foreground) }
    };
    Ok(labels.values.iter().map(decode).collect())
}

fn unknown_labels(counts: &BTreeMap<i32, u64>) -> String {
    const SHOWN: usize = 8;
    let mut found = String::new();
    for (value, count) in counts.iter().take(SHOWN) {
        let _ = write!(found, "{}{value} ({count} pixels)", if found.is_empty() { "" } else { ", " });
    }
    if counts.len() > SHOWN {
        let _ = write!(found, " and {} more values", counts.len() - SHOWN);
    }
    format!(
        "the values {found} are no labels; accepted: {{-1, 0, 1}} or {{0, 255}}; \
         else set data.mask_threshold (greater is 1) or data.ignore_value (is -1)"
    )
}

/// Brings an image to a common scale, in place, see [`Normalise`].
///
/// An image without a finite pixel becomes 0. Percentiles are those of the nearest rank.
pub fn normalise(image: &mut Image, how: Normalise) {
    let mut count = 0u64;
    let mut sum = 0.0f64;
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for &p in image.pixels.iter().filter(|p| p.is_finite()) {
        count += 1;
        sum += f64::from(p);
        (low, high) = (low.min(p), high.max(p));
    }
    if count == 0 {
        image.pixels.fill(0.0);
        return;
    }
    let mean = sum / count as f64;
    let (offset, scale) = match how {
        Normalise::None => (0.0, 1.0),
        Normalise::ZScore if low < high => {
            let squares: f64 =
                image.pixels.iter().filter(|p| p.is_finite()).map(|&p| (f64::from(p) - mean).powi(2)).sum();
            (mean, 1.0 / (squares / count as f64).sqrt())
        }
        Normalise::Percentile { lo, hi } if low < high => {
            let mut values: Vec<f32> = image.pixels.iter().copied().filter(|p| p.is_finite()).collect();
            let last = values.len() - 1;
            let mut at = |percent: f64| {
                let rank = (percent / 100.0 * last as f64).round().clamp(0.0, last as f64) as usize;
                f64::from(*values.select_nth_unstable_by(rank, f32::total_cmp).1)
            };
            let (from, to) = (at(lo), at(hi));
            // Most of the image may be of one value; the extremes then still tell pixels apart.
            let (from, to) = if from < to { (from, to) } else { (f64::from(low), f64::from(high)) };
            (from, 1.0 / (to - from))
        }
        Normalise::ZScore | Normalise::Percentile { .. } => {
            image.pixels.fill(0.0);
            return;
        }
    };
    let clip = matches!(how, Normalise::Percentile { .. });
    for pixel in &mut image.pixels {
        let value = if pixel.is_finite() { f64::from(*pixel) } else { mean };
        let value = (value - offset) * scale;
        *pixel = if clip { value.clamp(0.0, 1.0) } else { value } as f32;
    }
}

// ---------------------------------------------------------------------------------------------------------------
// The cache

/// What one file holds, by number.
type Cache = MemoryCache<usize, Vec<Arc<Pair>>>;

impl Bytes for Vec<Arc<Pair>> {
    fn bytes(&self) -> usize {
        self.iter().map(|pair| pair_bytes(pair)).sum()
    }
}

fn pair_bytes(pair: &Pair) -> usize {
    pair.image.pixels.len() * size_of::<f32>() + pair.labels.as_ref().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(values: &[i32], threshold: Option<i32>, ignore: Option<i32>) -> Result<Vec<i8>, String> {
        decode_labels(&Labels { width: values.len(), height: 1, values: values.to_vec() }, threshold, ignore)
    }

    fn row(pixels: &[f32]) -> Image {
        Image { width: pixels.len(), height: 1, pixels: pixels.to_vec() }
    }

    fn normalised(pixels: &[f32], how: Normalise) -> Vec<f32> {
        let mut image = row(pixels);
        normalise(&mut image, how);
        image.pixels
    }

    #[test]
    fn masks_are_taken_as_labels_or_as_0_and_255() {
        assert_eq!(decoded(&[0, 1, -1], None, None).unwrap(), [0, 1, -1]);
        assert_eq!(decoded(&[0, 255, 255], None, None).unwrap(), [0, 1, 1]);
        assert_eq!(decoded(&[255, 255], None, None).unwrap(), [1, 1]);
        assert!(decoded(&[], None, None).unwrap().is_empty());
    }

    #[test]
    fn the_ignore_value_comes_before_everything_else() {
        assert_eq!(decoded(&[0, 1, 255], None, Some(255)).unwrap(), [0, 1, -1]);
        assert_eq!(decoded(&[0, 255, 128], None, Some(128)).unwrap(), [0, 1, -1]);
        assert_eq!(decoded(&[7, 7], None, Some(7)).unwrap(), [-1, -1]);
        assert_eq!(decoded(&[0, 128, 129, 200], Some(128), Some(200)).unwrap(), [0, 0, 1, -1]);
        assert_eq!(decoded(&[1, 0], None, Some(1)).unwrap(), [-1, 0]);
    }

    #[test]
    fn other_values_are_named_with_their_counts_and_what_is_accepted() {
        let message = decoded(&[0, 1, 255, 255], None, None).unwrap_err();
        assert!(message.contains("255 (2 pixels)"), "{message}");
        assert!(message.contains("{-1, 0, 1}") && message.contains("data.mask_threshold"), "{message}");
        let many: Vec<i32> = (0..30).collect();
        assert!(decoded(&many, None, None).unwrap_err().contains("and 22 more values"));
        assert!(decoded(&[-1, 255], None, None).is_err());
    }

    #[test]
    fn z_scores_are_over_finite_pixels_and_fill_the_others_with_the_mean() {
        let out = normalised(&[1.0, 3.0, f32::NAN, f32::INFINITY], Normalise::ZScore);
        assert_eq!(out, [-1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn constant_images_become_zero() {
        for how in [Normalise::ZScore, Normalise::Percentile { lo: 1.0, hi: 99.0 }] {
            assert_eq!(normalised(&[1e7; 3], how), [0.0; 3]);
            assert_eq!(normalised(&[f32::NAN; 2], how), [0.0; 2]);
            assert_eq!(normalised(&[0.1, f32::NAN], how), [0.0; 2]);
            assert!(normalised(&[], how).is_empty());
        }
        assert_eq!(normalised(&[4.0, f32::NAN, 6.0], Normalise::None), [4.0, 5.0, 6.0]);
    }

    #[test]
    fn percentiles_map_to_0_and_1_and_clip() {
        let pixels: Vec<f32> = (0..=100).rev().map(|i| i as f32).collect();
        let out = normalised(&pixels, Normalise::Percentile { lo: 10.0, hi: 60.0 });
        assert_eq!((out[100], out[90], out[65], out[40], out[0]), (0.0, 0.0, 0.5, 1.0, 1.0));
        // Nearly all of one value: the percentiles coincide.
        let mut rare = vec![5.0f32; 1000];
        rare[3] = 9.0;
        let out = normalised(&rare, Normalise::Percentile { lo: 1.0, hi: 99.0 });
        assert_eq!((out[0], out[3]), (0.0, 1.0));
    }

    #[test]
    fn numbers_in_names_sort_as_numbers() {
        let mut names = vec!["m10", "m2", "m02", "m1b", "m1", "M3", "m", "x9", "m99999999999999999999999"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["M3", "m", "m1", "m1b", "m02", "m2", "m10", "m99999999999999999999999", "x9"]);
    }

    #[test]
    fn globs_match_whole_names() {
        for (pattern, name, matches) in [
            ("May08_05*", "May08_05.24.39", true),
            ("May08_05", "May08_05.24.39", false),
            ("*.39", "May08_05.24.39", true),
            ("m?", "m1", true),
            ("m?", "m", false),
            ("*a*b", "xaxbxb", true),
            ("*a*b", "xaxbx", false),
            ("", "", true),
            ("**", "", true),
            ("é*", "été", true),
        ] {
            assert_eq!(glob(pattern, name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn stems_lose_one_extension_and_mrc_gz_is_one() {
        assert_eq!(stem_of(Path::new("a/May08_03.05.02.png")), "May08_03.05.02");
        assert_eq!(stem_of(Path::new("a/m1.MRC.gz")), "m1");
        let stems: Vec<_> = stem_candidates("MotionCorr/job002/May08_03.05.02").collect();
        assert_eq!(stems, ["May08_03.05.02", "May08_03.05"]);
    }

    proptest! {
        #[test]
        fn natural_order_is_an_order(a in "[a0-9]{0,6}", b in "[a0-9]{0,6}", c in "[a0-9]{0,6}") {
            prop_assert_eq!(natural(&a, &b), natural(&b, &a).reverse());
            prop_assert_eq!(natural(&a, &b) == Ordering::Equal, a == b);
            if natural(&a, &b).is_le() && natural(&b, &c).is_le() {
                prop_assert!(natural(&a, &c).is_le());
            }
        }

        #[test]
        fn z_scores_have_mean_0_and_deviation_1(pixels in prop::collection::vec(-1e4f32..1e4, 2..200)) {
            let out = normalised(&pixels, Normalise::ZScore);
            if pixels.iter().any(|p| *p != pixels[0]) {
                let n = out.len() as f64;
                let mean = out.iter().map(|&p| f64::from(p)).sum::<f64>() / n;
                let variance = out.iter().map(|&p| (f64::from(p) - mean).powi(2)).sum::<f64>() / n;
                prop_assert!(mean.abs() < 1e-4 && (variance - 1.0).abs() < 1e-4, "{} {}", mean, variance);
            }
        }

        #[test]
        fn decoding_never_leaves_the_three_labels(
            values in prop::collection::vec(-3i32..300, 0..20),
            threshold in prop::option::of(-3i32..300), ignore in prop::option::of(-3i32..300),
        ) {
            if let Ok(labels) = decoded(&values, threshold, ignore) {
                prop_assert!(labels.iter().all(|l| (-1..=1).contains(l)));
                for (label, value) in labels.iter().zip(&values) {
                    prop_assert!(Some(*value) != ignore || *label == -1);
                }
            }
        }
    }
}
