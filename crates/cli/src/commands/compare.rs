//! `trimtab compare`.

use std::path::Path;

use trimtab_doctor::compare::{self, Comparison};
use trimtab_doctor::report::sparkline;
use trimtab_doctor::show;
use trimtab_signals::Run;

use crate::args::CompareArgs;
use crate::commands::diagnose::{open, plain};
use crate::failure::{DONE, Failure};
use crate::progress::{print_json, say};
use crate::table::table;

pub fn run(args: &CompareArgs) -> Result<u8, Failure> {
    let (a, b) = (one(&args.a)?, one(&args.b)?);
    let found = compare::compare(&a, &b);
    if args.json {
        let mut json = serde_json::to_value(&found).map_err(|e| Failure::usage(e.to_string()))?;
        json["a"] = a.name.into();
        json["b"] = b.name.into();
        print_json(&json);
    } else {
        print(&a, &b, &found);
    }
    Ok(DONE)
}

/// The only run at a path.
fn one(path: &Path) -> Result<Run, Failure> {
    if !path.exists() {
        return Err(Failure::usage(format!("{}: no such file or folder", path.display())));
    }
    let mut opened = open(path, &trimtab_logs::Options::default());
    for note in &opened.notes {
        eprintln!("note: {note}");
    }
    match opened.runs.len() {
        1 => Ok(opened.runs.remove(0)),
        0 => {
            let why = opened.unreadable.first().map_or("no log found".to_owned(), |u| plain(&u.reason));
            Err(Failure::usage(format!("{}: {why}", path.display())))
        }
        count => {
            let names: Vec<&str> = opened.runs.iter().take(5).map(|r| r.name.as_str()).collect();
            let names = names.join("\n    ");
            Err(Failure::usage(format!(
                "{}: holds {count} runs; name one of them:\n    {names}",
                path.display()
            )))
        }
    }
}

fn print(a: &Run, b: &Run, found: &Comparison) {
    say(&format!("a  {}  ({})\nb  {}  ({})\n", a.name, a.format, b.name, b.format));
    if !found.suspects.is_empty() {
        say("could explain the difference, likeliest first:");
        for (at, suspect) in found.suspects.iter().take(6).enumerate() {
            say(&format!("  {}. {}: {}", at + 1, suspect.key, suspect.why));
        }
        say("");
    }
    if let Some(rate) = &found.rate {
        say(&format!(
            "rate per sample of an update: a {} / {}, b {} / {}: a's is {} times b's; b at a's rate per sample: {}\n",
            show(rate.rate[0]),
            show(rate.batch[0]),
            show(rate.rate[1]),
            show(rate.batch[1]),
            show(rate.factor),
            show(rate.second_scaled),
        ));
    }
    if !found.declared.is_empty() {
        let text = |v: &Option<serde_json::Value>| v.as_ref().map_or_else(|| "–".to_owned(), compare::value);
        // What no rule knows is too much to read where there is a lot of it.
        let known = |key: &str| trimtab_signals::keys::of(key).is_some();
        let unknown = found.declared.iter().filter(|d| !known(&d.key)).count();
        let shown = found.declared.iter().filter(|d| known(&d.key) || unknown <= 20);
        say(&table(
            &["declared differently", "a", "b"],
            shown.map(|d| vec![d.key.clone(), text(&d.a), text(&d.b)]),
        ));
        if unknown > 20 {
            say(&format!("and {unknown} that are not understood (--json has them)"));
        }
        say("");
    }
    let rows = found.columns.iter().filter(|c| trimtab_signals::names::of(&c.name).is_some()).map(|c| {
        let level = |at: usize| {
            let text = show(c.best[at].unwrap_or(c.last[at]));
            let won = matches!(c.best, [Some(x), Some(y)] if compare::better(&c.name, x, y) == Some(at));
            if won { format!("{text} *") } else { text }
        };
        let line = |run: &Run| run.trace.get(&c.name).map(|column| sparkline(column, 16)).unwrap_or_default();
        let from = c.from.map_or_else(|| "–".to_owned(), |s| s.to_string());
        vec![c.name.clone(), level(0), level(1), show(c.last[0]), show(c.last[1]), from, line(a), line(b)]
    });
    say(&table(&["curve", "best a", "best b", "last a", "last b", "part at step", "a", "b"], rows));
    if found.columns.is_empty() {
        say("the two runs have no signal in common");
    }
}
