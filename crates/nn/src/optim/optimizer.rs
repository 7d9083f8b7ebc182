//! The optimizers behind one name, so that a recipe's settings can choose.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Device;

use super::{Adam, AdamConfig, AdamW, AdamWConfig, Sgd, SgdConfig, UpdateSize};
use crate::params::Flat;

/// One of the optimizers, with its state.
#[derive(Debug, Clone)]
pub enum Optimizer {
    /// [`AdamW`].
    AdamW(AdamW),
    /// [`Adam`].
    Adam(Adam),
    /// [`Sgd`].
    Sgd(Sgd),
}

impl Optimizer {
    /// [`AdamW`] without state.
    pub fn adamw(config: AdamWConfig) -> Self {
        Self::AdamW(AdamW::new(config))
    }

    /// [`Adam`] without state.
    pub fn adam(config: AdamConfig) -> Self {
        Self::Adam(Adam::new(config))
    }

    /// [`Sgd`] without state.
    pub fn sgd(config: SgdConfig) -> Self {
        Self::Sgd(Sgd::new(config))
    }

    /// One update of every parameter of `module` that has a gradient, at the learning rate `rate(path)`; with `group_of`, the
    /// sizes of the update by group.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        gradients: Flat,
        rate: impl Fn(&str) -> f64,
        group_of: Option<fn(&str) -> &'static str>,
    ) -> (M, BTreeMap<&'static str, UpdateSize>) {
        match self {
            Self::AdamW(adamw) => adamw.step(module, gradients, rate, group_of),
            Self::Adam(adam) => adam.step(module, gradients, rate, group_of),
            Self::Sgd(sgd) => sgd.step(module, gradients, rate, group_of),
        }
    }

    /// The state under PyTorch's names, each followed by the path.
    pub fn state(&self) -> Flat {
        match self {
            Self::AdamW(adamw) => adamw.state(),
            Self::Adam(adam) => adam.state(),
            Self::Sgd(sgd) => sgd.state(),
        }
    }

    /// Takes over a saved [`Self::state`], on `device`. Returns how many parameters took over theirs: 0 where it is the state
    /// of another optimizer.
    pub fn restore(&mut self, state: Flat, device: &Device) -> usize {
        match self {
            Self::AdamW(adamw) => adamw.restore(state, device),
            Self::Adam(adam) => adam.restore(state, device),
            Self::Sgd(sgd) => sgd.restore(state, device),
        }
    }
}
