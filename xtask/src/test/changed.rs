//! Which stages a change can touch.

use std::collections::BTreeSet;

use anyhow::Result;
use clap::ValueEnum as _;

use super::Stage;
use crate::command;

/// What each place can touch. The first that fits counts; what fits none can touch everything.
const PLACES: &[(&str, &[Stage])] = {
    use Stage::{Clippy, Cluster, Docs, Fmt, Kernel, Manifests, System, Toolchain, Unit, Vm};
    &[
        ("agent-ebpf/", &[Fmt, Clippy, Docs, Unit, Toolchain, Vm, Kernel, System, Cluster]),
        ("agent/", &[Fmt, Clippy, Docs, Unit, Vm, Kernel, System, Cluster]),
        ("sizing/", &[Fmt, Clippy, Docs, Unit, System, Cluster]),
        ("client/", &[Fmt, Clippy, Docs, Unit, System, Cluster]),
        ("cli/", &[Fmt, Clippy, Docs, Unit, System, Cluster]),
        ("deploy/", &[Unit, Manifests, Cluster]),
        ("docs/", &[Unit]),
        ("tests/tests/kernel/", &[Fmt, Clippy, Docs, Vm, Kernel]),
        ("tests/tests/system/", &[Fmt, Clippy, Docs, System]),
        ("tests/tests/cluster/", &[Fmt, Clippy, Docs, Cluster]),
        ("tests/tests/manifests.rs", &[Fmt, Clippy, Docs, Manifests]),
        ("tests/tests/architecture", &[Fmt, Clippy, Docs, Unit]),
        ("tests/benches/", &[Fmt, Clippy]),
        ("tests/workload/", &[Fmt, Clippy, Docs, Unit, Cluster]),
        ("tests/otlp/", &[System]),
        ("tests/", &[Fmt, Clippy, Docs, Unit, Vm, Kernel, System, Manifests, Cluster]),
        ("xtask/src/cluster/", &[Fmt, Clippy, Docs, Unit, Cluster]),
        ("xtask/src/image/", &[Fmt, Clippy, Docs, Unit, Cluster]),
        ("xtask/src/vm/", &[Fmt, Clippy, Docs, Unit, Vm]),
        ("xtask/src/demo", &[Fmt, Clippy, Docs, Unit]),
        ("xtask/src/backtest.rs", &[Fmt, Clippy, Docs, Unit]),
        ("xtask/src/bench.rs", &[Fmt, Clippy, Docs, Unit]),
        ("LICENSE", &[Unit, Cluster]),
        (".ci/", &[]),
        ("deny.toml", &[]),
    ]
};

/// The stages that what is not committed and the commits since `base` can touch.
pub(super) fn stages(base: &str) -> Result<BTreeSet<Stage>> {
    let listed = |arguments: &[&str]| command::capture(command::new("git").args(arguments));
    let since = listed(&["diff", "--name-only", "--no-renames", "-z", base, "--"])?;
    let untracked = listed(&["ls-files", "--others", "--exclude-standard", "-z"])?;
    let paths: Vec<&str> =
        since.split('\0').chain(untracked.split('\0')).filter(|path| !path.is_empty()).collect();
    let stages = touched(&paths);
    let names: Vec<String> = stages.iter().map(|stage| stage.name()).collect();
    println!("test: {} changed files can touch: {}", paths.len(), names.join(", "));
    Ok(stages)
}

fn touched(paths: &[&str]) -> BTreeSet<Stage> {
    let of = |path: &&str| -> &[Stage] {
        let place = PLACES.iter().find(|(place, _)| path.starts_with(place));
        match place {
            Some((_, stages)) => stages,
            // Pages at the root, which tests read.
            None if path.ends_with(".md") && !path.contains('/') => &[Stage::Unit],
            None => Stage::value_variants(),
        }
    };
    paths.iter().flat_map(of).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_runs_what_it_can_touch() {
        let all = Stage::value_variants().len();
        assert!(touched(&[]).is_empty());
        assert_eq!(touched(&["README.md"]), BTreeSet::from([Stage::Unit]));
        assert!(touched(&["cli/src/main.rs"]).contains(&Stage::Cluster));
        assert!(!touched(&["cli/src/main.rs"]).contains(&Stage::Vm));
        assert!(touched(&["agent/src/main.rs", "deploy/base/a.yaml"]).contains(&Stage::Manifests));
        for everything in ["Cargo.lock", "Cargo.toml", ".cargo/config.toml", "xtask/src/build.rs", "new/file"]
        {
            assert_eq!(touched(&[everything]).len(), all, "{everything}");
        }
    }

    #[test]
    fn every_place_is_there() {
        for (place, _) in PLACES {
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
