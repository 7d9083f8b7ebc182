//! The checked-in documentation says what the code does. `TRIMTAB_BLESS=1` rewrites it.

use std::fs;
use std::path::{Path, PathBuf};

use trimtab_signals::{names, schemas};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn check(path: &Path, expected: &str) {
    let found = fs::read_to_string(path).unwrap_or_default();
    if found == expected {
        return;
    }
    if std::env::var_os("TRIMTAB_BLESS").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
        fs::write(path, expected).expect("write");
        return;
    }
    panic!("{} is out of date: run this test with TRIMTAB_BLESS=1", path.display());
}

#[test]
fn schemas_are_up_to_date() {
    for (name, schema) in schemas() {
        let text = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
        check(&docs().join("schemas").join(format!("{name}.json")), &text);
    }
}

#[test]
fn no_schema_is_left_over() {
    let known: Vec<String> = schemas().iter().map(|(name, _)| format!("{name}.json")).collect();
    for entry in fs::read_dir(docs().join("schemas")).expect("docs/schemas") {
        let name = entry.expect("entry").file_name();
        // Those of settings belong to the crate that reads them.
        if name.to_string_lossy().starts_with("recipe-") {
            continue;
        }
        assert!(known.iter().any(|known| name == known.as_str()), "{} has no source", name.display(),);
    }
}

#[test]
fn the_table_of_signals_is_up_to_date() {
    const BEGIN: &str = "<!-- signals: written by crates/signals/tests/docs.rs -->\n";
    const END: &str = "<!-- end of signals -->\n";
    let mut table = "\n| signal | unit | meaning |\n|---|---|---|\n".to_owned();
    for signal in names::ALL {
        table += &format!("| `{}` | {} | {} |\n", signal.name, signal.unit, signal.meaning);
    }
    table.push('\n');
    let path = docs().join("run-directory.md");
    let text = fs::read_to_string(&path).expect("docs/run-directory.md");
    let (before, rest) = text.split_once(BEGIN).expect("the table's first mark");
    let (_, after) = rest.split_once(END).expect("the table's last mark");
    check(&path, &format!("{before}{BEGIN}{table}{END}{after}"));
}
