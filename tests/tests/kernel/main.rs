//! The kernel half and the samplers against the kernel that runs: real cgroups, real work, nothing simulated.
//!
//! The same binary runs on a host and in virtual machines with other kernels. It needs root; what cannot run says so,
//! and fails under CI.
#![cfg(test)]

mod busy;
mod churn;
mod cpu;
mod driver;
mod evidence;
mod fallback;
mod full;
mod memory;
mod names;
mod network;
mod pressure;
mod processes;
mod restart;
mod runc;
mod runqueue;
mod sample;
mod scale;
mod short_lived;
mod sources;
mod terminations;
mod throttling;
mod verification;

/// The body of workers: see [`snug_tests::worker`].
#[test]
fn worker_entry() {
    snug_tests::worker::entry();
}

/// The body of agents that can be killed: see [`restart`].
#[test]
fn agent_entry() {
    restart::entry();
}
