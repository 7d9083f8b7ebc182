//! Numbers of a step that lie on the device, read all at once.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use trimtab_signals::names::Signal;

use crate::error::{Result, TrainError};
use crate::recipe::Signals;

/// Gathers signals of a step; those of several micro-batches add up.
#[derive(Default)]
pub(crate) struct Measured {
    tensors: Vec<(String, Tensor<1>)>,
    known: BTreeMap<String, f64>,
}

impl Measured {
    /// Adds `share` of a `[1]` tensor.
    pub(crate) fn add(&mut self, signal: &Signal, value: &Tensor<1>, share: f64) {
        self.add_named(signal.name.to_owned(), value, share);
    }

    /// As [`Self::add`] under a name with a group.
    pub(crate) fn add_named(&mut self, name: String, value: &Tensor<1>, share: f64) {
        let value = if value.is_autodiff() { value.clone().inner() } else { value.clone() };
        self.tensors.push((name, value * share));
    }

    /// Adds a number that is on the host already.
    pub(crate) fn known(&mut self, signal: &Signal, value: f64) {
        *self.known.entry(signal.name.to_owned()).or_default() += value;
    }

    /// Reads them.
    pub(crate) fn read(self) -> Result<Signals> {
        let (names, values): (Vec<String>, Vec<_>) = self.tensors.into_iter().unzip();
        let values = if values.is_empty() { Vec::new() } else { to_vec(Tensor::cat(values, 0))? };
        let mut sums: Signals = Vec::new();
        for (name, value) in names.into_iter().zip(values) {
            match sums.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += f64::from(value),
                None => sums.push((name, f64::from(value))),
            }
        }
        sums.extend(self.known);
        Ok(sums)
    }
}

/// A tensor's values on the host.
pub(crate) fn to_vec<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor
        .try_into_data()
        .map_err(|e| TrainError::Internal(format!("cannot read from the device: {e:?}")))?;
    data.convert::<f32>()
        .try_into_vec()
        .map_err(|e| TrainError::Internal(format!("cannot read from the device: {e:?}")))
}
