//! The `snug` command.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;
use snug::{
    backtest, certificates, columns, explain,
    gitops::{check, diff},
    policy::Problem,
    progress,
    recommend::{self, Outcome},
    simulate, snapshot, top,
};

/// Below the help of the command.
const EXAMPLES: &str = "Examples:
  snug top                                what containers use now
  snug recommend                          what to request and limit, and what is wrong today
  snug explain shop/web                   why
  snug simulate shop/web --memory-limit 256Mi
  snug diff -f deploy/ --write            the recommended values in manifests
  snug check -f deploy/                   manifests against the usage history, for CI
  snug man --dir /usr/local/share/man/man1 && man snug-recommend

Exit codes: 0 success, 1 error, 2 --fail-on exceeded or differences with --exit-code, 3 not enough usage history;
of check: 4 waste, 5 throttling, 6 risk of OOM kills";

/// Show and recommend CPU and memory requests and limits of containers
#[derive(Debug, Parser)]
#[command(
    name = "snug",
    version,
    max_term_width = 110,
    after_help = EXAMPLES
)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show usage, limits, throttling and OOM kills of a node or a cluster, live
    Top(top::Options),
    /// Recommend requests and limits, with reasons
    Recommend(recommend::Options),
    /// Explain the recommendation for one workload
    Explain(explain::Options),
    /// Simulate other requests and limits against recorded usage
    Simulate(simulate::Options),
    /// Show or write the recommended changes of manifests, kustomizations and charts
    Diff(diff::Options),
    /// Compare manifests with their usage history, for CI
    Check(check::Options),
    /// Save the usage history of agents to a file, for --file
    Snapshot(snapshot::Options),
    /// Make certificates for agents and for Prometheus, such as `snug certificates | kubectl apply -f -`
    Certificates(certificates::Options),
    /// Print shell completions, such as `source <(snug completions bash)`
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual pages, such as `snug man top | man -l -`
    Man {
        /// Only the page of this subcommand
        page: Option<String>,
        /// Write a file for each page into this directory instead: snug.1, snug-top.1 and so on
        #[arg(long, value_name = "DIRECTORY", conflicts_with = "page")]
        dir: Option<PathBuf>,
    },
    /// Back-test the recommendations of Snug and of other tools on recorded usage
    Backtest(backtest::Options),
}

/// Exit codes; they are documented in `after_help`.
const SUCCESS: u8 = 0;
const ERROR: u8 = 1;
const ABOVE_THRESHOLD: u8 = 2;
const NOT_ENOUGH_DATA: u8 = 3;
const WASTE: u8 = 4;
const THROTTLING: u8 = 5;
const OOM_RISK: u8 = 6;

fn main() -> ExitCode {
    let parsed = command(columns::command_name()).try_get_matches();
    let Options { command } = match parsed.and_then(|matches| Options::from_arg_matches(&matches)) {
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
        Command::Diff(options) => diff::run(&options, out),
        Command::Check(options) => check::run(&options, out),
        Command::Snapshot(options) => snapshot::run(&options, out).map(|()| Outcome::Success),
        Command::Certificates(options) => certificates::run(&options, out).map(|()| Outcome::Success),
        Command::Completions { shell } => {
            // Into memory first: the generator has no errors, so it would panic.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Options::command(), "snug", &mut script);
            out.write_all(&script).map(|()| Outcome::Success).context("cannot write the completions")
        }
        Command::Man { page, dir } => man(page.as_deref(), dir.as_deref(), out).map(|()| Outcome::Success),
        Command::Backtest(options) => backtest::run(&options, out).map(|()| Outcome::Success),
    };
    let result = result.and_then(|outcome| out.flush().map(|()| outcome).context("cannot write the output"));
    progress::clear();
    let code = match result {
        Ok(Outcome::Success) => SUCCESS,
        Ok(Outcome::AboveThreshold) => ABOVE_THRESHOLD,
        Ok(Outcome::NotEnoughData) => NOT_ENOUGH_DATA,
        Ok(Outcome::Problem(Problem::Waste)) => WASTE,
        Ok(Outcome::Problem(Problem::Throttling)) => THROTTLING,
        Ok(Outcome::Problem(Problem::OomRisk)) => OOM_RISK,
        Err(error) if is_broken_pipe(&error) => SUCCESS,
        Err(error) => {
            columns::remark(columns::message(&error));
            ERROR
        }
    };
    code.into()
}

/// The command under the name that it was called by, also in its examples.
fn command(name: &'static str) -> clap::Command {
    let command = Options::command().bin_name(name);
    if name == "snug" {
        return command;
    }
    let renamed = |command: clap::Command| match command.get_after_help().map(ToString::to_string) {
        Some(text) => command.after_help(text.replace("  snug ", &format!("  {name} "))),
        None => command,
    };
    renamed(command).mut_subcommands(renamed)
}

/// Writes the manual page of the command and of each subcommand, or one of them.
fn man(page: Option<&str>, dir: Option<&Path>, out: &mut impl Write) -> anyhow::Result<()> {
    let mut command = Options::command();
    command.build();
    let subcommands = command.get_subcommands().filter(|sub| sub.get_name() != "help");
    let mut pages = vec![("snug".to_owned(), command.clone())];
    pages.extend(subcommands.map(|sub| (format!("snug-{}", sub.get_name()), sub.clone())));
    if let Some(wanted) = page {
        let is_wanted = |name: &str| name == wanted || name.strip_prefix("snug-") == Some(wanted);
        let names: Vec<String> = pages.iter().map(|(name, _)| name.clone()).collect();
        pages.retain(|(name, _)| is_wanted(name));
        anyhow::ensure!(!pages.is_empty(), "there is no page {wanted:?}; use one of {}", names.join(", "));
    }
    for (name, command) in pages {
        let mut text = Vec::new();
        clap_mangen::Man::new(command).title(name.clone()).render(&mut text)?;
        match dir {
            Some(dir) => {
                let path = dir.join(format!("{name}.1"));
                fs::create_dir_all(dir)
                    .and_then(|()| fs::write(&path, &text))
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            None => out.write_all(&text).context("cannot write the manual")?,
        }
    }
    Ok(())
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
    fn a_plugin_of_kubectl_calls_itself_so() {
        let usage = |name| {
            let mut command = command(name);
            command.build();
            let recommend = command.find_subcommand_mut("recommend").unwrap();
            recommend.render_help().to_string()
        };
        let help = usage("kubectl snug");
        assert!(
            help.contains("Usage: kubectl snug recommend")
                && help.contains("  kubectl snug recommend -n shop"),
            "{help}"
        );
        let help = usage("snug");
        assert!(help.contains("Usage: snug recommend") && !help.contains("kubectl snug"), "{help}");
        for heading in ["Source of the usage history:", "Method:", "Examples:"] {
            assert!(help.contains(heading), "{help}");
        }
    }

    #[test]
    fn only_a_closed_pipe_is_success() {
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&anyhow::Error::new(pipe()).context("cannot write the table")));
        let agent = SnapshotError::Read { what: "http://node:9750".to_owned(), line: 3, source: pipe() };
        assert!(!is_broken_pipe(&anyhow::Error::new(agent)));
    }
}
