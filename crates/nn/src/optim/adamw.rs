//! AdamW, Loshchilov & Hutter 2019, <https://arxiv.org/abs/1711.05101>, with PyTorch's defaults and order of operations.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::params::{Flat, map};

/// Constants of [`AdamW`]. Defaults as PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 1e-2 }
    }
}

/// AdamW with its moments by parameter path.
///
/// Each parameter counts its own updates, as in PyTorch: one that was frozen at first starts with its own bias
/// correction.
#[derive(Debug, Clone)]
pub struct AdamW {
    config: AdamWConfig,
    moments: BTreeMap<String, Moments>,
}

#[derive(Debug, Clone)]
struct Moments {
    updates: u64,
    mean: Tensor<1>,
    square: Tensor<1>,
}

/// Size of an update, summed over the parameters of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct UpdateSize {
    /// Norm of the change of the parameters, weight decay included.
    pub update: f64,
    /// Norm of the parameters before the change.
    pub parameter: f64,
}

impl AdamW {
    /// Zero moments.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, moments: BTreeMap::new() }
    }

    /// One update of every parameter of `module` that has a gradient.
    ///
    /// `rate(path)` is the learning rate of a parameter. With `group_of`, the sizes of the update are measured by group
    /// (two more passes and one read from the device); without, none is.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        mut gradients: Flat,
        rate: impl Fn(&str) -> f64,
        group_of: Option<fn(&str) -> &'static str>,
    ) -> (M, BTreeMap<&'static str, UpdateSize>) {
        let c = self.config;
        let moments = &mut self.moments;
        let mut squares: Vec<(&'static str, Tensor<1>, Tensor<1>)> = Vec::new();
        let module = map(module, &mut |path, old| {
            let Some(gradient) = gradients.remove(path) else { return old };
            let rate = rate(path);
            let mean = gradient.clone() * (1.0 - c.beta1);
            let square = gradient.clone() * gradient * (1.0 - c.beta2);
            let (updates, mean, square) = match moments.remove(path) {
                Some(m) => (m.updates + 1, m.mean * c.beta1 + mean, m.square * c.beta2 + square),
                None => (1, mean, square),
            };
            let correction1 = 1.0 - c.beta1.powf(updates as f64);
            let correction2 = (1.0 - c.beta2.powf(updates as f64)).sqrt();
            let denominator = square.clone().sqrt() / correction2 + c.epsilon;
            let change = mean.clone() / denominator * (rate / correction1);
            moments.insert(path.to_owned(), Moments { updates, mean, square });
            let new = old.clone() * (1.0 - rate * c.weight_decay) - change;
            if let Some(group_of) = group_of {
                let delta = new.clone() - old.clone();
                squares.push((group_of(path), (delta.clone() * delta).sum(), (old.clone() * old).sum()));
            }
            new
        });
        (module, sizes(squares))
    }

    /// The state as `exp_avg.<path>`, `exp_avg_sq.<path>` and `step.<path>` (one value): PyTorch's names.
    pub fn state(&self) -> Flat {
        let mut all = Flat::new();
        for (path, m) in &self.moments {
            let step = Tensor::from_data([m.updates as f32], &m.mean.device());
            all.insert(format!("exp_avg.{path}"), m.mean.clone());
            all.insert(format!("exp_avg_sq.{path}"), m.square.clone());
            all.insert(format!("step.{path}"), step);
        }
        all
    }

    /// Takes over a saved [`Self::state`], on `device`. Parameters without all three parts start anew.
    pub fn restore(&mut self, mut state: Flat, device: &Device) {
        self.moments.clear();
        let paths: Vec<String> =
            state.keys().filter_map(|name| name.strip_prefix("step.").map(str::to_owned)).collect();
        for path in paths {
            let mut part = |name: &str| state.remove(&format!("{name}.{path}")).map(|t| t.to_device(device));
            if let (Some(step), Some(mean), Some(square)) =
                (part("step"), part("exp_avg"), part("exp_avg_sq"))
            {
                let updates = step.into_scalar::<f32>() as u64;
                self.moments.insert(path, Moments { updates, mean, square });
            }
        }
    }
}

fn sizes(squares: Vec<(&'static str, Tensor<1>, Tensor<1>)>) -> BTreeMap<&'static str, UpdateSize> {
    let mut sizes = BTreeMap::<_, UpdateSize>::new();
    if squares.is_empty() {
        return sizes;
    }
    let groups: Vec<_> = squares.iter().map(|(group, ..)| *group).collect();
    let all = squares.into_iter().flat_map(|(_, update, parameter)| [update, parameter]).collect();
    let values: Vec<f32> =
        Tensor::cat(all, 0).into_data().convert::<f32>().try_into_vec().expect("converted to f32 just now");
    for (group, pair) in groups.into_iter().zip(values.chunks_exact(2)) {
        let size = sizes.entry(group).or_default();
        size.update += f64::from(pair[0]);
        size.parameter += f64::from(pair[1]);
    }
    for size in sizes.values_mut() {
        size.update = size.update.sqrt();
        size.parameter = size.parameter.sqrt();
    }
    sizes
}
