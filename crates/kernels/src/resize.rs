//! Resizing over three axes: nearest, and linear (bilinear, trilinear). One and two dimensions have leading ones.
//!
//! Both go row by row of what they write: the rows it depends on are blended, then the blend is resized along the row (or
//! the adjoint of that). So every element is written once, and its sum has one order.

use crate::pool::{Blend, for_rows, places};
use crate::simd::multiversion;
use crate::{Isa, scratch};

/// How an output element is made of input elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The element at `floor(o * (size / output))`, with the rounding to f32 of PyTorch's `nearest`.
    Nearest,
    /// Between the two nearest elements of each axis, PyTorch's `linear`, `bilinear` and `trilinear`.
    Linear {
        /// Whether the centres of the first and last elements map to each other, rather than their outer edges.
        align_corners: bool,
    },
}

impl Mode {
    /// Where output element `o` of an axis is taken from: element `first`, and its successor with `weight`. In `f32`, as
    /// PyTorch does, so that `nearest` rounds to the same element.
    pub(crate) fn source(self, size: usize, output: usize, o: usize) -> (usize, f32) {
        let scale = size as f32 / output as f32;
        let position = match self {
            Self::Nearest => return (((o as f32 * scale) as usize).min(size - 1), 0.0),
            Self::Linear { align_corners: false } => ((o as f32 + 0.5) * scale - 0.5).max(0.0),
            Self::Linear { align_corners: true } if output == 1 => 0.0,
            Self::Linear { align_corners: true } => o as f32 * ((size - 1) as f32 / (output - 1) as f32),
        };
        let first = (position as usize).min(size - 1);
        (first, if first + 1 < size { (position - first as f32).clamp(0.0, 1.0) } else { 0.0 })
    }
}

/// Geometry of a resizing: `planes` is batch times channels, the arrays go depth, height, width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resize {
    /// Batch times channels.
    pub planes: usize,
    /// Size of an input plane.
    pub size: [usize; 3],
    /// Size of an output plane.
    pub output: [usize; 3],
    /// How to interpolate.
    pub mode: Mode,
}

/// Resizes `x` `[planes, size]` into `y` `[planes, output]`, as PyTorch's `interpolate` with `size`, without antialiasing.
///
/// # Panics
/// If a size is zero or a length does not fit.
pub fn forward(r: &Resize, x: &[f32], y: &mut [f32]) {
    r.check(("x", x.len()), ("y", y.len()));
    let isa = Isa::current();
    // Rows of input under a row of output: up to one an output row where it shrinks, and four where it grows.
    let cost = r.output[2].max(r.size[2]) * 2;
    Axes::with(r, |axes| {
        for_rows(y, r.output[2], cost, |first, y| {
            scratch::with(r.size[2], |blend| forward_rows(isa, r, axes, x, first, y, blend));
        });
    });
}

/// Gradient of [`forward`]: `dy` `[planes, output]` to `dx` `[planes, size]`, overwritten.
///
/// # Panics
/// If a size is zero or a length does not fit.
pub fn backward(r: &Resize, dy: &[f32], dx: &mut [f32]) {
    r.check(("dx", dx.len()), ("dy", dy.len()));
    let isa = Isa::current();
    let rows = r.output[0].div_ceil(r.size[0]) * r.output[1].div_ceil(r.size[1]);
    let cost = (rows * r.output[2]).max(r.size[2]);
    Axes::with(r, |axes| {
        for_rows(dx, r.size[2], cost, |first, dx| {
            scratch::with(r.output[2] + 2, |blend| backward_rows(isa, r, axes, dy, first, dx, blend));
        });
    });
}

impl Resize {
    fn check(&self, x: (&str, usize), y: (&str, usize)) {
        assert!(!self.size.contains(&0), "size {:?} has a zero", self.size);
        assert!(!self.output.contains(&0), "output {:?} has a zero", self.output);
        assert_eq!(x.1, self.planes * self.size.iter().product::<usize>(), "{}", x.0);
        assert_eq!(y.1, self.planes * self.output.iter().product::<usize>(), "{}", y.0);
    }

    /// See [`Mode::source`].
    fn source(&self, a: usize, o: usize) -> (usize, f32) {
        self.mode.source(self.size[a], self.output[a], o)
    }

    fn along(&self) -> Along {
        let (size, output) = (self.size[2], self.output[2]);
        match self.mode {
            _ if output == size => Along::Same,
            Mode::Nearest if output == 2 * size => Along::Twice,
            Mode::Nearest => Along::Nearest,
            Mode::Linear { align_corners: false } if output == 2 * size => Along::LinearTwice,
            Mode::Linear { .. } => Along::Linear,
        }
    }
}

/// What happens along a row.
#[derive(Clone, Copy)]
enum Along {
    Same,
    Twice,
    Nearest,
    LinearTwice,
    Linear,
}

/// [`Resize::source`] of all output elements of an axis and its inverse, as tables.
#[derive(Clone, Copy)]
struct Axis<'a> {
    /// Indices, as the bits of a float, because temporary memory is floats.
    first: &'a [f32],
    /// Weight of the element behind `first`; its own is one less that.
    weight: &'a [f32],
    /// For each input element the first output element that depends on it (or comes behind); bits like `first`.
    start: &'a [f32],
}

impl Axis<'_> {
    #[inline(always)]
    fn source(&self, o: usize) -> (usize, f32) {
        (self.first[o].to_bits() as usize, self.weight[o])
    }

    /// The output elements that depend on input element `i`, and by which weight.
    #[inline(always)]
    fn dependents(self, i: usize) -> impl Iterator<Item = (usize, f32)> {
        let all = self.start[i].to_bits() as usize..self.first.len();
        all.map(move |o| (o, self.source(o)))
            .take_while(move |&(_, (first, _))| first <= i)
            .map(move |(o, (first, weight))| (o, if first == i { 1.0 - weight } else { weight }))
    }
}

#[derive(Clone, Copy)]
struct Axes<'a>([Axis<'a>; 3]);

impl Axes<'_> {
    fn with(r: &Resize, f: impl FnOnce(&Axes)) {
        let len = (0..3).map(|a| 2 * r.output[a] + r.size[a]).sum();
        scratch::with(len, |mut rest| {
            let axes = std::array::from_fn(|a| {
                let (first, tail) = std::mem::take(&mut rest).split_at_mut(r.output[a]);
                let (weight, tail) = tail.split_at_mut(r.output[a]);
                let (start, tail) = tail.split_at_mut(r.size[a]);
                rest = tail;
                let mut reached = 0;
                for o in 0..r.output[a] {
                    let (index, successor) = r.source(a, o);
                    (first[o], weight[o]) = (f32::from_bits(index as u32), successor);
                    let last = index + usize::from(successor > 0.0);
                    while reached <= last {
                        start[reached] = f32::from_bits(o as u32);
                        reached += 1;
                    }
                }
                start[reached..].fill(f32::from_bits(r.output[a] as u32));
                Axis { first, weight, start }
            });
            f(&Axes(axes));
        });
    }
}

multiversion! {
    /// Rows of the output from number `first` on.
    fn forward_rows(
        r: &Resize, axes: &Axes, x: &[f32], first: usize, y: &mut [f32], blend: &mut [f32],
    ) {
        let [along_z, along_y, along_x] = axes.0;
        let ([depth, height, width], along) = (r.size, r.along());
        for (y, [plane, oz, oy]) in y.chunks_exact_mut(r.output[2]).zip(places(first, r.output)) {
            let ((z, weight_z), (iy, weight_y)) = (along_z.source(oz), along_y.source(oy));
            let input = |z: usize, y: usize| &x[((plane * depth + z) * height + y) * width..][..width];
            if weight_z == 0.0 && weight_y == 0.0 {
                along_x.stretch(along, input(z, iy), y);
                continue;
            }
            let mut sum = Blend::new(if matches!(along, Along::Same) { &mut *y } else { &mut *blend });
            for (z, weight_z) in [(z, 1.0 - weight_z), (z + 1, weight_z)] {
                for (iy, weight_y) in [(iy, 1.0 - weight_y), (iy + 1, weight_y)] {
                    // A weight of zero may belong to a row behind the last.
                    if weight_z * weight_y > 0.0 {
                        sum.add(input(z, iy), weight_z * weight_y);
                    }
                }
            }
            sum.finish();
            if !matches!(along, Along::Same) {
                along_x.stretch(along, blend, y);
            }
        }
    }
}

multiversion! {
    /// Rows of `dx` from number `first` on. `blend` has room for one element before and one behind the row.
    fn backward_rows(
        r: &Resize, axes: &Axes, dy: &[f32], first: usize, dx: &mut [f32], blend: &mut [f32],
    ) {
        let [along_z, along_y, along_x] = axes.0;
        let ([depth, height, width], along) = (r.output, r.along());
        for (dx, [plane, z, y]) in dx.chunks_exact_mut(r.size[2]).zip(places(first, r.size)) {
            let mut sum =
                Blend::new(if matches!(along, Along::Same) { &mut *dx } else { &mut blend[1..=width] });
            for (oz, weight_z) in along_z.dependents(z) {
                for (oy, weight_y) in along_y.dependents(y) {
                    let row = (plane * depth + oz) * height + oy;
                    sum.add(&dy[row * width..][..width], weight_z * weight_y);
                }
            }
            sum.finish();
            if !matches!(along, Along::Same) {
                along_x.gather(along, blend, dx);
            }
        }
    }
}

impl Axis<'_> {
    /// Resizes row `x` to `y`.
    #[inline(always)]
    fn stretch(&self, along: Along, x: &[f32], y: &mut [f32]) {
        match along {
            Along::Same => y.copy_from_slice(x),
            Along::Twice => {
                for (y, &x) in y.as_chunks_mut().0.iter_mut().zip(x) {
                    *y = [x; 2];
                }
            }
            Along::Nearest => {
                for (y, first) in y.iter_mut().zip(self.first) {
                    *y = x[first.to_bits() as usize];
                }
            }
            Along::LinearTwice => {
                let last = y.len() - 1;
                (y[0], y[last]) = (x[0], x[x.len() - 1]);
                for ((y, a), b) in y[1..last].as_chunks_mut().0.iter_mut().zip(x).zip(&x[1..]) {
                    *y = [0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b];
                }
            }
            Along::Linear => {
                for ((y, first), weight) in y.iter_mut().zip(self.first).zip(self.weight) {
                    let first = first.to_bits() as usize;
                    let next = (first + 1).min(x.len() - 1);
                    *y = (1.0 - weight) * x[first] + weight * x[next];
                }
            }
        }
    }

    /// The adjoint of [`Self::stretch`]; `padded` is the output's gradient with room before and behind.
    #[inline(always)]
    fn gather(&self, along: Along, padded: &mut [f32], dx: &mut [f32]) {
        let len = padded.len() - 2;
        match along {
            Along::Same => dx.copy_from_slice(&padded[1..=len]),
            Along::Twice => {
                for (dx, [a, b]) in dx.iter_mut().zip(padded[1..].as_chunks().0) {
                    *dx = a + b;
                }
            }
            Along::LinearTwice => {
                // The outermost elements depend on one element only: as if each had a twin further out.
                (padded[0], padded[len + 1]) = (padded[1], padded[len]);
                let pairs = padded.as_chunks().0;
                for (dx, ([a, b], [c, d])) in dx.iter_mut().zip(pairs.iter().zip(&pairs[1..])) {
                    *dx = 0.75 * (b + c) + 0.25 * (a + d);
                }
            }
            Along::Nearest | Along::Linear => {
                dx.fill(0.0);
                // Runs of outputs between the same two elements are added up before they are written.
                let (mut at, mut own, mut next) = (0, 0.0, 0.0);
                let mut write = |at: usize, own: f32, next: f32| {
                    dx[at] += own;
                    if let Some(dx) = dx.get_mut(at + 1) {
                        *dx += next;
                    }
                };
                for ((dy, first), weight) in padded[1..=len].iter().zip(self.first).zip(self.weight) {
                    let first = first.to_bits() as usize;
                    if first != at {
                        write(at, own, next);
                        (at, own, next) = (first, 0.0, 0.0);
                    }
                    own += (1.0 - weight) * dy;
                    next += weight * dy;
                }
                write(at, own, next);
            }
        }
    }
}
