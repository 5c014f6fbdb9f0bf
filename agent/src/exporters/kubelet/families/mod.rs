//! The kubelet's families that the agent serves.

mod disk;
mod machine;
mod network;
mod of_cgroups;
mod processes;

use super::{Emit, Scrape};
use crate::{
    exporters::catalogue::{Kind, Value, seconds},
    model::{CgroupRow, HostRow},
};

/// What the rows of a family are, and how its samples come out of one.
#[derive(Clone, Copy, Debug)]
pub enum Samples {
    /// One row per cgroup that a kubelet shows.
    Cgroup(fn(&CgroupRow, &Scrape<'_>, &mut Emit<'_>)),
    /// The machine, with its ids for labels.
    Machine(fn(&HostRow) -> Option<u64>),
    /// One sample without labels, which no limit cuts.
    Plain(fn(&Scrape<'_>) -> u64),
}

/// A family of the kubelet's.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Full name.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// What it means.
    pub help: &'static str,
    /// Where the value differs from the kubelet's, and why; empty where it is the same.
    pub differs: &'static str,
    /// How to get its samples.
    pub samples: Samples,
}

const fn family(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: fn(&CgroupRow, &Scrape<'_>, &mut Emit<'_>),
) -> Family {
    Family { name, kind, help, differs: "", samples: Samples::Cgroup(samples) }
}

impl Family {
    const fn differs(self, differs: &'static str) -> Self {
        Self { differs, ..self }
    }
}

/// All of them, in the order in which they are served.
pub fn families() -> impl Iterator<Item = &'static Family> {
    let parts =
        [of_cgroups::FAMILIES, network::FAMILIES, disk::FAMILIES, processes::FAMILIES, machine::FAMILIES];
    parts.into_iter().flatten()
}

fn int(emit: &mut Emit<'_>, value: Option<u64>) {
    if let Some(value) = value {
        emit("", Value::Int(value));
    }
}

fn time(emit: &mut Emit<'_>, own: &'static str, nanoseconds: Option<u64>) {
    if let Some(ns) = nanoseconds {
        emit(own, seconds(ns));
    }
}
