//! Global norm, clipping and accumulation of gradients.

use trimtab_kernels::tensor::{scale, sum_of_squares};

use crate::params::Flat;

/// Euclidean norm of all gradients together; 0 for none. One read from the device.
pub fn global_norm(gradients: &Flat) -> f64 {
    sum_of_squares(gradients.values()).sqrt()
}

/// Scales all gradients by `max_norm / (norm + 1e-6)` where `norm` (from [`global_norm`]) is above that, as PyTorch's
/// `clip_grad_norm_`. Returns whether it did.
pub fn clip_by_global_norm(gradients: &mut Flat, norm: f64, max_norm: f64) -> bool {
    let factor = max_norm / (norm + 1e-6);
    if factor >= 1.0 {
        return false;
    }
    scale_all(gradients, factor);
    true
}

/// Adds `share * gradients` to `sum`: with `share` = 1/n, n calls give the gradient of the mean of n losses.
pub fn accumulate(sum: &mut Flat, mut gradients: Flat, share: f64) {
    if share != 1.0 {
        scale_all(&mut gradients, share);
    }
    for (path, gradient) in gradients {
        let total = match sum.remove(&path) {
            Some(so_far) => so_far + gradient,
            None => gradient,
        };
        sum.insert(path, total);
    }
}

fn scale_all(gradients: &mut Flat, factor: f64) {
    let (paths, tensors): (Vec<_>, Vec<_>) = std::mem::take(gradients).into_iter().unzip();
    *gradients = paths.into_iter().zip(scale(tensors, factor)).collect();
}
