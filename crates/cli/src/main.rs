//! `trimtab`: the command line. Only this crate prints, parses arguments and sets exit codes.

mod args;
mod commands;
mod failure;
mod progress;
mod table;

use std::panic::AssertUnwindSafe;

use clap::Parser;

use args::{Cli, Command, DataCommand, SynthCommand};
use failure::Failure;
use trimtab_kernels::alloc::Recycler;

/// Training frees and asks for the same large tensors at every step: keeping their memory is a sixth of its time.
#[global_allocator]
static ALLOCATOR: Recycler = Recycler;

fn main() -> std::process::ExitCode {
    let command = Cli::parse().command;
    // A panic is a fault of ours: its message is out already, and the exit code is the documented one.
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| run(command)));
    match result.unwrap_or_else(|_| Err(Failure::internal())) {
        Ok(code) => code.into(),
        Err(failure) => failure.report(),
    }
}

/// Makes this thread one of rayon's, where there are several. Otherwise it would wake as many others at each operation and go
/// to sleep itself; where they then land on one core, the operation takes twice its time.
fn share_the_work() {
    let wished = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    let threads = wished.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    // A single one must be free to serve the threads that read the data.
    if threads > 1 {
        // Only fails where a pool is there already, which would do.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global();
    }
}

fn run(command: Command) -> Result<u8, Failure> {
    let heavy = matches!(
        command,
        Command::Check(_) | Command::Train(_) | Command::Ablate(_) | Command::Eval(_) | Command::Predict(_)
    );
    if heavy {
        share_the_work();
    }
    match command {
        Command::Init(args) => commands::init::run(&args),
        Command::Check(args) => commands::check::run(&args),
        Command::Train(args) => commands::train::run(&args),
        Command::Ablate(args) => commands::ablate::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Predict(args) => commands::predict::run(&args),
        Command::Diagnose(args) => commands::diagnose::run(&args),
        Command::Watch(args) => commands::watch::run(&args),
        Command::Compare(args) => commands::compare::run(&args),
        Command::Explain(args) => commands::explain::run(&args),
        Command::Rules(args) => commands::rules::run(&args),
        Command::Data(DataCommand::Inspect(args)) => commands::inspect::run(&args),
        Command::Synth(SynthCommand::Micrographs(args)) => commands::synth::run(&args),
    }
}
