//! What a rule says.

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;
use trimtab_signals::Key;

use crate::rule::RuleMeta;

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Costs quality or time.
    Warning,
    /// The run is lost, or what it reports is worthless.
    Critical,
}

impl Severity {
    /// `info`, `warning`, `critical`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A symptom with its evidence.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Id of the rule.
    pub rule: &'static str,
    /// How bad.
    pub severity: Severity,
    /// The step at which it could be told.
    pub step: Option<u64>,
    /// The first step it is seen at.
    pub first_step: Option<u64>,
    /// The last step it is seen at.
    pub last_step: Option<u64>,
    /// One sentence with the numbers, without a full stop.
    pub message: String,
    /// The numbers by name.
    pub evidence: IndexMap<String, Value>,
    /// What to change.
    pub remedies: Vec<Remedy>,
    /// The column to draw beside the message.
    #[serde(skip)]
    pub column: Option<String>,
}

/// How a remedy changes its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Set to the value.
    Set,
    /// Multiply by the value.
    Scale,
    /// Not to be declared any more.
    Remove,
    /// For a person to look at: the value says what.
    Check,
}

/// A change that should help.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Remedy {
    /// A key of [`trimtab_signals::keys`], with a group where there is one.
    pub key: String,
    /// How it changes.
    pub op: Op,
    /// To what, or by what.
    pub value: Value,
    /// Why that should help.
    pub why: String,
}

impl Remedy {
    /// Set a key.
    pub fn set(key: &Key, value: impl Into<Value>, why: impl Into<String>) -> Self {
        Self { key: key.name.to_owned(), op: Op::Set, value: value.into(), why: why.into() }
    }

    /// Multiply a key's value.
    pub fn scale(key: &Key, factor: f64, why: impl Into<String>) -> Self {
        Self { key: key.name.to_owned(), op: Op::Scale, value: factor.into(), why: why.into() }
    }

    /// Take a key out.
    pub fn remove(key: &Key, why: impl Into<String>) -> Self {
        Self { key: key.name.to_owned(), op: Op::Remove, value: Value::Null, why: why.into() }
    }

    /// Have a person look at something.
    pub fn check(key: &Key, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { key: key.name.to_owned(), op: Op::Check, value: Value::from(what.into()), why: why.into() }
    }

    /// For one group of the key: `optim.learning_rate.backbone`.
    pub fn of_group(mut self, group: &str) -> Self {
        self.key = format!("{}.{group}", self.key);
        self
    }
}

impl Finding {
    /// A finding of a rule, with the rule's own severity.
    pub fn new(meta: &RuleMeta, message: impl Into<String>) -> Self {
        Self {
            rule: meta.id,
            severity: meta.severity,
            step: None,
            first_step: None,
            last_step: None,
            message: message.into(),
            evidence: IndexMap::new(),
            remedies: Vec::new(),
            column: None,
        }
    }

    /// Another severity than the rule's.
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// The steps: when it could be told, and the two between which it is seen. Those two may come from different
    /// signals, of which either can end before the other begins.
    pub fn at(mut self, told: u64, one: u64, other: u64) -> Self {
        (self.step, self.first_step, self.last_step) =
            (Some(told), Some(one.min(other)), Some(one.max(other)));
        self
    }

    /// A number of the evidence. What is not finite is kept as text, since JSON has no such numbers.
    pub fn evidence(mut self, name: &str, value: f64) -> Self {
        let value =
            serde_json::Number::from_f64(value).map_or_else(|| Value::from(show(value)), Value::Number);
        self.evidence.insert(name.to_owned(), value);
        self
    }

    /// A text of the evidence.
    pub fn evidence_text(mut self, name: &str, value: impl Into<String>) -> Self {
        self.evidence.insert(name.to_owned(), Value::from(value.into()));
        self
    }

    /// A change that should help.
    pub fn remedy(mut self, remedy: Remedy) -> Self {
        self.remedies.push(remedy);
        self
    }

    /// The column to draw beside the message.
    pub fn draw(mut self, column: &str) -> Self {
        self.column = Some(column.to_owned());
        self
    }
}

/// A number for a person: four significant digits, no needless zeros.
pub fn show(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-3..1e6).contains(&magnitude) {
        let text = format!("{value:.2e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{exponent}", digits.trim_end_matches('0').trim_end_matches('.'));
    }
    let digits =
        if magnitude == 0.0 { 0 } else { (3 - magnitude.log10().floor() as i64).clamp(0, 6) as usize };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_four_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.46571, "0.4657"),
            (0.5, "0.5"),
            (1234.56, "1235"),
            (40.0, "40"),
            (1e-5, "1e-5"),
            (7.69e-9, "7.69e-9"),
            (2.5e-4, "2.5e-4"),
            (12345678.0, "1.23e7"),
            (-2.302, "-2.302"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(show(value), text);
        }
    }
}
