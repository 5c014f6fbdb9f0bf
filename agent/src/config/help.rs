//! What is printed of the options: `--help`, the configuration in force, and the table of the documentation.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, builder::OsStringValueParser};

use super::{
    errors::Origin,
    inputs::Inputs,
    options::{Config, OPTIONS, OptionSpec},
};

pub(super) const PROGRAM: &str = "snug-agent";
pub(super) const CONFIG: &str = "config";
pub(super) const CHECK_CONFIG: &str = "check-config";

/// The command line as clap knows it. clap takes it apart; what the values mean is not its business.
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
        .help("Print the configuration in force and where each value comes from, and end");
    let command = Command::new(PROGRAM)
        .version(env!("CARGO_PKG_VERSION"))
        .about("Measures what the containers of this node really use, and serves it to Prometheus.")
        .after_help("A flag wins over its environment variable, that over the file, that over the default.")
        .max_term_width(110)
        .args_override_self(false)
        .arg(file)
        .arg(check);
    command.args(OPTIONS.iter().map(|spec| {
        Arg::new(spec.key)
            .long(spec.key)
            .value_name(spec.placeholder)
            .value_parser(OsStringValueParser::new())
            .action(ArgAction::Append)
            // A number that is too small is told by its own message, not as a flag that does not exist.
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

fn variables(spec: &OptionSpec, between: &str) -> String {
    let standard = spec.standard_variable().map(str::to_owned);
    [spec.variable()].into_iter().chain(standard).collect::<Vec<_>>().join(between)
}

fn default_shown(spec: &OptionSpec) -> &'static str {
    match spec.default {
        "" if spec.list => "empty",
        "" => "none",
        default => default,
    }
}

/// The configuration in force as a configuration file, with where each value comes from.
pub(super) fn effective(config: &Config, inputs: &Inputs) -> String {
    let lines: Vec<(String, Origin)> = config
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
         Every option is a flag (`--key value`), an environment variable and a key of a TOML file. A flag wins over the\n\
         variable, that over the file, that over the default. The file is named by `--config` or `SNUG_CONFIG`;\n\
         `{}` is read if it exists. Lists are arrays in the file, and elsewhere separated by commas.\n\n\
         The agent refuses to start on any mistake, in whatever place, and tells all of them at once. A `SNUG_*` variable\n\
         that is no option is a mistake too; those that the kubelet sets for a Service are passed over.\n\
         `snug-agent --check-config` prints the configuration in force and where each value comes from.\n",
        super::DEFAULT_FILE
    );
    let mut group = "";
    for spec in OPTIONS {
        if spec.group != group {
            group = spec.group;
            let _ = write!(
                text,
                "\n## {group}\n\n| Key | Variable | Default | Allowed | What it does |\n|---|---|---|---|---|\n"
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
