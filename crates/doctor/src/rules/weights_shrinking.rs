use trimtab_signals::{keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "weights-shrinking",
    summary: "the weights are pulled to zero faster than the gradient builds them up",
    severity: Severity::Warning,
    docs: include_str!("weights_shrinking.md"),
};

pub(super) static RULE: WeightsShrinking = WeightsShrinking { left: 0.5, gone: 0.1, measurements: 5 };

pub(super) struct WeightsShrinking {
    /// Share of the first norm that is left where weights shrink.
    left: f64,
    /// Share that is left where they are as good as gone.
    gone: f64,
    /// Fewer are no course.
    measurements: usize,
}

impl Rule for WeightsShrinking {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let groups = view.need_groups(&names::PARAM_NORM)?;
        let mut shrunk = Vec::new();
        for (group, column) in &groups {
            let (Some((_, first)), Some((_, last))) = (column.first(), column.last()) else { continue };
            let share = last / first;
            if column.len() >= self.measurements && share.is_finite() && share < self.left {
                shrunk.push((*group, *column, share));
            }
        }
        // Weights of one part may shrink as others take over.
        if shrunk.is_empty() || shrunk.len() < groups.len() {
            return Ok(Vec::new());
        }
        shrunk.sort_by(|a, b| a.2.total_cmp(&b.2));
        let Some((group, column, least)) = shrunk.first().copied() else { return Ok(Vec::new()) };
        let most = shrunk.last().map_or(least, |s| s.2);
        let grave = most < self.gone;
        let message = format!(
            "the norm of the weights has fallen to {} of what it was, in every group{}",
            show(most),
            if grave { ": next to nothing is left of them" } else { "" }
        );
        let (first, last) = (column.first().map_or(0, |f| f.0), column.last().map_or(0, |l| l.0));
        let norm = column.first().map_or(f64::NAN, |(_, v)| v);
        let told = column.iter().find(|(_, v)| *v < self.left * norm).map_or(last, |(step, _)| step);
        let mut finding = Finding::new(&META, message)
            .severity(if grave { Severity::Critical } else { Severity::Warning })
            .at(told, first, last)
            .evidence("share_left", most)
            .draw(&if group.is_empty() {
                names::PARAM_NORM.name.to_owned()
            } else {
                names::PARAM_NORM.group(group)
            });
        if let Some(decay) = view.number(&keys::OPTIM_WEIGHT_DECAY) {
            finding = finding.evidence("weight_decay", decay);
        }
        Ok(vec![finding.remedy(Remedy::set(
            &keys::OPTIM_WEIGHT_DECAY,
            0.01,
            "a weight decay that only bounds the weights",
        ))])
    }
}
