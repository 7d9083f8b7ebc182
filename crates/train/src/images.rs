//! Settings of recipes that work on 2-D images: where they come from, how they are cut and changed, how whole images are
//! predicted.

use std::path::PathBuf;

use trimtab_data::augment::Augment;
use trimtab_data::dataset::{Dataset, FolderSpec, Normalise, NpzSpec, Options, Source, SynthSpec};
use trimtab_data::synth::MicrographConfig;

use crate::config::ANY;
use crate::settings::Reader;

/// Settings that make other keys count than the defaults do, as overrides, and in words.
pub(crate) const ALTERNATIVES: &[(&str, &str)] =
    &[("data.source=folder", "data.source = \"folder\""), ("data.source=npz", "data.source = \"npz\"")];

/// All settings about images.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) data: DataConfig,
    pub(crate) augment: Augment,
    pub(crate) windows: Windows,
}

impl Images {
    pub(crate) fn read(r: &mut Reader) -> Self {
        Self { data: DataConfig::read(r), augment: read_augment(r), windows: Windows::read(r) }
    }
}

/// How whole images are predicted and judged.
#[derive(Debug)]
pub(crate) struct Windows {
    pub(crate) threshold: f64,
    pub(crate) tile: usize,
    pub(crate) overlap: usize,
    pub(crate) batch: usize,
}

impl Windows {
    fn read(r: &mut Reader) -> Self {
        let threshold = r.number(
            "evaluate.threshold",
            0.5,
            0.0..=1.0,
            "A pixel is predicted positive above this probability.",
        );
        let tile = r.count(
            "evaluate.tile",
            256,
            16..=8192,
            "Side of the windows of whole-image prediction, in pixels, a multiple of 16.",
        ) as usize;
        if !tile.is_multiple_of(16) {
            r.reject("evaluate.tile", format!("found {tile}; accepted is a multiple of 16"));
        }
        let overlap =
            r.count("evaluate.overlap", 32, 0..=4096, "Pixels that neighbouring windows share at least.")
                as usize;
        if overlap * 2 > tile {
            r.reject(
                "evaluate.overlap",
                format!("found {overlap}; accepted is at most half of evaluate.tile = {tile}"),
            );
        }
        let batch = r.count("evaluate.batch", 4, 1..=1024, "Windows predicted at once.") as usize;
        Self { threshold, tile, overlap, batch }
    }
}

/// Where images and labels come from and how they are cut.
#[derive(Debug)]
pub(crate) struct DataConfig {
    source: SourceConfig,
    options: Options,
    pub(crate) tile: usize,
    pub(crate) crop: usize,
}

#[derive(Debug)]
enum SourceConfig {
    Folder { spec: FolderSpec, validation: Validation },
    Npz { train: PathBuf, validation: PathBuf, mask_threshold: Option<i32>, ignore_value: Option<i32> },
    Synth { config: MicrographConfig, seed: u64, count: usize, validation: usize },
}

#[derive(Debug)]
enum Validation {
    Last(usize),
    Root(PathBuf),
}

/// The training and the validation part of the data.
#[derive(Debug)]
pub(crate) struct Splits {
    /// For training.
    pub train: Dataset,
    /// For validation.
    pub validation: Dataset,
}

impl DataConfig {
    fn read(r: &mut Reader) -> Self {
        #[derive(Clone, Copy)]
        enum Kind {
            Synth,
            Folder,
            Npz,
        }
        let kind = r.choice(
            "data.source",
            "synth",
            &[("synth", Kind::Synth), ("folder", Kind::Folder), ("npz", Kind::Npz)],
            "Generated micrographs, folders of images with masks or coordinates, or .npz batches with arrays images and masks.",
        );
        let source = match kind {
            Kind::Synth => read_synth(r),
            Kind::Folder => read_folder(r),
            Kind::Npz => {
                let path = |r: &mut Reader, key: &str, doc| {
                    let path = r.text(key, "", doc);
                    if path.is_empty() {
                        r.reject(
                            key,
                            "is needed with data.source = \"npz\": a .npz file or a folder of them",
                        );
                    }
                    PathBuf::from(path)
                };
                let train = path(r, "data.train", "Training batches: a .npz file or a folder of them.");
                let validation =
                    path(r, "data.validation", "Validation batches: a .npz file or a folder of them.");
                let (mask_threshold, ignore_value) = read_label_values(r);
                SourceConfig::Npz { train, validation, mask_threshold, ignore_value }
            }
        };
        if !matches!(kind, Kind::Synth) {
            r.inactive("data.synth", "data.source is another");
        }
        for key in [
            "data.root",
            "data.images",
            "data.masks",
            "data.coordinates",
            "data.particle_diameter",
            "data.validation_last",
            "data.validation_root",
        ] {
            if !matches!(kind, Kind::Folder) {
                r.inactive(key, "only data.source = \"folder\" reads it");
            }
        }
        for key in ["data.train", "data.validation"] {
            if !matches!(kind, Kind::Npz) {
                r.inactive(key, "only data.source = \"npz\" reads it");
            }
        }
        if matches!(kind, Kind::Synth) {
            for key in ["data.mask_threshold", "data.ignore_value"] {
                r.inactive(key, "generated masks are 0 and 1");
            }
        }
        let tile = r.count(
            "data.tile",
            128,
            16..=8192,
            "Side of the tiles the images are cut into, in pixels; labelled_ratio counts tiles.",
        ) as usize;
        let crop = r.count("data.crop", 0, 0..=8192, "Side of the random crop of a tile that is trained on, in pixels, a multiple of 16; 0: the whole tile.") as usize;
        if !(if crop == 0 { tile } else { crop }).is_multiple_of(16) {
            r.reject(
                if crop == 0 { "data.tile" } else { "data.crop" },
                format!(
                    "found {}; accepted is a multiple of 16 (the network halves it four times)",
                    if crop == 0 { tile } else { crop }
                ),
            );
        }
        if crop > tile {
            r.reject("data.crop", format!("found {crop}, more than data.tile = {tile}"));
        }
        let normalise = r.choice(
            "data.normalise",
            "zscore",
            &[("zscore", Normalise::ZScore), ("percentile", Normalise::Percentile { lo: 0.5, hi: 99.5 }), ("none", Normalise::None)],
            "Scale of intensities, per image: zero mean and unit deviation, or percentiles .5 and 99.5 to 0 and 1, or as in the file.",
        );
        let cache =
            r.count("data.cache_mib", 2048, 0..=1 << 20, "Bound on decoded images kept in memory, in MiB.");
        Self {
            source,
            options: Options { normalise, cache_bytes: (cache as usize) << 20 },
            tile,
            crop: if crop == 0 { tile } else { crop },
        }
    }

    /// Opens both parts.
    ///
    /// # Errors
    /// Whatever is wrong with the files.
    pub fn open(&self) -> Result<Splits, trimtab_data::DataError> {
        self.open_with(Dataset::open, self.options)
    }

    /// As [`Self::open`], for one pass over the images: none is kept in memory.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_once(&self) -> Result<Splits, trimtab_data::DataError> {
        self.open_with(Dataset::open, Options { cache_bytes: 0, ..self.options })
    }

    /// As [`Self::open`], but also opens what does not fit together, for an audit.
    ///
    /// # Errors
    /// Folders missing or empty.
    pub fn open_unchecked(&self) -> Result<Splits, trimtab_data::DataError> {
        self.open_with(Dataset::open_unchecked, self.options)
    }

    fn open_with(
        &self,
        open: fn(Source, Options) -> trimtab_data::Result<Dataset>,
        options: Options,
    ) -> Result<Splits, trimtab_data::DataError> {
        match &self.source {
            SourceConfig::Folder { spec, validation } => {
                let all = open(Source::Folder(spec.clone()), options)?;
                match validation {
                    Validation::Last(n) => {
                        let (train, validation) = all.split_last(*n)?;
                        Ok(Splits { train, validation })
                    }
                    Validation::Root(root) => {
                        let spec = FolderSpec { root: root.clone(), ..spec.clone() };
                        Ok(Splits { train: all, validation: open(Source::Folder(spec), options)? })
                    }
                }
            }
            SourceConfig::Npz { train, validation, mask_threshold, ignore_value } => {
                let part = |path: &PathBuf| {
                    let spec = NpzSpec {
                        paths: vec![path.clone()],
                        mask_threshold: *mask_threshold,
                        ignore_value: *ignore_value,
                    };
                    open(Source::Npz(spec), options)
                };
                Ok(Splits { train: part(train)?, validation: part(validation)? })
            }
            SourceConfig::Synth { config, seed, count, validation } => {
                let part = |first: usize, count: usize| {
                    let spec =
                        SynthSpec { config: config.clone(), seed: *seed, count, first_index: first as u64 };
                    open(Source::Synth(spec), options)
                };
                Ok(Splits { train: part(0, *count)?, validation: part(*count, *validation)? })
            }
        }
    }

    /// Opens other data in place of the configured, for one pass: `root` with the same sub-folders, or a `.npz` file or folder.
    ///
    /// # Errors
    /// Whatever is wrong with the files; data of a kind that the recipe does not describe.
    pub fn open_other(&self, path: &std::path::Path) -> Result<Dataset, trimtab_data::DataError> {
        let source = match &self.source {
            SourceConfig::Folder { spec, .. } => {
                Source::Folder(FolderSpec { root: path.to_owned(), ..spec.clone() })
            }
            SourceConfig::Npz { mask_threshold, ignore_value, .. } => Source::Npz(NpzSpec {
                paths: vec![path.to_owned()],
                mask_threshold: *mask_threshold,
                ignore_value: *ignore_value,
            }),
            SourceConfig::Synth { .. } => {
                let mut spec = FolderSpec::new(path, "micrographs");
                spec.masks = Some("masks".into());
                Source::Folder(spec)
            }
        };
        Dataset::open(source, Options { cache_bytes: 0, ..self.options })
    }

    /// Scale of intensities.
    pub fn normalise(&self) -> Normalise {
        self.options.normalise
    }

    /// Diameter of particles in pixels, where the settings say it.
    pub fn particle_diameter(&self) -> Option<f64> {
        match &self.source {
            SourceConfig::Folder { spec, .. } => spec.particle_diameter,
            SourceConfig::Synth { config, .. } => Some(config.particle_diameter),
            SourceConfig::Npz { .. } => None,
        }
    }
}

fn read_label_values(r: &mut Reader) -> (Option<i32>, Option<i32>) {
    let limit = i32::MAX as u64;
    let threshold = r.optional_count(
        "data.mask_threshold",
        0..=limit,
        "Mask values above this are positive; not given: masks must hold -1, 0, 1 or 0, 255 only.",
    );
    let ignore = r.optional_count(
        "data.ignore_value",
        0..=limit,
        "The mask value that means: ignore this pixel; not given: none but -1 does.",
    );
    (threshold.map(|t| t as i32), ignore.map(|i| i as i32))
}

fn read_folder(r: &mut Reader) -> SourceConfig {
    let root = r.text("data.root", "", "Folder that images, masks and coordinates are relative to.");
    if root.is_empty() {
        r.reject(
            "data.root",
            "is needed with data.source = \"folder\": give it in the file or by --set data.root=DIR",
        );
    }
    let images =
        r.text("data.images", "micrographs", "Sub-folder of the images (PNG, JPEG, TIFF, MRC, NPY).");
    let masks = r.text(
        "data.masks",
        "",
        "Sub-folder of masks with the images' names; empty: labels come from coordinates.",
    );
    let coordinates = r.text(
        "data.coordinates",
        "",
        "Sub-folder or file of particle coordinates (.star, .box, .txt, .csv), drawn as discs; empty: none.",
    );
    let diameter = r.number("data.particle_diameter", 0.0, 0.0..=1e5, "Diameter of particles in pixels, for coordinates without one and for picking; 0: from the file, or estimated from the masks.");
    if masks.is_empty() && coordinates.is_empty() {
        r.reject("data.masks", "is empty, and so is data.coordinates: labels must come from one of them");
    }
    let (mask_threshold, ignore_value) = read_label_values(r);
    let validation_root = r.text(
        "data.validation_root",
        "",
        "Folder like data.root with the validation images; empty: data.validation_last.",
    );
    let validation = if validation_root.is_empty() {
        Validation::Last(r.count(
            "data.validation_last",
            3,
            1..=ANY,
            "How many images, the last by name, are for validation.",
        ) as usize)
    } else {
        r.inactive("data.validation_last", "data.validation_root is set");
        Validation::Root(validation_root.into())
    };
    let part = |s: String| (!s.is_empty()).then(|| PathBuf::from(s));
    let mut spec = FolderSpec::new(root, images);
    spec.masks = part(masks);
    spec.coordinates = part(coordinates);
    spec.particle_diameter = (diameter > 0.0).then_some(diameter);
    spec.mask_threshold = mask_threshold;
    spec.ignore_value = ignore_value;
    SourceConfig::Folder { spec, validation }
}

fn read_synth(r: &mut Reader) -> SourceConfig {
    let defaults = MicrographConfig::default();
    let count =
        r.count("data.synth.count", 12, 1..=1_000_000, "Generated micrographs for training.") as usize;
    let validation =
        r.count("data.synth.validation", 3, 1..=1_000_000, "Generated micrographs for validation.") as usize;
    let size = r.count(
        "data.synth.size",
        defaults.width as u64,
        32..=8192,
        "Side of a generated micrograph, in pixels.",
    ) as usize;
    let particle_diameter = r.number(
        "data.synth.particle_diameter",
        defaults.particle_diameter,
        4.0..=1024.0,
        "Diameter of a generated particle, in pixels.",
    );
    let density = r.number(
        "data.synth.density",
        defaults.density,
        0.0..=1.0,
        "Share of the area that particles cover.",
    );
    let signal_to_noise = r.number(
        "data.synth.signal_to_noise",
        defaults.signal_to_noise,
        0.0..=1e3,
        "Variance of the particles' signal over the variance of the noise.",
    );
    let seed = r.count("data.synth.seed", 7, 0..=i64::MAX as u64, "Seed of the generated micrographs.");
    let config = MicrographConfig {
        width: size,
        height: size,
        particle_diameter,
        density,
        signal_to_noise,
        ..defaults
    };
    SourceConfig::Synth { config, seed, count, validation }
}

fn read_augment(r: &mut Reader) -> Augment {
    Augment {
        flip: r.flag("augment.flip", true, "Mirror left-right and top-bottom, each with probability 1/2."),
        rotate90: r.flag("augment.rotate90", true, "Rotate by 0, 90, 180 or 270 degrees."),
        brightness: r.number(
            "augment.brightness",
            0.1,
            0.0..=100.0,
            "Deviation of a shift of all pixels, in deviations of the image.",
        ),
        contrast: r.number("augment.contrast", 0.1, 0.0..=1.0, "Largest relative change of the contrast."),
        gamma: r.number(
            "augment.gamma",
            0.0,
            0.0..=10.0,
            "Largest relative change of the exponent of intensities.",
        ),
        blur: r.number("augment.blur", 0.0, 0.0..=32.0, "Largest deviation of a Gaussian blur, in pixels."),
        noise: r.number(
            "augment.noise",
            0.05,
            0.0..=100.0,
            "Deviation of noise added to each pixel, in deviations of the image.",
        ),
        intensity_probability: r.number(
            "augment.intensity_probability",
            0.5,
            0.0..=1.0,
            "Probability of each change of intensity.",
        ),
    }
}
