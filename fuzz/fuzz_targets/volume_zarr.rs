//! The Zarr reader neither panics nor takes memory without bound. The input is cut at its zero bytes: metadata of an
//! array in version 2 or 3 (which one, says the first byte), then the chunk of every index (raw bytes, the rest).

#![no_main]

use libfuzzer_sys::fuzz_target;
use trimtab_data::formats::zarr;

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
    let (meta, chunk) = rest.split_at(end);
    let folder = tempfile::tempdir().expect("a scratch folder");
    let (name, keys): (_, &[&str]) = match first & 1 {
        0 => (".zarray", &["0.0.0", "0.0.0.0", "1.0.0"]),
        _ => ("zarr.json", &["c.0.0.0", "c.0.0.0.0", "0.0.0"]),
    };
    std::fs::write(folder.path().join(name), meta).expect("a scratch file");
    for key in keys {
        std::fs::write(folder.path().join(key), chunk.get(1..).unwrap_or_default()).expect("a scratch file");
    }
    if let Ok(mut reader) = zarr::open(folder.path(), None) {
        let info = reader.info().clone();
        let [depth, height, width] = info.shape;
        if info.channels.saturating_mul(height).saturating_mul(width) <= 1 << 20 {
            let _ = reader.slices(0..1);
            let _ = reader.slices(depth - 1..depth);
        }
    }
});
