//! One file a format, and the list of them.

// Alphabetical; a format is registered here and in `FORMATS`, nowhere else.
mod algoperf;
mod detectron2_json;
mod detectron2_log;
mod eval_list_json;
mod generic_csv;
mod generic_json;
mod hf_trainer_state;
mod keras_csv;
mod keras_history;
mod lightning_csv;
mod mmengine_json;
mod mmengine_log;
mod nnunet;
mod pix2pix;
mod plain_text;
mod savetxt;
mod tensorboard;
mod trimtab_run;
mod ultralytics_csv;
mod wandb;

pub(crate) use plain_text::declare_ending;
pub use plain_text::read_with_pattern;
pub use trimtab_run::own_run;

use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;

/// A log format.
#[derive(Clone, Copy)]
pub struct Format {
    /// Permanent name, kebab-case.
    pub id: &'static str,
    /// Who writes it, in one line.
    pub summary: &'static str,
    /// Whether a file is of this format, judged by its head.
    pub recognise: fn(&Peek<'_>) -> Option<Certainty>,
    /// Reads the files of one run, in the order of their names, into the builder. Lines that cannot be read are passed over and
    /// noted; an error only where nothing at all can be read. Must neither panic nor use memory in proportion to the input beyond
    /// what the builder keeps.
    pub read: fn(&[Input], &mut RunBuilder) -> Result<(), LogError>,
    /// Which files make a run.
    pub layout: Layout,
    /// Of several formats in one folder the highest rank is read: the same run in more detail. Structured logs of a framework 30,
    /// generic tables 20, text 10.
    pub rank: u8,
    /// How many folders above the file's own the run's folder lies: 1 for `vis_data/x.json`. Gets the file's path.
    pub depth: fn(&std::path::Path) -> usize,
}

/// How sure a format is of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// A catch-all would take it.
    Fallback,
    /// A generic format's structure is there.
    Generic,
    /// Names or marks of one framework are there.
    Sure,
}

/// Which files make a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Each file is a run.
    File,
    /// All files of the format in a folder are one run; a single file named by the user is read alone.
    Folder,
    /// All files of the format in a folder are one run, also when the user names one of them.
    Together,
}

/// The head of a file.
#[derive(Debug)]
pub struct Peek<'a> {
    /// The file, as the user would name it.
    pub path: &'a std::path::Path,
    /// Its first bytes, decompressed and, for text, as UTF-8; at most 64 KiB. The whole file when `complete`.
    pub head: &'a [u8],
    /// Whether the head is the whole file.
    pub complete: bool,
    /// The head as text, with a broken last character cut off; `None` where it is not text.
    pub text: Option<&'a str>,
}

impl Peek<'_> {
    /// The file's name without folders, lower case, without a `.gz`.
    pub fn name(&self) -> String {
        let name = self.path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
        name.strip_suffix(".gz").map_or_else(|| name.clone(), str::to_owned)
    }

    /// Complete lines of the head; the cut-off last one only when the file ends there.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        let text = self.text.unwrap_or_default();
        let whole = if self.complete { text } else { text.rsplit_once('\n').map_or("", |(whole, _)| whole) };
        whole.lines()
    }
}

/// The depth of a format whose files lie in the run's own folder.
pub fn in_the_run_folder(_: &std::path::Path) -> usize {
    0
}

/// Every format. Of formats equally sure of a file the first wins.
pub const FORMATS: &[&Format] = &[
    &algoperf::FORMAT,
    &detectron2_json::FORMAT,
    &detectron2_log::FORMAT,
    &eval_list_json::FORMAT,
    &generic_csv::FORMAT,
    &generic_json::FORMAT,
    &hf_trainer_state::FORMAT,
    &keras_csv::FORMAT,
    &keras_history::FORMAT,
    &lightning_csv::FORMAT,
    &mmengine_json::FORMAT,
    &mmengine_log::FORMAT,
    &nnunet::FORMAT,
    &pix2pix::FORMAT,
    &plain_text::FORMAT,
    &savetxt::FORMAT,
    &tensorboard::FORMAT,
    &trimtab_run::FORMAT,
    &ultralytics_csv::FORMAT,
    &wandb::FORMAT,
];
