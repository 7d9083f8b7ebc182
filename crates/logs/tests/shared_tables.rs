//! Tables of real runs, where the folder of real logs is at hand.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use trimtab_logs::{Certainty, FORMATS, Input, Peek, RunBuilder};
use trimtab_signals::Run;

const TABLES: [&str; 6] =
    ["algoperf", "csv", "keras-csv", "lightning-csv", "numpy-savetxt", "ultralytics-csv"];

fn shared(below: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TRIMTAB_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let folder = root.join(below);
    if !folder.is_dir() {
        eprintln!("skipped: no folder {}", folder.display());
        return None;
    }
    Some(folder)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// The tables that claim a file, surest first.
fn claims(path: &Path) -> Vec<(Certainty, &'static str)> {
    let (mut head, most) = (Vec::new(), 64 * 1024);
    Input::file(path).text().unwrap().take(most + 1).read_to_end(&mut head).unwrap();
    let complete = head.len() as u64 <= most;
    head.truncate(most as usize);
    let text = match std::str::from_utf8(&head) {
        Ok(text) => Some(text),
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&head[..e.valid_up_to()]).ok(),
        Err(_) => None,
    };
    let peek = Peek { path, head: &head, complete, text };
    let tables = FORMATS.iter().filter(|format| TABLES.contains(&format.id));
    let mut claims: Vec<_> =
        tables.filter_map(|format| Some(((format.recognise)(&peek)?, format.id))).collect();
    claims.sort_by(|a, b| b.cmp(a));
    claims
}

fn read(format: &str, paths: &[PathBuf]) -> Run {
    let format = FORMATS.iter().find(|known| known.id == format).unwrap();
    let inputs: Vec<Input> = paths.iter().map(Input::file).collect();
    let mut builder = RunBuilder::new();
    (format.read)(&inputs, &mut builder).unwrap_or_else(|e| panic!("{paths:?}: {e}"));
    builder.finish("run", format.id)
}

#[test]
fn each_table_is_recognised_and_nothing_else_is() {
    let Some(folder) = shared("logs") else { return };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for path in files(&folder) {
        let below = path.strip_prefix(&folder).unwrap();
        let kind = below.components().next().unwrap().as_os_str().to_str().unwrap();
        let table = path.extension().is_some_and(|extension| extension == "csv");
        let expected = match kind {
            "lightning_metrics_csv" if table => Some("lightning-csv"),
            "keras_csvlogger" if table => Some("keras-csv"),
            "ultralytics_results_csv" if table => Some("ultralytics-csv"),
            "plain_csv" if table => Some("csv"),
            "numpy_savetxt_per_metric" if !below.ends_with("SOURCE.txt") => Some("numpy-savetxt"),
            _ => None,
        };
        let first = claims(&path).first().map(|claim| claim.1);
        assert_eq!(first, expected, "{}", below.display());
        *counts.entry(format!("{expected:?}")).or_default() += 1;
    }
    eprintln!("recognised: {counts:?}");
    let Some(data) = shared("data") else { return };
    for path in files(&data) {
        assert_eq!(claims(&path), [], "{}", path.display());
    }
}

#[test]
fn each_table_is_read_whole() {
    let Some(folder) = shared("logs") else { return };
    let mut together: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    let mut runs = Vec::new();
    for path in files(&folder) {
        match claims(&path).first() {
            Some((_, "numpy-savetxt")) => {
                together.entry(path.parent().unwrap().to_owned()).or_default().push(path);
            }
            Some((_, format)) => runs.push((path.clone(), read(format, &[path]))),
            None => {}
        }
    }
    for (folder, paths) in together {
        runs.push((folder, read("numpy-savetxt", &paths)));
    }
    for (path, run) in &runs {
        let values: usize = run.trace.iter().map(|(_, column)| column.len()).sum();
        let below = path.strip_prefix(&folder).unwrap().display().to_string();
        eprintln!(
            "{} {below}: {} columns, {values} values, last step {:?}, {} facts, {:?}, not mapped {:?}",
            run.format,
            run.trace.iter().count(),
            run.trace.last_step(),
            run.facts.iter().count(),
            run.notes,
            run.unmapped,
        );
        assert!(values > 0, "{below}");
        // None of them has a row that cannot be read.
        assert!(run.notes.iter().all(|note| !note.contains("passed over")), "{below}: {:?}", run.notes);
        if path.is_file() && run.trace.iter().count() < 50 {
            let text = std::fs::read_to_string(path).unwrap();
            let rows = text.lines().filter(|line| !line.trim().is_empty()).count() - 1;
            let longest = run.trace.iter().map(|(_, column)| column.len()).max().unwrap();
            assert!(longest <= rows, "{below}");
            // Long columns are thinned out.
            assert!(
                longest == rows || rows > 1 << 15 || run.format == "lightning-csv",
                "{below}: {longest} of {rows}"
            );
        }
    }
}

/// The rows of a table as maps. None of the tables of truth has a comma in quotes before the columns that are asked for.
fn truth(folder: &Path) -> HashMap<String, BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(folder.join("truth.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    reader
        .records()
        .map(|record| {
            let record = record.unwrap();
            let row: BTreeMap<String, String> =
                header.iter().zip(&record).map(|(name, cell)| (name.to_owned(), cell.to_owned())).collect();
            (record[0].to_owned(), row)
        })
        .collect()
}

#[test]
fn blanks_of_algoperf_are_nan_exactly_where_the_run_diverged() {
    for (below, expected) in [("replay/dev", 257), ("replay/dev_logs", 16)] {
        let Some(folder) = shared(below) else { return };
        let mut runs = 0;
        let mut non_finite: BTreeMap<String, [usize; 2]> = BTreeMap::new();
        for (id, row) in truth(&folder) {
            let tables: Vec<PathBuf> = files(&folder.join(&id))
                .into_iter()
                .filter(|path| {
                    claims(path).first().is_some_and(|claim| *claim == (Certainty::Sure, "algoperf"))
                })
                .collect();
            assert_eq!(tables.len(), 2, "{id}");
            let run = read("algoperf", &tables);
            assert_eq!(run.notes, Vec::<String>::new(), "{id}");
            let bad = |name: &str| {
                run.trace
                    .get(name)
                    .is_some_and(|column| column.values().iter().any(|value| !value.is_finite()))
            };
            let nan = run.trace.iter().any(|(_, column)| column.values().iter().any(|value| value.is_nan()));
            let losses = ["loss/total", "train/loss", "val/loss"].into_iter().any(bad);
            let of_kind = non_finite.entry(format!("{} {}", row["state"], row["kind"])).or_default();
            of_kind[usize::from(losses)] += 1;
            let diverged = row["state"] == "diverged";
            assert!(diverged || !nan, "{id} is {} and has a NaN", row["state"]);
            assert!(!diverged || !row["kind"].contains("non") || losses, "{id} has no non-finite loss");
            assert!(run.trace.get("val/loss").is_some() && run.trace.get("train/loss").is_some(), "{id}");
            // Evaluations count once, and each is there.
            let rows = csv::Reader::from_path(folder.join(&id).join("eval_measurements.csv"))
                .unwrap()
                .into_records()
                .count();
            assert_eq!(run.trace.get("val/loss").unwrap().len(), rows, "{id}");
            assert!(run.facts.text("run.framework").is_some(), "{id}");
            runs += 1;
        }
        eprintln!("{below}: {runs} runs, [finite, non-finite] losses by state: {non_finite:?}");
        assert_eq!(runs, expected);
    }
}
