//! Reads the text logs of real runs, where they are at hand.

use std::path::{Path, PathBuf};

use trimtab_logs::open;
use trimtab_signals::{Column, Run};

fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("TRIMTAB_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    if folder.join("logs").is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no logs of real runs at {}", folder.display());
    None
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut pending) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { pending.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn show(run: &Run) {
    println!("=== {} ({})", run.name, run.format);
    for (name, column) in run.trace.iter() {
        let logged = run.logged_as.get(name).map_or(name, String::as_str);
        let (first, last) = (column.first().unwrap_or_default(), column.last().unwrap_or_default());
        println!("  {name} [{logged}] {} {first:?} -> {last:?} high {:?}", column.len(), column.highest());
    }
    println!("  epochs {:?} -> {:?}", run.trace.epochs().first(), run.trace.epochs().last());
    println!("  times {:?} -> {:?}", run.trace.times().first(), run.trace.times().last());
    for (key, value) in run.facts.iter() {
        println!("  . {key} = {value}");
    }
    for note in &run.notes {
        println!("  note: {note}");
    }
}

/// The format that a file of the collection should be given, by its path in it; `None` where it is another's.
fn expected(path: &str) -> Option<&'static str> {
    let inner = path.strip_prefix("logs/").or_else(|| path.strip_prefix("replay/"))?;
    let name = path.rsplit('/').next()?;
    if name == "SOURCE.txt" {
        return None;
    }
    let folder = inner.split('/').next()?;
    match folder {
        "mmseg_log" => Some("mmengine-log"),
        "detectron2_log" => Some("detectron2-log"),
        "nnunet_training_log" if name.ends_with(".txt") => Some("nnunet"),
        "gan_loss_log" => Some("pix2pix"),
        "plain_text_log" => Some("text"),
        "wandb_run" | "dev_logs" if name.ends_with(".log") => Some("text"),
        _ => None,
    }
}

fn read(path: &Path) -> Run {
    open(path).runs.into_iter().next().unwrap_or_else(|| panic!("{} was not read", path.display()))
}

/// The column with a name in the log.
fn logged<'a>(run: &'a Run, name: &str) -> &'a Column {
    let signal = run.logged_as.iter().find(|(_, logged)| *logged == name).map_or(name, |(signal, _)| signal);
    let names: Vec<&str> = run.trace.names().collect();
    run.trace.get(signal).unwrap_or_else(|| panic!("{}: no column {name} among {names:?}", run.name))
}

#[test]
fn each_file_is_given_the_format_that_it_has() {
    const OURS: [&str; 5] = ["text", "mmengine-log", "detectron2-log", "nnunet", "pix2pix"];
    let Some(shared) = shared() else { return };
    let mut read = 0;
    let folders = ["logs", "replay/dev_logs"].map(|folder| files(&shared.join(folder)));
    // The thousand tables of the benchmark are alike.
    let some_runs = files(&shared.join("replay/dev")).into_iter().take(40);
    for path in folders.into_iter().flatten().chain(some_runs) {
        let text = path.strip_prefix(&shared).expect("a file of it").to_string_lossy().replace('\\', "/");
        let opened = open(&path);
        let found = opened.runs.first().map(|run| run.format.as_str()).filter(|format| OURS.contains(format));
        assert!(opened.unreadable.iter().all(|u| !u.reason.contains("panic")), "{text}");
        assert_eq!(found, expected(&text), "{text}: {:?}", opened.unreadable);
        if let Some(run) = opened.runs.first().filter(|_| found.is_some()) {
            read += 1;
            if std::env::var_os("SHOW").is_some() {
                show(run);
            }
        }
    }
    println!("{read} files read");
}

#[test]
fn what_the_logs_are_known_to_show_is_found() {
    let Some(shared) = shared() else { return };
    let all = files(&shared.join("logs"));
    let find = |part: &str| {
        all.iter()
            .find(|path| path.to_string_lossy().contains(part))
            .map(|path| read(path))
            .unwrap_or_else(|| panic!("no {part}"))
    };
    // The index gives two or three digits.
    let near = |value: f64, expected: f64| (value - expected).abs() <= 0.015 * expected.abs() + 0.006;
    // File, logged name,  first, last, highest, length.
    for (part, name, first, last, highest, length) in [
        ("medical/training-logs/1case.log", "val/MeanDice", 12.2, 84.6, 85.4, 300),
        ("medical/training-logs/3cases.log", "val/MeanDice", 14.5, 88.8, 89.0, 300),
        ("medical/training-logs/7cases.log", "val/MeanDice", 4.0, 89.7, 90.0, 300),
        ("PSPNet/20%.log", "val/Changed IoU", 41.7, 75.0, 82.9, 80),
        ("COCO/1_256.log", "val/MeanIoU", 30.2, 35.5, 38.9, 27),
        ("ResNet-101/1_8.log", "val/MeanIoU", 43.1, 77.6, 77.9, 240),
        ("ResNet-101/92-run1.log", "val/meanIOU", 58.7, 74.8, 75.5, 80),
        ("ResNet-50/92.log", "val/MeanIoU", 53.1, 70.6, 71.9, 80),
        ("U2PL-Split-Size513/ResNet-101/1_4.log", "val/MeanIoU", 63.1, 80.4, 80.5, 80),
        ("20251020_205458-pypd7lzd/files/output.log", "Val Acc", 24.0, 77.1, 77.1, 50),
        ("20251020_205458-pypd7lzd/files/output.log", "Train Acc", 14.7, 99.5, 99.5, 50),
        ("20251020_205458-pypd7lzd/files/output.log", "Val Loss", 1.88, 1.54, 1.88, 50),
        ("20251020_210013-j49x533g/files/output.log", "Val Acc", 10.0, 38.6, 38.7, 50),
        ("20251020_234018-2v2ryroi/files/output.log", "Val Acc", 27.2, 48.3, 48.3, 5),
        ("20251021_000451-asdmkdpz/files/output.log", "Val Acc", 10.0, 10.0, 10.0, 5),
        ("20251021_000451-asdmkdpz/files/output.log", "Train Loss", 2.315, 2.303, 2.315, 5),
        ("20251021_003930-ds7parln/files/output.log", "Val Loss", 2.45, 2.34, 2.45, 5),
        ("20251021_004207-zoa8dt6v/files/output.log", "Val Loss", 2.61, 2.36, 2.61, 5),
        ("schedule_40000/20240419_142003/20240419_142003.log", "val/mIoU", 5.8, 18.3, 18.3, 10),
        ("schedule_40000/20240419_142003/20240419_142003.log", "loss", 0.90, 0.18, 1.03, 800),
        ("schedule_80000/20240419_203649/20240419_203649.log", "val/mIoU", 5.3, 19.6, 19.6, 10),
        ("resol_384_RED/schedule_40000/20240421_030212/20240421_030212.log", "val/mIoU", 0.0, 4.0, 4.4, 10),
        ("20240413_230002/20240413_230002.log", "val/mIoU", 7.2, 18.5, 18.5, 10),
        ("resol_192/20240419_134401/20240419_134401.log", "val/mIoU", 6.5, 10.4, 10.4, 10),
        ("resol_384/20240420_184859/20240420_184859.log", "val/mIoU", 7.66, 7.66, 7.66, 1),
        ("log_semi-supervised-to-supervised.txt", "val/bbox/AP", 25.2, 25.2, 25.2, 1),
        ("log_supervised_lr_0.004_warmup.txt", "val/bbox/AP", 0.01, 7.30, 7.41, 56),
        ("log_supervised_lr_0.004_warmup.txt", "total_loss", 156.1, 0.22, 156.1, 2097),
        ("log_supervised_lr_0.020.txt", "val/bbox/AP", 11.0, 14.2, 15.0, 16),
        ("log_supervised_lr_0.040.txt", "val/bbox/AP", 11.4, 15.2, 15.2, 30),
        ("50epochs__nnUNetPlans__3d_fullres/fold_0/training_log", "val/dice.0", 0.32, 0.90, 0.91, 50),
        ("50epochs__nnUNetPlans__3d_fullres/fold_0/training_log", "val_loss", -0.52, -0.85, -0.52, 50),
        ("50epochs__nnUNetPlans__3d_fullres/fold_2/training_log", "val/dice.1", 0.0, 0.88, 0.89, 50),
        ("50epochs__nnUNetPlans__3d_fullres/fold_3/training_log", "val/dice.0", 0.81, 0.90, 0.91, 50),
        ("50epochs__nnUNetPlans__3d_fullres/fold_4/training_log", "val/dice.1", 0.03, 0.88, 0.89, 50),
        ("result_of_extending-nnUnet/fold_0/training_log", "val/dice.0", 0.87, 0.95, 0.96, 42),
        ("result_of_extending-nnUnet/fold_0/training_log", "val/dice.2", 0.78, 0.88, 0.89, 42),
        ("loss_log.txt", "G_L1", 17.8, 0.82, 17.8, 96),
        ("loss_log.txt", "D_real", 0.105, 0.694, 0.83, 96),
    ] {
        let run = find(part);
        let column = logged(&run, name);
        let value = |measured: Option<(u64, f64)>| measured.map_or(f64::NAN, |(_, value)| value);
        let got = (value(column.first()), value(column.last()), value(column.highest()), column.len());
        let fits = near(got.0, first) && near(got.1, last) && near(got.2, highest) && got.3 == length;
        assert!(fits, "{part} {name}: {got:?}");
    }
}
