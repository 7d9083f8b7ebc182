//! Files that appear whole or not at all: written beside the final name, then renamed.

use std::io::{BufWriter, Error, ErrorKind, Write};
use std::path::Path;

use crate::error::{DataError, Result};

/// Writes a file so that a reader, a crash or a full disk never leaves half of it under `path`.
///
/// The content goes to a temporary file in the same folder, is flushed and synced to the disk, and only then
/// takes the name `path` (replacing what was there). On any error the temporary file is removed and `path`
/// keeps its old content. The permissions are those of any newly created file: read and write for everyone,
/// less the process's umask.
///
/// # Errors
/// [`DataError::Io`] naming `path`: the folder does not exist (it is not created), no permission, disk full,
/// or whatever `write` returned.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let failed = |source| DataError::io(path, "cannot write", source);
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };

    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".tmp");
    // Without this the temporary file's owner-only mode would stay with the final file.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut temporary = builder.tempfile_in(folder).map_err(|error| {
        failed(match error.kind() {
            ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "its folder does not exist"),
            // The kind alone: `tempfile` adds the temporary name, which tells a user nothing.
            kind => Error::from(kind),
        })
    })?;

    let mut buffered = BufWriter::with_capacity(1 << 16, temporary.as_file_mut());
    write(&mut buffered).map_err(failed)?;
    buffered.flush().map_err(failed)?;
    drop(buffered);
    temporary.as_file().sync_all().map_err(failed)?;
    // On failure the error carries the temporary file, whose destructor removes it.
    temporary.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn the_content_replaces_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "old").unwrap();
        write_atomic(&path, |out| out.write_all(b"new")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn an_error_while_writing_keeps_the_old_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "old").unwrap();
        let error = write_atomic(&path, |out| {
            out.write_all(b"half")?;
            Err(std::io::Error::other("boom"))
        })
        .unwrap_err();
        assert!(error.to_string().contains("a.txt: cannot write: boom"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn a_missing_folder_is_an_error_that_names_the_final_path_and_is_not_created() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/a.txt");
        let error = write_atomic(&path, |_| Ok(())).unwrap_err().to_string();
        assert!(error.ends_with("missing/a.txt: cannot write: its folder does not exist"), "{error}");
        assert_eq!(entries(folder.path()), 0);
    }

    #[test]
    fn a_folder_in_the_way_is_an_error_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::create_dir(&path).unwrap();
        assert!(write_atomic(&path, |out| out.write_all(b"x")).is_err());
        assert_eq!(entries(folder.path()), 1);
    }

    #[cfg(unix)]
    #[test]
    fn the_mode_is_that_of_any_created_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write_atomic(&ours, |_| Ok(())).unwrap();
        std::fs::File::create(&plain).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
