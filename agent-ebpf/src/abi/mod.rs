//! One module per subject, named like its programs and its sampler.

pub mod lifecycle;
pub mod snapshot;
