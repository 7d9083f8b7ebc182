//! Ablation: the baseline, each change alone and all together, each with the same seeds.
//!
//! [`Factors`] is what the user wants to know about, [`Plan`] the runs it takes, read and checked before the first is trained;
//! [`Ablation`] what they showed.

mod factors;
mod outcome;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use trimtab_train::settings::{ConfigError, Problem, Source};
use trimtab_train::{Loaded, TrainError};

use crate::Guarded;
use crate::settings::load;
use factors::{ALL, BASELINE, WITHOUT, key_of, same_value};
pub use factors::{Factor, Factors, Setting};
pub use outcome::{Ablation, Attempt, Ending, MARKDOWN, Measured, Outcome, RESULT};

/// Seeds of each variant where nothing says how many.
const SEEDS: u64 = 3;

/// What the command line adds to recipe and factors.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Overrides of every variant; a factor's own settings win over them.
    pub set: Vec<String>,
    /// How many seeds: the first of the factors' file, or the recipe's seed and those after it.
    pub seeds: Option<u64>,
    /// Also all factors but one, for each.
    pub leave_one_out: bool,
}

/// One combination of factors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// The factor, or one of `baseline`, `all`, `without-…`.
    pub name: String,
    /// What it sets beyond the baseline.
    pub set: Vec<Setting>,
}

/// One training.
#[derive(Debug)]
pub struct Run {
    /// Index of its variant.
    pub variant: usize,
    /// Its seed.
    pub seed: u64,
    /// Name of its directory.
    pub directory: String,
    /// Its settings.
    pub guarded: Guarded,
}

/// The runs of an ablation.
#[derive(Debug)]
pub struct Plan {
    /// The recipe's file.
    pub recipe: PathBuf,
    /// The signal variants are compared by, and that the best weights of each run are chosen by. Higher is better.
    pub metric: String,
    /// Seeds of each variant.
    pub seeds: Vec<u64>,
    /// What the baseline sets beyond the recipe.
    pub base: Vec<String>,
    /// The baseline first.
    pub variants: Vec<Variant>,
    /// In the order to train them: the first seed of every variant, then the second, so that there is something of everything early.
    pub runs: Vec<Run>,
}

impl Plan {
    /// Lays out the runs and checks the settings and data of every one.
    ///
    /// # Errors
    /// What is wrong with the settings or the data of a variant, with its name; a factor that changes nothing; more seeds than the file
    /// of factors has.
    pub fn new(recipe: &Path, factors: &Factors, options: &Options) -> Result<Self, TrainError> {
        let refuse = |problem: Problem| Err(TrainError::Config(ConfigError(vec![problem])));
        if options.set.iter().any(|text| key_of(text) == "seed") {
            let message =
                "every variant is trained with several: use --seeds, or `seeds` in the file of factors";
            return refuse(Problem {
                source: Source::Flag,
                key: "seed".to_owned(),
                message: message.to_owned(),
            });
        }
        let mut base: Vec<String> =
            factors.base.iter().chain(&factors.metric).map(|s| s.text.clone()).collect();
        base.extend(options.set.iter().cloned());

        let variants = variants(&factors.factors, options.leave_one_out);
        let of = |variant: &Variant, seed: Option<u64>| {
            let mut overrides = base.clone();
            overrides.extend(variant.set.iter().map(|s| s.text.clone()));
            overrides.extend(seed.map(|seed| format!("seed={seed}")));
            load(recipe, &overrides)
                .map_err(|error| in_variant(&variant.name, located(error, variant, factors, options)))
        };
        let baseline = of(&variants[0], None)?;
        for factor in &factors.factors {
            // All that is wrong with it comes first.
            let alone = of(&Variant { name: factor.name.clone(), set: factor.set.clone() }, None)?;
            if same_settings(&alone.loaded, &baseline.loaded) {
                return refuse(Problem {
                    source: Source::File(factors.path.clone(), factor.line),
                    key: "factor".to_owned(),
                    message: format!(
                        "\"{}\" changes nothing: the baseline has these settings already",
                        factor.name
                    ),
                });
            }
        }
        let seeds = seeds(factors, options, &baseline.loaded)?;
        let (mut runs, mut opened) = (Vec::new(), BTreeSet::new());
        for seed in &seeds {
            for (index, variant) in variants.iter().enumerate() {
                let guarded = of(variant, Some(*seed))?;
                // Opening data may take seconds, and most variants have the same.
                if opened.insert(data_settings(&guarded.loaded)) {
                    let checked = guarded.loaded.recipe.check();
                    checked.map_err(|e| in_variant(&format!("{}, seed {seed}", variant.name), e))?;
                }
                let directory = format!("{}-seed{seed}", variant.name);
                runs.push(Run { variant: index, seed: *seed, directory, guarded });
            }
        }
        let metric = baseline.loaded.recipe.common().metric().to_owned();
        Ok(Self { recipe: recipe.to_owned(), metric, seeds, base, variants, runs })
    }
}

/// Baseline, each factor alone, all together; with `leave_one_out` all but each. None twice.
fn variants(factors: &[Factor], leave_one_out: bool) -> Vec<Variant> {
    let together = |name: String, of: &dyn Fn(usize) -> bool| {
        let set = factors.iter().enumerate().filter(|(i, _)| of(*i)).flat_map(|(_, f)| f.set.clone());
        Variant { name, set: set.collect() }
    };
    let mut all = vec![together(BASELINE.to_owned(), &|_| false)];
    all.extend(factors.iter().enumerate().map(|(i, f)| together(f.name.clone(), &|other| other == i)));
    if factors.len() > 1 {
        all.push(together(ALL.to_owned(), &|_| true));
    }
    // All but one of two is the other alone.
    if leave_one_out && factors.len() > 2 {
        let each = factors.iter().enumerate();
        all.extend(each.map(|(i, f)| together(format!("{WITHOUT}{}", f.name), &|other| other != i)));
    }
    all
}

fn seeds(factors: &Factors, options: &Options, baseline: &Loaded) -> Result<Vec<u64>, TrainError> {
    let Some(listed) = &factors.seeds else {
        let own = baseline.resolved.values().get("seed").and_then(|text| text.parse().ok());
        let first: u64 = own.ok_or_else(|| TrainError::Internal("a recipe without a seed".to_owned()))?;
        return Ok((0..options.seeds.unwrap_or(SEEDS)).map(|i| first.saturating_add(i)).collect());
    };
    let wanted = options.seeds.map_or(listed.len(), |n| usize::try_from(n).unwrap_or(usize::MAX));
    listed.get(..wanted).map(<[u64]>::to_vec).ok_or_else(|| {
        let path = factors.path.display();
        TrainError::Usage(format!(
            "--seeds {wanted}: `seeds` in {path} has only {}; add some, or leave it out",
            listed.len()
        ))
    })
}

fn same_settings(a: &Loaded, b: &Loaded) -> bool {
    let (a, b) = (a.resolved.values(), b.resolved.values());
    a.len() == b.len()
        && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same_value(value, other)))
}

/// The settings that say what data a run has, and how they are split.
fn data_settings(loaded: &Loaded) -> Vec<(String, String)> {
    let values = loaded.resolved.values().into_iter();
    let data = values.filter(|(key, _)| *key == "seed" || key.starts_with("data."));
    data.map(|(key, value)| (key.to_owned(), value)).collect()
}

fn in_variant(name: &str, error: TrainError) -> TrainError {
    match error {
        TrainError::Internal(_) => error,
        other => TrainError::Usage(format!("variant {name} can't be trained:\n{other}")),
    }
}

/// Problems of overrides with their lines in the file of factors, for those that come from there.
fn located(error: TrainError, variant: &Variant, factors: &Factors, options: &Options) -> TrainError {
    let TrainError::Config(ConfigError(mut problems)) = error else { return error };
    for problem in problems.iter_mut().filter(|p| p.source == Source::Flag) {
        let has = |s: &&Setting| s.key() == problem.key;
        let by_user = options.set.iter().any(|text| key_of(text) == problem.key);
        let base = factors.base.iter().chain(&factors.metric).filter(|_| !by_user);
        if let Some(setting) = variant.set.iter().chain(base).find(has) {
            problem.source = Source::File(factors.path.clone(), setting.line);
        }
    }
    TrainError::Config(ConfigError(problems))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = "recipe = \"volume-classification\"\nseed = 7\n[loss]\nscale = 10.0\n";
    const THREE: &str = "base = [\"loss.scale=20.0\"]\n\
        [[factor]]\nname = \"scale\"\nset = [\"loss.scale=15\"]\n\
        [[factor]]\nname = \"ema\"\nset = [\"ema.decay=0.9\"]\n\
        [[factor]]\nname = \"clip\"\nset = [\"optim.clip_norm=2.0\", \"loss.max_margin=0.2\"]\n";

    fn plan(factors: &str, options: &Options) -> Result<Plan, String> {
        let dir = tempfile::tempdir().unwrap();
        let recipe = dir.path().join("recipe.toml");
        std::fs::write(&recipe, RECIPE).unwrap();
        let factors = Factors::parse(Path::new("f.toml"), factors).map_err(|e| e.to_string())?;
        Plan::new(&recipe, &factors, options).map_err(|e| e.to_string())
    }

    #[track_caller]
    fn refused(factors: &str, options: &Options, wanted: &[&str]) {
        let error = plan(factors, options).unwrap_err();
        for part in wanted {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }

    fn with(set: &[&str]) -> Options {
        Options { set: set.iter().map(|s| (*s).to_owned()).collect(), ..Options::default() }
    }

    /// The value of a key in the run of a directory.
    fn value(plan: &Plan, directory: &str, key: &str) -> String {
        let run = plan.runs.iter().find(|r| r.directory == directory).unwrap();
        run.guarded.loaded.resolved.values()[key].clone()
    }

    #[test]
    fn each_alone_then_all_and_the_first_seed_of_everything_first() {
        let plan = plan(THREE, &Options { seeds: Some(2), ..Options::default() }).unwrap();
        let directories: Vec<&str> = plan.runs.iter().map(|r| r.directory.as_str()).collect();
        let of = |seed: u64| ["baseline", "scale", "ema", "clip", "all"].map(|v| format!("{v}-seed{seed}"));
        assert_eq!(directories, [of(7), of(8)].concat());
        assert_eq!((plan.metric.as_str(), plan.seeds.as_slice()), ("val/auc", &[7, 8][..]));
        let settings = |directory: &str| {
            ["seed", "loss.scale", "ema.decay", "optim.clip_norm"].map(|key| value(&plan, directory, key))
        };
        assert_eq!(settings("baseline-seed7"), ["7", "20.0", "0.995", "1.0"]);
        assert_eq!(settings("scale-seed8"), ["8", "15", "0.995", "1.0"]);
        assert_eq!(settings("all-seed8"), ["8", "15", "0.9", "2.0"]);
    }

    #[test]
    fn the_shipped_example_fits_its_recipe() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let factors = Factors::read(&root.join("docs/examples/ablate-ldam.toml")).unwrap();
        let recipe = root.join("recipes/resnet50-3d-ldam-demo.toml");
        let plan = Plan::new(&recipe, &factors, &Options::default()).unwrap();
        assert_eq!((plan.variants.len(), plan.runs.len()), (7, 21));
    }

    #[test]
    fn leaving_one_out_adds_variants_only_where_they_are_new() {
        let names = |text: &str| -> Vec<String> {
            let options = Options { leave_one_out: true, seeds: Some(1), ..Options::default() };
            plan(text, &options).unwrap().variants.into_iter().map(|v| v.name).collect()
        };
        assert_eq!(
            names(THREE),
            ["baseline", "scale", "ema", "clip", "all", "without-scale", "without-ema", "without-clip"]
        );
        let (two, _) = THREE.rsplit_once("[[factor]]").unwrap();
        assert_eq!(names(two), ["baseline", "scale", "ema", "all"]);
        let (one, _) = two.rsplit_once("[[factor]]").unwrap();
        assert_eq!(names(one), ["baseline", "scale"]);
        let options = Options { leave_one_out: true, ..Options::default() };
        let plan = plan(THREE, &options).unwrap();
        assert_eq!(value(&plan, "without-ema-seed9", "ema.decay"), "0.995");
        assert_eq!(value(&plan, "without-ema-seed9", "loss.scale"), "15");
    }

    #[test]
    fn seeds_are_the_file_s_or_those_from_the_recipe_s_on() {
        let seeds =
            |head: &str, n| plan(&format!("{head}{THREE}"), &Options { seeds: n, ..Options::default() });
        assert_eq!(seeds("", None).unwrap().seeds, [7, 8, 9]);
        assert_eq!(seeds("seeds = [5, 3]\n", None).unwrap().seeds, [5, 3]);
        assert_eq!(seeds("seeds = [5, 3]\n", Some(1)).unwrap().seeds, [5]);
        let error = seeds("seeds = [5, 3]\n", Some(4)).unwrap_err();
        assert!(error.contains("--seeds 4") && error.contains("f.toml has only 2"), "{error}");
    }

    #[test]
    fn a_factor_wins_over_the_command_line_and_that_over_the_base() {
        let plan = plan(THREE, &with(&["loss.scale=12.0", "evaluate.metric=val/f1"])).unwrap();
        assert_eq!(value(&plan, "baseline-seed7", "loss.scale"), "12.0");
        assert_eq!(value(&plan, "scale-seed7", "loss.scale"), "15");
        assert_eq!(plan.metric, "val/f1");
    }

    #[test]
    fn what_is_wrong_with_a_variant_is_told_with_its_name_and_line() {
        let factor = |set: &str| format!("\n[[factor]]\nname = \"x\"\nset = [\"{set}\"]\n");
        refused(
            &factor("loss.scal=3"),
            &Options::default(),
            &["variant x can't be trained", "f.toml:4: `loss.scal`: unknown key; did you mean `loss.scale`?"],
        );
        refused(&factor("model.depth=51"), &Options::default(), &["f.toml:4: `model.depth`: found 51"]);
        refused(
            &format!("base = [\"optim.batch=0\"]{}", factor("loss.scale=3")),
            &Options::default(),
            &["variant baseline", "f.toml:1: `optim.batch`: found 0"],
        );
        refused(
            &format!("metric = \"val/acu\"{}", factor("loss.scale=3")),
            &Options::default(),
            &["f.toml:1: `evaluate.metric`: found \"val/acu\"", "\"val/auc\""],
        );
        refused(&factor("loss.scale=3"), &with(&["optim.batch=0"]), &["--set: `optim.batch`: found 0"]);
        refused(&factor("loss.scale=3"), &with(&["seed=4"]), &["--set: `seed`", "use --seeds"]);
        // The file of the recipe says 10.0.
        refused(&factor("loss.scale=10"), &Options::default(), &["f.toml:2: ", "\"x\" changes nothing"]);
        // Each alone is fine, both are not.
        let two = "[[factor]]\nname = \"plain\"\nset = [\"loss.kind=cross_entropy\"]\n\
            [[factor]]\nname = \"head\"\nset = [\"model.head=normalised\"]\n";
        let base = "base = [\"model.head=plain\"]\n";
        refused(&format!("{base}{two}"), &Options::default(), &["variant all", "f.toml:7: `model.head`"]);
    }
}
