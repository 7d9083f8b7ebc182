//! A local connectivity loss: whether the same places have foreground within reach.

use burn::tensor::Tensor;

use super::{as_volume, largest_around, masked_mean};

/// Mean squared difference between the maxima of probabilities and of target over 3x3x3 voxels (3x3 pixels) around each valid
/// value; 0 where none is valid.
///
/// In 0..=1. A gap of up to two voxels in a target is filled by its neighbourhoods, so what is seen is where there is
/// foreground, not how many pieces it is in. Ignored values are as if the volume ended there.
///
/// # Shapes
/// - `probs`, `target` (0/1), `valid` `[b, c, h, w]` or `[b, c, d, h, w]`; returns `[1]`.
pub fn connectivity_loss<const D: usize>(probs: Tensor<D>, target: Tensor<D>, valid: Tensor<D>) -> Tensor<1> {
    let [probs, target, valid] = [probs, target, valid].map(as_volume);
    // 0 is no maximum among values of at least 0.
    let reach = |x: Tensor<5>| largest_around(x * valid.clone(), [3; 3]);
    let difference = reach(probs) - reach(target);
    masked_mean(difference.clone() * difference, valid)
}
