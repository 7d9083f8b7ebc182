//! A run as the doctor sees it, whoever trained it.

use std::collections::BTreeMap;

use crate::facts::Facts;
use crate::trace::{Column, Trace};

/// The signals of a run and what its configuration declares, with where they come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// Where the run was read from, as a person would name it.
    pub name: String,
    /// Format of the log, e.g. `lightning-csv`.
    pub format: String,
    /// What was measured. Names are those of [`names`](crate::names) where a logged name could be mapped; other columns keep
    /// their logged name and are listed in [`unmapped`](Self::unmapped).
    pub trace: Trace,
    /// What was declared, by the keys of [`keys`](crate::keys). Anything else that was declared keeps its own name below
    /// `declared.`.
    pub facts: Facts,
    /// The name under which the log has each column of the trace.
    pub logged_as: BTreeMap<String, String>,
    /// Columns of the trace that belong to no known signal.
    pub unmapped: Vec<String>,
    /// What the reader noticed: a torn tail, a restart at an earlier step, lines passed over.
    pub notes: Vec<String>,
}

impl Run {
    /// The name under which the log has a column: for messages a user can find again in their own file.
    pub fn logged_name<'a>(&'a self, column: &'a str) -> &'a str {
        self.logged_as.get(column).map_or(column, String::as_str)
    }

    /// The column that the log has under a name.
    pub fn logged(&self, name: &str) -> Option<&Column> {
        let signal =
            self.logged_as.iter().find(|(_, logged)| *logged == name).map(|(signal, _)| signal.as_str());
        self.trace.get(signal.unwrap_or(name))
    }
}
