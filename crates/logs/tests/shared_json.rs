//! Every real JSON log of the shared folder is read, and no file of another format is taken for one.
//!
//! The folder is `$TRIMTAB_SHARED`, by default `shared` beside the repository. Without it the tests are skipped.

use std::io::Read;
use std::path::{Path, PathBuf};

use trimtab_logs::{Certainty, FORMATS, Input, Peek, RunBuilder};
use trimtab_signals::{Run, keys};

/// The formats of this test.
const OURS: [&str; 7] = [
    "detectron2-json",
    "evaluation-list-json",
    "hf-trainer-state",
    "json-lines",
    "keras-history",
    "mmengine-json",
    "trimtab",
];

fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TRIMTAB_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = root.join(folder);
    if path.is_dir() {
        Some(path)
    } else {
        eprintln!("skipped: {} does not exist", path.display());
        None
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Which of our formats claim a file, and how surely.
fn claims(path: &Path) -> Vec<(&'static str, Certainty)> {
    let mut head = Vec::new();
    std::fs::File::open(path).unwrap().take(1 << 16).read_to_end(&mut head).unwrap();
    let complete = head.len() < 1 << 16;
    let text = match std::str::from_utf8(&head) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok(),
        Err(_) => None,
    };
    let peek = Peek { path, head: &head, complete, text };
    let ours = FORMATS.iter().filter(|format| OURS.contains(&format.id));
    ours.filter_map(|format| Some((format.id, (format.recognise)(&peek)?))).collect()
}

fn read(format: &str, path: &Path) -> Run {
    let format = FORMATS.iter().find(|known| known.id == format).unwrap();
    let mut builder = RunBuilder::new();
    (format.read)(&[Input::file(path)], &mut builder)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    builder.finish(&path.display().to_string(), format.id)
}

/// The values of a column by the name it was logged under.
fn logged(run: &Run, name: &str) -> Vec<(u64, f64)> {
    let column = run.logged_as.iter().find(|(_, logged)| *logged == name).map_or(name, |(column, _)| column);
    run.trace.get(column).map(|column| column.iter().collect()).unwrap_or_default()
}

#[test]
fn each_json_log_is_claimed_by_its_format_and_no_other_file_is() {
    let Some(folder) = shared("logs") else { return };
    let mut counts = std::collections::BTreeMap::new();
    for path in files(&folder) {
        let inner = path.strip_prefix(&folder).unwrap().to_string_lossy().into_owned();
        let json = inner.ends_with(".json");
        let expected = match inner.split('/').next().unwrap_or_default() {
            "mmseg_vis_data_json" if json => Some("mmengine-json"),
            "hf_trainer_state" if inner.ends_with("trainer_state.json") => Some("hf-trainer-state"),
            "keras_history_json" if json => Some("keras-history"),
            "detectron2_metrics_json" if json => Some("detectron2-json"),
            "eval_metrics_json" if json => Some("evaluation-list-json"),
            _ => None,
        };
        // The first of the surest is the one that counts.
        let claims = claims(&path);
        let surest = claims.iter().map(|(_, certainty)| *certainty).max();
        let first = claims.iter().find(|(_, certainty)| Some(*certainty) == surest).map(|(id, _)| *id);
        assert_eq!(first, expected, "{inner}: {claims:?}");
        if let Some(id) = expected {
            *counts.entry(id).or_insert(0) += 1;
            let run = read(id, &path);
            assert!(run.trace.names().count() >= 3, "{inner}");
            assert!(run.notes.is_empty(), "{inner}: {:?}", run.notes);
        }
    }
    let counts: Vec<(&str, i32)> = counts.into_iter().collect();
    let expected = [
        ("detectron2-json", 1),
        ("evaluation-list-json", 2),
        ("hf-trainer-state", 3),
        ("keras-history", 1),
        ("mmengine-json", 6),
    ];
    assert_eq!(counts, expected);
}

#[test]
fn nothing_of_the_benchmark_runs_is_claimed() {
    let Some(folder) = shared("replay") else { return };
    for path in files(&folder) {
        assert_eq!(claims(&path), [], "{}", path.display());
    }
}

#[test]
fn the_values_are_those_of_the_files() {
    let Some(folder) = shared("logs") else { return };
    let all = files(&folder);
    let one = |part: &str| all.iter().find(|path| path.to_string_lossy().contains(part)).unwrap().clone();

    let run = read("mmengine-json", &one("resol_384_RED/schedule_40000/20240421_030212/vis_data"));
    assert_eq!(logged(&run, "loss").len(), 800);
    assert_eq!(logged(&run, "val/mIoU").len(), 10);
    assert_eq!(logged(&run, "val/mIoU").last(), Some(&(40_000, 4.02)));
    assert_eq!(run.trace.get("time/step_seconds").unwrap().len(), 800);

    let run = read("hf-trainer-state", &one("japanese-5k-steps/trainer_state.json"));
    assert_eq!(logged(&run, "loss").len(), 200);
    assert_eq!(logged(&run, "eval_loss").last(), Some(&(5000, 0.420_014_590_024_948_1)));
    assert_eq!(run.facts.boolean(keys::RUN_FINISHED.name), Some(true));
    assert_eq!(run.facts.integer(keys::RUN_STEPS.name), Some(5000));

    let run = read("keras-history", &one("gs1_ideal/history.json"));
    assert_eq!(run.trace.epochs().len(), 5);
    let loss = logged(&run, "loss");
    assert_eq!(loss[2], (2, -3_938_984.25));
    assert!(loss[3].1.is_nan() && loss[4].1.is_nan());

    let run = read(
        "detectron2-json",
        &one("detectron2_metrics_json/Charan-Sammeta__2D_polygon_semantic_segmentation/output/metrics.json"),
    );
    assert_eq!(logged(&run, "total_loss").len(), 50);
    assert_eq!(logged(&run, "val/segm/AP").last(), Some(&(1000, 71.396_149_444_505_44)));

    let run = read("evaluation-list-json", &one("attention_unet/iteration_0_supervised/metrics.json"));
    assert_eq!(logged(&run, "val/f1_score").len(), 10);
    assert_eq!(logged(&run, "val/f1_score").last().map(|(step, _)| *step), Some(100));
    assert_eq!(run.facts.integer(keys::DATA_VAL_SAMPLES.name), Some(534));
}
