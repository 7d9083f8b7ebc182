//! The star reader neither panics nor takes memory without bound.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use trimtab_data::formats::star;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("file");
    if let Ok(star) = star::from_bytes(bytes, path) {
        let _ = star.coordinates(path);
        // Whatever is read can be written, and is read again as the same.
        let text = star.to_text(path).unwrap();
        assert_eq!(star::from_bytes(text.as_bytes(), path).unwrap(), star);
    }
});
