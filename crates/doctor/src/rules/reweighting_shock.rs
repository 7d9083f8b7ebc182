use trimtab_signals::names::Signal;
use trimtab_signals::{keys, names};

use super::reweighting_never_started::{Start, is_class};
use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::{median, noise, smooth, trend};
use crate::view::{Metric, View};

static META: RuleMeta = RuleMeta {
    id: "reweighting-shock",
    summary: "the score falls when the loss is re-weighted, and does not come back",
    severity: Severity::Warning,
    docs: include_str!("reweighting_shock.md"),
};

pub(super) static RULE: ReweightingShock =
    ReweightingShock { evaluations: 3, noise: 5.0, share: 0.1, lost: 0.5, jump: 2.0 };

pub(super) struct ReweightingShock {
    /// Evaluations on either side that make a level.
    evaluations: usize,
    /// The fall over the deviation of one evaluation.
    noise: f64,
    /// The fall over what was gained until then: less is not worth another run.
    share: f64,
    /// and from which on more is lost than kept.
    lost: f64,
    /// Factor by which a class weight changes at once, where no start is declared.
    jump: f64,
}

/// Scores that weights do not trade away: each class counts as much as another, or only the rare one does.
const FAIR: [&Signal; 8] = [
    &names::VAL_BALANCED_ACCURACY,
    &names::VAL_AUC,
    &names::VAL_AVERAGE_PRECISION,
    &names::VAL_MIOU,
    &names::VAL_DICE,
    &names::VAL_BEST_F1,
    &names::VAL_F1,
    &names::VAL_IOU,
];

impl Rule for ReweightingShock {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let declared = Start::of(view).map(|start| start.step(view));
        let start = match declared {
            // Declared, but not there yet.
            Some(None) => return Ok(Vec::new()),
            Some(Some(step)) => step,
            None => match self.jump(view) {
                Some(step) => step,
                None if view.groups(&names::WEIGHT_LOSS).iter().any(|(group, _)| is_class(group)) => {
                    return Ok(Vec::new());
                }
                None => {
                    let [epoch, step] = [keys::LOSS_REWEIGHT_EPOCH, keys::LOSS_REWEIGHT_STEP].map(|k| k.name);
                    let weights = names::WEIGHT_LOSS.name;
                    return Err(Missing::new(format!(
                        "{epoch} or {step} (declared), or {weights} of each class"
                    )));
                }
            },
        };
        let scores: Vec<&Metric<'_>> = view.metrics().iter().filter(|m| !m.is_loss()).collect();
        let Some(headline) = scores.first() else {
            return Err(Missing::new("a validation score (a loss changes its scale with the weights)"));
        };
        // Accuracy may fall on purpose: rare classes gain what frequent ones lose.
        let is_fair = |m: &Metric<'_>| FAIR.iter().any(|s| s.group_of(m.name).is_some());
        let fair = scores.iter().find(|m| is_fair(m));
        let metric = fair.unwrap_or(headline);
        let Some(fall) = self.fall(metric, start) else {
            return Ok(self.at_once(view, metric, start).into_iter().collect());
        };

        let up = |v| metric.goal.upward(v);
        let severity = if fair.is_none() {
            Severity::Info
        } else if fall.lost > self.lost && fall.after >= fall.before.min(5) {
            Severity::Critical
        } else {
            Severity::Warning
        };
        let message = format!(
            "`{}` fell from {} to {} when the loss was re-weighted at step {start}, \
             and has not come back in {} evaluations",
            view.run().logged_name(metric.name),
            show(up(fall.from)),
            show(up(fall.to)),
            fall.after
        );
        let finding = Finding::new(&META, message)
            .severity(severity)
            .at(fall.told, start, fall.end)
            .evidence("before", up(fall.from))
            .evidence("after", up(fall.to))
            .evidence("evaluations_before", fall.before as f64)
            .evidence("evaluations_after", fall.after as f64)
            .evidence("noise", fall.noise)
            .remedy(Remedy::scale(
                &keys::OPTIM_LEARNING_RATE,
                0.1,
                "re-weighting is meant for a rate that has been lowered",
            ))
            .remedy(match Start::of(view) {
                Some(start) => {
                    Remedy::scale(start.key, 1.5, "features should have settled before weights change")
                }
                None => Remedy::check(
                    &keys::LOSS_REWEIGHT_STEP,
                    "a later start",
                    "features should have settled before",
                ),
            })
            .remedy(Remedy::check(
                &keys::LOSS_CLASS_WEIGHTS,
                "milder weights, or a ramp over some epochs",
                "weights in one step multiply the gradient of rare classes at once",
            ))
            .draw(metric.name);
        Ok(vec![finding])
    }
}

/// A fall at a step.
struct Fall {
    from: f64,
    to: f64,
    /// Share of the gain until then.
    lost: f64,
    noise: f64,
    before: usize,
    after: usize,
    told: u64,
    end: u64,
}

impl ReweightingShock {
    /// With too few evaluations for levels and noise: all that the score had over chance is lost from the last before the start
    /// to each of those since.
    fn at_once(&self, view: &View<'_>, metric: &Metric<'_>, start: u64) -> Option<Finding> {
        let floor = metric.goal.upward(metric.chance?);
        let finite: Vec<(u64, f64)> = metric.column.iter().filter(|(_, v)| v.is_finite()).collect();
        let (before, after) = finite.split_at(finite.partition_point(|(s, _)| *s < start));
        if before.len() >= self.evaluations && after.len() >= self.evaluations {
            return None;
        }
        let over = |v: f64| metric.goal.upward(v) - floor;
        let (&(_, from), &(told, to), &(end, _)) = (before.last()?, after.first()?, after.last()?);
        let (_, perfect) = metric.range()?;
        // It had something to lose, a fifth of the way to a perfect score, and has a tenth of that left.
        let had = over(from) > 0.2 * (metric.goal.upward(perfect) - floor);
        if !had
            || before.iter().any(|(_, v)| over(*v) < 0.5 * over(from))
            || after.iter().any(|(_, v)| over(*v) > 0.1 * over(from))
        {
            return None;
        }
        let message = format!(
            "`{}` fell from {} to {} when the loss was re-weighted at step {start}; chance is {}",
            view.run().logged_name(metric.name),
            show(from),
            show(to),
            show(metric.chance?),
        );
        let finding =
            Finding::new(&META, message).at(told, start, end).evidence("before", from).evidence("after", to);
        let finding = finding
            .evidence("evaluations_before", before.len() as f64)
            .evidence("evaluations_after", after.len() as f64);
        Some(
            finding
                .remedy(Remedy::check(
                    &keys::LOSS_CLASS_WEIGHTS,
                    "milder weights, or a ramp over some epochs",
                    "weights in one step multiply the gradient of rare classes at once",
                ))
                .draw(metric.name),
        )
    }

    /// The fall of a score at a step, if it is beyond noise and earlier dips and was not made up for since.
    fn fall(&self, metric: &Metric<'_>, start: u64) -> Option<Fall> {
        let finite = metric.column.iter().filter(|(_, v)| v.is_finite());
        let (steps, values): (Vec<u64>, Vec<f64>) = finite.map(|(s, v)| (s, metric.goal.upward(v))).unzip();
        // An evaluation at the very step may be of the model before it or after it.
        let (split, past) = (steps.partition_point(|s| *s < start), steps.partition_point(|s| *s <= start));
        let (before, after) = (&values[..split], &values[past..]);
        if before.len() < self.evaluations || after.len() < self.evaluations {
            return None;
        }
        let from = median(before[before.len() - self.evaluations..].iter().copied())?;
        // The best level it has come back to within as many evaluations as it took until then, or since.
        let given = before.len().max(self.evaluations).min(after.len());
        let levels = after[..given].windows(self.evaluations).filter_map(|w| median(w.iter().copied()));
        let to = levels.fold(f64::NEG_INFINITY, f64::max);
        let last = median(after[after.len() - self.evaluations..].iter().copied())?;
        let fall = from - to.max(last);
        // On its way back, with time left.
        if after.len() < before.len() && trend(after) > 0.5 {
            return None;
        }
        // What it used to lose in passing before is no effect of the weights.
        let (mut best, mut dip) = (f64::NEG_INFINITY, 0.0f64);
        for level in smooth(before, 3) {
            best = best.max(level);
            dip = dip.max(best - level);
        }
        let floor = metric.chance.map_or(before[0], |c| metric.goal.upward(c).max(before[0]));
        let gained = best - floor;
        let spread = noise(before).unwrap_or(0.0).max(noise(&values).unwrap_or(0.0));
        let beyond =
            fall > self.noise * spread && fall > 2.0 * dip && gained > 0.0 && fall > self.share * gained;
        beyond.then_some(Fall {
            from,
            to: to.max(last),
            lost: fall / gained,
            noise: spread,
            before: before.len(),
            after: after.len(),
            told: *steps.get(past + self.evaluations - 1)?,
            end: *steps.last()?,
        })
    }

    /// The step at which the logged weight of a class jumps, once, between two levels.
    fn jump(&self, view: &View<'_>) -> Option<u64> {
        let mut jumps: Vec<u64> = Vec::new();
        for (_, column) in view.groups(&names::WEIGHT_LOSS).into_iter().filter(|(group, _)| is_class(group)) {
            let changes: Vec<(u64, f64, f64)> = column
                .iter()
                .zip(column.iter().skip(1))
                .filter(|((_, a), (_, b))| a != b)
                .map(|((_, a), (step, b))| (step, a, b))
                .collect();
            if let [(step, a, b)] = changes[..]
                && column.steps().partition_point(|s| *s < step) >= self.evaluations
            {
                let factor = (b / a).abs();
                if factor > self.jump || factor < 1.0 / self.jump {
                    jumps.push(step);
                }
            }
        }
        jumps.into_iter().min()
    }
}
