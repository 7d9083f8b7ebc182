//! The reader of `nnunet` neither panics nor takes memory without bound.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = trimtab_logs::read_bytes("nnunet", "training_log_2023_3_21_20_23_43.txt", bytes);
});
