//! TensorBoard's event files, as TensorFlow, Keras, PyTorch, tensorboardX and others write them.
//!
//! A file is a sequence of TFRecords, each with one `tensorflow.Event`; see `tensorflow/core/lib/io/record_writer.cc`,
//! `event.proto`, `summary.proto` and `tensor.proto`. A value stands in `simple_value` (version 1) or in a tensor whose plugin
//! is `scalars` (version 2), where only the first event of a tag need name the plugin.
//!
//! There is no blank value: a tag that is missing from a step was not measured there, a `NaN` is a `NaN`.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;
use trimtab_signals::json;
use trimtab_signals::tensorboard::{fields::*, masked_crc};

use super::{Certainty, Format, Layout, Peek};
use crate::builder::{ColumnId, RunBuilder};
use crate::error::LogError;
use crate::input::Input;
use crate::protobuf::{Broken, Fields, Wire, varint};
use crate::yaml;

/// Event files.
pub static FORMAT: Format = Format {
    id: "tensorboard",
    summary: "TensorBoard event files, of any framework",
    recognise,
    read,
    layout: Layout::Folder,
    rank: 30,
    depth,
};

/// Bytes of a record before its content: the length and its checksum.
const HEADER: usize = 12;
/// Bytes of a record after its content.
const FOOTER: usize = 4;
/// Longest record that is looked into. Scalars and configurations are far shorter; graphs and images may be longer.
const LONGEST_RECORD: u64 = 4 << 20;
/// Bytes read at a time.
const BLOCK: usize = 512 * 1024;
/// Longest tag, and most of them in a folder, that are kept.
const LONGEST_TAG: usize = 1024;
const MOST_TAGS: usize = 1 << 14;
/// Longest text that may be a configuration.
const LONGEST_TEXT: usize = 1 << 20;
/// What the first record of a file says, up to its number.
const VERSION: &[u8] = b"brain.Event:";

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    let length = record_length(peek.head)?;
    let content = peek.head.get(HEADER..)?.get(..usize::try_from(length).ok()?);
    // Other TFRecords hold samples: the version is what tells them apart.
    if content.is_some_and(is_version) {
        return Some(Certainty::Sure);
    }
    peek.name().contains("tfevents").then_some(Certainty::Generic)
}

fn is_version(event: &[u8]) -> bool {
    Fields::of(event)
        .any(|field| matches!(field, Ok((EVENT_FILE_VERSION, Wire::Bytes(version))) if version.starts_with(VERSION)))
}

/// The part of a run that a folder of its own is for.
fn split(folder: &str) -> Option<&'static str> {
    match folder.to_ascii_lowercase().as_str() {
        "train" | "training" => Some("train"),
        "val" | "valid" | "validation" | "eval" | "evaluation" => Some("val"),
        "test" | "testing" => Some("test"),
        _ => None,
    }
}

fn folder_name(folder: &Path) -> &str {
    folder.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Keras writes to `train/` and `validation/` below the run's folder; PyTorch's `add_scalars` to `<tag>_<key>/`, its
/// `add_hparams` to `<time>/`. A folder `tensorboard/` is one of several in that of the run.
fn depth(path: &Path) -> usize {
    let Some(mut folder) = path.parent() else { return 0 };
    let mut depth = 0;
    if split(folder_name(folder)).is_some() || is_part(path, folder) {
        depth += 1;
        match folder.parent() {
            Some(parent) => folder = parent,
            None => return depth,
        }
    }
    if is_one_of_several(folder_name(folder)) { depth + 1 } else { depth }
}

/// Whether a folder is for this format, beside others in the folder of the run.
fn is_one_of_several(name: &str) -> bool {
    name.eq_ignore_ascii_case("tensorboard")
}

/// Whether a file is what PyTorch's `add_scalars` or `add_hparams` puts below the folder of a run.
fn is_part(path: &Path, folder: &Path) -> bool {
    let name = folder_name(folder);
    if !name.contains('_') && !is_time(name) {
        return false;
    }
    // The writer that made the folder has its own file above it.
    (is_time(name) || first_tag(path).is_some_and(|tag| key_of(name, &tag).is_some()))
        && folder.parent().is_some_and(has_events)
}

/// Whether a folder has an event file of its own. Asked for each of its folders, of which there may be thousands: the last answer
/// is kept for as long as the folder stays as it is.
fn has_events(folder: &Path) -> bool {
    thread_local! {
        static LAST: RefCell<Option<(PathBuf, SystemTime, bool)>> = const { RefCell::new(None) };
    }
    let changed = fs::metadata(folder).and_then(|about| about.modified()).ok();
    LAST.with_borrow_mut(|last| {
        if let Some((known, at, answer)) = last
            && known == folder
            && Some(*at) == changed
        {
            return *answer;
        }
        let answer = fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
            entry.file_name().to_string_lossy().contains("tfevents")
                && entry.file_type().is_ok_and(|kind| kind.is_file())
        });
        *last = changed.map(|changed| (folder.to_owned(), changed, answer));
        answer
    })
}

/// Seconds since 1970 with a fraction, as Python prints them.
fn is_time(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.split_once('.')
        .is_some_and(|(seconds, fraction)| seconds.len() >= 9 && digits(seconds) && digits(fraction))
}

/// The key of `add_scalars` that a folder was made for.
fn key_of<'a>(folder: &'a str, tag: &str) -> Option<&'a str> {
    folder.strip_prefix(&tag.replace('/', "_"))?.strip_prefix('_').filter(|key| !key.is_empty())
}

/// The tag of the first value of a file.
fn first_tag(path: &Path) -> Option<String> {
    let mut records = Records::new(Input::file(path).bytes().ok()?);
    for _ in 0..3 {
        let event = records.next()?;
        let summary = Fields::of(event).flatten().find_map(|field| match field {
            (EVENT_SUMMARY, Wire::Bytes(summary)) => Some(summary),
            _ => None,
        });
        for value in summary.into_iter().flat_map(Fields::of).flatten() {
            let (SUMMARY_VALUE, Wire::Bytes(value)) = value else { continue };
            let tag = Fields::of(value).flatten().find_map(|field| match field {
                (VALUE_TAG, Wire::Bytes(tag)) => Some(String::from_utf8_lossy(tag).into_owned()),
                _ => None,
            });
            if tag.is_some() {
                return tag;
            }
        }
    }
    None
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    let mut folders: BTreeMap<PathBuf, Vec<&Input>> = BTreeMap::new();
    for input in inputs {
        let folder = input.path().parent().unwrap_or(Path::new("")).to_owned();
        folders.entry(folder).or_default().push(input);
    }
    let known: Vec<PathBuf> = folders.keys().cloned().collect();
    let mut clock = Clock { start: None, frontier: -1 };
    let (mut events, mut failure) = (0, None);
    let mut folders: Vec<_> = folders
        .into_iter()
        .map(|(folder, inputs)| {
            let mut files: Vec<_> = inputs.into_iter().map(|input| (first_time(input), input)).collect();
            // In the order they were begun, which is that of their names unless they were renamed.
            files.sort_by(|a, b| a.0.total_cmp(&b.0));
            (folder, files)
        })
        .collect();
    folders.sort_by(|a, b| earliest(&a.1).total_cmp(&earliest(&b.1)));
    for (folder, files) in folders {
        let is_below = folder.parent().is_some_and(|parent| known.iter().any(|other| other == parent));
        let mut reader = Reader {
            builder: &mut *builder,
            clock: &mut clock,
            role: Role::of(folder_name(&folder), is_below),
            ids: HashMap::new(),
            tags: Vec::new(),
            unread: 0,
        };
        for (_, input) in &files {
            let read = reader.file(input);
            match read {
                Ok(read) => events += read,
                Err(e) => failure = Some(e),
            }
        }
        let unread = reader.unread;
        if unread > 0 {
            builder.note(format!(
                "`{}`: {unread} events could not be read and were passed over",
                folder.display()
            ));
        }
        // Lightning's logger puts what was declared beside its events.
        if let Some(file) = files.first().and_then(|(_, input)| input.beside("hparams.yaml")) {
            yaml::declare(&file, builder);
        }
    }
    let first = inputs.first().map_or(Path::new(""), Input::path);
    match failure {
        _ if events > 0 => Ok(()),
        Some(failure) => Err(failure),
        None => Err(LogError::content(first, "no event could be read")),
    }
}

fn earliest(files: &[(f64, &Input)]) -> f64 {
    files.first().map_or(f64::INFINITY, |(time, _)| *time)
}

/// When a file was begun.
fn first_time(input: &Input) -> f64 {
    let Ok(bytes) = input.bytes() else { return f64::INFINITY };
    let mut records = Records::new(bytes);
    let event = records.next().unwrap_or_default();
    let time = Fields::of(event).flatten().find_map(|field| match field {
        (EVENT_WALL_TIME, Wire::Fixed64(bits)) => Some(f64::from_bits(bits)),
        _ => None,
    });
    time.filter(|time| time.is_finite()).unwrap_or(f64::INFINITY)
}

/// What a folder holds of its run.
enum Role {
    Whole,
    Split(&'static str),
    /// Of `add_scalars`: its name is `<tag>_<key>`.
    Part(String),
    /// Of `add_hparams`: its scalars are the final scores once more, at a step that means nothing.
    Declared,
}

impl Role {
    fn of(name: &str, is_below: bool) -> Self {
        match split(name) {
            Some(split) => Self::Split(split),
            None if !is_below || is_one_of_several(name) => Self::Whole,
            None if is_time(name) => Self::Declared,
            None => Self::Part(name.to_owned()),
        }
    }

    /// The name under which a tag is pushed.
    fn name(&self, tag: &str) -> String {
        let within = |split: &str| {
            let known = tag.strip_prefix(split).is_some_and(|rest| rest.starts_with('/'));
            if known { tag.to_owned() } else { format!("{split}/{tag}") }
        };
        match self {
            Self::Whole | Self::Declared => tag.to_owned(),
            Self::Split(part) => within(part),
            Self::Part(folder) => match key_of(folder, tag) {
                Some(key) => split(key).map_or_else(|| format!("{tag}/{key}"), within),
                None => within(folder),
            },
        }
    }
}

/// The time of the steps. Tags may count different things (updates, epochs): the highest step is followed, and the tag that
/// reached it may take it back.
struct Clock {
    start: Option<f64>,
    frontier: i64,
}

/// Reads the files of one folder.
struct Reader<'a> {
    builder: &'a mut RunBuilder,
    clock: &'a mut Clock,
    role: Role,
    ids: HashMap<Box<[u8]>, usize>,
    tags: Vec<Tag>,
    unread: u64,
}

struct Tag {
    plugin: Plugin,
    target: Target,
    last: i64,
    /// The tag that came after this one the last time: writers log in the same order again and again.
    name: Box<[u8]>,
    follower: usize,
}

/// Who shows a tag.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plugin {
    Unnamed,
    Scalars,
    Text,
    HParams,
    Other,
}

/// Where the values of a tag go.
#[derive(Clone, Copy)]
enum Target {
    /// No value was seen yet.
    Open,
    Column(ColumnId),
    Epoch,
    Nowhere,
}

// Those field numbers that only a reader needs, of Summary.Value and SummaryMetadata.
const VALUE_TENSOR: u32 = 8;
const VALUE_METADATA: u32 = 9;

impl Reader<'_> {
    /// Reads one file and says how many events it has.
    fn file(&mut self, input: &Input) -> Result<u64, LogError> {
        let mut records = Records::new(input.bytes()?);
        let (mut events, mut previous) = (0, 0);
        while let Some(event) = records.next() {
            events += 1;
            if self.event(event, &mut previous).is_err() {
                self.unread += 1;
            }
        }
        if records.gaps > 0 {
            self.builder.note(format!(
                "`{}` is damaged in {} places; what could not be read there was passed over",
                input.path().display(),
                records.gaps
            ));
        }
        Ok(events)
    }

    fn event(&mut self, event: &[u8], previous: &mut usize) -> Result<(), Broken> {
        let (mut time, mut step, mut summary) = (f64::NAN, 0, None);
        let mut restarted = false;
        for field in Fields::of(event) {
            match field? {
                (EVENT_WALL_TIME, Wire::Fixed64(bits)) => time = f64::from_bits(bits),
                (EVENT_STEP, Wire::Varint(value)) => step = value as i64,
                (EVENT_SUMMARY, Wire::Bytes(message)) => summary = Some(message),
                (EVENT_SESSION_LOG, Wire::Bytes(session)) => {
                    restarted = Fields::of(session)
                        .any(|field| matches!(field, Ok((SESSION_STATUS, Wire::Varint(SESSION_START)))));
                }
                _ => {}
            }
        }
        if self.clock.start.is_none() && time.is_finite() {
            self.clock.start = Some(time);
        }
        if restarted {
            self.restart(step);
        }
        let Some(summary) = summary else { return Ok(()) };
        for value in Fields::of(summary) {
            if let (SUMMARY_VALUE, Wire::Bytes(value)) = value? {
                self.value(value, step, time, previous)?;
            }
        }
        Ok(())
    }

    /// A session that starts at a step makes what was measured from that step on void.
    fn restart(&mut self, step: i64) {
        for tag in &self.tags {
            if let Target::Column(column) = tag.target
                && tag.last >= step
            {
                self.builder.forget_from(column, step);
            }
        }
    }

    fn value(&mut self, value: &[u8], step: i64, time: f64, previous: &mut usize) -> Result<(), Broken> {
        let (mut name, mut simple, mut metadata, mut tensor) = (&[][..], None, None, None);
        for field in Fields::of(value) {
            match field? {
                (VALUE_TAG, Wire::Bytes(bytes)) => name = bytes,
                (VALUE_SIMPLE_VALUE, Wire::Fixed32(bits)) => simple = Some(f64::from(f32::from_bits(bits))),
                (VALUE_METADATA, Wire::Bytes(bytes)) => metadata = Some(bytes),
                (VALUE_TENSOR, Wire::Bytes(bytes)) => tensor = Some(bytes),
                _ => {}
            }
        }
        if simple.is_none() && metadata.is_none() && tensor.is_none() {
            return Ok(());
        }
        let Some(at) = self.tag(name, *previous) else { return Ok(()) };
        *previous = at;
        let Some(tag) = self.tags.get_mut(at) else { return Ok(()) };
        if let Some(metadata) = metadata
            && tag.plugin == Plugin::Unnamed
        {
            let (plugin, content) = plugin(metadata)?;
            tag.plugin = plugin;
            if plugin == Plugin::HParams {
                return hparams(content, self.builder);
            }
        }
        let measured = match (simple, tensor, tag.plugin) {
            (Some(value), _, _) => Some(value),
            (None, Some(tensor), Plugin::Scalars | Plugin::Unnamed) => scalar(tensor)?,
            (None, Some(tensor), Plugin::Text) => {
                // A configuration is written once.
                if tag.last == i64::MIN {
                    tag.last = step;
                    declare_text(name, tensor, self.builder)?;
                }
                None
            }
            _ => None,
        };
        let Some(measured) = measured else { return Ok(()) };
        if let Target::Open = tag.target {
            tag.target = match &self.role {
                Role::Declared => Target::Nowhere,
                // Lightning and the Hugging Face trainer log the epoch of a step like a metric.
                _ if name == b"epoch" || name == b"train/epoch" => Target::Epoch,
                role => Target::Column(self.builder.column(&role.name(&String::from_utf8_lossy(name)))),
            };
        }
        match tag.target {
            Target::Column(column) => self.builder.push(column, step, measured),
            Target::Epoch => self.builder.epoch(step, measured),
            Target::Open | Target::Nowhere => return Ok(()),
        }
        if step > self.clock.frontier || (step < self.clock.frontier && tag.last == self.clock.frontier) {
            self.clock.frontier = step;
            if let Some(start) = self.clock.start
                && time >= start
            {
                self.builder.time(step, time - start);
            }
        }
        tag.last = step;
        Ok(())
    }

    /// The place of a tag; `None` where there are too many.
    fn tag(&mut self, name: &[u8], previous: usize) -> Option<usize> {
        if let Some(tag) = self.tags.get(previous)
            && let Some(guess) = self.tags.get(tag.follower)
            && *guess.name == *name
        {
            return Some(tag.follower);
        }
        let at = match self.ids.get(name) {
            Some(&at) => at,
            None if name.len() > LONGEST_TAG || self.tags.len() >= MOST_TAGS => return None,
            None => {
                let at = self.tags.len();
                self.ids.insert(name.into(), at);
                self.tags.push(Tag {
                    plugin: Plugin::Unnamed,
                    target: Target::Open,
                    last: i64::MIN,
                    name: name.into(),
                    follower: 0,
                });
                at
            }
        };
        if let Some(tag) = self.tags.get_mut(previous) {
            tag.follower = at;
        }
        Some(at)
    }
}

/// The plugin that metadata name, and what they hold for it.
fn plugin(metadata: &[u8]) -> Result<(Plugin, &[u8]), Broken> {
    const PLUGIN_DATA: u32 = 1;
    const DATA_CLASS: u32 = 4;
    const DATA_CLASS_SCALAR: u64 = 1;
    let (mut plugin, mut content) = (Plugin::Unnamed, &[][..]);
    for field in Fields::of(metadata) {
        match field? {
            (PLUGIN_DATA, Wire::Bytes(data)) => {
                for field in Fields::of(data) {
                    match field? {
                        (1, Wire::Bytes(name)) => {
                            plugin = match name {
                                b"" => plugin,
                                b"scalars" => Plugin::Scalars,
                                b"text" => Plugin::Text,
                                b"hparams" => Plugin::HParams,
                                _ => Plugin::Other,
                            }
                        }
                        (2, Wire::Bytes(bytes)) => content = bytes,
                        _ => {}
                    }
                }
            }
            (DATA_CLASS, Wire::Varint(DATA_CLASS_SCALAR)) if plugin == Plugin::Other => {
                plugin = Plugin::Scalars
            }
            _ => {}
        }
    }
    Ok((plugin, content))
}

/// The value of a tensor of one number; `None` for any other.
fn scalar(tensor: &[u8]) -> Result<Option<f64>, Broken> {
    let (mut dtype, mut content, mut listed, mut shaped) = (0, &[][..], None, true);
    for field in Fields::of(tensor) {
        match field? {
            (1, Wire::Varint(value)) => dtype = value,
            (2, Wire::Bytes(shape)) => shaped = is_one(shape)?,
            (4, Wire::Bytes(bytes)) => content = bytes,
            (number @ (5..=7 | 10 | 11 | 13 | 16 | 17), value) => listed = Some((number, value)),
            _ => {}
        }
    }
    if !shaped {
        return Ok(None);
    }
    let integer = |value: u64| value as i64 as f64;
    if !content.is_empty() {
        return Ok(match (dtype, content) {
            (1, &[a, b, c, d]) => Some(f64::from(f32::from_le_bytes([a, b, c, d]))),
            (2, &[a, b, c, d, e, f, g, h]) => Some(f64::from_le_bytes([a, b, c, d, e, f, g, h])),
            (3, &[a, b, c, d]) => Some(f64::from(i32::from_le_bytes([a, b, c, d]))),
            (4 | 10, &[a]) => Some(f64::from(a)),
            (5, &[a, b]) => Some(f64::from(i16::from_le_bytes([a, b]))),
            (6, &[a]) => Some(f64::from(a as i8)),
            (9, &[a, b, c, d, e, f, g, h]) => Some(i64::from_le_bytes([a, b, c, d, e, f, g, h]) as f64),
            (14, &[a, b]) => Some(bfloat(u16::from_le_bytes([a, b]))),
            (17, &[a, b]) => Some(f64::from(u16::from_le_bytes([a, b]))),
            (19, &[a, b]) => Some(half(u16::from_le_bytes([a, b]))),
            (22, &[a, b, c, d]) => Some(f64::from(u32::from_le_bytes([a, b, c, d]))),
            (23, &[a, b, c, d, e, f, g, h]) => Some(u64::from_le_bytes([a, b, c, d, e, f, g, h]) as f64),
            _ => None,
        });
    }
    let Some((number, value)) = listed else {
        // No values at all stand for zeros.
        return Ok(matches!(dtype, 1..=6 | 9 | 10 | 14 | 17 | 19 | 22 | 23).then_some(0.0));
    };
    let bits = match value {
        Wire::Varint(value) | Wire::Fixed64(value) => value,
        Wire::Fixed32(value) => u64::from(value),
        Wire::Bytes(packed) => match (number, packed) {
            (5, &[a, b, c, d]) => u64::from(u32::from_le_bytes([a, b, c, d])),
            (6, &[a, b, c, d, e, f, g, h]) => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            (5 | 6, _) => return Ok(None),
            (_, mut packed) => match varint(&mut packed) {
                Some(value) if packed.is_empty() => value,
                _ => return Ok(None),
            },
        },
    };
    Ok(match (dtype, number) {
        (1, 5) => Some(f64::from(f32::from_bits(bits as u32))),
        (2, 6) => Some(f64::from_bits(bits)),
        (3..=6 | 17, 7) | (9, 10) | (10, 11) => Some(integer(bits)),
        (14, 13) => Some(bfloat(bits as u16)),
        (19, 13) => Some(half(bits as u16)),
        (22, 16) | (23, 17) => Some(bits as f64),
        _ => None,
    })
}

/// Whether a shape is that of one number: no dimension, or all of size 1.
fn is_one(shape: &[u8]) -> Result<bool, Broken> {
    for field in Fields::of(shape) {
        let (2, Wire::Bytes(dimension)) = field? else { continue };
        let mut size = 0;
        for field in Fields::of(dimension) {
            if let (1, Wire::Varint(value)) = field? {
                size = value;
            }
        }
        if size != 1 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn bfloat(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

/// A number of 1 + 5 + 10 bits.
fn half(bits: u16) -> f64 {
    let fraction = f64::from(bits & 0x3FF) / 1024.0;
    let size = match i32::from(bits >> 10 & 0x1F) {
        0 => fraction * 2_f64.powi(-14),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1.0 + fraction) * 2_f64.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -size } else { size }
}

/// Declares what the plugin's message says of a session's start.
fn hparams(content: &[u8], builder: &mut RunBuilder) -> Result<(), Broken> {
    const SESSION_START_INFO: u32 = 3;
    for field in Fields::of(content) {
        let (SESSION_START_INFO, Wire::Bytes(start)) = field? else { continue };
        for field in Fields::of(start) {
            let (1, Wire::Bytes(entry)) = field? else { continue };
            let (mut name, mut value) = (String::new(), None);
            for field in Fields::of(entry) {
                match field? {
                    (1, Wire::Bytes(bytes)) => name = String::from_utf8_lossy(bytes).into_owned(),
                    (2, Wire::Bytes(message)) => value = declared(message)?,
                    _ => {}
                }
            }
            if let Some(value) = value {
                // Nested tables are flattened with slashes.
                builder.declare(&name.replace('/', "."), &value);
            }
        }
    }
    Ok(())
}

/// A `google.protobuf.Value` that is no table.
fn declared(message: &[u8]) -> Result<Option<Value>, Broken> {
    let mut value = None;
    for field in Fields::of(message) {
        value = match field? {
            (6, Wire::Bytes(list)) => {
                let mut elements = Vec::new();
                for field in Fields::of(list) {
                    let (1, Wire::Bytes(element)) = field? else { continue };
                    for field in Fields::of(element) {
                        elements.extend(plain(field?));
                    }
                }
                Some(Value::Array(elements))
            }
            field => plain(field).or(value),
        };
    }
    Ok(value)
}

/// A number, text or flag.
fn plain(field: (u32, Wire<'_>)) -> Option<Value> {
    match field {
        (1, Wire::Varint(_)) => Some(Value::Null),
        (2, Wire::Fixed64(bits)) => {
            let number = f64::from_bits(bits);
            // The message knows no whole numbers, configurations do.
            let whole = number.fract() == 0.0 && number.abs() < 2_f64.powi(53);
            Some(if whole { Value::from(number as i64) } else { Value::from(number) })
        }
        (3, Wire::Bytes(text)) => Some(Value::from(String::from_utf8_lossy(text))),
        (4, Wire::Varint(flag)) => Some(Value::from(flag != 0)),
        _ => None,
    }
}

/// Declares a text that is a JSON object or a Markdown table of two columns: the ways in which a configuration is logged.
fn declare_text(tag: &[u8], tensor: &[u8], builder: &mut RunBuilder) -> Result<(), Broken> {
    const STRING_VAL: u32 = 8;
    let mut text = None;
    for field in Fields::of(tensor) {
        if let (STRING_VAL, Wire::Bytes(bytes)) = field?
            && text.is_none()
            && bytes.len() <= LONGEST_TEXT
        {
            text = Some(bytes);
        }
    }
    let Some(text) = text.map(String::from_utf8_lossy) else { return Ok(()) };
    let text = text.trim();
    let tag = String::from_utf8_lossy(tag);
    // PyTorch's `add_text` adds this to the tag.
    let name = tag.strip_suffix("/text_summary").unwrap_or(&tag).replace('/', ".");
    if text.starts_with('{') {
        if let Ok(value @ Value::Object(_)) = json::parse(text.as_bytes()) {
            builder.declare(&name, &value);
        }
        return Ok(());
    }
    let rows = || text.lines().filter_map(row);
    // The second row divides the names of the columns from their content.
    if rows().nth(1).is_some_and(|(a, b)| [a, b].iter().all(|cell| cell.trim_matches([':', '-']).is_empty()))
    {
        for (key, value) in rows().skip(2) {
            builder.declare(&format!("{name}.{key}"), &cell(value));
        }
    }
    Ok(())
}

fn row(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.trim().strip_prefix('|')?.strip_suffix('|')?.split_once('|')?;
    Some((key.trim(), value.trim()))
}

/// A value as Python prints it.
fn cell(text: &str) -> Value {
    match text {
        "True" => Value::Bool(true),
        "False" => Value::Bool(false),
        "None" => Value::Null,
        _ => match json::parse(text.as_bytes()) {
            Ok(value @ (Value::Number(_) | Value::Bool(_) | Value::Array(_))) => value,
            _ => Value::from(text),
        },
    }
}

/// The length of the record that starts here; `None` where none does.
#[inline]
fn record_length(bytes: &[u8]) -> Option<u64> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (expected, _) = rest.split_first_chunk::<4>()?;
    let number = u64::from_le_bytes(*length);
    // Nobody writes an empty record or one of 2^40 bytes, and a checksum takes longer than this does.
    let is_plausible = number.wrapping_sub(1) < 1 << 40;
    (is_plausible && masked_crc(length) == u32::from_le_bytes(*expected)).then_some(number)
}

/// The records of a file.
///
/// After a damaged one the next is searched for: a place where a length has the right checksum.
struct Records {
    reader: Box<dyn BufRead>,
    /// Bytes `start..end` are read and not yet given out.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    searching: bool,
    /// Damaged places.
    gaps: u64,
}

impl Records {
    fn new(reader: Box<dyn BufRead>) -> Self {
        Self { reader, buffer: Vec::new(), start: 0, end: 0, ended: false, searching: false, gaps: 0 }
    }

    /// The content of the next record; `None` at the end, also where the last record is incomplete.
    fn next(&mut self) -> Option<&[u8]> {
        let content = loop {
            self.fill(HEADER)?;
            let Some(length) = self.buffer.get(self.start..self.end).and_then(record_length) else {
                self.search();
                continue;
            };
            if length > LONGEST_RECORD {
                self.searching = false;
                self.skip(length + (HEADER + FOOTER) as u64)?;
                continue;
            }
            let length = length as usize;
            self.fill(HEADER + length + FOOTER)?;
            let content = self.start + HEADER..self.start + HEADER + length;
            let expected = self.buffer.get(content.end..)?.first_chunk::<FOOTER>()?;
            if masked_crc(self.buffer.get(content.clone())?) == u32::from_le_bytes(*expected) {
                self.searching = false;
                self.start = content.end + FOOTER;
                break content;
            }
            self.search();
        };
        self.buffer.get(content)
    }

    fn search(&mut self) {
        if !self.searching {
            self.searching = true;
            self.gaps += 1;
        }
        self.start += 1;
    }

    /// Sees to it that this many bytes are there; `None` where the file ends before them.
    #[inline]
    fn fill(&mut self, needed: usize) -> Option<()> {
        if self.end - self.start < needed { self.refill(needed) } else { Some(()) }
    }

    fn refill(&mut self, needed: usize) -> Option<()> {
        // `needed` is bounded by the longest record.
        if self.buffer.len() < needed.max(BLOCK) {
            let mut larger = vec![0; needed.max(BLOCK)];
            let rest = self.buffer.get(self.start..self.end)?;
            larger.get_mut(..rest.len())?.copy_from_slice(rest);
            self.buffer = larger;
        } else {
            self.buffer.copy_within(self.start..self.end, 0);
        }
        self.end -= self.start;
        self.start = 0;
        while self.end < needed && !self.ended {
            match self.reader.read(self.buffer.get_mut(self.end..)?) {
                Ok(0) => self.ended = true,
                Ok(read) => self.end += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // As good as the end: what was read until here counts.
                Err(_) => self.ended = true,
            }
        }
        (self.end >= needed).then_some(())
    }

    /// Passes over bytes; `None` where the file ends before them.
    fn skip(&mut self, mut bytes: u64) -> Option<()> {
        while bytes > 0 {
            self.fill(1)?;
            let step = ((self.end - self.start) as u64).min(bytes);
            self.start += step as usize;
            bytes -= step;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trimtab_signals::Run;

    use super::*;
    use crate::read_bytes;

    const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens");

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut message = vec![number << 3 | 2];
        let mut length = content.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(content);
        message
    }

    fn record(event: &[u8]) -> Vec<u8> {
        let length = (event.len() as u64).to_le_bytes();
        [&length[..], &masked_crc(&length).to_le_bytes(), event, &masked_crc(event).to_le_bytes()].concat()
    }

    fn event(step: u8, rest: &[u8]) -> Vec<u8> {
        let time = (1.7e9 + f64::from(step)).to_le_bytes();
        record(&[&[0x09][..], &time, &[0x10, step], rest].concat())
    }

    fn version() -> Vec<u8> {
        event(0, &field(3, b"brain.Event:2"))
    }

    fn simple(step: u8, tag: &str, value: f32) -> Vec<u8> {
        let value = [&field(1, tag.as_bytes())[..], &[0x15], &value.to_le_bytes()].concat();
        event(step, &field(5, &field(1, &value)))
    }

    fn restart(step: u8) -> Vec<u8> {
        event(step, &field(7, &[0x08, 0x01]))
    }

    fn file(records: &[Vec<u8>]) -> Vec<u8> {
        [vec![version()], records.to_vec()].concat().concat()
    }

    fn run_of(bytes: &[u8]) -> Run {
        read_bytes(FORMAT.id, "events.out.tfevents.1", bytes).expect("a run")
    }

    #[track_caller]
    fn check(bytes: &[u8], tag: &str, expected: &[(u64, f64)]) {
        let run = run_of(bytes);
        let found: Vec<_> = run.logged(tag).map(|column| column.iter().collect()).unwrap_or_default();
        assert_eq!(found, expected, "{:?}", run.notes);
    }

    fn read_folder(folder: &str) -> Run {
        let mut inputs = Vec::new();
        let mut pending = vec![Path::new(GOLDENS).join("tensorboard_events").join(folder)];
        while let Some(folder) = pending.pop() {
            for entry in fs::read_dir(folder).expect("the goldens are there") {
                let path = entry.expect("an entry").path();
                if path.is_dir() { pending.push(path) } else { inputs.push(Input::file(path)) }
            }
        }
        inputs.sort_by(|a, b| a.path().cmp(b.path()));
        let mut builder = RunBuilder::new();
        read(&inputs, &mut builder).expect("a run");
        builder.finish(folder, FORMAT.id)
    }

    fn golden() -> Value {
        let text =
            fs::read_to_string(format!("{GOLDENS}/tensorboard_events.json")).expect("the golden is there");
        serde_json::from_str(&text).expect("JSON")
    }

    fn number(value: &Value) -> f64 {
        value.as_f64().or_else(|| value.as_str()?.parse().ok()).expect("a number")
    }

    /// Holds a column against what TensorBoard reads under a tag of a folder.
    #[track_caller]
    fn check_golden(run: &Run, column: &str, expected: &Value) {
        let found = run.logged(column).unwrap_or_else(|| panic!("no column {column}: {:?}", run.trace));
        let expected: Vec<_> = expected.as_array().expect("a list").iter().collect();
        assert_eq!(found.len(), expected.len(), "{column}");
        for ((step, value), expected) in found.iter().zip(expected) {
            assert_eq!(Some(step), expected[0].as_u64(), "{column}");
            assert_eq!(
                value.to_bits() | sign(value),
                number(&expected[1]).to_bits() | sign(value),
                "{column}, {step}"
            );
        }
    }

    /// `NaN` has a sign, which nobody means.
    fn sign(value: f64) -> u64 {
        if value.is_nan() { 1 << 63 } else { 0 }
    }

    #[test]
    fn a_run_of_pytorch_is_read_as_tensorboard_reads_it() {
        let (run, golden) = (read_folder("torch"), golden());
        let scalars = |folder: &str| golden[folder]["scalars"].as_object().expect("a table").clone();
        for (tag, expected) in scalars("torch") {
            if tag == "epoch" {
                assert_eq!(run.trace.epochs().last(), Some((19, 3.0)));
            } else {
                check_golden(&run, &tag, &expected);
            }
        }
        // What add_scalars wrote, with its folder's part of the run.
        check_golden(&run, "train/Dice/mean", &scalars("torch/Dice_mean_train")["Dice/mean"]);
        check_golden(&run, "val/Dice/mean", &scalars("torch/Dice_mean_val")["Dice/mean"]);
        check_golden(&run, "Dice/mean/b", &scalars("torch/Dice_mean_b")["Dice/mean"]);
        assert_eq!(run.trace.times().last(), Some((19, 9.5)));
        assert!(run.notes.is_empty(), "{:?}", run.notes);
    }

    #[test]
    fn what_pytorch_declares_is_declared() {
        let run = read_folder("torch");
        let declared: Vec<_> = run.facts.iter().map(|(name, value)| (name, value.to_string())).collect();
        for value in ["0.001", "8", "4", r#""adamw""#, r#""u_net""#, "3"] {
            assert!(
                declared.iter().any(|(_, known)| known == value || known.contains(value)),
                "{value}: {declared:?}"
            );
        }
    }

    #[test]
    fn a_run_of_keras_is_read_as_tensorboard_reads_it() {
        let (run, golden) = (read_folder("keras"), golden());
        for (folder, split) in [("keras/train", "train"), ("keras/validation", "val")] {
            for (tag, expected) in golden[folder]["scalars"].as_object().expect("a table") {
                check_golden(&run, &format!("{split}/{tag}"), expected);
            }
        }
        for (name, expected) in golden["keras/train"]["hparams"].as_object().expect("a table") {
            let same = |value: &Value| match (value.as_f64(), expected.as_f64()) {
                (Some(a), Some(b)) => a == b,
                _ => value == expected,
            };
            assert!(run.facts.iter().any(|(key, value)| key.ends_with(name) || same(value)), "{name}");
        }
    }

    #[test]
    fn every_type_of_number_is_read_as_tensorboard_reads_it() {
        let (run, golden) = (read_folder("keras/dtypes"), golden());
        let expected = golden["keras/dtypes"]["scalars"].as_object().expect("a table");
        assert_eq!(expected.len(), 22);
        for (tag, expected) in expected {
            check_golden(&run, tag, expected);
        }
        assert_eq!(run.trace.names().count(), 22, "neither rows nor curves");
    }

    #[test]
    fn halves_are_those_of_ieee_754() {
        for (bits, expected) in [
            (0x0001, 2_f64.powi(-24)),
            (0x03FF, 1023.0 / 1024.0 * 2_f64.powi(-14)),
            (0x3555, 0.333251953125),
            (0x7BFF, 65504.0),
            (0xFC00, f64::NEG_INFINITY),
        ] {
            assert_eq!(half(bits), expected);
        }
        assert!(half(0x7E00).is_nan());
    }

    #[test]
    fn an_incomplete_record_at_the_end_is_left_out_silently() {
        let whole = file(&[simple(1, "a", 1.0), simple(2, "a", 2.0)]);
        let first = file(&[simple(1, "a", 1.0)]).len();
        for length in first..whole.len() {
            check(&whole[..length], "a", &[(1, 1.0)]);
            assert!(run_of(&whole[..length]).notes.is_empty());
        }
        check(&whole, "a", &[(1, 1.0), (2, 2.0)]);
    }

    #[test]
    fn damaged_records_are_passed_over_and_noted() {
        let (first, second, third) = (simple(1, "a", 1.0), simple(2, "a", 2.0), simple(3, "a", 3.0));
        for at in 0..second.len() {
            let mut damaged = second.clone();
            damaged[at] ^= 0x10;
            let bytes = file(&[first.clone(), damaged, third.clone()]);
            check(&bytes, "a", &[(1, 1.0), (3, 3.0)]);
            assert_eq!(run_of(&bytes).notes.len(), 1);
        }
        // A stretch that was never written, and a writer that was cut off before another one went on.
        let zeros = file(&[first.clone(), vec![0; 1000], third.clone()]);
        check(&zeros, "a", &[(1, 1.0), (3, 3.0)]);
        let cut = file(&[first, second[..20].to_vec(), third.clone(), third]);
        check(&cut, "a", &[(1, 1.0), (3, 3.0)]);
    }

    #[test]
    fn long_records_are_passed_over_and_their_length_reserves_nothing() {
        let image = event(2, &field(5, &vec![0; LONGEST_RECORD as usize + 1]));
        check(&file(&[simple(1, "a", 1.0), image, simple(3, "a", 3.0)]), "a", &[(1, 1.0), (3, 3.0)]);
        let length = (1_u64 << 39).to_le_bytes();
        let header = [&length[..], &masked_crc(&length).to_le_bytes()].concat();
        check(&file(&[simple(1, "a", 1.0), header, simple(3, "a", 3.0)]), "a", &[(1, 1.0)]);
    }

    #[test]
    fn a_session_that_starts_at_a_step_replaces_what_was_measured_from_there() {
        let scalars = [1, 2, 3].map(|step| simple(step, "a", f32::from(step)));
        let resumed = [&scalars[..], &[simple(3, "b", 1.0), restart(2), simple(2, "a", 7.0)]].concat();
        check(&file(&resumed), "a", &[(1, 1.0), (2, 7.0)]);
        check(&file(&resumed), "b", &[]);
        // Without the mark, going back says the same.
        let back = [&scalars[..], &[simple(2, "a", 7.0)]].concat();
        check(&file(&back), "a", &[(1, 1.0), (2, 7.0)]);
    }

    #[test]
    fn times_follow_the_tag_that_counts_furthest() {
        let bytes = file(&[simple(50, "loss", 1.0), simple(1, "val", 1.0), simple(100, "loss", 1.0)]);
        let run = run_of(&bytes);
        assert_eq!(run.trace.times().iter().collect::<Vec<_>>(), [(50, 50.0), (100, 100.0)]);
    }

    #[test]
    fn event_files_are_recognised_and_other_records_are_not() {
        let judge = |name: &str, head: &[u8]| {
            let text = std::str::from_utf8(head).ok();
            recognise(&Peek { path: Path::new(name), head, complete: true, text })
        };
        assert_eq!(judge("x", &version()), Some(Certainty::Sure));
        assert_eq!(judge("x", &record(b"\x0a\x03abc")), None, "a record of samples");
        assert_eq!(judge("events.out.tfevents.1", &simple(1, "a", 1.0)), Some(Certainty::Generic));
        assert_eq!(judge("events.out.tfevents.1", b"nothing of the kind"), None);
        assert_eq!(judge("events.out.tfevents.1", b""), None);
    }

    #[test]
    fn folders_of_parts_belong_to_the_run_above_them() {
        let events = Path::new(GOLDENS).join("tensorboard_events");
        for (folder, expected) in [
            ("torch", 0),
            ("torch/Dice_mean_val", 1),
            ("torch/1700000100.25", 1),
            ("torch/nothing_here", 0),
            ("keras/train", 1),
            ("keras/validation", 1),
            ("run/tensorboard", 1),
            ("run/tensorboard/val", 2),
            ("runs/some_run", 0),
        ] {
            let path = events.join(folder).join("events.out.tfevents.1700000000.host");
            assert_eq!(depth(&path), expected, "{folder}");
        }
        assert_eq!(depth(Path::new("events.out.tfevents.1")), 0);
    }

    #[test]
    fn tables_in_markdown_are_rows_of_two_cells() {
        assert_eq!(row("| a | b |"), Some(("a", "b")));
        assert_eq!(row("|a|"), None);
        assert_eq!(cell("True"), Value::Bool(true));
        assert_eq!(cell("1e-3"), Value::from(1e-3));
        assert_eq!(cell("u_net"), Value::from("u_net"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_fall_over(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_bytes(FORMAT.id, "x", &bytes);
            // And none within a record that is whole.
            let _ = read_bytes(FORMAT.id, "x", &record(&bytes));
            let _ = read_bytes(FORMAT.id, "x", &event(1, &field(5, &field(1, &bytes))));
            let _ = scalar(&bytes);
            let _ = hparams(&bytes, &mut RunBuilder::new());
            let _ = plugin(&bytes);
        }

        #[test]
        fn no_change_of_a_file_makes_the_reader_fall_over(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
            length in any::<prop::sample::Index>(),
        ) {
            let mut bytes = fs::read(format!("{GOLDENS}/tensorboard_events/keras/train/events.out.tfevents.1700000000.host"))?;
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(length.index(bytes.len() + 1));
            let _ = read_bytes(FORMAT.id, "x", &bytes);
        }
    }
}
