//! The reader of AlgoPerf tables neither panics nor takes memory without bound.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = trimtab_logs::read_bytes("algoperf", "measurements.csv", bytes);
});
