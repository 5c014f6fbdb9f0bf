//! The `snug` command.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use snug::{
    backtest, certificates, columns, explain,
    recommend::{self, Outcome},
    simulate, snapshot, top,
};

/// Show and recommend CPU and memory requests and limits of containers
#[derive(Debug, Parser)]
#[command(
    name = "snug",
    version,
    max_term_width = 110,
    after_help = "Exit codes: 0 success, 1 error, 2 --fail-on exceeded, 3 not enough usage history"
)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show usage, limits, throttling and OOM kills on a node
    Top(top::Options),
    /// Recommend requests and limits, with reasons
    Recommend(recommend::Options),
    /// Explain the recommendation for one workload
    Explain(explain::Options),
    /// Simulate other requests and limits against recorded usage
    Simulate(simulate::Options),
    /// Save the usage history of agents to a file, for --file
    Snapshot(snapshot::Options),
    /// Make certificates for agents and for Prometheus, such as `snug certificates | kubectl apply -f -`
    Certificates(certificates::Options),
    /// Print shell completions, such as `source <(snug completions bash)`
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, such as `snug man | man -l -`
    Man,
    /// Back-test the recommendations of Snug and of other tools on recorded usage
    Backtest(backtest::Options),
}

/// Exit codes; they are documented in `after_help`.
const SUCCESS: u8 = 0;
const ERROR: u8 = 1;
const ABOVE_THRESHOLD: u8 = 2;
const NOT_ENOUGH_DATA: u8 = 3;

fn main() -> ExitCode {
    let Options { command } = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Help and version are printed to standard output and are not errors.
            let code = if error.use_stderr() { ERROR } else { SUCCESS };
            return match error.print().and_then(|()| io::stdout().flush()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    columns::remark(format_args!("cannot write the output: {error}"));
                    ERROR.into()
                }
                _ => code.into(),
            };
        }
    };
    let out = &mut io::stdout();
    let result = match command {
        Command::Top(options) => top::run(&options, out).map(|()| Outcome::Success),
        Command::Recommend(options) => recommend::run(&options, out),
        Command::Explain(options) => explain::run(&options, out),
        Command::Simulate(options) => simulate::run(&options, out),
        Command::Snapshot(options) => snapshot::run(&options, out).map(|()| Outcome::Success),
        Command::Certificates(options) => certificates::run(&options, out).map(|()| Outcome::Success),
        Command::Completions { shell } => {
            // Into memory first: the generator has no errors, so it would panic.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Options::command(), "snug", &mut script);
            out.write_all(&script).map(|()| Outcome::Success).context("cannot write the completions")
        }
        Command::Man => man(out).map(|()| Outcome::Success),
        Command::Backtest(options) => backtest::run(&options, out).map(|()| Outcome::Success),
    };
    let result = result.and_then(|outcome| out.flush().map(|()| outcome).context("cannot write the output"));
    let code = match result {
        Ok(Outcome::Success) => SUCCESS,
        Ok(Outcome::AboveThreshold) => ABOVE_THRESHOLD,
        Ok(Outcome::NotEnoughData) => NOT_ENOUGH_DATA,
        Err(error) if is_broken_pipe(&error) => SUCCESS,
        Err(error) => {
            columns::remark(message(&error));
            ERROR
        }
    };
    code.into()
}

/// Writes the manual page of the command and of each subcommand.
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

/// The message of an error with its causes, without causes that the message already includes.
fn message(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |message, cause| match message.as_str() {
        "" => cause,
        known if known.contains(&cause) => message,
        _ => format!("{message}: {cause}"),
    })
}

/// Whether the reader of standard output has closed the pipe, as `head` does. A broken connection to an agent is another error
/// type and stays an error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use snug::evidence::SnapshotError;

    use super::*;

    #[test]
    fn only_a_closed_pipe_is_success() {
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&anyhow::Error::new(pipe()).context("cannot write the table")));
        let agent = SnapshotError::Read { what: "http://node:9750".to_owned(), line: 3, source: pipe() };
        assert!(!is_broken_pipe(&anyhow::Error::new(agent)));
    }
}
