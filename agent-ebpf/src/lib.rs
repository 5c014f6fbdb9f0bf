//! Records that the eBPF programs and the agent share. `no_std`, without aya.
#![no_std]
#![warn(missing_docs)]

pub mod abi;
