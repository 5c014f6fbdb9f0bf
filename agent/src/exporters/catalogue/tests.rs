use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf};

use super::*;
use crate::exporters::kubelet;

/// What promtool's linter refuses in a name, and what it cannot know.
#[test]
fn names_follow_the_conventions() {
    for family in families() {
        let name = family.name;
        let scope =
            ["snug_container_", "snug_pod_", "snug_workload_", "snug_pod_container_", "kube_", "snug_agent_"]
                [family.scope() as usize];
        assert!(name.starts_with(scope), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        assert!(!name.contains("__") && !name.ends_with('_'), "{name}");
        for suffix in ["_total", "_count", "_sum", "_bucket", "_created"] {
            assert!(!name.ends_with(suffix), "{name}: {suffix} is reserved");
        }
        for part in name.split('_').skip(2) {
            assert!(
                !["counter", "gauge", "histogram", "summary"].contains(&part),
                "{name}: type in the name"
            );
            let abbreviated =
                ["s", "ms", "us", "ns", "sec", "b", "kb", "mb", "milliseconds", "nanoseconds", "percent"];
            assert!(!abbreviated.contains(&part), "{name}: not a base unit in full");
        }
        let unit = family.unit.as_str();
        let units = ["seconds", "bytes", "cores", "bytes_per_second"];
        let named = units.into_iter().find(|unit| name.ends_with(&format!("_{unit}")));
        assert_eq!(unit, named.unwrap_or_default(), "{name}");
        let stem = family.stem();
        assert_eq!(if unit.is_empty() { stem.to_owned() } else { format!("{stem}_{unit}") }, name);
        assert!(!name.ends_with("_info") || family.kind == Kind::Gauge, "{name}");
        assert_eq!(family.series_name().ends_with("_total"), family.kind == Kind::Counter, "{name}");
    }
}

#[test]
fn help_texts_and_labels_can_be_written_as_they_are() {
    for family in families() {
        assert!(family.help.starts_with(|c: char| c.is_ascii_uppercase()), "{}", family.name);
        assert!(!family.help.ends_with('.'), "{}", family.name);
        assert!(!family.help.contains(['\n', '\\', '"', '|']), "{}", family.name);
        let all: Vec<_> = family.scope().label_names().iter().chain(family.labels).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{}: a label twice", family.name);
        for label in family.labels {
            assert!(label.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{label}");
            assert!(!["le", "quantile", "job", "instance"].contains(label), "{label} is reserved");
        }
    }
    for family in kubelet::families() {
        assert!(
            !family.help.contains(['\n', '\\', '"', '|']) && !family.differs.contains(['\n', '|']),
            "{}",
            family.name
        );
    }
}

#[test]
fn names_are_unique() {
    let names: Vec<_> = families().map(|family| family.name).collect();
    let kubelets: Vec<_> = kubelet::families().map(|family| family.name).collect();
    let all: BTreeSet<_> = names.iter().chain(&kubelets).collect();
    assert_eq!(all.len(), names.len() + kubelets.len());
}

#[test]
fn a_family_is_filed_under_its_scope() {
    for scope in Scope::ALL {
        assert!(scope.families().iter().all(|family| family.scope() == scope), "{scope:?}");
    }
}

/// `docs/metrics.md` is written by this test: run it with `SNUG_BLESS=1` after a change.
#[test]
fn the_documentation_is_current() {
    let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md"));
    let current = document();
    if std::env::var_os("SNUG_BLESS").is_some_and(|bless| bless == "1") {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &current).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == current,
        "docs/metrics.md does not match the catalogue: run this test with SNUG_BLESS=1 and commit the file"
    );
}

fn document() -> String {
    let mut out = String::from(include_str!("metrics.head.md"));
    let titles = [
        "Containers",
        "Pods",
        "Workloads",
        "Containers in the status of pods",
        "Under the names of kube-state-metrics, if the option `kube-state-metrics` is on",
        "The agent itself",
    ];
    for (scope, title) in Scope::ALL.into_iter().zip(titles) {
        let _ = write!(out, "\n### {title}\n\n");
        if !scope.label_names().is_empty() {
            let _ = write!(out, "Labels of every series: {}.\n\n", code_list(scope.label_names()));
        }
        out.push_str("| series | type | further labels | meaning |\n|---|---|---|---|\n");
        for family in scope.families() {
            let (name, kind, labels) = (family.series_name(), family.kind.as_str(), code_list(family.labels));
            let _ = writeln!(out, "| `{name}` | {kind} | {labels} | {} |", family.help);
        }
    }
    out.push_str(include_str!("metrics.kubelet.md"));
    out.push_str("\n### Served\n\n| series | type | meaning | differs from a kubelet |\n|---|---|---|---|\n");
    for family in kubelet::families() {
        let differs = if family.differs.is_empty() { "same" } else { family.differs };
        let _ =
            writeln!(out, "| `{}` | {} | {} | {differs} |", family.name, family.kind.as_str(), family.help);
    }
    out.push_str("\n### Left out\n\n| series | why |\n|---|---|\n");
    for (pattern, why) in kubelet::LEFT_OUT {
        let _ = writeln!(out, "| `{pattern}` | {why} |");
    }
    out.push_str(include_str!("metrics.resource.md"));
    for family in &kubelet::resource::FAMILIES {
        let (name, kind, labels) = (family.name, family.kind.as_str(), code_list(family.labels()));
        let _ = writeln!(out, "| `{name}` | {kind} | {labels} | {} |", family.help);
    }
    let (name, help) = kubelet::resource::SCRAPE_ERROR;
    let _ = writeln!(out, "| `{name}` | gauge | | {help} |");
    out
}

fn code_list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
