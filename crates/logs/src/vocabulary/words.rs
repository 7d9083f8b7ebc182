//! A logged name as lower-case words.

use super::metrics::METRICS;

/// A part of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Lower case.
    pub text: String,
    /// Whether it was a single capital letter: the `D` of `loss_D`.
    pub capital: bool,
    /// Whether it stands in square brackets: the name of a class, whatever it says. `Class [7 train] IoU` is of trains.
    pub label: bool,
}

impl Word {
    fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), capital: false, label: false }
    }
}

/// Words that are neither part of a metric's name nor rare, which a case change must not cut apart.
const COMMON: [&str; 17] = [
    "train",
    "training",
    "val",
    "valid",
    "validation",
    "eval",
    "test",
    "loss",
    "losses",
    "lr",
    "lrs",
    "grad",
    "norm",
    "learning",
    "rate",
    "err",
    "adamw",
];

/// The words of a name: cut at everything that is neither letter nor digit, at case changes (`MeanDice`), and before the digits of
/// a word that is known without them (`dice1`). Known words stay whole: `mIoU` is one.
pub(super) fn split(name: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut label = false;
    for part in name.split_inclusive(['[', ']']) {
        let before = words.len();
        split_part(part, &mut words);
        if label && part.ends_with(']') {
            words[before..].iter_mut().for_each(|word| word.label = true);
        }
        label = part.ends_with('[');
    }
    words
}

fn split_part(part: &str, words: &mut Vec<Word>) {
    for chunk in part.split(|c: char| !c.is_alphanumeric()).filter(|chunk| !chunk.is_empty()) {
        let lower = chunk.to_lowercase();
        if known(&lower) || chunk.bytes().all(|b| b.is_ascii_digit()) {
            words.push(Word::plain(&lower));
        } else {
            join(&pieces(chunk), words);
        }
    }
}

fn known(word: &str) -> bool {
    COMMON.contains(&word) || METRICS.iter().any(|metric| metric.phrase.split(' ').any(|part| part == word))
}

/// Whether a word is a quantity by itself, rather than part of a phrase.
fn complete(word: &str) -> bool {
    COMMON.contains(&word) || METRICS.iter().any(|metric| metric.phrase == word)
}

/// Cuts at case changes: `valLoss`, `IOULoss`, `mIoU` become `val Loss`, `IOU Loss`, `m Io U`.
fn pieces(chunk: &str) -> Vec<&str> {
    let letters: Vec<(usize, char)> = chunk.char_indices().collect();
    let mut pieces = Vec::new();
    let mut start = 0;
    for at in 1..letters.len() {
        let (before, (offset, here)) = (letters[at - 1].1, letters[at]);
        let next_is_lower = letters.get(at + 1).is_some_and(|(_, next)| next.is_lowercase());
        if here.is_uppercase() && (before.is_lowercase() || (before.is_uppercase() && next_is_lower)) {
            pieces.push(&chunk[start..offset]);
            start = offset;
        }
    }
    pieces.push(&chunk[start..]);
    pieces
}

/// Puts pieces together again that make a known word: `Mean Io U` becomes `mean iou`.
fn join(pieces: &[&str], words: &mut Vec<Word>) {
    let mut at = 0;
    while at < pieces.len() {
        let longest = (at + 1..=pieces.len().min(at + 4))
            .rev()
            .find(|&end| known(&pieces[at..end].concat().to_lowercase()))
            .unwrap_or(at + 1);
        let piece = pieces[at..longest].concat();
        at = longest;
        let lower = piece.to_lowercase();
        let digits = lower.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (stem, number) = lower.split_at(digits);
        if !known(&lower) && !number.is_empty() && complete(stem) {
            words.push(Word::plain(stem));
            words.push(Word::plain(number));
        } else if !known(&lower)
            && let Some((split, quantity)) = run_together(&lower)
        {
            words.push(Word::plain(split));
            words.push(Word::plain(quantity));
        } else {
            let capital = piece.len() == 1 && piece.starts_with(|c: char| c.is_ascii_uppercase());
            words.push(Word { capital, ..Word::plain(&lower) });
        }
    }
}

/// `valloss` and its like, written in one.
fn run_together(word: &str) -> Option<(&str, &str)> {
    ["train", "valid", "val", "test", "eval"].into_iter().find_map(|split| {
        let rest = word.strip_prefix(split)?;
        ["loss", "acc", "accuracy", "iou", "miou", "dice", "auc", "f1"]
            .contains(&rest)
            .then_some((split, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: &str) {
        let words: Vec<String> = split(name).into_iter().map(|word| word.text).collect();
        assert_eq!(words.join(" "), expected, "{name}");
    }

    #[test]
    fn names_are_cut_at_separators_case_changes_and_known_words() {
        check("val_updated_mean_io_u", "val updated mean io u");
        check("Loss/Val", "loss val");
        check("MeanDice", "mean dice");
        check("MeanIoU", "mean iou");
        check("mIoU", "miou");
        check("valIoU", "val iou");
        check("IOULoss", "iou loss");
        check("aAcc", "aacc");
        check("bbox/APs", "bbox aps");
        check("metrics/mAP50-95(B)", "metrics map50 95 b");
        check("D(G(z))", "d g z");
        check("errD", "err d");
        check("val_loss1", "val loss 1");
        check("class1", "class1");
        check("valloss", "val loss");
        check("Übung Größe", "übung größe");
        check("", "");
        check("//..", "");
        assert!(split("loss_D")[1].capital && !split("loss_d")[1].capital);
        let labels: Vec<bool> = split("Class [7 train] IoU").iter().map(|word| word.label).collect();
        assert_eq!(labels, [false, true, true, false]);
        assert!(split("]a[ [b").iter().all(|word| !word.label));
    }
}
