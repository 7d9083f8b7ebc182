//! A diagnosis as a person or a program reads it.

use std::fmt::Write as _;

use serde_json::{Value, json};
use trimtab_signals::{Column, Run};

use crate::Diagnosis;
use crate::causes::{Explanation, explain};
use crate::finding::{Finding, Op, Remedy, Severity, show};
use crate::series::median;

/// How a diagnosis is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// With colours for a terminal.
    pub color: bool,
    /// Columns of a terminal; 0 for no limit.
    pub width: usize,
    /// With info findings and what could not be applied, spelled out.
    pub verbose: bool,
}

/// One object; see the documentation of the command line for its fields.
pub fn to_json(run: &Run, diagnosis: &Diagnosis) -> Value {
    let not_applicable: Vec<Value> =
        diagnosis.not_applicable.iter().map(|(rule, needs)| json!({"rule": rule, "needs": needs})).collect();
    json!({
        "run": run.name,
        "format": run.format,
        "steps": run.trace.last_step(),
        "signals": run.trace.names().collect::<Vec<_>>(),
        "findings": diagnosis.findings,
        "causes": explain(diagnosis),
        "not_applicable": not_applicable,
        "unmapped": run.unmapped,
        "notes": run.notes,
    })
}

/// For a terminal: the cause first, then the evidence, then what to do.
pub fn to_text(run: &Run, diagnosis: &Diagnosis, style: Style) -> String {
    let paint = |text: &str, code: &str| {
        if style.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    };
    let mut out = String::new();
    let worst = diagnosis.findings.iter().map(|f| f.severity).max();
    let columns = run.trace.names().count();
    let steps = run.trace.last_step().map_or_else(|| "no steps".to_owned(), |s| format!("to step {s}"));
    let _ = writeln!(out, "{}  {}, {steps}, {columns} signals", paint(&run.name, "1"), run.format);
    let causes = explain(diagnosis);
    if worst.is_none_or(|w| w == Severity::Info) {
        let applied = crate::RULES.len() - diagnosis.not_applicable.len();
        let _ =
            writeln!(out, "  {}  {applied} rules applied, none found anything to act on", paint("ok", "32"));
    }
    for cause in causes.iter().filter(|_| worst > Some(Severity::Info)) {
        cause_text(&mut out, cause, run, diagnosis, &paint);
    }
    // What no cause explains, and what is only worth knowing.
    for finding in &diagnosis.findings {
        let explained =
            worst > Some(Severity::Info) && causes.iter().any(|c| c.explains.contains(&finding.rule));
        let shown = finding.severity > Severity::Info || style.verbose || worst == Some(Severity::Info);
        if !explained && shown {
            finding_text(&mut out, finding, run, &paint);
        }
    }
    for note in &run.notes {
        let _ = writeln!(out, "  {} {note}", paint("note", "2"));
    }
    if style.verbose {
        for (rule, needs) in &diagnosis.not_applicable {
            let _ = writeln!(out, "  {} {rule}: needs {}", paint("not applicable", "2"), needs.join(", "));
        }
        if !run.unmapped.is_empty() {
            let _ = writeln!(out, "  {} {}", paint("not understood", "2"), run.unmapped.join(", "));
        }
    } else if !diagnosis.not_applicable.is_empty() {
        let text = format!(
            "{} rules not applicable (--verbose says what they need)",
            diagnosis.not_applicable.len()
        );
        let _ = writeln!(out, "  {}", paint(&text, "2"));
    }
    if style.width > 0 { fold(&out, style.width) } else { out }
}

fn cause_text(
    out: &mut String,
    cause: &Explanation,
    run: &Run,
    diagnosis: &Diagnosis,
    paint: &dyn Fn(&str, &str) -> String,
) {
    let explained: Vec<&Finding> = diagnosis
        .findings
        .iter()
        .filter(|f| cause.explains.contains(&f.rule) && f.severity > Severity::Info)
        .collect();
    let worst = explained.iter().map(|f| f.severity).max().unwrap_or(Severity::Info);
    let sure = if cause.instead.is_empty() { "likely cause" } else { "possible cause" };
    let _ = writeln!(
        out,
        "\n{}  {}  ({sure}, confidence {})",
        paint(&worst.name().to_uppercase(), color(worst)),
        paint(cause.summary, "1"),
        show(cause.confidence),
    );
    for finding in &explained {
        finding_text(out, finding, run, paint);
    }
    let mut seen: Vec<&Remedy> = Vec::new();
    for remedy in explained.iter().flat_map(|f| &f.remedies) {
        if seen.iter().all(|known| (known.key.as_str(), known.op) != (remedy.key.as_str(), remedy.op))
            && seen.len() < 4
        {
            let _ = writeln!(out, "  {}  {}: {}", paint("try", "36"), change(remedy), remedy.why);
            seen.push(remedy);
        }
    }
    let _ = writeln!(out, "  {}  {}", paint("to decide", "36"), cause.experiment);
    if !cause.instead.is_empty() {
        let others: Vec<&str> = cause.instead.iter().map(|id| summary(id)).collect();
        let _ = writeln!(out, "  {}  {}", paint("or", "36"), others.join("; or "));
    }
    if !cause.would_tell.is_empty() {
        let _ = writeln!(out, "  {}  {}", paint("to be surer, log", "36"), cause.would_tell.join("; "));
    }
}

fn finding_text(out: &mut String, finding: &Finding, run: &Run, paint: &dyn Fn(&str, &str) -> String) {
    let rule = paint(finding.rule, color(finding.severity));
    let _ = writeln!(out, "  {rule}  {}  {}", finding.message, drawn(finding, run));
}

fn color(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "1;31",
        Severity::Warning => "33",
        Severity::Info => "34",
    }
}

fn summary(id: &str) -> &'static str {
    crate::causes::CAUSES.iter().find(|c| c.id == id).map_or("", |c| c.summary)
}

/// A remedy as one would type it.
pub fn change(remedy: &Remedy) -> String {
    let text = || remedy.value.as_str().map_or_else(|| remedy.value.to_string(), str::to_owned);
    let value = remedy.value.as_f64().map_or_else(text, show);
    match remedy.op {
        Op::Set => format!("{} = {value}", remedy.key),
        Op::Scale => format!("{} x {value}", remedy.key),
        Op::Remove => format!("no {}", remedy.key),
        Op::Check => format!("{}: {value}", remedy.key),
    }
}

/// As a Markdown section.
pub fn to_markdown(run: &Run, diagnosis: &Diagnosis) -> String {
    let mut out = String::new();
    let steps = run.trace.last_step().map_or_else(String::new, |s| format!(", to step {s}"));
    let _ = writeln!(out, "## {}\n\n{}{steps}\n", escape(&run.name), run.format);
    let causes = explain(diagnosis);
    if diagnosis.findings.is_empty() {
        let _ = writeln!(out, "Nothing found.\n");
    }
    for cause in &causes {
        let _ = writeln!(
            out,
            "**{}** (confidence {}). To decide: {}.\n",
            escape(cause.summary),
            show(cause.confidence),
            escape(cause.experiment)
        );
    }
    if !diagnosis.findings.is_empty() {
        let _ = writeln!(out, "| severity | rule | what | steps | course |\n|---|---|---|---|---|");
        for f in &diagnosis.findings {
            let steps = match (f.first_step, f.last_step) {
                (Some(a), Some(b)) => format!("{a} to {b}"),
                _ => String::new(),
            };
            let _ = writeln!(
                out,
                "| {} | `{}` | {} | {steps} | {} |",
                f.severity.name(),
                f.rule,
                escape(&f.message),
                drawn(f, run)
            );
        }
        let _ = writeln!(out);
        for f in diagnosis.findings.iter().filter(|f| f.severity > Severity::Info) {
            for remedy in &f.remedies {
                let _ = writeln!(out, "- `{}`: {}", change(remedy).replace('`', "'"), escape(&remedy.why));
            }
        }
    }
    for note in &run.notes {
        let _ = writeln!(out, "\nNote: {}", escape(note));
    }
    out
}

/// Names and messages come from other people's files.
fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}

/// One row a run, what a tree of runs holds at a glance: severity, run, format, last step, cause with the rule that speaks
/// loudest for it.
pub fn row(run: &Run, diagnosis: &Diagnosis) -> [String; 5] {
    let worst = diagnosis.findings.first();
    let severity = worst.map_or("ok", |f| f.severity.name());
    let cause = explain(diagnosis).into_iter().next();
    let what = match (worst, cause) {
        (Some(f), Some(cause)) if f.severity > Severity::Info => {
            let loudest = diagnosis.findings.iter().find(|f| cause.explains.contains(&f.rule));
            format!("{} ({})", cause.summary, loudest.map_or("", |f| f.rule))
        }
        (Some(f), _) => f.rule.to_owned(),
        _ => String::new(),
    };
    let step = run.trace.last_step().map_or_else(String::new, |s| s.to_string());
    [severity.to_owned(), run.name.clone(), run.format.clone(), step, what]
}

/// The course of a finding's column, where it has one.
pub fn drawn(finding: &Finding, run: &Run) -> String {
    let column = finding.column.as_deref().and_then(|name| run.trace.get(name));
    column.map(|column| sparkline(column, 24)).unwrap_or_default()
}

/// A column in one line of at most `width` characters; `x` where no value of a stretch is finite.
pub fn sparkline(column: &Column, width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let values = column.values();
    if values.is_empty() || width == 0 {
        return String::new();
    }
    let count = values.len().min(width);
    let buckets: Vec<Option<f64>> = (0..count)
        .map(|at| {
            let (from, to) = (
                at * values.len() / count,
                ((at + 1) * values.len() / count).max(at * values.len() / count + 1),
            );
            median(values[from..to.min(values.len())].iter().copied())
        })
        .collect();
    let finite = || buckets.iter().flatten().copied();
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let bar = |value: &Option<f64>| match value {
        None => 'x',
        Some(_) if high - low <= 0.0 => BARS[3],
        // Halved first: the range of two finite numbers may not be finite.
        Some(v) => BARS[((((v / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)) * 7.0).round() as usize).min(7)],
    };
    buckets.iter().map(bar).collect()
}

/// Breaks long lines at spaces, with continuation lines indented.
fn fold(text: &str, width: usize) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let mut length = 0;
        for (at, word) in line.split(' ').enumerate() {
            let visible = visible(word);
            if at > 0 {
                if length + 1 + visible > width && length > indent + 4 {
                    out.push('\n');
                    out.push_str(&" ".repeat(indent + 4));
                    length = indent + 4;
                } else {
                    out.push(' ');
                    length += 1;
                }
            }
            out.push_str(word);
            length += visible;
        }
        out.push('\n');
    }
    out
}

/// Characters on the screen: colours take none.
fn visible(word: &str) -> usize {
    let (mut count, mut escape) = (0, false);
    for c in word.chars() {
        match c {
            '\u{1b}' => escape = true,
            'm' if escape => escape = false,
            _ if !escape => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_shows_the_course() {
        let column = |values: &[f64]| Column::new((0..values.len() as u64).collect(), values.to_vec());
        assert_eq!(sparkline(&column(&[0.0, 1.0, 2.0, 7.0, f64::NAN]), 10), "▁▂▃█x");
        assert_eq!(sparkline(&column(&[1.0; 100]), 3), "▄▄▄");
        assert_eq!(sparkline(&column(&[f64::MAX, f64::MIN]), 3), "█▁");
        assert_eq!(sparkline(&column(&[]), 3), "");
    }

    #[test]
    fn lines_are_folded_at_words() {
        assert_eq!(fold("  one two three four", 12), "  one two\n      three\n      four\n");
    }
}
