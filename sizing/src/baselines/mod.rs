//! What others recommend, to the constant: for the back-test, and for who asks what another tool would say.
//!
//! Each is written after the sources or the paper of the tool, and proved by its own tests' known answers where it has them.

pub mod autopilot;
pub mod krr;
pub mod vpa;
