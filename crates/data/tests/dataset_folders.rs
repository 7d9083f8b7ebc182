//! Datasets from folders, batches and the generator: pairing, labels, errors, splits, fingerprints.

use std::path::Path;

use tempfile::TempDir;
use trimtab_data::dataset::{Dataset, FolderSpec, NpzSpec, Options, Source, SynthSpec};
use trimtab_data::formats::{self, NpzBatch};
use trimtab_data::synth::MicrographConfig;
use trimtab_data::{Image, Labels};

const WIDTH: usize = 6;
const HEIGHT: usize = 4;

fn write_image(path: impl AsRef<Path>, number: u16) {
    let path = path.as_ref();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let values: Vec<u16> = (0..(WIDTH * HEIGHT) as u16).map(|i| 1000 * number + i).collect();
    formats::png::write_grey16(path, WIDTH, HEIGHT, &values).unwrap();
}

fn write_mask(path: impl AsRef<Path>, width: usize, values: &[u8]) {
    let path = path.as_ref();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    formats::png::write_grey8(path, width, values.len() / width, values).unwrap();
}

/// A mask whose first pixel is `first`, the others 0.
fn mask_with(first: u8) -> Vec<u8> {
    let mut values = vec![0; WIDTH * HEIGHT];
    values[0] = first;
    values
}

/// `images/m1.png`, `m2.png` … with `masks/<same>.png` of 0 and 255.
fn folder(count: u16) -> (TempDir, FolderSpec) {
    let dir = tempfile::tempdir().unwrap();
    for number in 1..=count {
        write_image(dir.path().join(format!("images/m{number}.png")), number);
        write_mask(dir.path().join(format!("masks/m{number}.png")), WIDTH, &mask_with(255));
    }
    let spec = FolderSpec { masks: Some("masks".into()), ..FolderSpec::new(dir.path(), "images") };
    (dir, spec)
}

fn open(spec: &FolderSpec) -> trimtab_data::Result<Dataset> {
    Dataset::open(Source::Folder(spec.clone()), Options::default())
}

#[track_caller]
fn refused(spec: &FolderSpec, fragments: &[&str]) {
    let message = open(spec).expect_err("must be refused").to_string();
    for fragment in fragments {
        assert!(message.contains(fragment), "{fragment:?} is not in: {message}");
    }
}

fn names(dataset: &Dataset) -> Vec<&str> {
    (0..dataset.len()).map(|i| dataset.name(i)).collect()
}

#[test]
fn images_pair_with_masks_by_stem_in_natural_order() {
    let (dir, spec) = folder(11);
    std::fs::rename(dir.path().join("masks/m2.png"), dir.path().join("masks/m2_mask.png")).unwrap();
    std::fs::write(dir.path().join("images/notes.txt"), "x").unwrap();
    std::fs::write(dir.path().join("images/.hidden.png"), "x").unwrap();
    let dataset = open(&spec).unwrap();
    assert_eq!(names(&dataset)[..3], ["m1", "m2", "m3"]);
    assert_eq!(names(&dataset)[9..], ["m10", "m11"]);
    assert_eq!(dataset.sizes().unwrap(), [(WIDTH, HEIGHT); 11]);
    for i in 0..dataset.len() {
        let pair = dataset.load(i).unwrap();
        assert_eq!(pair.name, dataset.name(i));
        let labels = pair.labels.as_ref().unwrap();
        assert_eq!((labels[0], labels.iter().map(|&l| i32::from(l)).sum::<i32>()), (1, 1));
        assert!(dataset.is_labelled(i));
    }
}

#[test]
fn a_second_load_comes_from_the_cache() {
    let (dir, spec) = folder(2);
    let dataset = open(&spec).unwrap();
    let first = dataset.load(0).unwrap();
    std::fs::remove_file(dir.path().join("images/m1.png")).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &dataset.load(0).unwrap()));

    let uncached =
        Dataset::open(Source::Folder(spec), Options { cache_bytes: 0, ..Options::default() }).unwrap();
    assert_eq!(names(&uncached), ["m2"]);
    uncached.load(0).unwrap();
    std::fs::remove_file(dir.path().join("images/m2.png")).unwrap();
    assert!(uncached.load(0).unwrap_err().to_string().contains("m2.png"));
}

#[test]
fn masks_may_lie_beside_the_images() {
    let dir = tempfile::tempdir().unwrap();
    write_image(dir.path().join("a.png"), 1);
    write_mask(dir.path().join("a_mask.png"), WIDTH, &mask_with(1));
    let spec = FolderSpec { masks: Some(".".into()), ..FolderSpec::new(dir.path(), "") };
    let dataset = open(&spec).unwrap();
    assert_eq!(names(&dataset), ["a"]);
    assert_eq!(dataset.load(0).unwrap().labels.as_ref().unwrap()[0], 1);
}

#[test]
fn a_missing_or_empty_folder_is_named_with_what_was_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    refused(&FolderSpec::new(dir.path(), "images"), &["images", "does not exist", "folder of the images"]);
    std::fs::create_dir(dir.path().join("images")).unwrap();
    refused(&FolderSpec::new(dir.path(), "images"), &["no images here", "png", "mrc", "empty"]);
    std::fs::write(dir.path().join("images/a.docx"), "x").unwrap();
    refused(&FolderSpec::new(dir.path(), "images"), &["no images here", "a.docx"]);
    write_image(dir.path().join("images/a.png"), 1);
    let masks = FolderSpec { masks: Some("masks".into()), ..FolderSpec::new(dir.path(), "images") };
    refused(&masks, &["masks", "does not exist", "folder of the masks"]);
}

#[test]
fn images_without_masks_are_counted_and_named_unless_allowed() {
    let (dir, mut spec) = folder(9);
    for number in [1, 2, 3, 4, 5, 6, 8] {
        std::fs::remove_file(dir.path().join(format!("masks/m{number}.png"))).unwrap();
    }
    refused(&spec, &["masks", "no mask for 7 of 9 images", "m1.png", "m5.png", "and 2 more"]);
    spec.unlabelled_ok = true;
    let dataset = open(&spec).unwrap();
    assert!(!dataset.is_labelled(0) && dataset.is_labelled(6));
    assert!(dataset.load(0).unwrap().labels.is_none());
    assert!(dataset.load(6).unwrap().labels.is_some());
}

#[test]
fn two_files_of_one_stem_are_refused() {
    let (dir, spec) = folder(2);
    let image = Image::filled(WIDTH, HEIGHT, 1.0);
    formats::tiff::write_f32(&dir.path().join("images/m1.tif"), &image).unwrap();
    refused(&spec, &["m1.png", "m1.tif", "keep one"]);
    std::fs::remove_file(dir.path().join("images/m1.tif")).unwrap();
    write_mask(dir.path().join("masks/m2_mask.png"), WIDTH, &mask_with(1));
    refused(&spec, &["m2.png", "m2_mask.png", "keep one"]);
}

#[test]
fn a_mask_of_another_size_is_refused_with_both_sizes() {
    let (dir, spec) = folder(3);
    write_mask(dir.path().join("masks/m2.png"), 3, &[0; 15]);
    refused(&spec, &["masks", "m2.png", "3x5", "6x4"]);
}

#[test]
fn values_that_are_no_labels_are_named_with_the_file() {
    let (dir, mut spec) = folder(2);
    write_mask(dir.path().join("masks/m2.png"), WIDTH, &mask_with(77));
    let dataset = open(&spec).unwrap();
    assert!(dataset.load(0).is_ok());
    let message = dataset.load(1).unwrap_err().to_string();
    for part in ["m2.png", "77 (1 pixels)", "0 (23 pixels)", "{-1, 0, 1}", "data.mask_threshold"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    spec.mask_threshold = Some(76);
    assert_eq!(open(&spec).unwrap().load(1).unwrap().labels.as_ref().unwrap()[0], 1);
    spec.mask_threshold = None;
    spec.ignore_value = Some(77);
    assert_eq!(open(&spec).unwrap().load(1).unwrap().labels.as_ref().unwrap()[0], -1);
}

#[test]
fn negative_labels_are_read_from_signed_files() {
    let (dir, spec) = folder(1);
    std::fs::remove_file(dir.path().join("masks/m1.png")).unwrap();
    let mut labels = Labels::filled(WIDTH, HEIGHT, 0);
    labels.values[..2].copy_from_slice(&[-1, 1]);
    formats::npy::write_labels(&dir.path().join("masks/m1.npy"), &labels).unwrap();
    assert_eq!(open(&spec).unwrap().load(0).unwrap().labels.as_ref().unwrap()[..3], [-1, 1, 0]);
}

#[test]
fn coordinates_become_discs() {
    let (dir, masks) = folder(2);
    let mut spec = FolderSpec { masks: None, coordinates: Some("coords".into()), ..masks };
    std::fs::create_dir(dir.path().join("coords")).unwrap();
    std::fs::write(dir.path().join("coords/m1.box"), "1\t0\t3\t3\n").unwrap();
    std::fs::write(dir.path().join("coords/m2.csv"), "X-Coordinate,Y-Coordinate\n3,1\n").unwrap();
    let dataset = open(&spec).unwrap();
    assert!(dataset.load(1).unwrap_err().to_string().contains("data.particle_diameter"));
    assert!(dataset.load(1).unwrap_err().to_string().contains("m2.csv"));
    spec.particle_diameter = Some(2.0);
    let dataset = open(&spec).unwrap();
    let labels = dataset.load(1).unwrap().labels.clone().unwrap();
    assert_eq!(labels.iter().filter(|&&l| l == 1).count(), 5);
    assert_eq!(labels[WIDTH + 3], 1);
    let particles = dataset.particles(1).unwrap().unwrap();
    assert_eq!((particles.len(), particles[0].x, particles[0].y), (1, 3.0, 1.0));
    spec.particle_diameter = Some(-1.0);
    refused(&spec, &["data.particle_diameter", "positive"]);
}

#[test]
fn one_coordinates_file_may_name_several_micrographs() {
    let (dir, masks) = folder(3);
    let table = "image_name\tx_coord\ty_coord\nm1\t1\t1\nother/m2.mrc\t2\t2\nm1\t4\t2\n";
    std::fs::write(dir.path().join("particles.txt"), table).unwrap();
    let mut spec = FolderSpec {
        masks: None,
        coordinates: Some("particles.txt".into()),
        particle_diameter: Some(1.0),
        ..masks.clone()
    };
    refused(&spec, &["no coordinates for 1 of 3 images", "m3.png"]);
    spec.unlabelled_ok = true;
    let dataset = open(&spec).unwrap();
    let positives =
        |i: usize| dataset.load(i).unwrap().labels.as_ref().map(|l| l.iter().filter(|&&l| l == 1).count());
    assert_eq!([positives(0), positives(1), positives(2)], [Some(2), Some(1), None]);
    assert!(dataset.particles(2).unwrap().is_none());

    // The same file in a folder, and coordinates beside masks: the masks are the labels.
    std::fs::create_dir(dir.path().join("coords")).unwrap();
    std::fs::rename(dir.path().join("particles.txt"), dir.path().join("coords/all.txt")).unwrap();
    let both = FolderSpec { coordinates: Some("coords".into()), ..masks };
    let dataset = open(&both).unwrap();
    assert_eq!(dataset.particles(0).unwrap().unwrap().len(), 2);
    assert_eq!(dataset.load(2).unwrap().labels.as_ref().unwrap().iter().filter(|&&l| l == 1).count(), 1);

    std::fs::write(dir.path().join("coords/all.txt"), "hello\n").unwrap();
    spec.coordinates = Some("coords".into());
    spec.unlabelled_ok = false;
    refused(&spec, &["no coordinates for 3 of 3 images", "all.txt:1"]);
}

#[test]
fn splits_are_disjoint_complete_and_share_the_cache() {
    let (_dir, spec) = folder(5);
    let dataset = open(&spec).unwrap();
    let (train, val) = dataset.split_last(2).unwrap();
    assert_eq!((names(&train), names(&val)), (vec!["m1", "m2", "m3"], vec!["m4", "m5"]));
    assert!(std::sync::Arc::ptr_eq(&val.load(0).unwrap(), &dataset.load(3).unwrap()));
    let (train, val) = dataset.split_named(&["m2", "*[45]", "m5"][..1]).unwrap();
    assert_eq!((train.len(), names(&val)), (4, vec!["m2"]));
    let (train, val) = train.split_named(&["m?"[..].replace('?', "5"), "m4".to_owned()]).unwrap();
    assert_eq!((names(&train), names(&val)), (vec!["m1", "m3"], vec!["m4", "m5"]));

    for wrong in [0, 5, 6] {
        assert!(dataset.split_last(wrong).unwrap_err().to_string().contains("accepted: 1 to 4"));
    }
    let message = dataset.split_named(&["val_*"]).unwrap_err().to_string();
    assert!(message.contains("val_*") && message.contains("m1"), "{message}");
    assert!(dataset.split_named(&["*"]).is_err());
}

#[test]
fn the_fingerprint_follows_the_data_and_not_the_place() {
    let (dir, spec) = folder(3);
    let print = |spec: &FolderSpec| open(spec).unwrap().fingerprint().unwrap();
    let first = print(&spec);
    assert_eq!(first.len(), 64);
    assert_eq!(first, print(&spec));
    let (_elsewhere, same) = folder(3);
    assert_eq!(first, print(&same));
    assert_ne!(first, print(&FolderSpec { ignore_value: Some(9), ..spec.clone() }));
    assert_ne!(first, open(&spec).unwrap().split_last(1).unwrap().0.fingerprint().unwrap());
    write_mask(dir.path().join("masks/m2.png"), WIDTH, &mask_with(0));
    assert_ne!(first, print(&spec));
}

fn batch(from: u16, count: u16, masks: bool) -> NpzBatch {
    let image = |n: u16| {
        let pixels = (0..WIDTH * HEIGHT).map(|i| f32::from(n) * 1000.0 + i as f32).collect();
        Image { width: WIDTH, height: HEIGHT, pixels }
    };
    let mut mask = Labels::filled(WIDTH, HEIGHT, 0);
    mask.values[..2].copy_from_slice(&[-1, 1]);
    NpzBatch {
        images: (from..from + count).map(image).collect(),
        masks: masks.then(|| vec![mask; usize::from(count)]),
    }
}

#[test]
fn every_image_of_every_batch_is_an_entry() {
    let dir = tempfile::tempdir().unwrap();
    formats::npz::write(&dir.path().join("b2.npz"), &batch(1, 2, true)).unwrap();
    formats::npz::write(&dir.path().join("b10.npz"), &batch(3, 3, false)).unwrap();
    let spec = NpzSpec { paths: vec![dir.path().to_owned()], mask_threshold: None, ignore_value: None };
    let dataset = Dataset::open(Source::Npz(spec.clone()), Options::default()).unwrap();
    assert_eq!(names(&dataset), ["b2#0", "b2#1", "b10#0", "b10#1", "b10#2"]);
    assert_eq!(dataset.size(4).unwrap(), (WIDTH, HEIGHT));
    assert_eq!(dataset.load(1).unwrap().labels.as_ref().unwrap()[..3], [-1, 1, 0]);
    assert!(dataset.load(4).unwrap().labels.is_none());
    assert_eq!((dataset.is_labelled(0), dataset.is_labelled(4)), (true, false));
    assert_eq!(dataset.fingerprint().unwrap().len(), 64);

    std::fs::write(dir.path().join("b3.npz"), "PK not really").unwrap();
    let message = Dataset::open(Source::Npz(spec), Options::default()).unwrap_err().to_string();
    assert!(message.contains("b3.npz"), "{message}");
}

#[test]
fn missing_batches_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for (path, part) in
        [(dir.path().join("gone.npz"), "does not exist"), (dir.path().to_owned(), "no files ending in npz")]
    {
        let spec = NpzSpec { paths: vec![path], mask_threshold: None, ignore_value: None };
        let message = Dataset::open(Source::Npz(spec), Options::default()).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn generated_micrographs_are_a_dataset() {
    let config = MicrographConfig { width: 96, height: 64, ..MicrographConfig::default() };
    let spec = SynthSpec { config, seed: 3, count: 4, first_index: 10 };
    let dataset = Dataset::open(Source::Synth(spec.clone()), Options::default()).unwrap();
    assert_eq!(names(&dataset)[..2], ["synth-000010", "synth-000011"]);
    assert_eq!(dataset.sizes().unwrap(), [(96, 64); 4]);
    let pair = dataset.load(2).unwrap();
    assert_eq!((pair.image.width, pair.image.height), (96, 64));
    assert!(pair.labels.as_ref().unwrap().contains(&1));
    assert!(!dataset.particles(2).unwrap().unwrap().is_empty());
    let print = |spec: &SynthSpec| {
        Dataset::open(Source::Synth(spec.clone()), Options::default()).unwrap().fingerprint().unwrap()
    };
    assert_eq!(print(&spec), print(&spec));
    assert_ne!(print(&spec), print(&SynthSpec { seed: 4, ..spec.clone() }));
    assert_ne!(print(&spec), print(&SynthSpec { first_index: 11, ..spec.clone() }));
    // Another range has the same micrograph at the same index.
    let shifted =
        Dataset::open(Source::Synth(SynthSpec { first_index: 12, ..spec }), Options::default()).unwrap();
    assert_eq!(*shifted.load(0).unwrap(), *pair);
}
