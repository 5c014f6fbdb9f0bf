//! Configuration: one table of options for flags, environment variables and a file.
//!
//! Precedence: flag, then environment variable, then file, then default. All errors are reported at once, those in
//! overridden values included.

mod choices;
mod errors;
mod help;
mod inputs;
mod kinds;
mod log_limit;
mod logging;
mod options;
mod secrets;
mod sources;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use self::inputs::Inputs;
pub use self::{
    choices::{
        EbpfLog, EventLog, KubernetesChoice, LogFormat, OtlpCompression, OtlpProtocol, SourceChoice,
        Temporality,
    },
    errors::{ConfigError, ConfigErrors, OptionOrigin},
    help::markdown,
    logging::{LogDirectives, LogLayer, LoggingError, init as init_logging},
    options::{Config, OPTIONS, OptionSpec},
    secrets::without_secrets,
};

/// The file that is read if it exists and neither `--config` nor `SNUG_CONFIG` is set.
pub const DEFAULT_FILE: &str = "/etc/snug/agent.toml";

/// A configuration and its origins.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// The origin of each value, by key.
    pub origins: BTreeMap<&'static str, OptionOrigin>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// The action that the command line requests.
#[derive(Clone, Debug)]
pub enum Request {
    /// Run with this configuration.
    Run(Box<Loaded>),
    /// Print this text to standard output and exit with status 0: help, manual page, version, or the current configuration.
    Print(String),
}

/// Loads the configuration. The first of `args` is the name of the program; `read` reads a file.
///
/// # Errors
///
/// All errors in the configuration.
pub fn load(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    read: impl Fn(&Path) -> io::Result<String>,
) -> Result<Request, ConfigErrors> {
    let mut inputs = Inputs::default();
    let line = sources::flags(args, &mut inputs);
    if let Some(text) = line.print {
        return Ok(Request::Print(text));
    }
    let from_env = sources::variables(env, &mut inputs);
    let named = line.file.map(|path| (path, "--config")).or(from_env.map(|path| (path, "SNUG_CONFIG")));
    let (path, named_by) = match named {
        Some((path, by)) => (path, Some(by)),
        None => (PathBuf::from(DEFAULT_FILE), None),
    };
    let file = match read(&path) {
        Ok(content) => {
            sources::file(&path, &content, &mut inputs);
            Some(path)
        }
        Err(error) if named_by.is_none() && error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => {
            let named_by = named_by.unwrap_or("default").to_owned();
            inputs.errors.push(ConfigError::Unreadable { path, named_by, source });
            None
        }
    };

    let config = Config::read(&mut inputs);
    if let Some(config) = &config {
        check_order(config, &mut inputs);
        check_access(config, &mut inputs);
    }
    match config {
        Some(config) if inputs.errors.is_empty() && line.check => {
            Ok(Request::Print(help::effective(&config, &inputs)))
        }
        Some(config) if inputs.errors.is_empty() => {
            Ok(Request::Run(Box::new(Loaded { config, origins: inputs.origins, file })))
        }
        _ => Err(ConfigErrors(inputs.errors)),
    }
}

/// Checks that each interval is at least as long as the faster one: slower samples are taken in a pass of the faster ones. And that
/// an outage does not shorten how long a review holds.
fn check_order(config: &Config, inputs: &mut Inputs) {
    let intervals = [
        ("sample-interval", config.sample_interval),
        ("working-set-interval", config.working_set_interval),
        ("slow-interval", config.slow_interval),
    ];
    let ages =
        [("token-allowed-age", config.token_allowed_age), ("token-outage-age", config.token_outage_age)];
    for pair in intervals.windows(2).chain(ages.windows(2)) {
        let [(longer, longer_value), (shorter, shorter_value)] = pair else { continue };
        if shorter_value < longer_value {
            let error = ConfigError::Order {
                shorter,
                shorter_value: *shorter_value,
                shorter_origin: inputs.origin(shorter),
                longer,
                longer_value: *longer_value,
                longer_origin: inputs.origin(longer),
            };
            inputs.errors.push(error);
        }
    }
}

/// Checks that nobody can read who was not allowed to, and that somebody can.
fn check_access(config: &Config, inputs: &mut Inputs) {
    let is_loopback = |address: &std::net::SocketAddr| address.ip().to_canonical().is_loopback();
    let has_files = config.tls_certificate.is_some() && config.tls_key.is_some();
    let has_clients =
        config.tls_client_ca.is_some() || config.bearer_token_file.is_some() || config.token_review;
    let has_tls = config.tls_listen.is_some();
    let errors = [
        (
            !config.listen_insecure && config.listen.as_ref().is_some_and(|address| !is_loopback(address)),
            "listen",
            "is no loopback address, and everyone who can connect to it could read everything: use tls-listen, or set \
             listen-insecure",
        ),
        (has_tls && !has_files, "tls-listen", "requires tls-certificate and tls-key"),
        (
            has_tls && !has_clients,
            "tls-listen",
            "admits nobody: set tls-client-ca, bearer-token-file or token-review",
        ),
    ];
    for (_, key, why) in errors.into_iter().filter(|(is_wrong, ..)| *is_wrong) {
        inputs.errors.push(ConfigError::Access { key, origin: inputs.origin(key), why });
    }
}

#[cfg(test)]
pub(crate) mod tests;
