//! Tables as text: comma, semicolon, tab or blanks between cells, one header, one row at a time.
//!
//! Memory is that of the longest row, whatever the length of the file. Rows with another number of cells than the header are
//! counted and passed over. A last row without its line end is left out: the file may be growing, and `0.9` may be the
//! beginning of `0.95e-3`.

use std::collections::HashMap;
use std::io::{BufRead, Chain, ErrorKind, Read};

use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::formats::Peek;
use crate::input::Input;

/// Columns of the widest table that is read.
const WIDEST: usize = 1 << 20;
/// Longest row that is read.
const LONGEST_ROW: usize = 64 << 20;
/// A quoted cell with line breaks may reach this far; beyond it the quote is taken for a stray one.
const LONGEST_QUOTE: usize = 64 << 10;
/// Stray quotes for which the lines after them are read again; beyond them a quote does not reach over a line end.
const MOST_STRAYS: u32 = 1000;
/// Bytes from which the delimiter is found.
const SAMPLE: usize = 64 << 10;

/// A table that is being read.
pub(crate) struct Table<R> {
    reader: R,
    /// Between cells; `b' '` stands for any run of blanks.
    delimiter: u8,
    line_end: u8,
    decimal_comma: bool,
    header: Vec<String>,
    heading: Vec<u8>,
    line: Vec<u8>,
    /// Lines behind a stray quote, to be read again, and how far that is done.
    again: Vec<u8>,
    again_at: usize,
    strays: u32,
    /// The cells of a row with quotes or runs of blanks, each followed by one byte.
    cells: Vec<u8>,
    /// Where each cell ends.
    ends: Vec<u32>,
    rows: u64,
    odd: u64,
}

/// What a cell holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cell {
    /// Nothing, or a word for nothing: `NA`, `None`, `null`. `nan` is a number.
    Blank,
    Number(f64),
    Text,
}

/// The cells of one row, as many as the header has names.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    text: &'a [u8],
    ends: &'a [u32],
    decimal_comma: bool,
}

impl Table<Box<dyn BufRead>> {
    /// Opens a file and reads its header.
    pub fn open(input: &Input) -> Result<Self, LogError> {
        Table::new(input.text()?).ok_or_else(|| LogError::content(input.path(), "has no header of a table"))
    }
}

impl<'a> Table<Chain<&'a [u8], &'a [u8]>> {
    /// The table in the head of a file, with the rows that are whole. A header may be wider than the head.
    pub fn peek(peek: &Peek<'a>) -> Option<Self> {
        let wide = !peek.complete && memchr::memchr2(b'\n', b'\r', peek.head).is_none();
        Self::new(peek.head.chain(if wide { b"\n" } else { b"" }))
    }
}

impl<R: BufRead> Table<R> {
    /// Reads the header; `None` where there is none, or one of more than a million columns.
    pub fn new(mut reader: R) -> Option<Self> {
        let sample = loop {
            match reader.fill_buf() {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
                Ok(sample) => break &sample[..sample.len().min(SAMPLE)],
            }
        };
        let line_end =
            if memchr::memchr(b'\n', sample).is_none() && sample.contains(&b'\r') { b'\r' } else { b'\n' };
        let layout = Layout::of(sample, line_end);
        let mut table = Self {
            reader,
            delimiter: layout.delimiter,
            line_end,
            decimal_comma: layout.decimal_comma,
            header: Vec::new(),
            heading: Vec::new(),
            line: Vec::new(),
            again: Vec::new(),
            again_at: 0,
            strays: 0,
            cells: Vec::new(),
            ends: Vec::new(),
            rows: 0,
            odd: 0,
        };
        for _ in 0..layout.before {
            table.read_line(0);
        }
        if !table.read_line(0) {
            return None;
        }
        table.heading.clone_from(&table.line);
        let skip = usize::from(table.line.starts_with(b"#"));
        table.line.drain(..skip);
        table.split(WIDEST + 1);
        if table.strays > 0 {
            return None;
        }
        if table.ends.is_empty() || table.ends.len() > WIDEST {
            return None;
        }
        let mut seen: HashMap<String, usize> = HashMap::new();
        let row = Row::of(&table.line, &table.cells, &table.ends, false);
        let mut header: Vec<String> = (0..row.len())
            .map(|at| {
                let name = String::from_utf8_lossy(row.cell(at)).into_owned();
                // A name of its own for each column, as pandas gives it.
                let name = if name.is_empty() { format!("Unnamed: {at}") } else { name };
                let times = seen.entry(name.clone()).or_insert(0);
                *times += 1;
                if *times == 1 { name } else { format!("{name}.{}", *times - 1) }
            })
            .collect();
        // A delimiter at the end of each line makes no column.
        if header.len() > 1 && row.cell(row.len() - 1).is_empty() {
            header.pop();
        }
        table.header = header;
        Some(table)
    }

    /// The names of the columns, trimmed and each given once.
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// Where a column is, by its exact name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|known| known == name)
    }

    /// The next row with as many cells as the header; `None` at the end.
    pub fn next_row(&mut self) -> Option<Row<'_>> {
        let width = self.header.len();
        loop {
            self.line.clear();
            if !self.read_line(0) {
                return None;
            }
            if self.line.trim_ascii().is_empty() {
                continue;
            }
            self.split(width + 1);
            // A row may end with a delimiter that the header lacks.
            if self.ends.len() == width + 1 {
                let row = Row::of(&self.line, &self.cells, &self.ends, false);
                if row.cell(width).is_empty() {
                    self.ends.truncate(width);
                }
            }
            if self.ends.len() == width && self.line != self.heading {
                break;
            }
            // The header again is what a run writes that was started anew.
            self.odd += u64::from(self.line != self.heading);
        }
        self.rows += 1;
        Some(Row::of(&self.line, &self.cells, &self.ends, self.decimal_comma))
    }

    /// Tells what was passed over, and fails where there was no row at all.
    pub fn finish(&self, input: &Input, builder: &mut RunBuilder) -> Result<(), LogError> {
        if self.odd > 0 {
            let plural = if self.odd == 1 { "row has" } else { "rows have" };
            builder.note(format!(
                "{}: {} {plural} another number of cells than the header and were passed over",
                input.name(),
                self.odd
            ));
        }
        if self.rows == 0 {
            return Err(LogError::content(input.path(), "has a header and no complete row"));
        }
        Ok(())
    }

    /// Reads a line, without its end, behind the `kept` bytes of the line before; `false` where there is no complete one.
    fn read_line(&mut self, kept: usize) -> bool {
        self.line.truncate(kept);
        if self.again_at < self.again.len() {
            let rest = &self.again[self.again_at..];
            let end = memchr::memchr(b'\n', rest);
            self.line.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
            self.again_at += end.map_or(rest.len(), |end| end + 1);
            if end.is_some() {
                return true;
            }
        }
        loop {
            let available = match self.reader.fill_buf() {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) | Ok([]) => return false,
                Ok(available) => available,
            };
            let end = memchr::memchr(self.line_end, available);
            let taken = end.unwrap_or(available.len());
            let room = LONGEST_ROW.saturating_sub(self.line.len());
            self.line.extend_from_slice(&available[..taken.min(room)]);
            self.reader.consume(taken + usize::from(end.is_some()));
            if end.is_some() {
                if self.line.last() == Some(&b'\r') {
                    self.line.pop();
                }
                return true;
            }
        }
    }

    /// Finds where the cells of the line end; stops after `most` cells.
    fn split(&mut self, most: usize) {
        self.ends.clear();
        self.cells.clear();
        if memchr::memchr(b'"', &self.line).is_some() {
            let first = self.line.len();
            if self.unquote(most) || !self.give_back(first) {
                return;
            }
        }
        if self.delimiter == b' ' {
            for cell in
                self.line.split(|b| matches!(b, b' ' | b'\t')).filter(|cell| !cell.is_empty()).take(most)
            {
                self.cells.extend_from_slice(cell);
                self.ends.push(self.cells.len() as u32);
                self.cells.push(b' ');
            }
        } else {
            self.ends
                .extend(memchr::memchr_iter(self.delimiter, &self.line).take(most).map(|end| end as u32));
            if self.ends.len() < most {
                self.ends.push(self.line.len() as u32);
            }
        }
    }

    /// Where a quote of the line was a stray one: leaves the `first` bytes as the line, and what was read behind them for the next
    /// lines. `false` where nothing was: the cell may be growing.
    fn give_back(&mut self, first: usize) -> bool {
        self.ends.clear();
        self.cells.clear();
        let behind = self.line.get(first + 1..).unwrap_or_default();
        if behind.is_empty() && self.strays < MOST_STRAYS {
            return false;
        }
        self.strays += 1;
        self.again.splice(..self.again_at, behind.iter().copied());
        self.again_at = 0;
        self.line.truncate(first);
        true
    }

    /// Splits a line with quotes, reading on where a quoted cell contains line ends; `false` where a quote stays open.
    fn unquote(&mut self, most: usize) -> bool {
        let blanks = self.delimiter == b' ';
        let between = |delimiter: u8, b: u8| b == delimiter || (blanks && b == b'\t');
        let mut at = 0;
        while self.ends.len() < most {
            while self.line.get(at).is_some_and(|&b| b == b' ' || (blanks && b == b'\t')) {
                at += 1;
            }
            if blanks && at >= self.line.len() {
                return true;
            }
            let mut quoted = self.line.get(at) == Some(&b'"');
            at += usize::from(quoted);
            loop {
                match self.line.get(at).copied() {
                    None if quoted => {
                        if self.strays >= MOST_STRAYS {
                            return false;
                        }
                        self.line.push(b'\n');
                        let length = self.line.len();
                        if length > LONGEST_QUOTE || !self.read_line(length) {
                            return false;
                        }
                        self.cells.push(b'\n');
                    }
                    Some(b'"') if quoted && self.line.get(at + 1) == Some(&b'"') => {
                        self.cells.push(b'"');
                        at += 1;
                    }
                    Some(b'"') if quoted => quoted = false,
                    Some(b) if quoted || !between(self.delimiter, b) => self.cells.push(b),
                    _ => break,
                }
                at += 1;
            }
            self.ends.push(self.cells.len() as u32);
            self.cells.push(b' ');
            if at >= self.line.len() {
                return true;
            }
            at += 1;
        }
        true
    }
}

impl<'a> Row<'a> {
    fn of(line: &'a [u8], cells: &'a [u8], ends: &'a [u32], decimal_comma: bool) -> Self {
        Self { text: if cells.is_empty() { line } else { cells }, ends, decimal_comma }
    }

    /// Number of cells.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// A cell without quotes and blanks around it; empty beyond the last one.
    pub fn cell(&self, at: usize) -> &'a [u8] {
        let start =
            at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).map(|&end| end as usize + 1));
        let (Some(start), Some(&end)) = (start, self.ends.get(at)) else { return &[] };
        self.text.get(start..end as usize).unwrap_or_default().trim_ascii()
    }

    /// A cell as text, cut to a length worth keeping.
    pub fn text(&self, at: usize) -> String {
        let cell = self.cell(at);
        String::from_utf8_lossy(&cell[..cell.len().min(200)]).into_owned()
    }

    /// What a cell holds.
    pub fn value(&self, at: usize) -> Cell {
        value(self.cell(at), self.decimal_comma)
    }

    /// The number in a cell.
    pub fn number(&self, at: usize) -> Option<f64> {
        match self.value(at) {
            Cell::Number(number) => Some(number),
            Cell::Blank | Cell::Text => None,
        }
    }

    /// The number in a cell as a step or epoch, where it is whole.
    pub fn whole(&self, at: usize) -> Option<i64> {
        whole(self.number(at)?)
    }

    /// What each cell holds.
    pub fn values(self) -> impl Iterator<Item = Cell> + 'a {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let cell = self.text.get(start..end as usize).unwrap_or_default();
            start = end as usize + 1;
            value(cell, self.decimal_comma)
        })
    }
}

/// A number as a step, where it is whole and not beyond what a step can be.
pub(crate) fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}

/// What a cell holds.
fn value(cell: &[u8], decimal_comma: bool) -> Cell {
    if cell.is_empty() {
        return Cell::Blank;
    }
    match fast_float2::parse(cell) {
        Ok(number) => Cell::Number(number),
        Err(_) => unusual(cell, decimal_comma),
    }
}

/// A cell that is not plainly a number.
#[cold]
fn unusual(cell: &[u8], decimal_comma: bool) -> Cell {
    let cell = cell.trim_ascii();
    let number = |text: &[u8]| fast_float2::parse::<f64, _>(text).ok();
    if [&b""[..], b"na", b"n/a", b"<na>", b"null", b"none", b"-", b"--"]
        .iter()
        .any(|word| cell.eq_ignore_ascii_case(word))
    {
        return Cell::Blank;
    }
    if let Some(number) = number(cell) {
        return Cell::Number(number);
    }
    if let Some(number) = cell.strip_suffix(b"%").and_then(|percent| number(percent.trim_ascii())) {
        return Cell::Number(number / 100.0);
    }
    if decimal_comma && cell.len() < 64 && cell.iter().filter(|&&b| b == b',').count() == 1 {
        let point: Vec<u8> = cell.iter().map(|&b| if b == b',' { b'.' } else { b }).collect();
        if let Some(number) = number(&point) {
            return Cell::Number(number);
        }
    }
    // As Python prints a tensor or an array that should have been a number.
    for before in [&b"tensor("[..], b"["] {
        if let Some(rest) = cell.strip_prefix(before)
            && let Ok((number, length)) = fast_float2::parse_partial::<f64, _>(rest)
            && rest.get(length).is_some_and(|b| b",)]".contains(b))
            && (before != b"[" || rest.len() == length + 1)
        {
            return Cell::Number(number);
        }
    }
    Cell::Text
}

/// How a table is laid out, by its first lines.
struct Layout {
    delimiter: u8,
    decimal_comma: bool,
    /// Lines before the header.
    before: usize,
}

impl Layout {
    fn of(sample: &[u8], line_end: u8) -> Self {
        let mut lines: Vec<&[u8]> = sample.split(|&b| b == line_end).take(200).collect();
        // What follows the last line end is not all of its line, unless it is the header of a very wide table.
        if lines.len() > 1 {
            lines.pop();
        }
        let blank = |line: &[u8]| line.trim_ascii().is_empty();
        let mut before = lines.iter().take_while(|line| blank(line) || line.starts_with(b"#")).count();
        // numpy and gnuplot write the header as a comment.
        let comment = lines[..before].iter().rposition(|line| line.starts_with(b"#") && !blank(&line[1..]));
        let numeric = |line: &[u8]| {
            line.split(|b| b" \t,;".contains(b))
                .filter(|cell| !cell.is_empty())
                .all(|cell| fast_float2::parse::<f64, _>(cell).is_ok())
        };
        if let Some(comment) = comment
            && lines.get(before).is_some_and(|first| numeric(first))
        {
            before = comment;
        }
        let Some(&header) = lines.get(before) else {
            return Self { delimiter: b',', decimal_comma: false, before: 0 };
        };
        let header = header.strip_prefix(b"#").unwrap_or(header);
        let rows: Vec<&[u8]> =
            lines[before + 1..].iter().copied().filter(|line| !blank(line)).take(8).collect();
        let agree = |delimiter: u8, width: usize| {
            rows.iter().filter(|row| (width..=width + 1).contains(&count(row, delimiter))).count() * 2
                > rows.len()
        };
        let widths = [b'\t', b';', b','].map(|delimiter| (count(header, delimiter), delimiter));
        let best = |only_agreeing: bool| {
            let fits = |&(width, delimiter): &(usize, u8)| {
                width > 1 && (!only_agreeing || rows.is_empty() || agree(delimiter, width))
            };
            widths.into_iter().filter(fits).max_by_key(|&(width, _)| width)
        };
        let delimiter = match best(true) {
            Some((_, delimiter)) => delimiter,
            None if count(header, b' ') > 1 && agree(b' ', count(header, b' ')) => b' ',
            None => best(false).map_or(b',', |(_, delimiter)| delimiter),
        };
        let decimal = |cell: &[u8]| {
            let mut parts = cell.trim_ascii().split(|&b| b == b',');
            let digits = |part: Option<&[u8]>| {
                part.is_some_and(|part| part.first().is_some_and(|b| b.is_ascii_digit() || *b == b'-'))
            };
            digits(parts.next()) && digits(parts.next()) && parts.next().is_none()
        };
        let decimal_comma = matches!(delimiter, b';' | b'\t')
            && rows.iter().any(|row| row.split(|&b| b == delimiter).any(decimal));
        Self { delimiter, decimal_comma, before }
    }
}

/// Cells of a line. Delimiters within quotes do not count.
fn count(line: &[u8], delimiter: u8) -> usize {
    let mut quoted = false;
    let mut cells = usize::from(delimiter != b' ');
    let mut before = b' ';
    for &b in line {
        quoted ^= b == b'"';
        let blank = |b: u8| matches!(b, b' ' | b'\t' | b'\r');
        if delimiter == b' ' {
            cells += usize::from(blank(before) && !blank(b) && (!quoted || b == b'"'));
        } else {
            cells += usize::from(!quoted && b == delimiter);
        }
        before = b;
    }
    cells
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(text: &str) -> Vec<Vec<String>> {
        let mut table = Table::new(text.as_bytes()).unwrap();
        let mut rows = Vec::new();
        while let Some(row) = table.next_row() {
            rows.push((0..row.len()).map(|at| row.text(at)).collect());
        }
        rows
    }

    fn header(text: &str) -> Vec<String> {
        Table::new(text.as_bytes()).unwrap().header().to_vec()
    }

    #[test]
    fn each_column_has_a_name_of_its_own() {
        assert_eq!(header(",a,a,\"b,\"\"c\"\"\"\n"), ["Unnamed: 0", "a", "a.1", "b,\"c\""]);
        assert_eq!(header("   epoch\t  a \n1\t2\n"), ["epoch", "a"]);
        assert_eq!(header("epoch\n1\n"), ["epoch"]);
        assert!(Table::new(&b""[..]).is_none());
        assert!(Table::new(&b"step,loss"[..]).is_none());
    }

    #[test]
    fn a_row_without_its_end_is_left_out() {
        assert_eq!(rows("a,b\n1,2\n3,4").len(), 1);
        assert_eq!(rows("a,b\n1,2\n3,\"4\n").len(), 1);
        assert_eq!(rows("a,b\n1,2\n3,4\n").len(), 2);
    }

    #[test]
    fn a_stray_quote_costs_a_bounded_stretch() {
        let plain = "1,2\n".repeat(100_000);
        let read = rows(&format!("a,b\n{plain}5,\"6\n{plain}"));
        assert_eq!(read.len(), 200_001);
        // Also at the end of the file, but not where the cell may be growing.
        assert_eq!(rows("a,b\n1,\"2\n3,4\n5,6\n7"), [["1", "\"2"], ["3", "4"], ["5", "6"]]);
        assert_eq!(rows("a,b\n1,\"2\n"), Vec::<Vec<String>>::new());
        // Many of them, each of which would reach far in a wide table.
        let wide = format!("{}\n{}", vec!["c"; 30_000].join(","), "a\",b,\"\n".repeat(100_000));
        assert!(rows(&wide).is_empty());
        // Within a cell a quote is like any other character.
        assert_eq!(rows("a,b\n1,5\" disk\n2,x\n").len(), 2);
    }

    #[test]
    fn cells_are_numbers_words_for_nothing_or_text() {
        for (cell, expected) in [
            ("1", Cell::Number(1.0)),
            (" -1.5e-3 ", Cell::Number(-1.5e-3)),
            ("-Infinity", Cell::Number(f64::NEG_INFINITY)),
            ("12.5%", Cell::Number(0.125)),
            ("tensor(0.25, grad_fn=<MeanBackward0>)", Cell::Number(0.25)),
            ("tensor(0.25)", Cell::Number(0.25)),
            ("[3]", Cell::Number(3.0)),
            ("[3, 4]", Cell::Text),
            ("1,5", Cell::Text),
            ("N/A", Cell::Blank),
            ("None", Cell::Blank),
            ("  ", Cell::Blank),
            ("0x1f", Cell::Text),
            ("2024-01-02", Cell::Text),
        ] {
            assert_eq!(value(cell.as_bytes(), false), expected, "{cell:?}");
        }
        assert!(matches!(value(b"nan", false), Cell::Number(number) if number.is_nan()));
        assert_eq!(value(b"1,5", true), Cell::Number(1.5));
        assert_eq!(value(b"1,500,000", true), Cell::Text);
    }

    #[test]
    fn the_delimiter_is_the_one_that_rows_agree_on() {
        assert_eq!(header("a,b;c\n1;2\n3;4\n"), ["a,b", "c"]);
        assert_eq!(header("step\tGenerator Loss\n1\t2\n"), ["step", "Generator Loss"]);
        assert_eq!(header("step,Generator Loss\n1,2\n"), ["step", "Generator Loss"]);
    }

    proptest! {
        /// What a writer of CSV writes is read as it was, but for blanks around a cell.
        #[test]
        fn written_tables_are_read_as_they_were(
            cells in proptest::collection::vec(proptest::collection::vec("[a-c0-9 ,\"\r\n;]{0,6}", 3), 1..6)
        ) {
            let mut writer = csv::WriterBuilder::new().quote_style(csv::QuoteStyle::Always).from_writer(Vec::new());
            writer.write_record(["x", "y", "z"]).unwrap();
            for row in &cells {
                writer.write_record(row).unwrap();
            }
            let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let expected: Vec<Vec<String>> =
                cells.iter().map(|row| row.iter().map(|cell| cell.trim_ascii().replace("\r\n", "\n")).collect()).collect();
            prop_assert_eq!(rows(&text), expected);
        }
    }
}
