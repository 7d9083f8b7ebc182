//! Pooling over windows of three axes: maximum, average, adaptive average.
//!
//! One and two dimensions have leading ones, in sizes and in windows alike.

use std::hint::select_unpredictable;
use std::ops::Range;

use rayon::prelude::*;

use crate::simd::multiversion;
use crate::{Isa, scratch};

/// Elements that a task should touch: waking another thread for fewer costs more than it saves.
const GRAIN: usize = 1 << 15;

/// Calls `f(number of the first row, rows)` for parts of `out`, on several threads where there is enough to do. `cost` is
/// how many elements are touched for one row of `width`.
pub(crate) fn for_rows(
    out: &mut [f32],
    width: usize,
    cost: usize,
    f: impl Fn(usize, &mut [f32]) + Sync + Send,
) {
    let rows = rows_per_task(cost);
    let parts = out.par_chunks_mut(rows * width).enumerate().with_max_len(1);
    parts.for_each(|(task, part)| f(task * rows, part));
}

fn rows_per_task(cost: usize) -> usize {
    (GRAIN / cost.max(1)).max(1)
}

/// Plane and the two places inside it of the rows from number `first` on.
#[inline(always)]
pub(crate) fn places(first: usize, [depth, height, _]: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    let mut next = [first / (depth * height), first / height % depth, first % height];
    std::iter::repeat_with(move || {
        let here = next;
        next[2] += 1;
        if next[2] == height {
            next = [next[0], next[1] + 1, 0];
            if next[1] == depth {
                next = [next[0] + 1, 0, 0];
            }
        }
        here
    })
}

/// Asks for `x` to be brought near, where rows are read in an order that the processor does not guess.
#[inline(always)]
pub(crate) fn prefetch(x: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in x.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = x;
}

/// A weighted sum of rows, four at a time, so that the sum itself is read and written once for four rows.
pub(crate) struct Blend<'a> {
    sum: &'a mut [f32],
    started: bool,
    rows: [&'a [f32]; 4],
    weights: [f32; 4],
    held: usize,
}

impl<'a> Blend<'a> {
    #[inline(always)]
    pub(crate) fn new(sum: &'a mut [f32]) -> Self {
        Self { sum, started: false, rows: [&[]; 4], weights: [0.0; 4], held: 0 }
    }

    #[inline(always)]
    pub(crate) fn add(&mut self, row: &'a [f32], weight: f32) {
        if self.held == 4 {
            self.take::<4>();
        }
        prefetch(row);
        self.rows[self.held] = row;
        self.weights[self.held] = weight;
        self.held += 1;
    }

    /// The sum is complete after this; no rows make zeros.
    #[inline(always)]
    pub(crate) fn finish(mut self) {
        match self.held {
            0 => self.sum.fill(0.0),
            1 => self.take::<1>(),
            2 => self.take::<2>(),
            3 => self.take::<3>(),
            _ => self.take::<4>(),
        }
    }

    #[inline(always)]
    fn take<const N: usize>(&mut self) {
        let len = self.sum.len();
        let rows: [&[f32]; N] = std::array::from_fn(|r| &self.rows[r][..len]);
        let weights = self.weights;
        for (i, sum) in self.sum.iter_mut().enumerate() {
            let mut total = if self.started { *sum } else { 0.0 };
            for r in 0..N {
                total += weights[r] * rows[r][i];
            }
            *sum = total;
        }
        self.started = true;
        self.held = 0;
    }
}

/// Geometry of a pooling: `planes` is batch times channels, the arrays go depth, height, width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Batch times channels.
    pub planes: usize,
    /// Size of an input plane.
    pub size: [usize; 3],
    /// Elements of a window.
    pub kernel: [usize; 3],
    /// From window to window.
    pub stride: [usize; 3],
    /// Missing elements before and after, which never are the maximum and count as zero in an average.
    pub padding: [usize; 3],
    /// From element to element of a window.
    pub dilation: [usize; 3],
    /// Whether a last window that only begins inside is used.
    pub ceil_mode: bool,
}

impl Pool {
    /// Windows that tile the plane: stride `kernel`, no padding, no dilation, incomplete windows dropped.
    pub fn new(planes: usize, size: [usize; 3], kernel: [usize; 3]) -> Self {
        Self { planes, size, kernel, stride: kernel, padding: [0; 3], dilation: [1; 3], ceil_mode: false }
    }

    /// Size of an output plane, as PyTorch's `pooling_output_shape`.
    ///
    /// # Panics
    /// Where PyTorch raises: a size, kernel, stride or dilation of zero, a padding beyond half the window, no window.
    pub fn output(&self) -> [usize; 3] {
        std::array::from_fn(|a| {
            let (size, stride, padding) = (self.size[a], self.stride[a], self.padding[a]);
            assert!(size > 0, "size {:?} has a zero", self.size);
            assert!(self.kernel[a] > 0 && stride > 0 && self.dilation[a] > 0, "a zero in {self:?}");
            let extent = self.extent(a);
            assert!(padding <= extent / 2, "padding {:?} is beyond half the window", self.padding);
            let mut last = size as isize + 2 * padding as isize - extent as isize;
            if self.ceil_mode {
                last += stride as isize - 1;
            }
            assert!(last >= 0, "size {:?} has no window of {:?}", self.size, self.kernel);
            let count = last as usize / stride + 1;
            // A last window that begins in the padding at the end holds nothing.
            if self.ceil_mode && (count - 1) * stride >= size + padding { count - 1 } else { count }
        })
    }

    /// From the first element of a window to behind its last.
    fn extent(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilation[axis] + 1
    }

    /// Checks the two lengths and returns the output's size.
    fn checked(&self, x: (&str, usize), y: (&str, usize)) -> [usize; 3] {
        let output = self.output();
        assert_eq!(x.1, self.planes * volume(self.size), "{}", x.0);
        assert_eq!(y.1, self.planes * volume(output), "{}", y.0);
        output
    }

    /// Whether windows are complete and tile the plane.
    fn tiles(&self) -> bool {
        let output = self.output();
        self.kernel == self.stride
            && self.padding == [0; 3]
            && self.dilation == [1; 3]
            && (0..3).all(|a| output[a] * self.kernel[a] <= self.size[a])
    }

    /// Rows of a window, where windows tile the plane, are two wide and at most two in the other axes.
    fn pair_rows(&self) -> Option<usize> {
        let [d, h, w] = self.kernel;
        (self.tiles() && w == 2 && d <= 2 && h <= 2).then_some(d * h)
    }

    /// The elements of window `o` that are inside, as first and end of `0..kernel`.
    #[inline(always)]
    fn inside(&self, axis: usize, o: usize) -> Range<usize> {
        let (step, begin) = (self.dilation[axis], o * self.stride[axis]);
        let first = self.padding[axis].saturating_sub(begin).div_ceil(step);
        let end = (self.size[axis] + self.padding[axis]).saturating_sub(begin).div_ceil(step);
        first..end.min(self.kernel[axis])
    }
}

fn volume([d, h, w]: [usize; 3]) -> usize {
    d * h * w
}

/// The `o` of `0..count` for which `o * stride + ahead - padding` is in `0..size`.
#[inline(always)]
fn strided(size: usize, count: usize, stride: usize, padding: usize, ahead: usize) -> Range<usize> {
    let first = padding.saturating_sub(ahead).div_ceil(stride);
    let end = (size + padding).saturating_sub(ahead).div_ceil(stride).min(count);
    first.min(end)..end
}

/// Maximum of every window of `x` `[planes, size]` into `y` `[planes, output]`; `index`, of `y`'s shape, gets its place in
/// the input plane.
///
/// As PyTorch's `max_pool*d` with `return_indices`: of equal elements the first, a NaN before everything else (the last one,
/// if there are several). A dilated window without any element gives minus infinity and the index `u32::MAX`.
///
/// # Panics
/// If a length does not fit, if a plane has more than `u32::MAX` elements, and as [`Pool::output`].
pub fn max(p: &Pool, x: &[f32], y: &mut [f32], index: &mut [u32]) {
    let output = p.checked(("x", x.len()), ("y", y.len()));
    assert_eq!(index.len(), y.len(), "index");
    assert!(volume(p.size) < u32::MAX as usize, "size {:?} is beyond 32 bits", p.size);
    let isa = Isa::current();
    let rows = rows_per_task(output[2] * volume(p.kernel));
    let part = rows * output[2];
    let parts = y.par_chunks_mut(part).zip(index.par_chunks_mut(part)).enumerate().with_max_len(1);
    parts.for_each(|(task, (y, index))| max_part::<true>(isa, p, x, task * rows, y, index));
}

/// [`max`] without the indices, which only [`max_backward`] needs.
///
/// # Panics
/// If a length does not fit, and as [`Pool::output`].
pub fn max_only(p: &Pool, x: &[f32], y: &mut [f32]) {
    let output = p.checked(("x", x.len()), ("y", y.len()));
    let isa = Isa::current();
    for_rows(y, output[2], output[2] * volume(p.kernel), |first, y| {
        max_part::<false>(isa, p, x, first, y, &mut []);
    });
}

fn max_part<const INDEX: bool>(
    isa: Isa,
    p: &Pool,
    x: &[f32],
    first: usize,
    y: &mut [f32],
    index: &mut [u32],
) {
    let op = if INDEX { MAX_INDEX } else { MAX };
    if !tile_part(isa, op, p, x, first, y, index) {
        max_rows::<INDEX>(isa, p, x, first, y, index);
    }
}

/// What is done with the elements of a window.
const MAX: u8 = 0;
const MAX_INDEX: u8 = 1;
const AVERAGE: u8 = 2;

/// The fast path of windows that tile the plane; false where there is none.
fn tile_part(isa: Isa, op: u8, p: &Pool, x: &[f32], first: usize, y: &mut [f32], index: &mut [u32]) -> bool {
    let Some(rows) = p.pair_rows() else { return false };
    let run = match (rows, op) {
        (1, MAX) => tile_rows::<1, MAX>,
        (2, MAX) => tile_rows::<2, MAX>,
        (_, MAX) => tile_rows::<4, MAX>,
        (1, MAX_INDEX) => tile_rows::<1, MAX_INDEX>,
        (2, MAX_INDEX) => tile_rows::<2, MAX_INDEX>,
        (_, MAX_INDEX) => tile_rows::<4, MAX_INDEX>,
        (1, _) => tile_rows::<1, AVERAGE>,
        (2, _) => tile_rows::<2, AVERAGE>,
        (_, _) => tile_rows::<4, AVERAGE>,
    };
    run(isa, p, x, first, y, index);
    true
}

/// Rows of the output from number `first` on; windows of `ROWS` rows of two.
fn tile_rows<const ROWS: usize, const OP: u8>(
    isa: Isa,
    p: &Pool,
    x: &[f32],
    first: usize,
    y: &mut [f32],
    index: &mut [u32],
) {
    let ([depth, height, width], output) = (p.size, p.output());
    let (count, ahead) = (output[2], p.kernel[1] * width);
    let offsets: [usize; ROWS] =
        std::array::from_fn(|r| (r / p.kernel[1] * height + r % p.kernel[1]) * width);
    let mut index = index.chunks_exact_mut(count);
    for (y, [plane, oz, oy]) in y.chunks_exact_mut(count).zip(places(first, output)) {
        let corner = (oz * p.kernel[0] * height + oy * p.kernel[1]) * width;
        let x = &x[plane * depth * height * width + corner..];
        for offset in offsets {
            let next = (offset + ahead).min(x.len());
            prefetch(&x[next..(next + width).min(x.len())]);
        }
        let rows = offsets.map(|o| x[o..][..2 * count].as_chunks().0);
        let places = offsets.map(|o| (corner + o) as u32);
        tile_row::<ROWS, OP>(isa, rows, places, y, index.next().unwrap_or_default());
    }
}

multiversion! {
    /// A row of windows; `places` is where `rows` begin in their plane.
    fn tile_row<const ROWS: usize, const OP: u8>(
        rows: [&[[f32; 2]]; ROWS], places: [u32; ROWS], y: &mut [f32], index: &mut [u32],
    ) {
        let count = y.len();
        let rows: [&[[f32; 2]]; ROWS] = rows.map(|row| &row[..count]);
        let index = &mut index[..if OP == MAX_INDEX { count } else { 0 }];
        let mut column = 0;
        for i in 0..count {
            if OP == AVERAGE {
                let mut sum = 0.0;
                for row in rows {
                    sum += row[i][0];
                    sum += row[i][1];
                }
                y[i] = sum / (2 * ROWS) as f32;
                continue;
            }
            let (mut best, mut at) = (rows[0][i][0], places[0]);
            for (row, place) in rows.iter().zip(places) {
                for (k, &value) in row[i].iter().enumerate() {
                    let better = (value > best) | value.is_nan();
                    best = if better { value } else { best };
                    at = if better { place + k as u32 } else { at };
                }
            }
            y[i] = best;
            if OP == MAX_INDEX {
                index[i] = at + column;
                column += 2;
            }
        }
    }
}

/// Rows of the output from number `first` on, for any geometry: the elements of all windows of a row are taken in turn, so
/// that the inner loop goes along the row.
fn max_rows<const INDEX: bool>(
    isa: Isa,
    p: &Pool,
    x: &[f32],
    first: usize,
    y: &mut [f32],
    index: &mut [u32],
) {
    let ([depth, height, width], output) = (p.size, p.output());
    let count = output[2];
    let mut index = index.chunks_exact_mut(count);
    let place = |a: usize, o: usize, k: usize| o * p.stride[a] + k * p.dilation[a] - p.padding[a];
    for (y, [plane, oz, oy]) in y.chunks_exact_mut(count).zip(places(first, output)) {
        let x = &x[plane * depth * height * width..][..depth * height * width];
        let index = index.next().unwrap_or_default();
        let (inside_z, inside_y) = (p.inside(0, oz), p.inside(1, oy));
        let row = |kz: usize, ky: usize| (place(0, oz, kz) * height + place(1, oy, ky)) * width;
        y.fill(f32::NEG_INFINITY);
        // The first element of each window, for windows of nothing but minus infinity.
        if inside_z.is_empty() || inside_y.is_empty() {
            index.fill(u32::MAX);
        } else if INDEX {
            let start = row(inside_z.start, inside_y.start);
            let (cut, whole) = index.split_at_mut(p.padding[2].div_ceil(p.stride[2]).min(count));
            for (o, index) in cut.iter_mut().enumerate() {
                let inside = p.inside(2, o);
                *index =
                    if inside.is_empty() { u32::MAX } else { (start + place(2, o, inside.start)) as u32 };
            }
            for (o, index) in whole.iter_mut().enumerate() {
                *index = (start + place(2, cut.len() + o, 0)) as u32;
            }
        }
        for kz in inside_z {
            for ky in inside_y.clone() {
                for kx in 0..p.kernel[2] {
                    let windows = strided(width, count, p.stride[2], p.padding[2], kx * p.dilation[2]);
                    if windows.is_empty() {
                        continue;
                    }
                    let start = row(kz, ky) + place(2, windows.start, kx);
                    let y = &mut y[windows.clone()];
                    let index = if INDEX { &mut index[windows] } else { &mut [] };
                    take_greater::<INDEX>(isa, p.stride[2], &x[start..], start as u32, y, index);
                }
            }
        }
    }
}

multiversion! {
    /// Replaces `y[i]` by `x[i * stride]` where that is greater or NaN; `start` is the index of `x[0]`.
    fn take_greater<const INDEX: bool>(
        stride: usize, x: &[f32], start: u32, y: &mut [f32], index: &mut [u32],
    ) {
        match stride {
            1 => take_greater_strided::<INDEX>(1, x, start, y, index),
            2 => take_greater_strided::<INDEX>(2, x, start, y, index),
            _ => take_greater_strided::<INDEX>(stride, x, start, y, index),
        }
    }
}

#[inline(always)]
fn take_greater_strided<const INDEX: bool>(
    stride: usize,
    x: &[f32],
    mut at: u32,
    y: &mut [f32],
    index: &mut [u32],
) {
    assert!(y.is_empty() || (y.len() - 1) * stride < x.len());
    let index = &mut index[..if INDEX { y.len() } else { 0 }];
    for (i, best) in y.iter_mut().enumerate() {
        // SAFETY: asserted above; a check inside would keep the loop from being vectorised.
        let value = unsafe { *x.get_unchecked(i * stride) };
        let better = (value > *best) | value.is_nan();
        // With `if` the compiler makes a branch of the two.
        *best = select_unpredictable(better, value, *best);
        if INDEX {
            index[i] = select_unpredictable(better, at, index[i]);
            at = at.wrapping_add(stride as u32);
        }
    }
}

/// Gradient of [`max`]: `dx` `[planes, size]`, overwritten, gets every element of `dy` `[planes, output]` at its `index`.
///
/// # Panics
/// If a length does not fit, and as [`Pool::output`].
pub fn max_backward(p: &Pool, index: &[u32], dy: &[f32], dx: &mut [f32]) {
    let output = p.checked(("dx", dx.len()), ("dy", dy.len()));
    assert_eq!(index.len(), dy.len(), "index");
    let isa = Isa::current();
    // In narrow rows there is nothing to gain from vectors.
    if p.pair_rows().is_some() && output[2] >= 32 {
        return for_rows(dx, p.size[2], p.size[2], |first, dx| {
            tile_backward_rows::<MAX>(isa, p, index, dy, first, dx);
        });
    }
    // Planes are cut along the first axis that is not one (in size and output, so that parts of both are contiguous); a
    // part of `dx` takes what belongs to it from all windows that touch it, in their order, wherever the cuts are.
    let axis = (0..2).find(|&a| p.size[a] > 1 || output[a] > 1).unwrap_or(2);
    let (size, count) = (p.size[axis], output[axis]);
    let (row_in, row_out) = (volume(p.size) / size, volume(output) / count);
    let rows = match rows_per_task(row_in) {
        rows if rows < size => rows,
        rows => rows / size * size,
    };
    let parts = dx.par_chunks_mut(rows * row_in).enumerate().with_max_len(1);
    parts.for_each(|(task, mut part)| {
        let mut row = task * rows;
        while !part.is_empty() {
            let (plane, low) = (row / size, row % size);
            let high = size.min(low + part.len() / row_in);
            let (dx, rest) = part.split_at_mut((high - low) * row_in);
            let windows = (low + p.padding[axis] + 1).saturating_sub(p.extent(axis)).div_ceil(p.stride[axis])
                ..count.min((high - 1 + p.padding[axis]) / p.stride[axis] + 1);
            let range = (plane * count + windows.start.min(windows.end)) * row_out
                ..(plane * count + windows.end) * row_out;
            dx.fill(0.0);
            for (&at, &gradient) in index[range.clone()].iter().zip(&dy[range]) {
                if let Some(dx) = dx.get_mut((at as usize).wrapping_sub(low * row_in)) {
                    *dx += gradient;
                }
            }
            (part, row) = (rest, row + high - low);
        }
    });
}

/// Rows of `dx` from number `first` on, where windows of `rows` rows of two tile the plane: each element is written once,
/// from the only window it is in.
fn tile_backward_rows<const OP: u8>(
    isa: Isa,
    p: &Pool,
    index: &[u32],
    dy: &[f32],
    first: usize,
    dx: &mut [f32],
) {
    let (size, output) = (p.size, p.output());
    let count = output[2];
    let scale = 1.0 / volume(p.kernel) as f32;
    for (dx, [plane, z, y]) in dx.chunks_exact_mut(size[2]).zip(places(first, size)) {
        // No division: a kernel is one or two.
        let (oz, oy) = (z >> (p.kernel[0] - 1), y >> (p.kernel[1] - 1));
        if oz >= output[0] || oy >= output[1] {
            dx.fill(0.0);
            continue;
        }
        let start = ((plane * output[0] + oz) * output[1] + oy) * count;
        let (dx, rest) = dx.split_at_mut(2 * count);
        rest.fill(0.0);
        let (dx, dy) = (dx.as_chunks_mut().0, &dy[start..][..count]);
        if OP == AVERAGE {
            spread_pairs(isa, scale, dy, dx);
        } else {
            let begin = (z * size[1] + y) * size[2];
            choose_pairs(isa, begin as u32, &index[start..][..count], dy, dx);
        }
    }
}

multiversion! {
    fn spread_pairs(scale: f32, dy: &[f32], dx: &mut [[f32; 2]]) {
        for (dx, gradient) in dx.iter_mut().zip(dy) {
            *dx = [gradient * scale; 2];
        }
    }
}

multiversion! {
    /// `begin` is the index of `dx[0][0]`.
    fn choose_pairs(begin: u32, index: &[u32], dy: &[f32], dx: &mut [[f32; 2]]) {
        let mut begin = begin;
        for (dx, (gradient, &at)) in dx.iter_mut().zip(dy.iter().zip(index)) {
            let column = at.wrapping_sub(begin);
            *dx = [if column == 0 { *gradient } else { 0.0 }, if column == 1 { *gradient } else { 0.0 }];
            begin = begin.wrapping_add(2);
        }
    }
}

/// The windows of an average along one axis.
#[derive(Clone, Copy)]
struct Windows {
    size: usize,
    output: usize,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Even {
        kernel: usize,
        stride: usize,
        padding: usize,
        count_padding: bool,
    },
    /// From `floor(o * size / output)` to `ceil((o + 1) * size / output)`.
    Adaptive,
}

impl Windows {
    fn of(p: &Pool, count_padding: bool) -> [Self; 3] {
        let output = p.output();
        assert_eq!(p.dilation, [1; 3], "an average has no dilation");
        std::array::from_fn(|a| {
            let (kernel, stride, padding) = (p.kernel[a], p.stride[a], p.padding[a]);
            Self {
                size: p.size[a],
                output: output[a],
                kind: Kind::Even { kernel, stride, padding, count_padding },
            }
        })
    }

    fn adaptive(size: [usize; 3], output: [usize; 3]) -> [Self; 3] {
        std::array::from_fn(|a| Self { size: size[a], output: output[a], kind: Kind::Adaptive })
    }

    /// Elements of window `o`, and what its sum is divided by.
    #[inline(always)]
    fn window(&self, o: usize) -> (Range<usize>, usize) {
        match self.kind {
            Kind::Even { kernel, stride, padding, count_padding } => {
                // Positions in the padded axis.
                let (begin, end) = (o * stride, (o * stride + kernel).min(self.size + 2 * padding));
                let inside = begin.saturating_sub(padding)..(end - padding).min(self.size);
                let count = if count_padding { end - begin } else { inside.len() };
                (inside, count)
            }
            Kind::Adaptive => {
                let range = o * self.size / self.output..((o + 1) * self.size).div_ceil(self.output);
                (range.clone(), range.len())
            }
        }
    }

    /// Windows that hold element `i`.
    #[inline(always)]
    fn holding(&self, i: usize) -> Range<usize> {
        match self.kind {
            Kind::Even { kernel, stride, padding, .. } => {
                let end = ((i + padding) / stride + 1).min(self.output);
                (i + padding + 1).saturating_sub(kernel).div_ceil(stride).min(end)..end
            }
            Kind::Adaptive => i * self.output / self.size..((i + 1) * self.output).div_ceil(self.size),
        }
    }

    /// `y[o]` becomes the sum of `x` over window `o`, divided by its count times `count`.
    #[inline(always)]
    fn sum(&self, x: &[f32], count: usize, y: &mut [f32]) {
        match self.kind {
            Kind::Even { kernel, stride, padding, .. } => {
                y.fill(0.0);
                for k in 0..kernel {
                    let windows = strided(self.size, self.output, stride, padding, k);
                    if windows.is_empty() {
                        continue;
                    }
                    let x = &x[windows.start * stride + k - padding..];
                    let y = &mut y[windows];
                    match stride {
                        1 => add_strided(1, x, y),
                        2 => add_strided(2, x, y),
                        stride => add_strided(stride, x, y),
                    }
                }
                for (o, y) in y.iter_mut().enumerate() {
                    *y /= (self.window(o).1 * count) as f32;
                }
            }
            Kind::Adaptive => {
                for (o, y) in y.iter_mut().enumerate() {
                    let (range, own) = self.window(o);
                    *y = (total(&x[range]) / (own * count) as f64) as f32;
                }
            }
        }
    }

    /// The adjoint of [`Self::sum`] with a `count` of one; `dy` is spoilt.
    #[inline(always)]
    fn spread(&self, dy: &mut [f32], dx: &mut [f32]) {
        match self.kind {
            Kind::Even { kernel, stride, padding, .. } => {
                for (o, dy) in dy.iter_mut().enumerate() {
                    *dy /= self.window(o).1 as f32;
                }
                dx.fill(0.0);
                for k in 0..kernel {
                    let windows = strided(self.size, self.output, stride, padding, k);
                    if windows.is_empty() {
                        continue;
                    }
                    let dx = &mut dx[windows.start * stride + k - padding..];
                    let dy = &dy[windows];
                    match stride {
                        1 => add_to_strided(1, dy, dx),
                        2 => add_to_strided(2, dy, dx),
                        stride => add_to_strided(stride, dy, dx),
                    }
                }
            }
            Kind::Adaptive => {
                dx.fill(0.0);
                for (o, dy) in dy.iter().enumerate() {
                    let (range, count) = self.window(o);
                    let share = dy / count as f32;
                    dx[range].iter_mut().for_each(|dx| *dx += share);
                }
            }
        }
    }
}

/// `y[i] += x[i * stride]`.
#[inline(always)]
fn add_strided(stride: usize, x: &[f32], y: &mut [f32]) {
    assert!(y.is_empty() || (y.len() - 1) * stride < x.len());
    for (i, y) in y.iter_mut().enumerate() {
        // SAFETY: asserted above; a check inside would keep the loop from being vectorised.
        *y += unsafe { *x.get_unchecked(i * stride) };
    }
}

/// `y[i * stride] += x[i]`.
#[inline(always)]
fn add_to_strided(stride: usize, x: &[f32], y: &mut [f32]) {
    assert!(x.is_empty() || (x.len() - 1) * stride < y.len());
    for (i, x) in x.iter().enumerate() {
        // SAFETY: asserted above; a check inside would keep the loop from being vectorised.
        *unsafe { y.get_unchecked_mut(i * stride) } += x;
    }
}

/// Sum of `x`, which should be no longer than [`GRAIN`] to keep the lanes' rounding small.
#[inline(always)]
fn total(x: &[f32]) -> f64 {
    let (blocks, rest) = x.as_chunks::<32>();
    let mut lanes = [0.0f32; 32];
    for block in blocks {
        for l in 0..32 {
            lanes[l] += block[l];
        }
    }
    lanes.iter().chain(rest).map(|&v| f64::from(v)).sum()
}

multiversion! {
    /// Rows of the output from number `first` on: the windows' rows are added up, then the sum goes along the row.
    fn average_rows(windows: &[Windows; 3], x: &[f32], first: usize, y: &mut [f32], sum: &mut [f32]) {
        let [along_z, along_y, along_x] = windows;
        let output = windows.map(|w| w.output);
        for (y, [plane, oz, oy]) in y.chunks_exact_mut(output[2]).zip(places(first, output)) {
            let ((zs, count_z), (ys, count_y)) = (along_z.window(oz), along_y.window(oy));
            let mut blend = Blend::new(sum);
            for z in zs {
                for y in ys.clone() {
                    let row = (plane * along_z.size + z) * along_y.size + y;
                    blend.add(&x[row * along_x.size..][..along_x.size], 1.0);
                }
            }
            blend.finish();
            along_x.sum(sum, count_z * count_y, y);
        }
    }
}

multiversion! {
    /// Rows of `dx` from number `first` on: what windows over this row give is added up, then spread along the row.
    fn average_backward_rows(windows: &[Windows; 3], dy: &[f32], first: usize, dx: &mut [f32], sum: &mut [f32]) {
        let [along_z, along_y, along_x] = windows;
        let size = windows.map(|w| w.size);
        for (dx, [plane, z, y]) in dx.chunks_exact_mut(size[2]).zip(places(first, size)) {
            let mut blend = Blend::new(sum);
            for oz in along_z.holding(z) {
                for oy in along_y.holding(y) {
                    let row = (plane * along_z.output + oz) * along_y.output + oy;
                    let count = along_z.window(oz).1 * along_y.window(oy).1;
                    blend.add(&dy[row * along_x.output..][..along_x.output], 1.0 / count as f32);
                }
            }
            blend.finish();
            along_x.spread(sum, dx);
        }
    }
}

fn average_over(windows: &[Windows; 3], x: &[f32], y: &mut [f32]) {
    let isa = Isa::current();
    let [along_z, along_y, along_x] = windows;
    let rows = (along_z.size / along_z.output).max(1) * (along_y.size / along_y.output).max(1);
    let cost = (rows * along_x.size).max(along_x.output);
    for_rows(y, along_x.output, cost, |first, y| {
        scratch::with(along_x.size, |sum| average_rows(isa, windows, x, first, y, sum));
    });
}

fn average_over_backward(windows: &[Windows; 3], dy: &[f32], dx: &mut [f32]) {
    let isa = Isa::current();
    let along_x = windows[2];
    for_rows(dx, along_x.size, along_x.size.max(along_x.output), |first, dx| {
        scratch::with(along_x.output, |sum| average_backward_rows(isa, windows, dy, first, dx, sum));
    });
}

/// Average of every window of `x` `[planes, size]` into `y` `[planes, output]`, as PyTorch's `avg_pool*d`. Padding is zeros;
/// `count_include_pad` says whether they are counted.
///
/// # Panics
/// If a length does not fit, if a dilation is not one, and as [`Pool::output`].
pub fn average(p: &Pool, count_include_pad: bool, x: &[f32], y: &mut [f32]) {
    let output = p.checked(("x", x.len()), ("y", y.len()));
    let windows = Windows::of(p, count_include_pad);
    if p.pair_rows().is_none() {
        return average_over(&windows, x, y);
    }
    let isa = Isa::current();
    for_rows(y, output[2], output[2] * volume(p.kernel), |first, y| {
        tile_part(isa, AVERAGE, p, x, first, y, &mut []);
    });
}

/// Gradient of [`average`]: `dy` `[planes, output]` to `dx` `[planes, size]`, overwritten.
///
/// # Panics
/// As [`average`].
pub fn average_backward(p: &Pool, count_include_pad: bool, dy: &[f32], dx: &mut [f32]) {
    p.checked(("dx", dx.len()), ("dy", dy.len()));
    let windows = Windows::of(p, count_include_pad);
    if p.pair_rows().is_none() {
        return average_over_backward(&windows, dy, dx);
    }
    let isa = Isa::current();
    for_rows(dx, p.size[2], p.size[2], |first, dx| {
        tile_backward_rows::<AVERAGE>(isa, p, &[], dy, first, dx);
    });
}

/// Average of `x` `[planes, size]` over `output` windows an axis into `y` `[planes, output]`, as PyTorch's
/// `adaptive_avg_pool*d`: window `o` of an axis goes from `floor(o * size / output)` to `ceil((o + 1) * size / output)`.
///
/// # Panics
/// If a size is zero or a length does not fit.
pub fn adaptive_average(planes: usize, size: [usize; 3], output: [usize; 3], x: &[f32], y: &mut [f32]) {
    check_adaptive(planes, size, output, ("x", x.len()), ("y", y.len()));
    if output != [1; 3] {
        return average_over(&Windows::adaptive(size, output), x, y);
    }
    let isa = Isa::current();
    let len = volume(size);
    let parts = len.div_ceil(GRAIN);
    scratch::with(planes * parts, |sums| {
        for_rows(sums, 1, len.min(GRAIN), |first, sums| totals(isa, x, len, first, sums));
        for (y, sums) in y.iter_mut().zip(sums.chunks_exact(parts)) {
            *y = (sums.iter().map(|&s| f64::from(s)).sum::<f64>() / len as f64) as f32;
        }
    });
}

multiversion! {
    /// Sums of the parts of [`GRAIN`] elements, from part number `first` on, of planes of `len`.
    fn totals(x: &[f32], len: usize, first: usize, sums: &mut [f32]) {
        let parts = len.div_ceil(GRAIN);
        for (i, sum) in sums.iter_mut().enumerate() {
            let (plane, part) = ((first + i) / parts, (first + i) % parts);
            *sum = total(&x[plane * len + part * GRAIN..plane * len + len.min((part + 1) * GRAIN)]) as f32;
        }
    }
}

/// Gradient of [`adaptive_average`]: `dy` `[planes, output]` to `dx` `[planes, size]`, overwritten.
///
/// # Panics
/// As [`adaptive_average`].
pub fn adaptive_average_backward(
    planes: usize,
    size: [usize; 3],
    output: [usize; 3],
    dy: &[f32],
    dx: &mut [f32],
) {
    check_adaptive(planes, size, output, ("dx", dx.len()), ("dy", dy.len()));
    if output != [1; 3] {
        return average_over_backward(&Windows::adaptive(size, output), dy, dx);
    }
    for_rows(dx, size[2], size[2], |first, dx| {
        for (dx, [plane, ..]) in dx.chunks_exact_mut(size[2]).zip(places(first, size)) {
            dx.fill(dy[plane] / volume(size) as f32);
        }
    });
}

fn check_adaptive(planes: usize, size: [usize; 3], output: [usize; 3], x: (&str, usize), y: (&str, usize)) {
    assert!(volume(size) > 0, "size {size:?} has a zero");
    assert!(volume(output) > 0, "output {output:?} has a zero");
    assert_eq!(x.1, planes * volume(size), "{}", x.0);
    assert_eq!(y.1, planes * volume(output), "{}", y.0);
}
