//! The doctor in the loop: an observer that looks at the signals as they come.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use trimtab_doctor::causes::{Explanation, explain};
use trimtab_doctor::series::falls;
use trimtab_doctor::{Diagnosis, Finding, Options, RuleMeta, Severity, diagnose};
use trimtab_signals::{Record, Run, RunReader, keys, names};
use trimtab_train::{Control, Observer, Report, TrainError, checkpoint};

use crate::journal::{FOLDER, Journal, Pause, Reason};
use crate::remedies::Candidate;
use crate::settings::{Guarded, Policy, Settings};

/// Share of a stage over which a rule must go on finding something critical before it counts: what passes by itself needs no
/// rescue.
const CONFIRMED: f64 = 0.1;
/// Share of a stage in which a poor score may just be a beginning.
const YOUNG: f64 = 0.2;
/// Rules about scores and courses: in a young stage they are neither told nor counted.
const SLOW: [&str; 14] = [
    "all-negative-collapse",
    "at-trivial-floor",
    "averaged-weights-lag",
    "best-not-last",
    "metric-collapse",
    "never-learned",
    "oscillation",
    "overfitting",
    "plateau",
    "rate-too-low",
    "second-epoch-drop",
    "train-val-gap",
    "unlearning",
    "vanishing-gradient",
];
/// Rules for which two looks in a row are enough.
const ACUTE: [&str; 3] = ["non-finite-loss", "exploding-loss", "exploding-gradient"];
/// Share of a stage after which, and before the end of which, a poor score is looked into.
const LATE: f64 = 0.25;
/// Share of the way from the floor to 1 that is poor then.
const POOR: f64 = 0.5;
/// Not a rule of the doctor's: a condition of the recipe's own.
static EXPECTATION: RuleMeta = RuleMeta {
    id: "expectation",
    summary: "a condition that the recipe declares was not met",
    severity: Severity::Critical,
    docs: "",
};
/// Of a run, each look is so much later than the last.
const LATER: u64 = 20;
/// Checkpoints kept to go back to.
const KEPT: usize = 2;
/// Rules that speak of a run's end, which has not come, or of the machine.
const NOT_LIVE: [&str; 2] = ["truncated-run", "data-stall"];
/// A validation is healthy when it kept this share of the best so far above the floor.
const HEALTHY: f64 = 0.7;
/// And got this share of the way from the floor to 1.
const LEARNED: f64 = 0.25;

/// Something critical, confirmed.
#[derive(Debug, Clone)]
pub(crate) struct Alarm {
    /// Steps done.
    pub(crate) step: u64,
    /// The stage, from 0.
    pub(crate) stage: usize,
    /// All that was found, the critical first.
    pub(crate) findings: Vec<Finding>,
    /// What explains it.
    pub(crate) causes: Vec<Explanation>,
    /// The deciding metric, newest.
    pub(crate) score: Option<f64>,
    /// Whether the training loss still fell in the last half of the stage so far.
    pub(crate) falling: bool,
    /// Settings that experiments speak for: cause, `key=value` and why.
    pub(crate) advice: Vec<Candidate>,
    /// Why no setting can help.
    pub(crate) hopeless: Option<String>,
    /// Whether only that advice is to be tried: the run was paused, and nothing critical found.
    pub(crate) only_advice: bool,
    /// Whether no experiment speaks for it: see [`crate::journal::Attempt`].
    pub(crate) unsure: bool,
}

/// What watching cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Looks.
    pub looks: u64,
    /// Seconds they took together.
    pub seconds: f64,
}

/// Watches a run.
pub(crate) struct Watch<'a> {
    inner: &'a mut dyn Observer,
    directory: &'a Path,
    settings: &'a Settings,
    metric: String,
    checkpoint_every: u64,
    /// No alarm before this step: a remedy was chosen there and must be given its time.
    quiet_until: u64,
    /// Whether an alarm ends the run.
    armed: bool,
    options: Options,
    /// The stage as a run of its own: its steps count from its start.
    run: Run,
    stage: usize,
    /// Steps done before the stage.
    offset: u64,
    /// Steps of the stage at most.
    planned: u64,
    told: BTreeMap<&'static str, Severity>,
    /// Since when each rule finds something critical at each look.
    confirmed: BTreeMap<&'static str, u64>,
    remarks: Vec<(String, String, Value)>,
    best: f64,
    snapshot: Option<u64>,
    wanted: bool,
    /// Stages that experiments have looked into.
    examined: Vec<usize>,
    /// Steps after which what the preflight advises is weighed; none where that was done.
    weighs_after: Option<u64>,
    /// Why the run was paused for experiments rather than left: nothing is known to be wrong yet.
    pub(crate) paused: Option<Pause>,
    /// The alarm that ended the run.
    pub(crate) alarm: Option<Alarm>,
    /// What went wrong while watching.
    pub(crate) error: Option<TrainError>,
    /// What it cost.
    pub(crate) cost: Cost,
    /// Findings that matter, with the step they were first told at.
    pub(crate) findings: Vec<(u64, Finding)>,
    /// What the last look found.
    last: Option<(Vec<Finding>, Vec<Explanation>)>,
    /// The first alarm, whether or not it ended the run: its step, and the causes then, the likeliest first.
    pub(crate) first_alarm: Option<(u64, Vec<&'static str>)>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(
        inner: &'a mut dyn Observer,
        directory: &'a Path,
        guarded: &'a Guarded,
        journal: &Journal,
    ) -> Self {
        let common = guarded.loaded.recipe.common();
        let metric = common.metric();
        // A remedy must be given its time; where none helped, the next ones are tried at once.
        let healed = journal.attempts.last().filter(|last| last.chosen.is_some());
        let quiet_until = healed.map_or(0, |last| last.until + last.length() / 2);
        Self {
            inner,
            directory,
            settings: &guarded.settings,
            metric: metric.to_owned(),
            checkpoint_every: common.checkpoint_every(),
            quiet_until,
            armed: journal.gave_up.is_none(),
            options: Options {
                metric: Some(metric.to_owned()),
                disabled: NOT_LIVE.map(str::to_owned).to_vec(),
                ..Options::default()
            },
            run: Run::default(),
            stage: 0,
            offset: 0,
            planned: 0,
            told: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            remarks: Vec::new(),
            best: f64::NEG_INFINITY,
            snapshot: None,
            wanted: false,
            examined: journal.examined.clone(),
            weighs_after: (!journal.advised).then_some(0),
            paused: None,
            alarm: None,
            error: None,
            cost: Cost::default(),
            findings: Vec::new(),
            last: None,
            first_alarm: None,
        }
    }

    /// What the stage has so far, and what the settings declare for it.
    fn begin_stage(&mut self, stage: usize, before: u64, planned: u64) {
        match read_run(self.directory, Some(stage)) {
            Ok(run) => self.run = run,
            Err(error) => self.error = Some(error),
        }
        (self.stage, self.offset, self.planned) = (stage, before, planned);
        if self.weighs_after.is_some() {
            match planned_steps(self.directory) {
                Ok(all) => self.weighs_after = Some(branch_length(self.settings, all)),
                Err(error) => self.error = Some(error),
            }
        }
        let scores = self.run.trace.get(&self.metric).map(|c| c.values().to_vec()).unwrap_or_default();
        self.best = scores.into_iter().filter(|v| v.is_finite()).fold(self.best, f64::max);
        self.snapshot = self.snapshot.or_else(|| snapshots(self.directory).pop().map(|(step, _)| step));
        self.run.trace = self.run.trace.since(before);
        self.run.facts.set(keys::RUN_STEPS.name, planned);
        self.run.facts.set(keys::RUN_FINISHED.name, false);
    }

    fn push(&mut self, record: &Record) {
        let mut own = record.clone();
        own.step = own.step.saturating_sub(self.offset);
        self.run.trace.push(&own);
    }

    /// A finding with the steps of the whole run.
    fn placed(&self, mut finding: Finding) -> Finding {
        for step in [&mut finding.step, &mut finding.first_step, &mut finding.last_step].into_iter().flatten()
        {
            *step += self.offset;
        }
        finding
    }

    /// Whether a look is due at a record: depends on its step and that of the record before alone, so that a resumed run looks at
    /// the same ones.
    fn due(&self, before: u64, step: u64) -> bool {
        let stride = stride(step, self.settings.every);
        step / stride > before / stride
    }

    /// Asks the doctor. Returns whether something critical is confirmed.
    fn look(&mut self, step: u64) -> bool {
        let started = Instant::now();
        let mut diagnosis = diagnose(&self.run, &self.options);
        let young = (step.saturating_sub(self.offset) as f64) < YOUNG * self.planned as f64;
        let told = diagnosis.findings.into_iter().filter(|f| !young || !SLOW.contains(&f.rule));
        diagnosis.findings = told.map(|f| self.placed(f)).collect();
        let causes = explain(&diagnosis);
        let critical: Vec<&'static str> =
            diagnosis.findings.iter().filter(|f| f.severity == Severity::Critical).map(|f| f.rule).collect();
        self.confirmed.retain(|rule, _| critical.contains(rule));
        for rule in critical {
            self.confirmed.entry(rule).or_insert(step);
        }
        let long = |rule: &str, since: u64| {
            let enough = if ACUTE.contains(&rule) { 0.0 } else { CONFIRMED * self.planned as f64 };
            step > since && (step - since) as f64 >= enough
        };
        let lasting: Vec<&'static str> = self
            .confirmed
            .iter()
            .filter(|(rule, since)| long(rule, **since))
            .map(|(rule, _)| *rule)
            .collect();
        self.tell(step, &diagnosis, &causes, &lasting);
        let alarm = step >= self.quiet_until && !lasting.is_empty();
        let (found, explained) = (diagnosis.findings, causes);
        if alarm {
            self.first_alarm.get_or_insert_with(|| (step, explained.iter().map(|c| c.cause).collect()));
            self.alarm = Some(self.alarm_of(step, found.clone(), explained.clone()));
        }
        self.cost.looks += 1;
        self.last = Some((found, explained));
        self.cost.seconds += started.elapsed().as_secs_f64();
        alarm
    }

    /// Whether the training loss still fell in the last half of the stage so far.
    fn falling(&self) -> bool {
        let Some(loss) = self.run.trace.get(names::LOSS_TOTAL.name) else { return false };
        let values: Vec<f64> = loss.values().iter().copied().filter(|v| v.is_finite()).collect();
        falls(&values[values.len() / 2..]).unwrap_or(false)
    }

    fn alarm_of(&self, step: u64, findings: Vec<Finding>, causes: Vec<Explanation>) -> Alarm {
        Alarm {
            step,
            stage: self.stage,
            findings,
            causes,
            score: newest(&self.run, &self.metric),
            falling: self.falling(),
            advice: Vec::new(),
            hopeless: None,
            only_advice: false,
            unsure: false,
        }
    }

    /// An alarm for a run that an expectation of its own recipe has stopped.
    pub(crate) fn expected_otherwise(&mut self, step: u64, reason: &str) -> Alarm {
        let (mut findings, causes) = self.last.take().unwrap_or_default();
        findings.insert(0, Finding::new(&EXPECTATION, reason).at(step, step, step));
        self.first_alarm.get_or_insert_with(|| (step, causes.iter().map(|c| c.cause).collect()));
        self.alarm_of(step, findings, causes)
    }

    /// Notes what is new; of what is critical, what has lasted: the rest may pass by itself.
    fn tell(&mut self, step: u64, diagnosis: &Diagnosis, causes: &[Explanation], lasting: &[&'static str]) {
        for finding in &diagnosis.findings {
            let new = self.told.get(finding.rule).is_none_or(|told| *told < finding.severity);
            let passing = finding.severity == Severity::Critical && !lasting.contains(&finding.rule);
            if finding.severity < Severity::Warning || !new || passing {
                continue;
            }
            self.told.insert(finding.rule, finding.severity);
            self.findings.push((step, finding.clone()));
            let cause = causes.iter().find(|c| c.explains.contains(&finding.rule));
            let because = cause.map(|c| format!("; likely because {}", c.summary)).unwrap_or_default();
            let message =
                format!("{}: {}: {}{because}", finding.severity.name(), finding.rule, finding.message);
            let data = json!({ "finding": finding, "causes": causes });
            self.remarks.push(("finding".to_owned(), message, data));
        }
    }

    fn react(&mut self, alarm: bool, otherwise: Control) -> Control {
        if !alarm {
            return otherwise;
        }
        match self.settings.policy {
            Policy::Heal if self.armed => Control::Rollback,
            Policy::Stop => Control::Stop(self.reason()),
            _ => {
                self.alarm = None;
                otherwise
            }
        }
    }

    fn reason(&self) -> String {
        let alarm = self.alarm.as_ref();
        let critical = alarm.and_then(|a| a.findings.first()).map(|f| format!("{}: {}", f.rule, f.message));
        let cause = alarm.and_then(|a| a.causes.first()).map(|c| format!("; likely because {}", c.summary));
        format!(
            "the guard found something critical: {}{}",
            critical.unwrap_or_default(),
            cause.unwrap_or_default()
        )
    }

    /// What a predictor that has learned nothing scores.
    fn floor(&self, floors: &BTreeMap<String, f64>) -> Option<f64> {
        floors.get(&self.metric).copied().filter(|f| f.is_finite())
    }

    /// Whether the weights just validated are worth going back to.
    fn is_healthy(&mut self, record: &Record, floors: &BTreeMap<String, f64>) -> bool {
        let Some(score) = record.get(&self.metric).filter(|s| s.is_finite()) else { return false };
        let floor = self.floor(floors).unwrap_or(0.0);
        self.best = self.best.max(score);
        let above = score - floor;
        above > LEARNED * (1.0 - floor) && above >= HEALTHY * (self.best - floor) && self.confirmed.is_empty()
    }

    /// Whether the score is so poor, so late in the stage, that an experiment is worth its time: once a stage.
    fn is_poor(&self, record: &Record, floors: &BTreeMap<String, f64>) -> bool {
        let step = record.step.saturating_sub(self.offset) as f64;
        let score = record.get(&self.metric).filter(|s| s.is_finite());
        let floor = self.floor(floors).unwrap_or(0.0);
        let late = step >= LATE * self.planned as f64 && step < (1.0 - LATE) * self.planned as f64;
        let poor = score.is_none_or(|score| score - floor < POOR * (1.0 - floor));
        late && poor && record.step >= self.quiet_until && !self.examined.contains(&self.stage)
    }

    /// Keeps the checkpoint just written, with the best weights of that moment.
    fn keep(&mut self, step: u64) -> Result<(), TrainError> {
        let Some((_, from)) = checkpoint::list(self.directory)?.into_iter().find(|(known, _)| *known == step)
        else {
            return Ok(());
        };
        let to = snapshot_folder(self.directory).join(from.file_name().unwrap_or_default());
        checkpoint::link(&from, &to)?;
        let best = checkpoint::best_path(self.directory);
        if best.is_file() {
            checkpoint::link_file(&best, &best_of(&to))?;
        }
        self.snapshot = Some(step);
        let all = snapshots(self.directory);
        for (_, old) in all.iter().rev().skip(KEPT) {
            remove_snapshot(old)?;
        }
        Ok(())
    }
}

/// A run of ours as the doctor sees it.
pub(crate) fn read_run(directory: &Path, stage: Option<usize>) -> Result<Run, TrainError> {
    trimtab_logs::own_run(directory, stage)
        .map_err(|e| TrainError::Internal(format!("the guard cannot read a run: {e}")))
}

/// The newest value of a metric, where it is a number.
pub(crate) fn newest(run: &Run, metric: &str) -> Option<f64> {
    run.trace.last(metric).map(|(_, v)| v).filter(|v| v.is_finite())
}

/// Steps that a run is to take in all; 0 where it has not begun.
pub(crate) fn planned_steps(run: &Path) -> Result<u64, TrainError> {
    Ok(RunReader::open(run)?.info()?.map_or(0, |info| info.steps_planned))
}

/// Steps of a branch at least.
pub(crate) fn branch_length(settings: &Settings, planned: u64) -> u64 {
    if settings.branch_steps > 0 { settings.branch_steps } else { planned.div_ceil(10) }
}

/// Removes a folder, where it is there.
pub(crate) fn remove_folder(folder: &Path) -> Result<(), TrainError> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(TrainError::io(folder, "cannot remove", e)),
        _ => Ok(()),
    }
}

/// Steps between two looks: a twentieth of the steps so far, as a power of two times the young run's.
fn stride(step: u64, every: u64) -> u64 {
    let wanted = (step / LATER / every.max(1)).max(1);
    every.max(1) << wanted.ilog2()
}

/// Where checkpoints to go back to lie.
pub(crate) fn snapshot_folder(run: &Path) -> PathBuf {
    run.join(FOLDER).join("healthy")
}

/// The best weights as they were when the snapshot was taken.
pub(crate) fn best_of(snapshot: &Path) -> PathBuf {
    snapshot.with_extension("safetensors")
}

/// Checkpoints to go back to, oldest first.
pub(crate) fn snapshots(run: &Path) -> Vec<(u64, PathBuf)> {
    let entries = std::fs::read_dir(snapshot_folder(run)).into_iter().flatten().flatten();
    let mut all: Vec<(u64, PathBuf)> = entries
        .map(|e| e.path())
        .filter(|path| path.is_dir())
        .filter_map(|path| Some((path.file_name()?.to_str()?.get(..8)?.parse().ok()?, path)))
        .collect();
    all.sort();
    all
}

pub(crate) fn remove_snapshot(snapshot: &Path) -> Result<(), TrainError> {
    remove_folder(snapshot)?;
    match std::fs::remove_file(best_of(snapshot)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(TrainError::io(snapshot, "cannot remove", e))
        }
        _ => Ok(()),
    }
}

impl Observer for Watch<'_> {
    fn report(&mut self, report: &Report<'_>) -> Control {
        let control = self.inner.report(report);
        match report {
            Report::Stage { index, global, done, steps, .. } => {
                self.begin_stage(*index, global.saturating_sub(*done), *steps);
            }
            Report::Step { record: Some(record), global, .. } => {
                let before = self.offset + self.run.trace.last_step().unwrap_or(0);
                self.push(record);
                if control == Control::Continue && self.due(before, *global) {
                    let alarm = self.look(*global);
                    return self.react(alarm, control);
                }
            }
            Report::Validated { record, floors, best, .. } => {
                self.push(record);
                self.options.chance = self.floor(floors);
                if control != Control::Continue {
                    return control;
                }
                let alarm = self.look(record.step);
                let healthy = self.is_healthy(record, floors);
                let since = record.step.saturating_sub(self.snapshot.unwrap_or(0));
                let heals = self.settings.policy == Policy::Heal && self.armed;
                let wanted = heals && healthy && (*best || since >= self.checkpoint_every);
                self.wanted = wanted;
                let reason = if !heals || alarm {
                    None
                } else if self.weighs_after.is_some() {
                    // Before that a score is no more than a beginning.
                    let ripe = |after: &u64| record.step >= (*after).max(self.quiet_until);
                    self.weighs_after.as_ref().filter(|after| ripe(after)).map(|_| Reason::Advice)
                } else {
                    self.is_poor(record, floors).then_some(Reason::Poor)
                };
                if let Some(reason) = reason {
                    self.paused = Some(Pause {
                        reason,
                        step: record.step,
                        stage: self.stage,
                        score: newest(&self.run, &self.metric),
                        falling: self.falling(),
                    });
                    return Control::Interrupt;
                }
                return self.react(alarm, if wanted { Control::Checkpoint } else { control });
            }
            Report::Event(event) if event.kind == "checkpoint" => {
                if std::mem::take(&mut self.wanted)
                    && let Err(error) = self.keep(event.step)
                {
                    self.error = Some(error);
                }
            }
            Report::Step { .. } | Report::Validating | Report::Event(_) => {}
        }
        control
    }

    fn remarks(&mut self) -> Vec<(String, String, Value)> {
        let mut all = self.inner.remarks();
        all.append(&mut self.remarks);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::stride;

    #[test]
    fn looks_grow_rarer_with_the_run_and_do_not_depend_on_its_past() {
        assert_eq!(
            [1, 10, 100, 399, 400, 1000, 4000, 100_000].map(|s| stride(s, 10)),
            [10, 10, 10, 10, 20, 40, 160, 2560]
        );
        let looks = (1..100_000u64).filter(|s| s.is_multiple_of(stride(*s, 10))).count();
        assert!((150..400).contains(&looks), "{looks}");
    }
}
