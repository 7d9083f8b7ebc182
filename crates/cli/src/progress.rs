//! What a person (or, with `--json`, a program) sees of a training.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use trimtab_signals::{Record, names};
use trimtab_train::{Control, Observer, Report};

/// Seconds between two plain lines, where there is no terminal.
const QUIET: Duration = Duration::from_secs(10);

/// Watches a run.
pub struct Progress {
    mode: Mode,
    metric: String,
    interrupted: Arc<AtomicBool>,
    stage: String,
    done_before: u64,
    steps: u64,
    loss: f64,
    best: Option<(f64, f64)>,
}

enum Mode {
    Bar(ProgressBar),
    Lines { last: Option<Instant> },
    Json,
}

impl Progress {
    /// `metric` is the one the best weights are chosen by; `interrupted` is set by Ctrl-C.
    pub fn new(json: bool, metric: &str, interrupted: Arc<AtomicBool>) -> Self {
        let mode = if json {
            Mode::Json
        } else if std::io::stderr().is_terminal() {
            Mode::Bar(ProgressBar::hidden())
        } else {
            Mode::Lines { last: None }
        };
        Self {
            mode,
            metric: metric.to_owned(),
            interrupted,
            stage: String::new(),
            done_before: 0,
            steps: 0,
            loss: f64::NAN,
            best: None,
        }
    }

    /// A line for people, above the bar where there is one.
    pub fn say(&self, text: &str) {
        match &self.mode {
            Mode::Bar(bar) if !bar.is_hidden() => bar.println(text),
            Mode::Json => {}
            _ => eprintln!("{text}"),
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Mode::Bar(bar) = &self.mode {
            bar.finish_and_clear();
        }
    }

    fn begin(&mut self, name: &str, done: u64, steps: u64) {
        (self.stage, self.done_before, self.steps) = (name.to_owned(), done, steps);
        match &mut self.mode {
            Mode::Bar(bar) => {
                bar.finish_and_clear();
                let template = "{prefix} {bar:24} {pos}/{len} {msg}";
                let style =
                    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
                *bar = ProgressBar::new(steps)
                    .with_style(style)
                    .with_prefix(name.to_owned())
                    .with_position(done);
            }
            Mode::Lines { .. } => eprintln!(
                "{name}: {} steps at most{}",
                steps,
                if done > 0 { format!(", going on at {done}") } else { String::new() }
            ),
            Mode::Json => print_json(&json!({"type": "stage", "name": name, "done": done, "steps": steps})),
        }
    }

    fn status(&self, in_stage: u64, seconds: f64) -> String {
        let done = in_stage.saturating_sub(self.done_before).max(1);
        let rate = done as f64 / seconds.max(1e-9);
        let left = Duration::from_secs_f64(((self.steps - in_stage) as f64 / rate).min(1e9));
        let mut text = format!(
            "{rate:.2} steps/s, {} left, loss {:.4}",
            HumanDuration(Duration::from_secs(left.as_secs())),
            self.loss
        );
        if let Some((best, floor)) = self.best {
            text.push_str(&format!(", best {} {best:.4} (floor {floor:.3})", self.metric));
        }
        text
    }

    fn step(&mut self, in_stage: u64, seconds: f64, record: Option<&Record>) {
        if let Some(loss) = record.and_then(|r| r.get(names::LOSS_TOTAL.name)) {
            self.loss = loss;
        }
        let status = self.status(in_stage, seconds);
        match &mut self.mode {
            Mode::Bar(bar) => {
                bar.set_position(in_stage);
                bar.set_message(status);
            }
            Mode::Lines { last } => {
                if last.is_none_or(|l| l.elapsed() >= QUIET) || in_stage == self.steps {
                    *last = Some(Instant::now());
                    eprintln!("{} {in_stage}/{}: {status}", self.stage, self.steps);
                }
            }
            Mode::Json => {
                if let Some(record) = record {
                    print_json(&record_json("signals", record));
                }
            }
        }
    }

    fn validated(&mut self, record: &Record, floors: &BTreeMap<String, f64>, winner: &str, best: bool) {
        let score = record.get(&self.metric).unwrap_or(f64::NAN);
        let floor = floors.get(&self.metric).copied().unwrap_or(f64::NAN);
        if best {
            self.best = Some((score, floor));
        }
        if matches!(self.mode, Mode::Json) {
            let mut object = record_json("validation", record);
            object["winner"] = json!(winner);
            object["best"] = json!(best);
            object["floors"] = json!(floors);
            return print_json(&object);
        }
        let of = |name: &str| match (record.get(name), floors.get(name)) {
            (Some(v), Some(f)) => format!("{} {v:.4} (floor {f:.3})", name.trim_start_matches("val/")),
            (Some(v), None) => format!("{} {v:.4}", name.trim_start_matches("val/")),
            _ => String::new(),
        };
        let mut parts = vec![of(&self.metric)];
        for signal in [names::VAL_F1, names::VAL_AUC, names::VAL_MEAN_PROBABILITY, names::VAL_POSITIVE_RATE] {
            if signal.name != self.metric {
                parts.push(of(signal.name));
            }
        }
        let mark = if best { " *" } else { "" };
        self.say(&format!(
            "step {:>6}  epoch {:>4}  {}  [{winner}]{mark}",
            record.step,
            record.epoch + 1,
            parts.join("  ")
        ));
    }
}

impl Observer for Progress {
    fn report(&mut self, report: &Report<'_>) -> Control {
        match report {
            Report::Stage { name, done, steps, .. } => self.begin(name, *done, *steps),
            Report::Step { in_stage, seconds, record, .. } => self.step(*in_stage, *seconds, *record),
            Report::Validating => {
                if let Mode::Bar(bar) = &self.mode {
                    bar.set_message("validating …");
                    bar.tick();
                }
            }
            Report::Validated { record, floors, winner, best } => {
                self.validated(record, floors, winner, *best)
            }
            Report::Event(event) => {
                if matches!(self.mode, Mode::Json) {
                    print_json(
                        &json!({"type": "event", "kind": event.kind, "step": event.step, "message": event.message}),
                    );
                } else if !["end", "checkpoint"].contains(&event.kind.as_str()) {
                    self.say(&format!("{}: {}", event.kind, event.message));
                }
            }
        }
        if self.interrupted.load(Ordering::Relaxed) { Control::Interrupt } else { Control::Continue }
    }
}

/// One line on standard output; a reader that went away is no reason to stop training.
pub fn print_json(value: &Value) {
    say(&value.to_string());
}

/// Text on standard output, whether or not somebody still reads it (`trimtab … | head -1`).
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn record_json(kind: &str, record: &Record) -> Value {
    let mut object = json!({"type": kind, "step": record.step, "epoch": record.epoch, "time": record.time});
    for (name, value) in &record.values {
        object[name] = json!(value);
    }
    object
}
