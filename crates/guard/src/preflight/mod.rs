//! Preflight: what can be known before training, by reading the settings and by short experiments on the real network and data.
//!
//! Each check is one file and one line of `CHECKS`, cheap ones first. A check answers with items or says why it was not done; one that
//! fails becomes an item that says so, and the others go on.
//!
//! Of a recipe with several stages, arithmetic looks at every stage; experiments are done on the first one, which begins with the
//! weights that are at hand here. Later stages begin with what the earlier ones have learned, of which nothing is known yet.

use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value, json};
use trimtab_train::TrainError;
use trimtab_train::settings::{ConfigError, Source};

use crate::Guarded;

mod bench;
mod declared;

use bench::Bench;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Not done: there is nothing to check here, or no time; the message says which.
    Skip,
    /// As it should be.
    Pass,
    /// Worth a look before spending hours.
    Warn,
    /// The run would fail, or its outcome mislead.
    Fail,
}

impl Verdict {
    /// In capitals, as it is shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Skip => "SKIP",
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// A setting that would mend what was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Advice {
    /// Key of the recipe.
    pub key: String,
    /// The value to give it, as TOML.
    pub value: String,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Item {
    /// Permanent, kebab-case.
    pub check: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// One sentence with the numbers.
    pub message: String,
    /// The numbers, for programs.
    pub numbers: Map<String, Value>,
    /// What would mend it.
    pub advice: Vec<Advice>,
    /// The cause of [`trimtab_doctor::causes`] that this speaks for; none where all is well.
    pub cause: Option<&'static str>,
}

impl Item {
    fn new(check: &'static str, verdict: Verdict, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { check, verdict, message, numbers: Map::new(), advice: Vec::new(), cause: None }
    }

    fn number(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.numbers.insert(name.to_owned(), value.into());
        self
    }

    fn advise(mut self, key: impl Into<String>, value: impl ToString) -> Self {
        self.advice.push(Advice { key: key.into(), value: value.to_string() });
        self
    }

    fn cause(mut self, id: &'static str) -> Self {
        self.cause = Some(id);
        self
    }
}

/// What to check with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Device by name; see [`trimtab_train::device`].
    pub device: String,
    /// Seconds the experiments may take; one that would go beyond is not begun.
    pub seconds: f64,
    /// Whether batches are passed through the network; without, settings, data and schedules are looked at alone.
    pub experiments: bool,
    /// Only these checks; empty: all.
    pub only: &'static [&'static str],
}

impl Default for Options {
    fn default() -> Self {
        Self { device: "cpu".to_owned(), seconds: 120.0, experiments: true, only: &[] }
    }
}

/// All that was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// In the order of the checks.
    pub items: Vec<Item>,
    /// Seconds it took.
    pub seconds: f64,
}

impl Report {
    /// The worst verdict; [`Verdict::Skip`] where nothing was checked.
    pub fn worst(&self) -> Verdict {
        self.items.iter().map(|item| item.verdict).max().unwrap_or(Verdict::Skip)
    }

    /// How many items ended so.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.items.iter().filter(|item| item.verdict == verdict).count()
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        json!({
            "verdict": self.worst(), "passed": self.count(Verdict::Pass), "warnings": self.count(Verdict::Warn),
            "failed": self.count(Verdict::Fail), "skipped": self.count(Verdict::Skip), "seconds": self.seconds,
            "items": self.items,
        })
    }

    /// The last line for people.
    pub fn summary(&self) -> String {
        let (passed, warnings) = (self.count(Verdict::Pass), self.count(Verdict::Warn));
        let s = if warnings == 1 { "" } else { "s" };
        let mut text =
            format!("{passed} passed, {warnings} warning{s}, {} failed", self.count(Verdict::Fail));
        let skipped = self.count(Verdict::Skip);
        if skipped > 0 {
            text += &format!(", {skipped} skipped");
        }
        format!("{text} in {:.0} s", self.seconds)
    }
}

/// Why a check has no items.
enum Trouble {
    /// It was not done, for this reason.
    Skip(String),
    /// It could not be done.
    Error(TrainError),
}

impl From<TrainError> for Trouble {
    fn from(error: TrainError) -> Self {
        Self::Error(error)
    }
}

type Checked = Result<Vec<Item>, Trouble>;

/// A line of the list.
struct Check {
    id: &'static str,
    /// Whether it passes batches through the network.
    experiment: bool,
    run: fn(&mut Bench<'_>) -> Checked,
}

/// One line a check: its module is its file.
macro_rules! checks {
    ($($module:ident, $id:literal, $experiment:literal;)*) => {
        $(mod $module;)*
        /// Every check, in the order they are done.
        const CHECKS: &[Check] = &[$(Check { id: $id, experiment: $experiment, run: $module::check }),*];
    };
}

checks! {
    settings, "settings", false;
    reference, "reference", false;
    stages, "stages", false;
    data, "data", false;
    start, "start", false;
    schedules, "schedules", false;
    groups, "groups", false;
    horizons, "horizons", false;
    balance, "balance", false;
    regularisation, "regularisation", false;
    output, "output", true;
    terms, "terms", true;
    gradient_flow, "gradient-flow", true;
    clipping, "clipping", true;
    one_batch, "one-batch", true;
    rate_sweep, "rate-sweep", true;
    average, "average", true;
    cost, "cost", true;
}

/// Checks a recipe; `say` gets every item as soon as it is known.
pub fn check(guarded: &Guarded, options: &Options, say: &mut dyn FnMut(&Item)) -> Report {
    let started = Instant::now();
    let mut bench = Bench::new(guarded, options);
    let mut report = Report::default();
    let wanted = |check: &&Check| options.only.is_empty() || options.only.contains(&check.id);
    for Check { id, experiment, run } in CHECKS.iter().filter(wanted) {
        let found = if *experiment && !options.experiments {
            Err(Trouble::Skip("no experiments were asked for".to_owned()))
        } else {
            run(&mut bench)
        };
        let items = found.unwrap_or_else(|trouble| match trouble {
            Trouble::Skip(why) => vec![Item::new(id, Verdict::Skip, why)],
            Trouble::Error(error) => vec![failure(id, &error)],
        });
        for item in items {
            say(&item);
            report.items.push(item);
        }
    }
    report.seconds = started.elapsed().as_secs_f64();
    report
}

fn failure(id: &'static str, error: &TrainError) -> Item {
    // Errors of several lines list several problems.
    Item::new(id, Verdict::Fail, error.to_string().lines().collect::<Vec<_>>().join("; "))
}

/// The report on settings that could not be read: an item for each problem.
pub fn refused(error: &ConfigError) -> Report {
    let items = error.0.iter().map(|problem| {
        let item =
            Item::new("settings", Verdict::Fail, problem.to_string()).cause("configuration-not-effective");
        let item = item.number("key", problem.key.as_str());
        match &problem.source {
            Source::File(path, line) => {
                item.number("file", path.display().to_string()).number("line", *line as u64)
            }
            _ => item,
        }
    });
    Report { items: items.collect(), seconds: 0.0 }
}

/// A factor to one decimal, as long as that is readable.
fn times(factor: f64) -> String {
    if factor < 1e4 { format!("{factor:.1}x") } else { format!("{}x", trimtab_doctor::show(factor)) }
}

/// A number as TOML takes it, with no more digits than a person would type.
fn toml(value: f64) -> String {
    let short = format!("{value:.2e}").parse().unwrap_or(value);
    format!("{short:?}")
}

/// `1,234,567`.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_do() {
        assert_eq!((times(40.0), times(40_000.0)), ("40.0x".to_owned(), "40000x".to_owned()));
        assert_eq!((toml(0.004), toml(1.0 - 10.0 / 240.0)), ("0.004".to_owned(), "0.958".to_owned()));
        assert_eq!((thousands(7), thousands(31_042_369)), ("7".to_owned(), "31,042,369".to_owned()));
    }

    #[test]
    fn checks_have_names_of_their_own_and_every_cause_is_known() {
        let mut ids: Vec<_> = CHECKS.iter().map(|c| c.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), CHECKS.len());
        let known = |id: &str| trimtab_doctor::causes::CAUSES.iter().any(|c| c.id == id);
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/preflight");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            for part in text.split(".cause(\"").skip(1) {
                let id = part.split('"').next().unwrap();
                assert!(known(id) || id.contains('\\'), "`{id}` is no cause");
                seen += 1;
            }
        }
        assert!(seen > 10);
    }

    #[test]
    fn a_report_is_as_bad_as_its_worst_item() {
        let item = |verdict| Item::new("x", verdict, "");
        let report = Report {
            items: vec![item(Verdict::Pass), item(Verdict::Warn), item(Verdict::Skip)],
            seconds: 14.2,
        };
        assert_eq!(report.worst(), Verdict::Warn);
        assert_eq!(report.summary(), "1 passed, 1 warning, 0 failed, 1 skipped in 14 s");
        assert_eq!(Report::default().worst(), Verdict::Skip);
    }
}
