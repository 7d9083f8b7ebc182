//! Synthetic micrographs: same arguments same bits, truth that agrees with the picture, physics that holds.

use proptest::prelude::*;
use rayon::prelude::*;
use rustfft::FftPlanner;
use rustfft::num_complex::Complex;
use trimtab_data::synth::{Ctf, Micrograph, MicrographConfig, ParticleKind, generate};
use trimtab_data::{Image, discs};

/// Sets differ in `index` as much as in `seed`.
fn set(config: &MicrographConfig, threads: usize) -> Vec<Micrograph> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
    pool.install(|| (0..6u64).into_par_iter().map(|index| generate(config, 7, index)).collect())
}

/// Nothing but ice and particles: no carbon, contamination, debris, gradient or vignetting.
fn plain() -> MicrographConfig {
    MicrographConfig {
        ice_gradient: 0.0,
        vignetting: 0.0,
        carbon_edge_probability: 0.0,
        contamination: 0.0,
        debris: 0.0,
        ..MicrographConfig::default()
    }
}

fn prevalence(micrograph: &Micrograph) -> f64 {
    let foreground = micrograph.mask.values.iter().filter(|&&v| v == 1).count();
    foreground as f64 / micrograph.mask.values.len() as f64
}

#[test]
fn bits_depend_on_seed_and_index_alone() {
    let config = MicrographConfig { width: 120, height: 97, ..MicrographConfig::default() };
    let one = set(&config, 1);
    assert_eq!(one, set(&config, 4));
    assert_eq!(one[3], generate(&config, 7, 3));
    assert_ne!(one[3].image, one[4].image);
    assert_ne!(one[3].image, generate(&config, 8, 3).image);
}

#[test]
fn noise_and_optics_leave_the_particles_where_they_are() {
    let config = MicrographConfig::default();
    let noisier = MicrographConfig { signal_to_noise: 0.01, defocus: [0.5, 0.6], ..config.clone() };
    assert_eq!(generate(&config, 1, 1).particles, generate(&noisier, 1, 1).particles);
}

#[test]
fn the_mask_is_the_discs_of_the_particles() {
    for (width, height, diameter) in [(256, 256, 26.0), (200, 150, 41.3), (96, 96, 12.0), (61, 33, 9.5)] {
        let config =
            MicrographConfig { width, height, particle_diameter: diameter, ..MicrographConfig::default() };
        let micrograph = generate(&config, 2, 5);
        assert_eq!(
            micrograph.mask,
            discs::render(width, height, &micrograph.particles, None).expect("valid particles")
        );
        assert!(!micrograph.particles.is_empty());
        for (i, p) in micrograph.particles.iter().enumerate() {
            assert_eq!((p.diameter, p.score), (Some(diameter), None));
            assert!(p.x >= 0.0 && p.x <= width as f64 - 1.0 && p.y >= 0.0 && p.y <= height as f64 - 1.0);
            for q in &micrograph.particles[..i] {
                assert!((p.x - q.x).hypot(p.y - q.y) >= diameter);
            }
        }
    }
}

#[test]
fn prevalence_is_the_density_asked_for() {
    for density in [0.05, 0.2, 0.3, 0.4] {
        let config = MicrographConfig { density, width: 300, height: 220, ..plain() };
        for index in 0..4 {
            let found = prevalence(&generate(&config, 3, index));
            assert!((found - density).abs() < 0.01, "{found} for {density}");
        }
    }
}

#[test]
fn a_density_beyond_packing_gives_what_fits() {
    let found = prevalence(&generate(&MicrographConfig { density: 1.0, ..plain() }, 3, 0));
    assert!((0.42..0.6).contains(&found), "{found}");
}

#[test]
fn density_zero_and_particles_larger_than_the_image_give_an_empty_mask() {
    let empty = MicrographConfig { density: 0.0, ..plain() };
    let giant = MicrographConfig { particle_diameter: 400.0, ..plain() };
    for config in [empty, giant] {
        let micrograph = generate(&config, 1, 0);
        assert!(micrograph.particles.is_empty());
        assert!(micrograph.mask.values.iter().all(|&v| v == 0));
        assert!(micrograph.image.pixels.iter().any(|&v| v != micrograph.image.pixels[0]));
    }
}

#[test]
fn every_size_works() {
    for (width, height) in [(16, 16), (1, 1), (1, 40), (96, 96), (97, 131), (512, 384), (0, 5), (0, 0)] {
        let config = MicrographConfig { width, height, ..MicrographConfig::default() };
        let micrograph = generate(&config, 1, 2);
        assert_eq!((micrograph.image.width, micrograph.image.height), (width, height));
        assert_eq!(micrograph.image.pixels.len(), width * height);
        assert_eq!(micrograph.mask.values.len(), width * height);
    }
}

#[test]
fn pixels_are_whole_numbers_of_sixteen_bits_around_the_middle() {
    let image = generate(&MicrographConfig { density: 0.0, ..plain() }, 4, 0).image;
    assert!(image.pixels.iter().all(|&v| v.fract() == 0.0 && (0.0..=65_535.0).contains(&v)));
    let count = image.pixels.len() as f64;
    let mean = image.pixels.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let variance = image.pixels.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
    assert!((mean - 32_768.0).abs() < 150.0, "{mean}");
    assert!((variance.sqrt() - 6_500.0).abs() < 150.0, "{}", variance.sqrt());
}

/// What the particles alone add to the image, in standard deviations of the noise.
fn signal(config: &MicrographConfig, index: u64) -> (Vec<f64>, Micrograph) {
    let with = generate(config, 5, index);
    let without = generate(&MicrographConfig { signal_to_noise: 0.0, ..config.clone() }, 5, index);
    let pixels = with.image.pixels.iter().zip(&without.image.pixels);
    (pixels.map(|(a, b)| f64::from(a - b) / 6_500.0).collect(), with)
}

#[test]
fn the_signal_to_noise_ratio_is_the_one_asked_for() {
    for particle in [ParticleKind::HollowSphere, ParticleKind::Asymmetric] {
        for asked in [0.05, 0.4] {
            let config =
                MicrographConfig { signal_to_noise: asked, defocus: [2.0, 2.0], particle, ..plain() };
            let (signal, micrograph) = signal(&config, 1);
            let inside: Vec<f64> = signal
                .iter()
                .zip(&micrograph.mask.values)
                .filter_map(|(s, &m)| (m == 1).then_some(s * s))
                .collect();
            let found = inside.iter().sum::<f64>() / inside.len() as f64;
            assert!((0.7..1.4).contains(&(found / asked)), "{particle:?}: {found} for {asked}");
        }
    }
}

#[test]
fn particles_are_dark_and_hollow_ones_are_rings() {
    let (signal, micrograph) = signal(&MicrographConfig { signal_to_noise: 0.4, ..plain() }, 2);
    let mean_at = |from: f64, to: f64| {
        let (mut sum, mut count) = (0.0, 0);
        for p in &micrograph.particles {
            for (i, value) in signal.iter().enumerate() {
                let r = ((i % 256) as f64 - p.x).hypot((i / 256) as f64 - p.y) / 26.0;
                if (from..to).contains(&r) {
                    sum += value;
                    count += 1;
                }
            }
        }
        sum / f64::from(count)
    };
    let (middle, ring, outside) = (mean_at(0.0, 0.2), mean_at(0.3, 0.45), mean_at(0.55, 0.65));
    assert!(ring < middle - 0.2 && ring < -0.3 && outside > 0.0, "{middle} {ring} {outside}");
}

#[test]
fn carbon_holds_no_particles_and_comes_in_its_share_of_micrographs() {
    let config = MicrographConfig { carbon_edge_probability: 0.25, ..plain() };
    let all_carbon = MicrographConfig { carbon_edge_probability: 1.0, ..plain() };
    for seed in 0..5 {
        // Fewer particles tell carbon: the density is that of the free area.
        let with_carbon = (0..12).filter(|&i| prevalence(&generate(&config, seed, i)) < 0.28).count();
        assert!((2..=4).contains(&with_carbon), "{with_carbon} of 12");
        let covered = prevalence(&generate(&all_carbon, seed, 0));
        assert!((0.1..0.29).contains(&covered), "{covered}");
    }
}

/// Power at whole frequencies `k / size`, mean over circles, of a square image under a Hann window.
fn radial_power(image: &Image) -> Vec<f64> {
    let size = image.width;
    let mean = image.pixels.iter().sum::<f32>() / image.pixels.len() as f32;
    let hann = |i: usize| {
        let turn = std::f64::consts::TAU * (i as f64 + 0.5) / size as f64;
        0.5 - 0.5 * turn.cos()
    };
    let mut field: Vec<Complex<f64>> = image
        .pixels
        .iter()
        .enumerate()
        .map(|(i, &v)| Complex::new(f64::from(v - mean) * hann(i % size) * hann(i / size), 0.0))
        .collect();
    let fft = FftPlanner::new().plan_fft_forward(size);
    for _ in 0..2 {
        fft.process(&mut field);
        field = (0..size * size).map(|i| field[(i % size) * size + i / size]).collect();
    }
    let (mut power, mut count) = (vec![0.0; size / 2], vec![0.0; size / 2]);
    for (i, value) in field.iter().enumerate() {
        let signed = |k: usize| {
            if k < size / 2 { k as f64 } else { k as f64 - size as f64 }
        };
        let ring = signed(i % size).hypot(signed(i / size)).round() as usize;
        if ring < size / 2 {
            power[ring] += value.norm_sqr();
            count[ring] += 1.0;
        }
    }
    power.iter().zip(count).map(|(p, c)| p / c).collect()
}

#[test]
fn power_vanishes_where_the_contrast_transfer_function_does() {
    let (size, pixel_size, defocus) = (512usize, 2.5, 1.6);
    let config = MicrographConfig {
        width: size,
        height: size,
        pixel_size,
        density: 0.0,
        signal_to_noise: 0.0,
        ice_noise: 1.0,
        b_factor: 0.0,
        astigmatism: 0.0,
        defocus: [defocus, defocus],
        ..plain()
    };
    let power = radial_power(&generate(&config, 6, 0).image);
    // χ(s) + asin w₂ = nπ with χ = πλs²(Δf - ½λ²s²Cs), a quadratic in s²; 300 kV, 2.7 mm, w₂ = 0.07.
    let (lambda, cs, df) = (0.019_687, 2.7e7, defocus * 1e4);
    let zero = |n: f64| {
        let a = 0.5 * lambda * lambda * cs;
        let c = (n - 0.07f64.asin() / std::f64::consts::PI) / lambda;
        ((df - (df * df - 4.0 * a * c).sqrt()) / (2.0 * a)).sqrt() * pixel_size * size as f64
    };
    let mut checked = 0;
    for n in 1..12 {
        let (before, here, after) = (zero(f64::from(n) - 0.5), zero(f64::from(n)), zero(f64::from(n) + 0.5));
        if after > 0.47 * size as f64 {
            break;
        }
        let range = before.round() as usize..after.round() as usize;
        let lowest = range.min_by(|&a, &b| power[a].total_cmp(&power[b])).expect("a range");
        assert!((lowest as f64 - here).abs() <= 1.5, "zero {n}: bin {lowest}, expected {here}");
        let peak = power[after.round() as usize];
        assert!(power[lowest] < 0.15 * peak, "zero {n}: {} beside a peak of {peak}", power[lowest]);
        checked += 1;
    }
    assert!(checked >= 4, "{checked} zeros");
}

#[test]
fn the_micrograph_tells_its_own_contrast_transfer_function() {
    let config = MicrographConfig { defocus: [1.0, 2.0], astigmatism: 0.3, ..plain() };
    for index in 0..20 {
        let ctf = generate(&MicrographConfig { width: 16, height: 16, ..config.clone() }, 9, index).ctf;
        let (mean, difference) = (0.5 * (ctf.defocus_1 + ctf.defocus_2), ctf.defocus_1 - ctf.defocus_2);
        assert!((1e4..=2e4).contains(&mean) && (0.0..=3e3).contains(&difference), "{ctf:?}");
        assert!((ctf.wavelength - Ctf::wavelength_of(300.0)).abs() < 1e-12);
    }
}

#[test]
fn magnification_keeps_the_specimen() {
    let config = MicrographConfig::default();
    let finer = config.magnified(3.0);
    let size = |c: &MicrographConfig| c.pixel_size * c.particle_diameter;
    assert!((size(&config) - size(&finer)).abs() < 1e-9);
    let back = finer.magnified(1.0 / 3.0);
    assert!((back.signal_to_noise - config.signal_to_noise).abs() < 1e-9);
    assert!((back.ice_noise - config.ice_noise).abs() < 1e-9);
}

/// Numbers in range, far out of it, and not numbers at all.
fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        0.0..1.0,
        0.0..40.0,
        -1e3..1e3,
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(0.0),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_configuration_panics(
        (width, height) in (0usize..40, 0usize..40),
        v in proptest::collection::vec(any_value(), 17),
        asymmetric in any::<bool>(),
        seed in any::<u64>(),
        index in any::<u64>(),
    ) {
        let config = MicrographConfig {
            width,
            height,
            pixel_size: v[0],
            particle_diameter: v[1],
            density: v[2],
            particle: if asymmetric { ParticleKind::Asymmetric } else { ParticleKind::HollowSphere },
            defocus: [v[3], v[4]],
            astigmatism: v[5],
            voltage: v[6],
            spherical_aberration: v[7],
            amplitude_contrast: v[8],
            b_factor: v[9],
            signal_to_noise: v[10],
            ice_noise: v[11],
            ice_gradient: v[12],
            vignetting: v[13],
            carbon_edge_probability: v[14],
            contamination: v[15],
            debris: v[16],
        };
        let micrograph = generate(&config, seed, index);
        prop_assert_eq!(micrograph.image.pixels.len(), width * height);
        prop_assert!(micrograph.image.pixels.iter().all(|v| (0.0..=65_535.0).contains(v)));
    }
}
