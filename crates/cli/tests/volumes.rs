//! Whole trainings on volumes through the program: both recipes, resume after a kill, folds, prediction, wrong data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use trimtab_data::formats::{Stored, VolumeWriter, read_volume_labels, volume_info};
use trimtab_data::synth::{PatchClassConfig, organ, patch_class};
use trimtab_data::{Geometry, VolumeInfo};

/// Every mechanism at once: deep supervision, five losses, a frozen encoder, average, accumulation, plateau.
const SEGMENTATION: &str = r#"
recipe = "volume-segmentation"
[data]
patch_depth = 16
patch_height = 16
patch_width = 16
[data.synth]
kind = "membranes"
count = 2
validation = 1
[model]
base = 2
depth = 2
deep_supervision = 1
[loss.focal]
weight = 0.5
[loss.boundary]
weight = 0.3
from_epoch = 1
[loss.cldice]
weight = 0.3
from_epoch = 1
ramp_epochs = 2
[loss.connectivity]
weight = 0.1
from_epoch = 2
[optim]
epochs = 4
steps_per_epoch = 4
accumulate = 2
warmup_epochs = 2
decay = "plateau"
plateau_patience = 0
freeze_epochs = 1
[ema]
decay = 0.8
[run]
log_every = 2
checkpoint_every = 3
"#;

const CLASSIFICATION: &str = r#"
recipe = "volume-classification"
[data.synth]
count = 24
validation = 12
[model]
depth = 10
width = 2
dilated = false
[loss]
drw_start = 2
[optim]
epochs = 4
batch = 4
accumulate = 2
freeze_epochs = 1
[ema]
decay = 0.8
[run]
log_every = 1
checkpoint_every = 3
"#;

fn trimtab() -> Command {
    Command::cargo_bin("trimtab").unwrap()
}

fn written(folder: &Path, text: &str) -> String {
    let path = folder.join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn train(recipe: &str, run: &Path, more: &[&str]) -> assert_cmd::assert::Assert {
    trimtab().args(["train", "--no-check", recipe, "--out"]).arg(run).args(more).assert()
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Records without wall-clock times.
fn records(run: &Path) -> Vec<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(run.join("signals.jsonl")).unwrap();
    let fields = |line: &str| {
        // Numbers as they stand: NaN is not JSON.
        let inner = line.trim_start_matches('{').trim_end_matches('}').to_owned();
        let fields = inner.split(",\"").map(|f| f.trim_start_matches('"').split_once("\":").unwrap());
        let kept = fields.filter(|(k, _)| *k != "time" && !k.starts_with("time/"));
        kept.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    };
    text.lines().map(fields).collect()
}

fn values(run: &Path, name: &str) -> Vec<f64> {
    records(run).iter().filter_map(|r| r.get(name)?.parse().ok()).collect()
}

/// The files of the newest checkpoint and the best weights.
fn weights(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = run.join("checkpoints");
    let entries = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
    let newest = entries.filter(|p| p.is_dir()).max().unwrap();
    let mut files: BTreeMap<PathBuf, Vec<u8>> = ["model", "ema", "optimizer"]
        .map(|name| (name.into(), std::fs::read(newest.join(format!("{name}.safetensors"))).unwrap()))
        .into();
    files.insert("best".into(), std::fs::read(folder.join("best.safetensors")).unwrap());
    files
}

/// Kills a run after each of so many records, resumes, and compares with one that was never interrupted.
fn survives(text: &str, kills: &[usize]) {
    let dir = tempfile::tempdir().unwrap();
    let recipe = written(dir.path(), text);
    let (straight, killed) = (dir.path().join("straight"), dir.path().join("killed"));
    train(&recipe, &straight, &[]).success();
    for (turn, lines) in kills.iter().enumerate() {
        let mut command = Process::new(assert_cmd::cargo::cargo_bin!("trimtab"));
        command
            .args(["train", "--no-check", &recipe, "--out"])
            .arg(&killed)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if turn > 0 {
            command.arg("--resume");
        }
        let mut child = command.spawn().unwrap();
        loop {
            let done = std::fs::read_to_string(killed.join("signals.jsonl")).map_or(0, |t| t.lines().count());
            if done >= *lines || child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    trimtab().args(["train", "--resume", "--out"]).arg(&killed).assert().success();
    assert_eq!(records(&straight), records(&killed));
    assert!(weights(&straight) == weights(&killed), "weights, moments, average or best weights differ");
}

#[test]
fn a_segmentation_killed_and_resumed_is_bit_identical() {
    survives(SEGMENTATION, &[3, 8]);
}

#[test]
fn a_classification_killed_and_resumed_is_bit_identical() {
    survives(CLASSIFICATION, &[3, 9]);
}

#[test]
fn each_loss_comes_in_when_it_is_said_to_and_the_encoder_thaws() {
    let dir = tempfile::tempdir().unwrap();
    let (recipe, run) = (written(dir.path(), SEGMENTATION), dir.path().join("run"));
    train(&recipe, &run, &[]).success().stdout(contains("val/dice"));
    assert!(run.join("overlay.png").is_file());
    let rows = records(&run);
    let seen = |name: &str, step: &str| rows.iter().any(|r| r["step"] == step && r.contains_key(name));
    // Four steps an epoch, two records: the boundary counts from step 5 on, connectivity from step 9 on.
    for (name, before, after) in [("loss/boundary", "4", "6"), ("loss/connectivity", "8", "10")] {
        assert!(!seen(name, before) && seen(name, after), "{name}");
    }
    let at = |name: &str, step: &str| -> f64 {
        rows.iter().find(|r| r["step"] == step && r.contains_key(name)).unwrap()[name].parse().unwrap()
    };
    assert_eq!(at("weight/loss/cldice", "4"), 0.0);
    assert!((at("weight/loss/cldice", "8") - 0.3 * 3.0 / 8.0).abs() < 1e-9);
    assert!((at("weight/loss/cldice", "14") - 0.3).abs() < 1e-12);
    assert_eq!((at("stage/frozen/encoder", "4"), at("stage/frozen/encoder", "6")), (1.0, 0.0));
    assert_eq!(at("optim/learning_rate/encoder", "4"), 0.0);
    assert!(seen("loss/deep_supervision", "2") && seen("val/dice/average", "4"));
    // Evaluation finds what training wrote down, and adds surfaces and topology.
    let best = json(&run.join("summary.json"))["metrics"]["val/dice"]["best"].as_f64().unwrap();
    let out = trimtab().args(["eval", "--json"]).arg(&run).assert().success().get_output().stdout.clone();
    let eval: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(eval["metrics"]["val/dice"]["value"].as_f64().unwrap(), best);
    assert!(eval["metrics"]["val/topo_score"]["floor"].is_number(), "{eval}");
    assert!(eval["ignored"].as_u64().unwrap() > 0);
}

#[test]
fn the_weights_of_the_classes_change_when_re_weighting_begins() {
    let dir = tempfile::tempdir().unwrap();
    let (recipe, run) = (written(dir.path(), CLASSIFICATION), dir.path().join("run"));
    train(&recipe, &run, &[]).success().stdout(contains("val/auc").and(contains("val/recall/class1")));
    let (common, rare) = (values(&run, "weight/class/0"), values(&run, "weight/class/1"));
    // 24 volumes, 8 a step: three steps an epoch, six before epoch 2.
    assert_eq!(common.len(), 12);
    assert!(common[..6].iter().chain(&rare[..6]).all(|w| *w == 1.0), "{common:?} {rare:?}");
    assert!(rare[6..].iter().all(|w| *w > 1.2) && common[6..].iter().all(|w| *w < 0.8));
    let counts = &json(&run.join("run.json"))["class_counts"];
    let (n0, n1) = (counts["0"].as_f64().unwrap(), counts["1"].as_f64().unwrap());
    let of = |n: f64| (1.0 - 0.9999) / (1.0 - 0.9999f64.powf(n));
    let wanted = 2.0 * of(n1) / (of(n0) + of(n1));
    assert!((rare[11] - wanted).abs() < 1e-9, "{} {wanted}", rare[11]);
    let rates = (values(&run, "optim/learning_rate/backbone"), values(&run, "optim/learning_rate/head"));
    assert_eq!(rates.0[0], 0.0, "frozen");
    assert!((rates.1[5] / rates.0[5] - 10.0).abs() < 1e-9);
}

/// Writes `count` volumes of the generated classes as .npy with a table; every volume of its own patient.
fn table(folder: &Path, count: u64) {
    let mut text = "file;label;patient\n".to_owned();
    let config = PatchClassConfig::default();
    for i in 0..count {
        let (volume, class) = patch_class(&config, 3, i);
        let info = VolumeInfo { channels: 1, shape: volume.shape, geometry: volume.geometry.clone() };
        let mut writer = VolumeWriter::create(&folder.join(format!("v{i}.npy")), &info, Stored::F32).unwrap();
        writer.push(&volume.values).unwrap();
        writer.finish().unwrap();
        text += &format!("v{i}.npy;{class};p{i}\n");
    }
    std::fs::write(folder.join("labels.csv"), text).unwrap();
}

fn table_recipe(folder: &Path) -> String {
    let (head, tail) = CLASSIFICATION.split_once("[data.synth]").unwrap();
    let (_, tail) = tail.split_once("[model]").unwrap();
    let data = format!(
        "[data]\nsource = \"table\"\nroot = {folder:?}\npath_column = \"file\"\npatient_column = \"patient\"\nfolds = 3\n"
    );
    written(folder, &format!("{head}{data}[model]{tail}"))
}

#[test]
fn folds_are_trained_in_one_command_and_what_is_done_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    table(dir.path(), 30);
    let (recipe, out) = (table_recipe(dir.path()), dir.path().join("cv"));
    train(&recipe, &out, &["--folds"]).success().stdout(contains("±").and(contains("val/auc")));
    let result = json(&out.join("folds.json"));
    assert_eq!(result["folds"], 3);
    let auc = &result["metrics"]["val/auc"];
    assert!(auc["best"]["deviation"].as_f64().unwrap() >= 0.0 && auc["floor"] == 0.5, "{auc}");
    assert_eq!(auc["best_by_fold"].as_array().unwrap().len(), 3);
    // Each volume is validated exactly once.
    let validated: u64 = (0..3)
        .map(|k| {
            let out = trimtab()
                .args(["eval", "--json"])
                .arg(out.join(format!("fold-{k}")))
                .assert()
                .success()
                .get_output()
                .stdout
                .clone();
            serde_json::from_slice::<serde_json::Value>(&out).unwrap()["volumes"].as_u64().unwrap()
        })
        .sum();
    assert_eq!(validated, 30);
    train(&recipe, &out, &["--folds"]).success().stderr(contains("done before"));
    train(&recipe, &out, &["--folds", "--set", "seed=1"]).code(2).stderr(contains("other settings"));

    // New volumes get a row each.
    let predicted = dir.path().join("predicted");
    trimtab()
        .arg("predict")
        .arg(out.join("fold-0"))
        .arg(dir.path().join("v3.npy"))
        .arg(dir.path().join("v4.npy"))
        .arg("--out")
        .arg(&predicted)
        .assert()
        .success();
    let rows = std::fs::read_to_string(predicted.join("predictions.csv")).unwrap();
    assert_eq!(rows.lines().count(), 3, "{rows}");
    assert!(rows.starts_with("file,class,\"probability_0\",\"probability_1\"\n"));
}

/// Writes `count` organs as .nii.gz, turned in the file, with labels; `value` replaces label 2.
fn organs(root: &Path, count: u64, value: i32) {
    for part in ["images", "labels"] {
        std::fs::create_dir_all(root.join(part)).unwrap();
    }
    for i in 0..count {
        let (volume, labels) = organ(&Default::default(), 5, i);
        // Stored as (y, x reversed, z): what is written has to be turned back to be predicted in its own grid.
        let geometry = Geometry {
            stored: [(1, false), (0, true), (2, false)],
            ..Geometry::with_spacing([2.0, 1.0, 1.5])
        };
        let info = VolumeInfo { channels: 1, shape: volume.shape, geometry };
        let write = |path: PathBuf, values: &[f32], stored| {
            let mut writer = VolumeWriter::create(&path, &info, stored).unwrap();
            writer.push(values).unwrap();
            writer.finish().unwrap();
        };
        write(root.join(format!("images/case_{i}.nii.gz")), &volume.values, Stored::F32);
        let labels: Vec<f32> =
            labels.iter().map(|l| if *l == 2 { value as f32 } else { *l as f32 }).collect();
        write(root.join(format!("labels/case_{i}.nii.gz")), &labels, Stored::I16);
    }
}

fn organ_recipe(root: &Path, more: &str) -> String {
    let text = format!(
        "recipe = \"volume-segmentation\"\n[data]\nsource = \"files\"\nroot = {root:?}\nvalidation_last = 1\npatch_depth = 16\npatch_height = 16\npatch_width = 16\n{more}\n[model]\nbase = 2\ndepth = 2\n[optim]\nepochs = 2\nsteps_per_epoch = 2\n"
    );
    written(root, &text)
}

#[test]
fn a_prediction_has_the_grid_of_its_input() {
    let dir = tempfile::tempdir().unwrap();
    organs(dir.path(), 3, 2);
    let (recipe, run) = (organ_recipe(dir.path(), "classes = 3"), dir.path().join("run"));
    train(&recipe, &run, &[]).success().stdout(contains("val/dice/class2"));
    let out = dir.path().join("out");
    trimtab()
        .arg("predict")
        .arg(&run)
        .arg(dir.path().join("images"))
        .arg("--out")
        .arg(&out)
        .assert()
        .success();
    for i in 0..3 {
        let image = volume_info(&dir.path().join(format!("images/case_{i}.nii.gz")), None).unwrap();
        let found = read_volume_labels(&out.join(format!("case_{i}_labels.nii.gz")), None).unwrap();
        assert_eq!((found.shape, &found.geometry), (image.shape, &image.geometry));
        assert!(found.values.iter().all(|l| (0..3).contains(l)));
    }
    trimtab()
        .args(["predict", "--diameter", "9"])
        .arg(&run)
        .arg(dir.path().join("images"))
        .arg("--out")
        .arg(&out)
        .assert()
        .code(2)
        .stderr(contains("micrographs"));
}

#[test]
fn a_label_outside_the_loss_s_range_is_named_by_inspection_and_refused_by_training() {
    let dir = tempfile::tempdir().unwrap();
    organs(dir.path(), 3, 7);
    let (recipe, run) = (organ_recipe(dir.path(), "classes = 3"), dir.path().join("run"));
    trimtab()
        .args(["data", "inspect", &recipe])
        .assert()
        .code(3)
        .stdout(contains("error").and(contains('7')));
    train(&recipe, &run, &[]).code(2).stderr(contains("case_").and(contains('7')));
    assert!(!run.exists(), "a run directory was made in vain");
    // The same label as one to ignore is fine.
    train(&recipe, &run, &["--set", "data.ignore_label=7", "--set", "data.classes=2"]).success();
}

#[test]
fn what_is_wrong_with_files_is_said_with_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    organs(root, 3, 2);
    let (recipe, run) = (organ_recipe(root, "classes = 3"), root.join("run"));
    // Truncated.
    let victim = root.join("images/case_1.nii.gz");
    let bytes = std::fs::read(&victim).unwrap();
    std::fs::write(&victim, &bytes[..bytes.len() / 2]).unwrap();
    train(&recipe, &run, &[]).code(2).stderr(contains("case_1.nii.gz"));
    std::fs::write(&victim, &bytes).unwrap();
    // Labels of another shape.
    std::fs::copy(root.join("labels/case_0.nii.gz"), root.join("labels/kept.bak")).unwrap();
    let info = VolumeInfo { channels: 1, shape: [4, 5, 6], geometry: Geometry::default() };
    let mut writer = VolumeWriter::create(&root.join("labels/case_0.nii.gz"), &info, Stored::U8).unwrap();
    writer.push(&[0.0; 120]).unwrap();
    writer.finish().unwrap();
    train(&recipe, &run, &[]).code(2).stderr(contains("case_0.nii.gz").and(contains("4x5x6")));
    std::fs::copy(root.join("labels/kept.bak"), root.join("labels/case_0.nii.gz")).unwrap();
    // Two channels asked for.
    train(&recipe, &run, &["--set", "data.channels=2"]).code(2).stderr(contains("data.channels = 2"));
    // No such folder; a file where the labels should be; an empty name.
    train(&recipe, &run, &["--set", "data.images=nowhere"]).code(2).stderr(contains("nowhere"));
    assert!(!run.exists());
}
