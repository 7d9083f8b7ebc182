//! No names of columns, and no declared settings, make the mapping to signals panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trimtab_logs::vocabulary;
use trimtab_signals::Facts;

fuzz_target!(|text: &str| {
    let names: Vec<&str> = text.lines().take(50).collect();
    let mapped = vocabulary::map(&names);
    let mut signals: Vec<&String> = mapped.iter().flatten().collect();
    let count = signals.len();
    signals.sort();
    signals.dedup();
    assert_eq!(signals.len(), count, "two columns became one signal");
    let mut facts = Facts::new();
    for pair in names.windows(2) {
        vocabulary::declare(&mut facts, pair[0], &pair[1].into());
        if let Ok(value) = trimtab_signals::json::parse(pair[1].as_bytes()) {
            vocabulary::declare(&mut facts, pair[0], &value);
        }
    }
});
