//! The log of the agent, to standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, Layer, Registry, filter::ParseError, fmt, reload, util::TryInitError};
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::{
    choices::{EbpfLog, LogFormat},
    log_limit::{BoundedLines, LineFormat, LogLimit},
    options::Config,
};

/// The target of messages of the eBPF programs: the name of their crate.
const EBPF_TARGET: &str = "snug_ebpf";

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The directives are wrong.
    #[error("log = {directives:?} is refused: {source}")]
    Directives {
        directives: String,
        /// The error of the parser.
        source: ParseError,
    },
    /// Another logger is already installed in this process.
    #[error("a log is already set up in this process")]
    AlreadySet(#[from] TryInitError),
    /// The directives cannot be changed.
    #[error("the directives of the log cannot be changed")]
    Reload(#[from] reload::Error),
}

/// An additional receiver of log messages.
pub type LogLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Sets up the log of this process by the options `log`, `log-format` and `ebpf-log`. Messages of the eBPF programs arrive
/// through the `log` crate, which the subscriber bridges. `extra` receives all messages too.
///
/// # Errors
///
/// When the directives are wrong, or a log is already set up.
pub fn init(config: &Config, extra: Option<LogLayer>) -> Result<LogDirectives, LoggingError> {
    let (directives, handle) = reload::Layer::new(filter(config)?);
    let registry = tracing_subscriber::registry().with(extra).with(directives).with(LogLimit::default());
    match config.log_format {
        LogFormat::Text => {
            let ansi = io::stderr().is_terminal();
            let format = if ansi { LineFormat::Colours } else { LineFormat::Text };
            registry.with(fmt::layer().with_writer(BoundedLines(format)).with_ansi(ansi)).try_init()?;
        }
        LogFormat::Json => {
            let layer = fmt::layer().json().flatten_event(true);
            registry.with(layer.with_writer(BoundedLines(LineFormat::Json))).try_init()?;
        }
    }
    let set = move |config: &Config| handle.reload(filter(config)?).map_err(LoggingError::from);
    Ok(LogDirectives(Box::new(set)))
}

type SetDirectives = dyn Fn(&Config) -> Result<(), LoggingError> + Send + Sync;

/// Changes the directives of the log while the agent runs.
pub struct LogDirectives(Box<SetDirectives>);

impl LogDirectives {
    /// Uses the directives of another configuration.
    ///
    /// # Errors
    /// When the directives are wrong.
    pub fn set(&self, config: &Config) -> Result<(), LoggingError> {
        (self.0)(config)
    }
}

fn filter(config: &Config) -> Result<EnvFilter, LoggingError> {
    EnvFilter::try_new(directives(config))
        .map_err(|source| LoggingError::Directives { directives: config.log.clone(), source })
}

/// The client of the API server logs each failed attempt. The pod watch already logs a failure once.
const QUIET: &str = "kube_client=off";

/// The directives of the log filter. `ebpf-log` alone enables messages of the eBPF programs. Directives in `log` come last,
/// so they win over `ebpf-log` and over [`QUIET`].
fn directives(config: &Config) -> String {
    let level = match config.ebpf_log {
        EbpfLog::Off => return format!("{QUIET},{}", config.log),
        EbpfLog::Error => "error",
        EbpfLog::Warn => "warn",
        EbpfLog::Info => "info",
        EbpfLog::Debug => "debug",
        EbpfLog::Trace => "trace",
    };
    format!("{QUIET},{EBPF_TARGET}={level},{}", config.log)
}
