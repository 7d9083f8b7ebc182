//! Intensities on a common scale, volumes on a common grid. Each volume by itself, each channel by itself.
//!
//! Statistics are exact whatever the size of the volume: they need two passes over its slices and a few megabytes.

use std::ops::Range;

use rand::Rng;
use rayon::prelude::*;

use crate::Result;
use crate::rng::{Stream, rng};
use crate::volume::{Geometry, Shape, Volume, VolumeLabels, VolumeReader, voxels};

/// How the intensities of a volume are brought to a common scale. Statistics are over the finite voxels of a channel;
/// voxels that are not finite get its mean first. A channel of one value becomes 0 (except with `None`).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Normalise3d {
    /// As in the file.
    None,
    /// Mean 0, standard deviation 1.
    #[default]
    ZScore,
    /// The `lo`-th percentile becomes 0, the `hi`-th 1; what lies outside is clipped. 0 <= lo < hi <= 100.
    Percentile {
        /// Lower percentile, 0..100.
        lo: f64,
        /// Upper percentile, 0..100.
        hi: f64,
    },
    /// As MedicalNet's (Chen et al. 2019, <https://arxiv.org/abs/1904.00625>) for skull-stripped images: the volume
    /// is cut to the box of its non-zero voxels, voxels > 0 get mean 0 and standard deviation 1 (others the same
    /// scale), and voxels that were 0 become standard normal noise, the same in every run of one seed.
    MedicalNet,
}

/// What is done to a volume before it is trained on: cut (only with [`Normalise3d::MedicalNet`]), normalised,
/// resampled. Images are resampled trilinearly, labels to the nearest voxel; nothing is smoothed before it is shrunk.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Preprocess {
    /// Scale of the intensities.
    pub normalise: Normalise3d,
    /// Distance of voxels (depth, height, width, in millimetres) to resample to. The outer faces of the volume stay
    /// where they are, so that its extent is kept to half a voxel.
    pub spacing: Option<[f64; 3]>,
    /// Shape to resample to: the centres of the corner voxels stay where they are, as with `scipy.ndimage.zoom`.
    pub shape: Option<Shape>,
}

/// Which voxels of the original a prepared volume was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Shape before.
    pub original: Shape,
    /// The part that was kept, along depth, height and width.
    pub crop: [Range<usize>; 3],
    /// Shape after.
    pub shape: Shape,
    /// How voxels before and after correspond.
    pub align: Align,
}

/// What stays in place when a volume is resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// The centres of the first and last voxel along each axis.
    Corners,
    /// The outer faces of the first and last voxel along each axis.
    Faces,
}

impl Preprocess {
    /// Whether the settings make sense.
    ///
    /// # Errors
    /// What was found and what is accepted.
    pub fn check(&self) -> Result<(), String> {
        let wanted = self.shape.map(|shape| shape.iter().map(|n| *n as u64).product::<u64>());
        if let Some(voxels) = wanted.filter(|voxels| *voxels > u64::from(u32::MAX)) {
            return Err(format!("a shape of {voxels} voxels; accepted: fewer than 2^32"));
        }
        if let Normalise3d::Percentile { lo, hi } = self.normalise
            && !(0.0 <= lo && lo < hi && hi <= 100.0)
        {
            return Err(format!("normalisation percentiles {lo} and {hi}; accepted: 0 <= lo < hi <= 100"));
        }
        if let Some(spacing) = self.spacing
            && !spacing.iter().all(|s| s.is_finite() && *s > 0.0)
        {
            return Err(format!(
                "target spacing {spacing:?}; accepted: three positive numbers of millimetres"
            ));
        }
        if let Some(shape) = self.shape
            && (shape.contains(&0) || shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s)).is_none())
        {
            return Err(format!("target shape {shape:?}; accepted: three positive numbers of voxels"));
        }
        if self.spacing.is_some() && self.shape.is_some() {
            return Err("both a target spacing and a target shape; accepted: one of them".into());
        }
        Ok(())
    }

    /// Cuts, normalises and resamples an image. `seed` and `case` decide the noise of [`Normalise3d::MedicalNet`].
    ///
    /// # Errors
    /// A target spacing that makes a volume too large to be meant (more than 2^32 voxels).
    pub fn image(&self, mut volume: Volume, seed: u64, case: &str) -> Result<(Volume, Placement), String> {
        let original = volume.shape;
        let crop = match self.normalise {
            Normalise3d::MedicalNet => nonzero_box(&volume),
            _ => original.map(|n| 0..n),
        };
        let cropped = std::array::from_fn(|axis| crop[axis].len());
        let (shape, align) = match (self.shape, self.spacing) {
            (Some(shape), _) => (shape, Align::Corners),
            (None, Some(spacing)) => (respaced(cropped, volume.geometry.spacing, spacing)?, Align::Faces),
            (None, None) => (cropped, Align::Faces),
        };
        let placement = Placement { original, crop, shape, align };

        if cropped != original {
            volume.values = placement.cut(&volume.values);
            volume.shape = cropped;
        }
        let plane = cropped[1] * cropped[2];
        if voxels(cropped) > 0 {
            let scaling = Scaling::of(&volume, self.normalise, seed, case);
            scaling.apply_planes(&mut volume.values, 0, plane);
        }
        if cropped != shape {
            let channels = volume.values.par_chunks_exact(voxels(cropped).max(1));
            let resized: Vec<Vec<f32>> = channels.map(|c| resize(c, cropped, shape, align)).collect();
            volume.values = resized.concat();
        }
        volume.geometry = placement.geometry(&volume.geometry);
        volume.shape = shape;
        Ok((volume, placement))
    }
}

/// The shape at another spacing.
fn respaced(shape: Shape, from: [f64; 3], to: [f64; 3]) -> Result<Shape, String> {
    let ideal: [f64; 3] =
        std::array::from_fn(|axis| (shape[axis] as f64 * from[axis] / to[axis]).round().max(1.0));
    let total: f64 = ideal.iter().product();
    // The comparison is false for what is not a number, too.
    if total <= f64::from(u32::MAX) {
        Ok(ideal.map(|n| n as usize))
    } else {
        Err(format!(
            "the target spacing {to:?} makes {total:.3e} voxels of a volume of {shape:?} with spacing {from:?}; \
             accepted: up to 2^32"
        ))
    }
}

/// The smallest box with all non-zero voxels of all channels; everything if there are none.
fn nonzero_box(volume: &Volume) -> [Range<usize>; 3] {
    let [_, height, width] = volume.shape;
    let (mut low, mut high) = ([usize::MAX; 3], [0; 3]);
    let mut reach = |axis: usize, at: usize| {
        low[axis] = low[axis].min(at);
        high[axis] = high[axis].max(at + 1);
    };
    for (row, values) in volume.values.chunks(width.max(1)).enumerate() {
        let is_there = |v: &f32| *v != 0.0 && v.is_finite();
        if let (Some(first), Some(last)) =
            (values.iter().position(is_there), values.iter().rposition(is_there))
        {
            reach(2, first);
            reach(2, last);
            reach(1, row % height);
            reach(0, row / height % volume.shape[0]);
        }
    }
    std::array::from_fn(|axis| if high[0] == 0 { 0..volume.shape[axis] } else { low[axis]..high[axis] })
}

// ---------------------------------------------------------------------------------------------------------------
// The grid

impl Placement {
    fn cropped(&self) -> Shape {
        std::array::from_fn(|axis| self.crop[axis].len())
    }

    /// The kept part of `[c, d, h, w]`.
    fn cut<T: Copy>(&self, values: &[T]) -> Vec<T> {
        let [depth, height, width] = self.original;
        let [ds, hs, ws] = &self.crop;
        let mut out =
            Vec::with_capacity(values.len() / voxels(self.original).max(1) * voxels(self.cropped()));
        for channel in values.chunks_exact((depth * height * width).max(1)) {
            for d in ds.clone() {
                for h in hs.clone() {
                    out.extend_from_slice(&channel[(d * height + h) * width..][ws.clone()]);
                }
            }
        }
        out
    }

    /// Labels on the grid of the prepared image: each voxel that of the nearest one before.
    ///
    /// # Panics
    /// If the labels are not of the original's shape.
    pub fn labels(&self, labels: VolumeLabels) -> VolumeLabels {
        assert_eq!(labels.shape, self.original, "labels of another image");
        let cropped = self.cropped();
        if (cropped, self.shape) == (self.original, self.original) {
            return labels;
        }
        let geometry = self.geometry(&labels.geometry);
        let values = self.cut(&labels.values);
        let nearest = |axis: usize| -> Vec<usize> {
            (0..self.shape[axis])
                .map(|to| match self.align {
                    Align::Corners => (to as f64 * step(cropped[axis], self.shape[axis]) + 0.5).floor(),
                    Align::Faces => {
                        ((to as f64 + 0.5) * cropped[axis] as f64 / self.shape[axis] as f64).floor()
                    }
                })
                .map(|at| (at as usize).min(cropped[axis] - 1))
                .collect()
        };
        let [ds, hs, ws] = [nearest(0), nearest(1), nearest(2)];
        let mut out = Vec::with_capacity(voxels(self.shape));
        for &d in &ds {
            for &h in &hs {
                let row = &values[(d * cropped[1] + h) * cropped[2]..][..cropped[2]];
                out.extend(ws.iter().map(|&w| row[w]));
            }
        }
        VolumeLabels { shape: self.shape, values: out, geometry }
    }

    /// Brings a prediction `[k, d, h, w]` on the prepared grid back to the original one, trilinearly; voxels that
    /// had been cut off are `fill`. Probabilities or logits, not labels.
    ///
    /// # Panics
    /// If `values` is not a whole number of volumes of the prepared shape.
    pub fn restore(&self, values: &[f32], fill: f32) -> Vec<f32> {
        let (cropped, [_, height, width]) = (self.cropped(), self.original);
        let size = voxels(self.shape).max(1);
        assert_eq!(values.len() % size, 0, "whole volumes of the prepared shape");
        let mut out = Vec::with_capacity(values.len() / size * voxels(self.original));
        for channel in values.chunks_exact(size) {
            let resized = resize(channel, self.shape, cropped, self.align);
            if cropped == self.original {
                out.extend(resized);
                continue;
            }
            let start = out.len();
            out.resize(start + voxels(self.original), fill);
            for (row, values) in resized.chunks_exact(cropped[2].max(1)).enumerate() {
                let (d, h) = (row / cropped[1] + self.crop[0].start, row % cropped[1] + self.crop[1].start);
                let at = start + (d * height + h) * width + self.crop[2].start;
                out[at..at + cropped[2]].copy_from_slice(values);
            }
        }
        out
    }

    /// Where the voxels of the prepared volume lie.
    fn geometry(&self, before: &Geometry) -> Geometry {
        let cropped = self.cropped();
        let mut after = before.clone();
        for (axis, &n) in cropped.iter().enumerate() {
            // Voxel `i` after lies at `first + i * scale` before.
            let (first, scale) = match self.align {
                _ if n == self.shape[axis] => (0.0, 1.0),
                Align::Corners => (0.0, step(n, self.shape[axis])),
                Align::Faces => {
                    let scale = n as f64 / self.shape[axis].max(1) as f64;
                    (0.5 * scale - 0.5, scale)
                }
            };
            // Along an axis of one voxel nothing tells its size.
            let scale = if scale > 0.0 { scale } else { 1.0 };
            let first = first + self.crop[axis].start as f64;
            after.spacing[axis] = before.spacing[axis] * scale;
            for row in 0..3 {
                after.affine[row][3] += before.affine[row][2 - axis] * first;
                after.affine[row][2 - axis] = before.affine[row][2 - axis] * scale;
            }
        }
        after
    }
}

/// Distance before of neighbouring voxels after, with the corners in place.
fn step(before: usize, after: usize) -> f64 {
    if after > 1 { before.saturating_sub(1) as f64 / (after - 1) as f64 } else { 0.0 }
}

/// For each voxel along an axis after, the two it lies between before and the weight of the second.
fn taps(before: usize, after: usize, align: Align) -> Vec<(usize, usize, f64)> {
    let last = before.saturating_sub(1);
    (0..after)
        .map(|to| {
            let at = match align {
                Align::Corners => to as f64 * step(before, after),
                Align::Faces => (to as f64 + 0.5) * (before as f64 / after as f64) - 0.5,
            };
            let at = at.clamp(0.0, last as f64);
            let low = at.floor() as usize;
            (low, (low + 1).min(last), at - low as f64)
        })
        .collect()
}

/// Resamples `[d, h, w]` trilinearly to another shape. With [`Align::Corners`] equal to `scipy.ndimage.zoom` of
/// order 1, with [`Align::Faces`] to that with `grid_mode=True, mode="nearest"`. `from` has at least one voxel.
pub fn resize(values: &[f32], from: Shape, to: Shape, align: Align) -> Vec<f32> {
    if from == to {
        return values.to_vec();
    }
    let [ds, hs, ws] = std::array::from_fn(|axis| taps(from[axis], to[axis], align));
    let (height, width) = (from[1], from[2]);
    let mut out = vec![0.0; voxels(to)];
    out.par_chunks_mut((to[1] * to[2]).max(1)).zip(&ds).for_each(|(slice, &(d0, d1, df))| {
        // One row of the source plane between d0 and d1, and between two of its rows.
        let mut line = vec![0.0f64; width];
        for (row, &(h0, h1, hf)) in slice.chunks_exact_mut(to[2]).zip(&hs) {
            let source = |d: usize, h: usize| &values[(d * height + h) * width..][..width];
            let corners = [source(d0, h0), source(d0, h1), source(d1, h0), source(d1, h1)];
            for (w, mixed) in line.iter_mut().enumerate() {
                let [a, b, c, e] = corners.map(|row| f64::from(row[w]));
                let (near, far) = (a + (b - a) * hf, c + (e - c) * hf);
                *mixed = near + (far - near) * df;
            }
            for (out, &(w0, w1, wf)) in row.iter_mut().zip(&ws) {
                *out = (line[w0] + (line[w1] - line[w0]) * wf) as f32;
            }
        }
    });
    out
}

// ---------------------------------------------------------------------------------------------------------------
// Intensities

/// Exact statistics of a channel over its finite voxels (of those only the ones > 0 with
/// [`Normalise3d::MedicalNet`]). All 0 where there are none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Statistics {
    /// Number of voxels counted.
    pub count: u64,
    /// Number of voxels that are NaN or infinite.
    pub non_finite: u64,
    /// Smallest.
    pub min: f32,
    /// Largest.
    pub max: f32,
    /// Mean, summed in double precision.
    pub mean: f64,
    /// Standard deviation over all voxels counted, by a second pass around the mean.
    pub std: f64,
    /// The two percentiles of [`Normalise3d::Percentile`], linear between ranks as numpy's; exact, not from bins of
    /// finite width.
    pub percentiles: Option<(f64, f64)>,
}

/// Gathers [`Statistics`] in two passes over the same values, in any order and in pieces of any size.
///
/// Percentiles: the bits of a number, signs turned, sort as the number does. The first pass counts their upper
/// halves, which tells in which of 2^16 ranges a rank falls; the second counts the lower halves within these ranges,
/// which tells the number itself.
struct Gather {
    normalise: Normalise3d,
    so_far: Statistics,
    sum: f64,
    squares: f64,
    /// Counts of the upper halves; empty without percentiles.
    upper: Vec<u64>,
    /// Ranges of interest: upper half, number of voxels below, counts of the lower halves.
    lower: Vec<(usize, u64, Vec<u64>)>,
}

const HALF: usize = 1 << 16;

fn key(value: f32) -> u32 {
    // Adding 0 makes -0 into 0.
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn value_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key ^ 1 << 31 } else { !key })
}

impl Gather {
    fn new(normalise: Normalise3d) -> Self {
        let percentiles = matches!(normalise, Normalise3d::Percentile { .. });
        Self {
            normalise,
            so_far: Statistics { min: f32::INFINITY, max: f32::NEG_INFINITY, ..Statistics::default() },
            sum: 0.0,
            squares: 0.0,
            upper: vec![0; if percentiles { HALF } else { 0 }],
            lower: Vec::new(),
        }
    }

    fn counts(normalise: Normalise3d, value: f32) -> bool {
        value.is_finite() && (normalise != Normalise3d::MedicalNet || value > 0.0)
    }

    fn first(&mut self, values: &[f32]) {
        let normalise = self.normalise;
        let all = &mut self.so_far;
        for &value in values {
            if Self::counts(normalise, value) {
                all.count += 1;
                self.sum += f64::from(value);
                all.min = all.min.min(value);
                all.max = all.max.max(value);
                if !self.upper.is_empty() {
                    self.upper[key(value) as usize >> 16] += 1;
                }
            } else if !value.is_finite() {
                all.non_finite += 1;
            }
        }
    }

    /// The two ranks around a percentile and the weight of the second.
    fn ranks(&self, percent: f64) -> (u64, u64, f64) {
        let last = self.so_far.count.saturating_sub(1);
        let at = percent / 100.0 * last as f64;
        let low = (at.floor() as u64).min(last);
        (low, (low + 1).min(last), at - low as f64)
    }

    fn between(&mut self) {
        self.so_far.mean = if self.so_far.count > 0 { self.sum / self.so_far.count as f64 } else { 0.0 };
        let Normalise3d::Percentile { lo, hi } = self.normalise else { return };
        let mut wanted = Vec::new();
        for percent in [lo, hi] {
            let (low, high, _) = self.ranks(percent);
            wanted.extend([low, high]);
        }
        wanted.sort_unstable();
        let mut below = 0;
        let mut ranks = wanted.into_iter().peekable();
        for (half, &count) in self.upper.iter().enumerate() {
            if ranks.peek().is_some_and(|&rank| rank < below + count) {
                self.lower.push((half, below, vec![0; HALF]));
                while ranks.next_if(|&rank| rank < below + count).is_some() {}
            }
            below += count;
        }
    }

    fn second(&mut self, values: &[f32]) {
        let mean = self.so_far.mean;
        for &value in values.iter().filter(|v| Self::counts(self.normalise, **v)) {
            self.squares += (f64::from(value) - mean).powi(2);
            if !self.lower.is_empty() {
                let key = key(value) as usize;
                if let Some((.., counts)) = self.lower.iter_mut().find(|(half, ..)| *half == key >> 16) {
                    counts[key & (HALF - 1)] += 1;
                }
            }
        }
    }

    fn at_rank(&self, rank: u64) -> f64 {
        for (half, below, counts) in &self.lower {
            let mut below = *below;
            for (low, &count) in counts.iter().enumerate() {
                if (below..below + count).contains(&rank) {
                    return f64::from(value_of((*half as u32) << 16 | low as u32));
                }
                below += count;
            }
        }
        0.0
    }

    fn finish(mut self) -> Statistics {
        if self.so_far.count == 0 {
            return Statistics { non_finite: self.so_far.non_finite, ..Statistics::default() };
        }
        self.so_far.std = (self.squares / self.so_far.count as f64).sqrt();
        if let Normalise3d::Percentile { lo, hi } = self.normalise {
            let at = |percent: f64| {
                let (low, high, weight) = self.ranks(percent);
                let (a, b) = (self.at_rank(low), self.at_rank(high));
                if weight < 0.5 { a + (b - a) * weight } else { b - (b - a) * (1.0 - weight) }
            };
            self.so_far.percentiles = Some((at(lo), at(hi)));
        }
        self.so_far
    }
}

/// Values read at once from a volume that may not fit the memory.
const SLAB_VALUES: usize = 1 << 24;

/// Number of slices to read at once.
pub(crate) fn slab_depth(channels: usize, shape: Shape) -> usize {
    (SLAB_VALUES / (channels * shape[1] * shape[2]).max(1)).max(1)
}

/// Scale of the channels of a volume; fits any part of it, so that a volume larger than the memory can be normalised
/// slab by slab.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// Statistics of each channel.
    pub statistics: Vec<Statistics>,
    normalise: Normalise3d,
    seed: u64,
    case: String,
}

impl Scaling {
    fn of(volume: &Volume, normalise: Normalise3d, seed: u64, case: &str) -> Self {
        let statistics = volume
            .values
            .par_chunks_exact(voxels(volume.shape))
            .map(|channel| {
                let mut gather = Gather::new(normalise);
                gather.first(channel);
                gather.between();
                gather.second(channel);
                gather.finish()
            })
            .collect();
        Self { statistics, normalise, seed, case: case.to_owned() }
    }

    /// Of a volume that need not fit the memory; reads it twice, a few slices at a time. Neither cuts nor resamples.
    ///
    /// # Errors
    /// The file is truncated or corrupt, or can't be read.
    pub fn stream(
        reader: &mut dyn VolumeReader,
        normalise: Normalise3d,
        seed: u64,
        case: &str,
    ) -> Result<Self> {
        let info = reader.info().clone();
        let plane = info.shape[1] * info.shape[2];
        let mut gathers: Vec<Gather> = (0..info.channels).map(|_| Gather::new(normalise)).collect();
        let depth = slab_depth(info.channels, info.shape);
        for pass in 0..2 {
            let mut start = 0;
            while start < info.shape[0] && plane > 0 {
                let end = (start + depth).min(info.shape[0]);
                let slab = reader.slices(start..end)?;
                for (channel, gather) in slab.chunks_exact((end - start) * plane).zip(&mut gathers) {
                    if pass == 0 { gather.first(channel) } else { gather.second(channel) }
                }
                start = end;
            }
            if pass == 0 {
                gathers.iter_mut().for_each(Gather::between);
            }
        }
        let statistics = gathers.into_iter().map(Gather::finish).collect();
        Ok(Self { statistics, normalise, seed, case: case.to_owned() })
    }

    /// Normalises `[c, d, h, w]`, a slab of whole slices of `plane` = h w voxels that begins with slice `first`.
    pub fn apply_planes(&self, values: &mut [f32], first: usize, plane: usize) {
        let size = (values.len() / self.statistics.len().max(1)).max(1);
        for (c, (channel, statistics)) in values.chunks_exact_mut(size).zip(&self.statistics).enumerate() {
            let (offset, factor) = self.scale(statistics);
            channel.par_chunks_mut(plane.max(1)).enumerate().for_each(|(d, slice)| {
                let mut noise = (self.normalise == Normalise3d::MedicalNet)
                    .then(|| Normal::new(self.seed, &format!("{}/{c}/{}", self.case, first + d)));
                for value in slice {
                    if let Some(noise) = &mut noise
                        && *value == 0.0
                    {
                        *value = noise.draw() as f32;
                        continue;
                    }
                    let finite = if value.is_finite() { f64::from(*value) } else { statistics.mean };
                    let scaled = (finite - offset) * factor;
                    *value = match self.normalise {
                        Normalise3d::Percentile { .. } => scaled.clamp(0.0, 1.0) as f32,
                        // Not through f64: as in the file.
                        Normalise3d::None if value.is_finite() => *value,
                        _ => scaled as f32,
                    };
                }
            });
        }
    }

    fn scale(&self, of: &Statistics) -> (f64, f64) {
        let inverse = |width: f64| if width > 0.0 { 1.0 / width } else { 0.0 };
        match self.normalise {
            Normalise3d::None => (0.0, 1.0),
            Normalise3d::ZScore | Normalise3d::MedicalNet => {
                // Of equal values the mean may differ from them by rounding.
                (of.mean, if of.min < of.max { inverse(of.std) } else { 0.0 })
            }
            Normalise3d::Percentile { .. } => {
                let extremes = (f64::from(of.min), f64::from(of.max));
                // Most of the volume may be of one value; the extremes then still tell voxels apart.
                let (from, to) = of.percentiles.filter(|(lo, hi)| lo < hi).unwrap_or(extremes);
                (from, inverse(to - from))
            }
        }
    }
}

/// A number for the name of a case, for counter-based randomness that does not depend on the order of the cases.
pub(crate) fn case_number(name: &str) -> u64 {
    let hash = blake3::hash(name.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

/// Standard normal numbers (Box and Muller).
struct Normal<R> {
    rng: R,
    spare: Option<f64>,
}

impl Normal<rand_chacha::ChaCha8Rng> {
    fn new(seed: u64, name: &str) -> Self {
        Self { rng: rng(seed, Stream::Prepare, case_number(name)), spare: None }
    }
}

impl<R: Rng> Normal<R> {
    fn draw(&mut self) -> f64 {
        if let Some(value) = self.spare.take() {
            return value;
        }
        let mut unit = || (self.rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
        // 1 - u is never 0, whose logarithm is infinite.
        let radius = (-2.0 * (1.0 - unit()).ln()).sqrt();
        let (sin, cos) = (unit() * std::f64::consts::TAU).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }
}
