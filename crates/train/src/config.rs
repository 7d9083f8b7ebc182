//! The settings that every recipe shares: when to validate, the run itself, early stopping, expectations.

use trimtab_signals::names::{self, Signal};

use crate::expect::Expectation;
use crate::settings::Reader;

/// Stands for "no upper limit" in the schema.
pub(crate) const ANY: u64 = u64::MAX;

/// Settings shared by all recipes.
#[derive(Debug)]
pub struct Common {
    pub(crate) seed: u64,
    pub(crate) evaluate: EvaluateConfig,
    pub(crate) run: RunConfig,
    pub(crate) early_stopping: EarlyStopping,
    pub(crate) expectations: Vec<Expectation>,
}

impl Common {
    /// The signal by which the best weights are chosen.
    pub fn metric(&self) -> &str {
        &self.evaluate.metric
    }

    /// Steps between two checkpoints.
    pub fn checkpoint_every(&self) -> u64 {
        self.run.checkpoint_every
    }

    /// Whether TensorBoard event files are written too.
    pub fn writes_tensorboard(&self) -> bool {
        self.run.tensorboard
    }

    /// Reads them; problems gather in `reader`. `scores` are the signals the best weights can be chosen by (higher is better, and
    /// there is a floor), the default first.
    pub(crate) fn read(reader: &mut Reader, scores: &[Signal]) -> Self {
        Self {
            seed: reader.count("seed", 42, 0..=i64::MAX as u64, "Seed of everything random: initial weights, subsets and folds, order, augmentation, noise."),
            evaluate: EvaluateConfig::read(reader, scores),
            run: RunConfig::read(reader),
            early_stopping: EarlyStopping::read(reader),
            expectations: reader.tables(
                "expect",
                "condition",
                "What the run must or must not do, e.g. \"val/f1 > 0.5 by epoch 10\" or \"abort when val/positive_rate < 0.001 for 2\".",
                |text| {
                    let expectation = Expectation::parse(text)?;
                    for signal in expectation.signals() {
                        known_signal(signal)?;
                    }
                    Ok(expectation)
                },
            ),
        }
    }

    /// Refuses expectations that could never be judged: of signals that the recipe does not record, beyond its last epoch.
    pub(crate) fn check_expectations(&self, r: &mut Reader, recorded: &[Signal], epochs: u64) {
        for expectation in &self.expectations {
            if let Some(deadline) = expectation.deadline_epoch().filter(|d| *d > epochs) {
                r.reject("expect", format!("epoch {deadline} is beyond the {epochs} epochs of the run"));
            }
            let recorded = |signal: &str| {
                names::of(signal).is_some_and(|s| recorded.contains(s) || LOOP_SIGNALS.contains(s))
            };
            for signal in expectation.signals().filter(|s| !recorded(s)) {
                r.reject("expect", format!("`{signal}` is not recorded by this recipe"));
            }
        }
    }
}

/// What the loop itself records, whatever the recipe.
const LOOP_SIGNALS: &[Signal] = &[
    names::GRAD_CLIPPED,
    names::GRAD_NON_FINITE,
    names::DATA_NON_FINITE,
    names::STAGE_INDEX,
    names::TIME_STEP_SECONDS,
    names::TIME_LOAD_SECONDS,
    names::TIME_EVALUATE_SECONDS,
];

/// Refuses the name of a signal that nothing logs, with the closest one that exists.
pub(crate) fn known_signal(name: &str) -> Result<(), String> {
    if names::of(name).is_some() {
        return Ok(());
    }
    let closest =
        names::ALL.iter().min_by_key(|s| strsim::damerau_levenshtein(s.name, name)).map_or("", |s| s.name);
    Err(format!("`{name}` is not a signal; did you mean `{closest}`?"))
}

/// When validation happens and what it decides.
#[derive(Debug)]
pub(crate) struct EvaluateConfig {
    pub(crate) every_epochs: u64,
    pub(crate) metric: String,
}

impl EvaluateConfig {
    fn read(r: &mut Reader, scores: &[Signal]) -> Self {
        let every_epochs = r.count(
            "evaluate.every_epochs",
            1,
            1..=ANY,
            "Epochs between two validations; one more at the end of each stage.",
        );
        let choices: Vec<(&str, &str)> = scores.iter().map(|s| (s.name, s.name)).collect();
        let metric = r
            .choice(
                "evaluate.metric",
                scores[0].name,
                &choices,
                "The signal by which the best weights are chosen.",
            )
            .to_owned();
        Self { every_epochs, metric }
    }
}

/// Logging, checkpoints and threads.
#[derive(Debug)]
pub(crate) struct RunConfig {
    pub(crate) log_every: u64,
    pub(crate) checkpoint_every: u64,
    pub(crate) keep_checkpoints: u64,
    pub(crate) loader_threads: usize,
    pub(crate) loader_ahead: usize,
    pub(crate) tensorboard: bool,
}

impl RunConfig {
    fn read(r: &mut Reader) -> Self {
        Self {
            log_every: r.count("run.log_every", 5, 1..=ANY, "Steps between two records of signals."),
            checkpoint_every: r.count("run.checkpoint_every", 100, 1..=ANY, "Steps between two checkpoints."),
            keep_checkpoints: r.count(
                "run.keep_checkpoints",
                2,
                1..=ANY,
                "How many of the newest checkpoints are kept.",
            ),
            loader_threads: r.count(
                "run.loader_threads",
                1,
                0..=256,
                "Threads that prepare batches; 0: in the training thread. Does not change the numbers.",
            ) as usize,
            loader_ahead: r.count("run.loader_ahead", 4, 1..=4096, "Batches prepared ahead at most.")
                as usize,
            tensorboard: r.flag("run.tensorboard", true, "Write TensorBoard event files too."),
        }
    }
}

/// When to stop for lack of progress.
#[derive(Debug)]
pub(crate) struct EarlyStopping {
    pub(crate) patience: u64,
    pub(crate) min_delta: f64,
}

impl EarlyStopping {
    fn read(r: &mut Reader) -> Self {
        let patience = r.count(
            "early_stopping.patience",
            0,
            0..=ANY,
            "Validations of the last stage without a better evaluate.metric before the run ends; 0: never.",
        );
        let min_delta = r.number(
            "early_stopping.min_delta",
            0.0,
            0.0..=1e9,
            "How much better counts as better, for patience.",
        );
        if patience == 0 {
            r.idle("early_stopping.min_delta", 0.0, "early_stopping.patience is 0");
        }
        Self { patience, min_delta }
    }
}
