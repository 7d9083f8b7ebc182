//! The audit finds every planted fault in one run and says nothing about sound data.

use std::path::Path;

use tempfile::TempDir;
use trimtab_data::audit::{AuditReport, Code, Severity, inspect};
use trimtab_data::dataset::{Dataset, FolderSpec, NpzSpec, Options, Source, SynthSpec};
use trimtab_data::formats::{self, NpzBatch};
use trimtab_data::synth::MicrographConfig;
use trimtab_data::{Image, Labels};

const SIDE: usize = 8;

fn image(number: usize) -> Image {
    Image {
        width: SIDE,
        height: SIDE,
        pixels: (0..SIDE * SIDE).map(|i| (i * (number + 3) % 251) as f32).collect(),
    }
}

fn bytes(image: &Image) -> Vec<u8> {
    image.pixels.iter().map(|&p| p as u8).collect()
}

fn write_png(path: impl AsRef<Path>, image: &Image) {
    std::fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    formats::png::write_grey8(path.as_ref(), image.width, image.height, &bytes(image)).unwrap();
}

fn write_mask(path: impl AsRef<Path>, values: &[u8]) {
    std::fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    formats::png::write_grey8(path.as_ref(), SIDE, values.len() / SIDE, values).unwrap();
}

fn half() -> Vec<u8> {
    (0..SIDE * SIDE).map(|i| u8::from(i < SIDE * SIDE / 2)).collect()
}

/// `count` sound images with half-positive masks under `dir/<split>`; image numbers from `first`.
fn sound(dir: &TempDir, split: &str, first: usize, count: usize) -> FolderSpec {
    let root = dir.path().join(split);
    for number in first..first + count {
        write_png(root.join(format!("images/m{number}.png")), &image(number));
        write_mask(root.join(format!("masks/m{number}.png")), &half());
    }
    FolderSpec { masks: Some("masks".into()), ..FolderSpec::new(root, "images") }
}

fn open(spec: &FolderSpec) -> Dataset {
    Dataset::open_unchecked(Source::Folder(spec.clone()), Options::default()).unwrap()
}

fn codes(report: &AuditReport) -> Vec<Code> {
    report.problems.iter().map(|p| p.code).collect()
}

#[track_caller]
fn only_problem<'a>(report: &'a AuditReport, code: Code, files: &[&str]) -> &'a str {
    let found: Vec<_> = report.problems.iter().filter(|p| p.code == code).collect();
    assert_eq!(found.len(), 1, "{code:?} in {:#?}", report.problems);
    assert_eq!(found[0].files.len(), files.len(), "{:#?}", found[0]);
    for (found, wanted) in found[0].files.iter().zip(files) {
        assert!(found.ends_with(wanted), "{found} is not {wanted}");
    }
    assert_eq!(found[0].severity, code.severity());
    &found[0].message
}

#[test]
fn sound_data_has_numbers_and_no_problems() {
    let dir = tempfile::tempdir().unwrap();
    let (train, val) = (sound(&dir, "train", 0, 3), sound(&dir, "val", 3, 2));
    let report = inspect(&[("train", &open(&train)), ("val", &open(&val))], 4);
    assert_eq!(report.problems, []);
    assert_eq!((report.errors, report.warnings, report.splits.len()), (0, 0, 2));
    let split = &report.splits[0];
    assert_eq!((split.images, split.labelled, split.pixels, split.tiles), (3, 3, 192, 12));
    assert_eq!((split.sizes.len(), split.sizes[0].images), (1, 3));
    let labels = split.labels.as_ref().unwrap();
    assert_eq!((labels.positive, labels.negative, labels.ignored, labels.empty_masks), (96, 96, 0, 0));
    assert_eq!((labels.prevalence, labels.ignored_fraction), (Some(0.5), 0.0));

    let all: Vec<f64> = (0..3).flat_map(|n| image(n).pixels).map(f64::from).collect();
    let mean = all.iter().sum::<f64>() / 192.0;
    let std = (all.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / 192.0).sqrt();
    let intensity = split.intensity.as_ref().unwrap();
    assert!((intensity.mean - mean).abs() < 1e-9 && (intensity.std - std).abs() < 1e-9);
    assert_eq!(f64::from(intensity.max), all.iter().copied().fold(0.0, f64::max));
}

#[test]
fn every_planted_fault_is_found_in_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let spec = sound(&dir, "train", 0, 12);
    let root = dir.path().join("train");
    std::fs::remove_file(root.join("masks/m0.png")).unwrap();
    write_mask(root.join("masks/orphan.png"), &half());
    write_mask(root.join("masks/m1.png"), &[0; SIDE * 5]);
    write_mask(root.join("masks/m2.png"), &[7; SIDE * SIDE]);
    write_mask(root.join("masks/m3.png"), &[0; SIDE * SIDE]);
    std::fs::write(root.join("images/m4.png"), "not an image").unwrap();
    std::fs::write(root.join("masks/m5.png"), "not a mask").unwrap();
    write_png(root.join("images/m6.png"), &Image::filled(SIDE, SIDE, 9.0));
    std::fs::remove_file(root.join("images/m7.png")).unwrap();
    let mut broken = image(7);
    broken.pixels[5] = f32::NAN;
    formats::tiff::write_f32(&root.join("images/m7.tif"), &broken).unwrap();
    // The same picture in another format and under another name.
    std::fs::remove_file(root.join("images/m9.png")).unwrap();
    formats::tiff::write_grey8(&root.join("images/m9.tif"), SIDE, SIDE, &bytes(&image(8))).unwrap();
    formats::tiff::write_f32(&root.join("images/m10.tif"), &image(10)).unwrap();

    let report = inspect(&[("train", &open(&spec))], SIDE);
    only_problem(&report, Code::MissingMask, &["m0.png"]);
    only_problem(&report, Code::MaskWithoutImage, &["orphan.png"]);
    let sizes = only_problem(&report, Code::SizeMismatch, &["images/m1.png", "masks/m1.png"]);
    assert!(sizes.contains("8x8") && sizes.contains("8x5"), "{sizes}");
    let values = only_problem(&report, Code::LabelOutOfRange, &["masks/m2.png"]);
    assert!(values.contains("7 (64 pixels)"), "{values}");
    only_problem(&report, Code::EmptyMask, &["images/m3.png"]);
    only_problem(&report, Code::ConstantImage, &["images/m6.png"]);
    only_problem(&report, Code::NonFinitePixels, &["images/m7.tif"]);
    only_problem(&report, Code::DuplicateWithinSplit, &["images/m8.png", "images/m9.tif"]);
    only_problem(&report, Code::AmbiguousFiles, &["m10.png", "m10.tif"]);
    let unreadable: Vec<_> = report.problems.iter().filter(|p| p.code == Code::Unreadable).collect();
    assert_eq!(unreadable.len(), 2);
    assert!(
        unreadable[0].files[0].ends_with("images/m4.png") && unreadable[1].files[0].ends_with("masks/m5.png")
    );
    assert_eq!((report.errors, report.warnings), (6, 5));
    assert!(report.problems.is_sorted_by_key(|p| p.severity));

    let split = &report.splits[0];
    assert_eq!((split.images, split.labelled, split.non_finite), (12, 7, 1));
    assert_eq!(split.labels.as_ref().unwrap().empty_masks, 1);
}

#[test]
fn an_image_in_two_splits_is_an_error_under_any_name() {
    let dir = tempfile::tempdir().unwrap();
    let (train, val) = (sound(&dir, "train", 0, 3), sound(&dir, "val", 3, 2));
    write_png(dir.path().join("val/images/m4.png"), &image(1));
    let report = inspect(&[("train", &open(&train)), ("val", &open(&val))], SIDE);
    let message =
        only_problem(&report, Code::DuplicateAcrossSplits, &["train/images/m1.png", "val/images/m4.png"]);
    assert!(message.contains("train") && message.contains("val"));
    assert_eq!(report.errors, 1);
}

#[test]
fn parts_of_one_folder_tell_its_faults_once() {
    let dir = tempfile::tempdir().unwrap();
    let spec = sound(&dir, "all", 0, 6);
    std::fs::remove_file(dir.path().join("all/masks/m0.png")).unwrap();
    std::fs::remove_file(dir.path().join("all/masks/m5.png")).unwrap();
    write_mask(dir.path().join("all/masks/stray.png"), &half());
    let (train, val) = open(&spec).split_last(2).unwrap();
    let report = inspect(&[("train", &train), ("val", &val)], SIDE);
    assert_eq!(codes(&report), [Code::MissingMask, Code::MissingMask, Code::MaskWithoutImage]);
    assert_eq!((report.problems[0].files.len(), report.problems[1].files.len()), (1, 1));

    let allowed = open(&FolderSpec { unlabelled_ok: true, ..spec });
    assert_eq!(inspect(&[("all", &allowed)], SIDE).errors, 0);
}

#[test]
fn ignored_pixels_do_not_count_in_the_prevalence() {
    let dir = tempfile::tempdir().unwrap();
    let spec = FolderSpec { ignore_value: Some(99), ..sound(&dir, "train", 0, 2) };
    let mut values = half();
    values[..16].fill(99);
    write_mask(dir.path().join("train/masks/m0.png"), &values);
    write_mask(dir.path().join("train/masks/m1.png"), &[99; SIDE * SIDE]);
    let report = inspect(&[("train", &open(&spec))], 2 * SIDE);
    let labels = report.splits[0].labels.as_ref().unwrap();
    assert_eq!((labels.positive, labels.negative, labels.ignored), (16, 32, 80));
    assert_eq!(labels.prevalence, Some(1.0 / 3.0));
    assert_eq!(labels.ignored_fraction, 0.625);
    assert_eq!(labels.stored[0].value, 99);
    only_problem(&report, Code::AllIgnored, &["m1.png"]);
    only_problem(&report, Code::SmallerThanTile, &["m0.png", "m1.png"]);
}

#[test]
fn batches_and_generated_data_are_examined_too() {
    let dir = tempfile::tempdir().unwrap();
    let images = vec![image(0), image(1), image(0)];
    let masks = Some(vec![Labels::filled(SIDE, SIDE, 1); 3]);
    formats::npz::write(&dir.path().join("a.npz"), &NpzBatch { images, masks }).unwrap();
    std::fs::write(dir.path().join("b.npz"), "broken").unwrap();
    let spec = NpzSpec { paths: vec![dir.path().to_owned()], mask_threshold: None, ignore_value: None };
    let batches = Dataset::open_unchecked(Source::Npz(spec), Options::default()).unwrap();
    let config = MicrographConfig { width: 64, height: 64, ..MicrographConfig::default() };
    let synth = Source::Synth(SynthSpec { config, seed: 1, count: 2, first_index: 0 });
    let synth = Dataset::open(synth, Options::default()).unwrap();
    let report = inspect(&[("batches", &batches), ("synth", &synth), ("again", &synth)], SIDE);
    only_problem(&report, Code::DuplicateWithinSplit, &["a#0", "a#2"]);
    only_problem(&report, Code::Unreadable, &["b.npz"]);
    let across: Vec<_> = report.problems.iter().filter(|p| p.code == Code::DuplicateAcrossSplits).collect();
    assert_eq!(across.len(), 2);
    assert_eq!(across[0].files, ["synth-000000", "synth-000000"]);
    assert_eq!(report.splits[1].tiles, 128);
}

#[test]
fn the_report_does_not_depend_on_the_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let spec = sound(&dir, "train", 0, 20);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| inspect(&[("train", &open(&spec))], SIDE))
    };
    assert_eq!(with(1), with(4));
}

#[test]
fn the_json_has_the_published_shape() {
    let dir = tempfile::tempdir().unwrap();
    let spec = sound(&dir, "train", 0, 1);
    write_mask(dir.path().join("train/masks/m0.png"), &[0; SIDE * SIDE]);
    let json = serde_json::to_value(inspect(&[("train", &open(&spec))], SIDE)).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&json), ["tile", "errors", "warnings", "splits", "problems"]);
    let split = &json["splits"][0];
    assert_eq!(
        keys(split),
        ["name", "images", "labelled", "pixels", "tiles", "sizes", "intensity", "non_finite", "labels"]
    );
    assert_eq!(split["sizes"][0], serde_json::json!({ "width": 8, "height": 8, "images": 1 }));
    assert_eq!(
        split["labels"],
        serde_json::json!({
            "stored": [{ "value": 0, "pixels": 64 }], "positive": 0, "negative": 64, "ignored": 0,
            "prevalence": 0.0, "ignored_fraction": 0.0, "empty_masks": 1
        })
    );
    let problem = &json["problems"][0];
    assert_eq!(keys(problem), ["severity", "code", "files", "message"]);
    assert_eq!((&problem["severity"], &problem["code"]), (&"warning".into(), &"empty-mask".into()));
    assert_eq!(serde_json::to_value(Code::DuplicateAcrossSplits).unwrap(), "duplicate-across-splits");
    assert_eq!(serde_json::to_value(Severity::Error).unwrap(), "error");
}
