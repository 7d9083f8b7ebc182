//! The reader of NPY volumes neither panics nor takes memory without bound.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use trimtab_data::formats::volume_from_bytes;

fuzz_target!(|bytes: &[u8]| {
    read(bytes.to_vec());
});

fn read(bytes: Vec<u8>) {
    if let Ok(mut reader) = volume_from_bytes(bytes, Path::new("file")) {
        let depth = reader.info().shape[0];
        let _ = reader.slices(depth / 2..depth);
        let _ = reader.slices(0..depth);
    }
}
