//! Soft Dice loss over classes, as nnU-Net has it: Isensee et al. 2021, <https://doi.org/10.1038/s41592-020-01008-z>; after
//! Milletari et al. 2016 (V-Net), <https://arxiv.org/abs/1606.04797>. Axes: `b` = batch, `k` = class.

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Int, Tensor};

use super::{labelled, one_hot};

/// What a Dice coefficient is taken over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiceOptions {
    /// Whether class 0 counts (it does not matter with one channel, whose only class is the foreground).
    pub background: bool,
    /// One coefficient for each sample, then the mean, instead of one of sums over the whole batch.
    pub per_sample: bool,
    /// Added to numerator and denominator; above 0.
    pub smooth: f64,
}

impl Default for DiceOptions {
    /// nnU-Net's: foreground only, smooth 1e-5, over the batch.
    fn default() -> Self {
        Self { background: false, per_sample: false, smooth: 1e-5 }
    }
}

/// `1 - mean of (2 sum(p t) + s) / (sum p + sum t + s)` over classes (and samples), sums over the valid values, p = softmax of
/// the logits over the classes (sigmoid where there is but one), t = 1 at the target's class.
///
/// In 0..=1. One channel is the foreground: its targets are 0 and 1. A class that is neither predicted nor there counts as
/// perfect, and so does everything where nothing is valid: 0 with zero gradient. A target outside the classes is ignored whatever
/// `valid` says.
///
/// # Shapes
/// - `logits` `[b, k, ...]`, `target` and `valid` `[b, ...]`; returns `[1]`.
pub fn multiclass_dice_loss<const D: usize, const T: usize>(
    logits: Tensor<D>,
    target: Tensor<T, Int>,
    valid: Tensor<T>,
    options: &DiceOptions,
) -> Tensor<1> {
    let classes = logits.dims()[1];
    let known = labelled(target.clone(), classes.max(2)).cast(valid.dtype());
    let valid = (valid * known).unsqueeze_dim::<D>(1);
    let (probs, truth) = if classes == 1 {
        (sigmoid(logits), target.unsqueeze_dim::<D>(1).float().cast(valid.dtype()))
    } else {
        let truth = one_hot(target, &logits);
        (softmax(logits, 1), truth)
    };
    // [b, k] of sums over what is left of the shape.
    let sums = |x: Tensor<D>| -> Tensor<2> {
        let shape = x.dims();
        let (b, k) = (shape[0], shape[1]);
        let sums_bk = x.reshape([b, k, shape[2..].iter().product()]).sum_dim(2).reshape([b, k]);
        let first = usize::from(!options.background && classes > 1);
        let sums_bk = sums_bk.slice([0..b, first..k]);
        if options.per_sample { sums_bk } else { sums_bk.sum_dim(0) }
    };
    let (probs, truth) = (probs * valid.clone(), truth * valid);
    let overlap = sums(probs.clone() * truth.clone());
    let sizes = sums(probs) + sums(truth);
    ((overlap * 2.0 + options.smooth) / (sizes + options.smooth)).mean().neg() + 1.0
}
