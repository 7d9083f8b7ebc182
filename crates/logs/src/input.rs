//! A file of a log: plain, gzip or an entry of a zip archive; UTF-8 or UTF-16.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::LogError;

/// Bytes of a file that a format sees before it decides.
pub(crate) const HEAD: usize = 64 * 1024;
/// Largest entry of a zip archive that is read: it is held in memory.
const LARGEST_ENTRY: u64 = 256 << 20;
/// Bytes read of an entry for its head: enough for `HEAD` bytes of text, also in UTF-16.
const ENTRY_HEAD: u64 = 4 * HEAD as u64;
/// Most bytes that one compressed file, or one archive in all, may unfold to.
const LARGEST_UNFOLDED: u64 = 8 << 30;
/// Longest line that is kept; what follows it is passed over.
const LONGEST_LINE: usize = 64 << 20;

/// One file of a log.
#[derive(Clone, Debug)]
pub struct Input {
    path: PathBuf,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    File,
    /// The archive and the name within it.
    Entry(Arc<Archive>, String),
    Memory(Arc<[u8]>),
}

impl Input {
    /// A file of the file system.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), source: Source::File }
    }

    /// An entry of a zip archive; its path is that of the archive followed by its name.
    pub(crate) fn entry(archive: &Arc<Archive>, name: &str) -> Self {
        Self { path: archive.path.join(name), source: Source::Entry(Arc::clone(archive), name.to_owned()) }
    }

    /// Bytes under a name, with nothing beside them.
    pub fn memory(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Self {
        Self { path: name.into(), source: Source::Memory(bytes.into()) }
    }

    /// The archive that it is an entry of.
    pub(crate) fn archive(&self) -> Option<&Arc<Archive>> {
        match &self.source {
            Source::Entry(archive, _) => Some(archive),
            Source::File | Source::Memory(_) => None,
        }
    }

    /// The file, as the user would name it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name without folders, without a `.gz`.
    pub fn name(&self) -> String {
        let name = self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        name.strip_suffix(".gz").map_or_else(|| name.clone(), str::to_owned)
    }

    /// A file beside this one, or at a path relative to its folder (`../hparams.yaml`), where it exists.
    pub fn beside(&self, relative: &str) -> Option<Self> {
        match &self.source {
            Source::Memory(_) => None,
            Source::File => {
                let path = self.path.parent()?.join(relative);
                path.is_file().then(|| Self::file(path))
            }
            Source::Entry(archive, name) => {
                let mut parts: Vec<&str> = name.split('/').collect();
                parts.pop();
                for part in relative.split('/') {
                    match part {
                        ".." => drop(parts.pop()?),
                        "." | "" => {}
                        part => parts.push(part),
                    }
                }
                let name = parts.join("/");
                archive.has(&name).then(|| Self::entry(archive, &name))
            }
        }
    }

    /// The bytes, decompressed.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`].
    pub fn bytes(&self) -> Result<Box<dyn BufRead>, LogError> {
        self.bytes_of_entry(LARGEST_ENTRY)
    }

    /// The bytes, at most `limit` of them where they are an entry of an archive.
    fn bytes_of_entry(&self, limit: u64) -> Result<Box<dyn BufRead>, LogError> {
        let io = |source| LogError::Io { path: self.path.clone(), source };
        let mut raw: Box<dyn BufRead> = match &self.source {
            Source::Memory(bytes) => Box::new(Cursor::new(Arc::clone(bytes))),
            Source::File => {
                Box::new(BufReader::with_capacity(256 * 1024, File::open(&self.path).map_err(io)?))
            }
            Source::Entry(archive, name) => Box::new(Cursor::new(archive.read(name, limit).map_err(io)?)),
        };
        if raw.fill_buf().map_err(io)?.starts_with(&[0x1f, 0x8b]) {
            let unfolded = flate2::bufread::MultiGzDecoder::new(raw).take(LARGEST_UNFOLDED);
            return Ok(Box::new(BufReader::with_capacity(256 * 1024, Torn(unfolded))));
        }
        Ok(raw)
    }

    /// The bytes as UTF-8 text: UTF-16 (with or without a mark at its start) is transcoded, a UTF-8 mark removed. Bytes that
    /// are not text are left as they are.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`].
    pub fn text(&self) -> Result<Box<dyn BufRead>, LogError> {
        self.decoded(self.bytes()?)
    }

    fn decoded(&self, mut raw: Box<dyn BufRead>) -> Result<Box<dyn BufRead>, LogError> {
        let head = raw.fill_buf().map_err(|source| LogError::Io { path: self.path.clone(), source })?;
        if head.starts_with(&[0xef, 0xbb, 0xbf]) {
            raw.consume(3);
            return Ok(raw);
        }
        match utf16(head) {
            None => Ok(raw),
            Some(encoding) => Ok(Box::new(BufReader::new(Transcoded {
                raw,
                decoder: encoding.new_decoder_with_bom_removal(),
                ready: Vec::new(),
                taken: 0,
                done: false,
            }))),
        }
    }

    /// The lines, without their end (`\n`, `\r\n`); lone carriage returns, as progress bars write them, end a line too.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`].
    pub fn lines(&self) -> Result<Lines, LogError> {
        Ok(Lines { reader: self.text()?, buffer: Vec::new(), number: 0, ended: true })
    }

    /// The whole text, at most `limit` bytes of it; what is not UTF-8 is replaced.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`].
    pub fn to_text(&self, limit: u64) -> Result<String, LogError> {
        let mut bytes = Vec::new();
        let read = self.text()?.take(limit).read_to_end(&mut bytes);
        read.map_err(|source| LogError::Io { path: self.path.clone(), source })?;
        Ok(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    /// The first bytes, as [`text`](Self::text) gives them, and whether they are all.
    pub(crate) fn head(&self) -> Result<(Vec<u8>, bool), LogError> {
        let io = |source| LogError::Io { path: self.path.clone(), source };
        let mut head = Vec::with_capacity(4096);
        let mut text = self.decoded(self.bytes_of_entry(ENTRY_HEAD)?)?.take(HEAD as u64 + 1);
        text.read_to_end(&mut head).map_err(io)?;
        let complete = head.len() <= HEAD;
        head.truncate(HEAD);
        Ok((head, complete))
    }
}

/// A zip archive whose entries are logs.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    /// Entries are read one at a time, so that only what a reader holds is in memory.
    zip: Mutex<zip::ZipArchive<BufReader<File>>>,
    /// Bytes unfolded so far: a few bytes can claim to be very many.
    unfolded: AtomicU64,
    /// Entries of which only the beginning was read.
    cut: Mutex<BTreeSet<String>>,
}

impl Archive {
    /// Opens an archive by its list of entries.
    pub fn open(path: &Path) -> Result<Arc<Self>, LogError> {
        let io = |source| LogError::Io { path: path.to_owned(), source };
        let file = BufReader::new(File::open(path).map_err(io)?);
        let zip = zip::ZipArchive::new(file).map_err(|e| io(io::Error::other(e)))?;
        Ok(Arc::new(Self {
            path: path.to_owned(),
            zip: Mutex::new(zip),
            unfolded: AtomicU64::new(0),
            cut: Mutex::default(),
        }))
    }

    fn zip(&self) -> std::sync::MutexGuard<'_, zip::ZipArchive<BufReader<File>>> {
        // A panic elsewhere leaves the archive as readable as before: each read seeks first.
        self.zip.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names of the files in it.
    pub fn names(&self) -> Vec<String> {
        let zip = self.zip();
        zip.file_names().filter_map(Result::ok).filter(|name| !name.ends_with('/')).map(Into::into).collect()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The entries of which only the beginning was read, as they are too large.
    pub fn cut(&self) -> BTreeSet<String> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has(&self, name: &str) -> bool {
        self.zip().index_for_name(name).is_some()
    }

    fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let room = LARGEST_UNFOLDED.saturating_sub(self.unfolded.load(Ordering::Relaxed));
        if room == 0 {
            return Err(io::Error::other("the archive unfolds to more than 8 GiB"));
        }
        let mut content = Vec::new();
        let mut zip = self.zip();
        let mut entry = zip.by_name(name).map_err(io::Error::other)?;
        // A torn entry gives what could be read.
        let _ = entry.by_ref().take(limit.min(room)).read_to_end(&mut content);
        // For a head that is as it should be.
        if (limit > ENTRY_HEAD || room < limit) && entry.read(&mut [0]).is_ok_and(|more| more > 0) {
            self.cut.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        }
        self.unfolded.fetch_add(content.len() as u64, Ordering::Relaxed);
        Ok(content)
    }
}

/// The encoding of text in units of two bytes, by its mark or by where its zeros are.
fn utf16(head: &[u8]) -> Option<&'static encoding_rs::Encoding> {
    match head {
        [0xff, 0xfe, ..] => return Some(encoding_rs::UTF_16LE),
        [0xfe, 0xff, ..] => return Some(encoding_rs::UTF_16BE),
        _ => {}
    }
    let head = &head[..head.len().min(512) & !1];
    if head.len() < 8 {
        return None;
    }
    let zeros = |offset: usize| head.iter().skip(offset).step_by(2).filter(|&&b| b == 0).count();
    // Text in a Latin alphabet has a zero in every other byte and none elsewhere.
    let (even, odd, half) = (zeros(0), zeros(1), head.len() / 2);
    if even == 0 && odd * 10 >= half * 9 {
        Some(encoding_rs::UTF_16LE)
    } else if odd == 0 && even * 10 >= half * 9 {
        Some(encoding_rs::UTF_16BE)
    } else {
        None
    }
}

/// A stream whose end may be torn off, as of a file that is still being written: an error is its end.
struct Torn<R>(R);

impl<R: Read> Read for Torn<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(_) => Ok(0),
            ok => ok,
        }
    }
}

struct Transcoded {
    raw: Box<dyn BufRead>,
    decoder: encoding_rs::Decoder,
    ready: Vec<u8>,
    taken: usize,
    done: bool,
}

impl Read for Transcoded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.ready.len() && !self.done {
            let bytes = self.raw.fill_buf()?;
            let (length, last) = (bytes.len(), bytes.is_empty());
            self.ready.resize(self.decoder.max_utf8_buffer_length(length).unwrap_or(length * 3 + 16), 0);
            let (_, read, written, _) = self.decoder.decode_to_utf8(bytes, &mut self.ready, last);
            self.ready.truncate(written);
            self.taken = 0;
            self.raw.consume(read);
            self.done = last;
        }
        let length = buffer.len().min(self.ready.len() - self.taken);
        buffer[..length].copy_from_slice(&self.ready[self.taken..self.taken + length]);
        self.taken += length;
        Ok(length)
    }
}

/// Lines of a text, one at a time.
pub struct Lines {
    reader: Box<dyn BufRead>,
    buffer: Vec<u8>,
    number: u64,
    ended: bool,
}

impl Lines {
    /// The next line, with what is not UTF-8 replaced; `None` at the end, or where the file cannot be read further.
    pub fn next(&mut self) -> Option<std::borrow::Cow<'_, str>> {
        self.next_bytes().map(String::from_utf8_lossy)
    }

    /// The next line as bytes.
    pub fn next_bytes(&mut self) -> Option<&[u8]> {
        self.buffer.clear();
        self.ended = false;
        let mut any = false;
        loop {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            if available.is_empty() {
                break;
            }
            any = true;
            let end = memchr::memchr2(b'\n', b'\r', available);
            let taken = end.unwrap_or(available.len());
            let room = LONGEST_LINE.saturating_sub(self.buffer.len());
            self.buffer.extend_from_slice(&available[..taken.min(room)]);
            let Some(end) = end else {
                self.reader.consume(taken);
                continue;
            };
            let carriage = available[end] == b'\r';
            self.reader.consume(end + 1);
            self.ended = true;
            if carriage && matches!(self.reader.fill_buf(), Ok([b'\n', ..])) {
                self.reader.consume(1);
            }
            break;
        }
        if !any {
            return None;
        }
        self.number += 1;
        Some(&self.buffer)
    }

    /// Number of the line given last, counted from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether the line given last has its line end: the last line of a file that is being written may be cut off.
    pub fn ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut lines = Input::memory("log", bytes.to_vec()).lines().expect("in memory");
        let mut all = Vec::new();
        while let Some(line) = lines.next() {
            all.push(line.into_owned());
        }
        all
    }

    fn utf16(text: &str, mark: bool, little: bool) -> Vec<u8> {
        let mark = mark.then_some(0xfeff);
        let unit = |unit: u16| if little { unit.to_le_bytes() } else { unit.to_be_bytes() };
        mark.into_iter().chain(text.encode_utf16()).flat_map(unit).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("in memory");
        encoder.finish().expect("in memory")
    }

    fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).expect("in memory");
            writer.write_all(bytes).expect("in memory");
        }
        writer.finish().expect("in memory").into_inner()
    }

    #[test]
    fn every_line_end_ends_a_line() {
        assert_eq!(lines(b"a\nb\r\nc\rd"), ["a", "b", "c", "d"]);
        assert_eq!(lines(b"\n\r\n\r"), ["", "", ""]);
        assert_eq!(lines(b""), [""; 0]);
        assert_eq!(lines(b"caf\xe9"), ["caf\u{fffd}"]);
        assert_eq!(lines(b"\xef\xbb\xbfa"), ["a"]);
    }

    #[test]
    fn an_entry_over_the_limit_is_told() {
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), zip(&[("large", &[b'x'; 3 * HEAD]), ("small", b"x")])).expect("write");
        let archive = Archive::open(file.path()).expect("an archive");
        let limit = ENTRY_HEAD + 1;
        assert_eq!(archive.read("small", limit).expect("small").len(), 1);
        assert_eq!(archive.read("large", limit).expect("large").len(), 3 * HEAD);
        assert!(archive.cut().is_empty());
        archive.unfolded.store(LARGEST_UNFOLDED - 5, Ordering::Relaxed);
        assert_eq!(archive.read("large", limit).expect("large").len(), 5);
        assert_eq!(archive.cut().into_iter().collect::<Vec<_>>(), ["large"]);
    }

    #[test]
    fn a_cut_off_line_can_be_told() {
        let mut lines = Input::memory("log", b"1\n2".to_vec()).lines().expect("in memory");
        assert!(lines.next().is_some() && lines.ended());
        assert!(lines.next().is_some() && !lines.ended());
        assert_eq!(lines.number(), 2);
        assert!(lines.next().is_none());
    }

    #[test]
    fn utf_16_is_read_with_and_without_a_mark() {
        let text = "epoch,loss\r\n1,0.5\r\n2,0.25";
        for (mark, little) in [(true, true), (true, false), (false, true), (false, false)] {
            let bytes = utf16(text, mark, little);
            assert_eq!(lines(&bytes), ["epoch,loss", "1,0.5", "2,0.25"], "{mark} {little}");
            // A file that is being written can end within a character.
            assert_eq!(lines(&bytes[..bytes.len() - 1])[..2], ["epoch,loss", "1,0.5"]);
        }
    }

    #[test]
    fn a_torn_gzip_file_gives_what_could_be_read() {
        let text: String =
            (0..50_000_u32).map(|at| format!("{at} {}\n", at.wrapping_mul(2_654_435_761))).collect();
        let packed = gzip(text.as_bytes());
        assert_eq!(lines(&packed).len(), 50_000);
        let torn = lines(&packed[..packed.len() / 2]);
        assert!(torn.len() > 10_000 && torn.len() < 40_000, "{}", torn.len());
        assert_eq!(torn[0], "0 0");
        assert_eq!(lines(&packed[..5]), [""; 0]);
        // Appended to by a second writer.
        assert_eq!(lines(&[gzip(b"a\n"), gzip(b"b\n")].concat()), ["a", "b"]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut bytes = vec![b'x'; LONGEST_LINE + 10];
        bytes.extend_from_slice(b"\nnext\n");
        let lines = lines(&bytes);
        assert_eq!((lines[0].len(), lines[1].as_str()), (LONGEST_LINE, "next"));
    }

    #[test]
    fn the_head_says_whether_it_is_all() {
        let head = |bytes: Vec<u8>| Input::memory("log", bytes).head().expect("in memory");
        assert_eq!(head(b"short".to_vec()), (b"short".to_vec(), true));
        assert_eq!(head(vec![b'x'; HEAD]), (vec![b'x'; HEAD], true));
        assert_eq!(head(vec![b'x'; HEAD + 1]), (vec![b'x'; HEAD], false));
        assert_eq!(head(utf16("short", true, true)), (b"short".to_vec(), true));
        assert_eq!(head(gzip(&vec![b'x'; HEAD * 10])), (vec![b'x'; HEAD], false));
    }

    #[test]
    fn entries_of_an_archive_are_read_and_find_what_is_beside_them() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("runs.zip");
        let long = "x".repeat(HEAD * 5);
        let packed = gzip(b"packed");
        let entries: &[(&str, &[u8])] = &[
            ("run/metrics.csv", b"a,b\n1,2\n"),
            ("run/sub/x.txt", long.as_bytes()),
            ("hparams.yaml", b"lr: 0.1"),
            ("run/log.gz", &packed),
        ];
        std::fs::write(&path, zip(entries)).expect("write");
        let archive = Archive::open(&path).expect("an archive");
        assert_eq!(archive.names(), ["run/metrics.csv", "run/sub/x.txt", "hparams.yaml", "run/log.gz"]);
        let metrics = Input::entry(&archive, "run/metrics.csv");
        assert_eq!(metrics.path(), path.join("run/metrics.csv"));
        assert_eq!(metrics.to_text(100).expect("an entry"), "a,b\n1,2\n");
        assert_eq!(metrics.head().expect("an entry"), (b"a,b\n1,2\n".to_vec(), true));
        assert_eq!(Input::entry(&archive, "run/log.gz").to_text(100).expect("an entry"), "packed");
        assert_eq!(Input::entry(&archive, "run/log.gz").name(), "log");
        let long_entry = Input::entry(&archive, "run/sub/x.txt");
        assert_eq!(long_entry.head().expect("an entry"), (long.as_bytes()[..HEAD].to_vec(), false));
        assert_eq!(long_entry.to_text(u64::MAX).expect("an entry").len(), long.len());
        for (relative, exists) in
            [("../hparams.yaml", true), ("./sub/x.txt", true), ("none", false), ("../../hparams.yaml", false)]
        {
            assert_eq!(metrics.beside(relative).is_some(), exists, "{relative}");
        }
        let error = Input::entry(&archive, "none").bytes().err().expect("no entry");
        assert!(error.to_string().contains("runs.zip"), "{error}");
    }

    #[test]
    fn what_is_beside_a_file_is_found() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::create_dir(folder.path().join("version_0")).expect("mkdir");
        std::fs::write(folder.path().join("hparams.yaml"), "lr: 1").expect("write");
        let input = Input::file(folder.path().join("version_0/metrics.csv"));
        assert!(input.beside("../hparams.yaml").is_some());
        assert!(input.beside("hparams.yaml").is_none());
        assert!(input.beside("../version_0").is_none());
        assert!(Input::memory("x", Vec::new()).beside("y").is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_as_lines(bytes in prop::collection::vec(any::<u8>(), 0..2_000), packed in any::<bool>()) {
            let bytes = if packed { gzip(&bytes) } else { bytes };
            prop_assert!(lines(&bytes).iter().all(|line| !line.contains(['\n', '\r'])));
        }

        #[test]
        fn utf_16_reads_as_the_text_it_is(text in "[ -~é\n]{20,200}", little in any::<bool>()) {
            prop_assert_eq!(lines(&utf16(&text, true, little)), lines(text.as_bytes()));
        }

        #[test]
        fn a_mutated_archive_is_an_error_or_read(at in 0_usize..400, byte in any::<u8>(), end in 0_usize..400) {
            let mut bytes = zip(&[("a/metrics.csv", b"a,b\n1,2\n"), ("b.txt", b"text")]);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(bytes.len() - end.min(bytes.len()).min(if at % 2 == 0 { 0 } else { end }));
            let folder = tempfile::tempdir().expect("folder");
            let path = folder.path().join("x.zip");
            std::fs::write(&path, bytes).expect("write");
            if let Ok(archive) = Archive::open(&path) {
                for name in archive.names() {
                    let _ = Input::entry(&archive, &name).to_text(1_000);
                }
            }
        }
    }
}
