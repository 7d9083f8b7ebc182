//! The real volumes of the shared data folder are listed, loaded and audited, and the audit finds their faults.
//!
//! The folder is `$TRIMTAB_SHARED`, by default `shared` beside the repository. Without it the tests are skipped.

use std::path::{Path, PathBuf};

use trimtab_data::volumes::audit::{Code, Finding, VolumeAudit, audit};
use trimtab_data::volumes::patches::{Sampling, sample};
use trimtab_data::volumes::{
    ClassificationSpec, LabelRule, SegmentationSpec, VolumeDataset, VolumeOptions, VolumeSource, folds,
};

fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TRIMTAB_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = root.join("data").join(folder);
    if path.is_dir() {
        Some(path)
    } else {
        eprintln!("skipped: {} does not exist", path.display());
        None
    }
}

fn segmentation(root: PathBuf, images: &str, labels: &str) -> SegmentationSpec {
    SegmentationSpec {
        root,
        images: images.into(),
        labels: Some(labels.into()),
        ..SegmentationSpec::default()
    }
}

fn open(source: SegmentationSpec, labels: LabelRule) -> VolumeDataset {
    let options = VolumeOptions { labels, ..VolumeOptions::default() };
    VolumeDataset::open_unchecked(VolumeSource::Segmentation(source), options).unwrap()
}

fn examined(splits: &[(&str, &VolumeDataset)]) -> VolumeAudit {
    let report = audit(splits);
    eprintln!("{report}");
    report
}

#[track_caller]
fn only(report: &VolumeAudit, code: Code) -> &Finding {
    let found: Vec<_> = report.findings.iter().filter(|f| f.code == code).collect();
    assert_eq!(found.len(), 1, "{report}");
    found[0]
}

fn codes(report: &VolumeAudit) -> Vec<Code> {
    report.findings.iter().map(|f| f.code).collect()
}

#[test]
fn the_hippocampus_set_lacks_one_label_map_and_mixes_two_scales_of_intensity() {
    let Some(root) = shared("hippocampus_msd_task04") else { return };
    let dataset =
        open(segmentation(root, "images", "labels"), LabelRule { classes: 3, ..LabelRule::default() });
    assert_eq!((dataset.len(), dataset.labelled().len()), (261, 260));
    let split = folds::every(dataset.labelled().cases(), 5).unwrap();
    // By the numbers in the names, which have gaps.
    assert_eq!((split.train.len(), split.validation.len()), (201, 59));
    let labelled = dataset.labelled();

    let report = examined(&[("all", &dataset)]);
    assert!(only(&report, Code::MissingLabels).files[0].ends_with("hippocampus_118.nii.gz"));
    // A fifth of the images were stored as bytes, others in units up to 1.7 million.
    let scales = only(&report, Code::IntensityScales);
    assert!(
        scales.files[1].ends_with(".nii.gz") && scales.message.contains("ten times"),
        "{}",
        scales.message
    );
    assert_eq!(report.findings.len(), 2, "{report}");
    let labels = report.splits[0].labels.as_ref().unwrap();
    assert_eq!(labels.classes, [15_469_502, 445_938, 410_816]);

    let (train, validation) = (labelled.subset(&split.train), labelled.subset(&split.validation));
    let report = audit(&[("train", &train), ("validation", &validation)]);
    assert_eq!(report.errors, 0, "{report}");

    let how = Sampling { patch: [40, 56, 40], foreground_share: 0.33, pad_label: 0 };
    let patches = sample(&train, 1, 0, 9, &how).unwrap();
    assert!(patches.iter().all(|p| p.labels.iter().all(|&l| l < 3) && p.image.iter().all(|v| v.is_finite())));
}

#[test]
fn two_label_classes_are_too_few_for_the_hippocampus() {
    let Some(root) = shared("hippocampus_msd_task04") else { return };
    let dataset = open(segmentation(root, "images", "labels"), LabelRule::default());
    let report = examined(&[("train", &dataset.subset(&[0, 1]))]);
    let found = report.findings.iter().find(|f| f.code == Code::LabelOutOfRange).unwrap();
    assert!(found.message.starts_with("label 2 outside 0..=1;"), "{}", found.message);
    // Of many cases, told once.
    let report = examined(&[("train", &dataset.subset(&(0..40).collect::<Vec<_>>()))]);
    let found = only(&report, Code::LabelOutOfRange);
    assert!(
        found.message.starts_with("40 cases of 40 in train: label 2 outside 0..=1; 2."),
        "{}",
        found.message
    );
    assert_eq!(found.files.len(), 40);
}

#[test]
fn volumes_of_the_mitochondria_set_overlap_and_repeat_slices() {
    let Some(root) = shared("mito3d_em_classification") else { return };
    let source = VolumeSource::Classification(ClassificationSpec {
        root,
        table: Some("labels.csv".into()),
        path_column: "file".into(),
        label_column: "label".into(),
        ..ClassificationSpec::default()
    });
    let dataset = VolumeDataset::open(source, VolumeOptions::default()).unwrap();
    let report = examined(&[("all", &dataset)]);
    assert_eq!(report.errors, 0);
    assert_eq!(report.splits[0].classes, [("0".to_owned(), 459), ("1".to_owned(), 91)]);
    assert_eq!(report.splits[0].shape.unwrap().median, [8, 32, 32]);
    assert!(only(&report, Code::ClassImbalance).message.contains("5.0 times as many"));
    // Detections a few slices apart at the same place: three pairs have half of their slices in common.
    let overlap = only(&report, Code::SharedSlices);
    assert!(overlap.message.starts_with("3 pairs of volumes") && overlap.message.contains("up to 4 slices"));
    assert_eq!(overlap.files.len(), 6);
    let repeated = only(&report, Code::RepeatedSlices);
    assert!(repeated.message.starts_with("11 cases of 550 in all"), "{}", repeated.message);

    for split in folds::stratified(dataset.cases(), 5, 0).unwrap() {
        let rare = split.validation.iter().filter(|&&i| dataset.cases()[i].class == Some(1)).count();
        assert!((17..=20).contains(&rare) && (108..=112).contains(&split.validation.len()));
    }
    // Put apart, they leak.
    let at = |name: &str| dataset.cases().iter().position(|c| c.id.starts_with(name)).unwrap();
    let (a, b) = (at("z2428_y75808_x312784"), at("z2432_y75808_x312784"));
    let report = audit(&[("train", &dataset.subset(&[a])), ("validation", &dataset.subset(&[b]))]);
    assert!(codes(&report).contains(&Code::SharedSlicesAcrossSplits), "{report}");
}

#[test]
fn the_drosophila_masks_are_coded_in_two_ways_and_smoothed() {
    let Some(root) = shared("drosophila_vnc_sstem") else { return };
    let root = root.join("stack1");
    let dataset = open(segmentation(root.clone(), "raw", "membranes"), LabelRule::default());
    assert_eq!((dataset.len(), dataset.shapes().unwrap()[0]), (1, [10, 1024, 1024]));
    let report = examined(&[("all", &dataset)]);
    assert_eq!(report.findings, [], "{report}");
    let (train, validation) = dataset.split_last_slices(2).unwrap();
    assert_eq!(train.load(0).unwrap().image.shape, [8, 1024, 1024]);
    assert_eq!(validation.load(0).unwrap().image.shape, [2, 1024, 1024]);

    // Two slices of mitochondria have 1 bit, the others 8 with grey values between.
    let mitochondria = segmentation(root.clone(), "raw", "mitochondria");
    let report = examined(&[("all", &open(mitochondria.clone(), LabelRule::default()))]);
    assert_eq!(codes(&report), [Code::LabelOutOfRange, Code::StrayLabels, Code::MixedCoding], "{report}");
    assert!(only(&report, Code::StrayLabels).message.starts_with("108 label values"), "{report}");
    assert!(
        only(&report, Code::MixedCoding).message.starts_with("the foreground is 1 in 2 slices and 255 in 8")
    );
    let rule = LabelRule { threshold: Some(0), ..LabelRule::default() };
    let (_, last) = open(mitochondria, rule).split_last_slices(1).unwrap();
    assert_eq!(examined(&[("last", &last)]).errors, 0);

    let report =
        examined(&[("all", &open(segmentation(root.clone(), "raw", "synapses"), LabelRule::default()))]);
    assert!(codes(&report).contains(&Code::MixedCoding), "{report}");

    // Nine values of label kinds, none of them a class by itself.
    let kinds = open(segmentation(root, "raw", "labels"), LabelRule::default());
    let report = examined(&[("last", &kinds.split_last_slices(1).unwrap().1)]);
    assert_eq!(codes(&report), [Code::LabelOutOfRange], "{report}");
}

#[test]
fn the_isbi_membranes_need_to_be_told_which_value_is_positive() {
    let Some(root) = shared("isbi2012_membrane") else { return };
    let source = segmentation(root, "train/image", "train/label");
    let report = examined(&[("all", &open(source.clone(), LabelRule::default()))]);
    assert!(only(&report, Code::LabelOutOfRange).message.contains("set positive = [255]"), "{report}");
    // The membrane is what is 0.
    let rule = LabelRule { positive: Some(vec![0]), ..LabelRule::default() };
    let dataset = open(source, rule);
    let (train, validation) = dataset.split_last_slices(6).unwrap();
    let report = examined(&[("train", &train), ("validation", &validation)]);
    assert_eq!(report.findings, [], "{report}");
    assert_eq!(report.splits[0].shape.unwrap().max, [24, 512, 512]);
    assert_eq!(report.splits[1].shape.unwrap().max, [6, 512, 512]);
}

#[test]
fn the_ids_of_plantseg_are_boundaries_not_classes() {
    let Some(root) = shared("plantseg_cell_membrane") else { return };
    let mut source = segmentation(root, "data", "data");
    source.image_dataset = Some("raw".into());
    source.label_dataset = Some("label".into());
    source.nested = true;
    let report = examined(&[("all", &open(source.clone(), LabelRule::default()))]);
    assert_eq!(codes(&report), [Code::LabelOutOfRange; 3], "{report}");
    assert!(report.findings[0].message.contains("ask for their boundaries"), "{report}");
    let dataset = open(source.clone(), LabelRule { boundary: true, ..LabelRule::default() });
    assert_eq!(dataset.shapes().unwrap(), [[100; 3]; 3]);
    let report = examined(&[("all", &dataset)]);
    assert_eq!(report.findings, [], "{report}");
    let spacing = report.splits[0].spacing.unwrap().median;
    assert!(
        (spacing[0] - 0.000_283_7).abs() < 1e-6 && (spacing[1] - 0.000_126_8).abs() < 1e-6,
        "{spacing:?}"
    );

    // One file, image and labels in it.
    source.images = "sample_ovule.h5".into();
    source.labels = Some("sample_ovule.h5".into());
    let report = examined(&[("all", &open(source, LabelRule { boundary: true, ..LabelRule::default() }))]);
    assert_eq!(report.findings, [], "{report}");
    let labels = report.splits[0].labels.as_ref().unwrap();
    assert_eq!(labels.distinct, 51);
}
