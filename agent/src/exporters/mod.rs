//! Exporters: HTTP endpoints, OTLP and the event log.
//!
//! Everything here reads [`View`](crate::model::View) and nothing else: a scrape never touches
//! the kernel, a file or the network, and costs the samplers nothing. Only `/api/v1/evidence` reads the usage history.

pub mod api;
pub mod catalogue;
pub(crate) mod ecs;
mod events;
pub mod evidence;
pub mod http;
pub mod kubelet;
pub mod limits;
pub mod otlp;
pub mod prometheus;
mod query;
mod resource;
pub mod series;
mod stream;
mod text;

#[cfg(test)]
mod fixture;
