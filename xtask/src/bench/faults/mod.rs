//! The guard's bench: faults put into small trainings of every recipe. Was the fault seen, named right, repaired, and would a
//! remedy drawn at random, or plain early stopping, have done as well?

mod catalogue;
mod data;
mod table;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use trimtab_doctor::causes::explain;
use trimtab_doctor::{Severity, diagnose};
use trimtab_guard::preflight;
use trimtab_guard::{Choice, Guarded, Guardianship, Job, load};
use trimtab_signals::{CONFIG, RunReader};
use trimtab_train::{Control, Observer, Report, TrainError, checkpoint};

use crate::Outcome;
use catalogue::{BENCHES, Bench, Disk, FAULTS, Fault, Place};
use data::Set;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Validations without a better one before plain early stopping ends a run.
const PATIENCE: usize = 3;
/// Seconds that the experiments of a preflight may take.
const PREFLIGHT_SECONDS: f64 = 30.0;

#[derive(clap::Args)]
pub struct Args {
    /// Seeds of each training.
    #[arg(long, default_value_t = 2)]
    seeds: u64,
    /// Only benches whose name contains this.
    #[arg(long)]
    bench: Option<String>,
    /// Only faults whose name contains this; the healthy run is always there.
    #[arg(long)]
    fault: Option<String>,
    /// Folder with the real data.
    #[arg(long, env = "TRIMTAB_SHARED", default_value = "../shared")]
    shared: PathBuf,
    /// Results so far, one a line; what is there is not trained again.
    #[arg(long, default_value = "target/faults.jsonl")]
    results: PathBuf,
    /// Trainings at once, each with one thread.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Only write the tables of the results so far.
    #[arg(long)]
    report: bool,
    /// The page to write.
    #[arg(long)]
    page: Option<PathBuf>,
}

/// What one training came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Arm {
    /// The deciding metric of the best weights.
    metric: Option<f64>,
    steps: u64,
    seconds: f64,
}

/// What the preflight says: check, verdict, cause.
type Said = (String, String, Option<String>);

/// A fault in a bench with a seed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    bench: String,
    fault: String,
    seed: u64,
    /// What settings or data were refused with, before any step.
    refused: Option<String>,
    /// What the preflight says beyond a pass: check, verdict, cause.
    preflight: Vec<Said>,
    /// Rules that found something to act on while it trained, with the step.
    findings: Vec<(u64, String, String)>,
    /// Step of the first alarm, and the causes then.
    alarm: Option<(u64, Vec<String>)>,
    /// Causes at the end of the unguarded run.
    causes: Vec<String>,
    /// Without guard.
    alone: Arm,
    /// With plain early stopping.
    early: Arm,
    /// Healed.
    healed: Option<Arm>,
    /// Steps on branches.
    extra: u64,
    /// What was chosen.
    chosen: Vec<String>,
    /// Causes after the experiments of the first alarm.
    #[serde(default)]
    decided: Vec<String>,
    /// Each branch of each attempt: what was changed, and its score.
    #[serde(default)]
    branches: Vec<(String, Option<f64>)>,
    /// Step of the first attempt at healing.
    #[serde(default)]
    attempted: Option<u64>,
    /// What healing gave up with.
    gave_up: Option<String>,
    /// With a remedy drawn at random.
    random: Option<Arm>,
}

pub fn run(args: &Args) -> Outcome {
    let mut rows = read(&args.results)?;
    if !args.report {
        let jobs = plan(args, &rows);
        eprintln!("{} trainings to do, {} done before", jobs.len(), rows.len());
        let file = fs::OpenOptions::new().create(true).append(true).open(&args.results)?;
        let file = Mutex::new(file);
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..args.jobs.max(1) {
                scope.spawn(|| {
                    // The recipes work in rayon's pool: one thread each, as many trainings at once.
                    let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(1).build() else { return };
                    while let Some((bench, fault, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let started = Instant::now();
                        let name = fault.map_or("healthy", |f| f.id);
                        let row =
                            pool.install(|| train(args, bench, *fault, *seed).map_err(|e| e.to_string()));
                        match row {
                            Ok(row) => {
                                let line = serde_json::to_string(&row).unwrap_or_default();
                                let Ok(mut file) = file.lock() else { return };
                                let _ = writeln!(file, "{line}");
                                let took = started.elapsed().as_secs_f64();
                                eprintln!(
                                    "{}: {name}, seed {seed}: {}, {took:.0} s",
                                    bench.name,
                                    summary(&row)
                                );
                            }
                            Err(error) => eprintln!("{}: {name}, seed {seed}: {error}", bench.name),
                        }
                    }
                });
            }
        });
        rows = read(&args.results)?;
    }
    let page = table::page(&rows);
    match &args.page {
        Some(path) => fs::write(path, page)?,
        None => println!("{page}"),
    }
    Ok(())
}

fn summary(row: &Row) -> String {
    if let Some(why) = &row.refused {
        return format!("refused: {}", why.lines().next().unwrap_or_default());
    }
    let score =
        |arm: Option<&Arm>| arm.and_then(|a| a.metric).map_or_else(|| "-".to_owned(), |m| format!("{m:.3}"));
    let alarm = row.alarm.as_ref().map_or_else(
        || format!("no alarm ({})", row.causes.first().map_or("nothing", String::as_str)),
        |(step, causes)| format!("alarm at {step} ({})", causes.first().map_or("?", String::as_str)),
    );
    format!(
        "{alarm}, alone {}, healed {}, random {} {}",
        score(Some(&row.alone)),
        score(row.healed.as_ref()),
        score(row.random.as_ref()),
        row.chosen.join(" then ")
    )
}

fn read(path: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// What is not there yet: healthy runs first.
fn plan<'a>(args: &Args, rows: &[Row]) -> Vec<(&'a Bench, Option<&'a Fault>, u64)> {
    let done: BTreeSet<(&str, &str, u64)> =
        rows.iter().map(|r| (r.bench.as_str(), r.fault.as_str(), r.seed)).collect();
    let fits =
        |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|w| name.contains(w.as_str()));
    let mut jobs = Vec::new();
    for seed in 1..=args.seeds {
        let faults = std::iter::once(None).chain(FAULTS.iter().map(Some));
        for fault in faults {
            for bench in BENCHES.iter().filter(|b| fits(&args.bench, b.name)) {
                let name = fault.map_or("healthy", |f| f.id);
                let exists = fault.is_none_or(|f| (f.declared)(bench.kind).is_some());
                let wanted = fault.is_none_or(|f| fits(&args.fault, f.id));
                if exists && wanted && !done.contains(&(bench.name, name, seed)) {
                    jobs.push((bench, fault, seed));
                }
            }
        }
    }
    jobs
}

/// Everything about one fault.
fn train(args: &Args, bench: &'static Bench, fault: Option<&'static Fault>, seed: u64) -> Result<Row> {
    let mut row = Row {
        bench: bench.name.to_owned(),
        fault: fault.map_or("healthy", |f| f.id).to_owned(),
        seed,
        ..Row::default()
    };
    let folder = tempfile::tempdir()?;
    let mut set = Set::load(bench.which, &args.shared)?;
    if let Some(damage) = fault.and_then(|f| f.damage) {
        damage(&mut set);
    }
    let root = folder.path().join("data");
    set.write(&root)?;
    let recipe = folder.path().join("recipe.toml");
    fs::write(&recipe, bench.toml)?;
    let mut declared = overrides(bench, &root, seed);
    declared.extend(
        fault.and_then(|f| (f.declared)(bench.kind)).unwrap_or_default().iter().map(|s| (*s).to_owned()),
    );
    if declared.iter().any(|text| text.contains(WEIGHTS)) {
        let weights = pretrain(bench, &recipe, &root, seed + 1000, &folder.path().join("pretrained"))?;
        let weights = weights.display().to_string();
        declared.iter_mut().for_each(|text| *text = text.replace(WEIGHTS, &weights));
    }
    let effective: Vec<String> = fault
        .map(|f| (f.effective)(bench.kind))
        .unwrap_or_default()
        .iter()
        .map(|s| (*s).to_owned())
        .collect();

    let guarded = match load(&recipe, &declared) {
        Ok(guarded) => guarded,
        Err(error) => {
            row.refused = Some(error.to_string());
            return Ok(row);
        }
    };
    // What is declared stands in the run's settings; what is trained may be another recipe.
    let faulty = |path: &Path, more: &[String]| -> std::result::Result<Guarded, TrainError> {
        let mut guarded = load(path, more)?;
        if !effective.is_empty() {
            let all: Vec<String> = more.iter().chain(&effective).cloned().collect();
            guarded.loaded.recipe = load(path, &all)?.loaded.recipe;
        }
        Ok(guarded)
    };
    let metric = guarded.loaded.recipe.common().metric().to_owned();
    let disk = fault.and_then(|f| f.disk);

    if disk.is_none() {
        let options = preflight::Options { seconds: PREFLIGHT_SECONDS, ..preflight::Options::default() };
        let report = preflight::check(&faulty(&recipe, &declared)?, &options, &mut |_| {});
        row.preflight = report
            .items
            .iter()
            .filter(|item| item.verdict > preflight::Verdict::Pass)
            .map(|item| {
                let verdict = format!("{:?}", item.verdict).to_uppercase();
                (item.check.to_owned(), verdict, item.cause.map(str::to_owned))
            })
            .collect();
    }

    let arm = |policy: &str, choice: Choice| -> Result<(Arm, Guardianship, PathBuf)> {
        let mut declared = declared.clone();
        declared.push(format!("guard.policy={policy}"));
        let name = format!("{policy}-{}", if choice == Choice::Doctor { "doctor" } else { "random" });
        let out = folder.path().join(name);
        let started = Instant::now();
        let go = |resume: bool, until: Option<u64>| -> std::result::Result<Guardianship, TrainError> {
            let guarded = if resume { faulty(&out.join(CONFIG), &[])? } else { faulty(&recipe, &declared)? };
            let job = Job {
                directory: out.clone(),
                device: "cpu",
                resume,
                observer: &mut Until(until),
                on_start: &mut |_| {},
                choice,
                load: &faulty,
            };
            trimtab_guard::train(&guarded, job)
        };
        let guardianship = match disk {
            None => go(false, None)?,
            Some(disk) => {
                go(false, Some(90))?;
                harm(&out, disk)?;
                go(true, None)?
            }
        };
        let summary = &guardianship.outcome.summary;
        let arm = Arm {
            metric: summary.metrics.get(&metric).and_then(|m| m.best),
            steps: summary.steps,
            seconds: started.elapsed().as_secs_f64(),
        };
        Ok((arm, guardianship, out))
    };

    let (alone, watched, out) = match arm("observe", Choice::Doctor) {
        Ok(done) => done,
        Err(error) => {
            row.refused = Some(error.to_string());
            return Ok(row);
        }
    };
    row.alone = alone;
    row.findings = watched
        .seen
        .findings
        .iter()
        .map(|(step, f)| (*step, f.severity.name().to_owned(), f.rule.to_owned()))
        .collect();
    row.alarm =
        watched.seen.alarm.map(|(step, causes)| (step, causes.into_iter().map(str::to_owned).collect()));
    let run = trimtab_logs::own_run(&out, None)?;
    let options =
        trimtab_doctor::Options { metric: Some(metric.clone()), ..trimtab_doctor::Options::default() };
    let diagnosis = diagnose(&run, &options);
    if diagnosis.findings.iter().any(|f| f.severity >= Severity::Warning) {
        row.causes = explain(&diagnosis).iter().map(|c| c.cause.to_owned()).collect();
    }
    // The program itself says what was wrong with a checkpoint and which it took instead.
    let damaged = RunReader::open(&out)?.events()?.flatten().find(|e| e.message.contains("can't be read"));
    if let Some(event) = &damaged {
        row.findings.push((event.step, event.kind.clone(), "damaged-checkpoint".to_owned()));
        row.causes = vec!["damaged-checkpoint".to_owned()];
    }
    row.early = early(&out, &metric, &row.alone)?;
    let (healed, guardianship, _) = arm("heal", Choice::Doctor)?;
    row.healed = Some(healed);
    row.extra = guardianship.journal.branch_steps;
    row.gave_up = guardianship.journal.gave_up.clone();
    row.decided = guardianship.decided.first().cloned().unwrap_or_default();
    if damaged.is_some() {
        row.decided.clone_from(&row.causes);
    }
    let attempts = guardianship.journal.attempts.iter();
    let chosen = attempts.filter_map(|a| Some(a.branches[a.chosen?].remedy.overrides.join(" ")));
    row.chosen = chosen.collect();
    let branches = guardianship.journal.attempts.iter().flat_map(|a| &a.branches);
    row.branches =
        branches.map(|b| (b.remedy.overrides.join(" "), b.outcome.as_ref().and_then(|o| o.score))).collect();
    row.attempted = guardianship.journal.attempts.first().map(|a| a.step);
    // Where no setting mends a fault there is nothing to compare.
    if row.attempted.is_some() && fault.is_some_and(mendable) {
        row.random = Some(arm("heal", Choice::Random(seed ^ hashed(&row.bench, &row.fault)))?.0);
    }
    Ok(row)
}

/// Stands for weights in a fault's settings.
const WEIGHTS: &str = "{weights}";

/// The best weights of a healthy run.
fn pretrain(bench: &Bench, recipe: &Path, root: &Path, seed: u64, out: &Path) -> Result<PathBuf> {
    let mut settings = overrides(bench, root, seed);
    settings.push("guard.policy=off".to_owned());
    let job = Job {
        directory: out.to_owned(),
        device: "cpu",
        resume: false,
        observer: &mut Until(None),
        on_start: &mut |_| {},
        choice: Choice::Doctor,
        load: &load,
    };
    trimtab_guard::train(&load(recipe, &settings)?, job)?;
    Ok(checkpoint::best_path(out))
}

/// A number of two names (FNV-1a).
fn hashed(a: &str, b: &str) -> u64 {
    a.bytes()
        .chain(b.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn overrides(bench: &Bench, root: &Path, seed: u64) -> Vec<String> {
    let place = |name: &str| root.join(name).display().to_string();
    let mut all = vec![format!("seed={seed}")];
    all.extend(match bench.kind {
        catalogue::Kind::TwoStage => {
            vec![
                format!("data.root={}", place("train")),
                format!("data.validation_root={}", place("validation")),
            ]
        }
        _ => vec![
            format!("data.root={}", root.display()),
            format!("data.folds_file={}", place("split.json")),
            "data.fold=0".to_owned(),
        ],
    });
    all
}

/// Interrupts at a step.
struct Until(Option<u64>);

impl Observer for Until {
    fn report(&mut self, report: &Report<'_>) -> Control {
        match report {
            Report::Step { global, .. } if Some(*global) == self.0 => Control::Interrupt,
            _ => Control::Continue,
        }
    }
}

/// Damages the newest checkpoint.
fn harm(run: &Path, disk: Disk) -> Result<()> {
    let (_, newest) = checkpoint::list(run)?.pop().ok_or("no checkpoint")?;
    let path = newest.join("model.safetensors");
    match disk {
        Disk::Truncated => {
            let bytes = fs::read(&path)?;
            // Another file: the old one may be linked elsewhere.
            fs::remove_file(&path)?;
            fs::write(&path, &bytes[..bytes.len() / 2])?;
        }
        Disk::DeadNorms => {
            use trimtab_nn::params::{WeightsFile, flat_to_safetensors};
            let device = trimtab_train::device::open("cpu")?;
            let mut flat = WeightsFile::read(&path)?.flat(&device);
            let norm = |name: &str| {
                let mut parts = name.rsplit('.');
                parts.next() == Some("weight")
                    && parts.next().is_some_and(|p| p.contains("norm") || p.contains("bn"))
            };
            for (_, value) in flat.iter_mut().filter(|(name, _)| norm(name)) {
                *value = value.clone() * 0.0;
            }
            fs::remove_file(&path)?;
            fs::write(&path, flat_to_safetensors(&flat, &Default::default()))?;
        }
    }
    Ok(())
}

/// What early stopping would have left of a run.
fn early(run: &Path, metric: &str, alone: &Arm) -> Result<Arm> {
    let (mut best, mut since, mut steps) = (f64::NEG_INFINITY, 0, 0);
    for record in RunReader::open(run)?.records()?.flatten() {
        let Some(score) = record.get(metric) else { continue };
        steps = record.step;
        if score > best {
            (best, since) = (score, 0);
        } else {
            since += 1;
        }
        if since >= PATIENCE {
            break;
        }
    }
    let share = steps as f64 / alone.steps.max(1) as f64;
    Ok(Arm { metric: best.is_finite().then_some(best), steps, seconds: alone.seconds * share })
}

/// Whether a cause names a fault right.
pub fn right(fault: &Fault, cause: &str) -> bool {
    fault.causes.contains(&cause)
}

/// Whether there is a change of settings that mends it.
pub fn mendable(fault: &Fault) -> bool {
    fault.place == Place::Settings && fault.words.is_empty() || fault.place == Place::Disk
}
