//! Softmax cross-entropy of any rank. Axes: `b` = batch, `k` = class.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};

use super::{one_hot, weighted_mean};

/// `-log softmax(logits)[target]`, without overflow at any logit; the mean over the valid values is weighted by `weight_k` of the
/// targets (ones for `None`) and divides by the sum of these weights, as PyTorch's.
///
/// At least 0. A target outside `0..k` (255, -100) is ignored whatever `valid` says; 0 where nothing is left.
///
/// # Shapes
/// - `logits` `[b, k, ...]`, `target` and `valid` `[b, ...]`, `weight` `[k]`; returns `[1]`.
pub fn cross_entropy<const D: usize, const T: usize>(
    logits: Tensor<D>,
    target: Tensor<T, Int>,
    valid: Tensor<T>,
    weight_k: Option<Tensor<1>>,
) -> Tensor<1> {
    let truth = one_hot(target, &logits);
    mean_cross_entropy(logits, truth, Some(valid.unsqueeze_dim(1)), weight_k)
}

/// 1 where a target is a class, that is in `0..classes`, 0 elsewhere: `valid` for labels that mark what to ignore by 255 or by a
/// negative number.
///
/// # Shapes
/// - `target` of any shape; returns that shape.
pub fn labelled<const D: usize>(target: Tensor<D, Int>, classes: usize) -> Tensor<D> {
    target.clone().greater_equal_elem(0).bool_and(target.lower_elem(classes as i64)).float()
}

/// Cross-entropy against one-hot `truth`, whose rows of zeros are ignored.
///
/// # Shapes
/// - `logits` and `truth` `[b, k, ...]`, `valid` `[b, 1, ...]`, `weight` `[k]`; returns `[1]`.
pub(super) fn mean_cross_entropy<const D: usize>(
    logits: Tensor<D>,
    truth: Tensor<D>,
    valid: Option<Tensor<D>>,
    weight_k: Option<Tensor<1>>,
) -> Tensor<1> {
    let weights = match weight_k {
        None => truth,
        Some(weight_k) => {
            let mut shape = [1; D];
            shape[1] = weight_k.dims()[0];
            truth * weight_k.reshape(shape)
        }
    };
    let weights = match valid {
        None => weights,
        Some(valid) => weights * valid,
    };
    weighted_mean(log_softmax(logits, 1).neg(), weights)
}
