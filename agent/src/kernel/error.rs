//! What can be wrong with the kernel half as a whole.

use std::{io, path::PathBuf};

use aya::{EbpfError, programs::ProgramError};

use super::{
    attach::{TO_TRACE, chain, remedy},
    offsets::OffsetsError,
};

/// Why the kernel half cannot be used at all. The agent then measures by cgroup files.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The binary has no object.
    #[error("this agent was built without its kernel half; build it with `cargo xtask build`")]
    NotBuilt,
    /// No types, or unknown ones.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// The types could be read but not used by aya.
    #[error("cannot use the kernel's types: {0}")]
    Types(#[from] aya::BtfError),
    /// The maps could not be made.
    #[error("cannot set up the kernel half: {}{}", chain(source), remedy(source, TO_TRACE))]
    Load {
        /// The reason.
        source: Box<EbpfError>,
    },
    /// A map is not there or not as expected.
    #[error("the kernel half has no usable map {name}: {reason}")]
    Map {
        /// The map.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A hierarchy could not be linked.
    #[error("cannot walk the cgroups below {}: {source}", path.display())]
    Link {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A pass failed.
    #[error("a pass over the cgroups failed: {0}")]
    Pass(#[source] io::Error),
    /// A look failed.
    #[error("looking at CPU time between two passes failed: {0}")]
    Look(#[source] ProgramError),
    /// A program does not run.
    #[error("the program {name} does not run: {reason}")]
    NotRunning {
        /// The program.
        name: &'static str,
        /// Why.
        reason: String,
    },
}
