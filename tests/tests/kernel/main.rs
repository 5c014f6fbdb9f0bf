//! Tests of the eBPF programs and the samplers on the running kernel, with real cgroups and real work.
//!
//! The same binary runs on a host and in virtual machines with other kernels. It requires root. A test that cannot run prints
//! why, and fails under CI.
#![cfg(test)]

mod busy;
mod churn;
mod clock;
mod cpu;
mod driver;
mod evidence;
mod fallback;
mod files_oom;
mod full;
mod memory;
mod names;
mod nested;
mod network;
mod network_pause;
mod oom;
mod pressure;
mod processes;
mod restart;
mod runc;
mod runqueue;
mod sample;
mod scale;
mod short_lived;
mod sources;
mod support;
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
