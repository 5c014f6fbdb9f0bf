//! Back-tests: replays recorded usage, lets each policy choose requests and limits, and counts violations.
//!
//! *Open loop*: decisions do not change the recorded usage.
//!
//! - A workload is (namespace, owner, container). The owner is derived from the pod name ([`trace::owner`]).
//! - Policies decide at minute 1440, 1800, 2160, … while at least 360 minutes follow. A decision at `t` is judged on the
//!   horizon `[t, t + 1440)`, cut at the end of the trace.
//! - Policies decide for a workload once its pods have at least 60 samples of memory and 60 of CPU. Each pod with a sample in
//!   the horizon is judged as one *pod-day*, for CPU and memory separately. Pod-days overlap.
//! - [`score`] has the figures.
//!
//! *Closed loop*: each decision stays set until the next one. Usage above the memory limit is an OOM kill: the policy gets
//! the limit that was hit and decides again for the next minute. The usage that the policy sees later is capped at the limit
//! of that time.

pub mod bootstrap;
pub mod calibration;
pub mod closed;
pub mod history;
mod law_sets;
mod laws;
pub mod leaderboard;
pub mod observe;
pub mod open;
pub mod policies;
pub mod policy;
pub mod pools;
#[cfg(test)]
mod prequential;
pub mod score;
pub mod streams;
pub mod trace;
pub mod validate;
pub mod world;

/// Minutes of history before the first decision.
pub const FIRST: usize = 1440;
/// Minutes between decisions.
pub const STEP: usize = 360;
/// Minutes for which a decision is judged.
pub const HORIZON: usize = 1440;
/// Samples of each resource without which policies do not decide for a workload.
pub const MIN_SAMPLES: usize = 60;

/// The minutes of the decisions in a trace of `minutes` minutes, each `step` minutes.
pub fn decisions(minutes: usize, step: usize) -> impl Iterator<Item = usize> {
    (FIRST..).step_by(step.max(1)).take_while(move |at| at + STEP <= minutes)
}
