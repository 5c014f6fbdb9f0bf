//! Usage histories for containers of manifests.

use std::io::Write as _;

use snug_sizing::{
    cpu_quota::TokenBuckets,
    evidence::{Evidence, HOUR, Header, Hour, HourRecord, OomKill, Peak, PodTotals},
    workload::{Container, Resources, Role, Workload, WorkloadKind},
};

const MIB: u64 = 1 << 20;
const START: u64 = 1_800_000_000;
const HOURS: u32 = 8 * 24;

/// A container with its usage.
#[derive(Clone, Debug)]
pub(crate) struct Used {
    pub namespace: String,
    pub owner: String,
    pub workload: String,
    pub container: String,
    pub is_init: bool,
    /// Cores.
    pub cpu: f64,
    /// Highest memory usage, MiB.
    pub memory: u64,
    /// What the cluster runs.
    pub current: Resources,
    pub is_killed: bool,
}

/// `namespace kind/workload container`.
pub(crate) fn used(names: &str, cpu: f64, memory: u64) -> Used {
    let mut parts = names.split([' ', '/']).map(str::to_owned);
    let mut next = || parts.next().unwrap();
    Used {
        namespace: next(),
        owner: next(),
        workload: next(),
        container: next(),
        is_init: false,
        cpu,
        memory,
        current: Resources { cpu_request: Some(3000), cpu_limit: Some(4000), ..Resources::default() },
        is_killed: false,
    }
}

fn evidence(used: &Used) -> Evidence {
    let workload = Workload {
        namespace: used.namespace.clone(),
        name: used.workload.clone(),
        owner: used.owner.clone(),
        kind: WorkloadKind::from_owner(&used.owner),
        replicas: 2,
    };
    let container = Container {
        name: used.container.clone(),
        role: if used.is_init { Role::Init } else { Role::App },
        seen: START + u64::from(HOURS) * HOUR,
        current: used.current,
        ..Container::default()
    };
    let mut evidence = Evidence::new(workload, container, 100);
    let pod = format!("{}-0", used.workload);
    for hour in 0..HOURS {
        let at = START + u64::from(hour) * HOUR;
        let mut record = HourRecord { observed: HOUR, ..HourRecord::default() };
        let mut buckets = TokenBuckets::default();
        for (share, times) in [(0.5, 20_000), (1.0, 12_000), (2.0, 4000)] {
            record.cpu.record(used.cpu * share, times);
            (0..times / 40).for_each(|_| buckets.feed((used.cpu * share * 1e8) as u64, 100_000_000));
        }
        for (share, times) in [(0.8, 20), (1.0, 35), (1.2, 5)] {
            record.minutes.record(used.cpu * share, times);
        }
        record.quota_what_if = buckets.take();
        let bytes = used.memory * MIB - u64::from(hour % 24) * MIB / 8;
        record.peak = Some(Peak { bytes, at, pod: pod.clone() });
        if used.is_killed && hour == 100 {
            record.kills = vec![OomKill { at, limit: bytes, pod: pod.clone() }];
        }
        evidence.hours.insert(Hour((START / HOUR) as u32 + hour), record);
    }
    evidence.pods.insert(pod, PodTotals { observed: u64::from(HOURS) * HOUR, ..PodTotals::default() });
    evidence
}

/// A snapshot of these containers.
pub(crate) fn snapshot(all: &[Used]) -> tempfile::NamedTempFile {
    let header = Header::new("node-1", START + u64::from(HOURS) * HOUR);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{}", serde_json::to_string(&header).unwrap()).unwrap();
    for used in all {
        writeln!(file, "{}", serde_json::to_string(&evidence(used)).unwrap()).unwrap();
    }
    file
}
