//! `trimtab init`: a recipe to start from.

use include_dir::{Dir, include_dir};
use trimtab_data::atomic::write_atomic;
use trimtab_train::recipes;

use crate::args::InitArgs;
use crate::failure::{DONE, Failure};
use crate::progress::say;

/// The files of `recipes/`.
static SHIPPED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../recipes");

/// Name and text of every shipped recipe.
fn shipped() -> impl Iterator<Item = (&'static str, &'static str)> {
    SHIPPED
        .files()
        .filter_map(|file| Some((file.path().to_str()?.strip_suffix(".toml")?, file.contents_utf8()?)))
}

pub fn run(args: &InitArgs) -> Result<u8, Failure> {
    let text = if let Some(entry) = recipes::ALL.iter().find(|e| e.name == args.recipe) {
        let template = trimtab_guard::defaults(entry).to_template();
        format!(
            "# {}\n# Every key with its default; delete what you do not change.\n\n{template}",
            entry.summary
        )
    } else if let Some((_, text)) = shipped().find(|(name, _)| *name == args.recipe) {
        text.to_owned()
    } else {
        let names: Vec<&str> =
            recipes::ALL.iter().map(|e| e.name).chain(shipped().map(|(name, _)| name)).collect();
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
