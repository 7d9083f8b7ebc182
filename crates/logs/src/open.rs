//! From a path to the runs it holds.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use regex::Regex;
use trimtab_signals::{Run, keys};

use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::formats::{Certainty, FORMATS, Format, Layout, Peek, declare_ending, read_with_pattern};
use crate::input::{Archive, Input};

/// Deepest folder that is looked into.
const DEEPEST: usize = 64;
/// Most files that are looked at.
const MOST_FILES: usize = 200_000;
/// Most files listed as unreadable where nothing could be read.
const MOST_LISTED: usize = 50;
/// Most names in one note.
const MOST_NAMED: usize = 5;

/// Folders without logs of runs of their own.
const PASSED_OVER: [&str; 5] = ["node_modules", "__pycache__", "checkpoints", "site-packages", "venv"];
/// Endings of files that are no logs.
const NO_LOGS: [&str; 6] = [
    "png jpg jpeg gif bmp tif tiff webp svg ico pdf mp4 avi mov mkv wav mp3 flac ogg nii dcm mha mhd nrrd mrc",
    "pt pth ckpt safetensors npz npy bin h5 hdf5 pkl pickle joblib onnx pb tflite gguf msgpack mat parquet",
    "arrow feather tfrecord tfrecords lmdb mdb db sqlite",
    "py pyc ipynb cpp c h hpp cu cuh js ts rs sh html css so o a dll exe",
    "yaml yml toml ini cfg xml lock md rst tex bib",
    "tar tgz 7z bz2 xz",
];

/// What a path holds.
#[derive(Debug, Default)]
pub struct Opened {
    /// The runs, by name.
    pub runs: Vec<Run>,
    /// Files that look like logs and could not be read; where there is no run at all, every file that was tried.
    pub unreadable: Vec<Unreadable>,
    /// What was not looked at.
    pub notes: Vec<String>,
}

/// A file that could not be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// What was tried, and why it failed.
    pub reason: String,
}

/// How a path is to be read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What the lines of a text log look like, with a named group for each quantity.
    pub pattern: Option<Regex>,
}

/// Reads the runs at a path: a file, the folder of a run, a tree of folders, or a zip archive of one.
pub fn open(path: &Path) -> Opened {
    open_with(path, &Options::default())
}

/// As [`open`], with options.
pub fn open_with(path: &Path, options: &Options) -> Opened {
    Opener { formats: FORMATS, options }.open(path)
}

/// Reads bytes as one format: what a fuzzer needs, and a test.
///
/// # Errors
///
/// As the format's reader; also for an unknown format.
pub fn read_bytes(format: &str, name: &str, bytes: &[u8]) -> Result<Run, LogError> {
    let format = FORMATS
        .iter()
        .find(|known| known.id == format)
        .ok_or_else(|| LogError::content(name, format!("`{format}` is no format")))?;
    let mut builder = RunBuilder::new();
    (format.read)(&[Input::memory(name, bytes.to_vec())], &mut builder)?;
    Ok(builder.finish(name, format.id))
}

// ---------------------------------------------------------------- finding files

/// Finds the files of a tree that may be logs.
struct Walk<'a> {
    opened: &'a mut Opened,
    files: usize,
}

impl<'a> Walk<'a> {
    fn new(opened: &'a mut Opened) -> Self {
        Self { opened, files: 0 }
    }

    /// The files below a folder, in order of their paths. A link is followed where it leads out of the tree, once.
    fn folder(mut self, root: &Path) -> Vec<Input> {
        let real_root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
        let mut linked: HashSet<PathBuf> = HashSet::new();
        let mut leads_out = |path: &Path| {
            let Ok(target) = fs::canonicalize(path) else { return false };
            let inside = target.starts_with(&real_root) || target.ancestors().any(|at| linked.contains(at));
            // Where it leads to a folder around the tree, the tree would be found again.
            !inside && !real_root.starts_with(&target) && linked.insert(target)
        };
        let mut inputs = Vec::new();
        let mut pending = vec![(root.to_owned(), 0)];
        while let Some((folder, depth)) = pending.pop() {
            let mut entries: Vec<fs::DirEntry> = match fs::read_dir(&folder) {
                Ok(entries) => entries.flatten().collect(),
                Err(e) => {
                    self.opened.unreadable.push(Unreadable { path: folder, reason: e.to_string() });
                    continue;
                }
            };
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_symlink() && !leads_out(&path) {
                    continue;
                }
                // Follows a link; a pipe or a device is neither.
                let (is_folder, is_file) = (path.is_dir(), path.is_file());
                if is_folder && !is_passed_over(&name) {
                    if depth < DEEPEST {
                        pending.push((path, depth + 1));
                    } else {
                        self.note(format!("`{}` lies too deep: not looked into", path.display()));
                    }
                } else if is_file && may_be_log(&name) {
                    if !self.has_room(root) {
                        inputs.sort_by(|a: &Input, b| a.path().cmp(b.path()));
                        return inputs;
                    }
                    if is_zip(&path) {
                        match Archive::open(&path) {
                            Ok(archive) => self.archive(&archive, &mut inputs),
                            Err(e) => {
                                self.opened.unreadable.push(Unreadable { path, reason: e.to_string() });
                            }
                        }
                    } else {
                        inputs.push(Input::file(path));
                    }
                }
            }
        }
        inputs.sort_by(|a, b| a.path().cmp(b.path()));
        inputs
    }

    /// The files of an archive that may be logs, appended.
    fn archive(&mut self, archive: &Arc<Archive>, inputs: &mut Vec<Input>) {
        let mut names = archive.names();
        names.sort();
        for name in names {
            let mut parts = name.rsplit('/');
            let file = parts.next().unwrap_or_default();
            // No archives within archives.
            if !may_be_log(file) || file.to_lowercase().ends_with(".zip") {
                continue;
            }
            if parts.any(is_passed_over) || name.matches('/').count() > DEEPEST {
                continue;
            }
            if !self.has_room(Path::new(&name)) {
                return;
            }
            inputs.push(Input::entry(archive, &name));
        }
    }

    fn has_room(&mut self, at: &Path) -> bool {
        self.files += 1;
        if self.files > MOST_FILES {
            self.note(format!(
                "more than {MOST_FILES} files below `{}`: the rest was not looked at",
                at.display()
            ));
        }
        self.files <= MOST_FILES
    }

    fn note(&mut self, note: String) {
        if self.opened.notes.len() < MOST_LISTED && !self.opened.notes.contains(&note) {
            self.opened.notes.push(note);
        }
    }
}

fn is_passed_over(folder: &str) -> bool {
    folder.starts_with('.') && folder != ".." && folder != "." || PASSED_OVER.contains(&folder)
}

fn may_be_log(file: &str) -> bool {
    let name = file.to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    // The name of an event file may end with that of a host: `events.out.tfevents.1700000000.node1.example.sh`.
    let is_log = || {
        name.contains("tfevents") || !NO_LOGS.iter().any(|line| line.split(' ').any(|known| known == ending))
    };
    !name.is_empty() && !name.starts_with('.') && is_log()
}

/// Whether a file is named and starts like an archive. Weights and arrays are archives too, of another name.
fn is_zip(path: &Path) -> bool {
    let named = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip"));
    named && Input::file(path).head().is_ok_and(|(head, _)| head.starts_with(b"PK"))
}

// ---------------------------------------------------------------- reading runs

/// A file whose format is known.
#[derive(Clone)]
struct Found {
    input: Input,
    certainty: Certainty,
    format: &'static Format,
    /// The place in the list of formats: the earlier of two equals wins.
    place: usize,
}

/// The files of one run folder that are still to be tried, from the highest rank down.
struct Group {
    folder: PathBuf,
    found: Vec<Found>,
    /// Names of files that belong to none of the runs found last.
    apart: Vec<String>,
}

/// The files of one run.
struct Job {
    name: String,
    inputs: Vec<Found>,
    /// Other files of the same folder, which say less.
    beside: Vec<Found>,
}

impl Group {
    /// Takes the files of the highest rank left. Of several formats of that rank the surest is the run, unless in all of them
    /// each file is one by itself.
    fn jobs(&mut self) -> Vec<Job> {
        let Some(rank) = self.found.iter().map(|found| found.format.rank).max() else { return Vec::new() };
        let (mut top, rest): (Vec<Found>, Vec<Found>) =
            self.found.drain(..).partition(|found| found.format.rank == rank);
        self.found = rest;
        let by_itself = |found: &Found| found.format.layout == Layout::File;
        if !top.iter().all(by_itself) {
            let surest = top
                .iter()
                .max_by_key(|found| (found.certainty, std::cmp::Reverse(found.place)))
                .map(|found| found.place);
            let (chosen, others): (Vec<Found>, Vec<Found>) =
                top.into_iter().partition(|found| Some(found.place) == surest);
            top = chosen;
            self.found.extend(others);
        }
        self.apart.clear();
        if !top.iter().all(by_itself) {
            let beside = self.found.clone();
            return vec![Job { name: self.folder.display().to_string(), inputs: top, beside }];
        }
        // Of several runs each has only the files of its name: the crash in a log must not be pinned on all of them.
        let single = top.len() == 1;
        let stem_of = |found: &Found| Path::new(&found.input.name()).file_stem().map(ToOwned::to_owned);
        let key_of = |found: &Found| if single { None } else { stem_of(found) };
        let mut beside: HashMap<_, Vec<Found>> = HashMap::new();
        for found in &self.found {
            beside.entry(key_of(found)).or_default().push(found.clone());
        }
        let jobs = top
            .into_iter()
            .map(|found| Job {
                name: found.input.path().display().to_string(),
                beside: beside.remove(&key_of(&found)).unwrap_or_default(),
                inputs: vec![found],
            })
            .collect();
        self.apart = beside.into_values().flatten().map(|found| found.input.name()).collect();
        self.apart.sort();
        jobs
    }
}

/// Opens paths with a list of formats.
struct Opener<'a> {
    formats: &'a [&'static Format],
    options: &'a Options,
}

impl Opener<'_> {
    fn open(&self, path: &Path) -> Opened {
        let mut opened = Opened::default();
        let unreadable = |reason: String| Unreadable { path: path.to_owned(), reason };
        match fs::metadata(path) {
            Ok(about) if about.is_dir() => {
                let files = Walk::new(&mut opened).folder(path);
                self.tree(path, &files, &mut opened);
            }
            Ok(about) if about.is_file() => match is_zip(path).then(|| Archive::open(path)) {
                Some(Ok(archive)) => {
                    let mut files = Vec::new();
                    Walk::new(&mut opened).archive(&archive, &mut files);
                    self.tree(path, &files, &mut opened);
                }
                Some(Err(e)) => opened.unreadable.push(unreadable(e.to_string())),
                None => self.named(path, &mut opened),
            },
            Ok(_) => opened.unreadable.push(unreadable("neither a file nor a folder".to_owned())),
            Err(e) => opened.unreadable.push(unreadable(e.to_string())),
        }
        opened.runs.sort_by(|a, b| a.name.cmp(&b.name));
        opened
    }

    /// Reads a file that was named: alone, or with the files of its folder where they belong together.
    fn named(&self, path: &Path, opened: &mut Opened) {
        let found = match guarded(|| self.recognise(&Input::file(path))?) {
            Ok(found) => found,
            Err(reason) => return opened.unreadable.push(Unreadable { path: path.to_owned(), reason }),
        };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let mut name = path.display().to_string();
        let mut inputs = Vec::new();
        if found.format.layout == Layout::Together {
            inputs = self.siblings(folder, path, &found);
            if !inputs.is_empty() {
                name = folder.display().to_string();
            }
        }
        inputs.push(found);
        inputs.sort_by(|a, b| a.input.path().file_name().cmp(&b.input.path().file_name()));
        match guarded(|| self.read(&Job { name, inputs, beside: Vec::new() })) {
            Ok(run) => opened.runs.push(run),
            Err(reason) => opened.unreadable.push(Unreadable { path: path.to_owned(), reason }),
        }
    }

    /// The other files of a folder in the format of the one that was named.
    fn siblings(&self, folder: &Path, path: &Path, found: &Found) -> Vec<Found> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let others: Vec<Input> = entries
            .filter(|entry| Some(entry.file_name().as_os_str()) != path.file_name())
            .filter(|entry| may_be_log(&entry.file_name().to_string_lossy()) && entry.path().is_file())
            .take(MOST_FILES)
            .map(|entry| Input::file(entry.path()))
            .collect();
        // Most are of another kind, which this format alone can tell.
        let takes = |other: &Input| {
            let head = other.head().ok();
            head.is_some_and(|(head, complete)| {
                let text = text_of(&head);
                let peek = Peek { path: other.path(), head: &head, complete, text: text.as_deref() };
                (found.format.recognise)(&peek).is_some()
            })
        };
        in_parallel(&others, |other| if takes(other) { self.recognise(other)? } else { Err(String::new()) })
            .into_iter()
            .flatten()
            .filter(|other| other.place == found.place)
            .collect()
    }

    /// Reads the runs among the files of a tree.
    fn tree(&self, root: &Path, files: &[Input], opened: &mut Opened) {
        // Listed only where there is no run at all: a tree has many files that are no logs.
        let mut tried: Vec<Unreadable> = Vec::new();
        let mut folders: BTreeMap<PathBuf, Vec<Found>> = BTreeMap::new();
        let recognise = |input: &Input| {
            let found = self.recognise(input)?;
            Ok(found.map(|found| (run_folder(root, &found), found)))
        };
        for (input, found) in files.iter().zip(in_parallel(files, recognise)) {
            let unreadable = |reason| Unreadable { path: input.path().to_owned(), reason };
            match found {
                Ok(Ok((folder, found))) => folders.entry(folder).or_default().push(found),
                Ok(Err(reason)) => tried.push(unreadable(reason)),
                // It may well be a log.
                Err(reason) => opened.unreadable.push(unreadable(reason)),
            }
        }
        let mut groups: Vec<Group> =
            folders.into_iter().map(|(folder, found)| Group { folder, found, apart: Vec::new() }).collect();
        // Where no file of the highest rank can be read, the next one is tried.
        while !groups.is_empty() {
            let jobs: Vec<(usize, Job)> = groups
                .iter_mut()
                .enumerate()
                .flat_map(|(at, group)| group.jobs().into_iter().map(move |job| (at, job)))
                .collect();
            let mut has_run = vec![false; groups.len()];
            for ((at, job), run) in jobs.iter().zip(in_parallel(&jobs, |(_, job)| self.read(job))) {
                // A catch-all takes any text; without numbers it is no log.
                let fallback = job.inputs.iter().all(|found| found.certainty == Certainty::Fallback);
                match run {
                    Ok(run) if fallback && is_nothing(&run) => {}
                    Ok(run) => {
                        opened.runs.push(run);
                        has_run[*at] = true;
                    }
                    Err(reason) => {
                        let path = match job.inputs.as_slice() {
                            [one] => one.input.path().to_owned(),
                            _ => PathBuf::from(&job.name),
                        };
                        let list = if fallback { &mut tried } else { &mut opened.unreadable };
                        list.push(Unreadable { path, reason });
                    }
                }
            }
            for (group, _) in groups.iter().zip(&has_run).filter(|(_, has_run)| **has_run) {
                if !group.apart.is_empty() && opened.notes.len() < MOST_LISTED {
                    let named = some_of(group.apart.iter().map(|name| format!("`{name}`")));
                    let folder = group.folder.display();
                    opened.notes.push(format!("not read in `{folder}`, as other files say more: {named}"));
                }
            }
            let mut has_run = has_run.into_iter();
            groups.retain(|group| has_run.next() == Some(false) && !group.found.is_empty());
        }
        let mut archives: Vec<&Arc<Archive>> = files.iter().filter_map(Input::archive).collect();
        archives.dedup_by(|a, b| Arc::ptr_eq(a, b));
        for archive in archives {
            let cut = archive.cut();
            if !cut.is_empty() && opened.notes.len() < MOST_LISTED {
                let named = some_of(cut.iter().map(|name| format!("`{name}`")));
                let archive = archive.path().display();
                opened.notes.push(format!("only the beginning was read, too large in `{archive}`: {named}"));
            }
        }
        if opened.runs.is_empty() {
            list_tried(root, tried, opened);
        }
    }

    /// The format of a file, or why there is none; an error where the file could not be looked at.
    fn recognise(&self, input: &Input) -> Result<Result<Found, String>, String> {
        let (head, complete) = input.head().map_err(|e| e.to_string())?;
        let text = text_of(&head);
        let peek = Peek { path: input.path(), head: &head, complete, text: text.as_deref() };
        // What a user's pattern finds is what the user wants read, whatever else it looks like.
        let wanted = self
            .options
            .pattern
            .as_ref()
            .is_some_and(|pattern| peek.lines().any(|line| pattern.is_match(line)));
        let mut best: Option<Found> = None;
        for (place, &format) in self.formats.iter().enumerate() {
            let certainty =
                if wanted && format.id == "text" { Some(Certainty::Sure) } else { (format.recognise)(&peek) };
            let certainty = certainty.filter(|_| !wanted || format.id == "text");
            if let Some(certainty) = certainty
                && best.as_ref().is_none_or(|known| certainty > known.certainty)
            {
                best = Some(Found { input: input.clone(), certainty, format, place });
                if certainty == Certainty::Sure {
                    break;
                }
            }
        }
        Ok(best.ok_or_else(|| {
            if head.is_empty() {
                return "empty".to_owned();
            }
            let tried: Vec<&str> = self.formats.iter().map(|format| format.id).collect();
            format!("in no known format; tried {}", tried.join(", "))
        }))
    }

    fn read(&self, job: &Job) -> Result<Run, String> {
        let Some(format) = job.inputs.first().map(|found| found.format) else {
            return Err("no files".to_owned());
        };
        let inputs: Vec<Input> = job.inputs.iter().map(|found| found.input.clone()).collect();
        let mut builder = RunBuilder::new();
        // A user's pattern replaces the reader of text logs.
        let read = match &self.options.pattern {
            Some(pattern) if format.id == "text" => read_with_pattern(&inputs, pattern, &mut builder),
            _ => (format.read)(&inputs, &mut builder),
        };
        read.map_err(|e| format!("as {}: {e}", format.id))?;
        // Only text tells of the error that ended a run.
        for found in job.beside.iter().filter(|found| found.format.id == "text") {
            declare_ending(&found.input, &mut builder);
        }
        if !job.beside.is_empty() {
            let named =
                job.beside.iter().map(|found| format!("`{}` ({})", found.input.name(), found.format.id));
            builder.note(format!("not read, as {} says more: {}", format.id, some_of(named)));
        }
        Ok(builder.finish(&job.name, format.id))
    }
}

/// The head as text: what is not UTF-8 is replaced, as old logs have a few characters of another encoding. Bytes with a zero, or
/// with much to replace, are no text.
fn text_of(head: &[u8]) -> Option<Cow<'_, str>> {
    if memchr::memchr(0, head).is_some() {
        return None;
    }
    let whole = match std::str::from_utf8(head) {
        Ok(text) => return Some(Cow::Borrowed(text)),
        // The last character may be cut off.
        Err(e) if e.error_len().is_none() => &head[..e.valid_up_to()],
        Err(_) => head,
    };
    let text = String::from_utf8_lossy(whole);
    let replaced = text.chars().filter(|&c| c == char::REPLACEMENT_CHARACTER).count();
    (replaced * 20 <= head.len()).then_some(text)
}

/// The folder of the run that a file belongs to; not above the one that was named.
fn run_folder(root: &Path, found: &Found) -> PathBuf {
    let path = found.input.path();
    let mut folder = path.parent().unwrap_or(root);
    for _ in 0..(found.format.depth)(path).min(DEEPEST) {
        match folder.parent() {
            Some(parent) if folder != root => folder = parent,
            _ => break,
        }
    }
    folder.to_owned()
}

/// The first few of many, and how many more there are.
fn some_of(mut names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(MOST_NAMED);
    let named: Vec<String> = names.by_ref().take(MOST_NAMED).collect();
    if more == 0 { named.join(", ") } else { format!("{} and {more} more", named.join(", ")) }
}

fn is_nothing(run: &Run) -> bool {
    run.trace.names().next().is_none() && run.facts.get(keys::RUN_CRASH.name).is_none()
}

/// Where there is no run, every file that was tried says why.
fn list_tried(root: &Path, mut tried: Vec<Unreadable>, opened: &mut Opened) {
    if tried.is_empty() && opened.unreadable.is_empty() {
        let reason = "no file that could be a log".to_owned();
        tried.push(Unreadable { path: root.to_owned(), reason });
    }
    tried.sort_by(|a, b| a.path.cmp(&b.path));
    let more = tried.len().saturating_sub(MOST_LISTED);
    opened.unreadable.extend(tried.into_iter().take(MOST_LISTED));
    if more > 0 {
        let reason = format!("{more} more files that are no logs");
        opened.unreadable.push(Unreadable { path: root.to_owned(), reason });
    }
}

/// The results for all items, in their order; a panic is that item's error.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, String> + Sync,
) -> Vec<Result<R, String>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len()).min(16);
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, guarded(|| work(item))));
        }
    };
    let mut results: Vec<(usize, Result<R, String>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut results = worker();
        // A worker cannot panic: all its work is guarded.
        results.extend(workers.into_iter().filter_map(|worker| worker.join().ok()).flatten());
        results
    });
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// A panic is a fault of ours, and must not take other runs down with it.
fn guarded<R>(work: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        Err(format!("internal fault, please report it: {message}"))
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    /// A format of files that start with its id; each further line is a value of `x`.
    macro_rules! format {
        ($constant:ident, $id:literal, $layout:ident, $rank:literal, $depth:expr) => {
            static $constant: Format = Format {
                id: $id,
                summary: "",
                recognise: |peek| peek.text.is_some_and(|t| t.starts_with($id)).then_some(Certainty::Sure),
                read: values,
                layout: Layout::$layout,
                rank: $rank,
                depth: $depth,
            };
        };
    }

    format!(ALONE, "alone", File, 30, |_| 0);
    format!(FOLDER, "folder", Folder, 30, |_| 1);
    format!(TOGETHER, "together", Together, 20, |_| 0);
    static TEXT: Format = Format {
        id: "text",
        summary: "",
        recognise: |peek| peek.text.map(|_| Certainty::Fallback),
        read: values,
        layout: Layout::File,
        rank: 10,
        depth: |_| 0,
    };
    const ALL: &[&Format] = &[&ALONE, &FOLDER, &TOGETHER, &TEXT];

    fn values(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
        // Counted over all files.
        let mut step = 0;
        for input in inputs {
            let mut lines = input.lines()?;
            let _ = lines.next();
            while let Some(line) = lines.next() {
                assert!(line != "panic", "on purpose");
                let value = line.parse().map_err(|_| LogError::content(input.path(), "no number"))?;
                builder.put("x", step, value);
                step += 1;
            }
        }
        Ok(())
    }

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().expect("folder");
            for (name, content) in files {
                let path = folder.path().join(name);
                fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
                fs::write(path, content).expect("write");
            }
            Self(folder)
        }

        fn open(&self, name: &str) -> Opened {
            Opener { formats: ALL, options: &Options::default() }.open(&self.0.path().join(name))
        }

        /// The runs below a path of the tree: name, format and number of values.
        fn check(&self, name: &str, expected: &[(&str, &str, usize)]) -> Opened {
            let opened = self.open(name);
            let found: Vec<(String, &str, usize)> = opened
                .runs
                .iter()
                .map(|run| {
                    let name =
                        Path::new(&run.name).strip_prefix(self.0.path()).unwrap_or(Path::new(&run.name));
                    let name = name.to_string_lossy().replace('\\', "/");
                    (name, run.format.as_str(), run.trace.get("x").map_or(0, |column| column.len()))
                })
                .collect();
            let found: Vec<(&str, &str, usize)> =
                found.iter().map(|(name, format, count)| (name.as_str(), *format, *count)).collect();
            assert_eq!(found, expected, "{name}");
            opened
        }
    }

    #[test]
    fn a_tree_is_its_runs_by_name() {
        let tree = Tree::new(&[
            ("b/logs/1", "folder\n1\n2"),
            ("b/logs/2", "folder\n3"),
            ("b/out.log", "text\n1"),
            ("a/x", "alone\n1"),
            ("a/y", "alone\n1\n2"),
            ("c/m1", "together\n1"),
            ("c/m2", "together\n1"),
            ("c/deep/out.log", "text\n1\n2"),
            ("a/image.png", "alone\n1"),
            (".hidden/x", "alone\n1"),
            ("a/__pycache__/x", "alone\n1"),
        ]);
        let opened = tree.check(
            "",
            &[
                ("a/x", "alone", 1),
                ("a/y", "alone", 2),
                ("b", "folder", 3),
                ("c", "together", 2),
                ("c/deep/out.log", "text", 2),
            ],
        );
        assert!(opened.unreadable.is_empty(), "{:?}", opened.unreadable);
        assert_eq!(opened.runs[2].notes, ["not read, as folder says more: `out.log` (text)"]);
        // The same again: nothing depends on which thread was first.
        assert_eq!(tree.open("").runs, opened.runs);
        // Not above the folder that was named.
        tree.check("b/logs", &[("b/logs", "folder", 3)]);
    }

    #[test]
    fn a_named_file_is_read_with_those_it_belongs_to() {
        let tree = Tree::new(&[
            ("m1", "together\n1"),
            ("m2", "together\n1\n2"),
            ("x", "alone\n1"),
            ("y", "alone\n1"),
            ("f/1", "folder\n1"),
            ("f/2", "folder\n1"),
            ("lonely/m", "together\n1"),
        ]);
        tree.check("m2", &[("", "together", 3)]);
        tree.check("lonely/m", &[("lonely/m", "together", 1)]);
        tree.check("x", &[("x", "alone", 1)]);
        tree.check("f/2", &[("f/2", "folder", 1)]);
    }

    #[test]
    fn a_log_beside_several_runs_is_that_of_its_name() {
        let tree = Tree::new(&[
            ("a.csv", "alone\n1"),
            ("b.csv", "alone\n1"),
            ("b.log", "text\n1\nRuntimeError: CUDA out of memory.\n"),
            ("c.log", "text\n1\nRuntimeError: CUDA out of memory.\n"),
        ]);
        let opened = tree.check("", &[("a.csv", "alone", 1), ("b.csv", "alone", 1)]);
        let crashed = |run: &Run| run.facts.get(keys::RUN_CRASH.name).is_some();
        assert!(!crashed(&opened.runs[0]) && crashed(&opened.runs[1]));
        assert_eq!(opened.notes.len(), 1);
        assert!(opened.notes[0].ends_with("say more: `c.log`"), "{:?}", opened.notes);
    }

    #[test]
    fn the_host_in_the_name_of_an_event_file_is_no_ending() {
        assert!(may_be_log("events.out.tfevents.1700000000.node1.sh"));
        assert!(!may_be_log("train.sh") && !may_be_log(".events.out.tfevents.1"));
    }

    #[test]
    fn a_file_that_cannot_be_looked_at_is_told_beside_a_run() {
        let mut opened = Opened::default();
        let tree = Tree::new(&[("a", "alone\n1")]);
        let files = ["a", "gone"].map(|name| Input::file(tree.0.path().join(name)));
        Opener { formats: ALL, options: &Options::default() }.tree(tree.0.path(), &files, &mut opened);
        assert_eq!((opened.runs.len(), opened.unreadable.len()), (1, 1));
        assert!(opened.unreadable[0].path.ends_with("gone"), "{:?}", opened.unreadable);
    }

    #[test]
    fn where_the_best_log_is_broken_the_next_one_is_read() {
        let tree = Tree::new(&[("x", "alone\nbroken"), ("out.log", "text\n1\n2")]);
        let opened = tree.check("", &[("out.log", "text", 2)]);
        assert_eq!(opened.unreadable.len(), 1);
        assert!(opened.unreadable[0].reason.contains("no number"), "{:?}", opened.unreadable);
    }

    #[test]
    fn of_equal_formats_the_first_is_the_run() {
        let tree = Tree::new(&[("a", "alone\n1"), ("sub/b", "folder\n1\n2")]);
        let opened = tree.check("", &[("a", "alone", 1)]);
        assert_eq!(opened.runs[0].notes, ["not read, as alone says more: `b` (folder)"]);
    }

    #[test]
    fn a_fault_of_ours_takes_only_its_own_run_down() {
        let tree = Tree::new(&[("a", "alone\npanic"), ("b", "alone\n1")]);
        let opened = tree.check("", &[("b", "alone", 1)]);
        assert_eq!(opened.unreadable[0].reason, "internal fault, please report it: on purpose");
        assert!(tree.open("a").unreadable[0].reason.contains("internal fault"));
    }

    #[test]
    fn where_nothing_is_readable_every_file_says_why() {
        let tree = Tree::new(&[("a", ""), ("b", "\0\0"), ("sub/c", "text\nno number"), ("none/x.png", "")]);
        let reasons = |opened: Opened| -> Vec<String> {
            opened.unreadable.into_iter().map(|file| file.reason).collect()
        };
        let found = reasons(tree.check("", &[]));
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0], "in no known format; tried alone, folder, together, text");
        assert!(found[1].starts_with("as text:"), "{found:?}");
        assert_eq!(reasons(tree.open("none")), ["no file that could be a log"]);
        assert_eq!(reasons(tree.open("b")).len(), 1);
        assert_eq!(reasons(tree.open("missing")).len(), 1);

        let many: Vec<(String, &str)> =
            (0..MOST_LISTED + 7).map(|at| (std::format!("f{at}"), "\0")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, content)| (name.as_str(), *content)).collect();
        let found = reasons(Tree::new(&many).open(""));
        assert_eq!(found.len(), MOST_LISTED + 1);
        assert_eq!(found[MOST_LISTED], "7 more files that are no logs");
    }

    #[test]
    fn an_archive_is_a_tree() {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in [
            ("a/x", "alone\n1\n2"),
            ("b/logs/1", "folder\n1"),
            ("b/logs/2", "folder\n1"),
            ("c/inner.zip", "PK"),
            ("__pycache__/x", "alone\n1"),
        ] {
            writer.start_file(name, zip::write::SimpleFileOptions::default()).expect("in memory");
            writer.write_all(content.as_bytes()).expect("in memory");
        }
        let tree = Tree::new(&[("y", "alone\n1"), ("torn.zip", "PK\u{3}\u{4}")]);
        let bytes = writer.finish().expect("in memory").into_inner();
        fs::write(tree.0.path().join("runs.zip"), bytes).expect("write");
        let inside = [("runs.zip/a/x", "alone", 2), ("runs.zip/b", "folder", 2)];
        tree.check("runs.zip", &inside);
        let opened = tree.check("", &[inside[0], inside[1], ("y", "alone", 1)]);
        assert_eq!(opened.unreadable.len(), 1);
        assert!(tree.open("torn.zip").unreadable[0].reason.contains("torn.zip"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_out_of_the_tree_only() {
        use std::os::unix::fs::symlink;
        let elsewhere = Tree::new(&[("run/x", "alone\n1")]);
        let tree = Tree::new(&[("a/x", "alone\n1")]);
        let root = tree.0.path();
        symlink(root, root.join("a/loop")).expect("link");
        symlink(root.join("a"), root.join("latest")).expect("link");
        symlink(root.join("missing"), root.join("dangling")).expect("link");
        symlink(elsewhere.0.path(), root.join("other")).expect("link");
        symlink(root.parent().expect("a folder"), root.join("a/up")).expect("link");
        symlink(elsewhere.0.path(), root.join("other_again")).expect("link");
        symlink(elsewhere.0.path().join("run"), elsewhere.0.path().join("inner")).expect("link");
        let opened = tree.open("");
        let names: Vec<&str> = opened.runs.iter().map(|run| run.name.as_str()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[0].ends_with("a/x") && names[1].ends_with("other/run/x"), "{names:?}");
    }

    #[test]
    fn a_head_in_another_encoding_is_text_and_bytes_are_not() {
        assert_eq!(
            text_of(b"loss 0.1 caf\xe9 and more text").as_deref(),
            Some("loss 0.1 caf\u{fffd} and more text")
        );
        assert_eq!(text_of(b"loss \xc3").as_deref(), Some("loss "));
        assert_eq!(text_of(b"\xff\xd8\xff\xe0 image"), None);
        assert_eq!(text_of(b"a\0b"), None);
    }
}
