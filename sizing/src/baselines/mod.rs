//! The algorithms of other tools with their constants, for back-tests.
//!
//! Each follows the source code or the paper of the tool. Where the tool has tests with known results, the tests here use the
//! same results.

pub mod attune;
pub mod autopilot;
pub mod krr;
pub mod kruize;
pub mod vpa;
