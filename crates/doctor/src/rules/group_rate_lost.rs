use trimtab_signals::{Column, keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::median;
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "group-rate-lost",
    summary: "a parameter group has lost its own learning rate",
    severity: Severity::Warning,
    docs: include_str!("group_rate_lost.md"),
};

pub(super) static RULE: GroupRateLost = GroupRateLost { apart: 1.5, same: 0.01, most: 0.9, measurements: 5 };

pub(super) struct GroupRateLost {
    /// Declared rates that differ by this factor were meant to differ.
    apart: f64,
    /// Relative difference that is none.
    same: f64,
    /// Share of the measurements that is nearly all.
    most: f64,
    /// Fewer are chance.
    measurements: usize,
}

/// A group's name and its rate.
type Group<'a> = (&'a str, &'a Column);

/// Two groups and their rates where both have one, by step.
struct Pair<'a> {
    low: &'a str,
    high: &'a str,
    rates: Vec<(u64, f64, f64)>,
}

impl Rule for GroupRateLost {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let columns: Vec<Group<'_>> = view
            .groups(&names::OPTIM_LEARNING_RATE)
            .into_iter()
            .filter(|(group, _)| !group.is_empty())
            .collect();
        if columns.len() < 2 {
            return Err(Missing::new(format!("{} of two groups and more", names::OPTIM_LEARNING_RATE.name)));
        }
        // All pairs of a few groups; of many (decay by layer) each with the first.
        let few = columns.len() <= 8;
        let pairs = columns.iter().enumerate().flat_map(|(at, a)| {
            columns[at + 1..].iter().filter(move |_| few || at == 0).map(move |b| (*a, *b))
        });
        let pairs: Vec<(Group<'_>, Group<'_>)> = pairs.collect();
        let found = pairs
            .iter()
            .find_map(|&(a, b)| self.identical(view, a, b))
            .or_else(|| pairs.iter().find_map(|&(a, b)| self.erased(a, b)))
            .or_else(|| self.stuck(view, &columns));
        Ok(found.into_iter().collect())
    }
}

impl GroupRateLost {
    /// Declared apart, logged the same.
    fn identical(&self, view: &View<'_>, a: Group<'_>, b: Group<'_>) -> Option<Finding> {
        let declared = view.numbers_by_group(&keys::OPTIM_LEARNING_RATE);
        let of =
            |group: &str| declared.iter().find(|(g, _)| *g == group).map(|(_, v)| *v).filter(|v| *v > 0.0);
        let (rate_a, rate_b) = (of(a.0)?, of(b.0)?);
        if rate_a.max(rate_b) < self.apart * rate_a.min(rate_b) {
            return None;
        }
        let pair = Pair::new(a, b, rate_a > rate_b);
        let same = pair.rates.iter().filter(|(_, low, high)| (high / low - 1.0).abs() <= self.same).count();
        if pair.rates.len() < self.measurements || (same as f64) < self.most * pair.rates.len() as f64 {
            return None;
        }
        let (low, high) = (rate_a.min(rate_b), rate_a.max(rate_b));
        let message = format!(
            "`{}` and `{}` have the same learning rate in {same} of {} measurements, though {} and {} \
            are declared",
            pair.low,
            pair.high,
            pair.rates.len(),
            show(low),
            show(high),
        );
        let finding = Finding::new(&META, message)
            .evidence("declared_low", low)
            .evidence("declared_high", high)
            .evidence("logged", pair.rates.last()?.1);
        self.complete(finding, &pair, 0)
    }

    /// A lower rate that from one step on equals the higher one.
    fn erased(&self, a: Group<'_>, b: Group<'_>) -> Option<Finding> {
        let ratios =
            |pair: &Pair<'_>| -> Vec<f64> { pair.rates.iter().map(|(_, low, high)| low / high).collect() };
        let pair = Pair::new(a, b, false);
        let early = ratios(&pair);
        let pair = if *early.first()? > 1.0 { Pair::new(a, b, true) } else { pair };
        let ratios = ratios(&pair);
        let start = ratios.iter().rposition(|r| (r - 1.0).abs() > self.same)? + 1;
        let (before, after) = (ratios.get(..start)?, ratios.get(start..)?);
        if before.len() < self.measurements || after.len() < self.measurements {
            return None;
        }
        // Apart by a constant factor before: a warm-up by group, or a decay of one, changes it bit by bit.
        let recent = &before[before.len() - self.measurements..];
        let level = median(recent.iter().copied())?;
        let steady = recent.iter().all(|r| (r / level - 1.0).abs() <= self.same);
        let (_, low_before, high_before) = *pair.rates.get(start - 1)?;
        let (step, low_after, _) = *pair.rates.get(start)?;
        // Where only the higher one came down to the other, somebody lowered it.
        let lowered = (low_after / low_before - 1.0).abs() <= self.same;
        if !steady || lowered || level * self.apart > 1.0 {
            return None;
        }
        let message = format!(
            "the learning rate of `{}` was {} of that of `{}` until step {step}, and equals it from \
            there on: a scheduler with one maximum for all has erased it",
            pair.low,
            show(level),
            pair.high,
        );
        let finding = Finding::new(&META, message)
            .evidence("ratio_before", level)
            .evidence("rate_before", low_before)
            .evidence("rate_after", low_after)
            .evidence("other_before", high_before);
        self.complete(finding, &pair, start)
    }

    /// After unfreezing, a rate that does not move while another's does.
    fn stuck(&self, view: &View<'_>, columns: &[Group<'_>]) -> Option<Finding> {
        let unfreeze = view.number(&keys::MODEL_UNFREEZE_STEP).or_else(|| {
            view.number(&keys::MODEL_FREEZE_EPOCHS)
                .zip(view.steps_per_epoch())
                .map(|(epochs, steps)| epochs * steps)
        })?;
        let after = |column: &Column| -> Vec<(u64, f64)> {
            column.iter().filter(|(step, v)| *step as f64 > unfreeze && v.is_finite()).collect()
        };
        // How far it moves, relative to its highest.
        let moves = |column: &Column| {
            let tail = after(column);
            let high = tail.iter().map(|(_, v)| *v).fold(f64::NEG_INFINITY, f64::max);
            let low = tail.iter().map(|(_, v)| *v).fold(f64::INFINITY, f64::min);
            (tail.len() >= self.measurements).then_some(if high > 0.0 { (high - low) / high } else { 0.0 })
        };
        let moved: Vec<(&str, &Column, f64)> =
            columns.iter().filter_map(|(group, column)| Some((*group, *column, moves(column)?))).collect();
        let (still, _) =
            moved.iter().filter(|(.., by)| *by <= 1e-6).map(|(group, column, _)| (*group, *column)).next()?;
        let (other, _, by) = moved.iter().max_by(|a, b| a.2.total_cmp(&b.2))?;
        // A schedule that has come to its end for one group would not have fallen by half for another.
        if *by < 0.5 {
            return None;
        }
        let column = columns.iter().find(|(group, _)| *group == still)?.1;
        // Constant on purpose: it was so all along, above zero.
        let before: Vec<f64> =
            column.iter().filter(|(step, _)| *step as f64 <= unfreeze).map(|(_, v)| v).collect();
        let tail = after(column);
        let (&(first, rate), &(last, _)) = (tail.first()?, tail.last()?);
        if rate > 0.0 && before.iter().all(|v| (v / rate - 1.0).abs() <= 1e-6) {
            return None;
        }
        // Printed with few digits, a small rate reads as zero.
        let fine = columns.iter().any(|(_, c)| c.values().iter().any(|v| *v > 0.0 && *v < 1e-4));
        if rate == 0.0 && !fine {
            return None;
        }
        let told = tail.get(self.measurements - 1)?.0;
        let message = format!(
            "the learning rate of `{still}` stays at {} after the unfreezing at step {} while that of \
            `{other}` changes by {:.0} %: the scheduler does not drive it",
            show(rate),
            show(unfreeze),
            100.0 * by,
        );
        let finding = Finding::new(&META, message)
            .at(told, first, last)
            .evidence("learning_rate", rate)
            .evidence("other_changes_by", *by)
            .draw(&names::OPTIM_LEARNING_RATE.group(still));
        Some(remedy(finding))
    }

    fn complete(&self, finding: Finding, pair: &Pair<'_>, start: usize) -> Option<Finding> {
        let told = pair.rates.get(start + self.measurements - 1)?.0;
        let finding = finding.at(told, pair.rates.get(start)?.0, pair.rates.last()?.0);
        Some(remedy(finding.draw(&names::OPTIM_LEARNING_RATE.group(pair.low))))
    }
}

impl<'a> Pair<'a> {
    /// The rates of two groups, without the steps at which one is frozen.
    fn new(a: Group<'a>, b: Group<'a>, swap: bool) -> Self {
        let (low, high) = if swap { (b, a) } else { (a, b) };
        let rates = low.1.iter().filter_map(|(step, v)| Some((step, v, high.1.at(step)?)));
        let rates =
            rates.filter(|(_, a, b)| *a > 0.0 && *b > 0.0 && a.is_finite() && b.is_finite()).collect();
        Self { low: low.0, high: high.0, rates }
    }
}

fn remedy(finding: Finding) -> Finding {
    finding.remedy(Remedy::check(
        &keys::SCHEDULE_NAME,
        "build the scheduler after the groups, with one maximum for each, and again whenever the \
        optimizer is rebuilt",
        "a scheduler knows only the groups and rates that were there when it was built",
    ))
}
