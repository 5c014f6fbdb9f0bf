//! Loading and using the eBPF programs. No other module uses aya or bpf(2).
#![expect(unsafe_code, reason = "bpf(2) and memory shared with the kernel have no safe interface")]

mod attach;
mod btf;
mod capabilities;
mod counters;
mod error;
mod events;
#[doc(hidden)]
pub mod fuzz;
mod groups;
mod heap;
mod histograms;
mod inits;
mod iterator;
mod mapped;
mod network;
mod offsets;
mod pass;
mod programs;
mod runqueue;
mod sample;
mod subtrees;

pub use btf::ParseBtfError;
pub use capabilities::drop_net_admin;
pub use error::KernelError;
pub use events::{InitProcess, KernelEvent, KernelEventKind, task_name};
#[cfg(test)]
pub(crate) use groups::groups;
pub use heap::trim_heap;
pub use histograms::HistogramCounters;
pub use iterator::CgroupIterator;
pub use network::PROGRAMS as PACKET_PROGRAMS;
pub use offsets::{MissingField, OffsetsError};
pub use pass::Pass;
pub use programs::{EbpfPrograms, KernelOptions};
pub use runqueue::PROGRAMS as RUNQUEUE_PROGRAMS;
