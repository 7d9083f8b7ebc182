//! Blob models of particles, their random orientations and their projections.

use super::micrographs::Random;

/// What particle a synthetic micrograph shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ParticleKind {
    /// A hollow shell of 24 subunits with octahedral symmetry, like apoferritin: a ring from every side.
    #[default]
    HollowSphere,
    /// Two unequal lobes with a cleft and no symmetry, like a ribosome: looks different from every side.
    Asymmetric,
}

/// A Gaussian blob; lengths in particle diameters, from the particle's centre.
#[derive(Debug, Clone, Copy)]
pub struct Blob {
    pub centre: [f64; 3],
    pub sigma: f64,
    pub mass: f64,
}

impl ParticleKind {
    /// The blobs of the particle, in its own frame; their bulk fills a sphere of diameter 1.
    pub fn blobs(self) -> Vec<Blob> {
        match self {
            Self::HollowSphere => hollow_sphere(),
            Self::Asymmetric => asymmetric(),
        }
    }
}

/// One subunit is a slab of two rows of four blobs lying in the shell, like ferritin's four-helix bundle; the 24
/// rotations of the octahedral group make the rest. Ferritin measures 120 Å outside and 80 Å inside.
fn hollow_sphere() -> Vec<Blob> {
    const SHELL: f64 = 0.405;
    let middle = unit([0.30, 0.78, 0.55]);
    let along = unit(cross(middle, [0.86, 0.10, -0.50]));
    let across = cross(middle, along);
    let mut subunit = Vec::new();
    for row in [-0.065, 0.065] {
        for step in [-0.15, -0.05, 0.05, 0.15] {
            let point = unit([0, 1, 2].map(|i| SHELL * middle[i] + step * along[i] + row * across[i]));
            subunit.push(point.map(|c| SHELL * c));
        }
    }
    let mut blobs = Vec::with_capacity(192);
    // Rotations of a cube: signed permutations of the axes with determinant 1.
    for (axes, parity) in [
        ([0, 1, 2], 1.0),
        ([1, 2, 0], 1.0),
        ([2, 0, 1], 1.0),
        ([0, 2, 1], -1.0),
        ([2, 1, 0], -1.0),
        ([1, 0, 2], -1.0),
    ] {
        for signs in 0..8u8 {
            let sign = [0, 1, 2].map(|i| if signs >> i & 1 == 0 { 1.0 } else { -1.0 });
            if sign[0] * sign[1] * sign[2] * parity < 0.0 {
                continue;
            }
            for point in &subunit {
                let centre = [0, 1, 2].map(|i| sign[i] * point[axes[i]]);
                blobs.push(Blob { centre, sigma: 0.055, mass: 1.0 });
            }
        }
    }
    blobs
}

/// A large and a small lobe, evenly filled with blobs, and two stalks.
fn asymmetric() -> Vec<Blob> {
    let mut blobs = Vec::with_capacity(110);
    for (centre, axes, count) in [
        ([-0.12, 0.02, 0.0], [0.28, 0.35, 0.31], 70),
        ([0.26, -0.05, 0.03], [0.15, 0.30, 0.21], 30),
        ([-0.05, -0.42, 0.12], [0.04, 0.05, 0.04], 5),
        ([0.12, 0.38, -0.14], [0.05, 0.04, 0.05], 5),
    ] {
        for i in 0..count {
            // A spiral of the golden angle spreads directions evenly, multiples of the golden ratio depths.
            let z = 1.0 - (2 * i + 1) as f64 / count as f64;
            let ring = (1.0 - z * z).sqrt();
            let (sin, cos) = (2.399_963_229_728_653 * i as f64).sin_cos();
            let depth = (0.618_033_988_749_895 * (i + 1) as f64).fract().cbrt();
            let direction = [ring * cos, ring * sin, z];
            let position = [0, 1, 2].map(|k| centre[k] + depth * axes[k] * direction[k]);
            blobs.push(Blob { centre: position, sigma: 0.05, mass: 1.0 });
        }
    }
    blobs
}

/// A rotation matrix.
pub type Rotation = [[f64; 3]; 3];

/// A rotation, uniform over all: Shoemake 1992, *Uniform random rotations*.
pub fn random_rotation(random: &mut Random) -> Rotation {
    let (u, a, b) = (random.unit(), random.angle(), random.angle());
    let (inner, outer) = ((1.0 - u).sqrt(), u.sqrt());
    let (x, y, z, w) = (inner * a.sin(), inner * a.cos(), outer * b.sin(), outer * b.cos());
    [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
        [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
        [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)],
    ]
}

/// A canvas that projections are added to.
pub struct Canvas<'a> {
    /// `width * height` densities.
    pub pixels: &'a mut [f32],
    pub width: usize,
    pub height: usize,
}

impl Canvas<'_> {
    /// Adds the projection along z of `blobs`, turned by `rotation` and centred on `(x, y)`. A blob adds
    /// `gain * mass` per square diameter in total, so the projection does not depend on the pixel size.
    pub fn project(
        &mut self,
        blobs: &[Blob],
        rotation: &Rotation,
        [x, y]: [f64; 2],
        diameter: f64,
        gain: f64,
    ) {
        let (mut across, mut down) = (Vec::new(), Vec::new());
        for blob in blobs {
            let turned = [0, 1].map(|i| dot(rotation[i], blob.centre) * diameter);
            // A pixel integrates over its area, which widens what is smaller than it.
            let sigma = (blob.sigma * diameter).hypot(0.3);
            let peak = gain * blob.mass / (std::f64::consts::TAU * (sigma / diameter).powi(2));
            let left = gaussian(x + turned[0], sigma, self.width, &mut across);
            let top = gaussian(y + turned[1], sigma, self.height, &mut down);
            for (row, &fall) in down.iter().enumerate() {
                let start = (top + row) * self.width + left;
                let weight = (peak * fall) as f32;
                for (pixel, &value) in self.pixels[start..start + across.len()].iter_mut().zip(&across) {
                    *pixel += weight * value as f32;
                }
            }
        }
    }
}

/// Samples a Gaussian of unit peak within three standard deviations and inside `0..size`; returns the first
/// index.
fn gaussian(centre: f64, sigma: f64, size: usize, samples: &mut Vec<f64>) -> usize {
    samples.clear();
    let first = (centre - 3.0 * sigma).ceil().clamp(0.0, size as f64) as usize;
    let end = ((centre + 3.0 * sigma).floor() + 1.0).clamp(0.0, size as f64) as usize;
    samples.extend((first..end).map(|i| (-0.5 * ((i as f64 - centre) / sigma).powi(2)).exp()));
    first
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn unit(a: [f64; 3]) -> [f64; 3] {
    let length = dot(a, a).sqrt();
    a.map(|c| c / length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, rng};

    #[test]
    fn the_hollow_sphere_has_24_subunits_on_a_shell_and_no_centre_of_mass_offset() {
        let blobs = ParticleKind::HollowSphere.blobs();
        assert_eq!(blobs.len(), 24 * 8);
        for axis in 0..3 {
            assert!(blobs.iter().map(|b| b.centre[axis]).sum::<f64>().abs() < 1e-9);
        }
        assert!(blobs.iter().all(|b| (dot(b.centre, b.centre).sqrt() - 0.405).abs() < 1e-9));
        let distinct = |a: &Blob, b: &Blob| (0..3).any(|i| (a.centre[i] - b.centre[i]).abs() > 1e-6);
        for (i, a) in blobs.iter().enumerate() {
            assert!(blobs[..i].iter().all(|b| distinct(a, b)));
        }
    }

    #[test]
    fn particles_fit_their_diameter() {
        for kind in [ParticleKind::HollowSphere, ParticleKind::Asymmetric] {
            for blob in kind.blobs() {
                assert!(dot(blob.centre, blob.centre).sqrt() + blob.sigma < 0.55, "{kind:?} {blob:?}");
            }
        }
    }

    #[test]
    fn rotations_are_orthonormal_and_proper() {
        let mut random = Random::new(rng(3, Stream::Synth, 0));
        for _ in 0..100 {
            let r = random_rotation(&mut random);
            for i in 0..3 {
                for j in 0..3 {
                    assert!((dot(r[i], r[j]) - f64::from(u8::from(i == j))).abs() < 1e-12);
                }
            }
            assert!((dot(cross(r[0], r[1]), r[2]) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn a_projection_keeps_its_mass_whatever_the_orientation() {
        let blobs = ParticleKind::Asymmetric.blobs();
        let mass: f64 = blobs.iter().map(|b| b.mass).sum();
        let mut random = Random::new(rng(4, Stream::Synth, 0));
        for _ in 0..5 {
            let mut pixels = vec![0.0; 64 * 64];
            Canvas { pixels: &mut pixels, width: 64, height: 64 }.project(
                &blobs,
                &random_rotation(&mut random),
                [31.0, 32.5],
                30.0,
                1.0,
            );
            let found = pixels.iter().map(|&v| f64::from(v)).sum::<f64>() / (30.0 * 30.0);
            assert!((found / mass - 1.0).abs() < 0.01, "{found} of {mass}");
        }
    }
}
