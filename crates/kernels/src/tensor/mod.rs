//! The kernels as operations on Burn's tensors, with gradients.
//!
//! On the CPU backend (Flex) in f32 they run the functions of this crate; on every other backend, or in another type, Burn's
//! own operators. Names and arguments follow Burn's.

mod conv;
#[cfg(feature = "flex")]
mod glue;
mod norm;
mod optimizer;
mod pointwise;
mod pool;

pub use conv::{conv_transpose1d, conv_transpose2d, conv_transpose3d, conv1d, conv2d, conv3d};
pub use norm::{
    BatchNormTrain, activation, batch_norm, batch_norm_train, group_norm, layer_norm, layer_norm_channels,
};
pub use optimizer::{AdamWUpdate, SgdUpdate, adamw, average, scale, sgd, sum_of_squares};
pub use pointwise::{gelu, join_channels, scaled_residual};
pub use pool::{
    adaptive_avg_pool2d, adaptive_avg_pool3d, avg_pool2d, avg_pool3d, interpolate2d, interpolate3d,
    max_pool2d, max_pool3d,
};

/// The last three of `values`, with `fill` before them.
#[cfg(feature = "flex")]
fn three(values: &[usize], fill: usize) -> [usize; 3] {
    let mut all = [fill; 3];
    all[3 - values.len()..].copy_from_slice(values);
    all
}
