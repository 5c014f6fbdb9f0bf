//! The groups of record fields (`HAS_*`) that each measurement needs.

use snug_ebpf::abi::snapshot::{
    HAS_CPU, HAS_MEMORY, HAS_PIDS, HAS_PRESSURE, HAS_THROTTLING, HAS_WORKING_SET,
};

use crate::values::{Measurement, Measurements};

/// The groups of fields (`HAS_*`) that a pass must fill for these measurements.
pub(crate) fn groups(measurements: Measurements) -> u32 {
    let groups_of = |measurement| match measurement {
        Measurement::Cpu => HAS_CPU,
        Measurement::Throttling => HAS_THROTTLING,
        Measurement::Pressure => HAS_PRESSURE,
        Measurement::Memory | Measurement::MemoryEvents | Measurement::Swap => HAS_MEMORY,
        Measurement::WorkingSet => HAS_MEMORY | HAS_WORKING_SET,
        Measurement::Pids => HAS_PIDS,
        Measurement::SlowRows | Measurement::Spec => 0,
    };
    let selected = Measurement::ALL.into_iter().filter(|measurement| measurements.contains(*measurement));
    selected.map(groups_of).fold(0, |groups, group| groups | group)
}

#[cfg(test)]
mod tests {
    use snug_ebpf::abi::snapshot::HAS_ALL;

    use super::*;

    #[test]
    fn all_measurements_need_all_groups_and_none_need_none() {
        assert_eq!(groups(Measurements::ALL), HAS_ALL);
        assert_eq!(groups(Measurements::NONE), 0);
        let slow = Measurements::new(&[Measurement::SlowRows, Measurement::Pids]);
        assert_eq!(groups(slow), HAS_PIDS);
    }
}
