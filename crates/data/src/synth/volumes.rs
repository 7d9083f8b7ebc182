//! Synthetic volumes, one generator for each task on volumes: an organ in two touching parts, thin closed surfaces, a
//! rare class of small patches. Each is a pure function of its configuration, a seed and an index.
//!
//! Values of a configuration outside their range are clamped to it and those that are not numbers are replaced by the
//! default, so that every configuration yields a volume. Axes: d = depth, h = height, w = width, w fastest.

use super::micrographs::Random;
use super::specimen::{Rotation, random_rotation};
use crate::augment3d::{add_noise, gaussian_blur};
use crate::rng::{Stream, rng};
use crate::volume::{Geometry, Shape, Volume, voxels};

/// What [`organ`] makes: something like a hippocampus in a cropped magnetic resonance image, a bent body of which one
/// half is class 1 and the other class 2.
#[derive(Debug, Clone, PartialEq)]
pub struct OrganConfig {
    /// Mean size; each side at least 1.
    pub shape: Shape,
    /// Largest relative difference of a side from its mean, 0..=0.5.
    pub size_variation: f64,
    /// Standard deviation of the noise over the contrast of the organ with the tissue about it, 0..=100.
    pub noise: f64,
    /// Largest relative change of brightness across the volume by a bias field, 0..=0.9.
    pub bias: f64,
    /// Number of other bodies, as bright as the organ and not labelled, 0..=100.
    pub distractors: usize,
}

impl Default for OrganConfig {
    fn default() -> Self {
        Self { shape: [36, 48, 36], size_variation: 0.15, noise: 0.35, bias: 0.3, distractors: 3 }
    }
}

/// The volume number `index` of the set that `seed` stands for, and its labels `[d, h, w]`: 0 background, 1 the front
/// (small h), thicker part of the organ, 2 the rest.
///
/// One channel, values around 100 (tissue) to 140 (organ) times the bias, at least 0; spacing 1 mm. The boundary
/// between the parts shows in nothing but the shape, as in the real thing.
pub fn organ(config: &OrganConfig, seed: u64, index: u64) -> (Volume, Vec<i32>) {
    const TISSUE: f64 = 100.0;
    const CONTRAST: f64 = 40.0;
    let default = OrganConfig::default();
    let variation = within(config.size_variation, default.size_variation, 0.0, 0.5);
    let noise = within(config.noise, default.noise, 0.0, 100.0);
    let bias = within(config.bias, default.bias, 0.0, 0.9);

    let mut random = part(seed, index, 1);
    let shape = config.shape.map(|n| {
        let factor = 1.0 + variation * between(&mut random, -1.0, 1.0);
        ((n as f64 * factor).round() as usize).max(1)
    });
    let body = Body::draw(shape, &mut random);
    let others: Vec<Ellipsoid> = (0..config.distractors.min(100))
        .map(|_| {
            let centre = shape.map(|n| between(&mut random, 0.0, n as f64));
            let size = smallest(shape);
            let radii = [0; 3].map(|_| size * between(&mut random, 0.05, 0.16));
            Ellipsoid { centre, radii, rotation: random_rotation(&mut random) }
        })
        .collect();
    // Dark fluid lies along one side of the body.
    let fluid = Ellipsoid {
        centre: body.beside(between(&mut random, 1.35, 1.6), random.angle()),
        radii: [0.09, 0.3, 0.12].map(|r| r * smallest(shape)),
        rotation: body.rotation,
    };

    let mut texture = part(seed, index, 2);
    let rough = smooth_noise(shape, 2.5, &mut texture);
    let tissue = smooth_noise(shape, 4.0, &mut texture);
    let mut labels = vec![0; voxels(shape)];
    let mut values = vec![0.0f32; voxels(shape)];
    for (i, at) in points(shape).enumerate() {
        let wobble = 0.06 * f64::from(rough[i]);
        let (inside, along) = body.at(at);
        // White and grey matter: two levels with a soft border.
        let mut level = TISSUE + 0.55 * CONTRAST * (2.5 * f64::from(tissue[i])).tanh();
        if fluid.at(at) < 1.0 {
            level = TISSUE - 1.5 * CONTRAST;
        }
        if others.iter().any(|o| o.at(at) + wobble < 1.0) {
            level = TISSUE + CONTRAST;
        }
        if inside + wobble < 1.0 {
            level = TISSUE + CONTRAST;
            labels[i] = if along + 0.5 * wobble < body.split { 1 } else { 2 };
        }
        values[i] = level as f32;
    }
    gaussian_blur(&mut values, shape, [0.6; 3]);
    let field = bias_field(shape, bias, &mut random);
    values.iter_mut().zip(field).for_each(|(v, f)| *v *= f);
    add_noise(&mut values, noise * CONTRAST, &mut generator(seed, index, 3));
    // A magnitude image has no negative values.
    values.iter_mut().for_each(|v| *v = v.abs());
    (volume(shape, values), labels)
}

/// What [`membranes`] makes: the walls between cells, thin surfaces without holes in a textured background.
#[derive(Debug, Clone, PartialEq)]
pub struct MembraneConfig {
    /// Size of the volume; each side at least 1.
    pub shape: Shape,
    /// Mean distance between the centres of cells, voxels, 4..=1000.
    pub cell_size: f64,
    /// Thickness of a wall, voxels, 1..=20. From about 1.5 no path over the faces of voxels leads from one cell to another
    /// except through a wall.
    pub thickness: f64,
    /// Largest displacement by which the walls are bent, over `cell_size`, 0..=0.3.
    pub waviness: f64,
    /// Share of the walls, by area, that is all but invisible; their label is 1 all the same; 0..=1.
    pub gaps: f64,
    /// Share of the volume, in one piece, that nobody annotated: label 2; 0..=1. The surfaces of the Vesuvius challenge
    /// leave about .56.
    pub unlabelled: f64,
    /// Standard deviation of the noise over the contrast of a wall, 0..=100.
    pub noise: f64,
}

impl Default for MembraneConfig {
    fn default() -> Self {
        Self {
            shape: [64; 3],
            cell_size: 20.0,
            thickness: 2.0,
            waviness: 0.15,
            gaps: 0.1,
            unlabelled: 0.25,
            noise: 0.35,
        }
    }
}

/// The volume number `index` of the set that `seed` stands for, and its labels `[d, h, w]`: 0 inside cells, 1 wall, 2
/// not annotated.
///
/// One channel, values around 0.35 (background) to 0.75 (wall), clipped to 0..=1; spacing 1 mm. The walls are the faces
/// of a Voronoi partition of bent space about jittered centres.
pub fn membranes(config: &MembraneConfig, seed: u64, index: u64) -> (Volume, Vec<i32>) {
    const BACKGROUND: f64 = 0.35;
    const CONTRAST: f64 = 0.4;
    let default = MembraneConfig::default();
    let shape = config.shape.map(|n| n.max(1));
    let thickness = within(config.thickness, default.thickness, 1.0, 20.0);
    let gaps = within(config.gaps, default.gaps, 0.0, 1.0);
    let unlabelled = within(config.unlabelled, default.unlabelled, 0.0, 1.0);
    let noise = within(config.noise, default.noise, 0.0, 100.0);

    // Further away nothing shows of a wall.
    let most = thickness / 2.0 + 1.0;
    let (distances, cells) = walls(config, shape, most, &mut part(seed, index, 1), &mut part(seed, index, 2));
    let mut labels: Vec<i32> =
        distances.iter().map(|&d| i32::from(f64::from(d) <= thickness / 2.0)).collect();

    let mut texture = part(seed, index, 3);
    let fade = smooth_noise(shape, 2.5, &mut texture);
    let visible_above = quantile(&fade, gaps);
    let cloud = smooth_noise(shape, 5.0, &mut texture);
    let grain = smooth_noise(shape, 1.0, &mut texture);
    let mut values: Vec<f32> = (0..voxels(shape))
        .map(|i| {
            // Soft steps: the profile across a wall, and along it from a gap (8 % of the contrast) to plain sight.
            let across = soft_step((thickness / 2.0 + 0.4 - f64::from(distances[i])) / 0.5);
            let along = 0.08 + 0.92 * soft_step(f64::from(fade[i] - visible_above) / 0.15 + 0.5);
            // Each cell has its own shade, from a hash of its number.
            let shade = (cells[i].wrapping_mul(0x9E37_79B9) >> 16) as f64 / 65_536.0 - 0.5;
            let background = 0.3 * shade + 0.12 * f64::from(cloud[i]) + 0.1 * f64::from(grain[i]);
            (BACKGROUND + CONTRAST * (background * (1.0 - 0.6 * across) + across * along)) as f32
        })
        .collect();
    specks(&mut values, shape, CONTRAST, &mut texture);
    add_noise(&mut values, noise * CONTRAST, &mut generator(seed, index, 4));
    values.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));

    if unlabelled > 0.0 {
        // One side of a wavy plane.
        let mut random = part(seed, index, 5);
        let normal = random_rotation(&mut random)[0];
        let wave = smooth_noise(shape, 8.0, &mut random);
        let height: Vec<f32> = points(shape)
            .zip(&wave)
            .map(|(p, wave)| (dot(normal, p) + 2.0 * f64::from(*wave)) as f32)
            .collect();
        let border = quantile(&height, unlabelled);
        for (label, height) in labels.iter_mut().zip(&height) {
            if *height < border {
                *label = 2;
            }
        }
    }
    (volume(shape, values), labels)
}

/// What [`patch_class`] makes: small patches about a round body, few of which are of class 1.
#[derive(Debug, Clone, PartialEq)]
pub struct PatchClassConfig {
    /// Size of a patch; each side at least 1. The body is as wide as half the patch.
    pub shape: Shape,
    /// Share of class 1, 0..=1, spread evenly over the indices.
    pub positive_share: f64,
    /// Standard deviation of the noise over the contrast of the body with its background, 0..=100.
    pub noise: f64,
    /// Mean visibility of what makes class 1, 0..=1; 0 leaves nothing to learn.
    pub visibility: f64,
}

impl Default for PatchClassConfig {
    fn default() -> Self {
        Self { shape: [8, 32, 32], positive_share: 1.0 / 6.0, noise: 0.5, visibility: 0.8 }
    }
}

/// The patch number `index` of the set that `seed` stands for, and its class, 0 or 1.
///
/// One channel, whole numbers in 0..=255; spacing 1 mm. A body with a dark rim lies near the centre. In class 1 there is one large
/// bright hole in it; in class 0 the same brightness is in several small ones, so that neither the mean nor the
/// spread of the intensities tells the classes apart. How visible the holes are differs from patch to patch.
pub fn patch_class(config: &PatchClassConfig, seed: u64, index: u64) -> (Volume, usize) {
    let default = PatchClassConfig::default();
    let shape = config.shape.map(|n| n.max(1));
    let share = within(config.positive_share, default.positive_share, 0.0, 1.0);
    let noise = within(config.noise, default.noise, 0.0, 100.0);
    let visibility = within(config.visibility, default.visibility, 0.0, 1.0);
    let class = usize::from(even_lot(seed, index) < share);

    let mut random = part(seed, index, 1);
    let wide = shape[1].min(shape[2]) as f64;
    // A patch flatter than its body shows a slice of it.
    let thick = (shape[0] as f64).clamp(wide / 4.0, wide);
    let unit = [thick, wide, wide].map(|n| n / 2.0);
    let middle = shape.map(|n| n as f64 / 2.0);
    let offset = |reach: f64, random: &mut Random| {
        [0, 1, 2].map(|axis| middle[axis] + reach * unit[axis] * between(random, -1.0, 1.0))
    };
    let centre = offset(0.2, &mut random);
    let radii = [0.95, 0.55, 0.55].map(|r| r * between(&mut random, 0.8, 1.2));
    let radii = [0, 1, 2].map(|axis| radii[axis] * unit[axis]);
    let turn = rotation_about_depth(random.angle());
    let body = Ellipsoid { centre, radii, rotation: turn };

    // What fills the holes in total: the volume of one of this radius, in units of the body's.
    let hole = between(&mut random, 0.36, 0.5);
    let count = if class == 1 { 1 } else { 4 + (random.unit() * 4.0) as usize };
    let radius = hole / (count as f64).cbrt();
    let holes: Vec<Ellipsoid> = (0..count)
        .map(|_| {
            // Anywhere in the body, wholly inside it.
            let direction = random_rotation(&mut random)[0];
            let reach = (1.0 - radius - 0.08).max(0.0) * random.unit().cbrt();
            let local = [0, 1, 2].map(|axis| reach * direction[axis] * radii[axis]);
            let centre = [0, 1, 2].map(|axis| centre[axis] + dot(column(&turn, axis), local));
            Ellipsoid { centre, radii: radii.map(|r| r * radius), rotation: turn }
        })
        .collect();
    let strength = (visibility * between(&mut random, 0.25, 1.75)).min(1.0);
    // Others like it lie about, in both classes.
    let outside: Vec<(Ellipsoid, f64)> = (0..3 + (random.unit() * 4.0) as usize)
        .map(|_| {
            let centre = offset(1.0, &mut random);
            let radius = between(&mut random, 0.1, 0.28);
            let shade = if random.unit() < 0.5 { -0.8 } else { 0.8 };
            (Ellipsoid { centre, radii: unit.map(|u| u * radius), rotation: turn }, shade)
        })
        .collect();

    let mut texture = part(seed, index, 2);
    let rough = smooth_noise(shape, 1.2, &mut texture);
    let cloud = smooth_noise(shape, 3.0, &mut texture);
    let mut values: Vec<f32> = points(shape)
        .enumerate()
        .map(|(i, at)| {
            let mut level = 0.35 * f64::from(cloud[i]);
            for (other, shade) in &outside {
                level += shade * soft_step((1.0 - other.at(at)) / 0.4 + 0.5);
            }
            let distance = body.at(at) + 0.05 * f64::from(rough[i]);
            let inside = soft_step((1.0 - distance) / 0.12 + 0.5);
            let rim = (-0.5 * ((distance - 0.95) / 0.08).powi(2)).exp();
            let bright =
                holes.iter().map(|hole| soft_step((1.0 - hole.at(at)) / 0.5 + 0.5)).fold(0.0, f64::max);
            let matter = -1.0 + 0.3 * f64::from(rough[i]) + 1.6 * strength * bright;
            level * (1.0 - inside) + matter * inside - 0.7 * rim
        })
        .map(|level| level as f32)
        .collect();
    add_noise(&mut values, noise, &mut generator(seed, index, 3));
    // Brightness and contrast of the exposure say nothing about the class.
    let (gain, base) = (between(&mut random, 35.0, 50.0), between(&mut random, 120.0, 150.0));
    values.iter_mut().for_each(|v| *v = (base as f32 + gain as f32 * *v).round().clamp(0.0, 255.0));
    (volume(shape, values), class)
}

fn volume(shape: Shape, values: Vec<f32>) -> Volume {
    Volume { channels: 1, shape, values, geometry: Geometry::default() }
}

fn within(value: f64, default: f64, low: f64, high: f64) -> f64 {
    if value.is_nan() { default } else { value.clamp(low, high) }
}

fn generator(seed: u64, index: u64, part: u64) -> rand_chacha::ChaCha8Rng {
    let mut generator = rng(seed, Stream::Synth, index);
    generator.set_stream(part);
    generator
}

fn part(seed: u64, index: u64, part: u64) -> Random {
    Random::new(generator(seed, index, part))
}

fn between(random: &mut Random, low: f64, high: f64) -> f64 {
    low + (high - low) * random.unit()
}

/// A number in 0..1 for each index, spread evenly over consecutive ones (multiples of the golden ratio).
fn even_lot(seed: u64, index: u64) -> f64 {
    let start = part(seed, u64::MAX, 0).unit();
    let step = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (start + (step >> 11) as f64 / (1u64 << 53) as f64).fract()
}

fn smallest(shape: Shape) -> f64 {
    shape.into_iter().min().unwrap_or(1) as f64
}

/// The middles of all voxels.
fn points([depth, height, width]: Shape) -> impl Iterator<Item = [f64; 3]> {
    (0..depth).flat_map(move |d| {
        (0..height)
            .flat_map(move |h| (0..width).map(move |w| [d as f64 + 0.5, h as f64 + 0.5, w as f64 + 0.5]))
    })
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn column(matrix: &Rotation, axis: usize) -> [f64; 3] {
    [matrix[0][axis], matrix[1][axis], matrix[2][axis]]
}

fn rotation_about_depth(angle: f64) -> Rotation {
    let (sin, cos) = angle.sin_cos();
    [[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]]
}

/// 0 below 0, 1 above 1, smooth between.
fn soft_step(x: f64) -> f64 {
    let x = x.clamp(0.0, 1.0);
    x * x * (3.0 - 2.0 * x)
}

/// The value with a share of `share` below it.
fn quantile(values: &[f32], share: f64) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let index = (share * sorted.len() as f64).round() as usize;
    sorted.get(index).copied().unwrap_or(f32::INFINITY)
}

/// Gaussian noise with a correlation length of `sigma` voxels, standard deviation 1.
fn smooth_noise(shape: Shape, sigma: f64, random: &mut Random) -> Vec<f32> {
    let mut values = vec![0.0f32; voxels(shape)];
    for two in values.chunks_mut(2) {
        let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
        let (sin, cos) = random.angle().sin_cos();
        two.iter_mut().zip([cos, sin]).for_each(|(v, unit)| *v = (radius * unit) as f32);
    }
    gaussian_blur(&mut values, shape, [sigma; 3]);
    let count = values.len() as f64;
    let power = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / count;
    let factor = if power > 0.0 { power.sqrt().recip() as f32 } else { 0.0 };
    values.iter_mut().for_each(|v| *v *= factor);
    values
}

/// Factors about 1, a wave or two across the volume.
fn bias_field(shape: Shape, strength: f64, random: &mut Random) -> Vec<f32> {
    let waves: Vec<([f64; 3], f64)> = (0..3)
        .map(|_| {
            let direction = random_rotation(random)[0];
            let turns = between(random, 1.5, 4.0);
            let wave = [0, 1, 2].map(|axis| turns * direction[axis] / shape[axis] as f64);
            (wave, random.angle())
        })
        .collect();
    let mean = |p| waves.iter().map(|&(wave, phase)| (dot(wave, p) + phase).sin()).sum::<f64>() / 3.0;
    points(shape).map(|p| (1.0 + strength * mean(p)) as f32).collect()
}

struct Ellipsoid {
    centre: [f64; 3],
    radii: [f64; 3],
    /// From the volume's axes to its own.
    rotation: Rotation,
}

impl Ellipsoid {
    /// Distance from the centre in units of the radius in that direction.
    fn at(&self, point: [f64; 3]) -> f64 {
        let offset = [0, 1, 2].map(|axis| point[axis] - self.centre[axis]);
        let local = [0, 1, 2].map(|axis| dot(self.rotation[axis], offset) / self.radii[axis].max(0.25));
        dot(local, local).sqrt()
    }
}

/// A bent spindle along h, thicker in front.
struct Body {
    centre: [f64; 3],
    /// From the volume's axes to its own: across, along, across.
    rotation: Rotation,
    half_length: f64,
    /// Across.
    radii: [f64; 2],
    /// Displacement of the ends, across.
    bend: [f64; 2],
    /// Where the first part ends, along, -1..1.
    split: f64,
}

impl Body {
    fn draw(shape: Shape, random: &mut Random) -> Self {
        let centre = shape.map(|n| n as f64 * (0.5 + between(random, -0.06, 0.06)));
        // A little off the axes.
        let [a, b, c] = [0; 3].map(|_| between(random, -0.3, 0.3));
        let rotation = orthonormal([1.0, a, b], [-a, 1.0, c]);
        let across = (shape[0] as f64).min(shape[2] as f64);
        let radii = [0; 2].map(|_| across * between(random, 0.12, 0.17));
        let (sin, cos) = random.angle().sin_cos();
        let bend = across * between(random, 0.08, 0.22);
        Self {
            centre,
            rotation,
            half_length: shape[1] as f64 * between(random, 0.32, 0.42),
            radii,
            bend: [bend * cos, bend * sin],
            split: between(random, -0.25, 0.05),
        }
    }

    /// Distance from the axis in units of the radius there (1 on the surface), and the place along, -1..1.
    fn at(&self, point: [f64; 3]) -> (f64, f64) {
        let offset = [0, 1, 2].map(|axis| point[axis] - self.centre[axis]);
        let [x, y, z] = [0, 1, 2].map(|axis| dot(self.rotation[axis], offset));
        let along = y / self.half_length;
        // Blunter than an ellipsoid, and narrowing towards the tail.
        let taper = (1.0 - along.powi(4)).max(0.0).sqrt() * (1.0 - 0.35 * along.clamp(-1.0, 1.0));
        if along.abs() >= 1.0 || taper <= 0.0 {
            return (f64::INFINITY, along);
        }
        let curve = along * along - 0.3;
        let x = (x - self.bend[0] * curve) / (self.radii[0] * taper).max(0.25);
        let z = (z - self.bend[1] * curve) / (self.radii[1] * taper).max(0.25);
        (x.hypot(z), along)
    }

    /// A point beside the middle, so many radii from the axis.
    fn beside(&self, radii: f64, angle: f64) -> [f64; 3] {
        let (sin, cos) = angle.sin_cos();
        let local = [radii * self.radii[0] * cos, 0.0, radii * self.radii[1] * sin];
        [0, 1, 2].map(|axis| self.centre[axis] + dot(column(&self.rotation, axis), local))
    }
}

/// Rows: `first`, `second` made orthogonal to it, and the third that fits.
fn orthonormal(first: [f64; 3], second: [f64; 3]) -> Rotation {
    let unit = |v: [f64; 3]| v.map(|c| c / dot(v, v).sqrt());
    let a = unit(first);
    let along = dot(a, second);
    let b = unit([0, 1, 2].map(|i| second[i] - along * a[i]));
    [a, b, [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]]
}

/// For each voxel the distance to the nearest wall between two cells, in voxels of bent space and exact up to `most`,
/// and the number of its cell.
fn walls(
    config: &MembraneConfig,
    shape: Shape,
    most: f64,
    random: &mut Random,
    bending: &mut Random,
) -> (Vec<f32>, Vec<u32>) {
    /// Largest displacement of a centre from its place on the grid, in steps.
    const JITTER: f64 = 0.4;
    /// The nearest centre is at most sqrt(3) 0.9 steps away, centres that are more steps off than this at least 2.1.
    const NEAR: usize = 2;
    const SIDE: usize = 2 * NEAR + 1;
    let default = MembraneConfig::default();
    let cell = within(config.cell_size, default.cell_size, 4.0, 1000.0);
    let waviness = within(config.waviness, default.waviness, 0.0, 0.3) * cell;
    let most = most / cell;

    // Centres, with a margin for what is looked at and for the bends.
    let origin = [0; 3].map(|_| random.unit());
    let margin = NEAR + 1;
    let grid = shape.map(|n| (n as f64 / cell) as usize + 2 * margin + 3);
    let centres: Vec<[f64; 3]> = (0..voxels(grid))
        .map(|i| {
            let place = [i / (grid[1] * grid[2]), i / grid[2] % grid[1], i % grid[2]];
            [0, 1, 2].map(|axis| place[axis] as f64 + 0.5 + JITTER * between(random, -1.0, 1.0))
        })
        .collect();

    let wave = (0.3 * cell).clamp(1.0, 12.0);
    let bends = [0; 3].map(|_| smooth_noise(shape, wave, bending));
    let (mut distances, mut cells) = (Vec::with_capacity(voxels(shape)), Vec::with_capacity(voxels(shape)));
    for (i, point) in points(shape).enumerate() {
        // In steps of the grid; three standard deviations are the largest displacement.
        let at = [0, 1, 2].map(|axis| {
            let bend = (f64::from(bends[axis][i]) / 3.0).clamp(-1.0, 1.0) * waviness;
            (point[axis] + bend) / cell + origin[axis] + margin as f64
        });
        let first = at.map(|v| v as usize - NEAR);
        let line = |number: usize| {
            ((first[0] + number / SIDE) * grid[1] + first[1] + number % SIDE) * grid[2] + first[2]
        };
        let squared = |centre: &[f64; 3]| {
            let (d, h, w) = (at[0] - centre[0], at[1] - centre[1], at[2] - centre[2]);
            d * d + h * h + w * w
        };
        let mut all = [[0.0; SIDE]; SIDE * SIDE];
        let (mut own, mut nearest) = (0, f64::INFINITY);
        for (number, squares) in all.iter_mut().enumerate() {
            let start = line(number);
            for (k, square) in squares.iter_mut().enumerate() {
                *square = squared(&centres[start + k]);
                if *square < nearest {
                    (own, nearest) = (start + k, *square);
                }
            }
        }
        // The wall between two cells is the plane half way between their centres. It lies at least half the
        // difference of the distances to them away, so few centres matter.
        let mut distance = most;
        let mut reach = (nearest.sqrt() + 2.0 * distance).powi(2);
        for (number, squares) in all.iter().enumerate() {
            for (k, &square) in squares.iter().enumerate() {
                let other = line(number) + k;
                if square < reach && other != own {
                    let apart = [0, 1, 2].map(|axis| centres[other][axis] - centres[own][axis]);
                    let wall = (square - nearest) / (2.0 * dot(apart, apart).sqrt());
                    if wall < distance {
                        distance = wall;
                        reach = (nearest.sqrt() + 2.0 * distance).powi(2);
                    }
                }
            }
        }
        distances.push((distance * cell) as f32);
        cells.push(own as u32);
    }
    (distances, cells)
}

/// Adds small bright grains, as bright as walls.
fn specks(values: &mut [f32], shape: Shape, contrast: f64, random: &mut Random) {
    let count = voxels(shape) / 3000;
    for _ in 0..count {
        let centre = shape.map(|n| between(random, 0.0, n as f64));
        let radius = between(random, 1.0, 2.0);
        let range = |axis: usize| {
            let low = (centre[axis] - radius).max(0.0) as usize;
            low..((centre[axis] + radius).ceil() as usize).min(shape[axis])
        };
        for d in range(0) {
            for h in range(1) {
                for w in range(2) {
                    let offset = [d, h, w].map(|i| i as f64 + 0.5);
                    let offset = [0, 1, 2].map(|axis| (offset[axis] - centre[axis]) / radius);
                    let inside = 1.0 - dot(offset, offset);
                    if inside > 0.0 {
                        values[(d * shape[1] + h) * shape[2] + w] += (0.9 * contrast * inside) as f32;
                    }
                }
            }
        }
    }
}
