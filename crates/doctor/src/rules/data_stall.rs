use trimtab_signals::{keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::series::median;
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "data-stall",
    summary: "most of the time is spent waiting for data",
    severity: Severity::Info,
    docs: include_str!("data_stall.md"),
};

pub(super) static RULE: DataStall =
    DataStall { half: 0.5, nearly_all: 0.8, most: 0.7, least: 0.001, measurements: 5 };

pub(super) struct DataStall {
    /// Share of a step spent waiting from which on the loader is what one waits for.
    half: f64,
    /// From which on the run could be five times faster.
    nearly_all: f64,
    /// Share of the measurements that is most of the run.
    most: f64,
    /// Seconds a step that nobody minds.
    least: f64,
    /// Fewer are chance.
    measurements: usize,
}

impl Rule for DataStall {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let (load, step) = (view.need(&names::TIME_LOAD_SECONDS)?, view.need(&names::TIME_STEP_SECONDS)?);
        let both = load.iter().filter_map(|(at, load)| Some((at, load, step.at(at)?)));
        // The first one waits for the workers to start.
        let both: Vec<(u64, f64, f64)> = both
            .filter(|(_, load, step)| load.is_finite() && step.is_finite() && *load >= 0.0 && *step > 0.0)
            .skip(1)
            .collect();
        // Some measure a step without its loading: then it may take longer than the step.
        let apart = both.iter().filter(|(_, load, step)| load > step).count() * 10 > both.len();
        let share =
            |&(_, load, step): &(u64, f64, f64)| if apart { load / (load + step) } else { load / step };
        let stalled = both.iter().filter(|row| share(row) > self.half).count();
        let (Some(typical), Some(waited)) =
            (median(both.iter().map(share)), median(both.iter().map(|(_, load, _)| *load)))
        else {
            return Ok(Vec::new());
        };
        let enough = both.len() >= self.measurements && waited >= self.least;
        let (Some(&(first, ..)), Some(&(last, ..)), Some(&(told, ..))) =
            (both.first(), both.last(), both.get(self.measurements - 1))
        else {
            return Ok(Vec::new());
        };
        if !enough || (stalled as f64) < self.most * both.len() as f64 {
            return Ok(Vec::new());
        }
        let message = format!(
            "{:.0} % of a step is spent waiting for its batch ({} s, median over {} measurements)",
            100.0 * typical.min(1.0),
            show(waited),
            both.len(),
        );
        let finding = Finding::new(&META, message)
            .severity(if typical > self.nearly_all { Severity::Warning } else { Severity::Info })
            .at(told, first, last)
            .evidence("load_share", typical)
            .evidence("load_seconds", waited)
            .remedy(Remedy::check(
                &keys::DATA_TRAIN_SAMPLES,
                "more loading workers, decoded or cached samples, augmentation on the accelerator, a \
                faster disk",
                "the computation waits for the data",
            ))
            .draw(names::TIME_LOAD_SECONDS.name);
        Ok(vec![finding])
    }
}
