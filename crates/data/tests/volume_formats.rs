//! Volumes written by the programs that others use (NiBabel, tifffile, NumPy, Pillow; made by
//! `goldens/volume_formats.py`), what our writer makes of them, and what becomes of damaged files.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde::Deserialize;
use trimtab_data::formats::{
    Stored, VolumeWriter, has_volume_extension, npy, open_volume, open_volume_labels, read_volume,
    read_volume_labels, volume_from_bytes, volume_info, volume_stem,
};
use trimtab_data::{Geometry, Volume, VolumeInfo};

#[derive(Deserialize)]
struct Case {
    file: String,
    channels: usize,
    shape: [usize; 3],
    spacing: [f64; 3],
    affine: [[f64; 4]; 3],
    stored: [(usize, bool); 3],
    values: Vec<f32>,
    original: Option<Original>,
}

/// Of the file as it is stored.
#[derive(Deserialize)]
struct Original {
    shape: [usize; 3],
    affine: [[f64; 4]; 3],
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/volumes")
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/volume_formats.json");
    let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(cases.len() > 50);
    cases
}

#[track_caller]
fn assert_near(found: &[[f64; 4]; 3], expected: &[[f64; 4]; 3], tolerance: f64, file: &str) {
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() <= tolerance * (1.0 + expected.abs()), "{file}: {found} {expected}");
    }
}

#[test]
fn foreign_volumes_are_read_as_their_programs_read_them() {
    for case in cases() {
        let file = &case.file;
        let path = folder().join(file);
        let volume = read_volume(&path, None).unwrap();
        assert_eq!((volume.channels, volume.shape), (case.channels, case.shape), "{file}");
        assert_eq!(volume.values, case.values, "{file}");
        assert_eq!(volume.geometry.stored, case.stored, "{file}");
        assert_near(&volume.geometry.affine, &case.affine, 1e-6, file);
        for (found, expected) in volume.geometry.spacing.iter().zip(case.spacing) {
            assert!((found / expected - 1.0).abs() < 1e-6, "{file}: {found} {expected}");
        }
        let info = volume_info(&path, None).unwrap();
        assert_eq!(
            info,
            VolumeInfo { channels: volume.channels, shape: volume.shape, geometry: volume.geometry }
        );
    }
}

#[test]
fn any_range_of_slices_is_that_part_of_the_whole() {
    for case in cases() {
        let [d, h, w] = case.shape;
        let mut reader = open_volume(&folder().join(&case.file), None).unwrap();
        // Forward, backward, repeated, empty.
        for range in [0..1, 1..d, 0..d, d - 1..d, 0..0, d..d, 0..1, d / 2..d, 0..d - 1] {
            let range = range.start.min(d)..range.end.max(range.start).min(d);
            let expected: Vec<f32> = (0..case.channels)
                .flat_map(|c| &case.values[(c * d + range.start) * h * w..(c * d + range.end) * h * w])
                .copied()
                .collect();
            assert_eq!(reader.slices(range.clone()).unwrap(), expected, "{} {range:?}", case.file);
        }
        #[expect(clippy::reversed_empty_ranges, reason = "what is tested")]
        for range in [0..d + 1, 2..1, usize::MAX..usize::MAX] {
            let error = reader.slices(range).unwrap_err().to_string();
            assert!(error.contains(&format!("are wanted, but there are {d}")), "{error}");
        }
    }
}

#[test]
fn labels_are_the_whole_numbers_of_one_channel() {
    for case in cases() {
        let path = folder().join(&case.file);
        let labels = read_volume_labels(&path, None);
        if case.channels > 1 {
            let error = labels.unwrap_err().to_string();
            assert!(error.contains(&format!("{} channels; a label map has one", case.channels)), "{error}");
        } else if case.values.iter().any(|value| value.fract() != 0.0) {
            let error = labels.unwrap_err().to_string();
            assert!(error.contains("is not a label; labels are whole numbers of 32 bits"), "{error}");
        } else {
            let labels = labels.unwrap();
            assert_eq!(labels.shape, case.shape);
            let found: Vec<f32> = labels.values.iter().map(|&label| label as f32).collect();
            assert_eq!(found, case.values, "{}", case.file);
            let half = open_volume_labels(&path, None).unwrap().slices(1.min(case.shape[0])..case.shape[0]);
            assert_eq!(half.unwrap(), labels.values[case.shape[1] * case.shape[2]..], "{}", case.file);
        }
    }
}

#[test]
fn labels_of_a_palette_are_its_indices_and_its_image_is_its_luminance() {
    let path = folder().join("palette");
    let labels = read_volume_labels(&path, None).unwrap();
    let image = read_volume(&path, None).unwrap();
    assert_eq!(labels.shape, [1, 4, 5]);
    // 299, 587 and 114 thousandths of (10, 20, 30), (0, 255, 0), (255, 0, 255).
    let grey = [18.15, 149.685, 105.315];
    assert!(labels.values.iter().zip(&image.values).all(|(&label, &value)| value == grey[label as usize]));
}

#[test]
fn labels_beyond_24_bits_are_exact() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let values = vec![16_777_217, i32::MIN, i32::MAX, -1];
    npy::write_labels(&path, &trimtab_data::Labels { width: 2, height: 2, values: values.clone() }).unwrap();
    assert_eq!(read_volume_labels(&path, None).unwrap().values, values);
}

#[track_caller]
fn check_error(file: &str, wanted: &str) {
    let error = read_volume(&folder().join(file), None).unwrap_err().to_string();
    assert!(error.contains(file) && error.contains(wanted), "{error}");
}

#[test]
fn what_is_no_volume_is_refused_with_what_was_found_and_what_is_accepted() {
    check_error("pair.hdr", "the header of a pair of files (.hdr and .img)");
    check_error("analyze.hdr", "an Analyze 7.5 header");
    check_error("complex.nii", "values of type complex numbers (code 32)");
    check_error("five_axes.nii", "an array of 5 x 4 x 3 x 2 x 2 values; accepted are three axes");
    check_error("five_axes.npy", "an array of shape [1, 1, 3, 4, 5]");
    check_error("times.tif", "2 times of 3 slices");
    check_error("sizes.tif", "page 1: it has 6 x 4 pixels, but the first page has 5 x 4");
    check_error("slices/notes.txt", "(it starts with 6e 6f 74 20 61 20 73 6c); accepted are NIfTI");
    check_error("missing.nii", "cannot read");
    let error = read_volume(&folder().join("u1_little.nii"), Some("raw")).err().unwrap().to_string();
    assert!(error.contains("the dataset `raw` is named, but a NIfTI file holds a single array"), "{error}");
    for (file, what) in
        [("hw.npy", "an NPY file"), ("times.tif", "a TIFF file"), ("slices", "a folder of pictures")]
    {
        let error = read_volume(&folder().join(file), Some("raw")).err().unwrap().to_string();
        assert!(error.contains(&format!("`raw` is named, but {what}")), "{error}");
    }
}

#[test]
fn a_folder_needs_pictures_of_one_size() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), "1").unwrap();
    std::fs::create_dir(folder.path().join("b.png")).unwrap();
    let error = read_volume(folder.path(), None).unwrap_err().to_string();
    assert!(error.contains("a folder without pictures"), "{error}");
    trimtab_data::formats::png::write_grey8(&folder.path().join("z2.png"), 2, 1, &[1, 2]).unwrap();
    trimtab_data::formats::png::write_grey8(&folder.path().join("z10.png"), 1, 2, &[3, 4]).unwrap();
    let error = read_volume(folder.path(), None).unwrap_err().to_string();
    assert!(
        error.contains("z10.png: a slice of 1 x 2 pixels, but the first of the folder, z2.png, has 2 x 1"),
        "{error}"
    );
    assert_eq!(open_volume(folder.path(), None).unwrap().slices(0..1).unwrap(), [1.0, 2.0]);
}

#[test]
fn extensions_are_dropped_whole() {
    for (name, stem) in [
        ("a/case_1.nii.gz", "case_1"),
        ("CASE.NII.GZ", "CASE"),
        ("a.b.tif", "a.b"),
        ("a.zarr", "a"),
        ("a.h5", "a"),
        ("äö.npy", "äö"),
    ] {
        assert_eq!(volume_stem(Path::new(name)), stem);
        assert!(has_volume_extension(Path::new(name)), "{name}");
    }
    for name in ["a.b", ".nii", ".nii.gz", "nii", "a.gz", "ä", "é.nié", "slices"] {
        assert!(!has_volume_extension(Path::new(name)), "{name}");
        assert_eq!(volume_stem(Path::new(name)), name);
    }
}

/// Writes `values` in pieces of `slices`.
fn write(path: &Path, info: &VolumeInfo, number: Stored, values: &[f32], slices: usize) {
    let plane = info.shape[1] * info.shape[2];
    let mut writer = VolumeWriter::create(path, info, number).unwrap();
    for piece in values.chunks(slices * plane) {
        writer.push(piece).unwrap();
    }
    writer.finish().unwrap();
}

fn info_of(volume: &Volume) -> VolumeInfo {
    VolumeInfo { channels: volume.channels, shape: volume.shape, geometry: volume.geometry.clone() }
}

#[test]
fn a_prediction_has_the_axes_and_the_affine_of_its_input() {
    let scratch = tempfile::tempdir().unwrap();
    for case in cases() {
        let Some(original) = case.original.filter(|_| case.channels == 1) else { continue };
        let input = read_volume(&folder().join(&case.file), None).unwrap();
        for (index, name) in ["a.nii", "a.nii.gz"].into_iter().enumerate() {
            let path = scratch.path().join(name);
            write(&path, &info_of(&input), Stored::F32, &input.values, index + 1);
            let output = read_volume(&path, None).unwrap();
            assert_eq!(output.values, input.values, "{}", case.file);
            assert_eq!(output.geometry.stored, input.geometry.stored, "{}", case.file);
            assert_near(&output.geometry.affine, &input.geometry.affine, 1e-6, &case.file);
        }
        // The header itself, without our reader.
        let bytes = std::fs::read(scratch.path().join("a.nii")).unwrap();
        let shape = [42, 44, 46].map(|at| i16::from_le_bytes([bytes[at], bytes[at + 1]]) as usize);
        assert_eq!(shape, original.shape, "{}", case.file);
        let number = |at: usize| f64::from(f32::from_le_bytes(*bytes[at..].first_chunk().unwrap()));
        let affine = [0, 1, 2].map(|row| [0, 1, 2, 3].map(|column| number(280 + 16 * row + 4 * column)));
        assert_near(&affine, &original.affine, 1e-6, &case.file);
        // NPY and TIFF hold the stored array, its slowest axis first.
        let [x, y, z] = original.shape;
        let plain = scratch.path().join("a.npy");
        write(&plain, &info_of(&input), Stored::F32, &input.values, 2);
        let array = npy::read(&plain).unwrap();
        assert_eq!(array.shape, [z, y, x], "{}", case.file);
        let stored: Vec<f32> =
            bytes[352..].as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect();
        assert_eq!(array.samples.into_f32(), stored, "{}", case.file);
        let stack = scratch.path().join("a.tif");
        write(&stack, &info_of(&input), Stored::F32, &input.values, 1);
        let read = read_volume(&stack, None).unwrap();
        assert_eq!((read.shape, read.values), ([z, y, x], stored), "{}", case.file);
        let spacing =
            [0, 1, 2].map(|column| (0..3).map(|row| affine[row][column].powi(2)).sum::<f64>().sqrt());
        for (found, expected) in read.geometry.spacing.iter().rev().zip(spacing) {
            assert!((found / expected - 1.0).abs() < 1e-6, "{}: {found} {expected}", case.file);
        }
    }
}

#[test]
fn integers_are_rounded_and_kept_within_their_range() {
    let scratch = tempfile::tempdir().unwrap();
    let info = VolumeInfo { channels: 1, shape: [2, 1, 3], geometry: Geometry::default() };
    let values = [-70000.0, -1.5, 0.4, f32::NAN, 254.5, 70000.0];
    for (number, expected) in [
        (Stored::U8, [0.0, 0.0, 0.0, 0.0, 255.0, 255.0]),
        (Stored::U16, [0.0, 0.0, 0.0, 0.0, 255.0, 65535.0]),
        (Stored::I16, [-32768.0, -2.0, 0.0, 0.0, 255.0, 32767.0]),
    ] {
        for name in ["a.nii", "a.nii.gz", "a.npy", "a.tif", "a.TIFF"] {
            let path = scratch.path().join(name);
            write(&path, &info, number, &values, 2);
            assert_eq!(read_volume(&path, None).unwrap().values, expected, "{name} {number:?}");
        }
    }
}

#[test]
fn an_axis_too_long_for_the_first_nifti_is_written_in_the_second() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a.nii");
    let mut geometry = Geometry::with_spacing([0.5, 2.0, 1.5]);
    geometry.affine[2][3] = 1.0 / 3.0;
    let info = VolumeInfo { channels: 1, shape: [40_000, 1, 2], geometry };
    let values: Vec<f32> = (0..80_000).map(|index| (index % 251) as f32).collect();
    write(&path, &info, Stored::U8, &values, 999);
    let read = read_volume(&path, None).unwrap();
    assert_eq!((read.shape, read.values, read.geometry), (info.shape, values, info.geometry));
}

#[test]
fn an_unfinished_writer_leaves_what_was_there() {
    let scratch = tempfile::tempdir().unwrap();
    let info = VolumeInfo { channels: 1, shape: [2, 1, 3], geometry: Geometry::default() };
    for name in ["a.nii", "a.nii.gz", "a.npy", "a.tif"] {
        let path = scratch.path().join(name);
        std::fs::write(&path, "old").unwrap();
        let mut writer = VolumeWriter::create(&path, &info, Stored::F32).unwrap();
        writer.push(&[1.0; 3]).unwrap();
        let error = writer.push(&[1.0; 2]).unwrap_err().to_string();
        assert!(error.contains("cannot write 2 values after 1 of 2 slices of 3 x 1 pixels"), "{error}");
        assert!(writer.push(&[1.0; 6]).is_err());
        let error = writer.finish().unwrap_err().to_string();
        assert!(error.contains("1 of 2 slices were written"), "{error}");
        drop(VolumeWriter::create(&path, &info, Stored::F32).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
    }
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 4);
}

#[test]
fn what_cannot_be_written_is_refused_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    let good = VolumeInfo { channels: 1, shape: [2, 1, 3], geometry: Geometry::default() };
    let check = |name: &str, info: &VolumeInfo, wanted: &str| {
        let error = VolumeWriter::create(&scratch.path().join(name), info, Stored::F32).err().unwrap();
        assert!(error.to_string().contains(wanted), "{error}");
    };
    check("a.h5", &good, "volumes are written as .nii, .nii.gz, .tif, .tiff or .npy");
    check("a", &good, "volumes are written as");
    check("missing/a.nii", &good, "its folder does not exist");
    check("a.nii", &VolumeInfo { channels: 2, ..good.clone() }, "cannot write 2 channels");
    check("a.nii", &VolumeInfo { shape: [0, 1, 1], ..good.clone() }, "cannot write 1 x 1 x 0 voxels");
    check("a.nii", &VolumeInfo { shape: [usize::MAX, 2, 1], ..good.clone() }, "voxels");
    let mut twice = good;
    twice.geometry.stored[0].0 = 2;
    check("a.nii", &twice, "cannot write axes in the order [2, 1, 2]");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

/// Everything that a reader may do with bytes.
fn exercise(bytes: Vec<u8>) {
    if let Ok(mut reader) = volume_from_bytes(bytes, Path::new("damaged")) {
        let depth = reader.info().shape[0];
        let _ = reader.slices(depth / 2..depth);
        let _ = reader.slices(0..depth);
    }
}

fn files() -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn a_truncated_file_is_an_error() {
    for bytes in files() {
        for length in (0..bytes.len()).step_by(bytes.len() / 60 + 1) {
            exercise(bytes[..length].to_vec());
        }
        let Ok(mut whole) = volume_from_bytes(bytes.clone(), Path::new("a")) else { continue };
        if whole.slices(0..whole.info().shape[0]).is_ok()
            && !bytes.starts_with(b"II")
            && !bytes.starts_with(b"MM")
        {
            let shorter = volume_from_bytes(bytes[..bytes.len() - 30].to_vec(), Path::new("a"));
            assert!(shorter.and_then(|mut reader| reader.slices(0..reader.info().shape[0])).is_err());
        }
    }
}

#[test]
fn sizes_that_the_file_cannot_hold_are_refused_before_memory_is_taken() {
    let mut header = vec![0u8; 352 + 60];
    header[..4].copy_from_slice(&348i32.to_le_bytes());
    header[40..48].copy_from_slice(&[3, 0, 0xFF, 0x7F, 0xFF, 0x7F, 0xFF, 0x7F]);
    header[70] = 64;
    header[344..348].copy_from_slice(b"n+1\0");
    let error = volume_from_bytes(header.clone(), Path::new("a")).err().unwrap().to_string();
    assert!(
        error.contains("32767 x 32767 x 32767 voxels need 281449207693304 bytes, but the file has 60"),
        "{error}"
    );
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &header).unwrap();
    let error = volume_from_bytes(gzip.finish().unwrap(), Path::new("a")).err().unwrap().to_string();
    assert!(error.contains("cannot come out of a compressed file of"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_files_never_panic(places in prop::collection::vec((0usize..900, any::<u8>()), 1..6)) {
        for mut bytes in files() {
            for &(place, value) in &places {
                let place = place % bytes.len();
                bytes[place] = value;
            }
            exercise(bytes);
        }
    }

    #[test]
    fn any_affine_gives_an_order_of_the_axes(
        affine in prop::array::uniform12(prop_oneof![Just(0.0f32), -10f32..10.0, any::<f32>()]),
        quaternion in prop::array::uniform3(-1f32..1.0),
        form in 0u8..3,
    ) {
        let mut bytes = std::fs::read(folder().join("axes_012_0.nii")).unwrap();
        bytes[252..256].fill(0);
        bytes[if form == 1 { 254 } else { 252 }] = u8::from(form > 0);
        for (index, value) in affine.into_iter().enumerate() {
            bytes[280 + 4 * index..284 + 4 * index].copy_from_slice(&value.to_le_bytes());
        }
        for (index, value) in quaternion.into_iter().enumerate() {
            bytes[256 + 4 * index..260 + 4 * index].copy_from_slice(&value.to_le_bytes());
        }
        if let Ok(mut reader) = volume_from_bytes(bytes, Path::new("a")) {
            let mut axes = reader.info().geometry.stored.map(|(axis, _)| axis);
            axes.sort_unstable();
            prop_assert_eq!(axes, [0, 1, 2]);
            prop_assert!(reader.info().geometry.spacing.iter().all(|&s| s.is_finite() && s > 0.0));
            let depth = reader.info().shape[0];
            prop_assert_eq!(reader.slices(0..depth).unwrap().len(), 60);
        } else {
            prop_assert!(affine.iter().any(|value| !value.is_finite()) || form == 2);
        }
    }

    #[test]
    fn any_order_of_axes_comes_back(
        order in prop::sample::select(vec![[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]),
        reversed in any::<[bool; 3]>(),
        shape in [1usize..4, 1usize..5, 1usize..6],
        slices in 1usize..4,
        name in prop::sample::select(vec!["a.nii", "a.nii.gz"]),
    ) {
        let [d, h, w] = shape;
        let mut geometry = Geometry::with_spacing([1.0, 2.0, 3.0]);
        geometry.stored = [0, 1, 2].map(|axis| (order[axis], reversed[axis]));
        let info = VolumeInfo { channels: 1, shape, geometry };
        let values: Vec<f32> = (0..d * h * w).map(|index| index as f32).collect();
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join(name);
        write(&path, &info, Stored::I16, &values, slices);
        let read = read_volume(&path, None).unwrap();
        prop_assert_eq!(info_of(&read), info);
        prop_assert_eq!(read.values, values);
    }
}
