//! Soft Dice loss, Milletari et al. 2016 (V-Net), <https://arxiv.org/abs/1606.04797>, in the form with plain sums in the
//! denominator.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;

/// `1 - (2 sum(p t) + s) / (sum p + sum t + s)` over the valid values of the whole batch, p = sigmoid(logit), s = `smooth`.
///
/// In 0..=1 for `smooth >= 0`. With no valid value it is 0 (for `smooth > 0`).
///
/// # Shapes
/// - `logits`, `target`, `valid` of one shape; returns `[1]`.
pub fn dice_loss<const D: usize>(
    logits: Tensor<D>,
    target: Tensor<D>,
    valid: Tensor<D>,
    smooth: f64,
) -> Tensor<1> {
    let probs = sigmoid(logits) * valid.clone();
    let target = target * valid;
    let overlap = (probs.clone() * target.clone()).sum();
    ((overlap * 2.0 + smooth) / (probs.sum() + target.sum() + smooth)).neg() + 1.0
}
