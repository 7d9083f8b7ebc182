//! The whole of a recipe's file: the recipe's sections and the guard's.

use std::path::Path;

use trimtab_guard::{Policy, Reference, defaults, load, parse};
use trimtab_train::recipes;

#[test]
fn the_template_of_every_recipe_loads_as_its_defaults() {
    for entry in recipes::ALL {
        let template = defaults(entry).to_template();
        let guarded = parse(Path::new("t.toml"), &template, &[]).unwrap();
        // Keys that count only beside another setting stand there as comments.
        let all = defaults(entry);
        for row in all.rows() {
            let in_force = guarded.loaded.resolved.values().get(row.key).cloned();
            assert_eq!(in_force, row.only_with.is_none().then_some(row.value), "{}", row.key);
        }
        assert!(template.contains("# root = \"\""), "{template}");
    }
}

#[test]
fn the_schemas_are_those_checked_in() {
    for entry in recipes::ALL {
        let path = format!("{}/../../docs/schemas/recipe-{}.json", env!("CARGO_MANIFEST_DIR"), entry.name);
        let schema = serde_json::to_string_pretty(&defaults(entry).to_schema(entry.name)).unwrap() + "\n";
        if std::env::var_os("TRIMTAB_BLESS").is_some() {
            std::fs::write(&path, &schema).unwrap();
        }
        let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(checked_in, schema, "{path} differs; TRIMTAB_BLESS=1 rewrites it");
    }
}

#[test]
fn every_shipped_recipe_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let overrides: &[String] =
            if text.contains("source = \"synth\"") { &[] } else { &["data.root=x".to_owned()] };
        load(&path, overrides).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let demo = path.file_stem().unwrap().to_string_lossy().ends_with("-demo");
        assert_eq!(demo, overrides.is_empty(), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 14, "{seen}");
}

#[test]
fn a_guard_and_a_reference_are_read() {
    let text = "recipe = \"two-stage\"\n[guard]\npolicy = \"heal\"\nattempts = 2\n[reference]\nbatch = 8\nlearning_rate = 2.5e-4\n";
    let guarded = parse(Path::new("t.toml"), text, &[]).unwrap();
    assert_eq!((guarded.settings.policy, guarded.settings.attempts), (Policy::Heal, 2));
    assert_eq!(
        guarded.settings.reference,
        Some(Reference { batch: 8, accumulate: 1, learning_rate: 2.5e-4 })
    );
    let default = parse(Path::new("t.toml"), "recipe = \"two-stage\"\n", &[]).unwrap();
    assert_eq!((default.settings.policy, default.settings.reference), (Policy::Observe, None));
}

#[test]
fn what_the_guard_would_not_read_is_an_error() {
    let error = |text: &str| {
        let text = format!("recipe = \"two-stage\"\n{text}");
        parse(Path::new("t.toml"), &text, &[]).unwrap_err().to_string()
    };
    assert!(
        error("[guard]\nattempts = 2\n").contains("`guard.attempts`: has no effect here: only guard.policy")
    );
    assert!(error("[guard]\npolicy = \"mend\"\n").contains("\"heal\""));
    assert!(error("[reference]\nbatch = 8\n").contains("`reference.learning_rate`: is missing"));
    assert!(error("[guard]\nbranch = 2\n").contains("unknown key"));
}
