//! What happens between the gradients and the next forward pass: plain calls on flat tensors by path.

mod adamw;
mod average;
mod clip;

pub use adamw::{AdamW, AdamWConfig, UpdateSize};
pub use average::{Buffers, average};
pub use clip::{accumulate, clip_by_global_norm, global_norm};
