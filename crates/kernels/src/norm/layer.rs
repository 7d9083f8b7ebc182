//! Layer normalisation, of rows and across channels.

use super::activation::gate;
use super::plane::{self, LANES, Lanes, TASK};
use super::{Activation, Shape};
use crate::par::{self, Shared};
use crate::simd::multiversion;
use crate::{Isa, scratch};

/// Tasks of a backward pass over `items` rows or blocks; each sums the gradients of weight and bias for itself.
fn backward_tasks(items: usize, elements: usize) -> usize {
    (elements / TASK).min(items).clamp(1, 32)
}

/// What forward and backward take alike: `rows` means over `len` elements each.
fn check(rows: usize, len: usize, x: &[f32], weight: &[f32], bias: &[f32], mean: &[f32], rstd: &[f32]) {
    assert_eq!(x.len(), rows * len, "x");
    assert_eq!(weight.len(), len, "weight");
    assert_eq!(bias.len(), len, "bias");
    assert_eq!(mean.len(), rows, "mean");
    assert_eq!(rstd.len(), rows, "rstd");
}

/// Adds up what the tasks have `kept`: each dweight, then dbias.
fn add_up(kept: &[f32], dweight: &mut [f32], dbias: &mut [f32]) {
    let len = dweight.len();
    for (offset, sums) in [(0, dweight), (len, dbias)] {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum =
                kept.chunks_exact(2 * len).map(|of_task| f64::from(of_task[offset + i])).sum::<f64>() as f32;
        }
    }
}

/// `y = act(weight * (x - mean) * rstd + bias)` with mean and variance of each row: PyTorch's `F.layer_norm` over the
/// last dimension.
///
/// # Shapes
/// - x, y `[rows, len]`; weight, bias `[len]`
/// - mean, rstd `[rows]`, written; `rstd = 1 / sqrt(variance + epsilon)`
///
/// # Panics
/// If `len` is 0 or a slice has another length.
#[expect(clippy::too_many_arguments, reason = "a kernel's operands")]
pub fn layer(
    rows: usize,
    len: usize,
    epsilon: f32,
    activation: Activation,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    y: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
) {
    assert!(len > 0, "len");
    check(rows, len, x, weight, bias, mean, rstd);
    assert_eq!(y.len(), x.len(), "y");
    let (isa, slope) = (Isa::current(), activation.slope());
    let (y, mean, rstd) = (Shared::new(y), Shared::new(mean), Shared::new(rstd));
    par::for_blocks(rows, TASK.div_ceil(len), |rows| {
        let range = rows.start * len..rows.end * len;
        // SAFETY: tasks do not overlap.
        let (y, mean, rstd) = unsafe { (y.slice(range.clone()), mean.slice(rows.clone()), rstd.slice(rows)) };
        rows_forward(isa, epsilon, slope, &x[range], weight, bias, y, mean, rstd);
    });
}

multiversion! {
    fn rows_forward(
        epsilon: f32,
        slope: f32,
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        y: &mut [f32],
        mean: &mut [f32],
        rstd: &mut [f32],
    ) {
        let len = weight.len();
        let rows = x.chunks_exact(len).zip(y.chunks_exact_mut(len));
        for ((x, y), (mean, rstd)) in rows.zip(mean.iter_mut().zip(rstd)) {
            let moments = plane::moments_inlined(x);
            let m = moments[1] as f32;
            let s = (1.0 / (plane::variance(moments) + f64::from(epsilon)).sqrt()) as f32;
            for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                let z = (x - m) * s * w + b;
                *y = gate(slope, z, z);
            }
            (*mean, *rstd) = (m, s);
        }
    }
}

/// Gradients of [`layer`]: of its input, if wanted, of weight and of bias, from the gradient `dy` of its output.
///
/// # Shapes
/// - x, dy, dx `[rows, len]`; weight, bias, dweight, dbias `[len]`; mean, rstd `[rows]`
///
/// `mean` and `rstd` are what [`layer`] wrote. The gradients are overwritten, not added to.
///
/// # Panics
/// If `len` is 0 or a slice has another length.
#[expect(clippy::too_many_arguments, reason = "a kernel's operands")]
pub fn layer_backward(
    rows: usize,
    len: usize,
    activation: Activation,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    mean: &[f32],
    rstd: &[f32],
    dy: &[f32],
    dx: Option<&mut [f32]>,
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    assert!(len > 0, "len");
    check(rows, len, x, weight, bias, mean, rstd);
    assert_eq!(dy.len(), x.len(), "dy");
    assert_eq!(dx.as_deref().map_or(x.len(), <[f32]>::len), x.len(), "dx");
    assert_eq!(dweight.len(), len, "dweight");
    assert_eq!(dbias.len(), len, "dbias");
    let (isa, slope) = (Isa::current(), activation.slope());
    let dx = dx.map(Shared::new);
    let tasks = backward_tasks(rows, x.len());
    scratch::with(tasks * 2 * len, |kept| {
        let shared = Shared::new(kept);
        par::for_each(tasks, |task| {
            let rows = par::part(rows, tasks, task);
            let range = rows.start * len..rows.end * len;
            // SAFETY: each task has its own.
            let kept = unsafe { shared.slice(task * 2 * len..(task + 1) * 2 * len) };
            kept.fill(0.0);
            let (dweight, dbias) = kept.split_at_mut(len);
            // SAFETY: as above.
            let dx = dx.map(|dx| unsafe { dx.slice(range.clone()) });
            let (x, dy, mean, rstd) = (&x[range.clone()], &dy[range], &mean[rows.clone()], &rstd[rows]);
            match dx {
                Some(dx) => {
                    rows_backward::<true>(isa, slope, x, weight, bias, mean, rstd, dy, dx, dweight, dbias)
                }
                None => rows_backward::<false>(
                    isa,
                    slope,
                    x,
                    weight,
                    bias,
                    mean,
                    rstd,
                    dy,
                    &mut [],
                    dweight,
                    dbias,
                ),
            }
        });
        add_up(kept, dweight, dbias);
    });
}

multiversion! {
    /// Adds to `dweight` and `dbias`; writes `dx` if `DX`.
    fn rows_backward<const DX: bool>(
        slope: f32,
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        mean: &[f32],
        rstd: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        dweight: &mut [f32],
        dbias: &mut [f32],
    ) {
        let len = weight.len();
        let (bias, dweight, dbias) = (&bias[..len], &mut dweight[..len], &mut dbias[..len]);
        for (r, (x, dy)) in x.chunks_exact(len).zip(dy.chunks_exact(len)).enumerate() {
            let (m, s) = (mean[r], rstd[r]);
            for j in 0..len {
                let normalised = (x[j] - m) * s;
                let g = gate(slope, normalised * weight[j] + bias[j], dy[j]);
                dweight[j] += g * normalised;
                dbias[j] += g;
            }
            if !DX {
                continue;
            }
            let sums = row_sums(slope, m, s, x, weight, bias, dy);
            let [g_mean, product_mean] = sums.map(|sum| (sum / len as f64) as f32);
            let dx = &mut dx[r * len..(r + 1) * len];
            for j in 0..len {
                let normalised = (x[j] - m) * s;
                let g = weight[j] * gate(slope, normalised * weight[j] + bias[j], dy[j]);
                dx[j] = s * (g - g_mean - normalised * product_mean);
            }
        }
    }
}

/// Sums of `g` and of `g` times the normalised `x`, where `g` is the gradient of the normalised `x`.
#[inline(always)]
fn row_sums(slope: f32, m: f32, s: f32, x: &[f32], weight: &[f32], bias: &[f32], dy: &[f32]) -> [f64; 2] {
    let (mut sums, mut products) = ([0.0; LANES], [0.0; LANES]);
    let ((x, x_tail), (dy, dy_tail)) = (x.as_chunks::<LANES>(), dy.as_chunks::<LANES>());
    let ((weight, weight_tail), (bias, bias_tail)) = (weight.as_chunks::<LANES>(), bias.as_chunks::<LANES>());
    for (((x, dy), weight), bias) in x.iter().zip(dy).zip(weight).zip(bias) {
        for i in 0..LANES {
            let normalised = (x[i] - m) * s;
            let g = weight[i] * gate(slope, normalised * weight[i] + bias[i], dy[i]);
            sums[i] += g;
            products[i] += g * normalised;
        }
    }
    if !x_tail.is_empty() {
        let (x, dy) = (plane::padded(x_tail, m), plane::padded(dy_tail, 0.0));
        let (weight, bias) = (plane::padded(weight_tail, 0.0), plane::padded(bias_tail, 0.0));
        for i in 0..LANES {
            let normalised = (x[i] - m) * s;
            let g = weight[i] * gate(slope, normalised * weight[i] + bias[i], dy[i]);
            sums[i] += g;
            products[i] += g * normalised;
        }
    }
    [f64::from(plane::total(sums)), f64::from(plane::total(products))]
}

/// Positions of a sample that are worked on together, and how many such blocks a sample has.
///
/// All channels of a block are copied together, since in place, a power of two apart, they would push each other out
/// of the cache.
fn blocks(shape: Shape) -> (usize, usize) {
    let positions = ((1 << 16) / shape.channels).clamp(64, 1024);
    (positions, shape.inner.div_ceil(positions))
}

/// `y = act(weight * (x - mean) * rstd + bias)` with mean and variance over the channels at each position: the
/// "channels first" layer normalisation of ConvNeXt.
///
/// # Shapes
/// - x, y `[batch, channels, inner]`; weight, bias `[channels]`
/// - mean, rstd `[batch, inner]`, written; `rstd = 1 / sqrt(variance + epsilon)`
///
/// # Panics
/// If there are no channels or a slice has another length.
#[expect(clippy::too_many_arguments, reason = "a kernel's operands")]
pub fn layer_channels(
    shape: Shape,
    epsilon: f32,
    activation: Activation,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    y: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
) {
    let Shape { batch, channels, inner } = shape;
    if inner == 1 {
        return layer(batch, channels, epsilon, activation, x, weight, bias, y, mean, rstd);
    }
    assert!(channels > 0, "channels");
    check(batch * inner, channels, x, weight, bias, mean, rstd);
    assert_eq!(y.len(), x.len(), "y");
    let (isa, slope) = (Isa::current(), activation.slope());
    let (positions, blocks) = blocks(shape);
    let (y, mean, rstd) = (Shared::new(y), Shared::new(mean), Shared::new(rstd));
    par::spread(batch * blocks, channels * positions.min(inner), TASK, |block| {
        let (b, p) = (block / blocks, block % blocks * positions);
        let range = b * inner + p..b * inner + inner.min(p + positions);
        let at = b * channels * inner + p;
        scratch::with(channels * range.len(), |held| {
            // SAFETY: blocks do not overlap.
            let (mean, rstd) = unsafe { (mean.slice(range.clone()), rstd.slice(range)) };
            block_forward(isa, epsilon, slope, at, inner, x, weight, bias, held, y, mean, rstd);
        });
    });
}

multiversion! {
    /// The block's places in `y` must be in no other use.
    fn block_forward(
        epsilon: f32,
        slope: f32,
        at: usize,
        inner: usize,
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        held: &mut [f32],
        y: Shared<'_>,
        mean: &mut [f32],
        rstd: &mut [f32],
    ) {
        let (n, channels) = (mean.len(), weight.len() as f32);
        let rstd = &mut rstd[..n];
        // First the sums of differences from the first channel, and of their squares.
        let (shift, others) = held.split_at_mut(n);
        shift.copy_from_slice(&x[at..at + n]);
        mean.fill(0.0);
        rstd.fill(0.0);
        for (c, held) in others.chunks_exact_mut(n).enumerate() {
            held.copy_from_slice(&x[at + (c + 1) * inner..][..n]);
            for j in 0..n {
                let d = held[j] - shift[j];
                mean[j] += d;
                rstd[j] += d * d;
            }
        }
        for j in 0..n {
            let m = mean[j] / channels;
            let variance = plane::not_negative(rstd[j] / channels - m * m);
            mean[j] = shift[j] + m;
            rstd[j] = 1.0 / (variance + epsilon).sqrt();
        }
        for (c, held) in held.chunks_exact(n).enumerate() {
            let (w, b, at) = (weight[c], bias[c], at + c * inner);
            // SAFETY: the caller's promise.
            let y = unsafe { y.slice(at..at + n) };
            for j in 0..n {
                let z = (held[j] - mean[j]) * rstd[j] * w + b;
                y[j] = gate(slope, z, z);
            }
        }
    }
}

/// Gradients of [`layer_channels`]: of its input, if wanted, of weight and of bias, from the gradient `dy` of its
/// output.
///
/// # Shapes
/// - x, dy, dx `[batch, channels, inner]`; weight, bias, dweight, dbias `[channels]`; mean, rstd `[batch, inner]`
///
/// `mean` and `rstd` are what [`layer_channels`] wrote. The gradients are overwritten, not added to.
///
/// # Panics
/// If there are no channels or a slice has another length.
#[expect(clippy::too_many_arguments, reason = "a kernel's operands")]
pub fn layer_channels_backward(
    shape: Shape,
    activation: Activation,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    mean: &[f32],
    rstd: &[f32],
    dy: &[f32],
    dx: Option<&mut [f32]>,
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    let Shape { batch, channels, inner } = shape;
    if inner == 1 {
        return layer_backward(
            batch, channels, activation, x, weight, bias, mean, rstd, dy, dx, dweight, dbias,
        );
    }
    assert!(channels > 0, "channels");
    check(batch * inner, channels, x, weight, bias, mean, rstd);
    assert_eq!(dy.len(), x.len(), "dy");
    assert_eq!(dx.as_deref().map_or(x.len(), <[f32]>::len), x.len(), "dx");
    assert_eq!(dweight.len(), channels, "dweight");
    assert_eq!(dbias.len(), channels, "dbias");
    let (isa, slope) = (Isa::current(), activation.slope());
    let dx = dx.map(Shared::new);
    let (positions, blocks) = blocks(shape);
    let tasks = backward_tasks(batch * blocks, x.len());
    scratch::with(tasks * 2 * channels, |kept| {
        let shared = Shared::new(kept);
        par::for_each(tasks, |task| {
            // SAFETY: each task has its own.
            let kept = unsafe { shared.slice(task * 2 * channels..(task + 1) * 2 * channels) };
            scratch::with(channels * LANES, |lanes| {
                lanes.fill(0.0);
                for block in par::part(batch * blocks, tasks, task) {
                    let (b, p) = (block / blocks, block % blocks * positions);
                    let range = b * inner + p..b * inner + inner.min(p + positions);
                    let at = b * channels * inner + p;
                    scratch::with(2 * (channels + 1) * range.len(), |held| {
                        let (mean, rstd) = (&mean[range.clone()], &rstd[range]);
                        block_backward(
                            isa, slope, at, inner, x, weight, bias, mean, rstd, dy, held, dx, lanes,
                        );
                    });
                }
                add_lanes(isa, lanes, kept);
            });
        });
        add_up(kept, dweight, dbias);
    });
}

/// Half of the lanes are of a channel's dweight, half of its dbias.
const HALF: usize = LANES / 2;

multiversion! {
    /// Adds to the lanes of each channel. The block's places in `dx` must be in no other use.
    fn block_backward(
        slope: f32,
        at: usize,
        inner: usize,
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        mean: &[f32],
        rstd: &[f32],
        dy: &[f32],
        held: &mut [f32],
        dx: Option<Shared<'_>>,
        lanes: &mut [f32],
    ) {
        let n = mean.len();
        let rstd = &rstd[..n];
        let (sums, held) = held.split_at_mut(2 * n);
        let (g_sum, product_sum) = sums.split_at_mut(n);
        g_sum.fill(0.0);
        product_sum.fill(0.0);
        let of_channels = held.chunks_exact_mut(2 * n).zip(lanes.as_chunks_mut::<LANES>().0);
        for (c, (held, lanes)) in of_channels.enumerate() {
            let (w, b, at) = (weight[c], bias[c], at + c * inner);
            let (x, dy) = (&x[at..at + n], &dy[at..at + n]);
            let (gs, normals) = held.split_at_mut(n);
            for j in 0..n {
                let normalised = (x[j] - mean[j]) * rstd[j];
                let g = gate(slope, normalised * w + b, dy[j]);
                gs[j] = g;
                normals[j] = normalised;
                g_sum[j] += g * w;
                product_sum[j] += g * w * normalised;
            }
            add_to_lanes(gs, normals, lanes);
        }
        let Some(dx) = dx else { return };
        let share = 1.0 / weight.len() as f32;
        for (c, held) in held.chunks_exact(2 * n).enumerate() {
            let (w, at) = (weight[c], at + c * inner);
            let (gs, normals) = held.split_at(n);
            // SAFETY: the caller's promise.
            let dx = unsafe { dx.slice(at..at + n) };
            for j in 0..n {
                dx[j] = rstd[j] * (gs[j] * w - share * (g_sum[j] + normals[j] * product_sum[j]));
            }
        }
    }
}

/// Adds `g * normal` to the first half of the lanes and `g` to the second.
#[inline(always)]
fn add_to_lanes(gs: &[f32], normals: &[f32], lanes: &mut Lanes) {
    let (mut products, mut sums) = ([0.0; HALF], [0.0; HALF]);
    let ((gs, gs_tail), (normals, normals_tail)) = (gs.as_chunks::<HALF>(), normals.as_chunks::<HALF>());
    for (g, normal) in gs.iter().zip(normals) {
        for i in 0..HALF {
            products[i] += g[i] * normal[i];
            sums[i] += g[i];
        }
    }
    if !gs_tail.is_empty() {
        let (g, normal) = (plane::padded(gs_tail, 0.0), plane::padded(normals_tail, 0.0));
        for i in 0..HALF {
            products[i] += g[i] * normal[i];
            sums[i] += g[i];
        }
    }
    for i in 0..HALF {
        lanes[i] += products[i];
        lanes[HALF + i] += sums[i];
    }
}

multiversion! {
    /// Sums of each channel's halves: all dweight, then all dbias.
    fn add_lanes(lanes: &[f32], sums: &mut [f32]) {
        let (dweight, dbias) = sums.split_at_mut(sums.len() / 2);
        let of_channels = lanes.as_chunks::<LANES>().0;
        for ((lanes, dweight), dbias) in of_channels.iter().zip(dweight).zip(dbias) {
            *dweight = plane::total::<HALF>(lanes.first_chunk().copied().unwrap_or_default());
            *dbias = plane::total::<HALF>(lanes.last_chunk().copied().unwrap_or_default());
        }
    }
}
