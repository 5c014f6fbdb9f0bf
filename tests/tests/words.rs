//! Words that only this project used stay out of code, comments, help texts, messages and documentation.
//!
//! Three kinds of words are searched, all as whole words (no letter, digit or `_` before and after):
//!
//! - [`TYPES`]: names of types, found in their declarations alone (`struct Room`), because most of them are English words.
//! - [`IDENTIFIERS`]: names and prefixes of names (`MOST_*`), found with exact case.
//! - [`PHRASES`]: words of prose, found in any case, also across line breaks and comment markers.
//!
//! [`EXCEPTIONS`] lists files that need a word. An exception without a hit fails the test, as does a hit without an exception.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Files and folders that are searched.
const SEARCHED: [&str; 16] = [
    "ARCHITECTURE.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "GOVERNANCE.md",
    "README.md",
    "SECURITY.md",
    "agent",
    "agent-ebpf",
    "cli",
    "client",
    "deploy",
    "docs",
    "sizing",
    "tests",
    "xtask",
    ".cargo",
];
/// Extensions of source and documentation files.
const EXTENSIONS: [&str; 6] = ["md", "rs", "sh", "toml", "txt", "yaml"];
/// Names of files and folders that are not searched.
const SKIPPED: [&str; 4] = ["CHANGELOG.md", "fixtures", "golden", "tests/words.rs"];

/// Names of types, each with a better name.
const TYPES: [(&str, &str); 44] = [
    ("About", "WarningKind"),
    ("Actor", "Container"),
    ("Answers", "AgentResponses"),
    ("Asked", "Query, PodRequests"),
    ("Between", "DurationRange"),
    ("Caution", "Warning"),
    ("Chosen", "WorkloadSelector"),
    ("Course", "UsageHistory"),
    ("Due", "Schedule"),
    ("EndRow", "TerminationRow"),
    ("Follower", "EventCursor"),
    ("Gathered", "EvidenceBuilder"),
    ("Known", "ResolvedCgroup, PodCache"),
    ("Ladder", "QuotaWhatIf"),
    ("LookState", "SampleClock"),
    ("Lookout", "EventDetectors"),
    ("Looks", "Samples"),
    ("Managed", "ManagedWorkload"),
    ("Mistake", "ConfigError"),
    ("Objection", "Violation"),
    ("Opened", "OpenedSource"),
    ("Origin", "a name that says of what"),
    ("Origins", "MeasurementSources"),
    ("Place", "CgroupRef, ContainerKey"),
    ("Placed", "PlacedPod"),
    ("Recording", "Snapshot"),
    ("Refusal", "NotEnoughData"),
    ("Room", "Headroom"),
    ("Row", "a name that says of what"),
    ("Rung", "QuotaOutcome"),
    ("Said", "ReasonText"),
    ("Seen", "ObservedContainer"),
    ("Sized", "MemorySize, CpuSize"),
    ("Source", "EvidenceSource"),
    ("Special", "PolicyOverride"),
    ("Strangers", "UnknownCgroups"),
    ("Surroundings", "ClusterConstraints"),
    ("Told", "PendingSamples"),
    ("Trust", "RootCertificates"),
    ("Turn", "RoundRobin, EncodePermit"),
    ("Wanted", "SizingOptions"),
    ("Watched", "PodWatch"),
    ("Which", "KubeContext"),
    ("Withheld", "Skipped"),
];

/// Names and, with `*`, prefixes of names, each with a better one.
const IDENTIFIERS: [(&str, &str); 15] = [
    ("LEAST_*", "MIN_"),
    ("LONGEST_*", "MAX_"),
    ("MOST", "MAX_ with the thing"),
    ("MOST_*", "MAX_"),
    ("cpu_course_cores", "cpu_history_cores"),
    ("give_back", "trim_heap"),
    ("given_up", "expired"),
    ("in_force", "current"),
    ("made_or_removed", "invalidate"),
    ("pod_class", "pod_qos"),
    ("revisit", "resample"),
    ("take_wishes", "refresh_requests"),
    ("tell_looks", "flush_pending"),
    ("with_classes", "with_qos"),
    ("wishes", "refresh_requests"),
];

/// Words of prose, each with better ones.
const PHRASES: [(&str, &str); 33] = [
    ("all else is told", "list what is reported"),
    ("at rest", "idle"),
    ("by what was seen", "against recorded usage"),
    ("cannot be given back", "unreclaimable"),
    ("class of service", "QoS class"),
    ("counts for nothing", "is ignored"),
    ("has its say", "applies"),
    ("has the last word", "overrides"),
    ("hold proposals against", "check recommendations"),
    ("in force", "current"),
    ("is told", "is reported"),
    ("kernel half", "eBPF programs"),
    ("ladder", "quota simulation"),
    ("ladders", "quota simulations"),
    ("nobody watched", "no data"),
    ("now and then", "current and recommended"),
    ("out of order", "name the state"),
    ("put off", "delayed"),
    ("recordings", "snapshots, traces"),
    ("restless", "needs_every_window"),
    ("rung", "outcome of a quota"),
    ("rungs", "outcomes of quotas"),
    ("still count", "older peaks weigh less"),
    ("strangers", "unknown cgroups"),
    ("suffered", "contention"),
    ("takes the right to", "requires"),
    ("that is said", "reported"),
    ("there is nothing to be had", "cannot be read"),
    ("told", "reported"),
    ("untold", "pending"),
    ("watched containers", "container-seconds observed"),
    ("what happens anyway", "default"),
    ("would have come of", "simulate"),
];

/// Files that need a word, with the reason.
const EXCEPTIONS: [(&str, &str, &str); 14] = [
    ("README.md", "ladder", "the option cpu-ladder"),
    ("agent/src/config/options.rs", "ladder", "the option cpu-ladder"),
    ("cli/src/renamed.rs", "cpu_course_cores", "the old name of a JSON field, written for one version"),
    ("docs/api.md", "in_force", "the old name of a JSON field, which is read for one version"),
    ("docs/api.md", "ladder", "the old name of a JSON field, which is read for one version"),
    ("docs/configuration.md", "ladder", "the option cpu-ladder"),
    ("docs/performance.md", "ladder", "the option cpu-ladder"),
    ("docs/queries.md", "ladder", "the option cpu-ladder"),
    ("sizing/src/evidence.rs", "ladder", "the old name of a field is read for one version"),
    ("sizing/src/evidence/tests.rs", "in_force", "a test reads the old name of a field"),
    ("sizing/src/evidence/tests.rs", "ladder", "a test reads the old name of a field"),
    ("tests/benches/agent/node.rs", "ladder", "the option cpu-ladder"),
    ("tests/tests/system/recommend.rs", "ladder", "the option cpu-ladder"),
    ("sizing/src/workload.rs", "in_force", "the old name of a field is read for one version"),
];

/// The text of a file as words with the lines that they are on, without comment markers.
struct Words<'t> {
    words: Vec<(&'t str, usize)>,
}

impl<'t> Words<'t> {
    fn new(text: &'t str) -> Self {
        let markers = ["//", "///", "//!", "#", "*", "-", "|"];
        let line = |(number, line): (usize, &'t str)| {
            let words = line.split_whitespace().enumerate();
            let kept = words.filter(move |(position, word)| *position > 0 || !markers.contains(word));
            kept.map(move |(_, word)| (word, number + 1))
        };
        Self { words: text.lines().enumerate().flat_map(line).collect() }
    }

    /// The lines on which a phrase begins. `ignore_case` expects a phrase in lower case.
    fn lines(&self, phrase: &str, ignore_case: bool) -> Vec<usize> {
        let wanted: Vec<&str> = phrase.split(' ').collect();
        let matches = |words: &&[(&str, usize)]| {
            let last = wanted.len() - 1;
            wanted.iter().zip(*words).enumerate().all(|(position, (wanted, (word, _)))| {
                let found = if ignore_case { word.to_lowercase() } else { (*word).to_owned() };
                // Inside a phrase only a space may separate the words; at its ends there may be punctuation.
                occurrences(&found, wanted)
                    .any(|(before, after)| (position == 0 || before) && (position == last || after))
            })
        };
        self.words.windows(wanted.len()).filter(matches).filter_map(|words| Some(words.first()?.1)).collect()
    }
}

/// The occurrences of a whole word in a text, or of a prefix with `*`: whether each is at the begin and at the end of the text.
fn occurrences(text: &str, wanted: &str) -> impl Iterator<Item = (bool, bool)> {
    let (wanted, is_prefix) = wanted.strip_suffix('*').map_or((wanted, false), |prefix| (prefix, true));
    let is_inside = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(wanted).filter_map(move |(at, found)| {
        let (before, after) = (text.get(..at)?, text.get(at + found.len()..)?);
        let is_whole = !before.ends_with(is_inside) && (is_prefix || !after.starts_with(is_inside));
        is_whole.then_some((before.is_empty(), after.is_empty()))
    })
}

/// Each hit: the word, the better one, and the line.
fn hits(text: &str) -> Vec<(&'static str, &'static str, usize)> {
    let words = Words::new(text);
    let lower_case = text.to_lowercase();
    let mut hits = Vec::new();
    let mut add = |word: &'static str, better, phrase: &str, ignore_case: bool| {
        // Few files have any of them: searching the text is far quicker than comparing words.
        let searched = if ignore_case { &*lower_case } else { text };
        if phrase.split(' ').all(|part| searched.contains(part.trim_end_matches('*'))) {
            hits.extend(words.lines(phrase, ignore_case).into_iter().map(|line| (word, better, line)));
        }
    };
    for (name, better) in TYPES {
        for declaration in ["struct", "enum", "trait", "type"] {
            add(name, better, &format!("{declaration} {name}"), false);
        }
    }
    for (name, better) in IDENTIFIERS {
        add(name, better, name, false);
    }
    for (phrase, better) in PHRASES {
        add(phrase, better, phrase, true);
    }
    hits
}

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if SKIPPED.iter().any(|name| path.ends_with(name)) {
        return;
    }
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| files(&entry.unwrap().path(), found));
    } else if path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|it| *it == extension)) {
        found.push(path.to_owned());
    }
}

#[test]
fn words_of_this_project_alone_stay_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut all = Vec::new();
    SEARCHED.iter().for_each(|path| files(&root.join(path), &mut all));
    all.sort();
    assert!(all.len() > 50, "{all:?}");
    let mut needed = BTreeSet::new();
    let mut wrong = Vec::new();
    for path in all {
        let text = fs::read_to_string(&path).unwrap();
        let file = path.strip_prefix(root).unwrap().to_str().unwrap();
        for (word, better, line) in hits(&text) {
            match EXCEPTIONS.iter().find(|(of, excepted, _)| *of == file && *excepted == word) {
                Some((file, word, _)) => drop(needed.insert((*file, *word))),
                None => wrong.push(format!("{file}:{line}: {word:?}; better: {better}")),
            }
        }
    }
    for (file, word, reason) in EXCEPTIONS {
        if !needed.contains(&(file, word)) {
            wrong.push(format!("{file} no longer has {word:?} ({reason}): remove the exception"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn words_are_found_as_described() {
    let found = |text: &str| hits(text).into_iter().map(|(word, _, line)| (word, line)).collect::<Vec<_>>();
    assert_eq!(found("let x = 1;\npub struct Room {"), [("Room", 2)]);
    assert_eq!(found("pub struct RoomService;\n// Room for more."), []);
    assert_eq!(found("const MOST_KILLS: u8 = 1; // MOSTLY"), [("MOST_*", 1)]);
    assert_eq!(found("/// Limits in\n    /// force, `Put off`."), [("in force", 1), ("put off", 2)]);
    assert_eq!(found("in-force; enforce in. force"), []);
    assert_eq!(found("It is not told."), [("told", 1)]);
    assert_eq!(found("cpu-ladder"), [("ladder", 1)]);
}
