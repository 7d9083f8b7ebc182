//! A learning rate that falls when a metric no longer improves, as `torch.optim.lr_scheduler.ReduceLROnPlateau`.

use serde::{Deserialize, Serialize};

/// Which values of the metric are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Larger ones (scores).
    Larger,
    /// Smaller ones (losses).
    Smaller,
}

/// When and how far a [`Plateau`] lowers the rate; defaults as PyTorch's, but for larger values being the better ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlateauConfig {
    /// Which values of the metric are better.
    pub better: Better,
    /// Times the rate, in 0..1.
    pub factor: f64,
    /// Evaluations without improvement that are waited for; the next one lowers the rate.
    pub patience: u64,
    /// Share of the best value by which another must be better.
    pub threshold: f64,
    /// The rate falls no further.
    pub min: f64,
}

impl Default for PlateauConfig {
    fn default() -> Self {
        Self { better: Better::Larger, factor: 0.1, patience: 10, threshold: 1e-4, min: 0.0 }
    }
}

/// What a [`Plateau`] remembers, for checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PlateauState {
    /// The rate as it is now.
    pub rate: f64,
    /// The best value so far; none before the first that is a number.
    pub best: Option<f64>,
    /// Evaluations without improvement since the best, or since the rate fell.
    pub waited: u64,
}

/// A rate and the metric's history. With the rate 1 it is a factor for the rates of several groups.
#[derive(Debug, Clone, PartialEq)]
pub struct Plateau {
    config: PlateauConfig,
    state: PlateauState,
}

/// A smaller change of the rate is none, as PyTorch.
const LEAST_CHANGE: f64 = 1e-8;

impl Plateau {
    /// The rate to begin with.
    pub fn new(rate: f64, config: PlateauConfig) -> Self {
        Self { config, state: PlateauState { rate, best: None, waited: 0 } }
    }

    /// Takes in the metric of an evaluation and returns the rate from now on. A value that is not a number is no improvement.
    pub fn observe(&mut self, metric: f64) -> f64 {
        let PlateauConfig { better, factor, patience, threshold, min } = self.config;
        let state = &mut self.state;
        let improved = match better {
            Better::Larger => metric > state.best.unwrap_or(f64::NEG_INFINITY) * (1.0 + threshold),
            Better::Smaller => metric < state.best.unwrap_or(f64::INFINITY) * (1.0 - threshold),
        };
        if improved {
            (state.best, state.waited) = (Some(metric), 0);
        } else {
            state.waited += 1;
        }
        if state.waited > patience {
            state.waited = 0;
            let lower = (state.rate * factor).max(min);
            if state.rate - lower > LEAST_CHANGE {
                state.rate = lower;
            }
        }
        state.rate
    }

    /// The rate as it is now.
    pub fn rate(&self) -> f64 {
        self.state.rate
    }

    /// What to save.
    pub fn state(&self) -> PlateauState {
        self.state
    }

    /// Goes on from a saved [`Self::state`].
    pub fn restore(&mut self, state: PlateauState) {
        self.state = state;
    }
}
