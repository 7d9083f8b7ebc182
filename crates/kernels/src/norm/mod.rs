//! Normalisation with an optional activation behind it in the same pass over memory.
//!
//! | functions | one mean and variance for each | paper |
//! |---|---|---|
//! | [`batch_train`], [`batch_eval`] | channel | Ioffe & Szegedy 2015, <https://arxiv.org/abs/1502.03167> |
//! | [`group`] | sample and group of channels | Wu & He 2018, <https://arxiv.org/abs/1803.08494> |
//! | [`group`], `groups == channels` | sample and channel | instance norm, Ulyanov et al. 2016, <https://arxiv.org/abs/1607.08022> |
//! | [`layer`] | row | Ba et al. 2016, <https://arxiv.org/abs/1607.06450> |
//! | [`layer_channels`] | sample and position, over the channels | as ConvNeXt, Liu et al. 2022, <https://arxiv.org/abs/2201.03545> |
//!
//! All compute `z = (x - mean) / sqrt(variance + epsilon) * weight + bias` with the biased variance, and `y = act(z)`. The
//! backward functions compute the sign of `z`, which decides what the activation lets through, from `x` again by the same
//! operations, so `y` need not be kept.
//!
//! Results are the same bits from run to run, for any number of threads, and for every [`Isa`](crate::Isa).

mod activation;
mod batch;
mod group;
mod layer;
mod plane;

pub use activation::{Activation, activation, activation_backward};
pub use batch::{batch_eval, batch_eval_backward, batch_train, batch_train_backward};
pub use group::{group, group_backward};
pub use layer::{layer, layer_backward, layer_channels, layer_channels_backward};

/// Sizes of a tensor `[batch, channels, inner]`; `inner` is the product of the spatial dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, clippy::allow_attributes)]
pub struct Shape {
    pub batch: usize,
    pub channels: usize,
    pub inner: usize,
}

impl Shape {
    fn elements(self) -> usize {
        self.batch * self.channels * self.inner
    }
}
