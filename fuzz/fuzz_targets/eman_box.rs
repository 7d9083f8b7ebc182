//! The eman_box reader neither panics nor takes memory without bound.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use trimtab_data::formats::eman_box;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("file");
    let _ = eman_box::from_bytes(bytes, path);
});
