//! Every real volume of the shared data folder opens; images and labels of a pair have one shape.
//!
//! The folder is `$TRIMTAB_SHARED`, by default `shared` beside the repository. Without it the tests are
//! skipped.

use std::path::{Path, PathBuf};

use trimtab_data::VolumeInfo;
use trimtab_data::formats::{
    Stored, VolumeWriter, open_volume, read_volume, read_volume_labels, volume_info, volume_stem,
};

fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TRIMTAB_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = root.join("data").join(folder);
    if path.is_dir() {
        Some(path)
    } else {
        eprintln!("skipped: {} does not exist", path.display());
        None
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn hippocampus_images_and_labels_have_one_grid() {
    let Some(folder) = shared("hippocampus_msd_task04") else { return };
    let list = |kind: &str| -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![folder.clone()];
        while let Some(folder) = folders.pop() {
            for path in files(&folder) {
                if path.is_dir() {
                    folders.push(path);
                } else if folder.ends_with(kind) && path.to_string_lossy().ends_with(".nii.gz") {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    };
    let (images, labels) = (list("images"), list("labels"));
    assert_eq!((images.len(), labels.len()), (261, 260));
    let mut pairs = 0;
    for image in &images {
        let info = volume_info(image, None).unwrap();
        assert_eq!(info.channels, 1);
        let Some(label) = labels.iter().find(|label| volume_stem(label) == volume_stem(image)) else {
            continue;
        };
        let labels = read_volume_labels(label, None).unwrap();
        assert_eq!(labels.shape, info.shape, "{}", image.display());
        assert_eq!(labels.geometry.stored, info.geometry.stored, "{}", image.display());
        assert!(labels.values.iter().all(|label| (0..=2).contains(label)), "{}", label.display());
        assert!(labels.values.contains(&1) && labels.values.contains(&2), "{}", label.display());
        pairs += 1;
        let volume = read_volume(image, None).unwrap();
        assert!(volume.values.iter().all(|value| value.is_finite()), "{}", image.display());
    }
    assert_eq!(pairs, 260);
}

#[test]
fn a_hippocampus_written_again_is_the_same() {
    let Some(folder) = shared("hippocampus_msd_task04") else { return };
    let Some(path) = files(&folder.join("images")).into_iter().next() else { return };
    let volume = read_volume(&path, None).unwrap();
    let info = VolumeInfo { channels: 1, shape: volume.shape, geometry: volume.geometry.clone() };
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("a.nii.gz");
    let mut writer = VolumeWriter::create(&out, &info, Stored::F32).unwrap();
    writer.push(&volume.values).unwrap();
    writer.finish().unwrap();
    assert_eq!(read_volume(&out, None).unwrap(), volume);
}

#[test]
fn folders_of_slices_are_volumes() {
    for (data, folder, shape) in [
        ("drosophila_vnc_sstem", "stack1/raw", [10, 1024, 1024]),
        ("isbi2012_membrane", "train/image", [30, 512, 512]),
        ("isbi2012_membrane", "train/label", [30, 512, 512]),
    ] {
        let Some(root) = shared(data) else { return };
        let named = root.join(folder);
        let path = if named.is_dir() { named } else { root.join(folder.rsplit('/').next().unwrap()) };
        let mut reader = open_volume(&path, None).unwrap();
        assert_eq!(reader.info().shape, shape, "{}", path.display());
        assert_eq!(reader.slices(shape[0] - 2..shape[0]).unwrap().len(), 2 * shape[1] * shape[2]);
    }
}

#[test]
fn mitochondria_are_arrays() {
    let Some(root) = shared("mito3d_em_classification") else { return };
    let mut count = 0;
    for path in files(&root.join("volumes_npy")) {
        if path.extension().is_some_and(|extension| extension == "npy") {
            let volume = read_volume(&path, None).unwrap();
            assert_eq!((volume.channels, volume.shape), (1, [8, 32, 32]), "{}", path.display());
            count += 1;
        }
    }
    assert_eq!(count, 550);
}
