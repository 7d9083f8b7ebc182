//! Every real HDF5 file of the shared data folder is read; sums are those that h5py gives.
//!
//! The folder is `$TRIMTAB_SHARED`, by default `shared` beside the repository. Without it the tests are skipped.

use std::path::{Path, PathBuf};

use trimtab_data::formats::hdf5;

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

/// Sum of the values and of each value times its index (from 1) modulo 1009, which notices any exchange.
fn sums(values: &[f32]) -> (f64, f64) {
    let weight = |at: usize| ((at + 1) % 1009) as f64;
    values.iter().enumerate().fold((0.0, 0.0), |(sum, weighted), (at, &value)| {
        (sum + f64::from(value), weighted + f64::from(value) * weight(at))
    })
}

#[test]
fn plantseg_files_have_the_values_that_h5py_gives() {
    let Some(folder) = shared("plantseg_cell_membrane") else { return };
    // a = numpy array; a.sum(), (a.ravel().astype("f8") * ((np.arange(a.size) + 1) % 1009)).sum()
    // File, array, channels, shape, spacing in micrometres, sums.
    type Case = (&'static str, &'static str, usize, [usize; 3], [f64; 3], (f64, f64));
    #[rustfmt::skip]
    let cases: &[Case] = &[
        ("data/train/1135_mini.h5", "label", 1, [100, 100, 100], [0.2837184, 0.1267864, 0.1267864], (6003856.0, 3032103108.0)),
        ("data/train/1135_mini.h5", "raw", 1, [100, 100, 100], [0.2837184, 0.1267864, 0.1267864], (31636293.0, 15939331573.0)),
        ("data/train/1136_mini.h5", "label", 1, [100, 100, 100], [0.2837184, 0.1275697, 0.1275697], (2912880.0, 1460329498.0)),
        ("data/train/1136_mini.h5", "raw", 1, [100, 100, 100], [0.2837184, 0.1275697, 0.1275697], (27686194.0, 13936892128.0)),
        ("data/val/1137_mini.h5", "label", 1, [100, 100, 100], [0.2837184, 0.1266211, 0.1266211], (2624842.0, 1320899286.0)),
        ("data/val/1137_mini.h5", "raw", 1, [100, 100, 100], [0.2837184, 0.1266211, 0.1266211], (125492819.0, 63224329078.0)),
        ("sample_ovule.h5", "label", 1, [32, 128, 128], [0.235, 0.15, 0.15], (270355318.0, 136288804455.0)),
        ("sample_ovule.h5", "raw", 1, [32, 128, 128], [0.235, 0.15, 0.15], (62957120.0, 31732317382.0)),
        ("training_sources/train_2Dc_2D.h5", "raw", 1, [2, 128, 128], [0.235, 0.15, 0.15], (569112505.0, 282520215708.0)),
        ("training_sources/train_3D_3D.h5", "label", 1, [75, 75, 75], [1000.0, 1000.0, 1000.0], (13564583.0, 6848830120.0)),
        ("training_sources/train_3D_3D.h5", "raw", 1, [75, 75, 75], [1000.0, 1000.0, 1000.0], (942462219.0, 475499201738.0)),
        ("training_sources/train_3D_3Dc.h5", "label", 2, [75, 75, 75], [1000.0, 1000.0, 1000.0], (3633000274.0, 1833912944373.0)),
        ("training_sources/train_3D_3Dc.h5", "raw", 1, [75, 75, 75], [1.0, 1.0, 1.0], (942462219.0, 475499201738.0)),
        ("training_sources/train_3Dc_3D.h5", "label", 1, [75, 75, 75], [1.0, 1.0, 1.0], (13564583.0, 6848830120.0)),
        ("training_sources/train_3Dc_3D.h5", "raw", 2, [75, 75, 75], [1000.0, 1000.0, 1000.0], (4802957011.0, 2421348373799.0)),
        ("training_sources/train_3Dc_3Dc.h5", "label", 2, [75, 75, 75], [1000.0, 1000.0, 1000.0], (3633000274.0, 1833912944373.0)),
        ("training_sources/train_3Dc_3Dc.h5", "raw", 2, [75, 75, 75], [1000.0, 1000.0, 1000.0], (4802957011.0, 2421348373799.0)),
    ];
    for &(file, dataset, channels, shape, spacing, expected) in cases {
        let place = format!("{file} {dataset}");
        let mut reader = hdf5::open(&folder.join(file), Some(dataset)).unwrap();
        let info = reader.info().clone();
        assert_eq!((info.channels, info.shape), (channels, shape), "{place}");
        for (found, expected) in info.geometry.spacing.iter().zip(spacing) {
            assert!((found * 1000.0 - expected).abs() < 1e-6, "{place}: {:?}", info.geometry.spacing);
        }
        let whole = reader.slices(0..shape[0]).unwrap();
        assert_eq!(sums(&whole), expected, "{place}");
        let plane = shape[1] * shape[2];
        for slice in (0..shape[0]).step_by(11) {
            let values = reader.slices(slice..slice + 1).unwrap();
            for channel in 0..channels {
                let at = (channel * shape[0] + slice) * plane;
                assert_eq!(values[channel * plane..][..plane], whole[at..at + plane], "{place} {slice}");
            }
        }
    }
}

#[test]
fn pictures_are_no_volumes_and_two_volumes_need_a_name() {
    let Some(folder) = shared("plantseg_cell_membrane") else { return };
    let message = |file: &str, dataset| hdf5::open(&folder.join(file), dataset).err().unwrap().to_string();
    let error = message("sample_ovule.h5", None);
    assert!(error.contains("label [32, 128, 128] u16, raw [32, 128, 128] u8"), "{error}");
    let error = message("training_sources/train_2D_2D.h5", None);
    assert!(error.contains("only: label [128, 128] u16, raw [128, 128] u16"), "{error}");
    let error = message("training_sources/train_2D_2D.h5", Some("raw"));
    assert!(error.contains("[128, 128]") && error.contains("[depth, height, width]"), "{error}");
}
