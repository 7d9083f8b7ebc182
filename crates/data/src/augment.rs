//! Augmentation of square patches: exact symmetries of the square on picture and labels together, changes of
//! intensity on the picture alone.
//!
//! Deterministic in the generator; take it from [`crate::rng::rng`] with [`crate::rng::Stream::Augment`] and the
//! position of the sample, and a resumed run sees the same patches.

use rand::Rng;

use crate::tiles::{Patch, below, reflect};

/// What [`apply`] does. Everything 0 or false (the default) leaves a patch as it is.
///
/// Intensities are in the units of the patch: with z-scored images, standard deviations of the whole image.
/// Changes of intensity come in the order contrast, brightness, gamma, blur, noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augment {
    /// Mirror left-right and top-bottom, each with probability 1/2.
    pub flip: bool,
    /// Rotate by 0, 90, 180 or 270 degrees, each equally likely.
    pub rotate90: bool,
    /// Standard deviation of a shift added to all pixels; >= 0.
    pub brightness: f64,
    /// Largest relative change of the deviations from the patch's mean: they are multiplied by a factor drawn
    /// from `1 - contrast ..= 1 + contrast`; in 0..=1.
    pub contrast: f64,
    /// Largest relative change of the exponent: the patch, scaled to 0..=1 between its extremes, is raised to a
    /// power drawn log-uniformly from `1 / (1 + gamma) ..= 1 + gamma`, and scaled back; >= 0.
    pub gamma: f64,
    /// Largest standard deviation of a Gaussian blur, in pixels, drawn uniformly from `0 ..= blur`; >= 0.
    pub blur: f64,
    /// Standard deviation of independent Gaussian noise added to each pixel; >= 0.
    pub noise: f64,
    /// Probability with which each change of intensity is made, independently; in 0..=1.
    pub intensity_probability: f64,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            flip: false,
            rotate90: false,
            brightness: 0.0,
            contrast: 0.0,
            gamma: 0.0,
            blur: 0.0,
            noise: 0.0,
            intensity_probability: 1.0,
        }
    }
}

/// Augments a patch in place.
///
/// Each choice is drawn whether or not it is switched on (the noise, drawn last, excepted), so switching one on
/// does not change the others. Strengths that are not positive count as 0; non-finite pixels stay as they are,
/// but a blur spreads them.
pub fn apply(augment: &Augment, patch: &mut Patch, rng: &mut impl Rng) {
    let geometry = rng.next_u64();
    if augment.flip && geometry & 1 != 0 {
        flip_horizontal(patch);
    }
    if augment.flip && geometry & 2 != 0 {
        flip_vertical(patch);
    }
    if augment.rotate90 {
        rotate90(patch, (geometry >> 2) as usize & 3);
    }

    let mut strength = |wanted: f64| {
        let made = unit(rng) < augment.intensity_probability;
        if made && wanted > 0.0 { wanted } else { 0.0 }
    };
    let contrast = strength(augment.contrast);
    let brightness = strength(augment.brightness);
    let gamma = strength(augment.gamma);
    let blur = strength(augment.blur);
    let noise = strength(augment.noise);
    let factor = 1.0 + contrast * (2.0 * unit(rng) - 1.0);
    let shift = brightness * normal(rng);
    let power = ((1.0 + gamma).ln() * (2.0 * unit(rng) - 1.0)).exp();
    let sigma = blur * unit(rng);

    if contrast > 0.0 {
        scale_deviations(&mut patch.image, factor.max(0.0));
    }
    if brightness > 0.0 {
        for pixel in &mut patch.image {
            *pixel += shift as f32;
        }
    }
    if gamma > 0.0 {
        raise(&mut patch.image, power);
    }
    if blur > 0.0 {
        gaussian_blur(&mut patch.image, patch.size, sigma);
    }
    add_noise(&mut patch.image, noise, rng);
}

/// Mirrors left and right.
pub fn flip_horizontal(patch: &mut Patch) {
    let last = patch.size.wrapping_sub(1);
    rearrange(patch, |x, y| (last - x, y));
}

/// Mirrors top and bottom.
pub fn flip_vertical(patch: &mut Patch) {
    let last = patch.size.wrapping_sub(1);
    rearrange(patch, |x, y| (x, last - y));
}

/// Rotates by `turns` quarter turns, counter-clockwise as seen with y down on the screen.
pub fn rotate90(patch: &mut Patch, turns: usize) {
    let last = patch.size.wrapping_sub(1);
    match turns % 4 {
        0 => {}
        1 => rearrange(patch, |x, y| (last - y, x)),
        2 => rearrange(patch, |x, y| (last - x, last - y)),
        _ => rearrange(patch, |x, y| (y, last - x)),
    }
}

/// `source` tells where the pixel that ends at `(x, y)` comes from.
fn rearrange(patch: &mut Patch, source: impl Fn(usize, usize) -> (usize, usize)) {
    fn moved<T: Copy>(values: &[T], size: usize, source: &impl Fn(usize, usize) -> (usize, usize)) -> Vec<T> {
        let mut out = Vec::with_capacity(values.len());
        for y in 0..size {
            out.extend((0..size).map(|x| {
                let (x, y) = source(x, y);
                values[y * size + x]
            }));
        }
        out
    }
    patch.image = moved(&patch.image, patch.size, &source);
    if let Some(labels) = &mut patch.labels {
        *labels = moved(labels, patch.size, &source);
    }
}

/// Adds independent Gaussian noise of standard deviation `std`; draws nothing when `std` is not positive.
pub fn add_noise(pixels: &mut [f32], std: f64, rng: &mut impl Rng) {
    if std > 0.0 {
        for two in pixels.chunks_mut(2) {
            let (a, b) = normal_pair(rng);
            for (pixel, draw) in two.iter_mut().zip([a, b]) {
                *pixel += (std * draw) as f32;
            }
        }
    }
}

fn scale_deviations(pixels: &mut [f32], factor: f64) {
    let finite = || pixels.iter().filter(|p| p.is_finite()).map(|&p| f64::from(p));
    let count = finite().count();
    if count > 0 {
        let mean = finite().sum::<f64>() / count as f64;
        for pixel in pixels {
            *pixel = (mean + factor * (f64::from(*pixel) - mean)) as f32;
        }
    }
}

fn raise(pixels: &mut [f32], power: f64) {
    let finite = || pixels.iter().filter(|p| p.is_finite()).map(|&p| f64::from(p));
    let low = finite().fold(f64::INFINITY, f64::min);
    let range = finite().fold(f64::NEG_INFINITY, f64::max) - low;
    if range > 0.0 {
        for pixel in pixels.iter_mut().filter(|p| p.is_finite()) {
            *pixel = (low + range * ((f64::from(*pixel) - low) / range).powf(power)) as f32;
        }
    }
}

fn gaussian_blur(pixels: &mut [f32], size: usize, sigma: f64) {
    // Below this the neighbours' weight is less than one part in 10^10.
    if sigma < 0.15 || size < 2 {
        return;
    }
    let radius = (3.0 * sigma).ceil() as usize;
    let mut kernel: Vec<f64> = (0..=radius).map(|d| (-0.5 * (d as f64 / sigma).powi(2)).exp()).collect();
    let total = kernel[0] + 2.0 * kernel[1..].iter().sum::<f64>();
    kernel.iter_mut().for_each(|k| *k /= total);
    let kernel: Vec<f32> = kernel.into_iter().map(|k| k as f32).collect();

    // Positions `-radius..size + radius`, reflected into the patch; one pad for both directions.
    let sources: Vec<usize> = (0..size + 2 * radius).map(|i| reflect(i.abs_diff(radius), size)).collect();
    let mut line = vec![0.0f32; size + 2 * radius];
    for (start, stride) in (0..size).map(|row| (row * size, 1)).chain((0..size).map(|column| (column, size)))
    {
        for (out, &source) in line.iter_mut().zip(&sources) {
            *out = pixels[start + source * stride];
        }
        for i in 0..size {
            let centre = i + radius;
            let sides = kernel.iter().enumerate().skip(1);
            pixels[start + i * stride] = kernel[0] * line[centre]
                + sides.map(|(d, k)| k * (line[centre - d] + line[centre + d])).sum::<f32>();
        }
    }
}

/// Uniform in 0..1, in steps of 2^-53.
fn unit(rng: &mut impl Rng) -> f64 {
    below(rng, 1 << 53) as f64 / (1u64 << 53) as f64
}

fn normal(rng: &mut impl Rng) -> f64 {
    normal_pair(rng).0
}

/// Two independent standard normal numbers (Box and Muller 1958).
fn normal_pair(rng: &mut impl Rng) -> (f64, f64) {
    // 1 - unit is in (0, 1], so the logarithm is finite.
    let radius = (-2.0 * (1.0 - unit(rng)).ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * unit(rng)).sin_cos();
    (radius * cos, radius * sin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, rng};
    use proptest::prelude::*;

    fn numbered(size: usize) -> Patch {
        let image = (0..size * size).map(|i| i as f32).collect();
        let labels = (0..size * size).map(|i| (i % 3) as i8 - 1).collect();
        Patch { size, image, labels: Some(labels) }
    }

    fn after(patch: &Patch, change: impl Fn(&mut Patch)) -> Patch {
        let mut patch = patch.clone();
        change(&mut patch);
        patch
    }

    fn sorted_labels(patch: &Patch) -> Vec<i8> {
        let mut labels = patch.labels.clone().unwrap();
        labels.sort_unstable();
        labels
    }

    const ALL: Augment = Augment {
        flip: true,
        rotate90: true,
        brightness: 0.2,
        contrast: 0.2,
        gamma: 0.3,
        blur: 1.5,
        noise: 0.1,
        intensity_probability: 1.0,
    };

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        (mean, variance.sqrt())
    }

    #[test]
    fn a_quarter_turn_brings_the_right_edge_to_the_top() {
        let mut patch = numbered(2);
        rotate90(&mut patch, 1);
        assert_eq!(patch.image, [1.0, 3.0, 0.0, 2.0]);
        flip_horizontal(&mut patch);
        assert_eq!(patch.image, [3.0, 1.0, 2.0, 0.0]);
        flip_vertical(&mut patch);
        assert_eq!(patch.image, [2.0, 0.0, 3.0, 1.0]);
    }

    #[test]
    fn all_eight_symmetries_come_up() {
        let augment = Augment { flip: true, rotate90: true, ..Augment::default() };
        let mut seen = std::collections::HashMap::new();
        for index in 0..800 {
            let mut patch = numbered(3);
            apply(&augment, &mut patch, &mut rng(1, Stream::Augment, index));
            let key: Vec<u32> = patch.image.iter().map(|&p| p as u32).collect();
            *seen.entry(key).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 8);
        // 100 each, standard deviation 9.4.
        assert!(seen.values().all(|&n| (60..140).contains(&n)), "{seen:?}");
    }

    #[test]
    fn noise_has_the_standard_deviation_asked_for() {
        let mut pixels = vec![0.0f32; 40_001];
        add_noise(&mut pixels, 0.3, &mut rng(5, Stream::TeacherNoise, 0));
        let (mean, std) = moments(&pixels);
        assert!(mean.abs() < 0.01 && (std - 0.3).abs() < 0.01, "{mean} {std}");
    }

    #[test]
    fn brightness_shifts_contrast_scales_and_gamma_keeps_the_extremes() {
        for index in 0..50 {
            let mut generator = rng(2, Stream::Augment, index);
            let start = numbered(8);
            let (mean, std) = moments(&start.image);

            let mut patch = start.clone();
            apply(&Augment { brightness: 0.5, ..Augment::default() }, &mut patch, &mut generator);
            let shift = patch.image[0] - start.image[0];
            assert!(patch.image.iter().zip(&start.image).all(|(a, b)| (a - b - shift).abs() < 1e-5));

            let mut patch = start.clone();
            apply(&Augment { contrast: 0.25, ..Augment::default() }, &mut patch, &mut generator);
            let (new_mean, new_std) = moments(&patch.image);
            assert!((new_mean - mean).abs() < 1e-4 && (0.7499..1.2501).contains(&(new_std / std)));

            let mut patch = start.clone();
            apply(&Augment { gamma: 0.5, ..Augment::default() }, &mut patch, &mut generator);
            assert!((patch.image[0] - start.image[0]).abs() < 1e-5);
            assert!((patch.image[63] - start.image[63]).abs() < 1e-4);
            assert!(patch.image.windows(2).all(|w| w[0] < w[1]), "gamma keeps the order");
        }
    }

    #[test]
    fn blur_keeps_a_constant_and_narrows_the_spread() {
        let mut constant = vec![2.5f32; 49];
        gaussian_blur(&mut constant, 7, 3.0);
        assert!(constant.iter().all(|p| (p - 2.5).abs() < 1e-5));

        let mut peak = vec![0.0f32; 31 * 31];
        peak[15 * 31 + 15] = 1.0;
        gaussian_blur(&mut peak, 31, 2.0);
        let total: f32 = peak.iter().sum();
        // 1 / (2 pi sigma^2), the kernel being cut at three sigma.
        assert!((total - 1.0).abs() < 1e-4 && (peak[15 * 31 + 15] - 0.0398).abs() < 5e-4);
    }

    #[test]
    fn a_change_of_probability_zero_is_not_made() {
        let mut patch = numbered(5);
        let never = Augment { flip: false, rotate90: false, intensity_probability: 0.0, ..ALL };
        apply(&never, &mut patch, &mut rng(1, Stream::Augment, 1));
        assert_eq!(patch, numbered(5));
    }

    #[test]
    fn switching_the_noise_on_leaves_the_rest_as_it_was() {
        let mut quiet = numbered(6);
        apply(&Augment { noise: 0.0, ..ALL }, &mut quiet, &mut rng(4, Stream::Augment, 9));
        let mut noisy = numbered(6);
        apply(&Augment { noise: 1e-6, ..ALL }, &mut noisy, &mut rng(4, Stream::Augment, 9));
        assert_eq!(quiet.labels, noisy.labels);
        assert!(quiet.image.iter().zip(&noisy.image).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn empty_and_unlabelled_patches_pass() {
        let mut empty = Patch { size: 0, image: Vec::new(), labels: None };
        for index in 0..16 {
            apply(&ALL, &mut empty, &mut rng(1, Stream::Augment, index));
        }
        assert!(empty.image.is_empty());
    }

    proptest! {
        #[test]
        fn everything_off_is_the_identity(seed: u64, size in 1usize..20) {
            let mut patch = numbered(size);
            apply(&Augment::default(), &mut patch, &mut rng(seed, Stream::Augment, 0));
            prop_assert_eq!(patch, numbered(size));
        }

        #[test]
        fn symmetries_move_picture_and_labels_together(seed: u64, size in 1usize..20) {
            let augment = Augment { flip: true, rotate90: true, ..Augment::default() };
            let mut patch = numbered(size);
            apply(&augment, &mut patch, &mut rng(seed, Stream::Augment, 0));
            prop_assert_eq!(sorted_labels(&patch), sorted_labels(&numbered(size)));
            for (pixel, label) in patch.image.iter().zip(patch.labels.as_ref().unwrap()) {
                prop_assert_eq!((*pixel as usize % 3) as i8 - 1, *label);
            }
        }

        #[test]
        fn the_same_generator_gives_the_same_patch(seed: u64, size in 1usize..20) {
            let made = || after(&numbered(size), |p| apply(&ALL, p, &mut rng(seed, Stream::Augment, 3)));
            prop_assert_eq!(made(), made());
        }

        #[test]
        fn intensities_leave_the_labels_alone(seed: u64, size in 1usize..20) {
            let augment = Augment { flip: false, rotate90: false, ..ALL };
            let mut patch = numbered(size);
            apply(&augment, &mut patch, &mut rng(seed, Stream::Augment, 0));
            prop_assert_eq!(&patch.labels, &numbered(size).labels);
            prop_assert!(patch.image.iter().all(|p| p.is_finite()));
        }

        #[test]
        fn symmetries_have_their_orders(size in 1usize..20, turns in 0usize..9) {
            let start = numbered(size);
            let twice = |change: fn(&mut Patch)| after(&after(&start, change), change);
            prop_assert_eq!(&twice(flip_horizontal), &start);
            prop_assert_eq!(&twice(flip_vertical), &start);
            prop_assert_eq!(&twice(|p| rotate90(p, 2)), &start);
            let four = (0..4).fold(start.clone(), |patch, _| after(&patch, |p| rotate90(p, 1)));
            prop_assert_eq!(&four, &start);
            let single = (0..turns).fold(start.clone(), |patch, _| after(&patch, |p| rotate90(p, 1)));
            prop_assert_eq!(single, after(&start, |p| rotate90(p, turns)));
        }
    }
}
