//! Measurements as JSON from programs of no known framework: an object a line, a list of objects, or a table of objects by epoch.

use std::collections::HashMap;

use serde_json::Value;

use super::{Certainty, Format, Layout, Peek, in_the_run_folder};
use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;
use crate::json_lines::{self, EpochBase, EpochSteps, Object, Sink};

/// JSON lines, or a JSON document of records.
pub const FORMAT: Format = Format {
    id: "json-lines",
    summary: "JSON objects with numbers: one a line, or a list of them; exported W&B histories",
    recognise,
    read,
    layout: Layout::File,
    rank: 20,
    depth: in_the_run_folder,
};

/// Fields that give the position, best first; the last one is the epoch.
const POSITIONS: [&str; 14] = [
    "global_step",
    "global_iter",
    "num_updates",
    "current_steps",
    "step",
    "steps",
    "iteration",
    "iterations",
    "iter",
    "update",
    "updates",
    "_step",
    "n_iter",
    "epoch",
];
const EPOCH: usize = POSITIONS.len() - 1;
/// Fields that are times. Those with `true` are seconds since some other moment than the start.
const TIMES: [(&str, bool); 7] = [
    ("_runtime", false),
    ("elapsed", false),
    ("elapsed_time", false),
    ("_timestamp", true),
    ("timestamp", true),
    ("wall_time", true),
    ("walltime", true),
];
/// Fields whose text says of which samples the other fields are.
const SPLITS: [&str; 8] = ["split", "phase", "mode", "subset", "set", "type", "event", "stage"];
/// Fields that repeat what was declared.
const DECLARED: [&str; 9] = [
    "total_steps",
    "max_steps",
    "total_epochs",
    "num_epochs",
    "n_parameters",
    "num_params",
    "batch_size",
    "seed",
    "max_epochs",
];
/// Fields by which records of other things are known: predictions, data sets, events.
const OTHER_THINGS: [&str; 14] = [
    "id",
    "image_id",
    "category_id",
    "image",
    "file_name",
    "filename",
    "bbox",
    "text",
    "prompt",
    "messages",
    "instruction",
    "question",
    "conversations",
    "message",
];
/// Records by which a file's habits are judged.
const SURVEYED: usize = 256;
/// Records of `null` that are held back in one column until it shows what they mean.
const MOST_PENDING: usize = 1 << 12;

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    let objects = json_lines::head_objects(peek);
    let extension = peek.name().rsplit_once('.').map(|(_, end)| end.to_owned()).unwrap_or_default();
    // One line is a configuration or a summary rather than a series, unless its name says that it is one of lines.
    let lines = ["jsonl", "ndjson"].contains(&extension.as_str());
    if objects.len() >= 2 || (lines && !objects.is_empty()) {
        return judge(objects.iter());
    }
    let document = json_lines::head_document(peek)?;
    judge(records(&document)?.iter().filter_map(|(_, record)| record.as_object()))
}

/// How surely records are measurements of a training.
fn judge<'v>(records: impl Iterator<Item = &'v Object>) -> Option<Certainty> {
    let (mut count, mut sure, mut positioned) = (0, 0, 0);
    for record in records.take(SURVEYED) {
        count += 1;
        if record.keys().any(|name| OTHER_THINGS.contains(&name.to_ascii_lowercase().as_str())) {
            continue;
        }
        let (mut position, mut number, mut metric, mut loss) = (false, false, false, false);
        for (name, value) in record {
            if position_of(name).is_some() {
                position |= numeric(value).is_some();
                continue;
            }
            json_lines::measurements(value, |path, value| {
                if numeric(value).is_none() || is_time(name) {
                    return;
                }
                number = true;
                let last = path.rsplit('/').next().filter(|last| !last.is_empty()).unwrap_or(name);
                if loss {
                    return;
                }
                let known = json_lines::is_metric(last);
                metric |= known || is_long(record);
                let said = |word: String| word == "loss" || json_lines::split_of(&word).is_some();
                loss = known && json_lines::words(name).chain(json_lines::words(path)).any(said);
            });
        }
        sure += usize::from((position && metric) || loss);
        positioned += usize::from(position && number);
    }
    if count == 0 {
        None
    } else if sure * 2 > count {
        Some(Certainty::Generic)
    } else {
        (positioned * 2 > count).then_some(Certainty::Fallback)
    }
}

/// Records of a document, each with the position that its key gives, and whether that is an epoch.
fn records(document: &Value) -> Option<Vec<(Option<Place>, &Value)>> {
    let of_list = |list: &'_ Value| list.as_array().is_some_and(|list| list.iter().any(Value::is_object));
    match document {
        list if of_list(list) => Some(list.as_array()?.iter().map(|record| (None, record)).collect()),
        Value::Object(table) => {
            // `{"epoch_1": {…}, "epoch_2": {…}}`
            let by_key: Option<Vec<(Option<Place>, &Value)>> = table
                .iter()
                .map(|(key, record)| {
                    let step = json_lines::position_in_text(key)?;
                    let is_epoch =
                        !json_lines::words(key).any(|word| ["step", "iter"].contains(&word.as_str()));
                    Some((Some(Place { step, is_epoch }), record.is_object().then_some(record)?))
                })
                .collect();
            if let Some(mut by_key) = by_key.filter(|records| !records.is_empty()) {
                by_key.sort_by_key(|(place, _)| place.map(|place| place.step));
                return Some(by_key);
            }
            // `{"config": {…}, "history": [{…}, …]}`: the longest list, also where its table is below another.
            let below = table.values().filter_map(Value::as_object).flat_map(|table| table.values());
            let lists = table.values().chain(below).filter(|list| of_list(list)).filter_map(Value::as_array);
            let longest = lists.max_by_key(|list| list.len())?;
            Some(longest.iter().map(|record| (None, record)).collect())
        }
        _ => None,
    }
}

/// The position that a key such as `epoch_1` gives.
#[derive(Clone, Copy)]
struct Place {
    step: i64,
    is_epoch: bool,
}

/// Where a name is in the list of positions. `trainer/global_step` is one too.
fn position_of(name: &str) -> Option<usize> {
    let lower = name.trim().to_ascii_lowercase();
    let last = lower.rsplit('/').next().unwrap_or(&lower);
    if last != lower && !["global_step", "global_iter"].contains(&last) {
        return None;
    }
    POSITIONS.iter().position(|known| *known == last)
}

fn is_time(name: &str) -> bool {
    TIMES.iter().any(|(known, _)| name.eq_ignore_ascii_case(known))
}

/// Whether a record is of one metric, which it names: `{"name": "loss", "value": 0.5, "step": 10}`.
fn is_long(record: &Object) -> bool {
    record.get("value").is_some_and(|value| numeric(value).is_some()) && long_name(record).is_some()
}

fn long_name(record: &Object) -> Option<&str> {
    ["metric", "name", "key", "tag"].iter().find_map(|name| record.get(*name)?.as_str())
}

/// A number, also one written as text, as some loggers do.
fn numeric(value: &Value) -> Option<f64> {
    match value {
        Value::Null => None,
        Value::String(text) => fast_float2::parse(text.trim()).ok(),
        value => json_lines::number(value),
    }
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    for input in inputs {
        let mut log = Log::default();
        if is_lines(input)? {
            let mut survey = Survey::default();
            let mut lines = input.lines()?;
            while survey.records < SURVEYED
                && let Some(line) = lines.next_bytes()
            {
                if let Ok(Value::Object(record)) = trimtab_signals::json::parse(line) {
                    survey.see(&record);
                }
            }
            log.habits = survey.habits();
            json_lines::each_object(input, builder, |record, builder| log.push(&record, None, builder))?;
        } else {
            let (document, _) = json_lines::document(input)?;
            let records = records(&document).unwrap_or_default();
            let mut survey = Survey::default();
            let objects = records.iter().filter_map(|(_, record)| record.as_object());
            objects.take(SURVEYED).for_each(|record| survey.see(record));
            log.habits = survey.habits();
            for (place, record) in records {
                if let Value::Object(record) = record {
                    log.push(record, place, builder);
                }
            }
            declare_others(&document, builder);
        }
        log.finish(builder);
        log.sink.check(input)?;
    }
    Ok(())
}

/// Whether a file has an object a line, rather than being one document.
fn is_lines(input: &Input) -> Result<bool, LogError> {
    let mut lines = input.lines()?;
    let mut first = true;
    while let Some(line) = lines.next_bytes() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if !line.starts_with(b"{") || !line.ends_with(b"}") {
            // A document begins with a bracket; anything else before the first object is rubbish.
            if first && line.starts_with(b"[") || line == b"{" {
                return Ok(false);
            }
            first = false;
            continue;
        }
        let Ok(Value::Object(record)) = trimtab_signals::json::parse(line) else {
            first = false;
            continue;
        };
        // A whole document in one line, or the first of several records.
        let more = lines.next_bytes().is_some_and(|line| line.trim_ascii_start().starts_with(b"{"));
        return Ok(more || records(&Value::Object(record)).is_none());
    }
    Ok(false)
}

/// Declares what a document says besides its records: the values directly in it and in tables in it.
fn declare_others(document: &Value, builder: &mut RunBuilder) {
    let Value::Object(table) = document else { return };
    let scalar = |value: &Value| value.is_number() || value.is_string() || value.is_boolean();
    for (name, value) in table.iter().take(1000) {
        if scalar(value) {
            builder.declare(name, value);
        }
        // Records by epoch are tables too.
        if json_lines::position_in_text(name).is_none()
            && let Value::Object(inner) = value
        {
            for (key, value) in inner.iter().filter(|(_, value)| scalar(value)).take(1000) {
                builder.declare(&format!("{name}.{key}"), value);
            }
        }
    }
}

/// What the first records of a file show.
#[derive(Default)]
struct Survey {
    records: usize,
    positions: [usize; POSITIONS.len()],
    fraction: bool,
    exported: bool,
}

impl Survey {
    fn see(&mut self, record: &Object) {
        self.records += 1;
        self.exported |= record.contains_key("_step")
            && (record.contains_key("_runtime") || record.contains_key("_timestamp"));
        for (name, value) in record {
            if let (Some(at), Some(number)) = (position_of(name), numeric(value)) {
                if let Some(count) = self.positions.get_mut(at) {
                    *count += 1;
                }
                self.fraction |= at == EPOCH && number.is_finite() && number.fract() != 0.0;
            }
        }
    }

    fn habits(&self) -> Habits {
        let common = self.positions.iter().position(|&count| count > 0 && count * 5 >= self.records * 4);
        let most = self.positions.iter().copied().max().unwrap_or(0);
        let any = self.positions.iter().position(|&count| count > 0 && count == most);
        // An epoch with a fraction is no step: such records are numbered.
        let position = common.or(any).filter(|&at| at != EPOCH || !self.fraction);
        Habits { position, exported: self.exported }
    }
}

/// How a file gives positions and what was not measured.
#[derive(Clone, Copy, Default)]
struct Habits {
    /// The position, by place in [`POSITIONS`]; records are numbered where there is none.
    position: Option<usize>,
    /// A W&B history.
    exported: bool,
}

#[derive(Default)]
struct Log {
    habits: Habits,
    sink: Sink,
    steps: EpochSteps,
    base: EpochBase,
    count: i64,
    last: i64,
    start: Option<f64>,
    nulls: HashMap<String, Nulls>,
}

/// The numbers and the `null`s of a column.
#[derive(Default)]
struct Nulls {
    /// Numbers since the last gap.
    numbers: usize,
    /// Steps of the `null`s since the last number.
    pending: Vec<i64>,
    /// Whether numbers came after `null`s.
    gaps: bool,
    any: bool,
}

impl Log {
    fn push(&mut self, record: &Object, place: Option<Place>, builder: &mut RunBuilder) {
        let step = self.place(record, place, builder);
        for (name, value) in record {
            if DECLARED.contains(&name.as_str())
                && let Some(number) = numeric(value)
            {
                builder.declare(name, &Value::from(number));
            }
        }
        // W&B's tables and histograms have a type of their own.
        let named = |name: &str, value: &Value| {
            position_of(name).is_some()
                || is_time(name)
                || DECLARED.contains(&name)
                || name.starts_with("_wandb")
                || value.get("_type").is_some()
        };
        let prefix = SPLITS.iter().find_map(|&field| {
            let text = record.get(field)?.as_str()?.to_lowercase();
            json_lines::split_of(&text)
        });
        let prefix = prefix.map(|split| format!("{split}/")).unwrap_or_default();
        if is_long(record)
            && let (Some(name), Some(value)) = (long_name(record), record.get("value"))
        {
            self.measure(&format!("{prefix}{name}"), step, value, builder);
            return;
        }
        for (field, value) in record {
            // Texts such as a run's name or a date may look like numbers, but never where they name a split.
            if named(field, value) || SPLITS.contains(&field.as_str()) {
                continue;
            }
            json_lines::measurements(value, |path, value| {
                let slash = if path.is_empty() { "" } else { "/" };
                // A name that says itself of which samples it is keeps it.
                let own = json_lines::words(field).any(|word| json_lines::split_of(&word).is_some());
                let prefix = if own { "" } else { &prefix };
                self.measure(&format!("{prefix}{field}{slash}{path}"), step, value, builder);
            });
        }
    }

    /// The step of a record; sets its epoch and time.
    fn place(&mut self, record: &Object, place: Option<Place>, builder: &mut RunBuilder) -> i64 {
        let find = |at: usize| record.iter().find(|(name, _)| position_of(name) == Some(at));
        let number = |at: usize| find(at).and_then(|(_, value)| numeric(value)).filter(|n| n.is_finite());
        let epoch = number(EPOCH);
        let step = match (place, self.habits.position) {
            (Some(place), _) => place.step,
            (None, Some(at)) => match number(at) {
                Some(step) => {
                    let step = step as i64;
                    match epoch {
                        Some(epoch) if at != EPOCH => self.steps.step(epoch.floor() as i64, step, false),
                        _ => step,
                    }
                }
                // A record of something else at the same moment.
                None => self.last,
            },
            (None, None) => self.count,
        };
        self.count += 1;
        self.last = step;
        let epoch = epoch.or_else(|| place.filter(|place| place.is_epoch).map(|place| place.step as f64));
        if let Some(epoch) = epoch {
            let epoch = self.base.zero_based(epoch);
            self.sink.epoch(builder, step, epoch);
        }
        let time = TIMES
            .iter()
            .find_map(|&(name, absolute)| Some((json_lines::finite(record.get(name)?)?, absolute)));
        if let Some((time, absolute)) = time {
            let start = *self.start.get_or_insert(if absolute { time } else { 0.0 });
            self.sink.time(builder, step, time - start);
        }
        step
    }

    /// One value of a column. What `null` means shows only later. Strict writers put it for `NaN`, and loops that write all columns
    /// in each record for what was not measured. A column in which numbers follow is one with gaps; one that had only numbers and
    /// ends in `null`s became `NaN`. In a W&B history `null` is always what was not measured.
    fn measure(&mut self, name: &str, step: i64, value: &Value, builder: &mut RunBuilder) {
        if value.is_null() {
            if self.habits.exported || (!self.nulls.contains_key(name) && self.nulls.len() >= MOST_PENDING) {
                return;
            }
            let nulls = self.nulls.entry(name.to_owned()).or_default();
            match nulls.pending.len() {
                // Their end is known from the last.
                MOST_PENDING => nulls.pending[MOST_PENDING - 1] = step,
                _ => nulls.pending.push(step),
            }
            return;
        }
        let Some(number) = numeric(value) else { return };
        if let Some(nulls) = self.nulls.get_mut(name) {
            if !nulls.pending.is_empty() {
                nulls.gaps = true;
                nulls.numbers = 0;
                nulls.pending.clear();
            }
            nulls.numbers += 1;
            nulls.any = true;
        } else if self.nulls.len() < MOST_PENDING && !self.habits.exported {
            self.nulls.insert(name.to_owned(), Nulls { numbers: 1, any: true, ..Nulls::default() });
        }
        self.sink.put(builder, name, step, number);
    }

    /// Decides what the `null`s at the end are.
    fn finish(&mut self, builder: &mut RunBuilder) {
        let mut columns: Vec<(String, Nulls)> = std::mem::take(&mut self.nulls).into_iter().collect();
        columns.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, nulls) in columns {
            let became = nulls.any && !nulls.gaps && nulls.numbers >= 2;
            // A training loss that was never a number was `NaN` from the start; anything else was not measured.
            let held_out = |word: String| matches!(json_lines::split_of(&word), Some("val" | "test"));
            let always = !nulls.any
                && json_lines::words(&name).any(|word| word == "loss")
                && !json_lines::words(&name).any(held_out);
            if became || always {
                for step in nulls.pending {
                    self.sink.put(builder, &name, step, f64::NAN);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_lines::tests::{logged, read as read_files, recognised, survives};

    fn run(text: &str) -> trimtab_signals::Run {
        read_files(&FORMAT, &[("log.jsonl", text)]).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    const FLAT: &str = concat!(
        r#"{"epoch": 1, "step": 10, "loss": 0.9, "val": {"dice": 0.1, "per_class": [0.1, 0.2]}, "lr": "1e-3"}"#,
        "\n",
        r#"{"epoch": 1, "step": 20, "loss": NaN, "note": "text", "big": [[1, 2], [3]]}"#,
        "\nrubbish\n",
        r#"{"epoch": 2, "step": 30, "loss": "inf", "val": {"dice": 0.3, "per_class": [0.1, 0.2]}}"#,
        "\n",
        r#"{"epoch": 2, "st"#,
    );

    #[test]
    fn nested_names_are_joined() {
        let run = run(FLAT);
        assert_eq!(logged(&run, "val/dice"), [(10, 0.1), (30, 0.3)]);
        assert_eq!(logged(&run, "val/per_class/1"), [(10, 0.2), (30, 0.2)]);
        assert_eq!(logged(&run, "lr"), [(10, 1e-3)]);
        let loss = logged(&run, "loss");
        assert!(loss[1].1.is_nan() && loss[2] == (30, f64::INFINITY));
        assert_eq!(run.trace.epochs().values(), [0.0, 0.0, 1.0]);
        assert_eq!(run.notes.len(), 1);
    }

    #[test]
    fn documents_of_records_are_read_alike() {
        for text in [
            r#"[{"epoch":1,"loss":0.5,"val_acc":0.1},{"epoch":2,"loss":0.4,"val_acc":0.2}]"#,
            r#"{"lr":0.1,"history":[{"epoch":1,"loss":0.5,"val_acc":0.1},{"epoch":2,"loss":0.4,"val_acc":0.2}]}"#,
            r#"{"epoch_1":{"loss":0.5,"val_acc":0.1},"epoch_2":{"loss":0.4,"val_acc":0.2}}"#,
            r#"{"2":{"loss":0.4,"val_acc":0.2},"1":{"loss":0.5,"val_acc":0.1}}"#,
            "[\n  {\"epoch\":1,\"loss\":0.5,\"val_acc\":0.1},\n  {\"epoch\":2,\"loss\":0.4,\"val_acc\":0.2},\n  {\"ep",
            "{\"epoch\":1,\"loss\":0.5,\"val_acc\":0.1}\n{\"epoch\":2,\"loss\":0.4,\"val_acc\":0.2}\n",
        ] {
            assert_eq!(recognised(&FORMAT, "log.json", text), Some(Certainty::Generic), "{text}");
            let run = run(text);
            assert_eq!(logged(&run, "loss"), [(1, 0.5), (2, 0.4)], "{text}");
            assert_eq!(logged(&run, "val_acc"), [(1, 0.1), (2, 0.2)], "{text}");
            assert_eq!(run.trace.epochs().values(), [0.0, 1.0], "{text}");
        }
    }

    #[test]
    fn a_split_field_prefixes_the_names() {
        let run = run(concat!(
            r#"{"phase":"train","epoch":0,"loss":0.5,"val_seen":1}"#,
            "\n",
            r#"{"phase":"Validation","epoch":0,"loss":0.6}"#,
            "\n",
        ));
        assert_eq!(logged(&run, "train/loss"), [(0, 0.5)]);
        assert_eq!(logged(&run, "val/loss"), [(0, 0.6)]);
        assert_eq!(logged(&run, "val_seen"), [(0, 1.0)]);
    }

    #[test]
    fn records_of_one_named_metric_are_its_column() {
        let text = concat!(
            r#"{"metric":"train/loss","value":0.5,"step":1,"timestamp":1000.5}"#,
            "\n",
            r#"{"metric":"train/loss","value":0.4,"step":2,"timestamp":1002.5}"#,
            "\n",
        );
        assert_eq!(recognised(&FORMAT, "m.json", text), Some(Certainty::Generic));
        let run = run(text);
        assert_eq!(logged(&run, "train/loss"), [(1, 0.5), (2, 0.4)]);
        assert_eq!(run.trace.times().values(), [0.0, 2.0]);
    }

    #[test]
    fn null_is_nan_where_numbers_ended_and_nothing_where_they_come_and_go() {
        let run = run(concat!(
            r#"{"step":1,"loss":0.5,"val_loss":null,"once":1,"unused":null}"#,
            "\n",
            r#"{"step":2,"loss":0.4,"val_loss":0.3,"once":null,"unused":null}"#,
            "\n",
            r#"{"step":3,"loss":null,"val_loss":null,"once":null,"unused":null}"#,
            "\n",
            r#"{"step":4,"loss":null,"val_loss":null,"once":null,"unused":null}"#,
            "\n",
        ));
        let loss = logged(&run, "loss");
        assert_eq!(loss.len(), 4);
        assert!(loss[2].1.is_nan() && loss[3].1.is_nan());
        assert_eq!(logged(&run, "val_loss"), [(2, 0.3)]);
        assert_eq!(logged(&run, "once"), [(1, 1.0)]);
        assert!(logged(&run, "unused").is_empty());
    }

    #[test]
    fn in_an_exported_history_null_was_not_measured() {
        let run = run(concat!(
            r#"{"_step":0,"_runtime":1.5,"_timestamp":1e9,"loss":0.5,"trainer/global_step":49,"val/loss":null}"#,
            "\n",
            r#"{"_step":1,"_runtime":2.5,"_timestamp":1e9,"loss":0.5,"trainer/global_step":99,"val/loss":null}"#,
            "\n",
            r#"{"_step":2,"_runtime":3.5,"_timestamp":1e9,"loss":null,"trainer/global_step":99,"val/loss":1.5}"#,
            "\n",
            r#"{"_step":3,"_runtime":4.5,"_timestamp":1e9,"loss":null,"trainer/global_step":99,"h":{"_type":"histogram","bins":[1,2]}}"#,
            "\n",
        ));
        assert_eq!(logged(&run, "loss"), [(49, 0.5), (99, 0.5)]);
        assert_eq!(logged(&run, "val/loss"), [(99, 1.5)]);
        assert_eq!(run.trace.times().values(), [1.5, 2.5]);
        assert!(!run.trace.names().any(|name| name.contains("bins")));
    }

    #[test]
    fn records_without_a_step_are_numbered() {
        let run = run(concat!(
            "{\"epoch\":0.25,\"train_loss\":0.5}\n",
            "{\"epoch\":0.5,\"train_loss\":0.4}\n",
            "{\"epoch\":1.25,\"train_loss\":0.3}\n",
        ));
        assert_eq!(logged(&run, "train_loss"), [(0, 0.5), (1, 0.4), (2, 0.3)]);
        assert_eq!(run.trace.epochs().values(), [0.25, 0.5, 1.25]);
    }

    #[test]
    fn steps_within_an_epoch_are_made_continuous() {
        let run = run(concat!(
            "{\"epoch\":1,\"iter\":50,\"loss\":4}\n{\"epoch\":1,\"iter\":100,\"loss\":3}\n",
            "{\"epoch\":2,\"iter\":50,\"loss\":2}\n{\"epoch\":2,\"iter\":100,\"loss\":1}\n",
        ));
        assert_eq!(logged(&run, "loss"), [(50, 4.0), (100, 3.0), (150, 2.0), (200, 1.0)]);
    }

    #[test]
    fn configurations_data_sets_predictions_and_events_are_none() {
        for (name, text) in [
            ("hparams.json", r#"{"learning_rate":0.1,"label_smoothing":0.2}"#),
            ("flags_0.json", r#"{"log_dir":"","v":0,"step":3,"loss":1}"#),
            ("wandb-summary.json", r#"{"_step":49,"train_loss":0.1,"epoch":49,"_runtime":9}"#),
            ("debug.json", r#"{"all_tr_losses":"[]","batch_size":"2","epoch":"0"}"#),
            ("package.json", "{\n  \"name\": \"x\",\n  \"version\": \"1\",\n  \"files\": [{\"a\": 1}]\n}"),
            ("metrics.json", r#"{"configuration":{"epochs":50},"loss_metrics":{"final_loss":1.7}}"#),
            ("data.jsonl", "{\"text\":\"a\",\"label\":1}\n{\"text\":\"b\",\"label\":0}\n"),
            ("data.jsonl", "{\"x\":1,\"y\":2}\n{\"x\":3,\"y\":4}\n"),
            ("predictions.json", r#"[{"image_id":1,"category_id":2,"bbox":[1,2,3,4],"score":0.5}]"#),
            ("predictions.jsonl", "{\"id\":1,\"loss\":2,\"step\":1}\n{\"id\":3,\"loss\":4,\"step\":1}\n"),
            (
                "events.jsonl",
                "{\"step\":1,\"time\":2,\"kind\":\"stop\",\"message\":\"x\",\"data\":{\"loss\":1}}\n\
                 {\"step\":1,\"time\":2,\"kind\":\"stop\",\"message\":\"x\",\"data\":{\"loss\":1}}\n",
            ),
            (
                "summary.json",
                r#"{"metric_per_case":[{"metrics":{"1":{"Dice":0.9}},"file":"a"}],"mean":{"1":0.9}}"#,
            ),
            ("coco.json", r#"{"images":[{"id":1,"width":2}],"annotations":[{"id":1,"iscrowd":0}]}"#),
            ("log.txt", "step 1 loss 2\nstep 2 loss 1\n"),
            ("a.csv", "step,loss\n1,2\n"),
            ("x", ""),
            ("x", "[1,2,3]"),
        ] {
            assert_eq!(recognised(&FORMAT, name, text), None, "{name}: {text}");
        }
        assert!(read_files(&FORMAT, &[("x", "")]).is_err());
        assert!(read_files(&FORMAT, &[("x", "{\"a\":\"b\"}\n")]).is_err());
    }

    #[test]
    fn unknown_numbers_with_a_step_are_a_last_resort() {
        let text = "{\"step\":1,\"foo\":2}\n{\"step\":2,\"foo\":3}\n";
        assert_eq!(recognised(&FORMAT, "x.log", text), Some(Certainty::Fallback));
        assert_eq!(recognised(&FORMAT, "x.jsonl", "{\"step\":1,\"loss\":2}\n"), Some(Certainty::Generic));
        assert_eq!(recognised(&FORMAT, "x.json", "{\"step\":1,\"loss\":2}\n"), None);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        survives(&FORMAT, "log.jsonl", FLAT);
        survives(
            &FORMAT,
            "log.json",
            r#"{"a":{"epoch_1":{"loss":0.5,"val":null}},"h":[{"step":1,"loss":null}]}"#,
        );
    }
}
