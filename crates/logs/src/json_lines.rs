//! What the JSON formats share: objects a line, whole documents, flattening, positions that start anew.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use serde_json::{Map, Value};
use trimtab_signals::{Goal, json, names};

use crate::builder::{ColumnId, RunBuilder};
use crate::error::LogError;
use crate::formats::Peek;
use crate::input::Input;

/// A JSON object, in the order of the file.
pub(crate) type Object = Map<String, Value>;

/// Largest document that is read whole. In memory it takes several times that.
const LARGEST_DOCUMENT: u64 = 64 << 20;
/// Lines of a head that are looked at.
const HEAD_LINES: usize = 64;
/// Longest name of a column, path included. Each leaf repeats the names above it, so that this also bounds memory.
const LONGEST_NAME: usize = 256;
/// Most columns of one log.
const MOST_COLUMNS: usize = 1 << 14;
/// Longest list of numbers in a record that becomes columns: scores of classes rather than data.
const LONGEST_LIST: usize = 64;

/// Hands each line's object to `visit`. Blank lines are passed over, other lines counted and noted.
///
/// A last line that cannot be parsed was being written, and counts as not there.
///
/// # Errors
///
/// Where the file cannot be opened.
pub(crate) fn each_object(
    input: &Input,
    builder: &mut RunBuilder,
    mut visit: impl FnMut(Object, &mut RunBuilder),
) -> Result<(), LogError> {
    let (mut unreadable, mut last_is_bad) = (0_u64, false);
    let mut lines = input.lines()?;
    while let Some(line) = lines.next_bytes() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        unreadable += u64::from(last_is_bad);
        match json::parse(line) {
            Ok(Value::Object(object)) => {
                last_is_bad = false;
                visit(object, builder);
            }
            _ => last_is_bad = true,
        }
    }
    if unreadable > 0 {
        builder.note(format!(
            "{unreadable} lines of `{}` are not JSON objects and were passed over",
            input.name()
        ));
    }
    Ok(())
}

/// A whole document, and whether its end was missing.
///
/// # Errors
///
/// Where it cannot be read, is too large or is no JSON.
pub(crate) fn document(input: &Input) -> Result<(Value, bool), LogError> {
    let mut bytes = Vec::new();
    let read = input.text()?.take(LARGEST_DOCUMENT + 1).read_to_end(&mut bytes);
    read.map_err(|source| LogError::Io { path: input.path().to_owned(), source })?;
    if bytes.len() as u64 > LARGEST_DOCUMENT {
        let reason = format!("a JSON document of more than {} MiB", LARGEST_DOCUMENT >> 20);
        return Err(LogError::content(input.path(), reason));
    }
    parse_torn(&bytes).map_err(|error| LogError::content(input.path(), format!("is not JSON: {error}")))
}

/// A small document beside a log; `None` where there is none or it cannot be read.
pub(crate) fn document_beside(input: &Input, name: &str) -> Option<Value> {
    document(&input.beside(name)?).ok().map(|(value, _)| value)
}

/// Parses a document; where its end is missing, what is there of it.
pub(crate) fn parse_torn(bytes: &[u8]) -> Result<(Value, bool), serde_json::Error> {
    json::parse(bytes).map(|value| (value, false)).or_else(|error| match closed(bytes) {
        Some(closed) => json::parse(&closed).map(|value| (value, true)).map_err(|_| error),
        None => Err(error),
    })
}

/// A document without its end, cut after the last element that is complete and closed there.
fn closed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut closers = Vec::new();
    let (mut cut, mut cut_depth) = (0, 0);
    let (mut at, mut in_string) = (0, false);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' => closers.push(b'}'),
            b'[' => closers.push(b']'),
            b'}' | b']' => {
                if closers.pop() != Some(byte) {
                    return None;
                }
                (cut, cut_depth) = (at + 1, closers.len());
            }
            b',' => (cut, cut_depth) = (at, closers.len()),
            _ => {}
        }
        at += 1;
    }
    // Nothing was closed since the cut but what is cut off, so the closers up to its depth are still those of then.
    if cut == 0 || cut_depth == 0 {
        return None;
    }
    let mut closed = bytes.get(..cut)?.to_vec();
    closed.extend(closers.get(..cut_depth)?.iter().rev());
    Some(closed)
}

/// The objects among the first lines of a file that has one object a line; empty for any other file.
pub(crate) fn head_objects(peek: &Peek<'_>) -> Vec<Object> {
    let lines = || peek.lines().map(str::trim).filter(|line| !line.is_empty()).take(HEAD_LINES);
    if !lines().take(8).any(|line| line.starts_with('{')) {
        return Vec::new();
    }
    let objects: Vec<Object> = lines()
        .filter_map(|line| match json::parse(line.as_bytes()) {
            Ok(Value::Object(object)) => Some(object),
            _ => None,
        })
        .collect();
    if objects.len() * 2 < lines().count() { Vec::new() } else { objects }
}

/// The document that a file is, or as much of it as its head holds.
pub(crate) fn head_document(peek: &Peek<'_>) -> Option<Value> {
    let text = peek.text?;
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    parse_torn(text.as_bytes()).ok().map(|(value, _)| value)
}

/// A number: as [`json::number`], and the tokens as Python's `str` spells them.
pub(crate) fn number(value: &Value) -> Option<f64> {
    json::number(value).or_else(|| match value.as_str()? {
        "nan" => Some(f64::NAN),
        "inf" => Some(f64::INFINITY),
        "-inf" => Some(f64::NEG_INFINITY),
        _ => None,
    })
}

/// A number that is really there: neither `null` nor `NaN`.
pub(crate) fn finite(value: &Value) -> Option<f64> {
    number(value).filter(|number| number.is_finite())
}

/// A whole number, rounded down.
pub(crate) fn whole(value: &Value) -> Option<i64> {
    // A float that does not fit becomes the nearest that does.
    finite(value).map(|number| number.floor() as i64)
}

/// Hands every leaf below a value to `visit` with its path: scalars, empty tables, and lists that hold no tables or lists.
pub(crate) fn leaves<'v>(value: &'v Value, separator: char, mut visit: impl FnMut(&str, &'v Value)) {
    // A stack rather than recursion: the depth of the input is not ours to choose.
    let mut path = String::new();
    let mut open: Vec<(usize, Children<'v>)> = Vec::new();
    match Children::of(value) {
        Some(children) => open.push((0, children)),
        None => visit(&path, value),
    }
    while let Some((length, children)) = open.last_mut() {
        path.truncate(*length);
        let Some((name, value)) = children.next() else {
            open.pop();
            continue;
        };
        if !path.is_empty() {
            path.push(separator);
        }
        path.push_str(&name);
        if path.len() > LONGEST_NAME {
            continue;
        }
        match Children::of(value) {
            Some(children) => open.push((path.len(), children)),
            None => visit(&path, value),
        }
    }
}

/// What is directly below a table, or a list that holds tables or lists.
enum Children<'v> {
    Table(serde_json::map::Iter<'v>),
    List(std::iter::Enumerate<std::slice::Iter<'v, Value>>),
}

impl<'v> Children<'v> {
    fn of(value: &'v Value) -> Option<Self> {
        match value {
            Value::Object(table) if !table.is_empty() => Some(Self::Table(table.iter())),
            Value::Array(list) if list.iter().any(|item| item.is_object() || item.is_array()) => {
                Some(Self::List(list.iter().enumerate()))
            }
            _ => None,
        }
    }

    fn next(&mut self) -> Option<(Cow<'v, str>, &'v Value)> {
        match self {
            Self::Table(table) => table.next().map(|(name, value)| (Cow::from(name.as_str()), value)),
            Self::List(list) => list.next().map(|(at, value)| (Cow::from(at.to_string()), value)),
        }
    }
}

/// Hands the numbers of a record to `visit`, nested names joined with `/`; of `null` the choice is the caller's. A list of one
/// number is that number, a short list has one column an element.
pub(crate) fn measurements<'v>(record: &'v Value, mut visit: impl FnMut(&str, &'v Value)) {
    leaves(record, '/', |path, value| match value {
        Value::Array(list) => match list.as_slice() {
            [only] => visit(path, only),
            list if list.len() <= LONGEST_LIST => {
                for (at, value) in list.iter().enumerate() {
                    visit(&format!("{path}/{at}"), value);
                }
            }
            _ => {}
        },
        value => visit(path, value),
    });
}

/// Puts measurements into a builder under a bounded number of names.
#[derive(Default)]
pub(crate) struct Sink {
    columns: HashMap<String, ColumnId>,
    full: bool,
    epoch_at: Option<i64>,
    time_at: Option<i64>,
}

impl Sink {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The epoch of a step; of several records of one step the first counts.
    pub(crate) fn epoch(&mut self, builder: &mut RunBuilder, step: i64, epoch: f64) {
        if epoch.is_finite() && self.epoch_at.replace(step) != Some(step) {
            builder.epoch(step, epoch);
        }
    }

    /// The seconds since the start at a step; of several records of one step the first counts.
    pub(crate) fn time(&mut self, builder: &mut RunBuilder, step: i64, seconds: f64) {
        if seconds.is_finite() && self.time_at.replace(step) != Some(step) {
            builder.time(step, seconds);
        }
    }

    /// One measurement; the column where it is a new one.
    pub(crate) fn put(
        &mut self,
        builder: &mut RunBuilder,
        name: &str,
        step: i64,
        value: f64,
    ) -> Option<ColumnId> {
        if let Some(&column) = self.columns.get(name) {
            builder.push(column, step, value);
            return None;
        }
        if name.is_empty() || name.len() > LONGEST_NAME {
            return None;
        }
        if self.columns.len() >= MOST_COLUMNS {
            if !self.full {
                builder.note(format!("more than {MOST_COLUMNS} columns; further ones were passed over"));
            }
            self.full = true;
            return None;
        }
        let column = builder.column(name);
        self.columns.insert(name.to_owned(), column);
        builder.push(column, step, value);
        Some(column)
    }

    /// Whether there is any measurement; an error otherwise.
    pub(crate) fn check(&self, input: &Input) -> Result<(), LogError> {
        if self.columns.is_empty() {
            return Err(LogError::content(input.path(), "holds no measurements"));
        }
        Ok(())
    }
}

/// Makes steps continuous that are counted anew in each epoch.
#[derive(Debug, Default)]
pub(crate) struct EpochSteps {
    /// What is added in each epoch. Epochs are few; of very many only the newest are kept.
    offsets: BTreeMap<i64, i64>,
    epoch: i64,
    /// The last step as logged.
    last: i64,
    /// Steps of an epoch, as far as they were logged.
    length: i64,
}

impl EpochSteps {
    /// The step in the whole run of a step logged in an epoch. A new epoch starts anew where its step lies below the last one, or,
    /// with `equal`, at it.
    pub(crate) fn step(&mut self, epoch: i64, step: i64, equal: bool) -> i64 {
        let current = self.offsets.get(&self.epoch).copied().unwrap_or(0);
        let mut offset = current;
        if self.offsets.is_empty() {
            self.offsets.insert(epoch, 0);
        } else if epoch > self.epoch {
            if step < self.last || (equal && step == self.last) {
                self.length = self.last;
                // Epochs of which nothing is logged are as long as the last one.
                let passed = epoch.saturating_sub(self.epoch);
                offset = current.saturating_add(self.length.saturating_mul(passed));
            }
            self.offsets.insert(epoch, offset);
            while self.offsets.len() > 1 << 16 {
                self.offsets.pop_first();
            }
        } else if epoch < self.epoch {
            // Resumed at an earlier epoch.
            self.offsets.split_off(&epoch.saturating_add(1));
            offset = self.offsets.last_key_value().map_or(0, |(_, &offset)| offset);
            self.offsets.insert(epoch, offset);
        }
        (self.epoch, self.last) = (epoch, step);
        step.saturating_add(offset)
    }
}

/// Makes epochs start at 0: a log whose first epoch is not below 1 counts from 1.
#[derive(Debug, Default)]
pub(crate) struct EpochBase(Option<f64>);

impl EpochBase {
    pub(crate) fn zero_based(&mut self, epoch: f64) -> f64 {
        let base = *self.0.get_or_insert(if epoch >= 1.0 && epoch.fract() == 0.0 { 1.0 } else { 0.0 });
        epoch - base
    }
}

/// The words of a name, lower case: `val_mIoU` has `val` and `miou`.
pub(crate) fn words(name: &str) -> impl Iterator<Item = String> + '_ {
    name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// Whether a word says of which samples a metric is.
pub(crate) fn split_of(word: &str) -> Option<&'static str> {
    match word {
        "train" | "training" | "tr" => Some("train"),
        "val" | "valid" | "validation" | "dev" | "eval" | "evaluation" => Some("val"),
        "test" | "testing" => Some("test"),
        _ => None,
    }
}

/// Whether a name is one that training loops log: of a loss, a score, a learning rate or a gradient.
pub(crate) fn is_metric(name: &str) -> bool {
    // A weight of a loss is configuration.
    if words(name).any(|word| matches!(word.as_str(), "weight" | "weights" | "scale" | "smoothing")) {
        return false;
    }
    names::goal(name).is_some()
        || matches!(names::of(name), Some(signal) if signal.name != "val/prevalence")
        || words(name).any(|word| matches!(word.as_str(), "loss" | "losses" | "lr" | "grad"))
        || name.to_ascii_lowercase().ends_with("learning_rate")
        || name.to_ascii_lowercase().ends_with("loss")
}

/// Whether a metric is better high, and so surely a score.
pub(crate) fn is_score(name: &str) -> bool {
    names::goal(name) == Some(Goal::Higher)
}

/// The position in a text such as `epoch_10`, `step-500.pth` or `10`.
pub(crate) fn position_in_text(text: &str) -> Option<i64> {
    let stem = [".pth", ".pt", ".ckpt", ".h5", ".keras"].iter().find_map(|end| text.strip_suffix(end));
    let stem = stem.unwrap_or(text).trim();
    let word = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = stem.get(word.len()..)?;
    let word = word.trim_end_matches([' ', '_', '-', '=', ':', '#', '/']);
    let last = words(word).last();
    let known =
        ["epoch", "ep", "e", "step", "steps", "iter", "iters", "iteration", "checkpoint", "ckpt", "stage"];
    if word.is_empty() || last.is_some_and(|last| known.contains(&last.as_str())) {
        return digits.parse().ok();
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;
    use crate::formats::{Certainty, Format};

    /// What a format makes of the head of a small file.
    pub(crate) fn recognised(format: &Format, name: &str, text: &str) -> Option<Certainty> {
        (format.recognise)(&Peek {
            path: Path::new(name),
            head: text.as_bytes(),
            complete: true,
            text: Some(text),
        })
    }

    /// A run read from small files.
    pub(crate) fn read(format: &Format, files: &[(&str, &str)]) -> Result<trimtab_signals::Run, LogError> {
        let inputs: Vec<Input> =
            files.iter().map(|(name, text)| Input::memory(name, text.as_bytes().to_vec())).collect();
        let mut builder = RunBuilder::new();
        (format.read)(&inputs, &mut builder)?;
        Ok(builder.finish("test", format.id))
    }

    /// The column that was logged under a name.
    pub(crate) fn logged(run: &trimtab_signals::Run, name: &str) -> Vec<(u64, f64)> {
        run.logged(name).map(|column| column.iter().collect()).unwrap_or_default()
    }

    /// Reads an example with arbitrary changes, and arbitrary bytes: nothing may panic.
    pub(crate) fn survives(format: &Format, name: &str, example: &str) {
        use proptest::prelude::*;
        let bytes = example.as_bytes().to_vec();
        let mutated = (
            proptest::collection::vec((0..bytes.len(), any::<u8>()), 0..8),
            0..=bytes.len(),
            proptest::collection::vec(any::<u8>(), 0..16),
        )
            .prop_map(move |(changes, end, tail)| {
                let mut bytes = bytes.clone();
                for (at, byte) in changes {
                    bytes[at] = byte;
                }
                bytes.truncate(end);
                bytes.extend(tail);
                bytes
            });
        let jsonish = "[\\[\\]{}:,\"0-9eE.+\\-a-zN \n]{0,200}".prop_map(String::into_bytes);
        let arbitrary = proptest::collection::vec(any::<u8>(), 0..200);
        let inputs = prop_oneof![3 => mutated, 1 => arbitrary, 1 => jsonish];
        proptest!(ProptestConfig::with_cases(300), |(bytes in inputs)| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            recognised(format, name, &text);
            let mut builder = RunBuilder::new();
            if (format.read)(&[Input::memory(name, bytes)], &mut builder).is_ok() {
                builder.finish(name, format.id);
            }
        });
    }

    #[test]
    fn a_document_without_its_end_is_closed_after_its_last_complete_element() {
        let check = |text: &str, expected: Option<&str>| {
            let parsed = parse_torn(text.as_bytes()).ok().map(|(value, _)| value.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        };
        check(r#"[{"a":1},{"a":2}]"#, Some(r#"[{"a":1},{"a":2}]"#));
        check(r#"[{"a":1},{"a":2"#, Some(r#"[{"a":1}]"#));
        check(r#"[{"a":1},{"a":2},"#, Some(r#"[{"a":1},{"a":2}]"#));
        check(r#"{"a":[1,2,30"#, Some(r#"{"a":[1,2]}"#));
        check(r#"{"a":[1,NaN,Na"#, Some(r#"{"a":[1,"NaN"]}"#));
        check(r#"{"a":"b,]","c":"d"#, Some(r#"{"a":"b,]"}"#));
        check(r#"{"a":1"#, None);
        check("[", None);
        check("{}]", None);
        check(r#"{"a":1}{"#, None);
        check(r#"["\"#, None);
        check("", None);
    }

    #[test]
    fn deep_or_wide_values_are_flattened_within_bounds() {
        let deep = format!("{}1{}", r#"{"abcdefgh":"#.repeat(100), "}".repeat(100));
        let value = json::parse(deep.as_bytes()).expect("JSON");
        let mut count = 0;
        leaves(&value, '/', |_, _| count += 1);
        assert_eq!(count, 0, "longer than any name");
        let value = serde_json::json!({"a": {"b": [1, 2], "c": [[3], {"d": 4}]}, "e": [5], "f": {}});
        let mut seen = Vec::new();
        measurements(&value, |path, value| seen.push(format!("{path}={value}")));
        assert_eq!(seen, ["a/b/0=1", "a/b/1=2", "a/c/0=3", "a/c/1/d=4", "e=5", "f={}"]);
    }

    #[test]
    fn steps_counted_anew_in_each_epoch_become_continuous() {
        let steps = |logged: &[(i64, i64)], equal: bool| -> Vec<i64> {
            let mut steps = EpochSteps::default();
            logged.iter().map(|&(epoch, step)| steps.step(epoch, step, equal)).collect()
        };
        assert_eq!(steps(&[(1, 50), (1, 100), (2, 50), (2, 100), (4, 50)], false), [50, 100, 150, 200, 350]);
        assert_eq!(steps(&[(1, 50), (1, 100), (2, 150), (3, 200)], true), [50, 100, 150, 200]);
        assert_eq!(steps(&[(1, 50), (2, 50), (3, 50)], true), [50, 100, 150]);
        assert_eq!(steps(&[(1, 50), (2, 50), (3, 75)], false), [50, 50, 75]);
        // Resumed at the second epoch.
        assert_eq!(steps(&[(1, 50), (2, 40), (3, 40), (2, 10), (3, 5)], true), [50, 90, 130, 60, 65]);
        let wild = [(i64::MIN, i64::MAX), (i64::MAX, i64::MIN), (0, 0), (i64::MAX, -5)];
        assert_eq!(steps(&wild, true).len(), 4);
    }

    #[test]
    fn positions_are_found_in_texts() {
        let check =
            |text: &str, expected: Option<i64>| assert_eq!(position_in_text(text), expected, "{text}");
        check("epoch_10", Some(10));
        check("Epoch 7", Some(7));
        check("checkpoint-500", Some(500));
        check("model_step_20.pth", Some(20));
        check("12", Some(12));
        check("resnet50", None);
        check("final", None);
        check("", None);
        check("epoch_99999999999999999999999", None);
        check("épöch_3", None);
    }
}
