//! Settings of language runtimes in a container's arguments and environment: which names are read, and what their values mean.
//!
//! Environments hold secrets, so [`pick`] keeps only the names below, and only values that are sizes, shares or numbers.

use std::collections::BTreeMap;

/// Variables whose value is a setting.
pub const VARIABLES: [&str; 10] = [
    "COMPlus_GCHeapHardLimit",
    "COMPlus_GCHeapHardLimitPercent",
    "DOTNET_GCHeapHardLimit",
    "DOTNET_GCHeapHardLimitPercent",
    "DOTNET_PROCESSOR_COUNT",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "OMP_NUM_THREADS",
    "UV_THREADPOOL_SIZE",
    "WEB_CONCURRENCY",
];
/// Variables that hold arguments of a program.
pub const ARGUMENT_VARIABLES: [&str; 12] = [
    "CATALINA_OPTS",
    "ES_JAVA_OPTS",
    "GUNICORN_CMD_ARGS",
    "JAVA_OPTIONS",
    "JAVA_OPTS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "JVM_OPTS",
    "KAFKA_HEAP_OPTS",
    "LS_JAVA_OPTS",
    "NODE_OPTIONS",
    "_JAVA_OPTIONS",
];
/// Arguments of programs.
pub const ARGUMENTS: [&str; 8] = [
    "--concurrency",
    "--max-old-space-size",
    "--workers",
    "-XX:ActiveProcessorCount",
    "-XX:MaxHeapSize",
    "-XX:MaxRAMFraction",
    "-XX:MaxRAMPercentage",
    "-Xmx",
];
/// Programs of a language runtime. A program is kept as a name without a value.
pub const PROGRAMS: [(&str, Runtime); 3] =
    [("dotnet", Runtime::DotNet), ("java", Runtime::Jvm), ("node", Runtime::Node)];
/// Programs that run the program named in their arguments.
const WRAPPERS: [&str; 9] =
    ["ash", "bash", "dash", "dumb-init", "env", "exec", "sh", "tini", "docker-entrypoint.sh"];
/// Words of a container's arguments or of one variable that are read at most.
const MAX_WORDS: usize = 1000;
/// Heaps from here on are no bound, bytes: Go's default is 2^63 - 1.
const UNLIMITED: u64 = 1 << 50;
/// Settings of a container at most.
const MAX_SETTINGS: usize = 32;

/// A language runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Runtime {
    /// The Java virtual machine.
    Jvm,
    Go,
    /// Node.js.
    Node,
    /// .NET.
    DotNet,
}

impl Runtime {
    /// The name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jvm => "the JVM",
            Self::Go => "Go",
            Self::Node => "Node.js",
            Self::DotNet => ".NET",
        }
    }

    /// Memory that a program needs in all, as a multiple of its heap. `docs/recommendations.md` has the sources.
    pub const fn overhead(self) -> f64 {
        match self {
            Self::Jvm | Self::Node | Self::DotNet => 4.0 / 3.0,
            // The value is a limit of all memory of Go's runtime, not of the heap alone.
            Self::Go => 1.1,
        }
    }
}

/// What a setting means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Meaning {
    /// The largest heap, bytes.
    Heap(Runtime, u64),
    /// The largest heap as a share of the memory limit, above 0 and at most 1.
    HeapShare(Runtime, f64),
    /// Threads that the runtime uses instead of the number that the CPU limit gives.
    Threads(u64),
    /// Worker processes or threads, each with memory and CPU time of its own.
    Workers(u64),
    /// The container runs this runtime, and nothing of its settings is known.
    Program(Runtime),
    /// The value is not known: it comes from another object (`valueFrom`), or is not a number.
    Unknown,
}

/// Words in the names of images that show the runtime. Whole words of the path only, so that `node-exporter` is not Node.js.
const IMAGES: [(&str, Runtime); 14] = [
    ("amazoncorretto", Runtime::Jvm),
    ("aspnet", Runtime::DotNet),
    ("cassandra", Runtime::Jvm),
    ("eclipse-temurin", Runtime::Jvm),
    ("elasticsearch", Runtime::Jvm),
    ("ibmjava", Runtime::Jvm),
    ("jenkins", Runtime::Jvm),
    ("jetty", Runtime::Jvm),
    ("kafka", Runtime::Jvm),
    ("keycloak", Runtime::Jvm),
    ("logstash", Runtime::Jvm),
    ("node", Runtime::Node),
    ("openjdk", Runtime::Jvm),
    ("tomcat", Runtime::Jvm),
];

/// The runtime that the name of an image suggests.
pub fn runtime_of_image(image: &str) -> Option<Runtime> {
    let name = |part: &str| part.split(['@', ':']).next().unwrap_or_default().to_owned();
    let has = |word: &str| image.split('/').any(|part| name(part) == word);
    IMAGES.iter().find(|(word, _)| has(word)).map(|(_, runtime)| *runtime)
}

/// The name of the argument or variable itself, without the variable that holds the argument.
fn own_name(name: &str) -> &str {
    name.rsplit(' ').next().unwrap_or(name)
}

/// The meaning of a setting that [`pick`] kept.
pub fn meaning(name: &str, value: &str) -> Meaning {
    if let Some((_, runtime)) = PROGRAMS.iter().find(|(program, _)| *program == name) {
        return Meaning::Program(*runtime);
    }
    known(name, value).unwrap_or(Meaning::Unknown)
}

/// The meaning of a value; `None` if the value is not a number of the expected form.
fn known(name: &str, value: &str) -> Option<Meaning> {
    let heap = |runtime: Runtime, bytes: Option<u64>| {
        bytes.filter(|bytes| *bytes < UNLIMITED).map(|bytes| Meaning::Heap(runtime, bytes))
    };
    let share = |percent: f64| (percent > 0.0 && percent <= 100.0).then_some(percent / 100.0);
    match own_name(name) {
        "-Xmx" | "-XX:MaxHeapSize" => heap(Runtime::Jvm, jvm_size(value)),
        "-XX:MaxRAMPercentage" => {
            share(value.parse().ok()?).map(|share| Meaning::HeapShare(Runtime::Jvm, share))
        }
        "-XX:MaxRAMFraction" => {
            let fraction: u32 = value.parse().ok().filter(|fraction| *fraction > 0)?;
            Some(Meaning::HeapShare(Runtime::Jvm, 1.0 / f64::from(fraction)))
        }
        "--max-old-space-size" => heap(Runtime::Node, value.parse::<u64>().ok()?.checked_mul(1 << 20)),
        "GOMEMLIMIT" => heap(Runtime::Go, go_size(value)),
        "DOTNET_GCHeapHardLimit" | "COMPlus_GCHeapHardLimit" => heap(Runtime::DotNet, hexadecimal(value)),
        "DOTNET_GCHeapHardLimitPercent" | "COMPlus_GCHeapHardLimitPercent" => {
            share(hexadecimal(value)? as f64).map(|share| Meaning::HeapShare(Runtime::DotNet, share))
        }
        "GOMAXPROCS"
        | "-XX:ActiveProcessorCount"
        | "OMP_NUM_THREADS"
        | "UV_THREADPOOL_SIZE"
        | "DOTNET_PROCESSOR_COUNT" => value.parse().ok().map(Meaning::Threads),
        "--workers" | "--concurrency" | "WEB_CONCURRENCY" => value.parse().ok().map(Meaning::Workers),
        _ => None,
    }
}

/// Bytes as the JVM writes them: a number with `k`, `m`, `g` or `t`, or without a unit.
fn jvm_size(value: &str) -> Option<u64> {
    let digits = value.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let shift = match value.get(digits.len()..)? {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Bytes as Go writes them: a number with `B`, `KiB`, `MiB`, `GiB` or `TiB`, or without a unit.
fn go_size(value: &str) -> Option<u64> {
    let digits = value.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let shift = match value.get(digits.len()..)? {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Numbers in variables of .NET are hexadecimal, with or without `0x`.
fn hexadecimal(value: &str) -> Option<u64> {
    let digits = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")).unwrap_or(value);
    u64::from_str_radix(digits, 16).ok()
}

/// The settings in a container's `command` and `args` (in this order) and in its environment; a variable without a value is one
/// whose value comes from another object (`valueFrom`).
///
/// The result has names of the lists above. An argument in a variable has the name of the variable before its own, such as
/// `JAVA_TOOL_OPTIONS -Xmx`. The value is empty where it is not known, and where the name is a program's. Of repeated arguments
/// the last one counts, as runtimes have it.
pub fn pick<'a>(
    arguments: impl IntoIterator<Item = &'a str>,
    environment: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) -> BTreeMap<String, String> {
    let environment: Vec<(&str, Option<&str>)> = environment.into_iter().collect();
    let value_of = |name: &str| {
        environment.iter().rev().find(|(variable, _)| *variable == name).and_then(|(_, value)| *value)
    };
    let mut settings = BTreeMap::new();
    let mut keep = |name: String, value: &'a str| {
        if settings.len() < MAX_SETTINGS || settings.contains_key(&name) {
            let value = expanded(value, value_of).filter(|value| known(&name, value).is_some());
            settings.insert(name, value.unwrap_or_default().to_owned());
        }
    };
    let arguments: Vec<&str> = arguments.into_iter().flat_map(words).take(MAX_WORDS).collect();
    for (name, value) in found(&arguments) {
        keep(name.to_owned(), value);
    }
    if let Some((program, _)) = program(&arguments) {
        keep(program.to_owned(), "");
    }
    for (name, value) in &environment {
        if VARIABLES.contains(name) && *value != Some("off") {
            keep((*name).to_owned(), value.unwrap_or_default());
        } else if ARGUMENT_VARIABLES.contains(name) {
            let Some(text) = value else {
                keep((*name).to_owned(), "");
                continue;
            };
            let words: Vec<&str> = words(text).take(MAX_WORDS).collect();
            for (option, value) in found(&words) {
                keep(format!("{name} {option}"), value);
            }
        }
    }
    settings
}

/// The words of a text without quotes around them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().map(|word| word.trim_matches(['"', '\'', ';']))
}

/// The arguments with a name of the list, with their values.
fn found<'a>(words: &[&'a str]) -> impl Iterator<Item = (&'static str, &'a str)> {
    words.iter().enumerate().filter_map(|(at, word)| {
        // V8 takes underscores for dashes.
        let dashed = word.replace('_', "-");
        ARGUMENTS.into_iter().find_map(|name| {
            let length = name.len();
            let is_named = if name.starts_with("--") {
                dashed.get(..length) == Some(name)
            } else {
                word.get(..length) == Some(name)
            };
            let rest = word.get(length..).filter(|_| is_named)?;
            let value = if name == "-Xmx" {
                rest
            } else if rest.is_empty() && name.starts_with("--") {
                words.get(at + 1)?
            } else {
                rest.strip_prefix('=')?
            };
            Some((name, value))
        })
    })
}

/// The language runtime whose program a container runs, where the arguments name it.
fn program(words: &[&str]) -> Option<(&'static str, Runtime)> {
    let base = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let of = |word: &&str| PROGRAMS.into_iter().find(|(program, _)| *program == base(word));
    let first = words.first()?;
    if WRAPPERS.contains(&base(first).as_str()) { words.iter().find_map(of) } else { of(first) }
}

/// A value in which `$(NAME)` or `${NAME}`, and nothing else, stands for a variable. `None` if that variable is not known.
fn expanded<'a>(value: &'a str, value_of: impl Fn(&str) -> Option<&'a str>) -> Option<&'a str> {
    let inner = |open: &str, close: char| value.strip_prefix(open)?.strip_suffix(close);
    match inner("$(", ')').or_else(|| inner("${", '}')) {
        Some(name) => value_of(name),
        None => Some(value),
    }
}

#[cfg(test)]
mod tests;
