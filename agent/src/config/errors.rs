//! What can be wrong with a configuration.

use std::{fmt, path::PathBuf, sync::Arc};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table of options.
    Default,
    /// A flag, without its dashes.
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// A line of the configuration file, counted from 1.
    File {
        path: Arc<PathBuf>,
        /// The line.
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Flag(key) => write!(f, "--{key}"),
            Self::Variable(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// One mistake.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that its option does not allow.
    #[error("{origin}: {key} = {value} is refused: {why}; allowed: {allowed}")]
    Value {
        /// Where it was given.
        origin: Origin,
        /// The option.
        key: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        why: String,
        /// What is allowed.
        allowed: String,
    },
    /// A key that no option has.
    #[error("{origin}: there is no option {name:?}{}", nearest.as_ref().map_or(String::new(), |n| format!("; did you mean {n:?}?")))]
    Unknown {
        /// Where it was given.
        origin: Origin,
        /// The key as it was written.
        name: String,
        /// The option that it is most like, written as it would be there.
        nearest: Option<String>,
    },
    /// An option with one value that was given twice in one place.
    #[error("{origin}: given {times} times; give it once")]
    Repeated {
        /// Where.
        origin: Origin,
        /// How often.
        times: usize,
    },
    /// A value that is not UTF-8.
    #[error("{origin}: the value {lossy:?} is not UTF-8")]
    NotText {
        /// Where it was given.
        origin: Origin,
        /// The value, with what is not UTF-8 replaced.
        lossy: String,
    },
    /// A command line that is wrong in itself.
    #[error("command line: {0}; see --help")]
    CommandLine(String),
    /// A configuration file that cannot be read.
    #[error("{}: cannot be read: {source}; named by {named_by}", path.display())]
    Unreadable {
        path: PathBuf,
        /// Who named it.
        named_by: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A configuration file that is not TOML.
    #[error("{origin}: not TOML: {why}")]
    NotToml {
        /// Where.
        origin: Origin,
        /// What the parser says.
        why: String,
    },
    /// Two values that do not go together.
    #[error(
        "{shorter} = {shorter_value:?} ({shorter_origin}) is refused: it must not be shorter than {longer} = {longer_value:?} ({longer_origin})"
    )]
    Order {
        /// The option that is too short.
        shorter: &'static str,
        /// Its value.
        shorter_value: std::time::Duration,
        /// Where it comes from.
        shorter_origin: Origin,
        /// The option it must reach.
        longer: &'static str,
        /// Its value.
        longer_value: std::time::Duration,
        /// Where that comes from.
        longer_origin: Origin,
    },
}

/// Every mistake of a configuration, a line each.
#[derive(Debug, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(mistakes) = self;
        let plural = if mistakes.len() == 1 { "" } else { "s" };
        write!(f, "{} mistake{plural} in the configuration:", mistakes.len())?;
        for mistake in mistakes {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}

/// The candidate most like a name, if one is like it at all.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.8;
    let scored = candidates.into_iter().map(|candidate| (strsim::jaro_winkler(name, candidate), candidate));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(score, _)| *score >= ALIKE).map(|(_, candidate)| candidate)
}
