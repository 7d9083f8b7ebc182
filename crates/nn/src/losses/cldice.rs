//! Soft clDice, Shit et al. 2021, <https://arxiv.org/abs/2003.07311>: overlap of each side's centreline with the other's volume.
//!
//! Ignored values are as if the volume ended there: they neither erode what is beside them nor are reached by it.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use super::{as_volume, largest_around};

/// `1 - 2 Tp Ts / (Tp + Ts)` from the soft skeletons S of probabilities p and target t: topology precision
/// `Tp = (sum(S_p t) + s) / (sum S_p + s)` and sensitivity `Ts = (sum(S_t p) + s) / (sum S_t + s)`, s = `smooth`, sums over the
/// valid values of the whole batch.
///
/// In 0..=1 for `smooth > 0` (the authors' code: 1); 0 where nothing is valid. For `iterations` see [`soft_skeleton`].
///
/// # Shapes
/// - `probs`, `target` (0/1), `valid` `[b, c, h, w]` or `[b, c, d, h, w]`; returns `[1]`.
pub fn cldice_loss<const D: usize>(
    probs: Tensor<D>,
    target: Tensor<D>,
    valid: Tensor<D>,
    iterations: usize,
    smooth: f64,
) -> Tensor<1> {
    let of_probs = soft_skeleton(probs.clone(), valid.clone(), iterations);
    let of_target = soft_skeleton(target.clone(), valid, iterations);
    // The skeletons are 0 at ignored values, so the products need no mask.
    let share = |skeleton: Tensor<D>, volume: Tensor<D>| {
        ((skeleton.clone() * volume).sum() + smooth) / (skeleton.sum() + smooth)
    };
    let (precision, sensitivity) = (share(of_probs, target), share(of_target, probs));
    (precision.clone() * sensitivity.clone() * 2.0 / (precision + sensitivity)).neg() + 1.0
}

/// Soft skeleton: what an opening takes away from the volume and from each of its `iterations` erosions, joined. An erosion is the
/// minimum of the windows of three along each axis, a dilation the maximum of 3x3x3 (of 3x3 in images and single slices).
///
/// In 0..=1, 0 at ignored values. `iterations` is to be at least the largest radius, in voxels, of what has a centreline; 0 looks
/// at the volume itself only. Time and, for a gradient, memory (about eight tensors an iteration) are proportional to it.
///
/// # Shapes
/// - `probs` in 0..=1, `valid`: `[b, c, h, w]` (in the plane) or `[b, c, d, h, w]`; returns that shape.
pub fn soft_skeleton<const D: usize>(probs: Tensor<D>, valid: Tensor<D>, iterations: usize) -> Tensor<D> {
    let shape = probs.dims();
    let [probs, valid] = [probs, valid].map(as_volume);
    // In terms of the complement an erosion is a maximum, as a dilation is, and an ignored 0 is lost in either.
    let mut hollow = (probs.neg() + 1.0) * valid.clone();
    let mut skeleton: Option<Tensor<5>> = None;
    for _ in 0..=iterations {
        let eroded = erode(hollow.clone()) * valid.clone();
        let opened = largest_around(valid.clone() - eroded.clone(), [3; 3]);
        // An opening by two different windows can add, too.
        let ends = relu(valid.clone() - hollow - opened);
        skeleton = Some(match skeleton {
            None => ends,
            Some(skeleton) => skeleton.clone() + ends.clone() - skeleton * ends,
        });
        hollow = eroded;
    }
    skeleton.expect("the loop runs at least once").reshape(shape)
}

/// Maximum of the windows of three along each axis.
fn erode(hollow: Tensor<5>) -> Tensor<5> {
    let [.., depth, _, _] = hollow.dims();
    let plane = largest_around(hollow.clone(), [1, 1, 3]).max_pair(largest_around(hollow.clone(), [1, 3, 1]));
    if depth == 1 { plane } else { plane.max_pair(largest_around(hollow, [3, 1, 1])) }
}
