//! Sizing: evidence in, recommendation out. Pure: no I/O, no async.
//!
//! [`evidence`] is what is known of a container, and merges; [`engine`] makes recommendations of it; [`baselines`] is what other
//! tools would say; [`backtest`] replays them all on recorded use and counts what would have gone wrong.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

/// Seconds in an hour.
pub const HOUR: u64 = 3600;

pub mod quantity;

pub mod cpu_quota;
pub mod evidence;
pub mod histogram;
pub mod minutes;
pub mod skew;
pub mod workload;

pub mod constraints;
pub mod cost;
pub mod hpa;
pub mod pod;

pub mod engine;
pub mod simulate;

pub mod baselines;

pub mod backtest;
