//! Private parsers of what the kernel provides, as functions over bytes for the fuzz targets.

use super::{btf::Btf, events::KernelEvent, offsets};

/// The kernel's type information, and the fields that the programs read.
pub fn types(bytes: &[u8]) {
    if let Ok(btf) = Btf::parse(bytes) {
        // Kernels that lack fields are no failure.
        let _ = offsets::resolve(&btf);
        btf.enumerator("cgroup_subsys_id", "memory_cgrp_id");
        btf.tracepoint_argument_is_pointer("sched_switch", 1);
    }
}

/// An entry of the ring buffer.
pub fn event(bytes: &[u8]) {
    KernelEvent::decode(bytes);
}
