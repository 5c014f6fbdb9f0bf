//! The steps of recommended values.

/// Memory is rounded up to a multiple of this, bytes.
const MEMORY_UNIT: f64 = 1024.0 * 1024.0;

/// Rounds bytes up to a step.
pub fn memory(bytes: f64) -> u64 {
    // `as` saturates.
    ((bytes / MEMORY_UNIT).ceil().max(1.0) * MEMORY_UNIT) as u64
}

/// Rounds millicores up to a step. At least one: a request of zero would change the pod's QoS class.
pub fn cpu(millicores: f64) -> u64 {
    (millicores.ceil() as u64).max(1)
}
