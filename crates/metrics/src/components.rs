//! Connected components of a binary volume, by union-find over runs of voxels along the width.

use crate::error::{Error, check_volume};
use crate::forest::Forest;

/// Which voxels touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// Voxels that share a face (4-connectivity in a single slice).
    Six,
    /// Voxels that share a face or an edge (8-connectivity in a single slice).
    Eighteen,
    /// Voxels that share a face, an edge or a corner.
    TwentySix,
}

/// The components of a mask, numbered from 1 by their first voxel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Components {
    /// Component of each voxel, 0 outside the mask, `[d, h, w]`.
    pub labels: Vec<u32>,
    /// Voxels of component `k + 1`.
    pub sizes: Vec<u64>,
    /// First voxel of component `k + 1`, as a position in `labels`.
    pub(crate) first: Vec<usize>,
}

impl Components {
    /// Number of components.
    pub fn count(&self) -> usize {
        self.sizes.len()
    }

    /// The largest component alone, `[d, h, w]`; of equals, the first. Empty when there is none.
    pub fn largest(&self) -> Vec<bool> {
        let mut largest = (0_u64, 0_u32);
        for (label, &size) in (1..).zip(&self.sizes) {
            if size > largest.0 {
                largest = (size, label);
            }
        }
        self.labels.iter().map(|&label| label != 0 && label == largest.1).collect()
    }

    /// The components of at least `voxels` voxels, `[d, h, w]`.
    pub fn at_least(&self, voxels: u64) -> Vec<bool> {
        self.labels.iter().map(|&label| label != 0 && self.sizes[label as usize - 1] >= voxels).collect()
    }
}

/// Labels the components of `mask`.
///
/// # Shapes
/// - mask `[d, h, w]`
///
/// # Errors
///
/// When the mask does not fill the shape.
pub fn components(mask: &[bool], shape: [usize; 3], connectivity: Connectivity) -> Result<Components, Error> {
    check_volume(mask.len(), shape)?;
    Ok(label(|voxel| mask[voxel], shape, connectivity))
}

#[derive(Clone, Copy)]
struct Run {
    start: u32,
    end: u32,
}

/// Labels the components of the voxels for which `inside` holds; the caller has checked the shape.
pub(crate) fn label(
    inside: impl Fn(usize) -> bool,
    [d, h, w]: [usize; 3],
    connectivity: Connectivity,
) -> Components {
    let rows = d * h;
    let mut runs: Vec<Run> = Vec::new();
    // First run of each row.
    let mut begin = Vec::with_capacity(rows + 1);
    let mut forest = Forest::default();
    for row in 0..rows {
        begin.push(runs.len());
        let mut x = 0;
        while x < w {
            if !inside(row * w + x) {
                x += 1;
                continue;
            }
            let start = x;
            while x < w && inside(row * w + x) {
                x += 1;
            }
            runs.push(Run { start: start as u32, end: x as u32 });
            forest.add();
        }
        let this = begin[row]..runs.len();
        let (z, y) = (row / h, row % h);
        let mut join = |other: usize, reach: u32| {
            let other = begin[other]..begin[other + 1];
            touching(&runs, this.clone(), other, reach, |a, b| {
                forest.join(a, b);
            });
        };
        // What an edge or a corner may add: `edge` where the rows share a face, `corner` where they share an edge.
        let (edge, corner) = match connectivity {
            Connectivity::Six => (0, None),
            Connectivity::Eighteen => (1, Some(0)),
            Connectivity::TwentySix => (1, Some(1)),
        };
        if y > 0 {
            join(row - 1, edge);
        }
        if z > 0 {
            join(row - h, edge);
            if let Some(corner) = corner {
                if y > 0 {
                    join(row - h - 1, corner);
                }
                if y + 1 < h {
                    join(row - h + 1, corner);
                }
            }
        }
    }
    begin.push(runs.len());

    let mut numbers = vec![0_u32; runs.len()];
    let mut found = Components { labels: vec![0; rows * w], sizes: Vec::new(), first: Vec::new() };
    for row in 0..rows {
        let first = begin[row];
        for (run, &Run { start, end }) in (first..).zip(&runs[first..begin[row + 1]]) {
            let root = forest.root(run);
            if numbers[root] == 0 {
                found.sizes.push(0);
                found.first.push(row * w + start as usize);
                numbers[root] = found.sizes.len() as u32;
            }
            let number = numbers[root];
            found.labels[row * w + start as usize..row * w + end as usize].fill(number);
            found.sizes[number as usize - 1] += u64::from(end - start);
        }
    }
    found
}

/// Calls `each` for the pairs of runs of two rows that overlap when widened by `reach`.
fn touching(
    runs: &[Run],
    mut a: std::ops::Range<usize>,
    mut b: std::ops::Range<usize>,
    reach: u32,
    mut each: impl FnMut(usize, usize),
) {
    while !a.is_empty() && !b.is_empty() {
        let (left, right) = (runs[a.start], runs[b.start]);
        if left.start < right.end + reach && right.start < left.end + reach {
            each(a.start, b.start);
        }
        if left.end < right.end {
            a.start += 1;
        } else {
            b.start += 1;
        }
    }
}
