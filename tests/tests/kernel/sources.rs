//! The hierarchy and the source of each measurement, on hosts with cgroup v2 and hybrid hosts.

use snug_agent::{
    cgroupfs::{Measurements, mounts::Version},
    values::{Measurement, SourceKind},
};

use crate::driver::{Driver, host, source_of};

#[test]
fn each_measurement_has_the_expected_source() {
    let Some(host) = host() else { return };
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    let published = driver.round();
    let pure = host.hierarchies.v1.is_empty();
    for measurement in Measurement::ALL {
        let SourceOf { hierarchy, source } = expected(measurement, pure);
        let row = source_of(&published, measurement);
        assert_eq!((row.source, &*row.reason), (source, ""), "{measurement:?}");
        let serving = host.hierarchies.serving(measurement).unwrap();
        assert_eq!(serving.version, hierarchy, "{measurement:?} comes from {}", serving.mount.display());
        assert!(row.sampled_at.is_some(), "{measurement:?} is sampled");
    }
    assert_eq!(published.agent.unresolved_cgroups, 0);
    assert!(published.agent.maps.iter().any(|map| map.name == "records" && map.used > 0));
    assert!(published.agent.map_bytes > 0 && published.agent.passes > 0);
}

#[test]
fn the_root_has_values_although_it_has_no_records() {
    if host().is_none() {
        return;
    }
    let Some(mut driver) = Driver::kernel(&[]) else { return };
    for round in 0..5 {
        let published = driver.round();
        let root = published.cgroups.iter().find(|row| &*row.identity.path == "/");
        let values = &root.unwrap_or_else(|| panic!("no root in round {round}")).values;
        assert!(values.cpu.is_some_and(|cpu| cpu.usage_ns > 0), "{values:?}");
        assert!(values.memory.is_some_and(|memory| memory.usage_bytes > 0), "{values:?}");
        assert!(values.working_set.is_some(), "{values:?}");
    }
}

struct SourceOf {
    hierarchy: Version,
    source: SourceKind,
}

/// On a hybrid host the controllers are in v1, but CPU time and pressure come from v2: v1 has CPU time in per-CPU counters only,
/// and no pressure.
fn expected(measurement: Measurement, pure: bool) -> SourceOf {
    let of_v2 = matches!(measurement, Measurement::Cpu | Measurement::Pressure | Measurement::SlowRows);
    SourceOf {
        hierarchy: if pure || of_v2 { Version::V2 } else { Version::V1 },
        source: if Measurements::ONLY_IN_FILES.contains(measurement) {
            SourceKind::Files
        } else {
            SourceKind::Kernel
        },
    }
}
