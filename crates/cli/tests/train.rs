//! Whole trainings through the program: outcome, exit codes, resume after a kill, prediction.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use common::{folder_recipe, recipe, synth, trimtab};
use predicates::prelude::*;
use predicates::str::contains;

/// A record, as text by name.
type Fields = BTreeMap<String, String>;

/// Records without wall-clock times, and the files of the newest checkpoint and the best weights.
fn state(run: &Path) -> (Vec<Fields>, BTreeMap<String, Vec<u8>>) {
    let text = std::fs::read_to_string(run.join("signals.jsonl")).unwrap();
    let records = text.lines().map(|line| {
        let inner = line.trim_start_matches('{').trim_end_matches('}');
        let fields = inner.split(",\"").map(|f| f.trim_start_matches('"').split_once("\":").unwrap());
        fields
            .filter(|(k, _)| *k != "time" && !k.starts_with("time/"))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    });
    let mut files = BTreeMap::new();
    let checkpoints = run.join("checkpoints");
    let mut names: Vec<_> =
        std::fs::read_dir(&checkpoints).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    names.sort();
    for name in ["model", "teacher", "optimizer"] {
        let file = format!("{name}.safetensors");
        files.insert(file.clone(), std::fs::read(names.last().unwrap().join(file)).unwrap());
    }
    files.insert("best".to_owned(), std::fs::read(checkpoints.join("best.safetensors")).unwrap());
    (records.collect(), files)
}

#[test]
fn a_run_leaves_everything_the_run_directory_promises() {
    let dir = tempfile::tempdir().unwrap();
    let (recipe, run) = (recipe(dir.path(), ""), dir.path().join("run"));
    trimtab()
        .args(["train", "--no-check", &recipe, "--out"])
        .arg(&run)
        .assert()
        .success()
        .stdout(contains("val/f1").and(contains("floor")));
    for file in [
        "config.toml",
        "run.json",
        "signals.jsonl",
        "events.jsonl",
        "summary.json",
        "overlay.png",
        "tensorboard",
        "checkpoints/best.safetensors",
    ] {
        assert!(run.join(file).exists(), "{file}");
    }
    let summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(run.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["status"], "finished");
    assert_eq!(summary["steps"], 24);
    let f1 = &summary["metrics"]["val/f1"];
    assert!(
        f1["floor"].as_f64().unwrap() > 0.2
            && f1["best"].as_f64().unwrap() <= 1.0
            && f1["best_step"].as_u64().is_some()
    );
    let (records, _) = state(&run);
    let of = |name: &str| records.iter().filter(|r| r.contains_key(name)).count();
    for signal in [
        "loss/total",
        "loss/focal",
        "loss/dice",
        "loss/consistency",
        "grad/norm",
        "grad/clipped",
        "optim/learning_rate/encoder",
        "optim/update_ratio/head",
        "param/norm/decoder",
        "ema/decay",
        "weight/consistency",
        "train/mean_probability",
        "val/f1/student",
        "val/auc/teacher",
        "val/loss",
    ] {
        assert!(of(signal) > 0, "{signal} was never recorded");
    }
    // The encoder is frozen in the first epoch of stage 2 (steps 13 to 16), and only there.
    for r in records.iter().filter(|r| r.contains_key("stage/frozen/encoder")) {
        let step: u64 = r["step"].parse().unwrap();
        assert_eq!(r["stage/frozen/encoder"].starts_with('1'), (13..=16).contains(&step), "step {step}");
    }
    let info: serde_json::Value =
        serde_json::from_slice(&std::fs::read(run.join("run.json")).unwrap()).unwrap();
    assert_eq!(info["steps_planned"], 24);
    assert_eq!(info["schedule_horizons"]["stage2/optim/learning_rate"], 12);

    // The directory is used now.
    trimtab()
        .args(["train", "--no-check", &recipe, "--out"])
        .arg(&run)
        .assert()
        .code(2)
        .stderr(contains("already"));
    // Evaluation finds what training wrote down.
    let out = trimtab().args(["eval", "--json"]).arg(&run).assert().success().get_output().stdout.clone();
    let eval: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(eval["metrics"]["val/f1"]["value"], f1["best"]);
    assert_eq!(eval["metrics"]["val/f1"]["floor"], f1["floor"]);
}

#[test]
fn prediction_writes_every_format_and_picks_read_back_alike() {
    let dir = tempfile::tempdir().unwrap();
    let (recipe, run, sim, out) =
        (recipe(dir.path(), ""), dir.path().join("run"), dir.path().join("sim"), dir.path().join("out"));
    trimtab().args(["train", "--no-check", &recipe, "--out"]).arg(&run).assert().success();
    trimtab()
        .args([
            "synth",
            "micrographs",
            "--count",
            "2",
            "--size",
            "96",
            "--diameter",
            "16",
            "--format",
            "mrc",
            "--out",
        ])
        .arg(&sim)
        .assert()
        .success();
    trimtab()
        .arg("predict")
        .arg(&run)
        .arg(sim.join("micrographs"))
        .args(["--min-score", "0.1", "--threshold", "0.2", "--out"])
        .arg(&out)
        .assert()
        .success();
    for ending in ["_probability.tif", "_mask.png", "_overlay.png", ".star", ".box", ".txt", ".csv"] {
        assert!(out.join(format!("micrograph_0000{ending}")).is_file(), "{ending}");
    }
    // The masks of the generator serve as data of another folder.
    trimtab().arg("eval").arg(&run).arg("--data").arg(&sim).assert().success().stdout(contains("2 images"));
    // The same stem twice would overwrite a result.
    trimtab()
        .arg("predict")
        .arg(&run)
        .arg(sim.join("micrographs/micrograph_0000.mrc"))
        .arg(sim.join("masks/micrograph_0000.png"))
        .arg("--out")
        .arg(&out)
        .assert()
        .code(2)
        .stderr(contains("would be named micrograph_0000"));
}

#[test]
fn a_run_killed_three_times_and_resumed_is_bit_identical() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(dir.path(), "");
    let (straight, killed) = (dir.path().join("straight"), dir.path().join("killed"));
    trimtab().args(["train", "--no-check", &recipe, "--out"]).arg(&straight).assert().success();

    // Kills after the 5th, 14th and 21st step: within stage 1, just after the change of stage, near the end.
    for (turn, lines) in [3usize, 9, 15].into_iter().enumerate() {
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
            if done >= lines || child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    trimtab().args(["train", "--resume", "--out"]).arg(&killed).assert().success();
    let ((records, files), (again, files_again)) = (state(&straight), state(&killed));
    assert_eq!(records.len(), again.len());
    for (a, b) in records.iter().zip(&again) {
        assert_eq!(a, b);
    }
    assert!(files == files_again, "weights, moments or best weights differ");
}

#[cfg(unix)]
#[test]
fn ctrl_c_writes_a_checkpoint_and_ends_with_130() {
    let dir = tempfile::tempdir().unwrap();
    let (recipe, run) = (recipe(dir.path(), ""), dir.path().join("run"));
    let mut child = Process::new(assert_cmd::cargo::cargo_bin!("trimtab"))
        .args(["train", "--no-check", &recipe, "--set", "stage1.epochs=1000", "--out"])
        .arg(&run)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while std::fs::read_to_string(run.join("signals.jsonl")).map_or(0, |t| t.lines().count()) < 2 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(2));
    }
    Process::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let summary = std::fs::read_to_string(run.join("summary.json")).unwrap();
    assert!(summary.contains("\"interrupted\""), "{summary}");
    assert!(std::fs::read_dir(run.join("checkpoints")).unwrap().count() > 0);
}

#[test]
fn an_expectation_that_fails_stops_the_run_with_3_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(dir.path(), "[[expect]]\ncondition = \"val/f1 > 0.999 by epoch 2\"\n");
    let run = dir.path().join("run");
    trimtab()
        .args(["train", "--no-check", &recipe, "--out"])
        .arg(&run)
        .assert()
        .code(3)
        .stdout(contains("val/f1 > 0.999 by epoch 2"));
    let summary = std::fs::read_to_string(run.join("summary.json")).unwrap();
    assert!(summary.contains("\"stopped\"") && summary.contains("was not met"), "{summary}");
}

#[test]
fn early_stopping_ends_the_last_stage_and_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(dir.path(), "[early_stopping]\npatience = 1\nmin_delta = 1.0\n");
    let run = dir.path().join("run");
    trimtab()
        .args(["train", "--no-check", &recipe, "--out"])
        .arg(&run)
        .assert()
        .success()
        .stdout(contains("no better val/f1 in 1 validations"));
    let summary = std::fs::read_to_string(run.join("summary.json")).unwrap();
    assert!(summary.contains("\"steps\": 20"), "12 of stage 1, then two validations of 4 steps: {summary}");
}

#[test]
fn json_output_is_one_object_a_line_and_ends_with_the_summary() {
    let dir = tempfile::tempdir().unwrap();
    let (recipe, run) = (recipe(dir.path(), ""), dir.path().join("run"));
    let out = trimtab()
        .args(["train", "--no-check", &recipe, "--json", "--out"])
        .arg(&run)
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let objects: Vec<serde_json::Value> =
        String::from_utf8(out).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let kinds: Vec<&str> = objects.iter().map(|o| o["type"].as_str().unwrap()).collect();
    assert_eq!(kinds.first(), Some(&"stage"));
    assert_eq!(kinds.last(), Some(&"summary"));
    assert_eq!(kinds.iter().filter(|k| **k == "validation").count(), 6);
}

#[test]
fn stage_2_can_start_from_a_checkpoint_of_the_same_architecture_only() {
    let dir = tempfile::tempdir().unwrap();
    let file = recipe(dir.path(), "");
    let first = dir.path().join("first");
    trimtab().args(["train", "--no-check", &file, "--out"]).arg(&first).assert().success();
    let best = first.join("checkpoints/best.safetensors");
    let text = std::fs::read_to_string(&file).unwrap();
    let (head, tail) = text.split_once("[stage1]").unwrap();
    let (_, stage2) = tail.split_once("[stage2]").unwrap();
    std::fs::write(&file, format!("{head}[stage2]\ncheckpoint = {best:?}{stage2}")).unwrap();
    let second = dir.path().join("second");
    trimtab().args(["train", "--no-check", &file, "--out"]).arg(&second).assert().success();
    assert!(std::fs::read_to_string(second.join("summary.json")).unwrap().contains("\"steps\": 12"));
    let third = dir.path().join("third");
    trimtab()
        .args(["train", "--no-check", &file, "--set", "model.base=3", "--out"])
        .arg(&third)
        .assert()
        .code(2)
        .stderr(contains("another architecture"));
    assert!(!third.exists());
}

#[test]
fn a_deadline_is_judged_by_the_validation_that_falls_on_it() {
    let dir = tempfile::tempdir().unwrap();
    // The recall is above 0 from the first validation on, and known only then.
    let recipe = recipe(dir.path(), "[[expect]]\ncondition = \"val/recall >= 0.0 by epoch 1\"\n");
    trimtab().args(["train", "--no-check", &recipe, "--out"]).arg(dir.path().join("run")).assert().success();
}

#[test]
fn stage_1_ends_at_the_validation_that_meets_its_condition_as_often_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(dir.path(), "");
    for (condition, steps) in [("val/recall >= 0.0", 4 + 12), ("val/recall >= 0.0 for 2", 8 + 12)] {
        let run = dir.path().join(format!("run{steps}"));
        let set = format!("stage1.advance_when={condition}");
        trimtab().args(["train", "--no-check", &recipe, "--set", &set, "--out"]).arg(&run).assert().success();
        let summary = std::fs::read_to_string(run.join("summary.json")).unwrap();
        assert!(summary.contains(&format!("\"steps\": {steps},")), "{condition}: {summary}");
    }
}

#[test]
fn a_run_goes_on_only_with_its_own_data_and_settings() {
    let dir = tempfile::tempdir().unwrap();
    let (run, sim) = (dir.path().join("run"), dir.path().join("sim"));
    synth(&sim, 3, "png");
    let recipe = folder_recipe(dir.path(), &sim);
    trimtab().args(["train", "--no-check", &recipe, "--out"]).arg(&run).assert().success();
    let resume = || trimtab().args(["train", "--resume", "--out"]).arg(&run).assert();
    resume().success();
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    std::fs::write(run.join("config.toml"), config.replace("learning_rate = 0.001", "learning_rate = 0.002"))
        .unwrap();
    resume().code(2).stderr(contains("other settings"));
    std::fs::write(run.join("config.toml"), config).unwrap();
    std::fs::copy(sim.join("masks/micrograph_0001.png"), sim.join("masks/micrograph_0000.png")).unwrap();
    resume().code(2).stderr(contains("the data are not those"));
}

#[test]
fn a_pixel_that_is_not_finite_is_replaced_and_the_run_stays_finite() {
    let dir = tempfile::tempdir().unwrap();
    let (run, sim) = (dir.path().join("run"), dir.path().join("sim"));
    synth(&sim, 3, "mrc");
    let recipe = folder_recipe(dir.path(), &sim);
    // One pixel of one training micrograph is NaN (mode 2: 1024 bytes of header, then f32).
    let path = sim.join("micrographs/micrograph_0000.mrc");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1024 + 4 * 500..1024 + 4 * 501].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    trimtab().args(["train", "--no-check", &recipe, "--out"]).arg(&run).assert().success();
    let (records, _) = state(&run);
    let sum = |name: &str| records.iter().filter_map(|r| r.get(name)?.parse::<f64>().ok()).sum::<f64>();
    assert_eq!(sum("grad/non_finite"), 0.0);
    trimtab().args(["data", "inspect", &recipe]).assert().success().stdout(contains("1 warnings"));
    let last = records.iter().rev().find(|r| r.contains_key("val/f1")).unwrap();
    assert!(
        last["val/loss"].parse::<f64>().unwrap().is_finite()
            && last["val/mean_probability"].parse::<f64>().unwrap().is_finite()
    );
}
