use trimtab_signals::{Goal, keys, names};

use crate::course::Course;
use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::{Metric, View};

static META: RuleMeta = RuleMeta {
    id: "checkpoint-does-not-reproduce",
    summary: "a saved checkpoint, evaluated again, has another score than was recorded for it",
    severity: Severity::Warning,
    docs: include_str!("checkpoint_does_not_reproduce.md"),
};

pub(super) static RULE: CheckpointDoesNotReproduce = CheckpointDoesNotReproduce { relative: 0.01, lost: 0.5 };

pub(super) struct CheckpointDoesNotReproduce {
    /// Relative difference: half precision and another order of sums stay well under a hundredth.
    relative: f64,
    /// Share of the recorded score above chance that is lost, from which on the file is not the model.
    lost: f64,
}

impl Rule for CheckpointDoesNotReproduce {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let missing = |key: &trimtab_signals::Key| Missing::new(format!("{} (declared)", key.name));
        let reproduced = view.numbers_by_group(&keys::EVALUATE_REPRODUCED);
        let recorded = view.numbers_by_group(&keys::EVALUATE_RECORDED);
        if reproduced.is_empty() {
            return Err(missing(&keys::EVALUATE_REPRODUCED));
        }
        let pairs: Vec<(&str, f64, f64)> = reproduced
            .into_iter()
            .filter_map(|(group, again)| {
                let (_, before) = recorded.iter().find(|(g, _)| *g == group)?;
                (again.is_finite() && before.is_finite()).then_some((group, again, *before))
            })
            .collect();
        if pairs.is_empty() {
            return Err(missing(&keys::EVALUATE_RECORDED));
        }
        let relative = |again: f64, before: f64| {
            let scale = again.abs().max(before.abs());
            if scale > 0.0 { (again - before).abs() / scale } else { 0.0 }
        };
        // The metric that differs most stands for the file.
        let worst = pairs.into_iter().max_by(|a, b| relative(a.1, a.2).total_cmp(&relative(b.1, b.2)));
        let Some((group, again, before)) = worst.filter(|w| relative(w.1, w.2) > self.relative) else {
            return Ok(Vec::new());
        };
        let metric = metric(view, group);
        let goal = metric.map(|m| m.goal).or_else(|| names::goal(group));
        let noise = metric.as_ref().and_then(Course::of).map(|course| course.noise);
        // An evaluation that draws samples differs a little each time, and so do its neighbours in the log.
        let within = noise.is_some_and(|noise| (again - before).abs() <= 2.0 * noise);
        let floor = metric.and_then(|m| m.chance).unwrap_or(0.0);
        let lost =
            goal == Some(Goal::Higher) && before > floor && before - again > self.lost * (before - floor);
        let severity = if within {
            Severity::Info
        } else if lost {
            Severity::Critical
        } else {
            Severity::Warning
        };
        let name = metric.map_or(group, |m| view.run().logged_name(m.name));
        let name = if name.is_empty() { "the score".to_owned() } else { format!("`{name}`") };
        let rest = if within {
            "no more than it moves between evaluations".to_owned()
        } else {
            "what was saved is not what was evaluated".to_owned()
        };
        let message = format!(
            "the checkpoint was saved with {name} = {} and gives {} when evaluated again: {rest}",
            show(before),
            show(again)
        );
        let mut finding = Finding::new(&META, message)
            .severity(severity)
            .evidence("recorded", before)
            .evidence("reproduced", again)
            .evidence("relative_difference", relative(again, before));
        if let Some(noise) = noise {
            finding = finding.evidence("noise", noise);
        }
        if let Some(decay) = view.number(&keys::EMA_DECAY) {
            finding = finding.evidence("ema_decay", decay).remedy(Remedy::check(
                &keys::EMA_DECAY,
                "whether averaged or live weights were saved, and which were evaluated",
                "they score differently",
            ));
        }
        Ok(vec![finding.remedy(Remedy::check(
            &keys::MODEL_LOADED_SHARE,
            "weights and buffers that the file does not hold",
            "running statistics of normalisation layers are no parameters and are easily left out",
        ))])
    }
}

/// The metric of a group: by its column, or as logged; the ungrouped one is the one that decides.
fn metric<'a>(view: &View<'a>, group: &str) -> Option<Metric<'a>> {
    if group.is_empty() {
        return view.headline().ok();
    }
    let named = |m: &&Metric<'_>| m.name == group || view.run().logged_name(m.name) == group;
    view.metrics().iter().find(named).copied()
}
