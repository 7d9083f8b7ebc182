//! Text that a training program printed, in no particular form: its standard output, a logger's file.
//!
//! The file is read twice. The first time finds out how the log counts (iterations, epochs, both, neither; anew in each epoch
//! or not) and which keys come again and again, which makes them series; the second time takes the series. What the head of
//! the log says once (`batch_size: 16`) is declared.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use regex::Regex;
use serde_json::Value;
use trimtab_signals::keys;

use super::{Certainty, Format, Layout, Peek};
use crate::builder::{ColumnId, RunBuilder};
use crate::error::LogError;
use crate::input::Input;
use crate::key_values::{
    self, Item, Position, Split, has_no_split, is_metric, is_noise, is_of_the_past, number, scan,
};
use crate::log_line::{Clock, Ending, Stamp, each_line, time_and_message, without_colours};
use crate::python;

/// Keys that are told apart; a log with more has keys made of data.
const MOST_KEYS: usize = 4096;
/// Declared values taken from the head of a log.
const MOST_DECLARED: usize = 400;
/// Lines that count as the head while no position was found.
const LONGEST_HEAD: u64 = 5_000;

pub(crate) static FORMAT: Format = Format {
    id: "text",
    summary: "Anything that prints keys and values: output of a script, a logger's file",
    recognise,
    read,
    layout: Layout::File,
    rank: 10,
    depth,
};

/// W&B keeps the output of a run in `run-…/files/output.log`.
fn depth(path: &Path) -> usize {
    let name = |path: Option<&Path>| -> String {
        path.and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let folder = path.parent();
    let above = name(folder.and_then(Path::parent));
    usize::from(name(folder) == "files" && (above.starts_with("run-") || above.starts_with("offline-run-")))
}

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    let text = peek.text?;
    let name = peek.name();
    // Not even as a last resort: code, tables and structured data also hold keys and numbers.
    let other = [
        ".json", ".jsonl", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".csv", ".tsv", ".py", ".ipynb",
        ".html", ".xml", ".svg", ".rs", ".sh", ".js", ".tex", ".bib", ".lock", ".patch", ".md", ".rst",
    ];
    if other.iter().any(|ending| name.ends_with(ending)) || text.contains('\0') {
        return None;
    }
    let start = text.trim_start();
    if start.starts_with("{\"")
        || start.starts_with("{\n")
        || start.starts_with("[{")
        || start.starts_with('<')
    {
        return None;
    }
    let mut ending = Ending::default();
    let declared_only = ["name.txt", "requirements.txt", "source.txt", "readme.txt", "license.txt"];
    let mut measured = false;
    for line in text.split(['\n', '\r']).take(3_000) {
        let line = without_colours(line.into());
        let (_, message) = time_and_message(&line);
        if ending.look(message) {
            continue;
        }
        measured |= scan(message).iter().any(|item| match item {
            Item::Number(n) => !n.key.is_empty() && key_values::position(n.key).is_none() && is_metric(n.key),
            Item::List { key, .. } => is_metric(key),
            _ => false,
        });
        if measured {
            break;
        }
    }
    ((measured && !declared_only.contains(&name.as_str())) || ending.is_known())
        .then_some(Certainty::Fallback)
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    for input in inputs {
        let mut survey = Survey::default();
        each_line(input, |line, whole| survey.line(line, whole))?;
        let lines = survey.reader.lines;
        let plan = Plan::new(survey, builder);
        let mut second = Second::new(&plan, builder);
        each_line(input, |line, whole| second.line(line, whole))?;
        second.finish();
        if builder.is_empty() && builder.facts().iter().next().is_none() {
            let reason =
                if lines == 0 { "the file is empty" } else { "no measurement and no error text in it" };
            return Err(LogError::content(input.path(), reason));
        }
    }
    Ok(())
}

/// Longest printed arguments that are read, in bytes: a line may have many times as many.
const LONGEST_ARGUMENTS: usize = 1 << 20;

/// Where a line prints a program's arguments: `Namespace(lr=0.1, …)`.
fn arguments_at(line: &str) -> Option<usize> {
    static NAMES: LazyLock<[Finder<'_>; 2]> =
        LazyLock::new(|| ["Namespace(", "Hyperparameters("].map(Finder::new));
    NAMES.iter().find_map(|name| name.find(line.as_bytes()))
}

fn arguments(line: &str) -> Option<serde_json::Map<String, Value>> {
    let literal = line.get(arguments_at(line)?..)?;
    match python::literal(&literal[..literal.floor_char_boundary(LONGEST_ARGUMENTS)])? {
        (Value::Object(arguments), _) => Some(arguments),
        _ => None,
    }
}

/// What a key is, found out once.
#[derive(Clone, Copy, Debug)]
struct Key {
    position: Option<(Position, bool)>,
    split: Option<Split>,
    metric: bool,
    noise: bool,
    /// Of an earlier value.
    past: bool,
    /// Never of one split, such as the learning rate.
    whole: bool,
}

/// A count and its total, `3/50`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Count {
    at: f64,
    of: Option<f64>,
}

impl Count {
    fn new(at: f64, of: Option<f64>) -> Option<Self> {
        ((0.0..1e15).contains(&at) && of.is_none_or(|of| of < 1e15)).then_some(Self { at, of })
    }
}

/// A value on a line.
#[derive(Debug)]
struct Measure {
    key: usize,
    split: Split,
    value: f64,
    /// By custom the mean since the start of the epoch.
    average: Option<f64>,
    /// The values of a list, of which `value` is the mean.
    parts: Vec<f64>,
}

/// What a line says.
#[derive(Debug, Default)]
struct Line {
    stamp: Option<Stamp>,
    epoch: Option<Count>,
    /// A named iteration.
    iteration: Option<Count>,
    /// An unnamed `[10/390]`.
    counter: Option<Count>,
    bar: Option<Count>,
    measures: Vec<Measure>,
    /// `key: value` pairs that might be declarations.
    declared: Vec<(String, Value)>,
    validation: bool,
    /// Part of an error text.
    error: bool,
}

impl Line {
    fn is_positioned(&self) -> bool {
        self.epoch.is_some() || self.iteration.is_some() || self.counter.is_some() || self.bar.is_some()
    }
}

/// Reads lines: both passes do the same here.
#[derive(Default)]
struct Reader {
    ids: HashMap<String, usize>,
    keys: Vec<Key>,
    names: Vec<String>,
    /// The split that a header gave to the lines below it.
    block: Split,
    ending: Ending,
    lines: u64,
    in_head: bool,
    overflown: bool,
}

impl Reader {
    fn key(&mut self, key: &str) -> Option<usize> {
        if let Some(&at) = self.ids.get(key) {
            return Some(at);
        }
        if self.keys.len() >= MOST_KEYS {
            self.overflown = true;
            return None;
        }
        let at = self.keys.len();
        self.keys.push(Key {
            position: key_values::position(key),
            split: Split::of_key(key),
            metric: is_metric(key),
            noise: is_noise(key),
            past: is_of_the_past(key),
            whole: has_no_split(key),
        });
        self.names.push(key.to_owned());
        self.ids.insert(key.to_owned(), at);
        Some(at)
    }

    fn line(&mut self, line: &str, whole: bool) -> Line {
        self.lines += 1;
        let (stamp, message) = time_and_message(line);
        let mut found = Line { stamp, ..Line::default() };
        // W&B repeats the last values at the end.
        if self.ending.look(message)
            || !whole
            || message.starts_with("wandb: ")
            || arguments_at(message).is_some()
        {
            found.error = true;
            return found;
        }
        let items = scan(message);
        if items.is_empty() {
            return found;
        }
        let mut split = Split::Unknown;
        let (mut splits, mut epoch_bar, mut dump, mut past) = (Vec::new(), false, false, false);
        // Positions that count only beside a measurement: plurals are more often declared totals.
        let (mut weak_epoch, mut weak_iteration) = (None, None);
        let mut put = |slot: &mut Option<Count>, count: Option<Count>| {
            // A line with two epochs is a dump of a history.
            dump |= slot.is_some_and(|known| count.is_some_and(|count| count != known));
            *slot = count.or(*slot);
        };
        for item in &items {
            match item {
                Item::Words(text) => {
                    for word in text.split(|c: char| !c.is_alphanumeric() && c != '_') {
                        if let Some(named) = Split::of_word(word) {
                            split = named;
                            splits.push(named);
                        }
                        epoch_bar |=
                            word.eq_ignore_ascii_case("epoch") || word.eq_ignore_ascii_case("epochs");
                    }
                }
                Item::Text { key, value } => {
                    for word in key_values::words(key) {
                        if let Some(named) = Split::of_word(word) {
                            split = named;
                            splits.push(named);
                        }
                    }
                    if self.in_head && found.declared.len() < 64 {
                        found.declared.push(((*key).to_owned(), scalar(value)));
                    }
                }
                Item::List { key, values } => {
                    if let Some(at) = self.key(key)
                        && !self.keys[at].noise
                    {
                        let info = self.keys[at];
                        if let Some(named) = info.split {
                            split = named;
                        }
                        found.measures.push(Measure {
                            key: at,
                            split: if info.split.is_some() || info.whole { Split::Unknown } else { split },
                            value: mean(values),
                            average: None,
                            parts: values.clone(),
                        });
                    }
                }
                Item::Number(n) if n.key.is_empty() => {
                    let count = Count::new(n.value, n.total);
                    if n.bar {
                        put(&mut found.bar, count);
                    } else if n.total.is_some() {
                        // `[3/50][10/390]`
                        match n.counter {
                            Some((value, total)) => {
                                put(&mut found.epoch, count);
                                put(&mut found.iteration, Count::new(value, total));
                            }
                            None => put(&mut found.counter, count),
                        }
                    } else {
                        weak_iteration = count;
                    }
                }
                Item::Number(n) => {
                    let Some(at) = self.key(n.key) else { continue };
                    let info = self.keys[at];
                    let evaluation = matches!(split, Split::Validation | Split::Test)
                        || matches!(info.split, Some(Split::Validation | Split::Test));
                    if let Some((position, plural)) = info.position {
                        if let Some(named) = info.split {
                            split = named;
                            splits.push(named);
                        }
                        let count = Count::new(n.value, n.total);
                        let counter = n.counter.and_then(|(value, total)| Count::new(value, total));
                        match position {
                            Position::Epoch if plural && n.total.is_none() => weak_epoch = count,
                            Position::Epoch => {
                                put(&mut found.epoch, count);
                                if !evaluation && counter.is_some() {
                                    put(&mut found.iteration, counter);
                                }
                            }
                            // How far an evaluation has come is no position of training.
                            Position::Iteration if evaluation => {}
                            Position::Iteration if plural && n.total.is_none() => weak_iteration = count,
                            Position::Iteration | Position::Step => put(&mut found.iteration, count),
                        }
                        if plural && self.in_head {
                            found.declared.push((n.key.to_owned(), whole_number(n.value)));
                        }
                        continue;
                    }
                    if let Some(named) = Split::of_word(n.key)
                        && (n.total.is_some() || n.counter.is_some())
                    {
                        // `Train: [0/50]`, `Train: 0 [10/390]`, `Test: [10/196]`
                        split = named;
                        splits.push(named);
                        if named == Split::Train {
                            let count = Count::new(n.value, n.total);
                            match n.counter {
                                Some((value, total)) => {
                                    put(&mut found.epoch, count);
                                    put(&mut found.iteration, Count::new(value, total));
                                }
                                None => put(&mut found.counter, count),
                            }
                        }
                        continue;
                    }
                    if self.in_head && n.separated && n.total.is_none() && found.declared.len() < 64 {
                        found.declared.push((n.key.to_owned(), whole_number(n.value)));
                    }
                    // `Previous best Dice: 0.3, IoU: 0.2`: both are of the past.
                    past |= info.past;
                    if info.noise || past {
                        continue;
                    }
                    if let Some(named) = info.split {
                        split = named;
                    }
                    let value = match n.total {
                        // `Accuracy: 9850/10000`
                        Some(total) if info.metric => n.value / total,
                        Some(_) => continue,
                        None => n.value,
                    };
                    found.measures.push(Measure {
                        key: at,
                        split: if info.split.is_some() || info.whole { Split::Unknown } else { split },
                        value,
                        average: n.average.filter(|_| n.total.is_none()),
                        parts: Vec::new(),
                    });
                }
            }
        }
        if dump {
            return Line { stamp, ..Line::default() };
        }
        let metric = found.measures.iter().any(|m| self.keys[m.key].metric);
        if metric {
            found.epoch = found.epoch.or(weak_epoch);
            found.iteration = found.iteration.or(weak_iteration);
        }
        if epoch_bar
            && found.epoch.is_none()
            && let Some(bar) = found.bar.take()
        {
            found.epoch = Some(bar);
        }
        found.validation = matches!(split, Split::Validation | Split::Test);
        self.blocks(&mut found, &splits);
        // AlgoPerf's `score` is the time used so far.
        if found.measures.len() > 2
            && let Some(&score) = self.ids.get("score")
            && self.ids.contains_key("preemption_count")
        {
            found.measures.retain(|m| m.key != score);
        }
        found
    }

    /// Headers such as `***** Evaluation on val *****` name the split of the lines below, until training goes on.
    fn blocks(&mut self, found: &mut Line, splits: &[Split]) {
        let evaluation = |split: &Split| matches!(split, Split::Validation | Split::Test);
        if found.measures.is_empty() {
            if let Some(&first) = splits.first() {
                let unambiguous = splits.iter().all(|split| *split == first);
                self.block = if unambiguous && evaluation(&first) { first } else { Split::Unknown };
            } else if found.is_positioned() {
                self.block = Split::Unknown;
            }
            return;
        }
        if !splits.is_empty() || found.measures.iter().any(|m| self.keys[m.key].split == Some(Split::Train)) {
            self.block = Split::Unknown;
        }
        if self.block == Split::Unknown {
            return;
        }
        if found.iteration.is_some() && !found.validation {
            self.block = Split::Unknown;
            return;
        }
        found.counter = None;
        found.bar = None;
        found.validation = true;
        for measure in &mut found.measures {
            let info = self.keys[measure.key];
            if measure.split == Split::Unknown && info.split.is_none() && !info.whole {
                measure.split = self.block;
            }
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    // A class that is absent is `nan` in a list of classes.
    let (sum, count) =
        values.iter().filter(|v| !v.is_nan()).fold((0.0, 0.0), |(sum, count), v| (sum + v, count + 1.0));
    if count > 0.0 { sum / count } else { f64::NAN }
}

/// A declared text as the value it stands for.
fn scalar(text: &str) -> Value {
    match text {
        "True" | "true" => Value::Bool(true),
        "False" | "false" => Value::Bool(false),
        "None" | "null" | "~" => Value::Null,
        text => number(text).filter(|v| v.is_finite()).map_or_else(|| text.into(), whole_number),
    }
}

fn whole_number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 { Value::from(value as i64) } else { Value::from(value) }
}

/// What the first pass finds out about one counter.
#[derive(Debug, Default)]
struct Track {
    last: Option<(f64, Option<f64>)>,
    least: f64,
    most: f64,
    total: Option<f64>,
    changes: u64,
    /// Decreases when the epoch changed; increases when it did.
    with_epoch: u64,
    across_epochs: u64,
    /// Decreases to where it started, without an epoch.
    restarts: u64,
}

impl Track {
    fn add(&mut self, count: Count, epoch: Option<f64>) {
        if let Some((last, last_epoch)) = self.last {
            let changed = epoch != last_epoch;
            if count.at != last {
                self.changes += 1;
            }
            if changed && count.at <= last {
                self.with_epoch += 1;
            } else if changed {
                self.across_epochs += 1;
            } else if count.at < last && (count.at <= self.least || self.total == Some(last)) {
                self.restarts += 1;
            }
            self.least = self.least.min(count.at);
            self.most = self.most.max(count.at);
        } else {
            (self.least, self.most) = (count.at, count.at);
        }
        self.last = Some((count.at, epoch));
        if let Some(total) = count.of {
            self.total = Some(self.total.map_or(total, |known: f64| known.max(total)));
        }
    }

    /// Whether it counts at all.
    fn counts(&self) -> bool {
        self.changes > 0
    }

    /// Iterations of an epoch where it starts anew in each.
    fn period(&self, epochs: bool) -> Option<f64> {
        let anew = if epochs { self.with_epoch > self.across_epochs } else { self.restarts > 0 };
        let length = self.total.unwrap_or(self.most + if self.least == 0.0 { 1.0 } else { 0.0 });
        (anew && length >= 1.0).then_some(length.max(self.most))
    }
}

/// How often a key came.
#[derive(Clone, Copy, Debug, Default)]
struct Series {
    occurrences: u64,
    positions: u64,
    last: u64,
}

/// The first pass.
#[derive(Default)]
struct Survey {
    reader: Reader,
    series: HashMap<(usize, Split), Series>,
    declared: Vec<(String, Value)>,
    /// Of a printed `Namespace(…)`.
    arguments: serde_json::Map<String, Value>,
    epoch: Track,
    fractional: bool,
    epoch_total: Option<f64>,
    iteration: Track,
    counter: Track,
    /// By the bits of the total.
    bars: HashMap<u64, Track>,
    /// Number of the present position, counted from 1.
    position: u64,
    state: [Option<f64>; 4],
    has_validation: bool,
}

impl Survey {
    fn line(&mut self, line: &str, whole: bool) {
        self.reader.in_head =
            self.declared.len() < MOST_DECLARED && self.position == 0 && self.reader.lines < LONGEST_HEAD;
        if let Some(arguments) = arguments(line) {
            self.arguments.extend(arguments);
        }
        let line = self.reader.line(line, whole);
        let now = self.state[0];
        if let Some(epoch) = line.epoch {
            self.fractional |= epoch.at.fract() != 0.0;
            self.epoch.add(epoch, None);
            if epoch.of.is_some() {
                self.epoch_total = epoch.of;
            }
        }
        let now = line.epoch.map(|e| e.at.floor()).or(now.map(f64::floor));
        if let Some(iteration) = line.iteration {
            self.iteration.add(iteration, now);
        }
        if let Some(counter) = line.counter.filter(|_| !line.validation) {
            self.counter.add(counter, now);
        }
        if let Some(bar) = line.bar.filter(|_| !line.validation)
            && let Some(total) = bar.of
        {
            let total = total.to_bits();
            if self.bars.len() < 64 || self.bars.contains_key(&total) {
                self.bars.entry(total).or_default().add(bar, now);
            }
        }
        let mut state = self.state;
        for (slot, count) in state.iter_mut().zip([line.epoch, line.iteration, line.counter, line.bar]) {
            *slot = count.map(|count| count.at).or(*slot);
        }
        if state != self.state {
            (self.state, self.position) = (state, self.position + 1);
        }
        if !line.declared.is_empty() && !line.is_positioned() {
            self.declared.extend(line.declared);
        }
        for measure in &line.measures {
            self.has_validation |= measure.split == Split::Validation
                || self.reader.keys[measure.key].split == Some(Split::Validation);
            let series = self.series.entry((measure.key, measure.split)).or_default();
            series.occurrences += 1;
            // What comes before the first position belongs to none.
            if self.position != series.last {
                series.positions += 1;
                series.last = self.position;
            }
        }
    }
}

/// Where steps come from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Steps {
    Iterations(Source),
    /// Whole epochs.
    Epochs,
    /// Each new epoch, where epochs are fractions.
    Records,
    /// Each new value of a key, where nothing counts.
    Occurrences,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    Named,
    Counter,
    /// The progress bar with this total.
    Bar(f64),
}

/// What the first pass found out.
struct Plan {
    reader: Reader,
    steps: Steps,
    /// Iterations of an epoch, where they are counted anew in each.
    period: Option<f64>,
    /// Whether the log names epochs, rather than only starting to count anew.
    named_epochs: bool,
    counter_is_epoch: bool,
    first_epoch: f64,
    series: HashSet<(usize, Split)>,
    has_validation: bool,
    least: f64,
}

impl Plan {
    fn new(survey: Survey, builder: &mut RunBuilder) -> Self {
        let named_epochs = survey.epoch.last.is_some();
        let bar = survey
            .bars
            .iter()
            .filter(|(_, track)| track.counts())
            .map(|(total, track)| (f64::from_bits(*total), track))
            .max_by(|(a, _), (b, _)| a.total_cmp(b));
        // `Train: [3/50]` beside `epoch 3`: both are the epoch. Without any epoch and never starting anew it may be either.
        let counter_is_epoch = survey.counter.counts()
            && survey.counter.restarts == 0
            && survey.counter.with_epoch == 0
            && named_epochs
            && (survey.counter.most - survey.epoch.most).abs() <= 1.0;
        let source = if survey.iteration.counts() {
            Some((Source::Named, &survey.iteration))
        } else if survey.counter.counts() && !counter_is_epoch {
            Some((Source::Counter, &survey.counter))
        } else {
            bar.map(|(total, track)| (Source::Bar(total), track))
        };
        let (mut period, mut least) = (None, 0.0);
        let steps = match source {
            Some((source, track)) => {
                period = track.period(named_epochs && !survey.fractional);
                least = track.least;
                let declares = source != Source::Counter;
                match (period, track.total) {
                    (Some(_), Some(total)) if declares => {
                        builder.fact(&keys::RUN_STEPS_PER_EPOCH, whole_number(total));
                    }
                    (None, Some(total)) if declares => {
                        builder.fact(&keys::RUN_STEPS, whole_number(total));
                    }
                    _ => {}
                }
                Steps::Iterations(source)
            }
            None if (named_epochs || counter_is_epoch) && survey.fractional => Steps::Records,
            None if named_epochs || counter_is_epoch => Steps::Epochs,
            None => Steps::Occurrences,
        };
        let total =
            if counter_is_epoch { survey.counter.total.or(survey.epoch_total) } else { survey.epoch_total };
        if let Some(total) = total {
            builder.fact(&keys::RUN_EPOCHS, whole_number(total));
        }
        let short = survey.position <= 2 && survey.position > 0;
        let reader = survey.reader;
        let series: HashSet<(usize, Split)> = survey
            .series
            .iter()
            .filter(|((key, _), series)| {
                let metric = reader.keys[*key].metric;
                match steps {
                    Steps::Occurrences => metric && series.occurrences > 2,
                    // A value before the first position is declared, not measured.
                    _ => series.positions > 1 || (short && metric && series.last > 0),
                }
            })
            .map(|(key, _)| *key)
            .collect();
        for (name, value) in survey.declared {
            let identifier = name.split(' ').count() <= 3 && name.len() <= 60 && !name.contains(['[', '(']);
            // A score that was printed once is not declared.
            let score = is_metric(&name) && !has_no_split(&name);
            let prose = ["of", "the", "to", "from"].iter().any(|word| name.split(' ').any(|w| w == *word));
            if identifier && !prose && !score {
                builder.declare(&name, &value);
            }
        }
        for (name, value) in survey.arguments {
            builder.declare(&name, &value);
        }
        if reader.overflown {
            builder.note(format!("more than {MOST_KEYS} different keys: the later ones were passed over"));
        }
        Self {
            steps,
            period,
            named_epochs: named_epochs && !survey.fractional,
            counter_is_epoch,
            // Epochs are counted from 1 unless an epoch 0 was seen; a resumed run starts later.
            first_epoch: if survey.epoch.last.is_some() && survey.epoch.least >= 1.0 { 1.0 } else { 0.0 },
            series,
            has_validation: survey.has_validation,
            least,
            reader,
        }
    }
}

/// The second pass.
struct Second<'a> {
    plan: &'a Plan,
    builder: &'a mut RunBuilder,
    reader: Reader,
    clock: Clock,
    columns: HashMap<(usize, Split), Target>,
    epoch: Option<f64>,
    /// Epochs counted by restarts, where the log names none.
    implied: f64,
    iteration: Option<f64>,
    records: i64,
    step: i64,
    positioned: bool,
    marked: Option<i64>,
}

/// A column, with the value of the present step held back: of several at one step the last counts.
struct Target {
    column: ColumnId,
    parts: Vec<ColumnId>,
    held: Option<(i64, f64, Vec<f64>)>,
    count: i64,
}

impl<'a> Second<'a> {
    fn new(plan: &'a Plan, builder: &'a mut RunBuilder) -> Self {
        Self {
            plan,
            builder,
            reader: Reader::default(),
            clock: Clock::default(),
            columns: HashMap::new(),
            epoch: None,
            implied: 0.0,
            iteration: None,
            records: -1,
            step: 0,
            positioned: false,
            marked: None,
        }
    }

    fn line(&mut self, line: &str, whole: bool) {
        let line = self.reader.line(line, whole);
        if line.error {
            return;
        }
        let seconds = line.stamp.map(|stamp| self.clock.seconds(stamp));
        self.position(&line);
        let (steps, positioned) = (self.plan.steps, self.positioned);
        if !positioned && steps != Steps::Occurrences {
            return;
        }
        let mut any = false;
        for measure in line.measures {
            any |= self.measure(measure, line.validation);
        }
        if any {
            self.reader.ending.went_on();
            if steps != Steps::Occurrences && self.marked != Some(self.step) {
                self.marked = Some(self.step);
                if let Some(seconds) = seconds {
                    self.builder.time(self.step, seconds);
                }
                if let Some(epoch) = self.epoch {
                    self.builder.epoch(self.step, (epoch - self.plan.first_epoch).max(0.0));
                }
            }
        }
    }

    /// Moves to the position of a line.
    fn position(&mut self, line: &Line) {
        let plan = self.plan;
        let epoch = line.epoch.or(if plan.counter_is_epoch { line.counter } else { None });
        if let Some(epoch) = epoch {
            if self.epoch != Some(epoch.at) {
                self.records += 1;
                if plan.period.is_some() && self.epoch.map(f64::floor) != Some(epoch.at.floor()) {
                    self.iteration = None;
                }
            }
            self.epoch = Some(epoch.at);
            self.positioned = true;
        }
        let Steps::Iterations(source) = plan.steps else {
            self.step = match plan.steps {
                Steps::Records => self.records,
                _ => self.epoch.map_or(0, |epoch| epoch as i64),
            };
            return;
        };
        let count = match source {
            Source::Named => line.iteration,
            Source::Counter => line.counter.filter(|_| !line.validation),
            Source::Bar(total) => line.bar.filter(|bar| bar.of == Some(total) && !line.validation),
        };
        if let Some(count) = count {
            self.positioned = true;
            let last = self.iteration;
            match (plan.period, last) {
                // Other loops of the same epoch count too, such as that of an evaluation.
                (Some(_), Some(last)) if plan.named_epochs && count.at < last => {}
                (Some(period), Some(last)) if count.at < last => {
                    if count.at <= plan.least || last >= period {
                        self.implied += 1.0;
                    }
                    self.iteration = Some(count.at);
                }
                _ => self.iteration = Some(count.at),
            }
        }
        let iteration = self.iteration.unwrap_or(0.0);
        let step = match plan.period {
            Some(period) => {
                let epochs = if plan.named_epochs {
                    (self.epoch.unwrap_or(plan.first_epoch) - plan.first_epoch).max(0.0)
                } else {
                    self.implied
                };
                epochs * period + iteration
            }
            None => iteration,
        };
        self.step = step.min(1e15) as i64;
    }

    /// Takes a value; whether it is one of a series.
    fn measure(&mut self, measure: Measure, validation: bool) -> bool {
        let plan = self.plan;
        // The passes number the keys alike, unless the file grew in between.
        let id = (measure.key, measure.split);
        let same = self.reader.names.get(measure.key) == plan.reader.names.get(measure.key);
        if !same || !plan.series.contains(&id) {
            return false;
        }
        // One line an epoch tells of the whole epoch, so the mean; lines within an epoch of where they are.
        let within = matches!(plan.steps, Steps::Iterations(_)) && !validation;
        let value = match measure.average {
            Some(average) if !within => average,
            _ => measure.value,
        };
        let target = match self.columns.entry(id) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let name = &self.reader.names[measure.key];
                let name = match measure.split {
                    Split::Unknown => name.clone(),
                    Split::Train => format!("train/{name}"),
                    Split::Test if plan.has_validation => format!("test/{name}"),
                    Split::Validation | Split::Test => format!("val/{name}"),
                };
                let column = self.builder.column(&name);
                let parts =
                    (0..measure.parts.len()).map(|at| self.builder.column(&format!("{name}.{at}"))).collect();
                vacant.insert(Target { column, parts, held: None, count: 0 })
            }
        };
        let step = if plan.steps == Steps::Occurrences { target.count } else { self.step };
        target.count += 1;
        if target.held.as_ref().is_some_and(|(held, ..)| *held != step) {
            target.release(self.builder);
        }
        target.held = Some((step, value, measure.parts));
        true
    }

    fn finish(self) {
        let mut targets: Vec<Target> = self.columns.into_values().collect();
        targets.sort_by_key(|target| target.parts.len());
        for target in &mut targets {
            target.release(self.builder);
        }
        self.reader.ending.declare(self.builder);
    }
}

impl Target {
    fn release(&mut self, builder: &mut RunBuilder) {
        if let Some((step, value, parts)) = self.held.take() {
            builder.push(self.column, step, value);
            for (&column, part) in self.parts.iter().zip(parts) {
                builder.push(column, step, part);
            }
        }
    }
}

/// Declares how a run ended as a text log beside its measurements has it, where nothing is declared yet.
pub(crate) fn declare_ending(input: &Input, builder: &mut RunBuilder) {
    let mut reader = Reader::default();
    let read = each_line(input, |line, whole| {
        let line = reader.line(line, whole);
        if line.measures.iter().any(|measure| reader.keys[measure.key].metric) {
            reader.ending.went_on();
        }
    });
    let known =
        [&keys::RUN_CRASH, &keys::RUN_FINISHED].iter().any(|key| builder.facts().get(key.name).is_some());
    if read.is_ok() && !known {
        reader.ending.declare(builder);
    }
}

/// Reads lines that match a pattern with named groups: `step` and `epoch` are positions, every other group is a measurement
/// under its name; a group `value` is named `loss` unless a group `name` names it.
///
/// # Errors
///
/// [`LogError`] where a file cannot be read or no line matches.
pub fn read_with_pattern(
    inputs: &[Input],
    pattern: &Regex,
    builder: &mut RunBuilder,
) -> Result<(), LogError> {
    let groups: Vec<&str> =
        pattern.capture_names().flatten().filter(|name| !["step", "epoch", "name"].contains(name)).collect();
    let mut ending = Ending::default();
    let (mut matches, mut failed) = (0_i64, 0_u64);
    let mut step = None;
    for input in inputs {
        each_line(input, |line, whole| {
            let Some(found) = pattern.captures(line).filter(|_| whole) else {
                ending.look(time_and_message(line).1);
                return;
            };
            let value = |group: &str| found.name(group).and_then(|text| number(text.as_str()));
            let position = |group: &str| value(group).filter(|v| (0.0..1e15).contains(v));
            let epoch = position("epoch");
            step = position("step").or(epoch).map(|v| v as i64).or(if step.is_some() { step } else { None });
            let at = step.unwrap_or(matches);
            if let Some(epoch) = epoch {
                builder.epoch(at, epoch);
            }
            let mut any = false;
            for group in &groups {
                let Some(value) = value(group) else {
                    failed += u64::from(found.name(group).is_some());
                    continue;
                };
                let name = match (*group, found.name("name")) {
                    ("value", Some(name)) => name.as_str(),
                    ("value", None) => "loss",
                    (group, _) => group,
                };
                builder.put(name, at, value);
                any = true;
            }
            if any {
                matches += 1;
                ending.went_on();
            }
        })?;
    }
    ending.declare(builder);
    if failed > 0 {
        builder.note(format!("{failed} values that the pattern found are no numbers"));
    }
    match inputs.first() {
        Some(input) if matches == 0 => Err(LogError::content(input.path(), "no line matches the pattern")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::read_bytes;
    use trimtab_signals::Run;

    fn read(text: &str) -> Run {
        read_bytes("text", "train.log", text.as_bytes()).expect("readable")
    }

    /// The values of a column by the name in the log, whatever signal it became.
    fn logged<'a>(run: &'a Run, name: &str) -> &'a trimtab_signals::Column {
        run.logged(name)
            .unwrap_or_else(|| panic!("no column {name} among {:?}", run.trace.names().collect::<Vec<_>>()))
    }

    #[test]
    fn iterations_counted_anew_in_each_epoch_become_continuous() {
        let mut text = String::new();
        for epoch in 0..3 {
            writeln!(text, "[2023-03-11 02:0{epoch}:00,000][    INFO] ===> Epoch: {epoch}, LR: 0.0{epoch}, Previous best: 0.1").unwrap();
            for iteration in [0, 40, 80] {
                writeln!(text, "[2023-03-11 02:0{epoch}:10,000][    INFO] Iters: {iteration}, Total loss: {epoch}.{iteration}").unwrap();
            }
            writeln!(text, "[2023-03-11 02:0{epoch}:50,000][    INFO] ***** Evaluation ***** >>>> Class [0 cat] Dice: {epoch}.5").unwrap();
            writeln!(
                text,
                "[2023-03-11 02:0{epoch}:50,000][    INFO] ***** Evaluation ***** >>>> MeanDice: {epoch}.25"
            )
            .unwrap();
        }
        let run = read(&text);
        assert_eq!(logged(&run, "Total loss").steps(), [0, 40, 80, 81, 121, 161, 162, 202, 242]);
        let dice = logged(&run, "val/MeanDice");
        assert_eq!((dice.steps(), dice.values()), (&[80, 161, 242][..], &[0.25, 1.25, 2.25][..]));
        assert_eq!(logged(&run, "val/Class [0 cat] Dice").len(), 3);
        assert_eq!(logged(&run, "LR").steps(), [0, 81, 162]);
        assert_eq!(run.trace.epochs().at(81), Some(1.0));
        assert_eq!(run.trace.times().at(81), Some(60.0));
        assert!(run.trace.names().all(|name| !name.to_lowercase().contains("best")));
    }

    #[test]
    fn the_total_of_iterations_is_used_where_the_log_has_it() {
        let run = read(
            "Epoch [1/2], Iter [10/20], Loss: 2.0\nEpoch [1/2], Iter [20/20], Loss: 1.5\n\
             Epoch [2/2], Iter [10/20], Loss: 1.0\nEpoch [2/2], Iter [20/20], Loss: 0.5\n",
        );
        assert_eq!(logged(&run, "Loss").steps(), [10, 20, 30, 40]);
        assert_eq!(run.facts.integer("run.epochs"), Some(2));
        assert_eq!(run.facts.integer("run.steps_per_epoch"), Some(20));
        assert_eq!(run.trace.epochs().values(), [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn the_split_of_a_line_goes_to_keys_that_name_none() {
        let run = read(
            "batch_size: 16\noptimizer: adam\n\
             Epoch 1/2\nTrain: loss 0.5 acc 88.1%\nValidation: loss 0.6 acc 80.0%\n\
             Epoch 2/2\nTrain: loss 0.4 acc 89.1%\nValidation: loss 0.7 acc 79.0%\nTraining finished\n",
        );
        assert_eq!(logged(&run, "train/loss").values(), [0.5, 0.4]);
        assert_eq!(logged(&run, "val/loss").values(), [0.6, 0.7]);
        assert_eq!(logged(&run, "val/acc").values(), [80.0, 79.0]);
        assert_eq!(logged(&run, "val/acc").steps(), [1, 2]);
        assert_eq!(run.facts.boolean("run.finished"), Some(true));
        assert!(run.facts.iter().any(|(_, value)| value == &Value::from(16)), "{:?}", run.facts);
        assert!(run.facts.iter().any(|(_, value)| value == &Value::from("adam")));
    }

    #[test]
    fn a_header_gives_its_split_to_the_lines_below() {
        let run = read(
            "Epoch 1\nloss: 0.5\n***** Running evaluation *****\n  dice: 0.3\n\
             Epoch 2\nloss: 0.4\n***** Running evaluation *****\n  dice: 0.4\nEpoch 3\nloss: 0.3\n",
        );
        assert_eq!(logged(&run, "loss").values(), [0.5, 0.4, 0.3]);
        assert_eq!(logged(&run, "val/dice").values(), [0.3, 0.4]);
    }

    #[test]
    fn progress_bars_give_steps_but_no_values() {
        let run = read(
            "Epoch 0:  50%|##   | 1/2 [00:01<00:01, 1.2it/s, loss=0.9]\rEpoch 0: 100%|####| 2/2 [00:02<00:00, 1.2it/s, loss=0.8]\n\
             Epoch 1:  50%|##   | 1/2 [00:01<00:01, 1.2it/s, loss=0.7]\rEpoch 1: 100%|####| 2/2 [00:02<00:00, 1.2it/s, loss=nan]\n",
        );
        let loss = logged(&run, "loss");
        assert_eq!(loss.steps(), [1, 2, 3, 4]);
        assert_eq!(loss.values()[..3], [0.9, 0.8, 0.7]);
        assert!(loss.values()[3].is_nan());
        assert_eq!(run.trace.names().count(), 1);
    }

    #[test]
    fn keras_bars_are_epochs_of_batches() {
        let mut text = String::new();
        for epoch in 1..=2 {
            writeln!(text, "Epoch {epoch}/2").unwrap();
            for batch in 1..=3 {
                write!(text, "\r{batch}/3 [====>...] - ETA: 0s - loss: {epoch}.{batch}").unwrap();
            }
            writeln!(text, "\r3/3 [======] - 1s 3ms/step - loss: {epoch}.5 - val_loss: 0.{epoch}").unwrap();
        }
        let run = read(&text);
        let loss = logged(&run, "loss");
        assert_eq!((loss.steps(), loss.last()), (&[1, 2, 3, 4, 5, 6][..], Some((6, 2.5))));
        assert_eq!(logged(&run, "val_loss").steps(), [3, 6]);
    }

    #[test]
    fn printed_dictionaries_with_fractional_epochs_are_numbered() {
        let run = read(
            "{'loss': 0.9, 'learning_rate': 1e-05, 'epoch': 0.5}\n{'loss': 0.8, 'learning_rate': 9e-06, 'epoch': 1.0}\n\
             {'eval_loss': 0.7, 'eval_runtime': 3.0, 'epoch': 1.0}\n{'loss': 0.7, 'learning_rate': 8e-06, 'epoch': 1.5}\n\
             {'eval_loss': 0.6, 'eval_runtime': 3.0, 'epoch': 2.0}\n{'train_runtime': 100.0, 'train_loss': 0.8, 'epoch': 2.0}\n",
        );
        assert_eq!(logged(&run, "loss").values(), [0.9, 0.8, 0.7]);
        assert_eq!(logged(&run, "eval_loss").steps(), [1, 3]);
        assert_eq!(run.facts.boolean("run.finished"), Some(true));
    }

    #[test]
    fn a_log_that_counts_nothing_is_numbered_by_value() {
        let run = read("loss: 0.5\nloss: 0.4\nval loss: 0.6\nloss: 0.3\nval loss: 0.5\nval loss: 0.4\n");
        assert_eq!(logged(&run, "loss").steps(), [0, 1, 2]);
        assert_eq!(logged(&run, "val loss").values(), [0.6, 0.5, 0.4]);
    }

    #[test]
    fn a_list_is_a_value_for_each_class_and_their_mean() {
        let run = read("Epoch 1 val dice: [0.5, nan, 0.7]\nEpoch 2 val dice: [0.6, 0.2, 0.7]\n");
        assert_eq!(logged(&run, "val dice").values(), [0.6, 0.5]);
        assert_eq!(logged(&run, "val dice.2").values(), [0.7, 0.7]);
    }

    #[test]
    fn of_a_value_and_its_mean_the_mean_counts_for_a_whole_epoch() {
        let run = read(
            "Train: [0/2]\tlr 0.3\tloss 1.9 (2.0)\nEPOCH 0 training takes 0:04:04\nValidate: \tLoss 0.6 (1.8)\n\
             Train: [1/2]\tlr 0.2\tloss 1.5 (1.7)\nEPOCH 1 training takes 0:04:04\nValidate: \tLoss 0.5 (1.7)\n",
        );
        assert_eq!(logged(&run, "train/loss").values(), [2.0, 1.7]);
        assert_eq!(logged(&run, "val/Loss").values(), [1.8, 1.7]);
        assert_eq!(logged(&run, "lr").steps(), [0, 1]);
        assert_eq!(run.facts.integer("run.epochs"), Some(2));
    }

    #[test]
    fn a_traceback_alone_is_a_run_without_signals() {
        let text = "Traceback (most recent call last):\n  File \"a.py\", line 1\n    loss = 3\nValueError: loss: 0.5 is wrong\n";
        let mut utf16 = vec![0xff, 0xfe];
        utf16.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        for bytes in [text.as_bytes(), &utf16] {
            let run = read_bytes("text", "out.txt", bytes).expect("readable");
            assert_eq!(run.trace.names().count(), 0);
            assert_eq!(run.facts.text("run.crash"), Some("ValueError: loss: 0.5 is wrong"));
        }
    }

    #[test]
    fn an_error_before_more_training_is_survived_and_one_at_the_end_is_not() {
        let text = "RuntimeError: no wandb\nEpoch 1 loss 0.5\nEpoch 2 loss 0.4\n";
        assert_eq!(read(text).facts.text("run.crash"), None);
        let text = format!("{text}CUDA out of memory\n");
        assert_eq!(read(&text).facts.text("run.crash"), Some("CUDA out of memory"));
    }

    #[test]
    fn a_run_resumed_at_an_earlier_epoch_goes_back() {
        let run = read(
            "Epoch 1 loss 5\nEpoch 2 loss 4\nEpoch 3 loss 3\nEpoch 2 loss 2\nEpoch 3 loss 1\nEpoch 4 loss 0.5\n",
        );
        assert_eq!(logged(&run, "loss").values(), [5.0, 2.0, 1.0, 0.5]);
    }

    #[test]
    fn text_without_measurements_is_an_error() {
        for text in ["", "hello\nworld\n", "\0\0\0"] {
            assert!(read_bytes("text", "a.log", text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_pattern_names_its_groups() {
        let pattern = Regex::new(r"^(?P<step>\d+)\D+(?P<dice>[\d.]+|nan)\D+(?P<lr>\S+)").expect("valid");
        let mut builder = RunBuilder::new();
        let input = Input::memory("a.log", b"10 > 0.5 / 1e-4\nrubbish\n20 > nan / x\n".to_vec());
        read_with_pattern(&[input], &pattern, &mut builder).expect("matches");
        let run = builder.finish("a", "text");
        assert_eq!(logged(&run, "dice").steps(), [10, 20]);
        assert_eq!(logged(&run, "lr").values(), [1e-4]);
        assert_eq!(run.notes.len(), 1);
        let none = Input::memory("a.log", b"rubbish\n".to_vec());
        assert!(read_with_pattern(&[none], &pattern, &mut RunBuilder::new()).is_err());
    }

    #[test]
    fn the_end_is_found_beside_other_logs() {
        let mut builder = RunBuilder::new();
        let text = b"KeyError: 'early'\nEpoch 1 loss 0.5\nEpoch 2 loss 0.4\nKilled".to_vec();
        declare_ending(&Input::memory("out.log", text), &mut builder);
        assert_eq!(builder.facts().text("run.crash"), Some("Killed"));
        assert!(builder.is_empty());
    }

    #[test]
    fn a_line_that_is_cut_off_has_no_value() {
        let run = read("Epoch 1 loss 0.5\nEpoch 2 loss 0.4\nEpoch 3 loss 0.3");
        assert_eq!(logged(&run, "loss").values(), [0.5, 0.4]);
    }

    #[test]
    fn output_kept_by_wandb_belongs_to_the_run_s_folder() {
        assert_eq!(depth(Path::new("wandb/run-2025_x/files/output.log")), 1);
        assert_eq!(depth(Path::new("out/files/output.log")), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_bytes("text", "a.log", &bytes);
        }

        #[test]
        fn no_damage_makes_it_panic(
            lines in proptest::collection::vec(
                "(Epoch|Iters?|step|loss|val|Train|dice|lr|Traceback \\(most recent call last\\)|[:=/\\[\\]()|%, ]|-?[0-9]{1,20}|nan|e9){0,20}",
                0..30,
            ),
        ) {
            let _ = read_bytes("text", "a.log", lines.join("\n").as_bytes());
        }
    }
}
