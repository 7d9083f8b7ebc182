//! Losses, one file each. They take logits unless a name says `probs`; targets are 0/1 floats; `valid` is 1 where a
//! pixel counts and 0 where its label is to be ignored.

mod bce;
mod consistency;
mod dice;
mod focal;

pub use bce::{bce_with_logits, bce_with_logits_map};
pub use consistency::probability_mse;
pub use dice::dice_loss;
pub use focal::focal_loss;

use burn::tensor::Tensor;

/// Sum over valid values divided by their number; 0 where none is valid.
fn masked_mean<const D: usize>(values: Tensor<D>, valid: Tensor<D>) -> Tensor<1> {
    // At least 1: an all-ignored batch gives 0 with zero gradient rather than 0/0.
    let count = valid.clone().sum().clamp_min(1.0);
    (values * valid).sum() / count
}
