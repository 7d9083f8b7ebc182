//! The reader of `mmengine-log` neither panics nor takes memory without bound.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = trimtab_logs::read_bytes("mmengine-log", "20240419_142003.log", bytes);
});
