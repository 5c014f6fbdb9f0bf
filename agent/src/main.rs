//! `snug-agent`: loads the configuration and runs the agent.

use std::{env, fs, process::ExitCode, sync::Arc};

use snug_agent::{
    config::{self, Request},
    exporters::otlp::Exporter,
    history, supervisor,
};

/// Exit code for an invalid configuration or command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().collect();
    if let Some(code) = history::convert_if_asked(&arguments) {
        return code;
    }
    let request = config::load(arguments, env::vars_os(), |path| fs::read_to_string(path));
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
    if let Err(error) = config::init_logging(&loaded.config, own_log) {
        eprintln!("error: {error}");
        return ExitCode::from(USAGE);
    }
    match supervisor::run(loaded.config, exporter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{:#}", anyhow::Error::from(error));
            ExitCode::FAILURE
        }
    }
}

/// Prints to standard output. A closed pipe is no error.
fn print(text: &str) -> ExitCode {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
