//! What users see when their settings are wrong, and that one description serves reading, templates and schemas.

use std::path::Path;

use trimtab_train::{Loaded, parse};

fn load(text: &str, overrides: &[&str]) -> Result<Loaded, String> {
    let overrides: Vec<String> = overrides.iter().map(|s| (*s).to_owned()).collect();
    parse(Path::new("my.toml"), text, &overrides, &|_| {}).map_err(|e| e.to_string())
}

#[track_caller]
fn check(text: &str, overrides: &[&str], wanted: &[&str]) {
    let error = load(text, overrides).unwrap_err();
    for part in wanted {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

const HEAD: &str = "recipe = \"two-stage\"\n";

#[test]
fn a_misspelt_key_names_its_line_and_the_right_one() {
    check(
        "recipe = \"two-stage\"\n\n[stage1]\nlearning_rat = 1.0\n",
        &[],
        &["my.toml:4:", "`stage1.learning_rat`", "did you mean `stage1.learning_rate`?"],
    );
    check(&format!("{HEAD}[stage2]\nbase = 3\n"), &[], &["my.toml:3:", "did you mean `model.base`?"]);
    check(
        &format!("{HEAD}[stage9]\nfrobnicate = 3\n"),
        &[],
        &["my.toml:3:", "unknown key; accepted are", "`stage1`"],
    );
}

#[test]
fn a_wrong_type_or_range_says_what_was_found_and_what_is_accepted() {
    check(
        &format!("{HEAD}seed = \"x\"\n"),
        &[],
        &["my.toml:2:", "`seed`: found \"x\" (string); accepted is a whole number"],
    );
    check(
        &format!("{HEAD}[loss]\nfocal_alpha = 1.5\n"),
        &[],
        &["found 1.5", "accepted is a number in 0..=1"],
    );
    check(
        &format!("{HEAD}[stage1]\nepochs = 0\n"),
        &[],
        &["found 0 (integer); accepted is a whole number in 1..=1000000"],
    );
    check(&format!("{HEAD}[stage1]\nlearning_rate = nan\n"), &[], &["found nan", "a number in 0..=1000"]);
    check(
        &format!("{HEAD}[data]\nsource = \"csv\"\n"),
        &[],
        &["accepted is one of \"synth\", \"folder\", \"npz\""],
    );
    check(HEAD, &["seed=-4"], &["--set: `seed`: found -4"]);
    check(HEAD, &["seed"], &["--set: found `seed`; accepted is key=value"]);
    check("recipe = [", &[], &["my.toml:1:", "not valid TOML"]);
    check("", &[], &["`recipe`: is missing; accepted is one of \"two-stage\""]);
    check("recipe = \"three\"", &[], &["found \"three\"; accepted is one of"]);
}

#[test]
fn all_problems_are_told_at_once() {
    let error = load(&format!("{HEAD}seed = true\n[loss]\nfocl = 1\ndice = -1\n"), &[]).unwrap_err();
    assert_eq!(error.lines().count(), 3, "{error}");
}

#[test]
fn a_key_that_would_do_nothing_is_an_error_that_says_why() {
    check(
        &format!("{HEAD}[data]\nroot = \"x\"\n"),
        &[],
        &["`data.root`: has no effect here: only data.source = \"folder\""],
    );
    check(
        &format!("{HEAD}[data]\nsource=\"folder\"\nroot=\"x\"\nmasks=\"m\"\n[data.synth]\ncount = 3\n"),
        &[],
        &["data.source is another"],
    );
    check(
        &format!("{HEAD}[stage2]\ncheckpoint = \"x\"\n[stage1]\nepochs = 3\n"),
        &[],
        &["`stage1.epochs`: has no effect here: stage2.checkpoint is set"],
    );
    check(
        &format!("{HEAD}[stage1]\nunlabelled_batch = 0\n"),
        &[],
        &["`stage1.unlabelled_batch`: is 0, so stage1.consistency_weight has no effect"],
    );
    check(&format!("{HEAD}[early_stopping]\nmin_delta = 0.1\n"), &[], &["early_stopping.patience is 0"]);
}

#[test]
fn what_can_never_happen_is_refused_before_training() {
    check(
        &format!("{HEAD}[stage2]\nepochs = 5\nwarmup_epochs = 6\n"),
        &[],
        &["`stage2.warmup_epochs`: found 6, more than the 5 epochs"],
    );
    check(&format!("{HEAD}[stage1]\nfreeze_encoder_epochs = 99\n"), &[], &["more than the 50 epochs"]);
    check(
        &format!("{HEAD}[data]\ntile = 100\n"),
        &[],
        &["`data.tile`: found 100; accepted is a multiple of 16"],
    );
    check(
        &format!("{HEAD}[data]\ntile = 64\ncrop = 128\n"),
        &[],
        &["`data.crop`: found 128, more than data.tile = 64"],
    );
    check(&format!("{HEAD}[stage1]\nema_decay = 1.0\n"), &[], &["would stop following"]);
    check(&format!("{HEAD}[loss]\nfocal = 0.0\ndice = 0.0\n"), &[], &["nothing to learn"]);
    check(
        &format!("{HEAD}[data]\nsource = \"folder\"\n"),
        &[],
        &["`data.root`: is needed", "`data.masks`: is empty"],
    );
    check(&format!("{HEAD}[evaluate]\nmetric = \"val/f2\"\n"), &[], &["accepted is one of \"val/f1\""]);
}

#[test]
fn conditions_are_checked_with_their_place() {
    check(
        &format!("{HEAD}\n[[expect]]\ncondition = \"val/f1 >> 3\"\n"),
        &[],
        &["my.toml:4:", "`expect.condition`", "`>>` is not one of"],
    );
    check(&format!("{HEAD}[[expect]]\ncondition = \"val/f9 > 3\"\n"), &[], &["`val/f9` is not a signal"]);
    check(
        &format!("{HEAD}[[expect]]\nwhen = \"val/f1 > 3\"\n"),
        &[],
        &["unknown key; accepted is `condition`", "`condition` is missing"],
    );
    check(
        &format!("{HEAD}[stage1]\nadvance_when = \"abort when val/f1 > 3\"\n"),
        &[],
        &["`stage1.advance_when`", "accepted is a comparison"],
    );
}

#[test]
fn a_key_of_another_recipe_is_told_from_an_unknown_one() {
    let mut reader =
        trimtab_train::settings::Reader::new(Path::new("my.toml"), "seed = 1\n[gan]\nthreshold = 1\n", &[])
            .unwrap();
    reader.count("seed", 0, 0..=9, "Seed.");
    let error =
        reader.finish(&|key| (key == "gan.threshold").then(|| "s4gan".to_owned())).unwrap_err().to_string();
    assert_eq!(error, "my.toml:3: `gan.threshold`: is a key of the recipe \"s4gan\", not of this one");
}

#[test]
fn overrides_win_and_the_resolved_file_reads_back_to_the_same_values_with_their_sources() {
    let text = format!(
        "{HEAD}[stage2]\nlearning_rate = 3e-4\n[[expect]]\ncondition = \"val/f1 > 0.5 by epoch 3\"\n"
    );
    let loaded = load(&text, &["stage2.epochs=7", "stage1.advance_when=", "data.synth.count = 5"]);
    let error = loaded.unwrap_err();
    assert!(error.contains("stage2.warmup_epochs"), "the default warm-up is longer than 7 epochs: {error}");
    let loaded = load(&text, &["stage2.epochs=70", "data.synth.count = 5"]).unwrap();
    let resolved = loaded.resolved.to_toml();
    for line in [
        "epochs = 70  # --set",
        "learning_rate = 0.0003  # my.toml:3",
        "labelled_ratio = 0.01  # default",
        "[[expect]]",
    ] {
        assert!(resolved.contains(line), "{line} is not in {resolved}");
    }
    let again = load(&resolved, &[]).unwrap();
    assert_eq!(again.resolved.values(), loaded.resolved.values());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(recipe = \"two-stage\"\n)?[a-z0-9_.=\\[\\]\"{}\n -]{0,200}") {
        let _ = load(&text, &[]);
    }

    #[test]
    fn no_override_makes_the_reader_panic(text in "[a-z0-9_.=\\[\\]\"{}\n -]{0,60}") {
        let _ = load(HEAD, &[&text]);
    }
}

#[test]
fn a_resolved_file_holds_the_same_settings_however_an_override_was_written() {
    let files = "recipe = \"volume-segmentation\"\n[data]\nsource = \"files\"\nroot = \"r\"\n";
    for (text, set) in [
        (HEAD, "stage2.learning_rate=3e-4"),
        (HEAD, "stage2.epochs=+1_2"),
        (HEAD, "stage1.advance_when='val/f1 > 0.6'"),
        (files, "data.ignore_label=[7,9 ]"),
    ] {
        let first = load(text, &[set]).unwrap().resolved;
        let again = load(&first.to_toml(), &[]).unwrap().resolved;
        assert_eq!(first.values(), again.values());
        assert_eq!(first.identity(), again.identity(), "{set}");
    }
}
