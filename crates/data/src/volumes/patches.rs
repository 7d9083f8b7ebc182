//! Patches of volumes for training, windows over a whole volume for prediction.
//!
//! Everything random is a pure function of a seed and a step (see [`crate::rng`]).

use rand::Rng;

use crate::rng::{Stream, rng};
use crate::tiles::{below, stream_indices};
use crate::volume::{Shape, VolumePatch, voxels};
use crate::volumes::dataset::{Prepared, VolumeDataset};
use crate::{DataError, Result};

/// How patches are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Depth, height and width of a patch, each at least 1.
    pub patch: Shape,
    /// Share of the patches of a batch that contain a voxel of a class drawn evenly from those of the volume, 0..=1;
    /// 1/3 in nnU-Net. They are the last `round(share * batch)` of a batch of 3 or more; where that is 0, and in
    /// smaller batches, each patch is one of them with the probability `share`.
    pub foreground_share: f64,
    /// Label of voxels outside the volume: [`crate::volume::IGNORE`], or 0 for background.
    pub pad_label: u8,
}

/// The patches of batch `step`: the cases come in an endless sequence of shuffles, a patch of each, at a place drawn
/// evenly or around a voxel of the foreground.
///
/// Pure function of its arguments. A volume smaller than the patch lies in its middle, see [`cut`]. A volume without
/// foreground, or without labels, gives a patch drawn evenly.
///
/// # Errors
/// No cases, a patch or share out of range, and those of [`VolumeDataset::load`].
pub fn sample(
    dataset: &VolumeDataset,
    seed: u64,
    step: u64,
    batch: usize,
    how: &Sampling,
) -> Result<Vec<VolumePatch>> {
    sample_as(dataset, seed, step, batch, how, |_| how.patch)
}

/// As [`sample`], each patch of a shape of its own, as of its place in the batch: `how.patch` and as much more on all
/// sides.
///
/// # Errors
/// As [`sample`].
pub fn sample_as(
    dataset: &VolumeDataset,
    seed: u64,
    step: u64,
    batch: usize,
    how: &Sampling,
    shape_of: impl Fn(usize) -> Shape,
) -> Result<Vec<VolumePatch>> {
    let wrong = |problem: String| DataError::content(dataset.source().place(), problem);
    if dataset.is_empty() {
        return Err(wrong("no cases to draw patches from".into()));
    }
    if how.patch.contains(&0) {
        return Err(wrong(format!(
            "a patch of {:?} voxels; accepted: at least 1 along each axis",
            how.patch
        )));
    }
    if !(0.0..=1.0).contains(&how.foreground_share) {
        return Err(wrong(format!("a foreground share of {}; accepted: 0..=1", how.foreground_share)));
    }
    let fixed = (how.foreground_share * batch as f64).round() as usize;
    let start = step.wrapping_mul(batch as u64);
    // One after the other: batches are made on several threads, and a thread that waits for another's reading must not
    // be one of a pool.
    stream_indices(seed, start, batch, dataset.len())
        .into_iter()
        .enumerate()
        .map(|(slot, case)| {
            let volume = dataset.load(case)?;
            let mut draw = rng(seed, Stream::VolumePatch, start.wrapping_add(slot as u64));
            let wanted = if batch <= 2 || fixed == 0 {
                unit(&mut draw) < how.foreground_share
            } else {
                slot >= batch - fixed
            };
            let patch = shape_of(slot);
            // Placed by what is wanted of it, then grown on all sides, over the volume's edge where it must be: a patch that is
            // turned and then cropped shows the voxel it was placed by, and borders as often as one that is not.
            let inner = place(&volume, how.patch, wanted, &mut draw);
            let corner = std::array::from_fn(|axis| {
                inner[axis] - (patch[axis].saturating_sub(how.patch[axis]) / 2) as isize
            });
            Ok(cut(&volume, corner, patch, how.pad_label))
        })
        .collect()
}

/// Uniform in 0..1.
fn unit(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// First voxel of a patch, negative where the volume is smaller.
fn place(volume: &Prepared, patch: Shape, foreground: bool, draw: &mut impl Rng) -> [isize; 3] {
    let shape = volume.image.shape;
    let present: Vec<&Vec<u32>> = volume.foreground.iter().filter(|places| !places.is_empty()).collect();
    let target = (foreground && !present.is_empty()).then(|| {
        let places = present[below(draw, present.len() as u64) as usize];
        let at = places[below(draw, places.len() as u64) as usize] as usize;
        let plane = shape[1] * shape[2];
        [at / plane, at % plane / shape[2], at % shape[2]]
    });
    std::array::from_fn(|axis| {
        let (n, size) = (shape[axis], patch[axis]);
        if n <= size {
            return -(((size - n) / 2) as isize);
        }
        let room = n - size;
        match target {
            Some(target) => target[axis].saturating_sub(size / 2).min(room) as isize,
            None => below(draw, room as u64 + 1) as isize,
        }
    })
}

/// Cuts the patch out of a volume that begins at `corner`. Outside the volume the image is 0, the mean of a z-scored
/// one, as in nnU-Net, and the label is `pad_label`.
pub fn cut(volume: &Prepared, corner: [isize; 3], patch: Shape, pad_label: u8) -> VolumePatch {
    let shape = volume.image.shape;
    let mut image = Vec::with_capacity(volume.image.channels * voxels(patch));
    for channel in volume.image.values.chunks_exact(voxels(shape).max(1)) {
        cut_into(&mut image, channel, shape, corner, patch, 0.0);
    }
    let mut labels = Vec::new();
    if let Some(all) = &volume.labels {
        cut_into(&mut labels, all, shape, corner, patch, pad_label);
    }
    VolumePatch { channels: volume.image.channels, shape: patch, image, labels }
}

fn cut_into<T: Copy>(
    out: &mut Vec<T>,
    values: &[T],
    shape: Shape,
    corner: [isize; 3],
    patch: Shape,
    fill: T,
) {
    // For each axis: patch voxels before the volume begins, those inside, and the first voxel of the volume.
    let [depth, height, width] = std::array::from_fn(|axis| {
        let before = (-corner[axis]).clamp(0, patch[axis] as isize) as usize;
        let from = corner[axis].clamp(0, shape[axis] as isize) as usize;
        (before, (patch[axis] - before).min(shape[axis] - from), from)
    });
    let inside = |at: usize, (before, count, from): (usize, usize, usize)| {
        (before..before + count).contains(&at).then(|| at - before + from)
    };
    for d in 0..patch[0] {
        for h in 0..patch[1] {
            match (inside(d, depth), inside(h, height)) {
                (Some(d), Some(h)) => {
                    let (before, count, from) = width;
                    let row = &values[(d * shape[1] + h) * shape[2]..][..shape[2]];
                    out.extend(std::iter::repeat_n(fill, before));
                    out.extend_from_slice(&row[from..from + count]);
                    out.extend(std::iter::repeat_n(fill, patch[2] - before - count));
                }
                _ => out.extend(std::iter::repeat_n(fill, patch[2])),
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Whole volumes

/// First voxels of the windows of shape `patch` that cover a volume, neighbours sharing at least the fraction
/// `overlap` (0..1, nnU-Net: .5) of a window: along each axis as few as that takes, evenly spaced from one end to the
/// other (nnU-Net's rule). A volume shorter than a window has one, at 0, that reaches beyond it. Ascending, width
/// fastest.
pub fn windows(shape: Shape, patch: Shape, overlap: f64) -> Vec<[usize; 3]> {
    let [ds, hs, ws] = std::array::from_fn(|axis| starts(shape[axis], patch[axis], overlap));
    let mut all = Vec::with_capacity(ds.len() * hs.len() * ws.len());
    for &d in &ds {
        for &h in &hs {
            all.extend(ws.iter().map(|&w| [d, h, w]));
        }
    }
    all
}

fn starts(n: usize, patch: usize, overlap: f64) -> Vec<usize> {
    if n == 0 || patch == 0 {
        return Vec::new();
    }
    let room = n.saturating_sub(patch);
    let stride = (patch as f64 * (1.0 - overlap.clamp(0.0, 1.0))).max(1.0);
    let steps = (room as f64 / stride).ceil() as usize;
    if steps == 0 {
        return vec![0];
    }
    let step = room as f64 / steps as f64;
    // Half to even, as numpy rounds.
    (0..=steps).map(|i| ((step * i as f64).round_ties_even() as usize).min(room)).collect()
}

/// Weight of each voxel of a window, `[d, h, w]`: `exp(-d^2 / (2 s^2))` along each axis, d the distance from voxel
/// `size / 2` and s = `sigma * size` (nnU-Net: 1/8). Largest 1; what underflows is the smallest weight that does not.
pub fn gaussian(patch: Shape, sigma: f64) -> Vec<f32> {
    let [ds, hs, ws] = patch.map(|size| {
        let width = (sigma * size as f64).max(f64::MIN_POSITIVE);
        (0..size)
            .map(|i| (-0.5 * ((i as f64 - (size / 2) as f64) / width).powi(2)).exp())
            .collect::<Vec<f64>>()
    });
    let mut weights = Vec::with_capacity(voxels(patch));
    for d in &ds {
        for h in &hs {
            weights.extend(ws.iter().map(|w| (d * h * w) as f32));
        }
    }
    let least = weights.iter().copied().filter(|&w| w > 0.0).fold(f32::INFINITY, f32::min);
    weights.iter_mut().filter(|w| **w == 0.0).for_each(|w| *w = least);
    weights
}

/// Finished slices of a prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Slab {
    /// Number of the first slice.
    pub first: usize,
    /// Number of slices; may be 0.
    pub depth: usize,
    /// `[k, depth, h, w]`.
    pub values: Vec<f32>,
}

/// Blends window outputs to a volume, and hands out slices as soon as no later window touches them, so that it
/// holds `(k + 1) * patch_d * H * W` values whatever the depth of the volume.
///
/// Use: for each of [`windows`], in that order, predict and [`add`](Self::add); then [`finish`](Self::finish). The slabs
/// they return, one after the other, are the volume. A voxel is the mean of the outputs there, weighted by `weights`.
#[derive(Debug, Clone)]
pub struct SlabBlend {
    channels: usize,
    shape: Shape,
    patch: Shape,
    weights: Vec<f32>,
    /// First slice not handed out. Slice `d` is held at `d % patch[0]`, so `[patch_d, k, h, w]` in turns.
    first: usize,
    sum: Vec<f32>,
    /// `[patch_d, h, w]` in turns.
    weight: Vec<f32>,
}

impl SlabBlend {
    /// For a volume of `shape`, windows of shape `patch` with `weights` as of [`gaussian`], outputs of `channels`.
    ///
    /// # Panics
    /// If there is not one weight for each voxel of a window.
    pub fn new(channels: usize, shape: Shape, patch: Shape, weights: Vec<f32>) -> Self {
        assert_eq!(weights.len(), voxels(patch), "one weight for each voxel of a window");
        let held = patch[0] * shape[1] * shape[2];
        Self {
            channels,
            shape,
            patch,
            weights,
            first: 0,
            sum: vec![0.0; channels * held],
            weight: vec![0.0; held],
        }
    }

    /// Adds the output `[k, d, h, w]` of the window that begins at `origin`; what reaches beyond the volume is left
    /// out. Returns the slices that this shows to be finished: those before the window.
    ///
    /// # Panics
    /// If `values` has another length, or the window begins before one that was added earlier.
    pub fn add(&mut self, origin: [usize; 3], values: &[f32]) -> Slab {
        assert_eq!(values.len(), self.channels * voxels(self.patch), "the output of a window");
        assert!(origin[0] >= self.first, "windows in ascending order of their first slice");
        let done = self.hand_out(origin[0].min(self.shape[0]));
        let [_, height, width] = self.shape;
        let plane = height * width;
        let [pd, ph, pw] = self.patch;
        let count = |axis: usize| self.shape[axis].saturating_sub(origin[axis]).min(self.patch[axis]);
        let (depth, rows, columns) = (count(0), count(1), count(2));
        for d in 0..depth {
            let slot = (origin[0] + d) % pd;
            for h in 0..rows {
                let weights = &self.weights[(d * ph + h) * pw..][..columns];
                let at = (origin[1] + h) * width + origin[2];
                let total = &mut self.weight[slot * plane + at..][..columns];
                total.iter_mut().zip(weights).for_each(|(total, w)| *total += w);
                for k in 0..self.channels {
                    let values = &values[((k * pd + d) * ph + h) * pw..][..columns];
                    let sum = &mut self.sum[(slot * self.channels + k) * plane + at..][..columns];
                    for ((sum, value), w) in sum.iter_mut().zip(values).zip(weights) {
                        *sum += value * w;
                    }
                }
            }
        }
        done
    }

    /// The slices that are left. Voxels that no window touched are 0.
    pub fn finish(mut self) -> Slab {
        self.hand_out(self.shape[0])
    }

    fn hand_out(&mut self, end: usize) -> Slab {
        let (first, depth) = (self.first, end.saturating_sub(self.first));
        let plane = self.shape[1] * self.shape[2];
        let mut values = vec![0.0; self.channels * depth * plane];
        // Slices beyond those held were touched by no window.
        for d in 0..depth.min(self.patch[0]) {
            let slot = (first + d) % self.patch[0];
            let weight = &mut self.weight[slot * plane..][..plane];
            for k in 0..self.channels {
                let sum = &mut self.sum[(slot * self.channels + k) * plane..][..plane];
                let out = &mut values[(k * depth + d) * plane..][..plane];
                for ((out, sum), &weight) in out.iter_mut().zip(sum.iter()).zip(weight.iter()) {
                    *out = if weight > 0.0 { sum / weight } else { 0.0 };
                }
                sum.fill(0.0);
            }
            weight.fill(0.0);
        }
        self.first = first.max(end);
        Slab { first, depth, values }
    }
}
