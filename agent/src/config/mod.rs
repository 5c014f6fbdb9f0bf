//! Configuration: one table of options for flags, environment variables and a file.
//!
//! A flag wins over its variable, that over the file, that over the default. Whatever is wrong in any place is
//! refused, all of it at once.

mod errors;
mod help;
mod inputs;
mod kinds;
mod logging;
mod options;
mod sources;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use self::inputs::Inputs;
pub use self::{
    errors::{ConfigError, ConfigErrors, Origin},
    help::markdown,
    logging::{LogLayer, LoggingError, init as init_logging},
    options::{
        Config, EbpfLog, EventLog, KubernetesChoice, LogFormat, OPTIONS, OptionSpec, OtlpCompression,
        OtlpProtocol, SourceChoice, Temporality,
    },
};

/// The file that is read if it exists and no other is named.
pub const DEFAULT_FILE: &str = "/etc/snug/agent.toml";

/// A configuration and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Where each value comes from, by key.
    pub origins: BTreeMap<&'static str, Origin>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Request {
    /// Run with this configuration.
    Run(Box<Loaded>),
    /// Print this to standard output and end well: help, version, or the configuration in force.
    Print(String),
}

/// Loads the configuration. `args` begins with the program's name; `read` reads a file.
///
/// # Errors
///
/// Every mistake there is.
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

/// Each pace is at least as slow as the one before it: the slower rows are taken along with a faster pass.
fn check_order(config: &Config, inputs: &mut Inputs) {
    let paces = [
        ("sample-interval", config.sample_interval),
        ("working-set-interval", config.working_set_interval),
        ("slow-interval", config.slow_interval),
    ];
    for pair in paces.windows(2) {
        let [(longer, longer_value), (shorter, shorter_value)] = pair else { continue };
        if shorter_value < longer_value {
            let mistake = ConfigError::Order {
                shorter,
                shorter_value: *shorter_value,
                shorter_origin: inputs.origin(shorter),
                longer,
                longer_value: *longer_value,
                longer_origin: inputs.origin(longer),
            };
            inputs.errors.push(mistake);
        }
    }
}

#[cfg(test)]
mod tests;
