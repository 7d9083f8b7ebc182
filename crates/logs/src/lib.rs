//! Training logs of other frameworks, read as [`Run`](trimtab_signals::Run)s: a trace of signals and what was declared.
//!
//! A format is one file in `formats/` and one line in its list. It is recognised by content, not by name. Its reader hands
//! everything to a [`RunBuilder`] under the names the log has; [`vocabulary`] maps those to the signals.
//!
//! A blank field is a measurement that is missing from the record or one that came out as `NaN`, depending on who wrote the
//! file; each reader decides that for its format and says why.

mod builder;
mod error;
mod formats;
mod input;
mod json_lines;
mod key_values;
mod log_line;
mod open;
mod protobuf;
mod python;
mod table;
pub mod vocabulary;
mod yaml;

pub use builder::{ColumnId, RunBuilder};
pub use error::LogError;
pub use formats::{Certainty, FORMATS, Format, Layout, Peek, own_run, read_with_pattern};
pub use input::Input;
pub use open::{Opened, Options, Unreadable, open, open_with, read_bytes};
