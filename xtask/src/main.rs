//! Tasks of the developers: `cargo run --release -p xtask -- <task>`.

mod bench;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Tasks of Trimtab's developers")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Times a whole training step of the 2-D U-Net, beside PyTorch where it is given.
    Bench(bench::Args),
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    match Cli::parse().task {
        Task::Bench(args) => bench::run(&args),
    }
}
