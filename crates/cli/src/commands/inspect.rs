//! `trimtab data inspect`.

use trimtab_train::Severity;

use crate::args::InspectArgs;
use crate::failure::{DONE, Failure, STOPPED};
use crate::progress::{print_json, say};
use crate::table::table;

pub fn run(args: &InspectArgs) -> Result<u8, Failure> {
    let loaded = trimtab_guard::load(&args.recipe, &args.set)?.loaded;
    let found = loaded.recipe.inspect()?;
    let count = |severity| found.problems.iter().filter(|p| p.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if args.json {
        print_json(&found.json);
    } else {
        for (header, rows) in found.tables {
            let header: Vec<&str> = header.iter().map(String::as_str).collect();
            say(&table(&header, rows));
        }
        for problem in &found.problems {
            let severity = match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Note => "note",
            };
            say(&format!("{severity}: {}", problem.message));
            for file in problem.files.iter().take(5) {
                say(&format!("    {file}"));
            }
            if problem.files.len() > 5 {
                say(&format!("    and {} more", problem.files.len() - 5));
            }
        }
        say(&format!("{errors} errors, {warnings} warnings"));
    }
    Ok(if errors > 0 { STOPPED } else { DONE })
}
