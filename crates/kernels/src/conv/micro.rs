//! The inner loops: register tiles of sums of `weight * vector`, and of dot products of vectors.

use crate::Isa;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Portable, Simd};

/// An instruction set and the register tile that suits it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernels {
    isa: Isa,
    /// Floats of a vector.
    pub lanes: usize,
    /// Channels of a register tile.
    pub rows: usize,
    /// Vectors of a register tile.
    pub columns: usize,
}

/// A matrix of sums: `sums[row][vector] (+)= sum over k of weight[row][k] * copy[base[vector] + distance[k] ..]`.
pub(super) struct Product<'a> {
    pub rows: usize,
    pub bases: &'a [u32],
    pub distance: &'a [u32],
    /// Blocks of rows as [`blocks`] cuts them; the block at row r begins at `r * weight_k`, its k-th entries (one a row) follow
    /// one another.
    pub weight: &'a [f32],
    /// Entries of a row of the weight, of which `k0..k0 + distance.len()` are used.
    pub weight_k: usize,
    pub k0: usize,
    pub copy: &'a [f32],
    /// `rows x ld`.
    pub sums: &'a mut [f32],
    pub ld: usize,
    /// Add to `sums`; otherwise start from the bias (or zero).
    pub add: bool,
    pub bias: Option<&'a [f32]>,
}

/// A matrix of dot products: `to[row][k] += sum over vectors of other[row][vector] . copy[base[vector] + distance[k] ..]`.
pub(super) struct Dots<'a> {
    pub rows: usize,
    pub bases: &'a [u32],
    pub distance: &'a [u32],
    pub copy: &'a [f32],
    /// `rows x ld`.
    pub other: &'a [f32],
    pub ld: usize,
    /// `rows x to_ld`.
    pub to: &'a mut [f32],
    pub to_ld: usize,
}

/// Cuts rows into blocks that a register tile takes: as many of `most` as there are, then of four, then of one.
pub(super) fn blocks(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let height = match rows - at {
            0 => return None,
            left if left >= most => most,
            left if left >= 4 => 4,
            _ => 1,
        };
        let block = (at, height);
        at += height;
        Some(block)
    })
}

impl Kernels {
    pub(super) fn of(isa: Isa) -> Self {
        match isa {
            // 24 of 32 registers hold sums.
            Isa::Avx512 => Self { isa, lanes: 16, rows: 8, columns: 3 },
            // 12 of 16 registers; with 4 x 3 the compiler runs out of them.
            Isa::Avx2 => Self { isa, lanes: 8, rows: 6, columns: 2 },
            // 8 of 16, for the products need room too.
            Isa::Portable => Self { isa, lanes: Portable::LANES, rows: 4, columns: 2 },
        }
    }

    pub(super) fn product(&self, p: &mut Product) {
        let vectors = p.bases.len();
        let k = p.distance.len();
        assert!(p.rows == 0 || p.sums.len() >= (p.rows - 1) * p.ld + vectors * self.lanes);
        assert!(p.weight.len() >= p.rows * p.weight_k && p.k0 + k <= p.weight_k);
        assert!(p.bias.is_none_or(|b| b.len() == p.rows));
        self.check_reach(p.bases, p.distance, p.copy);
        // SAFETY: the instruction set is the processor's (see `Isa`), the lengths were checked just now.
        unsafe {
            match self.isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => product_avx512(p),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => product_avx2(p),
                _ => product::<Portable, 2>(p, 4),
            }
        }
    }

    pub(super) fn dots(&self, p: &mut Dots) {
        let vectors = p.bases.len();
        assert!(p.rows == 0 || p.other.len() >= (p.rows - 1) * p.ld + vectors * self.lanes);
        assert!(p.rows == 0 || p.to.len() >= (p.rows - 1) * p.to_ld + p.distance.len());
        self.check_reach(p.bases, p.distance, p.copy);
        // SAFETY: as in `product`.
        unsafe {
            match self.isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => dots_avx512(p),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => dots_avx2(p),
                _ => dots::<Portable, 2>(p, 4),
            }
        }
    }

    fn check_reach(&self, bases: &[u32], distance: &[u32], copy: &[f32]) {
        let most = |all: &[u32]| all.iter().copied().max().unwrap_or(0) as usize;
        assert!(
            bases.is_empty()
                || distance.is_empty()
                || most(bases) + most(distance) + self.lanes <= copy.len()
        );
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn product_avx512(p: &mut Product) {
    unsafe { product::<Avx512, 3>(p, 8) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn product_avx2(p: &mut Product) {
    unsafe { product::<Avx2, 2>(p, 6) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn dots_avx512(p: &mut Dots) {
    unsafe { dots::<Avx512, 3>(p, 8) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn dots_avx2(p: &mut Dots) {
    unsafe { dots::<Avx2, 2>(p, 6) }
}

/// # Safety
/// The lengths must fit as [`Kernels::product`] checks, the instruction set be there.
#[inline(always)]
unsafe fn product<S: Simd, const COLUMNS: usize>(p: &mut Product, most: usize) {
    let vectors = p.bases.len();
    let mut v = 0;
    while v < vectors {
        let left = vectors - v;
        // A single row needs many vectors to keep the multipliers busy.
        let wide = p.rows < 4 && left >= 8;
        let columns = if wide { 8 } else { left.min(COLUMNS) };
        for (row, height) in blocks(p.rows, most) {
            unsafe {
                match (height, columns) {
                    (8, 3) => tile::<S, 8, 3>(p, row, v),
                    (8, 2) => tile::<S, 8, 2>(p, row, v),
                    (8, 1) => tile::<S, 8, 1>(p, row, v),
                    (6, 2) => tile::<S, 6, 2>(p, row, v),
                    (6, 1) => tile::<S, 6, 1>(p, row, v),
                    (4, 3) => tile::<S, 4, 3>(p, row, v),
                    (4, 2) => tile::<S, 4, 2>(p, row, v),
                    (4, 1) => tile::<S, 4, 1>(p, row, v),
                    (_, 8) => tile::<S, 1, 8>(p, row, v),
                    (_, 3) => tile::<S, 1, 3>(p, row, v),
                    (_, 2) => tile::<S, 1, 2>(p, row, v),
                    _ => tile::<S, 1, 1>(p, row, v),
                }
            }
        }
        v += columns;
    }
}

/// # Safety
/// As [`product`]; `row + R` and `vector + C` are within.
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const C: usize>(p: &mut Product, row: usize, vector: usize) {
    unsafe {
        let sums = p.sums.as_mut_ptr().add(row * p.ld + vector * S::LANES);
        let mut acc: [[S::V; C]; R] = [[S::splat(0.0); C]; R];
        if p.add {
            for (r, acc) in acc.iter_mut().enumerate() {
                for (c, acc) in acc.iter_mut().enumerate() {
                    *acc = S::load(sums.add(r * p.ld + c * S::LANES));
                }
            }
        } else if let Some(bias) = p.bias {
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = [S::splat(*bias.get_unchecked(row + r)); C];
            }
        }
        let copy: [*const f32; C] =
            std::array::from_fn(|c| p.copy.as_ptr().add(*p.bases.get_unchecked(vector + c) as usize));
        let mut weight = p.weight.as_ptr().add(row * p.weight_k + p.k0 * R);
        for &distance in p.distance {
            let x: [S::V; C] = std::array::from_fn(|c| S::load(copy[c].add(distance as usize)));
            for (r, acc) in acc.iter_mut().enumerate() {
                let w = S::splat(*weight.add(r));
                for (c, acc) in acc.iter_mut().enumerate() {
                    *acc = S::fma(w, x[c], *acc);
                }
            }
            weight = weight.add(R);
        }
        for (r, acc) in acc.iter().enumerate() {
            for (c, acc) in acc.iter().enumerate() {
                S::store(sums.add(r * p.ld + c * S::LANES), *acc);
            }
        }
    }
}

/// # Safety
/// The lengths must fit as [`Kernels::dots`] checks, the instruction set be there.
#[inline(always)]
unsafe fn dots<S: Simd, const COLUMNS: usize>(p: &mut Dots, most: usize) {
    let taps = p.distance.len();
    for (row, height) in blocks(p.rows, most) {
        let mut k = 0;
        while k < taps {
            let left = taps - k;
            let columns = if height == 1 && left >= 7 { 7 } else { left.min(COLUMNS) };
            unsafe {
                match (height, columns) {
                    (8, 3) => dot_tile::<S, 8, 3>(p, row, k),
                    (8, 2) => dot_tile::<S, 8, 2>(p, row, k),
                    (8, 1) => dot_tile::<S, 8, 1>(p, row, k),
                    (6, 2) => dot_tile::<S, 6, 2>(p, row, k),
                    (6, 1) => dot_tile::<S, 6, 1>(p, row, k),
                    (4, 3) => dot_tile::<S, 4, 3>(p, row, k),
                    (4, 2) => dot_tile::<S, 4, 2>(p, row, k),
                    (4, 1) => dot_tile::<S, 4, 1>(p, row, k),
                    (_, 7) => dot_tile::<S, 1, 7>(p, row, k),
                    (_, 3) => dot_tile::<S, 1, 3>(p, row, k),
                    (_, 2) => dot_tile::<S, 1, 2>(p, row, k),
                    _ => dot_tile::<S, 1, 1>(p, row, k),
                }
            }
            k += columns;
        }
    }
}

/// # Safety
/// As [`dots`]; `row + R` and `k + C` are within.
#[inline(always)]
unsafe fn dot_tile<S: Simd, const R: usize, const C: usize>(p: &mut Dots, row: usize, k: usize) {
    unsafe {
        let mut acc: [[S::V; C]; R] = [[S::splat(0.0); C]; R];
        let copy: [*const f32; C] =
            std::array::from_fn(|c| p.copy.as_ptr().add(*p.distance.get_unchecked(k + c) as usize));
        let mut other = p.other.as_ptr().add(row * p.ld);
        for &base in p.bases {
            let x: [S::V; C] = std::array::from_fn(|c| S::load(copy[c].add(base as usize)));
            for (r, acc) in acc.iter_mut().enumerate() {
                let y = S::load(other.add(r * p.ld));
                for (c, acc) in acc.iter_mut().enumerate() {
                    *acc = S::fma(y, x[c], *acc);
                }
            }
            other = other.add(S::LANES);
        }
        for c in 0..C {
            if R == 8 {
                let sums = S::sum8(std::array::from_fn(|r| acc[r % R][c]));
                for (r, sum) in sums.iter().enumerate() {
                    *p.to.get_unchecked_mut((row + r) * p.to_ld + k + c) += sum;
                }
                continue;
            }
            for (r, acc) in acc.iter().enumerate() {
                *p.to.get_unchecked_mut((row + r) * p.to_ld + k + c) += S::sum(acc[c]);
            }
        }
    }
}
