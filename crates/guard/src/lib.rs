//! The guard: checks a recipe before it trains, watches the run, rolls back and tries remedies on short branches; and ablates.
//!
//! The trainer knows nothing of it: what it needs are an observer of the loop, checkpoints, and settings that can be changed and
//! read again.

pub mod ablate;
mod experiments;
mod heal;
mod journal;
pub mod preflight;
mod remedies;
mod settings;
pub mod statistics;
mod watch;

pub use heal::{Choice, Guardianship, Job, Load, Seen, first_config, train};
pub use journal::{Attempt, Branch, Journal, Outcome, Phase};
pub use remedies::Candidate;
pub use settings::{Guarded, Policy, Reference, Settings, defaults, load, parse};
pub use watch::Cost;
