//! Opening an archive neither panics nor takes memory without bound, whatever is in it.

#![no_main]

use std::cell::OnceCell;
use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;

thread_local! {
    /// One folder a process; its only file is written anew for each input.
    static FOLDER: OnceCell<PathBuf> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| {
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| {
            let folder = std::env::temp_dir().join(format!("trimtab-fuzz-{}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("a temporary folder");
            folder
        });
        let path = folder.join("runs.zip");
        std::fs::write(&path, bytes).expect("a temporary file");
        let opened = trimtab_logs::open(&path);
        // A fault of ours is caught there and reported.
        assert!(opened.unreadable.iter().all(|file| !file.reason.contains("internal fault")));
    });
});
