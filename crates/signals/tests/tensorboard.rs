//! TensorBoard's own reader reads what we write, across a resume.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use trimtab_signals::tensorboard::TensorBoardWriter;
use trimtab_signals::{Record, names};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens/tensorboard.py");

fn value(step: u64) -> f64 {
    1.0 / (1.0 + step as f64)
}

fn write(writer: &mut TensorBoardWriter, steps: std::ops::RangeInclusive<u64>, scale: f64) {
    for step in steps {
        let wall_time = 1_700_000_000.0 + step as f64;
        let mut record = Record::new(step, 0, 0.0).with(&names::LOSS_TOTAL, scale * value(step));
        record.push_group(&names::VAL_F1, "teacher", 0.5);
        writer.write_record(&record, wall_time).expect("write");
        writer.write_scalar(step, wall_time, "grad/norm", f64::NAN).expect("write");
    }
    writer.flush().expect("flush");
}

/// A Python that has the `tensorboard` package: `TRIMTAB_PYTHON`, else `python3`.
fn python() -> Option<String> {
    let python = std::env::var("TRIMTAB_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let import = Command::new(&python).args(["-c", "import tensorboard"]).output();
    import.is_ok_and(|output| output.status.success()).then_some(python)
}

fn read(python: &str, folder: &Path) -> Value {
    let output = Command::new(python).arg(SCRIPT).arg(folder).output().expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

#[test]
fn tensorboard_reads_a_run_that_was_resumed() {
    let run = tempfile::tempdir().expect("a temporary folder");
    let mut first = TensorBoardWriter::create(run.path()).expect("create");
    write(&mut first, 1..=300, 1.0);
    // Killed at 300, resumed from the checkpoint of step 250 within the same second.
    let mut second = TensorBoardWriter::resume(run.path(), 250).expect("resume");
    write(&mut second, 251..=270, 2.0);
    assert!(second.path().file_name() > first.path().file_name(), "read in the order written");

    let Some(python) = python() else {
        println!("skipped: no Python with the tensorboard package (set TRIMTAB_PYTHON)");
        return;
    };
    let scalars = read(&python, &run.path().join("tensorboard"));
    let column = scalars["loss/total"].as_array().expect("loss/total");
    assert_eq!(column.len(), 270, "steps 251 to 300 of the first file are forgotten");
    for (entry, step) in column.iter().zip(1_u64..) {
        let scale = if step > 250 { 2.0 } else { 1.0 };
        assert_eq!(entry["step"], step);
        assert_eq!(entry["wall_time"], 1_700_000_000.0 + step as f64);
        let expected = f64::from((scale * value(step)) as f32);
        assert_eq!(entry["value"].as_f64(), Some(expected), "step {step}");
    }
    assert_eq!(scalars["val/f1/teacher"][0]["value"], 0.5);
    assert_eq!(scalars["grad/norm"][0]["value"], "nan");
}
