//! What a user can tell the doctor.

use trimtab_signals::Goal;

/// What a user can tell the doctor about a run, or about what not to say.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The metric that decides, by the name of its column or as logged; else the best known validation metric.
    pub metric: Option<String>,
    /// Which way it is better, where its name does not say.
    pub higher_is_better: Option<bool>,
    /// What it scores without having learned anything.
    pub chance: Option<f64>,
    /// Rules not to apply.
    pub disabled: Vec<String>,
}

impl Options {
    pub(crate) fn goal(&self) -> Option<Goal> {
        self.higher_is_better.map(|higher| if higher { Goal::Higher } else { Goal::Lower })
    }
}
