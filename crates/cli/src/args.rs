//! Arguments as typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use trimtab_data::synth::MicrographConfig;

/// Stable training of segmentation networks.
#[derive(Debug, Parser)]
#[command(
    name = "trimtab",
    version,
    about = "Stable training of segmentation networks",
    after_help = "Exit codes: 0 done, 1 internal error, 2 wrong usage, settings or data, 3 stopped by an expectation, 130 interrupted.",
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
    /// Train a recipe
    Train(TrainArgs),
    /// Evaluate the best weights of a run
    Eval(EvalArgs),
    /// Predict whole images with the best weights of a run
    Predict(PredictArgs),
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
    /// A recipe (two-stage) or a shipped file (two-stage-demo, two-stage-empiar10146, two-stage-report)
    pub recipe: String,
    /// Write to this file instead of standard output
    #[arg(long)]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  trimtab train recipes/two-stage-demo.toml --out runs/demo\n  trimtab train my.toml --out runs/a --set stage2.learning_rate=3e-4 --set data.root=/data/micrographs\n  trimtab train --resume --out runs/a\n\nCtrl-C writes a checkpoint and ends with 130; a second one quits at once."
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
    /// One JSON object a line on standard output instead of progress
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
    /// Least mean probability within a pick's disc
    #[arg(long, default_value_t = 0.5)]
    pub min_score: f64,
    /// cpu, or cuda:0, wgpu, vulkan … where built in
    #[arg(long, default_value = "cpu")]
    pub device: String,
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
