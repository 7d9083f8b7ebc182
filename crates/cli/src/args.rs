//! Arguments as typed.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use trimtab_data::synth::MicrographConfig;

/// Stable training of segmentation networks.
#[derive(Debug, Parser)]
#[command(
    name = "trimtab",
    version,
    about = "Stable training of segmentation networks, and a doctor for the training of any",
    after_help = "Exit codes: 0 done, 1 internal error, 2 wrong usage, settings or data, 3 stopped by an expectation or a critical finding, or a run of an ablation failed, 130 interrupted.",
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a commented recipe to start from
    Init(InitArgs),
    /// Check a recipe before training: settings, data, schedules, and short experiments on the real network
    Check(CheckArgs),
    /// Train a recipe
    Train(TrainArgs),
    /// What each of several changes is worth: baseline, each alone, all together, over seeds
    Ablate(AblateArgs),
    /// Evaluate the best weights of a run
    Eval(EvalArgs),
    /// Predict whole images with the best weights of a run
    Predict(PredictArgs),
    /// Name what is wrong with training runs, from the logs of any framework
    Diagnose(DiagnoseArgs),
    /// Diagnose a log while it is being written
    Watch(WatchArgs),
    /// Two runs side by side: settings, rate per sample, curves, and what could explain the difference
    Compare(CompareArgs),
    /// The page of a rule: what it detects, when it fires and stays quiet, what helps
    Explain(ExplainArgs),
    /// List the rules
    Rules(RulesArgs),
    /// Look at data before training
    #[command(subcommand)]
    Data(DataCommand),
    /// Generate data
    #[command(subcommand)]
    Synth(SynthCommand),
}

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Count, measure and check the data of a recipe
    Inspect(InspectArgs),
}

#[derive(Debug, Subcommand)]
pub enum SynthCommand {
    /// Simulated cryo-EM micrographs with masks and coordinates
    Micrographs(MicrographArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  trimtab init two-stage > my.toml            every key with its default and meaning\n  trimtab init two-stage-demo --out demo.toml  a shipped recipe, ready to run"
)]
pub struct InitArgs {
    /// A recipe (two-stage, volume-classification, volume-segmentation) or a shipped file; a name that is not there lists all
    pub recipe: String,
    /// Write to this file instead of standard output
    #[arg(long)]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  trimtab train recipes/two-stage-demo.toml --out runs/demo\n  trimtab train my.toml --out runs/a --set stage2.learning_rate=3e-4 --set data.root=/data/micrographs\n  trimtab train --resume --out runs/a\n  trimtab train recipes/mitochondria.toml --folds --out runs/folds --set data.root=/data/mito\n\nCtrl-C writes a checkpoint and ends with 130; a second one quits at once."
)]
pub struct TrainArgs {
    /// Recipe (TOML); with --resume the run's own settings unless given
    #[arg(required_unless_present = "resume")]
    pub recipe: Option<PathBuf>,
    /// Run directory: new or empty, or with --resume an existing one
    #[arg(long, default_value = "runs/latest")]
    pub out: PathBuf,
    /// Override a key, e.g. --set stage2.epochs=20
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// cpu, or cuda:0, wgpu, vulkan … where built in
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Go on from the newest checkpoint
    #[arg(long)]
    pub resume: bool,
    /// Train every fold of the recipe's cross-validation, each in its own folder of the run directory, and show mean and
    /// deviation; again after an interruption: what is done is kept
    #[arg(long, conflicts_with = "resume", requires = "recipe")]
    pub folds: bool,
    /// Train without the checks of `trimtab check`
    #[arg(long)]
    pub no_check: bool,
    /// One JSON object a line on standard output instead of progress
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A line for each check: PASS, WARN, FAIL, or SKIP with the reason; below it the setting that would mend it.\n\nExit codes: 0 nothing failed, 3 something failed, 2 wrong usage.\n\nExamples:\n  trimtab check recipes/two-stage-demo.toml\n  trimtab check my.toml --seconds 30 --set data.root=/data/micrographs\n  trimtab check my.toml --quick                     settings, data and schedules, in seconds\n  trimtab check my.toml --json | jq '.items[] | select(.verdict == \"FAIL\")'\n\nTo have the learning rate compared with that of a run that trained well, add to the recipe:\n  [reference]\n  batch = 8\n  accumulate = 1\n  learning_rate = 2.5e-4"
)]
pub struct CheckArgs {
    /// Recipe (TOML)
    pub recipe: PathBuf,
    /// Override a key, e.g. --set stage2.epochs=20
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Seconds the experiments may take; one that would go beyond is skipped
    #[arg(long, default_value_t = 120.0, value_parser = seconds)]
    pub seconds: f64,
    /// No experiments: settings, data and schedules alone
    #[arg(long)]
    pub quick: bool,
    /// cpu, or cuda:0, wgpu, vulkan … where built in
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if seconds.is_finite() && seconds >= 0.0 {
        Ok(seconds)
    } else {
        Err("must be a number from 0 on".to_owned())
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "A file of factors (TOML):\n  seeds = [1, 2, 3]                    default: the recipe's seed and the two after it\n  metric = \"val/auc\"                   chooses the best weights and compares; default: the recipe's evaluate.metric\n  base = [\"loss.kind=cross_entropy\"]   what the baseline sets beyond the recipe\n  [[factor]]\n  name = \"ldam\"\n  set = [\"loss.kind=ldam\", \"model.head=normalised\"]\n  [[factor]]\n  name = \"ema\"\n  set = [\"ema.decay=0.995\"]\n\nAll settings and data are checked before anything is trained. The first seed of every variant is trained first. The same command\nagain keeps what is done and goes on with the rest; Ctrl-C as in train. Each run is a run directory OUT/VARIANT-seedN; the outcome is in\nOUT/ablation.json and OUT/ablation.md. A run that fails does not end the ablation: exit code 3 at its end.\n\nExamples:\n  trimtab ablate recipes/resnet50-3d-ldam-demo.toml --factors docs/examples/ablate-ldam.toml --out runs/ldam-ablation\n  trimtab ablate my.toml --factors factors.toml --seeds 5 --leave-one-out --set optim.epochs=20"
)]
pub struct AblateArgs {
    /// Recipe (TOML)
    pub recipe: PathBuf,
    /// What to change (TOML)
    #[arg(long, value_name = "FILE")]
    pub factors: PathBuf,
    /// Folder for the runs and the outcome
    #[arg(long, default_value = "runs/ablation")]
    pub out: PathBuf,
    /// Override a key in every variant; what a factor sets wins over it
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// How many seeds: the first of the file of factors, or the recipe's and those after it [default: all of the file, or 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: Option<u64>,
    /// Also train all factors but one, for each
    #[arg(long)]
    pub leave_one_out: bool,
    /// cpu, or cuda:0, wgpu, vulkan … where built in
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// One JSON object a line on standard output instead of progress and table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  trimtab eval runs/demo\n  trimtab eval runs/a --data /data/other --json"
)]
pub struct EvalArgs {
    /// Run directory
    pub run: PathBuf,
    /// Other data than the run's validation split: a folder laid out like the recipe's data.root (for generated data:
    /// micrographs/ and masks/), or .npz batches
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// cpu, or cuda:0, wgpu, vulkan … where built in
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Writes for each image: NAME_probability.tif (32-bit float), NAME_mask.png, NAME_overlay.png and the picked\nparticles as NAME.star, NAME.box, NAME.txt (topaz) and NAME.csv (CryoPPP).\n\nExamples:\n  trimtab predict runs/a micrographs/*.mrc --out picks\n  trimtab predict runs/a micrographs --out picks --diameter 110 --min-score 0.6"
)]
pub struct PredictArgs {
    /// Run directory
    pub run: PathBuf,
    /// Images, or folders of images
    #[arg(required = true)]
    pub inputs: Vec<PathBuf>,
    /// Folder for the results
    #[arg(long)]
    pub out: PathBuf,
    /// Probability above which a pixel belongs to the mask [default: the recipe's evaluate.threshold]
    #[arg(long)]
    pub threshold: Option<f64>,
    /// Diameter of the particles to pick, in pixels [default: as in the training data]
    #[arg(long)]
    pub diameter: Option<f64>,
    /// Least mean probability within a pick's disc [default: 0.5]
    #[arg(long)]
    pub min_score: Option<f64>,
    /// cpu, or cuda:0, wgpu, vulkan … where built in
    #[arg(long, default_value = "cpu")]
    pub device: String,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Reads run directories of trimtab, TensorBoard, Lightning, Keras, Hugging Face, W&B (offline), MMEngine, nnU-Net, Detectron2,\nUltralytics, CSV, JSON lines and plain text, also gzipped, zipped or in UTF-16. The format is recognised by content.\n\nExit codes: 0 nothing critical, 3 something critical, 2 nothing readable.\n\nExamples:\n  trimtab diagnose lightning_logs/version_3\n  trimtab diagnose runs/ --format md > runs.md\n  trimtab diagnose train.log --pattern 'ep (?P<epoch>\\d+) .* L=(?P<loss>\\S+) D=(?P<val_dice>\\S+)'\n  trimtab diagnose runs/a --json | jq .causes\n\nA file for --config (TOML), every key optional:\n  metric = \"val/dice\"          the metric that decides, as logged or as a signal\n  higher_is_better = true      where its name does not say\n  chance = 0.33                what it scores without having learned anything\n  disabled = [\"plateau\"]       rules not to apply\n  pattern = '...'              as --pattern\n  [facts]                      what the log does not say\n  \"data.class_counts\" = [459, 91]\n  \"reference.learning_rate\" = 2.5e-4\n  \"reference.batch_size\" = 8"
)]
pub struct DiagnoseArgs {
    /// Log files, run folders, or folders of many runs
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,
    /// How to write it
    #[arg(long, default_value = "text", value_parser = ["text", "md"], conflicts_with = "json")]
    pub format: String,
    /// With what is only worth knowing, and what could not be applied
    #[arg(long, short)]
    pub verbose: bool,
    #[command(flatten)]
    pub doctor: DoctorArgs,
}

/// What a user can tell the doctor.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Settings of the doctor (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Regular expression for lines of a plain text log: named groups step or epoch, every other group is a metric
    #[arg(long, value_name = "REGEX")]
    pub pattern: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The command of --on is run by the shell for each new finding of that severity or a higher one, with TRIMTAB_RUN,\nTRIMTAB_RULE, TRIMTAB_SEVERITY, TRIMTAB_STEP, TRIMTAB_MESSAGE and TRIMTAB_CAUSE in its environment.\n\nExamples:\n  trimtab watch train.log\n  trimtab watch runs/a --every 30s --on critical 'notify-send \"$TRIMTAB_MESSAGE\"'\n  trimtab watch runs/a --stop && echo fine || kill $TRAINING"
)]
pub struct WatchArgs {
    /// A log file or run folder; waits for it where it is not there yet
    pub path: PathBuf,
    /// Time between two looks: 10s, 2m, 500ms
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub every: Duration,
    /// Run a command for new findings
    #[arg(long, num_args = 2, value_names = ["SEVERITY", "CMD"])]
    pub on: Option<Vec<String>>,
    /// End with exit code 3 at a critical finding
    #[arg(long)]
    pub stop: bool,
    /// One JSON object a line for each new or changed finding
    #[arg(long)]
    pub json: bool,
    /// End after so many looks
    #[arg(long, value_name = "N")]
    pub looks: Option<u64>,
    #[command(flatten)]
    pub doctor: DoctorArgs,
}

/// Between two looks: neither a busy loop, nor longer than a clock can be set ahead.
const EVERY: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(365 * 24 * 3600);

fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{unit}` is no unit of time: ms, s, m or h")),
    };
    let number: f64 = number.trim().parse().map_err(|_| format!("`{number}` is not a number"))?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|d| EVERY.contains(d))
        .ok_or_else(|| "must be between 10ms and a year, 8760h".to_owned())
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  trimtab compare runs/good runs/bad")]
pub struct CompareArgs {
    /// The first run: a log file or run folder
    pub a: PathBuf,
    /// The second run
    pub b: PathBuf,
    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  trimtab explain averaged-weights-lag")]
pub struct ExplainArgs {
    /// A rule, as `trimtab rules` lists it
    pub rule: String,
}

#[derive(Debug, Args)]
pub struct RulesArgs {
    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 3 where the data have errors.\n\nExample:\n  trimtab data inspect my.toml --set data.root=/data/micrographs"
)]
pub struct InspectArgs {
    /// Recipe (TOML)
    pub recipe: PathBuf,
    /// Override a key
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Writes micrographs/ (16-bit PNG or MRC), masks/ (0 and 255) and coordinates/ (.star).\n\nExample:\n  trimtab synth micrographs --out sim --count 20 --seed 1 --size 512 --diameter 52"
)]
pub struct MicrographArgs {
    /// Folder to write to: new or empty
    #[arg(long)]
    pub out: PathBuf,
    /// How many
    #[arg(long, default_value_t = 12)]
    pub count: u64,
    /// Seed; the same seed gives the same micrographs
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Side, in pixels
    #[arg(long, default_value_t = MicrographConfig::default().width as u64, value_parser = clap::value_parser!(u64).range(32..=16384))]
    pub size: u64,
    /// Diameter of a particle, in pixels
    #[arg(long, default_value_t = MicrographConfig::default().particle_diameter)]
    pub diameter: f64,
    /// Share of the area that particles cover, 0 to 1
    #[arg(long, default_value_t = MicrographConfig::default().density)]
    pub density: f64,
    /// Variance of the particles' signal over that of the noise
    #[arg(long, default_value_t = MicrographConfig::default().signal_to_noise)]
    pub signal_to_noise: f64,
    /// Format of the micrographs
    #[arg(long, default_value = "png", value_parser = ["png", "mrc"])]
    pub format: String,
}
