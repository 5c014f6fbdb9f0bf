//! Numbers in the sentences of reasons.

use crate::quantity::Quantity;

/// Whole MiB from 10 MiB on, else an exact quantity.
pub(super) fn bytes(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes >= 10 * MIB {
        format!("{} MiB", bytes.div_ceil(MIB))
    } else {
        Quantity::from_bytes(bytes).to_string()
    }
}

/// A share as a percentage, with more digits where it is small.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = usize::from(percent < 10.0) + usize::from(percent < 1.0);
    format!("{percent:.digits$} %")
}
