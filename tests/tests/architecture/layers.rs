//! The layers of each crate, and what breaks them.

use std::collections::{BTreeMap, BTreeSet};

use crate::arrows::{Crate, Module};

/// A row of a table: the children of one module, each with the siblings that it may use. Whoever is used stands above whoever uses it.
pub(crate) type Layers = &'static [(&'static str, &'static [&'static str])];

/// The agent, from facts to the process.
pub(crate) const AGENT: Layers = &[
    ("clock", &[]),
    ("messages", &[]),
    ("patterns", &[]),
    ("rate_limit", &[]),
    ("retry", &["messages"]),
    ("tls", &[]),
    ("values", &[]),
    ("model", &["values"]),
    // Where facts come from.
    ("cgroupfs", &["values"]),
    ("kernel", &["messages", "model", "values"]),
    ("identity", &["model", "patterns"]),
    ("cri", &["identity", "retry"]),
    ("kubernetes", &["identity", "messages", "model", "rate_limit", "retry"]),
    // Who may read.
    ("access", &["kubernetes", "rate_limit", "retry"]),
    // Where facts are kept.
    ("store", &["clock", "model", "values"]),
    ("history", &["clock", "model", "retry"]),
    // Where who samples and who exports meet.
    ("views", &["model"]),
    ("config", &["messages", "patterns", "rate_limit"]),
    (
        "samplers",
        &[
            "cgroupfs",
            "clock",
            "config",
            "cri",
            "history",
            "identity",
            "kernel",
            "kubernetes",
            "messages",
            "model",
            "retry",
            "store",
            "values",
            "views",
        ],
    ),
    (
        "exporters",
        &[
            "access",
            "clock",
            "config",
            "history",
            "messages",
            "model",
            "patterns",
            "rate_limit",
            "retry",
            "tls",
            "values",
            "views",
        ],
    ),
    (
        "supervisor",
        &[
            "access",
            "config",
            "cri",
            "exporters",
            "history",
            "kernel",
            "kubernetes",
            "messages",
            "retry",
            "samplers",
            "tls",
            "views",
        ],
    ),
];

/// The exporters: what they share, then each for itself, then who serves them.
pub(crate) const EXPORTERS: Layers = &[
    ("limits", &[]),
    ("series", &["limits"]),
    ("catalogue", &["limits", "series"]),
    // Encoding.
    ("events", &[]),
    ("query", &[]),
    ("resource", &[]),
    ("stream", &[]),
    ("text", &["catalogue", "stream"]),
    // One exporter knows no other.
    ("api", &["query"]),
    ("ecs", &["events", "limits", "resource"]),
    ("evidence", &["query"]),
    ("kubelet", &["catalogue", "limits", "series", "stream", "text"]),
    ("otlp", &["catalogue", "events", "limits", "resource", "series"]),
    ("prometheus", &["catalogue", "limits", "series", "stream", "text"]),
    ("http", &["api", "evidence", "kubelet", "limits", "prometheus", "series", "stream"]),
];

/// The programs in the kernel: what they share stands above them.
pub(crate) const EBPF: Layers = &[
    // Records that the agent shares; they are a library of their own.
    ("abi", &[]),
    ("events", &[]),
    ("maps", &[]),
    ("read", &[]),
    ("age", &["read"]),
    ("counters", &["events"]),
    ("subtree", &["read"]),
    ("sample", &["maps", "read"]),
    ("snapshot", &["maps", "read", "sample", "subtree"]),
    ("cpus", &["read", "snapshot"]),
    ("network", &["counters", "read"]),
    ("process", &["events", "read"]),
    ("runqueue", &["counters", "read"]),
    ("lifecycle", &["age", "cpus", "events", "network", "process", "read", "sample", "subtree"]),
    ("oom", &["age", "events", "lifecycle", "process", "read", "subtree"]),
];

/// The command.
pub(crate) const CLI: Layers = &[
    ("price", &[]),
    // What the terminal shows, and a line on it.
    ("progress", &[]),
    ("terminal", &[]),
    ("certificates", &[]),
    // Old names of fields, which stand in for one version.
    ("renamed", &[]),
    ("advice", &[]),
    ("units", &[]),
    ("columns", &["advice", "progress", "units"]),
    ("evidence", &["advice", "columns"]),
    ("horizon", &[]),
    ("risk", &[]),
    ("table", &["columns", "terminal"]),
    ("yaml", &[]),
    ("manifests", &["columns", "yaml"]),
    ("policy", &["horizon", "risk"]),
    ("cluster", &["advice", "policy", "evidence", "progress"]),
    ("prometheus", &["advice", "cluster", "evidence", "progress"]),
    ("source", &["advice", "cluster", "columns", "prometheus", "evidence", "progress"]),
    ("snapshot", &["source"]),
    (
        "recommend",
        &[
            "advice", "cluster", "columns", "horizon", "policy", "price", "progress", "evidence", "renamed",
            "risk", "source", "table", "terminal", "units",
        ],
    ),
    ("explain", &["columns", "progress", "recommend", "source", "terminal", "units"]),
    ("simulate", &["columns", "explain", "progress", "recommend", "source", "units"]),
    ("top", &["cluster", "columns", "evidence", "renamed", "units"]),
    (
        "gitops",
        &["columns", "evidence", "manifests", "policy", "progress", "recommend", "source", "units", "yaml"],
    ),
    ("backtest", &["evidence", "risk", "source"]),
];

/// Each arrow between children of `parent` that the table does not allow, as a sentence.
pub(crate) fn forbidden(read: &Crate, parent: &str, layers: &[(&str, &[&str])]) -> Vec<String> {
    let parent = Module::new(parent);
    let mut found = Vec::new();
    for (name, _) in layers {
        if !read.modules.iter().any(|module| child(module, &parent) == Some(name)) {
            found.push(format!("{name} is a layer without a module"));
        }
    }
    for module in
        read.modules.iter().filter(|module| child(module, &parent) == module.0.last().map(|it| &**it))
    {
        if let Some(name) = child(module, &parent)
            && !layers.iter().any(|(layer, _)| *layer == name)
        {
            found.push(format!("{module} is in no layer"));
        }
    }
    for ((from, to), used) in &read.arrows {
        let (Some(user), Some(layer)) = (child(from, &parent), child(to, &parent)) else { continue };
        let is_allowed = layers.iter().any(|(name, allowed)| *name == user && allowed.contains(&layer));
        if user != layer && !is_allowed {
            found.push(format!("{from} must not use {to} ({used})"));
        }
    }
    found
}

/// Names of a table that stand below who may use them, or nowhere.
pub(crate) fn disorder(layers: &[(&str, &[&str])]) -> Vec<String> {
    let mut above = BTreeSet::new();
    let mut found = Vec::new();
    for (name, allowed) in layers {
        found.extend(allowed.iter().filter(|one| !above.contains(*one)).map(|one| format!("{name}: {one}")));
        above.insert(*name);
    }
    found
}

/// Each circle between the children of one module, at every level: between folders, between files of different folders, and between two
/// siblings. A child may take its parent's types, and a parent is made of its children: such arrows make no circle.
pub(crate) fn circles(read: &Crate) -> Vec<String> {
    let parents: BTreeSet<Module> = read
        .modules
        .iter()
        .flat_map(|module| (0..module.0.len()).map(|n| Module(module.0[..n].to_vec())))
        .collect();
    parents.iter().flat_map(|parent| circles_below(read, parent)).collect()
}

fn circles_below(read: &Crate, parent: &Module) -> Vec<String> {
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in read.arrows.keys() {
        if let (Some(from), Some(to)) = (child(from, parent), child(to, parent))
            && from != to
        {
            uses.entry(from).or_default().insert(to);
        }
    }
    let reaches = |from: &str, to: &str| {
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(one) = next.pop() {
            for used in uses.get(one).into_iter().flatten() {
                if *used == to {
                    return true;
                }
                if seen.insert(*used) {
                    next.push(used);
                }
            }
        }
        false
    };
    // Modules that reach one another are one circle, reported once.
    let mut reported = BTreeSet::new();
    let mut found = Vec::new();
    for one in uses.keys().filter(|one| reaches(one, one)) {
        if reported.contains(one) {
            continue;
        }
        let circle: Vec<&str> =
            uses.keys().copied().filter(|other| reaches(one, other) && reaches(other, one)).collect();
        reported.extend(circle.iter().copied());
        found.push(format!("in {parent}: {} use each other", circle.join(", ")));
    }
    found
}

/// The child of `parent` that a module is, or lies in.
fn child<'a>(module: &'a Module, parent: &Module) -> Option<&'a str> {
    module.is_within(parent).then(|| module.0.get(parent.0.len()).map(String::as_str))?
}
