//! Label-distribution-aware margin loss (LDAM), Cao et al. 2019, <https://arxiv.org/abs/1906.07413>.
//!
//! Axes: `b` = batch, `k` = class.

use burn::tensor::{Int, Tensor};

use super::cross_entropy::mean_cross_entropy;
use super::one_hot;

/// Margins proportional to `n^(-1/4)`, n = samples of a class, scaled so that the rarest class gets `max_margin`.
///
/// In 0..=`max_margin`. A class without a sample gets `max_margin` and does not change the others'.
pub fn ldam_margins(class_counts: &[u64], max_margin: f64) -> Vec<f64> {
    let rarest = class_counts.iter().filter(|n| **n > 0).min().copied().unwrap_or(1) as f64;
    let margin = |n: u64| if n == 0 { max_margin } else { max_margin * (rarest / n as f64).powf(0.25) };
    class_counts.iter().map(|n| margin(*n)).collect()
}

/// Cross-entropy of `s (z - m_y e_y)`: the logit of the true class y is lowered by its margin, then all are multiplied by
/// s = `scale`. The mean is weighted by `weight_k` of the targets (ones for `None`) and divides by the sum of these weights, as
/// PyTorch's.
///
/// At least 0. The paper's logits are cosines, in -1..=1, of a normalised linear layer: `scale` makes them sharp enough. A
/// target outside `0..k` is ignored; 0 where nothing is left.
///
/// # Shapes
/// - `logits` `[b, k]`, `target` `[b]`, `margin` and `weight` `[k]`; returns `[1]`.
pub fn ldam_loss(
    logits_bk: Tensor<2>,
    target_b: Tensor<1, Int>,
    margin_k: Tensor<1>,
    scale: f64,
    weight_k: Option<Tensor<1>>,
) -> Tensor<1> {
    let truth_bk = one_hot(target_b, &logits_bk);
    let margin_1k = margin_k.unsqueeze_dim::<2>(0);
    mean_cross_entropy((logits_bk - truth_bk.clone() * margin_1k) * scale, truth_bk, None, weight_k)
}
