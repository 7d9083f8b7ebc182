//! Adam, Kingma & Ba 2015, <https://arxiv.org/abs/1412.6980>, with weight decay as part of the gradient, as PyTorch's.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Device;

use super::adamw::{AdamW, AdamWConfig, UpdateSize};
use crate::params::{Flat, flat};

/// Constants of [`Adam`]; defaults as PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamConfig {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Added to the gradient, times the parameter: unlike AdamW's it passes through the moments.
    pub weight_decay: f64,
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// Adam with its moments by parameter path: [`AdamW`] without its own decay.
#[derive(Debug, Clone)]
pub struct Adam {
    weight_decay: f64,
    inner: AdamW,
}

impl Adam {
    /// Zero moments.
    pub fn new(config: AdamConfig) -> Self {
        let AdamConfig { beta1, beta2, epsilon, weight_decay } = config;
        Self { weight_decay, inner: AdamW::new(AdamWConfig { beta1, beta2, epsilon, weight_decay: 0.0 }) }
    }

    /// One update; see [`AdamW::step`].
    pub fn step<M: Module>(
        &mut self,
        module: M,
        mut gradients: Flat,
        rate: impl Fn(&str) -> f64,
        group_of: Option<fn(&str) -> &'static str>,
    ) -> (M, BTreeMap<&'static str, UpdateSize>) {
        if self.weight_decay != 0.0 {
            for (path, parameter) in flat(&module) {
                if let Some(gradient) = gradients.remove(&path) {
                    gradients.insert(path, gradient + parameter * self.weight_decay);
                }
            }
        }
        self.inner.step(module, gradients, rate, group_of)
    }

    /// The state; see [`AdamW::state`].
    pub fn state(&self) -> Flat {
        self.inner.state()
    }

    /// Takes over a saved [`Self::state`]; see [`AdamW::restore`].
    pub fn restore(&mut self, state: Flat, device: &Device) -> usize {
        self.inner.restore(state, device)
    }
}
