//! `trimtab diagnose`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use trimtab_doctor::report::{self, Style};
use trimtab_doctor::{Diagnosis, Options, Severity};
use trimtab_logs::{Opened, Unreadable};
use trimtab_signals::{Facts, Run, Trace, keys};

use crate::args::{DiagnoseArgs, DoctorArgs};
use crate::failure::{DONE, Failure, STOPPED};
use crate::progress::{print_json, say};

pub fn run(args: &DiagnoseArgs) -> Result<u8, Failure> {
    let doctor = Doctor::from_args(&args.doctor)?;
    let mut opened = Opened::default();
    for path in &args.paths {
        let found = doctor.open(path);
        opened.runs.extend(found.runs);
        opened.unreadable.extend(found.unreadable);
        opened.notes.extend(found.notes);
    }
    if opened.runs.is_empty() {
        return Err(nothing_readable(&args.paths, &opened));
    }
    let diagnosed: Vec<(Run, Diagnosis)> = std::mem::take(&mut opened.runs)
        .into_par_iter()
        .map(|run| {
            let diagnosis = doctor.diagnose(&run);
            (run, diagnosis)
        })
        .collect();
    let critical = diagnosed.iter().any(|(_, d)| d.findings.iter().any(|f| f.severity == Severity::Critical));
    if args.json {
        print_json(&as_json(&diagnosed, &opened));
    } else {
        say(&as_text(&diagnosed, args));
        for unreadable in &opened.unreadable {
            eprintln!("not read: {}", why_not(unreadable));
        }
        for note in &opened.notes {
            eprintln!("note: {note}");
        }
    }
    Ok(if critical { STOPPED } else { DONE })
}

/// One run stands by itself, several in a list; beside them what was not read.
fn as_json(diagnosed: &[(Run, Diagnosis)], opened: &Opened) -> Value {
    let unreadable: Vec<Value> = opened
        .unreadable
        .iter()
        .map(|u| json!({"path": plain(&u.path.display().to_string()), "reason": plain(&u.reason)}))
        .collect();
    let mut runs: Vec<Value> = diagnosed.iter().map(|(run, d)| report::to_json(run, d)).collect();
    if runs.len() != 1 {
        return json!({"runs": runs, "unreadable": unreadable, "notes": opened.notes});
    }
    let mut only = runs.remove(0);
    if !unreadable.is_empty() {
        only["unreadable"] = unreadable.into();
    }
    if let Some(notes) = only["notes"].as_array_mut() {
        notes.extend(opened.notes.iter().map(|note| note.as_str().into()));
    }
    only
}

fn as_text(diagnosed: &[(Run, Diagnosis)], args: &DiagnoseArgs) -> String {
    let loud = |d: &Diagnosis| d.findings.iter().any(|f| f.severity >= Severity::Warning);
    let many = diagnosed.len() > 1;
    let mut rows: Vec<[String; 5]> = diagnosed.iter().map(|(run, d)| report::row(run, d)).collect();
    for row in &mut rows {
        row[1] = short(&row[1], &args.paths);
    }
    // The worst last, where a terminal's eye is.
    rows.sort_by_key(|row| ["ok", "info", "warning", "critical"].iter().position(|s| *s == row[0]));
    if args.format == "md" {
        let mut text = String::from("# Diagnosis\n\n");
        if many {
            text += "| severity | run | format | last step | likely cause |\n|---|---|---|---|---|\n";
            for row in rows.iter().rev() {
                text += &format!(
                    "| {} |\n",
                    row.iter().map(|c| c.replace('|', "\\|")).collect::<Vec<_>>().join(" | ")
                );
            }
            text.push('\n');
        }
        for (run, diagnosis) in diagnosed.iter().filter(|(_, d)| !many || args.verbose || loud(d)) {
            text += &report::to_markdown(run, diagnosis);
            text.push('\n');
        }
        return text;
    }
    let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let width = if color { terminal_size::terminal_size().map_or(0, |(w, _)| usize::from(w.0)) } else { 0 };
    let style = Style { color, width, verbose: args.verbose };
    let mut text = String::new();
    for (run, diagnosis) in diagnosed.iter().filter(|(_, d)| !many || args.verbose || loud(d)) {
        text += &report::to_text(run, diagnosis, style);
        text.push('\n');
    }
    if many {
        text += &left(&["", "run", "format", "last step", "likely cause"], &rows);
    }
    text.truncate(text.trim_end().len());
    text
}

/// The name of a run below the only folder that was asked for.
fn short(name: &str, paths: &[PathBuf]) -> String {
    let [only] = paths else { return name.to_owned() };
    let below = Path::new(name).strip_prefix(only).ok().filter(|rest| !rest.as_os_str().is_empty());
    below.map_or_else(|| name.to_owned(), |rest| rest.display().to_string())
}

/// A table of texts: left-aligned, as they are read.
fn left(header: &[&str; 5], rows: &[[String; 5]]) -> String {
    let width =
        |at: usize| rows.iter().map(|r| r[at].chars().count()).chain([header[at].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let line = |cells: [&str; 5]| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(*header);
    for row in rows {
        text += &line([&row[0], &row[1], &row[2], &row[3], &row[4]]);
    }
    text
}

fn nothing_readable(paths: &[PathBuf], opened: &Opened) -> Failure {
    let mut text = String::new();
    for path in paths {
        if !path.exists() {
            text += &format!("{}: no such file or folder\n", plain(&path.display().to_string()));
        }
    }
    for unreadable in &opened.unreadable {
        text += &format!("{}\n", why_not(unreadable));
    }
    for note in &opened.notes {
        text += &format!("{note}\n");
    }
    if text.is_empty() {
        text += "no log found\n";
    }
    let formats: Vec<&str> = trimtab_logs::FORMATS.iter().map(|f| f.id).collect();
    text += &format!("nothing readable; formats tried: {}", formats.join(", "));
    Failure::usage(text)
}

/// Text of other people's files and folders, without what would steer a terminal.
pub fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// A file that was not read, and why, in one line.
pub fn why_not(unreadable: &Unreadable) -> String {
    plain(&format!("{}: {}", unreadable.path.display(), unreadable.reason))
}

/// What a path holds, in [`plain`] text.
pub fn open(path: &Path, options: &trimtab_logs::Options) -> Opened {
    let mut opened = trimtab_logs::open_with(path, options);
    opened.runs.iter_mut().for_each(clean);
    for note in &mut opened.notes {
        *note = plain(note);
    }
    opened
}

/// Makes every text of a run [`plain`]: what is said of it later is built from these.
fn clean(run: &mut Run) {
    run.name = plain(&run.name);
    for text in run.notes.iter_mut().chain(&mut run.unmapped).chain(run.logged_as.values_mut()) {
        *text = plain(text);
    }
    if run.trace.names().any(|name| name.contains(char::is_control)) {
        let mut trace = Trace::new();
        for (name, column) in run.trace.iter() {
            trace.set(plain(name), column.clone());
        }
        trace.set_epochs(run.trace.epochs().clone());
        trace.set_times(run.trace.times().clone());
        run.trace = trace;
        let logged_as = std::mem::take(&mut run.logged_as);
        run.logged_as = logged_as.into_iter().map(|(name, logged)| (plain(&name), logged)).collect();
    }
    let mut facts = Facts::new();
    for (key, value) in run.facts.iter() {
        facts.set(plain(key), plain_value(value));
    }
    run.facts = facts;
}

fn plain_value(value: &Value) -> Value {
    match value {
        Value::String(text) => plain(text).into(),
        Value::Array(list) => list.iter().map(plain_value).collect(),
        Value::Object(table) => table.iter().map(|(key, v)| (plain(key), plain_value(v))).collect(),
        other => other.clone(),
    }
}

/// The doctor with what the user told it.
pub struct Doctor {
    options: Options,
    facts: BTreeMap<String, Value>,
    pattern: Option<regex::Regex>,
}

/// The file of `--config`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    metric: Option<String>,
    higher_is_better: Option<bool>,
    chance: Option<f64>,
    disabled: Vec<String>,
    pattern: Option<String>,
    facts: BTreeMap<String, Value>,
}

impl Doctor {
    /// # Errors
    ///
    /// Where the configuration or the pattern is wrong: with file, line and what is accepted.
    pub fn from_args(args: &DoctorArgs) -> Result<Self, Failure> {
        let mut config = Config::default();
        if let Some(path) = &args.config {
            let text = std::fs::read_to_string(path)
                .map_err(|e| Failure::usage(format!("failed to read `{}`: {e}", path.display())))?;
            // toml_edit's message shows the line and what is accepted.
            config = toml_edit::de::from_str(&text)
                .map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
            let from = |key: &str| format!("{}: `{key}`", path.display());
            if let Some(key) = config.facts.keys().find(|key| keys::of(key).is_none()) {
                let known = keys::ALL.iter().map(|k| k.name);
                return Err(Failure::usage(format!("{} is no fact{}", from(key), meant(key, known))));
            }
            for (name, value) in &config.facts {
                let kind = keys::of(name).map_or("", |key| key.kind);
                if let Some(taken) = not_of_kind(kind, value) {
                    return Err(Failure::usage(format!("{} takes {taken}", from(name))));
                }
            }
            if config.chance.is_some_and(|chance| !chance.is_finite()) {
                return Err(Failure::usage(format!("{} takes a finite number", from("chance"))));
            }
            if let Some(id) = config.disabled.iter().find(|id| trimtab_doctor::rules::by_id(id).is_none()) {
                let known = trimtab_doctor::RULES.iter().map(|r| r.meta().id);
                return Err(Failure::usage(format!("{} is no rule{}", from(id), meant(id, known))));
            }
        }
        let pattern = args.pattern.clone().or(config.pattern);
        let pattern = pattern
            .map(|p| regex::Regex::new(&p).map_err(|e| Failure::usage(format!("the pattern is wrong: {e}"))))
            .transpose()?;
        if pattern.as_ref().is_some_and(|p| p.capture_names().flatten().count() == 0) {
            return Err(Failure::usage("the pattern has no named group: (?P<epoch>\\d+) or (?P<loss>\\S+)"));
        }
        let options = Options {
            metric: config.metric,
            higher_is_better: config.higher_is_better,
            chance: config.chance,
            disabled: config.disabled,
        };
        Ok(Self { options, facts: config.facts, pattern })
    }

    /// The runs at a path, with the user's facts.
    pub fn open(&self, path: &Path) -> Opened {
        let mut opened = open(path, &trimtab_logs::Options { pattern: self.pattern.clone() });
        for run in &mut opened.runs {
            for (key, value) in &self.facts {
                run.facts.set(key.clone(), value.clone());
            }
        }
        opened
    }

    /// What is wrong with a run.
    pub fn diagnose(&self, run: &Run) -> Diagnosis {
        trimtab_doctor::diagnose(run, &self.options)
    }
}

/// What a kind of key takes, where the value is something else. A number that is not finite is `null` here.
fn not_of_kind(kind: &str, value: &Value) -> Option<&'static str> {
    let (fits, taken) = match kind {
        "number" => (value.is_number(), "a finite number"),
        "count" => (value.is_u64(), "a whole number that is not negative"),
        "text" => (value.is_string(), "a text"),
        "flag" => (value.is_boolean(), "true or false"),
        "list" => {
            let numbers = value.as_array().is_some_and(|list| list.iter().all(Value::is_number));
            (numbers, "a list of finite numbers")
        }
        _ => (value.is_object(), "a table"),
    };
    (!fits).then_some(taken)
}

/// `; did you mean ...?`, where something is near.
pub fn meant<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = known.map(|k| (strsim::damerau_levenshtein(word, k), k)).min();
    near.filter(|(distance, k)| *distance <= 1 + k.len() / 3)
        .map_or_else(String::new, |(_, k)| format!("; did you mean `{k}`?"))
}
