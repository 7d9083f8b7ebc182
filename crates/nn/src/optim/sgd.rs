//! Stochastic gradient descent with momentum, plain or Nesterov's (Sutskever et al. 2013), as `torch.optim.SGD`.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use trimtab_kernels::tensor::{SgdUpdate, sgd, sum_of_squares};

use super::adamw::UpdateSize;
use crate::params::{Flat, copy, map};

/// Constants of [`Sgd`]. PyTorch admits Nesterov's momentum only with momentum and without dampening.
pub use trimtab_kernels::optimizer::Sgd as SgdConfig;

/// SGD with its velocities by parameter path.
#[derive(Debug, Clone)]
pub struct Sgd {
    config: SgdConfig,
    velocities: BTreeMap<String, Velocity>,
}

#[derive(Debug, Clone)]
struct Velocity {
    updates: u64,
    value: Tensor<1>,
}

impl Sgd {
    /// No velocities.
    pub fn new(config: SgdConfig) -> Self {
        Self { config, velocities: BTreeMap::new() }
    }

    /// One update of every parameter of `module` that has a gradient.
    ///
    /// `rate(path)` is the learning rate of a parameter. With `group_of`, the sizes of the update are measured by group, which
    /// takes a copy of the parameters and two reads a group; without, none is.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        mut gradients: Flat,
        rate: impl Fn(&str) -> f64,
        group_of: Option<fn(&str) -> &'static str>,
    ) -> (M, BTreeMap<&'static str, UpdateSize>) {
        let (mut paths, mut updates, mut before) = (Vec::new(), Vec::new(), Vec::new());
        // The parameters are taken out, so that they can be changed in place; their gradients stand in meanwhile.
        let module = map(module, &mut |path, parameter| {
            let Some(gradient) = gradients.remove(path) else { return parameter };
            let (count, velocity) = match self.velocities.remove(path) {
                Some(velocity) => (velocity.updates, Some(velocity.value)),
                None => (0, None),
            };
            paths.push(path.to_owned());
            before.extend(group_of.map(|_| parameter.clone()));
            updates.push(SgdUpdate {
                parameter,
                gradient: gradient.clone(),
                velocity,
                updates: count + 1,
                rate: rate(path),
            });
            gradient
        });
        sgd(&self.config, &mut updates);
        let sizes = group_of.map_or_else(BTreeMap::new, |group_of| {
            let mut groups = BTreeMap::<_, (Vec<Tensor<1>>, Vec<Tensor<1>>)>::new();
            for ((path, update), old) in paths.iter().zip(&updates).zip(before) {
                let (changes, parameters) = groups.entry(group_of(path)).or_default();
                changes.push(update.parameter.clone() - old.clone());
                parameters.push(old);
            }
            let size = |(changes, parameters): (Vec<_>, Vec<_>)| UpdateSize {
                update: sum_of_squares(&changes).sqrt(),
                parameter: sum_of_squares(&parameters).sqrt(),
            };
            groups.into_iter().map(|(group, tensors)| (group, size(tensors))).collect()
        });
        let mut changed = Flat::new();
        for (path, u) in paths.into_iter().zip(updates) {
            if let Some(value) = u.velocity {
                self.velocities.insert(path.clone(), Velocity { updates: u.updates, value });
            }
            changed.insert(path, u.parameter);
        }
        (copy(module, &changed), sizes)
    }

    /// The state as `momentum_buffer.<path>` (PyTorch's name) and `step.<path>` (one value); empty without momentum.
    pub fn state(&self) -> Flat {
        let mut all = Flat::new();
        for (path, velocity) in &self.velocities {
            let step = Tensor::from_data([velocity.updates as f32], &velocity.value.device());
            all.insert(format!("momentum_buffer.{path}"), velocity.value.clone());
            all.insert(format!("step.{path}"), step);
        }
        all
    }

    /// Takes over a saved [`Self::state`], on `device`. Parameters without both parts start anew. Returns how many took over
    /// theirs.
    pub fn restore(&mut self, mut state: Flat, device: &Device) -> usize {
        self.velocities.clear();
        let paths: Vec<String> = state
            .keys()
            .filter_map(|name| name.strip_prefix("momentum_buffer.").map(str::to_owned))
            .collect();
        for path in paths {
            let mut part = |name: &str| state.remove(&format!("{name}.{path}")).map(|t| t.to_device(device));
            if let (Some(step), Some(value)) = (part("step"), part("momentum_buffer")) {
                let updates = step.into_scalar::<f32>() as u64;
                self.velocities.insert(path, Velocity { updates, value });
            }
        }
        self.velocities.len()
    }
}
