//! The topaz reader neither panics nor takes memory without bound.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use trimtab_data::formats::topaz;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("file");
    let _ = topaz::from_bytes(bytes, path);
});
