//! `trimtab explain`.

use crate::args::ExplainArgs;
use crate::commands::diagnose::meant;
use crate::failure::{DONE, Failure};
use crate::progress::say;

pub fn run(args: &ExplainArgs) -> Result<u8, Failure> {
    let Some(rule) = trimtab_doctor::rules::by_id(&args.rule) else {
        let known = trimtab_doctor::RULES.iter().map(|r| r.meta().id);
        let meant = meant(&args.rule, known);
        return Err(Failure::usage(format!("`{}` is no rule{meant}; `trimtab rules` lists them", args.rule)));
    };
    say(rule.meta().docs.trim_end());
    Ok(DONE)
}
