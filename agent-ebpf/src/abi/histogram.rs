//! Histograms of durations (run queue latency, TCP round-trip times): one record per cgroup and CPU.
//!
//! Buckets are those of a base-2 exponential histogram of schema 3, as Prometheus' native histograms and OTLP have them.

/// Buckets per power of two: 2^schema, schema 3.
const PER_DOUBLING: usize = 8;
/// Powers of two that the buckets cover: from 2⁻²⁰ s to 16 s.
const DOUBLINGS: usize = 24;
/// Number of buckets in a record.
pub const BUCKETS: usize = PER_DOUBLING * DOUBLINGS;
/// OTLP's index of a record's first bucket, for values in seconds. Shorter durations go to the zero bucket.
pub const FIRST_BUCKET: i32 = -20 * PER_DOUBLING as i32;

/// Durations of one cgroup, counted by one CPU. Counts wrap; the agent reads them every few seconds, long before.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistogramRecord {
    /// Observations in each bucket.
    pub counts: [u32; BUCKETS],
    /// Observations shorter than the first bucket's lower bound.
    pub zero: u32,
    /// Padding; 0.
    pub reserved: u32,
    /// Sum of all observations, nanoseconds.
    pub sum_ns: u64,
}

impl HistogramRecord {
    /// A record without observations.
    pub const EMPTY: Self = Self { counts: [0; BUCKETS], zero: 0, reserved: 0, sum_ns: 0 };
}

/// Index of the bucket of a duration; `None`: shorter than the first bucket's lower bound.
///
/// Bucket bounds are powers of two of a second. The duration is converted to units of 2⁻³⁰ s, of which a second has 1.0737
/// times as many as nanoseconds. Integers only: eBPF has no floating point.
#[inline(always)]
pub fn bucket(nanoseconds: u64) -> Option<usize> {
    /// `2^(k/8) · 2³¹` for `k` in 1..8.
    const STEPS: [u64; 7] = [
        2_341_847_524,
        2_553_802_834,
        2_784_941_738,
        3_037_000_500,
        3_311_872_529,
        3_611_622_603,
        3_938_502_376,
    ];
    /// `(2³⁰ ÷ 10⁹ − 1) · 2²⁰`.
    const EXCESS: u64 = 77_324;
    if nanoseconds >= 1 << 40 {
        return Some(BUCKETS - 1);
    }
    let parts = nanoseconds + ((nanoseconds * EXCESS) >> 20);
    // 2⁻²⁰ s are 2¹⁰ units.
    if parts < 1 << 10 {
        return None;
    }
    let doubling = 63 - parts.leading_zeros();
    let mantissa = if doubling >= 31 { parts >> (doubling - 31) } else { parts << (31 - doubling) };
    let mut step = 0;
    while step < 7 && mantissa >= STEPS[step] {
        step += 1;
    }
    let index = (doubling as usize - 10) * PER_DOUBLING + step;
    Some(if index < BUCKETS { index } else { BUCKETS - 1 })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn buckets_are_those_of_an_exponential_histogram_in_seconds() {
        let mut ns = 1_000_u64;
        while ns < 15_000_000_000 {
            let seconds = ns as f64 / 1e9;
            let exact = (seconds.log2() * 8.0).floor() as i32;
            let found = bucket(ns).map_or(i32::MIN, |index| FIRST_BUCKET + index as i32);
            // Rounding may put a bound into either neighbour.
            let at_bound =
                (seconds.log2() * 8.0).fract().abs() < 1e-3 || (seconds.log2() * 8.0).fract().abs() > 0.999;
            assert!(found == exact || at_bound, "{ns} ns: {found}, not {exact}");
            ns += ns / 37 + 1;
        }
        assert_eq!((bucket(0), bucket(900)), (None, None));
        assert_eq!(bucket(u64::MAX), Some(BUCKETS - 1));
        assert_eq!(bucket(20_000_000_000), Some(BUCKETS - 1));
    }
}
