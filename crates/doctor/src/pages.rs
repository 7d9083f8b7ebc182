//! The page of a rule, and the cases in its tables.
//!
//! Under `## Fires` and `## Stays quiet` each table is a run, over steps:
//!
//! ````text
//! A discriminator that has won (**critical**).
//!
//! ```toml
//! gan.learning_rate = 1e-4
//! ```
//!
//! | step | gan/d_real | gan/d_fake |
//! |---|---|---|
//! | 0 | 0.6 | 0.5 |
//! | 100..2000 by 100 | 0.9 -> 0.99 | 0.02 ± 0.01 |
//! ````
//!
//! The paragraph before it is the case's name; a severity in bold is asserted. Facts stand in a `toml` block before the table; a
//! block that no table follows is a case without signals. A row may span steps: `100..2000 by 100` (both ends count);
//! `a -> b` goes from one value to the other in a straight line, `± n` adds a fixed zigzag noise of that size. An empty cell was not
//! measured; `NaN`, `inf` and `-inf` are values.

use trimtab_signals::Run;

use crate::finding::Severity;

/// The page of a rule.
#[derive(Debug)]
pub struct Page {
    /// Second-level headings, in order.
    pub headings: Vec<String>,
    /// Cases in which the rule must fire.
    pub fires: Vec<Case>,
    /// Cases in which it must not.
    pub quiet: Vec<Case>,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// The paragraph before the table.
    pub name: String,
    /// The run.
    pub run: Run,
    /// The severity in bold.
    pub severity: Option<Severity>,
}

impl Page {
    /// Reads a page.
    ///
    /// # Errors
    ///
    /// The line that is not understood, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut page = Self { headings: Vec::new(), fires: Vec::new(), quiet: Vec::new() };
        let mut open = Open::default();
        let mut fence: Option<String> = None;
        for line in text.lines().chain(["## "]) {
            if let Some(facts) = &mut fence {
                if line.trim_start().starts_with("```") {
                    open.declare(facts)?;
                    fence = None;
                } else {
                    facts.push_str(line);
                    facts.push('\n');
                }
                continue;
            }
            if let Some(heading) = line.strip_prefix("## ") {
                open.close(&mut page);
                if !heading.is_empty() {
                    page.headings.push(heading.trim().to_owned());
                }
            } else if line.trim() == "```toml" {
                open.facts_begin(&mut page);
                fence = Some(String::new());
            } else if line.starts_with('|') {
                open.row(line)?;
            } else if !line.trim().is_empty() {
                open.text(line, &mut page);
            }
        }
        Ok(page)
    }
}

/// The case being read.
#[derive(Default)]
struct Open {
    name: String,
    run: Run,
    columns: Option<Vec<String>>,
    any: bool,
}

impl Open {
    fn text(&mut self, line: &str, page: &mut Page) {
        if self.any {
            self.close(page);
        }
        if !self.name.is_empty() {
            self.name.push(' ');
        }
        self.name.push_str(line.trim());
    }

    fn facts_begin(&mut self, page: &mut Page) {
        if self.columns.is_some() {
            self.close(page);
        }
    }

    fn declare(&mut self, toml: &str) -> Result<(), String> {
        self.any = true;
        for line in toml.lines().filter(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#')) {
            let (key, value) = line.split_once('=').ok_or_else(|| format!("`{line}` is not KEY = VALUE"))?;
            // Numbers, texts, flags and lists of them look the same in JSON, but for a leading dot.
            let value = serde_json::from_str::<serde_json::Value>(value.trim())
                .map_err(|e| format!("`{line}`: {e}"))?;
            self.run.facts.set(key.trim(), value);
        }
        Ok(())
    }

    fn row(&mut self, line: &str) -> Result<(), String> {
        self.any = true;
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let Some(columns) = &self.columns else {
            self.columns = Some(cells.iter().skip(1).map(|c| c.trim_matches('`').to_owned()).collect());
            return Ok(());
        };
        if cells.iter().all(|c| c.chars().all(|c| "-: ".contains(c))) && cells.iter().any(|c| !c.is_empty()) {
            return Ok(());
        }
        let broken = |what: &str| format!("`{line}`: {what}");
        let steps = steps(cells.first().copied().unwrap_or_default()).ok_or_else(|| broken("steps"))?;
        if cells.len() != columns.len() + 1 {
            return Err(broken("another number of cells than the head"));
        }
        for (column, cell) in columns.clone().iter().zip(&cells[1..]) {
            if cell.is_empty() {
                continue;
            }
            let (from, to, noise) = range(cell).ok_or_else(|| broken("a value"))?;
            for (at, &step) in steps.iter().enumerate() {
                let part = if steps.len() > 1 { at as f64 / (steps.len() - 1) as f64 } else { 0.0 };
                // Plain interpolation would make NaN of inf - inf.
                let value = if from == to || part == 0.0 { from } else { from + (to - from) * part };
                // A fixed sequence without period 2, so that medians of 3 do not cancel it.
                let zigzag = [0.3, -0.9, 0.7, -0.1, 1.0, -0.6, 0.1, -0.5][at % 8];
                if column == "epoch" {
                    let mut epochs = self.run.trace.epochs().clone();
                    epochs.insert(step, value);
                    self.run.trace.set_epochs(epochs);
                } else {
                    self.run.trace.insert(column, step, value + noise * zigzag);
                }
            }
        }
        Ok(())
    }

    fn close(&mut self, page: &mut Page) {
        let open = std::mem::take(self);
        let quiet = match page.headings.last().map(String::as_str) {
            Some("Fires") => false,
            Some("Stays quiet") => true,
            _ => return,
        };
        if !open.any {
            return;
        }
        let severity = [Severity::Info, Severity::Warning, Severity::Critical]
            .into_iter()
            .find(|s| open.name.contains(&format!("**{}**", s.name())));
        let case = Case { name: open.name, run: open.run, severity };
        if quiet { page.quiet.push(case) } else { page.fires.push(case) }
    }
}

fn steps(cell: &str) -> Option<Vec<u64>> {
    let Some((from, rest)) = cell.split_once("..") else {
        return Some(vec![cell.parse().ok()?]);
    };
    let (to, by) = match rest.split_once("by") {
        Some((to, by)) => (to, by.trim().parse().ok()?),
        None => (rest, 1usize),
    };
    let (from, to): (u64, u64) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
    (by > 0 && from <= to && (to - from) / by as u64 <= 100_000).then(|| (from..=to).step_by(by).collect())
}

fn range(cell: &str) -> Option<(f64, f64, f64)> {
    let (cell, noise) = match cell.split_once('±') {
        Some((cell, noise)) => (cell, noise.trim().parse().ok()?),
        None => (cell, 0.0),
    };
    let (from, to) = cell.split_once("->").unwrap_or((cell, cell));
    Some((from.trim().parse().ok()?, to.trim().parse().ok()?, noise))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_become_runs() {
        let page = Page::parse(
            "# x\n\n## Fires\n\nAll is lost (**critical**),\nfor ever.\n\n```toml\noptim.learning_rate = 0.1\n```\n\n\
             | step | a/b | c/d |\n|---|---|---|\n| 1 | 2 | |\n| 10..30 by 10 | 1 -> 3 | NaN |\n\nOnly facts.\n\n```toml\n\
             model.pretrained = true\n```\n\n## Stays quiet\n\n| step | a/b |\n|--|--|\n| 5 | 1 |\n\n## Remedy\n\ntext\n",
        )
        .expect("a page");
        assert_eq!(page.headings, ["Fires", "Stays quiet", "Remedy"]);
        assert_eq!((page.fires.len(), page.quiet.len()), (2, 1));
        let case = &page.fires[0];
        assert_eq!(case.severity, Some(Severity::Critical));
        assert_eq!(case.name, "All is lost (**critical**), for ever.");
        assert_eq!(case.run.facts.number("optim.learning_rate"), Some(0.1));
        let column = case.run.trace.get("a/b").expect("measured");
        assert_eq!((column.steps(), column.values()), (&[1, 10, 20, 30][..], &[2.0, 1.0, 2.0, 3.0][..]));
        assert_eq!(case.run.trace.get("c/d").map(trimtab_signals::Column::len), Some(3));
        assert_eq!(page.fires[1].run.facts.boolean("model.pretrained"), Some(true));
        assert!(page.fires[1].run.trace.last_step().is_none());
        assert!(Page::parse("## Fires\n| step | a |\n|-|-|\n| x | 1 |\n").is_err());
    }
}
