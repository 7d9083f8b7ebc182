//! Volumes from files to patches: pairing, labels, folds, preprocessing against numpy and scipy
//! (`goldens/preprocess.py`), caches, patches, blending, and an audit that finds every planted fault.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;
use trimtab_data::formats::{npy, png};
use trimtab_data::volume::{IGNORE, voxels};
use trimtab_data::volumes::audit::{Code, Severity, VolumeAudit, audit};
use trimtab_data::volumes::patches::{Sampling, SlabBlend, cut, gaussian, sample, windows};
use trimtab_data::volumes::preprocess::{Align, Scaling, resize};
use trimtab_data::volumes::{
    Case, ClassificationSpec, Generated, LabelRule, Normalise3d, Prepared, Preprocess, SegmentationSpec,
    VolumeDataset, VolumeOptions, VolumeSource, folds,
};
use trimtab_data::{Geometry, Image, Result, Shape, Volume, VolumeInfo, VolumeLabels, VolumeReader};

// ---------------------------------------------------------------------------------------------------------------
// Helpers

/// The generator of the goldens.
fn draw(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / 16_777_216.0
    };
    (0..count).map(|_| next()).collect()
}

fn volume(shape: Shape, values: Vec<f32>) -> Volume {
    let channels = values.len() / voxels(shape).max(1);
    Volume { channels, shape, values, geometry: Geometry::default() }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[track_caller]
fn close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (&a, &b)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(a) - b).abs() <= tolerance * b.abs().max(1.0), "{i}: {a} is not {b}");
    }
}

fn write(path: impl AsRef<Path>, shape: Shape, values: &[f32]) {
    let path = path.as_ref();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let [_, height, width] = shape;
    let slices: Vec<Image> = values
        .chunks_exact(height * width)
        .map(|pixels| Image { width, height, pixels: pixels.to_vec() })
        .collect();
    npy::write_images(path, &slices).unwrap();
}

const SHAPE: Shape = [4, 6, 5];

fn picture(number: u64) -> Vec<f32> {
    draw(number, voxels(SHAPE)).into_iter().map(|u| u as f32).collect()
}

/// Background with a box of each class.
fn map(classes: usize) -> Vec<f32> {
    let mut values = vec![0.0; voxels(SHAPE)];
    for class in 1..classes {
        values[class * 7..class * 7 + 3].fill(class as f32);
    }
    values
}

fn segmentation(root: &Path) -> VolumeSource {
    VolumeSource::Segmentation(SegmentationSpec {
        root: root.to_owned(),
        images: "images".into(),
        labels: Some("labels".into()),
        ..SegmentationSpec::default()
    })
}

fn sound(root: &Path, numbers: Range<u64>) {
    for n in numbers {
        write(root.join(format!("images/case_{n:03}.npy")), SHAPE, &picture(n));
        write(root.join(format!("labels/case_{n:03}.npy")), SHAPE, &map(2));
    }
}

fn open(source: VolumeSource) -> VolumeDataset {
    VolumeDataset::open(source, VolumeOptions::default()).unwrap()
}

fn ids(cases: &[Case]) -> Vec<&str> {
    cases.iter().map(|case| case.id.as_str()).collect()
}

// ---------------------------------------------------------------------------------------------------------------
// Cases

#[test]
fn images_and_labels_pair_by_stem_and_what_does_not_pair_is_told() {
    let dir = TempDir::new().unwrap();
    for stem in ["c10", "c2", "c3"] {
        write(dir.path().join(format!("images/{stem}.npy")), SHAPE, &picture(1));
    }
    write(dir.path().join("labels/c2.npy"), SHAPE, &map(2));
    write(dir.path().join("labels/c10_seg.npy"), SHAPE, &map(2));
    write(dir.path().join("labels/other.npy"), SHAPE, &map(2));
    let list = segmentation(dir.path()).list().unwrap();
    assert_eq!(ids(&list.cases), ["c2", "c3", "c10"]);
    assert!(list.cases[0].labels.as_ref().unwrap().ends_with("labels/c2.npy"));
    assert!(list.cases[2].labels.as_ref().unwrap().ends_with("labels/c10_seg.npy"));
    assert_eq!(list.unlabelled, [dir.path().join("images/c3.npy")]);
    assert_eq!(list.orphan_labels, [dir.path().join("labels/other.npy")]);
    let dataset = open(segmentation(dir.path()));
    assert_eq!((dataset.len(), dataset.labelled().len()), (3, 2));
    assert!(dataset.load(1).unwrap().labels.is_none());
}

#[test]
fn numbered_files_are_channels_if_the_labels_have_no_number() {
    let dir = TempDir::new().unwrap();
    for (case, channel) in [("a", 0), ("a", 1), ("b", 0), ("b", 1)] {
        write(dir.path().join(format!("images/{case}_{channel:04}.npy")), SHAPE, &picture(channel));
    }
    for case in ["a", "b"] {
        write(dir.path().join(format!("labels/{case}.npy")), SHAPE, &map(2));
    }
    let dataset = open(segmentation(dir.path()));
    assert_eq!(ids(dataset.cases()), ["a", "b"]);
    let prepared = dataset.load(0).unwrap();
    assert_eq!((prepared.image.channels, prepared.original.channels), (2, 2));

    // Without labels to go by, they are volumes unless it is said.
    let mut spec = SegmentationSpec {
        root: dir.path().to_owned(),
        images: "images".into(),
        ..SegmentationSpec::default()
    };
    assert_eq!(VolumeSource::Segmentation(spec.clone()).list().unwrap().cases.len(), 4);
    spec.channel_files = Some(true);
    assert_eq!(VolumeSource::Segmentation(spec.clone()).list().unwrap().cases.len(), 2);
    std::fs::remove_file(dir.path().join("images/b_0000.npy")).unwrap();
    let error = VolumeSource::Segmentation(spec).list().unwrap_err().to_string();
    assert!(error.contains("case b has the channels 0001"), "{error}");
}

#[test]
fn labels_may_lie_beside_their_images_and_in_sub_folders() {
    let dir = TempDir::new().unwrap();
    write(dir.path().join("data/p1/x.npy"), SHAPE, &picture(1));
    write(dir.path().join("data/p1/x_mask.npy"), SHAPE, &map(2));
    write(dir.path().join("data/p2/y.npy"), SHAPE, &picture(2));
    let mut spec = SegmentationSpec {
        root: dir.path().to_owned(),
        images: "data".into(),
        labels: Some("data".into()),
        ..SegmentationSpec::default()
    };
    let error = VolumeSource::Segmentation(spec.clone()).list().unwrap_err().to_string();
    assert!(error.contains("no volumes here (sub-folders are not searched)"), "{error}");
    spec.nested = true;
    let list = VolumeSource::Segmentation(spec).list().unwrap();
    assert_eq!(ids(&list.cases), ["x", "y"]);
    assert!(list.cases[0].labels.is_some() && list.cases[1].labels.is_none());
}

#[test]
fn a_folder_of_pictures_is_one_volume() {
    let dir = TempDir::new().unwrap();
    for (folder, scale) in [("raw", 3), ("truth", 1)] {
        std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        for d in 0..4 {
            let pixels: Vec<u8> = (0..30).map(|i| (i * scale + d) % (1 + scale)).collect();
            png::write_grey8(&dir.path().join(folder).join(format!("{d}.png")), 5, 6, &pixels).unwrap();
        }
    }
    let source = VolumeSource::Segmentation(SegmentationSpec {
        root: dir.path().to_owned(),
        images: "raw".into(),
        labels: Some("truth".into()),
        ..SegmentationSpec::default()
    });
    let dataset = open(source);
    assert_eq!(ids(dataset.cases()), ["raw"]);
    assert_eq!(dataset.shapes().unwrap(), [SHAPE]);
    let (train, validation) = dataset.split_last_slices(1).unwrap();
    assert_eq!((train.shapes().unwrap()[0], validation.shapes().unwrap()[0]), ([3, 6, 5], [1, 6, 5]));
    let (all, last) = (dataset.load(0).unwrap(), validation.load(0).unwrap());
    assert_eq!(all.labels.as_ref().unwrap()[90..], last.labels.as_ref().unwrap()[..]);
    assert_eq!(last.original.geometry.affine[2][3], 3.0);
    let error = dataset.split_last_slices(4).unwrap_err().to_string();
    assert!(error.contains("the last 4 of 4 slices; accepted: 1 to 3"), "{error}");
}

#[test]
fn shapes_that_differ_are_an_error_that_names_both_files() {
    let dir = TempDir::new().unwrap();
    sound(dir.path(), 0..1);
    write(dir.path().join("labels/case_000.npy"), [3, 6, 5], &map(2)[..90]);
    let error =
        VolumeDataset::open(segmentation(dir.path()), VolumeOptions::default()).unwrap_err().to_string();
    assert!(error.contains("labels/case_000.npy") && error.contains("images/case_000.npy"), "{error}");
    assert!(error.contains("3x6x5") && error.contains("4x6x5"), "{error}");
}

fn table(dir: &TempDir, text: &str) -> VolumeSource {
    std::fs::write(dir.path().join("t.csv"), text).unwrap();
    VolumeSource::Classification(ClassificationSpec {
        root: dir.path().to_owned(),
        table: Some("t.csv".into()),
        path_column: "file".into(),
        label_column: "label".into(),
        patient_column: Some("who".into()),
        ..ClassificationSpec::default()
    })
}

#[test]
fn a_table_gives_classes_and_patients() {
    let dir = TempDir::new().unwrap();
    for n in 0..3 {
        write(dir.path().join(format!("v/{n}.npy")), SHAPE, &picture(n));
    }
    for n in 0..2 {
        write(dir.path().join(format!("v/m_{n:04}.npy")), SHAPE, &picture(n));
    }
    let text = "\u{feff}who,label,file\nann,10,v/0.npy\nbob,9,v/1\n,,v/2\nann,9,v/m\n";
    let list = table(&dir, text).list().unwrap();
    assert_eq!(list.class_names, ["9", "10"]);
    let classes: Vec<_> = list.cases.iter().map(|case| case.class).collect();
    assert_eq!(classes, [Some(1), Some(0), None, Some(0)]);
    let patients: Vec<_> = list.cases.iter().map(|case| case.patient.as_str()).collect();
    assert_eq!(patients, ["ann", "bob", "2", "ann"]);
    assert_eq!((ids(&list.cases)[3], list.cases[3].images.len()), ("m", 2));
    assert_eq!(list.unlabelled, [dir.path().join("v/2.npy")]);
}

#[test]
fn errors_of_a_table_give_the_line() {
    let dir = TempDir::new().unwrap();
    write(dir.path().join("a.npy"), SHAPE, &picture(1));
    let error = |text: &str| table(&dir, text).list().unwrap_err().to_string();
    let message = error("path,label,who\na.npy,1,x\n");
    assert!(
        message.contains("t.csv:1:") && message.contains("no column `file`; found path, label, who"),
        "{message}"
    );
    let message = error("file,label,who\na.npy,1,x\nb.npy,0,y\n");
    assert!(message.contains("t.csv:3:") && message.contains("no volume b.npy; looked in"), "{message}");
    let message = error("file,label,who\na.npy,1,x\na,0,x\n");
    assert!(message.contains("t.csv:3:") && message.contains("is listed on line 2 already"), "{message}");
    let message = error("file,label,who\na.npy,1\n");
    assert!(message.contains("t.csv:2:"), "{message}");
    assert!(error("file,label,who\n").contains("the table has no rows"));
}

#[test]
fn blank_lines_do_not_shift_the_line_of_an_error() {
    let dir = TempDir::new().unwrap();
    write(dir.path().join("a.npy"), SHAPE, &picture(1));
    let message = table(&dir, "file,label,who\na.npy,1,x\n\n\r\nb,1,x\n").list().unwrap_err().to_string();
    assert!(message.contains("t.csv:5:"), "{message}");
}

proptest! {
    #[test]
    fn no_table_and_no_file_of_folds_brings_the_program_down(
        bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[{}\\]:,\"a-z0-9\n;|\t]{0,80}",
    ) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("t.csv");
        for content in [bytes, format!("file,label,who\n{text}").into_bytes(), text.into_bytes()] {
            let source = table(&dir, "");
            std::fs::write(&path, content).unwrap();
            let _ = source.list();
            let _ = folds::from_file(&path, &[case(1, 0, 1)]);
        }
    }

    #[test]
    fn no_name_brings_the_program_down(name in any::<String>()) {
        let _ = folds::number_in(&name);
    }
}

#[test]
fn sub_folders_are_classes() {
    let dir = TempDir::new().unwrap();
    write(dir.path().join("sick/a.npy"), SHAPE, &picture(1));
    write(dir.path().join("healthy/a.npy"), SHAPE, &picture(2));
    write(dir.path().join("healthy/b.npy"), SHAPE, &picture(3));
    let spec = ClassificationSpec { root: dir.path().to_owned(), ..ClassificationSpec::default() };
    let list = VolumeSource::Classification(spec).list().unwrap();
    assert_eq!(list.class_names, ["healthy", "sick"]);
    assert_eq!(ids(&list.cases), ["healthy/a", "b", "sick/a"]);
    assert_eq!(list.cases.iter().map(|c| c.class.unwrap()).collect::<Vec<_>>(), [0, 0, 1]);
}

// ---------------------------------------------------------------------------------------------------------------
// Labels

fn labels(shape: Shape, values: &[i32]) -> VolumeLabels {
    VolumeLabels { shape, values: values.to_vec(), geometry: Geometry::default() }
}

#[test]
fn a_label_outside_the_classes_is_named_with_its_place_and_share() {
    let mut values = vec![0; 100];
    values[44..].fill(2);
    let message = LabelRule::default().apply(&labels([2, 5, 10], &values)).unwrap_err();
    assert!(
        message.starts_with("label 2 outside 0..=1; 56 % of voxels (56, first at [0, 4, 4])"),
        "{message}"
    );
    assert!(message.ends_with("if it means ignore, set ignore_label"), "{message}");
    let rule = LabelRule { ignore: vec![2], ..LabelRule::default() };
    assert_eq!(rule.apply(&labels([2, 5, 10], &values)).unwrap()[44..], [IGNORE; 56]);
    let message = LabelRule::default().apply(&labels([1, 1, 3], &[0, 255, 0])).unwrap_err();
    assert!(message.contains("positive = [255]"), "{message}");
}

#[test]
fn rules_map_values_to_classes() {
    let map = labels([1, 1, 6], &[-1, 0, 5, 128, 200, 255]);
    let apply = |rule: LabelRule| rule.apply(&map).unwrap();
    let threshold = LabelRule { threshold: Some(127), ignore: vec![-1], ..LabelRule::default() };
    assert_eq!(apply(threshold), [IGNORE, 0, 0, 1, 1, 1]);
    let positive = LabelRule { positive: Some(vec![5, 255]), ignore: vec![200], ..LabelRule::default() };
    assert_eq!(apply(positive), [0, 0, 1, 0, IGNORE, 1]);
    assert!(LabelRule { classes: 0, ..LabelRule::default() }.check().is_err());
    assert!(LabelRule { classes: 3, threshold: Some(1), ..LabelRule::default() }.check().is_err());
    assert!(LabelRule { boundary: true, threshold: Some(1), ..LabelRule::default() }.check().is_err());
}

#[test]
fn boundaries_are_both_sides_of_a_change_of_id() {
    let rule = LabelRule { boundary: true, ignore: vec![9], ..LabelRule::default() };
    let flat = rule.apply(&labels([1, 1, 8], &[0, 0, 4, 4, 4, 7, 9, 7])).unwrap();
    assert_eq!(flat, [0, 1, 1, 0, 1, 1, IGNORE, 0]);
    let deep = rule.apply(&labels([3, 2, 1], &[1, 1, 1, 1, 1, 2])).unwrap();
    assert_eq!(deep, [0, 0, 0, 1, 1, 1]);
}

proptest! {
    #[test]
    fn ids_do_not_matter_for_boundaries(values in prop::collection::vec(0i32..4, 60), shift in 1i32..9) {
        let rule = LabelRule { boundary: true, ..LabelRule::default() };
        let moved: Vec<i32> = values.iter().map(|v| v * 3 + shift).collect();
        prop_assert_eq!(rule.apply(&labels([3, 4, 5], &values)), rule.apply(&labels([3, 4, 5], &moved)));
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Folds

fn case(id: usize, class: usize, patient: usize) -> Case {
    Case {
        id: format!("case_{id}"),
        images: Vec::new(),
        labels: None,
        class: Some(class),
        patient: format!("p{patient}"),
        slices: None,
    }
}

proptest! {
    #[test]
    fn folds_hold_each_case_once_and_keep_patients_whole(
        classes in prop::collection::vec(0usize..3, 10..60), k in 2usize..5, seed: u64,
    ) {
        let cases: Vec<Case> = classes.iter().enumerate().map(|(i, &c)| case(i, c, i / 2)).collect();
        let splits = folds::stratified(&cases, k, seed).unwrap();
        prop_assert_eq!(&splits, &folds::stratified(&cases, k, seed).unwrap());
        let mut held: Vec<usize> = splits.iter().flat_map(|s| s.validation.clone()).collect();
        held.sort_unstable();
        prop_assert_eq!(held, (0..cases.len()).collect::<Vec<_>>());
        for split in &splits {
            prop_assert_eq!(split.train.len() + split.validation.len(), cases.len());
            let of = |side: &[usize]| side.iter().map(|&i| &cases[i].patient).collect::<BTreeSet<_>>();
            prop_assert!(of(&split.train).is_disjoint(&of(&split.validation)));
        }
    }
}

#[test]
fn folds_have_equal_shares_of_each_class() {
    let cases: Vec<Case> = (0..550).map(|i| case(i, usize::from(i % 6 == 0), i)).collect();
    for split in folds::stratified(&cases, 5, 1).unwrap() {
        let rare = split.validation.iter().filter(|&&i| cases[i].class == Some(1)).count();
        assert!((18..=19).contains(&rare), "{rare}");
        assert!((109..=111).contains(&split.validation.len()), "{}", split.validation.len());
    }
    let one = folds::stratified(&cases, 5, 1).unwrap();
    assert_ne!(one, folds::stratified(&cases, 5, 2).unwrap());
    assert!(folds::stratified(&cases[..3], 5, 1).unwrap_err().to_string().contains("5 folds of 3 cases"));
}

#[test]
fn every_nth_number_and_the_last_cases_validate() {
    let cases: Vec<Case> = [1, 5, 7, 10].map(|id| case(id, 0, id)).to_vec();
    let split = folds::every(&cases, 5).unwrap();
    assert_eq!((split.train, split.validation), (vec![0, 2], vec![1, 3]));
    assert_eq!(folds::number_in("hippocampus_118"), Some(118));
    assert_eq!(folds::number_in("v2_größe"), Some(2));
    assert_eq!(folds::number_in("é7"), Some(7));
    assert_eq!(folds::number_in("x"), None);
    assert_eq!(folds::last_cases(&cases, 1).unwrap().validation, [3]);
    assert!(folds::last_cases(&cases, 4).unwrap_err().to_string().contains("accepted: 1 to 3"));
    let same: Vec<Case> = [1, 2].map(|id| case(id, 0, 1)).to_vec();
    assert!(
        folds::last_cases(&same, 1).unwrap_err().to_string().contains("patient p1 would be on both sides")
    );
}

#[test]
fn folds_come_from_a_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("splits_final.json");
    let cases: Vec<Case> = (0..3).map(|id| case(id, 0, id)).collect();
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        folds::from_file(&path, &cases)
    };
    let splits = read(r#"[{"train": ["case_2", "case_0"], "val": ["case_1"]}]"#).unwrap();
    assert_eq!((splits[0].train.clone(), splits[0].validation.clone()), (vec![0, 2], vec![1]));
    let error = |text: &str| read(text).unwrap_err().to_string();
    assert!(
        error(r#"[{"train": ["case_9"], "val": ["case_1"]}]"#).contains("fold 0 names case_9 of no case")
    );
    assert!(error(r#"[{"train": ["case_1"], "val": ["case_1"]}]"#).contains("on both sides"));
    assert!(error("[{]").contains("splits_final.json:1:"));
    assert!(error("[]").contains("has no folds"));
}

// ---------------------------------------------------------------------------------------------------------------
// Preprocessing

fn golden() -> Value {
    serde_json::from_str(include_str!("../../../goldens/preprocess.json")).unwrap()
}

const GOLDEN_SHAPE: Shape = [5, 6, 7];

fn golden_volume() -> Vec<f32> {
    draw(11, voxels(GOLDEN_SHAPE)).into_iter().map(|u| (u * u * u * 1000.0 - 50.0) as f32).collect()
}

fn prepared(shape: Shape, values: Vec<f32>, how: Preprocess) -> Volume {
    how.image(volume(shape, values), 0, "case").unwrap().0
}

#[test]
fn normalisation_is_numpys() {
    let golden = golden();
    let normalised = |normalise| {
        prepared(GOLDEN_SHAPE, golden_volume(), Preprocess { normalise, ..Preprocess::default() }).values
    };
    close(&normalised(Normalise3d::ZScore), &numbers(&golden["zscore"]["values"]), 1e-6);
    for percentile in golden["percentiles"].as_array().unwrap() {
        let (lo, hi) = (percentile["lo"].as_f64().unwrap(), percentile["hi"].as_f64().unwrap());
        close(&normalised(Normalise3d::Percentile { lo, hi }), &numbers(&percentile["values"]), 1e-6);
    }
    assert_eq!(normalised(Normalise3d::None), golden_volume());
}

#[test]
fn medicalnets_preprocessing_cuts_and_puts_noise_where_nothing_was() {
    let golden = &golden()["medicalnet"];
    let shape = [7, 8, 9];
    let mut values = vec![0.0f32; voxels(shape)];
    for (at, u) in draw(12, voxels(shape)).into_iter().enumerate() {
        let (d, h, w) = (at / 72, at % 72 / 9, at % 9);
        if (1..6).contains(&d) && (2..7).contains(&h) && (1..7).contains(&w) && u >= 0.1 {
            values[at] = (u * 100.0) as f32;
        }
    }
    let how = Preprocess { normalise: Normalise3d::MedicalNet, ..Preprocess::default() };
    let (image, placement) = how.image(volume(shape, values.clone()), 3, "case").unwrap();
    let crop = golden["crop"].as_array().unwrap();
    for (range, expected) in placement.crop.iter().zip(crop) {
        assert_eq!([range.start as f64, range.end as f64].to_vec(), numbers(expected));
    }
    let expected = golden["values"].as_array().unwrap();
    assert_eq!(image.values.len(), expected.len());
    let mut noise = Vec::new();
    for (&found, expected) in image.values.iter().zip(expected) {
        match expected.as_f64() {
            Some(expected) => assert!((f64::from(found) - expected).abs() < 1e-6 * expected.abs().max(1.0)),
            None => noise.push(found),
        }
    }
    assert!(noise.len() > 5 && noise.iter().all(|n| n.abs() < 5.0) && noise[0] != noise[1]);
    let again = |seed, name| how.image(volume(shape, values.clone()), seed, name).unwrap().0;
    assert_eq!(again(3, "case"), image);
    assert_ne!(again(4, "case"), image);
    assert_ne!(again(3, "other"), image);

    // Back on the grid of the file.
    let restored = placement.restore(&image.values, -9.0);
    assert_eq!(restored.len(), voxels(shape));
    assert_eq!(restored[0], -9.0);
    let inside = (3 * 8 + 4) * 9 + 4;
    assert!(values[inside] > 0.0 && restored[inside] != -9.0);
}

#[test]
fn the_noise_of_empty_space_is_standard_normal() {
    let how = Preprocess { normalise: Normalise3d::MedicalNet, ..Preprocess::default() };
    let noise = prepared([20, 50, 50], vec![0.0; 50_000], how).values;
    let mean = noise.iter().map(|&n| f64::from(n)).sum::<f64>() / 5e4;
    let square = noise.iter().map(|&n| f64::from(n).powi(2)).sum::<f64>() / 5e4;
    assert!(mean.abs() < 0.02 && (square - 1.0).abs() < 0.03, "{mean} {square}");
}

#[test]
fn resampling_is_scipys() {
    let map: Vec<i32> = draw(13, voxels(GOLDEN_SHAPE)).into_iter().map(|u| (u * 5.0) as i32).collect();
    for case in golden()["resized"].as_array().unwrap() {
        let to: Vec<usize> = numbers(&case["to"]).into_iter().map(|n| n as usize).collect();
        let to = [to[0], to[1], to[2]];
        let faces = case["faces"].as_bool().unwrap();
        let align = if faces { Align::Faces } else { Align::Corners };
        let resized = resize(&golden_volume(), GOLDEN_SHAPE, to, align);
        close(&resized, &numbers(&case["values"]), 1e-6);

        // Through the pipeline: by shape, or by the spacing that gives this shape.
        let mut how = Preprocess { normalise: Normalise3d::None, ..Preprocess::default() };
        if faces {
            let spacing = |axis: usize| GOLDEN_SHAPE[axis] as f64 / to[axis] as f64;
            how.spacing = Some([spacing(0), spacing(1), spacing(2)]);
        } else {
            how.shape = Some(to);
        }
        let (image, placement) = how.image(volume(GOLDEN_SHAPE, golden_volume()), 0, "").unwrap();
        assert_eq!((image.shape, image.values), (to, resized));
        let nearest: Vec<i32> = numbers(&case["labels"]).into_iter().map(|n| n as i32).collect();
        assert_eq!(placement.labels(labels(GOLDEN_SHAPE, &map)).values, nearest, "{to:?} {align:?}");
    }
}

#[test]
fn geometry_follows_the_voxels() {
    let mut image = volume([4, 6, 8], vec![0.0; 192]);
    image.geometry = Geometry::with_spacing([3.0, 1.0, 0.5]);
    let how = Preprocess { spacing: Some([1.5, 1.0, 1.0]), ..Preprocess::default() };
    let (image, _) = how.image(image, 0, "").unwrap();
    assert_eq!((image.shape, image.geometry.spacing), ([8, 6, 4], [1.5, 1.0, 1.0]));
    // The first voxel's centre moves by half the difference of the sizes.
    assert_eq!(image.geometry.affine.map(|row| row[3]), [0.25, 0.0, -0.75]);
    assert!(Preprocess { spacing: Some([0.0, 1.0, 1.0]), ..Preprocess::default() }.check().is_err());
    assert!(Preprocess { shape: Some([0, 1, 1]), ..Preprocess::default() }.check().is_err());
    let tiny = Preprocess { spacing: Some([1e-9; 3]), ..Preprocess::default() };
    assert!(tiny.image(volume(SHAPE, picture(1)), 0, "").unwrap_err().contains("accepted: up to 2^32"));
}

#[test]
fn voxels_that_are_not_finite_get_the_mean_and_constant_volumes_become_0() {
    for normalise in [Normalise3d::ZScore, Normalise3d::Percentile { lo: 1.0, hi: 99.0 }] {
        let how = Preprocess { normalise, ..Preprocess::default() };
        let values = prepared([1, 1, 4], vec![1.0, f32::NAN, 3.0, f32::INFINITY], how).values;
        assert!(values.iter().all(|v| v.is_finite()));
        assert!((values[1] - (values[0] + values[2]) / 2.0).abs() < 1e-6, "{values:?}");
        assert_eq!(prepared([1, 1, 3], vec![0.1; 3], how).values, [0.0; 3]);
        assert_eq!(prepared([1, 1, 2], vec![f32::NAN; 2], how).values, [0.0; 2]);
    }
    let mostly_zero: Vec<f32> = (0..1000).map(|i| if i < 999 { 0.0 } else { 5.0 }).collect();
    let how =
        Preprocess { normalise: Normalise3d::Percentile { lo: 1.0, hi: 99.0 }, ..Preprocess::default() };
    assert_eq!(prepared([10, 10, 10], mostly_zero, how).values[999], 1.0);
}

/// A file in memory.
struct Reader(VolumeInfo, Vec<f32>);

impl VolumeReader for Reader {
    fn info(&self) -> &VolumeInfo {
        &self.0
    }
    fn slices(&mut self, range: Range<usize>) -> Result<Vec<f32>> {
        let [depth, height, width] = self.0.shape;
        let plane = height * width;
        let channels = self.1.chunks_exact(depth * plane);
        Ok(channels.flat_map(|c| c[range.start * plane..range.end * plane].to_vec()).collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn streaming_gives_the_numbers_of_the_whole(
        values in prop::collection::vec(prop_oneof![9 => -1e3f32..1e3, 1 => Just(f32::NAN), 1 => Just(0.0)], 24),
        lo in 0.0f64..50.0, hi in 51.0f64..100.0,
    ) {
        let shape = [3, 2, 2];
        for normalise in [Normalise3d::None, Normalise3d::ZScore, Normalise3d::Percentile { lo, hi }] {
            let whole = prepared(shape, values.clone(), Preprocess { normalise, ..Preprocess::default() });
            let info = VolumeInfo { channels: 2, shape, geometry: Geometry::default() };
            let mut reader = Reader(info, values.clone());
            let scaling = Scaling::stream(&mut reader, normalise, 0, "case").unwrap();
            for first in 0..3 {
                let mut slab = reader.slices(first..first + 1).unwrap();
                scaling.apply_planes(&mut slab, first, 4);
                let expected: Vec<f32> =
                    (0..2).flat_map(|c| whole.values[(c * 3 + first) * 4..][..4].to_vec()).collect();
                prop_assert_eq!(slab, expected);
            }
        }
    }

    #[test]
    fn percentiles_are_exact(
        mut values in prop::collection::vec(prop_oneof![-1e30f32..1e30, -1.0f32..1.0, Just(-0.0)], 1..300),
        lo in 0.0f64..50.0, hi in 51.0f64..=100.0,
    ) {
        let shape = [values.len(), 1, 1];
        let info = VolumeInfo { channels: 1, shape, geometry: Geometry::default() };
        let mut reader = Reader(info, values.clone());
        let scaling = Scaling::stream(&mut reader, Normalise3d::Percentile { lo, hi }, 0, "").unwrap();
        let found = scaling.statistics[0].percentiles.unwrap();
        values.sort_by(f32::total_cmp);
        let last = values.len() - 1;
        for (found, percent) in [(found.0, lo), (found.1, hi)] {
            let rank = percent / 100.0 * last as f64;
            let low = rank.floor() as usize;
            let (a, b) = (f64::from(values[low]), f64::from(values[(low + 1).min(last)]));
            let expected = a + (b - a) * (rank - low as f64);
            let rounding = 4.0 * f64::EPSILON * a.abs().max(b.abs());
            prop_assert!((found - expected).abs() <= rounding, "{found} {expected}");
        }
    }

    #[test]
    fn restoring_a_smooth_volume_gives_it_back(d in 1usize..6, h in 1usize..6, w in 1usize..6, c: bool) {
        let shape = [4, 5, 6];
        let ramp: Vec<f32> = (0..120).map(|i| (i / 30) as f32 + 0.5 * (i % 6) as f32).collect();
        let to = [d * 4, h * 5, w * 6];
        let align = if c { Align::Corners } else { Align::Faces };
        let there = resize(&ramp, shape, to, align);
        let back = resize(&there, to, shape, align);
        let largest = ramp.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Beyond the outermost centres values are held, so the ends of a ramp flatten.
        prop_assert!(largest < if c { 1e-4 } else { 0.76 }, "{largest}");
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Caches

#[test]
fn memory_holds_no_more_than_its_bound() {
    let dir = TempDir::new().unwrap();
    sound(dir.path(), 0..6);
    let one = open(segmentation(dir.path())).load(0).unwrap().bytes();
    let options = VolumeOptions { cache_bytes: 2 * one + 1, ..VolumeOptions::default() };
    let dataset = VolumeDataset::open(segmentation(dir.path()), options).unwrap();
    let all: Vec<_> = (0..6).map(|i| dataset.load(i).unwrap()).collect();
    assert_eq!(dataset.cached_bytes(), 2 * one);
    assert!(std::sync::Arc::ptr_eq(&all[5], &dataset.load(5).unwrap()));
    assert!(!std::sync::Arc::ptr_eq(&all[0], &dataset.load(0).unwrap()));
    assert_eq!(all[0], dataset.subset(&[3, 0]).load(1).unwrap());
}

#[test]
fn a_volume_wanted_by_many_threads_is_read_once() {
    let dir = TempDir::new().unwrap();
    sound(dir.path(), 0..1);
    let dataset = open(segmentation(dir.path()));
    let loaded: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(|| dataset.load(0).unwrap())).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    assert!(loaded.iter().all(|l| std::sync::Arc::ptr_eq(l, &loaded[0])));
}

#[test]
fn entries_on_disk_are_used_unless_stale_or_damaged() {
    let dir = TempDir::new().unwrap();
    sound(dir.path(), 0..1);
    let folder = dir.path().join("cache");
    let how = |normalise| VolumeOptions {
        preprocess: Preprocess { normalise, ..Preprocess::default() },
        cache_folder: Some(folder.clone()),
        ..VolumeOptions::default()
    };
    let load = |options| VolumeDataset::open(segmentation(dir.path()), options).unwrap().load(0).unwrap();
    let entry = || {
        let entries: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(entries.len(), 1);
        entries[0].clone()
    };
    let first = load(how(Normalise3d::ZScore));
    let stored = std::fs::read(entry()).unwrap();
    assert_eq!(load(how(Normalise3d::ZScore)), first);
    assert_eq!(std::fs::read(entry()).unwrap(), stored);

    for at in [0, 9, 100, stored.len() / 2, stored.len() - 1] {
        let mut damaged = stored.clone();
        damaged[at] ^= 1;
        std::fs::write(entry(), &damaged).unwrap();
        assert_eq!(load(how(Normalise3d::ZScore)), first);
        assert_eq!(std::fs::read(entry()).unwrap(), stored, "made anew after damage at {at}");
    }
    for length in [0, 5, 8, 20, stored.len() - 1] {
        std::fs::write(entry(), &stored[..length]).unwrap();
        assert_eq!(load(how(Normalise3d::ZScore)), first);
    }
    assert_ne!(load(how(Normalise3d::None)), first);
    assert_ne!(std::fs::read(entry()).unwrap(), stored, "other settings");

    write(dir.path().join("images/case_000.npy"), [4, 6, 5], &picture(77));
    std::fs::File::options()
        .append(true)
        .open(dir.path().join("images/case_000.npy"))
        .and_then(|file| file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(9)))
        .unwrap();
    assert_ne!(load(how(Normalise3d::ZScore)).image, first.image, "the file has changed");
}

// ---------------------------------------------------------------------------------------------------------------
// Patches

fn patch_set(dir: &TempDir, count: u64) -> VolumeDataset {
    for n in 0..count {
        write(
            dir.path().join(format!("images/{n}.npy")),
            [8, 9, 10],
            &draw(n, 720).iter().map(|&u| u as f32).collect::<Vec<_>>(),
        );
        let mut map = vec![0.0; 720];
        map[700] = 1.0;
        map[650..660].fill(2.0);
        write(dir.path().join(format!("labels/{n}.npy")), [8, 9, 10], &map);
    }
    let options = VolumeOptions {
        labels: LabelRule { classes: 3, ..LabelRule::default() },
        ..VolumeOptions::default()
    };
    VolumeDataset::open(segmentation(dir.path()), options).unwrap()
}

#[test]
fn patches_are_a_function_of_the_step_and_visit_all_cases() {
    let dir = TempDir::new().unwrap();
    let dataset = patch_set(&dir, 5);
    let how = Sampling { patch: [3, 4, 5], foreground_share: 0.33, pad_label: IGNORE };
    let take = |seed, step| sample(&dataset, seed, step, 3, &how).unwrap();
    assert_eq!(take(1, 7), take(1, 7));
    assert_ne!(take(1, 7), take(2, 7));
    let again = patch_set(&dir, 5);
    assert_eq!(sample(&again, 1, 7, 3, &how).unwrap(), take(1, 7));
    for step in 0..50 {
        let patches = take(1, step);
        assert_eq!(patches.len(), 3);
        for patch in &patches {
            assert_eq!((patch.image.len(), patch.labels.len(), patch.shape), (60, 60, [3, 4, 5]));
        }
        // One of three has foreground for sure.
        assert!(patches[2].labels.iter().any(|&l| l == 1 || l == 2), "step {step}");
    }
}

#[test]
fn small_batches_have_the_share_of_foreground_on_average() {
    let dir = TempDir::new().unwrap();
    let dataset = patch_set(&dir, 2);
    let how = Sampling { patch: [1, 1, 1], foreground_share: 0.25, pad_label: 0 };
    let mut seen: HashMap<u8, usize> = HashMap::new();
    for step in 0..4000 {
        *seen.entry(sample(&dataset, 3, step, 1, &how).unwrap()[0].labels[0]).or_default() += 1;
    }
    // Of the quarter with foreground, half is of each class although one is ten times as frequent; 1.5 % come by chance.
    let share = |label| *seen.get(&label).unwrap_or(&0) as f64 / 4000.0;
    assert!((share(1) - 0.126).abs() < 0.02 && (share(2) - 0.135).abs() < 0.02, "{seen:?}");
}

#[test]
fn a_volume_smaller_than_the_patch_lies_in_its_middle() {
    let dir = TempDir::new().unwrap();
    write(dir.path().join("images/a.npy"), [1, 2, 3], &[5.0, 1.0, 2.0, 3.0, 4.0, 0.0]);
    write(dir.path().join("labels/a.npy"), [1, 2, 3], &[0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
    let options = VolumeOptions {
        preprocess: Preprocess { normalise: Normalise3d::None, ..Preprocess::default() },
        ..VolumeOptions::default()
    };
    let dataset = VolumeDataset::open(segmentation(dir.path()), options).unwrap();
    for share in [0.0, 1.0] {
        let how = Sampling { patch: [2, 4, 2], foreground_share: share, pad_label: 7 };
        for step in 0..20 {
            let patch = &sample(&dataset, 0, step, 1, &how).unwrap()[0];
            assert_eq!(patch.image[..2], [0.0; 2]);
            assert_eq!(patch.labels[8..], [7; 8]);
            assert!(patch.image[2..6] == [5.0, 1.0, 3.0, 4.0] || patch.image[2..6] == [1.0, 2.0, 4.0, 0.0]);
            assert_eq!((patch.labels[0], patch.labels[7]), (7, 7));
        }
    }
    let one = dataset.load(0).unwrap();
    let far = cut(&one, [5, -9, 0], [1, 1, 2], IGNORE);
    assert_eq!((far.image, far.labels), (vec![0.0; 2], vec![IGNORE; 2]));
}

#[test]
fn generated_volumes_are_prepared_like_those_of_files() {
    let dir = TempDir::new().unwrap();
    sound(dir.path(), 0..1);
    let from_file = open(segmentation(dir.path())).load(0).unwrap();
    let made = |values: Vec<f32>, shape| Generated {
        id: "case_000".into(),
        volume: volume(shape, values),
        labels: Some(map(2).into_iter().map(|v| v as i32).take(voxels(shape)).collect()),
        class: None,
    };
    let dataset = VolumeDataset::generated([made(picture(0), SHAPE)], VolumeOptions::default()).unwrap();
    assert_eq!(dataset.load(0).unwrap(), from_file);
    assert_eq!(dataset.shapes().unwrap(), [SHAPE]);
    let (part, _) = dataset.split_last_slices(1).unwrap();
    assert!(part.load(0).unwrap_err().to_string().contains("case_000: a part of a generated volume"));
    let empty = VolumeDataset::generated([made(Vec::new(), [0, 2, 2])], VolumeOptions::default());
    assert!(empty.unwrap_err().to_string().contains("has no voxels"));
}

#[test]
fn foreground_places_are_of_their_class_and_bounded() {
    let dir = TempDir::new().unwrap();
    let shape = [30, 40, 30];
    let map: Vec<f32> =
        (0..36_000).map(|i| if i < 20_000 { 1.0 } else { ((i % 50 == 0) as u8 * 2) as f32 }).collect();
    write(
        dir.path().join("images/a.npy"),
        shape,
        &draw(1, 36_000).iter().map(|&u| u as f32).collect::<Vec<_>>(),
    );
    write(dir.path().join("labels/a.npy"), shape, &map);
    let options = VolumeOptions {
        labels: LabelRule { classes: 3, ..LabelRule::default() },
        ..VolumeOptions::default()
    };
    let load = |seed| {
        let options = VolumeOptions { seed, ..options.clone() };
        VolumeDataset::open(segmentation(dir.path()), options).unwrap().load(0).unwrap()
    };
    let prepared = load(1);
    let Prepared { foreground, labels, .. } = &*prepared;
    assert_eq!(foreground.iter().map(Vec::len).collect::<Vec<_>>(), [0, 10_000, 320]);
    for (class, places) in foreground.iter().enumerate() {
        assert!(places.iter().all(|&at| usize::from(labels.as_ref().unwrap()[at as usize]) == class));
        assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
    }
    // Drawn evenly: as many in the first half as in the second.
    let early = foreground[1].iter().filter(|&&at| at < 10_000).count();
    assert!((4800..5200).contains(&early), "{early}");
    assert_ne!(load(2).foreground[1], foreground[1]);
}

#[test]
fn windows_follow_nnunets_rule() {
    for case in golden()["windows"].as_array().unwrap() {
        let number = |key: &str| case[key].as_f64().unwrap();
        let (n, patch) = (number("n") as usize, number("patch") as usize);
        let found: Vec<f64> =
            windows([1, 1, n], [1, 1, patch], number("overlap")).iter().map(|w| w[2] as f64).collect();
        assert_eq!(found, numbers(&case["starts"]), "{n} {patch}");
    }
    assert_eq!(windows([3, 9, 2], [4, 4, 4], 0.5).len(), 4);
    assert!(windows([0, 9, 2], [4, 4, 4], 0.5).is_empty());
}

#[test]
fn window_weights_are_scipys() {
    for case in golden()["gaussian"].as_array().unwrap() {
        let patch: Vec<usize> = numbers(&case["patch"]).into_iter().map(|n| n as usize).collect();
        let found = gaussian([patch[0], patch[1], patch[2]], case["sigma"].as_f64().unwrap());
        close(&found, &numbers(&case["values"]), 1e-6);
    }
    let narrow = gaussian([9, 9, 9], 0.01);
    assert!(narrow.iter().all(|&w| w > 0.0) && narrow[364] == 1.0);
}

proptest! {
    #[test]
    fn windows_cover_and_overlap(n in 1usize..200, patch in 1usize..60, overlap in 0.0f64..0.9) {
        let starts: Vec<usize> = windows([1, n, 1], [1, patch, 1], overlap).iter().map(|w| w[1]).collect();
        prop_assert_eq!(starts[0], 0);
        prop_assert_eq!(*starts.last().unwrap(), n.saturating_sub(patch));
        for pair in starts.windows(2) {
            prop_assert!(pair[0] < pair[1]);
            // Rounding may take a voxel from the overlap.
            prop_assert!((pair[1] - pair[0]) as f64 <= (patch as f64 * (1.0 - overlap)).max(1.0) + 1.0);
            prop_assert!(pair[1] - pair[0] <= patch);
        }
    }

    #[test]
    fn slabs_are_the_blended_whole(
        shape in [1usize..14, 1usize..9, 1usize..9], patch in [1usize..6, 1usize..6, 1usize..6],
        k in 1usize..3, overlap in 0.0f64..0.8, seed: u64,
    ) {
        let weights = gaussian(patch, 0.125);
        let origins = windows(shape, patch, overlap);
        let n = voxels(shape);
        let (mut sum, mut weight) = (vec![0.0f64; k * n], vec![0.0f64; n]);
        let mut blend = SlabBlend::new(k, shape, patch, weights.clone());
        let mut slabs = Vec::new();
        for (number, &origin) in origins.iter().enumerate() {
            let output: Vec<f32> = draw(seed ^ number as u64, k * voxels(patch))
                .into_iter().map(|u| (u * 2.0 - 1.0) as f32).collect();
            slabs.push(blend.add(origin, &output));
            for (at, &w) in weights.iter().enumerate() {
                let place = [at / (patch[1] * patch[2]), at / patch[2] % patch[1], at % patch[2]];
                let [d, h, x] = [0, 1, 2].map(|axis| origin[axis] + place[axis]);
                if d < shape[0] && h < shape[1] && x < shape[2] {
                    let to = (d * shape[1] + h) * shape[2] + x;
                    weight[to] += f64::from(w);
                    for c in 0..k {
                        sum[c * n + to] += f64::from(w) * f64::from(output[c * voxels(patch) + at]);
                    }
                }
            }
        }
        slabs.push(blend.finish());
        let plane = shape[1] * shape[2];
        let mut next = 0;
        for slab in slabs {
            prop_assert_eq!(slab.first, next);
            prop_assert_eq!(slab.values.len(), k * slab.depth * plane);
            for (at, &value) in slab.values.iter().enumerate() {
                let (c, rest) = (at / (slab.depth * plane), at % (slab.depth * plane));
                let to = slab.first * plane + rest;
                let expected = sum[c * n + to] / weight[to];
                prop_assert!((f64::from(value) - expected).abs() < 1e-6, "{value} {expected}");
            }
            next += slab.depth;
        }
        prop_assert_eq!(next, shape[0]);
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Audit

fn examined(root: &Path) -> VolumeAudit {
    let dataset = VolumeDataset::open_unchecked(segmentation(root), VolumeOptions::default()).unwrap();
    audit(&[("train", &dataset)])
}

fn codes(report: &VolumeAudit) -> Vec<Code> {
    report.findings.iter().map(|f| f.code).collect()
}

#[track_caller]
fn only<'a>(report: &'a VolumeAudit, code: Code, files: &[&str]) -> &'a str {
    let found: Vec<_> = report.findings.iter().filter(|f| f.code == code).collect();
    assert_eq!(found.len(), 1, "{report}");
    assert_eq!(found[0].files.len(), files.len(), "{:?}", found[0].files);
    for (file, end) in found[0].files.iter().zip(files) {
        assert!(file.ends_with(end), "{file} is not {end}");
    }
    &found[0].message
}

#[test]
fn sound_data_give_no_findings() {
    let dir = TempDir::new().unwrap();
    sound(dir.path(), 0..4);
    let report = examined(dir.path());
    assert_eq!(codes(&report), [], "{report}");
    let split = &report.splits[0];
    assert_eq!((split.cases, split.labelled, split.voxels), (4, 4, 480));
    assert_eq!(split.shape.unwrap().median, SHAPE);
    let labels = split.labels.as_ref().unwrap();
    assert_eq!((labels.stored.clone(), labels.classes.clone()), (vec![(0, 468), (1, 12)], vec![468, 12]));
    let text = report.to_string();
    assert!(
        text.contains("shape, median") && text.contains("4x6x5") && text.contains("0: 98 %, 1: 2.5 %"),
        "{text}"
    );
    assert_eq!(
        serde_json::to_value(&report).unwrap()["splits"][0]["shape"]["max"],
        serde_json::json!([4, 6, 5])
    );
}

#[test]
fn every_planted_fault_is_found_in_one_run() {
    let dir = TempDir::new().unwrap();
    let root = dir.path();
    sound(root, 0..12);
    let image = |n: u64, values: &[f32]| write(root.join(format!("images/case_{n:03}.npy")), SHAPE, values);
    let label = |n: u64, values: &[f32]| write(root.join(format!("labels/case_{n:03}.npy")), SHAPE, values);
    let mut two = map(2);
    two[100..].fill(2.0);
    label(0, &two);
    std::fs::remove_file(root.join("labels/case_001.npy")).unwrap();
    write(root.join("labels/stranger.npy"), SHAPE, &map(2));
    write(root.join("labels/case_002.npy"), [3, 6, 5], &map(2)[..90]);
    image(3, &picture(4));
    image(5, &[7.0; 120]);
    let mut holes = picture(6);
    holes[3] = f32::NAN;
    image(6, &holes);
    label(7, &[0.0; 120]);
    std::fs::write(root.join("images/case_008.npy"), b"not an array").unwrap();
    let mut repeated = picture(9);
    repeated.copy_within(0..30, 60);
    image(9, &repeated);
    let mut overlapping = picture(10);
    overlapping[..30].copy_from_slice(&picture(11)[90..]);
    image(10, &overlapping);
    image(2, &picture(2).iter().map(|v| v * 1e4).collect::<Vec<_>>());

    let report = examined(root);
    let message = only(&report, Code::LabelOutOfRange, &["labels/case_000.npy"]);
    assert!(message.contains("label 2 outside 0..=1; 17 % of voxels"), "{message}");
    only(&report, Code::MissingLabels, &["images/case_001.npy"]);
    only(&report, Code::LabelsWithoutImage, &["labels/stranger.npy"]);
    let message = only(&report, Code::ShapeMismatch, &["images/case_002.npy", "labels/case_002.npy"]);
    assert!(message.contains("4x6x5") && message.contains("3x6x5"), "{message}");
    only(&report, Code::DuplicateWithinSplit, &["images/case_003.npy", "images/case_004.npy"]);
    only(&report, Code::ConstantImage, &["images/case_005.npy"]);
    assert!(only(&report, Code::NonFiniteVoxels, &["images/case_006.npy"]).starts_with("1 of 120 voxels"));
    only(&report, Code::EmptyLabels, &["images/case_007.npy"]);
    only(&report, Code::Unreadable, &["images/case_008.npy"]);
    assert!(only(&report, Code::RepeatedSlices, &["images/case_009.npy"]).contains("2 equals 0"));
    only(&report, Code::SharedSlices, &["images/case_010.npy", "images/case_011.npy"]);
    let scales = report.findings.iter().find(|f| f.code == Code::IntensityScales).unwrap();
    assert!(
        scales.files[1].ends_with("case_002.npy") && scales.message.contains(", 1 of 10 more"),
        "{report}"
    );
    assert_eq!(report.findings.len(), 12, "{report}");
    assert!(report.findings.windows(2).all(|pair| pair[0].severity <= pair[1].severity));
    assert_eq!(report.errors, report.findings.iter().filter(|f| f.severity == Severity::Error).count());
}

#[test]
fn leaks_between_splits_are_errors() {
    let dir = TempDir::new().unwrap();
    for n in 0..6 {
        write(dir.path().join(format!("{n}.npy")), SHAPE, &picture(if n == 5 { 0 } else { n }));
    }
    let mut overlapping = picture(3);
    overlapping[..30].copy_from_slice(&picture(1)[90..]);
    write(dir.path().join("3.npy"), SHAPE, &overlapping);
    let text = "file,label,who\n0.npy,a,p\n1.npy,a,q\n2.npy,a,r\n3.npy,b,s\n4.npy,a,q\n5.npy,b,t\n";
    let dataset = open(table(&dir, text));
    let (train, validation) = (dataset.subset(&[0, 1, 2]), dataset.subset(&[3, 4, 5]));
    let report = audit(&[("train", &train), ("validation", &validation)]);
    only(&report, Code::DuplicateAcrossSplits, &["0.npy", "5.npy"]);
    only(&report, Code::ConflictingClasses, &["0.npy", "5.npy"]);
    only(&report, Code::SharedSlicesAcrossSplits, &["1.npy", "3.npy"]);
    assert!(only(&report, Code::PatientAcrossSplits, &["1.npy", "4.npy"]).contains("1 patient (q)"));
    assert_eq!(only(&report, Code::AbsentClass, &[]), "no case in train is of class b");
    assert_eq!(report.errors, 4);
}

#[test]
fn splits_by_slices_of_one_volume_are_no_leak() {
    let dir = TempDir::new().unwrap();
    sound(dir.path(), 0..1);
    write(
        dir.path().join("labels/case_000.npy"),
        SHAPE,
        &draw(3, 120).iter().map(|u| u.round() as f32).collect::<Vec<_>>(),
    );
    let (train, validation) = open(segmentation(dir.path())).split_last_slices(1).unwrap();
    let report = audit(&[("train", &train), ("validation", &validation)]);
    assert_eq!(codes(&report), [], "{report}");
    assert_eq!((report.splits[0].voxels, report.splits[1].voxels), (90, 30));
}

#[test]
fn masks_that_were_smoothed_or_coded_twice_are_told() {
    let dir = TempDir::new().unwrap();
    let shape = [4, 100, 100];
    write(
        dir.path().join("images/a.npy"),
        shape,
        &draw(1, 40_000).iter().map(|&u| u as f32).collect::<Vec<_>>(),
    );
    let mut map = vec![0.0f32; 40_000];
    map[1000..2000].fill(255.0);
    map[11_000..12_000].fill(255.0);
    map[21_000..22_000].fill(1.0);
    for (i, value) in [3.0, 17.0, 40.0, 99.0, 201.0].into_iter().enumerate() {
        map[30_000 + i] = value;
    }
    map[30_010..30_500].fill(255.0);
    write(dir.path().join("labels/a.npy"), shape, &map);
    let options = VolumeOptions {
        labels: LabelRule { threshold: Some(0), ..LabelRule::default() },
        ..VolumeOptions::default()
    };
    let dataset = VolumeDataset::open_unchecked(segmentation(dir.path()), options).unwrap();
    let report = audit(&[("train", &dataset)]);
    assert!(only(&report, Code::StrayLabels, &["labels/a.npy"]).starts_with("5 label values"));
    let message = only(&report, Code::MixedCoding, &["labels/a.npy"]);
    assert!(message.starts_with("the foreground is 1 in 1 slice and 255 in 3"), "{message}");
    assert_eq!(report.findings.len(), 2, "{report}");
}
