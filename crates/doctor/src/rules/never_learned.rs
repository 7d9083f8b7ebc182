use trimtab_signals::{keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::{median, resolution, smooth, trend};
use crate::view::{Metric, START, View};

static META: RuleMeta = RuleMeta {
    id: "never-learned",
    summary: "the score has not left the bottom of its range, or the loss what guessing gives",
    severity: Severity::Critical,
    docs: include_str!("never_learned.md"),
};

pub(super) static RULE: NeverLearned =
    NeverLearned { evaluations: 6, ground: 0.08, floor: 0.15, still: 0.02, ahead: 4.0, frozen: 1e-3 };

pub(super) struct NeverLearned {
    /// Fewer evaluations are a start.
    evaluations: usize,
    /// Share of a score's range, from what no skill scores up, in which nothing has been learned.
    ground: f64,
    /// The same for a score that does not move at all: what predicting nothing scores may lie above the ground (word error
    /// rates count insertions).
    floor: f64,
    /// Share of the range within which a score does not move.
    still: f64,
    /// How many times the run so far the score may go on at its pace without leaving the ground.
    ahead: f64,
    /// Relative range of a validation loss that does not depend on training any more.
    frozen: f64,
}

impl Rule for NeverLearned {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let metric = view.headline()?;
        let found = [self.at_the_bottom(view, &metric), self.at_guessing(view), self.frozen(view)];
        if let Some(mut finding) = found.into_iter().flatten().next() {
            if metric.column.len() < START && view.starting() {
                finding.severity = Severity::Info;
                finding.message.push_str(", so far: training has only begun");
            }
            return Ok(vec![finding]);
        }
        if metric.column.len() < 4 {
            return Err(Missing::new(format!(
                "more evaluations of {} than {}",
                metric.name,
                metric.column.len()
            )));
        }
        Ok(Vec::new())
    }
}

impl NeverLearned {
    /// The score stays at the bottom of its range, and would for long at its pace.
    fn at_the_bottom(&self, view: &View<'_>, metric: &Metric<'_>) -> Option<Finding> {
        let (worst, perfect) = metric.range()?;
        // On a scale from 0, no skill, to 1.
        let chance = metric.chance.unwrap_or(worst);
        let share = |v: f64| (v - chance) / (perfect - chance);
        let finite: Vec<(u64, f64)> =
            metric.column.iter().filter(|(_, v)| v.is_finite()).map(|(s, v)| (s, share(v))).collect();
        if finite.len() < self.evaluations {
            return None;
        }
        // Without the first, which may be of untrained weights and of any size.
        let values: Vec<f64> = finite[1..].iter().map(|(_, v)| *v).collect();
        let level = smooth(&values, 3);
        let top = level.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lowest = level.iter().copied().fold(f64::INFINITY, f64::min);
        let quarter = (finite.len() / 4).max(3);
        let mean_of = |v: &[f64]| median(v.iter().copied()).unwrap_or(f64::NAN);
        let (early, late) = (mean_of(&values[..quarter]), mean_of(&values[values.len() - quarter..]));
        let ahead = late + self.ahead * (late - early).max(0.0);
        // Few evaluations that rise are a start, whatever their pace.
        let starting = finite.len() < 2 * self.evaluations && trend(&values) > 0.5;
        let grounded = top < self.ground && ahead < self.floor && !starting;
        let still = top < self.floor && top - lowest < self.still;
        if !(grounded || still) {
            return None;
        }
        let logged = view.run().logged_name(metric.name);
        let last = metric.column.values().last().copied().unwrap_or(f64::NAN);
        let message = format!(
            "`{logged}` is {} after {} evaluations, {:.1} % of the way from {} (no skill) to {}",
            show(last),
            finite.len(),
            100.0 * late.max(0.0),
            show(chance),
            show(perfect),
        );
        let finding = Finding::new(&META, message)
            .at(finite[finite.len() - 1].0, finite[0].0, finite[finite.len() - 1].0)
            .evidence("last", last)
            .evidence("no_skill", chance)
            .evidence("perfect", perfect)
            .evidence("share_learned", late)
            .evidence("evaluations", finite.len() as f64);
        Some(remedies(finding).draw(metric.name))
    }

    /// The loss is ln K, which guessing among K classes gives, and the accuracy 1/K.
    fn at_guessing(&self, view: &View<'_>) -> Option<Finding> {
        let accuracy = [&names::VAL_ACCURACY, &names::VAL_BALANCED_ACCURACY, &names::TRAIN_ACCURACY]
            .into_iter()
            .find_map(|signal| Some((signal.name, view.column(signal)?)))?;
        let loss = [&names::VAL_LOSS, &names::LOSS_TOTAL]
            .into_iter()
            .find_map(|signal| Some((signal.name, view.column(signal)?)))?;
        let scores: Vec<f64> = accuracy.1.values().iter().copied().filter(|v| v.is_finite()).collect();
        let losses: Vec<f64> = loss.1.values().iter().copied().filter(|v| v.is_finite()).collect();
        if scores.len() < 4 || losses.len() < 4 {
            return None;
        }
        // A few evaluations that rise are a start.
        if scores.len() < 8 && trend(&scores) > 0.5 {
            return None;
        }
        let scale = if scores.iter().any(|v| *v > 1.5) { 100.0 } else { 1.0 };
        let late = median(scores[scores.len() / 2..].iter().copied())? / scale;
        let best = smooth(&scores, 3).into_iter().fold(f64::NEG_INFINITY, f64::max) / scale;
        let level = median(losses[losses.len() / 2..].iter().copied())?;
        let lowest = smooth(&losses, 3).into_iter().fold(f64::INFINITY, f64::min);
        let binary = view.column(&names::VAL_AUC).is_some();
        let declared = view.number(&keys::DATA_CLASSES).filter(|k| (2.0..1e6).contains(k));
        let known = declared.or(binary.then_some(2.0));
        let classes = known.unwrap_or_else(|| (1.0 / late.max(1e-6)).round());
        if classes < 2.0 {
            return None;
        }
        let (guess, chance) = (classes.ln(), 1.0 / classes);
        // The number of classes read off the accuracy must fit it well, and the loss as well.
        let fits = known.is_some() || ((late * classes - 1.0).abs() < 0.15 && level < 1.1 * guess);
        // An eighth of the way up and no more; or a loss that never told more than guessing does.
        let of_skill = |score: f64| (score - chance) / (1.0 - chance);
        let unskilled = of_skill(late) < 0.06 && (of_skill(best) < 0.125 || lowest > 0.97 * guess);
        if !fits || !unskilled || level < 0.95 * guess || lowest < 0.93 * guess || level > 3.0 * guess {
            return None;
        }
        let message = format!(
            "`{}` is {} and `{}` {}: what guessing among {classes} classes gives ({:.1} %, ln {classes} = {})",
            view.run().logged_name(accuracy.0),
            show(late * scale),
            view.run().logged_name(loss.0),
            show(level),
            100.0 * chance,
            show(guess),
        );
        let end = accuracy.1.steps().last().copied()?;
        let finding = Finding::new(&META, message)
            .at(end, accuracy.1.steps()[0], end)
            .evidence("accuracy", late * scale)
            .evidence("loss", level)
            .evidence("loss_of_guessing", guess)
            .evidence("classes", classes);
        Some(remedies(finding).draw(accuracy.0))
    }

    /// The validation loss is the same number over and over: the output does not depend on the weights' changes.
    fn frozen(&self, view: &View<'_>) -> Option<Finding> {
        let metric = view.validation_loss()?;
        let finite: Vec<(u64, f64)> = metric.column.iter().filter(|(_, v)| v.is_finite()).collect();
        let values: Vec<f64> = finite.iter().map(|(_, v)| *v).collect();
        let count = self.evaluations.max(values.len() / 4);
        if values.len() < count + 2 {
            return None;
        }
        let (before, end) = values.split_at(values.len() - count);
        let level = median(end.iter().copied())?;
        let spread = |v: &[f64]| {
            v.iter().copied().fold(f64::NEG_INFINITY, f64::max)
                - v.iter().copied().fold(f64::INFINITY, f64::min)
        };
        let bound = self.frozen * level.abs();
        // A loss printed with three digits cannot tell, and one that moves one way all the time does move.
        if spread(end) > bound || resolution(&values) > bound || trend(end).abs() > 0.6 {
            return None;
        }
        // A run that has converged, its rate at 0, may rest as well: at its best, after a long way there.
        let start = values.iter().rposition(|v| (v - level).abs() > 1.5 * bound).map_or(0, |at| at + 1);
        let from_the_start = start <= 5.max(values.len() / 8);
        let best = smooth(before, 3).into_iter().fold(f64::INFINITY, f64::min);
        let worse = best < level - 10.0 * bound;
        if !(from_the_start || worse) {
            return None;
        }
        let logged = view.run().logged_name(metric.name);
        let message = format!(
            "`{logged}` is {} at each of the last {} evaluations: the model's output does not depend on training any more",
            show(level),
            values.len() - start,
        );
        let finding = Finding::new(&META, message)
            .at(
                finite[(start + count - 1).min(finite.len() - 1)].0,
                finite[start].0,
                finite[finite.len() - 1].0,
            )
            .evidence("loss", level)
            .evidence("spread", spread(end))
            .evidence("evaluations", (values.len() - start) as f64);
        Some(remedies(finding).draw(metric.name))
    }
}

fn remedies(finding: Finding) -> Finding {
    finding
        .remedy(Remedy::check(
            &keys::OPTIM_LEARNING_RATE,
            "overfit one batch, and sweep the rate over four decades for a few hundred steps",
            "tells a rate that is too high (dead units) or too low from data or a loss that cannot be learned",
        ))
        .remedy(Remedy::scale(&keys::OPTIM_LEARNING_RATE, 0.1, "the commonest cause is a first phase at too high a rate"))
}
