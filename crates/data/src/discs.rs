//! Particle coordinates rendered as a mask of filled discs.

use crate::coordinates::Particle;
use crate::error::{DataError, Result};
use crate::image::Labels;

/// The configuration key that supplies a diameter where the coordinates have none.
const DIAMETER_KEY: &str = "data.particle_diameter";

/// Draws each particle as a filled disc of 1 on a background of 0.
///
/// Pixel (x, y) belongs to a particle when the distance of the pixel's centre to the particle's centre is at
/// most half the diameter; the centre of the first pixel is (0, 0). A particle's own diameter is used where it
/// has one, else `default_diameter`; both in pixels. Particles partly or wholly outside the image are clipped.
///
/// # Errors
/// [`DataError::Content`] with `data.particle_diameter` as the place: a particle with neither diameter, a
/// diameter that is not a positive number, a centre that is not a number, or an image too large to address.
pub fn render(
    width: usize,
    height: usize,
    particles: &[Particle],
    default_diameter: Option<f64>,
) -> Result<Labels> {
    let wrong = |problem: String| DataError::content(DIAMETER_KEY, problem);
    if width.checked_mul(height).is_none() {
        return Err(wrong(format!("cannot render discs on an image of {width} x {height} pixels")));
    }
    let mut labels = Labels::filled(width, height, 0);
    for (index, particle) in particles.iter().enumerate() {
        let place = || format!("particle {} at ({}, {})", index + 1, particle.x, particle.y);
        let diameter = particle.diameter.or(default_diameter).ok_or_else(|| {
            wrong(format!("{} has no diameter in its file; set this key to a diameter in pixels", place()))
        })?;
        if !(diameter.is_finite() && diameter > 0.0) {
            return Err(wrong(format!(
                "{} has diameter {diameter}; it must be greater than 0 pixels",
                place()
            )));
        }
        if !(particle.x.is_finite() && particle.y.is_finite()) {
            return Err(wrong(format!("{} is not at a finite position", place())));
        }
        let radius = diameter / 2.0;
        let columns = covered(particle.x, radius, width);
        for y in covered(particle.y, radius, height) {
            let dy = y as f64 - particle.y;
            let row = &mut labels.values[y * width..][..width];
            for x in columns.clone() {
                let dx = x as f64 - particle.x;
                if dx * dx + dy * dy <= radius * radius {
                    row[x] = 1;
                }
            }
        }
    }
    Ok(labels)
}

/// The pixels of one axis that may lie within `radius` of `centre`.
fn covered(centre: f64, radius: f64, length: usize) -> std::ops::Range<usize> {
    // `as` saturates, so a disc left of the image ends at 0 and one right of it starts at `length`.
    let first = ((centre - radius).ceil() as usize).min(length);
    let end = ((centre + radius).floor() + 1.0) as usize;
    first..end.clamp(first, length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(x: f64, y: f64, diameter: Option<f64>) -> Particle {
        Particle { x, y, diameter, score: None }
    }

    fn drawing(labels: &Labels) -> String {
        labels
            .values
            .chunks(labels.width)
            .map(|row| row.iter().map(|&v| if v == 1 { '#' } else { '.' }).collect::<String>())
            .collect::<Vec<_>>()
            .join("/")
    }

    #[test]
    fn a_pixel_at_exactly_half_the_diameter_is_inside() {
        assert_eq!(
            drawing(&render(5, 5, &[at(2.0, 2.0, Some(2.0))], None).unwrap()),
            "...../..#../.###./..#../....."
        );
    }

    #[test]
    fn the_own_diameter_wins_over_the_default() {
        let labels = render(3, 1, &[at(1.0, 0.0, Some(0.5))], Some(10.0)).unwrap();
        assert_eq!(drawing(&labels), ".#.");
    }

    #[test]
    fn a_particle_over_the_edge_is_clipped_and_one_outside_draws_nothing() {
        assert_eq!(drawing(&render(3, 3, &[at(-1.0, -1.0, Some(4.0))], None).unwrap()), "#../.../...");
        let outside = [at(-50.0, 1.0, Some(4.0)), at(1.0, 1e300, Some(4.0)), at(-1e300, 1.0, Some(4.0))];
        assert_eq!(drawing(&render(3, 3, &outside, None).unwrap()), ".../.../...");
        assert_eq!(drawing(&render(2, 2, &[at(0.0, 0.0, Some(1e300))], None).unwrap()), "##/##");
    }

    #[test]
    fn a_particle_without_any_diameter_names_the_key() {
        let error = render(3, 3, &[at(0.0, 0.0, Some(1.0)), at(1.5, 2.0, None)], None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "data.particle_diameter: particle 2 at (1.5, 2) has no diameter in its file; \
             set this key to a diameter in pixels"
        );
    }

    #[test]
    fn impossible_numbers_are_errors() {
        for particle in [at(0.0, 0.0, Some(0.0)), at(0.0, 0.0, Some(f64::NAN)), at(f64::NAN, 0.0, Some(1.0))]
        {
            assert!(render(3, 3, &[particle], None).is_err(), "{particle:?}");
        }
        assert!(render(usize::MAX, 2, &[], None).is_err());
    }

    proptest! {
        #[test]
        fn every_pixel_obeys_the_distance_rule(
            x in -5.0..25.0f64, y in -5.0..25.0f64, diameter in 0.01..30.0f64, width in 1usize..20, height in 1usize..20,
        ) {
            let labels = render(width, height, &[at(x, y, None)], Some(diameter)).unwrap();
            for (index, &value) in labels.values.iter().enumerate() {
                let (dx, dy) = ((index % width) as f64 - x, (index / width) as f64 - y);
                let inside = dx * dx + dy * dy <= (diameter / 2.0) * (diameter / 2.0);
                prop_assert_eq!(value == 1, inside);
            }
        }
    }
}
