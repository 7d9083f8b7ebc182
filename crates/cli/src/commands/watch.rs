//! `trimtab watch`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use trimtab_doctor::causes::explain;
use trimtab_doctor::report::{change, drawn};
use trimtab_doctor::{Diagnosis, Finding, Severity};
use trimtab_logs::Opened;
use trimtab_signals::Run;

use crate::args::WatchArgs;
use crate::commands::diagnose::{Doctor, plain, why_not};
use crate::failure::{DONE, Failure, INTERRUPTED, STOPPED};
use crate::progress::{print_json, say};

/// Looks in a row without a finding until it is gone: a log that is being written anew is torn for one.
const GONE: u32 = 2;
/// Deepest folder, and most files, whose change is seen.
const DEEPEST: u32 = 8;
const MOST_FILES: usize = 10_000;

pub fn run(args: &WatchArgs) -> Result<u8, Failure> {
    let doctor = Doctor::from_args(&args.doctor)?;
    let mut teller = Teller::new(args)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .map_err(|e| Failure::usage(format!("failed to listen for Ctrl-C: {e}")))?;
    let mut state = None;
    let mut looks = 0;
    loop {
        // The whole log is read again each time: a file that was rotated, cut or replaced needs no case of its own, and
        // reading is fast. Where nothing was written there is nothing to read.
        let stamp = stamp(&args.path);
        if state.as_ref() != Some(&stamp) {
            // Waiting would not help. Later, what was read once may be out of reach for a moment.
            if let Some(why) = hopeless(&args.path).filter(|_| teller.announced.is_empty()) {
                return Err(Failure::usage(format!("{}: {why}", plain(&args.path.display().to_string()))));
            }
            if state.is_none() && stamp.is_empty() && !args.json {
                say(&format!("waiting for {}", plain(&args.path.display().to_string())));
            }
            let opened = doctor.open(&args.path);
            // What is not there yet is being waited for.
            if !stamp.is_empty() {
                teller.not_read(&opened);
            }
            teller.announce(&opened.runs);
            let mut critical = false;
            for run in &opened.runs {
                critical |= teller.tell(run, &doctor.diagnose(run));
            }
            // What may be gone is decided by another look, even where nothing is written.
            let read = !opened.runs.is_empty() && !opened.runs.iter().any(|run| teller.doubts(run));
            state = (read || stamp.is_empty()).then_some(stamp);
            if critical && args.stop {
                return Ok(STOPPED);
            }
        }
        looks += 1;
        if args.looks.is_some_and(|most| looks >= most) {
            return Ok(DONE);
        }
        let next = Instant::now() + args.every;
        while let Some(left) = next.checked_duration_since(Instant::now()).filter(|l| !l.is_zero()) {
            if interrupted.load(Ordering::Relaxed) {
                return Ok(INTERRUPTED);
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }
}

/// Why a path that is there will never be read.
fn hopeless(path: &Path) -> Option<String> {
    let about = fs::metadata(path).ok()?;
    let opened = if about.is_dir() {
        fs::read_dir(path).map(drop)
    } else if about.is_file() {
        File::open(path).map(drop)
    } else {
        return Some("neither a file nor a folder".to_owned());
    };
    opened.err().filter(|e| e.kind() == ErrorKind::PermissionDenied).map(|e| e.to_string())
}

/// Sizes and times of the files of a log, so that an unchanged one is not read again.
fn stamp(path: &Path) -> Vec<(PathBuf, u64, Option<SystemTime>)> {
    let below = |folder: &Path, depth: u32| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.take(MOST_FILES).map(move |entry| (entry.path(), depth))
    };
    let mut found = Vec::new();
    let mut pending = vec![(path.to_owned(), 0)];
    // A file is read with those of its folder that belong to it: settings, the other files of the run.
    if path.is_file() {
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        pending.extend(below(folder.unwrap_or(Path::new(".")), DEEPEST));
    }
    while let Some((path, depth)) = pending.pop() {
        let Ok(meta) = fs::metadata(&path) else { continue };
        if !meta.is_dir() {
            found.push((path, meta.len(), meta.modified().ok()));
        } else if depth < DEEPEST && found.len() < MOST_FILES {
            pending.extend(below(&path, depth + 1));
        }
    }
    found.sort();
    found
}

/// A finding that was told.
struct Told {
    /// The most it was told as: one that becomes less and then as much again is not new.
    severity: Severity,
    /// Looks in a row that did not find it.
    missed: u32,
}

/// Tells what is new, once.
struct Teller<'a> {
    args: &'a WatchArgs,
    hook: Option<Hook>,
    /// By run and rule.
    told: BTreeMap<(String, &'static str), Told>,
    /// Names of the runs that were read.
    announced: BTreeSet<String>,
    /// What was said of files that were not read.
    said: BTreeSet<String>,
}

impl<'a> Teller<'a> {
    fn new(args: &'a WatchArgs) -> Result<Self, Failure> {
        let hook = args.on.as_deref().map(|words| hook(words, args.json)).transpose()?;
        let (told, announced, said) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Ok(Self { args, hook, told, announced, said })
    }

    /// Whether a finding of a run may be gone.
    fn doubts(&self, run: &Run) -> bool {
        self.told.iter().any(|((name, _), told)| *name == run.name && told.missed > 0)
    }

    /// Tells each reason not to read a file once.
    fn not_read(&mut self, opened: &Opened) {
        let reasons = opened.unreadable.iter().map(|u| format!("not read: {}", why_not(u)));
        for text in reasons.chain(opened.notes.iter().map(|note| format!("note: {note}"))) {
            if !self.said.contains(&text) {
                eprintln!("{text}");
                self.said.insert(text);
            }
        }
    }

    /// Tells of runs that were not there before.
    fn announce(&mut self, runs: &[Run]) {
        for run in runs {
            if !self.announced.insert(run.name.clone()) || self.args.json {
                continue;
            }
            let step =
                run.trace.last_step().map_or_else(|| "no steps yet".to_owned(), |s| format!("at step {s}"));
            say(&format!("watching {} ({}), {step}", run.name, run.format));
        }
    }

    /// A line for people: when, of which run where there are several, and what.
    fn line(&self, run: &Run, text: &str) {
        let name = if self.announced.len() > 1 { format!("{}  ", run.name) } else { String::new() };
        say(&format!("{}  {name}{text}", clock()));
    }

    /// Tells what is new; whether anything critical is.
    fn tell(&mut self, run: &Run, diagnosis: &Diagnosis) -> bool {
        let causes = explain(diagnosis);
        let cause = |rule: &str| causes.iter().find(|c| c.explains.contains(&rule)).map(|c| c.summary);
        // The worst of each rule.
        let mut now: BTreeMap<&'static str, &Finding> = BTreeMap::new();
        for finding in diagnosis.findings.iter().rev() {
            now.insert(finding.rule, finding);
        }
        self.tell_gone(run, &now);
        let mut critical = false;
        for (rule, finding) in now {
            let key = (run.name.clone(), rule);
            let before = self.told.get(&key).map(|told| told.severity);
            let severity = before.map_or(finding.severity, |most| most.max(finding.severity));
            self.told.insert(key, Told { severity, missed: 0 });
            if before >= Some(finding.severity) {
                continue;
            }
            critical |= finding.severity == Severity::Critical;
            let cause = cause(rule);
            if self.args.json {
                let mut object = serde_json::to_value(finding).unwrap_or_default();
                object["run"] = run.name.as_str().into();
                object["cause"] = cause.into();
                print_json(&object);
            } else if finding.severity > Severity::Info {
                let step = finding.step.map_or_else(String::new, |s| format!("step {s}: "));
                let (name, message) = (finding.severity.name(), &finding.message);
                self.line(run, &format!("{name:8}  {rule}: {step}{message}  {}", drawn(finding, run)));
                if let Some(cause) = cause {
                    say(&format!("                    cause: {cause}"));
                }
                for remedy in finding.remedies.iter().take(2) {
                    say(&format!("                    try {}: {}", change(remedy), remedy.why));
                }
            }
            if let Some(hook) = self.hook.as_ref().filter(|hook| finding.severity >= hook.severity) {
                hook.call(run, finding, cause.unwrap_or_default());
            }
        }
        critical
    }

    /// Tells what a run no longer has.
    fn tell_gone(&mut self, run: &Run, now: &BTreeMap<&'static str, &Finding>) {
        let mut gone = Vec::new();
        self.told.retain(|(name, rule), told| {
            if *name != run.name || now.contains_key(rule) {
                return true;
            }
            told.missed += 1;
            if told.missed < GONE {
                return true;
            }
            if told.severity >= Severity::Warning {
                gone.push(*rule);
            }
            false
        });
        let step = run.trace.last_step();
        for rule in gone {
            if self.args.json {
                print_json(&json!({"run": run.name, "rule": rule, "gone": true, "step": step}));
            } else {
                self.line(run, &format!("gone      {rule}: no longer so at step {}", step.unwrap_or(0)));
            }
        }
    }
}

/// The time of day, UTC.
fn clock() -> String {
    let text = trimtab_signals::rfc3339_utc(SystemTime::now());
    text.get(11..19).unwrap_or_default().to_owned()
}

/// A command for new findings.
struct Hook {
    severity: Severity,
    command: String,
    /// Standard output belongs to JSON: what the command prints goes to standard error.
    quiet: bool,
}

fn hook(words: &[String], quiet: bool) -> Result<Hook, Failure> {
    let [severity, command] = words else {
        return Err(Failure::usage("--on takes a severity and a command"));
    };
    let severity =
        [Severity::Info, Severity::Warning, Severity::Critical].into_iter().find(|s| s.name() == severity);
    let severity =
        severity.ok_or_else(|| Failure::usage("--on: the severity is info, warning or critical"))?;
    Ok(Hook { severity, command: command.clone(), quiet })
}

impl Hook {
    fn call(&self, run: &Run, finding: &Finding, cause: &str) {
        let shell = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
        let started = Command::new(shell.0)
            .args([shell.1, &self.command])
            .env("TRIMTAB_RUN", &run.name)
            .env("TRIMTAB_RULE", finding.rule)
            .env("TRIMTAB_SEVERITY", finding.severity.name())
            .env("TRIMTAB_STEP", finding.step.map_or_else(String::new, |s| s.to_string()))
            .env("TRIMTAB_MESSAGE", &finding.message)
            .env("TRIMTAB_CAUSE", cause)
            .stdin(Stdio::null())
            .stdout(if self.quiet { std::io::stderr().into() } else { Stdio::inherit() })
            .status();
        match started {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("the command of --on failed: {status}"),
            Err(e) => eprintln!("the command of --on cannot be run: {e}"),
        }
    }
}
