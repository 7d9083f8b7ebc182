//! A folder of `numpy.savetxt` files, each one metric with a number a line: the name of the file is that of the metric.
//!
//! There are no steps. The longest file counts them, whether epochs or iterations; a file of a fraction of its length was
//! measured at every second, fifth, … of them.

use trimtab_signals::names;

use super::{Certainty, Format, Layout, Peek, in_the_run_folder};
use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;

pub(super) const FORMAT: Format = Format {
    id: "numpy-savetxt",
    summary: "numpy.savetxt files, one a metric",
    recognise,
    read,
    layout: Layout::Together,
    // More than text, less than any table that has steps.
    rank: 15,
    depth: in_the_run_folder,
};

/// More numbers in a line are data, not measurements.
const WIDEST: usize = 16;
/// Bytes of a file name that make a column's name.
const LONGEST_NAME: usize = 200;

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    let text = peek.text?;
    let name = peek.name();
    let (stem, extension) = name.rsplit_once('.').unwrap_or((&name, ""));
    if !["", "txt", "csv", "dat", "log"].contains(&extension) {
        return None;
    }
    let mut numpy = true;
    let mut width = None;
    // What follows the last line end is a line that is being written.
    for line in text.rsplit_once('\n')?.0.lines().filter(|line| !line.starts_with('#')).take(200) {
        let mut cells = 0;
        for cell in cells_of(line) {
            fast_float2::parse::<f64, _>(cell).ok()?;
            numpy &= of_numpy(cell);
            cells += 1;
        }
        if cells == 0 || cells > WIDEST || width.is_some_and(|known| known != cells) {
            return None;
        }
        width = Some(cells);
    }
    width?;
    // Numbers alone could be anything: the name has to be that of a metric, or the format numpy's own. Several columns under
    // names are a table.
    let named = is_metric(stem);
    let headed = text.starts_with('#') && width != Some(1);
    match (numpy, named) {
        _ if headed => None,
        (true, true) => Some(Certainty::Sure),
        (true, false) if width == Some(1) => Some(Certainty::Generic),
        (false, true) if width == Some(1) => Some(Certainty::Generic),
        _ => None,
    }
}

fn cells_of(line: &str) -> impl Iterator<Item = &str> {
    line.split([' ', '\t', ',', ';']).filter(|cell| !cell.is_empty())
}

/// Whether a number is written as `%.18e`, or is none at all.
fn of_numpy(cell: &str) -> bool {
    let cell = cell.trim_start_matches('-');
    ["nan", "inf"].contains(&cell)
        || cell.split_once('e').is_some_and(|(digits, _)| digits.len() == 20 && digits.as_bytes()[1] == b'.')
}

/// Whether a file name speaks of a loss or a metric.
fn is_metric(stem: &str) -> bool {
    names::goal(stem).is_some()
        || stem
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(|word| ["losses", "accs", "accuracies", "lr", "lrs", "grad"].contains(&word))
}

/// One file: how many lines, how many columns, and how many lines that are no numbers.
#[derive(Clone, Copy, Default)]
struct Shape {
    lines: u64,
    width: usize,
    odd: u64,
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    let stems: Vec<String> = inputs.iter().map(stem).collect();
    let Some(first) = inputs.first().filter(|_| stems.iter().any(|stem| is_metric(&stem.to_lowercase())))
    else {
        let path = inputs.first().map(Input::path).unwrap_or(std::path::Path::new(""));
        return Err(LogError::content(path, "holds numbers that no file name calls a metric"));
    };
    let mut shapes = Vec::new();
    for input in inputs {
        shapes.push(each_line(input, |_, _| {}).unwrap_or_default());
    }
    let longest = shapes.iter().map(|shape| shape.lines).max().unwrap_or(0);
    if longest == 0 {
        return Err(LogError::content(first.path(), "has no complete line of numbers"));
    }
    let mut stretched = Vec::new();
    for ((input, name), shape) in inputs.iter().zip(&stems).zip(shapes) {
        let (steps, lines) = stretch(shape.lines, longest);
        if steps > 1 {
            stretched.push(((steps, lines), name.as_str()));
        }
        let columns: Vec<_> = if shape.width == 1 {
            vec![builder.column(name)]
        } else {
            (0..shape.width).map(|at| builder.column(&format!("{name}.{at}"))).collect()
        };
        // Read before, and read again.
        each_line(input, |line, values| {
            let step = i64::try_from(line.saturating_mul(steps) / lines).unwrap_or(i64::MAX);
            for (column, value) in columns.iter().zip(values) {
                builder.push(*column, step, *value);
            }
        })?;
        if shape.odd > 0 {
            builder.note(format!(
                "{name}: {} lines are not {} numbers and were passed over",
                shape.odd, shape.width
            ));
        }
    }
    stretched.sort_unstable();
    for same in stretched.chunk_by(|a, b| a.0 == b.0) {
        let names: Vec<&str> = same.iter().map(|(_, name)| *name).take(10).collect();
        let every = match same[0].0 {
            (steps, 1) => format!("every {steps} steps"),
            (_, lines) => format!("{lines} times at even distances"),
        };
        let names = names.join(", ");
        builder
            .note(format!("{names}: taken as measured {every}, by the {longest} lines of the longest file"));
    }
    Ok(())
}

/// Steps and the lines that they take in a file of `lines`, where the longest has `longest`.
fn stretch(lines: u64, longest: u64) -> (u64, u64) {
    if lines == 0 || lines.saturating_mul(2) > longest + 1 {
        return (1, 1);
    }
    // Measured at the start of each interval, or at its end; a run may stop within one.
    let fits = |interval: &u64| longest.div_ceil(*interval) == lines || longest / interval == lines;
    let near = longest / lines;
    // Of several the nearest to the ratio; 20 of 96 lines are every fifth, not every fourth.
    let distance = |interval: &u64| interval.saturating_mul(lines).abs_diff(longest);
    match (near.saturating_sub(1).max(2)..=near.saturating_add(1)).filter(fits).min_by_key(distance) {
        Some(interval) => (interval, 1),
        None => (longest, lines),
    }
}

/// The metric that a file's name gives.
fn stem(input: &Input) -> String {
    let name = input.name();
    let stem =
        [".txt", ".csv", ".dat", ".log"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    stem.chars().take(LONGEST_NAME).collect()
}

/// Gives each complete line of numbers with its index. The width is that of the first.
fn each_line(input: &Input, mut take: impl FnMut(u64, &[f64])) -> Result<Shape, LogError> {
    let mut shape = Shape::default();
    let mut values: Vec<f64> = Vec::new();
    let mut line = Vec::new();
    let mut text = input.text()?;
    while next_line(&mut text, &mut line) {
        let blank = line.trim_ascii().is_empty();
        if blank || line.starts_with(b"#") {
            continue;
        }
        values.clear();
        let cells = line.split(|b| b" \t,;\r".contains(b)).filter(|cell| !cell.is_empty());
        let mut odd = false;
        for cell in cells {
            match fast_float2::parse(cell) {
                Ok(value) if values.len() <= WIDEST => values.push(value),
                Ok(_) | Err(_) => odd = true,
            }
        }
        if shape.width == 0 && !odd {
            shape.width = values.len().min(WIDEST);
        }
        if odd || values.len() != shape.width {
            shape.odd += 1;
            continue;
        }
        take(shape.lines, &values);
        shape.lines += 1;
    }
    Ok(shape)
}

/// The next line that has an end; numbers make short lines, so what follows the first kilobytes is passed over.
fn next_line(text: &mut dyn std::io::BufRead, line: &mut Vec<u8>) -> bool {
    line.clear();
    loop {
        let Ok(available @ [_, ..]) = text.fill_buf() else { return false };
        let end = memchr::memchr(b'\n', available);
        let taken = end.unwrap_or(available.len());
        line.extend_from_slice(&available[..taken.min(4096_usize.saturating_sub(line.len()))]);
        text.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::open::read_bytes;

    const NUMBERS: &str = "1.422310441732406616e+01\n-1.100636768341064453e+01\nnan\n";

    fn certainty(name: &str, text: &str) -> Option<Certainty> {
        let path = std::path::Path::new(name);
        recognise(&Peek { path, head: text.as_bytes(), complete: true, text: Some(text) })
    }

    #[test]
    fn shorter_files_are_stretched_to_the_longest() {
        let folder = tempfile::tempdir().unwrap();
        let input = |name: &str, lines: usize| {
            let text: String = (0..lines).map(|line| format!("{line}\n")).collect();
            std::fs::write(folder.path().join(name), text).unwrap();
            Input::file(folder.path().join(name))
        };
        let inputs = [input("running_loss", 96), input("sup_loss", 90), input("val_IOU.txt", 20)];
        let mut builder = RunBuilder::new();
        read(&inputs, &mut builder).unwrap();
        let run = builder.finish("a", "numpy-savetxt");
        let column =
            |logged: &str| run.trace.iter().find(|(name, _)| run.logged_name(name) == logged).unwrap().1;
        assert_eq!(column("running_loss").last(), Some((95, 95.0)));
        assert_eq!(column("sup_loss").last(), Some((89, 89.0)));
        assert_eq!(column("val_IOU").last(), Some((95, 19.0)));
        assert!(run.notes[0].starts_with("val_IOU: taken as measured every 5 steps"), "{:?}", run.notes);
    }

    #[test]
    fn intervals_are_whole_where_they_can_be() {
        for (lines, longest, expected) in [
            (20, 96, (5, 1)),
            (20, 100, (5, 1)),
            (10, 100, (10, 1)),
            (96, 100, (1, 1)),
            (1, 50, (50, 1)),
            (50, 100, (2, 1)),
            (0, 9, (1, 1)),
            (20, 88, (88, 20)),
        ] {
            assert_eq!(stretch(lines, longest), expected, "{lines} of {longest}");
        }
    }

    #[test]
    fn several_columns_are_numbered() {
        let run = read_bytes("numpy-savetxt", "val_dice.txt", b"0.5 0.25\nbroken\n0.75 1\n0.8").unwrap();
        let names: Vec<&str> = run.trace.names().map(|name| run.logged_name(name)).collect();
        assert_eq!(names.len(), 2);
        assert!(names.contains(&"val_dice.0") && names.contains(&"val_dice.1"));
        assert!(run.trace.iter().all(|(_, column)| column.len() == 2));
        assert_eq!(run.notes.len(), 1);
    }

    #[test]
    fn numbers_alone_are_no_log() {
        assert_eq!(certainty("running_loss", NUMBERS), Some(Certainty::Sure));
        assert_eq!(certainty("weights", NUMBERS), Some(Certainty::Generic));
        assert_eq!(certainty("val_loss.txt", "0.5\n0.25\n"), Some(Certainty::Generic));
        assert_eq!(certainty("points.txt", "0.5\n0.25\n"), None);
        assert_eq!(certainty("val_loss.txt", "0.5\nhalf\n"), None);
        assert_eq!(certainty("val_loss.npy", NUMBERS), None);
        assert_eq!(certainty("loss.txt", "# step loss\n1 2\n2 3\n"), None);
        assert_eq!(certainty("loss.txt", ""), None);
        assert!(read_bytes("numpy-savetxt", "weights", NUMBERS.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..NUMBERS.len()) {
            let _ = read_bytes("numpy-savetxt", "loss", &bytes);
            let mut mutated = NUMBERS.as_bytes().to_vec();
            mutated.splice(at..(at + bytes.len() / 8).min(NUMBERS.len()), bytes);
            let _ = read_bytes("numpy-savetxt", "loss", &mutated);
        }
    }
}
