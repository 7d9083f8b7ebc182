//! Global norm, clipping and accumulation of gradients.

use burn::tensor::Tensor;

use crate::params::Flat;

/// Euclidean norm of all gradients together; 0 for none. One read from the device.
pub fn global_norm(gradients: &Flat) -> f64 {
    let squares: Vec<Tensor<1>> = gradients.values().map(|g| (g.clone() * g.clone()).sum()).collect();
    if squares.is_empty() {
        return 0.0;
    }
    f64::from(Tensor::cat(squares, 0).sum().into_scalar::<f32>()).sqrt()
}

/// Scales all gradients by `max_norm / (norm + 1e-6)` where `norm` (from [`global_norm`]) is above that, as PyTorch's
/// `clip_grad_norm_`. Returns whether it did.
pub fn clip_by_global_norm(gradients: &mut Flat, norm: f64, max_norm: f64) -> bool {
    let scale = max_norm / (norm + 1e-6);
    if scale >= 1.0 {
        return false;
    }
    scale_all(gradients, scale);
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

fn scale_all(gradients: &mut Flat, scale: f64) {
    *gradients = std::mem::take(gradients).into_iter().map(|(path, g)| (path, g * scale)).collect();
}
