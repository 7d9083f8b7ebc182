//! Expectations: conditions on signals that stop or warn, declared in the recipe as `[[expect]]`.
//!
//! ```text
//! [abort when | warn when] SIGNAL [- SIGNAL] (< | <= | > | >= | == | !=) NUMBER [for N] [by [epoch | step] N]
//! ```
//! - `val/f1 > .5 by epoch 10`: must have been true at least once by the end of epoch 10; else the run stops.
//! - `abort when val/positive_rate < .001 for 2`: stops when true at two consecutive reports of the signal.
//! - `warn when grad/norm > 100` and the bare `grad/norm > 100`: a warning, once each time it becomes true.

use serde::{Deserialize, Serialize};

/// A parsed condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    text: String,
    kind: Kind,
    left: String,
    minus: Option<String>,
    compare: Compare,
    bound: f64,
    consecutive: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Abort,
    Warn,
    ByEpoch(u64),
    ByStep(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
}

/// What an expectation has seen so far; part of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    consecutive: u64,
    met: bool,
    judged: bool,
}

/// What an expectation says after a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to say.
    Quiet,
    /// A warning for the log.
    Warn(String),
    /// The run is to stop, for this reason.
    Stop(String),
}

impl Expectation {
    /// Parses a condition.
    ///
    /// # Errors
    /// What was found where, and what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "e.g. \"val/f1 > 0.5 by epoch 10\", \"abort when val/positive_rate < 0.001 for 2\" or \"warn when train/loss - val/loss > 1\"";
        let fail = |what: String| format!("{what} in \"{text}\"; accepted is {FORM}");
        let words: Vec<&str> = text.split_whitespace().collect();
        let (mut kind, mut rest) = match words.as_slice() {
            ["abort", "when", rest @ ..] => (Kind::Abort, rest),
            ["warn", "when", rest @ ..] => (Kind::Warn, rest),
            rest => (Kind::Warn, rest),
        };
        let prefixed = rest.len() < words.len();
        let name = |word: &str| {
            let fine =
                word.contains('/') && word.chars().all(|c| c.is_ascii_alphanumeric() || "/_-".contains(c));
            if fine {
                Ok(word.to_owned())
            } else {
                Err(fail(format!("`{word}` is not the name of a signal")))
            }
        };
        let (left, minus);
        (left, minus, rest) = match rest {
            [a, "-", b, rest @ ..] => (name(a)?, Some(name(b)?), rest),
            [a, rest @ ..] => (name(a)?, None, rest),
            [] => return Err(fail("no signal".into())),
        };
        let [operator, bound, rest @ ..] = rest else { return Err(fail("no comparison".into())) };
        let compare = match *operator {
            "<" => Compare::Less,
            "<=" => Compare::LessEqual,
            ">" => Compare::Greater,
            ">=" => Compare::GreaterEqual,
            "==" => Compare::Equal,
            "!=" => Compare::NotEqual,
            other => return Err(fail(format!("`{other}` is not one of < <= > >= == !="))),
        };
        let bound: f64 = bound.parse().map_err(|_| fail(format!("`{bound}` is not a number")))?;
        if !bound.is_finite() {
            return Err(fail(format!("`{bound}` is not a finite number")));
        }
        let whole = |word: &str| match word.parse::<u64>() {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(fail(format!("`{word}` is not a whole number above 0"))),
        };
        let mut consecutive = 1;
        let mut rest = rest;
        while !rest.is_empty() {
            rest = match rest {
                ["for", n, rest @ ..] => {
                    consecutive = whole(n)?;
                    rest
                }
                ["by", unit @ ("epoch" | "step"), n, rest @ ..] if !prefixed => {
                    kind = if *unit == "epoch" { Kind::ByEpoch(whole(n)?) } else { Kind::ByStep(whole(n)?) };
                    rest
                }
                ["by", n, rest @ ..] if !prefixed => {
                    kind = Kind::ByStep(whole(n)?);
                    rest
                }
                [other, ..] => return Err(fail(format!("`{other}` is not understood"))),
                [] => rest,
            };
        }
        Ok(Self { text: text.to_owned(), kind, left, minus, compare, bound, consecutive })
    }

    /// The epoch by whose end it must have been met, where it says one.
    pub fn deadline_epoch(&self) -> Option<u64> {
        if let Kind::ByEpoch(epoch) = self.kind { Some(epoch) } else { None }
    }

    /// The signals it reads.
    pub fn signals(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.left.as_str()).chain(self.minus.as_deref())
    }

    /// Judges one record of signals. A record without the signal neither counts nor resets; deadlines are judged all the
    /// same. `steps` and `epochs` are the numbers of finished ones.
    pub fn judge(
        &self,
        progress: &mut Progress,
        signal: impl Fn(&str) -> Option<f64>,
        steps: u64,
        epochs: u64,
    ) -> Verdict {
        let value = match &self.minus {
            None => signal(&self.left),
            Some(minus) => signal(&self.left).zip(signal(minus)).map(|(a, b)| a - b),
        };
        let was_firing = progress.consecutive >= self.consecutive;
        if let Some(value) = value {
            progress.consecutive = if self.holds(value) { progress.consecutive + 1 } else { 0 };
            progress.met |= progress.consecutive >= self.consecutive;
        }
        let firing = progress.consecutive >= self.consecutive;
        let found = value.map_or_else(|| "absent".to_owned(), |v| format!("{v:.6}"));
        match self.kind {
            Kind::Abort if firing => {
                Verdict::Stop(format!("\"{}\": {} is {found}", self.text, self.subject()))
            }
            Kind::Warn if firing && !was_firing => {
                Verdict::Warn(format!("\"{}\": {} is {found}", self.text, self.subject()))
            }
            Kind::ByEpoch(limit) => self.deadline(progress, epochs >= limit, &found),
            Kind::ByStep(limit) => self.deadline(progress, steps >= limit, &found),
            _ => Verdict::Quiet,
        }
    }

    fn deadline(&self, progress: &mut Progress, over: bool, found: &str) -> Verdict {
        if !over || progress.judged {
            return Verdict::Quiet;
        }
        progress.judged = true;
        if progress.met {
            return Verdict::Quiet;
        }
        Verdict::Stop(format!("\"{}\" was not met: {} is {found}", self.text, self.subject()))
    }

    fn subject(&self) -> String {
        match &self.minus {
            None => self.left.clone(),
            Some(minus) => format!("{} - {minus}", self.left),
        }
    }

    fn holds(&self, value: f64) -> bool {
        match self.compare {
            Compare::Less => value < self.bound,
            Compare::LessEqual => value <= self.bound,
            Compare::Greater => value > self.bound,
            Compare::GreaterEqual => value >= self.bound,
            Compare::Equal => value == self.bound,
            Compare::NotEqual => value != self.bound,
        }
    }
}

/// A bare comparison, as in `advance_when = "val/f1 > 0.5"`.
///
/// # Errors
/// As [`Expectation::parse`]; also when it has a deadline or an action.
pub fn parse_condition(text: &str) -> Result<Expectation, String> {
    let condition = Expectation::parse(text)?;
    if condition.kind != Kind::Warn || text.trim_start().starts_with("warn") {
        return Err(format!("found \"{text}\"; accepted is a comparison, e.g. \"val/f1 > 0.5\""));
    }
    Ok(condition)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, values: &[Option<f64>]) -> Vec<Verdict> {
        let expectation = Expectation::parse(text).unwrap();
        let mut progress = Progress::default();
        (1..).zip(values).map(|(n, v)| expectation.judge(&mut progress, |_| *v, n * 10, n)).collect()
    }

    #[test]
    fn an_abort_waits_for_its_consecutive_reports() {
        let verdicts = run(
            "abort when val/positive_rate < .001 for 2",
            &[Some(0.0), Some(0.3), Some(0.0), None, Some(0.0)],
        );
        assert_eq!(&verdicts[..4], &[const { Verdict::Quiet }; 4]);
        assert!(matches!(&verdicts[4], Verdict::Stop(why) if why.contains("val/positive_rate is 0.000000")));
    }

    #[test]
    fn a_deadline_stops_once_unless_met_before() {
        assert!(matches!(run("val/f1 > .5 by epoch 2", &[Some(0.4), Some(0.5)])[1], Verdict::Stop(_)));
        assert_eq!(
            run("val/f1 > .5 by epoch 2", &[Some(0.6), Some(0.1), None]),
            [const { Verdict::Quiet }; 3]
        );
        assert!(matches!(run("val/f1 > .5 by 20", &[None, None])[1], Verdict::Stop(_)));
    }

    #[test]
    fn a_warning_is_given_each_time_it_becomes_true() {
        let verdicts = run("grad/norm > 3", &[Some(4.0), Some(5.0), Some(1.0), Some(4.0)]);
        let warned: Vec<bool> = verdicts.iter().map(|v| matches!(v, Verdict::Warn(_))).collect();
        assert_eq!(warned, [true, false, false, true]);
    }

    #[test]
    fn a_difference_of_signals_can_be_judged_and_nan_holds_nothing() {
        let e = Expectation::parse("abort when train/a - val/b > 0.15").unwrap();
        let at = |a, b| e.judge(&mut Progress::default(), |s| Some(if s == "train/a" { a } else { b }), 1, 1);
        assert!(matches!(at(0.5, 0.3), Verdict::Stop(_)));
        assert_eq!(at(0.4, 0.3), Verdict::Quiet);
        assert_eq!(at(f64::NAN, 0.3), Verdict::Quiet);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, named) in [
            ("", "no signal"),
            ("f1 > 3", "`f1`"),
            ("val/f1", "no comparison"),
            ("val/f1 ~ 3", "`~`"),
            ("val/f1 > x", "`x`"),
            ("val/f1 > 1 by epoch 0", "`0`"),
            ("val/f1 > 1 tomorrow", "`tomorrow`"),
            ("abort when val/f1 > 1 by epoch 3", "`by`"),
            ("val/f1 > inf", "finite"),
        ] {
            let error = Expectation::parse(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
        assert!(parse_condition("abort when val/f1 > 1").is_err());
        assert!(parse_condition("val/f1 > 0.5 for 2").is_ok());
    }
}
