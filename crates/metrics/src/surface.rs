//! Distances between two surfaces, weighted by area: Nikolov et al. 2018, *Deep learning to achieve clinically
//! applicable segmentation of head and neck anatomy for radiotherapy*, <https://arxiv.org/abs/1809.04430>, with the
//! values of its authors' package `surface-distance`.
//!
//! A surface element lies at each corner of the voxel grid around which some but not all of the eight voxels are
//! inside; what lies beyond the volume is outside. Its area is that of the marching-cubes surface between the eight
//! voxel centres.

use crate::distance::squared;
use crate::error::{Error, check_positive, check_spacing, check_volume};

/// A part of a surface.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SurfaceElement {
    /// To the nearest element of the other surface, in the unit of the spacing; infinite when there is none.
    pub distance: f64,
    /// In the unit of the spacing, squared.
    pub area: f64,
}

/// The elements of both surfaces, ascending by distance, then by area.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SurfaceDistances {
    /// From the surface of the truth to that of the prediction.
    pub truth_to_prediction: Vec<SurfaceElement>,
    /// From the surface of the prediction to that of the truth.
    pub prediction_to_truth: Vec<SurfaceElement>,
}

/// Distances between the surfaces of two masks. A single slice is taken as a slab one voxel thick.
///
/// # Shapes
/// - prediction, truth `[d, h, w]`, spacing `[d, h, w]`
///
/// # Errors
///
/// When a mask does not fill the shape or a spacing is not a finite number above 0.
pub fn surface_distances(
    prediction: &[bool],
    truth: &[bool],
    shape: [usize; 3],
    spacing: [f64; 3],
) -> Result<SurfaceDistances, Error> {
    check_volume(prediction.len(), shape)?;
    check_volume(truth.len(), shape)?;
    check_spacing(spacing)?;
    let Some(bounds) = bounds(prediction, truth, shape) else { return Ok(SurfaceDistances::default()) };
    let corners = bounds.map(|(low, high)| high - low + 1);
    let areas = areas(spacing);
    let prediction = Surface::new(&patterns(prediction, shape, bounds), corners, spacing);
    let truth = Surface::new(&patterns(truth, shape, bounds), corners, spacing);
    Ok(SurfaceDistances {
        truth_to_prediction: truth.elements(&prediction, &areas),
        prediction_to_truth: prediction.elements(&truth, &areas),
    })
}

impl SurfaceDistances {
    /// Surface Dice: the share of both surfaces that lies within `tolerance` of the other one, in `[0, 1]`; 0 when
    /// exactly one mask is empty, `NaN` when both are.
    pub fn dice(&self, tolerance: f64) -> f64 {
        let (near, all) = self.both().fold((0.0, 0.0), |(near, all), element| {
            (near + if element.distance <= tolerance { element.area } else { 0.0 }, all + element.area)
        });
        near / all
    }

    /// The larger of the two area-weighted percentiles of the distances; `percent` in `[0, 100]`, 95 is *HD95*.
    /// Infinite when a mask is empty.
    pub fn hausdorff(&self, percent: f64) -> f64 {
        percentile(&self.truth_to_prediction, percent).max(percentile(&self.prediction_to_truth, percent))
    }

    /// Mean distance from the truth to the prediction, and back, weighted by area. Infinite from a surface to an
    /// empty one, `NaN` from an empty one.
    pub fn averages(&self) -> (f64, f64) {
        (average(self.truth_to_prediction.iter()), average(self.prediction_to_truth.iter()))
    }

    /// Average symmetric surface distance: the mean over both surfaces together, weighted by area. Infinite when
    /// exactly one mask is empty, `NaN` when both are.
    pub fn average_symmetric(&self) -> f64 {
        average(self.both())
    }

    fn both(&self) -> impl Iterator<Item = &SurfaceElement> {
        self.truth_to_prediction.iter().chain(&self.prediction_to_truth)
    }
}

/// Surface Dice at `tolerance`, in the unit of the spacing; see [`SurfaceDistances::dice`]. The floor of predicting
/// nothing is 0.
///
/// # Errors
///
/// As [`surface_distances`], and when the tolerance is not a finite number above 0.
pub fn surface_dice(
    prediction: &[bool],
    truth: &[bool],
    shape: [usize; 3],
    spacing: [f64; 3],
    tolerance: f64,
) -> Result<f64, Error> {
    check_positive("tolerance", tolerance)?;
    Ok(surface_distances(prediction, truth, shape, spacing)?.dice(tolerance))
}

fn average<'a>(elements: impl Iterator<Item = &'a SurfaceElement>) -> f64 {
    let (sum, all) = elements
        .fold((0.0, 0.0), |(sum, all), element| (sum + element.distance * element.area, all + element.area));
    sum / all
}

fn percentile(elements: &[SurfaceElement], percent: f64) -> f64 {
    let all: f64 = elements.iter().map(|element| element.area).sum();
    let mut sum = 0.0;
    let reached = elements.iter().find(|element| {
        sum += element.area;
        sum / all >= percent / 100.0
    });
    reached.or(elements.last()).map_or(f64::INFINITY, |element| element.distance)
}

/// Half-open bounds of both masks together; `None` when both are empty.
fn bounds(a: &[bool], b: &[bool], [_, h, w]: [usize; 3]) -> Option<[(usize, usize); 3]> {
    let mut bounds = [(usize::MAX, 0); 3];
    for (voxel, _) in a.iter().zip(b).enumerate().filter(|&(_, (&a, &b))| a || b) {
        for (bound, at) in bounds.iter_mut().zip([voxel / w / h, voxel / w % h, voxel % w]) {
            *bound = (bound.0.min(at), bound.1.max(at + 1));
        }
    }
    (bounds[0].1 > 0).then_some(bounds)
}

/// Which of the eight voxels around each corner are inside: bit `4 dz + 2 dy + dx` for the voxel after (1) or before
/// (0) the corner on each axis.
fn patterns(mask: &[bool], [_, h, w]: [usize; 3], bounds: [(usize, usize); 3]) -> Vec<u8> {
    let [(z0, z1), (y0, y1), (x0, x1)] = bounds;
    let (rows, columns) = (y1 - y0 + 1, x1 - x0 + 1);
    let mut patterns = vec![0_u8; (z1 - z0 + 1) * rows * columns];
    for z in z0..z1 {
        for y in y0..y1 {
            let row = &mask[(z * h + y) * w..][x0..x1];
            let at = ((z - z0) * rows + y - y0) * columns;
            // The voxel comes after the corner at its own position and before the one a step further.
            for (x, _) in row.iter().enumerate().filter(|&(_, &inside)| inside) {
                for bit in 0..8_usize {
                    let step = [bit & 4, bit & 2, bit & 1].map(|after| usize::from(after == 0));
                    patterns[at + x + (step[0] * rows + step[1]) * columns + step[2]] |= 1 << bit;
                }
            }
        }
    }
    patterns
}

struct Surface {
    /// Position and pattern.
    elements: Vec<(usize, u8)>,
    /// Squared distance of every corner to the surface.
    squared: Vec<f64>,
}

impl Surface {
    fn new(patterns: &[u8], corners: [usize; 3], spacing: [f64; 3]) -> Self {
        let partial = |pattern: u8| pattern != 0 && pattern != u8::MAX;
        Self {
            elements: patterns.iter().copied().enumerate().filter(|&(_, pattern)| partial(pattern)).collect(),
            squared: squared(|corner| partial(patterns[corner]), corners, spacing),
        }
    }

    fn elements(&self, other: &Self, areas: &[f64; 256]) -> Vec<SurfaceElement> {
        let mut elements: Vec<_> = self
            .elements
            .iter()
            .map(|&(at, pattern)| SurfaceElement {
                distance: other.squared[at].sqrt(),
                area: areas[usize::from(pattern)],
            })
            .collect();
        elements.sort_unstable_by(|a, b| a.distance.total_cmp(&b.distance).then(a.area.total_cmp(&b.area)));
        elements
    }
}

/// Area of the marching-cubes surface (Lorensen & Cline 1987, <https://doi.org/10.1145/37402.37422>) in a cell of
/// eight voxel centres, by pattern.
///
/// Voxels joined by an edge of the cell share one sheet, which passes through the middle of each edge it cuts; a
/// pattern and its complement have the same surface, that of the smaller side, so voxels that face each other across
/// a diagonal are kept apart.
fn areas(spacing: [f64; 3]) -> [f64; 256] {
    std::array::from_fn(|pattern| {
        let pattern = pattern as u8;
        let mut left = if pattern.count_ones() > 4 { !pattern } else { pattern };
        let mut area = 0.0;
        while left != 0 {
            let sheet = joined(left);
            area += sheet_area(sheet, spacing);
            left &= !sheet;
        }
        area
    })
}

/// The voxels joined to the lowest one of `pattern` by edges of the cell.
fn joined(pattern: u8) -> u8 {
    let mut sheet = pattern & pattern.wrapping_neg();
    loop {
        let mut next = sheet;
        for bit in (0..8).filter(|bit| sheet >> bit & 1 == 1) {
            next |= 1 << (bit ^ 1) | 1 << (bit ^ 2) | 1 << (bit ^ 4);
        }
        next &= pattern;
        if next == sheet {
            return sheet;
        }
        sheet = next;
    }
}

/// Area of the sheet around one to four joined voxels of a cell.
///
/// Each flat piece is given by its area vector in eighths of the unit cell; the sign of its components makes no
/// difference to the length.
fn sheet_area(sheet: u8, spacing: [f64; 3]) -> f64 {
    let [d, h, w] = spacing;
    let piece = |[z, y, x]: [f64; 3]| (z * h * w).hypot(y * d * w).hypot(x * d * h) / 8.0;
    // Whether the sheet has two voxels joined along an axis: 4 for the depth, 2 for the height, 1 for the width.
    let bits: Vec<u8> = (0..8).filter(|bit| sheet >> bit & 1 == 1).collect();
    let along = |axis: u8, bit: u8| sheet >> (bit ^ axis) & 1 == 1;
    let edges = [4, 2, 1].map(|axis| bits.iter().filter(|&&bit| along(axis, bit)).count() / 2);
    // A vector with `value` on the axes that hold `test`.
    let on = |value: f64, test: &dyn Fn(usize) -> bool| {
        piece(std::array::from_fn(|axis| if test(axis) { value } else { 0.0 }))
    };
    let slant = |value: f64| on(value, &|_| true);
    match (bits.len(), edges.iter().filter(|&&count| count > 0).count()) {
        // A corner cut off.
        (1, _) => slant(1.0),
        // An edge: a rectangle along it.
        (2, _) => on(4.0, &|axis| edges[axis] == 0),
        // Three in a face: a triangle parallel to the face and a trapezoid.
        (3, _) => on(4.0, &|axis| edges[axis] == 0) + slant(3.0),
        // A whole face.
        (4, 2) => on(8.0, &|axis| edges[axis] == 0),
        (4, _) => {
            let Some(&middle) = bits.iter().find(|&&bit| [4, 2, 1].iter().all(|&axis| along(axis, bit)))
            else {
                // A path of three edges in three directions. Its hexagon is not flat; these are the triangles of the
                // published table: one parallel to the edge at either end, and two slanted.
                let inner = [4_u8, 2, 1].map(|axis| {
                    bits.iter().any(|&bit| {
                        let degree = |bit| [4, 2, 1].iter().filter(|&&other| along(other, bit)).count();
                        along(axis, bit) && degree(bit) == 2 && degree(bit ^ axis) == 2
                    })
                });
                let outer: f64 =
                    (0..3).filter(|&end| !inner[end]).map(|end| on(2.0, &|axis| axis != end)).sum();
                return outer + slant(4.0);
            };
            debug_assert!(sheet >> middle & 1 == 1);
            // A corner with its three neighbours: a regular hexagon.
            slant(6.0)
        }
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_surface_of_a_half_space_is_the_area_of_its_face() {
        let areas = areas([2.0, 3.0, 5.0]);
        assert_eq!(areas[0b1111_0000], 15.0);
        assert_eq!(areas[0b1100_1100], 10.0);
        assert_eq!(areas[0b1010_1010], 6.0);
        assert_eq!((areas[0], areas[255]), (0.0, 0.0));
    }

    #[test]
    fn a_pattern_and_its_complement_have_one_surface() {
        let areas = areas([1.0, 1.5, 2.5]);
        for pattern in 0..256 {
            assert_eq!(areas[pattern], areas[255 - pattern]);
        }
    }
}
