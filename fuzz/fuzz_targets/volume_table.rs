//! Tables of classes and files of folds: no bytes make the listing of cases panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trimtab_data::volumes::{Case, ClassificationSpec, VolumeSource, folds};

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let table = folder.path().join("labels.csv");
    std::fs::write(&table, bytes).expect("a scratch file");
    let source = VolumeSource::Classification(ClassificationSpec {
        root: folder.path().to_owned(),
        table: Some("labels.csv".into()),
        path_column: "file".to_owned(),
        label_column: "label".to_owned(),
        patient_column: Some("patient".to_owned()),
        ..ClassificationSpec::default()
    });
    let _ = source.list();
    let case = |id: &str| Case {
        id: id.to_owned(),
        images: Vec::new(),
        labels: None,
        class: None,
        patient: id.to_owned(),
        slices: None,
    };
    let cases = ["a", "b", "c"].map(case);
    let _ = folds::count(&table);
    let _ = folds::from_file(&table, &cases);
});
