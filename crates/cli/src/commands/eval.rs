//! `trimtab eval`.

use serde_json::json;

use crate::args::EvalArgs;
use crate::commands::open_run;
use crate::failure::{DONE, Failure};
use crate::progress::{print_json, say};
use crate::table::{number, table};

pub fn run(args: &EvalArgs) -> Result<u8, Failure> {
    let loaded = open_run(&args.run)?.loaded;
    let scores = loaded.recipe.evaluate(&args.run, &args.device, args.data.as_deref())?;
    if args.json {
        let metrics: serde_json::Map<_, _> = scores
            .metrics
            .iter()
            .map(|m| (m.name.clone(), json!({"value": m.value, "floor": m.floor})))
            .collect();
        let mut all = json!({"run": args.run, "weights": scores.weights, "metrics": metrics});
        if let Some(object) = all.as_object_mut() {
            object.extend(scores.facts);
        }
        print_json(&all);
    } else {
        say(&format!("{}: {}", args.run.display(), scores.weights));
        say(&scores.on);
        let rows = scores.metrics.iter().map(|m| {
            let name = m.name.strip_prefix("val/").unwrap_or(&m.name);
            vec![name.to_owned(), number(m.floor), number(Some(m.value))]
        });
        say(&table(&["metric", "floor", "value"], rows));
    }
    Ok(DONE)
}
