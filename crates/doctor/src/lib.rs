//! The doctor: names what is wrong with a training run, and why.
//!
//! A *rule* looks for one pathology and gives findings: symptoms with their evidence. *Causes* explain findings. Rules are pure
//! functions of what was measured and declared; one whose signals are missing says *not applicable*, and none panics.
//!
//! ```
//! use trimtab_doctor::{Options, diagnose};
//! use trimtab_signals::{Run, names};
//!
//! let mut run = Run::default();
//! for step in 0..50 {
//!     run.trace.insert(names::LOSS_TOTAL.name, step, if step < 30 { 0.7 } else { f64::NAN });
//! }
//! let diagnosis = diagnose(&run, &Options::default());
//! assert_eq!(diagnosis.findings[0].rule, "non-finite-loss");
//! ```

pub mod causes;
pub mod compare;
mod course;
mod finding;
mod options;
mod pages;
pub mod report;
mod rule;
pub mod rules;
pub mod series;
mod view;

pub use course::Course;
pub use finding::{Finding, Op, Remedy, Severity, show};
pub use options::Options;
pub use pages::{Case, Page};
pub use rule::{Missing, Rule, RuleMeta};
pub use rules::RULES;
pub use view::{Metric, View};

use trimtab_signals::Run;

/// What the doctor has to say about a run.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// What was found: critical first, then by step.
    pub findings: Vec<Finding>,
    /// Rules that could not be applied, with what they would need.
    pub not_applicable: Vec<(&'static str, Vec<String>)>,
}

/// Applies every rule to a run.
pub fn diagnose(run: &Run, options: &Options) -> Diagnosis {
    let view = View::new(run, options);
    let mut diagnosis = Diagnosis::default();
    for rule in RULES {
        let meta = rule.meta();
        if options.disabled.iter().any(|id| id == meta.id) {
            continue;
        }
        match rule.check(&view) {
            Ok(findings) => diagnosis.findings.extend(findings),
            Err(Missing(needs)) => diagnosis.not_applicable.push((meta.id, needs)),
        }
    }
    diagnosis.findings.sort_by_key(|f| (std::cmp::Reverse(f.severity), f.first_step.or(f.step)));
    diagnosis
}
