use trimtab_signals::{Column, keys, names};

use crate::course::Course;
use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::median;
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "unlearning",
    summary: "the model gets worse on its own training data",
    severity: Severity::Critical,
    docs: include_str!("unlearning.md"),
};

pub(super) static RULE: Unlearning =
    Unlearning { relative: 0.05, noise: 5.0, evaluations: 3, trend: 0.8, run: 5 };

pub(super) struct Unlearning {
    /// Rise of both losses over their best level.
    relative: f64,
    /// That rise over the noise of the evaluations that show it.
    noise: f64,
    /// Evaluations that show it.
    evaluations: usize,
    /// Kendall's tau of the last evaluations, where the rise itself is still small.
    trend: f64,
    /// How many evaluations such a trend takes.
    run: usize,
}

impl Rule for Unlearning {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let five = |name: &str| Missing::new(format!("five evaluations of {name}"));
        let Ok(headline) = view.headline() else { return self.without_validation(view) };
        let score = Course::of(&headline).filter(|_| !headline.is_loss());
        let loss = view.validation_loss();
        let validation = loss.as_ref().and_then(Course::of);
        let guide = validation.as_ref().or(score.as_ref()).ok_or_else(|| five(headline.name))?;
        let training = view
            .training_course(&guide.steps)
            .ok_or_else(|| five(&format!("{} or {}", names::TRAIN_LOSS.name, names::LOSS_TOTAL.name)))?;
        let risen = |course: &Course| {
            course.lost_relative() > self.relative
                && course.lost_beyond_noise(self.noise)
                && course.tail >= self.evaluations
        };
        let falling = |course: &Course| {
            course.since_best() + 1 >= self.run
                && course.trend_of_last(self.run) <= -self.trend
                && course.lost() > 3.0 * course.noise
        };
        // Both losses have risen; or the score fell by a tenth of its gain while the training loss rose; or all three get worse
        // at evaluation after evaluation.
        let both = validation.as_ref().is_some_and(|v| risen(v) && risen(&training));
        let scored = score.as_ref().is_some_and(|s| {
            let sustained = s.tail >= self.evaluations.max(s.values.len() / 10);
            s.lost() > 0.1 * headline.at_stake(s) && s.lost() > 4.0 * s.noise && sustained && risen(&training)
        });
        let trending = validation.as_ref().is_some_and(|v| {
            falling(v) && v.lost_relative() > 0.02 && falling(&training) && score.as_ref().is_none_or(falling)
        });
        if !(both || scored || trending) {
            return Ok(Vec::new());
        }
        let (before, now) = (-training.best, -training.last);
        let mut message = format!("the training loss rose from {} back to {}", show(before), show(now));
        let mut finding_at = training.lost_from();
        if let (Some(v), true) = (&validation, both || trending) {
            message.push_str(&format!(", the validation loss from {} to {}", show(-v.best), show(-v.last)));
            finding_at = finding_at.max(v.lost_from());
        }
        if let Some(s) = score.as_ref().filter(|s| s.lost() > 0.0) {
            let (logged, up) = (view.run().logged_name(headline.name), |v| headline.goal.upward(v));
            message.push_str(&format!(", `{logged}` went from {} to {}", show(up(s.best)), show(up(s.last))));
        }
        let mut severity = META.severity;
        // Losses may rise while the score holds: a term that is weighted up, harder samples, another stage.
        let holds = |s: &Course| s.lost() <= (2.0 * s.noise).max(0.02 * headline.at_stake(s));
        if score.as_ref().is_some_and(holds) {
            severity = Severity::Warning;
            message.push_str("; the score holds so far");
        }
        // Without a score a small slide, or one that a single term makes (a KL term or a consistency that is weighted up), may be
        // meant.
        let term = self.carried_by_a_term(view, &training);
        if score.is_none() && (term.is_some() || !(both || scored)) {
            severity = Severity::Warning;
        }
        if let Some(term) = term {
            message.push_str(&format!("; it is `{}` that rose", view.run().logged_name(term)));
        }
        if view.rate_restarts() {
            severity = Severity::Info;
            message
                .push_str("; the learning rate was raised again, after which this is expected for a while");
        }
        let finding = Self::finding(message, &training, finding_at)
            .severity(severity)
            .remedy(Remedy::set(&keys::OPTIM_CLIP_NORM, 1.0, "bounds single steps"))
            .draw(loss.map_or(headline.name, |m| m.name));
        Ok(vec![finding])
    }
}

impl Unlearning {
    /// What both forms say of the training loss.
    fn finding(message: String, training: &Course, first: u64) -> Finding {
        Finding::new(&META, message)
            .at(training.end(), first, training.end())
            .evidence("training_loss_best", -training.best)
            .evidence("training_loss_last", -training.last)
            .evidence("training_loss_noise", training.noise)
            .remedy(Remedy::scale(
                &keys::OPTIM_LEARNING_RATE,
                0.3,
                "steps too large for where the weights are undo what was learned",
            ))
    }

    /// The term of the loss that rose by most of what the whole loss did, where terms are logged.
    fn carried_by_a_term<'a>(&self, view: &View<'a>, training: &Course) -> Option<&'a str> {
        let best = training.steps.get(training.best_at)?;
        let of_terms = view.run().trace.iter().filter(|(name, _)| {
            name.starts_with("loss/") && ![names::LOSS_TOTAL.name, names::LOSS_SUPERVISED.name].contains(name)
        });
        let risen = |column: &Column| {
            let at = column.steps().partition_point(|step| step <= best);
            let values = column.values();
            let level = |v: &[f64]| median(v.iter().copied());
            Some(
                level(&values[values.len().saturating_sub(5)..])? - level(&values[at.saturating_sub(5)..at])?,
            )
        };
        of_terms
            .filter_map(|(name, column)| Some((name, risen(column)?)))
            .filter(|(_, rise)| *rise > 0.5 * training.lost())
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(name, _)| name)
    }

    /// Where nothing is validated: the training loss loses more than half of what it had gained, for a tenth of the run.
    fn without_validation(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let (name, column) = view.training_loss()?;
        // Medians of stretches: a batch's loss is noise.
        let count = column.len().min(40);
        let stretch = |at: usize| at * column.len() / count..(at + 1) * column.len() / count;
        let levels = (0..count).filter_map(|at| {
            let level = median(column.values()[stretch(at)].iter().copied())?;
            Some((*column.steps().get(stretch(at).end - 1)?, -level))
        });
        let (steps, values) = levels.unzip();
        let Some(course) = Course::new(steps, values) else {
            return Err(Missing::new(format!("a validation metric, or more of {name}")));
        };
        let gained = course.gained();
        let lasting = course.tail >= self.evaluations.max(course.values.len() / 10);
        let lost = gained > 0.0 && course.lost() > 0.5 * gained && course.lost_beyond_noise(self.noise);
        let adversarial =
            !view.groups(&names::GAN_LOSS_D).is_empty() || !view.groups(&names::GAN_LOSS_G).is_empty();
        if !lost || !lasting || adversarial || view.is_reinforcement() {
            return Ok(Vec::new());
        }
        let (before, now) = (-course.best, -course.last);
        let mut message = format!(
            "`{}` rose from {} back to {}, {:.0} % of the way to where it began",
            view.run().logged_name(name),
            show(before),
            show(now),
            100.0 * course.lost() / gained,
        );
        let mut severity = META.severity;
        if let Some(term) = self.carried_by_a_term(view, &course) {
            severity = Severity::Warning;
            message.push_str(&format!("; it is `{}` that rose", view.run().logged_name(term)));
        }
        if view.rate_restarts() {
            severity = Severity::Info;
        }
        let finding = Self::finding(message, &course, course.lost_from()).severity(severity).draw(name);
        Ok(vec![finding])
    }
}
