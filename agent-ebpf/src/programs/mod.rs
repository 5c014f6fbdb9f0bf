//! The programs. Each does a bounded amount of work; what is lost is counted.

mod lifecycle;
mod read;
mod snapshot;
