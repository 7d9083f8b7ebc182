//! Every real file of the shared data folder is read; coordinates come back equal after writing.
//!
//! The folder is `$TRIMTAB_SHARED`, by default `shared` beside the repository. Without it the tests are skipped.

use std::path::{Path, PathBuf};

use trimtab_data::formats::{self, cryoppp, eman_box, mrc, star, tiff, topaz};

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

fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extensions.iter().any(|e| extension == *e)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn star_files_come_back_equal() {
    let Some(folder) = shared("cryoem_coordinate_files") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("a.star");
    let files = files(&folder, &["star"]);
    assert_eq!(files.len(), 4);
    for path in files {
        let document = star::read(&path).unwrap();
        document.write(&out).unwrap();
        assert_eq!(star::read(&out).unwrap(), document, "{}", path.display());
        if path.ends_with("ctf_params.star") {
            let error = formats::read_coordinates(&path).unwrap_err().to_string();
            assert!(error.contains("no coordinates") && error.contains("_rlnVoltage"), "{error}");
            continue;
        }
        let micrographs = formats::read_coordinates(&path).unwrap();
        assert!(micrographs.iter().all(|m| !m.micrograph.is_empty() && !m.particles.is_empty()));
        let table = document
            .blocks
            .iter()
            .flat_map(|block| block.loops())
            .find(|t| t.column("_rlnCoordinateX").is_some());
        assert_eq!(micrographs.iter().map(|m| m.particles.len()).sum::<usize>(), table.unwrap().rows.len());
        star::write_coordinates(&out, &micrographs).unwrap();
        assert_eq!(formats::read_coordinates(&out).unwrap(), micrographs, "{}", path.display());
    }
}

#[test]
fn topaz_and_cryoppp_tables_come_back_equal() {
    let Some(folder) = shared("cryoem_coordinate_files") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let table = folder.join("topaz_EMPIAR-10025/particles.txt");
    let micrographs = formats::read_coordinates(&table).unwrap();
    assert_eq!(micrographs.len(), 30);
    let lines = std::fs::read_to_string(&table).unwrap().lines().count();
    assert_eq!(micrographs.iter().map(|m| m.particles.len()).sum::<usize>(), lines - 1);
    let out = scratch.path().join("a");
    topaz::write(&out, &micrographs).unwrap();
    assert_eq!(formats::read_coordinates(&out).unwrap(), micrographs);

    let files = files(&folder.join("cryoppp_csv"), &["csv"]);
    assert_eq!(files.len(), 4);
    for path in files {
        let micrographs = formats::read_coordinates(&path).unwrap();
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert_eq!((micrographs.len(), micrographs[0].particles.len()), (1, lines - 1));
        assert!(micrographs[0].particles.iter().all(|particle| particle.diameter.is_some()));
        cryoppp::write(&out, &micrographs[0]).unwrap();
        assert_eq!(formats::read_coordinates(&out).unwrap(), micrographs, "{}", path.display());
    }
}

#[test]
fn particle_stacks_are_read_and_come_back_equal() {
    let Some(folder) = shared("cryoem_coordinate_files") else { return };
    let scratch = tempfile::tempdir().unwrap();
    for (name, count) in [("aspire/sample.mrcs", 17), ("aspire/rln_proj_64.mrcs", 5)] {
        let (header, images) = mrc::read_stack(&folder.join(name)).unwrap();
        assert_eq!((header.depth, images.len()), (count, count));
        let out = scratch.path().join("a.mrcs");
        mrc::write_stack(&out, &images, header.mode, 1.0).unwrap();
        assert_eq!(mrc::read_stack(&out).unwrap().1, images);
    }
}

#[test]
fn micrographs_masks_and_coordinates_of_a_data_set_agree() {
    let Some(folder) = shared("cryoem_apoferritin_empiar10146") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let micrographs = files(&folder.join("micrographs"), &["png"]);
    assert_eq!(micrographs.len(), 12);
    for path in micrographs {
        assert_eq!(formats::image_size(&path).unwrap(), (1240, 1200));
        let image = formats::read_image(&path).unwrap();
        assert_eq!((image.width, image.height), (1240, 1200));
        assert!(image.pixels.iter().any(|&value| value > 255.0), "16-bit values are not scaled");

        let name = path.file_name().unwrap();
        let mask = formats::read_labels(&folder.join("masks_derived").join(name)).unwrap();
        assert_eq!((mask.width, mask.height), (1240, 1200));
        assert!(mask.values.iter().all(|&value| value == 0 || value == 255));

        let coordinates = folder.join("coords_derived").join(name).with_extension("csv");
        let found = formats::read_coordinates(&coordinates).unwrap();
        assert!(found.len() == 1 && (149..=177).contains(&found[0].particles.len()));
        for particle in &found[0].particles {
            let (x, y) = (particle.x.round() as usize, particle.y.round() as usize);
            assert_eq!(mask.values[y * mask.width + x], 255, "{}: {particle:?}", coordinates.display());
        }
        for (out, write) in [
            ("a.star", &(|out: &Path| star::write_coordinates(out, &found)) as &dyn Fn(&Path) -> _),
            ("a.txt", &|out: &Path| topaz::write(out, &found)),
            ("a.csv", &|out: &Path| cryoppp::write(out, &found[0])),
        ] {
            let out = scratch.path().join(out);
            write(&out).unwrap();
            assert_eq!(formats::read_coordinates(&out).unwrap(), found);
        }
        let out = scratch.path().join("a.box");
        eman_box::write(&out, &found[0], 64).unwrap();
        let back = formats::read_coordinates(&out).unwrap();
        for (a, b) in back[0].particles.iter().zip(&found[0].particles) {
            assert!((a.x - b.x).abs() < 1e-9 && (a.y - b.y).abs() < 1e-9);
        }
    }
    let converted = files(&folder.join("mrc_converted"), &["mrc"]);
    assert!(!converted.is_empty());
    for path in converted {
        let png = folder.join("micrographs").join(path.file_name().unwrap()).with_extension("png");
        assert_eq!(formats::read_image(&path).unwrap(), formats::read_image(&png).unwrap());
        assert_eq!(formats::image_size(&path).unwrap(), (1240, 1200));
    }
}

#[test]
fn the_pictures_and_masks_of_every_data_set_are_read() {
    for (name, count) in [
        ("camvid_subset", 176),
        ("isbi2012_membrane", 60),
        ("pennfudan_subset", 52),
        ("drosophila_vnc_sstem", 50),
        ("mito3d_em_classification/original_render_examples", 4),
    ] {
        let Some(folder) = shared(name) else { continue };
        let scratch = tempfile::tempdir().unwrap();
        let files = files(&folder, &["png", "tif"]);
        assert_eq!(files.len(), count, "{name}");
        for path in files {
            let image = formats::read_image(&path).unwrap();
            assert_eq!(formats::image_size(&path).unwrap(), (image.width, image.height));
            let out = scratch.path().join("a.tif");
            tiff::write_f32(&out, &image).unwrap();
            assert_eq!(formats::read_image(&out).unwrap(), image);
            if let Ok(labels) = formats::read_labels(&path) {
                assert!(
                    labels.values.iter().zip(&image.pixels).all(|(&label, &value)| label as f32 == value)
                );
            }
        }
    }
}
