//! Identifies cgroups.
//!
//! [`path`] parses the path of a cgroup: its level, runtime, pod uid and container id. Names come from pods ([`pod`],
//! [`pods`], [`pods_file`]) or from the runtime's files ([`bundle`], [`engine`]). [`workload`] derives the workload that owns a pod.

pub mod bundle;
pub mod engine;
#[doc(hidden)]
pub mod fuzz;
pub mod path;
pub mod pod;
pub mod pods;
pub mod pods_file;
pub mod workload;

pub use crate::model::{ContainerKind, Identity, Level, Names, PathIdentity, Qos, Runtime};
