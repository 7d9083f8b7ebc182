//! What lies between the convolutions: GELU, the scaled residual of ConvNeXt and EdgeNeXt, joining channels.

use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};
use std::ops::Range;

use crate::par::{self, Shared};
use crate::simd::multiversion;
use crate::{Isa, scratch};

/// Elements of a task.
const TASK: usize = 1 << 15;

/// GELU, Hendrycks & Gimpel 2016, <https://arxiv.org/abs/1606.08415>: `x (1 + erf(x / sqrt 2)) / 2`, as
/// `torch.nn.functional.gelu` without approximation; within 3e-7 (relative to `max(1, |x|)`) of it.
///
/// # Panics
/// Where the lengths differ.
pub fn gelu(x: &[f32], y: &mut [f32]) {
    assert_eq!(y.len(), x.len(), "y");
    let (isa, y) = (Isa::current(), Shared::new(y));
    par::for_blocks(x.len(), TASK, |range| {
        // SAFETY: tasks do not overlap.
        gelu_part(isa, &x[range.clone()], unsafe { y.slice(range) });
    });
}

/// `dx = dy gelu'(x)`.
///
/// # Panics
/// Where the lengths differ.
pub fn gelu_backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert_eq!(dy.len(), x.len(), "dy");
    assert_eq!(dx.len(), x.len(), "dx");
    let (isa, dx) = (Isa::current(), Shared::new(dx));
    par::for_blocks(x.len(), TASK, |range| {
        // SAFETY: tasks do not overlap.
        gelu_backward_part(isa, &x[range.clone()], &dy[range.clone()], unsafe { dx.slice(range) });
    });
}

multiversion! {
    fn gelu_part(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * normal(x).0;
        }
    }
}

multiversion! {
    fn gelu_backward_part(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((dx, &dy), &x) in dx.iter_mut().zip(dy).zip(x) {
            let (distribution, density) = normal(x);
            *dx = dy * (distribution + x * density);
        }
    }
}

/// Distribution function and density of the standard normal distribution at `x`.
///
/// The error function is Abramowitz & Stegun 1964, equation 7.1.26: its error of 1.5e-7 is that of an f32 beside 1, and it
/// shares the exponential with the density.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    // Beyond, both are what they are at the border, and the exponential must not underflow.
    let z = (x.abs() * FRAC_1_SQRT_2).min(9.0);
    let e = exp(-z * z);
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series =
        t * (0.254_829_6 + t * (-0.284_496_72 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    let tail = 0.5 * series * e;
    let distribution = if x < 0.0 { tail } else { 1.0 - tail };
    (distribution, e * 0.398_942_3)
}

/// `e^x` for x in -87..=0, within 2e-7 of it: powers of two, and a polynomial for the rest. Without branches, so that the
/// compiler makes vectors of it.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 * 2^23 rounds to a whole number.
    const ROUND: f32 = 12_582_912.0;
    let x = x.max(-87.0);
    let n = (x * LOG2_E + ROUND) - ROUND;
    // ln 2 in two parts, the first of few bits, so that n times it is exact.
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.0
        + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    p * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

/// `z = x + scale[channel] y`: layer scale (Touvron et al. 2021, <https://arxiv.org/abs/2103.17239>) and residual.
///
/// # Shapes
/// - `x`, `y`, `z`: `[batch, scale.len(), inner]`.
///
/// # Panics
/// Where the lengths do not fit.
pub fn scaled_residual(batch: usize, inner: usize, x: &[f32], y: &[f32], scale: &[f32], z: &mut [f32]) {
    assert_eq!(x.len(), batch * scale.len() * inner, "x");
    assert_eq!(y.len(), x.len(), "y");
    assert_eq!(z.len(), x.len(), "z");
    let (isa, z) = (Isa::current(), Shared::new(z));
    let planes = batch * scale.len();
    par::spread(planes, inner, TASK, |plane| {
        let range = plane * inner..(plane + 1) * inner;
        // SAFETY: planes do not overlap.
        let z = unsafe { z.slice(range.clone()) };
        add_scaled(isa, &x[range.clone()], &y[range], scale[plane % scale.len()], z);
    });
}

multiversion! {
    fn add_scaled(x: &[f32], y: &[f32], scale: f32, z: &mut [f32]) {
        for ((z, x), y) in z.iter_mut().zip(x).zip(y) {
            *z = x + scale * y;
        }
    }
}

/// Gradients of [`scaled_residual`] by `y` and `scale`; that by `x` is `dz` itself.
///
/// # Panics
/// Where the lengths do not fit.
pub fn scaled_residual_backward(
    batch: usize,
    inner: usize,
    y: &[f32],
    scale: &[f32],
    dz: &[f32],
    dy: &mut [f32],
    dscale: &mut [f32],
) {
    assert_eq!(dz.len(), y.len(), "dz");
    assert_eq!(dy.len(), y.len(), "dy");
    assert_eq!(dscale.len(), scale.len(), "dscale");
    assert_eq!(y.len(), batch * scale.len() * inner, "y");
    let (isa, dy) = (Isa::current(), Shared::new(dy));
    let planes = batch * scale.len();
    scratch::with(planes, |sums| {
        let shared = Shared::new(sums);
        par::spread(planes, inner, TASK, |plane| {
            let range = plane * inner..(plane + 1) * inner;
            // SAFETY: planes do not overlap.
            let (dy, sum) = unsafe { (dy.slice(range.clone()), shared.slice(plane..plane + 1)) };
            sum[0] = scale_and_dot(isa, &y[range.clone()], &dz[range], scale[plane % scale.len()], dy);
        });
        for (channel, dscale) in dscale.iter_mut().enumerate() {
            let of_channel = sums.iter().skip(channel).step_by(scale.len());
            *dscale = of_channel.map(|s| f64::from(*s)).sum::<f64>() as f32;
        }
    });
}

multiversion! {
    /// `dy = scale dz`; returns the dot product of `y` and `dz`.
    fn scale_and_dot(y: &[f32], dz: &[f32], scale: f32, dy: &mut [f32]) -> f32 {
        let mut lanes = [0f32; 32];
        let n = y.len();
        let whole = n / 32 * 32;
        for at in (0..whole).step_by(32) {
            let (y, dz, dy) = (&y[at..at + 32], &dz[at..at + 32], &mut dy[at..at + 32]);
            for i in 0..32 {
                dy[i] = scale * dz[i];
                lanes[i] += y[i] * dz[i];
            }
        }
        for i in whole..n {
            dy[i] = scale * dz[i];
            lanes[i - whole] += y[i] * dz[i];
        }
        lanes.iter().map(|l| f64::from(*l)).sum::<f64>() as f32
    }
}

/// Joins two tensors along the channels: torch.cat of dimension 1.
///
/// # Shapes
/// - `a`: `[batch, len of a / batch]`, `b` likewise; `y`: for each image what is `a`'s, then what is `b`'s.
///
/// # Panics
/// Where the lengths do not fit.
pub fn join(batch: usize, a: &[f32], b: &[f32], y: &mut [f32]) {
    let (of_a, of_b) = part_lengths(batch, a.len(), b.len(), y.len());
    let y = Shared::new(y);
    pieces(batch, of_a, of_b, |is_b, from, to| {
        let source = if is_b { &b[from] } else { &a[from] };
        // SAFETY: pieces do not overlap.
        unsafe { y.slice(to) }.copy_from_slice(source);
    });
}

/// Takes apart what [`join`] joined.
///
/// # Panics
/// Where the lengths do not fit.
pub fn split(batch: usize, y: &[f32], a: &mut [f32], b: &mut [f32]) {
    let (of_a, of_b) = part_lengths(batch, a.len(), b.len(), y.len());
    let (a, b) = (Shared::new(a), Shared::new(b));
    pieces(batch, of_a, of_b, |is_b, part, whole| {
        // SAFETY: pieces do not overlap.
        let part = unsafe { if is_b { b.slice(part) } else { a.slice(part) } };
        part.copy_from_slice(&y[whole]);
    });
}

/// Elements of an image in either part.
fn part_lengths(batch: usize, a: usize, b: usize, y: usize) -> (usize, usize) {
    assert_eq!(y, a + b, "y");
    assert!(batch > 0 || y == 0, "a batch of nothing with {y} elements");
    assert!(a.is_multiple_of(batch.max(1)), "a");
    assert!(b.is_multiple_of(batch.max(1)), "b");
    (a / batch.max(1), b / batch.max(1))
}

/// Calls `each(whether it belongs to b, range in the part, range in the whole)` for pieces that cover everything.
fn pieces(
    batch: usize,
    of_a: usize,
    of_b: usize,
    each: impl Fn(bool, Range<usize>, Range<usize>) + Sync + Send,
) {
    let [in_a, in_b] = [of_a, of_b].map(|n| n.div_ceil(TASK));
    par::for_each(batch * (in_a + in_b), |task| {
        let (image, nth) = (task / (in_a + in_b), task % (in_a + in_b));
        let is_b = nth >= in_a;
        let (nth, len, before) = if is_b { (nth - in_a, of_b, of_a) } else { (nth, of_a, 0) };
        let inside = nth * TASK..len.min((nth + 1) * TASK);
        let shifted = |by: usize| inside.start + by..inside.end + by;
        each(is_b, shifted(image * len), shifted(image * (of_a + of_b) + before));
    });
}
