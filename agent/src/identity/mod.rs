//! Who a cgroup is: from its path alone, and by the pods that were made known.

pub mod bundle;
pub mod path;
pub mod pod;
pub mod pods;
pub mod pods_file;
pub mod workload;

pub use crate::model::{ContainerKind, Identity, Level, Names, PathIdentity, Qos, Runtime};
