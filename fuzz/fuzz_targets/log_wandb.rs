//! The reader of `wandb` neither panics nor takes memory without bound.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = trimtab_logs::read_bytes("wandb", "file", bytes);
    // A fuzzer does not find checksums: the same bytes as a record.
    let Ok(length) = u16::try_from(bytes.len()) else { return };
    let mut crc = flate2::Crc::new();
    crc.update(&[1]);
    crc.update(bytes);
    let (crc, length) = (crc.sum().to_le_bytes(), length.to_le_bytes());
    let file = [&b":W&B\xe1\xbe\x00"[..], &crc, &length, &[1], bytes].concat();
    let _ = trimtab_logs::read_bytes("wandb", "file", &file);
});
