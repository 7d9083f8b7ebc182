//! Training kernels for the CPU: plain functions on slices of `f32`, forward and backward.
//!
//! | module | what | as in PyTorch |
//! |---|---|---|
//! | [`conv`] | convolution in 1, 2 or 3 dimensions, its transpose, their gradients | `conv1d/2d/3d`, `conv_transpose1d/2d/3d` |
//! | [`norm`] | batch, group, instance and layer norm with a fused activation | `batch_norm`, `group_norm`, `layer_norm` |
//! | [`pool`], [`resize`] | max, average and adaptive pooling; nearest and linear resizing | `max_pool2d/3d`, `interpolate`, … |
//! | [`pointwise`] | GELU, scaled residual, joining channels | `gelu`, `cat` |
//! | [`optimizer`] | AdamW, SGD, moving averages, norms of gradients, over all parameters in one pass | `optim.AdamW`, `optim.SGD` |
//! | [`alloc`] | a global allocator that keeps large blocks from step to step | the caching allocator of `cuda` |
//! | `tensor` (feature `burn`) | all of these as differentiable operations on Burn's tensors | |
//!
//! Layouts are PyTorch's: tensors are contiguous, `[batch, channels, depth, height, width]` with leading ones where there
//! are fewer dimensions. Vector instructions are chosen at run time (see [`Isa`]), work is split over rayon's threads in
//! parts that do not depend on timing or on their number, so that results are the same bits from run to run, and temporary
//! memory is kept from call to call.
//!
//! Every function checks the lengths of its slices and panics, naming the argument, where they do not fit the geometry:
//! that is a mistake of the calling program. Nothing here can fail for a reason of the data; empty batches are allowed.
//!
//! ```
//! use trimtab_kernels::conv::{self, Conv};
//!
//! // 3x3, 3 to 8 channels, two images of 32 x 32.
//! let c = Conv {
//!     batch: 2,
//!     input: 3,
//!     output: 8,
//!     groups: 1,
//!     size: [1, 32, 32],
//!     kernel: [1, 3, 3],
//!     stride: [1, 1, 1],
//!     padding: [0, 1, 1],
//!     dilation: [1, 1, 1],
//! };
//! let (x, weight, dy) = (vec![1.0; c.input_len()], vec![0.5; c.weight_len()], vec![1.0; c.output_len()]);
//! let (mut y, mut dweight) = (vec![0.0; c.output_len()], vec![0.0; c.weight_len()]);
//! conv::forward(&c, &x, &weight, None, &mut y);
//! conv::backward_weight(&c, &x, &dy, &mut dweight);
//! // Inside, a sum of 27 halves; at a corner, of 12. The middle tap meets every position of both images.
//! assert_eq!((y[33], y[0], dweight[4]), (13.5, 6.0, 2.0 * 32.0 * 32.0));
//! ```

pub mod alloc;
pub mod conv;
pub mod norm;
pub mod optimizer;
mod par;
pub mod pointwise;
pub mod pool;
pub mod resize;
mod scratch;
mod simd;
#[cfg(feature = "burn")]
pub mod tensor;

pub use simd::Isa;
