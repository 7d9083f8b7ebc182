use trimtab_signals::{keys, names};

use crate::course::Course;
use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "overfitting",
    summary: "validation worsens while training improves",
    severity: Severity::Warning,
    docs: include_str!("overfitting.md"),
};

pub(super) static RULE: Overfitting =
    Overfitting { rise: 0.2, fall: 0.05, gain: 0.1, noise: 5.0, evaluations: 3 };

pub(super) struct Overfitting {
    /// Rise of the validation loss over its best level that counts where no score falls.
    rise: f64,
    /// Relative fall of the training loss since validation was at its best: it goes on learning.
    fall: f64,
    /// Share of a score's gain that is lost, from which on the run is better stopped.
    gain: f64,
    /// A loss over its noise.
    noise: f64,
    /// Evaluations that show it.
    evaluations: usize,
}

impl Rule for Overfitting {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let headline = view.headline()?;
        let five = |name: &str| Missing::new(format!("five evaluations of {name}"));
        let score = Course::of(&headline).filter(|_| !headline.is_loss());
        let validation = view.validation_loss().as_ref().and_then(Course::of);
        let guide = validation.as_ref().or(score.as_ref()).ok_or_else(|| five(headline.name))?;
        let (training, unit) = self.training(view, guide).ok_or_else(|| five("a training loss or score"))?;

        // How the training loss moved since validation was at its best.
        let since = |best: u64| {
            let at = training.steps.partition_point(|&s| s <= best).saturating_sub(1);
            let then =
                training.values[at.saturating_sub(1)..(at + 2).min(training.values.len())].iter().copied();
            let then = crate::series::median(then)?;
            let scale = if unit == "loss" { then.abs() } else { 1.0 };
            (scale > 0.0).then(|| (training.last - then) / scale)
        };
        let improved =
            |course: &Course| since(course.steps[course.best_at]).is_some_and(|gain| gain > self.fall);
        let lost = |course: &Course| {
            let sustained = course.tail >= self.evaluations.max(course.values.len() / 10);
            sustained && course.lost_beyond_noise(self.noise) && improved(course)
        };
        let risen = validation.as_ref().filter(|v| lost(v) && v.lost_relative() > self.rise);
        let fallen = score
            .as_ref()
            .filter(|s| lost(s) && s.lost() > 4.0 * s.noise && s.lost() > 0.05 * headline.at_stake(s));
        let Some(course) = fallen.or(risen) else { return Ok(Vec::new()) };

        let best_step = course.steps[course.best_at];
        let mut message = String::new();
        if let Some(s) = fallen {
            let up = |v| headline.goal.upward(v);
            message = format!(
                "`{}` fell from {} to {}",
                view.run().logged_name(headline.name),
                show(up(s.best)),
                show(up(s.last))
            );
        }
        if let Some(v) = risen {
            let and = if message.is_empty() { "" } else { " and " };
            message += &format!("{and}the validation loss rose from {} to {}", show(-v.best), show(-v.last));
        }
        let (then, now) = (
            training.values
                [training.steps.partition_point(|&s| s < best_step).min(training.values.len() - 1)],
            training.last,
        );
        let sign = if unit == "loss" { -1.0 } else { 1.0 };
        message += &format!(
            " since step {best_step}, while the training {unit} went on from {} to {}",
            show(sign * then),
            show(sign * now)
        );
        if fallen.is_none() && score.is_some() {
            message += "; the score holds: probabilities grow too sure of themselves";
        }
        // A tenth of all that was gained, and of what the score has over no skill, is worth a halt; less is worth knowing.
        // And it goes on falling: a score that wanders slowly has been low before.
        let severe = fallen.is_some_and(|s| {
            s.lost() > self.gain * headline.at_stake(s) && s.trend_of_last(s.since_best() + 1) < -0.3
        });
        let finding = Finding::new(&META, message)
            .severity(if severe { Severity::Critical } else { Severity::Warning })
            .at(course.end(), course.lost_from(), course.end())
            .evidence("best_step", best_step as f64)
            .evidence("lost", course.lost())
            .evidence("noise", course.noise)
            .evidence("training_improved_by", since(best_step).unwrap_or(f64::NAN))
            .remedy(Remedy::set(
                &keys::RUN_STEPS,
                best_step,
                "validation was best there; its checkpoint is the one to keep",
            ))
            .remedy(Remedy::scale(
                &keys::OPTIM_WEIGHT_DECAY,
                3.0,
                "with stronger augmentation, the usual first measures",
            ))
            .draw(if fallen.is_some() { headline.name } else { names::VAL_LOSS.name });
        Ok(vec![finding])
    }
}

impl Overfitting {
    /// Training beside validation: its loss, else its score.
    fn training(&self, view: &View<'_>, guide: &Course) -> Option<(Course, &'static str)> {
        if let Some(course) = view.training_course(&guide.steps) {
            return Some((course, "loss"));
        }
        let signals = [
            &names::TRAIN_DICE,
            &names::TRAIN_MIOU,
            &names::TRAIN_IOU,
            &names::TRAIN_F1,
            &names::TRAIN_AUC,
            &names::TRAIN_ACCURACY,
        ];
        signals.into_iter().find_map(|signal| {
            let column = view.column(signal)?;
            let finite = column.iter().filter(|(_, v)| v.is_finite());
            let (steps, values) = finite.unzip();
            Some((Course::new(steps, values)?, "score"))
        })
    }
}
