//! The `snug` command.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use snug::{
    backtest, explain,
    recommend::{self, Outcome},
    simulate, snapshot, top,
};

/// What containers really need.
#[derive(Debug, Parser)]
#[command(
    name = "snug",
    version,
    max_term_width = 110,
    after_help = "Exit codes: 0 done, 1 an error, 2 something is beyond --fail-on, 3 not enough evidence"
)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the containers of one node use, are allowed and suffer.
    Top(top::Options),
    /// Say what requests and limits of containers should be, and why.
    Recommend(recommend::Options),
    /// Show what a recommendation is made of.
    Explain(explain::Options),
    /// Say what would have come of other values, by what was seen.
    Simulate(simulate::Options),
    /// Write what agents know to a file, for --file.
    Snapshot(snapshot::Options),
    /// Write what has a shell complete this command, such as `source <(snug completions bash)`.
    Completions {
        /// KubeContext shell.
        shell: Shell,
    },
    /// Write the manual page, such as `snug man | man -l -`.
    Man,
    /// Replay recorded use: what each policy would have said, and what would have come of it.
    Backtest(backtest::Options),
}

/// Exit codes: done; it went wrong, the command line included; something is beyond `--fail-on`; not enough evidence.
const FINE: u8 = 0;
const ERROR: u8 = 1;
const FINDINGS: u8 = 2;
const NOT_ENOUGH: u8 = 3;

fn main() -> ExitCode {
    let Options { command } = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Help and version are no errors.
            let code = if error.use_stderr() { ERROR } else { FINE };
            let _ = error.print();
            return code.into();
        }
    };
    let out = &mut io::stdout();
    let result = match command {
        Command::Top(options) => top::run(&options, out).map(|()| Outcome::Success),
        Command::Recommend(options) => recommend::run(&options, out),
        Command::Explain(options) => explain::run(&options, out),
        Command::Simulate(options) => simulate::run(&options, out),
        Command::Snapshot(options) => snapshot::run(&options, out).map(|()| Outcome::Success),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Options::command(), "snug", out);
            Ok(Outcome::Success)
        }
        Command::Man => man(out).map(|()| Outcome::Success),
        Command::Backtest(options) => backtest::run(&options, out).map(|()| Outcome::Success),
    };
    let code = match result {
        Ok(Outcome::Success) => FINE,
        Ok(Outcome::AboveThreshold) => FINDINGS,
        Ok(Outcome::NotEnoughData) => NOT_ENOUGH,
        Err(error) if is_broken_pipe(&error) => FINE,
        Err(error) => {
            eprintln!("snug: {}", message(&error));
            ERROR
        }
    };
    code.into()
}

/// The manual: of the command, and of each of its commands.
fn man(out: &mut impl Write) -> anyhow::Result<()> {
    let mut command = Options::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(out)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let title = sub.get_display_name().unwrap_or_default().to_owned();
        clap_mangen::Man::new(sub.clone()).title(title).render(out)?;
    }
    Ok(())
}

/// The error with its causes, but for those that it names itself.
fn message(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        known if known.contains(&cause) => said,
        _ => format!("{said}: {cause}"),
    })
}

/// Whether the reader of our output went away, as `head` does. An agent that goes away is no such end, and its error is one of ours.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use snug::evidence::SnapshotError;

    use super::*;

    #[test]
    fn only_a_reader_that_goes_away_is_a_normal_end() {
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&anyhow::Error::new(pipe()).context("cannot write the table")));
        let agent = SnapshotError::Read { what: "http://node:9750".to_owned(), line: 3, source: pipe() };
        assert!(!is_broken_pipe(&anyhow::Error::new(agent)));
    }
}
