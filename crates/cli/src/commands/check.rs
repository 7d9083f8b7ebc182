//! `trimtab check`.

use std::io::IsTerminal;

use trimtab_guard::preflight::{self, Item, Options, Report, Verdict};
use trimtab_train::TrainError;

use crate::args::CheckArgs;
use crate::failure::{DONE, Failure, STOPPED};
use crate::progress::{print_json, say};

pub fn run(args: &CheckArgs) -> Result<u8, Failure> {
    // A device that is not there is no fault of the recipe.
    trimtab_train::device::open(&args.device)?;
    let options = Options {
        device: args.device.clone(),
        seconds: args.seconds,
        experiments: !args.quick,
        ..Options::default()
    };
    let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut tell = |item: &Item| {
        if !args.json {
            say(&line(item, color));
        }
    };
    let report = match trimtab_guard::load(&args.recipe, &args.set) {
        Ok(guarded) => preflight::check(&guarded, &options, &mut tell),
        Err(TrainError::Config(error)) => {
            let report = preflight::refused(&error);
            report.items.iter().for_each(tell);
            report
        }
        Err(other) => return Err(other.into()),
    };
    finish(args, &report);
    Ok(if report.worst() == Verdict::Fail { STOPPED } else { DONE })
}

fn finish(args: &CheckArgs, report: &Report) {
    if args.json {
        let mut json = report.to_json();
        json["recipe"] = args.recipe.display().to_string().into();
        print_json(&json);
    } else {
        say(&report.summary());
    }
}

/// An item, and below it what would mend it.
pub fn line(item: &Item, color: bool) -> String {
    let word = item.verdict.word();
    let word = if color { format!("\x1b[{}m{word}\x1b[0m", code(item.verdict)) } else { word.to_owned() };
    let message = super::diagnose::plain(&item.message);
    let mut text = format!("{word}  {:<14}  {message}", item.check);
    for advice in &item.advice {
        text += &format!("\n                      --set {}={}", advice.key, advice.value);
    }
    text
}

fn code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Skip => 2,
        Verdict::Pass => 32,
        Verdict::Warn => 33,
        Verdict::Fail => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_aligned_and_tells_what_would_mend_it() {
        let guarded = trimtab_guard::parse(
            std::path::Path::new("t.toml"),
            "recipe = \"two-stage\"\n[stage2]\nlearning_rate = 1e-4\nbatch = 128\n[stage1]\nbatch = 128\n[reference]\nbatch = 8\nlearning_rate = 2.5e-4\n[data.synth]\ncount = 1\nvalidation = 1\nsize = 128\n[model]\nbase = 1\n",
            &[],
        )
        .unwrap();
        let mut lines = Vec::new();
        let options = Options { experiments: false, ..Options::default() };
        preflight::check(&guarded, &options, &mut |item| lines.push(line(item, false)));
        let found = lines.iter().find(|l| l.contains("stage2")).unwrap();
        assert!(
            found.starts_with("FAIL  reference       stage2: the learning rate 1e-4 is 40.0x too small"),
            "{found}"
        );
        assert!(found.ends_with("\n                      --set stage2.learning_rate=0.004"), "{found}");
    }
}
