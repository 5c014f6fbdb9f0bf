//! Errors of loading and running the eBPF programs.

use std::{io, path::PathBuf};

use aya::{EbpfError, programs::ProgramError};

use super::{
    attach::{TRACING_CAPABILITIES, error_chain, remedy},
    offsets::OffsetsError,
};

/// Why the eBPF programs cannot be loaded, or a pass failed. The agent then reads cgroup files.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The binary was built without the object file.
    #[error("this agent was built without its eBPF programs; build it with `cargo xtask build`")]
    NotBuilt,
    /// The kernel has no BTF, or BTF without the required fields.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// aya cannot use the kernel's BTF.
    #[error("cannot use the kernel's BTF: {0}")]
    Types(#[from] aya::BtfError),
    /// The maps could not be created.
    #[error(
        "cannot create the maps of the eBPF programs: {}{}",
        error_chain(source),
        remedy(source, TRACING_CAPABILITIES)
    )]
    Load {
        /// The reason.
        source: Box<EbpfError>,
    },
    /// A map is missing or has another type than expected.
    #[error("the eBPF object has no usable map {name}: {reason}")]
    Map {
        /// The map.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An iterator could not be linked to a hierarchy.
    #[error("cannot walk the cgroups below {}: {source}", path.display())]
    Link {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A walk failed.
    #[error("a pass over the cgroups failed: {0}")]
    Pass(#[source] io::Error),
    /// Sampling the cached cgroups failed.
    #[error("sampling the cached cgroups failed: {0}")]
    Sample(#[source] ProgramError),
    /// A program is not loaded or not attached.
    #[error("the program {name} does not run: {reason}")]
    NotRunning {
        /// The program.
        name: &'static str,
        /// Why.
        reason: String,
    },
}
