//! A run as rules look at it.

use trimtab_signals::names::{self, Signal};
use trimtab_signals::{Column, Goal, Key, Run, keys};

use crate::course::Course;
use crate::options::Options;
use crate::rule::Missing;
use crate::series::{falls, median, noise, smooth};

/// A run with what every rule asks of it.
#[derive(Debug)]
pub struct View<'a> {
    run: &'a Run,
    options: &'a Options,
    metrics: Vec<Metric<'a>>,
}

/// A column that says how good the model is.
#[derive(Clone, Copy, Debug)]
pub struct Metric<'a> {
    /// Name of the column.
    pub name: &'a str,
    /// Its values.
    pub column: &'a Column,
    /// Which way it is better.
    pub goal: Goal,
    /// What a predictor that has learned nothing scores, where that is known.
    pub chance: Option<f64>,
    /// What a perfect one scores, where the log says so.
    pub perfect: Option<f64>,
}

impl Metric<'_> {
    /// The values on a scale where higher is better.
    pub fn upward(&self) -> Vec<f64> {
        self.column.values().iter().map(|&v| self.goal.upward(v)).collect()
    }

    /// The worst and the best value a score can have: 0 and 1, or 0 and 100 for percentages; for error rates the other way
    /// round. `None` for losses and where the goal alone does not tell.
    pub fn range(&self) -> Option<(f64, f64)> {
        // Decibels, rewards and scores of one's own have no upper end; that of rankings and of translation is out of reach.
        let open = ["psnr", "reward", "score", "return", "r2"].iter().any(|w| self.name.ends_with(w));
        let far =
            ["ndcg", "mrr", "hit", "recall_at", "@", "bleu", "rouge"].iter().any(|w| self.name.contains(w));
        if self.is_loss() || open || (far && self.perfect.is_none()) {
            return None;
        }
        let scale = self.perfect.unwrap_or_else(|| {
            if self.column.values().iter().any(|v| v.is_finite() && *v > 1.5) && self.goal == Goal::Higher {
                100.0
            } else {
                1.0
            }
        });
        let unit = |v: &f64| !v.is_finite() || (-1e-6..=scale * (1.0 + 1e-6)).contains(v);
        match self.goal {
            // AUC has its worst at chance.
            Goal::Higher if self.column.values().iter().all(unit) => {
                let auc =
                    [&names::VAL_AUC, &names::TRAIN_AUC].iter().any(|s| s.group_of(self.name).is_some());
                Some((if auc { scale / 2.0 } else { 0.0 }, scale))
            }
            // Only error rates are known to end at 1: an untrained word error rate may lie above.
            Goal::Lower if ["wer", "cer", "error_rate", "eer"].iter().any(|w| self.name.ends_with(w)) => {
                let percent = self.column.lowest().is_some_and(|(_, v)| v > 1.5);
                Some((if percent { 100.0 } else { 1.0 }, 0.0))
            }
            _ => None,
        }
    }

    /// What no skill scores: chance where it is known, else the worst value of the range.
    pub fn no_skill(&self) -> Option<f64> {
        self.chance.or(self.range().map(|(worst, _)| worst))
    }

    /// What a course of this metric had to lose: its height over no skill, or its gain over the first evaluation where no
    /// skill is not known. A run that started from a good model gains little and can lose much.
    pub fn at_stake(&self, course: &Course) -> f64 {
        self.no_skill().map_or(course.gained(), |floor| (course.best - self.goal.upward(floor)).max(0.0))
    }

    /// Whether it is a loss rather than a score.
    pub fn is_loss(&self) -> bool {
        [&names::VAL_LOSS, &names::TRAIN_LOSS, &names::TEST_LOSS]
            .iter()
            .any(|s| s.group_of(self.name).is_some())
    }
}

/// Fewer evaluations of a run that still learns are its start.
pub const START: usize = 10;

/// Metrics of training, for runs that validate nothing.
const IN_TRAINING: [&Signal; 7] = [
    &names::TRAIN_DICE,
    &names::TRAIN_MIOU,
    &names::TRAIN_F1,
    &names::TRAIN_IOU,
    &names::TRAIN_AUC,
    &names::TRAIN_METRIC,
    &names::TRAIN_ACCURACY,
];

/// Validation metrics, the one that says most first.
const HEADLINES: [&Signal; 17] = [
    &names::VAL_DICE,
    &names::VAL_MIOU,
    &names::VAL_F1,
    &names::VAL_IOU,
    &names::VAL_AVERAGE_PRECISION,
    &names::VAL_BALANCED_ACCURACY,
    &names::VAL_AUC,
    &names::VAL_S_MEASURE,
    &names::VAL_WEIGHTED_F,
    &names::VAL_METRIC,
    &names::VAL_ACCURACY,
    &names::VAL_ERROR_RATE,
    &names::VAL_BEST_F1,
    &names::VAL_MAE,
    &names::VAL_PRECISION,
    &names::VAL_RECALL,
    &names::VAL_LOSS,
];

impl<'a> View<'a> {
    /// Looks at a run.
    pub fn new(run: &'a Run, options: &'a Options) -> Self {
        let mut view = Self { run, options, metrics: Vec::new() };
        let mut metrics: Vec<Metric<'a>> = Vec::new();
        for (at, signal) in HEADLINES.into_iter().chain(IN_TRAINING).enumerate() {
            if at == HEADLINES.len() && !metrics.is_empty() {
                break;
            }
            let of_signal = run.trace.iter().filter(|(name, _)| signal.group_of(name).is_some());
            let mut found: Vec<Metric<'a>> = of_signal
                .filter_map(|(name, column)| Some(view.metric(name, column, names::goal(name)?)))
                .collect();
            // Of a metric's groups the one measured most often says most; the ungrouped one comes first among equals.
            found.sort_by_key(|m| std::cmp::Reverse(m.column.len()));
            metrics.extend(found);
        }
        if let Some(wanted) = &options.metric {
            let named = run.trace.iter().find(|(name, _)| name == wanted || run.logged_name(name) == wanted);
            if let Some((name, column)) = named {
                let goal = options.goal().or_else(|| names::goal(name)).unwrap_or(Goal::Higher);
                metrics.retain(|m| m.name != name);
                let metric = view.metric(name, column, goal);
                metrics.insert(0, Metric { chance: options.chance.or(metric.chance), ..metric });
            }
        } else if let Some(first) = metrics.first_mut() {
            first.goal = options.goal().unwrap_or(first.goal);
            first.chance = options.chance.or(first.chance);
        }
        view.metrics = metrics;
        view
    }

    /// The run itself.
    pub fn run(&self) -> &'a Run {
        self.run
    }

    /// The user's options.
    pub fn options(&self) -> &'a Options {
        self.options
    }

    /// The column of a signal without group.
    ///
    /// # Errors
    ///
    /// [`Missing`] names the signal.
    pub fn need(&self, signal: &Signal) -> Result<&'a Column, Missing> {
        self.column(signal).ok_or_else(|| Missing::new(signal.name))
    }

    /// The column of a signal without group, where it was measured.
    pub fn column(&self, signal: &Signal) -> Option<&'a Column> {
        self.run.trace.get(signal.name)
    }

    /// The columns of a signal with their groups (`""` for the ungrouped one), in order of the group's name.
    pub fn groups(&self, signal: &'a Signal) -> Vec<(&'a str, &'a Column)> {
        self.run.trace.groups(signal).collect()
    }

    /// The columns of a signal with their groups.
    ///
    /// # Errors
    ///
    /// [`Missing`] names the signal where it has none.
    pub fn need_groups(&self, signal: &'a Signal) -> Result<Vec<(&'a str, &'a Column)>, Missing> {
        let groups = self.groups(signal);
        if groups.is_empty() { Err(Missing::new(signal.name)) } else { Ok(groups) }
    }

    /// A declared number.
    ///
    /// # Errors
    ///
    /// [`Missing`] names the key.
    pub fn need_number(&self, key: &Key) -> Result<f64, Missing> {
        self.number(key).ok_or_else(|| Missing::new(format!("{} (declared)", key.name)))
    }

    /// A declared number, where it was declared.
    pub fn number(&self, key: &Key) -> Option<f64> {
        self.run.facts.number(key.name)
    }

    /// A declared flag.
    pub fn flag(&self, key: &Key) -> Option<bool> {
        self.run.facts.boolean(key.name)
    }

    /// Declared numbers by group: `optim.learning_rate.head` has group `head`; the ungrouped key has group `""`.
    pub fn numbers_by_group(&self, key: &Key) -> Vec<(&'a str, f64)> {
        let groups = self.run.facts.iter().filter_map(|(name, value)| {
            let rest = name.strip_prefix(key.name)?;
            let group = if rest.is_empty() { "" } else { rest.strip_prefix('.')? };
            Some((group, value.as_f64()?))
        });
        groups.collect()
    }

    /// Validation metrics, the one that decides first.
    pub fn metrics(&self) -> &[Metric<'a>] {
        &self.metrics
    }

    /// The metric that decides: a validation score, else the validation loss.
    ///
    /// # Errors
    ///
    /// [`Missing`] where there is no validation at all.
    pub fn headline(&self) -> Result<Metric<'a>, Missing> {
        self.metrics.first().copied().ok_or_else(|| Missing::new("a validation metric or loss"))
    }

    /// The training loss: of batches, else as measured on training samples.
    ///
    /// # Errors
    ///
    /// [`Missing`] names both.
    pub fn training_loss(&self) -> Result<(&'static str, &'a Column), Missing> {
        let found = [&names::LOSS_TOTAL, &names::TRAIN_LOSS]
            .into_iter()
            .find_map(|signal| self.column(signal).map(|column| (signal.name, column)));
        found.ok_or_else(|| Missing::new(format!("{} or {}", names::LOSS_TOTAL.name, names::TRAIN_LOSS.name)))
    }

    /// The validation loss as a metric.
    pub fn validation_loss(&self) -> Option<Metric<'a>> {
        self.metrics.iter().copied().find(|m| m.name == names::VAL_LOSS.name)
    }

    /// The course of the training loss at the steps of another series: as measured on training samples in evaluation, else the
    /// median of the batches since the evaluation before. Upward: minus the loss.
    pub fn training_course(&self, at: &[u64]) -> Option<Course> {
        if let Some(column) = self.column(&names::TRAIN_LOSS) {
            let (steps, values) = column.iter().filter(|(_, v)| v.is_finite()).map(|(s, v)| (s, -v)).unzip();
            return Course::new(steps, values);
        }
        let column = self.column(&names::LOSS_TOTAL)?;
        let mut from = 0;
        let mut steps = Vec::new();
        let mut values = Vec::new();
        for &step in at {
            let to = column.steps().partition_point(|&s| s <= step);
            if let Some(value) = median(column.values()[from..to.max(from)].iter().copied()) {
                steps.push(step);
                values.push(-value);
            }
            from = to.max(from);
        }
        Course::new(steps, values)
    }

    /// Whether the run looks as if it had only begun: its learning rate still rises, or the last third of its training brought
    /// more than a tenth of all that the training loss fell. A score at no skill says little then.
    pub fn starting(&self) -> bool {
        // What is logged of the first steps only tells nothing of now.
        let end = self.last_step();
        let recent = |column: &&Column| column.steps().last().is_some_and(|last| *last >= end - end / 5);
        let rising =
            self.groups(&names::OPTIM_LEARNING_RATE).iter().filter(|(_, c)| recent(c)).any(|(_, rate)| {
                let values = rate.values();
                let (early, late) = values.split_at(values.len() * 2 / 3);
                let high = early.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                values.len() >= 6 && late.last().is_some_and(|last| *last > high * 1.01)
            });
        let falling = || {
            let losses =
                [&names::LOSS_TOTAL, &names::TRAIN_LOSS].into_iter().filter_map(|signal| self.column(signal));
            let column = losses.filter(recent).max_by_key(|column| column.len())?;
            let values: Vec<f64> = column.values().iter().copied().filter(|v| v.is_finite()).collect();
            let levels = smooth(&values, 5);
            let (first, last) = (levels.first()?, levels.last()?);
            let then = levels.get(levels.len() * 2 / 3)?;
            let beyond = noise(&values).unwrap_or(0.0);
            Some(values.len() >= 6 && then - last > 0.1 * (first - last) && then - last > 2.0 * beyond)
        };
        rising || falling().unwrap_or(false)
    }

    /// Whether from a step on the training loss falls, or the metric that decides gets better, by more than noise
    /// explains. `None` where both were measured too rarely to tell.
    pub fn progresses_from(&self, step: u64) -> Option<bool> {
        let since = |column: &Column, sign: f64| {
            let start = column.steps().partition_point(|&known| known < step);
            let values: Vec<f64> = column.values().iter().skip(start).map(|v| sign * v).collect();
            falls(&values)
        };
        let loss = self.training_loss().ok().and_then(|(_, column)| since(column, 1.0));
        let metric = self.headline().ok().and_then(|metric| since(metric.column, -metric.goal.upward(1.0)));
        match (loss, metric) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (None, None) => None,
            _ => Some(false),
        }
    }

    /// Whether rewards are logged: in reinforcement learning the losses of values and policies may rise as the agent
    /// gets better.
    pub fn is_reinforcement(&self) -> bool {
        self.run.trace.names().any(|name| {
            let name = name.to_lowercase();
            ["reward", "episode", "rollout", "ep_len", "ep_rew"].iter().any(|word| name.contains(word))
        })
    }

    /// The share of positive labels: as measured last, else as declared.
    pub fn prevalence(&self, signal: &Signal) -> Option<f64> {
        let measured = self.column(signal).and_then(Column::last).map(|(_, p)| p);
        measured.or_else(|| self.number(&keys::DATA_PREVALENCE)).filter(|p| (0.0..=1.0).contains(p))
    }

    /// Whether the declared schedule raises the rate again: warm restarts, cycles.
    pub fn rate_restarts(&self) -> bool {
        if self.number(&keys::SCHEDULE_CYCLES).is_some_and(|n| n > 1.0) {
            return true;
        }
        let name = self.run.facts.text(keys::SCHEDULE_NAME.name).unwrap_or_default().to_lowercase();
        if ["restart", "cyclic"].iter().any(|word| name.contains(word)) {
            return true;
        }
        // A rate that fell to under half and came back to over three quarters of its height.
        self.groups(&names::OPTIM_LEARNING_RATE).iter().any(|(_, rate)| {
            let (mut high, mut low) = (0.0f64, f64::INFINITY);
            rate.values().iter().filter(|v| v.is_finite()).any(|&v| {
                if v > high {
                    (high, low) = (v, v);
                }
                low = low.min(v);
                low < high / 2.0 && v > high * 0.75
            })
        })
    }

    /// The last step at which anything was measured.
    pub fn last_step(&self) -> u64 {
        self.run.trace.last_step().unwrap_or(0)
    }

    /// Optimizer steps planned, in the unit of the trace's steps: declared as such, or as epochs where epochs are known.
    pub fn planned_steps(&self) -> Option<f64> {
        if let Some(steps) = self.number(&keys::RUN_STEPS) {
            return Some(steps);
        }
        Some(self.number(&keys::RUN_EPOCHS)? * self.steps_per_epoch()?)
    }

    /// Steps an epoch: declared, or from the steps at which epochs were logged.
    pub fn steps_per_epoch(&self) -> Option<f64> {
        if let Some(steps) = self.number(&keys::RUN_STEPS_PER_EPOCH) {
            return Some(steps);
        }
        let epochs = self.run.trace.epochs();
        let ((first_step, first), (last_step, last)) = (epochs.first()?, epochs.last()?);
        let rate = (last_step - first_step) as f64 / (last - first);
        (rate.is_finite() && rate > 0.0).then_some(rate)
    }

    /// Samples an optimizer update sees: batch, times accumulation, times devices.
    pub fn effective_batch(&self) -> Option<f64> {
        let times = |key| self.number(key).filter(|n| *n >= 1.0).unwrap_or(1.0);
        let batch = self.number(&keys::OPTIM_BATCH_SIZE).filter(|n| *n > 0.0)?;
        Some(batch * times(&keys::OPTIM_ACCUMULATION) * times(&keys::OPTIM_DEVICES))
    }

    fn metric(&self, name: &'a str, column: &'a Column, goal: Goal) -> Metric<'a> {
        let perfect = self.run.facts.number(&keys::EVALUATE_PERFECT.group(name));
        Metric { name, column, goal, chance: self.chance(name, column), perfect }
    }

    /// What a predictor that has learned nothing scores on a metric, where its name and the facts tell.
    fn chance(&self, name: &str, column: &Column) -> Option<f64> {
        // Scores are logged as shares or as percentages.
        let scale = if column.highest().is_some_and(|(_, v)| v > 1.5) { 100.0 } else { 1.0 };
        let classes = self.number(&keys::DATA_CLASSES).filter(|k| *k >= 2.0);
        let prevalence = self.prevalence(&names::VAL_PREVALENCE);
        let is = |signal: &Signal| signal.group_of(name).is_some();
        if is(&names::VAL_AUC) {
            Some(0.5 * scale)
        } else if is(&names::VAL_BALANCED_ACCURACY) {
            classes.map(|k| scale / k)
        } else if is(&names::VAL_F1) || is(&names::VAL_BEST_F1) || is(&names::VAL_DICE) {
            prevalence.map(|p| scale * 2.0 * p / (1.0 + p))
        } else if is(&names::VAL_IOU) || is(&names::VAL_AVERAGE_PRECISION) || is(&names::VAL_PRECISION) {
            prevalence.map(|p| scale * p)
        } else if is(&names::VAL_ACCURACY) {
            let counts = self.run.facts.numbers(keys::DATA_CLASS_COUNTS.name).unwrap_or_default();
            let total: f64 = counts.iter().sum();
            let majority = counts.iter().copied().fold(0.0, f64::max) / total;
            if majority.is_finite() && majority > 0.0 {
                Some(scale * majority)
            } else {
                classes.map(|k| scale / k)
            }
        } else {
            None
        }
    }
}
