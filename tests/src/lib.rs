//! Guards and helpers that the whole-system tests share.
#![expect(clippy::unwrap_used, clippy::panic, reason = "what fails here is a failed test")]

pub mod agent;
pub mod api_server;
pub mod browser;
pub mod cgroup;
pub mod dashboards;
pub mod ecs;
pub mod exposition;
pub mod fake_agent;
pub mod http;
mod jobs;
pub mod kernels;
pub mod manifests;
pub mod pages;
pub mod runc;
mod sockets;
pub mod tls;
pub mod tmux;
mod traffic;
pub mod wait;
pub mod worker;

/// Says why a test cannot run here. Under CI (the variable `CI`) that is a failure.
///
/// # Panics
/// Under CI.
pub fn cannot_run(why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "a required test cannot run: {why}");
    eprintln!("skipped: {why}");
}

/// What a test needs; `None` if it is not to be had here, which is a failure under CI.
pub fn required<T, E: std::fmt::Display>(needed: Result<T, E>) -> Option<T> {
    needed.map_err(|why| cannot_run(&why.to_string())).ok()
}
