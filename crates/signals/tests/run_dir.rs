//! Writing, killing, resuming and reading run directories.

use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use proptest::prelude::*;
use serde_json::json;
use tempfile::{TempDir, tempdir};
use trimtab_signals::{
    Error, Event, MetricSummary, Record, RunInfo, RunReader, RunWriter, Status, Summary, names,
};

fn folder() -> (TempDir, PathBuf) {
    let folder = tempdir().expect("a temporary folder");
    let run = folder.path().join("runs").join("demo");
    (folder, run)
}

fn record(step: u64) -> Record {
    Record::new(step, step / 10, step as f64 * 0.5).with(&names::LOSS_TOTAL, 1.0 / step as f64)
}

fn event(step: u64, kind: &str) -> Event {
    Event { step, kind: kind.to_owned(), message: format!("{kind} at {step}"), ..Event::default() }
}

fn run_of(path: &Path, steps: std::ops::RangeInclusive<u64>) -> RunWriter {
    let mut run = RunWriter::create(path).expect("new");
    for step in steps {
        run.record(&record(step)).expect("write");
        run.event(&event(step, "checkpoint")).expect("write");
    }
    run
}

fn read(path: &Path) -> Vec<Record> {
    let records = RunReader::open(path).expect("a run").records().expect("open");
    records.collect::<Result<_, _>>().expect("readable")
}

#[test]
fn a_used_directory_is_not_overwritten() {
    let (_folder, path) = folder();
    drop(run_of(&path, 1..=1));
    let error = RunWriter::create(&path).expect_err("used");
    assert!(matches!(error, Error::AlreadyUsed { .. }));
    let message = error.to_string();
    assert!(message.contains("already used") && message.contains("resume"), "{message}");
    assert_eq!(read(&path), [record(1)]);
}

#[test]
fn an_empty_directory_may_be_used() {
    let (_folder, path) = folder();
    fs::create_dir_all(&path).expect("mkdir");
    RunWriter::create(&path).expect("empty");
}

#[test]
fn lines_are_the_documented_json() {
    let (_folder, path) = folder();
    let mut run = RunWriter::create(&path).expect("new");
    let mut record = Record::new(7, 1, 2.5)
        .with(&names::LOSS_TOTAL, 0.1)
        .with(&names::GRAD_NORM, f64::NAN)
        .with(&names::LOSS_BCE, f64::INFINITY)
        .with(&names::LOSS_DICE, f64::NEG_INFINITY);
    record.push_group(&names::OPTIM_LEARNING_RATE, "head", 1e-7);
    run.record(&record).expect("write");
    run.event(&Event { data: json!({"from": 3}), ..event(7, "rollback") }).expect("write");
    run.event(&event(8, "stop")).expect("write");
    assert_eq!(
        fs::read_to_string(path.join("signals.jsonl")).expect("read"),
        "{\"step\":7,\"epoch\":1,\"time\":2.5,\"loss/total\":0.1,\"grad/norm\":NaN,\
         \"loss/bce\":Infinity,\"loss/dice\":-Infinity,\"optim/learning_rate/head\":1e-7}\n"
    );
    assert_eq!(
        fs::read_to_string(path.join("events.jsonl")).expect("read"),
        "{\"step\":7,\"epoch\":0,\"time\":0.0,\"kind\":\"rollback\",\"message\":\"rollback at 7\",\
         \"data\":{\"from\":3}}\n\
         {\"step\":8,\"epoch\":0,\"time\":0.0,\"kind\":\"stop\",\"message\":\"stop at 8\"}\n"
    );
}

#[test]
fn ambiguous_records_are_refused() {
    let (_folder, path) = folder();
    let mut run = RunWriter::create(&path).expect("new");
    let twice = record(1).with(&names::LOSS_TOTAL, 2.0);
    let mut reserved = record(2);
    reserved.values.push(("time".to_owned(), 1.0));
    for record in [twice, reserved] {
        assert!(matches!(run.record(&record), Err(Error::Record { .. })));
    }
    assert_eq!(read(&path), []);
}

#[test]
fn resuming_drops_what_came_after_the_checkpoint() {
    let (_folder, path) = folder();
    let run = run_of(&path, 1..=9);
    run.write_summary(&summary()).expect("write");
    drop(run);
    let mut run = RunWriter::resume(&path, 6).expect("resume");
    let resumed = *run.resumed().expect("resumed");
    assert_eq!((resumed.last_step, resumed.last_time), (Some(6), 3.0));
    assert_eq!((resumed.later, resumed.unreadable), (6, 0));
    run.record(&record(7)).expect("write");
    assert_eq!(read(&path), (1..=7).map(record).collect::<Vec<_>>());
    let reader = RunReader::open(&path).expect("a run");
    assert_eq!(reader.events().expect("open").count(), 6);
    assert_eq!(reader.summary().expect("readable"), None, "the run has not ended");
    let hidden = fs::read_dir(&path)
        .expect("list")
        .filter(|entry| entry.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().starts_with('.')))
        .count();
    assert_eq!(hidden, 0, "no temporary file is left");
}

#[test]
fn a_torn_last_line_is_dropped_on_resume_and_passed_over_on_reading() {
    let whole: String = {
        let (_folder, path) = folder();
        drop(run_of(&path, 1..=3));
        fs::read_to_string(path.join("signals.jsonl")).expect("read")
    };
    let second_ends = whole.match_indices('\n').nth(1).expect("two lines").0 + 1;
    // Killed after each byte of the third line.
    for cut in second_ends..=whole.len() {
        let (_folder, path) = folder();
        drop(run_of(&path, 1..=3));
        fs::write(path.join("signals.jsonl"), &whole[..cut]).expect("write");
        // Only the line feed is missing: the record is whole.
        let complete = cut + 1 >= whole.len();
        let kept = if complete { 3 } else { 2 };
        assert_eq!(read(&path).len(), kept, "cut at {cut}");
        let mut run = RunWriter::resume(&path, 3).expect("resume");
        run.record(&record(4)).expect("write");
        let mut expected: Vec<Record> = (1..=kept as u64).map(record).collect();
        expected.push(record(4));
        assert_eq!(read(&path), expected, "cut at {cut}");
    }
}

#[test]
fn resuming_what_is_not_a_run_says_so() {
    let (folder, path) = folder();
    assert!(matches!(RunWriter::resume(&path, 1), Err(Error::NotARun { .. })));
    assert!(matches!(RunReader::open(folder.path()), Err(Error::NotARun { .. })));
}

#[test]
fn resuming_twice_is_resuming_once() {
    let (_folder, path) = folder();
    drop(run_of(&path, 1..=9));
    drop(RunWriter::resume(&path, 5).expect("resume"));
    let once = fs::read(path.join("signals.jsonl")).expect("read");
    drop(RunWriter::resume(&path, 5).expect("resume"));
    assert_eq!(fs::read(path.join("signals.jsonl")).expect("read"), once);
}

#[test]
fn foreign_and_future_lines_are_read() {
    let (_folder, path) = folder();
    fs::create_dir_all(&path).expect("mkdir");
    fs::write(
        path.join("signals.jsonl"),
        concat!(
            "{\"step\": 1.0, \"a/b\": 1, \"note\": \"hello\", \"future\": {\"x\": [NaN]}}\r\n",
            "\n",
            "{\"a/b\": null, \"a/c\": \"NaN\", \"time\": 3, \"step\": 2}\n",
        ),
    )
    .expect("write");
    let records = read(&path);
    assert_eq!(records[0].values, [("a/b".to_owned(), 1.0)]);
    assert!(records[0].time.is_nan());
    assert_eq!((records[1].step, records[1].time), (2, 3.0));
    assert!(records[1].get("a/b").is_some_and(f64::is_nan), "null is an undefined measurement");
    assert!(records[1].get("a/c").is_some_and(f64::is_nan));
    assert_eq!(records[1].get("a/d"), None);
}

#[test]
fn an_unreadable_line_is_named_and_the_rest_is_read() {
    let (_folder, path) = folder();
    fs::create_dir_all(&path).expect("mkdir");
    fs::write(
        path.join("signals.jsonl"),
        "{\"step\":1,\"a/b\":1}\n{\"step\":-2}\n[]\n{\"a/b\":1}\n{\"step\":3,\"a/b\":3}\n",
    )
    .expect("write");
    let reader = RunReader::open(&path).expect("a run");
    let (trace, errors) = reader.trace_lossy().expect("open");
    assert_eq!(trace.get("a/b").expect("logged").steps(), [1, 3]);
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let name = path.join("signals.jsonl");
    assert_eq!(
        shown,
        [
            format!("{}:2: `step` is -2, not a whole number", name.display()),
            format!("{}:3: expected a JSON object", name.display()),
            format!("{}:4: `step` is missing", name.display()),
        ]
    );
    assert!(reader.trace().is_err());
}

fn summary() -> Summary {
    Summary {
        status: Status::Finished,
        reason: None,
        steps: 20,
        wall_seconds: Some(4.5),
        steps_per_second: None,
        metrics: IndexMap::from([
            (
                "val/f1".to_owned(),
                MetricSummary {
                    best: Some(0.75),
                    best_step: Some(10),
                    last: Some(f64::NAN),
                    floor: Some(0.5),
                },
            ),
            ("val/auc".to_owned(), MetricSummary::default()),
        ]),
    }
}

#[test]
fn the_summary_is_the_documented_json() {
    let (_folder, path) = folder();
    let run = RunWriter::create(&path).expect("new");
    run.write_summary(&summary()).expect("write");
    let text = fs::read_to_string(path.join("summary.json")).expect("read");
    let compact: String = text.split_whitespace().collect();
    assert_eq!(
        compact,
        "{\"status\":\"finished\",\"steps\":20,\"wall_seconds\":4.5,\"steps_per_second\":null,\
         \"metrics\":{\"val/f1\":{\"best\":0.75,\"best_step\":10,\"last\":null,\"floor\":0.5},\
         \"val/auc\":{\"best\":null,\"best_step\":null,\"last\":null,\"floor\":null}}}"
    );
    let read = RunReader::open(&path).expect("a run").summary().expect("readable");
    let mut expected = summary();
    expected.metrics["val/f1"].last = None;
    assert_eq!(read, Some(expected));
}

#[test]
fn documents_read_back_and_keep_their_order() {
    let (_folder, path) = folder();
    let run = RunWriter::create(&path).expect("new");
    let info = RunInfo {
        version: "0.1.0".to_owned(),
        recipe: "mean-teacher".to_owned(),
        device: "cpu".to_owned(),
        seed: u64::MAX,
        threads: 2,
        class_counts: IndexMap::from([("1".to_owned(), 3), ("0".to_owned(), 9)]),
        parameter_counts: IndexMap::from([("head".to_owned(), 4098), ("backbone".to_owned(), 46_155_072)]),
        steps_planned: 100,
        started_at: "2026-01-02T03:04:05Z".to_owned(),
        ..RunInfo::default()
    };
    run.write_run_json(&info).expect("write");
    run.write_config("seed = 1 # default\n").expect("write");
    let reader = RunReader::open(&path).expect("a run");
    assert_eq!(reader.info().expect("readable"), Some(info));
    assert_eq!(reader.config().expect("readable").as_deref(), Some("seed = 1 # default\n"));
    let text = fs::read_to_string(path.join("run.json")).expect("read");
    assert!(text.find("head").expect("head") < text.find("backbone").expect("backbone"));
    fs::write(path.join("run.json"), "{\"version\": 3}").expect("write");
    let error = reader.info().expect_err("not a run.json");
    assert!(error.to_string().contains("run.json"));
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(-0.0),
        -1.0..1.0,
    ]
}

/// Equal to the bit, except that all `NaN` are one.
fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_record_reads_back(
        step in any::<u64>(),
        epoch in any::<u64>(),
        time in value(),
        values in prop::collection::btree_map(".{0,12}", value(), 0..12),
    ) {
        let (_folder, path) = folder();
        let written = Record {
            step,
            epoch,
            time,
            values: values
                .into_iter()
                .filter(|(name, _)| !names::RESERVED.contains(&name.as_str()))
                .collect(),
        };
        RunWriter::create(&path).unwrap().record(&written).unwrap();
        let back = read(&path);
        prop_assert_eq!(back.len(), 1);
        prop_assert_eq!((back[0].step, back[0].epoch), (step, epoch));
        prop_assert!(same(back[0].time, time));
        prop_assert_eq!(back[0].values.len(), written.values.len());
        for ((name, value), (back_name, back_value)) in written.values.iter().zip(&back[0].values) {
            prop_assert_eq!(name, back_name);
            prop_assert!(same(*value, *back_value), "{} became {}", value, back_value);
        }
    }

    #[test]
    fn every_event_reads_back(step in any::<u64>(), kind in ".{0,8}", message in ".{0,40}", x in -1.0..1.0) {
        let (_folder, path) = folder();
        let written = Event { step, epoch: 3, time: 0.5, kind, message, data: json!({"x": x, "y": ["NaN"]}) };
        RunWriter::create(&path).unwrap().event(&written).unwrap();
        let back: Vec<Event> =
            RunReader::open(&path).unwrap().events().unwrap().collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(back, [written]);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        // Bytes that JSON lines are made of, which get further.
        prop::collection::vec(prop::sample::select(b"{}[]\",:-0123456789.eE\\/\nNaInfityu step".to_vec()), 0..300),
    ]) {
        let (_folder, path) = folder();
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("signals.jsonl"), &bytes).unwrap();
        fs::write(path.join("events.jsonl"), &bytes).unwrap();
        let reader = RunReader::open(&path).unwrap();
        let _ = reader.trace();
        let (before, _) = reader.trace_lossy().unwrap();
        let _ = reader.events().unwrap().count();
        drop(RunWriter::resume(&path, u64::MAX).unwrap());
        // Through text, since NaN is not equal to itself.
        prop_assert_eq!(format!("{before:?}"), format!("{:?}", reader.trace().unwrap()));
    }

    #[test]
    fn cut_anywhere_a_run_keeps_its_whole_lines(cut in 0.0..1.0) {
        let (_folder, path) = folder();
        drop(run_of(&path, 1..=20));
        let file = path.join("signals.jsonl");
        let bytes = fs::read(&file).unwrap();
        let cut = (cut * bytes.len() as f64) as usize;
        let whole = bytes[..cut].iter().filter(|&&byte| byte == b'\n').count();
        fs::write(&file, &bytes[..cut]).unwrap();
        let records = read(&path);
        prop_assert!(records.len() == whole || records.len() == whole + 1);
        prop_assert!(records.iter().zip(1..).all(|(read, step)| *read == record(step)));
    }
}
