//! `trimtab`: the command line. Only this crate prints, parses arguments and sets exit codes.

mod args;
mod commands;
mod failure;
mod progress;
mod table;

use clap::Parser;

use args::{Cli, Command, DataCommand, SynthCommand};

fn main() -> std::process::ExitCode {
    let result = match Cli::parse().command {
        Command::Init(args) => commands::init::run(&args),
        Command::Train(args) => commands::train::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Predict(args) => commands::predict::run(&args),
        Command::Data(DataCommand::Inspect(args)) => commands::inspect::run(&args),
        Command::Synth(SynthCommand::Micrographs(args)) => commands::synth::run(&args),
    };
    match result {
        Ok(code) => code.into(),
        Err(failure) => failure.report(),
    }
}
