//! What stands around the message of a log line: colours, the time, the logger's name, error texts.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use trimtab_signals::keys;

use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;

/// Longest error text that is kept, in characters.
const LONGEST_CRASH: usize = 300;
/// Lines after which a traceback that never named its exception is over.
const LONGEST_TRACEBACK: u32 = 400;
/// Ordinary lines after an error that make a later error one of its own.
const SEPARATE: u32 = 20;
/// Ordinary lines after an error that was evidently survived.
const SURVIVED: u32 = 500;

/// Calls a function with each line of a file, without colours, and whether the line is whole: the last one may be cut off where
/// the file is still being written, and a number in it may be another.
pub(crate) fn each_line(input: &Input, mut with: impl FnMut(&str, bool)) -> Result<(), LogError> {
    let mut lines = input.lines()?;
    let mut line = String::new();
    loop {
        match lines.next() {
            None => return Ok(()),
            Some(next) => {
                line.clear();
                line.push_str(&next);
            }
        }
        with(&without_colours(line.as_str().into()), lines.ended());
    }
}

/// The line without terminal colours and other escape sequences.
pub(crate) fn without_colours(line: Cow<'_, str>) -> Cow<'_, str> {
    if memchr::memchr2(0x1b, 0x08, line.as_bytes()).is_none() {
        return line;
    }
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            // Keras erases its bar with backspaces.
            '\u{8}' => plain.push(' '),
            '\u{1b}' => {
                // `ESC [ … letter`, the only kind that loggers write; of others the first character goes.
                if characters.next() == Some('[') {
                    for code in characters.by_ref() {
                        if ('@'..='~').contains(&code) {
                            break;
                        }
                    }
                }
            }
            other => plain.push(other),
        }
    }
    Cow::Owned(plain)
}

/// The time a logger put in front, in seconds since some day, and the message.
pub(crate) fn time_and_message(line: &str) -> (Option<Stamp>, &str) {
    let (stamp, rest) = match stamp(line) {
        Some((stamp, length)) => (Some(stamp), line.get(length..).unwrap_or("")),
        None => (None, line),
    };
    // absl: `I0305 19:14:27.625344 140112251307776 logging_writer.py:48] message`.
    if matches!(line.as_bytes(), [b'I' | b'W' | b'E' | b'F', b'0'..=b'9', ..])
        && stamp.is_some()
        && let Some(end) = rest.find("] ")
    {
        return (stamp, &rest[end + 2..]);
    }
    if let Some(ranked) = rest.strip_prefix("[rank")
        && let Some((_, message)) = ranked.split_once("]:")
    {
        return (stamp, message.strip_prefix(' ').unwrap_or(message));
    }
    let rest = match after_level(rest) {
        Some(message) => message,
        None if stamp.is_some() => rest.trim_start_matches([']', ')', ':', ' ', '|']),
        None => rest,
    };
    (stamp, rest)
}

/// What follows a log level (`INFO`) that stands near the start.
fn after_level(text: &str) -> Option<&str> {
    const LEVELS: [&str; 6] = ["INFO", "WARNING", "WARN", "ERROR", "DEBUG", "CRITICAL"];
    let mut inside = false;
    for (at, byte) in text.bytes().enumerate().take(100) {
        let starts = !inside;
        inside = byte.is_ascii_alphanumeric() || byte == b'_';
        if !starts || !matches!(byte, b'I' | b'W' | b'E' | b'D' | b'C') {
            continue;
        }
        for level in LEVELS {
            let Some(rest) = text.get(at..).and_then(|rest| rest.strip_prefix(level)) else { continue };
            if rest.is_empty() || rest.starts_with([']', ':', ' ', ')', '|', '\t', '-']) {
                return Some(rest.trim_start_matches([']', ')', ':', ' ', '|', '-', '\t']));
            }
        }
    }
    None
}

/// A time as it stands in a log, in seconds: since some day where there is a date, else since midnight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stamp {
    seconds: f64,
    /// Seconds after which the same stamp comes again: a day without a date, a year without a year.
    period: Option<f64>,
}

/// The stamp at the start of a line, and where it ends.
fn stamp(line: &str) -> Option<(Stamp, usize)> {
    let bytes = line.as_bytes();
    let mut at = bytes.iter().take(8).take_while(|b| matches!(b, b'[' | b'(' | b' ')).count();
    let mut date = None;
    let mut period = Some(86_400.0);
    if matches!(bytes.get(at), Some(b'I' | b'W' | b'E' | b'F')) {
        let (month, day) = (digits(bytes, at + 1, 2)?, digits(bytes, at + 3, 2)?);
        if bytes.get(at + 5) != Some(&b' ') {
            return None;
        }
        (date, period, at) = (Some((2000, month, day)), Some(YEAR), at + 6);
    } else if let Some(year) = digits(bytes, at, 4) {
        let separator = *bytes.get(at + 4)?;
        if !matches!(separator, b'-' | b'/' | b'.') || bytes.get(at + 7) != Some(&separator) {
            return None;
        }
        date = Some((year, digits(bytes, at + 5, 2)?, digits(bytes, at + 8, 2)?));
        if !matches!(bytes.get(at + 10), Some(b' ' | b'T' | b'_')) {
            return None;
        }
        (period, at) = (None, at + 11);
    } else if bytes.get(at + 2) == Some(&b'/') && bytes.get(at + 5) == Some(&b' ') {
        date = Some((2000, digits(bytes, at, 2)?, digits(bytes, at + 3, 2)?));
        (period, at) = (Some(YEAR), at + 6);
    }
    let (hour, minute, second) =
        (digits(bytes, at, 2)?, digits(bytes, at + 3, 2)?, digits(bytes, at + 6, 2)?);
    if bytes.get(at + 2) != Some(&b':') || bytes.get(at + 5) != Some(&b':') {
        return None;
    }
    at += 8;
    let mut seconds = (hour * 3600 + minute * 60 + second) as f64;
    if matches!(bytes.get(at), Some(b'.' | b',')) && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
        at += 1;
        let mut place = 0.1;
        while let Some(digit) = bytes.get(at).filter(|b| b.is_ascii_digit()) {
            seconds += f64::from(digit - b'0') * place;
            place /= 10.0;
            at += 1;
        }
    }
    if let Some((year, month, day)) = date {
        seconds += day_number(year, month, day)? * 86_400.0;
    }
    Some((Stamp { seconds, period }, at))
}

const YEAR: f64 = 366.0 * 86_400.0;

fn digits(bytes: &[u8], at: usize, count: usize) -> Option<u32> {
    bytes
        .get(at..at + count)?
        .iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0')))
}

/// Days of the Gregorian calendar since some day.
fn day_number(year: u32, month: u32, day: u32) -> Option<f64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that start in March have their leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    Some(f64::from(days))
}

/// Turns stamps into seconds since the first one. Each kind of stamp has its own clock, since several writers share a log.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    hands: [Option<Hand>; 3],
    last: f64,
}

#[derive(Clone, Copy, Debug)]
struct Hand {
    /// What is taken from a stamp.
    offset: f64,
    last: f64,
}

impl Clock {
    pub(crate) fn seconds(&mut self, stamp: Stamp) -> f64 {
        let kind = match stamp.period {
            None => 0,
            Some(YEAR) => 1,
            Some(_) => 2,
        };
        // A kind that comes up late starts where the others are.
        let hand =
            self.hands[kind].get_or_insert(Hand { offset: stamp.seconds - self.last, last: self.last });
        let mut seconds = stamp.seconds - hand.offset;
        if let Some(period) = stamp.period
            && seconds < hand.last - period / 2.0
        {
            hand.offset -= period;
            seconds += period;
        }
        hand.last = seconds;
        self.last = seconds;
        seconds
    }
}

/// How a run ended, as far as its log says.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    crash: Option<String>,
    finished: bool,
    /// Lines left in which a traceback may still name its exception.
    traceback: u32,
    /// Ordinary lines since the error.
    since: u32,
}

impl Ending {
    /// Looks at a message; whether it is part of an error text, which holds no measurements.
    pub(crate) fn look(&mut self, message: &str) -> bool {
        let bytes = message.as_bytes();
        if MARKS.traceback.find(bytes).is_some() {
            self.traceback = LONGEST_TRACEBACK;
            return true;
        }
        if self.traceback > 0 {
            self.traceback -= 1;
            if is_exception(message) {
                self.traceback = 0;
                self.crashed(message);
            }
            return true;
        }
        if is_error(message) {
            self.crashed(message);
            return true;
        }
        if !message.trim().is_empty() {
            self.since = self.since.saturating_add(1);
        }
        if message.len() < 400 && MARKS.training.find(bytes).is_some() {
            let lower = message.to_ascii_lowercase();
            const ENDS: [&str; 10] = [
                "training done",
                "training is done",
                "training finished",
                "finished training",
                "training complete",
                "training has finished",
                "training has completed",
                "done training",
                "train_runtime",
                "training time",
            ];
            if ENDS.iter().any(|mark| lower.contains(mark)) {
                self.finished = true;
            }
        }
        false
    }

    /// Whether any error text or end of training was found.
    pub(crate) fn is_known(&self) -> bool {
        self.crash.is_some() || self.finished
    }

    /// Training went on: an error before that was survived, an end was not the end.
    pub(crate) fn went_on(&mut self) {
        self.crash = None;
        self.finished = false;
        self.traceback = 0;
    }

    /// The log says that the run came to its end.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    pub(crate) fn declare(self, builder: &mut RunBuilder) {
        if let Some(crash) = self.crash
            && self.since < SURVIVED
        {
            builder.fact(&keys::RUN_CRASH, crash);
        }
        if self.finished {
            builder.fact(&keys::RUN_FINISHED, true);
        }
    }

    fn crashed(&mut self, message: &str) {
        // The first error is the cause where several processes fail, or one while handling another.
        let text: String = message.trim().chars().take(LONGEST_CRASH).collect();
        let weak = |text: &str| text.starts_with("Killed") || text.starts_with("Segmentation");
        if self.since > SEPARATE || self.crash.as_deref().is_none_or(weak) {
            self.crash = Some(text);
        }
        self.since = 0;
    }
}

/// Whether a line of a traceback is the one that names the exception: `torch.OutOfMemoryError: CUDA out of memory`.
fn is_exception(line: &str) -> bool {
    let name = line.split_once(':').map_or(line.trim_end(), |(name, _)| name);
    let last = name.rsplit('.').next().unwrap_or(name);
    let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    last.starts_with(|c: char| c.is_ascii_uppercase()) && name.split('.').all(word) && last != "File"
}

/// Whether a line outside of a traceback tells of an error that ends a run.
fn is_error(message: &str) -> bool {
    let bytes = message.as_bytes();
    if MARKS.errors.iter().any(|mark| mark.find(bytes).is_some()) {
        return true;
    }
    let trimmed = message.trim_end();
    if trimmed == "Killed" || (trimmed.len() < 200 && trimmed.ends_with(": Killed")) {
        return true;
    }
    // `RuntimeError: …` without its traceback.
    let Some(end) = MARKS.error.find(bytes) else { return false };
    bytes.iter().take(end).all(|b| b.is_ascii_alphanumeric() || *b == b'.' || *b == b'_')
        && bytes.iter().take(end).any(|b| b.is_ascii_alphabetic())
}

/// What every line is searched for, prepared once.
struct Marks {
    traceback: Finder<'static>,
    training: Finder<'static>,
    error: Finder<'static>,
    errors: [Finder<'static>; 4],
}

static MARKS: LazyLock<Marks> = LazyLock::new(|| Marks {
    traceback: Finder::new("Traceback (most recent call last)"),
    training: Finder::new("rain"),
    error: Finder::new("Error: "),
    errors: ["CUDA out of memory", "Segmentation fault", "(core dumped)", "oom-kill event"].map(Finder::new),
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_removed() {
        let line = "\u{1b}[32m[2025-10-20 23:40:19 alexnet]\u{1b}[0m loss \u{1b}[1;31m0.5\u{1b}[0m\u{1b}";
        assert_eq!(without_colours(line.into()), "[2025-10-20 23:40:19 alexnet] loss 0.5");
        assert!(matches!(without_colours("plain".into()), Cow::Borrowed("plain")));
    }

    #[test]
    fn a_logger_s_prefix_is_cut_off() {
        for (line, message) in [
            ("[2023-03-11 02:19:43,229][    INFO] Iters: 0", "Iters: 0"),
            ("2023-03-21 20:25:03.817277: train_loss -0.3065 ", "train_loss -0.3065 "),
            ("2024/04/19 14:20:28 - mmengine - INFO - Iter(train) [1/2]", "Iter(train) [1/2]"),
            ("[2025-10-20 23:44:23 alexnet](main.py 194): INFO Train: [0/5]", "Train: [0/5]"),
            ("I0305 19:14:27.625344 140112 logging_writer.py:48] [0] global_step=0", "[0] global_step=0"),
            ("[11/30 01:16:13] d2.utils.events INFO:  eta: 1:54:02", "eta: 1:54:02"),
            ("[rank0]:   File \"x.py\"", "  File \"x.py\""),
            ("WARNING:root:loss", "root:loss"),
            ("12:30:01 | INFO | loss 1", "loss 1"),
            ("Epoch 1 loss 2", "Epoch 1 loss 2"),
            ("INFORMED loss", "INFORMED loss"),
        ] {
            assert_eq!(time_and_message(line).1, message, "{line}");
        }
    }

    #[test]
    fn times_count_from_the_first_and_pass_midnight_and_the_year() {
        let times = |lines: &[&str]| -> Vec<f64> {
            let mut clock = Clock::default();
            lines.iter().filter_map(|line| time_and_message(line).0).map(|s| clock.seconds(s)).collect()
        };
        assert_eq!(times(&["2023-02-28 23:59:59: a", "2023-03-01 00:00:00.5: b"]), [0.0, 1.5]);
        assert_eq!(times(&["2024/02/28 00:00:00 a", "2024/03/01 00:00:00 b"]), [0.0, 172_800.0]);
        assert_eq!(times(&["23:59:58 a", "00:00:01 b"]), [0.0, 3.0]);
        assert_eq!(times(&["[12/31 23:59:58] a", "[01/01 00:00:01] b"]), [0.0, 3.0]);
        assert_eq!(
            times(&["2024-03-01 00:00:00 a", "I0301 10:00:00.0 b", "I0301 10:00:02.0 c"]),
            [0.0, 0.0, 2.0]
        );
        assert!(times(&["2024-13-01 00:00:00", "99:99", "2024-01-01", ""]).is_empty());
    }

    fn ending(lines: &[&str]) -> Ending {
        let mut ending = Ending::default();
        for line in lines {
            ending.look(line);
        }
        ending
    }

    #[test]
    fn the_exception_that_ended_a_run_is_found() {
        let crash = |lines: &[&str]| ending(lines).crash;
        let text = [
            "Traceback (most recent call last):",
            "  File \"train.py\", line 3, in <module>",
            "    raise ValueError(loss)",
            "    ~~~~~^^^",
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.12 GiB.",
        ];
        assert_eq!(
            crash(&text).as_deref(),
            Some("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.12 GiB.")
        );
        assert_eq!(
            crash(&["Traceback (most recent call last):", "KeyboardInterrupt"]).as_deref(),
            Some("KeyboardInterrupt")
        );
        assert_eq!(crash(&["Killed"]).as_deref(), Some("Killed"));
        assert_eq!(
            crash(&["RuntimeError: CUDA error: device-side assert"]).as_deref(),
            Some("RuntimeError: CUDA error: device-side assert")
        );
        assert_eq!(crash(&["Mean Error: 0.3", "test error: 4", "Error: "]), None);
    }

    #[test]
    fn an_error_that_was_survived_is_no_crash() {
        let mut ending =
            ending(&["Traceback (most recent call last):", "ModuleNotFoundError: No module named 'wandb'"]);
        assert!(ending.is_known());
        ending.went_on();
        assert!(!ending.is_known());
    }

    #[test]
    fn the_end_of_training_is_found() {
        assert!(ending(&["Training done. "]).finished);
        assert!(ending(&["{'train_runtime': 100.0, 'train_loss': 0.4}"]).finished);
        assert!(!ending(&["Training starts", "train loss 0.4"]).finished);
    }
}
