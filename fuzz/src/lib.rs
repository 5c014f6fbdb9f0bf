//! Fuzz targets: plain functions over bytes for everything that reads bytes of others.
//!
//! `tests/fuzz.rs` runs them on stable Rust over mutated samples of the corpus, and bounds their time and memory. `cargo xtask fuzz`
//! runs them with libFuzzer, which needs a nightly. `snug-fuzz TARGET FILE…` runs one on given inputs.

mod corpus;
mod mutate;
mod targets;

pub use self::{
    mutate::Mutator,
    targets::{TARGETS, Target},
};
