//! Tasks of the developers: `cargo run --release -p xtask -- <task>`.

mod bench;
mod docs;
mod doctor;
mod goldens;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use trimtab_kernels::alloc::Recycler;

/// What `trimtab` itself runs with, so that the benchmark measures it too.
#[global_allocator]
static ALLOCATOR: Recycler = Recycler;

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[derive(Parser)]
#[command(about = "Tasks of Trimtab's developers")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Times operators and training steps, beside PyTorch where it is given.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Writes the generated pages; with --check says what is out of date, and which links lead nowhere.
    Docs(docs::Args),
    /// Judges the doctor on runs with a known outcome and writes docs/doctor-accuracy.md.
    Doctor(doctor::Args),
    /// Runs the programs in goldens/ that write a .json and says which values changed.
    Goldens(goldens::Args),
}

fn main() -> std::process::ExitCode {
    let outcome = match Cli::parse().task {
        Task::Bench(bench) => bench::run(&bench),
        Task::Docs(args) => docs::run(&args),
        Task::Doctor(args) => doctor::run(&args),
        Task::Goldens(args) => goldens::run(&args),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
