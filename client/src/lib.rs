//! Asking an agent or a Prometheus-compatible server over HTTP, and reading what it says.

pub mod agent;
pub mod exposition;
pub mod http;
