//! Updates of all parameters of a network in one pass over memory: AdamW, SGD, moving averages, the gradient's norm.
//!
//! The parts (one for each parameter tensor) are laid end to end and cut into blocks of equal length, which the threads
//! share; the cuts, and with them the order of all sums, follow from the lengths of the parts alone.

use std::ops::Range;

use crate::simd::multiversion;
use crate::{Isa, par, scratch};

/// Elements of a block: many blocks for few threads, and each worth the start of a task.
const BLOCK: usize = 1 << 15;

/// Elements of a cache line. Blocks begin at whole lines of a part, and sums have as many lanes.
const LINE: usize = 16;

/// Constants of [`adamw`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
}

impl Default for AdamW {
    /// PyTorch's.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 1e-2 }
    }
}

/// A parameter tensor as [`adamw`] sees it. All slices have the same length.
#[derive(Debug)]
pub struct AdamWPart<'a> {
    /// Changed in place.
    pub parameter: &'a mut [f32],
    /// Of the loss by the parameter.
    pub gradient: &'a [f32],
    /// Running mean of the gradient (PyTorch's `exp_avg`), zeros before the first update.
    pub mean: &'a mut [f32],
    /// Running mean of the squared gradient (`exp_avg_sq`), zeros before the first update.
    pub square: &'a mut [f32],
    /// Number of this update of this parameter, from 1.
    pub updates: u64,
    /// Learning rate.
    pub rate: f64,
}

/// Constants of [`sgd`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Decay of the velocity; 0 for no velocity.
    pub momentum: f64,
    /// `1 - dampening` of the gradient enters the velocity, from the second update on.
    pub dampening: f64,
    /// Nesterov's momentum: the step looks ahead by one velocity.
    pub nesterov: bool,
    /// Added to the gradient, times the parameter (not decoupled).
    pub weight_decay: f64,
}

/// A parameter tensor as [`sgd`] sees it. All slices have the same length.
#[derive(Debug)]
pub struct SgdPart<'a> {
    /// Changed in place.
    pub parameter: &'a mut [f32],
    /// Of the loss by the parameter.
    pub gradient: &'a [f32],
    /// PyTorch's `momentum_buffer`: set by the first update, whatever it held. Empty where the momentum is 0.
    pub velocity: &'a mut [f32],
    /// Number of this update of this parameter, from 1.
    pub updates: u64,
    /// Learning rate.
    pub rate: f64,
}

/// Size of the update of a part: sums of squares, to be added up over a group before the root is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct UpdateSize {
    /// Sum of squares of the change, weight decay included.
    pub change: f64,
    /// Sum of squares of the parameter before the change.
    pub parameter: f64,
}

/// One update of every part by AdamW (Loshchilov & Hutter 2019, <https://arxiv.org/abs/1711.05101>), in the order of
/// operations of `torch.optim.AdamW`; bias corrections are computed in `f64`.
///
/// With `sizes`, one for each part, the sizes of the update are measured in the same pass.
///
/// # Panics
/// Where the slices of a part differ in length, there are not as many sizes as parts, or `updates` is 0.
pub fn adamw(constants: &AdamW, parts: &mut [AdamWPart], sizes: Option<&mut [UpdateSize]>) {
    for part in &*parts {
        assert_eq!(part.gradient.len(), part.parameter.len(), "gradient");
        assert_eq!(part.mean.len(), part.parameter.len(), "mean");
        assert_eq!(part.square.len(), part.parameter.len(), "square");
        assert_ne!(part.updates, 0, "updates");
    }
    let isa = Isa::current();
    let measured = sizes.is_some();
    let count = parts.len();
    let parts = Across(parts.as_mut_ptr());
    // SAFETY: `i` is below the number of parts, and the lengths do not change.
    let len = |i| unsafe { (&raw const *(*parts.at(i)).parameter).len() };
    update(count, len, sizes, |i, range| {
        let part = parts.at(i);
        // SAFETY: as above; the pieces do not overlap, and all slices of a part are as long as its parameter.
        let (updates, rate, gradient, parameter, mean, square) = unsafe {
            (
                (*part).updates,
                (*part).rate,
                (*part).gradient,
                window(&raw mut *(*part).parameter, &range),
                window(&raw mut *(*part).mean, &range),
                window(&raw mut *(*part).square, &range),
            )
        };
        let gradient = &gradient[range];
        let factors = AdamWFactors::new(constants, updates, rate);
        if measured {
            adamw_measured(isa, &factors, parameter, gradient, mean, square)
        } else {
            adamw_piece(isa, &factors, parameter, gradient, mean, square);
            UpdateSize::default()
        }
    });
}

/// What [`adamw`] multiplies by, computed in `f64`.
struct AdamWFactors {
    keep: f32,
    mean_gain: f32,
    square_keep: f32,
    square_gain: f32,
    root_correction: f32,
    epsilon: f32,
    step: f32,
}

impl AdamWFactors {
    fn new(c: &AdamW, updates: u64, rate: f64) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(updates as f64);
        Self {
            keep: (1.0 - rate * c.weight_decay) as f32,
            mean_gain: (1.0 - c.beta1) as f32,
            square_keep: c.beta2 as f32,
            square_gain: (1.0 - c.beta2) as f32,
            root_correction: correction(c.beta2).sqrt() as f32,
            epsilon: c.epsilon as f32,
            step: (-rate / correction(c.beta1)) as f32,
        }
    }

    /// Changes one element; returns the parameter before and after.
    #[inline(always)]
    fn apply(&self, parameter: &mut f32, gradient: f32, mean: &mut f32, square: &mut f32) -> (f32, f32) {
        let old = *parameter;
        *mean += (gradient - *mean) * self.mean_gain;
        *square = *square * self.square_keep + self.square_gain * gradient * gradient;
        let root = square.sqrt() / self.root_correction + self.epsilon;
        *parameter = old * self.keep + self.step * *mean / root;
        (old, *parameter)
    }
}

multiversion! {
    fn adamw_piece(
        factors: &AdamWFactors,
        parameter: &mut [f32],
        gradient: &[f32],
        mean: &mut [f32],
        square: &mut [f32],
    ) {
        for (((p, g), m), s) in parameter.iter_mut().zip(gradient).zip(mean).zip(square) {
            factors.apply(p, *g, m, s);
        }
    }
}

multiversion! {
    fn adamw_measured(
        factors: &AdamWFactors,
        parameter: &mut [f32],
        gradient: &[f32],
        mean: &mut [f32],
        square: &mut [f32],
    ) -> UpdateSize {
        let mut lanes = SizeLanes::default();
        let (p_lines, p_rest) = parameter.as_chunks_mut::<LINE>();
        let (g_lines, g_rest) = gradient.as_chunks::<LINE>();
        let (m_lines, m_rest) = mean.as_chunks_mut::<LINE>();
        let (s_lines, s_rest) = square.as_chunks_mut::<LINE>();
        for (((p, g), m), s) in p_lines.iter_mut().zip(g_lines).zip(m_lines).zip(s_lines) {
            for i in 0..LINE {
                lanes.add(i, factors.apply(&mut p[i], g[i], &mut m[i], &mut s[i]));
            }
        }
        for (i, (((p, g), m), s)) in p_rest.iter_mut().zip(g_rest).zip(m_rest).zip(s_rest).enumerate() {
            lanes.add(i, factors.apply(p, *g, m, s));
        }
        lanes.total()
    }
}

/// One update of every part by stochastic gradient descent, as `torch.optim.SGD`.
///
/// With `sizes`, one for each part, the sizes of the update are measured in the same pass.
///
/// # Panics
/// Where the slices of a part differ in length (the velocity of one without momentum must be empty), there are not as many
/// sizes as parts, or `updates` is 0.
pub fn sgd(constants: &Sgd, parts: &mut [SgdPart], sizes: Option<&mut [UpdateSize]>) {
    let with_velocity = constants.momentum != 0.0;
    for part in &*parts {
        let len = part.parameter.len();
        assert_eq!(part.gradient.len(), len, "gradient");
        assert_eq!(part.velocity.len(), if with_velocity { len } else { 0 }, "velocity");
        assert_ne!(part.updates, 0, "updates");
    }
    let isa = Isa::current();
    let measured = sizes.is_some();
    let count = parts.len();
    let parts = Across(parts.as_mut_ptr());
    // SAFETY: `i` is below the number of parts, and the lengths do not change.
    let len = |i| unsafe { (&raw const *(*parts.at(i)).parameter).len() };
    update(count, len, sizes, |i, range| {
        let part = parts.at(i);
        let in_velocity = if with_velocity { range.clone() } else { 0..0 };
        // SAFETY: as above; the pieces do not overlap, and the slices of a part are as long as its parameter.
        let (updates, rate, gradient, parameter, velocity) = unsafe {
            (
                (*part).updates,
                (*part).rate,
                (*part).gradient,
                window(&raw mut *(*part).parameter, &range),
                window(&raw mut *(*part).velocity, &in_velocity),
            )
        };
        let gradient = &gradient[range];
        let factors = SgdFactors::new(constants, updates, rate);
        if updates == 1 {
            // While the piece is on its way into the cache: it may hold anything so far.
            velocity.fill(0.0);
        }
        match (measured, with_velocity) {
            (true, true) => return momentum_measured(isa, &factors, parameter, gradient, velocity),
            (true, false) => return sgd_measured(isa, &factors, parameter, gradient),
            (false, true) => momentum_piece(isa, &factors, parameter, gradient, velocity),
            (false, false) => sgd_piece(isa, &factors, parameter, gradient),
        }
        UpdateSize::default()
    });
}

/// What [`sgd`] multiplies by, computed in `f64`. With momentum the step's direction is made of shares of gradient and
/// velocity.
struct SgdFactors {
    weight_decay: f32,
    momentum: f32,
    gain: f32,
    gradient_share: f32,
    velocity_share: f32,
    step: f32,
}

impl SgdFactors {
    fn new(c: &Sgd, updates: u64, rate: f64) -> Self {
        let (gradient_share, velocity_share) = if c.nesterov { (1.0, c.momentum) } else { (0.0, 1.0) };
        Self {
            weight_decay: c.weight_decay as f32,
            momentum: c.momentum as f32,
            gain: if updates == 1 { 1.0 } else { (1.0 - c.dampening) as f32 },
            gradient_share,
            velocity_share: velocity_share as f32,
            step: -rate as f32,
        }
    }

    #[inline(always)]
    fn decayed(&self, parameter: f32, gradient: f32) -> f32 {
        gradient + self.weight_decay * parameter
    }

    /// Changes one element by its gradient; returns the parameter before and after.
    #[inline(always)]
    fn apply(&self, parameter: &mut f32, gradient: f32) -> (f32, f32) {
        let old = *parameter;
        *parameter = old + self.step * self.decayed(old, gradient);
        (old, *parameter)
    }

    /// Changes one element and its velocity; returns the parameter before and after.
    #[inline(always)]
    fn apply_momentum(&self, parameter: &mut f32, gradient: f32, velocity: &mut f32) -> (f32, f32) {
        let old = *parameter;
        let gradient = self.decayed(old, gradient);
        *velocity = *velocity * self.momentum + self.gain * gradient;
        let direction = self.gradient_share * gradient + self.velocity_share * *velocity;
        *parameter = old + self.step * direction;
        (old, *parameter)
    }
}

multiversion! {
    fn sgd_piece(factors: &SgdFactors, parameter: &mut [f32], gradient: &[f32]) {
        for (p, g) in parameter.iter_mut().zip(gradient) {
            factors.apply(p, *g);
        }
    }
}

multiversion! {
    fn sgd_measured(factors: &SgdFactors, parameter: &mut [f32], gradient: &[f32]) -> UpdateSize {
        let mut lanes = SizeLanes::default();
        let (p_lines, p_rest) = parameter.as_chunks_mut::<LINE>();
        let (g_lines, g_rest) = gradient.as_chunks::<LINE>();
        for (p, g) in p_lines.iter_mut().zip(g_lines) {
            for i in 0..LINE {
                lanes.add(i, factors.apply(&mut p[i], g[i]));
            }
        }
        for (i, (p, g)) in p_rest.iter_mut().zip(g_rest).enumerate() {
            lanes.add(i, factors.apply(p, *g));
        }
        lanes.total()
    }
}

multiversion! {
    fn momentum_piece(
        factors: &SgdFactors,
        parameter: &mut [f32],
        gradient: &[f32],
        velocity: &mut [f32],
    ) {
        for ((p, g), v) in parameter.iter_mut().zip(gradient).zip(velocity) {
            factors.apply_momentum(p, *g, v);
        }
    }
}

multiversion! {
    fn momentum_measured(
        factors: &SgdFactors,
        parameter: &mut [f32],
        gradient: &[f32],
        velocity: &mut [f32],
    ) -> UpdateSize {
        let mut lanes = SizeLanes::default();
        let (p_lines, p_rest) = parameter.as_chunks_mut::<LINE>();
        let (g_lines, g_rest) = gradient.as_chunks::<LINE>();
        let (v_lines, v_rest) = velocity.as_chunks_mut::<LINE>();
        for ((p, g), v) in p_lines.iter_mut().zip(g_lines).zip(v_lines) {
            for i in 0..LINE {
                lanes.add(i, factors.apply_momentum(&mut p[i], g[i], &mut v[i]));
            }
        }
        for (i, ((p, g), v)) in p_rest.iter_mut().zip(g_rest).zip(v_rest).enumerate() {
            lanes.add(i, factors.apply_momentum(p, *g, v));
        }
        lanes.total()
    }
}

/// Sum of squares of all elements of all parts, in `f64`: the squared global norm of gradients. It cannot overflow, so it
/// is finite exactly where every element is.
pub fn sum_of_squares(parts: &[&[f32]]) -> f64 {
    let isa = Isa::current();
    let len = |i: usize| parts[i].len();
    let slots = slots(parts.len(), len);
    with_sums(slots, |sums: &mut [f64]| {
        let across = Across(sums.as_mut_ptr());
        pieces(parts.len(), len, |slot, i, range| {
            // SAFETY: slots are below their number and no two pieces have the same.
            unsafe { *across.at(slot) = squares_piece(isa, &parts[i][range]) };
        });
        sums.iter().sum()
    })
}

multiversion! {
    fn squares_piece(values: &[f32]) -> f64 {
        let mut lanes = [0f64; LINE];
        let (lines, rest) = values.as_chunks::<LINE>();
        for line in lines {
            for i in 0..LINE {
                lanes[i] += square(line[i]);
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane += square(*value);
        }
        lanes.iter().sum()
    }
}

/// Multiplies all elements of all parts by `factor`.
pub fn scale(parts: &mut [&mut [f32]], factor: f64) {
    let isa = Isa::current();
    let count = parts.len();
    let parts = Across(parts.as_mut_ptr());
    // SAFETY: `i` is below the number of parts, and the lengths do not change.
    let len = |i| unsafe { (&raw const **parts.at(i)).len() };
    pieces(count, len, |_, i, range| {
        // SAFETY: as above, and the pieces do not overlap.
        let values = unsafe { window(&raw mut **parts.at(i), &range) };
        scale_piece(isa, values, factor as f32);
    });
}

multiversion! {
    fn scale_piece(values: &mut [f32], factor: f32) {
        for value in values {
            *value *= factor;
        }
    }
}

/// Moves every target towards its source: `target = keep target + (1 - keep) source` (the teacher of Mean Teacher,
/// Tarvainen & Valpola 2017, <https://arxiv.org/abs/1703.01780>). With `keep` 0 it is a copy, whatever the target held.
///
/// # Panics
/// Where a target and its source differ in length.
pub fn average(parts: &mut [(&mut [f32], &[f32])], keep: f64) {
    for (target, source) in &*parts {
        assert_eq!(source.len(), target.len(), "source");
    }
    let isa = Isa::current();
    let count = parts.len();
    let parts = Across(parts.as_mut_ptr());
    // SAFETY: `i` is below the number of parts, and the lengths do not change.
    let len = |i| unsafe { (&raw const *(*parts.at(i)).0).len() };
    pieces(count, len, |_, i, range| {
        // SAFETY: as above, and the pieces do not overlap.
        let (target, source) = unsafe { (window(&raw mut *(*parts.at(i)).0, &range), (*parts.at(i)).1) };
        let source = &source[range];
        if keep == 0.0 {
            target.copy_from_slice(source);
        } else {
            average_piece(isa, target, source, keep as f32, (1.0 - keep) as f32);
        }
    });
}

multiversion! {
    fn average_piece(target: &mut [f32], source: &[f32], keep: f32, gain: f32) {
        for (target, source) in target.iter_mut().zip(source) {
            *target = *target * keep + source * gain;
        }
    }
}

#[inline(always)]
fn square(x: f32) -> f64 {
    f64::from(x) * f64::from(x)
}

/// Sums of [`UpdateSize`], a lane for each element of a line.
#[derive(Default)]
struct SizeLanes {
    change: [f64; LINE],
    parameter: [f64; LINE],
}

impl SizeLanes {
    #[inline(always)]
    fn add(&mut self, lane: usize, (old, new): (f32, f32)) {
        self.change[lane] += square(new - old);
        self.parameter[lane] += square(old);
    }

    #[inline(always)]
    fn total(&self) -> UpdateSize {
        UpdateSize { change: self.change.iter().sum(), parameter: self.parameter.iter().sum() }
    }
}

/// Calls `step(part, range)` for all pieces and adds up what it returns by part.
fn update(
    parts: usize,
    len: impl Fn(usize) -> usize + Sync + Send,
    sizes: Option<&mut [UpdateSize]>,
    step: impl Fn(usize, Range<usize>) -> UpdateSize + Sync + Send,
) {
    let Some(sizes) = sizes else {
        return pieces(parts, len, |_, part, range| {
            step(part, range);
        });
    };
    assert_eq!(sizes.len(), parts, "sizes");
    with_sums(slots(parts, &len), |sums: &mut [UpdateSize]| {
        let across = Across(sums.as_mut_ptr());
        pieces(parts, &len, |slot, part, range| {
            // SAFETY: slots are below their number and no two pieces have the same.
            unsafe { *across.at(slot) = step(part, range) };
        });
        let mut start = 0;
        for (part, size) in sizes.iter_mut().enumerate() {
            *size = UpdateSize::default();
            let end = start + padded(len(part));
            for block in start / BLOCK..end.div_ceil(BLOCK) {
                size.change += sums[part + block].change;
                size.parameter += sums[part + block].parameter;
            }
            start = end;
        }
    });
}

/// Length of a part as it counts for the blocks, so that every piece begins at a line of its part.
fn padded(len: usize) -> usize {
    len.next_multiple_of(LINE)
}

/// Blocks that parts of these lengths fill.
fn blocks(parts: usize, len: impl Fn(usize) -> usize) -> usize {
    (0..parts).map(|part| padded(len(part))).sum::<usize>().div_ceil(BLOCK)
}

/// Bound of the slots that [`pieces`] gives.
fn slots(parts: usize, len: impl Fn(usize) -> usize) -> usize {
    parts + blocks(parts, len)
}

/// Cuts the parts at the bounds of blocks and calls `f(slot, part, range)` for each piece, the blocks spread over threads.
///
/// The slot is the number of the part plus the number of the block: from one piece to the next at least one of them grows,
/// so that slots are unique and in order.
fn pieces(
    parts: usize,
    len: impl Fn(usize) -> usize + Sync + Send,
    f: impl Fn(usize, usize, Range<usize>) + Sync + Send,
) {
    par::for_each(blocks(parts, &len), |block| {
        let (from, to) = (block * BLOCK, (block + 1) * BLOCK);
        let mut start = 0;
        for part in 0..parts {
            if start >= to {
                break;
            }
            let end = start + padded(len(part));
            if end > from.max(start) {
                f(part + block, part, from.max(start) - start..(to - start).min(len(part)));
            }
            start = end;
        }
    });
}

/// Types whose every bit pattern is a value, made of floats.
///
/// # Safety
/// No padding, no invalid values, aligned to at most 64 bytes.
unsafe trait Sums: Copy + Default {}
// SAFETY: plain numbers.
unsafe impl Sums for f64 {}
// SAFETY: two of the same plain numbers.
unsafe impl Sums for UpdateSize {}

/// Calls `f` with `len` sums at 0, in temporary memory.
fn with_sums<T: Sums, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    scratch::with(len * size_of::<T>() / size_of::<f32>(), |floats| {
        // SAFETY: `scratch` aligns to 64 bytes, the length fits, and `Sums` may hold any bits.
        let sums = unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast::<T>(), len) };
        sums.fill(T::default());
        f(sums)
    })
}

/// A pointer into things that several threads use, each its own part of them.
struct Across<T>(*mut T);

// SAFETY: it only hands out pointers; who follows them must not overlap with another.
unsafe impl<T> Send for Across<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Across<T> {}

impl<T> Across<T> {
    fn at(&self, i: usize) -> *mut T {
        self.0.wrapping_add(i)
    }
}

/// # Safety
/// The slice lives through `'a`, and no two ranges of it in use at the same time overlap.
unsafe fn window<'a>(slice: *mut [f32], range: &Range<usize>) -> &'a mut [f32] {
    assert!(range.start <= range.end && range.end <= slice.len(), "part {range:?} of {}", slice.len());
    unsafe { std::slice::from_raw_parts_mut(slice.cast::<f32>().add(range.start), range.len()) }
}
