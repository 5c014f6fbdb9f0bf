//! Layout of the maps and events, one module per subject, named like the file of its programs and its sampler.

pub mod cost;
pub mod events;
pub mod field;
pub mod histogram;
pub mod lifecycle;
pub mod memory;
pub mod network;
pub mod offsets;
pub mod oom;
pub mod process;
pub mod runqueue;
pub mod sample;
pub mod snapshot;
pub mod subtree;
