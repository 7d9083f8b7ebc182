//! The coordinates reader neither panics nor takes memory without bound.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use trimtab_data::formats;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("file");
    let _ = formats::coordinates_from_bytes(bytes, path);
});
