//! What a training run says about itself: the vocabulary of *signals*, their history as a [`Trace`],
//! what the configuration declares as [`Facts`], and the run directory that holds both.
//!
//! ```
//! use trimtab_signals::{Record, RunReader, RunWriter, names};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("run");
//! let mut run = RunWriter::create(&path)?;
//! run.record(&Record::new(10, 0, 1.5).with(&names::LOSS_TOTAL, 0.7))?;
//! run.record(&Record::new(20, 0, 3.0).with(&names::LOSS_TOTAL, f64::NAN))?;
//!
//! let trace = RunReader::open(&path)?.trace()?;
//! let loss = trace.get(names::LOSS_TOTAL.name).expect("logged");
//! assert_eq!(loss.steps(), [10, 20]);
//! assert!(loss.last().is_some_and(|(step, value)| step == 20 && value.is_nan()));
//! assert!(trace.get(names::LOSS_DICE.name).is_none(), "absent is not NaN");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod clock;
mod error;
mod facts;
mod info;
pub mod json;
pub mod keys;
pub mod names;
mod record;
mod run;
mod run_dir;
mod schemas;
pub mod tensorboard;
mod trace;

pub use clock::rfc3339_utc;
pub use error::Error;
pub use facts::Facts;
pub use info::{MetricSummary, RunInfo, Status, Summary};
pub use keys::Key;
pub use names::{Goal, Signal};
pub use record::{Event, Record};
pub use run::Run;
pub use run_dir::{
    CHECKPOINTS, CONFIG, EVENTS, Events, RUN_INFO, Records, Resumed, RunReader, RunWriter, SIGNALS, SUMMARY,
    append_event,
};
pub use schemas::schemas;
pub use trace::{Column, Trace};
