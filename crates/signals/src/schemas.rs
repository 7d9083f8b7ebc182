//! JSON schemas of the run directory's documents and lines.

// These types exist for their schema alone: reading and writing lines goes through `Record` and
// `Event`, which know `NaN`.

use std::collections::BTreeMap;

use schemars::{JsonSchema, schema_for};
use serde::Serialize;
use serde_json::Value;

use crate::info::{RunInfo, Summary};

/// One line of `signals.jsonl`. Beyond JSON, a number may be a bare `NaN`, `Infinity` or `-Infinity`.
/// A signal that was not measured is absent.
#[derive(Serialize, JsonSchema)]
struct Signals {
    /// Optimizer steps done, counted from the start of the run.
    step: u64,
    /// Epoch, counted from 0.
    epoch: u64,
    /// Seconds since the start of the run, excluding pauses between a stop and a resume.
    time: f64,
    /// Value of each signal measured, by name.
    #[serde(flatten)]
    values: BTreeMap<String, f64>,
}

/// One line of `events.jsonl`.
#[derive(Serialize, JsonSchema)]
struct EventLine {
    /// Optimizer steps done, counted from the start of the run.
    step: u64,
    /// Epoch, counted from 0.
    epoch: u64,
    /// Seconds since the start of the run; beyond JSON, may be a bare `NaN`.
    time: f64,
    /// What kind of event.
    kind: String,
    /// One sentence for a human reader.
    message: String,
    /// Whatever a program wants to know about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

/// The schemas, each with the name under which `docs/schemas/<name>.json` holds it.
pub fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("run", schema_for!(RunInfo).to_value()),
        ("summary", schema_for!(Summary).to_value()),
        ("signals", schema_for!(Signals).to_value()),
        ("event", schema_for!(EventLine).to_value()),
    ]
}
