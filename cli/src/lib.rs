//! What the `snug` command is made of: commands, where evidence comes from, and numbers as people read them.

pub mod backtest;
pub mod cluster;
pub mod columns;
pub mod evidence;
pub mod explain;
pub mod policy;
pub mod price;
pub mod prometheus;
pub mod recommend;
mod renamed;
pub mod risk;
pub mod simulate;
pub mod snapshot;
pub mod source;
pub mod top;
pub mod units;
