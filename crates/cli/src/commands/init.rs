//! `trimtab init`: a recipe to start from.

use trimtab_data::atomic::write_atomic;
use trimtab_train::recipes;

use crate::args::InitArgs;
use crate::failure::{DONE, Failure};
use crate::progress::say;

/// The files of `recipes/`.
const SHIPPED: &[(&str, &str)] = &[
    ("two-stage-demo", include_str!("../../../../recipes/two-stage-demo.toml")),
    ("two-stage-empiar10146", include_str!("../../../../recipes/two-stage-empiar10146.toml")),
    ("two-stage-report", include_str!("../../../../recipes/two-stage-report.toml")),
];

pub fn run(args: &InitArgs) -> Result<u8, Failure> {
    let text = if let Some(entry) = recipes::ALL.iter().find(|e| e.name == args.recipe) {
        let template = trimtab_train::defaults(entry).to_template();
        format!(
            "# {}\n# Every key with its default; delete what you do not change.\n\n{template}",
            entry.summary
        )
    } else if let Some((_, text)) = SHIPPED.iter().find(|(name, _)| *name == args.recipe) {
        (*text).to_owned()
    } else {
        let names: Vec<&str> =
            recipes::ALL.iter().map(|e| e.name).chain(SHIPPED.iter().map(|(name, _)| *name)).collect();
        return Err(Failure::usage(format!("no recipe \"{}\"; there are {}", args.recipe, names.join(", "))));
    };
    match &args.out {
        None => say(text.trim_end()),
        Some(path) if path.exists() => {
            return Err(Failure::usage(format!("{}: exists already", path.display())));
        }
        Some(path) => {
            write_atomic(path, |w| w.write_all(text.as_bytes()))?;
            eprintln!("wrote {}", path.display());
        }
    }
    Ok(DONE)
}
