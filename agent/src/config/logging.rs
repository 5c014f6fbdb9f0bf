//! The agent's own log, to standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, Layer, Registry, filter::ParseError, fmt, util::TryInitError};
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::options::{Config, EbpfLog, LogFormat};

/// What the kernel programs' messages go by: the crate that they are in.
const KERNEL_HALF: &str = "snug_ebpf";

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The directives are wrong.
    #[error("log = {directives:?} is refused: {source}")]
    Directives {
        /// The directives.
        directives: String,
        /// What is wrong with them.
        source: ParseError,
    },
    /// Someone else has set up a log in this process.
    #[error("a log is already set up in this process")]
    AlreadySet(#[from] TryInitError),
}

/// What else takes what is logged.
pub type LogLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Sets up the log of this process as `log`, `log-format` and `ebpf-log` say. The kernel programs' messages come through
/// the `log` crate, which the subscriber takes up. `beside` takes the same.
///
/// # Errors
///
/// When the directives are wrong, or a log is already set up.
pub fn init(config: &Config, beside: Option<LogLayer>) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(directives(config))
        .map_err(|source| LoggingError::Directives { directives: config.log.clone(), source })?;
    let registry = tracing_subscriber::registry().with(beside).with(filter);
    match config.log_format {
        LogFormat::Text => {
            let ansi = io::stderr().is_terminal();
            registry.with(fmt::layer().with_writer(io::stderr).with_ansi(ansi)).try_init()?;
        }
        LogFormat::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(io::stderr)).try_init()?;
        }
    }
    Ok(())
}

/// The client of the API server logs each failed attempt; the watch says once what is wrong.
const QUIET: &str = "kube_client=off";

/// `ebpf-log` alone suffices to see the kernel programs' messages; a directive of `log` about them, or about what is
/// kept quiet, still wins.
fn directives(config: &Config) -> String {
    let level = match config.ebpf_log {
        EbpfLog::Off => return format!("{QUIET},{}", config.log),
        EbpfLog::Error => "error",
        EbpfLog::Warn => "warn",
        EbpfLog::Info => "info",
        EbpfLog::Debug => "debug",
        EbpfLog::Trace => "trace",
    };
    format!("{QUIET},{KERNEL_HALF}={level},{}", config.log)
}
