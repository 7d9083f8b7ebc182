//! The reader of `detectron2-log` neither panics nor takes memory without bound.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = trimtab_logs::read_bytes("detectron2-log", "log.txt", bytes);
});
