//! Sizing: recommends requests and limits from usage history. Pure: no I/O, no async.
//!
//! [`evidence`] is the usage history of a container; [`engine`] makes a recommendation from it; [`simulate`] applies other
//! values to it. [`baselines`] are the algorithms of other tools. [`backtest`] replays engine and baselines on recorded
//! usage and counts violations.
#![forbid(unsafe_code)]

/// Seconds in an hour.
pub const HOUR: u64 = 3600;

mod counts;
mod rules;

pub mod quantity;
pub mod settings;

pub mod cpu_quota;
pub mod evidence;
pub mod families;
pub mod histogram;
pub mod minutes;
pub mod random;
pub mod skew;
pub mod start_up;
pub mod workload;

pub mod constraints;
pub mod cost;
pub mod hpa;
pub mod pod;

pub mod engine;
pub mod simulate;

pub mod baselines;

pub mod backtest;
