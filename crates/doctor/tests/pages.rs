//! Every rule's page says what the rule does: its tables are run.

use std::collections::BTreeSet;

use trimtab_doctor::{Missing, Options, Page, RULES, View};
use trimtab_signals::{keys, names};

const HEADINGS: [&str; 6] =
    ["What it detects", "Why it hurts", "Fires", "Stays quiet", "Remedy", "References"];

#[test]
fn ids_are_unique_sorted_and_those_of_the_files() {
    let ids: Vec<&str> = RULES.iter().map(|rule| rule.meta().id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rules");
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("src/rules") {
        let name = entry.expect("entry").file_name().to_string_lossy().into_owned();
        files.insert(name);
    }
    files.remove("mod.rs");
    for id in &ids {
        let stem = id.replace('-', "_");
        assert!(files.remove(&format!("{stem}.rs")) && files.remove(&format!("{stem}.md")), "{id}");
    }
    assert!(files.is_empty(), "not registered: {files:?}");
}

#[test]
fn every_page_has_its_parts_and_enough_cases() {
    for rule in RULES {
        let meta = rule.meta();
        let page = Page::parse(meta.docs).unwrap_or_else(|e| panic!("{}: {e}", meta.id));
        assert_eq!(page.headings, HEADINGS, "{}", meta.id);
        assert!(meta.docs.starts_with(&format!("# {}\n", meta.id)), "{}", meta.id);
        assert!(!page.fires.is_empty(), "{} has no case in which it fires", meta.id);
        assert!(page.quiet.len() >= 2, "{} has fewer than two quiet cases", meta.id);
        let summary = meta.summary;
        assert!(
            !summary.ends_with('.') && !summary.starts_with(char::is_uppercase),
            "{}: {summary}",
            meta.id
        );
    }
}

#[test]
fn rules_fire_and_stay_quiet_as_their_pages_say() {
    let mut wrong = Vec::new();
    for rule in RULES {
        let id = rule.meta().id;
        let page = Page::parse(rule.meta().docs).expect("a page");
        for (case, fires) in page.fires.iter().map(|c| (c, true)).chain(page.quiet.iter().map(|c| (c, false)))
        {
            for (column, _) in case.run.trace.iter() {
                assert!(names::of(column).is_some(), "{id}: `{column}` in `{}` is no signal", case.name);
            }
            for (key, _) in case.run.facts.iter() {
                assert!(keys::of(key).is_some(), "{id}: `{key}` in `{}` is no key", case.name);
            }
            let options = Options::default();
            match rule.check(&View::new(&case.run, &options)) {
                Err(Missing(needs)) if fires => wrong.push(format!("{id}: `{}`: needs {needs:?}", case.name)),
                Err(_) => {}
                Ok(findings) => {
                    if findings.is_empty() == fires {
                        wrong.push(format!("{id}: `{}`: {} findings", case.name, findings.len()));
                    }
                    if let (Some(expected), Some(found)) =
                        (case.severity, findings.iter().map(|f| f.severity).max())
                        && found != expected
                    {
                        wrong.push(format!("{id}: `{}`: {found:?}, not {expected:?}", case.name));
                    }
                    for finding in &findings {
                        let message = &finding.message;
                        assert_eq!(finding.rule, id);
                        assert!(!message.ends_with('.') && !message.contains('\n'), "{id}: {message}");
                        assert!(!finding.evidence.is_empty(), "{id}: no evidence: {message}");
                        for remedy in &finding.remedies {
                            assert!(keys::of(&remedy.key).is_some(), "{id}: `{}` is no key", remedy.key);
                            assert!(!remedy.why.ends_with('.'), "{id}: {}", remedy.why);
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
