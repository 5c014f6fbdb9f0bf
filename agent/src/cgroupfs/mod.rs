//! cgroup hierarchies and their files.
//!
//! [`mounts`] finds the hierarchies, [`list`] lists their cgroups, [`reader`] reads the files of one cgroup with the parsers
//! of [`parse`], and [`flush`] makes the kernel flush its per-CPU counters. Nothing here writes to cgroups.

pub mod flush;
#[doc(hidden)]
pub mod fuzz;
pub mod list;
pub mod mounts;
pub mod parse;
pub mod reader;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod live;

pub use crate::values::Measurements;
