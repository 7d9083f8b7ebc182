//! Focal loss, Lin et al. 2017, <https://arxiv.org/abs/1708.02002>, eq. 5.

use burn::tensor::Tensor;
use burn::tensor::activation::{log_sigmoid, sigmoid};

use super::{bce_with_logits_map, masked_mean};

/// `alpha_t (1 - p_t)^gamma BCE`, mean over the valid values; 0 where none is.
///
/// `alpha` in 0..=1 weighs positives (and `1 - alpha` negatives), `gamma >= 0` turns down what is already right,
/// `positive_weight` multiplies the cross-entropy of positives (1: off).
///
/// # Shapes
/// - `logits`, `target`, `valid` of one shape; returns `[1]`.
pub fn focal_loss<const D: usize>(
    logits: Tensor<D>,
    target: Tensor<D>,
    valid: Tensor<D>,
    alpha: f64,
    gamma: f64,
    positive_weight: f64,
) -> Tensor<1> {
    let bce = bce_with_logits_map(logits.clone(), target.clone(), positive_weight);
    let alpha_t = target.clone() * (2.0 * alpha - 1.0) + (1.0 - alpha);
    let weighted = alpha_t * bce;
    if gamma == 0.0 {
        return masked_mean(weighted, valid);
    }
    // 1 - p_t: the probability of the wrong class, sigmoid(-z) for positives and sigmoid(z) for negatives.
    let wrong_logits = logits * (target * -2.0 + 1.0);
    let factor = if gamma < 1.0 {
        // A power of what has become 0 has the gradient inf * 0 here; by way of the logarithm it is 0.
        (log_sigmoid(wrong_logits) * gamma).exp()
    } else {
        sigmoid(wrong_logits).powf_scalar(gamma)
    };
    masked_mean(factor * weighted, valid)
}
