//! `trimtab data inspect`.

use trimtab_data::audit::{self, AuditReport, Severity};

use crate::args::InspectArgs;
use crate::failure::{DONE, Failure, STOPPED};
use crate::progress::{print_json, say};
use crate::table::{number, table};

pub fn run(args: &InspectArgs) -> Result<u8, Failure> {
    let loaded = trimtab_train::load(&args.recipe, &args.set)?;
    let data = &loaded.recipe.common().data;
    let splits = data.open_unchecked()?;
    let report = audit::inspect(&[("train", &splits.train), ("validation", &splits.validation)], data.tile());
    if args.json {
        print_json(&serde_json::to_value(&report).map_err(|e| Failure::usage(e.to_string()))?);
    } else {
        print(&report);
    }
    Ok(if report.errors > 0 { STOPPED } else { DONE })
}

fn print(report: &AuditReport) {
    let rows = report.splits.iter().map(|s| {
        let labels = s.labels.as_ref();
        let sizes: Vec<String> =
            s.sizes.iter().map(|z| format!("{}x{} ({})", z.width, z.height, z.images)).collect();
        let values = labels.map_or_else(String::new, |l| {
            l.stored.iter().map(|v| v.value.to_string()).collect::<Vec<_>>().join(", ")
        });
        vec![
            s.name.clone(),
            s.images.to_string(),
            s.labelled.to_string(),
            s.tiles.to_string(),
            sizes.join(", "),
            values,
            number(labels.and_then(|l| l.prevalence)),
            number(labels.map(|l| l.ignored_fraction)),
            labels.map_or_else(String::new, |l| l.empty_masks.to_string()),
        ]
    });
    let tiles = format!("tiles of {}", report.tile);
    say(&table(
        &[
            "split",
            "images",
            "labelled",
            &tiles,
            "sizes (images)",
            "label values",
            "prevalence",
            "ignored",
            "empty masks",
        ],
        rows,
    ));
    let rows = report.splits.iter().filter_map(|s| s.intensity.as_ref().map(|i| (s, i))).map(|(s, i)| {
        let plain = |v: f64| format!("{v:.4}");
        vec![
            s.name.clone(),
            plain(f64::from(i.min)),
            plain(i.mean),
            plain(i.std),
            plain(f64::from(i.max)),
            s.non_finite.to_string(),
        ]
    });
    say(&table(&["intensity", "min", "mean", "deviation", "max", "non-finite"], rows));
    for problem in &report.problems {
        let severity = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        say(&format!("{severity}: {}", problem.message));
        for file in problem.files.iter().take(5) {
            say(&format!("    {file}"));
        }
        if problem.files.len() > 5 {
            say(&format!("    and {} more", problem.files.len() - 5));
        }
    }
    say(&format!("{} errors, {} warnings", report.errors, report.warnings));
}
