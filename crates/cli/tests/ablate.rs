//! Ablations through the program: table and files, resume, what fails, a user's mistakes.

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;

/// Six steps of a small network.
const RECIPE: &str = r#"
recipe = "volume-classification"
[data.synth]
count = 24
validation = 12
[model]
depth = 10
width = 2
dilated = false
[loss]
drw_start = 1
[optim]
epochs = 2
batch = 4
accumulate = 2
[run]
log_every = 1
checkpoint_every = 2
"#;

const FACTORS: &str = r#"
seeds = [1, 2]
metric = "val/balanced_accuracy"
base = ["ema.decay=0.99", "optim.learning_rate=1e-3"]
[[factor]]
name = "ema"
set = ["ema.decay=0.5"]
[[factor]]
name = "plain"
set = ["loss.kind=cross_entropy"]
"#;

/// The runs of [`FACTORS`] in their order.
const RUNS: [&str; 8] = [
    "baseline-seed1",
    "ema-seed1",
    "plain-seed1",
    "all-seed1",
    "baseline-seed2",
    "ema-seed2",
    "plain-seed2",
    "all-seed2",
];

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(recipe: &str, factors: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("recipe.toml"), recipe).unwrap();
        std::fs::write(dir.path().join("factors.toml"), factors).unwrap();
        Self { dir }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn arguments(&self) -> Vec<PathBuf> {
        let file = |name: &str| self.dir.path().join(name);
        let words = ["ablate".into(), file("recipe.toml"), "--factors".into(), file("factors.toml")];
        words.into_iter().chain(["--out".into(), self.out()]).collect()
    }

    fn ablate(&self, more: &[&str]) -> assert_cmd::assert::Assert {
        Command::cargo_bin("trimtab").unwrap().args(self.arguments()).args(more).assert()
    }

    fn result(&self) -> Value {
        json(&self.out().join("ablation.json"))
    }

    /// The program, started and not waited for.
    fn spawn(&self) -> std::process::Child {
        Process::new(assert_cmd::cargo::cargo_bin!("trimtab"))
            .args(self.arguments())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Waits until a run has so many records.
    fn wait(&self, child: &mut std::process::Child, run: &str, records: usize) {
        let signals = self.out().join(run).join("signals.jsonl");
        while std::fs::read_to_string(&signals).map_or(0, |t| t.lines().count()) < records {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// What does not depend on the clock.
fn timeless(result: &Value) -> Value {
    let mut result = result.clone();
    for list in ["variants", "runs"] {
        for item in result[list].as_array_mut().unwrap() {
            for key in ["seconds", "cost"] {
                item.as_object_mut().unwrap().remove(key);
            }
            if let Some(measured) = item.get_mut("measured").and_then(Value::as_object_mut) {
                measured.remove("seconds");
            }
        }
    }
    result
}

#[test]
fn every_variant_is_trained_and_compared_and_the_same_command_again_trains_nothing() {
    let bench = Bench::new(RECIPE, FACTORS);
    bench
        .ablate(&[])
        .success()
        .stdout(
            contains("to baseline")
                .and(contains("±"))
                .and(contains("weak evidence: of changes that do nothing, 30 %")),
        )
        .stderr(contains("run 8 of 8: all, seed 2"));
    let result = bench.result();
    assert_eq!((&result["metric"], &result["complete"]), (&"val/balanced_accuracy".into(), &true.into()));
    let runs = result["runs"].as_array().unwrap();
    for (run, name) in runs.iter().zip(RUNS) {
        assert_eq!((&run["directory"], &run["ending"]), (&name.into(), &"finished".into()));
        // What the table says is what the run says.
        let summary = json(&bench.out().join(name).join("summary.json"));
        let scores = &summary["metrics"]["val/balanced_accuracy"];
        for key in ["best", "last", "best_step"] {
            assert_eq!(run["measured"][key], scores[key], "{name}: {key}");
        }
        assert_eq!(run["measured"]["steps"], 6);
    }
    let best = |i: usize| runs[i]["measured"]["best"].as_f64().unwrap();
    let variants = result["variants"].as_array().unwrap();
    assert_eq!(variants.len(), 4);
    let wanted = ((best(1) - best(0)) + (best(5) - best(4))) / 2.0;
    assert!((variants[1]["difference"]["mean"].as_f64().unwrap() - wanted).abs() < 1e-12);
    assert_eq!(variants[2]["set"], serde_json::json!(["loss.kind=cross_entropy"]));
    let config = std::fs::read_to_string(bench.out().join("all-seed2/config.toml")).unwrap();
    for part in ["seed = 2", "decay = 0.5", "kind = \"cross_entropy\"", "metric = \"val/balanced_accuracy\""]
    {
        assert!(config.contains(part), "`{part}` is not in: {config}");
    }
    let text = std::fs::read_to_string(bench.out().join("ablation.md")).unwrap();
    assert!(text.contains("| plain |") && text.contains("| all-seed2 |"), "{text}");

    std::fs::remove_file(bench.out().join("ablation.json")).unwrap();
    let signals = bench.out().join("ema-seed1/signals.jsonl");
    let written = std::fs::metadata(&signals).unwrap().modified().unwrap();
    bench.ablate(&[]).success().stderr(contains("done before").count(8));
    assert_eq!(std::fs::metadata(&signals).unwrap().modified().unwrap(), written);
    assert_eq!(bench.result(), result);
    // Other settings than those of the runs: nothing is mixed, nothing trained.
    bench.ablate(&["--set", "optim.batch=3"]).code(2).stderr(contains("was made with other settings"));
    assert_eq!(bench.result(), result);
}

#[test]
fn a_kill_costs_only_the_steps_since_the_last_checkpoint() {
    let recipe = RECIPE.replace("epochs = 2", "epochs = 8");
    let straight = Bench::new(&recipe, FACTORS);
    straight.ablate(&[]).success();
    let killed = Bench::new(&recipe, FACTORS);
    // Within the second run and within the sixth.
    for run in ["ema-seed1", "ema-seed2"] {
        let mut child = killed.spawn();
        killed.wait(&mut child, run, 3);
        child.kill().unwrap();
        child.wait().unwrap();
        let result = killed.result();
        assert_eq!(result["complete"], false, "written after every run");
    }
    killed.ablate(&[]).success().stderr(contains("run 1 of 8: baseline, seed 1: done before"));
    assert_eq!(
        timeless(&killed.result())["runs"],
        timeless(&straight.result())["runs"],
        "a resumed run is that which was never interrupted"
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_shows_what_there_is_and_ends_with_130() {
    let bench = Bench::new(&RECIPE.replace("epochs = 2", "epochs = 500"), FACTORS);
    let mut child = bench.spawn();
    bench.wait(&mut child, "baseline-seed1", 2);
    Process::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let summary = json(&bench.out().join("baseline-seed1/summary.json"));
    assert_eq!(summary["status"], "interrupted");
    let result = bench.result();
    assert_eq!((&result["complete"], &result["runs"][0]["ending"]), (&false.into(), &"open".into()));
    assert!(!bench.out().join("ema-seed1").exists(), "it went on");
}

#[test]
fn a_run_that_is_stopped_counts_and_one_that_fails_does_not_end_the_others() {
    let expectation = "[[expect]]\ncondition = \"abort when optim/learning_rate/head > 0.5\"\n";
    let factors = "[[factor]]\nname = \"stops\"\nset = [\"optim.learning_rate=0.1\"]\n\
        [[factor]]\nname = \"fine\"\nset = [\"ema.decay=0.5\"]\n";
    let bench = Bench::new(&format!("{RECIPE}{expectation}"), factors);
    // Where a run directory should be there is a file of somebody else's.
    std::fs::create_dir_all(bench.out().join("fine-seed42")).unwrap();
    std::fs::write(bench.out().join("fine-seed42/notes.txt"), "mine").unwrap();
    bench
        .ablate(&["--seeds", "1"])
        .code(3)
        .stdout(contains("stops, seed 42: stopped, and counts").and(contains("fine, seed 42: failed")));
    let result = bench.result();
    let endings: Vec<&Value> = result["runs"].as_array().unwrap().iter().map(|r| &r["ending"]).collect();
    assert_eq!(endings, ["finished", "stopped", "failed", "stopped"]);
    assert!(result["runs"][2]["reason"].as_str().unwrap().contains("fine-seed42"), "{result}");
    assert_eq!(result["runs"][2]["measured"], Value::Null);
    assert_eq!(result["runs"][1]["measured"]["steps"], 1);

    // What was in the way is gone: only that run is trained, and nothing is wrong any more.
    std::fs::remove_dir_all(bench.out().join("fine-seed42")).unwrap();
    bench.ablate(&["--seeds", "1"]).success().stderr(contains("done before").count(3));
    assert_eq!(bench.result()["runs"][2]["ending"], "finished");
}

#[test]
fn json_names_every_run_and_ends_with_the_outcome() {
    let bench = Bench::new(RECIPE, FACTORS);
    let out = bench.ablate(&["--seeds", "1", "--json"]).success().get_output().stdout.clone();
    let lines: Vec<Value> =
        String::from_utf8(out).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let of = |kind: &str| lines.iter().filter(|l| l["type"] == kind).count();
    assert_eq!((of("run"), of("summary"), of("ablation")), (4, 4, 1));
    assert_eq!((&lines[0]["type"], &lines[0]["variant"]), (&"run".into(), &"baseline".into()));
    assert_eq!(lines.last().unwrap()["result"], bench.result());
}

#[test]
fn a_mistake_is_told_before_anything_is_trained() {
    let factor = |set: &str| format!("[[factor]]\nname = \"x\"\nset = [{set}]\n");
    let good = factor("\"ema.decay=0.5\"");
    let cases: &[(String, &[&str], &[&str])] = &[
        (factor("\"loss.scal=3\""), &[], &["factors.toml:3: `loss.scal`", "did you mean `loss.scale`?"]),
        (format!("seed = 3\n{good}"), &[], &["factors.toml:1: `seed`: unknown key"]),
        (
            format!("{good}[[factor]]\nname = \"y\"\nset = [\"ema.decay=0.6\"]\n"),
            &[],
            &["factors.toml:6: `ema.decay`", "factor \"x\" (line 3) to 0.5", "could not have both"],
        ),
        (good.clone(), &["--device", "tpu"], &["--device tpu: no such device"]),
        (good.clone(), &["--set", "seed=3"], &["--set: `seed`", "--seeds"]),
        (good.clone(), &["--seeds", "0"], &["--seeds"]),
        (factor("\"data.source=table\""), &[], &["variant x", "`data.root`"]),
    ];
    for (factors, more, wanted) in cases {
        let bench = Bench::new(RECIPE, factors);
        let out = bench.ablate(more).code(2).get_output().stderr.clone();
        let error = String::from_utf8(out).unwrap();
        assert!(!error.contains("panicked"), "{error}");
        for part in *wanted {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
        assert!(!bench.out().exists(), "something was begun: {error}");
    }
    let missing = Bench::new(RECIPE, &good);
    std::fs::remove_file(missing.dir.path().join("factors.toml")).unwrap();
    missing.ablate(&[]).code(2).stderr(contains("factors.toml: cannot read"));
}
