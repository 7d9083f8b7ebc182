//! Betti numbers of a binary volume: components, tunnels, cavities.
//!
//! The object is the union of closed voxels, so the foreground is 26-connected and the background 6-connected; what
//! lies beyond the volume is background.

use rayon::prelude::*;
use serde::Serialize;

use crate::components::{Components, Connectivity, label};
use crate::error::{Error, check_volume};

/// Betti numbers `b_0` (components), `b_1` (tunnels), `b_2` (cavities).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Betti(
    /// By dimension.
    pub [u64; 3],
);

/// Betti numbers of `mask`. The floor of predicting nothing is `[0, 0, 0]`, of predicting everything `[1, 0, 0]`.
///
/// # Shapes
/// - mask `[d, h, w]`
///
/// # Errors
///
/// When the mask does not fill the shape.
pub fn betti(mask: &[bool], shape: [usize; 3]) -> Result<Betti, Error> {
    check_volume(mask.len(), shape)?;
    Ok(Parts::new(mask, shape).betti(euler(mask, shape)))
}

/// Euler characteristic of `mask` as a union of closed voxels, `b_0 - b_1 + b_2`.
///
/// # Shapes
/// - mask `[d, h, w]`
///
/// # Errors
///
/// When the mask does not fill the shape.
pub fn euler_characteristic(mask: &[bool], shape: [usize; 3]) -> Result<i64, Error> {
    check_volume(mask.len(), shape)?;
    Ok(euler(mask, shape))
}

/// The connected parts of an object and of what surrounds it.
pub(crate) struct Parts {
    pub object: Components,
    pub around: Components,
    /// Whether a component of `around` is open to the outside of the volume.
    pub open: Vec<bool>,
}

impl Parts {
    pub fn new(mask: &[bool], shape: [usize; 3]) -> Self {
        let (object, around) = rayon::join(
            || label(|voxel| mask[voxel], shape, Connectivity::TwentySix),
            || label(|voxel| !mask[voxel], shape, Connectivity::Six),
        );
        let [d, h, w] = shape;
        let mut open = vec![false; around.count()];
        let mut touch = |voxel: usize| {
            if let Some(number) = (around.labels[voxel] as usize).checked_sub(1) {
                open[number] = true;
            }
        };
        for row in 0..if w == 0 { 0 } else { d * h } {
            let (z, y) = (row / h, row % h);
            if z == 0 || z + 1 == d || y == 0 || y + 1 == h {
                (row * w..(row + 1) * w).for_each(&mut touch);
            } else {
                touch(row * w);
                touch(row * w + w - 1);
            }
        }
        Self { object, around, open }
    }

    pub fn components(&self) -> u64 {
        self.object.count() as u64
    }

    pub fn cavities(&self) -> u64 {
        self.open.iter().filter(|&&open| !open).count() as u64
    }

    pub fn betti(&self, euler: i64) -> Betti {
        let (components, cavities) = (self.components(), self.cavities());
        let tunnels = components as i64 + cavities as i64 - euler;
        Betti([components, tunnels.max(0) as u64, cavities])
    }
}

/// Eight times what a corner of the grid adds to the Euler characteristic, by which of the eight voxels around it are
/// inside (bit `4 dz + 2 dy + dx`): each of its cells is shared equally by the cell's corners.
const AT_CORNER: [i8; 256] = {
    let mut table = [0; 256];
    let mut pattern = 0;
    while pattern < 256 {
        let mut sum = if pattern == 0 { 0 } else { 8 };
        let mut axis = 1;
        while axis <= 4 {
            // Edges and faces: of two corners along the axis, of four voxels on either side.
            let mut before = 0;
            let mut bit = 0;
            while bit < 8 {
                if bit & axis == 0 {
                    before |= 1 << bit;
                }
                bit += 1;
            }
            sum -= if pattern & before != 0 { 4 } else { 0 };
            sum -= if pattern & !before & 255 != 0 { 4 } else { 0 };
            // Faces across the axis lie between two voxels that differ in that axis alone.
            let mut bit = 0;
            while bit < 8 {
                if bit & axis == 0 && pattern & (1 << bit | 1 << (bit | axis)) != 0 {
                    sum += 2;
                }
                bit += 1;
            }
            axis <<= 1;
        }
        let mut bit = 0;
        while bit < 8 {
            if pattern & (1 << bit) != 0 {
                sum -= 1;
            }
            bit += 1;
        }
        table[pattern] = sum;
        pattern += 1;
    }
    table
};

pub(crate) fn euler(mask: &[bool], [d, h, w]: [usize; 3]) -> i64 {
    if mask.is_empty() {
        return 0;
    }
    let row = |z: usize, y: usize| {
        // Of a corner plane; rows outside are empty.
        let inside = (1..=d).contains(&z) && (1..=h).contains(&y);
        if inside { &mask[((z - 1) * h + y - 1) * w..][..w] } else { &[] }
    };
    let of_plane = |z: usize| {
        let mut sum = 0_i64;
        for y in 0..=h {
            let rows = [row(z, y), row(z, y + 1), row(z + 1, y), row(z + 1, y + 1)];
            if rows.iter().all(|row| row.is_empty()) {
                continue;
            }
            let mut pattern = 0_usize;
            for x in 0..=w {
                // The voxels after the last corner come before this one.
                pattern = pattern >> 1 & 0b0101_0101;
                for (k, row) in rows.iter().enumerate() {
                    if row.get(x).is_some_and(|&inside| inside) {
                        pattern |= 2 << (2 * k);
                    }
                }
                sum += i64::from(AT_CORNER[pattern]);
            }
        }
        sum
    };
    (0..=d).into_par_iter().map(of_plane).sum::<i64>() / 8
}
