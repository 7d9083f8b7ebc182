//! The activations that are linear on either side of zero.

use crate::Isa;
use crate::par::{self, Shared};
use crate::simd::multiversion;

/// What follows a normalisation: `z` where `z > 0`, else a multiple of `z`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// None: `z`.
    Identity,
    /// `max(z, 0)`, PyTorch's `relu`.
    Relu,
    /// The slope for `z <= 0`, in `0..=1`; PyTorch's `leaky_relu`.
    LeakyRelu(f32),
}

impl Activation {
    /// # Panics
    /// If the slope of `LeakyRelu` is not in `0..=1`.
    pub(super) fn slope(self) -> f32 {
        match self {
            Self::Identity => 1.0,
            Self::Relu => 0.0,
            Self::LeakyRelu(slope) => {
                assert!((0.0..=1.0).contains(&slope), "slope of LeakyRelu: {slope}, not in 0..=1");
                slope
            }
        }
    }
}

/// `v` where `sign` is positive, else `slope * v`: the activation of `z` if both are `z`, its gradient if `v` is that
/// of its output. NaN stays NaN.
#[inline(always)]
pub(super) fn gate(slope: f32, sign: f32, v: f32) -> f32 {
    if sign > 0.0 { v } else { slope * v }
}

/// Elements of a task: large against the cost of handing one out.
const TASK: usize = 1 << 16;

/// `y = act(x)`. An `x` of minus infinity gives NaN under `Relu`.
///
/// # Panics
/// If the slices differ in length, or a slope is not in `0..=1`.
pub fn activation(activation: Activation, x: &[f32], y: &mut [f32]) {
    assert_eq!(y.len(), x.len(), "y");
    let (isa, slope, y) = (Isa::current(), activation.slope(), Shared::new(y));
    par::for_blocks(x.len(), TASK, |range| {
        // SAFETY: tasks do not overlap.
        forward(isa, slope, &x[range.clone()], unsafe { y.slice(range) });
    });
}

/// `dx`, the gradient of [`activation`]'s input, from the gradient `dy` of its output `y`.
///
/// The sign of `y` is that of `x`, so that an `x` overwritten in place does no harm.
///
/// # Panics
/// If the slices differ in length, or a slope is not in `0..=1`.
pub fn activation_backward(activation: Activation, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert_eq!(dy.len(), y.len(), "dy");
    assert_eq!(dx.len(), y.len(), "dx");
    let (isa, slope, dx) = (Isa::current(), activation.slope(), Shared::new(dx));
    par::for_blocks(y.len(), TASK, |range| {
        // SAFETY: tasks do not overlap.
        backward(isa, slope, &y[range.clone()], &dy[range.clone()], unsafe { dx.slice(range) });
    });
}

multiversion! {
    fn forward(slope: f32, x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = gate(slope, x, x);
        }
    }
}

multiversion! {
    fn backward(slope: f32, y: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx = gate(slope, y, dy);
        }
    }
}
