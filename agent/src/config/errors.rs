//! Errors in a configuration.

use std::{fmt, path::PathBuf, sync::Arc};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionOrigin {
    /// The table of options.
    Default,
    /// A flag, without its dashes.
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// A line of the configuration file, counted from 1.
    File { path: Arc<PathBuf>, line: usize },
}

impl fmt::Display for OptionOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Flag(key) => write!(f, "--{key}"),
            Self::Variable(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that the option does not allow.
    #[error("{origin}: {key} = {value} is refused: {why}; allowed: {allowed}")]
    Value {
        /// Where it was given.
        origin: OptionOrigin,
        /// The option.
        key: &'static str,
        value: String,
        /// What is wrong with it.
        why: String,
        allowed: String,
    },
    /// A key that is not an option.
    #[error("{origin}: there is no option {name:?}{}", nearest.as_ref().map_or(String::new(), |n| format!("; did you mean {n:?}?")))]
    Unknown {
        /// Where it was given.
        origin: OptionOrigin,
        /// The key as it was written.
        name: String,
        /// The most similar option, as it would be written at this origin.
        nearest: Option<String>,
    },
    /// An option with one value that is given several times in one source.
    #[error("{origin}: given {times} times; give it once")]
    Repeated {
        /// Where.
        origin: OptionOrigin,
        /// How often.
        times: usize,
    },
    /// A value that is not UTF-8.
    #[error("{origin}: the value is not UTF-8")]
    NotText {
        /// Where it was given.
        origin: OptionOrigin,
    },
    /// A command line that cannot be parsed.
    #[error("command line: {0}; see --help")]
    CommandLine(String),
    /// A configuration file that cannot be read.
    #[error("{}: cannot be read: {source}; named by {named_by}", path.display())]
    Unreadable {
        path: PathBuf,
        /// The flag or variable that names the file, or `default`.
        named_by: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A configuration file that is not TOML.
    #[error("{origin}: not TOML: {why}")]
    NotToml {
        /// Where.
        origin: OptionOrigin,
        /// The message of the parser.
        why: String,
    },
    /// An address that does not fit the options that say who may read.
    #[error("{key} ({origin}) {why}")]
    Access {
        /// The option.
        key: &'static str,
        /// Where it was given.
        origin: OptionOrigin,
        /// What is wrong.
        why: &'static str,
    },
    /// Two values that contradict each other.
    #[error(
        "{shorter} = {shorter_value:?} ({shorter_origin}) is refused: it must not be shorter than {longer} = {longer_value:?} ({longer_origin})"
    )]
    Order {
        /// The option that is too short.
        shorter: &'static str,
        shorter_value: std::time::Duration,
        /// Where it comes from.
        shorter_origin: OptionOrigin,
        /// The option it must reach.
        longer: &'static str,
        longer_value: std::time::Duration,
        /// Where that comes from.
        longer_origin: OptionOrigin,
    },
}

/// All errors in a configuration, one on each line.
#[derive(Debug, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(errors) = self;
        let plural = if errors.len() == 1 { "" } else { "s" };
        write!(f, "{} error{plural} in the configuration:", errors.len())?;
        for error in errors {
            write!(f, "\n  {error}")?;
        }
        Ok(())
    }
}

/// The candidate most similar to a name, if one is similar enough.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const MIN_SIMILARITY: f64 = 0.8;
    let scored = candidates.into_iter().map(|candidate| (strsim::jaro_winkler(name, candidate), candidate));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(score, _)| *score >= MIN_SIMILARITY).map(|(_, candidate)| candidate)
}
