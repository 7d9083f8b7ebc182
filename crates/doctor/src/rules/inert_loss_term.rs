use trimtab_signals::{Column, keys, names};

use crate::finding::{Finding, Remedy, Severity, show};
use crate::rule::{Missing, Rule, RuleMeta};
use crate::view::View;

static META: RuleMeta = RuleMeta {
    id: "inert-loss-term",
    summary: "a loss term has a weight but reaches no parameter, or never changes",
    severity: Severity::Warning,
    docs: include_str!("inert_loss_term.md"),
};

pub(super) static RULE: InertLossTerm =
    InertLossTerm { gradients: 3, nothing: 1e-12, values: 10, digits: 20.0 };

pub(super) struct InertLossTerm {
    /// Measured gradients.
    gradients: usize,
    /// Norm relative to the largest term's that is rounding: double precision ends at 1e-16.
    nothing: f64,
    /// Measured values of a term that never changes.
    values: usize,
    /// Units of the last logged digit under which a value may stand still by rounding.
    digits: f64,
}

impl Rule for InertLossTerm {
    fn meta(&self) -> &'static RuleMeta {
        &META
    }

    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing> {
        let norms = view.groups(&names::GRAD_TERM_NORM);
        let terms: Vec<(&str, &Column)> = view
            .run()
            .trace
            .iter()
            .filter_map(|(name, column)| Some((name.strip_prefix("loss/")?, column)))
            .filter(|(term, _)| !["total", "supervised"].contains(term))
            .collect();
        if norms.is_empty() && terms.is_empty() {
            return Err(Missing::new(format!(
                "{} of each term, or the terms of the loss",
                names::GRAD_TERM_NORM.name
            )));
        }
        let dead = self.without_gradient(view, &norms);
        let names_of_dead: Vec<&str> = dead.iter().map(|(term, _)| *term).collect();
        let still = self.standing_still(view, &terms, &names_of_dead);
        let quoted = |terms: &[(&str, &Column)]| {
            terms.iter().map(|(term, _)| format!("`{term}`")).collect::<Vec<_>>().join(", ")
        };
        let remedy = |term: &str| {
            let mut remedy = Remedy::check(
                &keys::LOSS_WEIGHT,
                "whether the term is computed without counting, rounding or detaching",
                "only what is differentiable can be learned from; else leave the term out",
            );
            if !term.is_empty() {
                remedy = remedy.of_group(term);
            }
            remedy
        };
        let span = |column: &Column, told: usize| {
            let (first, last) = (column.first().map_or(0, |f| f.0), column.last().map_or(0, |l| l.0));
            (column.steps().get(told.saturating_sub(1)).copied().unwrap_or(last), first, last)
        };
        let mut findings = Vec::new();
        if let Some((term, column)) = dead.first() {
            let message = format!(
                "the gradient of {} is 0 at all {} measurements although the term has a weight: \
                 it reaches no parameter",
                quoted(&dead),
                column.len()
            );
            let (told, first, last) = span(column, self.gradients);
            findings.push(
                Finding::new(&META, message)
                    .at(told, first, last)
                    .evidence("measurements", column.len() as f64)
                    .evidence("gradient", column.highest().map_or(f64::NAN, |h| h.1))
                    .remedy(remedy(term))
                    .draw(&names::GRAD_TERM_NORM.group(term)),
            );
        }
        if let Some((term, column)) = still.first() {
            let value = column.first().map_or(f64::NAN, |f| f.1);
            let message = format!(
                "{} stands at {} at all {} measurements while the rest of the loss moves: \
                 it may not depend on the model",
                quoted(&still),
                show(value),
                column.len()
            );
            let (told, first, last) = span(column, self.values);
            findings.push(
                Finding::new(&META, message)
                    .severity(Severity::Info)
                    .at(told, first, last)
                    .evidence("value", value)
                    .evidence("measurements", column.len() as f64)
                    .remedy(remedy(term.strip_prefix("term/").unwrap_or(term)))
                    .draw(&format!("loss/{term}")),
            );
        }
        Ok(findings)
    }
}

impl InertLossTerm {
    /// Terms whose gradient is nothing wherever they are at work.
    fn without_gradient<'a>(
        &self,
        view: &View<'_>,
        norms: &[(&'a str, &'a Column)],
    ) -> Vec<(&'a str, &'a Column)> {
        // The largest gradient of any term at a step, or near it where terms are measured in turn.
        let largest = |step: u64| {
            let near = norms.iter().filter_map(|(_, c)| c.at_or_before(step)).map(|(_, v)| v);
            near.filter(|v| v.is_finite()).fold(0.0, f64::max)
        };
        let inert = |(term, column): &&(&str, &Column)| {
            if term.is_empty() || !self.weighted(view, term) {
                return false;
            }
            let finite: Vec<(u64, f64)> = column.iter().filter(|(_, v)| v.is_finite()).collect();
            let nothing = |(step, norm): &(u64, f64)| {
                let largest = largest(*step);
                largest > 0.0 && *norm <= self.nothing * largest
            };
            finite.len() >= self.gradients && finite.len() == column.len() && finite.iter().all(nothing)
        };
        norms.iter().filter(inert).copied().collect()
    }

    /// Whether a term is switched on and has a value: one that waits for its start has no gradient yet.
    fn weighted(&self, view: &View<'_>, term: &str) -> bool {
        let trace = &view.run().trace;
        let on = |column: &Column| column.values().iter().all(|v| v.is_finite() && *v != 0.0);
        if let Some(weight) = trace.get(&names::WEIGHT_LOSS.group(term)) {
            if !on(weight) {
                return false;
            }
        } else if view.run().facts.number(&keys::LOSS_WEIGHT.group(term)) == Some(0.0) {
            return false;
        }
        [format!("loss/{term}"), names::LOSS_TERM.group(term)]
            .iter()
            .filter_map(|name| trace.get(name))
            .all(|value| value.values().iter().any(|v| *v != 0.0))
    }

    /// Terms that have one value throughout while the loss moves.
    fn standing_still<'a>(
        &self,
        view: &View<'_>,
        terms: &[(&'a str, &'a Column)],
        dead: &[&str],
    ) -> Vec<(&'a str, &'a Column)> {
        let values = |column: &Column| {
            let mut values: Vec<f64> = column.values().iter().copied().filter(|v| v.is_finite()).collect();
            values.sort_by(f64::total_cmp);
            values.dedup();
            values
        };
        // What moves, and the last digit that is logged of it.
        let total = view.column(&names::LOSS_TOTAL);
        let moving = |c: &Column| values(c).len() >= self.values;
        let others: Vec<&Column> =
            terms.iter().map(|(_, c)| *c).chain(total).filter(|column| moving(column)).collect();
        if others.is_empty() {
            return Vec::new();
        }
        let unit = others.iter().map(|c| last_digit(c.values())).fold(f64::INFINITY, f64::min);
        let still = |(term, column): &&(&str, &Column)| {
            let bare = term.strip_prefix("term/").unwrap_or(term);
            let value = column.values().first().copied().unwrap_or(f64::NAN);
            let constant = column.len() >= self.values && column.values().iter().all(|v| *v == value);
            constant
                && value != 0.0
                && value.abs() > self.digits * unit
                && !dead.contains(&bare)
                && self.weighted(view, bare)
        };
        terms.iter().filter(still).copied().collect()
    }
}

/// The unit of the last decimal that values are logged with; 0 where there is no such decimal.
fn last_digit(values: &[f64]) -> f64 {
    let unit = (0..=8).map(|digits| 10f64.powi(-digits)).find(|unit| {
        values.iter().filter(|v| v.is_finite()).all(|v| {
            let units = (v / unit).abs();
            (units - units.round()).abs() < 1e-6 * units.max(1.0)
        })
    });
    unit.unwrap_or(0.0)
}
