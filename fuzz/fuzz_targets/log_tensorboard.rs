//! The reader of `tensorboard` neither panics nor takes memory without bound.

#![no_main]

use libfuzzer_sys::fuzz_target;

fn record(event: &[u8]) -> Vec<u8> {
    let checksum = |bytes: &[u8]| trimtab_signals::tensorboard::masked_crc(bytes).to_le_bytes();
    let length = (event.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length), event, &checksum(event)].concat()
}

fuzz_target!(|bytes: &[u8]| {
    let _ = trimtab_logs::read_bytes("tensorboard", "file", bytes);
    // A fuzzer does not find checksums: the same bytes as an event.
    let _ = trimtab_logs::read_bytes("tensorboard", "file", &record(bytes));
});
