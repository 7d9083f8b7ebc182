//! `trimtab predict`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use trimtab_data::atomic::write_atomic;
use trimtab_data::dataset::normalise;
use trimtab_data::formats::{self, cryoppp, eman_box, png, star, tiff, topaz};
use trimtab_data::overlay::overlay;
use trimtab_data::picking::pick;
use trimtab_data::{DataError, MicrographParticles};

use crate::args::PredictArgs;
use crate::commands::open_run;
use crate::failure::{DONE, Failure};

pub fn run(args: &PredictArgs) -> Result<u8, Failure> {
    let loaded = open_run(&args.run)?;
    let common = loaded.recipe.common();
    let threshold = args.threshold.unwrap_or_else(|| common.threshold());
    if !(0.0..=1.0).contains(&threshold) {
        return Err(Failure::usage(format!("--threshold {threshold}: accepted is 0 to 1")));
    }
    let inputs = list(&args.inputs)?;
    let predictor = loaded.recipe.predictor(&args.run, &args.device)?;
    let diameter = args.diameter.or_else(|| predictor.particle_diameter());
    if diameter.is_none_or(|d| !(d.is_finite() && d > 0.0)) {
        return Err(Failure::usage("the diameter of the particles is not known: give --diameter PIXELS"));
    }
    let diameter = diameter.unwrap_or_default();
    fs::create_dir_all(&args.out).map_err(|e| DataError::io(&args.out, "cannot create", e))?;
    for (stem, path) in &inputs {
        let image = formats::read_image(path)?;
        let mut scaled = image.clone();
        normalise(&mut scaled, common.data.normalise());
        let map = predictor.predict(&scaled)?;
        let picks = pick(&map, threshold as f32, diameter, args.min_score);
        let at = |ending: &str| args.out.join(format!("{stem}{ending}"));

        tiff::write_f32(&at("_probability.tif"), &map)?;
        let mask: Vec<u8> =
            map.pixels.iter().map(|p| if f64::from(*p) > threshold { 255 } else { 0 }).collect();
        png::write_grey8(&at("_mask.png"), map.width, map.height, &mask)?;
        let picture = overlay(&image, Some(&map), None, &picks, threshold as f32).to_png();
        write_atomic(&at("_overlay.png"), |w| w.write_all(&picture))?;
        let name = path.file_name().map_or_else(|| stem.clone(), |n| n.to_string_lossy().into_owned());
        let count = picks.len();
        let list = MicrographParticles { micrograph: name, particles: picks };
        star::write_coordinates(&at(".star"), std::slice::from_ref(&list))?;
        eman_box::write(&at(".box"), &list, diameter.round().max(1.0) as usize)?;
        topaz::write(&at(".txt"), std::slice::from_ref(&list))?;
        cryoppp::write(&at(".csv"), &list)?;
        let covered = mask.iter().filter(|v| **v > 0).count() as f64 / mask.len().max(1) as f64;
        eprintln!("{}: {count} particles, {:.1} % of the area", path.display(), 100.0 * covered);
    }
    Ok(DONE)
}

/// Images by the stem of their results' names, folders opened.
fn list(inputs: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut found = BTreeMap::new();
    for input in inputs {
        if input.is_dir() {
            let before = found.len();
            let entries = fs::read_dir(input).map_err(|e| DataError::io(input, "cannot list", e))?;
            for entry in entries {
                let path = entry.map_err(|e| DataError::io(input, "cannot list", e))?.path();
                if path.is_file() && stem_of(&path).is_some() {
                    add(&mut found, path)?;
                }
            }
            if found.len() == before {
                return Err(Failure::usage(format!(
                    "{}: no images in it (looked for {})",
                    input.display(),
                    formats::IMAGE_EXTENSIONS.join(", ")
                )));
            }
        } else if input.is_file() {
            add(&mut found, input.clone())?;
        } else {
            return Err(Failure::usage(format!("{}: no such file or folder", input.display())));
        }
    }
    Ok(found)
}

/// The name without its image extension; none where it has no such extension.
fn stem_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let lower = name.to_lowercase();
    let extension = formats::IMAGE_EXTENSIONS
        .iter()
        .filter(|e| lower.ends_with(&format!(".{e}")))
        .max_by_key(|e| e.len())?;
    let stem = &name[..name.len() - extension.len() - 1];
    (!stem.is_empty()).then(|| stem.to_owned())
}

fn add(found: &mut BTreeMap<String, PathBuf>, path: PathBuf) -> Result<(), Failure> {
    let fallback =
        || path.file_name().map_or_else(|| "image".to_owned(), |n| n.to_string_lossy().into_owned());
    let stem = stem_of(&path).unwrap_or_else(fallback);
    if let Some(other) = found.insert(stem.clone(), path.clone())
        && other != path
    {
        let (a, b) = (other.display(), path.display());
        return Err(Failure::usage(format!("{a} and {b}: results of both would be named {stem}")));
    }
    Ok(())
}
