//! The loop: one for all recipes. It loads batches in order, steps, validates, judges expectations, keeps the best
//! weights, writes checkpoints and records signals. What happens *within* a step is the recipe's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use trimtab_data::atomic::write_atomic;
use trimtab_data::loader::Loader;
use trimtab_signals::names;
use trimtab_signals::tensorboard::TensorBoardWriter;
use trimtab_signals::{Event, MetricSummary, Record, RunWriter, Status, Summary};

use crate::checkpoint::{self, Interval, LoopState};
use crate::config::Common;
use crate::error::{Result, TrainError};
use crate::expect::{Progress, Verdict};
use crate::recipe::{Evaluation, Recipe, Step};

/// What the loop tells whoever watches.
#[derive(Debug)]
pub enum Report<'a> {
    /// A stage begins (or goes on after a resume).
    Stage {
        /// Its place among the stages, from 0.
        index: usize,
        /// Its name.
        name: &'a str,
        /// Steps done in the whole run.
        global: u64,
        /// Steps done in it.
        done: u64,
        /// Steps at most.
        steps: u64,
    },
    /// A step is done.
    Step {
        /// Steps done in the whole run.
        global: u64,
        /// Steps done in the stage.
        in_stage: u64,
        /// Seconds since the program started training, this time.
        seconds: f64,
        /// The record of signals, where one was made.
        record: Option<&'a Record>,
    },
    /// A validation begins.
    Validating,
    /// A validation is done.
    Validated {
        /// Its signals.
        record: &'a Record,
        /// Trivial floors by signal name.
        floors: &'a BTreeMap<String, f64>,
        /// Which weights were better.
        winner: &'a str,
        /// Whether these are the best so far.
        best: bool,
    },
    /// Something worth a line: a warning, a checkpoint, the end of a stage.
    Event(&'a Event),
}

/// What the loop is to do after a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Write a checkpoint and end as interrupted.
    Interrupt,
    /// Write a checkpoint and end as stopped, for this reason.
    Stop(String),
    /// Validate after this step, whatever the schedule says, and go on. Answers a [`Report::Step`] only.
    Validate,
    /// Write a checkpoint and go on.
    Checkpoint,
    /// End as interrupted at once and *without* a checkpoint: what goes on will do so from an earlier one.
    Rollback,
}

/// Sees every step and may end the run, or have it validate or write a checkpoint; never touches it otherwise.
pub trait Observer {
    /// Called in the training thread: be quick. The answer counts for [`Report::Step`] and [`Report::Validated`]; a run that is
    /// to end on a step with a validation makes it first.
    fn report(&mut self, report: &Report<'_>) -> Control;

    /// What the observer has to say since it was last asked, for the run's events: kind, message and data. Asked after each
    /// [`Report::Step`] and [`Report::Validated`].
    fn remarks(&mut self) -> Vec<(String, String, serde_json::Value)> {
        Vec::new()
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Done, stopped or interrupted.
    pub status: Status,
    /// Why, unless done.
    pub reason: Option<String>,
    /// As written to `summary.json`.
    pub summary: Summary,
}

/// The parts of a run that the loop moves.
pub struct Run<'a, R: Recipe> {
    /// What is trained; in its first stage, or restored to that of `resume`.
    pub recipe: &'a mut R,
    /// Shared settings.
    pub common: &'a Common,
    /// The run directory.
    pub directory: PathBuf,
    /// Its writer.
    pub writer: RunWriter,
    /// The same records for TensorBoard.
    pub tensorboard: Option<TensorBoardWriter>,
    /// Who watches.
    pub observer: &'a mut dyn Observer,
    /// Identifies the settings, for a later resume.
    pub settings: String,
    /// State to go on from.
    pub resume: Option<LoopState>,
}

enum End {
    Done,
    Early(String),
    Stopped(String),
    Interrupted,
    RolledBack,
}

impl<R: Recipe> Run<'_, R> {
    /// Trains to the end, or until stopped.
    ///
    /// # Errors
    /// The data or the disk. What was written before stays whole.
    pub fn train(mut self) -> Result<Outcome> {
        let started = Instant::now();
        let resumed = self.resume.is_some();
        let mut state = self.resume.take().unwrap_or_else(|| LoopState {
            expectations: vec![Progress::default(); self.common.expectations.len()],
            settings: self.settings.clone(),
            ..LoopState::default()
        });
        let seconds_before = state.seconds;
        let clock = move || seconds_before + started.elapsed().as_secs_f64();
        if resumed {
            self.event(&state, clock(), "resume", "going on from a checkpoint")?;
        }
        let end = loop {
            match self.stage(&mut state, &clock)? {
                Some(end) => break end,
                None if state.stage + 1 == self.recipe.stages().len() => break End::Done,
                None => {
                    state.epochs_before +=
                        state.in_stage.div_ceil(self.recipe.stages()[state.stage].steps_per_epoch.max(1));
                    state.stage += 1;
                    state.in_stage = 0;
                    state.stopping_best = None;
                    state.stopping_since = 0;
                    state.advance = Progress::default();
                    let best = checkpoint::best_path(&self.directory);
                    self.recipe.enter_stage(state.stage, best.is_file().then_some(best.as_path()))?;
                    // At once: later validations replace the best weights that this stage started from.
                    self.checkpoint(&mut state, &clock)?;
                }
            }
        };
        if matches!(end, End::RolledBack) {
            state.seconds = clock();
        } else {
            self.checkpoint(&mut state, &clock)?;
        }
        let (status, reason) = match end {
            End::Done => (Status::Finished, None),
            End::Early(why) => (Status::Finished, Some(why)),
            End::Stopped(why) => (Status::Stopped, Some(why)),
            End::Interrupted | End::RolledBack => (Status::Interrupted, None),
        };
        let summary = self.summary(status, reason.clone(), &state);
        self.writer.write_summary(&summary)?;
        let text = reason.clone().unwrap_or_default();
        self.event(&state, clock(), "end", format!("{status:?} {text}").trim())?;
        Ok(Outcome { status, reason, summary })
    }

    /// Trains the current stage from where it stands; `None` when it is over.
    fn stage(&mut self, state: &mut LoopState, clock: &dyn Fn() -> f64) -> Result<Option<End>> {
        let plan = &self.recipe.stages()[state.stage];
        let (name, steps, per_epoch) = (plan.name.clone(), plan.steps(), plan.steps_per_epoch);
        let last_stage = state.stage + 1 == self.recipe.stages().len();
        let run = &self.common.run;
        let source = self.recipe.batches(state.stage);
        let mut loader =
            Loader::new(state.in_stage, steps, run.loader_threads, run.loader_ahead, move |step| {
                source(step)
            });
        let started = Instant::now();
        self.observer.report(&Report::Stage {
            index: state.stage,
            name: &name,
            global: state.global,
            done: state.in_stage,
            steps,
        });
        let (mut interval_start, mut waited) = (Instant::now(), 0.0);
        loop {
            if std::mem::take(&mut state.stage_over) {
                let epochs = state.in_stage.div_ceil(per_epoch);
                let message = format!("{name}: condition met after epoch {epochs}");
                self.event(state, clock(), "stage", &message)?;
                return Ok(None);
            }
            let patience = self.common.early_stopping.patience;
            if last_stage && patience > 0 && state.stopping_since >= patience {
                let metric = self.common.metric();
                return Ok(Some(End::Early(format!("no better {metric} in {patience} validations"))));
            }
            if state.in_stage >= steps {
                break;
            }
            let epoch_end = (state.in_stage + 1).is_multiple_of(per_epoch);
            let at = Step {
                global: state.global,
                stage: state.stage,
                in_stage: state.in_stage,
                measure: (state.in_stage + 1).is_multiple_of(run.log_every)
                    || epoch_end
                    || state.in_stage == 0,
            };
            let batch =
                loader.next().ok_or_else(|| TrainError::Internal("the loader ended early".to_owned()))??;
            let signals = self.recipe.step(batch, at)?;
            let epoch = state.epochs_before + state.in_stage / per_epoch;
            state.global += 1;
            state.in_stage += 1;
            let mut record = Record::new(state.global, epoch, clock());
            collect(&mut state.interval, signals, &mut record);
            let over = state.in_stage == steps;
            let validate = over
                || epoch_end
                    && (state.in_stage / per_epoch).is_multiple_of(self.common.evaluate.every_epochs);
            let mut end = None;
            if at.measure {
                finish(&mut state.interval, &mut record);
                record.push(&names::STAGE_INDEX, state.stage as f64);
                let taken = interval_start.elapsed().as_secs_f64();
                let steps = (std::mem::take(&mut state.interval.steps)).max(1) as f64;
                record.push(&names::TIME_STEP_SECONDS, taken / steps);
                record.push(&names::TIME_LOAD_SECONDS, (loader.wait_seconds() - waited) / steps);
                (interval_start, waited) = (Instant::now(), loader.wait_seconds());
                self.record(&record)?;
                // A deadline that falls on a validation is judged by what that finds.
                let done = u64::from(!validate);
                end =
                    self.judge(state, &record, state.global - 1 + done, epoch + u64::from(epoch_end) * done)?;
            }
            let control = self.observer.report(&Report::Step {
                global: state.global,
                in_stage: state.in_stage,
                seconds: started.elapsed().as_secs_f64(),
                record: at.measure.then_some(&record),
            });
            self.remarks(state, clock)?;
            let validate = validate || control == Control::Validate;
            let mut checkpoint =
                control == Control::Checkpoint || state.in_stage.is_multiple_of(run.checkpoint_every);
            end = end.or(end_of(control));
            if validate {
                // Also for a run that is to end here: what goes on later must not miss a validation.
                let started = Instant::now();
                let (judged, wanted) = self.validate(state, clock, epoch, last_stage)?;
                end = end.or(judged);
                checkpoint |= wanted;
                interval_start += started.elapsed();
            }
            if end.is_some() {
                return Ok(end);
            }
            if checkpoint {
                let started = Instant::now();
                self.checkpoint(state, clock)?;
                interval_start += started.elapsed();
            }
        }
        if self.recipe.stages()[state.stage].advance_when.is_some() {
            self.event(
                state,
                clock(),
                "warning",
                &format!(
                    "{name}: the condition to advance was not met in {} epochs; going on all the same",
                    steps / per_epoch
                ),
            )?;
        }
        Ok(None)
    }

    /// Validates, records, keeps the best weights, notes whether the stage is over. Returns how the run ends, if it does, and
    /// whether the observer wants a checkpoint.
    fn validate(
        &mut self,
        state: &mut LoopState,
        clock: &dyn Fn() -> f64,
        epoch: u64,
        last_stage: bool,
    ) -> Result<(Option<End>, bool)> {
        self.observer.report(&Report::Validating);
        let started = Instant::now();
        let Evaluation { signals, floors, winner } = self.recipe.evaluate()?;
        let mut record = Record::new(state.global, epoch, clock());
        record.values = signals;
        record.push(&names::TIME_EVALUATE_SECONDS, started.elapsed().as_secs_f64());
        self.record(&record)?;
        for (name, value) in record.values.iter().filter(|(name, _)| name.starts_with("val/")) {
            let history = state.metrics.entry(name.clone()).or_default();
            let lower_is_better = name.starts_with(names::VAL_LOSS.name);
            // What has no floor (a mean probability, say) is neither good nor bad: it has a newest value only.
            let better = match history.best_step {
                _ if !lower_is_better && !floors.contains_key(name) => false,
                None => value.is_finite(),
                Some(_) if lower_is_better => *value < history.best,
                Some(_) => *value > history.best,
            };
            if better {
                (history.best, history.best_step) = (*value, Some(state.global));
            }
            history.last = *value;
            history.floor = floors.get(name).copied().filter(|f| f.is_finite());
        }
        let metric = &self.common.evaluate.metric;
        let score = record
            .get(metric)
            .ok_or_else(|| TrainError::Internal(format!("no {metric} among the validation's signals")))?;
        let best = state.metrics.get(metric).is_some_and(|h| h.best_step == Some(state.global));
        if best {
            self.keep_best(state, winner, score)?;
        }
        let control =
            self.observer.report(&Report::Validated { record: &record, floors: &floors, winner, best });
        self.remarks(state, clock)?;
        let wanted = control == Control::Checkpoint;
        let end = self.judge(state, &record, state.global, epoch + 1)?.or(end_of(control));
        if last_stage {
            let better = |before: f64| score > before + self.common.early_stopping.min_delta;
            if score.is_finite() && state.stopping_best.is_none_or(better) {
                state.stopping_best = Some(score);
                state.stopping_since = 0;
            } else {
                state.stopping_since += 1;
            }
        }
        if let Some(condition) = &self.recipe.stages()[state.stage].advance_when {
            let verdict = condition.judge(&mut state.advance, |n| record.get(n), state.global, epoch + 1);
            state.stage_over = matches!(verdict, Verdict::Warn(_));
        }
        Ok((end, wanted))
    }

    fn keep_best(&mut self, state: &LoopState, winner: &str, score: f64) -> Result<()> {
        let metadata = BTreeMap::from([
            ("step".to_owned(), state.global.to_string()),
            ("weights".to_owned(), winner.to_owned()),
            (self.common.evaluate.metric.clone(), score.to_string()),
        ]);
        let bytes = self.recipe.weights(winner, metadata);
        let path = checkpoint::best_path(&self.directory);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| TrainError::io(folder, "cannot create", e))?;
        }
        Ok(write_atomic(&path, |w| w.write_all(&bytes))?)
    }

    /// Judges the expectations on a record, with the newest value of the signals it lacks.
    fn judge(
        &mut self,
        state: &mut LoopState,
        record: &Record,
        steps: u64,
        epochs: u64,
    ) -> Result<Option<End>> {
        let mut end = None;
        let newest: BTreeMap<_, _> =
            record.values.iter().map(|(n, v)| (n.clone(), v.is_finite().then_some(*v))).collect();
        state.newest.extend(newest);
        for (index, expectation) in self.common.expectations.iter().enumerate() {
            // One of its signals must be new, or a condition would be counted again; the other may be older.
            let fresh = expectation.signals().any(|name| record.get(name).is_some());
            let value = |name: &str| {
                record.get(name).or_else(|| state.newest.get(name).copied().flatten()).filter(|_| fresh)
            };
            let mut progress = state.expectations[index].clone();
            let verdict = expectation.judge(&mut progress, value, steps, epochs);
            state.expectations[index] = progress;
            match verdict {
                Verdict::Quiet => {}
                Verdict::Warn(text) => self.event(state, record.time, "warning", &text)?,
                Verdict::Stop(text) => {
                    self.event(state, record.time, "stop", &text)?;
                    end.get_or_insert(End::Stopped(text));
                }
            }
        }
        Ok(end)
    }

    fn record(&mut self, record: &Record) -> Result<()> {
        self.writer.record(record)?;
        if let Some(tensorboard) = &mut self.tensorboard {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
            tensorboard.write_record(record, now)?;
            tensorboard.flush()?;
        }
        Ok(())
    }

    fn event(&mut self, state: &LoopState, time: f64, kind: &str, message: &str) -> Result<()> {
        self.event_with(state, time, kind, message, serde_json::Value::Null)
    }

    fn event_with(
        &mut self,
        state: &LoopState,
        time: f64,
        kind: &str,
        message: &str,
        data: serde_json::Value,
    ) -> Result<()> {
        let plan = &self.recipe.stages()[state.stage];
        let event = Event {
            step: state.global,
            epoch: state.epochs_before + state.in_stage.saturating_sub(1) / plan.steps_per_epoch.max(1),
            time,
            kind: kind.to_owned(),
            message: message.to_owned(),
            data,
        };
        self.writer.event(&event)?;
        self.observer.report(&Report::Event(&event));
        Ok(())
    }

    /// Writes down what the observer has to say.
    fn remarks(&mut self, state: &LoopState, clock: &dyn Fn() -> f64) -> Result<()> {
        for (kind, message, data) in self.observer.remarks() {
            self.event_with(state, clock(), &kind, &message, data)?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, state: &mut LoopState, clock: &dyn Fn() -> f64) -> Result<()> {
        state.seconds = clock();
        let keep = self.common.run.keep_checkpoints;
        if checkpoint::save(&self.directory, self.common.seed, state, &self.recipe.state(), keep)? {
            self.event(state, state.seconds, "checkpoint", "checkpoint written")?;
        }
        Ok(())
    }

    fn summary(&self, status: Status, reason: Option<String>, state: &LoopState) -> Summary {
        let finite = |v: f64| v.is_finite().then_some(v);
        let metrics = state.metrics.iter().map(|(name, h)| {
            let best = h.best_step.and_then(|_| finite(h.best));
            (
                name.clone(),
                MetricSummary { best, best_step: h.best_step, last: finite(h.last), floor: h.floor },
            )
        });
        Summary {
            status,
            reason,
            steps: state.global,
            wall_seconds: finite(state.seconds),
            steps_per_second: finite(state.global as f64 / state.seconds),
            metrics: metrics.collect(),
        }
    }
}

fn end_of(control: Control) -> Option<End> {
    match control {
        Control::Continue | Control::Validate | Control::Checkpoint => None,
        Control::Rollback => Some(End::RolledBack),
        Control::Interrupt => Some(End::Interrupted),
        Control::Stop(why) => Some(End::Stopped(why)),
    }
}

/// Moves a step's signals into the record, but for the counts, which are summed until the next record.
fn collect(interval: &mut Interval, signals: Vec<(String, f64)>, record: &mut Record) {
    interval.steps += 1;
    for (name, value) in signals {
        if name == names::GRAD_CLIPPED.name {
            interval.clipped += value;
        } else if name == names::GRAD_NON_FINITE.name {
            interval.non_finite += value;
        } else if name == names::DATA_NON_FINITE.name {
            interval.non_finite_inputs += value;
        } else {
            record.values.push((name, value));
        }
    }
}

fn finish(interval: &mut Interval, record: &mut Record) {
    record.push(&names::GRAD_CLIPPED, interval.clipped / interval.steps.max(1) as f64);
    record.push(&names::GRAD_NON_FINITE, interval.non_finite);
    record.push(&names::DATA_NON_FINITE, interval.non_finite_inputs);
    (interval.clipped, interval.non_finite, interval.non_finite_inputs) = (0.0, 0.0, 0.0);
}
