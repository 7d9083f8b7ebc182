//! Training under guard: found, rolled back, healed; stopped; resumed after kills at any moment.

use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;

/// A small run that learns its task in some seconds, at a rate four hundred times too low.
const SLOW: &str = r#"
recipe = "two-stage"
[guard]
policy = "heal"
[data]
tile = 32
crop = 32
[data.synth]
count = 8
validation = 2
size = 128
[evaluate]
tile = 128
overlap = 16
[model]
base = 4
[run]
checkpoint_every = 20
[stage1]
labelled_ratio = 0.3
epochs = 3
steps_per_epoch = 15
batch = 4
unlabelled_batch = 0
consistency_weight = 0.0
learning_rate = 7.5e-6
decay = "constant"
advance_when = ""
[stage2]
labelled_ratio = 0.9
epochs = 9
steps_per_epoch = 15
batch = 4
unlabelled_batch = 0
consistency_weight = 0.0
learning_rate = 7.5e-6
decay = "constant"
warmup_epochs = 0
"#;

fn trimtab() -> Command {
    Command::cargo_bin("trimtab").unwrap()
}

fn write(folder: &Path, text: &str) -> String {
    let path = folder.join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn journal(run: &Path) -> Value {
    json(&run.join("guard/journal.json"))
}

/// Records without wall-clock times, and the weights at the end.
fn state(run: &Path) -> (Vec<serde_json::Map<String, Value>>, Vec<u8>) {
    let text = std::fs::read_to_string(run.join("signals.jsonl")).unwrap();
    let records = text.lines().map(|line| {
        let mut record: serde_json::Map<String, Value> =
            serde_json::from_str(&line.replace(":NaN", ":null")).unwrap();
        record.retain(|name, _| name != "time" && !name.starts_with("time/"));
        record
    });
    (records.collect(), std::fs::read(run.join("checkpoints/best.safetensors")).unwrap())
}

#[test]
fn a_rate_that_is_too_low_is_found_and_healed_and_every_decision_is_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = write(dir.path(), SLOW);
    let (alone, healed) = (dir.path().join("alone"), dir.path().join("healed"));
    trimtab()
        .args(["train", "--no-check", &recipe, "--set", "guard.policy=off", "--out"])
        .arg(&alone)
        .assert()
        .success();
    assert!(!alone.join("guard").exists(), "a guard that is off leaves no trace");
    trimtab()
        .args(["train", "--no-check", &recipe, "--out"])
        .arg(&healed)
        .assert()
        .success()
        .stdout(contains("attempt 1").and(contains("the learning rate is too low")).and(contains("chosen")))
        .stderr(contains("going on with"));
    let best = |run: &Path| json(&run.join("summary.json"))["metrics"]["val/f1"]["best"].as_f64().unwrap();
    assert!(best(&healed) > best(&alone) + 0.1, "{} after {}", best(&healed), best(&alone));

    let journal = journal(&healed);
    assert_eq!(journal["phase"], "training");
    let attempt = &journal["attempts"][0];
    assert_eq!(attempt["causes"][0]["cause"], "learning-rate-too-low");
    let chosen = attempt["chosen"].as_u64().unwrap() as usize;
    let branches = attempt["branches"].as_array().unwrap();
    assert!(branches.iter().all(|b| b["outcome"]["steps"].as_u64().unwrap() > 0));
    let overrides = branches[chosen]["remedy"]["overrides"][0].as_str().unwrap();
    let (key, value) = overrides.split_once('=').unwrap();
    // What was chosen is what the run went on with; what it began with is kept.
    let config = std::fs::read_to_string(healed.join("config.toml")).unwrap();
    let name = key.rsplit('.').next().unwrap();
    assert!(config.contains(&format!("{name} = {value}")), "{overrides}: {config}");
    let first = std::fs::read_to_string(healed.join("guard/first-config.toml")).unwrap();
    assert!(first.contains("learning_rate = 0.0000075"), "{first}");
    assert!(healed.join("guard/attempt-1/left.jsonl").is_file());
    let events = std::fs::read_to_string(healed.join("events.jsonl")).unwrap();
    assert!(events.contains("\"kind\":\"guard\""), "{events}");
    // One record a step, in order: the run left behind is not among them.
    let (records, _) = state(&healed);
    let steps: Vec<u64> = records.iter().map(|r| r["step"].as_u64().unwrap()).collect();
    assert!(steps.is_sorted(), "{steps:?}");
    assert_eq!(steps.last(), Some(&180));
    trimtab().args(["eval"]).arg(&healed).assert().success();
    trimtab().args(["diagnose"]).arg(&healed).assert().code(0);
}

#[test]
fn what_the_preflight_advises_is_tried_and_a_healthy_run_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = write(dir.path(), &SLOW.replace("7.5e-6", "3e-3"));
    let train = |name: &str, more: &[&str]| {
        let run = dir.path().join(name);
        let mut command = trimtab();
        command.args(["train", "--no-check", &recipe, "--out"]).arg(&run).args(more);
        (command.assert().success(), run)
    };
    let (_, watched) = train("watched", &["--set", "guard.policy=observe"]);
    let (_, healed) = train("healed", &[]);
    // The run was paused for experiments and, since its score is poor, lower rates were tried, which do no better: not a bit of it is another.
    assert_eq!(journal(&healed)["advised"], true);
    let attempts = journal(&healed)["attempts"].as_array().unwrap().clone();
    assert!(attempts.iter().all(|attempt| attempt["chosen"].is_null()), "{attempts:?}");
    assert!(state(&watched) == state(&healed));

    let decay = ["--set", "stage1.weight_decay=30.0", "--set", "stage2.weight_decay=30.0"];
    let (said, mended) = train("mended", &decay);
    said.stdout(contains("other settings are worth a trial").and(contains("weights are pulled to zero")));
    let attempt = &journal(&mended)["attempts"][0];
    assert_eq!(attempt["findings"][0]["rule"], "advised-against");
    assert!(attempt["from"].is_null(), "what was trained under such settings is no place to begin from");
    let chosen = attempt["chosen"].as_u64().unwrap() as usize;
    let overrides = &attempt["branches"][chosen]["remedy"]["overrides"];
    assert_eq!(*overrides, serde_json::json!(["stage1.weight_decay=0.01", "stage2.weight_decay=0.01"]));
    let best = |run: &Path| json(&run.join("summary.json"))["metrics"]["val/f1"]["best"].as_f64().unwrap();
    assert!(best(&mended) > 0.95 * best(&watched), "{} beside {}", best(&mended), best(&watched));
}

#[test]
fn what_the_recipe_expects_is_a_reason_to_stop_or_to_heal() {
    let dir = tempfile::tempdir().unwrap();
    let expecting = format!("{SLOW}[[expect]]\ncondition = \"val/f1 > 0.99 by epoch 3\"\n");
    let recipe = write(dir.path(), &expecting);
    let run = dir.path().join("stop");
    trimtab()
        .args(["train", "--no-check", &recipe, "--set", "guard.policy=stop", "--out"])
        .arg(&run)
        .assert()
        .code(3)
        .stdout(contains("stopped"));
    let run = dir.path().join("heal");
    trimtab()
        .args(["train", "--no-check", &recipe, "--set", "guard.attempts=1", "--out"])
        .arg(&run)
        .assert()
        .code(3)
        .stdout(contains("gave up").and(contains("attempts have been made")));
    assert_eq!(json(&run.join("summary.json"))["status"], "stopped");
    assert_eq!(journal(&run)["attempts"].as_array().unwrap().len(), 1);
}

#[test]
fn killed_at_any_moment_a_healing_run_goes_on_as_if_nothing_had_been() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = write(dir.path(), SLOW);
    let (straight, killed) = (dir.path().join("straight"), dir.path().join("killed"));
    trimtab().args(["train", "--no-check", &recipe, "--out"]).arg(&straight).assert().success();
    let phase = || {
        let text = std::fs::read_to_string(killed.join("guard/journal.json")).unwrap_or_default();
        ["examining", "branching", "adopting"].into_iter().find(|phase| text.contains(phase))
    };
    let branch = killed.join("guard/attempt-1/branch-1/signals.jsonl");
    let lines = || std::fs::read_to_string(&branch).map_or(0, |text| text.lines().count());
    // During experiments, in the middle of a branch, at the beginning of one, while the best becomes the run, and soon after.
    let in_branch = || phase() == Some("branching") && lines() > 2;
    let branches_begin = || phase() == Some("branching");
    let adopting = || phase() == Some("adopting");
    let adopted = || killed.join("guard/first-config.toml").is_file();
    let examining = || phase() == Some("examining");
    let moments: [(&str, &dyn Fn() -> bool); 5] = [
        ("during experiments", &examining),
        ("at the start of the branches", &branches_begin),
        ("within a branch", &in_branch),
        ("while a branch is adopted", &adopting),
        ("after that", &adopted),
    ];
    let mut hit = Vec::new();
    for (index, (name, reached)) in moments.iter().enumerate() {
        let mut command = Process::new(assert_cmd::cargo::cargo_bin("trimtab"));
        if index == 0 {
            command.args(["train", "--no-check", &recipe, "--out"]).arg(&killed);
        } else {
            command.args(["train", "--resume", "--out"]).arg(&killed);
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let patience = Instant::now();
        while child.try_wait().unwrap().is_none() && patience.elapsed() < Duration::from_secs(120) {
            if reached() {
                child.kill().unwrap();
                hit.push(*name);
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        child.wait().unwrap();
    }
    assert!(hit.len() >= 4, "the run was killed only {hit:?}");
    trimtab().args(["train", "--resume", "--out"]).arg(&killed).assert().success();
    let ((records, best), (again, best_again)) = (state(&straight), state(&killed));
    assert_eq!(records.len(), again.len());
    for (a, b) in records.iter().zip(&again) {
        assert_eq!(a, b);
    }
    assert!(best == best_again, "the best weights differ");
    let scores = |run: &Path| {
        let journal = journal(run);
        let branches = journal["attempts"][0]["branches"].as_array().unwrap().clone();
        branches.iter().map(|b| b["outcome"]["score"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(scores(&straight), scores(&killed));
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = write(dir.path(), &SLOW.replace("7.5e-6", "3e-3"));
    let run = dir.path().join("run");
    let mut command = Process::new(assert_cmd::cargo::cargo_bin("trimtab"));
    command.args(["train", "--no-check", &recipe, "--out"]).arg(&run);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let newest = || {
        let all = std::fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
        let mut all: Vec<_> = all
            .map(|e| e.path())
            .filter(|p| p.is_dir() && !p.file_name().unwrap().to_string_lossy().starts_with('.'))
            .collect();
        all.sort();
        all
    };
    while newest().len() < 2 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let damaged = newest().pop().unwrap().join("model.safetensors");
    let bytes = std::fs::read(&damaged).unwrap();
    std::fs::remove_file(&damaged).unwrap();
    std::fs::write(&damaged, &bytes[..bytes.len() / 2]).unwrap();
    trimtab()
        .args(["train", "--resume", "--out"])
        .arg(&run)
        .assert()
        .success()
        .stderr(contains("going on from the one before").and(contains("model.safetensors")));
    assert_eq!(json(&run.join("summary.json"))["status"], "finished");
}
