//! A training that takes a second.

use std::path::Path;

use assert_cmd::Command;

/// The settings of a tiny run on generated micrographs.
pub const TINY: &str = r#"
recipe = "two-stage"
[data]
tile = 32
[data.synth]
count = 2
validation = 1
size = 64
particle_diameter = 16.0
[evaluate]
tile = 64
overlap = 16
[model]
base = 2
[run]
log_every = 2
checkpoint_every = 3
[stage1]
labelled_ratio = 0.3
epochs = 3
steps_per_epoch = 4
batch = 2
unlabelled_batch = 2
advance_when = ""
rampup_epochs = 2
[stage2]
labelled_ratio = 0.6
epochs = 3
steps_per_epoch = 4
batch = 2
unlabelled_batch = 2
accumulate = 2
learning_rate = 1e-3
warmup_epochs = 1
freeze_encoder_epochs = 1
rampup_epochs = 2
"#;

/// The program.
pub fn trimtab() -> Command {
    Command::cargo_bin("trimtab").unwrap()
}

/// Writes [`TINY`] and more into a folder; returns the file's path.
pub fn recipe(folder: &Path, more: &str) -> String {
    let path = folder.join("tiny.toml");
    std::fs::write(&path, format!("{TINY}{more}")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Writes a recipe like [`TINY`] that reads `root/micrographs` and `root/masks`; the last image is for validation.
pub fn folder_recipe(folder: &Path, root: &Path) -> String {
    let (head, tail) = TINY.split_once("[data.synth]").unwrap();
    let (_, tail) = tail.split_once("[evaluate]").unwrap();
    let data = format!("source = \"folder\"\nroot = {root:?}\nmasks = \"masks\"\nvalidation_last = 1\n");
    let path = folder.join("folder.toml");
    std::fs::write(&path, format!("{head}{data}[evaluate]{tail}")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Generates `count` micrographs of 64 x 64 pixels with masks and coordinates.
pub fn synth(root: &Path, count: usize, format: &str) {
    let count = count.to_string();
    trimtab()
        .args([
            "synth",
            "micrographs",
            "--count",
            &count,
            "--size",
            "64",
            "--diameter",
            "16",
            "--format",
            format,
            "--out",
        ])
        .arg(root)
        .assert()
        .success();
}
