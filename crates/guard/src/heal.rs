//! Training under guard: the run, and at an alarm the branches on which remedies are tried.
//!
//! A branch is a run directory of its own below `guard/`, begun from the newest healthy checkpoint (or from the start) with one
//! setting changed. The best becomes the run: its settings, checkpoint and signals replace the run's own. Each phase is written to
//! the journal before it begins and can be repeated, so that a run killed at any moment goes on.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;
use trimtab_data::atomic::write_atomic;
use trimtab_doctor::{Options, Severity, diagnose};
use trimtab_signals::tensorboard::TensorBoardWriter;
use trimtab_signals::{CONFIG, Event, RUN_INFO, RunInfo, RunReader, SIGNALS, SUMMARY, Status, append_event};
use trimtab_train::{Control, Observer, Outcome, Report, Session, TrainError, checkpoint};

use crate::experiments;
use crate::journal::{self, Attempt, Branch, Journal, Pause, Phase, Reason};
use crate::remedies::{self, Candidate};
use crate::settings::{Guarded, Policy};
use crate::watch::{
    Alarm, Cost, Watch, best_of, branch_length, newest, planned_steps, read_run, remove_folder,
    remove_snapshot, snapshots,
};

/// A branch shows more than a tenth of the run where the fault took longer to show.
const LONGEST: u64 = 4;
/// How much better than the run it is to replace a branch must be, as a share of what is left to 1.
const MARGIN: f64 = 0.01;

/// The best weights of what was left behind; in the folder of the attempt.
const LEFT_BEST: &str = "left-best.safetensors";

/// The settings the run was started with, once a remedy has changed them; in the guard's folder.
const FIRST_CONFIG: &str = "first-config.toml";

/// The file with the settings that a run was started with: before any remedy.
pub fn first_config(run: &Path) -> PathBuf {
    let first = run.join(journal::FOLDER).join(FIRST_CONFIG);
    if first.is_file() { first } else { run.join(CONFIG) }
}

/// Share of the best branch's gain over the floor that is nearly as much.
const NEAR: f64 = 0.85;

/// The learning rate that overrides set, where they set nothing else.
fn rate_of(overrides: &[String]) -> Option<f64> {
    let rates = overrides.iter().map(|text| {
        let (key, value) = text.split_once('=')?;
        key.ends_with("learning_rate").then(|| value.parse::<f64>().ok())?
    });
    rates.collect::<Option<Vec<f64>>>()?.first().copied()
}

/// How remedies are chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// For the causes the doctor names, judged on branches.
    #[default]
    Doctor,
    /// One of all that could be changed, by this seed, without a trial: what the doctor is compared with.
    Random(u64),
}

/// Reads settings from a file with overrides.
pub type Load<'a> = &'a dyn Fn(&Path, &[String]) -> Result<Guarded, TrainError>;

/// What training under guard needs.
pub struct Job<'a> {
    /// The run directory: new, or one to go on with.
    pub directory: PathBuf,
    /// Device by name.
    pub device: &'a str,
    /// Whether to go on from the newest checkpoint.
    pub resume: bool,
    /// Who watches beside the guard.
    pub observer: &'a mut dyn Observer,
    /// Told before the first step.
    pub on_start: &'a mut dyn FnMut(&RunInfo),
    /// How remedies are chosen.
    pub choice: Choice,
    /// Reads settings from a file with overrides: [`crate::load`], unless a test or benchmark puts a fault between.
    pub load: Load<'a>,
}

/// How a guarded run ended.
#[derive(Debug)]
pub struct Guardianship {
    /// Of the run.
    pub outcome: Outcome,
    /// What was seen, tried and chosen.
    pub journal: Journal,
    /// What watching cost.
    pub cost: Cost,
    /// What was seen.
    pub seen: Seen,
    /// The causes of each alarm after experiments, the likeliest first.
    pub decided: Vec<Vec<String>>,
}

/// What a guard saw of a run.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Findings that matter, each with the step it was first told at.
    pub findings: Vec<(u64, trimtab_doctor::Finding)>,
    /// The first alarm, whether or not it ended the run: its step, and the causes then, the likeliest first.
    pub alarm: Option<(u64, Vec<&'static str>)>,
}

/// Trains a recipe under its guard.
///
/// # Errors
/// As training; what was written before stays whole.
pub fn train(guarded: &Guarded, mut job: Job<'_>) -> Result<Guardianship, TrainError> {
    let mut changed: Option<Guarded> = None;
    let mut journal = if job.resume { Journal::open(&job.directory)? } else { Journal::default() };
    let (mut cost, mut seen, mut decided) = (Cost::default(), Seen::default(), Vec::new());
    loop {
        let guarded = changed.as_ref().unwrap_or(guarded);
        match journal.phase {
            Phase::Training => {
                let (outcome, left) = train_watched(guarded, &mut job, &journal, &mut cost, &mut seen)?;
                job.resume = true;
                match left {
                    None => {
                        let outcome = keep_the_best(&mut job, &journal, guarded, outcome)?;
                        return Ok(Guardianship { outcome, journal, cost, seen, decided });
                    }
                    Some(Left::Paused(pause)) => {
                        journal.paused = Some(pause);
                        journal.phase = Phase::Examining;
                        journal.save(&job.directory)?;
                    }
                    Some(Left::Alarmed(alarm)) => {
                        let alarm = experiments::decide(guarded, job.device, *alarm);
                        decided.push(names(&alarm));
                        match attempt(guarded, &job, &journal, &alarm)? {
                            Ok(attempt) => begin(&mut job, &mut journal, attempt)?,
                            Err(why) => {
                                let outcome = give_up(&mut job, &mut journal, outcome, &alarm, &why)?;
                                let outcome = keep_the_best(&mut job, &journal, guarded, outcome)?;
                                return Ok(Guardianship { outcome, journal, cost, seen, decided });
                            }
                        }
                    }
                }
            }
            // Where nothing speaks against the settings, or nothing can be tried, the run goes on where it was paused.
            Phase::Examining => {
                let pause = journal.paused.take();
                let alarm = pause.and_then(|pause| {
                    match pause.reason {
                        Reason::Advice => journal.advised = true,
                        Reason::Poor => journal.examined.push(pause.stage),
                    }
                    experiments::examine(guarded, job.device, pause)
                });
                let attempt = match &alarm {
                    Some(alarm) => attempt(guarded, &job, &journal, alarm)?.ok(),
                    None => None,
                };
                match (alarm, attempt) {
                    (Some(alarm), Some(attempt)) => {
                        decided.push(names(&alarm));
                        begin(&mut job, &mut journal, attempt)?;
                    }
                    _ => {
                        journal.phase = Phase::Training;
                        journal.save(&job.directory)?;
                    }
                }
            }
            Phase::Branching => {
                if !branches(guarded, &mut job, &mut journal)? {
                    let mut outcome = last_outcome(&job.directory)?;
                    outcome.status = Status::Interrupted;
                    return Ok(Guardianship { outcome, journal, cost, seen, decided });
                }
                choose(&mut journal, job.choice);
                journal.phase = Phase::Adopting;
                journal.save(&job.directory)?;
            }
            Phase::Adopting => {
                let step = adopt(&job, &journal)?;
                let message = chosen(&journal, guarded.loaded.recipe.common().metric());
                let attempt = journal.attempts.last();
                say(&mut job, step, "guard", &message, json!({ "attempt": attempt }))?;
                journal.phase = Phase::Training;
                journal.save(&job.directory)?;
                changed = Some((job.load)(&job.directory.join(CONFIG), &[])?);
            }
        }
    }
}

/// The causes of an alarm.
fn names(alarm: &Alarm) -> Vec<String> {
    alarm.causes.iter().map(|c| c.cause.to_owned()).collect()
}

/// Puts an attempt on record, before its branches are trained.
fn begin(job: &mut Job<'_>, journal: &mut Journal, attempt: Attempt) -> Result<(), TrainError> {
    say(job, attempt.step, "guard", &told(&attempt), json!({ "attempt": attempt }))?;
    journal.attempts.push(attempt);
    journal.phase = Phase::Branching;
    journal.save(&job.directory)
}

/// Why a run was left before its end.
enum Left {
    /// Something critical is confirmed.
    Alarmed(Box<Alarm>),
    /// It can go on where it was.
    Paused(Pause),
}

/// The run itself, until its end or an alarm.
fn train_watched(
    guarded: &Guarded,
    job: &mut Job<'_>,
    journal: &Journal,
    cost: &mut Cost,
    seen: &mut Seen,
) -> Result<(Outcome, Option<Left>), TrainError> {
    let session = |observer, on_start| Session {
        directory: job.directory.clone(),
        resolved: &guarded.loaded.resolved,
        device: job.device,
        resume: job.resume,
        observer,
        on_start,
    };
    if guarded.settings.policy == Policy::Off {
        return Ok((guarded.loaded.recipe.train(session(&mut *job.observer, &mut *job.on_start))?, None));
    }
    let armed = journal.gave_up.is_none();
    let mut watch = Watch::new(&mut *job.observer, &job.directory, guarded, journal);
    let outcome = guarded.loaded.recipe.train(session(&mut watch, &mut *job.on_start));
    // A red flag that the recipe declares itself is a reason to heal like any other.
    let stopped = outcome.as_ref().ok().filter(|o| o.status == Status::Stopped && watch.alarm.is_none());
    if let Some(stopped) = stopped.filter(|_| guarded.settings.policy == Policy::Heal && armed) {
        let reason = stopped.reason.clone().unwrap_or_default();
        watch.alarm = Some(watch.expected_otherwise(stopped.summary.steps, &reason));
    }
    cost.looks += watch.cost.looks;
    cost.seconds += watch.cost.seconds;
    seen.findings.append(&mut watch.findings);
    seen.alarm = seen.alarm.take().or(watch.first_alarm.take());
    if let Some(error) = watch.error {
        return Err(error);
    }
    let heals = guarded.settings.policy == Policy::Heal && armed;
    let left = watch.paused.map(Left::Paused).or(watch.alarm.map(|alarm| Left::Alarmed(Box::new(alarm))));
    let left = left.filter(|_| heals);
    Ok((outcome?, left))
}

/// What to try, or why nothing is.
fn attempt(
    guarded: &Guarded,
    job: &Job<'_>,
    journal: &Journal,
    alarm: &Alarm,
) -> Result<Result<Attempt, String>, TrainError> {
    let settings = &guarded.settings;
    if journal.attempts.len() as u64 >= settings.attempts {
        return Ok(Err(format!("{} attempts have been made", settings.attempts)));
    }
    if let Some(why) = &alarm.hopeless {
        return Ok(Err(why.clone()));
    }
    let resolved = &guarded.loaded.resolved;
    let mut candidates = match job.choice {
        Choice::Doctor => {
            if alarm.only_advice {
                alarm.advice.clone()
            } else {
                remedies::candidates(&alarm.causes, &alarm.findings, &alarm.advice, resolved, alarm.stage)
            }
        }
        Choice::Random(seed) => {
            let mut all = remedies::all(resolved, alarm.stage);
            // Any place, but the same for the same seed.
            let pick = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31) as usize;
            let pick = pick % all.len().max(1);
            if all.is_empty() { Vec::new() } else { vec![all.swap_remove(pick)] }
        }
    };
    candidates.retain(|c| !journal.tried(&c.overrides));
    candidates.truncate(settings.branches as usize);
    if candidates.is_empty() {
        let cause = alarm.causes.first().map_or("no cause", |c| c.summary);
        return Ok(Err(format!("no change of the settings is known to help where {cause}")));
    }
    let planned = planned_steps(&job.directory)?;
    // What was paused is compared with itself over the same steps, so from the start.
    let healthy = snapshots(&job.directory).into_iter().map(|(step, _)| step);
    let from = healthy.filter(|step| !alarm.only_advice && *step <= alarm.step).max();
    let wished = branch_length(settings, planned);
    let start = from.unwrap_or(0);
    let length = if settings.branch_steps > 0 && !alarm.only_advice {
        wished
    } else {
        (alarm.step - start).clamp(wished, wished.saturating_mul(LONGEST))
    };
    let length = length.min(planned.saturating_sub(start)).max(1);
    let left = (settings.extra_work * planned as f64) as u64;
    let affordable = left.saturating_sub(journal.branch_steps) / length;
    if affordable == 0 {
        return Ok(Err(format!(
            "{} steps on branches are spent, of {left} that guard.extra_work allows",
            journal.branch_steps
        )));
    }
    candidates.truncate(affordable as usize);
    let value = |v: serde_json::Result<serde_json::Value>| v.unwrap_or_default();
    // The worst there is: what the guard looked into by itself is a warning.
    let worst = alarm.findings.iter().map(|f| f.severity).max().unwrap_or(Severity::Critical);
    let critical = alarm.findings.iter().filter(|f| f.severity == worst);
    Ok(Ok(Attempt {
        step: alarm.step,
        findings: critical.map(|f| value(serde_json::to_value(f))).collect(),
        causes: alarm.causes.iter().map(|c| value(serde_json::to_value(c))).collect(),
        from,
        until: start + length,
        left_with: own_score(guarded, job, start + length)?.or(alarm.score),
        unsure: alarm.unsure,
        branches: candidates.into_iter().map(|remedy| Branch { remedy, outcome: None }).collect(),
        chosen: None,
    }))
}

/// The run's own score at a step, or the last before: what a branch that ends there is compared with.
fn own_score(guarded: &Guarded, job: &Job<'_>, step: u64) -> Result<Option<f64>, TrainError> {
    let run = read_run(&job.directory, None)?;
    let scores = run.trace.get(guarded.loaded.recipe.common().metric());
    Ok(scores.and_then(|scores| scores.at_or_before(step)).map(|(_, v)| v).filter(|v| v.is_finite()))
}

/// Trains every branch of the last attempt that has no outcome yet. Whether all have one: the user may have interrupted.
fn branches(guarded: &Guarded, job: &mut Job<'_>, journal: &mut Journal) -> Result<bool, TrainError> {
    let Some(attempt) = journal.attempts.last().cloned() else { return Ok(true) };
    let count = attempt.branches.len();
    for (index, branch) in attempt.branches.iter().enumerate() {
        if branch.outcome.is_some() {
            continue;
        }
        let label = format!("branch {} of {count}: {}", index + 1, branch.remedy.overrides.join(", "));
        let folder = journal.branch_folder(&job.directory, index);
        let outcome = match train_branch(guarded, job, &attempt, &branch.remedy, &folder, &label) {
            Ok(Some(outcome)) => outcome,
            Ok(None) => return Ok(false),
            // A remedy that the recipe refuses is no remedy; the run goes on with the others.
            Err(error) => journal::Outcome {
                score: None,
                floor: None,
                critical: Vec::new(),
                steps: 0,
                seconds: 0.0,
                failed: Some(error.to_string()),
            },
        };
        journal.branch_steps += outcome.steps;
        if let Some(last) = journal.attempts.last_mut() {
            last.branches[index].outcome = Some(outcome);
        }
        journal.save(&job.directory)?;
    }
    Ok(true)
}

/// Trains one branch to its end and judges it; `None` where the user interrupted.
fn train_branch(
    guarded: &Guarded,
    job: &mut Job<'_>,
    attempt: &Attempt,
    remedy: &Candidate,
    folder: &Path,
    label: &str,
) -> Result<Option<journal::Outcome>, TrainError> {
    let mut overrides = remedy.overrides.clone();
    overrides.push("run.tensorboard=false".to_owned());
    let begun = folder.join(CONFIG).is_file();
    let config = if begun { folder.join(CONFIG) } else { job.directory.join(CONFIG) };
    let branch = (job.load)(&config, if begun { &[] } else { &overrides })?;
    if !begun {
        prepare(job, attempt, &branch, folder)?;
    }
    // From the start there is nothing to resume, until the branch has begun.
    let resume = folder.join(CONFIG).is_file();
    let identity = branch.loaded.resolved.identity();
    let started = Instant::now();
    let mut stopped = None;
    // A branch that came to its end before the program was killed needs no more steps.
    let ended = checkpoint::list(folder)?.pop().is_some_and(|(step, _)| step >= attempt.until);
    if !ended {
        let mut observer = BranchObserver {
            inner: &mut *job.observer,
            label,
            until: attempt.until,
            validated: 0,
            interrupted: false,
        };
        let session = Session {
            directory: folder.to_owned(),
            resolved: &branch.loaded.resolved,
            device: job.device,
            resume,
            observer: &mut observer,
            on_start: &mut |_| {},
        };
        let trained = branch.loaded.recipe.train(session)?;
        if observer.interrupted {
            return Ok(None);
        }
        stopped = (trained.status == Status::Stopped).then(|| trained.reason.unwrap_or_default());
    }
    let Some((_, last)) = checkpoint::list(folder)?.pop() else {
        return Err(TrainError::Internal("a branch left no checkpoint".to_owned()));
    };
    let (state, _) = checkpoint::read(&last, &identity)?;
    let metric = guarded.loaded.recipe.common().metric().to_owned();
    let run = read_run(folder, None)?;
    let floor = state.metrics.get(&metric).and_then(|m| m.floor);
    let options = Options {
        metric: Some(metric.clone()),
        chance: floor,
        disabled: vec!["truncated-run".to_owned()],
        ..Options::default()
    };
    let from = attempt.from.unwrap_or(0);
    let diagnosis = diagnose(&run, &options);
    let critical = diagnosis
        .findings
        .iter()
        .filter(|f| f.severity == Severity::Critical && f.last_step.or(f.step).is_none_or(|s| s > from))
        .map(|f| f.rule.to_owned())
        .collect();
    Ok(Some(journal::Outcome {
        score: newest(&run, &metric),
        floor,
        critical,
        steps: state.global.saturating_sub(from),
        seconds: started.elapsed().as_secs_f64(),
        failed: stopped,
    }))
}

/// Makes the folder of a branch that starts from a checkpoint. It is whole or not there.
fn prepare(job: &Job<'_>, attempt: &Attempt, branch: &Guarded, folder: &Path) -> Result<(), TrainError> {
    let parent = folder.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent).map_err(|e| TrainError::io(parent, "cannot create", e))?;
    let Some(from) = attempt.from else {
        // A run that was killed before its settings were written has nothing to go on from.
        return remove_folder(folder);
    };
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.with_file_name(format!(".tmp-{name}"));
    for old in [&temporary, &folder.to_owned()] {
        remove_folder(old)?;
    }
    std::fs::create_dir_all(&temporary).map_err(|e| TrainError::io(&temporary, "cannot create", e))?;
    let Some((_, snapshot)) = snapshots(&job.directory).into_iter().find(|(step, _)| *step == from) else {
        return Err(TrainError::Internal(format!("the checkpoint of step {from} is gone")));
    };
    checkpoint::adopt(&snapshot, &temporary, &branch.loaded.resolved.identity())?;
    let best = best_of(&snapshot);
    if best.is_file() {
        checkpoint::link_file(&best, &checkpoint::best_path(&temporary))?;
    }
    for file in [SIGNALS, RUN_INFO] {
        let (source, target) = (job.directory.join(file), temporary.join(file));
        std::fs::copy(&source, &target).map_err(|e| TrainError::io(source, "cannot copy", e))?;
    }
    let toml = branch.loaded.resolved.to_toml();
    write_atomic(&temporary.join(CONFIG), |w| w.write_all(toml.as_bytes()))?;
    std::fs::rename(&temporary, folder).map_err(|e| TrainError::io(folder, "cannot rename to", e))
}

/// Ends a branch with a validation at its last step.
struct BranchObserver<'a> {
    inner: &'a mut dyn Observer,
    label: &'a str,
    until: u64,
    validated: u64,
    interrupted: bool,
}

impl Observer for BranchObserver<'_> {
    fn report(&mut self, report: &Report<'_>) -> Control {
        // The user sees that something goes on, but records and metrics are not the run's.
        let control = match report {
            Report::Stage { index, global, done, steps, .. } => self.inner.report(&Report::Stage {
                index: *index,
                name: self.label,
                global: *global,
                done: *done,
                steps: *steps,
            }),
            Report::Step { global, in_stage, seconds, .. } => self.inner.report(&Report::Step {
                global: *global,
                in_stage: *in_stage,
                seconds: *seconds,
                record: None,
            }),
            Report::Validating => self.inner.report(report),
            Report::Validated { .. } | Report::Event(_) => Control::Continue,
        };
        if control == Control::Interrupt {
            self.interrupted = true;
            return control;
        }
        match report {
            Report::Step { global, .. } if *global >= self.until && self.validated < *global => {
                Control::Validate
            }
            Report::Validated { record, .. } => {
                self.validated = record.step;
                if record.step >= self.until { Control::Interrupt } else { Control::Continue }
            }
            _ => Control::Continue,
        }
    }
}

/// Chooses the best branch of the last attempt, where one is better than what it would replace.
fn choose(journal: &mut Journal, choice: Choice) {
    let Some(attempt) = journal.attempts.last_mut() else { return };
    let scored = attempt.branches.iter().enumerate().filter_map(|(index, branch)| {
        let outcome = branch.outcome.as_ref().filter(|o| o.failed.is_none())?;
        Some((index, outcome.critical.is_empty(), outcome.score?, outcome.floor.unwrap_or(0.0)))
    });
    let scored: Vec<_> = scored.collect();
    let best = scored.iter().copied().reduce(|a, b| if (b.1, b.2) > (a.1, a.2) { b } else { a });
    // Of what does nearly as well on a short branch: of rates the lowest, since high ones are quick at first; else what was thought the most
    // promising, since a branch sees little.
    let rate = |index: usize| rate_of(&attempt.branches[index].remedy.overrides);
    let best = best.map(|best| {
        let near = scored
            .iter()
            .copied()
            .filter(|other| other.1 == best.1 && other.2 - other.3 >= NEAR * (best.2 - best.3));
        let alike = near.filter(|other| rate(other.0).is_some() == rate(best.0).is_some());
        let order = |branch: usize| rate(branch).unwrap_or(branch as f64);
        alike.min_by(|a, b| order(a.0).total_cmp(&order(b.0))).unwrap_or(best)
    });
    let unsure = attempt.unsure;
    let better = |(_, clean, score, floor): &(usize, bool, f64, f64)| {
        let before = attempt.left_with.unwrap_or(*floor).max(*floor);
        let margin = MARGIN * (1.0 - floor).max(0.0);
        score > &(before + margin) || *clean && !unsure && score >= &(before - margin)
    };
    attempt.chosen = best.filter(|b| choice != Choice::Doctor || better(b)).map(|(index, ..)| index);
}

/// Makes the chosen branch the run, or, where none helped, puts the run back to where the branches began. Every step of it can be
/// repeated. Returns the step the run goes on from.
fn adopt(job: &Job<'_>, journal: &Journal) -> Result<u64, TrainError> {
    let run = &job.directory;
    let Some(attempt) = journal.attempts.last() else { return Ok(0) };
    let from = attempt.from.unwrap_or(0);
    let attempt_folder = run.join(journal::FOLDER).join(format!("attempt-{}", journal.attempts.len()));
    std::fs::create_dir_all(&attempt_folder)
        .map_err(|e| TrainError::io(&attempt_folder, "cannot create", e))?;
    // What is left behind stays on record.
    let left = attempt_folder.join("left.jsonl");
    if !left.exists() {
        checkpoint::link_file(&run.join(SIGNALS), &left)?;
    }
    let Some(chosen) = attempt.chosen else { return Ok(attempt.step) };
    let kept = attempt_folder.join(LEFT_BEST);
    let best = checkpoint::best_path(run);
    if !kept.exists() && best.is_file() {
        checkpoint::link_file(&best, &kept)?;
    }
    let branch = journal.branch_folder(run, chosen);
    let config = run.join(CONFIG);
    let first = run.join(journal::FOLDER).join(FIRST_CONFIG);
    if !first.exists() {
        checkpoint::link_file(&config, &first)?;
    }
    let changed = (job.load)(&config, &attempt.branches[chosen].remedy.overrides)?;
    let Some((step, newest)) = checkpoint::list(&branch)?.pop() else {
        // Adopted before: the branch's checkpoints go last.
        return Ok(checkpoint::list(run)?.pop().map_or(0, |(step, _)| step));
    };
    checkpoint::remove_after(run, from)?;
    checkpoint::adopt(&newest, run, &changed.loaded.resolved.identity())?;
    let best = checkpoint::best_path(&branch);
    if best.is_file() {
        checkpoint::link_file(&best, &checkpoint::best_path(run))?;
    }
    let toml = changed.loaded.resolved.to_toml();
    write_atomic(&config, |w| w.write_all(toml.as_bytes()))?;
    // A copy, not a link: the run appends to it.
    let signals = std::fs::read(branch.join(SIGNALS))
        .map_err(|e| TrainError::io(branch.join(SIGNALS), "cannot read", e))?;
    write_atomic(&run.join(SIGNALS), |w| w.write_all(&signals))?;
    if changed.loaded.recipe.common().writes_tensorboard() {
        let mut writer = TensorBoardWriter::resume(run, from)?;
        for record in RunReader::open(run)?.records()?.flatten().filter(|r| r.step > from) {
            writer.write_record(&record, record.time)?;
        }
        writer.flush()?;
    }
    for (_, old) in snapshots(run).into_iter().filter(|(step, _)| *step > from) {
        remove_snapshot(&old)?;
    }
    // Last, since what is above needs them: branches keep settings and signals.
    for index in 0..attempt.branches.len() {
        let folder = journal.branch_folder(run, index).join(trimtab_signals::CHECKPOINTS);
        remove_folder(&folder)?;
    }
    Ok(step)
}

/// Where weights that were left behind are better than any since, they are the best of the run all the same.
fn keep_the_best(
    job: &mut Job<'_>,
    journal: &Journal,
    guarded: &Guarded,
    mut outcome: Outcome,
) -> Result<Outcome, TrainError> {
    let metric = guarded.loaded.recipe.common().metric();
    // Score and step of a file of weights, where there is one with a score.
    let scored = |file: &Path| -> Option<(f64, u64)> {
        let beside = checkpoint::metadata(file).ok()?;
        let number = |key: &str| beside.get(key)?.parse().ok().filter(|v: &f64| v.is_finite());
        Some((number(metric)?, number("step").map_or(0, |step| step as u64)))
    };
    let best = checkpoint::best_path(&job.directory);
    let mut so_far = scored(&best).map(|(score, _)| score);
    for attempt in 1..=journal.attempts.len() {
        let left = job.directory.join(journal::FOLDER).join(format!("attempt-{attempt}")).join(LEFT_BEST);
        let Some((score, step)) = scored(&left) else { continue };
        if so_far.is_some_and(|known| known >= score) {
            continue;
        }
        checkpoint::link_file(&left, &best)?;
        so_far = Some(score);
        if let Some(summary) = outcome.summary.metrics.get_mut(metric) {
            (summary.best, summary.best_step) = (Some(score), Some(step));
        }
        let message = format!(
            "the best weights are those of step {step}, {metric} {score:.4}, from before attempt {attempt} of the guard"
        );
        say(job, outcome.summary.steps, "guard", &message, serde_json::Value::Null)?;
        write_summary(&job.directory, &outcome)?;
    }
    Ok(outcome)
}

fn write_summary(run: &Path, outcome: &Outcome) -> Result<(), TrainError> {
    let text =
        serde_json::to_string_pretty(&outcome.summary).map_err(|e| TrainError::Internal(e.to_string()))?;
    Ok(write_atomic(&run.join(SUMMARY), |w| w.write_all(text.as_bytes()))?)
}

/// Ends the run as stopped, since nothing is left to try.
fn give_up(
    job: &mut Job<'_>,
    journal: &mut Journal,
    mut outcome: Outcome,
    alarm: &Alarm,
    why: &str,
) -> Result<Outcome, TrainError> {
    let found = alarm.findings.first().map_or_else(String::new, |f| format!("{}: {}", f.rule, f.message));
    let cause = alarm.causes.first().map(|c| format!("; likely because {}", c.summary)).unwrap_or_default();
    let reason = format!("the guard found something critical: {found}{cause}; {why}");
    journal.gave_up = Some(reason.clone());
    journal.save(&job.directory)?;
    say(job, alarm.step, "stop", &reason, serde_json::Value::Null)?;
    outcome.status = Status::Stopped;
    outcome.reason = Some(reason.clone());
    outcome.summary.status = Status::Stopped;
    outcome.summary.reason = Some(reason);
    write_summary(&job.directory, &outcome)?;
    Ok(outcome)
}

fn last_outcome(run: &Path) -> Result<Outcome, TrainError> {
    let summary = RunReader::open(run)?.summary()?;
    let summary = summary.unwrap_or_else(|| trimtab_signals::Summary {
        status: Status::Interrupted,
        reason: None,
        steps: 0,
        wall_seconds: None,
        steps_per_second: None,
        metrics: indexmap::IndexMap::default(),
    });
    Ok(Outcome { status: summary.status, reason: summary.reason.clone(), summary })
}

/// An event of the run, written while nobody trains it.
fn say(
    job: &mut Job<'_>,
    step: u64,
    kind: &str,
    message: &str,
    data: serde_json::Value,
) -> Result<(), TrainError> {
    let event = Event { step, epoch: 0, time: 0.0, kind: kind.to_owned(), message: message.to_owned(), data };
    append_event(&job.directory, &event)?;
    job.observer.report(&Report::Event(&event));
    Ok(())
}

fn told(attempt: &Attempt) -> String {
    let place = attempt.from.map_or_else(|| "the start".to_owned(), |step| format!("step {step}"));
    let names: Vec<String> = attempt.branches.iter().map(|b| b.remedy.overrides.join(", ")).collect();
    format!(
        "left at step {}, back to {place}; to try for {} steps each: {}",
        attempt.step,
        attempt.length(),
        names.join("; ")
    )
}

fn chosen(journal: &Journal, metric: &str) -> String {
    let Some(attempt) = journal.attempts.last() else { return String::new() };
    let number = |v: Option<f64>| v.map_or_else(|| "none".to_owned(), |v| format!("{v:.4}"));
    match attempt.chosen.map(|index| &attempt.branches[index]) {
        None => "none of the remedies helped".to_owned(),
        Some(branch) => {
            let score = number(branch.outcome.as_ref().and_then(|o| o.score));
            format!(
                "going on with {}: {metric} {score} on its branch, {} before",
                branch.remedy.overrides.join(", "),
                number(attempt.left_with)
            )
        }
    }
}
