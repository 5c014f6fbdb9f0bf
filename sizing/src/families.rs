//! Families: containers of workloads that are alike by name.
//!
//! A *family* is a namespace, the stem of the owner's name and the stem of the container's name. A stem is the name without what
//! differs between alike objects: the node of a static pod, UUIDs, hashes, numbers. A name without anything else is its own stem.
//! Names that people choose (notebooks of users) look like any others, so each of them is a family of its own.
//!
//! A *block* is made of families that may not be separated when something is fitted on some workloads and judged on others: those
//! of one owner (containers of the same pods) and those of one container name, in one namespace. A container that is named after
//! its owner has a name that adds nothing, so such names join no owners.

use std::collections::HashMap;

use crate::workload::names::static_pod;

/// Random parts of names have at least so many characters, and so many digits among them.
const MIN_RANDOM: usize = 5;
const MIN_DIGITS: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family {
    pub namespace: String,
    /// Stem of the owner's name.
    pub owner: String,
    /// Stem of the container's name.
    pub container: String,
}

impl Family {
    /// The family of a container. `node` is where one of its pods runs, empty if unknown: static pods end in it.
    pub fn new(namespace: &str, owner: &str, container: &str, node: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            owner: stem(static_pod(owner, node)),
            container: stem(container),
        }
    }
}

/// A name with `*` instead of each part between dashes that is a number or looks random: at least five characters, two of them
/// digits. The name itself if nothing else is left.
pub fn stem(name: &str) -> String {
    let is_random = |part: &str| {
        let digits = part.bytes().filter(u8::is_ascii_digit).count();
        let is_number = digits > 0 && digits == part.len();
        let is_mixed = part.len() >= MIN_RANDOM
            && digits >= MIN_DIGITS
            && part.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
        is_number || is_mixed || part == "*"
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('-') {
        let part = if is_random(part) { "*" } else { part };
        if !(part == "*" && parts.last() == Some(&"*")) {
            parts.push(part);
        }
    }
    let is_name = parts.iter().any(|part| *part != "*");
    if is_name { parts.join("-") } else { name.to_owned() }
}

/// The block of each family, numbered from 0 in the order of the first family of each.
pub fn blocks(families: &[Family]) -> Vec<usize> {
    let mut blocks = Union((0..families.len()).collect());
    let mut first = HashMap::new();
    for (place, family) in families.iter().enumerate() {
        let Family { namespace, owner, container } = family;
        let of_container = (!owner.starts_with(container.as_str())).then_some((namespace, container, false));
        for key in [(namespace, owner, true)].into_iter().chain(of_container) {
            blocks.join(place, *first.entry(key).or_insert(place));
        }
    }
    let mut numbers = HashMap::new();
    (0..families.len())
        .map(|place| {
            let next = numbers.len();
            *numbers.entry(blocks.root(place)).or_insert(next)
        })
        .collect()
}

/// Sets of places that are joined: each place has another one of its set, and the first of a set itself.
struct Union(Vec<usize>);

impl Union {
    fn root(&self, mut place: usize) -> usize {
        while let Some(next) = self.0.get(place).filter(|next| **next != place) {
            place = *next;
        }
        place
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        if let Some(next) = self.0.get_mut(a.max(b)) {
            *next = a.min(b);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stems() {
        for (name, wanted) in [
            ("web", "web"),
            ("seldon-22fa50511a553f1fd1d58a44685461f7", "seldon-*"),
            ("aicoe-pipelinerun-*-pr", "aicoe-pipelinerun-*-pr"),
            ("smart-village-view-44-build", "smart-village-view-*-build"),
            ("pr-514-1-x", "pr-*-x"),
            ("job1218322450", "job1218322450"),
            ("*", "*"),
            ("driver-registrar", "driver-registrar"),
            ("influxdb2", "influxdb2"),
            ("cs6620", "cs6620"),
            ("seldon-cs6620", "seldon-*"),
            ("", ""),
        ] {
            assert_eq!(stem(name), wanted, "{name}");
        }
        let family = |owner| Family::new("kube-system", owner, "etcd", "Oct-10-04-control").owner;
        assert_eq!([family("etcd-oct-10-04-control"), family("etcd")], ["etcd", "etcd"]);
    }

    fn family(namespace: &str, owner: &str, container: &str) -> Family {
        Family::new(namespace, owner, container, "")
    }

    #[test]
    fn blocks_by_hand() {
        let all = [
            family("a", "web", "app"),
            family("b", "web", "app"),
            family("a", "web", "proxy"),
            family("a", "db", "postgres"),
            family("a", "cache", "proxy"),
            family("a", "job1218322450", "job"),
            family("a", "job1329653148", "job"),
        ];
        assert_eq!(blocks(&all), [0, 1, 0, 2, 0, 3, 4]);
    }

    proptest! {
        #[test]
        fn blocks_keep_owners_and_containers_together(names in prop::collection::vec(("[ab]", "[a-f]", "[a-f]"), 1..30)) {
            let all: Vec<Family> = names.iter().map(|(namespace, owner, container)| family(namespace, owner, container)).collect();
            let found = blocks(&all);
            for (a, of_a) in all.iter().zip(&found) {
                for (b, of_b) in all.iter().zip(&found) {
                    if a.namespace == b.namespace {
                        let is_alike = a.container == b.container && a.container != a.owner && b.container != b.owner;
                        prop_assert!((a.owner != b.owner && !is_alike) || of_a == of_b);
                    } else {
                        prop_assert_ne!(of_a, of_b);
                    }
                }
            }
        }

        #[test]
        fn a_stem_is_its_own_stem(name in "[a-z0-9-]{0,30}") {
            prop_assert_eq!(stem(&stem(&name)), stem(&name));
        }
    }
}
