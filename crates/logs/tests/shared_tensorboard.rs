//! Real event files are read, and no other file is taken for one or for an offline run of Weights & Biases.

use std::path::{Path, PathBuf};

fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("TRIMTAB_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let found = folder.join("logs").is_dir();
    if !found {
        eprintln!("skipped: no folder of real logs at {}", folder.display());
    }
    found.then_some(folder)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { pending.push(path) } else { files.push(path) }
        }
    }
    files
}

#[test]
fn real_event_files_have_columns_and_nothing_to_complain_about() {
    let Some(shared) = shared() else { return };
    let files = files(&shared.join("logs/tensorboard_events"));
    let events: Vec<_> = files.iter().filter(|path| path.to_string_lossy().contains("tfevents")).collect();
    assert!(!events.is_empty());
    for path in events {
        let opened = trimtab_logs::open(path);
        let [run] = &opened.runs[..] else { panic!("{}: {:?}", path.display(), opened.unreadable) };
        assert_eq!(run.format, "tensorboard");
        assert!(run.trace.names().count() > 0, "{}", path.display());
        let complaints: Vec<_> = run.notes.iter().filter(|note| note.contains("passed over")).collect();
        assert!(complaints.is_empty(), "{}: {complaints:?}", path.display());
    }
}

#[test]
fn no_other_real_log_is_claimed() {
    let Some(shared) = shared() else { return };
    let formats: Vec<_> =
        trimtab_logs::FORMATS.iter().filter(|format| ["tensorboard", "wandb"].contains(&format.id)).collect();
    assert_eq!(formats.len(), 2);
    for path in files(&shared.join("logs")).into_iter().chain(files(&shared.join("replay"))) {
        let is_event_file = path.file_name().is_some_and(|name| name.to_string_lossy().contains("tfevents"));
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let head = &bytes[..bytes.len().min(64 * 1024)];
        let peek = trimtab_logs::Peek {
            path: &path,
            head,
            complete: head.len() == bytes.len(),
            text: std::str::from_utf8(head).ok(),
        };
        for format in &formats {
            let claimed = (format.recognise)(&peek).is_some();
            assert_eq!(
                claimed,
                is_event_file && format.id == "tensorboard",
                "{}: {}",
                path.display(),
                format.id
            );
        }
    }
}
