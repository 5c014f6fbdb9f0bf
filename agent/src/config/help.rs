//! Texts about the options: `--help`, the current configuration, and `docs/configuration.md`.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, builder::OsStringValueParser};

use super::{
    errors::OptionOrigin,
    inputs::Inputs,
    options::{Config, OPTIONS, OptionSpec},
};

pub(super) const PROGRAM: &str = "snug-agent";
pub(super) const CONFIG: &str = "config";
pub(super) const CHECK_CONFIG: &str = "check-config";
pub(super) const MAN: &str = "man";

/// The command line for clap, which splits it into flags and values. [`kinds`](super::kinds) parses the values.
pub(super) fn command() -> Command {
    let file = Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .value_parser(OsStringValueParser::new())
        .action(ArgAction::Append)
        .help(format!(
            "TOML file with the same keys [default: {} if it exists] [env: SNUG_CONFIG]",
            super::DEFAULT_FILE
        ));
    let check = Arg::new(CHECK_CONFIG)
        .long(CHECK_CONFIG)
        .action(ArgAction::SetTrue)
        .help("Print the current configuration with the origin of each value, and exit");
    let manual = Arg::new(MAN)
        .long(MAN)
        .action(ArgAction::SetTrue)
        .help("Print the manual page, for man -l -, and exit");
    let command = Command::new(PROGRAM)
        .version(env!("CARGO_PKG_VERSION"))
        .about("Measures CPU, memory, I/O and network usage of the containers on this node, and serves metrics to Prometheus.")
        .after_help("Precedence: flag, then environment variable, then file, then default.")
        .max_term_width(110)
        .args_override_self(false)
        .arg(file)
        .arg(check)
        .arg(manual);
    command.args(OPTIONS.iter().map(|spec| {
        Arg::new(spec.key)
            .long(spec.key)
            .value_name(spec.placeholder)
            .value_parser(OsStringValueParser::new())
            .action(ArgAction::Append)
            // A negative number is reported as a value that is too small, not as an unknown flag.
            .allow_negative_numbers(true)
            .help_heading(spec.group)
            .help(format!(
                "{} [{}] [default: {}] [env: {}]",
                spec.help,
                spec.allowed(),
                default_shown(spec),
                variables(spec, ", ")
            ))
    }))
}

/// The manual page, in section 8 as those of other daemons.
pub(super) fn manual() -> String {
    let mut page = Vec::new();
    // Writing to a Vec does not fail.
    let _ = clap_mangen::Man::new(command()).section("8").render(&mut page);
    String::from_utf8_lossy(&page).into_owned()
}

fn variables(spec: &OptionSpec, separator: &str) -> String {
    [spec.variable()].into_iter().chain(spec.standard_variable()).collect::<Vec<_>>().join(separator)
}

fn default_shown(spec: &OptionSpec) -> &'static str {
    match spec.default {
        "" if spec.list => "empty",
        "" => "none",
        default => default,
    }
}

/// The current configuration in the form of a configuration file, with the origin of each value.
pub(super) fn effective(config: &Config, inputs: &Inputs) -> String {
    let lines: Vec<(String, OptionOrigin)> = config
        .shown()
        .into_iter()
        .map(|(key, value)| {
            let line =
                value.map_or_else(|| format!("# {key} is not set"), |value| format!("{key} = {value}"));
            (line, inputs.origin(key))
        })
        .collect();
    let width =
        lines.iter().map(|(line, _)| line.chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
    let mut text = String::new();
    for (line, origin) in lines {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{line:<width$}  # {origin}");
    }
    text
}

/// `docs/configuration.md`.
pub fn markdown() -> String {
    let mut text = format!(
        "# Configuration of the agent\n\n\
         <!-- Generated from agent/src/config/options.rs: SNUG_BLESS=1 cargo test -p snug-agent config::help -->\n\n\
         Every option is a flag (`--key value`), an environment variable and a key of a TOML file. Precedence:\n\
         flag, then environment variable, then file, then default. `--config` or `SNUG_CONFIG` names the file; without them\n\
         the agent reads `{}` if that file exists. Lists are arrays in the file, and comma-separated in flags and\n\
         variables.\n\n\
         The agent does not start with an error in the configuration, and reports all errors at once. A `SNUG_*` variable\n\
         that is not an option is an error, too, unless the kubelet sets it for a Service.\n\
         `snug-agent --check-config` prints the current configuration with the origin of each value.\n",
        super::DEFAULT_FILE
    );
    let mut group = "";
    for spec in OPTIONS {
        if spec.group != group {
            group = spec.group;
            let _ = write!(
                text,
                "\n## {group}\n\n| Key | Variable | Default | Allowed | Description |\n|---|---|---|---|---|\n"
            );
        }
        let default = match spec.default {
            "" => default_shown(spec).to_owned(),
            default => format!("`{default}`"),
        };
        let allowed = spec.allowed().replace('|', "\\|");
        let _ = writeln!(
            text,
            "| `{}` | `{}` | {default} | {allowed} | {} |",
            spec.key,
            variables(spec, "`, `"),
            spec.help.replace('|', "\\|")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    #[test]
    fn the_documentation_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let current = markdown();
        if env::var_os("SNUG_BLESS").is_some() {
            fs::write(&path, &current).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(written == current, "docs/configuration.md is out of date: run again with SNUG_BLESS=1");
    }

    #[test]
    fn clap_finds_nothing_wrong_with_the_flags() {
        command().debug_assert();
    }

    #[test]
    fn help_names_every_option_under_its_heading() {
        let help = command().render_help().to_string();
        for spec in OPTIONS {
            assert!(help.contains(&format!("--{} <{}>", spec.key, spec.placeholder)), "{}", spec.key);
            assert!(help.contains(&format!("{}:", spec.group)));
        }
    }
}
