//! The invariants of ARCHITECTURE.md that a program can check.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Direct dependencies (not those of tests) of each package of the workspace.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let out = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let named = packages.map(|package| {
        let all = package["dependencies"].as_array().unwrap().iter();
        let normal = all.filter(|d| d["kind"].is_null()).map(|d| d["name"].as_str().unwrap().to_owned());
        (package["name"].as_str().unwrap().to_owned(), normal.collect())
    });
    named.collect()
}

#[test]
fn crates_depend_in_one_direction_and_burn_stays_where_it_belongs() {
    let dependencies = dependencies();
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("trimtab-signals", &[][..]),
        ("trimtab-logs", &["trimtab-signals"]),
        ("trimtab-doctor", &["trimtab-signals"]),
        ("trimtab-metrics", &[]),
        ("trimtab-data", &[]),
        ("trimtab-kernels", &[]),
        ("trimtab-nn", &["trimtab-kernels"]),
        ("trimtab-train", &["trimtab-data", "trimtab-metrics", "trimtab-nn", "trimtab-signals"]),
        (
            "trimtab-guard",
            &["trimtab-data", "trimtab-doctor", "trimtab-logs", "trimtab-signals", "trimtab-train"],
        ),
        (
            "trimtab",
            &[
                "trimtab-data",
                "trimtab-doctor",
                "trimtab-guard",
                "trimtab-kernels",
                "trimtab-logs",
                "trimtab-metrics",
                "trimtab-signals",
                "trimtab-train",
            ],
        ),
        (
            "xtask",
            &[
                "trimtab-data",
                "trimtab-doctor",
                "trimtab-guard",
                "trimtab-kernels",
                "trimtab-logs",
                "trimtab-nn",
                "trimtab-signals",
                "trimtab-train",
            ],
        ),
    ]);
    for (package, own) in &dependencies {
        let allowed = allowed
            .get(package.as_str())
            .unwrap_or_else(|| panic!("{package} is not in ARCHITECTURE.md's map"));
        for other in own.iter().filter(|name| name.starts_with("trimtab")) {
            assert!(allowed.contains(&other.as_str()), "{package} must not depend on {other}");
        }
        let burn = own.contains("burn");
        let may = ["trimtab-kernels", "trimtab-nn", "trimtab-train", "xtask"].contains(&package.as_str());
        assert!(may || !burn, "{package} must not depend on Burn");
    }
}

#[test]
fn only_the_command_line_prints_or_exits() {
    let mut files = Vec::new();
    for name in ["signals", "logs", "doctor", "metrics", "data", "kernels", "nn", "train", "guard"] {
        collect(&root().join("crates").join(name).join("src"), &mut files);
    }
    assert!(files.len() > 40, "the sources were not found");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            for word in ["println!(", "eprintln!(", "print!(", "dbg!(", "process::exit"] {
                assert!(!line.contains(word), "{}:{}: {word}", file.display(), number + 1);
            }
        }
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}
