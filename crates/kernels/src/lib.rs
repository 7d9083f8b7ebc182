//! Training kernels for the CPU: plain functions on slices of `f32`, forward and backward.
//!
//! Layouts are PyTorch's: tensors are contiguous, `[batch, channels, depth, height, width]` with leading ones where there
//! are fewer dimensions. Vector instructions are chosen at run time (see [`Isa`]), work is split over rayon's threads in
//! parts that do not depend on timing, so that results are the same from run to run, and temporary memory is kept from call
//! to call.
//!
//! Every function checks the lengths of its slices and panics, naming the argument, where they do not fit the geometry:
//! that is a mistake of the calling program. Nothing here can fail for a reason of the data; empty batches are allowed.

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
