//! Configuration, the training loop, checkpoints and recipes.
//!
//! [`load`] turns a TOML file into a [`Recipe`]; [`Recipe::train`] runs it in a run directory, watched by an [`Observer`].

pub mod checkpoint;
pub mod config;
pub mod device;
mod error;
mod expect;
mod images;
mod measured;
mod optimization;
mod probe;
mod recipe;
pub mod recipes;
mod run;
mod segment2d;
mod segment3d;
mod session;
pub mod settings;
mod volumes;

use std::path::Path;

pub use error::{Result, TrainError};
pub use probe::{Drift, Examination, Layer, Outputs, Probe, Term};
pub use recipe::{Evaluation, StagePlan};
pub use recipes::{Entry, Inspection, Problem, Recipe, Request, Score, Scores, Session, Severity};
pub use run::{Control, Observer, Outcome, Report};
use settings::{ConfigError, Reader, Resolved, Source};

/// A recipe with its settings.
#[derive(Debug)]
pub struct Loaded {
    /// Its line in the list.
    pub entry: Entry,
    /// Ready to train.
    pub recipe: Box<dyn Recipe>,
    /// Every key in force.
    pub resolved: Resolved,
}

/// Asks for keys that are not of the recipe but of a program around it: sections of the same file.
pub type More<'a> = &'a dyn Fn(&mut Reader);

/// Reads a recipe's TOML file and `key=value` overrides; `more` asks for sections beside the recipe's.
///
/// # Errors
/// Everything that is wrong with it, each with file, line, key, what was found and what is accepted.
pub fn load(path: &Path, overrides: &[String], more: More<'_>) -> Result<Loaded> {
    let text = std::fs::read_to_string(path).map_err(|e| TrainError::io(path, "cannot read", e))?;
    Ok(parse(path, &text, overrides, more)?)
}

/// As [`load`], from text; `path` is for messages.
///
/// # Errors
/// As [`load`].
pub fn parse(path: &Path, text: &str, overrides: &[String], more: More<'_>) -> Result<Loaded, ConfigError> {
    let mut reader = Reader::new(path, text, overrides)?;
    let name = reader.text("recipe", "", "The kind of training.");
    let Some(entry) = recipes::ALL.iter().find(|e| e.name == name).copied() else {
        let names: Vec<_> = recipes::ALL.iter().map(|e| format!("\"{}\"", e.name)).collect();
        let found = if name.is_empty() { "is missing".to_owned() } else { format!("found \"{name}\"") };
        let message = format!("{found}; accepted is one of {}", names.join(", "));
        let source = Source::File(path.to_owned(), 1);
        return Err(ConfigError(vec![settings::Problem { source, key: "recipe".to_owned(), message }]));
    };
    let recipe = (entry.read)(&mut reader);
    more(&mut reader);
    let resolved = reader.finish(&|key| {
        let others = recipes::ALL.iter().filter(|other| other.name != entry.name);
        others
            .into_iter()
            .find(|other| defaults(other, &[], more).has(key))
            .map(|other| other.name.to_owned())
    })?;
    Ok(Loaded { entry, recipe, resolved })
}

/// The keys of a recipe with their defaults, also those that only count beside another setting: for templates and schemas.
/// `alternatives` are those of `more`.
pub fn defaults(entry: &Entry, alternatives: &[(&'static str, &'static str)], more: More<'_>) -> Resolved {
    let read = |mut reader: Reader| {
        reader.text("recipe", entry.name, "The kind of training.");
        (entry.read)(&mut reader);
        more(&mut reader);
        reader
    };
    let mut all = read(Reader::empty());
    for (setting, words) in entry.alternatives.iter().chain(alternatives) {
        if let Ok(reader) = Reader::new(Path::new(""), "", &[(*setting).to_owned()]) {
            all.add_alternative(read(reader), words);
        }
    }
    all.into_resolved()
}
