//! Losses, one file each. They take logits unless a name says `probs`; targets are 0/1 floats, or whole class numbers where
//! a loss has classes; `valid` is 1 where a pixel counts and 0 where its label is to be ignored.

mod bce;
mod boundary;
mod class_balance;
mod cldice;
mod connectivity;
mod consistency;
mod cross_entropy;
mod deep_supervision;
mod dice;
mod focal;
mod ldam;
mod multiclass_dice;

pub use bce::{bce_with_logits, bce_with_logits_map};
pub use boundary::{DistanceBand, boundary_loss, boundary_weighted_bce};
pub use class_balance::{class_balanced_weights, drw_weights};
pub use cldice::{cldice_loss, soft_skeleton};
pub use connectivity::connectivity_loss;
pub use consistency::probability_mse;
pub use cross_entropy::{cross_entropy, labelled};
pub use deep_supervision::{deep_supervision, deep_supervision_weights, downsample_nearest};
pub use dice::dice_loss;
pub use focal::focal_loss;
pub use ldam::{ldam_loss, ldam_margins};
pub use multiclass_dice::{DiceOptions, multiclass_dice_loss};

use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Int, Tensor};
use trimtab_kernels::tensor::max_pool3d;

/// Sum over valid values divided by their number; 0 where none is valid.
fn masked_mean<const D: usize>(values: Tensor<D>, valid: Tensor<D>) -> Tensor<1> {
    // At least 1: an all-ignored batch gives 0 with zero gradient rather than 0/0.
    let count = valid.clone().sum().clamp_min(1.0);
    (values * valid).sum() / count
}

/// Sum of `values * weights` divided by the sum of the weights (all at least 0), however small; 0 where that is 0.
fn weighted_mean<const D: usize>(values: Tensor<D>, weights: Tensor<D>) -> Tensor<1> {
    let total = weights.clone().sum();
    let nothing = total.clone().equal_elem(0.0).float().cast(total.dtype());
    (values * weights).sum() / (total + nothing)
}

/// 1 at each target's class, 0 elsewhere; all 0 for a target outside `0..classes`.
///
/// # Shapes
/// - `target` `[b, ...]`; returns `[b, k, ...]`, of the type of `like`.
fn one_hot<const D: usize, const T: usize>(target: Tensor<T, Int>, like: &Tensor<D>) -> Tensor<D> {
    // Not Burn's `one_hot`, which asks the host for the largest target and panics at one outside.
    let mut shape = [1; D];
    shape[1] = like.dims()[1];
    let classes = Tensor::<1, Int>::arange(0..shape[1] as i64, &target.device());
    let classes = classes.cast(target.dtype()).reshape(shape);
    target.unsqueeze_dim::<D>(1).equal(classes).float().cast(like.dtype())
}

/// Largest value of the box of odd `edge` around each element, as far as it is inside the volume.
fn largest_around(x: Tensor<5>, edge: [usize; 3]) -> Tensor<5> {
    max_pool3d(
        x,
        MaxPoolOptions {
            kernel_size: edge,
            stride: [1; 3],
            padding: edge.map(|edge| (edge / 2, edge / 2)),
            dilation: [1; 3],
            ceil_mode: false,
        },
    )
}

/// `[b, c, h, w]` or `[b, c, d, h, w]` as volumes: an image is a volume of one slice.
///
/// # Panics
/// At any other rank.
fn as_volume<const D: usize>(x: Tensor<D>) -> Tensor<5> {
    let shape = x.dims();
    match shape[..] {
        [b, c, h, w] => x.reshape([b, c, 1, h, w]),
        [b, c, d, h, w] => x.reshape([b, c, d, h, w]),
        _ => panic!("shape {shape:?} where [b, c, h, w] or [b, c, d, h, w] is expected"),
    }
}
