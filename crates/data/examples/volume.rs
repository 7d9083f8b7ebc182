//! Writes montages of slices of the synthetic volumes, plain and augmented, as PNG to look at, and times the
//! augmentation: `cargo run --release -p trimtab-data --example volume -- FOLDER [COUNT]`
//!
//! Each row of a montage is a volume: slices evenly spaced along depth, then the same with their labels in colour
//! (1 red, 2 blue, ignored green). The patches of `patch_class` have no labels; the first half are of class 0.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use trimtab_data::augment3d::Augment3d;
use trimtab_data::formats::png::write_rgb8;
use trimtab_data::rng::{Stream, rng};
use trimtab_data::synth::{MembraneConfig, OrganConfig, PatchClassConfig, membranes, organ, patch_class};
use trimtab_data::volume::{IGNORE, Shape, Volume, VolumePatch, voxels};

/// Slices shown of a volume.
const SLICES: usize = 6;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: volume FOLDER [COUNT]")?);
    let count: u64 = arguments.next().map_or(Ok(4), |a| a.to_string_lossy().parse())?;
    std::fs::create_dir_all(&folder)?;

    let start = Instant::now();
    let organs: Vec<_> = (0..count).map(|i| labelled(organ(&OrganConfig::default(), 0, i))).collect();
    println!("organ: {:.1} ms each", per(start, count));
    montage(&folder.join("organ.png"), &organs)?;

    let start = Instant::now();
    let walls: Vec<_> = (0..count).map(|i| labelled(membranes(&MembraneConfig::default(), 0, i))).collect();
    println!("membranes: {:.1} ms each", per(start, count));
    montage(&folder.join("membranes.png"), &walls)?;

    let config = PatchClassConfig { positive_share: 0.5, ..PatchClassConfig::default() };
    let start = Instant::now();
    let mut patches: Vec<_> = (0..2 * count).map(|i| patch_class(&config, 0, i)).collect();
    println!("patch_class: {:.1} ms each", per(start, 2 * count));
    // Class 0 above class 1.
    patches.sort_by_key(|(_, class)| *class);
    let rows: Vec<_> = patches.into_iter().map(|(volume, _)| patch(volume, Vec::new())).collect();
    montage(&folder.join("patch_class.png"), &rows)?;

    if let Some(first) = organs.into_iter().next() {
        let first = normalised(first);
        let augment = Augment3d::nnunet([40, 56, 40]);
        let mut rows: Vec<_> = (0..count)
            .map(|i| augment.apply(first.clone(), [40, 56, 40], &mut rng(0, Stream::Augment, i)))
            .collect();
        rows.insert(0, first);
        montage(&folder.join("augmented.png"), &rows)?;
    }
    time([40, 56, 40])?;
    time([96; 3])?;
    Ok(())
}

fn per(start: Instant, count: u64) -> f64 {
    start.elapsed().as_secs_f64() * 1e3 / count.max(1) as f64
}

/// Milliseconds of the default augmentation, on average and with everything made at once.
fn time(target: Shape) -> Result<(), Box<dyn Error>> {
    const DRAWS: u64 = 200;
    let usual = Augment3d::nnunet(target);
    let everything = {
        let mut all = usual;
        for chance in [
            &mut all.rotation,
            &mut all.scaling,
            &mut all.noise,
            &mut all.blur,
            &mut all.brightness,
            &mut all.contrast,
            &mut all.low_resolution,
            &mut all.inverted_gamma,
            &mut all.gamma,
        ] {
            chance.probability = 1.0;
        }
        (all.blur_channel, all.low_resolution_channel) = (1.0, 1.0);
        all
    };
    for (name, augment) in [("default", usual), ("everything", everything)] {
        let start = Instant::now();
        let mut cutting = 0.0;
        for index in 0..DRAWS {
            let draw = augment.draw(1, target, &mut rng(1, Stream::Augment, index));
            let cut = Instant::now();
            let shape = draw.source_shape(target);
            let image = (0..voxels(shape)).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
            let source = VolumePatch { channels: 1, shape, image, labels: vec![1; voxels(shape)] };
            cutting += cut.elapsed().as_secs_f64();
            std::hint::black_box(draw.apply(source, target));
        }
        let milliseconds = per(start, DRAWS) - cutting * 1e3 / DRAWS as f64;
        println!(
            "augment {target:?}, {name}: {milliseconds:.2} ms each, from {:?} at most",
            augment.source_shape(target)
        );
    }
    Ok(())
}

fn labelled((volume, labels): (Volume, Vec<i32>)) -> VolumePatch {
    patch(volume, labels.into_iter().map(|l| u8::try_from(l).unwrap_or(IGNORE)).collect())
}

fn patch(volume: Volume, labels: Vec<u8>) -> VolumePatch {
    VolumePatch { channels: volume.channels, shape: volume.shape, image: volume.values, labels }
}

/// Mean 0, standard deviation 1.
fn normalised(mut patch: VolumePatch) -> VolumePatch {
    let n = patch.image.len() as f32;
    let mean = patch.image.iter().sum::<f32>() / n;
    let std = (patch.image.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt().max(1e-6);
    patch.image.iter_mut().for_each(|v| *v = (*v - mean) / std);
    patch
}

fn montage(path: &Path, rows: &[VolumePatch]) -> Result<(), Box<dyn Error>> {
    const GAP: usize = 2;
    let height = rows.iter().map(|p| p.shape[1] + GAP).sum::<usize>() + GAP;
    let widest = rows.iter().map(|p| p.shape[2]).max().unwrap_or(0);
    let width = 2 * SLICES * (widest + GAP) + GAP;
    let mut pixels = vec![[64u8, 64, 64]; width * height];
    let mut top = GAP;
    for patch in rows {
        let [depth, rows, columns] = patch.shape;
        let low = patch.image.iter().copied().fold(f32::INFINITY, f32::min);
        let high = patch.image.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for slice in 0..SLICES {
            let d = (2 * slice + 1) * depth / (2 * SLICES);
            for coloured in [false, true] {
                if coloured && patch.labels.is_empty() {
                    continue;
                }
                let left = GAP + (slice + if coloured { SLICES } else { 0 }) * (widest + GAP);
                for (h, w) in (0..rows).flat_map(|h| (0..columns).map(move |w| (h, w))) {
                    let at = (d * rows + h) * columns + w;
                    let grey = 255.0 * (patch.image[at] - low) / (high - low).max(1e-6);
                    let tint = match patch.labels.get(at) {
                        Some(1) => [255.0, 40.0, 40.0],
                        Some(2) => [60.0, 90.0, 255.0],
                        Some(&IGNORE) => [40.0, 200.0, 40.0],
                        _ => [grey; 3],
                    };
                    let share = if coloured { 0.45 } else { 0.0 };
                    pixels[(top + h) * width + left + w] =
                        tint.map(|t| ((1.0 - share) * grey + share * t) as u8);
                }
            }
        }
        top += rows + GAP;
    }
    // Small volumes are easier to see at twice their size.
    let doubled: Vec<[u8; 3]> =
        (0..4 * width * height).map(|i| pixels[i / (2 * width) / 2 * width + i % (2 * width) / 2]).collect();
    write_rgb8(path, 2 * width, 2 * height, &doubled)?;
    Ok(())
}
