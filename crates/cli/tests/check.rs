//! `trimtab check`: healthy recipes pass, and each broken one is told what is wrong with it.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;
use trimtab_data::Image;
use trimtab_data::formats::npy;

/// Small, and able to learn.
const MICROGRAPHS: &str = r#"
recipe = "two-stage"
[data]
tile = 32
#DATA
[evaluate]
tile = 64
overlap = 16
[model]
base = 4
[run]
checkpoint_every = 10
[stage1]
labelled_ratio = 0.5
epochs = 6
steps_per_epoch = 10
batch = 4
unlabelled_batch = 4
learning_rate = 5e-3
rampup_epochs = 3
ema_decay = 0.95
[stage2]
labelled_ratio = 0.8
epochs = 6
steps_per_epoch = 10
batch = 4
unlabelled_batch = 4
learning_rate = 5e-3
warmup_epochs = 1
rampup_epochs = 3
ema_decay = 0.95
"#;

const GENERATED: &str = "[data.synth]\ncount = 2\nvalidation = 1\nsize = 64\nparticle_diameter = 16.0\n";

const SURFACES: &str = r#"
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
base = 4
depth = 2
affine = true
[loss.cldice]
weight = 0.3
from_epoch = 1
ramp_epochs = 1
[optim]
epochs = 6
steps_per_epoch = 10
learning_rate = 5e-3
warmup_epochs = 1
[ema]
decay = 0.9
[run]
checkpoint_every = 10
"#;

const VOLUMES: &str = r#"
recipe = "volume-classification"
[data.synth]
count = 48
validation = 12
[model]
depth = 10
width = 4
dilated = false
[loss]
drw_start = 4
max_margin = 0.3
scale = 10.0
[optim]
epochs = 6
batch = 8
accumulate = 1
learning_rate = 3e-3
[optim.rate_scale]
head = 1.0
[ema]
decay = 0.8
[run]
checkpoint_every = 10
"#;

fn trimtab() -> Command {
    Command::cargo_bin("trimtab").unwrap()
}

fn micrographs() -> String {
    MICROGRAPHS.replace("#DATA", GENERATED)
}

/// What the program says of a recipe, and its exit code.
fn check(text: &str, arguments: &[&str]) -> (Value, i32) {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("recipe.toml");
    std::fs::write(&recipe, text).unwrap();
    let out = trimtab().arg("check").arg(&recipe).args(["--json"]).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(!error.contains("panicked"), "{error}");
    let json = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {error}"));
    (json, out.status.code().unwrap())
}

fn items(report: &Value) -> &Vec<Value> {
    report["items"].as_array().unwrap()
}

/// Checks that pass batches through the network.
const EXPERIMENTS: [&str; 7] =
    ["output", "terms", "gradient-flow", "one-batch", "rate-sweep", "average", "cost"];

/// The recipe with these settings has an item of that check and verdict with all of these words.
#[track_caller]
fn told(text: &str, settings: &[&str], verdict: &str, id: &str, words: &[&str]) -> Value {
    let mut arguments = if EXPERIMENTS.contains(&id) { vec!["--seconds", "60"] } else { vec!["--quick"] };
    settings.iter().for_each(|s| arguments.extend(["--set", *s]));
    told_by(text, &arguments, verdict, id, words)
}

#[track_caller]
fn told_by(text: &str, arguments: &[&str], verdict: &str, id: &str, words: &[&str]) -> Value {
    let (report, code) = check(text, arguments);
    let failed = items(&report).iter().any(|item| item["verdict"] == "FAIL");
    assert_eq!(code, if failed { 3 } else { 0 }, "{report:#}");
    let fits = |item: &&Value| {
        let message = item["message"].as_str().unwrap();
        item["check"] == id && item["verdict"] == verdict && words.iter().all(|w| message.contains(w))
    };
    items(&report)
        .iter()
        .find(fits)
        .unwrap_or_else(|| panic!("{id} does not say {words:?}: {report:#}"))
        .clone()
}

#[test]
fn healthy_recipes_pass_every_check() {
    for text in [micrographs(), SURFACES.to_owned(), VOLUMES.to_owned()] {
        let (report, code) = check(&text, &[]);
        assert_eq!((code, &report["verdict"]), (0, &Value::from("PASS")), "{report:#}");
        let not_done: Vec<_> =
            items(&report).iter().filter(|i| i["verdict"] == "SKIP").map(|i| &i["check"]).collect();
        assert!(
            not_done.iter().all(|id| ["reference", "stages", "groups"].contains(&id.as_str().unwrap())),
            "{report:#}"
        );
    }
}

#[test]
fn the_rate_of_report_004_is_forty_times_too_small() {
    let reference = "[reference]\nbatch = 8\nlearning_rate = 2.5e-4\n";
    let settings = ["optim.learning_rate=1e-4", "optim.batch=32", "optim.accumulate=4"];
    let arguments: Vec<&str> = settings.iter().flat_map(|s| ["--set", s]).chain(["--quick"]).collect();
    let text = format!("{VOLUMES}{reference}");
    let found =
        told_by(&text, &arguments, "FAIL", "reference", &["1e-4 is 40.0x too small", "recommended 0.004000"]);
    assert_eq!(found["advice"][0], serde_json::json!({"key": "optim.learning_rate", "value": "0.004"}));
    assert_eq!(found["cause"], "learning-rate-too-low");
    // The reference's own rate and batch are none.
    let same = ["--quick", "--set", "optim.learning_rate=2.5e-4"];
    told_by(&text, &same, "PASS", "reference", &["within 4x"]);
}

#[test]
fn settings_that_are_wrong_are_lines_of_the_report() {
    let text = micrographs().replace("[stage2]\n", "[stage2]\nepoch = 7\naccumulate = \"four\"\n");
    let found = told(
        &text,
        &[],
        "FAIL",
        "settings",
        &["recipe.toml:", "`stage2.epoch`", "did you mean `stage2.epochs`"],
    );
    assert_eq!(found["numbers"]["key"], "stage2.epoch");
    assert!(found["numbers"]["line"].as_u64().unwrap() > 10);
    told(
        &text,
        &[],
        "FAIL",
        "settings",
        &["`stage2.accumulate`", "found \"four\"", "accepted is a whole number"],
    );
    // A term that would begin after the end.
    told(
        SURFACES,
        &["loss.cldice.from_epoch=6"],
        "FAIL",
        "settings",
        &["the run has 6 epochs", "never count"],
    );
    // The class balanced twice.
    told(VOLUMES, &["data.sampler=balanced"], "FAIL", "settings", &["counts twice"]);
}

#[test]
fn what_is_no_recipe_is_wrong_usage() {
    for arguments in
        [&["nowhere.toml"][..], &["nowhere.toml", "--device", "tpu"], &["x.toml", "--seconds", "soon"]]
    {
        let out = trimtab().arg("check").args(arguments).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{arguments:?}");
        assert!(out.stdout.is_empty());
    }
}

#[test]
fn rates_that_are_far_off_are_seen_by_experiments() {
    let text = micrographs();
    let low = told(&text, &["stage1.learning_rate=1e-8"], "FAIL", "one-batch", &["barely moves", "too low"]);
    assert_eq!(low["cause"], "learning-rate-too-low");
    told(&text, &["stage1.learning_rate=1e-8"], "FAIL", "rate-sweep", &["below the band"]);
    let high = told(&text, &["stage1.learning_rate=50"], "FAIL", "one-batch", &["too high"]);
    assert_eq!(high["cause"], "learning-rate-too-high");
    told(&text, &["stage1.learning_rate=50"], "FAIL", "rate-sweep", &["above the band"]);
    told(
        &text,
        &["stage2.learning_rate=50"],
        "FAIL",
        "rate-sweep",
        &["stage 2: the rate 50", "above the band"],
    );
    told(&text, &["stage1.learning_rate=0"], "FAIL", "schedules", &["the learning rate is 0"]);
}

#[test]
fn a_gradient_that_is_cut_to_nothing_is_named() {
    let bound = ["optim.kind=sgd", "optim.momentum=0", "optim.nesterov=false", "optim.clip_norm=1e-6"];
    let found =
        told(SURFACES, &bound, "FAIL", "one-batch", &["barely moves", "cut to optim.clip_norm = 1e-6"]);
    assert_eq!(found["cause"], "gradient-bound-too-tight");
}

#[test]
fn schedules_that_never_get_there_are_told_with_both_values() {
    let text = micrographs();
    let average = told(
        &text,
        &["stage1.ema_decay=0.9999"],
        "FAIL",
        "schedules",
        &["declared 0.9999, effective 0.9833"],
    );
    assert_eq!(average["cause"], "averaged-weights-not-trained");
    assert_eq!(average["advice"][0], serde_json::json!({"key": "stage1.ema_decay", "value": "0.833"}));
    told(
        &text,
        &["stage2.rampup_epochs=60"],
        "FAIL",
        "schedules",
        &["rises until step 600", "ends after 60"],
    );
    told(&text, &["stage2.rampup_epochs=60"], "WARN", "horizons", &["made for 600 steps", "has 60"]);
    told(
        SURFACES,
        &["loss.cldice.ramp_epochs=40"],
        "FAIL",
        "schedules",
        &["loss.cldice.weight is never reached"],
    );
    told(
        &text,
        &["stage2.warmup_epochs=5"],
        "WARN",
        "horizons",
        &["the warm-up takes 50 of 60 steps (83 %)"],
    );
    told(SURFACES, &["optim.freeze_epochs=6"], "WARN", "horizons", &["frozen takes 60 of 60 steps"]);
    told(SURFACES, &["run.checkpoint_every=100"], "WARN", "horizons", &["run.checkpoint_every = 100"]);
    told(SURFACES, &["evaluate.every_epochs=9"], "WARN", "horizons", &["1 validation"]);
    let patience = ["optim.warmup_epochs=3", "early_stopping.patience=2"];
    told(SURFACES, &patience, "WARN", "horizons", &["after epoch 3, within the warm-up of 3 epochs"]);
}

#[test]
fn conditions_that_nothing_can_meet_are_named() {
    let text = micrographs();
    told(&text, &["stage1.advance_when=val/f1 > 1"], "FAIL", "stages", &["can never be true"]);
    told(
        &text,
        &["stage1.advance_when=val/f1 > 0.5 for 9"],
        "FAIL",
        "stages",
        &["9 validations, stage 1 has 6"],
    );
    let never = format!("{text}[[expect]]\ncondition = \"val/f1 > 1.5 by epoch 3\"\n");
    told_by(&never, &["--quick"], "FAIL", "stages", &["val/f1 > 1.5", "never be met"]);
    let always = format!("{text}[[expect]]\ncondition = \"abort when val/positive_rate < 2\"\n");
    told_by(&always, &["--quick"], "FAIL", "stages", &["always true"]);
}

#[test]
fn weights_that_drown_the_rest_are_named() {
    let text = micrographs();
    let found = told(&text, &["loss.positive_weight=500"], "FAIL", "balance", &["1166.7x", "more than once"]);
    assert_eq!(found["cause"], "class-weights-extreme");
    told(&text, &["loss.focal_alpha=0.01"], "FAIL", "balance", &["less than it is there"]);
    told(&text, &["loss.dice=1e-7"], "WARN", "terms", &["dice is as good as inert", "weight 1e-7"]);
    told(SURFACES, &["optim.rate_scale.head=0"], "WARN", "schedules", &["the rate of head is 0 times"]);
}

#[test]
fn a_new_head_beside_a_pretrained_backbone_wants_a_rate_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let (recipe, run) = (root.path().join("recipe.toml"), root.path().join("run"));
    std::fs::write(&recipe, VOLUMES).unwrap();
    let mut train = trimtab();
    train.args(["train", "--no-check", "--set", "optim.epochs=5", "--set", "loss.drw_start=2", "--out"]);
    train.arg(&run).arg(&recipe).assert().success();
    let weights = format!("model.pretrained={}", run.join("checkpoints/best.safetensors").display());
    let found =
        told(VOLUMES, &[&weights], "WARN", "groups", &["at the same rate, 0.003", "best.safetensors"]);
    assert_eq!(found["cause"], "parameter-groups");
    assert_eq!(found["advice"][0]["key"], "optim.rate_scale.head");
    told(VOLUMES, &[&weights, "optim.rate_scale.head=10"], "PASS", "groups", &["10.0x"]);
    told(VOLUMES, &[], "SKIP", "groups", &["random weights"]);
}

/// Three micrographs in a folder, the last for validation, and the recipe for them.
fn folder(root: &Path) -> (PathBuf, String) {
    let sim = root.join("sim");
    let size = ["--count", "3", "--size", "64", "--diameter", "16", "--out"];
    trimtab().args(["synth", "micrographs"]).args(size).arg(&sim).assert().success();
    let data = format!("source = \"folder\"\nroot = {sim:?}\nmasks = \"masks\"\nvalidation_last = 1\n");
    (sim, MICROGRAPHS.replace("#DATA", &data))
}

#[test]
fn data_that_are_wrong_are_named_with_their_files() {
    let root = tempfile::tempdir().unwrap();
    let (sim, text) = folder(root.path());
    let mask = |i: usize| sim.join(format!("masks/micrograph_000{i}.png"));
    let image = |i: usize| sim.join(format!("micrographs/micrograph_000{i}.png"));
    told(&text, &[], "PASS", "data", &["train 2, validation 1"]);

    // A grey picture is no mask.
    let kept = std::fs::read(mask(0)).unwrap();
    std::fs::copy(image(0), mask(0)).unwrap();
    let found = told(&text, &[], "FAIL", "data", &["micrograph_0000.png", "data.mask_threshold"]);
    assert_eq!(
        (&found["cause"], &found["numbers"]["code"]),
        (&"labels-or-loss-wrong".into(), &"label-out-of-range".into())
    );
    told(&text, &[], "FAIL", "start", &["micrograph_0000.png"]);
    told(&text, &[], "SKIP", "one-batch", &["could not start"]);

    std::fs::remove_file(mask(0)).unwrap();
    told(&text, &[], "FAIL", "data", &["1 image of 2 in train without mask"]);

    // No positive label anywhere.
    for i in 0..2 {
        trimtab_data::formats::png::write_grey8(&mask(i), 64, 64, &[0; 64 * 64]).unwrap();
    }
    told(&text, &[], "FAIL", "balance", &["all of one class"]);
    told(&text, &[], "WARN", "data", &["without a positive pixel"]);
    std::fs::write(mask(0), &kept).unwrap();
    std::fs::write(mask(1), &kept).unwrap();

    // The validation image is one of training.
    std::fs::copy(image(0), image(2)).unwrap();
    let leak = told(&text, &[], "FAIL", "data", &["the same image is in train and validation"]);
    assert_eq!(leak["cause"], "split-leaks");
}

#[test]
fn values_in_the_data_that_are_no_numbers_or_too_large_are_seen() {
    let root = tempfile::tempdir().unwrap();
    let (sim, text) = folder(root.path());
    let put = |strange: f32| {
        for i in 0..2 {
            let mut pixels: Vec<f32> = (0..64 * 64).map(|i| (i % 17) as f32).collect();
            pixels.iter_mut().step_by(97).for_each(|v| *v = strange);
            let image = Image { width: 64, height: 64, pixels };
            let _ = std::fs::remove_file(sim.join(format!("micrographs/micrograph_000{i}.png")));
            npy::write(&sim.join(format!("micrographs/micrograph_000{i}.npy")), &image).unwrap();
        }
    };
    put(f32::NAN);
    let found = told(&text, &[], "WARN", "data", &["NaN", "micrograph_0000.npy"]);
    assert_eq!(found["cause"], "numbers-overflow");
    // Their squares are beyond single precision: the norms of the encoder make nothing of them.
    put(1e30);
    let found =
        told(&text, &["data.normalise=none"], "FAIL", "gradient-flow", &["of 41 layers get no gradient"]);
    assert_eq!(found["cause"], "units-dead");
}

#[test]
fn time_that_is_used_up_skips_experiments_and_text_ends_with_a_summary() {
    let (report, code) = check(&micrographs(), &["--seconds", "0"]);
    assert_eq!(code, 0);
    let sweep = items(&report).iter().find(|i| i["check"] == "rate-sweep").unwrap();
    assert!(
        sweep["verdict"] == "SKIP" && sweep["message"].as_str().unwrap().contains("40 steps at"),
        "{sweep}"
    );
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("recipe.toml");
    std::fs::write(&recipe, micrographs()).unwrap();
    let out = trimtab()
        .arg("check")
        .arg(&recipe)
        .args(["--quick", "--set", "stage2.warmup_epochs=5"])
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(
        text.contains("\nWARN  horizons        stage 2:")
            && text.contains("\n                      --set stage2.warmup_epochs=1\n"),
        "{text}"
    );
    assert!(text.contains("\nSKIP  one-batch       no experiments"), "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.contains(" passed, 1 warning, 0 failed, ") && last.ends_with(" s"), "{last}");
    assert!(!text.contains('\x1b'));
}
