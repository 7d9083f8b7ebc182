//! `trimtab eval`.

use serde_json::json;

use crate::args::EvalArgs;
use crate::commands::open_run;
use crate::failure::{DONE, Failure};
use crate::progress::{print_json, say};
use crate::table::{number, table};

pub fn run(args: &EvalArgs) -> Result<u8, Failure> {
    let loaded = open_run(&args.run)?;
    let predictor = loaded.recipe.predictor(&args.run, &args.device)?;
    let data = &loaded.recipe.common().data;
    let dataset = match &args.data {
        None => data.open_once()?.validation,
        Some(path) => data.open_other(path)?,
    };
    let labelled = (0..dataset.len()).filter(|i| dataset.is_labelled(*i)).count();
    if labelled == 0 {
        return Err(Failure::usage("no image has labels: there is nothing to compare with"));
    }
    let report = predictor.evaluate(&dataset)?;
    if args.json {
        let metrics: serde_json::Map<_, _> = report
            .iter()
            .map(|m| (format!("val/{}", m.name), json!({"value": m.value, "floor": m.floor})))
            .collect();
        print_json(&json!({
            "run": args.run, "weights": predictor.describe(), "images": labelled, "pixels": report.valid, "ignored": report.ignored,
            "threshold": report.threshold, "metrics": metrics,
        }));
    } else {
        say(&format!("{}: {}", args.run.display(), predictor.describe()));
        say(&format!(
            "{labelled} images, {} pixels ({} ignored), threshold {}",
            report.valid, report.ignored, report.threshold
        ));
        let rows = report.iter().map(|m| vec![m.name.to_owned(), number(m.floor), number(Some(m.value))]);
        say(&table(&["metric", "floor", "value"], rows));
    }
    Ok(DONE)
}
