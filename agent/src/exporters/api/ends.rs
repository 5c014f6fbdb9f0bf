//! `/api/v1/…`: what a program asks that is no time series. JSON; fields are only ever added within a version.

use serde::Serialize;

use crate::store::{
    ends::{EndRow, Exit, Init},
    published::Published,
};

/// Where the containers that ended last are served.
pub const ENDS: &str = "/api/v1/ends";

/// The containers that ended last.
#[derive(Debug, Serialize)]
pub struct Ends<'a> {
    /// `v1`.
    version: &'static str,
    /// Name of the node.
    node: &'a str,
    /// Newest first; as many as the agent remembers.
    ends: Vec<End<'a>>,
}

/// The final record of a container. Times are seconds since the Unix epoch; what is not known is `null`.
#[derive(Debug, Serialize)]
struct End<'a> {
    id: &'a str,
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    image: &'a str,
    workload_kind: &'a str,
    workload: &'a str,
    pod_uid: Option<&'a str>,
    container_id: &'a str,
    created: f64,
    removed: f64,
    lifetime_seconds: f64,
    process: Option<Process<'a>>,
    oom_kills: u64,
    last_oom_kill: Option<OomKill<'a>>,
    cpu_seconds: Option<f64>,
    throttled_periods: Option<u64>,
    memory_peak_bytes: Option<u64>,
    memory_limit_bytes: Option<u64>,
    network: Option<Network>,
}

/// The container's init process.
#[derive(Debug, Serialize)]
struct Process<'a> {
    pid: u32,
    name: &'a str,
    started: f64,
    ended: Option<f64>,
    run_seconds: Option<f64>,
    exit_code: Option<u8>,
    signal: Option<u8>,
    reason: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct OomKill<'a> {
    at: f64,
    limit: &'static str,
    usage_bytes: u64,
    limit_bytes: Option<u64>,
    victim_pid: u32,
    victim: &'a str,
}

/// Both versions of IP together.
#[derive(Debug, Serialize)]
struct Network {
    receive_bytes: u64,
    receive_packets: u64,
    transmit_bytes: u64,
    transmit_packets: u64,
}

impl<'a> Ends<'a> {
    /// Of what was published last.
    pub fn of(published: &'a Published) -> Self {
        let ends = published.ends.iter().rev().map(|end| End::of(end)).collect();
        Self { version: "v1", node: &published.agent.node, ends }
    }
}

impl<'a> End<'a> {
    fn of(row: &'a EndRow) -> Self {
        let names = row.identity.names.as_deref();
        let name = |of: fn(&crate::identity::Names) -> &String| names.map_or("", |names| of(names));
        let values = &row.values;
        Self {
            id: &row.identity.path,
            namespace: name(|names| &names.namespace),
            pod: name(|names| &names.pod),
            container: name(|names| &names.container),
            image: name(|names| &names.image),
            workload_kind: name(|names| &names.workload_kind),
            workload: name(|names| &names.workload),
            pod_uid: row.identity.of_path.pod_uid.as_deref(),
            container_id: &row.identity.of_path.id,
            created: row.created_unix,
            removed: row.removed_unix,
            lifetime_seconds: (row.removed_unix - row.created_unix).max(0.0),
            process: row.init.as_ref().map(|init| process(init, row)),
            oom_kills: row.oom_kills,
            last_oom_kill: row.last_oom_kill.as_ref().map(|kill| OomKill {
                at: kill.at_unix,
                limit: kill.scope.as_str(),
                usage_bytes: kill.usage_bytes,
                limit_bytes: kill.limit_bytes,
                victim_pid: kill.pid,
                victim: &kill.comm,
            }),
            cpu_seconds: values.cpu.map(|cpu| std::time::Duration::from_nanos(cpu.usage_ns).as_secs_f64()),
            throttled_periods: values.throttling.map(|throttling| throttling.throttled_periods),
            memory_peak_bytes: values.memory.and_then(|memory| memory.peak_bytes),
            memory_limit_bytes: values.memory.and_then(|memory| memory.limit_bytes),
            network: values.network.map(|network| {
                let (four, six) = (network.ipv4, network.ipv6);
                Network {
                    receive_bytes: four.receive_bytes + six.receive_bytes,
                    receive_packets: four.receive_packets + six.receive_packets,
                    transmit_bytes: four.transmit_bytes + six.transmit_bytes,
                    transmit_packets: four.transmit_packets + six.transmit_packets,
                }
            }),
        }
    }
}

fn process<'a>(init: &'a Init, row: &'a EndRow) -> Process<'a> {
    let exit: Option<&Exit> = row.exit.as_ref().map(|(exit, _)| exit);
    Process {
        pid: init.pid,
        name: &init.comm,
        started: init.started_unix,
        ended: exit.map(|exit| exit.ended_unix),
        run_seconds: exit.map(|exit| (exit.ended_unix - init.started_unix).max(0.0)),
        exit_code: exit.map(|exit| exit.status.code()),
        signal: exit.and_then(|exit| exit.status.signal()),
        reason: row.exit.as_ref().map(|(_, reason)| reason.as_str()),
    }
}
