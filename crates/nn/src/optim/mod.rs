//! What happens between the gradients and the next forward pass: plain calls on flat tensors by path.

mod adam;
mod adamw;
mod average;
mod clip;
mod optimizer;
mod sgd;

pub use adam::{Adam, AdamConfig};
pub use adamw::{AdamW, AdamWConfig, UpdateSize};
pub use average::{Buffers, average};
pub use clip::{accumulate, clip_by_global_norm, global_norm};
pub use optimizer::Optimizer;
pub use sgd::{Sgd, SgdConfig};
