//! What the normalisations share: sums over a run of elements with one mean, and how a region is divided among
//! threads.

use std::ops::Range;
use std::sync::OnceLock;

use super::activation::gate;
use crate::par::{self, Shared};
use crate::simd::multiversion;

/// Elements worked on while they stay in the L1 cache: `x` and `dy` are 32 KiB.
pub(super) const CHUNK: usize = 4096;
/// Elements that pay for a task of its own.
pub(super) const TASK: usize = 1 << 14;
/// Partial sums side by side: two vectors of AVX-512, enough to hide the latency of an addition.
pub(super) const LANES: usize = 32;
pub(super) type Lanes = [f32; LANES];

/// Sum of the lanes, halves onto halves.
#[inline(always)]
pub(super) fn total<const N: usize>(mut lanes: [f32; N]) -> f32 {
    let mut half = N / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// `tail`, filled up to a whole number of lanes.
#[inline(always)]
pub(super) fn padded(tail: &[f32], filling: f32) -> Lanes {
    let mut lanes = [filling; LANES];
    lanes[..tail.len()].copy_from_slice(tail);
    lanes
}

/// Count, mean and sum of squared deviations of some numbers.
pub(super) type Moments = [f64; 3];

/// Moments of the union, Chan et al. 1983, <https://doi.org/10.1080/00031305.1983.10483115>.
#[inline(always)]
pub(super) fn join(a: Moments, b: Moments) -> Moments {
    let count = a[0] + b[0];
    if a[0] == 0.0 || b[0] == 0.0 {
        return if a[0] == 0.0 { b } else { a };
    }
    let apart = b[1] - a[1];
    [count, a[1] + apart * (b[0] / count), a[2] + b[2] + apart * apart * (a[0] * b[0] / count)]
}

/// Biased variance; 0 of nothing.
#[inline(always)]
pub(super) fn variance(moments: Moments) -> f64 {
    if moments[0] == 0.0 { 0.0 } else { moments[2] / moments[0] }
}

/// What rounding took below 0 is 0; NaN stays NaN, which `max` would hide.
#[inline(always)]
pub(super) fn not_negative<T: PartialOrd + Default>(x: T) -> T {
    if x < T::default() { T::default() } else { x }
}

/// Sums in f32 of differences from a number near the mean, which keeps the variance accurate where it is small against
/// the mean; chunks are joined in f64.
#[inline(always)]
pub(super) fn moments_inlined(x: &[f32]) -> Moments {
    let mut all = [0.0; 3];
    for chunk in x.chunks(CHUNK) {
        let (vectors, tail) = chunk.as_chunks::<LANES>();
        // A thirty-second of a chunk is far from its mean only where the variance is large.
        let sample = &vectors[..vectors.len().min(CHUNK / 32 / LANES)];
        let mut sums = [0.0; LANES];
        for v in sample {
            for i in 0..LANES {
                sums[i] += v[i];
            }
        }
        let shift =
            if sample.is_empty() { tail[0] } else { total(sums) / sample.as_flattened().len() as f32 };
        let (mut sums, mut squares) = ([0.0; LANES], [0.0; LANES]);
        for v in vectors {
            for i in 0..LANES {
                let d = v[i] - shift;
                sums[i] += d;
                squares[i] += d * d;
            }
        }
        if !tail.is_empty() {
            let v = padded(tail, shift);
            for i in 0..LANES {
                let d = v[i] - shift;
                sums[i] += d;
                squares[i] += d * d;
            }
        }
        let (n, sum) = (chunk.len() as f64, f64::from(total(sums)));
        let squared = f64::from(total(squares)) - sum * sum / n;
        all = join(all, [n, f64::from(shift) + sum / n, not_negative(squared)]);
    }
    all
}

multiversion! {
    pub(super) fn moments(x: &[f32]) -> Moments {
        moments_inlined(x)
    }
}

/// `y = act((x - mean) * scale + bias)`.
#[derive(Clone, Copy)]
pub(super) struct Affine {
    pub(super) mean: f32,
    pub(super) scale: f32,
    pub(super) bias: f32,
    /// Of the activation below zero.
    pub(super) slope: f32,
}

impl Affine {
    #[inline(always)]
    fn forward(&self, x: f32) -> f32 {
        let z = (x - self.mean) * self.scale + self.bias;
        gate(self.slope, z, z)
    }

    /// `dy` through the activation.
    #[inline(always)]
    fn backward(&self, x: f32, dy: f32) -> f32 {
        gate(self.slope, (x - self.mean) * self.scale + self.bias, dy)
    }
}

/// Where one channel's elements lie: planes of `inner`, `stride` apart. A *range* counts them from 0 on.
#[derive(Clone, Copy)]
pub(super) struct Planes {
    pub(super) start: usize,
    pub(super) stride: usize,
    pub(super) inner: usize,
}

impl Planes {
    /// Everything up to `inner`, in one piece.
    pub(super) fn one(start: usize, inner: usize) -> Self {
        Self { start, stride: inner, inner }
    }

    /// `range` by what lies together.
    #[inline(always)]
    fn pieces(self, range: Range<usize>) -> Pieces {
        let (plane, i) = (range.start / self.inner.max(1), range.start % self.inner.max(1));
        Pieces {
            at: self.start + plane * self.stride + i,
            of_plane: self.inner - i,
            left: range.len(),
            planes: self,
        }
    }

    /// `range` in parts of at most [`CHUNK`], each in one piece unless planes are short.
    pub(super) fn chunks(self, mut range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        std::iter::from_fn(move || {
            let mut end = range.end.min(range.start + CHUNK);
            if self.inner >= CHUNK / 4 {
                end = end.min((range.start / self.inner + 1) * self.inner);
            }
            let chunk = range.start..end;
            range.start = end;
            (!chunk.is_empty()).then_some(chunk)
        })
    }

    /// The elements of `chunk`; in `room` if they do not lie together, so that sums need no remainder for each short
    /// plane.
    pub(super) fn gathered<'a>(self, x: &'a [f32], chunk: &Range<usize>, room: &'a mut [f32]) -> &'a [f32] {
        let mut pieces = self.pieces(chunk.clone());
        if pieces.of_plane >= chunk.len() {
            return &x[pieces.at..pieces.at + chunk.len()];
        }
        let room = &mut room[..chunk.len()];
        if self.inner == 1 {
            // Copying single elements as pieces takes several times as long.
            for (room, x) in room.iter_mut().zip(x[pieces.at..].iter().step_by(self.stride)) {
                *room = *x;
            }
            return room;
        }
        let mut at = 0;
        for piece in &mut pieces {
            room[at..at + piece.len()].copy_from_slice(&x[piece.clone()]);
            at += piece.len();
        }
        room
    }
}

/// Iterator of [`Planes::pieces`].
struct Pieces {
    planes: Planes,
    at: usize,
    /// Elements up to the end of the plane.
    of_plane: usize,
    left: usize,
}

impl Iterator for Pieces {
    type Item = Range<usize>;
    #[inline(always)]
    fn next(&mut self) -> Option<Range<usize>> {
        let len = self.left.min(self.of_plane);
        let piece = self.at..self.at + len;
        self.left -= len;
        // To the next plane, unless this was the last piece.
        self.at += self.planes.stride - self.planes.inner + len;
        self.of_plane = self.planes.inner;
        (len > 0).then_some(piece)
    }
}

multiversion! {
    /// The range of `y` must be in no other use.
    pub(super) fn normalise(planes: Planes, range: Range<usize>, affine: Affine, x: &[f32], y: Shared<'_>) {
        for piece in planes.pieces(range) {
            // SAFETY: the caller's promise.
            let y = unsafe { y.slice(piece.clone()) };
            for (y, &x) in y.iter_mut().zip(&x[piece]) {
                *y = affine.forward(x);
            }
        }
    }
}

multiversion! {
    /// Sums of `g` and of `g * (x - mean)`, where `g` is `dy` through the activation.
    pub(super) fn gradient_sums(affine: Affine, x: &[f32], dy: &[f32]) -> [f64; 2] {
        let mut all = [0.0; 2];
        for (x, dy) in x.chunks(CHUNK).zip(dy.chunks(CHUNK)) {
            let (mut sums, mut products) = ([0.0; LANES], [0.0; LANES]);
            let ((x, x_tail), (dy, dy_tail)) = (x.as_chunks::<LANES>(), dy.as_chunks::<LANES>());
            for (x, dy) in x.iter().zip(dy) {
                for i in 0..LANES {
                    let g = affine.backward(x[i], dy[i]);
                    sums[i] += g;
                    products[i] += g * (x[i] - affine.mean);
                }
            }
            if !x_tail.is_empty() {
                let (x, dy) = (padded(x_tail, affine.mean), padded(dy_tail, 0.0));
                for i in 0..LANES {
                    let g = affine.backward(x[i], dy[i]);
                    sums[i] += g;
                    products[i] += g * (x[i] - affine.mean);
                }
            }
            all[0] += f64::from(total(sums));
            all[1] += f64::from(total(products));
        }
        all
    }
}

multiversion! {
    /// `dx = scale * g - by[0] - by[1] * (x - mean)`, where `g` is `dy` through the activation. The range of `dx` must
    /// be in no other use.
    pub(super) fn gradient(
        planes: Planes,
        range: Range<usize>,
        affine: Affine,
        by: [f32; 2],
        x: &[f32],
        dy: &[f32],
        dx: Shared<'_>,
    ) {
        for piece in planes.pieces(range) {
            // SAFETY: the caller's promise.
            let dx = unsafe { dx.slice(piece.clone()) };
            for ((dx, &x), &dy) in dx.iter_mut().zip(&x[piece.clone()]).zip(&dy[piece]) {
                *dx = affine.scale * affine.backward(x, dy) - (by[0] + by[1] * (x - affine.mean));
            }
        }
    }
}

/// Parts of a region that share its mean.
pub(super) struct Part {
    pub(super) region: usize,
    pub(super) index: usize,
    pub(super) range: Range<usize>,
}

/// Few large regions are divided so that there is something to do for this many threads.
const WANTED_TASKS: usize = 16;

/// Into how many parts each of `regions` regions of `len` elements is divided.
pub(super) fn parts(regions: usize, len: usize) -> usize {
    WANTED_TASKS.div_ceil(regions.max(1)).min(len / TASK).max(1)
}

/// Reduces each region with `first` and `join`, then calls `second` with the region's total.
///
/// An undivided region goes through both on the same thread, so that `second` finds it in the cache. A region has at
/// least one part, and one that starts at 0, even if it is empty.
pub(super) fn two_passes<const N: usize>(
    regions: usize,
    len: usize,
    first: impl Fn(&Part) -> [f64; N] + Sync + Send,
    join: impl Fn([f64; N], [f64; N]) -> [f64; N] + Sync + Send,
    second: impl Fn(&Part, [f64; N]) + Sync + Send,
) {
    let parts = parts(regions, len);
    let part = |task| {
        let index = task % parts;
        Part { region: task / parts, index, range: par::part(len, parts, index) }
    };
    if parts == 1 {
        par::spread(regions, len, TASK, |region| {
            let part = part(region);
            second(&part, first(&part));
        });
        return;
    }
    // Divided regions are fewer than the tasks wanted, so their parts are fewer than twice that.
    let partial = [const { OnceLock::new() }; 2 * WANTED_TASKS];
    par::for_each(regions * parts, |task| {
        let _ = partial[task].set(first(&part(task)));
    });
    par::for_each(regions * parts, |task| {
        let part = part(task);
        let of_region = &partial[part.region * parts..][..parts];
        // Every thread adds up in the same order.
        let sum = of_region.iter().filter_map(OnceLock::get).copied().reduce(&join);
        second(&part, sum.unwrap_or([0.0; N]));
    });
}
