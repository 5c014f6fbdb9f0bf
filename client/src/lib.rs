//! HTTP client of agents and of Prometheus-compatible servers.

pub mod agent;
pub mod exposition;
pub mod http;
