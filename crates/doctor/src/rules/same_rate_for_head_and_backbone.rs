use trimtab_signals::keys;
use trimtab_signals::names::{self, Goal};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::{median, noise, smooth};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "same-rate-for-head-and-backbone",
    summary: "a pretrained backbone and a fresh head train at one learning rate",
    severity: Severity::Info,
    docs: include_str!("same_rate_for_head_and_backbone.md"),
};

pub(super) static RULE: SameRateForHeadAndBackbone =
    SameRateForHeadAndBackbone { same: 0.01, lost: 0.5, learned: 0.1, evaluations: 5 };

pub(super) struct SameRateForHeadAndBackbone {
    /// Relative difference that is none.
    same: f64,
    /// Share of the best score over chance that must be lost for good.
    lost: f64,
    /// Share of the way from chance to perfection that is learning.
    learned: f64,
    /// Fewer evaluations tell nothing.
    evaluations: usize,
}

const HEADS: [&str; 6] = ["head", "classif", "decoder", "fc", "logits", "predictor"];
const BACKBONES: [&str; 5] = ["backbone", "encoder", "features", "pretrained", "trunk"];

impl Rule for SameRateForHeadAndBackbone {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let pretrained = view.flag(&keys::MODEL_PRETRAINED);
        if !pretrained.ok_or_else(|| Missing::new(format!("{} (declared)", keys::MODEL_PRETRAINED.name)))? {
            return Ok(Vec::new());
        }
        let declared: Vec<(&str, f64)> = view.numbers_by_group(&keys::OPTIM_LEARNING_RATE);
        let logged: Vec<(&str, f64)> = view
            .groups(&names::OPTIM_LEARNING_RATE)
            .into_iter()
            .filter_map(|(group, column)| Some((group, column.highest()?.1)))
            .collect();
        if declared.is_empty() && logged.is_empty() {
            return Err(Missing::new(format!(
                "{} or {}",
                keys::OPTIM_LEARNING_RATE.name,
                names::OPTIM_LEARNING_RATE.name
            )));
        }
        let all = || declared.iter().chain(&logged);
        let (low, high) =
            all().fold((f64::INFINITY, 0.0f64), |(low, high), (_, v)| (low.min(*v), high.max(*v)));
        // Rates that differ anywhere, declared or logged, are none of this rule's business.
        let one =
            |rates: &[(&str, f64)]| rates.iter().all(|(_, v)| (v / rates[0].1 - 1.0).abs() <= self.same);
        let valid = low > 0.0 && high.is_finite();
        if !valid || !one(&declared) || !one(&logged) {
            return Ok(Vec::new());
        }
        let named = |words: &[&str]| {
            all()
                .map(|(group, _)| *group)
                .find(|group| words.iter().any(|word| group.to_lowercase().contains(word)))
        };
        let grouped = named(&HEADS).zip(named(&BACKBONES));
        if grouped.is_none() && !self.fresh_head(view) {
            return Ok(Vec::new());
        }
        let rate = declared.first().or(logged.first()).map_or(high, |(_, v)| *v);
        let outcome = self.outcome(view);
        let what = match grouped {
            Some((head, backbone)) => {
                format!("`{backbone}` and `{head}` train at the same learning rate of {}", show(rate))
            }
            None => format!("the whole model trains at one learning rate of {}", show(rate)),
        };
        let how = outcome.as_ref().map_or(String::new(), |(text, ..)| format!(", and {text}"));
        let head = if grouped.is_some() { "the head is not" } else { "the head, it seems, is not" };
        let message = format!("{what}, though the backbone is pretrained and {head}{how}");
        let severity = if outcome.is_some() { Severity::Warning } else { Severity::Info };
        let why = "a fresh head needs large steps, pretrained weights bear only small ones";
        let mut finding = Finding::new(&META, message)
            .severity(severity)
            .evidence("learning_rate", rate)
            .remedy(Remedy::set(&keys::OPTIM_LEARNING_RATE, 0.1 * rate, why).of_group("backbone"))
            .remedy(Remedy::set(&keys::OPTIM_LEARNING_RATE, rate, why).of_group("head"));
        if let Some((_, best, last, steps)) = outcome {
            finding = finding.evidence("best", best).evidence("last", last).at(steps.1, steps.0, steps.1);
            if let Ok(metric) = view.headline() {
                finding = finding.draw(metric.name);
            }
        }
        Ok(vec![finding])
    }
}

impl SameRateForHeadAndBackbone {
    /// Whether something tells of a head that was not pretrained. Language models are usually tuned as they
    /// are.
    fn fresh_head(&self, view: &View<'_>) -> bool {
        let framework = view.run().facts.text(keys::RUN_FRAMEWORK.name).unwrap_or_default().to_lowercase();
        if framework.contains("transformers") || framework.contains("hugging") {
            return false;
        }
        view.number(&keys::MODEL_LOADED_SHARE).is_some_and(|share| share > 0.0 && share < 1.0)
            || [&keys::MODEL_FREEZE_EPOCHS, &keys::MODEL_UNFREEZE_STEP]
                .iter()
                .any(|key| view.number(key).is_some())
            || [&keys::DATA_CLASSES, &keys::DATA_CLASS_COUNTS]
                .iter()
                .any(|k| view.run().facts.get(k.name).is_some())
            || view.column(&names::LOSS_LDAM).is_some()
    }

    /// What went wrong with the metric that decides, with its best and last level and the steps; `None` where
    /// it did well, or nobody knows.
    fn outcome(&self, view: &View<'_>) -> Option<(String, f64, f64, (u64, u64))> {
        let metric = view.headline().ok().filter(|m| !m.is_loss() && m.goal == Goal::Higher)?;
        let values = metric.column.values();
        if values.len() < self.evaluations {
            return None;
        }
        let logged = view.run().logged_name(metric.name);
        let (at, best) = smooth(values, 3)
            .into_iter()
            .enumerate()
            .filter(|(_, v)| v.is_finite())
            .reduce(|best, next| if next.1 > best.1 { next } else { best })?;
        let last = median(values.get(values.len() - 3..)?.iter().copied())?;
        let steps = (*metric.column.steps().get(at)?, metric.column.last()?.0);
        let floor = metric.chance.unwrap_or(0.0);
        let ceiling =
            if metric.column.highest().is_some_and(|(_, v): (u64, f64)| v > 1.5) { 100.0 } else { 1.0 };
        if metric.chance.is_some() && best - floor < self.learned * (ceiling - floor) {
            let first = metric.column.first().map_or(0, |(step, _): (u64, f64)| step);
            return Some((
                format!("`{logged}` does not leave chance ({})", show(best)),
                best,
                last,
                (first, steps.1),
            ));
        }
        let fell = best - last;
        (best > floor && fell > self.lost * (best - floor) && fell > 4.0 * noise(values).unwrap_or(0.0))
            .then(|| (format!("`{logged}` fell from {} to {}", show(best), show(last)), best, last, steps))
    }
}
