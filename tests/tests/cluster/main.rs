//! Tests of Snug on a real Kubernetes node, with the documented installation. `cargo xtask cluster` starts the node and runs
//! these tests inside its namespaces. Without a cluster they are skipped with a message; with `CI` set they fail.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod api_server;
mod applied;
mod command;
mod install;
mod names;
mod node;
mod numbers;
mod outages;
mod pages;
mod terminations;
