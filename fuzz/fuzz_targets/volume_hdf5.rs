//! The HDF5 reader neither panics nor takes memory without bound.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trimtab_data::formats::hdf5;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("file.h5");
    std::fs::write(&path, bytes).expect("a scratch file");
    for dataset in [None, Some("raw"), Some("deep/er/volume")] {
        if let Ok(mut reader) = hdf5::open(&path, dataset) {
            let info = reader.info().clone();
            let [depth, height, width] = info.shape;
            if info.channels.saturating_mul(height).saturating_mul(width) <= 1 << 20 {
                let _ = reader.slices(0..1);
                let _ = reader.slices(depth - 1..depth);
            }
        }
    }
});
