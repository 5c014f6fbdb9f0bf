//! The invariants of ARCHITECTURE.md that a test can hold: what must be absent from where.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod arrows;
mod docs;
mod kernels;
mod layers;
mod planted;
mod reliability;
mod rules;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    arrows::Crate,
    layers::{AGENT, CLI, EBPF, EXPORTERS},
};

/// Longest file of Rust, in lines.
const LONGEST: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All Rust files below a folder of the repository, with their text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

/// Fails for each line of code below `folder` that has one of `words`, but for files whose path contains one of `except`.
fn absent(folder: &str, words: &[&str], except: &[&str]) {
    for (path, text) in sources(folder) {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        if except.iter().any(|place| name.contains(place)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in words {
                assert!(!code.contains(word), "{name}:{}: {word} must be absent here", number + 1);
            }
        }
    }
}

#[test]
fn only_the_kernel_module_knows_aya_and_unsafe_calls() {
    absent("agent/src", &["aya::", "aya_log", "unsafe "], &["agent/src/kernel/"]);
}

#[test]
fn each_component_of_the_sampler_begins_with_its_metrics() {
    let known = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let mut components = 0;
    for (path, text) in sources("agent/src/samplers") {
        if !text.contains("impl Component for") {
            continue;
        }
        components += 1;
        let about: String = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
        assert!(about.to_lowercase().contains("metric"), "{}: which metrics?", path.display());
        let is_metric =
            |name: &&str| ["snug_", "container_", "machine_"].iter().any(|start| name.starts_with(start));
        for name in about.split('`').skip(1).step_by(2).filter(is_metric) {
            let wanted = format!("`{}", name.trim_end_matches('*'));
            assert!(known.contains(&wanted), "{}: {name} is not in docs/metrics.md", path.display());
        }
    }
    assert!(components > 15, "{components} components");
}

#[test]
fn unsafe_code_is_in_the_kernel_module_and_the_kernel_half_only() {
    for folder in ["cli/src", "client/src", "fuzz", "sizing/src", "xtask/src", "tests"] {
        absent(folder, &["unsafe "], &["tests/architecture/"]);
    }
}

#[test]
fn exporters_only_read_the_published_view() {
    let outside = ["std::fs", "File::open", "crate::kernel", "crate::samplers", "crate::cgroupfs", "procfs"];
    absent("agent/src/exporters", &outside, &["tests.rs", "exporters/fixture"]);
}

#[test]
fn exporters_know_nothing_of_the_file_system_in_their_imports() {
    for (path, text) in sources("agent/src/exporters") {
        if path.ends_with("tests.rs") || path.display().to_string().contains("exporters/fixture") {
            continue;
        }
        let before_tests = text.split("#[cfg(test)]").next().unwrap_or_default();
        assert!(!before_tests.contains("fs::"), "{} uses the file system", path.display());
    }
}

#[test]
fn the_command_and_sizing_have_no_code_for_linux_alone() {
    let for_linux = ["os::linux", "procfs", "rustix", "libc::", "target_os", "\"/proc/", "\"/sys/"];
    for folder in ["cli/src", "client/src", "sizing/src"] {
        absent(folder, &for_linux, &["tests.rs"]);
    }
}

#[test]
fn the_store_and_identity_do_not_know_who_feeds_or_reads_them() {
    absent("agent/src/store", &["crate::exporters", "crate::kernel", "crate::samplers"], &[]);
    absent(
        "agent/src/identity",
        &["crate::exporters", "crate::kernel", "crate::samplers", "crate::store"],
        &[],
    );
}

/// The crates whose modules must not use each other, by their folders, and of which root file.
const CRATES: [(&str, &str); 6] = [
    ("agent", "lib"),
    ("agent-ebpf", "main"),
    ("cli", "lib"),
    ("client", "lib"),
    ("sizing", "lib"),
    ("xtask", "main"),
];

fn read(folder: &str) -> Crate {
    let (_, root_file) = CRATES.into_iter().find(|(name, _)| *name == folder).unwrap();
    Crate::read(&root().join(folder).join("src"), root_file)
}

#[test]
fn each_module_uses_only_the_layers_that_it_may() {
    for (folder, parent, layers) in
        [("agent", "", AGENT), ("agent", "exporters", EXPORTERS), ("agent-ebpf", "", EBPF), ("cli", "", CLI)]
    {
        assert_eq!(layers::disorder(layers), [""; 0], "{folder}: a layer may use those above it alone");
        assert_eq!(layers::forbidden(&read(folder), parent, layers), [""; 0], "{folder}");
    }
}

#[test]
fn no_modules_use_each_other() {
    for (folder, _) in CRATES {
        let read = read(folder);
        assert!(!read.arrows.is_empty(), "{folder}: nothing was read");
        assert_eq!(layers::circles(&read), [""; 0], "{folder}");
    }
}

#[test]
fn shared_records_do_not_know_aya() {
    absent("agent-ebpf/src/abi", &["aya"], &[]);
}

#[test]
fn sizing_is_pure() {
    absent("sizing/src", &["std::fs", "std::net", "std::process", "std::env", "async ", "tokio"], &[]);
}

#[test]
fn no_file_is_too_long() {
    for folder in ["agent", "agent-ebpf", "cli", "sizing", "tests", "xtask"] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= LONGEST, "{} has {lines} lines; more than {LONGEST}", path.display());
        }
    }
}

#[test]
fn no_doc_repeats_the_name_below_it() {
    let mut found = Vec::new();
    for folder in ["agent", "agent-ebpf/src", "cli", "client", "fuzz/src", "sizing", "tests", "xtask"] {
        for (path, text) in sources(folder) {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            if !docs::SHOWN.iter().any(|place| name.starts_with(place)) {
                found.extend(docs::empty_docs(&text).iter().map(|line| format!("{name}:{line}")));
            }
        }
    }
    assert!(found.is_empty(), "docs that say nothing:\n{}", found.join("\n"));
}

#[test]
fn the_rules_themselves_can_fail() {
    let broken = std::panic::catch_unwind(|| absent("agent/src/kernel", &["unsafe "], &[]));
    assert!(broken.is_err(), "the kernel module has unsafe code, and the rule did not see it");
}
