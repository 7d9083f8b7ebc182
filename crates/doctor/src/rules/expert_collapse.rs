use std::collections::BTreeMap;

use trimtab_signals::{Column, keys, names};

use crate::finding::{Finding, Remedy, Severity};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::median;
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "expert-collapse",
    summary: "the router sends everything to the same experts and the others learn nothing",
    severity: Severity::Warning,
    docs: include_str!("expert_collapse.md"),
};

pub(super) static RULE: ExpertCollapse =
    ExpertCollapse { measurements: 10, share: 0.1, idle: 0.01, half: 0.5 };

pub(super) struct ExpertCollapse {
    /// Measurements to the end.
    measurements: usize,
    /// and their share of all there are.
    share: f64,
    /// Load over an equal share under which an expert is idle.
    idle: f64,
    /// Share of idle experts from which on the model is a smaller one.
    half: f64,
}

impl Rule for ExpertCollapse {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        // Layers are told apart by what stands before the last part of the group: `layer_3/7`.
        let mut layers: BTreeMap<&str, Vec<(&str, &Column)>> = BTreeMap::new();
        for (group, column) in view.need_groups(&names::MOE_LOAD)? {
            if !group.is_empty() {
                let (layer, expert) = group.rsplit_once('/').unwrap_or(("", group));
                layers.entry(layer).or_default().push((expert, column));
            }
        }
        // The layer with most idle experts stands for all.
        let found: Vec<Collapse<'_>> =
            layers.iter().filter_map(|(layer, experts)| self.layer(layer, experts)).collect();
        let Some(worst) = found.iter().max_by(|a, b| a.idle_share().total_cmp(&b.idle_share())) else {
            return Ok(Vec::new());
        };
        let severity = if worst.idle_share() >= self.half { Severity::Warning } else { Severity::Info };
        let place = if worst.layer.is_empty() { String::new() } else { format!(" of `{}`", worst.layer) };
        let others = if found.len() > 1 {
            format!(", and {} more layers do the like", found.len() - 1)
        } else {
            String::new()
        };
        let message = format!(
            "{} of {} experts{place} get no load from step {} on, and `{}` gets {:.0} % of it{others}",
            worst.idle,
            worst.experts,
            worst.first,
            worst.busiest,
            100.0 * worst.load
        );
        let finding = Finding::new(&META, message)
            .severity(severity)
            .at(worst.told, worst.first, worst.last)
            .evidence("idle", worst.idle as f64)
            .evidence("experts", worst.experts as f64)
            .evidence("highest_share", worst.load)
            .remedy(
                Remedy::scale(
                    &keys::LOSS_WEIGHT,
                    10.0,
                    "a stronger load balance, made of probabilities rather than of counts, moves the router",
                )
                .of_group("load_balance"),
            )
            .remedy(Remedy::scale(
                &keys::OPTIM_LEARNING_RATE,
                0.5,
                "a router that decides early has not seen what other experts could do",
            ))
            .draw(&worst.column);
        Ok(vec![finding])
    }
}

struct Collapse<'a> {
    layer: &'a str,
    experts: usize,
    idle: usize,
    busiest: &'a str,
    column: String,
    /// Share of the busiest.
    load: f64,
    told: u64,
    first: u64,
    last: u64,
}

impl Collapse<'_> {
    fn idle_share(&self) -> f64 {
        self.idle as f64 / self.experts.max(1) as f64
    }
}

impl ExpertCollapse {
    /// A layer in which several experts, or all but one, are idle to the end.
    fn layer<'a>(&self, layer: &'a str, experts: &[(&'a str, &'a Column)]) -> Option<Collapse<'a>> {
        let (_, reference) = experts.first()?;
        // Loads as shares: of tokens, of tokens times choices, or counts, they mean the same.
        let rows: Vec<(u64, Vec<f64>)> = reference
            .steps()
            .iter()
            .filter_map(|&step| {
                let loads: Vec<f64> = experts.iter().filter_map(|(_, c)| c.at(step)).collect();
                let total: f64 = loads.iter().sum();
                let sound = loads.len() == experts.len() && loads.iter().all(|l| l.is_finite() && *l >= 0.0);
                (sound && total > 0.0 && total.is_finite())
                    .then(|| (step, loads.into_iter().map(|l| l / total).collect()))
            })
            .collect();
        let count = experts.len();
        let window = self.measurements.max((rows.len() as f64 * self.share).ceil() as usize);
        if count < 2 || rows.len() < window {
            return None;
        }
        let low = self.idle / count as f64;
        let idle_at = |row: &[f64], expert: usize| row.get(expert).is_some_and(|l| *l < low);
        let tail = &rows[rows.len() - window..];
        let idle: Vec<usize> = (0..count).filter(|e| tail.iter().all(|(_, row)| idle_at(row, *e))).collect();
        // One idle expert of many is no collapse; one of two is.
        if idle.is_empty() || (idle.len() < 2 && count > 2) {
            return None;
        }
        let since = rows.iter().rev().take_while(|(_, row)| idle.iter().all(|e| idle_at(row, *e))).count();
        let start = rows.len() - since;
        let level = |e: usize| median(tail.iter().filter_map(|(_, row)| row.get(e).copied())).unwrap_or(0.0);
        let busiest = (0..count).max_by(|a, b| level(*a).total_cmp(&level(*b)))?;
        let (name, _) = experts.get(busiest)?;
        let group = if layer.is_empty() { (*name).to_owned() } else { format!("{layer}/{name}") };
        Some(Collapse {
            layer,
            experts: count,
            idle: idle.len(),
            busiest: name,
            column: names::MOE_LOAD.group(&group),
            load: level(busiest),
            told: rows.get(start + window - 1)?.0,
            first: rows.get(start)?.0,
            last: rows.last()?.0,
        })
    }
}
