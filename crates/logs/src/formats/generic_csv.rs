//! Any table of numbers under names that could be a training log.
//!
//! # Blank cells
//!
//! Scripts leave blank what they did not measure; pandas writes `NaN` as a blank. A blank is taken as not measured, with one
//! exception: a loss (or an error, or a norm of the gradient) that every row has up to some point and no row from there to the
//! end, while rows go on and no other column begins. A loss that is measured in each row does not stop being measured: it became
//! `NaN` and stayed so. Where another column begins, the blanks are another kind of row, or another stage of the run.

use std::collections::HashMap;

use serde_json::Value;
use trimtab_signals::names::{self, Goal};

use super::{Certainty, Format, Layout, Peek, in_the_run_folder};
use crate::builder::{ColumnId, RunBuilder};
use crate::error::LogError;
use crate::input::Input;
use crate::table::{Cell, Row, Table, whole};

pub(super) const FORMAT: Format = Format {
    id: "csv",
    summary: "any table of numbers with a header: CSV, TSV, semicolons or blanks",
    recognise,
    read,
    layout: Layout::File,
    rank: 20,
    depth: in_the_run_folder,
};

/// Names of a column that counts steps, best first, as [`plain`] makes them.
const STEPS: [&str; 27] = [
    "global_step",
    "globalstep",
    "trainer/global_step",
    "_step",
    "step",
    "steps",
    "train_step",
    "training_step",
    "num_updates",
    "updates",
    "time/total_timesteps",
    "total_timesteps",
    "timesteps",
    "timestep",
    "num_timesteps",
    "n_iter",
    "global_iteration",
    "iteration",
    "iterations",
    "iter_num",
    "iter",
    "it",
    "batch",
    "batch_idx",
    "batch_id",
    "minibatch",
    "episode",
];
const EPOCHS: [&str; 6] = ["epoch", "epochs", "ep", "current_epoch", "epoch_num", "num_epochs"];
/// Names of a column that only numbers the rows.
const NUMBERS: [&str; 4] = ["unnamed:_0", "index", "idx", "row"];
/// Names of a column of seconds since the start, or since 1970.
const TIMES: [&str; 10] = [
    "wall_time",
    "walltime",
    "timestamp",
    "_timestamp",
    "elapsed",
    "elapsed_time",
    "time_elapsed",
    "time/time_elapsed",
    "_runtime",
    "relative_time_(process)",
];
/// Names of a column that says which samples a row is about.
const PHASES: [&str; 7] = ["split", "phase", "mode", "stage", "set", "subset", "partition"];
/// Rows that are looked at before it is decided what the columns are.
const SAMPLE: usize = 200;
/// Rows of a filled column before its blanks can mean anything.
const DENSE: u64 = 3;
/// Steps at the end of a table that are kept for columns that turn out to be `NaN` there.
const LONGEST_TAIL: usize = 1 << 16;
/// Metrics of a table with one value a row.
const MOST_METRICS: usize = 1 << 14;

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    let mut table = Table::peek(peek)?;
    let header = table.header();
    let numeric = header.iter().filter(|name| fast_float2::parse::<f64, _>(name.as_bytes()).is_ok()).count();
    let repeated = header.iter().filter(|name| name.starts_with("Unnamed: ")).count();
    let prose = header.iter().filter(|name| name.len() > 100 || name.contains(['{', '}', '\u{0}'])).count();
    if numeric * 10 > header.len() || repeated * 4 > header.len().max(4) || prose > 0 {
        return None;
    }
    // Tables of coordinates and labels have numbers under names, too: a log counts steps or has a metric.
    let plain: Vec<String> = header.iter().take(10_000).map(|name| self::plain(name)).collect();
    let counts = plain.iter().any(|name| STEPS.contains(&name.as_str()) || EPOCHS.contains(&name.as_str()));
    let measures = header.iter().take(10_000).any(|name| names::goal(name).is_some());
    // One metric alone is a table of results, and one step alone a list.
    if !measures && (!counts || header.len() == 1) {
        return None;
    }
    let (mut rows, mut numbers, mut texts) = (0, 0, 0);
    while rows < SAMPLE
        && let Some(row) = table.next_row()
    {
        rows += 1;
        for cell in row.values() {
            match cell {
                Cell::Number(_) => numbers += 1,
                Cell::Text => texts += 1,
                Cell::Blank => {}
            }
        }
    }
    // Of a very wide table not even the header is whole here.
    let wide = rows == 0 && !peek.complete && table.header().len() > 100;
    (wide || numbers > 0 && numbers >= texts).then_some(Certainty::Generic)
}

/// A column's name for comparison.
fn plain(name: &str) -> String {
    name.trim().to_lowercase().replace([' ', '-'], "_")
}

pub(super) fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    for input in inputs {
        let mut table = Table::open(input)?;
        let roles = Roles::of(table.header(), &sample(input));
        let names = names_of(table.header(), input);
        Reading::new(roles, names, builder).rows(&mut table);
        table.finish(input, builder)?;
    }
    Ok(())
}

/// What the first rows hold, column by column; less where memory would suffer.
fn sample(input: &Input) -> Vec<Vec<f64>> {
    let Ok((head, _)) = input.head() else { return Vec::new() };
    let Some(mut table) = Table::new(head.as_slice()) else { return Vec::new() };
    let mut columns = vec![Vec::new(); table.header().len()];
    let mut rows = 0;
    while rows < SAMPLE
        && let Some(row) = table.next_row()
    {
        rows += 1;
        for (column, cell) in columns.iter_mut().zip(row.values()) {
            if let Cell::Number(number) = cell {
                column.push(number);
            }
        }
    }
    columns
}

/// The names under which the columns are logged.
fn names_of(header: &[String], input: &Input) -> Vec<String> {
    // TensorBoard's download has the tag in the name of the file only: `run-train-tag-loss.csv`.
    if header == ["Wall time", "Step", "Value"] {
        let name = input.name();
        let stem = name.strip_suffix(".csv").unwrap_or(&name);
        let tag = stem.rsplit_once("-tag-").map_or(stem, |(_, tag)| tag);
        return header.iter().map(|name| if name == "Value" { tag } else { name }.to_owned()).collect();
    }
    // That of Weights & Biases has the run before each name: `run - loss`.
    let run = header.get(1).and_then(|name| name.split_once(" - ")).map(|(run, _)| format!("{run} - "));
    match run {
        Some(run) if header.iter().skip(1).all(|name| name.starts_with(&run)) => {
            header.iter().map(|name| name.strip_prefix(&run).unwrap_or(name).to_owned()).collect()
        }
        Some(_) | None => header.to_vec(),
    }
}

/// What the columns are that are no metrics.
#[derive(Default)]
struct Roles {
    step: Option<usize>,
    /// Whether the step is counted anew in each epoch, by its name.
    local: bool,
    epoch: Option<usize>,
    time: Option<usize>,
    phase: Option<usize>,
    /// One value a row: the columns of its name and of the value.
    long: Option<(usize, usize)>,
}

impl Roles {
    fn of(header: &[String], sample: &[Vec<f64>]) -> Self {
        // A role's column is among the first ones, or the table is too wide to care.
        let plain: Vec<String> = header.iter().take(10_000).map(|name| self::plain(name)).collect();
        let at = |name: &str| plain.iter().position(|known| known == name);
        let values = |at: usize| sample.get(at).map(Vec::as_slice).unwrap_or_default();
        let counts = |at: &usize| values(*at).iter().all(|&value| value >= 0.0 && whole(value).is_some());
        let epoch = EPOCHS.iter().find_map(|name| at(name));
        let step = STEPS.iter().filter_map(|name| at(name)).find(counts);
        let number = NUMBERS.iter().filter_map(|name| at(name)).find(counts);
        let ascends = |at: &usize| values(*at).len() > 2 && values(*at).is_sorted_by(|a, b| a < b);
        let named = |list: &[&str]| list.iter().find_map(|name| at(name));
        Self {
            step: step.or_else(|| epoch.filter(counts)).or(number),
            local: step.is_some_and(|at| plain[at].contains("batch")),
            epoch,
            time: TIMES.iter().find_map(|name| at(name)).or_else(|| at("time").filter(ascends)),
            // Numbers in such a column are something else.
            phase: PHASES.iter().filter_map(|name| at(name)).find(|&at| values(at).is_empty()),
            long: named(&["metric", "name", "tag", "key"])
                .filter(|&at| values(at).is_empty())
                .zip(named(&["value", "val"])),
        }
    }

    fn is_metric(&self, at: usize) -> bool {
        ![self.step, self.epoch, self.time, self.phase].contains(&Some(at))
    }
}

/// The set of samples that a cell names.
fn phase(cell: &[u8]) -> Option<usize> {
    let is = |words: &[&str]| words.iter().any(|word| cell.eq_ignore_ascii_case(word.as_bytes()));
    if is(&["train", "training", "tr"]) {
        Some(0)
    } else if is(&["val", "valid", "validation", "dev", "eval", "evaluation"]) {
        Some(1)
    } else if is(&["test", "testing"]) {
        Some(2)
    } else {
        None
    }
}
const PREFIXES: [&str; 3] = ["train/", "val/", "test/"];

/// What is known of a column while it is read.
#[derive(Clone, Default)]
struct State {
    /// Whether the column would be blank if it were `NaN`.
    watched: bool,
    /// Rows from the first one on that are all filled.
    filled: u64,
    /// The first filled row.
    first: Option<u64>,
    /// Whether it was filled again after a blank.
    sparse: bool,
    /// Whether it is blank after it was filled so far.
    pending: bool,
    text: Text,
}

#[derive(Clone, Default)]
enum Text {
    #[default]
    None,
    Constant(String),
    Varies,
}

struct Reading<'b> {
    builder: &'b mut RunBuilder,
    roles: Roles,
    names: Vec<String>,
    /// The column of each name, in each phase.
    ids: [Vec<Option<ColumnId>>; 3],
    states: Vec<State>,
    steps: Steps,
    row: u64,
    /// The step of the last row.
    last: i64,
    /// Cells that are text in a column of numbers.
    odd: u64,
    /// The steps from the first row on in which a watched column was blank that had been filled so far.
    tail: Option<(u64, Vec<i64>)>,
    /// Columns whose blanks began in the tail.
    pending: usize,
    metrics: HashMap<String, ColumnId>,
}

impl<'b> Reading<'b> {
    fn new(roles: Roles, names: Vec<String>, builder: &'b mut RunBuilder) -> Self {
        let states = names
            .iter()
            .enumerate()
            .map(|(at, name)| State {
                watched: roles.is_metric(at) && roles.phase.is_none() && could_be_nan(name),
                ..State::default()
            })
            .collect();
        let ids = [(); 3].map(|()| vec![None; if roles.long.is_none() { names.len() } else { 0 }]);
        let steps = Steps { local: roles.local, ..Steps::default() };
        Self {
            builder,
            roles,
            names,
            ids,
            states,
            steps,
            row: 0,
            last: 0,
            odd: 0,
            tail: None,
            pending: 0,
            metrics: HashMap::new(),
        }
    }

    fn rows<R: std::io::BufRead>(mut self, table: &mut Table<R>) {
        let mut start = None;
        let mut first_epoch = None;
        let mut told = None;
        while let Some(row) = table.next_row() {
            let phase = self.roles.phase.map(|at| phase(row.cell(at)).unwrap_or(0));
            let epoch = self.roles.epoch.and_then(|at| row.number(at));
            let counted = self.roles.step.and_then(|at| row.whole(at));
            let step = match self.roles.step {
                Some(_) => {
                    self.steps.next(counted, epoch.filter(|_| self.roles.epoch != self.roles.step), phase)
                }
                None => self.row as i64,
            };
            // Rows of one step say once when it was.
            if told != Some(step) {
                told = Some(step);
                if let Some(epoch) = epoch {
                    let from = *first_epoch.get_or_insert(if epoch == 1.0 { 1.0 } else { 0.0 });
                    self.builder.epoch(step, epoch - from);
                }
                if let Some(time) = self.roles.time.and_then(|at| row.number(at)) {
                    // Beyond the year 5000 it is milliseconds.
                    let time = if time.abs() > 1e11 { time / 1000.0 } else { time };
                    self.builder.time(step, time - *start.get_or_insert(time));
                }
            }
            match self.roles.long {
                Some((name, value)) => self.long(&row, name, value, phase, step),
                None => self.wide(row, phase.unwrap_or(0), step),
            }
            if let Some((_, steps)) = &mut self.tail
                && steps.len() < LONGEST_TAIL
            {
                steps.push(step);
            }
            self.row += 1;
            self.last = step;
        }
        self.finish();
    }

    fn wide(&mut self, row: Row<'_>, phase: usize, step: i64) {
        let Some(ids) = self.ids.get_mut(phase) else { return };
        for (at, ((cell, state), id)) in row.values().zip(&mut self.states).zip(ids).enumerate() {
            match cell {
                Cell::Number(value) => {
                    let id = match *id {
                        Some(id) => id,
                        None if !self.roles.is_metric(at) => continue,
                        None => {
                            state.first.get_or_insert(self.row);
                            let name = &self.names[at];
                            *id.insert(match self.roles.phase {
                                Some(_) => self.builder.column(&format!("{}{name}", PREFIXES[phase])),
                                None => self.builder.column(name),
                            })
                        }
                    };
                    self.builder.push(id, step, value);
                    if state.filled == self.row {
                        state.filled += 1;
                    } else if !state.sparse {
                        state.sparse = true;
                        if state.pending {
                            self.pending -= 1;
                            if self.pending == 0 {
                                self.tail = None;
                            }
                        }
                    }
                }
                Cell::Blank => {
                    if state.watched && !state.pending && !state.sparse && state.filled >= DENSE {
                        state.pending = true;
                        self.pending += 1;
                        self.tail.get_or_insert((self.row, Vec::new()));
                    }
                }
                Cell::Text => {
                    self.odd += u64::from(id.is_some());
                    match &state.text {
                        Text::None => state.text = Text::Constant(row.text(at)),
                        Text::Constant(known) if *known != row.text(at) => state.text = Text::Varies,
                        Text::Constant(_) | Text::Varies => {}
                    }
                }
            }
        }
    }

    fn long(&mut self, row: &Row<'_>, name: usize, value: usize, phase: Option<usize>, step: i64) {
        let Some(number) = row.number(value) else { return };
        let name = row.text(name);
        let name = phase
            .and_then(|phase| PREFIXES.get(phase))
            .map_or(name.clone(), |phase| format!("{phase}{name}"));
        let id = match self.metrics.get(&name) {
            Some(&id) => id,
            None if self.metrics.len() >= MOST_METRICS => return,
            None => {
                let id = self.builder.column(&name);
                self.metrics.insert(name, id);
                id
            }
        };
        self.builder.push(id, step, number);
    }

    fn finish(self) {
        let last_begin = self.states.iter().filter_map(|state| state.first).max().unwrap_or(0);
        let (begin, tail) = self.tail.unwrap_or_default();
        let end = [self.last];
        let mut lost = Vec::new();
        for (at, state) in self.states.iter().enumerate() {
            let Some(id) = self.ids[0].get(at).copied().flatten() else {
                // Never a number.
                if let Text::Constant(text) = &state.text
                    && self.roles.is_metric(at)
                    && self.row > 0
                {
                    self.builder.declare(&self.names[at], &Value::from(text.as_str()));
                }
                continue;
            };
            if state.pending && !state.sparse && last_begin < state.filled {
                lost.push(self.names[at].as_str());
                let from = usize::try_from(state.filled.saturating_sub(begin)).unwrap_or(usize::MAX);
                // At least the end is known where more was blank than could be kept.
                let steps = tail.get(from..).filter(|steps| !steps.is_empty()).unwrap_or(&end);
                for &step in steps {
                    self.builder.push(id, step, f64::NAN);
                }
            }
        }
        if !lost.is_empty() {
            lost.truncate(10);
            self.builder
                .note(format!("{}: blank from some row to the end, which is read as NaN", lost.join(", ")));
        }
        if self.odd > 0 {
            self.builder.note(format!("{} cells are no numbers and were passed over", self.odd));
        }
        if self.steps.restarts > 0 {
            self.builder.note(format!(
                "the steps start anew {} times, with the epochs, and are counted on",
                self.steps.restarts
            ));
        }
    }
}

/// Whether a column would be `NaN` in a run that diverged.
fn could_be_nan(name: &str) -> bool {
    let plain = plain(name);
    names::goal(name) == Some(Goal::Lower) || plain.contains("loss") || plain.contains("grad")
}

/// Steps made continuous where they are counted anew in each epoch.
#[derive(Default)]
struct Steps {
    local: bool,
    offset: i64,
    raw: Option<i64>,
    last: i64,
    stride: i64,
    epoch: Option<f64>,
    first_epoch: Option<f64>,
    phase: Option<Option<usize>>,
    restarts: u64,
}

impl Steps {
    /// The continuous step of a row. A row without a step belongs to the one before it.
    fn next(&mut self, raw: Option<i64>, epoch: Option<f64>, phase: Option<usize>) -> i64 {
        let Some(raw) = raw else { return self.last };
        // Evaluations count their own batches: the first phase's steps are those of the run.
        if *self.phase.get_or_insert(phase) != phase {
            return self.last.max(raw.saturating_add(self.offset));
        }
        let later = epoch.zip(self.epoch).is_some_and(|(now, before)| now > before);
        let earlier = epoch.zip(self.epoch).is_some_and(|(now, before)| now < before);
        if let Some(before) = self.raw {
            if earlier && self.offset > 0 {
                // Resumed at an earlier epoch: epochs have the same number of steps, or nearly.
                let share = epoch
                    .zip(self.epoch)
                    .zip(self.first_epoch)
                    .map(|((now, then), first)| (now - first).max(0.0) / (then - first).max(1.0));
                self.offset = (self.offset as f64 * share.unwrap_or(0.0)) as i64;
            } else if raw == before && later {
                // A row an epoch, at its last batch.
                self.offset = self.last.saturating_add(raw.max(1)).saturating_sub(raw);
                self.restarts += 1;
            } else if raw < before && (later || self.local) {
                self.offset = self.last.saturating_add(self.stride.max(1)).saturating_sub(raw);
                self.restarts += 1;
            } else if raw > before {
                self.stride = raw.saturating_sub(before);
            }
        }
        self.raw = Some(raw);
        self.epoch = epoch.or(self.epoch);
        self.first_epoch = self.first_epoch.or(epoch);
        self.last = raw.saturating_add(self.offset);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trimtab_signals::Run;

    use super::*;
    use crate::open::read_bytes;

    const LOG: &str = "epoch,iter,train_loss,note\n0,0,0.5,a\n0,10,nan,a\n1,0,0.25,a\n";

    fn run(text: &str) -> Run {
        read_bytes("csv", "log.csv", text.as_bytes()).unwrap()
    }

    fn column(run: &Run, logged: &str) -> (Vec<u64>, Vec<f64>) {
        let found = run.trace.iter().find(|(name, _)| run.logged_name(name) == logged);
        let (_, column) = found.unwrap_or_else(|| panic!("no {logged} in {:?}", run.trace));
        (column.steps().to_vec(), column.values().to_vec())
    }

    fn certainty(text: &str) -> Option<Certainty> {
        let path = std::path::Path::new("log.csv");
        recognise(&Peek { path, head: text.as_bytes(), complete: true, text: Some(text) })
    }

    #[test]
    fn iterations_counted_anew_are_counted_on() {
        let run = run("epoch,iter,train_loss\n1,0,4\n1,50,3\n2,0,2\n2,50,1\n3,0,0\n");
        assert_eq!(column(&run, "train_loss").0, [0, 50, 100, 150, 200]);
        assert_eq!(run.trace.epochs().at(100), Some(1.0));
        assert_eq!(run.notes.len(), 1);
        // Without an epoch only a batch is known to be counted so.
        assert_eq!(column(&self::run("batch,loss\n1,4\n2,3\n1,2\n2,1\n"), "loss").0, [1, 2, 3, 4]);
        assert_eq!(column(&self::run("step,loss\n1,4\n2,3\n1,2\n2,1\n"), "loss").1, [2.0, 1.0]);
        assert_eq!(
            column(&self::run("epoch,batch,loss\n0,99,4\n1,99,3\n2,99,2\n"), "loss").0,
            [99, 198, 297]
        );
    }

    #[test]
    fn a_blank_is_not_measured() {
        let run = run("step,loss,val_loss\n1,4,\n2,3,5\n3,2,\n4,,4\n5,1,\n");
        assert_eq!(column(&run, "loss").0, [1, 2, 3, 5]);
        assert_eq!(column(&run, "val_loss").0, [2, 4]);
    }

    #[test]
    fn a_loss_that_is_blank_to_the_end_is_nan() {
        let run = run("step,loss,acc,lr\n1,4,0.5,1\n2,3,0.5,1\n3,2,0.5,1\n4,,0.1,1\n5,,,1\n");
        let (steps, values) = column(&run, "loss");
        assert_eq!(steps, [1, 2, 3, 4, 5]);
        assert!(values[3].is_nan() && values[4].is_nan());
        assert_eq!(column(&run, "acc").0, [1, 2, 3, 4]);
        assert!(run.notes[0].starts_with("loss: blank"));
    }

    #[test]
    fn a_loss_that_ends_where_another_column_begins_is_not_nan() {
        let text = "step,stage1_loss,stage2_loss\n1,4,\n2,3,\n3,2,\n4,,9\n5,,8\n";
        assert_eq!(column(&run(text), "stage1_loss").0, [1, 2, 3]);
        // The validation at the end of a first epoch, and too few rows to know.
        assert_eq!(column(&run("step,loss,val_loss\n1,4,\n2,3,\n3,2,\n3,,9\n"), "loss").0, [1, 2, 3]);
        assert_eq!(column(&run("step,loss,lr\n1,4,1\n2,,1\n3,,1\n"), "loss").0, [1]);
    }

    #[test]
    fn two_losses_may_become_nan_one_after_the_other() {
        let run = run("step,a_loss,b_loss\n1,4,1\n2,3,1\n3,2,1\n4,,1\n5,,\n6,,\n");
        assert_eq!(column(&run, "a_loss").0, [1, 2, 3, 4, 5, 6]);
        assert_eq!(column(&run, "b_loss").1.iter().filter(|value| value.is_nan()).count(), 2);
    }

    #[test]
    fn phases_prefix_the_names_of_their_rows() {
        let run = run("epoch,phase,loss\n0,train,4\n0,val,5\n1,train,3\n1,val,4\n");
        assert_eq!(column(&run, "train/loss"), (vec![0, 1], vec![4.0, 3.0]));
        assert_eq!(column(&run, "val/loss"), (vec![0, 1], vec![5.0, 4.0]));
    }

    #[test]
    fn one_value_a_row_is_read_by_its_name() {
        let run = run("step,metric,value\n1,loss,4\n1,lr,0.1\n2,loss,3\n2,lr,0.1\n");
        assert_eq!(column(&run, "loss"), (vec![1, 2], vec![4.0, 3.0]));
        assert_eq!(column(&run, "lr").1, [0.1, 0.1]);
    }

    #[test]
    fn any_usual_layout_is_read() {
        for text in [
            "step\tloss\n1\t0.5\n2\t0.25\n",
            "step;loss\r\n1;0,5\r\n2;0,25\r\n",
            "  step    loss\n     1     0.5\n     2    0.25\n",
            "# step loss\n1 0.5\n2 0.25\n",
            "# a comment\n\nstep,loss\n1,0.5\n2,0.25\n",
            "\"step\",\"loss\"\n\"1\",\"0.5\"\n\"2\",\"0.25\"\n",
            "step,loss,\n1,0.5,\n2,0.25,\n",
            "step,loss\r1,0.5\r2,0.25\r",
            "\u{feff}step,loss\n1,50%\n2,25 %\n",
            "step,loss\n1,\"tensor(0.5, device='cuda:0')\"\n2,[0.25]\n",
            "step,loss\n1,0.5\nstep,loss\n2,0.25\n",
            "step,loss\n1,0.5\n1,2,3\n2\n2,0.25\n3,0.12",
        ] {
            let run = run(text);
            assert_eq!(column(&run, "loss"), (vec![1, 2], vec![0.5, 0.25]), "{text:?}");
            assert_eq!(certainty(text.trim_start_matches('\u{feff}')), Some(Certainty::Generic), "{text:?}");
        }
    }

    #[test]
    fn texts_are_declared_where_they_are_constant() {
        let run = run("step,loss,model,comment\n1,2,\"unet, small\",a\n2,1,\"unet, small\",\"b\nc\"\n");
        let declared: Vec<_> = run.facts.iter().filter_map(|(_, value)| value.as_str()).collect();
        assert_eq!(declared, ["unet, small"]);
        assert_eq!(column(&run, "loss").0, [1, 2]);
    }

    #[test]
    fn a_row_number_is_a_step_and_downloads_have_their_names() {
        assert_eq!(column(&run("loss,acc\n2,0\n1,1\n"), "loss").0, [0, 1]);
        assert_eq!(column(&run(",loss,acc\n3,2,0\n4,1,1\n"), "loss").0, [3, 4]);
        let tensorboard = b"Wall time,Step,Value\n100.5,1,3\n101.5,2,2\n";
        let run = read_bytes("csv", "run-a-tag-train_loss.csv", tensorboard).unwrap();
        assert_eq!(column(&run, "train_loss").0, [1, 2]);
        assert_eq!(run.trace.times().at(2), Some(1.0));
        let wandb = b"\"Step\",\"fine-run - val/loss\",\"fine-run - val/loss__MIN\"\n\"1\",\"3\",\"3\"\n";
        assert_eq!(column(&read_bytes("csv", "w.csv", wandb).unwrap(), "val/loss").1, [3.0]);
    }

    #[test]
    fn tables_of_data_are_no_logs() {
        for text in [
            "X-Coordinate,Y-Coordinate,Class\n1,2,3\n",
            "image,label\na.png,1\n",
            "1,2,3\n4,5,6\n",
            "file,format,loss\na,b,c\n",
            "{\"loss\": 1,\n\"acc\": 2}\n",
            "loss went down, then up\nwe stopped, it was late\n",
            "",
        ] {
            assert_eq!(certainty(text), None, "{text:?}");
        }
    }

    #[test]
    fn very_many_columns_are_read() {
        let header: Vec<String> = (0..100_000).map(|at| format!("m{at}")).collect();
        let row = vec!["0.5"; 100_000].join(",");
        let text = format!("step{}\n1{}\n2{}\n", &header.join(",")[2..], &row[3..], &row[3..]);
        let run = run(&text);
        // The builder keeps the first ones.
        assert_eq!(run.trace.get("m9999").unwrap().steps(), [1, 2]);
        let head = &text.as_bytes()[..crate::input::HEAD];
        let path = std::path::Path::new("a.csv");
        let peek = Peek { path, head, complete: false, text: std::str::from_utf8(head).ok() };
        assert_eq!(recognise(&peek), Some(Certainty::Generic));
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..LOG.len()) {
            let _ = read_bytes("csv", "log.csv", &bytes);
            let mut mutated = LOG.as_bytes().to_vec();
            mutated.splice(at..(at + bytes.len() / 8).min(LOG.len()), bytes);
            let _ = read_bytes("csv", "log.csv", &mutated);
        }
    }
}
