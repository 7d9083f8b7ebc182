//! The tiff reader neither panics nor takes memory without bound.

#![no_main]

use std::io::Cursor;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use trimtab_data::formats::tiff;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("file");
    let _ = tiff::size(Cursor::new(bytes), path);
    if let Ok(raster) = tiff::decode(bytes, path) {
        let _ = raster.clone().into_labels(path);
        let _ = raster.into_image(path);
    }
});
