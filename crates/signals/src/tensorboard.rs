//! Event files that TensorBoard reads, written without TensorFlow or protobuf.
//!
//! An event file is a sequence of TFRecords, each holding one `tensorflow.Event` message: see
//! `tensorflow/core/lib/io/record_writer.cc` and `tensorflow/core/util/event.proto`. Only the few
//! fields that scalars need are encoded.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use self::fields::*;
use crate::error::Error;
use crate::record::Record;

/// The folder inside a run directory.
pub const FOLDER: &str = "tensorboard";
const PREFIX: &str = "events.out.tfevents.";

/// Writes scalars to one event file in `<run>/tensorboard/`.
///
/// Values are stored as `f32`, as TensorBoard keeps them. Writes are buffered: [`flush`](Self::flush)
/// makes them visible; dropping the writer flushes too, but cannot report an error.
#[derive(Debug)]
pub struct TensorBoardWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl TensorBoardWriter {
    /// Opens a new event file for a new run.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn create(run: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open(run.as_ref(), None)
    }

    /// Opens a further event file for a run that goes on after step `keep_through_step`, and tells
    /// TensorBoard to forget what earlier files of the run say about later steps.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn resume(run: impl AsRef<Path>, keep_through_step: u64) -> Result<Self, Error> {
        Self::open(run.as_ref(), Some(keep_through_step))
    }

    fn open(run: &Path, keep_through_step: Option<u64>) -> Result<Self, Error> {
        let folder = run.join(FOLDER);
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        // TensorBoard reads the files of a run in alphabetical order, so a run resumed within the
        // second, or after the clock was set back, must still get a later name.
        let seconds = match latest_start(&folder)? {
            Some(latest) => now.as_secs().max(latest.saturating_add(1)),
            None => now.as_secs(),
        };
        let name = format!("{PREFIX}{seconds:010}.{}.{}.0", host(), std::process::id());
        let path = folder.join(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        let mut writer = Self { path, file: BufWriter::new(file) };
        let wall_time = now.as_secs_f64();
        let mut version = event(wall_time, 0);
        bytes_field(&mut version, EVENT_FILE_VERSION, b"brain.Event:2");
        writer.write(&version)?;
        if let Some(step) = keep_through_step {
            // A session that starts at a step makes TensorBoard drop everything from that step on.
            let mut session = Vec::new();
            varint_field(&mut session, SESSION_STATUS, SESSION_START);
            let mut start = event(wall_time, step.saturating_add(1));
            bytes_field(&mut start, EVENT_SESSION_LOG, &session);
            writer.write(&start)?;
        }
        writer.flush()?;
        Ok(writer)
    }

    /// The event file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one value. `wall_time` is in seconds since 1970.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn write_scalar(&mut self, step: u64, wall_time: f64, tag: &str, value: f64) -> Result<(), Error> {
        self.write_scalars(step, wall_time, [(tag, value)])
    }

    /// Writes all signals of a record. `wall_time` is in seconds since 1970.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn write_record(&mut self, record: &Record, wall_time: f64) -> Result<(), Error> {
        let values = record.values.iter();
        let scalars = values.map(|(name, value)| (name.as_str(), *value));
        self.write_scalars(record.step, wall_time, scalars)
    }

    fn write_scalars<'a>(
        &mut self,
        step: u64,
        wall_time: f64,
        scalars: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<(), Error> {
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let mut entry = Vec::new();
            bytes_field(&mut entry, VALUE_TAG, tag.as_bytes());
            key(&mut entry, VALUE_SIMPLE_VALUE, FIXED_32);
            entry.extend_from_slice(&(value as f32).to_le_bytes());
            bytes_field(&mut summary, SUMMARY_VALUE, &entry);
        }
        let mut event = event(wall_time, step);
        bytes_field(&mut event, EVENT_SUMMARY, &summary);
        self.write(&event)
    }

    /// Hands everything written so far to the operating system.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn flush(&mut self) -> Result<(), Error> {
        self.file.flush().map_err(Error::io("write", &self.path))
    }

    fn write(&mut self, event: &[u8]) -> Result<(), Error> {
        let mut record = Vec::with_capacity(event.len() + 16);
        let length = (event.len() as u64).to_le_bytes();
        record.extend_from_slice(&length);
        record.extend_from_slice(&masked_crc(&length).to_le_bytes());
        record.extend_from_slice(event);
        record.extend_from_slice(&masked_crc(event).to_le_bytes());
        self.file.write_all(&record).map_err(Error::io("write", &self.path))
    }
}

/// Field numbers of `tensorflow.Event`, `SessionLog`, `Summary` and `Summary.Value`, for those who write and who read.
pub mod fields {
    /// `Event.wall_time`, seconds.
    pub const EVENT_WALL_TIME: u32 = 1;
    /// `Event.step`.
    pub const EVENT_STEP: u32 = 2;
    /// `Event.file_version`.
    pub const EVENT_FILE_VERSION: u32 = 3;
    /// `Event.summary`.
    pub const EVENT_SUMMARY: u32 = 5;
    /// `Event.session_log`.
    pub const EVENT_SESSION_LOG: u32 = 7;
    /// `SessionLog.status`.
    pub const SESSION_STATUS: u32 = 1;
    /// The status of a run that starts, or starts again, at the event's step.
    pub const SESSION_START: u64 = 1;
    /// `Summary.value`.
    pub const SUMMARY_VALUE: u32 = 1;
    /// `Summary.Value.tag`.
    pub const VALUE_TAG: u32 = 1;
    /// `Summary.Value.simple_value`.
    pub const VALUE_SIMPLE_VALUE: u32 = 2;
}

// Wire types of protocol buffers.
const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;
const FIXED_32: u32 = 5;

fn event(wall_time: f64, step: u64) -> Vec<u8> {
    let mut event = Vec::new();
    key(&mut event, EVENT_WALL_TIME, FIXED_64);
    event.extend_from_slice(&wall_time.to_le_bytes());
    // The field is signed; TensorBoard's steps end at 2^63.
    varint_field(&mut event, EVENT_STEP, step.min(i64::MAX as u64));
    event
}

fn key(message: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint(message, u64::from(field << 3 | wire_type));
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

fn varint_field(message: &mut Vec<u8>, field: u32, value: u64) {
    key(message, field, VARINT);
    varint(message, value);
}

fn bytes_field(message: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    key(message, field, LENGTH_DELIMITED);
    varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

/// CRC-32C, rotated and offset as TFRecord wants it, so that a checksum of checksums is of use.
pub fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// The highest start time among the event files of a folder.
fn latest_start(folder: &Path) -> Result<Option<u64>, Error> {
    let mut latest = None;
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        let name = entry.file_name();
        let start = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.split('.').next())
            .and_then(|seconds| seconds.parse().ok());
        latest = latest.max(start);
    }
    Ok(latest)
}

/// The machine's name as far as a file name can hold it.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok())
        .unwrap_or_default();
    let name: String = name
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' })
        .take(64)
        .collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_masked_as_in_the_tfrecord_format() {
        // The frame of every event file starts with an 24-byte version event; its length's checksum is
        // well known from such files: 18 00 00 00 00 00 00 00 a3 7f 4b 22.
        assert_eq!(masked_crc(&24_u64.to_le_bytes()).to_le_bytes(), [0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn varints_are_split_into_groups_of_seven_bits() {
        let mut message = Vec::new();
        varint(&mut message, 300);
        assert_eq!(message, [0xAC, 0x02]);
    }
}
