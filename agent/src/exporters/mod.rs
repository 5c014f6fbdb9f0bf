//! What leaves the agent.
//!
//! Everything here reads [`Published`](crate::store::published::Published) and nothing else: a scrape never touches
//! the kernel, a file or the network, and costs the samplers nothing.

pub mod api;
pub mod catalogue;
pub mod http;
pub mod kubelet;
pub mod limits;
pub mod prometheus;
mod stream;

#[cfg(test)]
mod fixture;
