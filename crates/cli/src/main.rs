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

fn main() -> std::process::ExitCode {
    let command = Cli::parse().command;
    // A panic is a fault of ours: its message is out already, and the exit code is the documented one.
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| run(command)));
    match result.unwrap_or_else(|_| Err(Failure::internal())) {
        Ok(code) => code.into(),
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Init(args) => commands::init::run(&args),
        Command::Train(args) => commands::train::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Predict(args) => commands::predict::run(&args),
        Command::Data(DataCommand::Inspect(args)) => commands::inspect::run(&args),
        Command::Synth(SynthCommand::Micrographs(args)) => commands::synth::run(&args),
    }
}
