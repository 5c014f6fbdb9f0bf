//! Readers of the sources of values: command line, environment and file.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use toml::de::{DeTable, DeValue};

use super::{
    errors::{ConfigError, OptionOrigin, nearest},
    help,
    inputs::Inputs,
    kinds::Raw,
    options::{OPTIONS, OptionSpec},
};

/// Variables with the prefix `SNUG_` that are not options: the name of the file, and variables of builds and tests.
const OTHER_VARIABLES: &[&str] = &["SNUG_BLESS", "SNUG_CACHE_DIR", "SNUG_CONFIG", "SNUG_EBPF_OBJECT"];

/// The option whose key is most similar to a name. Case, dashes and underscores do not count.
fn nearest_key(name: &str, besides: &[&'static str]) -> Option<&'static str> {
    let plain = name.to_ascii_lowercase().replace('_', "-");
    nearest(&plain, OPTIONS.iter().map(|spec| spec.key).chain(besides.iter().copied()))
}

fn spec(key: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|spec| spec.key == key)
}

/// The arguments of the command line that are not in the table of options.
#[derive(Debug, Default)]
pub(super) struct CommandLine {
    pub(super) file: Option<PathBuf>,
    pub(super) check: bool,
    /// Help, manual page or version, to be printed before the program exits.
    pub(super) print: Option<String>,
}

/// Reads the command line. The first argument is the name of the program.
pub(super) fn flags(args: impl IntoIterator<Item = OsString>, inputs: &mut Inputs) -> CommandLine {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.is_empty() {
        args.push(help::PROGRAM.into());
    }
    // clap stops at the first error. Record it, remove the argument and parse again, so that all errors are reported at once.
    let matches = loop {
        let error = match help::command().try_get_matches_from(&args) {
            Ok(matches) => break matches,
            Err(error) => error,
        };
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            return CommandLine { print: Some(error.render().to_string()), ..CommandLine::default() };
        }
        let Some(name) = invalid_arg(&error) else {
            inputs.errors.push(ConfigError::CommandLine(first_line(&error)));
            return CommandLine::default();
        };
        inputs.errors.push(explain(&error, &name));
        if !remove_argument(&mut args, &name) {
            return CommandLine::default();
        }
    };

    if matches.get_flag(help::MAN) {
        return CommandLine { print: Some(help::manual()), ..CommandLine::default() };
    }
    for spec in OPTIONS {
        let Some(values) = matches.get_many::<OsString>(spec.key) else { continue };
        let origin = OptionOrigin::Flag(spec.key.to_owned());
        let texts: Vec<String> = values.filter_map(|value| text(value, &origin, inputs)).collect();
        match <[String; 1]>::try_from(texts) {
            Ok([one]) => inputs.give(spec.key, Raw::Text(one), origin),
            Err(texts) if spec.list && !texts.is_empty() => {
                let items = texts.iter().flat_map(|text| text.split(',')).map(str::to_owned).collect();
                inputs.give(spec.key, Raw::List(items), origin);
            }
            Err(texts) if texts.is_empty() => {}
            Err(texts) => inputs.errors.push(ConfigError::Repeated { origin, times: texts.len() }),
        }
    }
    let files: Vec<&OsString> =
        matches.get_many::<OsString>(help::CONFIG).map_or(Vec::new(), Iterator::collect);
    if files.len() > 1 {
        let origin = OptionOrigin::Flag(help::CONFIG.to_owned());
        inputs.errors.push(ConfigError::Repeated { origin, times: files.len() });
    }
    CommandLine {
        file: files.first().map(PathBuf::from),
        check: matches.get_flag(help::CHECK_CONFIG),
        print: None,
    }
}

fn text(value: &OsString, origin: &OptionOrigin, inputs: &mut Inputs) -> Option<String> {
    if let Some(text) = value.to_str() {
        return Some(text.to_owned());
    }
    inputs.errors.push(ConfigError::NotText { origin: origin.clone() });
    None
}

fn invalid_arg(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(name) => Some(name.clone()),
        ContextValue::Strings(names) => names.first().cloned(),
        _ => None,
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

fn explain(error: &clap::Error, name: &str) -> ConfigError {
    match (error.kind(), name.strip_prefix("--")) {
        (ErrorKind::UnknownArgument, Some(key)) => ConfigError::Unknown {
            origin: OptionOrigin::Flag(key.to_owned()),
            name: key.to_owned(),
            nearest: nearest_key(key, &[help::CONFIG, help::CHECK_CONFIG, help::MAN])
                .map(|key| format!("--{key}")),
        },
        _ => ConfigError::CommandLine(first_line(error)),
    }
}

/// Removes an argument and its value. `name` may have the form of clap's messages: `--listen <ADDRESS>`.
fn remove_argument(args: &mut Vec<OsString>, name: &str) -> bool {
    let is_it = |arg: &OsString, name: &str| {
        let arg = arg.to_string_lossy();
        arg == name || arg.split_once('=').is_some_and(|(flag, _)| flag == name && flag.starts_with('-'))
    };
    let mut place = args.iter().skip(1).position(|arg| is_it(arg, name));
    if place.is_none() {
        let flag = name.split([' ', '=']).next().unwrap_or_default();
        // If the flag is given several times, clap means the one without a value, or the last.
        place = args.iter().skip(1).rposition(|arg| is_it(arg, flag));
    }
    let Some(place) = place.map(|place| place + 1) else { return false };
    let taken = args.remove(place);
    let alone = taken.to_string_lossy().starts_with("--") && !taken.to_string_lossy().contains('=');
    if alone && args.get(place).is_some_and(|next| !next.to_string_lossy().starts_with('-')) {
        args.remove(place);
    }
    true
}

/// Reads the environment and returns the configuration file that it names.
pub(super) fn variables(
    env: impl IntoIterator<Item = (OsString, OsString)>,
    inputs: &mut Inputs,
) -> Option<PathBuf> {
    let mut file = None;
    let mut variables: Vec<(String, OsString)> = env
        .into_iter()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, value)| name.starts_with("SNUG_") || (standard(name).is_some() && !value.is_empty()))
        .collect();
    // `SNUG_*` variables win over those of OpenTelemetry, so they come first.
    variables.sort_by(|(one, _), (other, _)| {
        other.starts_with("SNUG_").cmp(&one.starts_with("SNUG_")).then_with(|| one.cmp(other))
    });
    for (name, value) in variables {
        let own = || OPTIONS.iter().find(|spec| spec.variable() == name);
        if let Some(spec) = standard(&name).or_else(own) {
            let origin = OptionOrigin::Variable(name);
            if let Some(text) = text(&value, &origin, inputs) {
                inputs.give(spec.key, Raw::Text(text), origin);
            }
        } else if name == "SNUG_CONFIG" {
            file = Some(PathBuf::from(value));
        } else if !OTHER_VARIABLES.contains(&name.as_str()) && !is_service_link(&name) {
            let plain = name.trim_start_matches("SNUG_");
            let nearest = nearest_key(plain, &[help::CONFIG]);
            let nearest = nearest.map(|key| format!("SNUG_{}", key.replace('-', "_").to_ascii_uppercase()));
            inputs.errors.push(ConfigError::Unknown {
                origin: OptionOrigin::Variable(name.clone()),
                name,
                nearest,
            });
        }
    }
    file
}

/// The option that a variable of the OpenTelemetry specification sets. That specification treats an empty variable as unset.
fn standard(name: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|spec| spec.standard_variable().as_deref() == Some(name))
}

/// Whether the kubelet sets this variable for a Service whose name begins with "snug".
///
/// See "Discovering services: Environment variables" in the Kubernetes documentation.
fn is_service_link(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return true;
    }
    let Some((_, port)) = name.rsplit_once("_PORT") else { return false };
    if port.is_empty() {
        // SNUG_PORT, SNUG_AGENT_PORT; and SNUG_PORT_9750_TCP_PORT.
        return true;
    }
    let mut parts = port.trim_start_matches('_').split('_');
    let number = parts.next().is_some_and(digits);
    let protocol = matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"));
    let rest = matches!(parts.next(), None | Some("PROTO" | "ADDR"));
    number && protocol && rest && parts.next().is_none()
}

/// Reads a configuration file.
pub(super) fn file(path: &Path, content: &str, inputs: &mut Inputs) {
    let path = Arc::new(path.to_owned());
    let at = |offset: usize| {
        let before = content.as_bytes().get(..offset).unwrap_or(content.as_bytes());
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        OptionOrigin::File { path: Arc::clone(&path), line }
    };
    let (table, errors) = DeTable::parse_recoverable(content);
    for error in errors {
        let origin = at(error.span().map_or(0, |span| span.start));
        inputs.errors.push(ConfigError::NotToml { origin, why: error.message().to_owned() });
    }
    let mut entries: Vec<_> = table.into_inner().into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let origin = at(key.span().start);
        let name = key.into_inner().into_owned();
        let Some(spec) = spec(&name) else {
            let nearest = nearest_key(&name, &[]).map(str::to_owned);
            inputs.errors.push(ConfigError::Unknown { origin, name, nearest });
            continue;
        };
        match raw(value.into_inner()) {
            Ok(raw) => inputs.give(spec.key, raw, origin),
            Err((value, why)) => {
                let allowed = spec.allowed();
                inputs.errors.push(ConfigError::Value { origin, key: spec.key, value, why, allowed });
            }
        }
    }
}

fn raw(value: DeValue<'_>) -> Result<Raw, (String, String)> {
    match value {
        DeValue::String(text) => Ok(Raw::Text(text.into_owned())),
        DeValue::Integer(number) => Ok(Raw::Text(number.to_string())),
        DeValue::Boolean(switch) => Ok(Raw::Text(switch.to_string())),
        DeValue::Array(items) => {
            let items = items.into_iter().map(|item| match item.into_inner() {
                DeValue::String(text) => Ok(text.into_owned()),
                other => Err(rejected("an array with", &other)),
            });
            Ok(Raw::List(items.collect::<Result<_, _>>()?))
        }
        other => Err(rejected("", &other)),
    }
}

/// The value as error messages show it, and the reason.
fn rejected(context: &str, value: &DeValue<'_>) -> (String, String) {
    let kind = value.type_str();
    let article = if kind.starts_with(['a', 'i', 'o']) { "an" } else { "a" };
    let shown = if context.is_empty() {
        format!("({article} {kind})")
    } else {
        format!("({context} {article} {kind})")
    };
    (shown, "expected a string, integer, boolean or array of strings".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_links_are_distinguished_from_options() {
        for link in [
            "SNUG_SERVICE_HOST",
            "SNUG_AGENT_SERVICE_PORT",
            "SNUG_AGENT_SERVICE_PORT_METRICS",
            "SNUG_PORT",
            "SNUG_AGENT_PORT_9750_TCP",
            "SNUG_AGENT_PORT_9750_TCP_PROTO",
            "SNUG_AGENT_PORT_9750_TCP_PORT",
            "SNUG_AGENT_PORT_9750_TCP_ADDR",
        ] {
            assert!(is_service_link(link), "{link}");
        }
        for other in ["SNUG_LISTENN", "SNUG_PORTS", "SNUG_PORT_X_TCP", "SNUG_LOG"] {
            assert!(!is_service_link(other), "{other}");
        }
        for spec in OPTIONS {
            assert!(!is_service_link(&spec.variable()), "{}", spec.key);
        }
    }
}
