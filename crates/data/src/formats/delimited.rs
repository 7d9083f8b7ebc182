//! Tables of particles with a header line, as Topaz and CryoPPP have them.

use std::collections::HashMap;
use std::path::Path;

use super::text;
use crate::coordinates::{MicrographParticles, Particle};
use crate::error::{DataError, Result};

/// Names of the columns of a format.
pub(super) struct Columns {
    pub micrograph: Option<&'static str>,
    pub x: &'static str,
    pub y: &'static str,
    pub diameter: &'static str,
    pub score: &'static str,
}

/// Whether a first line has the names of both coordinate columns.
pub(super) fn is_header(line: &str, columns: &Columns) -> bool {
    let names: Vec<&str> = line.split([',', '\t']).map(clean).collect();
    names.contains(&columns.x) && names.contains(&columns.y)
}

fn clean(name: &str) -> &str {
    name.trim().trim_matches('"')
}

/// Reads the table; columns of other names are ignored, an empty diameter or score is none. Micrographs come in
/// the order of their first particle.
pub(super) fn particles(
    bytes: &[u8],
    columns: &Columns,
    path: &Path,
    format: &'static str,
) -> Result<Vec<MicrographParticles>> {
    let text = text::utf8(bytes, path, format)?;
    let header_line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let delimiter = if header_line.contains('\t') { b'\t' } else { b',' };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        // Rows of another length get our own message.
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut place: Option<Places> = None;
    let mut micrographs: Vec<MicrographParticles> = Vec::new();
    let mut index_of: HashMap<String, usize> = HashMap::new();
    let mut record = csv::StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return Err(DataError::format(path, format, error.to_string())),
        }
        if record.iter().all(|field| field.trim().is_empty()) && record.len() <= 1 {
            continue;
        }
        // The parser counts a record's position from before the blank lines it skipped.
        let start = record.position().map_or(0, |position| position.byte() as usize);
        let skipped =
            text.as_bytes()[start.min(text.len())..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
        let line = record.position().map_or(1, |position| position.line() as usize)
            + skipped.filter(|&&byte| byte == b'\n').count();
        let Some(place) = &place else {
            place = Some(Places::find(&record, columns).map_err(|name| {
                let found: Vec<&str> = record.iter().collect();
                DataError::format_at(
                    path,
                    line,
                    format,
                    format!("no column `{name}`; found {}", found.join(", ")),
                )
            })?);
            continue;
        };
        if record.len() < place.needed {
            return Err(DataError::format_at(
                path,
                line,
                format,
                format!("{} columns; {} are expected", record.len(), place.needed),
            ));
        }
        let field = |index: usize| record.get(index).unwrap_or_default();
        let present = |index: Option<usize>| index.map(field).filter(|field| !field.trim().is_empty());
        let particle = Particle {
            x: text::number(field(place.x), columns.x, path, line, format)?,
            y: text::number(field(place.y), columns.y, path, line, format)?,
            diameter: present(place.diameter)
                .map(|field| text::positive(field, columns.diameter, path, line, format))
                .transpose()?,
            score: present(place.score)
                .map(|field| text::number(field, columns.score, path, line, format))
                .transpose()?,
        };
        let micrograph = place.micrograph.map(field).unwrap_or_default();
        let index = match index_of.get(micrograph) {
            Some(&index) => index,
            None => {
                index_of.insert(micrograph.to_owned(), micrographs.len());
                micrographs
                    .push(MicrographParticles { micrograph: micrograph.to_owned(), particles: Vec::new() });
                micrographs.len() - 1
            }
        };
        micrographs[index].particles.push(particle);
    }
    match place {
        Some(_) => Ok(micrographs),
        None => Err(DataError::format(
            path,
            format,
            format!("no header line with `{}` and `{}`", columns.x, columns.y),
        )),
    }
}

struct Places {
    micrograph: Option<usize>,
    x: usize,
    y: usize,
    diameter: Option<usize>,
    score: Option<usize>,
    /// Columns that every row must have.
    needed: usize,
}

impl Places {
    fn find(header: &csv::StringRecord, columns: &Columns) -> Result<Self, &'static str> {
        let find = |name: &str| header.iter().position(|found| clean(found) == name);
        let (x, y) = (find(columns.x).ok_or(columns.x)?, find(columns.y).ok_or(columns.y)?);
        Ok(Self {
            micrograph: columns.micrograph.and_then(find),
            x,
            y,
            diameter: find(columns.diameter),
            score: find(columns.score),
            needed: header.len(),
        })
    }
}

/// Writes a table; columns that no particle needs are left out.
pub(super) fn to_bytes(
    micrographs: &[MicrographParticles],
    columns: &Columns,
    delimiter: u8,
    always_diameter: bool,
    path: &Path,
) -> Result<Vec<u8>> {
    let all = || micrographs.iter().flat_map(|micrograph| &micrograph.particles);
    text::check_finite(all(), path)?;
    let named =
        columns.micrograph.filter(|_| micrographs.iter().any(|micrograph| !micrograph.micrograph.is_empty()));
    let diameter = always_diameter || all().any(|particle| particle.diameter.is_some());
    let score = all().any(|particle| particle.score.is_some());

    let not_written = |error: csv::Error| DataError::content(path, error.to_string());
    let mut writer = csv::WriterBuilder::new().delimiter(delimiter).from_writer(Vec::new());
    let header = named
        .into_iter()
        .chain([columns.x, columns.y])
        .chain(diameter.then_some(columns.diameter))
        .chain(score.then_some(columns.score));
    writer.write_record(header).map_err(not_written)?;
    for micrograph in micrographs {
        for particle in &micrograph.particles {
            let optional = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
            let row = named
                .map(|_| micrograph.micrograph.clone())
                .into_iter()
                .chain([particle.x.to_string(), particle.y.to_string()])
                .chain(diameter.then(|| optional(particle.diameter)))
                .chain(score.then(|| optional(particle.score)));
            writer.write_record(row).map_err(not_written)?;
        }
    }
    writer.into_inner().map_err(|error| DataError::content(path, error.to_string()))
}
