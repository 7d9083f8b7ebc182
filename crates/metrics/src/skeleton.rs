//! Skeleton of a binary volume: Lee, Kashyap & Chu 1994, *Building skeleton models via 3-D medial surface/axis
//! thinning algorithms*, <https://doi.org/10.1006/cgip.1994.1042>.
//!
//! A voxel may go when it lies on the surface on the side at hand, is not the end of a line, and its removal changes
//! neither the Euler characteristic nor the number of 26-connected objects among its neighbours. The candidates of a
//! side are found together and then checked again one by one, in the order of the volume. The order of the sides is
//! that of `skimage.morphology.skeletonize(method="lee")`, so that the skeletons are equal voxel by voxel.

use rayon::prelude::*;

use crate::error::{Error, check_volume};

/// Skeleton of `mask`. A volume of a single slice is thinned as a picture: its upper and lower sides are no surface.
///
/// # Shapes
/// - mask `[d, h, w]`; returns `[d, h, w]`, a subset of the mask
///
/// # Errors
///
/// When the mask does not fill the shape.
pub fn skeleton(mask: &[bool], shape: [usize; 3]) -> Result<Vec<bool>, Error> {
    check_volume(mask.len(), shape)?;
    let [d, h, w] = shape;
    let (plane, row) = ((h + 2) * (w + 2), w + 2);
    // With a border of background, so that every voxel has 26 neighbours.
    let mut solid = vec![false; (d + 2) * plane];
    let mut alive: Vec<usize> = Vec::new();
    for (voxel, _) in mask.iter().enumerate().filter(|&(_, &inside)| inside) {
        let (z, y, x) = (voxel / (h * w), voxel / w % h, voxel % w);
        let at = (z + 1) * plane + (y + 1) * row + x + 1;
        solid[at] = true;
        alive.push(at);
    }
    let (plane, row) = (plane as isize, row as isize);
    let around = Around::new(plane, row);
    let sides = [-row, row, 1, -1, plane, -plane];
    let sides = if d == 1 { &sides[..4] } else { &sides[..] };
    let mut idle = 0;
    while idle < sides.len() {
        idle = 0;
        for &side in sides {
            let candidates: Vec<usize> = alive
                .par_iter()
                .copied()
                .filter(|&at| solid[at] && !solid[at.wrapping_add_signed(side)])
                .filter(|&at| {
                    let neighbours = around.gather(&solid, at);
                    neighbours.count_ones() != 1 && keeps_euler(neighbours) && is_simple(neighbours)
                })
                .collect();
            let mut changed = false;
            for at in candidates {
                if is_simple(around.gather(&solid, at)) {
                    solid[at] = false;
                    changed = true;
                }
            }
            idle += usize::from(!changed);
        }
        alive.retain(|&at| solid[at]);
    }
    let mut skeleton = vec![false; mask.len()];
    for at in alive {
        let (plane, row) = (plane as usize, row as usize);
        let (z, y, x) = (at / plane - 1, at / row % (h + 2) - 1, at % row - 1);
        skeleton[(z * h + y) * w + x] = true;
    }
    Ok(skeleton)
}

/// Offsets of the 3x3x3 neighbourhood. In sets of neighbours, bit `9 (dz+1) + 3 (dy+1) + dx+1` is a voxel; bit 13,
/// the voxel itself, is never set.
struct Around {
    rows: [isize; 9],
}

impl Around {
    fn new(plane: isize, row: isize) -> Self {
        Self { rows: std::array::from_fn(|k| (k as isize / 3 - 1) * plane + (k as isize % 3 - 1) * row - 1) }
    }

    fn gather(&self, solid: &[bool], at: usize) -> u32 {
        let mut neighbours = 0;
        for (k, &offset) in self.rows.iter().enumerate() {
            let from = at.wrapping_add_signed(offset);
            let three = &solid[from..from + 3];
            let bits = u32::from(three[0]) | u32::from(three[1]) << 1 | u32::from(three[2]) << 2;
            neighbours |= bits << (3 * k);
        }
        neighbours & !(1 << 13)
    }
}

/// Bits of the octant towards (z, y, x) in {-1, 1}: three face neighbours, three edge neighbours (the k-th lies between
/// the two face neighbours other than k), the corner.
const OCTANTS: [[u32; 7]; 8] = {
    let mut octants = [[0; 7]; 8];
    let mut k = 0;
    while k < 8 {
        let z = if k & 4 == 0 { -9 } else { 9 };
        let y = if k & 2 == 0 { -3 } else { 3 };
        let x = if k & 1 == 0 { -1 } else { 1 };
        let steps: [i32; 7] = [z, y, x, y + x, z + x, z + y, z + y + x];
        let mut i = 0;
        while i < 7 {
            octants[k][i] = 1 << (13 + steps[i]);
            i += 1;
        }
        k += 1;
    }
    octants
};

/// Eight times the change of the Euler characteristic that the removal of a voxel causes in one octant, by which of
/// the seven other voxels of the octant are solid.
///
/// The voxel is a closed cube. Of the cells that only it holds, those of the octant go: the corner if all seven are
/// absent, an edge (shared by two octants) if the three voxels around it are, a face (shared by four) if the one
/// opposite is, the cube (shared by eight) always.
const EULER: [i8; 128] = {
    let mut table = [0; 128];
    let mut set = 0;
    while set < 128 {
        let mut change = 1;
        let mut k = 0;
        while k < 3 {
            if set & (1 << k) == 0 {
                change -= 2;
            }
            let edge = (7 & !(1 << k)) | (8 << k);
            if set & edge == 0 {
                change += 4;
            }
            k += 1;
        }
        if set == 0 {
            change -= 8;
        }
        table[set] = change;
        set += 1;
    }
    table
};

fn keeps_euler(neighbours: u32) -> bool {
    let mut change = 0_i32;
    for octant in &OCTANTS {
        let mut set = 0;
        for (k, &bit) in octant.iter().enumerate() {
            set |= usize::from(neighbours & bit != 0) << k;
        }
        change += i32::from(EULER[set]);
    }
    change == 0
}

/// For each of the 27 voxels, those of the neighbourhood that touch it.
const TOUCHING: [u32; 27] = {
    let mut touching = [0; 27];
    let mut a = 0_i32;
    while a < 27 {
        let mut b = 0_i32;
        while b < 27 {
            let (dz, dy, dx) = (a / 9 - b / 9, a / 3 % 3 - b / 3 % 3, a % 3 - b % 3);
            if a != b && dz.abs() <= 1 && dy.abs() <= 1 && dx.abs() <= 1 {
                touching[a as usize] |= 1 << b;
            }
            b += 1;
        }
        a += 1;
    }
    touching
};

/// Whether the neighbours form at most one 26-connected object.
fn is_simple(neighbours: u32) -> bool {
    let mut reached = 0;
    let mut front = neighbours & neighbours.wrapping_neg();
    while front != 0 {
        reached |= front;
        let mut next = 0;
        while front != 0 {
            next |= TOUCHING[front.trailing_zeros() as usize];
            front &= front - 1;
        }
        front = next & neighbours & !reached;
    }
    reached == neighbours
}
