//! The run directory: writing one, resuming one, reading one. `docs/run-directory.md` describes it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::info::{RunInfo, Summary};
use crate::record::{Event, Record};
use crate::trace::Trace;

/// The resolved configuration.
pub const CONFIG: &str = "config.toml";
/// What the run is.
pub const RUN_INFO: &str = "run.json";
/// One record a line.
pub const SIGNALS: &str = "signals.jsonl";
/// One event a line.
pub const EVENTS: &str = "events.jsonl";
/// The folder of checkpoints, each named by its step.
pub const CHECKPOINTS: &str = "checkpoints";
/// The outcome.
pub const SUMMARY: &str = "summary.json";

/// Writes a run directory.
///
/// Each record and event is one append of one whole line, handed to the operating system at once: a
/// killed program loses nothing, a power cut at most the last moments. Documents are replaced
/// whole or not at all.
#[derive(Debug)]
pub struct RunWriter {
    path: PathBuf,
    signals: Log,
    events: Log,
    resumed: Option<Resumed>,
}

/// What [`RunWriter::resume`] found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Resumed {
    /// Step of the last record kept.
    pub last_step: Option<u64>,
    /// Time of the last record kept, in seconds since the start of the run; 0 when there is none. The
    /// resumed run's clock goes on from here.
    pub last_time: f64,
    /// Records and events removed because they lie after the step kept.
    pub later: u64,
    /// Lines removed because they could not be read, torn last lines among them.
    pub unreadable: u64,
}

impl RunWriter {
    /// Starts a run in a new or empty directory, with its parents.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyUsed`] when the directory has anything in it; [`Error::Io`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        let mut entries = fs::read_dir(&path).map_err(Error::io("read", &path))?;
        if entries.next().is_some() {
            return Err(Error::AlreadyUsed { path });
        }
        Ok(Self {
            signals: Log::create(path.join(SIGNALS))?,
            events: Log::create(path.join(EVENTS))?,
            path,
            resumed: None,
        })
    }

    /// Goes on with a run from the state after step `keep_through_step`: removes later records and
    /// events, lines that cannot be read and `summary.json`, which speaks of an end that is none.
    ///
    /// Each file is replaced whole or not at all, so that an interrupted resume can be repeated.
    ///
    /// # Errors
    ///
    /// [`Error::NotARun`] when there is no `signals.jsonl`; [`Error::Io`].
    pub fn resume(path: impl AsRef<Path>, keep_through_step: u64) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        let (signals, events, summary) = (path.join(SIGNALS), path.join(EVENTS), path.join(SUMMARY));
        if !signals.is_file() {
            return Err(Error::NotARun { path });
        }
        let mut resumed = Resumed::default();
        truncate(&signals, keep_through_step, &mut resumed, |line| {
            let record = Record::from_line(line).ok()?;
            Some((record.step, record.time))
        })?;
        if events.is_file() {
            // Events do not set the clock: only records are made at every interval.
            let mut of_events = Resumed::default();
            truncate(&events, keep_through_step, &mut of_events, |line| {
                let event = Event::from_line(line).ok()?;
                Some((event.step, event.time))
            })?;
            resumed.later += of_events.later;
            resumed.unreadable += of_events.unreadable;
        }
        match fs::remove_file(&summary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &summary)(error));
            }
            _ => {}
        }
        Ok(Self {
            signals: Log::append_to(signals)?,
            events: Log::append_to(events)?,
            path,
            resumed: Some(resumed),
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was found on resuming; `None` for a new run.
    pub fn resumed(&self) -> Option<&Resumed> {
        self.resumed.as_ref()
    }

    /// Appends a record to `signals.jsonl`.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] when a name occurs twice or is that of a field; [`Error::Io`]. Nothing is
    /// written then, not even in part.
    pub fn record(&mut self, record: &Record) -> Result<(), Error> {
        if let Some((name, problem)) = record.problem() {
            return Err(Error::Record { step: record.step, name: name.to_owned(), problem });
        }
        self.signals.append(&record.to_line())
    }

    /// Appends an event to `events.jsonl`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]. Nothing is written then, not even in part.
    pub fn event(&mut self, event: &Event) -> Result<(), Error> {
        self.events.append(&event.to_line())
    }

    /// Writes `config.toml`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn write_config(&self, toml: &str) -> Result<(), Error> {
        replace(&self.path.join(CONFIG), toml.as_bytes())
    }

    /// Writes `run.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn write_run_json(&self, info: &RunInfo) -> Result<(), Error> {
        self.write_document(RUN_INFO, info)
    }

    /// Writes `summary.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn write_summary(&self, summary: &Summary) -> Result<(), Error> {
        self.write_document(SUMMARY, summary)
    }

    fn write_document(&self, name: &str, document: &impl Serialize) -> Result<(), Error> {
        let path = self.path.join(name);
        let mut text = serde_json::to_vec_pretty(document)
            .map_err(|source| Error::Document { path: path.clone(), source })?;
        text.push(b'\n');
        replace(&path, &text)
    }
}

/// Appends an event to a run that nobody writes at the moment.
///
/// # Errors
///
/// [`Error::Io`].
pub fn append_event(run: impl AsRef<Path>, event: &Event) -> Result<(), Error> {
    Log::append_to(run.as_ref().join(EVENTS))?.append(&event.to_line())
}

/// An append-only file of lines.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Log {
    fn create(path: PathBuf) -> Result<Self, Error> {
        // `create_new`: of two runs started in one directory at once, one fails.
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        Ok(Self { path, file, length: 0 })
    }

    fn append_to(path: PathBuf) -> Result<Self, Error> {
        let file =
            OpenOptions::new().append(true).create(true).open(&path).map_err(Error::io("open", &path))?;
        let length = file.metadata().map_err(Error::io("read", &path))?.len();
        Ok(Self { path, file, length })
    }

    fn append(&mut self, line: &str) -> Result<(), Error> {
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            // A full disk may have taken half a line, to which the next one must not be joined. Should
            // this fail as well, readers pass over one unreadable line.
            let _ = self.file.set_len(self.length);
            return Err(Error::io("write", &self.path)(error));
        }
        self.length += line.len() as u64;
        Ok(())
    }
}

/// The name under which a file is written before it takes its place.
fn partial(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.partial"))
}

/// Replaces a file whole: a reader sees the old or the new one.
fn replace(path: &Path, contents: &[u8]) -> Result<(), Error> {
    let partial = partial(path);
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(contents)?;
        file.sync_all()
    });
    written.map_err(Error::io("write", &partial))?;
    fs::rename(&partial, path).map_err(Error::io("replace", path))
}

/// Keeps the lines at or before a step. `read` gives step and time of a line it understands.
fn truncate(
    path: &Path,
    keep_through_step: u64,
    resumed: &mut Resumed,
    read: impl Fn(&[u8]) -> Option<(u64, f64)>,
) -> Result<(), Error> {
    let mut lines = Lines::open(path)?;
    let partial = partial(path);
    let file = File::create(&partial).map_err(Error::io("create", &partial))?;
    let mut kept = BufWriter::new(file);
    while let Some(line) = lines.next_line()? {
        match read(line) {
            Some((step, time)) if step <= keep_through_step => {
                kept.write_all(line)
                    .and_then(|()| kept.write_all(b"\n"))
                    .map_err(Error::io("write", &partial))?;
                resumed.last_step = resumed.last_step.max(Some(step));
                // `max` passes over a NaN.
                resumed.last_time = resumed.last_time.max(time);
            }
            Some(_) => resumed.later += 1,
            None => resumed.unreadable += 1,
        }
    }
    kept.into_inner()
        .map_err(io::IntoInnerError::into_error)
        .and_then(|file| file.sync_all())
        .map_err(Error::io("write", &partial))?;
    fs::rename(&partial, path).map_err(Error::io("replace", path))
}

/// The lines of a file, without their line feeds and without blank ones.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    buffer: Vec<u8>,
    /// Number of the line in the buffer, counted from 1.
    number: u64,
    /// Whether the line in the buffer ended with a line feed.
    terminated: bool,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::new(file),
            buffer: Vec::new(),
            number: 0,
            terminated: true,
        })
    }

    fn next_line(&mut self) -> Result<Option<&[u8]>, Error> {
        loop {
            self.buffer.clear();
            let read =
                self.reader.read_until(b'\n', &mut self.buffer).map_err(Error::io("read", &self.path))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.terminated = self.buffer.ends_with(b"\n");
            if self.terminated {
                self.buffer.pop();
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(Some(&self.buffer));
            }
        }
    }

    /// The next line as read by `parse`. A last line without line feed that does not parse is torn: it
    /// was being written when the program ended, and counts as not written.
    fn next_parsed<T>(
        &mut self,
        torn: &mut bool,
        parse: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Option<Result<T, Error>> {
        let parsed = match self.next_line() {
            Ok(line) => parse(line?),
            Err(error) => return Some(Err(error)),
        };
        match parsed {
            Err(_) if !self.terminated => {
                *torn = true;
                None
            }
            Err(reason) => Some(Err(Error::line(&self.path, self.number, reason))),
            Ok(parsed) => Some(Ok(parsed)),
        }
    }
}

/// The records of a run in the order they were written.
///
/// A line that is not a record gives an [`Error::Line`], after which iteration goes on. After an
/// [`Error::Io`] it has ended.
#[derive(Debug)]
pub struct Records {
    lines: Option<Lines>,
    torn: bool,
}

impl Records {
    /// Whether the last line was torn, known once the iterator has ended.
    pub fn torn_tail(&self) -> bool {
        self.torn
    }
}

impl Iterator for Records {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        next_in(&mut self.lines, &mut self.torn, Record::from_line)
    }
}

/// The events of a run in the order they were written; behaves as [`Records`].
#[derive(Debug)]
pub struct Events {
    lines: Option<Lines>,
    torn: bool,
}

impl Events {
    /// Whether the last line was torn, known once the iterator has ended.
    pub fn torn_tail(&self) -> bool {
        self.torn
    }
}

impl Iterator for Events {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        next_in(&mut self.lines, &mut self.torn, Event::from_line)
    }
}

fn next_in<T>(
    lines: &mut Option<Lines>,
    torn: &mut bool,
    parse: impl Fn(&[u8]) -> Result<T, String>,
) -> Option<Result<T, Error>> {
    let next = lines.as_mut()?.next_parsed(torn, parse);
    if matches!(next, None | Some(Err(Error::Io { .. }))) {
        *lines = None;
    }
    next
}

/// Reads a run directory, also while the run is being written.
#[derive(Clone, Debug)]
pub struct RunReader {
    path: PathBuf,
}

impl RunReader {
    /// Opens a run.
    ///
    /// # Errors
    ///
    /// [`Error::NotARun`] when the directory has no `signals.jsonl`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        if !path.join(SIGNALS).is_file() {
            return Err(Error::NotARun { path });
        }
        Ok(Self { path })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text of `config.toml`; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], also when it is not UTF-8.
    pub fn config(&self) -> Result<Option<String>, Error> {
        let path = self.path.join(CONFIG);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// `run.json`; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Document`].
    pub fn info(&self) -> Result<Option<RunInfo>, Error> {
        self.document(RUN_INFO)
    }

    /// `summary.json`; `None` when the run has not ended.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Document`].
    pub fn summary(&self) -> Result<Option<Summary>, Error> {
        self.document(SUMMARY)
    }

    /// The records.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when `signals.jsonl` cannot be opened.
    pub fn records(&self) -> Result<Records, Error> {
        Ok(Records { lines: Some(Lines::open(&self.path.join(SIGNALS))?), torn: false })
    }

    /// The events; none when there is no `events.jsonl`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when `events.jsonl` cannot be opened.
    pub fn events(&self) -> Result<Events, Error> {
        let path = self.path.join(EVENTS);
        let lines = path.is_file().then(|| Lines::open(&path)).transpose()?;
        Ok(Events { lines, torn: false })
    }

    /// All records as a trace. A torn last line is passed over.
    ///
    /// # Errors
    ///
    /// The first line that is not a record, or [`Error::Io`].
    pub fn trace(&self) -> Result<Trace, Error> {
        self.records()?.collect()
    }

    /// All readable records as a trace, with an error for each line that is not one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when `signals.jsonl` cannot be opened.
    pub fn trace_lossy(&self) -> Result<(Trace, Vec<Error>), Error> {
        let (mut trace, mut errors) = (Trace::new(), Vec::new());
        for record in self.records()? {
            match record {
                Ok(record) => trace.push(&record),
                Err(error) => errors.push(error),
            }
        }
        Ok((trace, errors))
    }

    fn document<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let path = self.path.join(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        match serde_json::from_slice(&text) {
            Ok(document) => Ok(Some(document)),
            Err(source) => Err(Error::Document { path, source }),
        }
    }
}
