use trimtab_signals::{keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::{median, smooth};
use crate::view::{Metric, View};

static META: RuleMeta = RuleMeta {
    id: "exploding-loss",
    summary: "the loss is many times its best level and does not come back",
    severity: Severity::Critical,
    docs: include_str!("exploding_loss.md"),
};

pub(super) static RULE: ExplodingLoss = ExplodingLoss { times: 10.0, measurements: 3 };

pub(super) struct ExplodingLoss {
    /// The loss over its best level, an order of magnitude.
    times: f64,
    /// Measurements at the end that show it.
    measurements: usize,
}

impl Rule for ExplodingLoss {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let mut any = false;
        let mut findings = Vec::new();
        for signal in [&names::VAL_LOSS, &names::TRAIN_LOSS, &names::LOSS_TOTAL] {
            let Some(column) = view.column(signal) else { continue };
            any = true;
            let finite: Vec<(u64, f64)> = column.iter().filter(|(_, v)| v.is_finite()).collect();
            // A loss that may be negative (likelihoods, Dice) has no scale on which ten times means anything.
            if finite.len() < 2 * self.measurements || finite.iter().any(|(_, v)| *v <= 0.0) {
                continue;
            }
            let values: Vec<f64> = finite.iter().map(|(_, v)| *v).collect();
            let level = smooth(&values, 5);
            let end = &values[values.len() - self.measurements..];
            let Some(now) = median(end.iter().copied()) else { continue };
            let before = &level[..level.len() - self.measurements];
            let best = before.iter().copied().fold(f64::INFINITY, f64::min);
            // Where training began, without an odd first value: a tiny loss ten times as large is still tiny.
            let begin = median(values[1..values.len().min(6)].iter().copied()).unwrap_or(f64::INFINITY);
            let lasting = end.iter().all(|v| *v > best * self.times / 2.0);
            if now < best * self.times || now < 2.0 * begin || !lasting {
                continue;
            }
            let from = values.iter().rposition(|v| *v <= best * self.times / 2.0).map_or(0, |at| at + 1);
            let logged = view.run().logged_name(signal.name);
            let message = format!(
                "`{logged}` rose from {} to {}, {} times its best level and over twice what training began with",
                show(best),
                show(now),
                show(now / best),
            );
            // A network that has grown too sure of itself pays dearly for each mistake, but ranks as well as before.
            let scores_hold = signal.name == names::VAL_LOSS.name
                && view.headline().is_ok_and(|metric| !metric.is_loss() && holds(&metric));
            let severity = match (view.is_reinforcement(), scores_hold) {
                (true, _) => Severity::Info,
                (false, true) => Severity::Warning,
                (false, false) => META.severity,
            };
            let finding = Finding::new(&META, message)
                .severity(severity)
                .at(
                    finite[(from + self.measurements - 1).min(finite.len() - 1)].0,
                    finite[from].0,
                    finite[finite.len() - 1].0,
                )
                .evidence("best", best)
                .evidence("last", now)
                .evidence("begin", begin)
                .remedy(Remedy::scale(
                    &keys::OPTIM_LEARNING_RATE,
                    0.1,
                    "the steps are too large to come back",
                ))
                .remedy(Remedy::set(&keys::OPTIM_CLIP_NORM, 1.0, "bounds single steps"))
                .draw(signal.name);
            findings.push(finding);
        }
        if any { Ok(findings) } else { Err(Missing::new("a loss")) }
    }
}

/// Whether a score ends with most of what it ever had over no skill.
fn holds(metric: &Metric<'_>) -> bool {
    let upward = metric.upward();
    let floor = metric.no_skill().map(|floor| metric.goal.upward(floor));
    let best = upward.iter().copied().filter(|v| v.is_finite()).fold(f64::NEG_INFINITY, f64::max);
    match (upward.last(), floor) {
        (Some(last), Some(floor)) if best > floor => (last - floor) > 0.7 * (best - floor),
        _ => false,
    }
}
