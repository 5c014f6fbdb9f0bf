//! Rows for tests.

mod reader;

pub(super) use self::reader::{Exposition, Series, parse, parse_sample};

use std::{sync::Arc, time::Instant};

use snug_sizing::{
    cpu_quota::{QuotaOutcome, QuotaWhatIf},
    workload::Resources,
};

use super::series::{Limited, Progress, ServerRow, Signal};
use crate::{
    access::ReviewCounts,
    model::{
        AgentRow, BudgetRow, CgroupRow, ContainerKind, ContainerSpec, HistoryRow, HostRow, Identity,
        KubernetesRow, Level, Machine, MapRow, Names, PathIdentity, Pods, ProgramRow, Qos, Runtime,
        SourceRow, TerminationReason, Verdict, View, WorkloadRow,
    },
    values::{
        Cpu, CpuSplit, Descriptors, Distribution, Interface, IoDevice, IpTraffic, Measurement, Memory,
        MemoryEvents, MemoryHistograms, MemoryStat, Network, PeakSource, Pids, Pressure, Processes,
        SourceKind, Spec, Stall, Swap, Tcp, Throttling, Traffic, Ulimit, Values, WindowPeak, WorkingSet,
    },
};

/// Progress of the OTLP export.
pub(super) const PROGRESS: [(Signal, Progress); 2] = [
    (Signal::Metrics, Progress { sent: 191, rejected: 192, dropped: 193, failures: 194, waiting_bytes: 195 }),
    (Signal::Logs, Progress { sent: 196, rejected: 197, dropped: 198, failures: 199, waiting_bytes: 200 }),
];

/// The state of a server with TLS and reviews of tokens.
pub(super) fn server() -> ServerRow {
    ServerRow {
        limited: Limited::ALL.map(|reason| (reason, 201 + reason as u64)),
        certificate_expires: Some(1_800_000_000),
        reviews: Some(ReviewCounts { made: 208, failed: 209 }),
    }
}

/// A hundred idle windows, twenty of a tenth of a core, five of two cores.
pub(super) fn windows() -> Distribution {
    let mut windows = Distribution::default();
    for (cores, times) in [(0.0, 100), (0.1, 20), (2.0, 5)] {
        windows.record(cores, times);
    }
    windows
}

/// A distribution of one repeated value.
fn durations(seconds: f64, times: u64) -> Distribution {
    let mut durations = Distribution::default();
    durations.record(seconds, times);
    durations
}

/// Values that are all different.
pub(super) fn values() -> Values {
    Values {
        cpu: Some(Cpu { usage_ns: 1_500_000_000 }),
        cpu_windows: Some(Arc::new(windows())),
        quota_what_if: Some(Arc::new(QuotaWhatIf::from_iter([(500, QuotaOutcome::from((211, 212, 213)))]))),
        runqueue: Some(Arc::new(durations(0.001, 4))),
        round_trips: Some(Arc::new(durations(0.02, 7))),
        cpu_split: Some(CpuSplit { user_ns: 1_000_000_000, system_ns: 500_000_000 }),
        throttling: Some(Throttling {
            quota_ns: Some(50_000_000),
            period_ns: 100_000_000,
            burst_limit_ns: 0,
            periods: 100,
            throttled_periods: 25,
            throttled_ns: 2_250_000_000,
            burst_periods: 3,
            burst_ns: 250_000_000,
        }),
        pressure: Some(Pressure {
            cpu: Stall { some_ns: 11_000_000_000, full_ns: 1_000_000_000 },
            memory: Stall { some_ns: 12_000_000_000, full_ns: 2_000_000_000 },
            io: Stall { some_ns: 13_000_000_000, full_ns: 3_000_000_000 },
        }),
        memory: Some(Memory {
            usage_bytes: 4096,
            peak_bytes: Some(8192),
            high_bytes: Some(9216),
            limit_bytes: Some(1 << 20),
        }),
        window_peak: Some(WindowPeak { bytes: 7168, source: PeakSource::Watermark }),
        memory_growth: Some(-12.5),
        memory_histograms: Some(Arc::new(MemoryHistograms {
            working_set: durations(4096.0, 8),
            unreclaimable: durations(2048.0, 3),
        })),
        working_set: Some(WorkingSet { inactive_file_bytes: 1024, bytes: 3072 }),
        memory_events: Some(MemoryEvents { low: 21, high: 22, max: 23, oom: 24, oom_kill: 25 }),
        swap: Some(Swap { usage_bytes: 31, peak_bytes: Some(33), limit_bytes: Some(32) }),
        pids: Some(Pids { current: 33, limit: Some(34) }),
        memory_stat: Some(Arc::new(MemoryStat {
            anon_bytes: 41,
            file_bytes: 42,
            kernel_bytes: Some(43),
            shmem_bytes: 44,
            file_mapped_bytes: 45,
            file_dirty_bytes: 46,
            file_writeback_bytes: 47,
            active_file_bytes: 48,
            inactive_file_bytes: 1024,
            active_anon_bytes: 49,
            inactive_anon_bytes: 50,
            slab_reclaimable_bytes: Some(51),
            slab_unreclaimable_bytes: Some(52),
            unevictable_bytes: 53,
            page_faults: 160,
            major_page_faults: 60,
            page_scans: Some(62),
            page_steals: Some(63),
            refaults_anon: Some(64),
            refaults_file: Some(65),
        })),
        io: Some(Arc::from([IoDevice {
            major: 8,
            minor: 0,
            read_bytes: 71,
            write_bytes: 72,
            reads: 73,
            writes: 74,
        }])),
        spec: Some(Spec { cpu_shares: Some(81), memory_reservation_bytes: Some(82) }),
        interfaces: Some(Arc::from([Interface {
            name: "eth0".into(),
            receive: Traffic { bytes: 91, packets: 92, errors: 93, dropped: 94 },
            transmit: Traffic { bytes: 95, packets: 96, errors: 97, dropped: 98 },
        }])),
        processes: Some(Processes {
            count: 101,
            descriptors: Some(Descriptors { all: 102, sockets: 103 }),
            open_files_limit: Some(Ulimit::At(104)),
        }),
        network: Some(network()),
        tcp: Some(tcp()),
    }
}

fn network() -> Network {
    let ip = |first| IpTraffic {
        receive_bytes: first,
        receive_packets: first + 1,
        transmit_bytes: first + 2,
        transmit_packets: first + 3,
    };
    Network { ipv4: ip(111), ipv6: ip(121) }
}

fn tcp() -> Tcp {
    let mut tcp = Tcp::default();
    for (counter, value) in tcp.counters_mut().into_iter().zip(131..) {
        *counter = value;
    }
    tcp
}

pub(super) fn cgroup(path: &str, level: Level, id: &str, names: Option<Names>) -> CgroupRow {
    let in_pod = matches!(level, Level::Pod | Level::Sandbox | Level::Container);
    let of_path = PathIdentity {
        level,
        runtime: if in_pod && level != Level::Pod { Runtime::Containerd } else { Runtime::Unknown },
        pod_uid: in_pod.then(|| "5ab13527-1e13-487f-b057-71e702b5f80e".to_owned()),
        qos: in_pod.then_some(Qos::Burstable),
        id: id.to_owned(),
    };
    let identity = Identity { path: path.into(), of_path, names: names.map(Arc::new), engine_name: None };
    CgroupRow { identity: Arc::new(identity), created_unix: 1_795_340_000.25, values: values() }
}

pub(super) fn names(namespace: &str, container: &str, image: &str, kind: Option<ContainerKind>) -> Names {
    Names {
        namespace: namespace.to_owned(),
        pod: "web-0".to_owned(),
        container: container.to_owned(),
        image: image.to_owned(),
        workload_kind: "StatefulSet".to_owned(),
        workload: "web".to_owned(),
        kind,
        ..Names::default()
    }
}

/// A node with one pod of one container, a unit and a plain cgroup.
pub(super) fn view() -> View {
    let pod = "/kubepods/burstable/pod5ab13527-1e13-487f-b057-71e702b5f80e";
    let of_pod = Resources {
        cpu_request: Some(221),
        cpu_limit: Some(222),
        memory_request: Some(223),
        memory_limit: Some(224),
    };
    let spec = ContainerSpec { pod_resources: Some(of_pod), ..ContainerSpec::default() };
    let app =
        Names { spec: Arc::new(spec), ..names("default", "app", "example/app:1", Some(ContainerKind::App)) };
    let sandbox = names("default", "", "example/pause:1", Some(ContainerKind::Sandbox));
    let cgroups = vec![
        cgroup("/", Level::Root, "", None),
        cgroup("/kubepods", Level::Slice, "kubepods", None),
        cgroup(pod, Level::Pod, "", Some(Names { resources: of_pod, ..names("default", "", "", None) })),
        cgroup(&format!("{pod}/aaaa"), Level::Container, "aaaa", Some(app)),
        cgroup(&format!("{pod}/bbbb"), Level::Sandbox, "bbbb", Some(sandbox)),
        cgroup("/plain", Level::Cgroup, "plain", None),
        cgroup("/system.slice/cron.service", Level::Unit, "cron.service", None),
    ];
    let workload = WorkloadRow {
        namespace: "default".into(),
        workload_kind: "StatefulSet".into(),
        workload: "web".into(),
        container: "app".into(),
        cpu_ns: 7_500_000_000,
        periods: 5,
        throttled_periods: 2,
        throttled_ns: 500_000_000,
        memory_events: MemoryEvents { low: 141, high: 142, max: 143, oom: 144, oom_kill: 145 },
        memory_peak_bytes: 9000,
        containers_started: 3,
        containers_ended: 2,
        restarts: 1,
        terminations: [(TerminationReason::OomKilled, 137), (TerminationReason::Error, 1)]
            .into_iter()
            .collect(),
        oom_kills: Some([151, 152, 153, 154]),
        network: Some(network()),
        tcp: Some(tcp()),
    };
    let at = Instant::now();
    View {
        at,
        cgroups,
        stamps: Vec::new(),
        workloads: Arc::from([workload]),
        terminated: Arc::new([]),
        events: crate::model::samples::one_of_each(),
        pods: Arc::new(pods()),
        agent: agent(),
        host: Arc::new(host()),
    }
}

/// A pod during an in-place resize, and one whose image cannot be pulled.
fn pods() -> Pods {
    let list = serde_json::json!({ "kind": "List", "items": [
        {
            "metadata": {
                "namespace": "shop", "name": "web-5c577f54c7-8mpkc", "uid": "uid-1",
                "labels": { "pod-template-hash": "5c577f54c7" },
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5c577f54c7", "uid": "rs-1",
                    "controller": true,
                }],
            },
            "spec": {
                "nodeName": "node1", "priorityClassName": "high", "hostNetwork": true,
                "containers": [{ "name": "app", "image": "app:1", "resources": {
                    "requests": { "cpu": "191m", "memory": "192Mi" },
                    "limits": { "cpu": "193m", "memory": "194Mi" },
                } }],
            },
            "status": { "phase": "Running", "podIP": "10.0.0.2", "hostIP": "10.0.0.1", "containerStatuses": [{
                "name": "app", "image": "app:1", "imageID": "", "ready": true, "restartCount": 195,
                "containerID": "containerd://a", "state": { "running": {} },
                "lastState": { "terminated": { "exitCode": 137, "reason": "OOMKilled" } },
                "allocatedResources": { "cpu": "196m", "memory": "197Mi" },
                "resources": {
                    "requests": { "cpu": "198m", "memory": "199Mi" },
                    "limits": { "cpu": "200m", "memory": "201Mi" },
                },
            }] },
        },
        {
            "metadata": { "namespace": "shop", "name": "broken", "uid": "uid-2" },
            "spec": {
                "nodeName": "node1",
                "containers": [{ "name": "app", "image": "none:1" }],
                "initContainers": [
                    { "name": "setup", "image": "setup:1" },
                    {
                        "name": "proxy", "image": "proxy:1", "restartPolicy": "Always",
                        "resources": { "requests": { "cpu": "231m" }, "limits": { "memory": "232Mi" } },
                    },
                ],
            },
            "status": {
                "phase": "Pending",
                "containerStatuses": [{
                    "name": "app", "image": "none:1", "imageID": "", "ready": false, "restartCount": 0,
                    "state": { "waiting": { "reason": "ImagePullBackOff" } },
                }],
                "initContainerStatuses": [{
                    "name": "proxy", "image": "example/proxy:1", "imageID": "", "ready": false, "restartCount": 233,
                    "state": { "waiting": { "reason": "CrashLoopBackOff" } },
                    "lastState": { "terminated": { "exitCode": 137, "reason": "OOMKilled" } },
                }],
            },
        },
    ] });
    Pods::from_json(list.to_string().as_bytes()).expect("a list of pods").pods
}

fn host() -> HostRow {
    let machine = Machine {
        boot_id: "boot".to_owned(),
        machine_id: "machine".to_owned(),
        system_uuid: String::new(),
        cpus: Some(4),
        cores: Some(2),
        sockets: Some(1),
        memory_bytes: Some(1 << 30),
        swap_bytes: Some(0),
    };
    HostRow { machine, devices: [((8, 0), "/dev/sda".to_owned())].into() }
}

fn agent() -> AgentRow {
    let failed = Verdict::Failed("out of \"memory\"\nat\\load".to_owned());
    AgentRow {
        programs: vec![
            ProgramRow {
                name: "snapshot",
                verdict: Verdict::Running,
                run_time_ns: 2_000_000_000,
                run_count: 9,
            },
            ProgramRow { name: "network", verdict: failed, run_time_ns: 0, run_count: 0 },
        ],
        maps: vec![MapRow { name: "RECORDS", used: 5, capacity: 4096 }],
        sources: vec![SourceRow {
            measurement: Measurement::Cpu,
            source: SourceKind::Kernel,
            reason: String::new(),
            sampled_at: Some(Instant::now()),
        }],
        lost_events: vec![("ring_full", 0)],
        skipped: vec![("unreadable_file", 2)],
        unresolved_cgroups: 161,
        unnamed_containers: 162,
        counter_regressions: 163,
        passes: 10,
        pass_seconds: 0.5,
        flush_seconds: 0.25,
        pass_cgroups: 164,
        downtime_seconds: 165.5,
        starts: 1,
        cpu_seconds: 166.5,
        resident_bytes: 167,
        map_bytes: 168,
        started_unix: 1_795_340_001.5,
        workloads_folded: 169,
        kubernetes: Some(KubernetesRow {
            synced: true,
            connected: true,
            pods: 181,
            events: 182,
            relists: 183,
            errors: 184,
            owner_reads: 185,
        }),
        runqueue: Some(BudgetRow { cost_ns: 201, paused: true, times_paused: 202 }),
        network: Some(BudgetRow { cost_ns: 203, paused: false, times_paused: 204 }),
        slowdown: 2,
        history: Some(HistoryRow {
            bytes: 171,
            failed_writes: 172,
            lost: 173,
            damaged: 174,
            moved_aside: 175,
        }),
        ..AgentRow::default()
    }
}
