//! Writes synthetic micrographs as 16-bit PNG, their masks as 8-bit PNG and a figure of each, to look at:
//! `cargo run --release -p trimtab-data --example micrograph -- FOLDER [COUNT [WIDTH HEIGHT DIAMETER]]`

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use image::{ImageBuffer, Luma};
use trimtab_data::Image;
use trimtab_data::overlay::panel;
use trimtab_data::picking::{match_particles, pick};
use trimtab_data::synth::{Micrograph, MicrographConfig, ParticleKind, generate};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let folder =
        PathBuf::from(arguments.next().ok_or("usage: micrograph FOLDER [COUNT [WIDTH HEIGHT DIAMETER]]")?);
    let numbers: Vec<f64> = arguments.map(|a| a.to_string_lossy().parse()).collect::<Result<_, _>>()?;
    std::fs::create_dir_all(&folder)?;
    let mut config = MicrographConfig::default();
    if let [_, width, height, diameter] = numbers[..] {
        (config.width, config.height) = (width as usize, height as usize);
        config = config.magnified(diameter / config.particle_diameter);
    }
    for index in 0..numbers.first().map_or(3, |&n| n as u64) {
        for (name, particle) in
            [("hollow", ParticleKind::HollowSphere), ("asymmetric", ParticleKind::Asymmetric)]
        {
            config.particle = particle;
            let start = Instant::now();
            let micrograph = generate(&config, 0, index);
            let seconds = start.elapsed().as_secs_f64();
            save(&folder, &format!("{name}_{index}"), &config, &micrograph)?;
            let covered = micrograph.mask.values.iter().filter(|&&v| v == 1).count();
            println!(
                "{name}_{index}: {} particles, {:.3} of the area, {seconds:.3} s",
                micrograph.particles.len(),
                covered as f64 / micrograph.mask.values.len() as f64
            );
        }
    }
    Ok(())
}

fn save(
    folder: &std::path::Path,
    name: &str,
    config: &MicrographConfig,
    micrograph: &Micrograph,
) -> Result<(), Box<dyn Error>> {
    let Micrograph { image, particles, mask, .. } = micrograph;
    let (width, height) = (image.width as u32, image.height as u32);
    let grey: Vec<u16> = image.pixels.iter().map(|&v| v as u16).collect();
    ImageBuffer::<Luma<u16>, _>::from_raw(width, height, grey)
        .ok_or("the image has no pixels")?
        .save(folder.join(format!("{name}.png")))?;
    let labels: Vec<u8> = mask.values.iter().map(|&v| if v == 1 { 255 } else { 0 }).collect();
    ImageBuffer::<Luma<u8>, _>::from_raw(width, height, labels)
        .ok_or("the image has no pixels")?
        .save(folder.join(format!("{name}_mask.png")))?;

    let probability = pretend_prediction(image, micrograph, config.particle_diameter);
    let picks = pick(&probability, 0.5, config.particle_diameter, 0.5);
    let score = match_particles(&picks, particles, config.particle_diameter / 2.0);
    let caption = format!(
        "{} of {} particles found, {} picks wrong",
        score.true_positive,
        particles.len(),
        score.false_positive
    );
    let figure = panel(image, Some(mask), Some(&probability), &picks, 0.5, &caption);
    std::fs::write(folder.join(format!("{name}_figure.png")), figure.to_png())?;
    Ok(())
}

/// What an imperfect network might say: the truth, uneven from place to place and blurred at the edges.
fn pretend_prediction(image: &Image, micrograph: &Micrograph, diameter: f64) -> Image {
    let mut probability = Image::filled(image.width, image.height, 0.0);
    for (i, value) in probability.pixels.iter_mut().enumerate() {
        let (x, y) = ((i % image.width) as f64, (i / image.width) as f64);
        let unevenness = (x * 2.1 / diameter).sin() * (y * 1.7 / diameter + 0.5 * x / diameter).sin();
        let logit = micrograph
            .particles
            .iter()
            .map(|p| 1.0 - (p.x - x).hypot(p.y - y) / (diameter / 2.0))
            .fold(-1.0, f64::max);
        *value = (1.0 / (1.0 + (-7.0 * logit + 2.5 * unevenness).exp())) as f32;
    }
    probability
}
