//! Datasets on real micrographs (EMPIAR-10146); skipped where they are not there.

use std::path::PathBuf;

use trimtab_data::audit::inspect;
use trimtab_data::dataset::{Dataset, FolderSpec, Options, Source};
use trimtab_data::tiles;

/// The folder of the shared data set, or `None` after saying so.
fn apoferritin() -> Option<PathBuf> {
    let shared = std::env::var_os("TRIMTAB_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let root = shared.join("data/cryoem_apoferritin_empiar10146");
    if root.is_dir() {
        return Some(root);
    }
    eprintln!("skipped: {} does not exist (set TRIMTAB_SHARED)", root.display());
    None
}

fn open(spec: FolderSpec) -> Dataset {
    Dataset::open(Source::Folder(spec), Options::default()).unwrap()
}

fn masks(root: &PathBuf) -> FolderSpec {
    FolderSpec { masks: Some("masks_derived".into()), ..FolderSpec::new(root, "micrographs") }
}

#[test]
fn twelve_micrographs_pair_with_their_masks() {
    let Some(root) = apoferritin() else { return };
    let dataset = open(masks(&root));
    assert_eq!(dataset.len(), 12);
    assert_eq!(dataset.name(0), "May08_03.05.02");
    let sizes = dataset.sizes().unwrap();
    assert_eq!(sizes, [(1240, 1200); 12]);
    let grid = tiles::grid(&sizes, 256);
    assert_eq!(grid.len(), 12 * 16);

    let pair = dataset.load(0).unwrap();
    let mean = pair.image.pixels.iter().map(|&p| f64::from(p)).sum::<f64>() / 1_488_000.0;
    assert!(mean.abs() < 1e-4, "{mean}");
    let patch = tiles::cut(&pair, grid[5]);
    assert_eq!(patch.image[300], pair.image.pixels[(256 + 1) * 1240 + 256 + 44]);
    assert!(patch.labels.unwrap().iter().all(|l| (0..=1).contains(l)));
}

#[test]
fn the_audit_finds_sound_data_and_a_third_of_the_pixels_positive() {
    let Some(root) = apoferritin() else { return };
    let (train, val) = open(masks(&root)).split_last(3).unwrap();
    let report = inspect(&[("train", &train), ("val", &val)], 256);
    assert_eq!(report.problems, []);
    assert_eq!((report.splits[0].images, report.splits[1].images), (9, 3));
    assert_eq!((report.splits[0].tiles, report.splits[1].tiles), (144, 48));
    for split in &report.splits {
        let prevalence = split.labels.as_ref().unwrap().prevalence.unwrap();
        assert!((0.30..=0.39).contains(&prevalence), "{}: {prevalence}", split.name);
    }
}

#[test]
fn coordinates_of_the_same_micrographs_render_to_similar_masks() {
    let Some(root) = apoferritin() else { return };
    let drawn = open(masks(&root));
    let spec = FolderSpec {
        coordinates: Some("coords_derived".into()),
        particle_diameter: Some(62.0),
        ..FolderSpec::new(&root, "micrographs")
    };
    let rendered = open(spec);
    assert_eq!(rendered.len(), 12);
    for i in [0, 11] {
        let particles = rendered.particles(i).unwrap().unwrap();
        assert!((100..200).contains(&particles.len()), "{}", particles.len());
        let (a, b) = (drawn.load(i).unwrap(), rendered.load(i).unwrap());
        assert_eq!(a.image, b.image);
        let both = a.labels.as_ref().unwrap().iter().zip(b.labels.as_ref().unwrap());
        let (mut shared, mut either) = (0, 0);
        for (&x, &y) in both {
            shared += usize::from(x == 1 && y == 1);
            either += usize::from(x == 1 || y == 1);
        }
        let overlap = shared as f64 / either as f64;
        assert!(overlap > 0.8, "{}: intersection over union {overlap}", rendered.name(i));
    }
}

#[test]
fn the_fingerprint_is_the_same_twice() {
    let Some(root) = apoferritin() else { return };
    let dataset = open(masks(&root));
    assert_eq!(dataset.fingerprint().unwrap(), dataset.fingerprint().unwrap());
}
