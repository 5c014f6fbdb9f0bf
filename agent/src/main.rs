//! `snug-agent`: loads the configuration and runs the agent.

use std::{env, fs, process::ExitCode, sync::Arc};

use snug_agent::{
    config::{self, Request},
    exporters::otlp::Exporter,
    history,
    messages::chain,
    supervisor::{self, Reload, Signals},
};

/// Exit code for an invalid configuration or command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().collect();
    if let Some(code) = history::convert_if_asked(&arguments) {
        return code;
    }
    let signals = match Signals::handle() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let load = move || config::load(arguments.clone(), env::vars_os(), |path| fs::read_to_string(path));
    let request = load();
    let loaded = match request {
        Ok(Request::Run(loaded)) => loaded,
        Ok(Request::Print(text)) => return print(&text),
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(USAGE);
        }
    };
    let exporter = Exporter::new(&loaded.config).map(Arc::new);
    let own_log = exporter.as_ref().and_then(|exporter| exporter.own_log());
    let log = match config::init_logging(&loaded.config, own_log) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let read = Box::new(move || match load() {
        Ok(Request::Run(loaded)) => Ok(loaded.config),
        // The arguments are those with which the agent was started.
        Ok(Request::Print(_)) => Err("there is nothing to run".to_owned()),
        Err(errors) => Err(errors.to_string()),
    });
    match supervisor::run(loaded.config, exporter, signals, Reload { read, log }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Prints to standard output. A closed pipe is no error.
fn print(text: &str) -> ExitCode {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write to standard output: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
