//! Tables for people.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use trimtab_signals::Summary;

/// A table with a header; all columns but the first are right-aligned.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_header(header.iter().copied());
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

/// Metric, floor, best, last of a run; groups (student, teacher) beneath their metric.
pub fn metrics(summary: &Summary) -> String {
    let rows = summary.metrics.iter().map(|(name, m)| {
        let step = m.best_step.map_or_else(|| "–".to_owned(), |s| s.to_string());
        vec![name.clone(), number(m.floor), number(m.best), step, number(m.last)]
    });
    table(&["metric", "floor", "best", "at step", "last"], rows)
}
