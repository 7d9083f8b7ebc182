//! `xtask doctor`: how often each rule fires on runs whose outcome is known, as a page of the documentation.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use trimtab_doctor::{Options, RULES, Severity, diagnose};
use trimtab_signals::Run;

use crate::{Outcome, root};

/// Parts of a run that are looked at; each only with what was known then.
const PARTS: [f64; 4] = [0.1, 0.25, 0.5, 1.0];
const FAILING: [&str; 4] = ["collapsed", "never_learned", "diverged", "degraded"];
const PAGE: &str = "docs/doctor-accuracy.md";
const BEGIN: &str = "<!-- written by `xtask doctor` -->\n";
const END: &str = "<!-- end -->\n";

#[derive(clap::Args)]
pub struct Args {
    /// The folder with replay/ and logs/.
    #[arg(long, env = "TRIMTAB_SHARED", default_value = "../shared")]
    shared: PathBuf,
    /// Say whether the page is out of date instead of writing it.
    #[arg(long)]
    check: bool,
    /// Name the runs behind the numbers: false alarms, and what was missed.
    #[arg(long)]
    list: bool,
}

/// A run with its outcome, and what the doctor said at each part: the severity of each rule.
struct Judged {
    name: String,
    state: String,
    detail: String,
    said: Vec<BTreeMap<&'static str, Severity>>,
}

pub fn run(args: &Args) -> Outcome {
    let shared = if args.shared.is_relative() { root().join(&args.shared) } else { args.shared.clone() };
    if !shared.join("replay/dev/truth.csv").is_file() {
        return Err(
            format!("{}: no replay/dev/truth.csv; name the folder with --shared", shared.display()).into()
        );
    }
    let replay = replay(&shared.join("replay/dev"))?;
    let logs = logs(&shared.join("logs"))?;
    let text = page(&replay, &logs);
    if args.list {
        list(&replay, &logs);
    }
    let path = root().join(PAGE);
    let found = fs::read_to_string(&path)?;
    let (before, rest) = found.split_once(BEGIN).ok_or("the page has lost its first mark")?;
    let (_, after) = rest.split_once(END).ok_or("the page has lost its last mark")?;
    let new = format!("{before}{BEGIN}{text}{END}{after}");
    if new == found {
        return Ok(());
    }
    if args.check {
        return Err(format!("{PAGE} is out of date: cargo run --release -p xtask -- doctor").into());
    }
    let temporary = path.with_extension("md.new");
    fs::write(&temporary, new)?;
    fs::rename(temporary, path)?;
    println!("wrote {PAGE}");
    Ok(())
}

/// Rows of a table with a header, by column.
fn table(path: &Path, separator: char) -> Result<Vec<BTreeMap<String, String>>, Box<dyn std::error::Error>> {
    let text = fs::read_to_string(path)?;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator as u8)
        .quoting(separator == ',')
        .from_reader(text.as_bytes());
    let mut rows = Vec::new();
    for row in reader.deserialize() {
        rows.push(row?);
    }
    Ok(rows)
}

fn judge(run: &Run) -> BTreeMap<&'static str, Severity> {
    let mut said = BTreeMap::new();
    for finding in diagnose(run, &Options::default()).findings {
        let worst = said.entry(finding.rule).or_insert(finding.severity);
        *worst = (*worst).max(finding.severity);
    }
    said
}

fn replay(folder: &Path) -> Result<Vec<Judged>, Box<dyn std::error::Error>> {
    let rows = table(&folder.join("truth.csv"), ',')?;
    let judged: Result<Vec<Judged>, String> = rows
        .into_par_iter()
        .map(|row| {
            let id = &row["id"];
            let mut opened = trimtab_logs::open(&folder.join(id));
            if opened.runs.len() != 1 {
                return Err(format!("{id}: {} runs, unreadable: {:?}", opened.runs.len(), opened.unreadable));
            }
            let run = opened.runs.remove(0);
            let end = row["last_step"].parse::<f64>().map_err(|e| format!("{id}: last_step: {e}"))?;
            let said = PARTS
                .iter()
                .map(|part| {
                    if *part == 1.0 {
                        return judge(&run);
                    }
                    judge(&Run { trace: run.trace.through((end * part) as u64), ..run.clone() })
                })
                .collect();
            let detail = format!("{} {} {}", row["workload"], row["algo"], row["kind"]);
            Ok(Judged { name: id.clone(), state: row["state"].clone(), detail, said })
        })
        .collect();
    Ok(judged?)
}

fn logs(folder: &Path) -> Result<Vec<Judged>, Box<dyn std::error::Error>> {
    let rows = table(&folder.join("INDEX.tsv"), '\t')?;
    let judged: Result<Vec<Judged>, String> = rows
        .into_par_iter()
        .map(|row| {
            let file = &row["file"];
            let opened = trimtab_logs::open(&folder.join(file));
            let run = opened.runs.first().ok_or_else(|| format!("{file}: {:?}", opened.unreadable))?;
            Ok(Judged {
                name: file.clone(),
                state: row["state"].clone(),
                detail: row["evidence"].clone(),
                said: vec![judge(run)],
            })
        })
        .collect();
    Ok(judged?)
}

fn worst(said: &BTreeMap<&'static str, Severity>) -> Option<Severity> {
    said.values().copied().max()
}

fn page(replay: &[Judged], logs: &[Judged]) -> String {
    let mut text = String::new();
    let all = PARTS.len() - 1;
    let states: Vec<&str> =
        ["healthy"].into_iter().chain(FAILING).chain(["recovered", "subpar", "borderline"]).collect();
    let _ = writeln!(text, "\n### Benchmark runs ({})\n", replay.len());
    let _ = writeln!(
        text,
        "Share of runs with a critical finding, by the part of the run that was known; last, critical or warning.\n"
    );
    let _ = writeln!(
        text,
        "| outcome | runs | first 10 % | 25 % | 50 % | all | all, with warnings |\n|---|---|---|---|---|---|---|"
    );
    for state in &states {
        let of: Vec<&Judged> = replay.iter().filter(|j| j.state == *state).collect();
        let share = |part: usize, at_least: Severity| {
            let count = of.iter().filter(|j| worst(&j.said[part]) >= Some(at_least)).count();
            format!("{count} ({:.1} %)", 100.0 * count as f64 / of.len().max(1) as f64)
        };
        let critical: Vec<String> = (0..PARTS.len()).map(|part| share(part, Severity::Critical)).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            state.replace('_', " "),
            of.len(),
            critical.join(" | "),
            share(all, Severity::Warning)
        );
    }
    let healthy_logs: Vec<&Judged> = logs.iter().filter(|j| j.state == "healthy").collect();
    let healthy: Vec<&Judged> = replay.iter().filter(|j| j.state == "healthy").collect();
    let failing: Vec<&Judged> = replay.iter().filter(|j| FAILING.contains(&j.state.as_str())).collect();
    let sick: Vec<&Judged> = logs.iter().filter(|j| j.state != "healthy" && j.state != "unclear").collect();
    let _ = writeln!(text, "\n### How often each rule fires\n");
    let _ = writeln!(
        text,
        "Critical + warning findings, on {} healthy and {} failing benchmark runs (whole; in brackets critical at any of the four parts), and on {} \
         healthy and {} sick logs.\n",
        healthy.len(),
        failing.len(),
        healthy_logs.len(),
        sick.len(),
    );
    let _ = writeln!(
        text,
        "| rule | healthy runs | failing runs | healthy logs | sick logs |\n|---|---|---|---|---|"
    );
    for rule in RULES {
        let id = rule.meta().id;
        let count = |of: &[&Judged], part: usize, severity: Severity| {
            of.iter().filter(|j| j.said[part].get(id) == Some(&severity)).count()
        };
        let cell = |of: &[&Judged], part: usize| {
            format!("{} + {}", count(of, part, Severity::Critical), count(of, part, Severity::Warning))
        };
        let any = |of: &[&Judged]| {
            of.iter().filter(|j| j.said.iter().any(|s| s.get(id) == Some(&Severity::Critical))).count()
        };
        let _ = writeln!(
            text,
            "| `{id}` | {} ({}) | {} ({}) | {} | {} |",
            cell(&healthy, all),
            any(&healthy),
            cell(&failing, all),
            any(&failing),
            cell(&healthy_logs, 0),
            cell(&sick, 0),
        );
    }
    text.push('\n');
    text
}

fn list(replay: &[Judged], logs: &[Judged]) {
    let said = |s: &BTreeMap<&'static str, Severity>| {
        let words: Vec<String> =
            s.iter().map(|(rule, severity)| format!("{rule}/{}", severity.name())).collect();
        words.join(" ")
    };
    for (at, part) in PARTS.iter().enumerate() {
        for j in replay {
            let critical = worst(&j.said[at]) == Some(Severity::Critical);
            let failing = FAILING.contains(&j.state.as_str());
            if critical != failing && j.state != "subpar" && j.state != "borderline" {
                println!("{part} {} {} {}: {}", j.name, j.state, j.detail, said(&j.said[at]));
            }
        }
    }
    for j in logs {
        println!("{:18} {}\n    {}\n    {}", j.state, j.name, j.detail, said(&j.said[0]));
    }
}
