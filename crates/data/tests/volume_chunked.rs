//! HDF5 and Zarr files written by h5py and zarr-python (`goldens/volume_chunked.py`), and damaged ones.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use trimtab_data::formats::{hdf5, zarr};
use trimtab_data::{Result, VolumeReader};

const SHAPE: [usize; 3] = [5, 6, 7];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/chunked").join(name)
}

/// Unpacks the folders of Zarr.
fn folders() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for archive in ["zarr_2.zip", "zarr_3.zip"] {
        let mut archive = zip::ZipArchive::new(fs::File::open(data(archive)).unwrap()).unwrap();
        archive.extract(folder.path()).unwrap();
    }
    folder
}

#[derive(serde::Deserialize)]
struct Case {
    dataset: Option<String>,
    kind: String,
    channels: usize,
    spacing: [f64; 3],
    fill_from: Option<usize>,
    fill: Option<serde_json::Value>,
}

impl Case {
    fn values(&self, slices: Range<usize>) -> Vec<f32> {
        let [_, height, width] = SHAPE;
        let mut values = Vec::new();
        for c in 0..self.channels {
            for z in slices.clone() {
                for at in 0..height * width {
                    let base = ((64 * c + 31 * z + 7 * (at / width) + at % width) % 100) as i32;
                    let value = match self.kind.as_bytes()[0] {
                        b'b' => f32::from(u8::from(base % 3 == 0)),
                        b'i' => (base - 50) as f32,
                        b'f' => base as f32 / 8.0,
                        _ => base as f32,
                    };
                    let fill = || self.fill.as_ref().unwrap().as_f64().map_or(f32::NAN, |fill| fill as f32);
                    values.push(if self.fill_from.is_some_and(|from| z >= from) { fill() } else { value });
                }
            }
        }
        values
    }
}

fn cases() -> BTreeMap<String, Vec<Case>> {
    serde_json::from_str(&fs::read_to_string(data("expected.json")).unwrap()).unwrap()
}

fn open(path: &Path, dataset: Option<&str>) -> Result<Box<dyn VolumeReader>> {
    if path.is_dir() {
        assert!(zarr::is_zarr(path), "{}", path.display());
        zarr::open(path, dataset)
    } else {
        hdf5::open(path, dataset)
    }
}

fn check(path: &Path, case: &Case) {
    let place = format!("{} {:?}", path.display(), case.dataset);
    let mut reader = open(path, case.dataset.as_deref()).unwrap_or_else(|error| panic!("{place}: {error}"));
    let info = reader.info().clone();
    assert_eq!((info.channels, info.shape), (case.channels, SHAPE), "{place}");
    for (found, expected) in info.geometry.spacing.iter().zip(case.spacing) {
        assert!((found - expected).abs() <= 1e-12 * expected, "{place}: {:?}", info.geometry.spacing);
    }
    // NaN equals itself here.
    let bits = |values: Vec<f32>| {
        values.into_iter().map(|v| if v.is_nan() { u32::MAX } else { v.to_bits() }).collect::<Vec<_>>()
    };
    for range in [0..5, 0..1, 1..4, 4..5, 2..2, 0..5] {
        let found = reader.slices(range.clone()).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(bits(found), bits(case.values(range.clone())), "{place} {range:?}");
    }
    assert!(reader.slices(3..6).unwrap_err().to_string().contains("5 slices"), "{place}");
}

#[test]
fn every_array_of_h5py_has_its_values() {
    let mut count = 0;
    for (file, cases) in cases().iter().filter(|(file, _)| file.ends_with(".h5")) {
        for case in cases {
            check(&data(file), case);
            count += 1;
        }
    }
    assert_eq!(count, 61);
}

#[test]
fn every_array_of_zarr_python_has_its_values() {
    let folder = folders();
    let mut count = 0;
    for (file, cases) in cases().iter().filter(|(file, _)| file.ends_with(".zarr")) {
        for case in cases {
            check(&folder.path().join(file), case);
            count += 1;
        }
    }
    assert_eq!(count, 44);
}

#[test]
fn blosc_chunks_of_several_blocks_have_their_values() {
    let folder = folders();
    for name in ["blosclz_1", "blosclz_2", "lz4_1", "lz4_2", "zstd_1", "zstd_2"] {
        let mut reader = zarr::open(&folder.path().join(format!("large_{name}.zarr")), None).unwrap();
        assert_eq!(reader.info().shape, [24, 32, 64]);
        let values = reader.slices(0..24).unwrap();
        for (at, &value) in values.iter().enumerate() {
            let (z, y, x) = (at / 2048, at / 64 % 32, at % 64);
            assert_eq!(value, ((64 * z * z + y * x) % 251 / 16) as f32, "{name} {z} {y} {x}");
        }
    }
}

fn message(path: &Path, dataset: Option<&str>) -> String {
    match open(path, dataset) {
        Err(error) => error.to_string(),
        Ok(mut reader) => reader.slices(0..1).expect_err("an error").to_string(),
    }
}

#[test]
fn the_only_volume_of_a_file_needs_no_name() {
    let reader = hdf5::open(&data("only.h5"), None).unwrap();
    assert_eq!(reader.info().shape, SHAPE);
    let error = message(&data("earliest.h5"), None);
    assert!(
        error.contains("several volumes") && error.contains(": channels [2, 5, 6, 7] u16, ilastik"),
        "{error}"
    );
    assert!(!error.contains("scalar") && error.contains("and 9 more"), "{error}");

    let folder = folders();
    let group = folder.path().join("group.zarr");
    let error = message(&group, None);
    assert!(error.contains(": volumes/labels [5, 6, 7] u16, volumes/raw [5, 6, 7] u8"), "{error}");
    fs::remove_dir_all(group.join("volumes/labels")).unwrap();
    assert_eq!(zarr::open(&group, None).unwrap().info().shape, SHAPE);
}

#[test]
fn a_wrong_name_is_answered_with_the_right_ones() {
    for name in ["no", "/deep/no", "deep/er/volume/no", "", "deep"] {
        let error = message(&data("only.h5"), Some(name));
        assert!(error.contains("holds: deep/er/volume [5, 6, 7] i16, flat [6, 7] u8"), "{name}: {error}");
    }
    let error = message(&data("only.h5"), Some("flat"));
    assert!(
        error.contains("flat") && error.contains("[6, 7]") && error.contains("[depth, height, width]"),
        "{error}"
    );

    let folder = folders();
    let group = folder.path().join("group.zarr");
    for name in ["no", "volumes", "flat/no"] {
        let error = message(&group, Some(name));
        assert!(error.contains("holds: flat [5, 6] u8, volumes/labels [5, 6, 7] u16"), "{name}: {error}");
    }
    for name in ["../group.zarr/flat", "volumes/../.."] {
        assert!(message(&group, Some(name)).contains("no place inside the folder"));
    }
    assert!(message(&group, Some("flat")).contains("[depth, height, width]"));
    // A leading slash is HDF5's habit.
    assert!(zarr::open(&group, Some("/volumes/raw")).is_ok());
}

#[test]
fn what_is_not_supported_is_named() {
    for (dataset, part) in [
        ("unsupported/bitshuffle", "bitshuffle; store the array with gzip"),
        ("unsupported/compound", "numbers of the kind compound; accepted are integers and IEEE floats"),
        ("unsupported/huge", "[100000, 100000, 100000] voxels are claimed, but only"),
        ("unsupported/bfloat16", "accepted are integers and IEEE floats"),
    ] {
        let error = message(&data("filters.h5"), Some(dataset));
        assert!(error.contains(part), "{dataset}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let v2 = r#"{"zarr_format": 2, "shape": [2, 2, 2], "chunks": [2, 2, 2], "dtype": "<u2", "order": "C", "fill_value": 0, "compressor": null, "filters": null}"#;
    let v3 = r#"{"zarr_format": 3, "node_type": "array", "shape": [2, 2, 2], "data_type": "uint8", "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 2, 2]}},
        "chunk_key_encoding": {"name": "default"}, "codecs": ["bytes"]}"#;
    let mut tried = 0;
    let mut check = |meta: &str, from: &str, to: &str, part: &str| {
        tried += 1;
        let folder = folder.path().join(tried.to_string());
        fs::create_dir(&folder).unwrap();
        let name = if meta == v2 { ".zarray" } else { "zarr.json" };
        fs::write(folder.join(name), meta).unwrap();
        assert_eq!(zarr::open(&folder, None).unwrap().slices(0..2).unwrap(), [0.0; 8]);
        let changed = meta.replacen(from, to, 1);
        assert_ne!(changed, meta);
        fs::write(folder.join(name), changed).unwrap();
        let error = message(&folder, None);
        assert!(error.contains(part), "{to}: {error}");
    };
    check(v2, "<u2", "<c8", "numbers of the kind `<c8`");
    check(v2, "\"<u2\"", "[[\"a\", \"<u2\"]]", "`dtype` is not that of plain numbers");
    check(
        v2,
        "\"compressor\": null",
        "\"compressor\": {\"id\": \"bz2\"}",
        "the codec `bz2` is not supported; accepted are blosc",
    );
    check(v2, "\"filters\": null", "\"filters\": [{\"id\": \"delta\"}]", "the codec `delta`");
    check(v2, "[2, 2, 2], \"dtype\"", "[2, 0, 2], \"dtype\"", "chunks of shape [2, 0, 2]");
    check(
        v2,
        "[2, 2, 2], \"dtype\"",
        "[2, 2], \"dtype\"",
        "chunks of shape [2, 2] in an array of shape [2, 2, 2]",
    );
    check(
        v2,
        "[2, 2, 2], \"dtype\"",
        "[65536, 65536, 2], \"dtype\"",
        "accepted are such of 1 value to 1073741824 bytes",
    );
    check(v2, "\"shape\": [2, 2, 2]", "\"shape\": [2, 0, 2]", "at least one voxel");
    check(v2, "\"shape\": [2, 2, 2]", "\"shape\": [99999, 99999, 99999]", "bytes stored");
    check(v2, "\"zarr_format\": 2", "\"zarr_format\": 4", "other than 2 and 3");
    check(v2, "}", "", "bad JSON");
    check(v3, "uint8", "complex64", "numbers of the kind `complex64`");
    check(v3, "regular", "rectilinear", "the chunk grid `rectilinear`");
    check(v3, "[\"bytes\"]", "[\"bytes\", \"packbits\"]", "the codec `packbits` is not supported");
    check(v3, "[\"bytes\"]", "[\"vlen-bytes\"]", "the codec `vlen-bytes` before `bytes`");
    check(v3, "[\"bytes\"]", "[]", "no codec `bytes`");
    check(
        v3,
        "[\"bytes\"]",
        r#"[{"name": "transpose", "configuration": {"order": [0, 0, 1]}}, "bytes"]"#,
        "`transpose`",
    );
    check(
        v3,
        "[\"bytes\"]",
        r#"[{"name": "sharding_indexed", "configuration": {"chunk_shape": [2, 2, 3], "codecs": ["bytes"], "index_codecs": ["bytes"]}}]"#,
        "no multiple of their chunks [2, 2, 3]",
    );
}

#[test]
fn a_file_that_is_something_else_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.h5");
    for bytes in [&b""[..], b"\x89HDF\r\n\x1a\n", b"plain text", &[0; 5000]] {
        fs::write(&file, bytes).unwrap();
        let error = message(&file, None);
        assert!(error.contains("not a valid HDF5 file"), "{error}");
        assert!(!zarr::is_zarr(folder.path()) && !zarr::is_zarr(&file));
    }
    assert!(message(&folder.path().join("missing.h5"), None).contains("cannot read"));
    assert!(zarr::open(&folder.path().join("missing.zarr"), None).is_err());
    assert!(zarr::open(folder.path(), None).err().unwrap().to_string().contains("holds no array"));
    let start = |name: &str| fs::read(data(name)).unwrap()[..2048].to_vec();
    assert!(hdf5::is_hdf5(&start("latest.h5")) && hdf5::is_hdf5(&start("only.h5")));
    assert!(!hdf5::is_hdf5(b"") && !hdf5::is_hdf5(&[0; 4096]));
}

/// Everything a user could do with the file.
fn read_all(path: &Path, datasets: &[Option<String>]) {
    for dataset in datasets {
        if let Ok(mut reader) = open(path, dataset.as_deref()) {
            let info = reader.info().clone();
            let slice = info.channels.saturating_mul(info.shape[1]).saturating_mul(info.shape[2]);
            if slice < 1 << 22 {
                let _ = reader.slices(0..1);
                let _ = reader.slices(info.shape[0] - 1..info.shape[0]);
            }
        }
    }
}

fn datasets(file: &str) -> Vec<Option<String>> {
    let mut names: Vec<_> = cases()[file].iter().map(|case| case.dataset.clone()).collect();
    names.push(None);
    names
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_hdf5_file_is_read_or_refused(
        file in prop::sample::select(vec!["earliest.h5", "latest.h5", "filters.h5", "only.h5"]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        keep in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = fs::read(data(file)).unwrap();
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(keep) = keep {
            bytes.truncate(keep.index(bytes.len()));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        fs::write(&path, bytes).unwrap();
        read_all(&path, &datasets(file));
    }
}

#[test]
fn a_damaged_zarr_folder_is_read_or_refused() {
    let folder = folders();
    for (file, cases) in cases().iter().filter(|(file, _)| file.ends_with(".zarr")) {
        let root = folder.path().join(file);
        let names: Vec<_> = cases.iter().map(|case| case.dataset.clone()).chain([None]).collect();
        let mut files = Vec::new();
        let mut inner = vec![root.clone()];
        while let Some(folder) = inner.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { inner.push(path) } else { files.push(path) }
            }
        }
        for path in files {
            let bytes = fs::read(&path).unwrap();
            for place in (0..bytes.len()).step_by(bytes.len() / 3 + 1) {
                let mut changed = bytes.clone();
                changed[place] = changed[place].wrapping_add(1);
                fs::write(&path, &changed).unwrap();
                read_all(&root, &names);
                fs::write(&path, &bytes[..place]).unwrap();
                read_all(&root, &names);
            }
            fs::write(&path, bytes).unwrap();
        }
    }
}
