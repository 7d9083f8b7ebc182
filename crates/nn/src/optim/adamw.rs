//! AdamW, Loshchilov & Hutter 2019, <https://arxiv.org/abs/1711.05101>, with PyTorch's defaults and order of operations.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use trimtab_kernels::tensor::{AdamWUpdate, adamw};

use crate::params::{Flat, copy, map};

/// Constants of [`AdamW`]; defaults as PyTorch's.
pub use trimtab_kernels::optimizer::AdamW as AdamWConfig;

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
    /// (on the CPU in the same pass; on other devices two more, and one read); without, none is.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        mut gradients: Flat,
        rate: impl Fn(&str) -> f64,
        group_of: Option<fn(&str) -> &'static str>,
    ) -> (M, BTreeMap<&'static str, UpdateSize>) {
        let (mut paths, mut updates) = (Vec::new(), Vec::new());
        // The parameters are taken out, so that they can be changed in place; their gradients stand in meanwhile.
        let module = map(module, &mut |path, parameter| {
            let Some(gradient) = gradients.remove(path) else { return parameter };
            let moments = self.moments.remove(path).unwrap_or_else(|| Moments {
                updates: 0,
                mean: gradient.zeros_like(),
                square: gradient.zeros_like(),
            });
            paths.push(path.to_owned());
            updates.push(AdamWUpdate {
                parameter,
                gradient: gradient.clone(),
                mean: moments.mean,
                square: moments.square,
                updates: moments.updates + 1,
                rate: rate(path),
            });
            gradient
        });
        let measured = adamw(&self.config, &mut updates, group_of.is_some());
        let mut sizes = BTreeMap::<_, UpdateSize>::new();
        if let Some(group_of) = group_of {
            for (path, measured) in paths.iter().zip(measured) {
                let size = sizes.entry(group_of(path)).or_default();
                size.update += measured.change;
                size.parameter += measured.parameter;
            }
            for size in sizes.values_mut() {
                size.update = size.update.sqrt();
                size.parameter = size.parameter.sqrt();
            }
        }
        let mut changed = Flat::new();
        for (path, u) in paths.into_iter().zip(updates) {
            changed.insert(path.clone(), u.parameter);
            self.moments.insert(path, Moments { updates: u.updates, mean: u.mean, square: u.square });
        }
        (copy(module, &changed), sizes)
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

    /// Takes over a saved [`Self::state`], on `device`. Parameters without all three parts start anew. Returns how many took
    /// over theirs.
    pub fn restore(&mut self, mut state: Flat, device: &Device) -> usize {
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
        self.moments.len()
    }
}
