//! Picking on synthetic micrographs, where the truth is known.

use trimtab_data::picking::{PickScore, estimate_diameter, match_particles, pick};
use trimtab_data::synth::{MicrographConfig, generate};
use trimtab_data::{Image, Labels};

fn as_probability(mask: &Labels) -> Image {
    let pixels = mask.values.iter().map(|&v| v as f32).collect();
    Image { width: mask.width, height: mask.height, pixels }
}

/// Sums over several micrographs.
fn check_recovery(config: &MicrographConfig, distort: impl Fn(usize, f32) -> f32) {
    let mut counts = [0; 3];
    for index in 0..6 {
        let micrograph = generate(config, 11, index);
        let mut probability = as_probability(&micrograph.mask);
        for (i, p) in probability.pixels.iter_mut().enumerate() {
            *p = distort(i, *p);
        }
        let picks = pick(&probability, 0.5, config.particle_diameter, 0.4);
        let score = match_particles(&picks, &micrograph.particles, config.particle_diameter / 3.0);
        counts[0] += score.true_positive;
        counts[1] += score.false_positive;
        counts[2] += score.false_negative;
    }
    let score = PickScore::from_counts(counts[0], counts[1], counts[2]);
    assert!(score.precision >= 0.95 && score.recall >= 0.95, "{config:?}: {score:?}");
}

#[test]
fn picking_recovers_the_particles_of_the_true_mask() {
    for (diameter, density) in [(26.0, 0.3), (26.0, 0.45), (10.0, 0.3), (60.0, 0.3), (17.3, 0.1)] {
        let config = MicrographConfig { particle_diameter: diameter, density, ..MicrographConfig::default() };
        check_recovery(&config, |_, p| p);
    }
}

#[test]
fn picking_survives_a_hesitant_and_speckled_map() {
    let config = MicrographConfig::default();
    // Probabilities of 0.2 and 0.8, every seventh pixel the wrong way round.
    check_recovery(&config, |i, p| if i % 7 == 0 { 0.8 - 0.6 * p } else { 0.2 + 0.6 * p });
}

#[test]
fn the_diameter_is_estimated_from_the_mask_even_where_discs_touch() {
    for (diameter, density, tolerance) in [(26.0, 0.3, 0.03), (12.0, 0.3, 0.05), (26.0, 0.6, 0.12)] {
        let config = MicrographConfig { particle_diameter: diameter, density, ..MicrographConfig::default() };
        for index in 0..4 {
            let mask = generate(&config, 12, index).mask;
            let found = estimate_diameter(&mask).expect("particles");
            assert!((found / diameter - 1.0).abs() < tolerance, "{found} for {diameter}");
        }
    }
}
