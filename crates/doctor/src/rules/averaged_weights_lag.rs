use trimtab_signals::names::{self, Goal};
use trimtab_signals::{Column, keys};

use super::rate_too_low::learned;
use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::{median, noise, tail, trend};
use crate::view::{Metric, View};

static META: RuleMeta = RuleMeta {
    id: "averaged-weights-lag",
    summary: "the averaged weights are far behind the live ones, or still mostly the initial ones",
    severity: Severity::Warning,
    docs: include_str!("averaged_weights_lag.md"),
};

pub(super) static RULE: AveragedWeightsLag =
    AveragedWeightsLag { initial: 0.1, mostly: 0.5, behind: 0.2, evaluations: 4 };

pub(super) struct AveragedWeightsLag {
    /// Share of random weights that an average can bear.
    initial: f64,
    /// From here on it is more initial than trained.
    mostly: f64,
    /// Gap to the live weights, as a share of what those have over chance.
    behind: f64,
    /// Fewer in a row are chance.
    evaluations: usize,
}

/// What the groups of averaged and of live weights are called.
const AVERAGED: [&str; 6] = ["teacher", "ema", "averaged", "average", "swa", "shadow"];
const LIVE: [&str; 5] = ["student", "live", "model", "raw", ""];

/// How much of the averaged weights are the initial ones.
struct Initial {
    share: f64,
    /// The decay and the updates it is computed from, where it was not measured.
    computed: Option<(f64, f64)>,
    /// Whether the run is still going and this is what it comes to.
    ahead: bool,
    /// Whether nobody knows how long the run will go on.
    open: bool,
}

impl Rule for AveragedWeightsLag {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let pair = pair(view);
        let initial = initial(view);
        if pair.is_none() && initial.is_none() {
            return Err(Missing(vec![
                format!(
                    "{} or {}, {} and {}",
                    names::EMA_INITIAL_WEIGHT.name,
                    keys::EMA_DECAY.name,
                    keys::EMA_UPDATES.name,
                    keys::EMA_WARMUP.name
                ),
                "or a validation metric of both averaged and live weights".to_owned(),
            ]));
        }
        let lag = pair.as_ref().and_then(|(averaged, live)| self.lag(view, averaged, live));
        let initial = initial.filter(|initial| initial.share > self.initial);
        Ok(match (initial, lag) {
            (Some(initial), lag) => vec![self.mostly_initial(view, &initial, lag, pair.is_some())],
            (None, Some(lag)) => vec![lag],
            (None, None) => Vec::new(),
        })
    }
}

impl AveragedWeightsLag {
    fn mostly_initial(
        &self,
        view: &View<'_>,
        initial: &Initial,
        lag: Option<Finding>,
        both: bool,
    ) -> Finding {
        let is = |metric: &Metric<'_>, list: &[&str]| group(metric.name).is_some_and(|g| list.contains(&g));
        let alone =
            view.metrics().iter().any(|m| is(m, &AVERAGED)) && !view.metrics().iter().any(|m| is(m, &LIVE));
        let severity = match &lag {
            // Measured beside the live weights, and not behind: it does no harm yet.
            None if both => Severity::Info,
            _ if alone && initial.share >= self.mostly && !initial.open && learned(view) != Some(true) => {
                Severity::Critical
            }
            _ => Severity::Warning,
        };
        let share = 100.0 * initial.share;
        let mut message = if initial.ahead {
            format!(
                "{share:.0} % of the averaged weights will still be the initial ones at the end of the run"
            )
        } else {
            format!("{share:.0} % of the averaged weights are the initial ones")
        };
        if let Some((decay, updates)) = initial.computed {
            message.push_str(&format!(" (decay {decay} over {} updates)", show(updates)));
        }
        if alone {
            message.push_str(", and validation is of the averaged weights alone");
        }
        let mut finding =
            Finding::new(&META, message).severity(severity).evidence("initial_share", initial.share);
        if let Some((decay, updates)) = initial.computed {
            finding = finding.evidence("decay", decay).evidence("updates", updates);
        }
        if let Some(lag) = lag {
            finding.evidence.extend(lag.evidence);
            finding.column = lag.column;
        }
        let first = view.run().trace.iter().filter_map(|(_, c)| c.first()).map(|(step, _)| step).min();
        if let Some(first) = first {
            finding = finding.at(view.last_step(), first, view.last_step());
        }
        finding = finding.remedy(Remedy::set(
            &keys::EMA_WARMUP,
            true,
            "a decay that rises with the updates forgets the initial weights at once",
        ));
        if let Some((_, updates)) = initial.computed.filter(|(_, updates)| *updates >= 10.0) {
            // One percent is left at the end.
            let decay = (1e4 * 0.01f64.powf(1.0 / updates)).floor() / 1e4;
            finding =
                finding.remedy(Remedy::set(&keys::EMA_DECAY, decay, "or a decay made for so few updates"));
        }
        finding
    }

    /// Averaged weights that are far behind in every evaluation of the last few.
    fn lag(&self, view: &View<'_>, averaged: &Metric<'_>, live: &Metric<'_>) -> Option<Finding> {
        let goal = live.goal;
        let both: Vec<(u64, f64, f64)> = averaged
            .column
            .iter()
            .filter_map(|(step, a)| Some((step, a, live.column.at(step)?)))
            .filter(|(_, a, l)| a.is_finite() && l.is_finite())
            .collect();
        let gaps: Vec<f64> = both.iter().map(|(_, a, l)| goal.upward(*l) - goal.upward(*a)).collect();
        let start = both.len().checked_sub(self.evaluations)?;
        let level = median(both[start..].iter().map(|(.., l)| *l))?;
        let floor = if goal == Goal::Higher { live.chance.unwrap_or(0.0) } else { 0.0 };
        let noisy = 4.0 * noise(&gaps).unwrap_or(0.0);
        let margin = (self.behind * (level - floor).abs()).max(noisy);
        if !gaps[start..].iter().all(|gap| *gap > margin) {
            return None;
        }
        // Since when.
        let since = tail(&gaps, |gap| gap > margin);
        let gap = median(gaps[start..].iter().copied())?;
        // Since its widest the gap has closed by a fifth and more.
        let widest = (since..gaps.len()).reduce(|a, b| if gaps[b] > gaps[a] { b } else { a })?;
        let closing = trend(&gaps[widest..]) < -0.5 && *gaps.last()? < 0.8 * gaps[widest];
        let behind = median(both[start..].iter().map(|(_, a, _)| *a))?;
        let (a, l) = (view.run().logged_name(averaged.name), view.run().logged_name(live.name));
        let message = format!(
            "`{a}` is at {} where `{l}` is at {} (last {} evaluations): the averaged weights are behind{}",
            show(behind),
            show(level),
            self.evaluations,
            if closing { ", and catching up" } else { "" },
        );
        let told = both.get(since + self.evaluations - 1)?.0;
        let finding = Finding::new(&META, message)
            .severity(if closing { Severity::Info } else { Severity::Warning })
            .at(told, both.get(since)?.0, both.last()?.0)
            .evidence("averaged", behind)
            .evidence("live", level)
            .evidence("gap", gap)
            .remedy(Remedy::set(
                &keys::EMA_WARMUP,
                true,
                "a decay that rises with the updates follows from the start",
            ))
            .draw(averaged.name);
        Some(match view.number(&keys::EMA_DECAY).filter(|d| *d > 0.0 && *d < 1.0) {
            Some(decay) => finding.remedy(Remedy::set(
                &keys::EMA_DECAY,
                1.0 - (10.0 * (1.0 - decay)).min(0.5),
                "a shorter memory follows sooner",
            )),
            None => finding,
        })
    }
}

fn group(name: &str) -> Option<&str> {
    names::of(name)?.group_of(name)
}

/// A metric of the averaged weights and the same of the live ones.
fn pair<'a>(view: &View<'a>) -> Option<(Metric<'a>, Metric<'a>)> {
    let averaged = view.metrics().iter().filter(|m| group(m.name).is_some_and(|g| AVERAGED.contains(&g)));
    averaged.into_iter().find_map(|averaged| {
        let signal = names::of(averaged.name)?;
        let live = LIVE
            .iter()
            .find_map(|word| view.metrics().iter().find(|m| signal.group_of(m.name) == Some(*word)))?;
        Some((*averaged, *live))
    })
}

fn initial(view: &View<'_>) -> Option<Initial> {
    let last = view.last_step() as f64;
    let planned = view.planned_steps().filter(|planned| *planned > 0.0 && planned.is_finite());
    // How many times longer the run will be than it is.
    let longer = planned.filter(|_| last > 0.0).map_or(1.0, |planned| (planned / last).max(1.0));
    let ahead = longer > 1.1;
    let finished = view.flag(&keys::RUN_FINISHED) == Some(true) || view.number(&keys::EMA_UPDATES).is_some();
    let open = planned.is_none() && !finished;
    if let Some((_, share)) = view.column(&names::EMA_INITIAL_WEIGHT).and_then(Column::last) {
        let share = share.powf(longer);
        return (0.0..=1.0).contains(&share).then_some(Initial { share, computed: None, ahead, open });
    }
    let logged = view.column(&names::EMA_DECAY);
    let rises =
        logged.is_some_and(|column| column.lowest().map(|(_, v)| v) != column.highest().map(|(_, v)| v));
    if view.flag(&keys::EMA_WARMUP) == Some(true) || rises {
        return None;
    }
    let decay = logged.and_then(Column::last).map(|(_, v)| v).or_else(|| view.number(&keys::EMA_DECAY))?;
    let counted =
        view.number(&keys::EMA_UPDATES).or_else(|| Some(view.column(&names::OPTIM_UPDATES)?.last()?.1));
    // A step of the log is an update where an epoch has several.
    let epochs = view.run().trace.epochs();
    let by_step = || {
        let ((first, from), (end, to)) = (epochs.first()?, epochs.last()?);
        (end.saturating_sub(first) as f64 >= 2.0 * (to - from) && to > from).then_some(last)
    };
    let updates = counted.or_else(by_step).filter(|n| *n > 0.0)? * longer;
    let share = decay.powf(updates);
    (decay > 0.0 && decay < 1.0).then_some(Initial { share, computed: Some((decay, updates)), ahead, open })
}
