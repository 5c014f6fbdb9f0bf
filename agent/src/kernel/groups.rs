//! Which groups of a record's fields a measurement is taken from.

use snug_ebpf::abi::snapshot::{
    HAS_CPU, HAS_MEMORY, HAS_PIDS, HAS_PRESSURE, HAS_THROTTLING, HAS_WORKING_SET,
};

use crate::values::{Measurement, Measurements};

/// The groups (`HAS_*`) that a pass has to fill for these measurements.
pub(crate) fn groups(measurements: Measurements) -> u32 {
    let of_one = |measurement| match measurement {
        Measurement::Cpu => HAS_CPU,
        Measurement::Throttling => HAS_THROTTLING,
        Measurement::Pressure => HAS_PRESSURE,
        Measurement::Memory | Measurement::MemoryEvents | Measurement::Swap => HAS_MEMORY,
        Measurement::WorkingSet => HAS_MEMORY | HAS_WORKING_SET,
        Measurement::Pids => HAS_PIDS,
        Measurement::SlowRows | Measurement::Spec => 0,
    };
    let asked = Measurement::ALL.into_iter().filter(|measurement| measurements.contains(*measurement));
    asked.map(of_one).fold(0, |groups, group| groups | group)
}

#[cfg(test)]
mod tests {
    use snug_ebpf::abi::snapshot::HAS_ALL;

    use super::*;

    #[test]
    fn all_measurements_take_all_groups_and_none_none() {
        assert_eq!(groups(Measurements::ALL), HAS_ALL);
        assert_eq!(groups(Measurements::NONE), 0);
        let slow = Measurements::of(&[Measurement::SlowRows, Measurement::Pids]);
        assert_eq!(groups(slow), HAS_PIDS);
    }
}
