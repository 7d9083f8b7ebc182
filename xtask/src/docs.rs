//! Generated pages, and a check that the written ones are true: links lead somewhere, recipes and files they name exist,
//! commands they show are understood by the program.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use trimtab_guard::defaults;
use trimtab_train::recipes;

use crate::{Outcome, root};

/// What to do.
#[derive(clap::Args)]
pub struct Args {
    /// Only compare and complain.
    #[arg(long)]
    check: bool,
}

/// Writes or checks.
pub fn run(args: &Args) -> Outcome {
    let mut problems = Vec::new();
    let settings =
        recipes::ALL.iter().map(|entry| (format!("settings-{}.md", entry.name), settings_page(entry)));
    for (name, page) in settings.chain([("rules.md".to_owned(), rules_page())]) {
        let path = root().join("docs").join(name);
        if !args.check {
            fs::write(&path, page)?;
        } else if fs::read_to_string(&path).unwrap_or_default() != page {
            problems.push(format!(
                "{}: out of date; `cargo run --release -p xtask -- docs` renews it",
                path.display()
            ));
        }
    }
    for page in pages()? {
        check_page(&page, &fs::read_to_string(&page)?, &mut problems)?;
    }
    if problems.is_empty() {
        println!("the documentation is true as far as a program can tell");
        return Ok(());
    }
    Err(problems.join("\n").into())
}

fn settings_page(entry: &recipes::Entry) -> String {
    let mut page = format!(
        "# Settings of the recipe `{}`\n\n{}.\n\nGenerated from the program; `trimtab init {}` writes the same as TOML.\n",
        entry.name, entry.summary, entry.name
    );
    let mut section = None;
    for row in defaults(entry).rows() {
        let of = row.key.rsplit_once('.').map_or("", |(section, _)| section).to_owned();
        if section.as_ref() != Some(&of) {
            let title = if of.is_empty() { "top level".to_owned() } else { format!("`[{of}]`") };
            let _ =
                write!(page, "\n## {title}\n\n| key | default | accepted | meaning |\n|---|---|---|---|\n");
            section = Some(of);
        }
        let name = row.key.rsplit('.').next().unwrap_or(row.key);
        let only = row.only_with.map(|c| format!(" Only with `{c}`.")).unwrap_or_default();
        let default = if row.value.is_empty() { "not given".to_owned() } else { format!("`{}`", row.value) };
        let _ = writeln!(page, "| `{name}` | {default} | {} | {}{only} |", row.accepted, row.doc);
    }
    page
}

/// The rules with their pages, the causes, the formats and the facts.
fn rules_page() -> String {
    let mut page = "# Rules, causes, formats, facts\n\nGenerated from the program.\n\n## Rules\n\n\
                    Each name leads to its page: what it detects, when it fires and stays quiet (those tables are run as tests), what helps.\n\n\
                    | rule | usual severity | what |\n|---|---|---|\n"
        .to_owned();
    for meta in trimtab_doctor::RULES.iter().map(|rule| rule.meta()) {
        let file = meta.id.replace('-', "_");
        let _ = writeln!(
            page,
            "| [{}](../crates/doctor/src/rules/{file}.md) | {} | {} |",
            meta.id,
            meta.severity.name(),
            meta.summary
        );
    }
    page += "\n## Causes\n\n| cause | explains | what would decide |\n|---|---|---|\n";
    for cause in trimtab_doctor::causes::CAUSES {
        let mut rules: Vec<&(&str, f64)> = cause.explains.iter().collect();
        rules.sort_by(|a, b| b.1.total_cmp(&a.1));
        let rules: Vec<String> = rules.iter().map(|(rule, weight)| format!("{rule} {weight}")).collect();
        let _ = writeln!(page, "| {} | {} | {} |", cause.summary, rules.join(", "), cause.experiment);
    }
    page += "\n## Formats\n\n| format | what |\n|---|---|\n";
    for format in trimtab_logs::FORMATS {
        let _ = writeln!(page, "| `{}` | {} |", format.id, format.summary.replace('|', "\\|"));
    }
    page += "\n## Facts\n\nWhat a configuration declares, under one name whatever the framework calls it. Remedies are changes of \
             these; `--config` can give those that a log does not have. A last part may name a group: \
             `optim.learning_rate.backbone`.\n\n| fact | kind | meaning |\n|---|---|---|\n";
    for key in trimtab_signals::keys::ALL {
        let _ = writeln!(page, "| `{}` | {} | {} |", key.name, key.kind, key.meaning);
    }
    page
}

fn pages() -> Result<Vec<PathBuf>, std::io::Error> {
    let mut pages = Vec::new();
    let root = root().canonicalize()?;
    for folder in [root.clone(), root.join("docs")] {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    Ok(pages)
}

fn check_page(page: &Path, text: &str, problems: &mut Vec<String>) -> Outcome {
    let folder = page.parent().unwrap_or(Path::new("."));
    let link = Regex::new(r"\]\(([^)#\s]+)(#[^)]*)?\)")?;
    for target in link.captures_iter(text).map(|c| c[1].to_owned()).filter(|t| !t.contains("://")) {
        if !folder.join(&target).exists() {
            problems.push(format!("{}: the link to {target} leads nowhere", page.display()));
        }
    }
    let recipe = Regex::new(r"recipes/[a-z0-9-]+\.toml")?;
    for name in recipe.find_iter(text).map(|m| m.as_str()) {
        if !root().join(name).exists() {
            problems.push(format!("{}: there is no {name}", page.display()));
        }
    }
    // Every shown command line must be understood: its words up to the first value are tried with --help.
    let command = Regex::new(
        r"(?m)^(?:trimtab|cargo run --release --) ([a-z]+(?: (?:inspect|micrographs))?)((?: .*)?)$",
    )?;
    let option = Regex::new(r" (--[a-z-]+)")?;
    for shown in command.captures_iter(text) {
        let help = help(&shown[1])?;
        match help {
            None => problems.push(format!("{}: there is no command `trimtab {}`", page.display(), &shown[1])),
            Some(help) => {
                for option in option
                    .captures_iter(&shown[2])
                    .map(|c| c[1].to_owned())
                    .filter(|o| !help.contains(o.as_str()))
                {
                    problems.push(format!(
                        "{}: `trimtab {}` has no option {option}",
                        page.display(),
                        &shown[1]
                    ));
                }
            }
        }
    }
    Ok(())
}

fn help(command: &str) -> Result<Option<String>, std::io::Error> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let out = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--"])
        .args(command.split(' '))
        .arg("--help")
        .current_dir(root())
        .output()?;
    Ok(out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned()))
}
