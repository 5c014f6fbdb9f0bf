//! One module per subject, named like its programs and its sampler.

pub mod events;
pub mod histogram;
pub mod lifecycle;
pub mod look;
pub mod network;
pub mod offsets;
pub mod oom;
pub mod process;
pub mod runqueue;
pub mod snapshot;
