//! The rules against crates that break them, each in one place: a rule that finds nothing holds nothing.

use crate::{
    arrows::{Crate, Module},
    layers::{self, AGENT},
};

/// A crate of texts, each with its module.
fn crate_of(files: &[(&str, &str)]) -> Crate {
    let files: Vec<_> =
        files.iter().map(|(module, text)| (Module::new(module), (*text).to_owned())).collect();
    Crate::of_sources(&files)
}

/// The agent's modules, and one more text in one of them.
fn agent_with(module: &str, text: &str) -> Crate {
    let mut files: Vec<(&str, &str)> = AGENT.iter().map(|(name, _)| (*name, "")).collect();
    files.extend([("", "mod config; mod store;"), ("store::ends", ""), ("samplers::oom", "")]);
    files.extend([("exporters::otlp", ""), ("exporters::otlp::queue", ""), ("model::event", "")]);
    files.retain(|(name, _)| *name != module);
    files.push((module, text));
    crate_of(&files)
}

/// Arrows that the layers forbid, in every way in which a path can be written.
const BAD: [(&str, &str); 20] = [
    ("model", "use crate::store::Key;"),
    ("model::event", "use crate::{values::Values, store::{Store, Key}};"),
    ("kernel", "use crate::store::Verdict;"),
    ("config", "use crate::exporters::limits::DroppableLabel;"),
    ("store", "pub use crate::samplers::Sampler;"),
    ("store", "pub(crate) use crate::samplers::Sampler as Other;"),
    ("store", "use crate::samplers as others;"),
    ("store", "use crate::{self, samplers};"),
    ("store", "use crate::samplers::{self};"),
    ("store", "use crate::samplers::*;"),
    ("store", "fn f() { crate::samplers::run(); }"),
    ("store", "fn f() { let x: Vec<crate::exporters::otlp::Exporter> = Vec::new(); }"),
    ("store", "fn f() { println!(\"{}\", crate::samplers::NAME); }"),
    ("store::ends", "use super::super::samplers::oom;"),
    ("store::ends", "fn f() { super::super::samplers::run(); }"),
    ("store::ends", "mod inner { use super::super::super::samplers::oom; }"),
    ("store", "#[cfg(test)]\nmod tests { use super::*; }\nuse crate::samplers::Sampler;"),
    ("store", "#[cfg(test)]\nuse crate::kernel::Event;\nuse crate::samplers::Sampler;"),
    ("exporters::otlp::queue", "impl From<crate::store::Key> for u64 {}"),
    ("exporters::otlp", "/* no */ use crate :: { /* here */ kernel :: Event , } ;"),
];

/// What looks like such an arrow and is none.
const GOOD: [(&str, &str); 12] = [
    ("store", "use crate::{model::{Event, Names}, values::Values};"),
    ("store", "// use crate::samplers::Sampler;"),
    ("store", "/// See [`Sampler`](crate::samplers::Sampler).\nstruct S;"),
    ("store", "const TEXT: &str = \"use crate::samplers::Sampler;\";"),
    ("store", "const TEXT: &str = r#\"crate::samplers::run()\"#;"),
    ("store", "#[cfg(test)]\nmod tests { use crate::samplers::Sampler; }"),
    ("store", "#[cfg(test)]\nuse crate::samplers::Sampler;"),
    ("store", "use std::samplers::Sampler; use other::crate_samplers;"),
    ("store::ends", "use super::Store; use super::super::model::Event;"),
    ("store", "pub(crate) fn samplers() {} pub(in crate::store) fn f() {}"),
    ("exporters::otlp", "use self::queue::Queue;"),
    ("samplers::oom", "use crate::{kernel::Event, store::Key};"),
];

#[test]
fn each_forbidden_arrow_is_found() {
    assert_eq!(layers::forbidden(&agent_with("clock", ""), "", AGENT), [""; 0]);
    for (module, text) in BAD {
        let found = layers::forbidden(&agent_with(module, text), "", AGENT);
        assert_eq!(found.len(), 1, "{module}: {text}: {found:?}");
        assert!(found[0].starts_with(&format!("{} must not use ", Module::new(module))), "{found:?}");
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    for (module, text) in GOOD {
        assert_eq!(layers::forbidden(&agent_with(module, text), "", AGENT), [""; 0], "{module}: {text}");
    }
}

#[test]
fn a_module_that_is_in_no_layer_is_found() {
    let read = agent_with("helpers", "");
    assert_eq!(layers::forbidden(&read, "", AGENT), ["helpers is in no layer"]);
}

#[test]
fn a_layer_without_a_module_is_found() {
    let read = crate_of(&[("", ""), ("a", "")]);
    assert_eq!(layers::forbidden(&read, "", &[("a", &[]), ("b", &[])]), ["b is a layer without a module"]);
}

#[test]
fn a_table_that_allows_a_circle_is_out_of_order() {
    assert_eq!(layers::disorder(&[("a", &[]), ("b", &["a"])]), [""; 0]);
    assert_eq!(layers::disorder(&[("a", &["b"]), ("b", &["a"])]), ["a: b"]);
}

#[test]
fn each_circle_is_found() {
    // Between folders, through several files; between files of different folders; between two files of one folder.
    for (files, circle) in [
        (
            &[
                ("a::one", "use crate::b::Two;"),
                ("b", "use self::three::Three;"),
                ("b::three", "use crate::a;"),
            ][..],
            "in the crate's root: a, b use each other",
        ),
        (
            &[
                ("a::one", "use crate::b::two::Two;"),
                ("b::two", "use crate::c::Three;"),
                ("c", "fn f() { crate::a::one::f() }"),
            ],
            "in the crate's root: a, b, c use each other",
        ),
        (
            &[("a::one", "use super::two::Two;"), ("a::two", "use super::one::One;")],
            "in a: one, two use each other",
        ),
        (
            &[("a::b::one", "use super::super::c::Two;"), ("a::c", "pub use super::b::one::One as Other;")],
            "in a: b, c use each other",
        ),
    ] {
        let mut files = files.to_vec();
        files.extend(
            ["", "a", "b", "c"]
                .iter()
                .filter(|name| !files.iter().any(|(there, _)| there == *name))
                .map(|name| (*name, ""))
                .collect::<Vec<_>>(),
        );
        assert_eq!(layers::circles(&crate_of(&files)), [circle]);
    }
}

#[test]
fn a_child_with_its_parent_is_no_circle() {
    let read = crate_of(&[
        ("", "mod a; mod b;"),
        ("a", "mod one; mod two; use self::{one::One, two::Two}; struct Parent;"),
        ("a::one", "use super::{Parent, two::Two};"),
        ("a::two", "use super::Parent; #[cfg(test)] mod tests;"),
        ("a::two::tests", "use crate::{a::one::One, b::B};"),
        ("b", "use crate::a::Parent;"),
    ]);
    assert_eq!(layers::circles(&read), [""; 0]);
    assert!(!read.modules.contains(&Module::new("a::two::tests")), "built for tests alone");
}
