//! The reader of numpy.savetxt tables neither panics nor takes memory without bound.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = trimtab_logs::read_bytes("numpy-savetxt", "val_loss", bytes);
});
