//! What a rule is.

use crate::finding::{Finding, Severity};
use crate::view::View;

/// What is known of a rule without running it.
#[derive(Clone, Copy, Debug)]
pub struct RuleMeta {
    /// Permanent, kebab-case, names the problem.
    pub id: &'static str,
    /// One line.
    pub summary: &'static str,
    /// The severity of its findings where they do not say otherwise.
    pub severity: Severity,
    /// The page: what it detects, why it hurts, when it fires and stays quiet, remedies, references.
    pub docs: &'static str,
}

/// Looks for one pathology.
pub trait Rule: Sync {
    /// What is known of it.
    fn meta(&self) -> &'static RuleMeta;

    /// The findings in a run; none when all is well. Pure: no input makes it panic.
    ///
    /// # Errors
    ///
    /// [`Missing`] where the run does not have what the rule looks at. Reading through [`View::need`] and its like gives that
    /// by itself.
    fn check(&self, view: &View<'_>) -> Result<Vec<Finding>, Missing>;
}

/// What a rule would have needed: signals, facts or a length, in words a user can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub Vec<String>);

impl Missing {
    /// One thing is missing.
    pub fn new(what: impl Into<String>) -> Self {
        Self(vec![what.into()])
    }
}
