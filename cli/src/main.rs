//! The `snug` command.

use std::{io, process::ExitCode};

use clap::{Parser, Subcommand};
use snug::{backtest, top};

/// What containers really need.
#[derive(Debug, Parser)]
#[command(name = "snug", version, max_term_width = 110)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the containers of one node use, are allowed and suffer.
    Top(top::Options),
    /// Replay recorded use: what each policy would have said, and what would have come of it.
    Backtest(backtest::Options),
}

/// 0: done; 1: it went wrong; 2: the command line is wrong (clap's own code).
fn main() -> ExitCode {
    let Options { command } = Options::parse();
    let result = match command {
        Command::Top(options) => top::run(&options, &mut io::stdout()),
        Command::Backtest(options) => backtest::run(&options, &mut io::stdout()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("snug: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the reader of our output went away, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    kind == Some(io::ErrorKind::BrokenPipe)
}
