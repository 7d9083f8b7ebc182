//! `trimtab synth micrographs`.

use std::fs;

use trimtab_data::formats::{mrc, png, star};
use trimtab_data::synth::{MicrographConfig, generate};
use trimtab_data::{DataError, Image, MicrographParticles};

use crate::args::MicrographArgs;
use crate::failure::{DONE, Failure};

pub fn run(args: &MicrographArgs) -> Result<u8, Failure> {
    let used = fs::read_dir(&args.out).is_ok_and(|mut entries| entries.next().is_some());
    if used {
        return Err(Failure::usage(format!("{}: is not empty; give a new folder", args.out.display())));
    }
    let [micrographs, masks, coordinates] =
        ["micrographs", "masks", "coordinates"].map(|name| args.out.join(name));
    for folder in [&micrographs, &masks, &coordinates] {
        fs::create_dir_all(folder).map_err(|e| DataError::io(folder, "cannot create", e))?;
    }
    let side = args.size as usize;
    let config = MicrographConfig {
        width: side,
        height: side,
        particle_diameter: args.diameter,
        density: args.density,
        signal_to_noise: args.signal_to_noise,
        ..MicrographConfig::default()
    };
    let mut particles = 0;
    for index in 0..args.count {
        let made = generate(&config, args.seed, index);
        let name = format!("micrograph_{index:04}");
        let file = format!("{name}.{}", args.format);
        if args.format == "mrc" {
            mrc::write(&micrographs.join(&file), &made.image, mrc::Mode::Float32, config.pixel_size)?;
        } else {
            png::write_grey16(&micrographs.join(&file), side, side, &stretched(&made.image))?;
        }
        let mask: Vec<u8> = made.mask.values.iter().map(|v| if *v == 1 { 255 } else { 0 }).collect();
        png::write_grey8(&masks.join(format!("{name}.png")), side, side, &mask)?;
        particles += made.particles.len();
        let list = MicrographParticles { micrograph: file, particles: made.particles };
        star::write_coordinates(&coordinates.join(format!("{name}.star")), &[list])?;
    }
    eprintln!("wrote {} micrographs with {particles} particles to {}", args.count, args.out.display());
    Ok(DONE)
}

/// Intensities stretched to 0..=65535, as a detector's integers.
fn stretched(image: &Image) -> Vec<u16> {
    let low = image.pixels.iter().copied().fold(f32::INFINITY, f32::min);
    let high = image.pixels.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scale = if high > low { 65535.0 / (high - low) } else { 0.0 };
    image.pixels.iter().map(|p| ((p - low) * scale).round() as u16).collect()
}
