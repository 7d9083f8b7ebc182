//! Tables for people.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use trimtab_signals::Summary;

/// A table with a header; all columns but the first are right-aligned.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// A number for people; `–` where there is none.
pub fn number(value: Option<f64>) -> String {
    value.filter(|v| v.is_finite()).map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"))
}

/// Metric, floor, best, last of a run, of single classes too. Student and teacher apart only for `chosen`, the metric that best weights are chosen
/// by; the others are in `summary.json`.
pub fn metrics(summary: &Summary, chosen: &str) -> String {
    let shown = summary.metrics.iter().filter(|(name, _)| {
        let parts: Vec<&str> = name.split('/').collect();
        let plain = parts.len() == 2 || parts.len() == 3 && parts[2].starts_with("class");
        plain || name.strip_prefix(chosen).is_some_and(|rest| rest.starts_with('/'))
    });
    let rows = shown.map(|(name, m)| {
        let step = m.best_step.map_or_else(|| "–".to_owned(), |s| s.to_string());
        vec![name.clone(), number(m.floor), number(m.best), step, number(m.last)]
    });
    table(&["metric", "floor", "best", "at step", "last"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trimtab_signals::{MetricSummary, Status};

    #[test]
    fn the_table_at_the_end_shows_each_metric_beside_its_floor() {
        let metric = |best: Option<f64>, last: f64, floor: Option<f64>| MetricSummary {
            best,
            best_step: best.map(|_| 240),
            last: Some(last),
            floor,
        };
        let metrics = [
            ("val/f1", metric(Some(0.94518), 0.93784, Some(0.42743))),
            ("val/f1/teacher", metric(Some(0.9235), 0.9235, Some(0.42743))),
            ("val/auc/teacher", metric(Some(0.99), 0.99, Some(0.5))),
            ("val/mean_probability", metric(None, 0.3414, None)),
        ];
        let summary = Summary {
            status: Status::Finished,
            reason: None,
            steps: 260,
            wall_seconds: None,
            steps_per_second: None,
            metrics: metrics.into_iter().map(|(name, m)| (name.to_owned(), m)).collect(),
        };
        insta::assert_snapshot!(super::metrics(&summary, "val/f1"), @r"
        metric                 floor    best  at step    last
        val/f1                0.4274  0.9452      240  0.9378
        val/f1/teacher        0.4274  0.9235      240  0.9235
        val/mean_probability       –       –        –  0.3414
        ");
    }
}
