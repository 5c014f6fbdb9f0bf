//! What the `snug` command is made of: asking an agent, and writing numbers as people read them.

pub mod agent;
pub mod backtest;
pub mod exposition;
pub mod top;
pub mod units;
