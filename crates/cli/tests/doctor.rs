//! `diagnose`, `watch`, `compare`, `explain` and `rules`, as a user runs them.

#[expect(dead_code, reason = "other tests need more of it")]
mod common;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use serde_json::Value;

fn trimtab(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("trimtab").unwrap();
    command.args(args);
    command
}

fn json(args: &[&str], code: i32) -> Value {
    let out = trimtab(args).assert().code(code).get_output().stdout.clone();
    serde_json::from_slice(&out).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out)))
}

/// A Lightning run: the loss falls, then is NaN from `broken` on.
fn lightning(folder: &Path, broken: usize) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let mut text = "epoch,step,train_loss,val_loss,val_acc\n".to_owned();
    for epoch in 0..20 {
        let loss = if epoch >= broken { f64::NAN } else { 2.0 / (epoch as f64 + 1.0) };
        let shown = if loss.is_nan() { "nan".to_owned() } else { format!("{loss:.5}") };
        let step = epoch * 10 + 9;
        let accuracy = 0.2 + 0.035 * epoch.min(broken) as f64 + 0.001 * (epoch % 3) as f64;
        writeln!(text, "{epoch},{step},{shown},,\n{epoch},{step},,{shown},{accuracy:.4}").unwrap();
    }
    let path = folder.join("metrics.csv");
    fs::write(&path, text).unwrap();
    fs::write(folder.join("hparams.yaml"), "lr: 0.5\nbatch_size: 8\n").unwrap();
    path
}

#[test]
fn a_sick_run_is_named_with_its_cause_and_exits_with_3() {
    let folder = tempfile::tempdir().unwrap();
    let path = lightning(folder.path(), 10);
    let found = json(&["diagnose", path.to_str().unwrap(), "--json"], 3);
    assert_eq!(found["format"], "lightning-csv");
    assert_eq!(found["steps"], 199);
    assert!(found["signals"].as_array().unwrap().iter().any(|s| s == "val/accuracy"), "{found}");
    let finding = &found["findings"][0];
    for key in ["rule", "severity", "step", "first_step", "last_step", "message", "evidence", "remedies"] {
        assert!(finding.get(key).is_some(), "{key}: {finding}");
    }
    assert_eq!(
        (finding["rule"].as_str(), finding["severity"].as_str()),
        (Some("non-finite-loss"), Some("critical"))
    );
    assert_eq!(finding["first_step"], 109);
    for key in ["key", "op", "value", "why"] {
        assert!(finding["remedies"][0].get(key).is_some(), "{key}");
    }
    for key in ["cause", "confidence", "explains", "experiment"] {
        assert!(found["causes"][0].get(key).is_some(), "{key}");
    }
    assert!(found["not_applicable"][0]["needs"][0].is_string());
    let text = trimtab(&["diagnose", path.to_str().unwrap()]).assert().code(3).get_output().stdout.clone();
    let text = String::from_utf8(text).unwrap();
    // Cause first, then the evidence, then what to do.
    let (cause, rule, remedy) = (text.find("CRITICAL"), text.find("non-finite-loss"), text.find("try"));
    assert!(cause < rule && rule < remedy && cause.is_some(), "{text}");
}

#[test]
fn a_healthy_run_exits_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let path = lightning(folder.path(), 99);
    let found = json(&["diagnose", path.to_str().unwrap(), "--json"], 0);
    let loud = found["findings"].as_array().unwrap().iter().any(|f| f["severity"] != "info");
    assert!(!loud, "{found}");
    trimtab(&["diagnose", path.to_str().unwrap()]).assert().success().stdout(predicates::str::contains("ok"));
}

#[test]
fn a_tree_of_runs_gives_a_list_and_a_table() {
    let folder = tempfile::tempdir().unwrap();
    lightning(&folder.path().join("a/version_0"), 10);
    lightning(&folder.path().join("b/version_0"), 99);
    let root = folder.path().to_str().unwrap();
    let found = json(&["diagnose", root, "--json"], 3);
    assert_eq!(found["runs"].as_array().unwrap().len(), 2);
    let text = trimtab(&["diagnose", root]).assert().code(3).get_output().stdout.clone();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("ok        b/version_0") && text.contains("critical  a/version_0"), "{text}");
    let text = trimtab(&["diagnose", root, "--format", "md"]).assert().code(3).get_output().stdout.clone();
    assert!(String::from_utf8(text).unwrap().starts_with("# Diagnosis\n"));
}

#[test]
fn nothing_readable_exits_with_2_and_says_what_was_tried() {
    let folder = tempfile::tempdir().unwrap();
    let rubbish = folder.path().join("x.log");
    fs::write(&rubbish, [0u8, 159, 146, 150, 1, 2, 3]).unwrap();
    let run = |path: &Path| {
        let out = trimtab(&["diagnose", path.to_str().unwrap(), "--json"])
            .assert()
            .code(2)
            .get_output()
            .stderr
            .clone();
        String::from_utf8(out).unwrap()
    };
    assert!(run(&rubbish).contains("x.log"));
    assert!(run(&folder.path().join("absent")).contains("no such file"));
    assert!(run(folder.path()).contains("formats tried"));
}

#[test]
fn a_single_run_tells_of_the_files_that_were_not_read() {
    let folder = tempfile::tempdir().unwrap();
    lightning(&folder.path().join("a"), 99);
    let torn = folder.path().join("torn.zip");
    fs::write(&torn, b"PK\x03\x04").unwrap();
    let root = folder.path().to_str().unwrap();
    let found = json(&["diagnose", root, "--json"], 0);
    assert_eq!(found["format"], "lightning-csv");
    assert_eq!(found["unreadable"].as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(found["unreadable"][0]["path"], torn.to_str().unwrap());
    fs::remove_file(&torn).unwrap();
    assert!(json(&["diagnose", root, "--json"], 0).get("unreadable").is_none());
}

#[cfg(unix)]
#[test]
fn names_of_other_people_neither_steer_the_terminal_nor_break_the_output() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let odd = |name: &[u8]| folder.path().join(std::ffi::OsStr::from_bytes(name));
    let path = lightning(&odd(b"a\x1b[31m\x07"), 10);
    let text = fs::read_to_string(&path).unwrap().replacen("val_acc", "acc\u{1b}[2J\u{9b}", 1);
    fs::write(path, text).unwrap();
    lightning(&odd(b"b"), 10);
    fs::write(odd(b"\xff\x1b.zip"), b"PK\x03\x04").unwrap();
    let root = folder.path().to_str().unwrap();
    for args in
        [&["diagnose", root, "-v"][..], &["diagnose", root, "--json"], &["diagnose", root, "--format", "md"]]
    {
        let out = trimtab(args).assert().code(3).get_output().clone();
        for bytes in [out.stdout, out.stderr] {
            let text = String::from_utf8(bytes).unwrap();
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{args:?}: {text:?}");
        }
    }
    let found = json(&["diagnose", root, "--json"], 3);
    assert_eq!(found["unreadable"].as_array().map(Vec::len), Some(1), "{found}");
    assert!(found["runs"][0]["run"].as_str().unwrap().contains("a\u{fffd}[31m\u{fffd}"), "{found}");
}

#[test]
fn packed_logs_and_logs_in_utf_16_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(lightning(folder.path(), 10)).unwrap();
    let wide = folder.path().join("wide/metrics.csv");
    fs::create_dir(wide.parent().unwrap()).unwrap();
    let bytes: Vec<u8> = [0xfeffu16]
        .into_iter()
        .chain(text.replace('\n', "\r\n").encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    fs::write(&wide, bytes).unwrap();
    let found = json(&["diagnose", wide.to_str().unwrap(), "--json"], 3);
    assert_eq!(found["findings"][0]["first_step"], 109);
}

#[test]
fn a_pattern_reads_what_no_template_knows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.log");
    let mut text = String::new();
    for epoch in 0..12 {
        let score = if epoch < 6 { 0.1 * f64::from(epoch) } else { 0.02 };
        writeln!(text, "<<{epoch}>> [[{score:.3}]]").unwrap();
    }
    fs::write(&path, text).unwrap();
    let pattern = r"<<(?P<epoch>\d+)>> \[\[(?P<val_dice>[^\]]+)\]\]";
    let found = json(&["diagnose", path.to_str().unwrap(), "--json", "--pattern", pattern], 3);
    assert_eq!(found["findings"][0]["rule"], "metric-collapse", "{found}");
    trimtab(&["diagnose", path.to_str().unwrap(), "--pattern", "(?P<loss>"])
        .assert()
        .code(2)
        .stderr(predicates::str::contains("pattern"));
    trimtab(&["diagnose", path.to_str().unwrap(), "--pattern", "x"])
        .assert()
        .code(2)
        .stderr(predicates::str::contains("named group"));
}

#[test]
fn the_configuration_is_used_and_its_mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = lightning(folder.path(), 10);
    let config = folder.path().join("doctor.toml");
    let run = |text: &str| {
        fs::write(&config, text).unwrap();
        trimtab(&["diagnose", path.to_str().unwrap(), "--json", "--config", config.to_str().unwrap()])
            .assert()
    };
    // A reference run: 2.5e-4 for 8 samples; here 0.5 for 8.
    let out = run(
        "disabled = [\"non-finite-loss\"]\n[facts]\n\"reference.learning_rate\" = 2.5e-4\n\"reference.batch_size\" = 8\n",
    );
    let found: Value = serde_json::from_slice(&out.get_output().stdout).unwrap();
    let rules: Vec<&str> =
        found["findings"].as_array().unwrap().iter().map(|f| f["rule"].as_str().unwrap()).collect();
    assert!(rules.contains(&"rate-too-high") && !rules.contains(&"non-finite-loss"), "{rules:?}");
    for (text, expected) in [
        ("metrc = 'x'\n", "metrc"),
        ("disabled = [\"plato\"]\n", "did you mean `plateau`?"),
        ("[facts]\n\"optim.learning_rat\" = 1\n", "did you mean `optim.learning_rate`?"),
        ("chance = 'high'\n", "doctor.toml"),
        ("chance = nan\n", "`chance` takes a finite number"),
        ("[facts]\n\"optim.learning_rate\" = 'high'\n", "`optim.learning_rate` takes a finite number"),
        ("[facts]\n\"optim.learning_rate.head\" = inf\n", "`optim.learning_rate.head` takes a finite number"),
        ("[facts]\n\"data.classes\" = -2\n", "`data.classes` takes a whole number"),
        ("[facts]\n\"data.classes\" = 2.5\n", "`data.classes` takes a whole number"),
        ("[facts]\n\"data.class_counts\" = [1, 'x']\n", "`data.class_counts` takes a list of finite numbers"),
        ("[facts]\n\"data.class_counts\" = 3\n", "`data.class_counts` takes a list of finite numbers"),
        ("[facts]\n\"ema.warmup\" = 1\n", "`ema.warmup` takes true or false"),
        ("[facts]\n\"optim.name\" = 1\n", "`optim.name` takes a text"),
    ] {
        let error = String::from_utf8(run(text).code(2).get_output().stderr.clone()).unwrap();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn watch_tells_within_two_looks_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let (log, told) = (folder.path().join("train.log"), folder.path().join("told"));
    let every = Duration::from_millis(300);
    let hook = format!("echo \"$TRIMTAB_RULE $TRIMTAB_SEVERITY $TRIMTAB_STEP\" >> {}", told.display());
    let writer = {
        let log = log.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(400));
            let mut file = fs::File::create(&log).unwrap();
            let mut broken = Instant::now();
            for epoch in 0..40 {
                if epoch == 12 {
                    broken = Instant::now();
                }
                let loss =
                    if epoch < 12 { format!("{:.4}", 1.0 / f64::from(epoch + 1)) } else { "nan".to_owned() };
                // In two writes: a reader may see half a line.
                write!(file, "Epoch {epoch}/100 loss: ").unwrap();
                std::thread::sleep(Duration::from_millis(10));
                writeln!(file, "{loss} val_dice: 0.{}", 40 + epoch).unwrap();
                std::thread::sleep(Duration::from_millis(40));
            }
            broken
        })
    };
    let args = ["watch", log.to_str().unwrap(), "--every", "300ms", "--stop", "--on", "critical", &hook];
    let out = trimtab(&args).timeout(Duration::from_secs(60)).assert().code(3);
    let done = Instant::now();
    let text = String::from_utf8(out.get_output().stdout.clone()).unwrap();
    assert!(text.contains("waiting for") && text.contains("critical  non-finite-loss"), "{text}");
    assert_eq!(text.matches("watching ").count(), 1, "{text}");
    let broken = writer.join().unwrap();
    // Two looks, and room for a busy machine to start the hook.
    assert!(done - broken < every * 2 + Duration::from_secs(2), "{:?}", done - broken);
    assert_eq!(fs::read_to_string(told).unwrap(), "non-finite-loss critical 12\n");
}

#[test]
fn watch_follows_a_log_that_is_cut_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = lightning(folder.path(), 10);
    let file = path.to_str().unwrap().to_owned();
    let healthy = folder.path().to_owned();
    let swap = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        fs::write(healthy.join("metrics.csv"), "").unwrap();
        std::thread::sleep(Duration::from_millis(400));
        lightning(&healthy, 99);
    });
    let out = trimtab(&["watch", &file, "--every", "200ms", "--looks", "12"])
        .timeout(Duration::from_secs(60))
        .assert()
        .code(0);
    swap.join().unwrap();
    let text = String::from_utf8(out.get_output().stdout.clone()).unwrap();
    assert!(
        text.contains("critical  non-finite-loss") && text.contains("gone      non-finite-loss"),
        "{text}"
    );
    trimtab(&["watch", &file, "--every", "0s"])
        .assert()
        .code(2)
        .stderr(predicates::str::contains("between 10ms and a year"));
    trimtab(&["watch", &file, "--every", "9999999999999999999s"])
        .assert()
        .code(2)
        .stderr(predicates::str::contains("between 10ms and a year"));
    trimtab(&["watch", &file, "--on", "fatal", "x"])
        .assert()
        .code(2)
        .stderr(predicates::str::contains("warning or critical"));
}

#[test]
fn watch_tells_once_of_a_log_that_is_written_anew_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = lightning(folder.path(), 10);
    let file = path.to_str().unwrap().to_owned();
    let whole = fs::read_to_string(&path).unwrap();
    let healthy: Vec<&str> = whole.lines().take(13).collect();
    let torn = healthy.join("\n") + "\n";
    let writer = std::thread::spawn(move || {
        for _ in 0..6 {
            // Torn for less than the time between two looks, at another phase each time.
            std::thread::sleep(Duration::from_millis(450));
            fs::write(&path, &torn).unwrap();
            std::thread::sleep(Duration::from_millis(150));
            fs::write(&path, &whole).unwrap();
        }
    });
    let args = ["watch", &file, "--every", "250ms", "--looks", "15", "--on", "critical", "echo hooked"];
    let out = trimtab(&args).timeout(Duration::from_secs(60)).assert().code(0);
    writer.join().unwrap();
    let text = String::from_utf8(out.get_output().stdout.clone()).unwrap();
    assert_eq!(text.matches("critical  non-finite-loss").count(), 1, "{text}");
    assert!(!text.contains("gone      non-finite-loss"), "{text}");
}

#[cfg(unix)]
#[test]
fn watch_does_not_wait_for_what_cannot_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let watch = |path: &Path| {
        let args = ["watch", path.to_str().unwrap(), "--every", "50ms", "--looks", "4"];
        trimtab(&args).timeout(Duration::from_secs(60)).assert()
    };
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    watch(&pipe).code(2).stderr(predicates::str::contains("pipe: neither a file nor a folder"));
    watch(Path::new("/dev/zero")).code(2);

    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    // Nothing is closed to root.
    if fs::read_dir(&closed).is_err() {
        watch(&closed).code(2).stderr(predicates::str::contains("closed: "));
    }

    // May become a log: waited for, with the reason told once.
    let rubbish = folder.path().join("rubbish.bin");
    fs::write(&rubbish, [0u8, 159, 146, 150, 1, 2, 3]).unwrap();
    let out = watch(&rubbish).code(0).get_output().stderr.clone();
    let told = String::from_utf8(out).unwrap();
    assert_eq!(told.matches("not read: ").count(), 1, "{told}");
}

#[test]
fn watch_names_the_run_where_there_are_several_and_keeps_json_clean() {
    let folder = tempfile::tempdir().unwrap();
    lightning(&folder.path().join("a"), 10);
    lightning(&folder.path().join("b"), 99);
    let root = folder.path().to_str().unwrap();
    let args = ["watch", root, "--every", "10ms", "--looks", "3", "--on", "critical", "echo hooked"];
    let run = |more: &[&str]| {
        let out = trimtab(&args).args(more).timeout(Duration::from_secs(60)).assert().code(0);
        let out = out.get_output();
        (String::from_utf8(out.stdout.clone()).unwrap(), String::from_utf8(out.stderr.clone()).unwrap())
    };
    let (text, _) = run(&[]);
    assert_eq!(text.matches("watching ").count(), 2, "{text}");
    let line = text.lines().find(|line| line.contains("non-finite-loss")).unwrap();
    assert!(line.contains("/a") && line.contains("  critical  "), "{line}");
    let (lines, errors) = run(&["--json"]);
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{lines}");
    assert!(errors.contains("hooked"), "{errors}");
}

#[test]
fn compare_shows_the_rate_per_sample_and_where_curves_part() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, lr: f64, batch: u32, scores: &[f64]| {
        let path = folder.path().join(name);
        let mut text = format!("lr: {lr}\nbatch_size: {batch}\n");
        for (epoch, score) in scores.iter().enumerate() {
            writeln!(text, "Epoch {}/30 - loss: {:.4} - val_iou: {score}", epoch + 1, 1.0 - score).unwrap();
        }
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = write("good.log", 2.5e-4, 8, &[0.1091, 0.2, 0.4243, 0.45, 0.47, 0.4865, 0.5, 0.52]);
    let bad = write("bad.log", 1e-4, 128, &[0.1094, 0.0188, 0.0111, 0.02, 0.03, 0.05, 0.09, 0.11]);
    let found = json(&["compare", &good, &bad, "--json"], 0);
    assert!((found["rate"]["factor"].as_f64().unwrap() - 40.0).abs() < 1e-9, "{found}");
    let iou = found["columns"].as_array().unwrap().iter().find(|c| c["name"] == "val/iou").unwrap();
    assert_eq!(iou["from"], 1, "{found}");
    trimtab(&["compare", &good, &bad]).assert().success().stdout(predicates::str::contains("40.0x smaller"));
    trimtab(&["compare", &good, "absent"])
        .assert()
        .code(2)
        .stderr(predicates::str::contains("absent: no such file"));
}

#[test]
fn rules_are_listed_and_explained() {
    let found = json(&["rules", "--json"], 0);
    let rules = found["rules"].as_array().unwrap();
    assert!(rules.len() >= 40, "{}", rules.len());
    for rule in rules {
        let id = rule["rule"].as_str().unwrap();
        trimtab(&["explain", id])
            .assert()
            .success()
            .stdout(predicates::str::starts_with(format!("# {id}\n")));
    }
    trimtab(&["explain", "platau"])
        .assert()
        .code(2)
        .stderr(predicates::str::contains("did you mean `plateau`?"));
}

/// The program's own runs read as well.
#[test]
fn a_run_of_our_own_is_diagnosed() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let recipe = common::recipe(folder.path(), "");
    let out = run.to_str().unwrap();
    trimtab(&["train", "--no-check", &recipe, "--out", out, "--json"]).assert().success();
    let found: Value =
        serde_json::from_slice(&trimtab(&["diagnose", out, "--json"]).assert().get_output().stdout).unwrap();
    assert_eq!(found["format"], "trimtab");
    let signals = found["signals"].as_array().unwrap();
    assert!(signals.iter().any(|s| s == "val/f1") && signals.iter().any(|s| s == "ema/decay"), "{signals:?}");
    assert!(found["unmapped"].as_array().unwrap().is_empty(), "{}", found["unmapped"]);
}
