//! Files written by the programs that others use (Pillow, tifffile, mrcfile, NumPy; made by `goldens/formats.py`),
//! and what becomes of them when they are truncated or corrupt.

use std::path::{Path, PathBuf};

use trimtab_data::formats::{self, jpeg, mrc, npy, npz, png, tiff};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/formats")
}

fn files() -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 50);
    files
}

/// The picture of `goldens/formats.py` through a function of its base value, which is 0..=128.
fn picture(value: impl Fn(i32) -> f32) -> Vec<f32> {
    (0..15).map(|index| value(7 * (index % 5) + 50 * (index / 5))).collect()
}

/// What the picture is in a number type.
fn in_type(name: &str) -> Vec<f32> {
    match name {
        "u1" => picture(|v| v as f32),
        "u2" | "u4" | "u8" => picture(|v| (v * 257) as f32),
        "i1" => picture(|v| (v - 60) as f32),
        "i2" | "i4" | "i8" => picture(|v| ((v - 60) * 100) as f32),
        "f2" | "f4" | "f8" => picture(|v| v as f32 / 8.0),
        "bool" | "bit" => picture(|v| (v % 2) as f32),
        other => panic!("{other}"),
    }
}

#[track_caller]
fn check(file: &str, expected: &[f32]) {
    let path = folder().join(file);
    let image = formats::read_image(&path).unwrap();
    assert_eq!((image.width, image.height), (5, 3), "{file}");
    assert_eq!(image.pixels, expected, "{file}");
    assert_eq!(formats::image_size(&path).unwrap(), (5, 3), "{file}");
    let whole = expected.iter().all(|value| value.fract() == 0.0);
    match formats::read_labels(&path) {
        Ok(labels) => {
            assert!(labels.values.iter().zip(expected).all(|(&label, &value)| label as f32 == value))
        }
        Err(error) => assert!(!whole && error.to_string().contains("not a label"), "{file}: {error}"),
    }
}

#[track_caller]
fn check_error(file: &str, wanted: &str) {
    let error = formats::read_image(&folder().join(file)).unwrap_err().to_string();
    assert!(error.contains(file) && error.contains(wanted), "{error}");
}

#[test]
fn numpy_arrays_of_every_type_and_order_are_read() {
    for name in ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "bool"] {
        check(&format!("{name}.npy"), &in_type(name));
    }
    check("f4_fortran.npy", &in_type("f4"));
    check("i2_big_endian.npy", &in_type("i2"));
    check("version2.npy", &in_type("f4"));
    check_error("stack.npy", "an array of 2 pictures (shape [2, 3, 5])");
    for file in ["stack.npy", "stack_fortran.npy"] {
        let images = npy::read_images(&folder().join(file)).unwrap();
        assert_eq!(images.len(), 2);
        assert_eq!(images[0].pixels, in_type("u1"));
        assert_eq!(images[1].pixels, picture(|v| (v + 1) as f32));
    }
}

#[test]
fn mrcfile_files_of_every_mode_are_read() {
    for (mode, name) in [(0, "i1"), (1, "i2"), (2, "f4"), (6, "u2"), (12, "f2")] {
        check(&format!("mode{mode}.mrc"), &in_type(name));
        let header = mrc::read_header(&folder().join(format!("mode{mode}.mrc"))).unwrap();
        assert_eq!((header.depth, header.mode.number()), (1, mode));
        assert_eq!(header.pixel_size, Some((1.25, 1.25)));
    }
    check("mode2_big_endian.mrc", &in_type("f4"));
    assert!(mrc::read_header(&folder().join("mode2_big_endian.mrc")).unwrap().big_endian);
    check("extended.mrc", &in_type("i2"));
    let extended = mrc::read_header(&folder().join("extended.mrc")).unwrap();
    assert_eq!((extended.extended_bytes, extended.pixel_size), (40, None));
    check("imod_unsigned.mrc", &in_type("u1"));
    check("mode6.mrc.gz", &in_type("u2"));
    check_error("stack.mrcs", "an MRC stack of 2 sections");
    let (header, images) = mrc::read_stack(&folder().join("stack.mrcs")).unwrap();
    assert_eq!((header.depth, header.pixel_size), (2, Some((1.25, 1.25))));
    assert_eq!(images[1].pixels, picture(|v| v as f32 / 8.0 + 1.0));
}

#[test]
fn tiff_files_of_every_type_and_layout_are_read() {
    for name in ["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8", "bit"] {
        check(&format!("{name}.tif"), &in_type(name));
    }
    for (file, name) in [
        ("u2_big_endian.tif", "u2"),
        ("f4_bigtiff.tif", "f4"),
        ("u2_deflate.tif", "u2"),
        ("u1_tiled.tif", "u1"),
        ("u1_imagej.tif", "u1"),
        ("u1_white_is_zero.tif", "u1"),
        ("u1_lzw.tif", "u1"),
    ] {
        check(file, &in_type(name));
    }
    check_error("pages.tif", "a TIFF stack of 4 pages");
}

fn luminance(v: i32) -> f32 {
    let (r, g, b) = (v as f64, (v + 20) as f64, (v / 2 * 2) as f64);
    ((299.0 * r + 587.0 * g + 114.0 * b) / 1000.0) as f32
}

#[test]
fn png_files_of_every_kind_are_read() {
    check("grey8.png", &in_type("u1"));
    check("grey16.png", &in_type("u2"));
    check("grey1.png", &in_type("bit"));
    check("grey_alpha8.png", &in_type("u1"));
    check("rgb_equal.png", &in_type("u1"));
}

#[test]
fn colour_is_luminance_for_an_image_and_an_error_for_labels() {
    for file in ["rgb8.png", "rgba8.png", "rgb8.tif", "rgb8_planar.tif"] {
        let path = folder().join(file);
        assert_eq!(formats::read_image(&path).unwrap().pixels, picture(luminance), "{file}");
        let error = formats::read_labels(&path).unwrap_err().to_string();
        assert!(error.contains("one channel") && error.contains("(0, 20, 0) at x 0, y 0"), "{error}");
    }
}

#[test]
fn a_palette_is_luminance_for_an_image_and_indices_for_labels() {
    for file in ["palette2.png", "palette8.png"] {
        let path = folder().join(file);
        let labels = formats::read_labels(&path).unwrap();
        assert_eq!(labels.values, picture(|v| (v % 4) as f32).iter().map(|&v| v as i32).collect::<Vec<_>>());
        let greys = [0.0, 76.245, 149.685, 29.07];
        assert_eq!(
            formats::read_image(&path).unwrap().pixels,
            picture(|v| greys[(v % 4) as usize]),
            "{file}"
        );
    }
}

#[test]
fn jpeg_files_are_read() {
    for file in ["flat.jpg", "flat_rgb_progressive.jpg"] {
        let path = folder().join(file);
        let image = formats::read_image(&path).unwrap();
        assert_eq!((image.width, image.height), (5, 3));
        assert!(image.pixels.iter().all(|&value| (value - 100.0).abs() <= 1.0), "{file}: {:?}", image.pixels);
        assert_eq!(formats::image_size(&path).unwrap(), (5, 3));
    }
}

#[test]
fn numpy_archives_are_read() {
    for file in ["batch.npz", "batch_compressed.npz"] {
        let path = folder().join(file);
        let batch = npz::read(&path).unwrap();
        assert_eq!(batch.images.len(), 2);
        assert_eq!(batch.images[0].pixels, in_type("f4"));
        let masks = batch.masks.unwrap();
        assert_eq!(masks[0].values, (0..15).map(|i| (7 * (i % 5) + 50 * (i / 5)) % 2).collect::<Vec<i32>>());
        assert!(masks[0].values.iter().zip(&masks[1].values).all(|(a, b)| a + b == 1));
        let info = npz::inspect(&path).unwrap();
        assert_eq!((info.count, info.width, info.height, info.has_masks), (2, 5, 3, true));
    }
    let single = npz::read(&folder().join("single.npz")).unwrap();
    assert_eq!((single.images.len(), single.masks), (1, None));
    let error = npz::read(&folder().join("other.npz")).unwrap_err().to_string();
    assert!(error.ends_with("no array `images`; the archive holds x"), "{error}");
    check_error("batch.npz", "an archive");
}

/// Runs the reader of a file's format; whether it could read it.
fn parse(bytes: &[u8], path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    if name.contains(".mrc") {
        mrc::from_bytes(bytes, path).is_ok()
    } else if name.ends_with(".npy") {
        npy::from_bytes(bytes, path).is_ok()
    } else if name.ends_with(".npz") {
        npz::from_bytes(bytes, path).is_ok()
    } else {
        let raster = match name.rsplit('.').next().unwrap() {
            "png" => png::decode(bytes, path),
            "jpg" => jpeg::decode(bytes, path),
            "tif" => tiff::decode(bytes, path),
            other => panic!("{other}"),
        };
        raster.is_ok_and(|raster| {
            let _ = raster.clone().into_labels(path);
            raster.into_image(path).is_ok()
        })
    }
}

#[test]
fn a_truncated_file_is_an_error_or_complete_but_never_a_panic() {
    for path in files() {
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            let ok = parse(&bytes[..length], &path);
            let name = path.file_name().unwrap().to_string_lossy();
            // What follows the pixels (PNG's end chunk, TIFF tags, gzip's checksum) may be missing.
            if name.ends_with(".mrc")
                || name.ends_with(".mrcs")
                || name.ends_with(".npy")
                || name.ends_with(".npz")
            {
                assert!(!ok, "{length} bytes of {}", path.display());
            }
        }
    }
}

#[test]
fn a_corrupt_byte_never_panics() {
    for path in files() {
        let mut bytes = std::fs::read(&path).unwrap();
        for index in 0..bytes.len() {
            let byte = bytes[index];
            for changed in [0, 0xFF, byte ^ 1, byte ^ 0x80, byte.wrapping_add(16)] {
                bytes[index] = changed;
                parse(&bytes, &path);
            }
            bytes[index] = byte;
        }
    }
}
