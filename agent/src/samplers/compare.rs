//! Compares values of the eBPF programs with the cgroup files.
//!
//! The values of the eBPF programs are taken between two readings of the files. Each value must lie between the two. A gauge
//! can leave the range meanwhile, hence the caller tries several times. Files have CPU and stall time in microseconds, so
//! values are compared at that granularity.

use crate::values::{
    Cpu, Measurement, Memory, MemoryEvents, Pids, Swap, Throttling, Values, WorkingSet,
    compared::{Compared, MICROSECOND},
};

/// A value that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// Name of the value, such as `cpu.usage_ns`.
    pub(super) field: &'static str,
    /// The value from the eBPF programs.
    pub(super) kernel: u64,
    /// The values in the files before and after.
    pub(super) files: (u64, u64),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { field, kernel, files: (before, after) } = self;
        if before == after {
            write!(formatter, "{field} is {kernel} from eBPF and {before} in the files")
        } else {
            write!(formatter, "{field} is {kernel} from eBPF and {before} to {after} in the files")
        }
    }
}

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// One of the sources has no value.
    Missing,
    /// All fields are 0 or unlimited in both sources, which verifies nothing.
    Zero,
    /// All fields are equal, and at least one is neither 0 nor unlimited.
    Equal,
    /// A field differs.
    Differs(Difference),
}

const PRESSURE: &[Compared] = &[
    Compared::new("pressure.cpu.some_ns", MICROSECOND, |values| Some(values.pressure?.cpu.some_ns)),
    Compared::new("pressure.cpu.full_ns", MICROSECOND, |values| Some(values.pressure?.cpu.full_ns)),
    Compared::new("pressure.memory.some_ns", MICROSECOND, |values| Some(values.pressure?.memory.some_ns)),
    Compared::new("pressure.memory.full_ns", MICROSECOND, |values| Some(values.pressure?.memory.full_ns)),
    Compared::new("pressure.io.some_ns", MICROSECOND, |values| Some(values.pressure?.io.some_ns)),
    Compared::new("pressure.io.full_ns", MICROSECOND, |values| Some(values.pressure?.io.full_ns)),
];
fn fields(measurement: Measurement) -> &'static [Compared] {
    match measurement {
        Measurement::Cpu => Cpu::COMPARED,
        Measurement::Throttling => Throttling::COMPARED,
        Measurement::Pressure => PRESSURE,
        Measurement::Memory => Memory::COMPARED,
        Measurement::WorkingSet => WorkingSet::COMPARED,
        Measurement::MemoryEvents => MemoryEvents::COMPARED,
        Measurement::Swap => Swap::COMPARED,
        Measurement::Pids => Pids::COMPARED,
        Measurement::SlowRows | Measurement::Spec => &[],
    }
}

/// Compares one measurement of one cgroup. Fields that one of the sources lacks are not compared.
pub(super) fn compare(
    measurement: Measurement,
    before: &Values,
    kernel: &Values,
    after: &Values,
) -> Comparison {
    let mut result = Comparison::Missing;
    for Compared { name, granularity, value } in fields(measurement) {
        let (Some(first), Some(exact), Some(second)) = (value(before), value(kernel), value(after)) else {
            continue;
        };
        let rounded = exact - exact % granularity;
        let (low, high) = (first.min(second), first.max(second));
        if rounded < low - low % granularity || rounded > high {
            return Comparison::Differs(Difference { field: name, kernel: exact, files: (first, second) });
        }
        if rounded != 0 && rounded < u64::MAX - granularity {
            result = Comparison::Equal;
        } else if result == Comparison::Missing {
            result = Comparison::Zero;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(usage_ns: u64) -> Values {
        Values { cpu: Some(Cpu { usage_ns }), ..Values::default() }
    }

    fn memory(usage_bytes: u64, peak_bytes: Option<u64>) -> Values {
        let memory = Some(Memory { usage_bytes, peak_bytes, ..Memory::default() });
        Values { memory, ..Values::default() }
    }

    #[test]
    fn nanoseconds_equal_the_microseconds_of_files() {
        let result = compare(Measurement::Cpu, &cpu(5_000), &cpu(5_999), &cpu(5_000));
        assert_eq!(result, Comparison::Equal);
        let result = compare(Measurement::Cpu, &cpu(5_000), &cpu(6_000), &cpu(5_000));
        let Comparison::Differs(difference) = result else { panic!("{result:?}") };
        assert_eq!(difference.to_string(), "cpu.usage_ns is 6000 from eBPF and 5000 in the files");
    }

    #[test]
    fn a_value_may_move_between_the_two_readings() {
        assert_eq!(compare(Measurement::Cpu, &cpu(5_000), &cpu(7_000), &cpu(9_000)), Comparison::Equal);
        assert!(matches!(
            compare(Measurement::Cpu, &cpu(5_000), &cpu(10_000), &cpu(9_000)),
            Comparison::Differs(_)
        ));
        let falling = compare(Measurement::Memory, &memory(9, None), &memory(7, Some(9)), &memory(5, None));
        assert_eq!(falling, Comparison::Equal);
    }

    #[test]
    fn zeros_and_missing_values_prove_nothing() {
        assert_eq!(compare(Measurement::Cpu, &cpu(0), &cpu(0), &cpu(0)), Comparison::Zero);
        assert_eq!(compare(Measurement::Cpu, &cpu(1), &Values::default(), &cpu(1)), Comparison::Missing);
        assert_eq!(compare(Measurement::SlowRows, &cpu(1), &cpu(1), &cpu(1)), Comparison::Missing);
    }

    #[test]
    fn no_limit_equals_no_limit_only() {
        let throttling = |quota_ns| Values {
            throttling: Some(Throttling { quota_ns, ..Throttling::default() }),
            ..Values::default()
        };
        let (none, some) = (throttling(None), throttling(Some(50_000_000)));
        assert_eq!(compare(Measurement::Throttling, &none, &none, &none), Comparison::Zero);
        assert_eq!(compare(Measurement::Throttling, &some, &some, &some), Comparison::Equal);
        assert!(matches!(compare(Measurement::Throttling, &some, &none, &some), Comparison::Differs(_)));
    }
}
