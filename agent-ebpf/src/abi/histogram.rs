//! Histograms of durations: one record per cgroup and CPU.

/// Buckets per doubling: 2^schema with schema 3.
const PER_DOUBLING: usize = 8;
/// Doublings between the shortest and the longest duration that are told apart: 2⁻²⁰ s to 16 s.
const DOUBLINGS: usize = 24;
/// Buckets of a record.
pub const BUCKETS: usize = PER_DOUBLING * DOUBLINGS;
/// What a record's first bucket is in a base-2 exponential histogram of schema 3, in seconds, by OTLP's numbering. What
/// is shorter than it begins is counted as zero.
pub const FIRST_BUCKET: i32 = -20 * PER_DOUBLING as i32;

/// Durations of one cgroup, counted by one CPU. Counts wrap; the agent looks often enough.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistogramRecord {
    /// Durations by their length.
    pub counts: [u32; BUCKETS],
    /// Those that were too short for the first bucket.
    pub zero: u32,
    /// Keeps the layout without holes.
    pub reserved: u32,
    /// Sum of all, nanoseconds.
    pub sum_ns: u64,
}

impl HistogramRecord {
    /// Nothing counted.
    pub const NONE: Self = Self { counts: [0; BUCKETS], zero: 0, reserved: 0, sum_ns: 0 };
}

/// The bucket of a duration; `None` if it is shorter than the first one.
///
/// Seconds are powers of two here and nanoseconds are not: 2³⁰ parts of a second are 1.0737 times as many.
#[inline(always)]
pub fn bucket(nanoseconds: u64) -> Option<usize> {
    /// `2^(k/8)` for `k` in 1..8, of 2³¹.
    const STEPS: [u64; 7] = [
        2_341_847_524,
        2_553_802_834,
        2_784_941_738,
        3_037_000_500,
        3_311_872_529,
        3_611_622_603,
        3_938_502_376,
    ];
    /// 2³⁰ ÷ 10⁹ − 1, of 2²⁰.
    const MORE: u64 = 77_324;
    if nanoseconds >= 1 << 40 {
        return Some(BUCKETS - 1);
    }
    let parts = nanoseconds + ((nanoseconds * MORE) >> 20);
    // Parts of 2⁻²⁰ s are 2¹⁰ of 2⁻³⁰ s.
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
            // A bound may fall on either side.
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
