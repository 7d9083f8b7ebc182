//! Norms and first values of tensors, as `summary` in `goldens/resnet3d.py`.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use serde::Deserialize;
use trimtab_nn::params::Flat;

#[derive(Debug, Deserialize)]
pub struct Summary {
    norm: f64,
    first: Vec<f64>,
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().try_into_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

impl Summary {
    /// The values agree to 1e-4 of the norm and `floor`.
    pub fn check<const D: usize>(&self, tensor: Tensor<D>, floor: f64, what: &str) {
        let found = values(tensor);
        let norm = found.iter().map(|v| v * v).sum::<f64>().sqrt();
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-4 * self.norm + floor;
        assert!(close(norm, self.norm), "{what}: norm {norm} against {}", self.norm);
        for (ours, theirs) in found.iter().zip(&self.first) {
            assert!(close(*ours, *theirs), "{what}: {ours} against {theirs}");
        }
    }
}

/// Each gradient agrees to 1e-4 of its norm and 1e-6 of that of all: a bias before a norm has none but rounding's.
pub fn check_gradients(found: &Flat, expected: &BTreeMap<String, Summary>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let all = expected.values().map(|summary| summary.norm * summary.norm).sum::<f64>().sqrt();
    for (path, gradient) in found {
        expected[path].check(gradient.clone(), 1e-6 * all, &format!("gradient of {path}"));
    }
}
