//! Batch normalisation.

use super::plane::{self, Affine, CHUNK, Moments, Part, Planes};
use super::{Activation, Shape};
use crate::par::Shared;
use crate::{Isa, scratch};

impl Shape {
    fn channel(self, channel: usize) -> Planes {
        Planes { start: channel * self.inner, stride: self.channels * self.inner, inner: self.inner }
    }
}

/// From the variance as it is kept in f32, so that the backward pass gets the same bits.
fn affine(epsilon: f32, slope: f32, mean: f32, variance: f32, weight: f32, bias: f32) -> Affine {
    Affine { mean, scale: (f64::from(weight) * rstd(epsilon, variance)) as f32, bias, slope }
}

fn rstd(epsilon: f32, variance: f32) -> f64 {
    1.0 / (f64::from(variance) + f64::from(epsilon)).sqrt()
}

fn add(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] + b[0], a[1] + b[1]]
}

/// `y = act(weight * (x - mean) / sqrt(variance + epsilon) + bias)` with the statistics of this batch: PyTorch's
/// `F.batch_norm(training=True)`.
///
/// # Shapes
/// - x, y `[batch, channels, inner]`; weight, bias, mean, variance `[channels]`
///
/// `mean` and `variance` (biased, as the backward pass wants it) are written. Those of an empty batch are 0.
///
/// # Panics
/// If a slice has another length.
#[expect(clippy::too_many_arguments, reason = "a kernel's operands")]
pub fn batch_train(
    shape: Shape,
    epsilon: f32,
    activation: Activation,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    y: &mut [f32],
    mean: &mut [f32],
    variance: &mut [f32],
) {
    check(shape, x, weight, bias, mean, variance);
    assert_eq!(y.len(), x.len(), "y");
    let (isa, slope) = (Isa::current(), activation.slope());
    let (y, means, variances) = (Shared::new(y), Shared::new(mean), Shared::new(variance));
    let first = |part: &Part| {
        let planes = shape.channel(part.region);
        scratch::with(CHUNK, |room| {
            let chunks = planes.chunks(part.range.clone());
            let moments = chunks.map(|chunk| plane::moments(isa, planes.gathered(x, &chunk, room)));
            moments.fold([0.0; 3], plane::join)
        })
    };
    let second = |part: &Part, moments: Moments| {
        let c = part.region;
        let (mean, variance) = (moments[1] as f32, plane::variance(moments) as f32);
        if part.index == 0 {
            // SAFETY: the first part of the channel, and nothing else, writes its statistics.
            unsafe {
                means.slice(c..c + 1)[0] = mean;
                variances.slice(c..c + 1)[0] = variance;
            }
        }
        let affine = affine(epsilon, slope, mean, variance, weight[c], bias[c]);
        plane::normalise(isa, shape.channel(c), part.range.clone(), affine, x, y);
    };
    plane::two_passes(shape.channels, shape.batch * shape.inner, first, plane::join, second);
}

/// Gradients of [`batch_train`]: of its input, if wanted, of weight and of bias, from the gradient `dy` of its output.
///
/// # Shapes
/// - x, dy, dx `[batch, channels, inner]`; weight, bias, mean, variance, dweight, dbias `[channels]`
///
/// `mean` and `variance` are what [`batch_train`] wrote. The gradients are overwritten, not added to.
///
/// # Panics
/// If a slice has another length.
#[expect(clippy::too_many_arguments, reason = "a kernel's operands")]
pub fn batch_train_backward(
    shape: Shape,
    epsilon: f32,
    activation: Activation,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    mean: &[f32],
    variance: &[f32],
    dy: &[f32],
    dx: Option<&mut [f32]>,
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    check_backward(shape, x, weight, bias, mean, variance, dy, dx.as_deref(), dweight, dbias);
    let (isa, slope) = (Isa::current(), activation.slope());
    let (dx, dweight, dbias) = (dx.map(Shared::new), Shared::new(dweight), Shared::new(dbias));
    let of_channel = |c: usize| affine(epsilon, slope, mean[c], variance[c], weight[c], bias[c]);
    let count = (shape.batch * shape.inner) as f64;
    let first = |part: &Part| {
        let (planes, affine) = (shape.channel(part.region), of_channel(part.region));
        scratch::with(2 * CHUNK, |room| {
            let (room_x, room_dy) = room.split_at_mut(CHUNK);
            let chunks = planes.chunks(part.range.clone());
            let sums = chunks.map(|chunk| {
                let x = planes.gathered(x, &chunk, room_x);
                plane::gradient_sums(isa, affine, x, planes.gathered(dy, &chunk, room_dy))
            });
            sums.fold([0.0; 2], add)
        })
    };
    let second = |part: &Part, sums: [f64; 2]| {
        let (c, affine) = (part.region, of_channel(part.region));
        let rstd = rstd(epsilon, variance[c]);
        if part.index == 0 {
            // SAFETY: the first part of the channel, and nothing else, writes its gradients.
            unsafe { write(c, rstd, sums, dweight, dbias) };
        }
        if let Some(dx) = dx {
            let scale = f64::from(affine.scale);
            let by = [(scale * sums[0] / count) as f32, (scale * rstd * rstd * sums[1] / count) as f32];
            plane::gradient(isa, shape.channel(c), part.range.clone(), affine, by, x, dy, dx);
        }
    };
    plane::two_passes(shape.channels, shape.batch * shape.inner, first, add, second);
}

/// As [`batch_train`] with given statistics: PyTorch's `F.batch_norm(training=False)`, `mean` and `variance` being the
/// running ones.
///
/// # Shapes
/// - x, y `[batch, channels, inner]`; weight, bias, mean, variance `[channels]`
///
/// # Panics
/// If a slice has another length.
#[expect(clippy::too_many_arguments, reason = "a kernel's operands")]
pub fn batch_eval(
    shape: Shape,
    epsilon: f32,
    activation: Activation,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    mean: &[f32],
    variance: &[f32],
    y: &mut [f32],
) {
    check(shape, x, weight, bias, mean, variance);
    assert_eq!(y.len(), x.len(), "y");
    let (isa, slope, y) = (Isa::current(), activation.slope(), Shared::new(y));
    let nothing = |_: &Part| [];
    plane::two_passes(
        shape.channels,
        shape.batch * shape.inner,
        nothing,
        |a, _| a,
        |part, []| {
            let c = part.region;
            let affine = affine(epsilon, slope, mean[c], variance[c], weight[c], bias[c]);
            plane::normalise(isa, shape.channel(c), part.range.clone(), affine, x, y);
        },
    );
}

/// Gradients of [`batch_eval`], where the statistics are constants.
///
/// # Shapes
/// - x, dy, dx `[batch, channels, inner]`; weight, bias, mean, variance, dweight, dbias `[channels]`
///
/// The gradients are overwritten, not added to.
///
/// # Panics
/// If a slice has another length.
#[expect(clippy::too_many_arguments, reason = "a kernel's operands")]
pub fn batch_eval_backward(
    shape: Shape,
    epsilon: f32,
    activation: Activation,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    mean: &[f32],
    variance: &[f32],
    dy: &[f32],
    dx: Option<&mut [f32]>,
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    check_backward(shape, x, weight, bias, mean, variance, dy, dx.as_deref(), dweight, dbias);
    let (isa, slope) = (Isa::current(), activation.slope());
    let (dx, dweight, dbias) = (dx.map(Shared::new), Shared::new(dweight), Shared::new(dbias));
    // `dx` does not wait for the sums: it is written while the chunk is in the cache.
    let first = |part: &Part| {
        let c = part.region;
        let (planes, affine) =
            (shape.channel(c), affine(epsilon, slope, mean[c], variance[c], weight[c], bias[c]));
        scratch::with(2 * CHUNK, |room| {
            let (room_x, room_dy) = room.split_at_mut(CHUNK);
            let chunks = planes.chunks(part.range.clone());
            let sums = chunks.map(|chunk| {
                let in_x = planes.gathered(x, &chunk, room_x);
                let sums = plane::gradient_sums(isa, affine, in_x, planes.gathered(dy, &chunk, room_dy));
                if let Some(dx) = dx {
                    plane::gradient(isa, planes, chunk, affine, [0.0; 2], x, dy, dx);
                }
                sums
            });
            sums.fold([0.0; 2], add)
        })
    };
    plane::two_passes(shape.channels, shape.batch * shape.inner, first, add, |part, sums| {
        if part.index == 0 {
            let c = part.region;
            // SAFETY: the first part of the channel, and nothing else, writes its gradients.
            unsafe { write(c, rstd(epsilon, variance[c]), sums, dweight, dbias) };
        }
    });
}

/// Gradients of weight and bias from the sums of [`plane::gradient_sums`].
///
/// # Safety
/// No other thread writes this channel's.
unsafe fn write(channel: usize, rstd: f64, sums: [f64; 2], dweight: Shared<'_>, dbias: Shared<'_>) {
    unsafe {
        dweight.slice(channel..channel + 1)[0] = (sums[1] * rstd) as f32;
        dbias.slice(channel..channel + 1)[0] = sums[0] as f32;
    }
}

/// What forward and backward take alike.
fn check(shape: Shape, x: &[f32], weight: &[f32], bias: &[f32], mean: &[f32], variance: &[f32]) {
    assert_eq!(x.len(), shape.elements(), "x");
    assert_eq!(weight.len(), shape.channels, "weight");
    assert_eq!(bias.len(), shape.channels, "bias");
    assert_eq!(mean.len(), shape.channels, "mean");
    assert_eq!(variance.len(), shape.channels, "variance");
}

#[expect(clippy::too_many_arguments, reason = "a kernel's operands")]
fn check_backward(
    shape: Shape,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    mean: &[f32],
    variance: &[f32],
    dy: &[f32],
    dx: Option<&[f32]>,
    dweight: &[f32],
    dbias: &[f32],
) {
    check(shape, x, weight, bias, mean, variance);
    assert_eq!(dy.len(), x.len(), "dy");
    assert_eq!(dx.map_or(x.len(), <[f32]>::len), x.len(), "dx");
    assert_eq!(dweight.len(), shape.channels, "dweight");
    assert_eq!(dbias.len(), shape.channels, "dbias");
}
