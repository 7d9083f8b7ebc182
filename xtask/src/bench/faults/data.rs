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
    /// Mitochondria of the H01 cortex.
    Mitochondria,
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
            Which::Micrographs => (micrographs(), 8),
            Which::Apoferritin => (apoferritin(shared)?, 9),
            Which::Organs => (organs(), 12),
            Which::Hippocampi => (hippocampi(shared)?, 24),
            Which::Bodies => (bodies(), 240),
            Which::Mitochondria => (mitochondria(shared)?, 400),
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
    let made = (0..11).map(|i| synth::generate(&config, 7, i));
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
    let made = (0..16).map(|i| synth::organ(&config, 7, i));
    made.map(|(volume, labels)| Sample {
        shape: volume.shape.to_vec(),
        image: volume.values,
        labels: labels.iter().map(|v| *v as u8).collect(),
        class: 0,
    })
    .collect()
}

fn hippocampi(shared: &Path) -> Result<Vec<Sample>> {
    let root = shared.join("data/hippocampus_msd_task04");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(root.join("images"))?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    let mut samples = Vec::new();
    for path in paths {
        let labels = root.join("labels").join(path.file_name().unwrap_or_default());
        if !labels.is_file() {
            continue;
        }
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
        if samples.len() == 28 {
            break;
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

fn mitochondria(shared: &Path) -> Result<Vec<Sample>> {
    let root = shared.join("data/mito3d_em_classification");
    let table = fs::read_to_string(root.join("labels.csv"))?;
    let mut samples = Vec::new();
    for line in table.lines().skip(1) {
        let (path, class) = line.split_once(',').ok_or("labels.csv has another form")?;
        let volume = read_volume(&root.join(path), None)?;
        let shape = volume.shape.to_vec();
        samples.push(Sample {
            shape,
            image: volume.values,
            labels: Vec::new(),
            class: class.trim().parse()?,
        });
    }
    // The table is sorted by class: every so many make a part, so that both parts have both classes in their shares.
    let order = (0..7).flat_map(|offset| (0..samples.len()).skip(offset).step_by(7));
    let order: Vec<usize> = order.collect();
    Ok(order.into_iter().map(|i| samples[i].clone()).collect())
}
