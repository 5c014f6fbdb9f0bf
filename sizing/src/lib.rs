//! Sizing: evidence in, recommendation out. Pure: no I/O, no async.
#![forbid(unsafe_code)]

pub mod quantity;
