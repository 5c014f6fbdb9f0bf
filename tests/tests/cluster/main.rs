//! Snug on a real Kubernetes node, installed as a user would: `cargo xtask cluster` brings the node up and runs these
//! inside its namespaces. Without a cluster they say why they are skipped; with `CI` set they fail instead.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod ends;
mod install;
mod names;
mod node;
mod numbers;
mod outages;
