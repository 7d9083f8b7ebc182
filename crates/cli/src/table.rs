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
    table.to_string()
}

/// A number for people; `–` where there is none.
pub fn number(value: Option<f64>) -> String {
    value.filter(|v| v.is_finite()).map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"))
}

/// Metric, floor, best, last of a run. Student and teacher apart only for `chosen`, the metric that best weights are chosen
/// by; the others are in `summary.json`.
pub fn metrics(summary: &Summary, chosen: &str) -> String {
    let shown = summary.metrics.iter().filter(|(name, _)| {
        let plain = name.matches('/').count() == 1;
        plain || name.strip_prefix(chosen).is_some_and(|rest| rest.starts_with('/'))
    });
    let rows = shown.map(|(name, m)| {
        let step = m.best_step.map_or_else(|| "–".to_owned(), |s| s.to_string());
        vec![name.clone(), number(m.floor), number(m.best), step, number(m.last)]
    });
    table(&["metric", "floor", "best", "at step", "last"], rows)
}
