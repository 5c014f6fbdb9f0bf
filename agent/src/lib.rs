//! The node agent of Snug: eBPF programs and cgroup files → samplers → store → view → exporters. ARCHITECTURE.md draws its layers.

pub mod access;
pub mod cgroupfs;
mod clock;
pub mod config;
pub mod cri;
pub mod exporters;
pub mod history;
pub mod identity;
pub mod kernel;
pub mod kubernetes;
pub mod messages;
pub mod model;
pub mod patterns;
mod rate_limit;
mod retry;
pub mod samplers;
pub mod store;
pub mod supervisor;
pub mod tls;
pub mod values;
pub mod views;
