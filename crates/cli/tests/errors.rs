//! A user's mistakes: one clear message with the place, exit code 2, no panic, nothing half-written.

mod common;

use std::path::{Path, PathBuf};

use common::{TINY, folder_recipe, recipe, synth, trimtab};

/// A folder of two generated micrographs with masks and coordinates, and a recipe that reads it.
fn folder(dir: &Path) -> (PathBuf, String) {
    let sim = dir.join("sim");
    synth(&sim, 3, "png");
    let recipe = folder_recipe(dir, &sim);
    (sim, recipe)
}

/// Runs a training that must fail with exit code 2, all of `wanted` on standard error and no run directory.
#[track_caller]
fn refused(dir: &Path, arguments: &[&str], wanted: &[&str]) {
    let run = dir.join("run");
    let out = trimtab().arg("train").args(arguments).arg("--out").arg(&run).output().unwrap();
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    for part in wanted {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    assert!(!run.exists(), "a run directory was left behind: {error}");
}

#[test]
fn settings_that_are_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = recipe(dir.path(), "");
    refused(dir.path(), &["nowhere.toml"], &["nowhere.toml", "cannot read"]);
    refused(dir.path(), &[&path, "--set", "stage1.epoch=3"], &["--set", "did you mean `stage1.epochs`?"]);
    refused(dir.path(), &[&path, "--set", "model.base=0"], &["`model.base`", "found 0"]);
    refused(dir.path(), &[&path, "--device", "tpu"], &["--device tpu: no such device", "cpu"]);
    refused(dir.path(), &[&path, "--device", "cuda:x"], &["`x` is not the number"]);
    refused(dir.path(), &["--resume"], &["not a run directory"]);
}

#[test]
fn folders_and_files_that_do_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let (sim, path) = folder(dir.path());
    let mask = sim.join("masks/micrograph_0000.png");
    let image = sim.join("micrographs/micrograph_0000.png");
    let (mask_bytes, image_bytes) = (std::fs::read(&mask).unwrap(), std::fs::read(&image).unwrap());

    refused(dir.path(), &[&path, "--set", "data.root=/no/such"], &["/no/such"]);
    std::fs::create_dir(sim.join("empty")).unwrap();
    refused(dir.path(), &[&path, "--set", "data.images=empty"], &["empty"]);
    std::fs::remove_file(&mask).unwrap();
    refused(dir.path(), &[&path], &["micrograph_0000"]);
    // Another size.
    let other = dir.path().join("other");
    trimtab()
        .args(["synth", "micrographs", "--count", "1", "--size", "80", "--diameter", "16", "--out"])
        .arg(&other)
        .assert()
        .success();
    std::fs::copy(other.join("masks/micrograph_0000.png"), &mask).unwrap();
    refused(dir.path(), &[&path], &["micrograph_0000.png", "64", "80"]);
    std::fs::write(&mask, &mask_bytes).unwrap();
    // A mask of the validation part that is damaged behind its header.
    std::fs::write(&mask, &mask_bytes).unwrap();
    let last = sim.join("masks/micrograph_0002.png");
    let last_bytes = std::fs::read(&last).unwrap();
    std::fs::write(&last, &last_bytes[..last_bytes.len() - 20]).unwrap();
    refused(dir.path(), &[&path], &["micrograph_0002.png", "PNG"]);
    std::fs::write(&last, &last_bytes).unwrap();
    // Truncated and corrupt.
    std::fs::write(&image, &image_bytes[..image_bytes.len() / 2]).unwrap();
    refused(dir.path(), &[&path], &["micrograph_0000.png", "PNG"]);
    std::fs::write(&image, b"not an image at all").unwrap();
    refused(dir.path(), &[&path], &["micrograph_0000.png"]);
    // Labels outside {-1, 0, 1}: a grey image is no mask.
    std::fs::write(&image, &image_bytes).unwrap();
    std::fs::write(&mask, &image_bytes).unwrap();
    refused(dir.path(), &[&path], &["micrograph_0000.png", "{-1, 0, 1}", "data.mask_threshold"]);
}

#[test]
fn damaged_scientific_files() {
    let dir = tempfile::tempdir().unwrap();
    let (sim, path) = folder(dir.path());
    let mrc = dir.path().join("mrc");
    synth(&mrc, 3, "mrc");
    let root = format!("data.root={}", mrc.display());
    let file = mrc.join("micrographs/micrograph_0001.mrc");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 7]).unwrap();
    refused(dir.path(), &[&path, "--set", &root], &["micrograph_0001.mrc", "MRC"]);
    std::fs::write(&file, &bytes).unwrap();

    let star = sim.join("coordinates/micrograph_0000.star");
    let text = std::fs::read_to_string(&star).unwrap();
    std::fs::write(&star, format!("{}\nmicrograph_0000.png 3.0\n", text.trim_end())).unwrap();
    let coordinates = [
        "--set",
        "data.masks=",
        "--set",
        "data.coordinates=coordinates",
        "--set",
        "data.particle_diameter=16",
    ];
    refused(dir.path(), &[&[path.as_str()], &coordinates[..]].concat(), &["micrograph_0000.star:", "STAR"]);

    let npz = dir.path().join("bad.npz");
    std::fs::write(&npz, b"PK\x03\x04 cut short").unwrap();
    let (head, tail) = TINY.split_once("[data.synth]").unwrap();
    let (_, tail) = tail.split_once("[evaluate]").unwrap();
    let recipe = dir.path().join("npz.toml");
    std::fs::write(
        &recipe,
        format!("{head}source = \"npz\"\ntrain = {npz:?}\nvalidation = {npz:?}\n[evaluate]{tail}"),
    )
    .unwrap();
    refused(dir.path(), &[recipe.to_str().unwrap()], &["bad.npz"]);
    // Readable, but without masks.
    let image = trimtab_data::Image::filled(64, 64, 1.0);
    let batch = trimtab_data::formats::NpzBatch { images: vec![image], masks: None };
    trimtab_data::formats::npz::write(&npz, &batch).unwrap();
    refused(dir.path(), &[recipe.to_str().unwrap()], &["bad.npz", "has no labels"]);
}

#[test]
fn a_run_that_is_used_damaged_or_of_other_settings() {
    let dir = tempfile::tempdir().unwrap();
    let path = recipe(dir.path(), "");
    let run = dir.path().join("done");
    trimtab().args(["train", "--no-check", &path, "--out"]).arg(&run).assert().success();
    let fails = |arguments: &[&str], wanted: &str| {
        let out = trimtab().args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{error}");
        assert!(error.contains(wanted) && !error.contains("panicked"), "`{wanted}` is not in: {error}");
    };
    let run_text = run.to_str().unwrap();
    fails(&["train", "--no-check", &path, "--out", run_text], "already");
    fails(
        &["train", "--no-check", &path, "--resume", "--set", "seed=3", "--out", run_text],
        "`seed` was 42, now 3",
    );
    fails(&["predict", run_text, "/no/such.png", "--out", run_text], "/no/such.png");
    fails(&["eval", dir.path().to_str().unwrap()], "not a run directory");
    let best = run.join("checkpoints/best.safetensors");
    let bytes = std::fs::read(&best).unwrap();
    std::fs::write(&best, &bytes[..bytes.len() - 9]).unwrap();
    fails(&["eval", run_text], "not a valid safetensors file");
}

#[test]
fn a_disk_that_is_full_ends_the_run_with_the_file_and_the_reason() {
    // /dev/full refuses every write as a full disk does.
    if !Path::new("/dev/full").exists() {
        eprintln!("skipped: there is no /dev/full");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = recipe(dir.path(), "");
    let run = dir.path().join("run");
    trimtab()
        .args(["train", "--no-check", &path, "--set", "stage1.epochs=1", "--out"])
        .arg(&run)
        .assert()
        .success();
    std::fs::remove_dir_all(run.join("checkpoints")).unwrap();
    std::fs::remove_file(run.join("signals.jsonl")).unwrap();
    std::os::unix::fs::symlink("/dev/full", run.join("signals.jsonl")).unwrap();
    let out = trimtab().args(["train", "--resume", "--out"]).arg(&run).output().unwrap();
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{error}");
    assert!(error.contains("signals.jsonl") && !error.contains("panicked"), "{error}");
}

#[test]
fn inspection_finds_the_defects_and_says_so_to_people_and_programs() {
    let dir = tempfile::tempdir().unwrap();
    let (sim, path) = folder(dir.path());
    trimtab()
        .args(["data", "inspect", &path])
        .assert()
        .success()
        .stdout(predicates::str::contains("0 errors"));
    // The validation image is also a training image; one mask is missing; one has a label of its own.
    std::fs::copy(sim.join("micrographs/micrograph_0000.png"), sim.join("micrographs/micrograph_0002.png"))
        .unwrap();
    std::fs::remove_file(sim.join("masks/micrograph_0001.png")).unwrap();
    let out = trimtab().args(["data", "inspect", &path, "--json"]).output().unwrap();
    assert_eq!(out.status.code(), Some(3));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let codes: Vec<&str> =
        report["problems"].as_array().unwrap().iter().map(|p| p["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"duplicate-across-splits") && codes.contains(&"missing-mask"), "{codes:?}");
}

#[test]
fn init_writes_a_recipe_that_trains_and_never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my.toml");
    trimtab().args(["init", "two-stage", "--out"]).arg(&file).assert().success();
    trimtab().args(["data", "inspect"]).arg(&file).assert().success();
    trimtab().args(["init", "two-stage", "--out"]).arg(&file).assert().code(2);
    trimtab()
        .args(["init", "three-stage"])
        .assert()
        .code(2)
        .stderr(predicates::str::contains("two-stage-demo"));
}
