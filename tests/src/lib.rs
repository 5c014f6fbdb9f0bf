//! Guards and helpers that the whole-system tests share.

pub mod agent;
pub mod exposition;
