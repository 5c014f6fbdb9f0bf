//! The library behind the `snug` command: its subcommands, the sources of evidence, and the formatting of numbers.

pub mod advice;
pub mod backtest;
pub mod certificates;
pub mod cluster;
pub mod columns;
pub mod evidence;
pub mod explain;
pub mod gitops;
pub mod horizon;
pub mod manifests;
pub mod policy;
pub mod price;
pub mod progress;
pub mod prometheus;
pub mod recommend;
mod renamed;
pub mod risk;
pub mod simulate;
pub mod snapshot;
pub mod source;
pub mod table;
pub mod terminal;
pub mod top;
pub mod units;
pub mod yaml;
