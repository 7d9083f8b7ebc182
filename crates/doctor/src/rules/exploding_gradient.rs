use trimtab_signals::{Column, keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::{median, noise, smooth, tail};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "exploding-gradient",
    summary: "the gradient grows far over its own history and does not come back, or is not finite any more",
    severity: Severity::Warning,
    docs: include_str!("exploding_gradient.md"),
};

pub(super) static RULE: ExplodingGradient =
    ExplodingGradient { decades: 2.0, hopeless: 4.0, spreads: 6.0, skipped: 0.05, patience: 5, history: 5 };

pub(super) struct ExplodingGradient {
    /// Healthy norms drift by a factor of ten or more as the weights shrink or the loss sharpens: two decades
    /// is more than drift.
    decades: f64,
    /// Past these no clipping or adaptive step makes sense of it.
    hopeless: f64,
    /// Robust deviations of the history that the jump must exceed too.
    spreads: f64,
    /// Loss scaling skips one update in thousands; one in twenty is another matter.
    skipped: f64,
    /// Measurements in a row that are not chance.
    patience: usize,
    /// The least history to compare with.
    history: usize,
}

impl Rule for ExplodingGradient {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let columns = norms(view);
        let skipped = view.column(&names::GRAD_NON_FINITE);
        if columns.is_empty() && skipped.is_none() {
            return Err(Missing::new(names::GRAD_NORM.name));
        }
        if let Some(finding) = columns.iter().find_map(|(name, column)| self.not_finite(view, name, column)) {
            return Ok(vec![finding]);
        }
        if let Some(finding) = skipped.and_then(|column| self.skips(column)) {
            return Ok(vec![finding]);
        }
        // The group that grew most speaks for the others.
        let grown = columns.iter().filter_map(|(name, column)| Some((*name, self.growth(column)?)));
        let most = grown.max_by(|(_, a), (_, b)| a.decades.total_cmp(&b.decades));
        Ok(most.and_then(|(name, growth)| self.grown(view, name, &growth)).into_iter().collect())
    }
}

struct Growth {
    onset: u64,
    told: u64,
    last: u64,
    before: f64,
    after: f64,
    decades: f64,
}

impl ExplodingGradient {
    /// Not finite from some step to the end, while training does not go on.
    fn not_finite(&self, view: &View<'_>, name: &str, column: &Column) -> Option<Finding> {
        let (steps, values) = (column.steps(), column.values());
        let start = tail(values, |v| !v.is_finite());
        let bad = values.len() - start;
        if bad < self.patience.max(values.len() / 10) || (start == 0 && values.len() < 4 * self.patience) {
            // Loss scaling begins with a few infinite gradients.
            return None;
        }
        let (first, told, last) =
            (*steps.get(start)?, *steps.get(start + self.patience - 1)?, *steps.last()?);
        let lost =
            view.training_loss().ok().and_then(|(_, loss)| loss.last()).is_some_and(|(_, v)| !v.is_finite());
        let severity = match view.progresses_from(first) {
            _ if lost => Severity::Critical,
            // A norm that is only logged wrong.
            Some(true) => return None,
            Some(false) => Severity::Critical,
            None => Severity::Warning,
        };
        let logged = view.run().logged_name(name);
        let message = format!(
            "`{logged}` is not finite from step {first} to the end ({bad} of {} measurements): every \
            update is skipped or destroys the weights",
            values.len(),
        );
        let finding = Finding::new(&META, message).severity(severity).at(told, first, last);
        Some(remedies(
            finding
                .evidence("non_finite", bad as f64)
                .evidence("measurements", values.len() as f64)
                .draw(name),
        ))
    }

    /// Updates skipped because their gradient was not finite.
    fn skips(&self, column: &Column) -> Option<Finding> {
        // The first record has no other before it to count from. Only the second half: loss scaling finds its
        // scale in the first.
        let counts: Vec<(u64, f64, f64)> = column
            .iter()
            .zip(column.iter().skip(1))
            .map(|((before, _), (step, count))| (step, count, step.saturating_sub(before) as f64))
            .filter(|(_, count, _)| count.is_finite() && *count >= 0.0)
            .collect();
        let half = counts.get(counts.len() / 2..)?;
        let hit = half.iter().filter(|(_, count, _)| *count > 0.0).count();
        let share = half.iter().map(|(_, count, _)| count).sum::<f64>()
            / half.iter().map(|(.., span)| span).sum::<f64>();
        let often = share > self.skipped && hit >= self.patience && hit * 2 >= half.len();
        if !often {
            return None;
        }
        let tail = &counts[counts.len().saturating_sub(self.patience)..];
        let all = tail.iter().all(|(_, count, span)| *count >= 0.9 * span);
        let (first, last) = (half.first()?.0, half.last()?.0);
        let message = format!(
            "{:.0} % of the updates since step {first} were skipped because their gradient was not finite{}",
            100.0 * share.min(1.0),
            if all { ", all of them at the end" } else { "" },
        );
        let finding = Finding::new(&META, message)
            .severity(if all { Severity::Critical } else { Severity::Warning })
            .at(half.get(self.patience - 1)?.0, first, last)
            .evidence("skipped_share", share)
            .draw(names::GRAD_NON_FINITE.name);
        Some(remedies(finding))
    }

    /// The first step from which on the norm stays far over all its history.
    fn growth(&self, column: &Column) -> Option<Growth> {
        let positive: Vec<(u64, f64)> = column.iter().filter(|(_, v)| v.is_finite() && *v > 0.0).collect();
        // Long columns by stretches, since each is compared with all before it.
        let stretch = positive.len().div_ceil(512).max(1);
        let (steps, logs): (Vec<u64>, Vec<f64>) = positive
            .chunks(stretch)
            .filter_map(|part| Some((part.first()?.0, median(part.iter().map(|(_, v)| v.log10()))?)))
            .unzip();
        let smoothed = smooth(&logs, 3);
        let mut lowest_after = smoothed.clone();
        for at in (1..lowest_after.len()).rev() {
            lowest_after[at - 1] = lowest_after[at - 1].min(lowest_after[at]);
        }
        for at in self.history..(logs.len() + 1).saturating_sub(3) {
            let before = &logs[..at];
            let base = median(before.iter().copied())?;
            let spread = 1.4826 * median(before.iter().map(|v| (v - base).abs()))?;
            if lowest_after[at] > base + self.decades.max(self.spreads * spread) {
                let after = median(smoothed[at..].iter().copied())?;
                return Some(Growth {
                    onset: steps[at],
                    told: steps[at + 2],
                    last: positive.last()?.0,
                    before: base,
                    after,
                    decades: after - base,
                });
            }
        }
        None
    }

    /// What grew matters where the loss shows it.
    fn grown(&self, view: &View<'_>, name: &str, growth: &Growth) -> Option<Finding> {
        let severity = match harm(view, growth.onset) {
            Some(Harm::All) => Severity::Critical,
            Some(Harm::Some) => Severity::Warning,
            Some(Harm::None) if view.progresses_from(growth.onset) == Some(true) => return None,
            Some(Harm::None) => Severity::Info,
            None if growth.decades >= self.hopeless => Severity::Warning,
            None => Severity::Info,
        };
        let logged = view.run().logged_name(name);
        let (before, after) = (10f64.powf(growth.before), 10f64.powf(growth.after));
        let message = format!(
            "`{logged}` is {} from step {} to the end, {} times its median before ({})",
            show(after),
            growth.onset,
            show(10f64.powf(growth.decades)),
            show(before),
        );
        let finding = Finding::new(&META, message)
            .severity(severity)
            .at(growth.told, growth.onset, growth.last)
            .evidence("before", before)
            .evidence("after", after)
            .draw(name);
        Some(remedies(finding))
    }
}

/// What became of the training loss.
enum Harm {
    /// No more than noise.
    None,
    /// It went up.
    Some,
    /// All that was learned is lost.
    All,
}

fn harm(view: &View<'_>, onset: u64) -> Option<Harm> {
    let (_, loss) = view.training_loss().ok()?;
    let split = loss.steps().partition_point(|&step| step < onset);
    let (before, after) = loss.values().split_at(split);
    let (first, last) = (median(before.iter().take(3).copied())?, after.last()?);
    if !last.is_finite() {
        return Some(Harm::All);
    }
    let recent = &before[before.len().saturating_sub(10)..];
    let (level, end) = (median(recent.iter().copied())?, median(after.iter().copied())?);
    let margin = 4.0 * noise(before).unwrap_or(0.0);
    Some(if end <= level + margin {
        Harm::None
    } else if end >= first && before.len() >= 3 {
        Harm::All
    } else {
        Harm::Some
    })
}

/// The norm of the whole gradient, or of its groups where only those were measured.
pub(super) fn norms<'a>(view: &View<'a>) -> Vec<(&'a str, &'a Column)> {
    let all = view.run().trace.iter().filter(|(name, _)| names::GRAD_NORM.group_of(name).is_some());
    let (whole, groups): (Vec<_>, Vec<_>) = all.partition(|(name, _)| *name == names::GRAD_NORM.name);
    if whole.is_empty() { groups } else { whole }
}

fn remedies(finding: Finding) -> Finding {
    finding
        .remedy(Remedy::scale(&keys::OPTIM_LEARNING_RATE, 0.1, "smaller steps stay where the loss is smooth"))
        .remedy(Remedy::set(&keys::OPTIM_CLIP_NORM, 1.0, "bounds the step of a single bad batch"))
        .remedy(Remedy::check(
            &keys::SCHEDULE_WARMUP_STEPS,
            "a warm-up of a few percent of the run",
            "the first steps are the ones that break",
        ))
}
