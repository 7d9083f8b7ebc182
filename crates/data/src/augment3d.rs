//! Augmentation of three-dimensional patches: rotation, scaling, elastic deformation and mirroring of picture and
//! labels together, changes of intensity on the picture alone.
//!
//! The transformations and their order are those of nnU-Net v2's default trainer (Isensee et al. 2021,
//! <https://doi.org/10.1038/s41592-020-01008-z>; its augmentation library, batchgenerators,
//! <https://github.com/MIC-DKFZ/batchgeneratorsv2>). What is done to a patch is drawn first ([`Augment3d::draw`]),
//! then made ([`Draw3d::apply`], a pure function), so a loader may cut no more of the volume than its draw needs.
//!
//! Deterministic in the generator; take it from [`crate::rng::rng`] with [`crate::rng::Stream::Augment`] and the
//! position of the sample, and a resumed run sees the same patches.
//!
//! Axes: c = channel, 0 = d = depth, 1 = h = height, 2 = w = width.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::tiles::reflect;
use crate::volume::{IGNORE, Shape, VolumePatch, voxels};

/// How often a transformation is made, and from where its strength is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chance {
    /// In 0..=1; 0 never makes it.
    pub probability: f64,
    /// Lowest and highest strength.
    pub range: [f64; 2],
}

impl Chance {
    /// `probability` in 0..=1, strengths from `low` to `high`.
    pub const fn new(probability: f64, low: f64, high: f64) -> Self {
        Self { probability, range: [low, high] }
    }

    const NEVER: Self = Self::new(0.0, 0.0, 0.0);

    fn possible(self) -> bool {
        self.probability > 0.0
    }
}

/// What may be done to a patch; every field is a probability and a range.
///
/// Changes of intensity are drawn for each channel separately, in the units of the patch: with z-scored images,
/// standard deviations. Strengths that are not numbers leave their transformation out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augment3d {
    /// Angles in degrees, one for each axis that is turned about.
    pub rotation: Chance,
    /// Factor on the source's coordinates, the same for all axes: 1.4 shows 1.4 times as much, objects become
    /// smaller. Clamped to 0.1..=10.
    pub scaling: Chance,
    /// Largest displacement along each axis, in voxels, of a smooth random deformation (alpha); >= 0, at most 1000.
    pub elastic: Chance,
    /// Standard deviation of the Gaussian that smooths the displacements, in voxels (sigma): how coarse the
    /// deformation is; >= 1.
    pub elastic_sigma: [f64; 2],
    /// Probability of mirroring along each axis.
    pub mirror: [f64; 3],
    /// Standard deviation of independent Gaussian noise, the same for all channels; >= 0.
    pub noise: Chance,
    /// Standard deviation of a Gaussian blur in voxels, one for each channel and axis; at most 100.
    pub blur: Chance,
    /// Probability that a channel takes part in a blur.
    pub blur_channel: f64,
    /// Factor on all values. A range about 1 is drawn from its lower and its upper part equally often; this holds
    /// for contrast and gamma too.
    pub brightness: Chance,
    /// Factor on the deviations from the channel's mean; the result is clipped to the former extremes.
    pub contrast: Chance,
    /// Share of the resolution that is kept: the channel is sampled down (nearest voxel) and up again (linear); in
    /// 0..=1.
    pub low_resolution: Chance,
    /// Probability that a channel takes part in a loss of resolution.
    pub low_resolution_channel: f64,
    /// Exponent of the inverted channel, scaled to 0..=1 between its extremes; mean and standard deviation are kept. > 0.
    pub inverted_gamma: Chance,
    /// The same without inversion.
    pub gamma: Chance,
    /// The axis across thick slices, if any: rotation is about it alone, and along it nothing is scaled, deformed or
    /// sampled down.
    pub thin: Option<usize>,
    /// The label of what lies outside the source.
    pub pad_label: u8,
}

impl Augment3d {
    /// Leaves a patch as it is, cropping apart.
    pub const fn none() -> Self {
        Self {
            rotation: Chance::NEVER,
            scaling: Chance::NEVER,
            elastic: Chance::NEVER,
            elastic_sigma: [8.0, 12.0],
            mirror: [0.0; 3],
            noise: Chance::NEVER,
            blur: Chance::NEVER,
            blur_channel: 1.0,
            brightness: Chance::NEVER,
            contrast: Chance::NEVER,
            low_resolution: Chance::NEVER,
            low_resolution_channel: 1.0,
            inverted_gamma: Chance::NEVER,
            gamma: Chance::NEVER,
            thin: None,
            pad_label: IGNORE,
        }
    }

    /// Mirrors along each axis with probability 1/2, nothing else.
    pub const fn light() -> Self {
        Self { mirror: [0.5; 3], ..Self::none() }
    }

    /// The default of nnU-Net v2 for patches of this shape.
    ///
    /// A patch more than three times as long as thick (`ANISO_THRESHOLD`) is turned about its shortest axis alone,
    /// by up to 180 degrees, as there; others about all three by up to 30. Differences: labels are sampled at the
    /// nearest voxel (there: the class with the largest interpolated share), noise differs between channels (there:
    /// the same), and what lies outside the source is labelled [`IGNORE`] (there: background).
    pub fn nnunet(patch: Shape) -> Self {
        let shortest = (0..3).min_by_key(|&axis| patch[axis]).unwrap_or(0);
        let longest = patch.iter().max().copied().unwrap_or(0);
        let thin = (longest > 3 * patch[shortest]).then_some(shortest);
        let angle = if thin.is_some() { 180.0 } else { 30.0 };
        Self {
            rotation: Chance::new(0.2, -angle, angle),
            scaling: Chance::new(0.2, 0.7, 1.4),
            mirror: [0.5; 3],
            // Called a variance there, but used as a standard deviation.
            noise: Chance::new(0.1, 0.0, 0.1),
            blur: Chance::new(0.2, 0.5, 1.0),
            blur_channel: 0.5,
            brightness: Chance::new(0.15, 0.75, 1.25),
            contrast: Chance::new(0.15, 0.75, 1.25),
            low_resolution: Chance::new(0.25, 0.5, 1.0),
            low_resolution_channel: 0.5,
            inverted_gamma: Chance::new(0.1, 0.7, 1.5),
            gamma: Chance::new(0.3, 0.7, 1.5),
            thin,
            ..Self::none()
        }
    }

    /// The size a patch must be cut in so that no draw reaches beyond it; `target` where only crops and flips are
    /// possible. This is the worst case, commonly several times the target: [`Draw3d::source_shape`] is what one
    /// draw needs. Differences from `target` are even, so both have the same centre.
    pub fn source_shape(&self, target: Shape) -> Shape {
        let reach = self.reach(target);
        let scale =
            if self.scaling.possible() { self.scales(highest(self.scaling).max(1.0)) } else { [1.0; 3] };
        let corner = [0, 1, 2].map(|axis| scale[axis] * (half(target[axis]) + reach[axis]));
        let length = corner.iter().map(|c| c * c).sum::<f64>().sqrt();

        let mut most = corner;
        let turned = if self.rotation.possible() { self.turned(target) } else { [false; 3] };
        if turned != [false; 3] {
            let [low, high] = self.rotation.range.map(|a| if a.is_finite() { a } else { 0.0 });
            let step = (high - low) / (ANGLES - 1) as f64;
            let angles = |axis: usize| {
                let count = if turned[axis] { ANGLES } else { 1 };
                (0..count).map(move |i| if turned[axis] { low + step * i as f64 } else { 0.0 })
            };
            for a in angles(0) {
                for b in angles(1) {
                    for c in angles(2) {
                        let rotation = rotation([a, b, c]);
                        for (most, row) in most.iter_mut().zip(&rotation) {
                            *most = most.max(extent(row, &corner));
                        }
                    }
                }
            }
            // At the largest value between two angles the slope is 0 and the curvature at most the corner's
            // distance, so a grid of angles misses no more than this.
            let slack = turned.iter().filter(|&&t| t).count() as f64 * (0.5 * step).to_radians();
            for (axis, most) in most.iter_mut().enumerate() {
                if (0..3).any(|about| turned[about] && about != axis) {
                    *most = (*most + 0.5 * slack * slack * length).min(length);
                }
            }
        }
        enlarged(target, most)
    }

    /// Draws what is done to a patch. Everything is drawn whether or not it is possible, so making one transformation
    /// more likely does not change the strengths of the others.
    ///
    /// - `channels`, `target`: of the patch that comes out
    pub fn draw(&self, channels: usize, target: Shape, rng: &mut impl Rng) -> Draw3d {
        let mut made = |chance: Chance| unit(rng) < chance.probability;
        let (turned, scaled, deformed) = (made(self.rotation), made(self.scaling), made(self.elastic));
        let (noisy, blurred, brighter) = (made(self.noise), made(self.blur), made(self.brightness));
        let (contrasted, coarse) = (made(self.contrast), made(self.low_resolution));
        let (inverted, raised) = (made(self.inverted_gamma), made(self.gamma));

        let may_turn = self.turned(target);
        let angles = [0, 1, 2].map(|axis| {
            let angle = between(self.rotation.range, rng).unwrap_or(0.0);
            if may_turn[axis] { angle } else { 0.0 }
        });
        let scale = between(self.scaling.range, rng).unwrap_or(1.0);
        let alpha = between(self.elastic.range, rng).unwrap_or(0.0).clamp(0.0, MOST_DISPLACEMENT);
        let sigma = between(self.elastic_sigma, rng).unwrap_or(1.0).max(1.0);
        let elastic = Elastic { alpha: self.free(target).map(|free| if free { alpha } else { 0.0 }), sigma };
        let mirror = self.mirror.map(|probability| unit(rng) < probability);
        let std = between(self.noise.range, rng).unwrap_or(0.0).max(0.0);

        let mut channel = || {
            let takes_part = [self.blur_channel, self.low_resolution_channel].map(|p| unit(rng) < p);
            let blur = [0; 3].map(|_| between(self.blur.range, rng).unwrap_or(0.0).clamp(0.0, 100.0));
            let zoom = between(self.low_resolution.range, rng).unwrap_or(1.0).clamp(0.0, 1.0);
            let zoom = [0, 1, 2].map(|axis| if self.thin == Some(axis) { 1.0 } else { zoom });
            Intensity {
                blur: (blurred && takes_part[0]).then_some(blur),
                brightness: around_one(self.brightness.range, rng).filter(|_| brighter),
                contrast: around_one(self.contrast.range, rng).filter(|_| contrasted),
                low_resolution: (coarse && takes_part[1]).then_some(zoom),
                inverted_gamma: around_one(self.inverted_gamma.range, rng).filter(|&g| inverted && g > 0.0),
                gamma: around_one(self.gamma.range, rng).filter(|&g| raised && g > 0.0),
            }
        };
        let intensities = (0..channels).map(|_| channel()).collect();
        Draw3d {
            rotation: turned.then_some(angles),
            scale: scaled.then_some(self.scales(scale)),
            elastic: deformed.then_some(elastic),
            mirror,
            noise: noisy.then_some(std),
            intensities,
            pad_label: self.pad_label,
            seed: [rng.next_u64(), rng.next_u64()],
        }
    }

    /// Draws what is done and does it: the spatial transformation and the crop to the centre in one resampling, then
    /// flips, then intensities. See [`Draw3d::apply`].
    pub fn apply(&self, patch: VolumePatch, target: Shape, rng: &mut impl Rng) -> VolumePatch {
        self.draw(patch.channels, target, rng).apply(patch, target)
    }

    /// The axes that are turned about: not those that would tilt thick slices, or a picture of one voxel's thickness.
    fn turned(&self, target: Shape) -> [bool; 3] {
        [0, 1, 2].map(|about| {
            let others_free = (0..3).all(|axis| axis == about || target[axis] > 1);
            others_free && self.thin.is_none_or(|thin| thin == about)
        })
    }

    /// The axes along which a deformation moves.
    fn free(&self, target: Shape) -> [bool; 3] {
        [0, 1, 2].map(|axis| target[axis] > 1 && self.thin != Some(axis))
    }

    fn scales(&self, scale: f64) -> [f64; 3] {
        let scale = scale.clamp(0.1, 10.0);
        [0, 1, 2].map(|axis| if self.thin == Some(axis) { 1.0 } else { scale })
    }

    /// Largest displacement of a deformation along each axis.
    fn reach(&self, target: Shape) -> [f64; 3] {
        let most =
            if self.elastic.possible() { highest(self.elastic).clamp(0.0, MOST_DISPLACEMENT) } else { 0.0 };
        self.free(target).map(|free| if free { most } else { 0.0 })
    }
}

/// Angles tried for each axis when looking for the largest extent of a rotated box.
const ANGLES: usize = 33;
const MOST_DISPLACEMENT: f64 = 1000.0;
const MOST_BLUR: f64 = 1000.0;

/// A deformation: displacements that are white noise, smoothed, then scaled so that the largest along an axis is
/// `alpha`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Elastic {
    /// Largest displacement along each axis, in voxels.
    pub alpha: [f64; 3],
    /// Standard deviation of the smoothing Gaussian, in voxels.
    pub sigma: f64,
}

/// What is done to the intensities of a channel; `None` is left out. Fields as in [`Augment3d`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Intensity {
    /// Standard deviations along d, h, w.
    pub blur: Option<[f64; 3]>,
    /// Factor.
    pub brightness: Option<f64>,
    /// Factor.
    pub contrast: Option<f64>,
    /// Share of the resolution kept along d, h, w.
    pub low_resolution: Option<[f64; 3]>,
    /// Exponent.
    pub inverted_gamma: Option<f64>,
    /// Exponent.
    pub gamma: Option<f64>,
}

/// What is done to one patch. The default does nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Draw3d {
    /// Angles about d, h and w, in degrees; about w first.
    pub rotation: Option<[f64; 3]>,
    /// Factors on the source's coordinates along d, h, w.
    pub scale: Option<[f64; 3]>,
    /// Made before scaling and rotation, in the frame of the patch that comes out.
    pub elastic: Option<Elastic>,
    /// Axes that are mirrored.
    pub mirror: [bool; 3],
    /// Standard deviation.
    pub noise: Option<f64>,
    /// By channel; channels beyond the last are left as they are.
    pub intensities: Vec<Intensity>,
    /// The label of what lies outside the source.
    pub pad_label: u8,
    /// Of the noise and the displacements.
    pub seed: [u64; 2],
}

impl Default for Draw3d {
    fn default() -> Self {
        Self {
            rotation: None,
            scale: None,
            elastic: None,
            mirror: [false; 3],
            noise: None,
            intensities: Vec::new(),
            pad_label: IGNORE,
            seed: [0; 2],
        }
    }
}

impl Draw3d {
    /// The size a patch must be cut in so that this draw does not reach beyond it, at least `target`. Differences
    /// from `target` are even, so both have the same centre.
    pub fn source_shape(&self, target: Shape) -> Shape {
        let alpha = self.elastic.map_or([0.0; 3], |e| e.alpha);
        let corner = [0, 1, 2].map(|axis| half(target[axis]) + alpha[axis]);
        enlarged(target, self.matrix().map(|row| extent(&row, &corner)))
    }

    /// Makes a patch of shape `target` about the centre of `patch`, in the order rotation, scaling and deformation
    /// (one trilinear resampling; labels from the nearest voxel), flips, noise, blur, brightness, contrast,
    /// resolution, inverted gamma, gamma.
    ///
    /// Outside `patch` the image is 0 and the label [`Draw3d::pad_label`]. Where the difference between a side of
    /// `patch` and of `target` is odd, the crop begins at the lower half. Finite images stay finite as long as their
    /// values do not come near the range of `f32`; a voxel that is not finite spreads to what is computed from it.
    pub fn apply(&self, patch: VolumePatch, target: Shape) -> VolumePatch {
        let spatial = self.rotation.is_some() || self.scale.is_some() || self.elastic.is_some();
        let mut patch = if spatial {
            self.resample(&patch, target)
        } else if patch.shape == target {
            patch
        } else {
            crop(&patch, target, self.pad_label)
        };
        let voxels = voxels(target);
        if voxels == 0 {
            return patch;
        }
        for axis in (0..3).filter(|&axis| self.mirror[axis]) {
            for channel in patch.image.chunks_exact_mut(voxels) {
                mirror(channel, target, axis);
            }
            mirror(&mut patch.labels, target, axis);
        }
        if let Some(std) = self.noise {
            add_noise(&mut patch.image, std, &mut self.generator(0));
        }
        for (channel, intensity) in patch.image.chunks_exact_mut(voxels).zip(&self.intensities) {
            intensity.apply(channel, target);
        }
        patch
    }

    /// From offsets in the target to offsets in the source.
    fn matrix(&self) -> Matrix {
        let mut matrix = rotation(self.rotation.unwrap_or_default());
        let scale = self.scale.unwrap_or([1.0; 3]);
        for row in &mut matrix {
            for (value, factor) in row.iter_mut().zip(scale) {
                *value *= factor;
            }
        }
        matrix
    }

    fn generator(&self, stream: u64) -> ChaCha8Rng {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&self.seed[0].to_le_bytes());
        key[8..16].copy_from_slice(&self.seed[1].to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(stream);
        generator
    }

    fn resample(&self, patch: &VolumePatch, target: Shape) -> VolumePatch {
        let matrix = self.matrix();
        let [depth, height, width] = target;
        let centre = [0, 1, 2].map(|axis| start(patch.shape[axis], target[axis]) as f64 + half(target[axis]));
        let field = self.elastic.map(|elastic| Field::draw(&elastic, target, &mut self.generator(1)));

        let (source, out) = (voxels(patch.shape), voxels(target));
        let labelled = !patch.labels.is_empty();
        let mut image = vec![0.0f32; patch.channels * out];
        let mut labels = vec![self.pad_label; if labelled { out } else { 0 }];
        let mut row: [Vec<f32>; 3] = [0; 3].map(|_| vec![0.0; width]);
        let mut shifts = field.as_ref().map(Field::row);
        for d in 0..depth {
            for h in 0..height {
                let offset = [d as f64 - half(depth), h as f64 - half(height), -half(width)];
                for (axis, coordinates) in row.iter_mut().enumerate() {
                    let m = &matrix[axis];
                    let first = centre[axis] + m[0] * offset[0] + m[1] * offset[1] + m[2] * offset[2];
                    for (w, coordinate) in coordinates.iter_mut().enumerate() {
                        *coordinate = (first + m[2] * w as f64) as f32;
                    }
                }
                if let (Some(field), Some(shifts)) = (&field, &mut shifts) {
                    field.fill(d, h, shifts);
                    for (axis, coordinates) in row.iter_mut().enumerate() {
                        let m = matrix[axis].map(|v| v as f32);
                        for (w, coordinate) in coordinates.iter_mut().enumerate() {
                            *coordinate += m[0] * shifts[0][w] + m[1] * shifts[1][w] + m[2] * shifts[2][w];
                        }
                    }
                }
                let begin = (d * height + h) * width;
                for channel in 0..patch.channels {
                    let values = &patch.image[channel * source..(channel + 1) * source];
                    let line = &mut image[channel * out + begin..][..width];
                    for (w, value) in line.iter_mut().enumerate() {
                        *value = trilinear(values, patch.shape, [row[0][w], row[1][w], row[2][w]]);
                    }
                }
                if labelled {
                    for (w, label) in labels[begin..begin + width].iter_mut().enumerate() {
                        let at = [row[0][w], row[1][w], row[2][w]];
                        if let Some(index) = nearest(patch.shape, at) {
                            *label = patch.labels[index];
                        }
                    }
                }
            }
        }
        VolumePatch { channels: patch.channels, shape: target, image, labels }
    }
}

impl Intensity {
    fn apply(&self, channel: &mut [f32], shape: Shape) {
        if let Some(sigmas) = self.blur {
            gaussian_blur(channel, shape, sigmas);
        }
        if let Some(factor) = self.brightness {
            channel.iter_mut().for_each(|v| *v *= factor as f32);
        }
        if let Some(factor) = self.contrast {
            scale_deviations(channel, factor);
        }
        if let Some(zoom) = self.low_resolution {
            reduce_resolution(channel, shape, zoom);
        }
        if let Some(power) = self.inverted_gamma {
            raise(channel, power, true);
        }
        if let Some(power) = self.gamma {
            raise(channel, power, false);
        }
    }
}

type Matrix = [[f64; 3]; 3];

/// Rotation by angles in degrees about d, h and w; about w first.
fn rotation(degrees: [f64; 3]) -> Matrix {
    let [(sa, ca), (sb, cb), (sc, cc)] = degrees.map(|a| a.to_radians().sin_cos());
    [
        [cb * cc, -cb * sc, sb],
        [sa * sb * cc + ca * sc, ca * cc - sa * sb * sc, -sa * cb],
        [sa * sc - ca * sb * cc, ca * sb * sc + sa * cc, ca * cb],
    ]
}

/// Distance from the middle of the first voxel of `n` to the centre.
fn half(n: usize) -> f64 {
    (n as f64 - 1.0) / 2.0
}

/// Half the extent, along the axis of `row`, of a transformed box.
fn extent(row: &[f64; 3], corner: &[f64; 3]) -> f64 {
    row.iter().zip(corner).map(|(m, c)| m.abs() * c.max(0.0)).sum()
}

fn enlarged(target: Shape, extents: [f64; 3]) -> Shape {
    [0, 1, 2].map(|axis| {
        // Sines and cosines of right angles are off by 1e-16; they shall not cost a voxel.
        let more = (extents[axis] - half(target[axis]) - 1e-6).ceil().max(0.0);
        target[axis] + 2 * more as usize
    })
}

/// Where the crop begins in the source; negative where the source is smaller.
fn start(source: usize, target: usize) -> i64 {
    (source as i64 - target as i64).div_euclid(2)
}

fn highest(chance: Chance) -> f64 {
    chance.range.into_iter().filter(|v| v.is_finite()).fold(0.0, f64::max)
}

/// The part of `patch` about its centre, padded where it is smaller.
fn crop(patch: &VolumePatch, target: Shape, pad_label: u8) -> VolumePatch {
    fn cut<T: Copy>(values: &[T], source: Shape, target: Shape, pad: T) -> Vec<T> {
        let mut out = vec![pad; voxels(target)];
        // Along each axis: first index in the target and in the source, and their common length.
        let [d, h, w] = [0, 1, 2].map(|axis| {
            let start = start(source[axis], target[axis]);
            let (to, from) = ((-start).max(0) as usize, start.max(0) as usize);
            (to, from, source[axis].min(target[axis]))
        });
        for i in 0..d.2 {
            for j in 0..h.2 {
                let to = ((d.0 + i) * target[1] + h.0 + j) * target[2] + w.0;
                let from = ((d.1 + i) * source[1] + h.1 + j) * source[2] + w.1;
                out[to..to + w.2].copy_from_slice(&values[from..from + w.2]);
            }
        }
        out
    }
    let source = voxels(patch.shape);
    let channel = |c: usize| cut(&patch.image[c * source..(c + 1) * source], patch.shape, target, 0.0);
    let image = (0..patch.channels).flat_map(channel).collect();
    let labels =
        if patch.labels.is_empty() { Vec::new() } else { cut(&patch.labels, patch.shape, target, pad_label) };
    VolumePatch { channels: patch.channels, shape: target, image, labels }
}

/// `f32::floor` is a call on the plainest x86-64; this is not. Saturates.
fn floor(value: f32) -> i32 {
    let whole = value as i32;
    whole - i32::from((whole as f32) > value)
}

/// The value between the eight voxels about `at`; those outside count as 0.
fn trilinear(values: &[f32], [depth, height, width]: Shape, at: [f32; 3]) -> f32 {
    let [d, h, w] = at.map(floor);
    let (fd, fh, fw) = (at[0] - d as f32, at[1] - h as f32, at[2] - w as f32);
    let inside = |i: i32, n: usize| i >= 0 && (i as usize) + 1 < n;
    if inside(d, depth) && inside(h, height) && inside(w, width) {
        let near = (d as usize * height + h as usize) * width + w as usize;
        let line = |start: usize| values[start] + fw * (values[start + 1] - values[start]);
        let plane = |start: usize| {
            let (low, high) = (line(start), line(start + width));
            low + fh * (high - low)
        };
        let (low, high) = (plane(near), plane(near + height * width));
        return low + fd * (high - low);
    }
    let mut sum = 0.0;
    for corner in 0..8 {
        let (cd, ch, cw) = (corner >> 2, corner >> 1 & 1, corner & 1);
        let weight = |bit: i32, fraction: f32| if bit == 1 { fraction } else { 1.0 - fraction };
        let weight = weight(cd, fd) * weight(ch, fh) * weight(cw, fw);
        let at = [d.saturating_add(cd), h.saturating_add(ch), w.saturating_add(cw)];
        if weight != 0.0
            && let Some(index) = index([depth, height, width], at)
        {
            sum += weight * values[index];
        }
    }
    sum
}

fn index([depth, height, width]: Shape, [d, h, w]: [i32; 3]) -> Option<usize> {
    let within = |i: i32, n: usize| i >= 0 && (i as usize) < n;
    (within(d, depth) && within(h, height) && within(w, width))
        .then(|| (d as usize * height + h as usize) * width + w as usize)
}

fn nearest(shape: Shape, at: [f32; 3]) -> Option<usize> {
    index(shape, at.map(|v| floor(v + 0.5)))
}

/// Displacements on a coarse grid, interpolated linearly: they are smooth, so nothing is lost.
struct Field {
    /// Voxels between grid points.
    step: usize,
    /// Grid points along each axis.
    size: Shape,
    /// By axis of the displacement, `[d, h, w]`, in voxels.
    shifts: [Vec<f32>; 3],
    width: usize,
}

impl Field {
    fn draw(elastic: &Elastic, target: Shape, generator: &mut ChaCha8Rng) -> Self {
        let sigma = if elastic.sigma.is_finite() { elastic.sigma.max(1.0) } else { 1.0 };
        let longest = target.into_iter().max().unwrap_or(1).max(1);
        let step = ((sigma / 2.0) as usize).clamp(1, longest);
        // One point beyond the last voxel, so that every voxel has a neighbour on both sides.
        let size = target.map(|n| n.div_ceil(step) + 1);
        let shifts = elastic.alpha.map(|alpha| {
            let mut shifts = vec![0.0f32; voxels(size)];
            if alpha > 0.0 {
                add_noise(&mut shifts, 1.0, generator);
                // A sigma beyond the volume's size gives a constant shift either way.
                let sigma = (sigma / step as f64).min(2.0 * longest as f64);
                gaussian_blur(&mut shifts, size, [sigma; 3]);
                let most = shifts.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                let factor = if most > 0.0 { alpha as f32 / most } else { 0.0 };
                shifts.iter_mut().for_each(|v| *v *= factor);
            }
            shifts
        });
        Self { step, size, shifts, width: target[2] }
    }

    fn row(&self) -> [Vec<f32>; 3] {
        [0; 3].map(|_| vec![0.0; self.width])
    }

    /// The displacements of the voxels `(d, h, ..)`.
    fn fill(&self, d: usize, h: usize, row: &mut [Vec<f32>; 3]) {
        let [_, height, width] = self.size;
        let split = |i: usize| (i / self.step, (i % self.step) as f32 / self.step as f32);
        let ((d, fd), (h, fh)) = (split(d), split(h));
        for (shifts, out) in self.shifts.iter().zip(row) {
            let at = |d: usize, h: usize, w: usize| shifts[(d * height + h) * width + w];
            let along = |w: usize| {
                let low = at(d, h, w) + fh * (at(d, h + 1, w) - at(d, h, w));
                let high = at(d + 1, h, w) + fh * (at(d + 1, h + 1, w) - at(d + 1, h, w));
                low + fd * (high - low)
            };
            let mut high = along(0);
            for (w, voxels) in out.chunks_mut(self.step).enumerate() {
                let low = high;
                high = along(w + 1);
                for (i, value) in voxels.iter_mut().enumerate() {
                    *value = low + i as f32 / self.step as f32 * (high - low);
                }
            }
        }
    }
}

/// Mirrors an array of shape `[d, h, w]` along one axis; an empty one stays empty.
fn mirror<T>(values: &mut [T], shape: Shape, axis: usize) {
    let inner: usize = shape[axis + 1..].iter().product();
    let slab = shape[axis] * inner;
    if slab == 0 {
        return;
    }
    for slab in values.chunks_exact_mut(slab) {
        if inner == 1 {
            slab.reverse();
            continue;
        }
        let (mut low, mut high) = (0, shape[axis] - 1);
        while low < high {
            let (head, tail) = slab.split_at_mut(high * inner);
            head[low * inner..(low + 1) * inner].swap_with_slice(&mut tail[..inner]);
            (low, high) = (low + 1, high - 1);
        }
    }
}

/// Adds independent Gaussian noise of standard deviation `std`; nothing when that is not positive.
pub(crate) fn add_noise(values: &mut [f32], std: f64, generator: &mut impl Rng) {
    if std > 0.0 && std.is_finite() {
        let std = std as f32;
        for two in values.chunks_mut(2) {
            // Box and Muller 1958, from 32 bits a draw: within six standard deviations, which is enough for noise.
            let bits = generator.next_u64();
            // (0, 1], so the logarithm is finite.
            let first = ((bits >> 32) as f32 + 1.0) * (1.0 / 4_294_967_296.0);
            let angle = (bits as u32) as f32 * (std::f32::consts::TAU / 4_294_967_296.0);
            let radius = std * (-2.0 * first.min(1.0).ln()).sqrt();
            let (sin, cos) = angle.sin_cos();
            for (value, draw) in two.iter_mut().zip([radius * cos, radius * sin]) {
                *value += draw;
            }
        }
    }
}

/// Blurs an array of shape `[d, h, w]` with a Gaussian of standard deviations `sigmas`, in voxels. Beyond its ends the
/// array goes on mirrored about the last voxel's middle; the kernel ends at four standard deviations.
pub(crate) fn gaussian_blur(values: &mut [f32], shape: Shape, sigmas: [f64; 3]) {
    let mut copy = Vec::new();
    for axis in 0..3 {
        let (n, sigma) = (shape[axis], sigmas[axis].min(MOST_BLUR));
        let radius = (4.0 * sigma + 0.5) as usize;
        if n < 2 || radius == 0 || values.is_empty() {
            continue;
        }
        let kernel = kernel(sigma, radius);
        let inner: usize = shape[axis + 1..].iter().product();
        // Position `i - radius` for every `i` in 0..n + 2 radius.
        let sources: Vec<usize> = (0..n + 2 * radius).map(|i| reflect(i.abs_diff(radius), n)).collect();
        for slab in values.chunks_exact_mut(n * inner) {
            copy.clear();
            if inner == 1 {
                copy.extend(sources.iter().map(|&s| slab[s]));
                convolve(&kernel, slab, &copy, radius);
            } else {
                copy.extend_from_slice(slab);
                for (i, out) in slab.chunks_exact_mut(inner).enumerate() {
                    let line = |offset: usize| &copy[sources[i + offset] * inner..][..inner];
                    out.iter_mut().zip(line(radius)).for_each(|(o, v)| *o = kernel[0] * v);
                    for (k, &weight) in kernel.iter().enumerate().skip(1) {
                        let pairs = line(radius - k).iter().zip(line(radius + k));
                        out.iter_mut().zip(pairs).for_each(|(o, (a, b))| *o += weight * (a + b));
                    }
                }
            }
        }
    }
}

/// `padded` is `radius` longer than `out` at both ends.
fn convolve(kernel: &[f32], out: &mut [f32], padded: &[f32], radius: usize) {
    out.iter_mut().zip(&padded[radius..]).for_each(|(o, v)| *o = kernel[0] * v);
    for (k, &weight) in kernel.iter().enumerate().skip(1) {
        let pairs = padded[radius - k..].iter().zip(&padded[radius + k..]);
        out.iter_mut().zip(pairs).for_each(|(o, (a, b))| *o += weight * (a + b));
    }
}

/// The middle and one side of a normalised Gaussian.
fn kernel(sigma: f64, radius: usize) -> Vec<f32> {
    let weights: Vec<f64> = (0..=radius).map(|k| (-0.5 * (k as f64 / sigma).powi(2)).exp()).collect();
    let total = weights[0] + 2.0 * weights[1..].iter().sum::<f64>();
    weights.into_iter().map(|w| (w / total) as f32).collect()
}

/// Mean and extremes of the finite values; `None` when there are none.
fn moments(values: &[f32]) -> Option<(f64, f64, [f32; 2])> {
    let (mut count, mut sum, mut low, mut high) = (0u64, 0.0, f32::INFINITY, f32::NEG_INFINITY);
    for &value in values.iter().filter(|v| v.is_finite()) {
        count += 1;
        sum += f64::from(value);
        (low, high) = (low.min(value), high.max(value));
    }
    if count == 0 {
        return None;
    }
    let mean = sum / count as f64;
    let finite = values.iter().filter(|v| v.is_finite());
    let variance = finite.map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count as f64;
    Some((mean, variance.sqrt(), [low, high]))
}

fn scale_deviations(values: &mut [f32], factor: f64) {
    if let Some((mean, _, [low, high])) = moments(values) {
        for value in values.iter_mut().filter(|v| v.is_finite()) {
            let scaled = mean + factor * (f64::from(*value) - mean);
            *value = (scaled as f32).clamp(low, high);
        }
    }
}

/// Raises the values, scaled to 0..=1 between their extremes, to a power; keeps mean and standard deviation. Inverted,
/// it is the distances from the largest value that are raised.
fn raise(values: &mut [f32], power: f64, inverted: bool) {
    let Some((mean, std, [low, high])) = moments(values) else { return };
    // In f64, where the difference of two f32 is finite. A constant is left alone.
    let range = (f64::from(high) - f64::from(low)) as f32;
    if !(range > 0.0 && range.is_finite() && std > 0.0) {
        return;
    }
    let power = power as f32;
    for value in values.iter_mut().filter(|v| v.is_finite()) {
        *value = if inverted {
            high - range * ((high - *value) / range).min(1.0).powf(power)
        } else {
            low + range * ((*value - low) / range).min(1.0).powf(power)
        };
    }
    if let Some((new_mean, new_std, _)) = moments(values) {
        let factor = if new_std > 1e-7 * f64::from(range) { std / new_std } else { 1.0 };
        for value in values.iter_mut().filter(|v| v.is_finite()) {
            *value = (mean + factor * (f64::from(*value) - new_mean)) as f32;
        }
    }
}

/// Keeps a share `zoom` of the voxels along each axis, nearest ones, and interpolates the others linearly; as
/// PyTorch's `interpolate` with `nearest-exact` down and `trilinear` up.
fn reduce_resolution(values: &mut [f32], shape: Shape, zoom: [f64; 3]) {
    if values.is_empty() {
        return;
    }
    let small = [0, 1, 2].map(|axis| {
        let kept = (shape[axis] as f64 * zoom[axis]).round_ties_even();
        (kept as usize).clamp(1, shape[axis])
    });
    if small == shape {
        return;
    }
    // Voxel of the source for each one kept.
    let kept = [0, 1, 2].map(|axis| -> Vec<usize> {
        let ratio = shape[axis] as f64 / small[axis] as f64;
        (0..small[axis]).map(|i| (((i as f64 + 0.5) * ratio) as usize).min(shape[axis] - 1)).collect()
    });
    // For each voxel the two kept ones about it, by their position, and the weight of the second.
    let between = [0, 1, 2].map(|axis| -> Vec<(usize, usize, f32)> {
        let ratio = small[axis] as f64 / shape[axis] as f64;
        let position = |i: usize| ((i as f64 + 0.5) * ratio - 0.5).clamp(0.0, small[axis] as f64 - 1.0);
        (0..shape[axis])
            .map(|i| {
                let at = position(i);
                let low = at as usize;
                (low, (low + 1).min(small[axis] - 1), (at - low as f64) as f32)
            })
            .collect()
    });
    let [height, width] = [shape[1], shape[2]];
    // Axis by axis, w first, while the others are still small.
    let mut lines = Vec::with_capacity(small[0] * small[1] * width);
    for &d in &kept[0] {
        for &h in &kept[1] {
            let line = &values[(d * height + h) * width..][..width];
            let at = |i: usize| line[kept[2][i]];
            lines.extend(between[2].iter().map(|&(a, b, weight)| at(a) + weight * (at(b) - at(a))));
        }
    }
    let blend = |out: &mut [f32], a: &[f32], b: &[f32], weight: f32| {
        out.iter_mut().zip(a.iter().zip(b)).for_each(|(o, (a, b))| *o = a + weight * (b - a));
    };
    let mut planes = vec![0.0f32; small[0] * height * width];
    for (plane, lines) in planes.chunks_exact_mut(height * width).zip(lines.chunks_exact(small[1] * width)) {
        for (out, &(a, b, weight)) in plane.chunks_exact_mut(width).zip(&between[1]) {
            blend(out, &lines[a * width..][..width], &lines[b * width..][..width], weight);
        }
    }
    let plane = height * width;
    for (out, &(a, b, weight)) in values.chunks_exact_mut(plane).zip(&between[0]) {
        blend(out, &planes[a * plane..][..plane], &planes[b * plane..][..plane], weight);
    }
}

/// Uniform in 0..1, in steps of 2^-53.
fn unit(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Uniform; `None` when an end is not a number.
fn between([low, high]: [f64; 2], rng: &mut impl Rng) -> Option<f64> {
    let draw = low + (high - low) * unit(rng);
    draw.is_finite().then_some(draw)
}

/// Uniform below 1 or above 1, each with probability 1/2; uniform where the range lies on one side of it.
fn around_one([low, high]: [f64; 2], rng: &mut impl Rng) -> Option<f64> {
    let below = unit(rng) < 0.5;
    let part = match (low < 1.0, high > 1.0) {
        (true, true) if below => [low, 1.0],
        (true, true) => [1.0, high],
        _ => [low, high],
    };
    between(part, rng)
}
