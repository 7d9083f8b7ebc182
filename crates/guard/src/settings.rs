//! The sections `[guard]` and `[reference]` of a recipe's file.

use std::path::Path;

use trimtab_train::settings::{ConfigError, Reader, Resolved};
use trimtab_train::{Entry, Loaded, TrainError};

/// What to do at a critical finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Nothing is watched.
    Off,
    /// Say so and go on.
    Observe,
    /// Say so and stop.
    Stop,
    /// Roll back, try remedies on short branches, go on with the best.
    Heal,
}

/// The section `[guard]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What to do at a critical finding.
    pub policy: Policy,
    /// Steps between two looks at the signals while the run is young; later looks are a twentieth of the run apart.
    pub every: u64,
    /// Steps of a branch; 0: a tenth of the planned run.
    pub branch_steps: u64,
    /// Branches of one attempt at most.
    pub branches: u64,
    /// Attempts at most.
    pub attempts: u64,
    /// Steps of all branches together, as a share of the planned run.
    pub extra_work: f64,
    /// The section `[reference]`.
    pub reference: Option<Reference>,
}

/// A run known to train well, with the same network and optimizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reference {
    /// Its batch.
    pub batch: u64,
    /// Its batches for one step.
    pub accumulate: u64,
    /// Its peak learning rate.
    pub learning_rate: f64,
}

impl Settings {
    fn read(r: &mut Reader) -> Self {
        let policy = r.choice(
            "guard.policy",
            "observe",
            &[
                ("off", Policy::Off),
                ("observe", Policy::Observe),
                ("stop", Policy::Stop),
                ("heal", Policy::Heal),
            ],
            "What to do when the doctor finds something critical: off: it is not asked; observe: say so and go on; stop: end with exit code 3; heal: roll back, try remedies on short branches, go on with the best.",
        );
        let every = r.count(
            "guard.every",
            10,
            1..=1_000_000,
            "Steps between two looks at the signals of a young run; an older one is looked at every twentieth of its steps so far, and at each validation.",
        );
        let mut settings = Self {
            policy,
            every,
            branch_steps: 0,
            branches: 4,
            attempts: 3,
            extra_work: 1.0,
            reference: None,
        };
        if policy == Policy::Heal {
            settings.branch_steps = r.count(
                "guard.branch_steps",
                0,
                0..=1_000_000_000,
                "Steps of a branch on which a remedy is tried; 0: a tenth of the planned run.",
            );
            settings.branches =
                r.count("guard.branches", 4, 1..=100, "Remedies tried in one attempt at most.");
            settings.attempts = r.count("guard.attempts", 3, 1..=100, "Attempts in one run at most.");
            settings.extra_work = r.number(
                "guard.extra_work",
                1.0,
                0.0..=100.0,
                "Steps of all branches together at most, as a share of the planned run.",
            );
        } else {
            for key in ["guard.branch_steps", "guard.branches", "guard.attempts", "guard.extra_work"] {
                r.switched_off(key, "guard.policy", "only guard.policy = \"heal\" reads it");
            }
        }
        settings.reference = Reference::read(r);
        settings
    }
}

impl Reference {
    fn read(r: &mut Reader) -> Option<Self> {
        let batch = r.optional_count(
            "reference.batch",
            1..=1_000_000,
            "Batch of a run known to train well with this network and optimizer; `trimtab check` compares the learning rate with its own.",
        );
        let accumulate = r.optional_count(
            "reference.accumulate",
            1..=1_000_000,
            "Its batches for one step; not given: 1.",
        );
        let learning_rate =
            r.optional_number("reference.learning_rate", 1e-12..=1e3, "Its peak learning rate.");
        match (batch, learning_rate) {
            (Some(batch), Some(learning_rate)) => {
                Some(Self { batch, accumulate: accumulate.unwrap_or(1), learning_rate })
            }
            (None, None) if accumulate.is_none() => None,
            (None, _) => {
                r.reject("reference.batch", "is missing: a reference has batch and learning_rate");
                None
            }
            (_, None) => {
                r.reject("reference.learning_rate", "is missing: a reference has batch and learning_rate");
                None
            }
        }
    }
}

/// A recipe and what is to guard it.
#[derive(Debug)]
pub struct Guarded {
    /// The recipe.
    pub loaded: Loaded,
    /// Its guard.
    pub settings: Settings,
}

/// Reads a recipe's TOML file and `key=value` overrides.
///
/// # Errors
/// Everything that is wrong with it, each with file, line, key, what was found and what is accepted.
pub fn load(path: &Path, overrides: &[String]) -> Result<Guarded, TrainError> {
    with_settings(|more| trimtab_train::load(path, overrides, more))
}

/// As [`load`], from text; `path` is for messages.
///
/// # Errors
/// As [`load`].
pub fn parse(path: &Path, text: &str, overrides: &[String]) -> Result<Guarded, ConfigError> {
    with_settings(|more| trimtab_train::parse(path, text, overrides, more))
}

fn with_settings<E>(load: impl FnOnce(&dyn Fn(&mut Reader)) -> Result<Loaded, E>) -> Result<Guarded, E> {
    let read = std::cell::OnceCell::new();
    let loaded = load(&|reader: &mut Reader| {
        // Asked again for the keys of other recipes, where one is unknown here.
        let _ = read.set(Settings::read(reader));
    })?;
    let settings = read.into_inner().unwrap_or_else(|| Settings::read(&mut Reader::empty()));
    Ok(Guarded { loaded, settings })
}

/// The keys of a recipe with their defaults, those of the guard among them.
pub fn defaults(entry: &Entry) -> Resolved {
    trimtab_train::defaults(entry, ALTERNATIVES, &|reader| {
        Settings::read(reader);
    })
}

/// Settings that make other keys count than the defaults do.
const ALTERNATIVES: &[(&str, &str)] = &[("guard.policy=heal", "guard.policy = \"heal\"")];
