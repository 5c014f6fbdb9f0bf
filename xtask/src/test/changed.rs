//! Selects the stages that a change can affect.

use std::collections::BTreeSet;

use anyhow::Result;
use clap::ValueEnum as _;

use super::Stage;
use crate::command;

/// Stages by path prefix. The first match counts; a path without a match affects all stages.
const STAGES_BY_PATH: &[(&str, &[Stage])] = {
    use Stage::{
        Browser, Clippy, Cluster, Deny, Docs, Fmt, Fuzz, Kernel, Manifests, Pages, System, Toolchain, Unit,
        Vm,
    };
    &[
        ("agent-ebpf/", &[Fmt, Clippy, Docs, Unit, Toolchain, Vm, Kernel, System, Cluster]),
        ("agent/", &[Fmt, Clippy, Docs, Unit, Fuzz, Vm, Kernel, System, Cluster]),
        ("sizing/", &[Fmt, Clippy, Docs, Unit, Fuzz, Browser, System, Cluster]),
        ("client/", &[Fmt, Clippy, Docs, Unit, Fuzz, System, Cluster]),
        ("cli/", &[Fmt, Clippy, Docs, Unit, Fuzz, Browser, System, Manifests, Cluster]),
        ("fuzz/", &[Fmt, Clippy, Docs, Fuzz]),
        ("deploy/", &[Unit, Manifests, Cluster]),
        // Commands and queries in pages are run.
        ("docs/", &[Unit, System, Manifests, Pages]),
        ("README.md", &[Unit, System, Manifests, Pages]),
        ("tests/tests/kernel/", &[Fmt, Clippy, Docs, Vm, Kernel]),
        ("tests/tests/system/", &[Fmt, Clippy, Docs, System]),
        ("tests/tests/cluster/", &[Fmt, Clippy, Docs, Cluster]),
        ("tests/tests/browser.rs", &[Fmt, Clippy, Docs, Browser]),
        ("tests/tests/manifests.rs", &[Fmt, Clippy, Docs, Manifests]),
        ("tests/tests/monitoring.rs", &[Fmt, Clippy, Docs, Manifests]),
        ("tests/tests/dashboards.rs", &[Fmt, Clippy, Docs, Manifests]),
        ("tests/tests/architecture", &[Fmt, Clippy, Docs, Unit]),
        ("tests/tests/pages.rs", &[Fmt, Clippy, Docs, Unit]),
        ("tests/benches/", &[Fmt, Clippy]),
        ("tests/workload/", &[Fmt, Clippy, Docs, Unit, Cluster]),
        ("tests/otlp/", &[System]),
        ("tests/", &[Fmt, Clippy, Docs, Unit, Vm, Kernel, System, Manifests, Browser, Cluster]),
        ("xtask/src/cluster/", &[Fmt, Clippy, Docs, Unit, Cluster]),
        ("xtask/src/image/", &[Fmt, Clippy, Docs, Unit, Cluster]),
        ("xtask/src/release/", &[Fmt, Clippy, Docs, Unit]),
        ("xtask/src/vm/", &[Fmt, Clippy, Docs, Unit, Vm]),
        ("xtask/src/emulator/", &[Fmt, Clippy, Docs, Unit, Vm]),
        ("xtask/src/kubernetes.rs", &[Fmt, Clippy, Docs, Unit, Cluster]),
        ("xtask/src/deny.rs", &[Fmt, Clippy, Docs, Deny]),
        ("xtask/src/fuzz.rs", &[Fmt, Clippy, Docs]),
        ("xtask/src/kernels/", &[Fmt, Clippy, Docs]),
        ("xtask/src/pages.rs", &[Fmt, Clippy, Docs, Unit, Pages]),
        ("xtask/src/soak.rs", &[Fmt, Clippy, Docs]),
        ("xtask/src/demo", &[Fmt, Clippy, Docs, Unit]),
        ("xtask/src/backtest.rs", &[Fmt, Clippy, Docs, Unit]),
        ("xtask/src/bench.rs", &[Fmt, Clippy, Docs, Unit]),
        ("LICENSE", &[Unit, Cluster]),
        (".ci/", &[]),
        (".github/", &[Unit]),
        ("deny.toml", &[Deny]),
    ]
};

/// The stages that uncommitted changes and the commits since `base` can affect.
pub(super) fn stages(base: &str) -> Result<BTreeSet<Stage>> {
    let listed = |arguments: &[&str]| command::capture(command::new("git").args(arguments));
    let since = listed(&["diff", "--name-only", "--no-renames", "-z", base, "--"])?;
    let untracked = listed(&["ls-files", "--others", "--exclude-standard", "-z"])?;
    let paths: Vec<&str> =
        since.split('\0').chain(untracked.split('\0')).filter(|path| !path.is_empty()).collect();
    let stages = affected(&paths);
    let names: Vec<String> = stages.iter().map(|stage| stage.name()).collect();
    println!("test: {} changed files affect these stages: {}", paths.len(), names.join(", "));
    Ok(stages)
}

fn affected(paths: &[&str]) -> BTreeSet<Stage> {
    let stages_of = |path: &&str| -> &[Stage] {
        let entry = STAGES_BY_PATH.iter().find(|(prefix, _)| path.starts_with(prefix));
        match entry {
            Some((_, stages)) => stages,
            // Unit tests read the pages at the root.
            None if path.ends_with(".md") && !path.contains('/') => &[Stage::Unit, Stage::Pages],
            None => Stage::value_variants(),
        }
    };
    paths.iter().flat_map(stages_of).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_selects_the_stages_it_can_affect() {
        let all = Stage::value_variants().len();
        assert!(affected(&[]).is_empty());
        assert_eq!(affected(&["SECURITY.md"]), BTreeSet::from([Stage::Unit, Stage::Pages]));
        assert!(affected(&["cli/src/main.rs"]).contains(&Stage::Cluster));
        assert!(!affected(&["cli/src/main.rs"]).contains(&Stage::Vm));
        assert!(affected(&["agent/src/main.rs", "deploy/base/a.yaml"]).contains(&Stage::Manifests));
        for everything in ["Cargo.lock", "Cargo.toml", ".cargo/config.toml", "xtask/src/build.rs", "new/file"]
        {
            assert_eq!(affected(&[everything]).len(), all, "{everything}");
        }
    }

    #[test]
    fn every_path_prefix_exists() {
        for (place, _) in STAGES_BY_PATH {
            let path = crate::workspace::root().join(place);
            let folder = path.parent().unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let there = path.exists()
                || std::fs::read_dir(folder).is_ok_and(|entries| {
                    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(&name))
                });
            assert!(there, "{place}");
        }
    }
}
