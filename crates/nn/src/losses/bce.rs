//! Binary cross-entropy on logits.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;

use super::masked_mean;

/// Per-value `-(w t log p + (1 - t) log(1 - p))`, p = sigmoid(logit), w = `positive_weight`, without overflow at any logit.
///
/// # Shapes
/// - `logits`, `target` of one shape; returns that shape.
pub fn bce_with_logits_map<const D: usize>(
    logits: Tensor<D>,
    target: Tensor<D>,
    positive_weight: f64,
) -> Tensor<D> {
    // log(1 - p) = log p - z, so one log_sigmoid serves both terms and its gradient is exact at z = 0 too.
    let weight = target.clone() * (positive_weight - 1.0) + 1.0;
    (target.neg() + 1.0) * logits.clone() - weight * log_sigmoid(logits)
}

/// Mean of [`bce_with_logits_map`] over the valid values; 0 where none is.
///
/// # Shapes
/// - `logits`, `target`, `valid` of one shape; returns `[1]`.
pub fn bce_with_logits<const D: usize>(
    logits: Tensor<D>,
    target: Tensor<D>,
    valid: Tensor<D>,
    positive_weight: f64,
) -> Tensor<1> {
    masked_mean(bce_with_logits_map(logits, target, positive_weight), valid)
}
