//! What the guard has seen, tried and chosen: `guard/journal.json` in the run directory. It is written before each phase, so that
//! a run killed at any moment goes on where it was.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use trimtab_data::atomic::write_atomic;
use trimtab_train::TrainError;

use crate::remedies::Candidate;

/// Folder of the guard in a run directory.
pub const FOLDER: &str = "guard";
const FILE: &str = "journal.json";

/// What is going on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The run itself.
    #[default]
    Training,
    /// Experiments, while the run is paused.
    Examining,
    /// The branches of the last attempt.
    Branching,
    /// The best branch of the last attempt becomes the run.
    Adopting,
}

/// All decisions of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    /// What is going on.
    pub phase: Phase,
    /// Each attempt at healing.
    pub attempts: Vec<Attempt>,
    /// Steps of all branches together.
    pub branch_steps: u64,
    /// Stages, from 0, whose poor score experiments have looked into.
    #[serde(default)]
    pub examined: Vec<usize>,
    /// Whether what the preflight advises was weighed.
    #[serde(default)]
    pub advised: bool,
    /// What the run is paused for.
    #[serde(default)]
    pub paused: Option<Pause>,
    /// Why no more is tried.
    pub gave_up: Option<String>,
}

/// Why a run is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// It is as long as a branch: what the preflight advises can be compared with it.
    Advice,
    /// Its score is poor for its time.
    Poor,
}

/// A run that is paused for experiments, and can go on where it was.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    /// Why.
    pub reason: Reason,
    /// Steps done.
    pub step: u64,
    /// The stage, from 0.
    pub stage: usize,
    /// The deciding metric, newest.
    pub score: Option<f64>,
    /// Whether the training loss still fell in the last half of the stage so far.
    pub falling: bool,
}

/// What a branch came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The deciding metric at its end; none where it was no number.
    pub score: Option<f64>,
    /// What a predictor that has learned nothing scores.
    pub floor: Option<f64>,
    /// Critical findings at its end.
    pub critical: Vec<String>,
    /// Steps it took.
    pub steps: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Why it could not be trained.
    pub failed: Option<String>,
}

/// A remedy on its branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Branch {
    /// The remedy.
    pub remedy: Candidate,
    /// What it came to; none until it has been tried.
    pub outcome: Option<Outcome>,
}

/// One attempt: a critical finding and what was done about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Step at which the run was left.
    pub step: u64,
    /// The critical findings, as the doctor gave them.
    pub findings: Vec<Value>,
    /// The causes, the likeliest first, as the doctor gave them.
    pub causes: Vec<Value>,
    /// Step of the checkpoint gone back to; none: the start.
    pub from: Option<u64>,
    /// Step at which a branch ends.
    pub until: u64,
    /// The run's own score at the step where branches end, or the last before.
    pub left_with: Option<f64>,
    /// Whether nothing but the score speaks against the settings: a remedy must then do better, not only as well.
    #[serde(default)]
    pub unsure: bool,
    /// The remedies and what they came to.
    pub branches: Vec<Branch>,
    /// Place of the chosen one; none until it is chosen, or where none helped.
    pub chosen: Option<usize>,
}

impl Attempt {
    /// Steps of a branch.
    pub fn length(&self) -> u64 {
        self.until - self.from.unwrap_or(0).min(self.until)
    }
}

impl Journal {
    /// Reads the journal of a run; an empty one where there is none.
    ///
    /// # Errors
    /// It can't be read.
    pub fn open(run: &Path) -> Result<Self, TrainError> {
        let path = run.join(FOLDER).join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(TrainError::io(path, "cannot read", e)),
        };
        serde_json::from_str(&text)
            .map_err(|e| TrainError::Checkpoint { path, problem: format!("not a journal of the guard: {e}") })
    }

    /// Writes it.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn save(&self, run: &Path) -> Result<(), TrainError> {
        let folder = run.join(FOLDER);
        std::fs::create_dir_all(&folder).map_err(|e| TrainError::io(&folder, "cannot create", e))?;
        let text = serde_json::to_string_pretty(self).map_err(|e| TrainError::Internal(e.to_string()))?;
        Ok(write_atomic(&folder.join(FILE), |w| w.write_all(text.as_bytes()))?)
    }

    /// Whether a remedy was tried already.
    pub fn tried(&self, overrides: &[String]) -> bool {
        let all = self.attempts.iter().flat_map(|a| &a.branches);
        all.into_iter().any(|branch| branch.remedy.overrides == overrides)
    }

    /// Folder of a branch of the last attempt.
    pub(crate) fn branch_folder(&self, run: &Path, branch: usize) -> PathBuf {
        run.join(FOLDER)
            .join(format!("attempt-{}", self.attempts.len()))
            .join(format!("branch-{}", branch + 1))
    }

    /// For a person: what was seen, tried and chosen, and what it cost. Empty where nothing was.
    pub fn report(&self, metric: &str) -> String {
        use std::fmt::Write as _;
        let mut out = String::new();
        let number = |v: Option<f64>| v.map_or_else(|| "none".to_owned(), |v| format!("{v:.4}"));
        for (index, attempt) in self.attempts.iter().enumerate() {
            let place = attempt.from.map_or_else(|| "the start".to_owned(), |step| format!("step {step}"));
            let _ = writeln!(out, "attempt {}: left at step {}, back to {place}", index + 1, attempt.step);
            for finding in &attempt.findings {
                let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
                let _ = writeln!(out, "  seen    {}: {}", text("rule"), text("message"));
            }
            for cause in attempt.causes.iter().take(2) {
                let (summary, sure) = (cause["summary"].as_str().unwrap_or_default(), &cause["confidence"]);
                let _ = writeln!(out, "  cause   {summary} (confidence {sure})");
            }
            for (place, branch) in attempt.branches.iter().enumerate() {
                let mark = if attempt.chosen == Some(place) { "chosen" } else { "tried " };
                let result = match &branch.outcome {
                    None => "not tried".to_owned(),
                    Some(Outcome { failed: Some(why), .. }) => format!("failed: {why}"),
                    Some(o) => {
                        let still = if o.critical.is_empty() {
                            String::new()
                        } else {
                            format!(", still {}", o.critical.join(", "))
                        };
                        format!(
                            "{metric} {} (floor {}) after {} steps{still}",
                            number(o.score),
                            number(o.floor),
                            o.steps
                        )
                    }
                };
                let _ = writeln!(out, "  {mark}  {}: {result}", branch.remedy.overrides.join(", "));
            }
            let tried = attempt.branches.iter().all(|b| b.outcome.is_some());
            if attempt.chosen.is_none() && tried {
                let _ = writeln!(out, "  none of them helped");
            }
        }
        if let Some(why) = &self.gave_up {
            let _ = writeln!(out, "gave up: {why}");
        }
        if self.branch_steps > 0 {
            let seconds: f64 = self
                .attempts
                .iter()
                .flat_map(|a| &a.branches)
                .filter_map(|b| b.outcome.as_ref())
                .map(|o| o.seconds)
                .sum();
            let _ = writeln!(out, "cost: {} steps on branches, {seconds:.0} s", self.branch_steps);
        }
        out
    }
}
