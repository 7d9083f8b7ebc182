//! The lines of `signals.jsonl` and `events.jsonl`.

use serde_json::{Map, Value};

use crate::json;
use crate::names::{RESERVED, Signal};

/// The signals of one moment of a run; one line of `signals.jsonl`.
///
/// A signal that was not measured is left out. A measured `NaN` or infinity is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Optimizer steps done, counted from the start of the run.
    pub step: u64,
    /// Epoch, counted from 0.
    pub epoch: u64,
    /// Seconds since the start of the run, excluding pauses between a stop and a resume; `NaN` when
    /// unknown.
    pub time: f64,
    /// Signal name and value, in the order they are written. Names are unique.
    pub values: Vec<(String, f64)>,
}

impl Record {
    /// A record without signals.
    pub fn new(step: u64, epoch: u64, time: f64) -> Self {
        Self { step, epoch, time, values: Vec::new() }
    }

    /// Adds the value of a signal.
    pub fn push(&mut self, signal: &Signal, value: f64) {
        self.values.push((signal.name.to_owned(), value));
    }

    /// Adds the value of a signal for one group.
    pub fn push_group(&mut self, signal: &Signal, group: &str, value: f64) {
        self.values.push((signal.group(group), value));
    }

    /// As [`push`](Self::push), for building a record in one expression.
    #[must_use]
    pub fn with(mut self, signal: &Signal, value: f64) -> Self {
        self.push(signal, value);
        self
    }

    /// The value of a name; `None` when it was not measured.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(known, _)| known == name).map(|&(_, value)| value)
    }

    /// The first name that cannot be written, and why.
    pub(crate) fn problem(&self) -> Option<(&str, &'static str)> {
        self.values.iter().enumerate().find_map(|(at, (name, _))| {
            if RESERVED.contains(&name.as_str()) {
                Some((name.as_str(), "is the name of a field of the record, not of a signal"))
            } else if self.values[..at].iter().any(|(earlier, _)| earlier == name) {
                Some((name.as_str(), "has two values in one record"))
            } else {
                None
            }
        })
    }

    /// One line of JSON with its line feed.
    pub(crate) fn to_line(&self) -> String {
        let mut line = head(self.step, self.epoch, self.time);
        for (name, value) in &self.values {
            line.push(',');
            json::push_string(&mut line, name);
            line.push(':');
            json::push_number(&mut line, *value);
        }
        line.push_str("}\n");
        line
    }

    /// Reads a line. Fields that are not numbers are passed over: later versions may add some.
    pub(crate) fn from_line(line: &[u8]) -> Result<Self, String> {
        let fields = object(line)?;
        let (step, epoch, time) = position(&fields)?;
        let values = fields
            .into_iter()
            .filter(|(name, _)| !RESERVED.contains(&name.as_str()))
            .filter_map(|(name, value)| Some((name, json::number(&value)?)))
            .collect();
        Ok(Self { step, epoch, time, values })
    }
}

/// Something that happened at one moment of a run; one line of `events.jsonl`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// Optimizer steps done, counted from the start of the run.
    pub step: u64,
    /// Epoch, counted from 0.
    pub epoch: u64,
    /// Seconds since the start of the run, as [`Record::time`].
    pub time: f64,
    /// What kind of event: `checkpoint`, `stage`, `finding`, `remedy`, `rollback`, `resume`, `stop`, …
    pub kind: String,
    /// One sentence for a human reader.
    pub message: String,
    /// Whatever a program wants to know about it; `Null` for nothing. JSON has no `NaN` here.
    pub data: Value,
}

impl Event {
    /// One line of JSON with its line feed.
    pub(crate) fn to_line(&self) -> String {
        let mut line = head(self.step, self.epoch, self.time);
        line.push_str(",\"kind\":");
        json::push_string(&mut line, &self.kind);
        line.push_str(",\"message\":");
        json::push_string(&mut line, &self.message);
        if !self.data.is_null() {
            line.push_str(",\"data\":");
            line.push_str(&self.data.to_string());
        }
        line.push_str("}\n");
        line
    }

    /// Reads a line. Unknown fields are passed over.
    pub(crate) fn from_line(line: &[u8]) -> Result<Self, String> {
        let mut fields = object(line)?;
        let (step, epoch, time) = position(&fields)?;
        let mut text = |name: &str| match fields.get_mut(name).map(Value::take) {
            Some(Value::String(text)) => Ok(text),
            None => Ok(String::new()),
            Some(_) => Err(format!("`{name}` is not a string")),
        };
        let (kind, message) = (text("kind")?, text("message")?);
        Ok(Self {
            step,
            epoch,
            time,
            kind,
            message,
            data: fields.get_mut("data").map(Value::take).unwrap_or_default(),
        })
    }
}

fn head(step: u64, epoch: u64, time: f64) -> String {
    let mut line = format!("{{\"step\":{step},\"epoch\":{epoch},\"time\":");
    json::push_number(&mut line, time);
    line
}

fn object(line: &[u8]) -> Result<Map<String, Value>, String> {
    match json::parse(line) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("expected a JSON object".to_owned()),
        Err(error) => Err(format!("not a JSON object: {error}")),
    }
}

/// Step, epoch and time. Only the step is required; an unknown epoch is 0, an unknown time `NaN`.
fn position(fields: &Map<String, Value>) -> Result<(u64, u64, f64), String> {
    let step = match fields.get("step") {
        Some(step) => whole(step).ok_or_else(|| format!("`step` is {step}, not a whole number"))?,
        None => return Err("`step` is missing".to_owned()),
    };
    let epoch = match fields.get("epoch") {
        Some(epoch) => whole(epoch).ok_or_else(|| format!("`epoch` is {epoch}, not a whole number"))?,
        None => 0,
    };
    let time = fields.get("time").and_then(json::number);
    Ok((step, epoch, time.unwrap_or(f64::NAN)))
}

/// A non-negative whole number, also when written as `10.0`.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let float = value.as_f64()?;
        // Above 2^53 a float no longer names one integer.
        (float.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&float)).then_some(float as u64)
    })
}
