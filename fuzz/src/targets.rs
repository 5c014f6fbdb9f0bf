//! The targets. None panics, whatever the bytes.

use std::{ffi::OsString, fs, io, path::Path};

use flate2::{Compression, write::GzEncoder};
use snug::{
    backtest::traces,
    evidence::Snapshot,
    manifests::{Manifests, ReadOptions},
    policy::{Policies, PolicyAnnotation},
    prometheus,
    yaml::{
        self, Kind, New, Node, Step,
        edit::{self, Change, Edit},
    },
};
use snug_agent::{
    cgroupfs::{self, parse},
    config, cri,
    exporters::{api, evidence::EvidenceQuery, http},
    history,
    identity::{self, path},
    kernel, kubernetes,
    model::Pods,
    patterns::Pattern,
    samplers,
};
use snug_sizing::{
    engine::{self, Context, LikesScope, Policy, Profile},
    evidence::Hour,
};

use crate::corpus;

/// A function over bytes, and samples of what it reads.
#[derive(Debug)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Reads the bytes as one kind of input.
    pub run: fn(&[u8]),
    pub(crate) samples: fn() -> anyhow::Result<Vec<Vec<u8>>>,
}

impl Target {
    /// Samples of real inputs, and inputs that were once mishandled.
    ///
    /// # Errors
    /// When a file of the repository is missing.
    pub fn corpus(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut samples = (self.samples)()?;
        samples.extend(corpus::found(self.name)?);
        Ok(samples)
    }
}

pub const TARGETS: &[Target] = &[
    Target { name: "cgroup-paths", run: cgroup_paths, samples: corpus::cgroup_paths },
    Target { name: "cgroup-files", run: cgroup_files, samples: corpus::cgroup_files },
    Target { name: "mounts", run: cgroupfs::fuzz::mounts, samples: corpus::mounts },
    Target { name: "proc-files", run: samplers::fuzz::proc_files, samples: corpus::proc_files },
    Target { name: "btf", run: kernel::fuzz::types, samples: corpus::btf },
    Target { name: "kernel-events", run: kernel::fuzz::event, samples: corpus::kernel_events },
    Target { name: "pod-list", run: pod_list, samples: corpus::pods },
    Target { name: "watch-events", run: kubernetes::fuzz::pods, samples: corpus::watch_events },
    Target { name: "cri-answers", run: cri::fuzz::answer, samples: corpus::cri_answers },
    Target { name: "bundles", run: identity::fuzz::bundle, samples: corpus::bundles },
    Target { name: "configuration", run: configuration, samples: corpus::configuration },
    Target { name: "queries", run: queries, samples: corpus::queries },
    Target { name: "accept-headers", run: http::fuzz::accept, samples: corpus::accept_headers },
    Target { name: "history-files", run: history_file, samples: corpus::history_files },
    Target { name: "history-records", run: history::fuzz::record, samples: corpus::history_records },
    Target { name: "exposition", run: exposition, samples: corpus::exposition },
    Target { name: "snapshots", run: snapshot, samples: corpus::snapshots },
    Target { name: "prometheus-answers", run: prometheus_answer, samples: corpus::prometheus_answers },
    Target { name: "traces", run: trace, samples: corpus::traces },
    Target { name: "policies", run: policy, samples: corpus::policies },
    Target { name: "yaml-edits", run: yaml_edits, samples: corpus::yaml },
    Target { name: "manifests", run: manifests, samples: corpus::manifests },
];

fn cgroup_paths(bytes: &[u8]) {
    let nested = path::NestedNodes::new(&[Pattern::new("/docker/*"), Pattern::new("/kubepods/*/node*")]);
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        path::parse(line);
        path::parse_with(line, &nested);
    }
}

/// No kernel writes a file that fails for all parsers, but each parser must survive every file.
fn cgroup_files(bytes: &[u8]) {
    // What cannot be parsed is an error.
    let _ = (parse::number(bytes), parse::number_or_max(bytes), parse::stall(bytes), parse::io_stat(bytes));
    let _ = (
        parse::cpu_stat(bytes),
        parse::cpu_stat_v1(bytes),
        parse::cpu_max(bytes),
        parse::microseconds(bytes),
    );
    let _ = (parse::cfs_quota_v1(bytes), parse::cpuacct_stat(bytes, 10_000_000), parse::oom_control(bytes));
    let _ = (parse::memory_events(bytes), parse::limit_v1(bytes), parse::inactive_file(bytes));
    let _ =
        (parse::inactive_file_v1(bytes), parse::memory_stat(bytes), parse::memory_stat_v1(bytes, Some(4096)));
    if let Ok((rows, _)) = parse::blkio_throttle(bytes) {
        parse::merge_blkio(&rows, &rows);
    }
}

fn pod_list(bytes: &[u8]) {
    // Invalid pods are an error.
    let _ = Pods::from_json(bytes);
}

/// Lines that begin with `--` are flags, those that begin with `SNUG_` variables, and the others are the file.
fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (mut flags, mut variables, mut file) =
        (vec![OsString::from("snug-agent")], Vec::new(), String::new());
    for line in text.lines() {
        if line.starts_with("--") {
            flags.push(line.into());
        } else if let Some((name, value)) = line.split_once('=').filter(|_| line.starts_with("SNUG_")) {
            variables.push((name.into(), value.into()));
        } else {
            file += line;
            file.push('\n');
        }
    }
    if let Err(errors) = config::load(flags, variables, |_| Ok(file.clone())) {
        drop(errors.to_string());
    }
}

fn queries(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    for line in text.lines() {
        for resource in api::Resource::ALL {
            if let Err(error) = api::Query::parse(resource, Some(line)) {
                drop(error.to_string());
            }
        }
        if let Err(error) = EvidenceQuery::parse(Some(line)) {
            drop(error.to_string());
        }
    }
}

/// The file of a day, which is opened, read and sealed.
fn history_file(bytes: &[u8]) {
    let Ok(folder) = corpus::scratch() else { return };
    let directory = folder.path().join(history::DIRECTORY);
    let written = fs::create_dir(&directory)
        .and_then(|()| fs::write(directory.join(format!("day-{}", corpus::HISTORY_DAY)), bytes));
    let Ok((store, _)) =
        written.map_err(drop).and_then(|()| history::Store::open(folder.path()).map_err(drop))
    else {
        return;
    };
    // Records that fail their checksum are left out.
    for records in store.hours().subjects(Hour(0)).unwrap_or_default().values() {
        let hours = store.hours();
        let _ = (hours.evidence(records), hours.minutes(records));
    }
    let _ = store.seal_all();
}

fn exposition(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        // What does not follow the format is an error.
        let _ = snug_client::exposition::parse(text);
    }
}

fn snapshot(bytes: &[u8]) {
    let mut snapshot = Snapshot::default();
    match snapshot.read("-", bytes) {
        Ok(()) => use_snapshot(snapshot),
        Err(error) => drop(error.to_string()),
    }
}

fn use_snapshot(mut snapshot: Snapshot) {
    snapshot.settle();
    snapshot.since(30 * 24 * 3600);
    let pools = snapshot.pools(LikesScope::default());
    for (evidence, qos) in snapshot.with_qos() {
        let context = Context { pool: pools.of(evidence), qos, previous: None };
        // Too little usage is an error.
        let _ = engine::recommend(evidence, &standard(), context);
    }
    // A sink does not fail.
    let _ = snapshot.write(&mut io::sink());
}

fn prometheus_answer(bytes: &[u8]) {
    if let Some(snapshot) = prometheus::fuzz::answer(bytes) {
        use_snapshot(snapshot);
    }
}

/// Both files, separated by a form feed, before they are compressed.
fn trace(bytes: &[u8]) {
    let Ok(folder) = corpus::scratch() else { return };
    let mut parts = bytes.split(|byte| *byte == b'\x0c');
    for name in ["cpu_millicores.csv.gz", "memory_kib.csv.gz"] {
        let part = parts.next().unwrap_or_default();
        let Ok(file) = fs::File::create(folder.path().join(name)) else { return };
        let mut packed = GzEncoder::new(file, Compression::fast());
        if io::copy(&mut &*part, &mut packed).is_err() || packed.finish().is_err() {
            return;
        }
    }
    match traces::read(folder.path()) {
        Ok(trace) => drop(trace.families()),
        Err(error) => drop(error.to_string()),
    }
}

fn standard() -> Policy {
    Policy::new(Profile::Standard.risk())
}

fn policy(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let policies = || Policies::new(standard());
    if let Err(error) = policies().with_text("policies.yaml", text) {
        drop(error.to_string());
    }
    let (namespace, pod) = ("shop".to_owned(), "web-0".to_owned());
    policies().with_annotations([PolicyAnnotation { namespace, pod, text: text.to_owned() }]);
}

/// Changes some of the values, and adds and removes some.
fn yaml_edits(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(documents) = yaml::parse(text) else { return };
    let mut paths = Vec::new();
    for (number, document) in documents.iter().enumerate() {
        collect(&document.root, &mut Vec::new(), &mut |path| paths.push((number, path)));
        // Aliases that grow beyond all bounds are an error.
        let _ = document.value();
    }
    // A few of them, all over the file.
    let step = paths.len() / 4 + 1;
    for (document, path) in paths.into_iter().skip(bytes.len() % step).step_by(step) {
        let below = path.iter().cloned().chain([Step::from("resources"), Step::from("limits")]).collect();
        let new = New::entry("memory", New::Text("128Mi".to_owned()));
        for (path, change) in [
            (path.clone(), Change::Set(New::Text("100m".to_owned()))),
            (below, Change::Set(new)),
            (path, Change::Remove),
        ] {
            let edited = edit::apply(text, &[Edit { document, path, change }]);
            if let Ok(edited) = edited {
                assert!(yaml::parse(&edited).is_ok(), "an edit made a file that cannot be read:\n{edited}");
            }
        }
    }
}

fn collect(node: &Node, path: &mut Vec<Step>, found: &mut impl FnMut(Vec<Step>)) {
    if !path.is_empty() {
        found(path.clone());
    }
    match &node.kind {
        Kind::Mapping { entries, .. } => {
            for (key, value) in entries {
                let Some(key) = key.text() else { continue };
                path.push(key.into());
                collect(value, path, found);
                path.pop();
            }
        }
        Kind::Sequence { items, .. } => {
            for (index, item) in items.iter().enumerate() {
                path.push(index.into());
                collect(item, path, found);
                path.pop();
            }
        }
        Kind::Scalar { .. } | Kind::Alias { .. } => {}
    }
}

/// A folder: each file after a line `=== NAME`.
fn manifests(bytes: &[u8]) {
    let Ok(folder) = corpus::scratch() else { return };
    let text = String::from_utf8_lossy(bytes);
    for file in text.split("=== ").skip(1).take(20) {
        let (name, content) = file.split_once('\n').unwrap_or((file, ""));
        let is_inside =
            name.split('/').all(|part| !part.is_empty() && !part.contains("..") && !part.contains('\0'));
        // Charts would run helm, which is no part of Snug.
        if !is_inside || name.ends_with("Chart.yaml") || name.len() > 200 {
            continue;
        }
        let path = folder.path().join(name);
        let parent = path.parent().unwrap_or(Path::new("/"));
        if fs::create_dir_all(parent).is_ok() {
            // A folder of the same name may be there.
            let _ = fs::write(&path, content);
        }
    }
    let options = ReadOptions { helm: "/nonexistent/helm".into(), ..ReadOptions::default() };
    if let Ok(manifests) = Manifests::read(&[folder.path().to_owned()], &options) {
        for target in &manifests.targets {
            target.title();
            target.resources();
        }
    }
}
