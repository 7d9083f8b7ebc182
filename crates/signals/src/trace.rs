//! The signals of a run as columns over steps.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::names::Signal;
use crate::record::Record;

/// One signal over the steps at which it was measured: steps ascend strictly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Column {
    steps: Vec<u64>,
    values: Vec<f64>,
}

impl Column {
    /// A column of measurements in any order; of several at one step the last counts.
    pub fn new(steps: Vec<u64>, values: Vec<f64>) -> Self {
        let length = steps.len().min(values.len());
        if steps[..length].is_sorted_by(|a, b| a < b) {
            let (mut steps, mut values) = (steps, values);
            steps.truncate(length);
            values.truncate(length);
            return Self { steps, values };
        }
        let mut order: Vec<usize> = (0..length).collect();
        order.sort_by_key(|&at| steps[at]);
        let mut column = Self::default();
        for at in order {
            column.insert(steps[at], values[at]);
        }
        column
    }

    /// Steps at which the signal was measured, ascending.
    pub fn steps(&self) -> &[u64] {
        &self.steps
    }

    /// The value at each of the [`steps`](Self::steps); may be `NaN` or infinite.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Number of measurements.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is no measurement.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// `(step, value)`, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, f64)> + ExactSizeIterator {
        self.steps.iter().copied().zip(self.values.iter().copied())
    }

    /// The value measured at exactly `step`.
    pub fn at(&self, step: u64) -> Option<f64> {
        let at = self.steps.binary_search(&step).ok()?;
        Some(self.values[at])
    }

    /// The last measurement at or before `step`.
    pub fn at_or_before(&self, step: u64) -> Option<(u64, f64)> {
        let after = self.steps.partition_point(|&known| known <= step);
        let at = after.checked_sub(1)?;
        Some((self.steps[at], self.values[at]))
    }

    /// The first measurement.
    pub fn first(&self) -> Option<(u64, f64)> {
        self.iter().next()
    }

    /// The last measurement.
    pub fn last(&self) -> Option<(u64, f64)> {
        self.iter().next_back()
    }

    /// The highest value that is not `NaN`; the earliest among equals.
    pub fn highest(&self) -> Option<(u64, f64)> {
        self.best(|value, best| value > best)
    }

    /// The lowest value that is not `NaN`; the earliest among equals.
    pub fn lowest(&self) -> Option<(u64, f64)> {
        self.best(|value, best| value < best)
    }

    fn best(&self, better: impl Fn(f64, f64) -> bool) -> Option<(u64, f64)> {
        self.iter()
            .filter(|(_, value)| !value.is_nan())
            .reduce(|best, next| if better(next.1, best.1) { next } else { best })
    }

    /// Sets the value at a step. A step measured again keeps the later value.
    pub fn insert(&mut self, step: u64, value: f64) {
        // Runs are logged in order, so this is nearly always an append.
        if self.steps.last().is_none_or(|&last| last < step) {
            self.steps.push(step);
            self.values.push(value);
            return;
        }
        match self.steps.binary_search(&step) {
            Ok(at) => self.values[at] = value,
            Err(at) => {
                self.steps.insert(at, step);
                self.values.insert(at, value);
            }
        }
    }

    fn since(&self, step: u64) -> Self {
        let from = self.steps.partition_point(|s| *s <= step);
        let steps = self.steps[from..].iter().map(|s| s - step).collect();
        Self { steps, values: self.values[from..].to_vec() }
    }

    fn through(&self, step: u64) -> Self {
        let end = self.steps.partition_point(|&known| known <= step);
        Self { steps: self.steps[..end].to_vec(), values: self.values[..end].to_vec() }
    }
}

/// All signals of a run. A signal that was never measured has no column, which is different from a
/// column of `NaN`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    columns: BTreeMap<String, Column>,
    epochs: Column,
    times: Column,
}

impl Trace {
    /// A trace without signals.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds all values of a record. Records of one step complement each other; the later value of a
    /// signal wins.
    pub fn push(&mut self, record: &Record) {
        self.epochs.insert(record.step, record.epoch as f64);
        self.times.insert(record.step, record.time);
        for (name, value) in &record.values {
            self.insert(name, record.step, *value);
        }
    }

    /// Sets one value of one signal, for logs that know no epoch or time.
    pub fn insert(&mut self, name: &str, step: u64, value: f64) {
        // Looked up first: `entry` would allocate the name for every value.
        if let Some(column) = self.columns.get_mut(name) {
            column.insert(step, value);
        } else {
            let mut column = Column::default();
            column.insert(step, value);
            self.columns.insert(name.to_owned(), column);
        }
    }

    /// Sets a whole column, replacing an earlier one. An empty column is not kept: it was never measured.
    pub fn set(&mut self, name: impl Into<String>, column: Column) {
        if !column.is_empty() {
            self.columns.insert(name.into(), column);
        }
    }

    /// Sets the epoch of each record.
    pub fn set_epochs(&mut self, epochs: Column) {
        self.epochs = epochs;
    }

    /// Sets the seconds since the start of the run at each record.
    pub fn set_times(&mut self, times: Column) {
        self.times = times;
    }

    /// The column of a name; `None` when it was never measured.
    pub fn get(&self, name: &str) -> Option<&Column> {
        self.columns.get(name)
    }

    /// The groups of a signal with their columns, in order of the group's name; the ungrouped column has
    /// the group `""`.
    pub fn groups<'a>(&'a self, signal: &'a Signal) -> impl Iterator<Item = (&'a str, &'a Column)> {
        self.columns
            .range::<str, _>((Bound::Included(signal.name), Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(signal.name))
            .filter_map(|(name, column)| Some((signal.group_of(name)?, column)))
    }

    /// The last measurement of a name.
    pub fn last(&self, name: &str) -> Option<(u64, f64)> {
        self.get(name)?.last()
    }

    /// The best value of a name that is not `NaN`; the earliest among equals.
    pub fn best(&self, name: &str, higher_is_better: bool) -> Option<(u64, f64)> {
        let column = self.get(name)?;
        if higher_is_better { column.highest() } else { column.lowest() }
    }

    /// Names that were measured, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.keys().map(String::as_str)
    }

    /// All columns by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Column)> {
        self.columns.iter().map(|(name, column)| (name.as_str(), column))
    }

    /// Every step at which anything was measured, ascending.
    pub fn steps(&self) -> Vec<u64> {
        let mut steps: Vec<u64> = self
            .columns
            .values()
            .chain([&self.epochs])
            .flat_map(|column| column.steps().iter().copied())
            .collect();
        steps.sort_unstable();
        steps.dedup();
        steps
    }

    /// The last step at which anything was measured.
    pub fn last_step(&self) -> Option<u64> {
        self.columns.values().chain([&self.epochs]).filter_map(|column| column.steps().last().copied()).max()
    }

    /// Epoch of each record.
    pub fn epochs(&self) -> &Column {
        &self.epochs
    }

    /// Seconds since the start of the run at each record.
    pub fn times(&self) -> &Column {
        &self.times
    }

    /// The trace as it was after `step`: what a reader would have seen then. Signals first measured
    /// later are absent.
    pub fn through(&self, step: u64) -> Self {
        let columns = self
            .columns
            .iter()
            .map(|(name, column)| (name.clone(), column.through(step)))
            .filter(|(_, column)| !column.is_empty())
            .collect();
        Self { columns, epochs: self.epochs.through(step), times: self.times.through(step) }
    }

    /// The trace after `step`, as that of a run that began there: steps count from it. Signals last measured before are absent.
    pub fn since(&self, step: u64) -> Self {
        let columns = self
            .columns
            .iter()
            .map(|(name, column)| (name.clone(), column.since(step)))
            .filter(|(_, column)| !column.is_empty())
            .collect();
        Self { columns, epochs: self.epochs.since(step), times: self.times.since(step) }
    }
}

impl FromIterator<Record> for Trace {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        let mut trace = Self::new();
        for record in records {
            trace.push(&record);
        }
        trace
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    fn trace() -> Trace {
        [
            Record::new(1, 0, 0.5).with(&names::LOSS_TOTAL, 2.0),
            Record::new(2, 0, 1.0).with(&names::LOSS_TOTAL, f64::NAN).with(&names::VAL_F1, 0.25),
            Record::new(3, 1, 1.5).with(&names::LOSS_TOTAL, 0.5).with(&names::VAL_F1, 0.5),
            Record::new(4, 1, 2.0).with(&names::VAL_F1, 0.5),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn absent_is_not_nan() {
        let trace = trace();
        assert!(trace.get("loss/dice").is_none());
        assert_eq!(trace.last("loss/dice"), None);
        let loss = trace.get("loss/total").expect("logged");
        assert!(loss.at(2).is_some_and(f64::is_nan));
        assert_eq!(loss.at(4), None);
        assert_eq!(loss.at_or_before(4), Some((3, 0.5)));
        assert_eq!(loss.at_or_before(0), None);
    }

    #[test]
    fn the_best_is_the_earliest_and_never_nan() {
        let trace = trace();
        assert_eq!(trace.best("val/f1", true), Some((3, 0.5)));
        assert_eq!(trace.best("loss/total", false), Some((3, 0.5)));
        assert_eq!(trace.best("loss/total", true), Some((1, 2.0)));
        let mut nan = Trace::new();
        nan.insert("val/f1", 1, f64::NAN);
        assert_eq!(nan.best("val/f1", true), None);
    }

    #[test]
    fn steps_are_sorted_whatever_the_order_of_arrival() {
        let mut trace = Trace::new();
        for (step, value) in [(5, 1.0), (2, 2.0), (9, 3.0), (2, 4.0), (7, 5.0)] {
            trace.insert("a/b", step, value);
        }
        let column = trace.get("a/b").expect("logged");
        assert_eq!(column.steps(), [2, 5, 7, 9]);
        assert_eq!(column.values(), [4.0, 1.0, 5.0, 3.0]);
        assert_eq!(trace.steps(), [2, 5, 7, 9]);
        assert_eq!(trace.last_step(), Some(9));
    }

    #[test]
    fn a_cut_trace_shows_what_was_known_then() {
        let cut = trace().through(1);
        assert_eq!(cut.names().collect::<Vec<_>>(), ["loss/total"]);
        assert_eq!(cut.steps(), [1]);
        assert_eq!(cut.times().last(), Some((1, 0.5)));
    }

    #[test]
    fn groups_of_a_signal_are_found_and_others_are_not() {
        let mut trace = Trace::new();
        for name in ["val/f1", "val/f1/student", "val/f1/teacher", "val/f1_old", "val/iou"] {
            trace.insert(name, 1, 1.0);
        }
        let groups: Vec<&str> = trace.groups(&names::VAL_F1).map(|(group, _)| group).collect();
        assert_eq!(groups, ["", "student", "teacher"]);
    }
}
