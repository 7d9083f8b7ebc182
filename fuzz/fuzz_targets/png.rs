//! The png reader neither panics nor takes memory without bound.

#![no_main]

use std::io::Cursor;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use trimtab_data::formats::png;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("file");
    let _ = png::size(Cursor::new(bytes), path);
    if let Ok(raster) = png::decode(bytes, path) {
        let _ = raster.clone().into_labels(path);
        let _ = raster.into_image(path);
    }
});
