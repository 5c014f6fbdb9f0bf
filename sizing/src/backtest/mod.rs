//! Replays recorded use: what would each policy have said, and what would have come of it?
//!
//! The rules, *open loop* (what a policy says changes nothing in what follows):
//!
//! - A workload is (namespace, owner, container); the owner is found in the pod's name ([`trace::owner`]).
//! - Decisions are made at minute 1440, 1800, 2160, … while at least 360 minutes follow. What is decided at `t` is judged on the
//!   horizon `[t, t + 1440)`, cut at the end of the trace.
//! - A workload is decided if its pods have at least 60 samples of memory and 60 of CPU before. Judged are its pods with a
//!   sample in the horizon, one *pod-day* each (they overlap), for CPU and memory apart.
//! - [`score`] has the figures.
//!
//! *Closed loop*: each decision is in force until the next one. Use above the memory limit is an OOM kill: the policy is told the
//! limit that failed, and decides anew from the next minute on; in what it sees of the past, use ends at the limit that was in force.

pub mod closed;
pub mod history;
pub mod observe;
pub mod open;
pub mod policies;
pub mod policy;
pub mod score;
pub mod trace;
pub mod validate;

/// Minutes of history before the first decision.
pub const FIRST: usize = 1440;
/// Minutes between decisions.
pub const STEP: usize = 360;
/// Minutes for which a decision is judged.
pub const HORIZON: usize = 1440;
/// Samples of each resource without which a workload is not decided.
pub const MIN_SAMPLES: usize = 60;

/// Minutes at which decisions are made, in a trace of so many minutes.
pub fn decisions(minutes: usize) -> impl Iterator<Item = usize> {
    (FIRST..).step_by(STEP).take_while(move |at| at + STEP <= minutes)
}
