//! STAR files as RELION writes them: the subset of Hall 1991 (<https://doi.org/10.1021/ci00002a020>) described at
//! <https://relion.readthedocs.io/en/latest/Reference/Conventions.html>: data blocks of single items and loops,
//! one row a line, quoted values, comments. Files of RELION 3.0 (one table) and of 3.1 and later (`data_optics`
//! and `data_particles`) are the same at this level.
//!
//! [`Star`] keeps everything but layout (blank lines, alignment, the kind of quotes), so that reading a file,
//! changing a value and writing it again loses nothing.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use super::text;
use crate::atomic::write_atomic;
use crate::coordinates::{MicrographParticles, Particle};
use crate::error::{DataError, Result};

const FORMAT: &str = "STAR";

const X: &str = "_rlnCoordinateX";
const Y: &str = "_rlnCoordinateY";
const MICROGRAPH: &str = "_rlnMicrographName";
const SCORE: &str = "_rlnAutopickFigureOfMerit";
/// RELION has no label for a particle's diameter in pixels; it keeps the columns of labels it does not know.
const DIAMETER: &str = "_trimtabDiameterPixels";

/// RELION's placeholder where a particle was picked by hand.
const NO_SCORE: f64 = -999.0;
/// STAR's value for *inapplicable*.
const NO_DIAMETER: &str = ".";

/// A whole file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Star {
    /// Comments before the first block, without `#` and surrounding blanks at the end.
    pub comments: Vec<String>,
    /// Data blocks in file order; names may repeat.
    pub blocks: Vec<Block>,
}

/// One data block.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Block {
    /// Name after `data_`; may be empty.
    pub name: String,
    /// Items, loops and comments in file order.
    pub entries: Vec<Entry>,
}

/// A part of a block.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A line of its own.
    Comment(String),
    /// A single value.
    Item {
        /// With its `_`.
        tag: String,
        /// Without quotes; empty when the line has none.
        value: String,
        /// At the end of the line.
        comment: Option<String>,
    },
    /// A table.
    Loop(Loop),
}

/// A table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Loop {
    /// At least one.
    pub columns: Vec<Column>,
    /// Each with one value a column.
    pub rows: Vec<Row>,
    /// Comment lines among the rows: each stands before the row of this index (0: also among the columns).
    pub comments: Vec<(usize, String)>,
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// With its `_`.
    pub tag: String,
    /// At the end of the line; RELION writes the number of the column there.
    pub comment: Option<String>,
}

/// One row of a table. Rows are equal when their values and comments are, wherever they stand.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Without quotes.
    pub values: Vec<String>,
    /// At the end of the line.
    pub comment: Option<String>,
    /// Line in the file that was read, from 1; 0 for a new row.
    pub line: usize,
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values && self.comment == other.comment
    }
}

impl Loop {
    /// Index of a column by its tag (with `_`).
    pub fn column(&self, tag: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.tag == tag)
    }
}

impl Block {
    /// The tables of the block.
    pub fn loops(&self) -> impl Iterator<Item = &Loop> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Loop(table) => Some(table),
            _ => None,
        })
    }

    /// The value of a single item by its tag (with `_`).
    pub fn item(&self, wanted: &str) -> Option<&str> {
        self.entries.iter().find_map(|entry| match entry {
            Entry::Item { tag, value, .. } if tag == wanted => Some(value.as_str()),
            _ => None,
        })
    }

    fn tags(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().flat_map(|entry| match entry {
            Entry::Comment(_) => Vec::new(),
            Entry::Item { tag, .. } => vec![tag.as_str()],
            Entry::Loop(table) => table.columns.iter().map(|column| column.tag.as_str()).collect(),
        })
    }
}

/// Reads a file.
///
/// # Errors
/// [`DataError::Format`] with the line for whatever is not a STAR file in RELION's manner: a row with another
/// number of values than its table has columns, an unclosed quote, a value outside a table, a text of several
/// lines (`;`), a save frame; [`DataError::Io`].
pub fn read(path: &Path) -> Result<Star> {
    let bytes = std::fs::read(path).map_err(|source| DataError::io(path, "cannot read", source))?;
    from_bytes(&bytes, path)
}

/// [`read`] from bytes in memory; `path` is only used in messages.
///
/// # Errors
/// As for [`read`].
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Star> {
    let mut star = Star::default();
    // Whether the last entry of the last block is a loop that can still take rows.
    let mut in_loop = false;
    for (index, content) in text::utf8(bytes, path, FORMAT)?.lines().enumerate() {
        let line = index + 1;
        let wrong = |problem: String| DataError::format_at(path, line, FORMAT, problem);
        if content.starts_with(';') {
            return Err(wrong("a text of several lines (`;`), which RELION does not use".into()));
        }
        let Line { tokens, comment } = split(content).map_err(wrong)?;
        let Some(first) = tokens.first() else {
            if let Some(comment) = comment {
                let Some(block) = star.blocks.last_mut() else {
                    star.comments.push(comment);
                    continue;
                };
                match block.entries.last_mut() {
                    Some(Entry::Loop(table)) if in_loop => table.comments.push((table.rows.len(), comment)),
                    _ => block.entries.push(Entry::Comment(comment)),
                }
            }
            continue;
        };
        let keyword = if first.quoted { "" } else { first.text.as_str() };
        if let (Some(name), [_]) = (strip_prefix_ignoring_case(keyword, "data_"), &tokens[..]) {
            let entries = comment.into_iter().map(Entry::Comment).collect();
            star.blocks.push(Block { name: name.to_owned(), entries });
            in_loop = false;
            continue;
        }
        let Some(block) = star.blocks.last_mut() else {
            return Err(wrong(format!("`{}` before the first data block (`data_…`)", first.shown())));
        };
        if keyword.eq_ignore_ascii_case("loop_") && tokens.len() == 1 {
            let comments = comment.into_iter().map(|comment| (0, comment)).collect();
            block.entries.push(Entry::Loop(Loop { comments, ..Loop::default() }));
            in_loop = true;
            continue;
        }
        let reserved =
            ["save_", "global_", "stop_"].iter().any(|w| strip_prefix_ignoring_case(keyword, w).is_some());
        if reserved && tokens.len() == 1 {
            return Err(wrong(format!("`{}`, which RELION does not use", first.shown())));
        }
        if keyword.starts_with('_') {
            match (block.entries.last_mut(), &tokens[..]) {
                (Some(Entry::Loop(table)), [tag]) if in_loop && table.rows.is_empty() => {
                    if table.column(&tag.text).is_some() {
                        return Err(wrong(format!("column `{}` twice in one table", tag.shown())));
                    }
                    table.columns.push(Column { tag: tag.text.clone(), comment });
                }
                (_, [tag, rest @ ..]) if rest.len() <= 1 => {
                    let value = rest.first().map(|value| value.text.clone()).unwrap_or_default();
                    block.entries.push(Entry::Item { tag: tag.text.clone(), value, comment });
                    in_loop = false;
                }
                _ => return Err(wrong(format!("item `{}` with {} values", first.shown(), tokens.len() - 1))),
            }
            continue;
        }
        match block.entries.last_mut() {
            Some(Entry::Loop(table)) if in_loop => {
                if table.columns.is_empty() {
                    return Err(wrong("a table (`loop_`) without columns".into()));
                }
                if tokens.len() != table.columns.len() {
                    return Err(wrong(format!(
                        "{} values in a table of {} columns",
                        tokens.len(),
                        table.columns.len()
                    )));
                }
                let values = tokens.into_iter().map(|token| token.text).collect();
                table.rows.push(Row { values, comment, line });
            }
            _ => return Err(wrong(format!("the value `{}` outside a table", first.shown()))),
        }
    }
    for block in &star.blocks {
        if block.loops().any(|table| table.columns.is_empty()) {
            return Err(DataError::format(
                path,
                FORMAT,
                format!("a table without columns in block `{}`", block.name),
            ));
        }
    }
    Ok(star)
}

struct Token {
    text: String,
    quoted: bool,
}

impl Token {
    fn shown(&self) -> String {
        self.text.chars().take(60).collect()
    }
}

struct Line {
    tokens: Vec<Token>,
    comment: Option<String>,
}

/// Blanks between values; a carriage return can be left where lines end in more than CR LF.
fn is_blank(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\u{b}'
}

fn split(line: &str) -> Result<Line, String> {
    let mut tokens = Vec::new();
    let mut rest = line.trim_start_matches(is_blank);
    while let Some(first) = rest.chars().next() {
        match first {
            // A comment starts at a `#` that begins a value; within a value it is a character like any other.
            '#' => {
                return Ok(Line { tokens, comment: Some(rest[1..].trim_end_matches(is_blank).to_owned()) });
            }
            '\'' | '"' => {
                let inner = &rest[1..];
                // The closing quote is followed by a blank, so that `'it's'` is one value.
                let end = inner
                    .match_indices(first)
                    .map(|(at, _)| at)
                    .find(|&at| inner[at + 1..].chars().next().is_none_or(is_blank))
                    .ok_or_else(|| format!("a {first} that is not closed on its line"))?;
                tokens.push(Token { text: inner[..end].to_owned(), quoted: true });
                rest = &inner[end + 1..];
            }
            _ => {
                let end = rest.find(is_blank).unwrap_or(rest.len());
                tokens.push(Token { text: rest[..end].to_owned(), quoted: false });
                rest = &rest[end..];
            }
        }
        rest = rest.trim_start_matches(is_blank);
    }
    Ok(Line { tokens, comment: None })
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

impl Star {
    /// The file's text.
    ///
    /// # Errors
    /// [`DataError::Content`] for what the format cannot hold: a tag or name with blanks or without `_`, a value
    /// or comment with a line break, a value with both kinds of quotes before blanks, a table without columns or
    /// with a row of another length.
    pub fn to_text(&self, path: &Path) -> Result<String> {
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        for comment in &self.comments {
            let _ = writeln!(text, "{}", comment_text(comment, path)?);
        }
        for block in &self.blocks {
            if block.name.contains(is_blank) {
                return Err(DataError::content(path, format!("`{}` cannot name a data block", block.name)));
            }
            let _ = writeln!(text, "\ndata_{}\n", block.name);
            for entry in &block.entries {
                match entry {
                    Entry::Comment(comment) => {
                        let _ = writeln!(text, "{}", comment_text(comment, path)?);
                    }
                    Entry::Item { tag, value, comment } => {
                        let _ = write!(text, "{} {}", checked_tag(tag, path)?, quoted(value, path)?);
                        end_line(&mut text, comment.as_deref(), path)?;
                    }
                    Entry::Loop(table) => write_loop(&mut text, table, path)?,
                }
            }
        }
        Ok(text)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// As for [`Star::to_text`], and [`DataError::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = self.to_text(path)?;
        write_atomic(path, |out| out.write_all(text.as_bytes()))
    }

    /// The particles of every table that has `_rlnCoordinateX` and `_rlnCoordinateY` (pixels), by
    /// `_rlnMicrographName` in the order of first appearance; the name is empty where that column is missing.
    /// The score is `_rlnAutopickFigureOfMerit`, none where it is -999 (RELION's placeholder for particles picked
    /// by hand). The diameter is `_trimtabDiameterPixels`, which our own files have. Shifts from refinement
    /// (`_rlnOriginX…`) are not applied.
    ///
    /// # Errors
    /// [`DataError::Content`] when no table has both columns, with the columns that there are;
    /// [`DataError::Format`] with the line for a bad number.
    pub fn coordinates(&self, path: &Path) -> Result<Vec<MicrographParticles>> {
        let mut micrographs: Vec<MicrographParticles> = Vec::new();
        let mut index_of: HashMap<&str, usize> = HashMap::new();
        let mut found = false;
        for table in self.blocks.iter().flat_map(Block::loops) {
            let (Some(x), Some(y)) = (table.column(X), table.column(Y)) else { continue };
            found = true;
            let (name, score) = (table.column(MICROGRAPH), table.column(SCORE));
            let diameter = table.column(DIAMETER);
            for row in &table.rows {
                let value = |index: usize| row.values.get(index).map(String::as_str).unwrap_or_default();
                let number = |index, tag| text::number(value(index), tag, path, row.line, FORMAT);
                let particle = Particle {
                    x: number(x, X)?,
                    y: number(y, Y)?,
                    diameter: diameter
                        .map(value)
                        .filter(|&value| value != NO_DIAMETER)
                        .map(|value| text::positive(value, DIAMETER, path, row.line, FORMAT))
                        .transpose()?,
                    score: score
                        .map(|index| number(index, SCORE))
                        .transpose()?
                        .filter(|&score| score != NO_SCORE),
                };
                let micrograph = name.map(value).unwrap_or_default();
                let index = *index_of.entry(micrograph).or_insert_with(|| {
                    let micrograph = micrograph.to_owned();
                    micrographs.push(MicrographParticles { micrograph, particles: Vec::new() });
                    micrographs.len() - 1
                });
                micrographs[index].particles.push(particle);
            }
        }
        if found {
            return Ok(micrographs);
        }
        let blocks: Vec<String> = self
            .blocks
            .iter()
            .map(|block| format!("data_{} with {}", block.name, block.tags().collect::<Vec<_>>().join(", ")))
            .collect();
        let blocks = if blocks.is_empty() { "no data block".to_owned() } else { blocks.join("; ") };
        Err(DataError::content(
            path,
            format!("no coordinates ({X} and {Y} in one table); the file has {blocks}"),
        ))
    }

    /// A file of particles that RELION 3.1 and later reads: block `particles` with name, x and y, and
    /// `_rlnAutopickFigureOfMerit` (-999 for none) and `_trimtabDiameterPixels` (`.` for none; RELION warns of
    /// the label and keeps it) when a particle has one. A micrograph without particles leaves no trace.
    ///
    /// # Errors
    /// [`DataError::Content`] for a number that is not finite and for a score of -999.
    pub fn from_coordinates(micrographs: &[MicrographParticles], path: &Path) -> Result<Self> {
        let all = || micrographs.iter().flat_map(|micrograph| &micrograph.particles);
        text::check_finite(all(), path)?;
        if all().any(|particle| particle.score == Some(NO_SCORE)) {
            return Err(DataError::content(
                path,
                "a score of -999, which stands for no score in a STAR file",
            ));
        }
        let scores = all().any(|particle| particle.score.is_some());
        let diameters = all().any(|particle| particle.diameter.is_some());
        let tags = [MICROGRAPH, X, Y]
            .into_iter()
            .chain(scores.then_some(SCORE))
            .chain(diameters.then_some(DIAMETER));
        let column =
            |(index, tag): (usize, &str)| Column { tag: tag.into(), comment: Some((index + 1).to_string()) };
        let row = |name: &str, particle: &Particle| {
            let mut values = vec![name.to_owned(), particle.x.to_string(), particle.y.to_string()];
            values.extend(scores.then(|| particle.score.unwrap_or(NO_SCORE).to_string()));
            values.extend(diameters.then(|| particle.diameter.map_or(NO_DIAMETER.into(), |d| d.to_string())));
            Row { values, ..Row::default() }
        };
        let rows =
            micrographs.iter().flat_map(|m| m.particles.iter().map(|particle| row(&m.micrograph, particle)));
        let table =
            Loop { columns: tags.enumerate().map(column).collect(), rows: rows.collect(), comments: vec![] };
        let block = Block { name: "particles".into(), entries: vec![Entry::Loop(table)] };
        // RELION marks files of its current layout with this comment.
        Ok(Self { comments: vec![" version 30001".into()], blocks: vec![block] })
    }
}

/// Writes particles as a STAR file; see [`Star::from_coordinates`].
///
/// # Errors
/// As for [`Star::from_coordinates`] and [`Star::write`].
pub fn write_coordinates(path: &Path, micrographs: &[MicrographParticles]) -> Result<()> {
    Star::from_coordinates(micrographs, path)?.write(path)
}

fn write_loop(text: &mut String, table: &Loop, path: &Path) -> Result<()> {
    let wrong = |problem: String| DataError::content(path, problem);
    if table.columns.is_empty() {
        return Err(wrong("a table without columns cannot be written".into()));
    }
    text.push_str("loop_\n");
    for column in &table.columns {
        text.push_str(checked_tag(&column.tag, path)?);
        end_line(text, column.comment.as_deref(), path)?;
    }
    let mut comments = table.comments.iter().peekable();
    for index in 0..=table.rows.len() {
        while let Some((_, comment)) =
            comments.next_if(|(before, _)| *before <= index || index == table.rows.len())
        {
            let _ = writeln!(text, "{}", comment_text(comment, path)?);
        }
        let Some(row) = table.rows.get(index) else { break };
        if row.values.len() != table.columns.len() {
            return Err(wrong(format!(
                "{} values in a table of {} columns",
                row.values.len(),
                table.columns.len()
            )));
        }
        for (place, value) in row.values.iter().enumerate() {
            if place > 0 {
                text.push('\t');
            }
            text.push_str(&quoted(value, path)?);
        }
        end_line(text, row.comment.as_deref(), path)?;
    }
    text.push('\n');
    Ok(())
}

fn end_line(text: &mut String, comment: Option<&str>, path: &Path) -> Result<()> {
    if let Some(comment) = comment {
        text.push(' ');
        text.push_str(&comment_text(comment, path)?);
    }
    text.push('\n');
    Ok(())
}

fn comment_text(comment: &str, path: &Path) -> Result<String> {
    if comment.contains('\n') {
        return Err(DataError::content(path, "a comment of several lines cannot be written to a STAR file"));
    }
    Ok(format!("#{}", comment.trim_end_matches(is_blank)))
}

fn checked_tag<'a>(tag: &'a str, path: &Path) -> Result<&'a str> {
    if tag.starts_with('_') && !tag.contains(is_blank) {
        Ok(tag)
    } else {
        Err(DataError::content(path, format!("`{tag}` is not a STAR tag (`_name` without blanks)")))
    }
}

/// The value as it stands in a file: in quotes where it would be taken for something else.
fn quoted(value: &str, path: &Path) -> Result<String> {
    let special = value.is_empty()
        || value.starts_with(['_', '#', '\'', '"', ';', '$', '[', ']'])
        || value.contains(is_blank)
        || ["data_", "loop_", "save_", "global_", "stop_"]
            .iter()
            .any(|word| strip_prefix_ignoring_case(value, word).is_some());
    if !special {
        return Ok(value.to_owned());
    }
    let closes_early = |quote: char| {
        value.match_indices(quote).any(|(at, _)| value[at + 1..].chars().next().is_some_and(is_blank))
    };
    match ['"', '\''].into_iter().find(|&quote| !closes_early(quote)) {
        Some(quote) if !value.contains('\n') => Ok(format!("{quote}{value}{quote}")),
        _ => Err(DataError::content(path, format!("the value `{value}` cannot be written to a STAR file"))),
    }
}
