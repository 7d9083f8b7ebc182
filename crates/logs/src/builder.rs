//! Where readers put what they find.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use trimtab_signals::{Column, Facts, Key, Run, Trace};

use crate::vocabulary;

/// Measurements kept of one column before it is thinned out.
const COLUMN_LIMIT: usize = 1 << 16;
/// Measurements kept in all.
const TOTAL_LIMIT: usize = 1 << 22;
/// No column is thinned out below this.
const COLUMN_FLOOR: usize = 1 << 8;
/// Columns kept: those at their floor fit into the total.
const COLUMNS: usize = TOTAL_LIMIT / COLUMN_FLOOR;
/// Longest name of a column, in bytes.
const LONGEST_NAME: usize = 1_000;
/// Most declarations passed on; each may be a table.
const DECLARATIONS: usize = 10_000;
/// Most notes.
const NOTES: usize = 20;

/// A column of a [`RunBuilder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnId(usize);

/// The column of names that are not kept.
const NOWHERE: ColumnId = ColumnId(usize::MAX);

/// Collects the measurements and declarations of one run under the names the log has, and maps them at the end.
///
/// Memory is bounded: a column with very many measurements is thinned out, keeping the first and the last, the lowest and the
/// highest, and the first of those that are not finite, of each six neighbours at most half. Columns beyond 16,384 are left out.
///
/// A step lower than the one before it in the same column is a run resumed at an earlier step: what was measured beyond it is
/// replaced. Where most steps only repeat, or go back too often for a resumed run, they say nothing and measurements are numbered in
/// their order instead.
#[derive(Debug)]
pub struct RunBuilder {
    columns: Vec<Points>,
    ids: HashMap<String, usize>,
    epochs: Points,
    times: Points,
    facts: Facts,
    declarations: usize,
    notes: Vec<String>,
    left_out: bool,
    total: usize,
    limit: usize,
}

/// One column, in the order of arrival.
#[derive(Debug, Default)]
struct Points {
    name: String,
    /// The signal, where the reader knows it.
    signal: Option<String>,
    steps: Vec<u64>,
    values: Vec<f64>,
    /// Measurements that arrived, those thinned out since included.
    arrived: usize,
    /// Neighbours with the same step.
    repeats: usize,
    /// Neighbours of which the later has the lower step.
    rewinds: usize,
    /// How often the log said itself that the run was resumed at an earlier step.
    resumed: usize,
    thinned: bool,
}

/// How the steps of a column are to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Steps {
    /// They ascend, but for repeated ones, of which the last counts.
    Ascend,
    /// The run was resumed at earlier steps.
    Resumed,
    /// They are no steps: the order of arrival is all there is.
    Unusable,
}

impl Default for RunBuilder {
    fn default() -> Self {
        Self {
            columns: Vec::new(),
            ids: HashMap::new(),
            epochs: Points::default(),
            times: Points::default(),
            facts: Facts::new(),
            declarations: 0,
            notes: Vec::new(),
            left_out: false,
            total: 0,
            limit: COLUMN_LIMIT,
        }
    }
}

impl RunBuilder {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The column of a logged name, to be looked up once rather than for each value.
    pub fn column(&mut self, logged: &str) -> ColumnId {
        if let Some(&at) = self.ids.get(logged) {
            return ColumnId(at);
        }
        let at = self.columns.len();
        if at >= COLUMNS || logged.len() > LONGEST_NAME {
            self.left_out = true;
            return NOWHERE;
        }
        self.columns.push(Points { name: logged.to_owned(), ..Points::default() });
        self.ids.insert(logged.to_owned(), at);
        ColumnId(at)
    }

    /// Says which signal a column is, where the format knows better than the general rules.
    pub fn is_signal(&mut self, column: ColumnId, signal: impl Into<String>) {
        if let Some(points) = self.columns.get_mut(column.0) {
            points.signal = Some(signal.into());
        }
    }

    /// One measurement. Negative steps count as 0.
    pub fn push(&mut self, column: ColumnId, step: i64, value: f64) {
        let Some(points) = self.columns.get_mut(column.0) else { return };
        let before = points.steps.len();
        points.push(step, value, self.limit);
        self.total = (self.total + points.steps.len()).saturating_sub(before);
        if self.total > TOTAL_LIMIT && self.limit > COLUMN_FLOOR {
            self.limit /= 2;
            for points in &mut self.columns {
                points.thin_to(self.limit);
            }
            self.total = self.columns.iter().map(|points| points.steps.len()).sum();
        }
    }

    /// Forgets what a column measured at a step and beyond it: the log says that the run was resumed from there.
    pub fn forget_from(&mut self, column: ColumnId, step: i64) {
        let Some(points) = self.columns.get_mut(column.0) else { return };
        let before = points.steps.len();
        points.forget_from(step);
        self.total = self.total.saturating_sub(before - points.steps.len());
    }

    /// One measurement by name.
    pub fn put(&mut self, logged: &str, step: i64, value: f64) {
        let column = self.column(logged);
        self.push(column, step, value);
    }

    /// The epoch, from 0, in which a step lies.
    pub fn epoch(&mut self, step: i64, epoch: f64) {
        self.epochs.push(step, epoch, COLUMN_LIMIT);
    }

    /// Seconds since the start of the run at a step.
    pub fn time(&mut self, step: i64, seconds: f64) {
        self.times.push(step, seconds, COLUMN_LIMIT);
    }

    /// A declared value under the name its framework has for it (`args.lr`, `train_batch_size`); tables and lists are flattened.
    pub fn declare(&mut self, logged: &str, value: &Value) {
        if self.declarations < DECLARATIONS {
            self.declarations += 1;
            vocabulary::declare(&mut self.facts, logged, value);
        }
    }

    /// A declared value of a known key.
    pub fn fact(&mut self, key: &Key, value: impl Into<Value>) {
        self.facts.set(key.name, value);
    }

    /// What is declared so far.
    pub fn facts(&mut self) -> &mut Facts {
        &mut self.facts
    }

    /// Something a user should know about the log itself.
    pub fn note(&mut self, note: impl Into<String>) {
        if self.notes.len() < NOTES {
            self.notes.push(note.into());
        }
    }

    /// Whether there is any measurement.
    pub fn is_empty(&self) -> bool {
        self.columns.iter().all(|points| points.steps.is_empty())
    }

    /// The run, with its columns mapped to signals.
    ///
    /// Of two columns that a reader gave the same signal the longer one has it. A reader's word counts more than the general
    /// rules. The other column keeps its logged name.
    pub fn finish(mut self, name: &str, format: &str) -> Run {
        self.columns.retain(|points| !points.steps.is_empty());
        let (signals, test_for_validation) = self.signals();
        if test_for_validation {
            self.notes.push("no validation split: the test split is taken for it".to_owned());
        }
        let mut run = Run { name: name.to_owned(), format: format.to_owned(), ..Run::default() };
        let mut trace = Trace::new();
        let taken: HashSet<String> = signals.iter().flatten().cloned().collect();
        let (mut rewinds, mut unusable, mut thinned) = (0, Vec::new(), false);
        for (points, signal) in self.columns.into_iter().zip(signals) {
            let logged = points.name.clone();
            let (column, steps) = (signal.unwrap_or_else(|| unmapped_name(&logged, &taken)), points.steps());
            match steps {
                Steps::Ascend => rewinds = rewinds.max(points.resumed),
                Steps::Resumed => rewinds = rewinds.max(points.rewinds + points.resumed),
                Steps::Unusable => unusable.push(logged.clone()),
            }
            thinned |= points.thinned;
            if !taken.contains(&column) {
                run.unmapped.push(column.clone());
            }
            if taken.contains(&column) || column != logged {
                run.logged_as.insert(column.clone(), logged);
            }
            trace.set(column, points.column());
        }
        trace.set_epochs(self.epochs.column());
        trace.set_times(self.times.column());
        if rewinds > 0 {
            let times = if rewinds == 1 { "once".to_owned() } else { format!("{rewinds} times") };
            self.notes.push(format!("the steps go back {times}: a resumed run; the later values count"));
        }
        if let [first, others @ ..] = unusable.as_slice() {
            let others =
                if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
            self.notes.push(format!(
                "the steps of `{first}`{others} repeat or go back too often to be steps: counted in order of arrival"
            ));
        }
        if thinned {
            self.notes
                .push("very long columns were thinned out, keeping lowest and highest values".to_owned());
        }
        if self.left_out {
            self.notes.push(format!("more than {COLUMNS} columns, or names too long: some were left out"));
        }
        run.trace = trace;
        run.facts = self.facts;
        run.notes = self.notes;
        run
    }

    /// The signal of each column, no two the same; and whether the test split is taken for that of validation.
    fn signals(&self) -> (Vec<Option<String>>, bool) {
        let mut signals: Vec<Option<String>> = vec![None; self.columns.len()];
        let mut owner: HashMap<&str, usize> = HashMap::new();
        for (at, points) in self.columns.iter().enumerate() {
            let Some(signal) = points.signal.as_deref() else { continue };
            match owner.get(signal) {
                Some(&known) if self.columns[known].steps.len() >= points.steps.len() => {}
                _ => drop(owner.insert(signal, at)),
            }
        }
        for (signal, &at) in &owner {
            signals[at] = Some((*signal).to_owned());
        }
        let logged: Vec<&str> = self.columns.iter().map(|points| points.name.as_str()).collect();
        let validated = owner.keys().any(|signal| signal.starts_with("val/"));
        let (mapped, test_for_validation) = vocabulary::map_beside(&logged, validated);
        for (at, mapped) in mapped.into_iter().enumerate() {
            if self.columns[at].signal.is_none()
                && mapped.as_deref().is_some_and(|new| !owner.contains_key(new))
            {
                signals[at] = mapped;
            }
        }
        (signals, test_for_validation)
    }
}

/// The logged name, changed where it would be taken for another column's signal.
fn unmapped_name(logged: &str, taken: &HashSet<String>) -> String {
    if taken.contains(logged) || trimtab_signals::names::of(logged).is_some() {
        return format!("{logged} (as logged)");
    }
    logged.to_owned()
}

impl Points {
    fn push(&mut self, step: i64, value: f64, limit: usize) {
        let step = u64::try_from(step).unwrap_or(0);
        if let Some(&last) = self.steps.last() {
            self.repeats += usize::from(step == last);
            self.rewinds += usize::from(step < last);
        }
        self.steps.push(step);
        self.values.push(value);
        self.arrived += 1;
        self.thin_to(limit);
    }

    fn forget_from(&mut self, step: i64) {
        let step = u64::try_from(step).unwrap_or(0);
        let before = self.steps.len();
        let mut known = self.steps.iter();
        self.values.retain(|_| known.next().is_some_and(|&known| known < step));
        self.steps.retain(|&known| known < step);
        self.resumed += usize::from(self.steps.len() < before);
    }

    /// Halves the column until it is short enough.
    fn thin_to(&mut self, limit: usize) {
        // Below a dozen there is nothing to halve, as the ends always stay.
        while self.steps.len() > limit.max(12) {
            self.thin();
        }
    }

    /// Of each six neighbours the lowest, the highest and the first that is not finite stay, and the ends of the column.
    fn thin(&mut self) {
        self.thinned = true;
        let last = self.steps.len() - 1;
        let mut kept = 0;
        for start in (0..=last).step_by(6) {
            let group = start..(start + 6).min(last + 1);
            let finite = || group.clone().filter(|&at| self.values[at].is_finite());
            let lowest =
                finite().reduce(|best, at| if self.values[at] < self.values[best] { at } else { best });
            let highest =
                finite().reduce(|best, at| if self.values[at] > self.values[best] { at } else { best });
            let odd = group.clone().find(|&at| !self.values[at].is_finite());
            for at in group {
                if [lowest, highest, odd, Some(0), Some(last)].contains(&Some(at)) {
                    self.steps[kept] = self.steps[at];
                    self.values[kept] = self.values[at];
                    kept += 1;
                }
            }
        }
        self.steps.truncate(kept);
        self.values.truncate(kept);
    }

    /// A resumed run goes back a few times and loses little. Steps that start anew in each epoch, or two series under one name, go
    /// back often, and would lose most of what was measured.
    fn steps(&self) -> Steps {
        if self.repeats * 2 > self.arrived {
            return Steps::Unusable;
        }
        if self.rewinds == 0 {
            return Steps::Ascend;
        }
        let often = self.rewinds * 10 > self.arrived;
        let kept = self.after_the_last_rewind().len();
        if self.rewinds > 2 && (often || kept * 3 < self.steps.len() * 2) {
            return Steps::Unusable;
        }
        Steps::Resumed
    }

    /// Places of the measurements that no later one at a lower step replaces, ascending.
    fn after_the_last_rewind(&self) -> Vec<usize> {
        let mut kept = Vec::with_capacity(self.steps.len());
        let mut lowest = u64::MAX;
        for (at, &step) in self.steps.iter().enumerate().rev() {
            // Equal steps stay: there the last one counts anyway.
            if step <= lowest {
                lowest = step;
                kept.push(at);
            }
        }
        kept.reverse();
        kept
    }

    fn column(self) -> Column {
        match self.steps() {
            Steps::Ascend => Column::new(self.steps, self.values),
            Steps::Unusable => Column::new((0..self.steps.len() as u64).collect(), self.values),
            Steps::Resumed => {
                let kept = self.after_the_last_rewind();
                Column::new(
                    kept.iter().map(|&at| self.steps[at]).collect(),
                    kept.iter().map(|&at| self.values[at]).collect(),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The column `x` of these measurements.
    fn column(points: &[(i64, f64)]) -> Vec<(u64, f64)> {
        let mut builder = RunBuilder::new();
        for &(step, value) in points {
            builder.put("x", step, value);
        }
        let run = builder.finish("run", "test");
        run.trace.get("x").map(|column| column.iter().collect()).unwrap_or_default()
    }

    #[test]
    fn a_resumed_run_replaces_what_it_measures_again() {
        let points = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (2, 20.0), (3, 30.0)];
        assert_eq!(column(&points), [(1, 1.0), (2, 20.0), (3, 30.0)]);
        // Started anew: the later run counts.
        assert_eq!(column(&[(1, 1.0), (2, 2.0), (0, 9.0)]), [(0, 9.0)]);
        assert_eq!(column(&[(5, 1.0), (5, 2.0), (6, 3.0), (7, 4.0)]), [(5, 2.0), (6, 3.0), (7, 4.0)]);
        assert_eq!(column(&[(-5, 1.0), (i64::MAX, 2.0)]), [(0, 1.0), (i64::MAX as u64, 2.0)]);
    }

    #[test]
    fn what_the_log_takes_back_is_forgotten() {
        let mut builder = RunBuilder::new();
        let x = builder.column("x");
        for step in 0..10 {
            builder.push(x, step, step as f64);
        }
        builder.forget_from(x, 4);
        builder.forget_from(x, 50);
        builder.push(x, 7, 70.0);
        assert_eq!(builder.total, 5);
        let run = builder.finish("run", "test");
        assert_eq!(run.trace.get("x").map(Column::steps), Some([0, 1, 2, 3, 7].as_slice()));
        assert_eq!(run.notes, ["the steps go back once: a resumed run; the later values count"]);
    }

    #[test]
    fn nothing_is_lost_where_the_steps_say_nothing() {
        let interleaved: Vec<_> =
            (0..20).map(|at| (if at % 2 == 0 { at } else { 100 + at }, at as f64)).collect();
        let by_epoch: Vec<_> = (0..200).map(|at| (at % 50, at as f64)).collect();
        let constant: Vec<_> = (0..20).map(|at| (0, at as f64)).collect();
        for points in [interleaved, by_epoch, constant] {
            let expected: Vec<_> = (0..points.len() as u64).map(|at| (at, at as f64)).collect();
            assert_eq!(column(&points), expected);
        }
    }

    #[test]
    fn a_long_column_keeps_its_ends_its_extremes_and_what_is_not_finite() {
        let mut points: Vec<_> = (0..500_000).map(|at| (at, (at as f64 * 0.01).sin())).collect();
        points[123_456].1 = 77.0;
        points[123_457].1 = f64::NAN;
        points[234_567].1 = -77.0;
        points[345_678].1 = f64::INFINITY;
        let kept = column(&points);
        assert!(kept.len() <= COLUMN_LIMIT && kept.len() > COLUMN_LIMIT / 8, "{}", kept.len());
        for at in [0, 123_456, 234_567, 345_678, 499_999] {
            assert!(kept.contains(&(at as u64, points[at].1)), "{at}");
        }
        assert!(kept.iter().any(|&(step, value)| step == 123_457 && value.is_nan()));
        assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn all_columns_together_are_bounded() {
        let mut builder = RunBuilder::new();
        let columns: Vec<ColumnId> = (0..300).map(|at| builder.column(&format!("c{at}"))).collect();
        for step in 0..20_000 {
            for &column in &columns {
                builder.push(column, step, step as f64);
            }
        }
        let kept: usize = builder.columns.iter().map(|points| points.steps.len()).sum();
        assert!(kept <= TOTAL_LIMIT && kept > TOTAL_LIMIT / 8, "{kept}");
        assert_eq!(builder.total, kept);
        assert_eq!(builder.finish("run", "test").trace.last("c7"), Some((19_999, 19_999.0)));
    }

    #[test]
    fn columns_beyond_the_limit_are_left_out_and_noted() {
        let mut builder = RunBuilder::new();
        for at in 0..COLUMNS + 5 {
            builder.put(&format!("c{at}"), 1, 1.0);
        }
        builder.put(&"n".repeat(5_000), 1, 1.0);
        builder.is_signal(NOWHERE, "val/loss");
        let run = builder.finish("run", "test");
        assert_eq!(run.trace.names().count(), COLUMNS);
        assert!(run.notes.iter().any(|note| note.contains("left out")), "{:?}", run.notes);
    }

    #[test]
    fn of_two_columns_of_one_signal_the_longer_one_has_it() {
        let mut builder = RunBuilder::new();
        let (short, long) = (builder.column("a"), builder.column("b"));
        builder.is_signal(short, "val/loss");
        builder.is_signal(long, "val/loss");
        builder.push(short, 1, 1.0);
        for step in 0..3 {
            builder.push(long, step, 2.0);
        }
        // Mapped by the general rules, which give way to the reader.
        builder.put("val_loss", 1, 3.0);
        // A name that would be taken for the signal.
        builder.put("val/loss", 1, 4.0);
        let run = builder.finish("run", "test");
        assert_eq!(run.trace.get("val/loss").map(Column::len), Some(3));
        assert_eq!(run.logged_name("val/loss"), "b");
        assert_eq!(run.unmapped, ["a", "val_loss", "val/loss (as logged)"]);
        assert_eq!(run.logged_name("val/loss (as logged)"), "val/loss");
        assert_eq!(run.trace.last("a"), Some((1, 1.0)));
    }

    #[test]
    fn the_test_split_is_taken_for_validation_only_where_there_is_none() {
        let run = |reader_knows: bool| {
            let mut builder = RunBuilder::new();
            builder.put("train_loss", 1, 1.0);
            builder.put("test_acc", 1, 0.5);
            let column = builder.column("Dice");
            builder.push(column, 1, 0.5);
            if reader_knows {
                builder.is_signal(column, "val/dice");
            }
            builder.finish("run", "test")
        };
        assert_eq!(run(false).trace.last("val/accuracy"), Some((1, 0.5)));
        assert_eq!(run(false).notes, ["no validation split: the test split is taken for it"]);
        assert_eq!(run(true).trace.last("test/metric/accuracy"), Some((1, 0.5)));
        assert!(run(true).notes.is_empty());
    }

    proptest! {
        #[test]
        fn any_measurements_give_a_column_of_those_measured(
            points in prop::collection::vec((0_i64..50, prop::num::f64::ANY), 0..200),
        ) {
            let kept = column(&points);
            prop_assert_eq!(kept.is_empty(), points.is_empty());
            prop_assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
            for (_, value) in &kept {
                prop_assert!(points.iter().any(|(_, known)| known.to_bits() == value.to_bits()));
            }
            if let (Some(last), Some(measured)) = (kept.last(), points.last()) {
                prop_assert_eq!(last.1.to_bits(), measured.1.to_bits());
            }
        }

        #[test]
        fn thinning_keeps_order_ends_and_extremes(
            values in prop::collection::vec(prop_oneof![9 => -1e3..1e3, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)], 13..400),
            limit in 12_usize..40,
        ) {
            let mut points = Points::default();
            for (at, value) in values.iter().enumerate() {
                points.push(at as i64, *value, usize::MAX);
            }
            points.thin_to(limit);
            prop_assert!(points.steps.len() <= limit);
            prop_assert!(points.steps.is_sorted_by(|a, b| a < b));
            prop_assert_eq!(points.steps.first(), Some(&0));
            prop_assert_eq!(points.steps.last(), Some(&(values.len() as u64 - 1)));
            let finite = |values: &[f64]| -> Vec<f64> { values.iter().copied().filter(|v| v.is_finite()).collect() };
            let extremes = |values: &[f64]| {
                let values = finite(values);
                (values.iter().copied().reduce(f64::min), values.iter().copied().reduce(f64::max))
            };
            prop_assert_eq!(extremes(&points.values), extremes(&values));
            let odd = values.iter().position(|value| !value.is_finite());
            prop_assert!(odd.is_none_or(|odd| points.steps.contains(&(odd as u64))));
        }
    }
}
