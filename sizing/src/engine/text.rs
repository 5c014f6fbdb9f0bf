//! Numbers in the sentences of reasons.

/// Whole MiB from 10 MiB on, with a digit below that, and KiB below one.
pub(super) fn bytes(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    if bytes < MIB {
        return format!("{} KiB", bytes.div_ceil(KIB));
    }
    // Tenths, rounded up like the others.
    match (bytes % MIB * 10).div_ceil(MIB) {
        tenths @ 1..10 if bytes < 10 * MIB => format!("{}.{tenths} MiB", bytes / MIB),
        _ => format!("{} MiB", bytes.div_ceil(MIB)),
    }
}

/// A share as a percentage, with more digits where it is small.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = usize::from(percent < 10.0) + usize::from(percent < 1.0);
    format!("{percent:.digits$} %")
}
