//! Exact Euclidean distance transform, one axis after the other: Felzenszwalb & Huttenlocher 2012,
//! *Distance Transforms of Sampled Functions*, <https://doi.org/10.4086/toc.2012.v008a019>.
//!
//! Axes: d = depth, h = height, w = width; w runs fastest. Distances are between voxel centres, in the unit of the
//! spacing, and equal `scipy.ndimage.distance_transform_edt`.

use rayon::prelude::*;

use crate::error::{Error, check_spacing, check_volume};

/// Distance of every voxel to the nearest voxel of `mask` (0 inside), at most `cap`.
///
/// `cap` is also what every voxel gets when the mask is empty; `f64::INFINITY` leaves distances as they are.
///
/// # Shapes
/// - mask `[d, h, w]`, spacing `[d, h, w]`; returns `[d, h, w]`, in `[0, cap]`
///
/// # Errors
///
/// When the mask does not fill the shape, a spacing is not a finite number above 0, or `cap` is not above 0.
pub fn distance_to(mask: &[bool], shape: [usize; 3], spacing: [f64; 3], cap: f64) -> Result<Vec<f64>, Error> {
    check(mask, shape, spacing, cap)?;
    let mut distance = squared(|voxel| mask[voxel], shape, spacing);
    distance.par_iter_mut().for_each(|value| *value = value.sqrt().min(cap));
    Ok(distance)
}

/// Signed distance: outside the mask the distance to the nearest voxel of it, inside *minus* the distance to the
/// nearest voxel outside, clamped to `[-cap, cap]`.
///
/// An empty mask gives `cap` everywhere, a full one `-cap`: voxels beyond the volume count as neither.
///
/// # Shapes
/// - mask `[d, h, w]`, spacing `[d, h, w]`; returns `[d, h, w]`, in `[-cap, cap]`
///
/// # Errors
///
/// As [`distance_to`].
pub fn signed_distance(
    mask: &[bool],
    shape: [usize; 3],
    spacing: [f64; 3],
    cap: f64,
) -> Result<Vec<f64>, Error> {
    check(mask, shape, spacing, cap)?;
    let mut signed = squared(|voxel| mask[voxel], shape, spacing);
    let inside = squared(|voxel| !mask[voxel], shape, spacing);
    signed.par_iter_mut().zip(&inside).for_each(|(value, &inside)| {
        *value = if inside > 0.0 { -inside.sqrt().min(cap) } else { value.sqrt().min(cap) };
    });
    Ok(signed)
}

fn check(mask: &[bool], shape: [usize; 3], spacing: [f64; 3], cap: f64) -> Result<(), Error> {
    check_volume(mask.len(), shape)?;
    check_spacing(spacing)?;
    if cap > 0.0 {
        return Ok(());
    }
    Err(Error::Parameter { name: "cap", value: cap, accepted: "a number above 0, or infinity" })
}

/// Squared distance of every voxel to the nearest site; infinite without a site.
pub(crate) fn squared(
    site: impl Fn(usize) -> bool + Sync,
    [d, h, w]: [usize; 3],
    spacing: [f64; 3],
) -> Vec<f64> {
    let slice = h * w;
    if d * slice == 0 {
        return Vec::new();
    }
    let mut by_slice = vec![f64::INFINITY; d * slice];
    by_slice.par_chunks_mut(slice).enumerate().for_each(|(z, values)| {
        for (y, row) in values.chunks_mut(w).enumerate() {
            along_row(row, |x| site((z * h + y) * w + x), spacing[2]);
        }
        columns(values, h, w, spacing[1]);
    });
    if d == 1 {
        return by_slice;
    }
    // Transposed to [h, d, w], so that the lines along the depth lie in one piece for each thread.
    let mut by_row = vec![0.0; d * slice];
    by_row.par_chunks_mut(d * w).enumerate().for_each(|(y, values)| {
        for (z, row) in values.chunks_mut(w).enumerate() {
            row.copy_from_slice(&by_slice[(z * h + y) * w..][..w]);
        }
        columns(values, d, w, spacing[0]);
    });
    by_slice.par_chunks_mut(slice).enumerate().for_each(|(z, values)| {
        for (y, row) in values.chunks_mut(w).enumerate() {
            row.copy_from_slice(&by_row[(y * d + z) * w..][..w]);
        }
    });
    by_slice
}

/// Squared distances to the sites of one row.
fn along_row(row: &mut [f64], site: impl Fn(usize) -> bool, spacing: f64) {
    let mut last: Option<usize> = None;
    for (x, value) in row.iter_mut().enumerate() {
        if site(x) {
            last = Some(x);
        }
        *value = last.map_or(f64::INFINITY, |last| ((x - last) as f64 * spacing).powi(2));
    }
    let mut next: Option<usize> = None;
    for (x, value) in row.iter_mut().enumerate().rev() {
        if *value == 0.0 {
            next = Some(x);
        }
        if let Some(next) = next {
            *value = value.min(((next - x) as f64 * spacing).powi(2));
        }
    }
}

/// Columns gathered together: a cache line of `f64`.
const LANES: usize = 8;

/// Replaces each column `f` of `values` (`[length, w]`) by `min_j f(j) + (spacing (i - j))^2`.
fn columns(values: &mut [f64], length: usize, w: usize, spacing: f64) {
    if length < 2 {
        return;
    }
    let mut envelope = Envelope::default();
    let mut lines = vec![0.0; LANES * length];
    for start in (0..w).step_by(LANES) {
        let lanes = LANES.min(w - start);
        for (i, row) in values.chunks_exact(w).enumerate() {
            for (lane, &value) in row[start..start + lanes].iter().enumerate() {
                lines[lane * length + i] = value;
            }
        }
        for line in lines.chunks_exact_mut(length).take(lanes) {
            envelope.transform(line, spacing);
        }
        for (i, row) in values.chunks_exact_mut(w).enumerate() {
            for (lane, value) in row[start..start + lanes].iter_mut().enumerate() {
                *value = lines[lane * length + i];
            }
        }
    }
}

/// The lower envelope of parabolas, of which each covers the positions from its start to the next one's.
#[derive(Default)]
struct Envelope {
    /// Position of the minimum, height of the minimum, start.
    parabolas: Vec<(usize, f64, f64)>,
}

impl Envelope {
    fn transform(&mut self, line: &mut [f64], spacing: f64) {
        self.parabolas.clear();
        for (at, &height) in line.iter().enumerate() {
            if height == f64::INFINITY {
                continue;
            }
            let start = loop {
                let Some(&(previous, previous_height, previous_start)) = self.parabolas.last() else {
                    break f64::NEG_INFINITY;
                };
                let (a, b) = (previous as f64, at as f64);
                let meet = 0.5 * ((height - previous_height) / (spacing * spacing * (b - a)) + a + b);
                if meet > previous_start {
                    break meet;
                }
                self.parabolas.pop();
            };
            self.parabolas.push((at, height, start));
        }
        let Some((&first, mut rest)) = self.parabolas.split_first() else { return };
        let mut current = first;
        for (i, value) in line.iter_mut().enumerate() {
            while let Some((&next, after)) = rest.split_first() {
                if next.2 > i as f64 {
                    break;
                }
                (current, rest) = (next, after);
            }
            *value = current.1 + (i.abs_diff(current.0) as f64 * spacing).powi(2);
        }
    }
}
