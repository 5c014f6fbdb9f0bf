//! The only part of the agent that knows aya and raw bpf calls.
#![expect(unsafe_code, reason = "bpf(2) and memory shared with the kernel have no safe interface")]

mod attach;
mod btf;
mod counters;
mod error;
mod events;
mod groups;
mod heap;
mod histograms;
mod inits;
mod iterator;
mod look;
mod mapped;
mod network;
mod offsets;
mod pass;
mod programs;
mod runqueue;

pub use btf::NotBtf;
pub use error::KernelError;
pub use events::{Event, InitProcess, What, task_name};
#[cfg(test)]
pub(crate) use groups::groups;
pub use histograms::HistogramCounters;
pub use iterator::CgroupIterator;
pub use offsets::OffsetsError;
pub use pass::Pass;
pub use programs::{KernelHalf, KernelOptions};
