//! What users see when the settings of the volume recipes can't work, and what the shipped files stand for.

use std::path::Path;

use trimtab_train::{Loaded, parse};

fn load(text: &str, overrides: &[&str]) -> Result<Loaded, String> {
    let overrides: Vec<String> = overrides.iter().map(|s| (*s).to_owned()).collect();
    parse(Path::new("my.toml"), text, &overrides, &|_| {}).map_err(|e| e.to_string())
}

#[track_caller]
fn refused(recipe: &str, text: &str, wanted: &[&str]) {
    let error = load(&format!("recipe = \"{recipe}\"\n{text}"), &[]).unwrap_err();
    for part in wanted {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

const CLASSES: &str = "volume-classification";
const VOXELS: &str = "volume-segmentation";

#[test]
fn a_re_weighting_that_could_never_begin_is_refused() {
    refused(
        CLASSES,
        "[optim]\nepochs = 20\n[loss]\ndrw_start = 20\n",
        &["my.toml:5:", "`loss.drw_start`", "20 epochs", "never begin"],
    );
    refused(
        CLASSES,
        "[loss]\ndrw_start = 25\n[early_stopping]\npatience = 10\n",
        &["`loss.drw_start`: found 25", "end the run after epoch 11", "patience of at least 25"],
    );
    refused(
        CLASSES,
        "[early_stopping]\npatience = 5\n[evaluate]\nevery_epochs = 2\n",
        &["after epoch 12", "at least 12"],
    );
    // Just within reach.
    load(&format!("recipe = \"{CLASSES}\"\n[early_stopping]\npatience = 25\n"), &[]).unwrap();
}

#[test]
fn balancing_twice_is_refused() {
    refused(CLASSES, "[data]\nsampler = \"balanced\"\n", &["`loss.reweighting`", "counts twice"]);
    load(
        &format!("recipe = \"{CLASSES}\"\n[data]\nsampler = \"balanced\"\n[loss]\nreweighting = \"none\"\n"),
        &[],
    )
    .unwrap();
}

#[test]
fn cosines_need_the_scale_of_ldam() {
    refused(
        CLASSES,
        "[loss]\nkind = \"cross_entropy\"\n[model]\nhead = \"normalised\"\n",
        &["`model.head`", "use \"plain\""],
    );
    refused(CLASSES, "[loss]\nkind = \"cross_entropy\"\nscale = 3\n", &["`loss.scale`: has no effect here"]);
}

#[test]
fn a_network_that_does_not_divide_the_patch_is_refused() {
    refused(
        VOXELS,
        "[data]\npatch_depth = 20\n",
        &["my.toml:3:", "`data.patch_depth`: found 20", "multiple of 8"],
    );
    // Levels that leave the depth alone do not divide it.
    load(&format!("recipe = \"{VOXELS}\"\n[data]\npatch_depth = 20\n[model]\nflat_levels = 1\n"), &[])
        .unwrap();
    refused(VOXELS, "[optim]\ndecay = \"plateau\"\nwarmup_epochs = 1\n", &["has the peak rate already"]);
    refused(
        VOXELS,
        "[data]\npatch_depth = 32\npatch_height = 32\npatch_width = 32\n[model]\ndepth = 5\n",
        &["single voxel"],
    );
    refused(VOXELS, "[model]\ndeep_supervision = 3\n", &["less than model.depth = 3"]);
}

#[test]
fn losses_that_would_do_nothing_or_not_fit_are_refused() {
    refused(
        VOXELS,
        "[loss.cldice]\nweight = 1\nfrom_epoch = 100\n",
        &["`loss.cldice.from_epoch`", "never count"],
    );
    refused(VOXELS, "[loss.cldice]\niterations = 5\n", &["`loss.cldice.iterations`: has no effect here"]);
    refused(VOXELS, "[loss.focal]\nweight = 1\n", &["is for two classes; there are 3"]);
    refused(VOXELS, "[loss.boundary]\nweight = 1\n", &["use \"distance\""]);
    refused(
        VOXELS,
        "[loss.dice]\nfrom_epoch = 3\n[loss.cross_entropy]\nweight = 0\n",
        &["nothing to learn from"],
    );
    refused(VOXELS, "[evaluate]\nmetric = \"val/topo_score\"\n", &["evaluate.topology = true"]);
    refused(VOXELS, "[data]\nsource = \"files\"\n", &["`data.root`: is needed"]);
    refused(
        VOXELS,
        "[data]\nsource = \"files\"\nroot = \"x\"\nignore_label = \"2, x\"\n",
        &["`data.ignore_label`: found \"2, x\"", "whole numbers"],
    );
    refused(VOXELS, "[data]\nvalidation = \"folds\"\n", &["only data.source = \"files\" reads it"]);
}

#[test]
fn a_flag_may_switch_off_what_a_file_has_set_up() {
    let text = format!(
        "recipe = \"{VOXELS}\"\n[data.synth]\nkind = \"membranes\"\n[loss.cldice]\nweight = 0.5\niterations = 5\n"
    );
    let loaded = load(&text, &["loss.cldice.weight=0"]).unwrap();
    assert!(!loaded.resolved.has("loss.cldice.iterations"));
    // Not what another flag sets up.
    let error = load(&text, &["loss.cldice.weight=0", "loss.cldice.iterations=7"]).unwrap_err();
    assert!(error.contains("--set: `loss.cldice.iterations`: has no effect here"), "{error}");
}

#[test]
fn folds_are_known_to_the_recipe() {
    let of = |text: &str| load(text, &[]).unwrap().recipe.folds().unwrap();
    let files = format!("recipe = \"{VOXELS}\"\n[data]\nsource = \"files\"\nroot = \"x\"\n");
    assert_eq!(of(&files), None);
    assert_eq!(of(&format!("{files}validation = \"folds\"\nfolds = 7\n")), Some(7));
    refused(
        VOXELS,
        "[data]\nsource = \"files\"\nroot = \"x\"\nvalidation = \"folds\"\nfold = 5\n",
        &["0 to 4"],
    );
}

#[test]
fn bf16_on_the_cpu_is_refused_before_anything_is_made() {
    let dir = std::env::temp_dir().join(format!("trimtab-bf16-{}", std::process::id()));
    struct Nobody;
    impl trimtab_train::Observer for Nobody {
        fn report(&mut self, _: &trimtab_train::Report<'_>) -> trimtab_train::Control {
            trimtab_train::Control::Continue
        }
    }
    for recipe in [CLASSES, VOXELS] {
        let loaded = load(&format!("recipe = \"{recipe}\"\n[optim]\nprecision = \"bf16\"\n"), &[]).unwrap();
        let session = trimtab_train::Session {
            directory: dir.clone(),
            resolved: &loaded.resolved,
            device: "cpu",
            resume: false,
            observer: &mut Nobody,
            on_start: &mut |_| {},
        };
        let error = loaded.recipe.train(session).unwrap_err().to_string();
        assert!(error.contains("bf16") && error.contains("\"f32\""), "{error}");
    }
    assert!(!dir.exists());
}
