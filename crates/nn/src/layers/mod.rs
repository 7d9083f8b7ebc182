//! Thin layers that own their parameters under PyTorch's names.
//!
//! Burn's own layers are not used for two reasons: their batch norm shares its running statistics between clones and
//! updates them one batch late, and its fields are named `gamma`/`beta`. Ours update in place, so a snapshot taken
//! between two steps is exactly the state of the network, and parameter paths are PyTorch's without an adapter.

mod conv;
mod init;
mod linear;
mod norm;

pub use conv::{Conv2d, Conv3d, ConvConfig, ConvTranspose2d, ConvTranspose3d};
pub use linear::{Linear, NormedLinear, dropout};
pub use norm::{BatchNorm, BatchNorm2d, GroupNorm, InstanceNorm, LayerNormChannels};
pub use trimtab_kernels::norm::Activation;
pub use trimtab_kernels::tensor::activation;
