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

/// The rows of a family, with the function that emits the samples of one row.
#[derive(Clone, Copy, Debug)]
pub enum Samples {
    /// One row per cgroup that a kubelet exports.
    Cgroup(fn(&CgroupRow, &Scrape<'_>, &mut Emit<'_>)),
    /// The machine, with its ids as labels.
    Machine(fn(&HostRow) -> Option<u64>),
    /// One sample without labels. Limits do not apply to it.
    Plain(fn(&Scrape<'_>) -> u64),
}

/// A family of the kubelet.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Full name.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// The help text.
    pub help: &'static str,
    /// How the value differs from that of the kubelet; empty if it does not.
    pub differs: &'static str,
    /// The rows and the function that emits their samples.
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

/// All families, in the order of the exposition.
pub fn families() -> impl Iterator<Item = &'static Family> {
    let parts =
        [of_cgroups::FAMILIES, network::FAMILIES, disk::FAMILIES, processes::FAMILIES, machine::FAMILIES];
    parts.into_iter().flatten()
}

fn int(emit: &mut Emit<'_>, value: Option<u64>) {
    if let Some(value) = value {
        emit(&[], Value::Int(value));
    }
}

fn time(emit: &mut Emit<'_>, own: &[(&str, &str)], nanoseconds: Option<u64>) {
    if let Some(ns) = nanoseconds {
        emit(own, seconds(ns));
    }
}
