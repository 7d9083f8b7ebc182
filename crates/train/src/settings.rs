//! Reading settings: one description of each key serves reading, checking, the resolved `config.toml`, `trimtab init` and
//! the JSON schema.
//!
//! A recipe *asks* for the keys it uses. What was in the file but never asked for is an error, so a key can't be
//! declared and then do nothing; a key that has no effect beside another one says so ([`Reader::inactive`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::json;
use toml_edit::{Document, Item, TableLike, Value};

/// Where the value of a key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Not given: the default.
    Default,
    /// A file, with the line (from 1).
    File(PathBuf, usize),
    /// `--set` on the command line.
    Flag,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::File(path, line) => {
                write!(f, "{}:{line}", path.file_name().unwrap_or(path.as_os_str()).to_string_lossy())
            }
            Self::Flag => write!(f, "--set"),
        }
    }
}

/// One thing wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the key stands.
    pub source: Source,
    /// Dotted key; empty for a syntax error.
    pub key: String,
    /// What was found and what is accepted.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.source {
            Source::Default => {}
            Source::File(path, line) => write!(f, "{}:{line}: ", path.display())?,
            Source::Flag => write!(f, "--set: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        write!(f, "{}", self.message)
    }
}

/// All that is wrong with the settings, not only the first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<Problem>);

#[derive(Debug, Clone)]
struct Entry {
    value: Value,
    source: Source,
}

/// A table of `[[key]]`: its line and its entries.
type Table = (usize, BTreeMap<String, Entry>);

/// What a key is: for the resolved file, the template and the schema.
#[derive(Debug, Clone)]
struct KeySpec {
    /// Dotted key.
    key: String,
    /// One sentence: meaning, unit, what special values do.
    doc: &'static str,
    /// What is accepted, in words.
    accepted: String,
    /// Type and limits for the JSON schema.
    schema: serde_json::Value,
    /// Value in force; none for an optional key that is not given.
    value: Option<Value>,
    /// Where it comes from.
    source: Source,
    /// The setting with which alone this key does something; none for keys that always do.
    only_with: Option<&'static str>,
}

/// Reads keys one by one and remembers which were asked for.
#[derive(Debug)]
pub struct Reader {
    entries: BTreeMap<String, Entry>,
    tables: BTreeMap<String, Vec<Table>>,
    table_source: Option<PathBuf>,
    specs: Vec<KeySpec>,
    asked: BTreeSet<String>,
    inactive: BTreeMap<String, String>,
    problems: Vec<Problem>,
}

impl Reader {
    /// Settings from nothing: every key has its default.
    pub fn empty() -> Self {
        Self {
            entries: BTreeMap::new(),
            tables: BTreeMap::new(),
            table_source: None,
            specs: Vec::new(),
            asked: BTreeSet::new(),
            inactive: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// Settings from the text of a TOML file, and `key=value` overrides.
    ///
    /// # Errors
    /// Not TOML (with the line), or an override without `=`.
    pub fn new(path: &Path, text: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let line_of = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
        let document = Document::parse(text).map_err(|e| {
            let source = Source::File(path.to_owned(), e.span().map_or(1, |s| line_of(s.start)));
            ConfigError(vec![Problem {
                source,
                key: String::new(),
                message: format!("not valid TOML: {}", e.message().trim()),
            }])
        })?;
        let mut reader = Self::empty();
        reader.table_source = Some(path.to_owned());
        reader.flatten(document.as_table(), "", path, &line_of);
        for text in overrides {
            reader.set(text)?;
        }
        Ok(reader)
    }

    fn flatten(
        &mut self,
        table: &dyn TableLike,
        prefix: &str,
        path: &Path,
        line_of: &dyn Fn(usize) -> usize,
    ) {
        for (name, item) in table.iter() {
            let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            if let Some(inner) = item.as_table_like() {
                self.flatten(inner, &key, path, line_of);
            } else if let Item::ArrayOfTables(array) = item {
                let tables = array.iter().map(|t| {
                    let line = line_of(t.span().map_or(0, |s| s.start));
                    let entries = t.iter().filter_map(|(name, item)| {
                        let value = item.as_value()?.clone();
                        let line = line_of(item.span().map_or(0, |s| s.start));
                        Some((name.to_owned(), Entry { value, source: Source::File(path.to_owned(), line) }))
                    });
                    (line, entries.collect())
                });
                self.tables.insert(key, tables.collect());
            } else if let Some(value) = item.as_value() {
                let line = line_of(item.span().map_or(0, |s| s.start));
                let source = Source::File(path.to_owned(), line);
                self.entries.insert(key, Entry { value: plain(value), source });
            }
        }
    }

    fn set(&mut self, text: &str) -> Result<(), ConfigError> {
        let Some((key, value)) = text.split_once('=') else {
            let message = format!("found `{text}`; accepted is key=value, e.g. stage2.learning_rate=0.001");
            return Err(ConfigError(vec![Problem { source: Source::Flag, key: String::new(), message }]));
        };
        // A bare word is a string: nobody wants to write quotes within quotes in a shell.
        let value = value.trim().parse::<Value>().unwrap_or_else(|_| Value::from(value.trim()));
        self.entries.insert(key.trim().to_owned(), Entry { value: plain(&value), source: Source::Flag });
        Ok(())
    }

    fn ask<T>(
        &mut self,
        key: &str,
        doc: &'static str,
        accepted: String,
        schema: serde_json::Value,
        default: (T, Option<Value>),
        read: impl Fn(&Value) -> Option<T>,
    ) -> T {
        let (value, raw, source) = match self.entries.get(key) {
            None => (default.0, default.1, Source::Default),
            Some(entry) => match read(&entry.value) {
                Some(value) => (value, Some(entry.value.clone()), entry.source.clone()),
                None => {
                    let found = describe(&entry.value);
                    self.problems.push(Problem {
                        source: entry.source.clone(),
                        key: key.to_owned(),
                        message: format!("found {found}; accepted is {accepted}"),
                    });
                    (default.0, default.1, entry.source.clone())
                }
            },
        };
        self.asked.insert(key.to_owned());
        self.specs.push(KeySpec {
            key: key.to_owned(),
            doc,
            accepted,
            schema,
            value: raw,
            source,
            only_with: None,
        });
        value
    }

    /// A floating-point number in `range` (integers are accepted too).
    pub fn number(&mut self, key: &str, default: f64, range: RangeInclusive<f64>, doc: &'static str) -> f64 {
        let mut schema = json!({"type": "number", "minimum": range.start()});
        let accepted = if range.end().is_finite() {
            schema["maximum"] = json!(range.end());
            format!("a number in {}..={}", range.start(), range.end())
        } else {
            format!("a number of at least {}", range.start())
        };
        self.ask(key, doc, accepted, schema, (default, Some(Value::from(default))), |v| {
            let number = v.as_float().or_else(|| v.as_integer().map(|i| i as f64))?;
            range.contains(&number).then_some(number)
        })
    }

    /// A whole number in `range`.
    pub fn count(&mut self, key: &str, default: u64, range: RangeInclusive<u64>, doc: &'static str) -> u64 {
        let mut schema = json!({"type": "integer", "minimum": range.start()});
        let accepted = if *range.end() < u64::MAX {
            schema["maximum"] = json!(range.end());
            format!("a whole number in {}..={}", range.start(), range.end())
        } else {
            format!("a whole number of at least {}", range.start())
        };
        self.ask(key, doc, accepted, schema, (default, Some(Value::from(default as i64))), |v| {
            let number = u64::try_from(v.as_integer()?).ok()?;
            range.contains(&number).then_some(number)
        })
    }

    /// A whole number in `range`, or not given at all.
    pub fn optional_count(
        &mut self,
        key: &str,
        range: RangeInclusive<u64>,
        doc: &'static str,
    ) -> Option<u64> {
        let accepted = format!("a whole number in {}..={}", range.start(), range.end());
        let schema = json!({"type": "integer", "minimum": range.start(), "maximum": range.end()});
        self.ask(key, doc, accepted, schema, (None, None), |v| {
            let number = u64::try_from(v.as_integer()?).ok()?;
            range.contains(&number).then_some(Some(number))
        })
    }

    /// A floating-point number in `range`, or not given at all.
    pub fn optional_number(
        &mut self,
        key: &str,
        range: RangeInclusive<f64>,
        doc: &'static str,
    ) -> Option<f64> {
        let accepted = format!("a number in {}..={}", range.start(), range.end());
        let schema = json!({"type": "number", "minimum": range.start(), "maximum": range.end()});
        self.ask(key, doc, accepted, schema, (None, None), |v| {
            let number = v.as_float().or_else(|| v.as_integer().map(|i| i as f64))?;
            range.contains(&number).then_some(Some(number))
        })
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &str, default: bool, doc: &'static str) -> bool {
        let schema = json!({"type": "boolean"});
        self.ask(
            key,
            doc,
            "true or false".to_owned(),
            schema,
            (default, Some(Value::from(default))),
            Value::as_bool,
        )
    }

    /// A text; empty means "not given" where `doc` says so.
    pub fn text(&mut self, key: &str, default: &str, doc: &'static str) -> String {
        let schema = json!({"type": "string"});
        let default = (default.to_owned(), Some(Value::from(default)));
        self.ask(key, doc, "a text in quotes".to_owned(), schema, default, |v| v.as_str().map(str::to_owned))
    }

    /// Whole numbers: one, an array of them, or a text with commas between them; none where not given.
    pub fn whole_numbers(&mut self, key: &str, doc: &'static str) -> Vec<i32> {
        let one = |v: &Value| i32::try_from(v.as_integer()?).ok();
        let schema = json!({"anyOf": [
            {"type": "integer"}, {"type": "array", "items": {"type": "integer"}}, {"type": "string"}
        ]});
        let accepted = "whole numbers, e.g. 2, [2, 3] or \"2, 3\"".to_owned();
        self.ask(key, doc, accepted, schema, (Vec::new(), Some(Value::Array(toml_edit::Array::new()))), |v| {
            match v {
                Value::Array(array) => array.iter().map(one).collect(),
                Value::String(text) => {
                    let parts = text.value().split(',').map(str::trim).filter(|part| !part.is_empty());
                    parts.map(|part| part.parse().ok()).collect()
                }
                other => one(other).map(|value| vec![value]),
            }
        })
    }

    /// One of a few words.
    pub fn choice<T: Copy>(
        &mut self,
        key: &str,
        default: &str,
        choices: &[(&str, T)],
        doc: &'static str,
    ) -> T {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let accepted =
            format!("one of {}", names.iter().map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", "));
        let of = |name: &str| choices.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        let value = of(default).unwrap_or(choices[0].1);
        let schema = json!({"enum": names});
        self.ask(key, doc, accepted, schema, (value, Some(Value::from(default))), |v| of(v.as_str()?))
    }

    /// The tables of `[[key]]`; each entry is read by `read` from the text of its only key `name`.
    pub fn tables<T>(
        &mut self,
        key: &str,
        name: &str,
        doc: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        self.asked.insert(key.to_owned());
        if let Some(entry) = self.entries.get(key) {
            let message =
                format!("found {}; accepted are tables: [[{key}]] with `{name}`", describe(&entry.value));
            self.problems.push(Problem { source: entry.source.clone(), key: key.to_owned(), message });
        }
        let mut texts = toml_edit::Array::new();
        let mut values = Vec::new();
        let path = self.table_source.clone().unwrap_or_default();
        let mut source = Source::Default;
        for (line, table) in self.tables.get(key).cloned().unwrap_or_default() {
            source = Source::File(path.clone(), line);
            let mut problem = |source: &Source, key: String, message: String| {
                self.problems.push(Problem { source: source.clone(), key, message });
            };
            for (other, entry) in table.iter().filter(|(other, _)| *other != name) {
                problem(
                    &entry.source,
                    format!("{key}.{other}"),
                    format!("unknown key; accepted is `{name}`"),
                );
            }
            match table.get(name).map(|e| (e, e.value.as_str())) {
                None => problem(&source, key.to_owned(), format!("`{name}` is missing")),
                Some((e, None)) => problem(
                    &e.source,
                    format!("{key}.{name}"),
                    format!("found {}; accepted is a text in quotes", describe(&e.value)),
                ),
                Some((e, Some(text))) => match read(text) {
                    Ok(value) => {
                        values.push(value);
                        texts.push(text);
                    }
                    Err(message) => problem(&e.source, format!("{key}.{name}"), message),
                },
            }
        }
        let schema = json!({"type": "array", "items": {"type": "object", "required": [name], "additionalProperties": false, "properties": {name: {"type": "string"}}}});
        let value = Some(Value::Array(texts));
        self.specs.push(KeySpec {
            key: format!("{key}[].{name}"),
            doc,
            accepted: "a condition".to_owned(),
            schema,
            value,
            source,
            only_with: None,
        });
        values
    }

    /// Whether the user gave this key a text that is not empty, before it is asked for.
    pub fn has_text(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|e| e.value.as_str() != Some(""))
    }

    /// Records that a key does nothing beside another one, where the user gave it another value than its default (a resolved
    /// file holds every key, also idle ones).
    pub fn idle(&mut self, key: &str, default: f64, because: impl std::fmt::Display) {
        let number = |v: &Value| v.as_float().or_else(|| v.as_integer().map(|i| i as f64));
        if self.entries.get(key).is_some_and(|e| number(&e.value) != Some(default)) {
            self.reject(key, format!("has no effect: {because}"));
        }
    }

    /// Keys (or all keys under a section) that do nothing here, and why. Setting one is an error.
    pub fn inactive(&mut self, key: &str, because: impl Into<String>) {
        self.inactive.insert(key.to_owned(), because.into());
    }

    /// As [`Self::inactive`] for what the value of `cause` switches off. Where that value is given on the command line, keys of the
    /// file are passed over: one `--set` may switch off what a file has set up in several keys.
    pub fn switched_off(&mut self, key: &str, cause: &str, because: impl Into<String>) {
        let by_flag = self.entries.get(cause).is_some_and(|e| e.source == Source::Flag);
        let in_file = |source: &Source| matches!(source, Source::File(..));
        if by_flag && self.entries.get(key).is_none_or(|e| in_file(&e.source)) {
            let below = format!("{key}.");
            self.entries.retain(|k, e| k != key && !k.starts_with(&below) || !in_file(&e.source));
        }
        self.inactive(key, because);
    }

    /// Records that a value, though of the right type, can't be used.
    pub fn reject(&mut self, key: &str, message: impl Into<String>) {
        let source = self.specs.iter().find(|s| s.key == key).map_or(Source::Default, |s| s.source.clone());
        self.problems.push(Problem { source, key: key.to_owned(), message: message.into() });
    }

    /// Ends the reading: the keys in force, or all that is wrong. `others` names the recipe an unknown key belongs to.
    ///
    /// # Errors
    /// Any problem met on the way, and every key of the file that nothing asked for.
    pub fn finish(mut self, others: &dyn Fn(&str) -> Option<String>) -> Result<Resolved, ConfigError> {
        let given = self.entries.iter().map(|(k, e)| (k, e.source.clone())).chain(self.tables.iter().map(
            |(k, t)| {
                let line = t.first().map_or(1, |(line, _)| *line);
                (k, Source::File(self.table_source.clone().unwrap_or_default(), line))
            },
        ));
        for (key, source) in given.filter(|(key, _)| !self.asked.contains(*key)) {
            let message = if let Some(because) = self.inactive_because(key) {
                format!("has no effect here: {because}")
            } else if let Some(recipe) = others(key) {
                format!("is a key of the recipe \"{recipe}\", not of this one")
            } else {
                match self.closest(key) {
                    Some(close) => format!("unknown key; did you mean `{close}`?"),
                    None => format!("unknown key; accepted are {}", self.siblings(key)),
                }
            };
            self.problems.push(Problem { source, key: key.clone(), message });
        }
        if self.problems.is_empty() { Ok(Resolved::new(self.specs)) } else { Err(ConfigError(self.problems)) }
    }

    /// The keys asked for so far, whatever is wrong with them.
    pub fn into_resolved(self) -> Resolved {
        Resolved::new(self.specs)
    }

    /// Takes over the keys that `other` was asked for and this one was not, as those that only count with `condition`.
    pub fn add_alternative(&mut self, other: Self, condition: &'static str) {
        for spec in other.specs {
            if self.specs.iter().any(|known| known.key == spec.key) {
                continue;
            }
            self.specs.push(KeySpec { only_with: Some(condition), ..spec });
        }
    }

    fn inactive_because(&self, key: &str) -> Option<&String> {
        let mut part = key;
        loop {
            if let Some(because) = self.inactive.get(part) {
                return Some(because);
            }
            part = part.rsplit_once('.')?.0;
        }
    }

    /// The known key nearest to `key`: misspelt, or right but in another section.
    fn closest(&self, key: &str) -> Option<&str> {
        let last = |k: &str| k.rsplit('.').next().unwrap_or(k).to_owned();
        let distance = |known: &str| {
            let whole = strsim::damerau_levenshtein(key, known);
            let elsewhere = 2 + strsim::damerau_levenshtein(&last(key), &last(known));
            whole.min(elsewhere)
        };
        let (best, known) = self.asked.iter().map(|known| (distance(known), known)).min()?;
        (best <= 2 + last(key).len() / 4).then_some(known.as_str())
    }

    fn siblings(&self, key: &str) -> String {
        let section = key.rsplit_once('.').map(|(section, _)| section);
        let of = |k: &str| k.rsplit_once('.').map(|(s, _)| s.to_owned());
        let mut names: Vec<&str> =
            self.asked.iter().filter(|k| of(k).as_deref() == section).map(String::as_str).collect();
        if names.is_empty() {
            names = self.asked.iter().filter_map(|k| k.split('.').next()).collect();
            names.dedup();
        }
        names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
    }
}

/// The value without the way it was written: 2e-5 and 0.00002 are the same setting, and must be after a resume.
fn plain(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::from(text.value().as_str()),
        Value::Integer(number) => Value::from(*number.value()),
        Value::Float(number) => Value::from(*number.value()),
        Value::Boolean(flag) => Value::from(*flag.value()),
        Value::Array(all) => Value::Array(all.iter().map(plain).collect()),
        other => other.clone(),
    }
}

fn describe(value: &Value) -> String {
    let text = value.clone().decorated("", "").to_string();
    format!("{text} ({})", value.type_name())
}

/// A key for a table.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// Dotted key.
    pub key: &'a str,
    /// Value in force, as TOML.
    pub value: String,
    /// What is accepted, in words.
    pub accepted: &'a str,
    /// Meaning.
    pub doc: &'static str,
    /// The setting with which alone it does something.
    pub only_with: Option<&'static str>,
}

/// The keys in force, with their values and where those come from.
#[derive(Debug, Clone)]
pub struct Resolved {
    specs: Vec<KeySpec>,
}

impl KeySpec {
    /// The value in force as TOML; empty where there is none.
    fn text(&self) -> String {
        self.value.as_ref().map(|v| v.clone().decorated("", "").to_string()).unwrap_or_default()
    }

    fn section(&self) -> &str {
        self.key.rsplit_once('.').map_or("", |(section, _)| section)
    }
}

impl Resolved {
    /// Keys of one section side by side, sections in the order in which they were first asked for: TOML allows a section
    /// only once.
    fn new(mut specs: Vec<KeySpec>) -> Self {
        let mut sections: Vec<String> = Vec::new();
        for spec in &specs {
            if !sections.iter().any(|s| s == spec.section()) {
                sections.push(spec.section().to_owned());
            }
        }
        specs.sort_by_key(|spec| sections.iter().position(|s| s == spec.section()));
        Self { specs }
    }

    /// As TOML that can be read again: every key, its value and its source.
    pub fn to_toml(&self) -> String {
        self.render(|spec| (None, Some(spec.source.to_string())))
    }

    /// As a commented template with each key's meaning and what it accepts.
    pub fn to_template(&self) -> String {
        self.render(|spec| {
            let only = spec.only_with.map(|c| format!("only with {c}; ")).unwrap_or_default();
            (Some(format!("{} ({only}{})", spec.doc, spec.accepted)), None)
        })
    }

    fn render(&self, notes: impl Fn(&KeySpec) -> (Option<String>, Option<String>)) -> String {
        let mut out = String::new();
        let (tables, plain): (Vec<_>, Vec<_>) = self.specs.iter().partition(|s| s.key.contains("[]"));
        let mut section = String::new();
        for spec in plain {
            let name = spec.key.rsplit('.').next().unwrap_or(&spec.key);
            if spec.section() != section {
                section = spec.section().to_owned();
                let _ = write!(out, "\n[{section}]\n");
            }
            let (before, behind) = notes(spec);
            if let Some(text) = before {
                let _ = writeln!(out, "# {text}");
            }
            match &spec.value {
                Some(_) if spec.only_with.is_some() => {
                    let _ = writeln!(out, "# {name} = {}", spec.text());
                }
                Some(_) => {
                    let behind = behind.map(|b| format!("  # {b}")).unwrap_or_default();
                    let _ = writeln!(out, "{name} = {}{behind}", spec.text());
                }
                None => {
                    let _ = writeln!(out, "# {name} is not given");
                }
            }
        }
        for spec in tables {
            let Some((key, name)) = spec.key.split_once("[].") else { continue };
            let (before, _) = notes(spec);
            if let Some(text) = before {
                let _ = write!(out, "\n# [[{key}]] {text}\n");
            }
            for value in spec.value.iter().filter_map(Value::as_array).flatten() {
                let _ = write!(out, "\n[[{key}]]\n{name} = {}\n", value.clone().decorated("", ""));
            }
        }
        out
    }

    /// Every key for a table: name, value in force, what is accepted, meaning.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.specs.iter().map(|s| Row {
            key: &s.key,
            value: s.text(),
            accepted: &s.accepted,
            doc: s.doc,
            only_with: s.only_with,
        })
    }

    /// Whether there is such a key.
    pub fn has(&self, key: &str) -> bool {
        self.specs.iter().any(|s| s.key == key)
    }

    /// A hash of all keys and values.
    pub fn identity(&self) -> String {
        blake3::hash(format!("{:?}", self.values()).as_bytes()).to_hex().to_string()
    }

    /// Key and value of every setting, for comparing two runs.
    pub fn values(&self) -> BTreeMap<&str, String> {
        self.specs.iter().map(|s| (s.key.as_str(), s.text())).collect()
    }

    /// A JSON schema (draft 2020-12) of the settings.
    pub fn to_schema(&self, title: &str) -> serde_json::Value {
        let mut root = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": title, "type": "object", "additionalProperties": false, "properties": {},
        });
        for spec in &self.specs {
            let mut schema = spec.schema.clone();
            schema["description"] = json!(spec.doc);
            if let Some((key, _)) = spec.key.split_once("[].") {
                root["properties"][key] = schema;
                continue;
            }
            match &spec.value {
                Some(Value::String(s)) => schema["default"] = json!(s.value()),
                Some(_) => {
                    schema["default"] = serde_json::from_str(&spec.text()).unwrap_or(json!(spec.text()))
                }
                None => {}
            }
            let mut at = &mut root;
            let mut parts: Vec<&str> = spec.key.split('.').collect();
            let name = parts.pop().unwrap_or_default();
            for part in parts {
                at = &mut at["properties"][part];
                if at.is_null() {
                    *at = json!({"type": "object", "additionalProperties": false, "properties": {}});
                }
            }
            at["properties"][name] = schema;
        }
        root
    }
}
