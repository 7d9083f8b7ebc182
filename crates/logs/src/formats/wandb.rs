//! The file that Weights & Biases keeps of a run on disk, `run-<id>.wandb`: all there is of an offline run.
//!
//! The framing is that of LevelDB's log: after seven bytes of header come blocks of 32 KiB (the first counts the header), in
//! which each piece of a record has a checksum, a length and a kind. Unlike LevelDB's, the checksum is the CRC-32 of zlib over
//! the kind and the content, and is not masked: so it is in files written by version 0.31 of the package. A record is a
//! `wandb_internal.Record`; see `wandb_internal.proto`.
//!
//! A key that is missing from a record was not measured there, and so was `null`, which is what `None` is logged as. `NaN`
//! and `Infinity` are logged as such.

use std::collections::HashMap;
use std::io::{self, BufRead};

use serde_json::Value;
use trimtab_signals::{json, keys};

use super::{Certainty, Format, Layout, Peek, in_the_run_folder};
use crate::builder::{ColumnId, RunBuilder};
use crate::error::LogError;
use crate::input::Input;
use crate::protobuf::{Broken, Fields, Wire};
use crate::yaml;

/// Offline runs of Weights & Biases.
pub static FORMAT: Format = Format {
    id: "wandb",
    summary: "Weights & Biases, the `run-<id>.wandb` of a run",
    recognise,
    read,
    layout: Layout::File,
    rank: 30,
    depth: in_the_run_folder,
};

/// The mark, a magic number and the version.
const HEADER: &[u8] = b":W&B\xe1\xbe\x00";
const BLOCK: usize = 32 * 1024;
/// Checksum, length and kind of a piece.
const PIECE_HEADER: usize = 7;
/// Longest record that is put together.
const LONGEST_RECORD: usize = 4 << 20;
/// Longest file beside the run that is read.
const LONGEST_CONFIG: u64 = 1 << 20;
/// Most values, nested ones included, that are looked at in one item.
const MOST_NESTED: usize = 4096;
/// Most keys that are kept.
const MOST_KEYS: usize = 1 << 14;

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    peek.head.starts_with(HEADER).then_some(Certainty::Sure)
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    for input in inputs {
        read_file(input, builder)?;
    }
    Ok(())
}

fn read_file(input: &Input, builder: &mut RunBuilder) -> Result<(), LogError> {
    let mut pieces = Pieces::new(input.bytes()?);
    let mut run = Reader {
        builder,
        columns: HashMap::new(),
        first_timestamp: None,
        shown_step: None,
        configured: false,
    };
    let (mut records, mut damaged) = (0_u64, false);
    while let Some(record) = pieces.next_record() {
        match run.record(record) {
            Ok(()) => records += 1,
            Err(Broken) => damaged = true,
        }
    }
    let configured = run.configured;
    if records == 0 {
        return Err(LogError::content(input.path(), "no record could be read"));
    }
    if damaged || pieces.damaged {
        builder.note(format!(
            "`{}` is damaged in places; the records there were passed over",
            input.path().display()
        ));
    }
    if !configured {
        config_beside(input, builder);
    }
    Ok(())
}

/// `files/config.yaml`, where each key has a table with its `value`.
fn config_beside(input: &Input, builder: &mut RunBuilder) {
    let Some(file) = input.beside("files/config.yaml") else { return };
    let Ok(text) = file.to_text(LONGEST_CONFIG) else { return };
    for (name, entry) in &yaml::entries(&text).0 {
        if let Some(value) = entry.get("value")
            && is_users(name)
        {
            builder.declare(name, value);
        }
    }
}

/// Whether a key of the configuration is not one of the package's own.
fn is_users(name: &str) -> bool {
    name != "wandb_version" && name != "_wandb" && !name.starts_with("_wandb.")
}

// Field numbers of Record, HistoryRecord, HistoryItem, ConfigRecord, ConfigItem, RunRecord and RunExitRecord.
const RECORD_HISTORY: u32 = 2;
const RECORD_CONFIG: u32 = 5;
const RECORD_RUN: u32 = 17;
const RECORD_EXIT: u32 = 18;
const HISTORY_ITEM: u32 = 1;
const HISTORY_STEP: u32 = 2;
const ITEM_KEY: u32 = 1;
const ITEM_NESTED_KEY: u32 = 2;
const ITEM_BOOLEAN: u32 = 4;
const ITEM_INTEGER: u32 = 5;
const ITEM_NUMBER: u32 = 6;
const ITEM_JSON: u32 = 8;
const ITEM_VALUE_JSON: u32 = 16;
const CONFIG_UPDATE: u32 = 1;
const RUN_CONFIG: u32 = 4;
const EXIT_CODE: u32 = 1;

struct Reader<'a> {
    builder: &'a mut RunBuilder,
    columns: HashMap<String, ColumnId>,
    first_timestamp: Option<f64>,
    /// The trainer's own step, where it is logged: the package's counts calls.
    shown_step: Option<i64>,
    configured: bool,
}

impl Reader<'_> {
    fn record(&mut self, record: &[u8]) -> Result<(), Broken> {
        for field in Fields::of(record) {
            match field? {
                (RECORD_HISTORY, Wire::Bytes(history)) => self.history(history)?,
                (RECORD_CONFIG, Wire::Bytes(config)) => self.config(config)?,
                (RECORD_RUN, Wire::Bytes(run)) => {
                    for field in Fields::of(run) {
                        if let (RUN_CONFIG, Wire::Bytes(config)) = field? {
                            self.config(config)?;
                        }
                    }
                }
                (RECORD_EXIT, Wire::Bytes(exit)) => {
                    // A code of 0 is the default and not written.
                    let mut code = 0;
                    for field in Fields::of(exit) {
                        if let (EXIT_CODE, Wire::Varint(value)) = field? {
                            code = value;
                        }
                    }
                    self.builder.fact(&keys::RUN_FINISHED, code == 0);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn config(&mut self, config: &[u8]) -> Result<(), Broken> {
        for field in Fields::of(config) {
            let (CONFIG_UPDATE, Wire::Bytes(item)) = field? else { continue };
            let item = Item::of(item)?;
            if let Some(Logged::Json(text)) = item.value
                && is_users(&item.name)
                && let Ok(value) = json::parse(text)
            {
                self.builder.declare(&item.name, &value);
                self.configured = true;
            }
        }
        Ok(())
    }

    fn history(&mut self, history: &[u8]) -> Result<(), Broken> {
        let mut values: Vec<(String, f64)> = Vec::new();
        let mut step = None;
        for field in Fields::of(history) {
            match field? {
                (HISTORY_ITEM, Wire::Bytes(item)) => Item::of(item)?.push_values(&mut values),
                (HISTORY_STEP, Wire::Bytes(message)) => {
                    for field in Fields::of(message) {
                        if let (1, Wire::Varint(number)) = field? {
                            step = Some(number as i64);
                        }
                    }
                }
                _ => {}
            }
        }
        let value = |names: &[&str]| {
            names
                .iter()
                .find_map(|name| values.iter().find(|(known, value)| known == name && !value.is_nan()))
        };
        let step = value(&["_step"]).map(|(_, value)| *value as i64).or(step);
        let (runtime, timestamp) = (value(&["_runtime"]), value(&["_timestamp"]));
        // Lightning and the Hugging Face trainer log the step that counts beside the metrics; a record that lacks it is of the
        // step known last.
        let shown = value(&["trainer/global_step", "train/global_step"]);
        if let Some((_, shown)) = shown {
            self.shown_step = Some(*shown as i64);
        }
        let Some(step) = self.shown_step.or(step) else { return Ok(()) };
        let seconds = match (runtime, timestamp) {
            (Some((_, runtime)), _) => Some(*runtime),
            (None, Some((_, now))) => Some(*now - *self.first_timestamp.get_or_insert(*now)),
            (None, None) => None,
        };
        if let Some(seconds) = seconds {
            self.builder.time(step, seconds);
        }
        for (name, value) in values {
            match name.as_str() {
                "trainer/global_step" | "train/global_step" => {}
                // Of the package: `_step`, `_runtime`, `_timestamp`, `_wandb.…`.
                name if name.starts_with('_') => {}
                "epoch" | "train/epoch" => self.builder.epoch(step, value),
                _ => self.push(name, step, value),
            }
        }
        Ok(())
    }

    fn push(&mut self, name: String, step: i64, value: f64) {
        let column = match self.columns.get(&name) {
            Some(&column) => column,
            None if self.columns.len() >= MOST_KEYS => return,
            None => {
                let column = self.builder.column(&name);
                self.columns.insert(name, column);
                column
            }
        };
        self.builder.push(column, step, value);
    }
}

/// One key with its value.
struct Item<'a> {
    name: String,
    value: Option<Logged<'a>>,
}

enum Logged<'a> {
    Number(f64),
    Json(&'a [u8]),
}

impl<'a> Item<'a> {
    fn of(item: &'a [u8]) -> Result<Self, Broken> {
        let (mut name, mut value) = (String::new(), None);
        for field in Fields::of(item) {
            match field? {
                // A key by itself, or its parts one after the other.
                (ITEM_KEY, Wire::Bytes(key)) if name.is_empty() => {
                    name.push_str(&String::from_utf8_lossy(key))
                }
                (ITEM_NESTED_KEY, Wire::Bytes(part)) => {
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(&String::from_utf8_lossy(part));
                }
                (ITEM_JSON | ITEM_VALUE_JSON, Wire::Bytes(text)) => value = Some(Logged::Json(text)),
                (ITEM_NUMBER, Wire::Fixed64(bits)) => value = Some(Logged::Number(f64::from_bits(bits))),
                (ITEM_BOOLEAN, Wire::Varint(flag)) => {
                    value = Some(Logged::Number(f64::from(u8::from(flag != 0))))
                }
                (ITEM_INTEGER, Wire::Varint(zigzag)) => {
                    let integer = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
                    value = Some(Logged::Number(integer as f64));
                }
                _ => {}
            }
        }
        Ok(Self { name, value })
    }

    /// The numbers in the value, each under its own name. Media (histograms, tables, images) and texts have none.
    fn push_values(self, values: &mut Vec<(String, f64)>) {
        let text = match self.value {
            Some(Logged::Number(number)) => return values.push((self.name, number)),
            Some(Logged::Json(text)) => text,
            None => return,
        };
        if let Ok(number) = fast_float2::parse::<f64, _>(text) {
            return values.push((self.name, number));
        }
        let Ok(value) = json::parse(text) else { return };
        let mut pending = vec![(self.name, &value)];
        let mut seen = 0;
        while let Some((name, value)) = pending.pop() {
            seen += 1;
            if seen > MOST_NESTED {
                return;
            }
            match value {
                Value::Object(table) if !table.contains_key("_type") => {
                    pending.extend(table.iter().rev().map(|(part, value)| (format!("{name}.{part}"), value)));
                }
                Value::Bool(flag) => values.push((name, f64::from(u8::from(*flag)))),
                Value::Null => {}
                value => values.extend(json::number(value).map(|number| (name, number))),
            }
        }
    }
}

/// The records of a file, put together from their pieces.
struct Pieces {
    reader: Box<dyn BufRead>,
    /// Bytes of the current block, and how many of them are taken.
    block: Vec<u8>,
    taken: usize,
    record: Vec<u8>,
    /// Whether any piece was.
    damaged: bool,
}

enum Piece {
    /// Range of the content in the block, and the kind.
    Whole(std::ops::Range<usize>, u8),
    Damaged,
}

impl Pieces {
    fn new(reader: Box<dyn BufRead>) -> Self {
        Self { reader, block: Vec::new(), taken: 0, record: Vec::new(), damaged: false }
    }

    /// The next record; `None` at the end, also where the last record is incomplete.
    fn next_record(&mut self) -> Option<&[u8]> {
        const WHOLE: u8 = 1;
        const FIRST: u8 = 2;
        const MIDDLE: u8 = 3;
        const LAST: u8 = 4;
        // Whether a record is begun; one that has lost a piece, or is too long, is not.
        let mut open = false;
        loop {
            let (range, kind) = match self.next_piece()? {
                Piece::Whole(range, kind) => (range, kind),
                Piece::Damaged => {
                    self.damaged = true;
                    open = false;
                    continue;
                }
            };
            match kind {
                WHOLE => return self.block.get(range),
                FIRST => {
                    self.record.clear();
                    open = true;
                }
                MIDDLE | LAST if open => {}
                _ => continue,
            }
            let content = self.block.get(range)?;
            if self.record.len() + content.len() > LONGEST_RECORD {
                open = false;
                continue;
            }
            self.record.extend_from_slice(content);
            if kind == LAST {
                return Some(&self.record);
            }
        }
    }

    fn next_piece(&mut self) -> Option<Piece> {
        loop {
            let rest = self.block.get(self.taken..)?;
            let Some((header, rest)) = rest.split_first_chunk::<PIECE_HEADER>() else {
                // What is too short for a piece fills the block up.
                self.next_block()?;
                continue;
            };
            let [a, b, c, d, low, high, kind] = *header;
            let length = usize::from(u16::from_le_bytes([low, high]));
            if kind == 0 && length == 0 {
                // Zeros: the rest of the block was never written.
                self.next_block()?;
                continue;
            }
            let Some(content) = rest.get(..length) else {
                // At the end of the file this is a piece that is not yet there; in a full block the length is wrong.
                let damaged = self.block.len() == BLOCK;
                self.next_block()?;
                if damaged {
                    return Some(Piece::Damaged);
                }
                continue;
            };
            let mut crc = flate2::Crc::new();
            crc.update(&[kind]);
            crc.update(content);
            let start = self.taken + PIECE_HEADER;
            self.taken = start + length;
            let whole = crc.sum() == u32::from_le_bytes([a, b, c, d]);
            return Some(if whole { Piece::Whole(start..start + length, kind) } else { Piece::Damaged });
        }
    }

    /// Reads the next block; `None` at the end.
    fn next_block(&mut self) -> Option<()> {
        // The first block starts with the header of the file.
        let is_first = self.block.is_empty();
        self.block.resize(BLOCK, 0);
        let mut read = 0;
        while let Some(room) = self.block.get_mut(read..).filter(|room| !room.is_empty()) {
            match self.reader.read(room) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.block.truncate(read);
        self.taken = if is_first { HEADER.len() } else { 0 };
        (read > 0).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use trimtab_signals::Run;

    use super::*;
    use crate::read_bytes;

    const GOLDEN: &[u8] = include_bytes!("../../../../goldens/wandb_offline.wandb");
    const EXPECTED: &str = include_str!("../../../../goldens/wandb_offline.json");

    fn field(number: u64, content: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        for mut value in [number << 3 | 2, content.len() as u64] {
            while value >= 0x80 {
                message.push(value as u8 | 0x80);
                value >>= 7;
            }
            message.push(value as u8);
        }
        message.extend_from_slice(content);
        message
    }

    /// An item as all versions but the newest write it, with a key in one part or in several.
    fn item(keys: &[&str], value: &str) -> Vec<u8> {
        let keys: Vec<Vec<u8>> = match keys {
            [key] => vec![field(1, key.as_bytes())],
            parts => parts.iter().map(|part| field(2, part.as_bytes())).collect(),
        };
        field(1, &[keys.concat(), field(16, value.as_bytes())].concat())
    }

    fn history(items: &[Vec<u8>]) -> Vec<u8> {
        field(2, &items.concat())
    }

    /// Frames records as the package does.
    fn file(records: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        for record in records {
            let (mut rest, mut is_first) = (&record[..], true);
            loop {
                let mut room = BLOCK - bytes.len() % BLOCK;
                if room < PIECE_HEADER {
                    bytes.resize(bytes.len() + room, 0);
                    room = BLOCK;
                }
                let (content, after) = rest.split_at(rest.len().min(room - PIECE_HEADER));
                let kind = match (is_first, after.is_empty()) {
                    (true, true) => 1,
                    (true, false) => 2,
                    (false, false) => 3,
                    (false, true) => 4,
                };
                let mut crc = flate2::Crc::new();
                crc.update(&[kind]);
                crc.update(content);
                bytes.extend_from_slice(&crc.sum().to_le_bytes());
                bytes.extend_from_slice(&(content.len() as u16).to_le_bytes());
                bytes.push(kind);
                bytes.extend_from_slice(content);
                (rest, is_first) = (after, false);
                if rest.is_empty() {
                    break;
                }
            }
        }
        bytes
    }

    fn run_of(bytes: &[u8]) -> Run {
        read_bytes(FORMAT.id, "run-x.wandb", bytes).expect("a run")
    }

    #[track_caller]
    fn check(records: &[Vec<u8>], column: &str, expected: &[(u64, f64)]) {
        let run = run_of(&file(records));
        let found: Vec<_> = run.logged(column).map(|column| column.iter().collect()).unwrap_or_default();
        assert_eq!(found, expected, "{run:?}");
    }

    fn step(step: u8, rest: &[Vec<u8>]) -> Vec<u8> {
        history(&[&[item(&["_step"], &step.to_string())][..], rest].concat())
    }

    #[test]
    fn an_offline_run_is_read_as_it_was_logged() {
        let run = run_of(GOLDEN);
        let expected: Value = serde_json::from_str(EXPECTED).expect("JSON");
        let history = expected["history"].as_object().expect("a table");
        for (name, expected) in history {
            let column = run.logged(name).unwrap_or_else(|| panic!("no column {name}"));
            let expected = expected.as_array().expect("a list");
            assert_eq!(column.len(), expected.len(), "{name}");
            for ((step, value), expected) in column.iter().zip(expected) {
                let number =
                    expected[1].as_f64().or_else(|| expected[1].as_str()?.parse().ok()).expect("a number");
                assert_eq!(Some(step), expected[0].as_u64());
                assert!(
                    value == number || (value.is_nan() && number.is_nan()),
                    "{name}: {value} is not {number}"
                );
            }
        }
        assert_eq!(run.trace.names().count(), history.len(), "neither texts nor histograms");
        assert_eq!(run.facts.boolean("run.finished"), Some(true));
        let declared: Vec<_> = run.facts.iter().collect();
        for value in [Value::from(0.001), Value::from(8), Value::from("a b")] {
            assert!(declared.iter().any(|(_, known)| **known == value), "{value}: {declared:?}");
        }
        assert!(declared.iter().all(|(name, _)| !name.contains("_wandb")));
        assert!(run.trace.times().last().is_some_and(|(step, seconds)| step == 20 && seconds > 0.0));
        assert!(run.notes.is_empty(), "{:?}", run.notes);
    }

    #[test]
    fn keys_of_both_kinds_and_values_of_all_kinds_are_read() {
        check(&[step(1, &[item(&["a"], "0.5")])], "a", &[(1, 0.5)]);
        check(&[step(1, &[item(&["a", "b"], "-3e2")])], "a.b", &[(1, -300.0)]);
        check(&[step(1, &[item(&["a"], r#"{"b":{"c":2},"d":true}"#)])], "a.b.c", &[(1, 2.0)]);
        check(&[step(1, &[item(&["a"], r#"{"b":{"c":2},"d":true}"#)])], "a.d", &[(1, 1.0)]);
        check(&[step(1, &[item(&["a"], r#"{"_type":"histogram","bins":2}"#)])], "a.bins", &[]);
        check(&[step(1, &[item(&["a"], "null")])], "a", &[]);
        check(&[step(1, &[item(&["a"], r#""text""#)])], "a", &[]);
        check(&[step(1, &[item(&["a"], "-Infinity")])], "a", &[(1, f64::NEG_INFINITY)]);
        check(&[step(1, &[item(&["a"], r#""Infinity""#)])], "a", &[(1, f64::INFINITY)]);
        for value in ["NaN", r#""NaN""#] {
            let run = run_of(&file(&[step(1, &[item(&["a"], value)])]));
            assert!(run.trace.last("a").is_some_and(|(_, value)| value.is_nan()));
        }
        // The newest version has fields for them.
        let number = field(1, &[field(1, b"a"), vec![0x31], 0.25_f64.to_le_bytes().to_vec()].concat());
        check(&[step(1, &[number])], "a", &[(1, 0.25)]);
        let integer = field(1, &[field(1, b"a"), vec![0x28, 0x05]].concat());
        check(&[step(1, &[integer])], "a", &[(1, -3.0)]);
    }

    #[test]
    fn the_trainers_own_step_counts_where_it_is_logged() {
        let records = [
            step(0, &[item(&["trainer/global_step"], "49"), item(&["loss"], "1")]),
            step(1, &[item(&["trainer/global_step"], "99"), item(&["loss"], "2")]),
            step(2, &[item(&["val"], "3")]),
        ];
        check(&records, "loss", &[(49, 1.0), (99, 2.0)]);
        check(&records, "val", &[(99, 3.0)]);
    }

    #[test]
    fn records_go_over_the_end_of_a_block() {
        for length in (BLOCK - 60..BLOCK + 20).chain([3 * BLOCK]) {
            let long = step(1, &[item(&["text"], &format!("\"{}\"", "x".repeat(length))), item(&["a"], "1")]);
            check(&[long, step(2, &[item(&["a"], "2")])], "a", &[(1, 1.0), (2, 2.0)]);
        }
    }

    #[test]
    fn an_incomplete_record_at_the_end_is_left_out_silently() {
        let records = [step(1, &[item(&["a"], "1")]), step(2, &[item(&["a"], "2")])];
        let (first, whole) = (file(&records[..1]).len(), file(&records));
        for length in first..whole.len() {
            let run = run_of(&whole[..length]);
            assert_eq!(run.trace.last("a"), Some((1, 1.0)));
            assert!(run.notes.is_empty());
        }
    }

    #[test]
    fn a_damaged_record_is_passed_over_and_noted() {
        let records = [1, 2, 3].map(|at| step(at, &[item(&["a"], "1")]));
        let mut bytes = file(&records);
        let second = file(&records[..1]).len() + PIECE_HEADER + 4;
        bytes[second] ^= 1;
        let run = run_of(&bytes);
        assert_eq!(run.logged("a").map(|column| column.steps().to_vec()), Some(vec![1, 3]));
        assert_eq!(run.notes.len(), 1);
    }

    #[test]
    fn the_code_of_the_exit_says_whether_the_run_came_to_its_end() {
        let finished = |exit: &[u8]| {
            let run = run_of(&file(&[step(1, &[item(&["a"], "1")]), field(18, exit)]));
            run.facts.boolean("run.finished")
        };
        assert_eq!(finished(&[]), Some(true));
        assert_eq!(finished(&[0x08, 0x01]), Some(false));
        assert_eq!(run_of(&file(&[step(1, &[])])).facts.boolean("run.finished"), None);
    }

    #[test]
    fn the_configuration_beside_the_run_is_read_where_it_has_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("files")).expect("a folder");
        let config = "wandb_version: 1\n\nlr:\n  desc: null\n  value: 0.25\n_wandb:\n  value:\n    x: 1\n";
        std::fs::write(folder.path().join("files/config.yaml"), config).expect("a file");
        let path = folder.path().join("run-x.wandb");
        std::fs::write(&path, file(&[step(1, &[item(&["a"], "1")])])).expect("a file");
        let mut builder = RunBuilder::new();
        read(&[Input::file(path)], &mut builder).expect("a run");
        assert_eq!(builder.facts().number("optim.learning_rate"), Some(0.25));
        assert_eq!(builder.facts().iter().filter(|(key, _)| key.starts_with("declared.")).count(), 1);
    }

    #[test]
    fn only_its_own_files_are_recognised() {
        let judge = |head: &[u8]| {
            let text = std::str::from_utf8(head).ok();
            recognise(&Peek { path: Path::new("run-x.wandb"), head, complete: true, text })
        };
        assert_eq!(judge(GOLDEN), Some(Certainty::Sure));
        assert_eq!(judge(b":W&B and more"), None);
        assert_eq!(judge(b""), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_fall_over(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_bytes(FORMAT.id, "x", &bytes);
            let _ = read_bytes(FORMAT.id, "x", &[HEADER, &bytes].concat());
            for record in [field(2, &field(1, &bytes)), field(5, &field(1, &bytes)), bytes] {
                let _ = read_bytes(FORMAT.id, "x", &file(&[record]));
            }
        }

        #[test]
        fn no_change_of_a_file_makes_the_reader_fall_over(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
            length in any::<prop::sample::Index>(),
        ) {
            let mut bytes = GOLDEN.to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(length.index(bytes.len() + 1));
            let _ = read_bytes(FORMAT.id, "x", &bytes);
        }
    }
}
