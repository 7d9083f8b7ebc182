use trimtab_signals::{Column, keys, names};

use crate::course::Course;
use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::{median, noise, smooth};
use crate::view::{Metric, View};

static META: RuleMeta = RuleMeta {
    id: "train-val-gap",
    summary: "training is far better than validation",
    severity: Severity::Warning,
    docs: include_str!("train_val_gap.md"),
};

pub(super) static RULE: TrainValGap =
    TrainValGap { share: 0.5, range: 0.1, noise: 4.0, improving: 0.4, hopeless: 4.0 };

pub(super) struct TrainValGap {
    /// The gap over what validation achieved: from here on a third of what was learned does not carry over.
    share: f64,
    /// and over the whole range of the score, without which a third of next to nothing would count.
    range: f64,
    /// The gap over the deviations of both.
    noise: f64,
    /// Trend of the last third of evaluations from which on validation still improves, as it does where
    /// the best among them exceeds the best before by more than noise.
    improving: f64,
    /// A gap so many times what validation achieved is no matter of patience.
    hopeless: f64,
}

impl Rule for TrainValGap {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let validated = view.metrics().iter().filter(|m| m.name.starts_with("val/"));
        let pair = validated.filter(|m| !m.is_loss()).find_map(|m| Some((m, training_of(view, m.name)?)));
        let found = match pair {
            Some((metric, (name, column))) => self.of_scores(metric, name, column),
            None => self.of_losses(view)?,
        };
        let Some(gap) = found else { return Ok(Vec::new()) };
        let rest =
            if gap.improving { "validation still improves" } else { "what is learned does not carry over" };
        let size = if gap.relative.is_finite() {
            format!("a gap of {:.0} % of what validation achieved", 100.0 * gap.relative)
        } else {
            "and validation achieved nothing".to_owned()
        };
        let message = format!(
            "`{}` is {} where `{}` is {}, {size}: {rest}",
            view.run().logged_name(gap.train_name),
            show(gap.train),
            view.run().logged_name(gap.val_name),
            show(gap.val),
        );
        let finding = Finding::new(&META, message)
            .severity(if gap.loose || (gap.improving && gap.relative < self.hopeless) {
                Severity::Info
            } else {
                Severity::Warning
            })
            .at(gap.end, gap.since, gap.end)
            .evidence("training", gap.train)
            .evidence("validation", gap.val)
            .evidence("noise", gap.noise)
            .remedy(Remedy::scale(
                &keys::OPTIM_WEIGHT_DECAY,
                3.0,
                "with stronger augmentation and more samples, the usual measures",
            ))
            .remedy(Remedy::check(
                &keys::DATA_VAL_SAMPLES,
                "whether validation is preprocessed as training is, and drawn from the same source",
                "another preprocessing or domain looks like a lack of regularisation",
            ))
            .draw(gap.val_name);
        Ok(vec![finding])
    }
}

/// A gap, as logged.
struct Gap<'a> {
    train_name: &'a str,
    val_name: &'a str,
    train: f64,
    val: f64,
    /// Over what validation achieved.
    relative: f64,
    noise: f64,
    /// Whether validation still improves.
    improving: bool,
    /// Whether the two need not be measured alike.
    loose: bool,
    since: u64,
    end: u64,
}

impl TrainValGap {
    fn of_scores<'a>(&self, metric: &Metric<'a>, train_name: &'a str, training: &Column) -> Option<Gap<'a>> {
        let course = Course::of(metric)?;
        let (worst, perfect) = metric.range()?;
        // Shares beside percentages are not the same quantity.
        let percent = |c: &Column| c.highest().is_some_and(|(_, v)| v > 1.5);
        if percent(metric.column) != percent(training) {
            return None;
        }
        let up = |v| metric.goal.upward(v);
        let floor = up(metric.chance.unwrap_or(worst));
        let (level, spread) = self.level(&course, training)?;
        let level = up(level);
        // The level of the last third: of a small validation set a single score says little.
        let count = (course.values.len() / 3).max(3);
        let late = median(course.values[course.values.len() - count..].iter().copied())?;
        let noise = spread.hypot(course.noise) / (count as f64).sqrt();
        let (gap, achieved) = (level - late, (late - floor).max(0.0));
        let wide = gap > self.share * achieved
            && gap > self.range * (up(perfect) - floor)
            && gap > self.noise * noise;
        wide.then(|| Gap {
            train: up(level),
            val: up(late),
            relative: gap / achieved,
            noise,
            ..self.gap(metric.name, train_name, &course)
        })
    }

    /// Losses have no range: the gap must exceed all that validation gained. Where scores are measured it is
    /// only worth knowing, since a confident model has a high loss and good scores.
    fn of_losses<'a>(&self, view: &View<'a>) -> Result<Option<Gap<'a>>, Missing> {
        let missing = || Missing::new("the same score, or loss, of training and of validation");
        let (metric, training) =
            view.validation_loss().zip(view.column(&names::TRAIN_LOSS)).ok_or_else(missing)?;
        let Some(course) = Course::of(&metric) else { return Ok(None) };
        let Some((level, spread)) = self.level(&course, training) else { return Ok(None) };
        let first = training.values().iter().copied().find(|v| v.is_finite()).unwrap_or(f64::NAN);
        let (val, noise) = (-course.last, spread + course.noise);
        let (gap, achieved) = (val - level, (first.max(-course.first) - val).max(0.0));
        let wide = gap > achieved && gap > self.share * val.abs() && gap > self.noise * noise && level >= 0.0;
        let scores = view.metrics().iter().any(|m| !m.is_loss());
        Ok(wide.then(|| Gap {
            train: level,
            val,
            relative: gap / achieved,
            noise,
            loose: scores,
            ..self.gap(metric.name, names::TRAIN_LOSS.name, &course)
        }))
    }

    /// The level of training over the last three evaluations, and the deviation of one measurement.
    fn level(&self, course: &Course, training: &Column) -> Option<(f64, f64)> {
        let from =
            course.steps.len().checked_sub(4).and_then(|at| course.steps.get(at)).copied().unwrap_or(0);
        let end = course.end();
        let last: Vec<f64> = training
            .iter()
            .filter(|(s, v)| *s > from && *s <= end && v.is_finite())
            .map(|(_, v)| v)
            .collect();
        let level = median(last.iter().copied()).filter(|_| last.len() >= 3)?;
        Some((level, noise(training.values()).unwrap_or(0.0)))
    }

    /// What the course alone tells: whether validation still improves, and where it ends.
    fn gap<'a>(&self, val_name: &'a str, train_name: &'a str, course: &Course) -> Gap<'a> {
        let third = (course.values.len() / 3).max(5);
        let levels = smooth(&course.values, 3);
        let (early, late) = levels.split_at(levels.len().saturating_sub(third));
        let best = |part: &[f64]| part.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (before, later) = (best(early), best(late));
        Gap {
            train_name,
            val_name,
            train: f64::NAN,
            val: f64::NAN,
            relative: f64::NAN,
            noise: f64::NAN,
            improving: course.trend_of_last(third) > self.improving || later - before > course.noise,
            loose: false,
            since: course.steps.iter().rev().nth(2).copied().unwrap_or(0),
            end: course.end(),
        }
    }
}

/// The training column of a validation metric; where training has it for several heads, that of the worst.
fn training_of<'a>(view: &View<'a>, name: &str) -> Option<(&'a str, &'a Column)> {
    let quantity = name.strip_prefix("val/")?;
    let wanted = [format!("train/{quantity}"), names::TRAIN_METRIC.group(quantity)];
    let trace = &view.run().trace;
    trace.iter().find(|(n, _)| wanted.iter().any(|w| w == n)).or_else(|| {
        let heads = trace
            .iter()
            .filter(|(n, _)| n.strip_prefix(&wanted[0]).is_some_and(|rest| rest.starts_with('/')));
        let goal = names::goal(name)?;
        let last = |c: &Column| c.last().map_or(f64::NAN, |(_, v)| goal.upward(v));
        heads.filter(|(_, c)| last(c).is_finite()).min_by(|a, b| last(a.1).total_cmp(&last(b.1)))
    })
}
