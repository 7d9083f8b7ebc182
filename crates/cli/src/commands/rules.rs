//! `trimtab rules`.

use serde_json::json;
use trimtab_doctor::RULES;

use crate::args::RulesArgs;
use crate::failure::{DONE, Failure};
use crate::progress::{print_json, say};

pub fn run(args: &RulesArgs) -> Result<u8, Failure> {
    let metas = RULES.iter().map(|rule| rule.meta());
    if args.json {
        let rules: Vec<_> =
            metas.map(|m| json!({"rule": m.id, "severity": m.severity, "summary": m.summary})).collect();
        print_json(&json!({"rules": rules}));
        return Ok(DONE);
    }
    let width = RULES.iter().map(|rule| rule.meta().id.len()).max().unwrap_or(0);
    for meta in metas {
        say(&format!("{:width$}  {:8}  {}", meta.id, meta.severity.name(), meta.summary));
    }
    Ok(DONE)
}
