//! cgroup hierarchies and their files.
//!
//! [`mounts`] finds the hierarchies, [`walk`] lists their cgroups, [`reader`] reads the files of one cgroup with the
//! parsers of [`parse`], and [`flush`] makes the kernel bring its own counters up to date. Nothing here writes.

pub mod flush;
pub mod mounts;
pub mod parse;
pub mod reader;
pub mod walk;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod live;

pub use crate::values::Measurements;
