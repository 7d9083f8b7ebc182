//! Data of the fault bench: small sets in memory, damaged there, and written as files that the recipes read like any others.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use trimtab_data::dataset::{Dataset, FolderSpec, Options, Source};
use trimtab_data::formats::volume::{read_volume, read_volume_labels};
use trimtab_data::synth;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Which samples a bench trains on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// Simulated micrographs with masks.
    Micrographs,
    /// Micrographs of EMPIAR-10146, halved, a corner of each.
    Apoferritin,
    /// Simulated organs of two parts.
    Organs,
    /// Hippocampi of the Medical Segmentation Decathlon, halved.
    Hippocampi,
    /// Simulated bodies with one hole or several.
    Bodies,
    /// Cubes around a voxel of the one or the other end of a hippocampus; one in five is of the anterior.
    HippocampusEnds,
}

/// A labelled sample: an image or a volume.
#[derive(Clone)]
pub struct Sample {
    /// Rows and columns, or depth, rows and columns.
    pub shape: Vec<usize>,
    pub image: Vec<f32>,
    /// A label for each value of the image; empty where the sample has a class.
    pub labels: Vec<u8>,
    pub class: usize,
}

/// A set with its split.
#[derive(Clone)]
pub struct Set {
    pub train: Vec<Sample>,
    pub validation: Vec<Sample>,
}

impl Set {
    /// Makes or reads a set; `shared` is the folder of the real ones.
    pub fn load(which: Which, shared: &Path) -> Result<Self> {
        let (samples, train) = match which {
            Which::Micrographs => (micrographs(), 20),
            Which::Apoferritin => (apoferritin(shared)?, 9),
            Which::Organs => (organs(), 40),
            Which::Hippocampi => (hippocampi(shared)?, 24),
            Which::Bodies => (bodies(), 240),
            Which::HippocampusEnds => (hippocampus_ends(shared)?, 1000),
        };
        let mut train_part = samples;
        let validation = train_part.split_off(train);
        Ok(Self { train: train_part, validation })
    }

    /// Writes it below a folder, which is made.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let first = self.train.first().ok_or("no samples")?;
        if first.labels.is_empty() {
            return self.write_classes(folder);
        }
        if first.shape.len() == 2 {
            write_images(&folder.join("train"), &self.train)?;
            return write_images(&folder.join("validation"), &self.validation);
        }
        for sub in ["images", "labels"] {
            fs::create_dir_all(folder.join(sub))?;
        }
        for (name, sample) in self.named() {
            write_f32(&folder.join("images").join(&name), sample)?;
            write_u8(&folder.join("labels").join(&name), sample)?;
        }
        self.write_split(folder)
    }

    fn named(&self) -> impl Iterator<Item = (String, &Sample)> {
        let train = self.train.iter().enumerate().map(|(i, s)| (format!("train_{i:03}.npy"), s));
        train.chain(self.validation.iter().enumerate().map(|(i, s)| (format!("val_{i:03}.npy"), s)))
    }

    fn write_split(&self, folder: &Path) -> Result<()> {
        let names = |part: &str, n: usize| (0..n).map(|i| format!("{part}_{i:03}")).collect::<Vec<_>>();
        let split = serde_json::json!([{
            "train": names("train", self.train.len()), "val": names("val", self.validation.len()),
        }]);
        Ok(fs::write(folder.join("split.json"), split.to_string())?)
    }

    fn write_classes(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let mut table = "path,label\n".to_owned();
        for (name, sample) in self.named() {
            write_f32(&folder.join(&name), sample)?;
            table += &format!("{name},{}\n", sample.class);
        }
        fs::write(folder.join("labels.csv"), table)?;
        self.write_split(folder)
    }
}

fn write_images(folder: &Path, samples: &[Sample]) -> Result<()> {
    for sub in ["images", "masks"] {
        fs::create_dir_all(folder.join(sub))?;
    }
    for (i, sample) in samples.iter().enumerate() {
        let name = format!("image_{i:03}.npy");
        write_f32(&folder.join("images").join(&name), sample)?;
        write_u8(&folder.join("masks").join(&name), sample)?;
    }
    Ok(())
}

fn write_f32(path: &Path, sample: &Sample) -> Result<()> {
    let bytes: Vec<u8> = sample.image.iter().flat_map(|v| v.to_le_bytes()).collect();
    write_npy(path, "<f4", &sample.shape, &bytes)
}

fn write_u8(path: &Path, sample: &Sample) -> Result<()> {
    write_npy(path, "|u1", &sample.shape, &sample.labels)
}

/// <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>, version 1.0.
fn write_npy(path: &Path, kind: &str, shape: &[usize], bytes: &[u8]) -> Result<()> {
    let shape: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    // Magic, version and length take 10 bytes; the whole must be a multiple of 64 and end with a line feed.
    header += &" ".repeat((64 - (10 + header.len() + 1) % 64) % 64);
    header.push('\n');
    let mut file = fs::File::create(path)?;
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&(header.len() as u16).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    Ok(file.write_all(bytes)?)
}

fn micrographs() -> Vec<Sample> {
    let config = synth::MicrographConfig {
        width: 128,
        height: 128,
        particle_diameter: 26.0,
        ..synth::MicrographConfig::default()
    };
    let made = (0..26).map(|i| synth::generate(&config, 7, i));
    made.map(|m| Sample {
        shape: vec![m.image.height, m.image.width],
        image: m.image.pixels,
        labels: m.mask.values.iter().map(|v| *v as u8).collect(),
        class: 0,
    })
    .collect()
}

fn apoferritin(shared: &Path) -> Result<Vec<Sample>> {
    let root = shared.join("data/cryoem_apoferritin_empiar10146");
    let spec = FolderSpec { masks: Some("masks_derived".into()), ..FolderSpec::new(root, "micrographs") };
    let data = Dataset::open(Source::Folder(spec), Options::default())?;
    let side = 192;
    let mut samples = Vec::new();
    for i in 0..data.len() {
        let pair = data.load(i)?;
        let labels = pair.labels.as_ref().ok_or("no mask")?;
        let (width, from) = (pair.image.width, 200);
        let mut sample = Sample { shape: vec![side; 2], image: Vec::new(), labels: Vec::new(), class: 0 };
        for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
            let at = |dy: usize, dx: usize| (from + 2 * y + dy) * width + from + 2 * x + dx;
            let four = [at(0, 0), at(0, 1), at(1, 0), at(1, 1)];
            sample.image.push(four.iter().map(|i| pair.image.pixels[*i]).sum::<f32>() / 4.0);
            sample.labels.push(u8::from(labels[four[0]] == 1));
        }
        samples.push(sample);
    }
    Ok(samples)
}

fn organs() -> Vec<Sample> {
    let config = synth::OrganConfig {
        shape: [16, 24, 16],
        noise: 0.3,
        distractors: 0,
        ..synth::OrganConfig::default()
    };
    let made = (0..48).map(|i| synth::organ(&config, 7, i));
    made.map(|(volume, labels)| Sample {
        shape: volume.shape.to_vec(),
        image: volume.values,
        labels: labels.iter().map(|v| *v as u8).collect(),
        class: 0,
    })
    .collect()
}

/// Images and labels of the first so many hippocampi, by name.
fn hippocampus_files(shared: &Path, wanted: usize) -> Result<Vec<(PathBuf, PathBuf)>> {
    let root = shared.join("data/hippocampus_msd_task04");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(root.join("images"))?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    let labelled = paths.into_iter().filter_map(|image| {
        let labels = root.join("labels").join(image.file_name()?);
        labels.is_file().then_some((image, labels))
    });
    Ok(labelled.take(wanted).collect())
}

fn hippocampi(shared: &Path) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for (path, labels) in hippocampus_files(shared, 32)? {
        let (volume, labels) = (read_volume(&path, None)?, read_volume_labels(&labels, None)?);
        let [_, h, w] = volume.shape;
        let half = volume.shape.map(|n| n / 2);
        let mut sample = Sample { shape: half.to_vec(), image: Vec::new(), labels: Vec::new(), class: 0 };
        for (z, y, x) in
            (0..half[0]).flat_map(|z| (0..half[1]).flat_map(move |y| (0..half[2]).map(move |x| (z, y, x))))
        {
            let at = |dz: usize, dy: usize, dx: usize| ((2 * z + dz) * h + 2 * y + dy) * w + 2 * x + dx;
            let eight =
                [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)];
            sample.image.push(eight.iter().map(|(a, b, c)| volume.values[at(*a, *b, *c)]).sum::<f32>() / 8.0);
            sample.labels.push(labels.values[at(0, 0, 0)] as u8);
        }
        samples.push(sample);
    }
    Ok(samples)
}

/// Ten cubes of each hippocampus. Whole ones are in training or in validation, since the cubes of one overlap.
fn hippocampus_ends(shared: &Path) -> Result<Vec<Sample>> {
    const SIDE: usize = 12;
    const EACH: usize = 10;
    let mut samples = Vec::new();
    for (number, (path, labels)) in hippocampus_files(shared, 140)?.into_iter().enumerate() {
        let (volume, labels) = (read_volume(&path, None)?, read_volume_labels(&labels, None)?);
        let [d, h, w] = volume.shape;
        for i in 0..EACH {
            let class = usize::from(i % 5 == 0);
            let of_class: Vec<usize> =
                (0..d * h * w).filter(|v| labels.values[*v] as usize == 2 - class).collect();
            // Any voxel, but the same at every start of the bench.
            let pick = (number * EACH + i).wrapping_mul(2_654_435_761) >> 7;
            let centre = *of_class.get(pick % of_class.len().max(1)).ok_or("an end without a voxel")?;
            let from = |at: usize, size: usize| at.saturating_sub(SIDE / 2).min(size.saturating_sub(SIDE));
            let corner = [from(centre / (h * w), d), from(centre / w % h, h), from(centre % w, w)];
            let mut image = Vec::with_capacity(SIDE * SIDE * SIDE);
            for (z, y) in (0..SIDE).flat_map(|z| (0..SIDE).map(move |y| (z, y))) {
                let row = ((corner[0] + z) * h + corner[1] + y) * w + corner[2];
                image.extend_from_slice(&volume.values[row..row + SIDE]);
            }
            samples.push(Sample { shape: vec![SIDE; 3], image, labels: Vec::new(), class });
        }
    }
    Ok(samples)
}

fn bodies() -> Vec<Sample> {
    let config =
        synth::PatchClassConfig { shape: [8, 24, 24], positive_share: 0.25, noise: 0.15, visibility: 1.0 };
    let made = (0..360).map(|i| synth::patch_class(&config, 7, i));
    made.map(|(mut volume, class)| {
        let [d, h, w] = volume.shape;
        // A trace that a few hundred steps can learn: the middle of class 1 is a little brighter.
        for (z, y, x) in (d / 4..3 * d / 4)
            .flat_map(|z| (h / 3..2 * h / 3).flat_map(move |y| (w / 3..2 * w / 3).map(move |x| (z, y, x))))
        {
            volume.values[(z * h + y) * w + x] += 25.0 * class as f32;
        }
        Sample { shape: vec![d, h, w], image: volume.values, labels: Vec::new(), class }
    })
    .collect()
}
