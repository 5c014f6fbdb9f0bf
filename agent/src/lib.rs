//! The node agent of Snug: kernel programs → samplers → identity → store → exporters. Nothing flows back.

pub mod cgroupfs;
mod clock;
pub mod config;
pub mod cri;
pub mod exporters;
pub mod history;
pub mod identity;
pub mod kernel;
pub mod kubernetes;
pub mod model;
pub mod samplers;
pub mod store;
pub mod supervisor;
pub mod tls;
pub mod values;
