//! The data, as `trimtab data inspect` sees them.

use std::collections::BTreeSet;

use trimtab_train::{Inspection, Severity};

use super::{Bench, Checked, Item, Verdict};

/// Files named in a message; all are in its numbers.
const NAMED: usize = 3;
/// Problems of one kind that are shown.
const EACH: usize = 3;
/// Samples that training and validation share, as a share of the latter: fewer move no score by more than that.
const SHARED: f64 = 0.01;

pub(super) fn check(bench: &mut Bench<'_>) -> Checked {
    let found = bench.guarded.loaded.recipe.inspect()?;
    let shared = shared(&found);
    let each_by_itself = bench.keys.text("data.normalise").is_some_and(|how| how != "none");
    let items: Vec<Item> = found
        .problems
        .iter()
        // What images differ in is taken away where each is normalised by itself.
        .filter(|problem| !(each_by_itself && problem.code == "intensity-scales"))
        .filter_map(|problem| {
            let verdict = match problem.severity {
                Severity::Error if leaks(&problem.code) && shared < SHARED => Verdict::Warn,
                Severity::Error => Verdict::Fail,
                Severity::Warning => Verdict::Warn,
                Severity::Note => return None,
            };
            let mut message = problem.message.clone();
            if !problem.files.is_empty() {
                let named =
                    problem.files.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
                message += &format!(" ({named}");
                if problem.files.len() > NAMED {
                    message += &format!(" and {} more", problem.files.len() - NAMED);
                }
                message += ")";
            }
            let item = Item::new("data", verdict, message).number("files", problem.files.clone());
            Some(item.number("code", problem.code.as_str()).cause(cause(&problem.code)))
        })
        .collect();
    if !items.is_empty() {
        return Ok(together(items));
    }
    let parts: Vec<String> = parts(&found).iter().map(|(name, count)| format!("{name} {count}")).collect();
    let message = format!("nothing wrong with the data ({})", parts.join(", "));
    Ok(vec![Item::new("data", Verdict::Pass, message)])
}

/// The first few of each kind, and how many more there are.
fn together(items: Vec<Item>) -> Vec<Item> {
    let kind = |item: &Item| (item.verdict, item.numbers.get("code").cloned());
    let mut kept: Vec<Item> = Vec::new();
    for item in &items {
        let same = kept.iter().filter(|known| kind(known) == kind(item)).count();
        if same < EACH {
            kept.push(item.clone());
        }
    }
    for item in &mut kept {
        let all = items.iter().filter(|other| kind(other) == kind(item)).count();
        if all > EACH {
            item.numbers.insert("of_this_kind".to_owned(), all.into());
        }
    }
    // Said once, behind the last that is shown.
    for index in (0..kept.len()).rev() {
        let last = !kept[index + 1..].iter().any(|other| kind(other) == kind(&kept[index]));
        if let Some(all) =
            kept[index].numbers.get("of_this_kind").and_then(serde_json::Value::as_u64).filter(|_| last)
        {
            kept[index].message += &format!("; and {} more of this kind", all - EACH as u64);
        }
    }
    kept
}

/// Whether a kind of problem is of samples on both sides of the split.
fn leaks(code: &str) -> bool {
    code.ends_with("across-splits")
}

/// Samples on both sides, as a share of those for validation.
fn shared(found: &Inspection) -> f64 {
    let files: BTreeSet<&String> =
        found.problems.iter().filter(|p| leaks(&p.code)).flat_map(|p| p.files.iter()).collect();
    let validation = parts(found).into_iter().find(|(name, _)| name == "validation");
    let validation = validation.and_then(|(_, count)| count.parse::<f64>().ok()).unwrap_or(0.0);
    // Each is there twice, once on either side.
    files.len() as f64 / 2.0 / validation.max(1.0)
}

/// Name of each part and how many samples it has, from the first table: a row a part, or (of volumes) a column a part.
fn parts(found: &Inspection) -> Vec<(String, String)> {
    let Some((header, rows)) = found.tables.first() else { return Vec::new() };
    match rows.first() {
        Some(row) if row.first().is_some_and(|name| name == "cases") => {
            header.iter().cloned().zip(row.iter().cloned()).skip(1).collect()
        }
        _ => rows.iter().filter_map(|row| Some((row.first()?.clone(), row.get(1)?.clone()))).collect(),
    }
}

/// The doctor's word for a kind of problem.
fn cause(code: &str) -> &'static str {
    match code {
        code if leaks(code) => "split-leaks",
        "non-finite-pixels" | "non-finite-voxels" | "non-finite" => "numbers-overflow",
        "unreadable"
        | "ambiguous-files"
        | "constant-image"
        | "flat-area"
        | "duplicate-within-split"
        | "intensity-scales"
        | "spacing-differs" => "input-pipeline",
        _ => "labels-or-loss-wrong",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_image_is_a_leak_and_a_wrong_label_is_not() {
        assert_eq!(cause("duplicate-across-splits"), "split-leaks");
        assert_eq!(cause("label-out-of-range"), "labels-or-loss-wrong");
    }

    #[test]
    fn what_is_shared_is_counted_by_the_validation_part() {
        let problem = trimtab_train::Problem {
            severity: Severity::Error,
            code: "duplicate-across-splits".to_owned(),
            message: String::new(),
            files: vec!["a".to_owned(), "b".to_owned()],
        };
        let table =
            |rows: &[[&str; 3]]| rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect::<Vec<_>>();
        let by_row = (Vec::new(), table(&[["train", "9", ""], ["validation", "4", ""]]));
        let by_column = (table(&[["", "train", "validation"]]).remove(0), table(&[["cases", "9", "8"]]));
        let with = |table| Inspection {
            tables: vec![table],
            problems: vec![problem.clone()],
            ..Inspection::default()
        };
        assert_eq!((shared(&with(by_row)), shared(&with(by_column))), (0.25, 0.125));
    }
}
