//! The npy reader neither panics nor takes memory without bound.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use trimtab_data::formats::npy;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("file");
    if let Ok(array) = npy::from_bytes(bytes, path) {
        let _ = array.clone().into_labels(path);
        let _ = array.into_images(path);
    }
});
