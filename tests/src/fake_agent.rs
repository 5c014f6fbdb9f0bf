//! An agent that serves any number of containers from memory, each with constant rates: whoever asks twice, at whichever moment, gets the
//! same numbers. It knows what `snug top` asks for, and nothing else.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use serde_json::{Value, json};

use crate::http;

/// Seconds between the measurements of two answers.
const STEP: u64 = 1;
/// The name of its node.
pub const NODE: &str = "node-a";

/// The agent. It serves as long as the process lives.
#[derive(Debug)]
pub struct FakeAgent {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    containers: u64,
    is_silent: AtomicBool,
    /// Answers so far.
    answers: AtomicU64,
}

impl FakeAgent {
    /// With this number of containers.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(containers: u64) -> Self {
        let shared = Shared { containers, is_silent: AtomicBool::new(false), answers: AtomicU64::new(0) };
        let shared = Arc::new(shared);
        let served = Arc::clone(&shared);
        let address = http::listen(move |stream, head| serve(stream, head, &served));
        Self { address, shared }
    }

    /// Its address for `--agent`.
    pub fn url(&self) -> String {
        self.address.clone()
    }

    /// Closes connections without an answer, or goes on.
    pub fn silence(&self, is_silent: bool) {
        self.shared.is_silent.store(is_silent, Ordering::SeqCst);
    }

    /// Lists of containers that it has sent.
    pub fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::SeqCst)
    }
}

/// Serves one request after the other, as an agent does.
fn serve(mut stream: TcpStream, first: String, shared: &Shared) {
    let mut next = Some(first);
    while let Some(head) = next.filter(|_| !shared.is_silent.load(Ordering::SeqCst)) {
        let body = answer(head.split(' ').nth(1).unwrap_or_default(), shared);
        next = http::answer(&mut stream, "200 OK", "application/json", &body)
            .and_then(|()| http::read_head(&mut stream));
    }
}

fn answer(target: &str, shared: &Shared) -> String {
    let list =
        |name: &str, rows: Vec<Value>| json!({ "version": "v1", "node": NODE, "next": null, name: rows });
    match target.split('?').next().unwrap_or_default() {
        "/api/v1/containers" => {
            let number = shared.answers.fetch_add(1, Ordering::SeqCst);
            let mut answer =
                list("containers", (0..shared.containers).map(|row| container(row, number)).collect());
            answer["at"] = json!(1_800_000_000 + number * STEP);
            answer.to_string()
        }
        "/api/v1/evidence" => {
            json!({ "schema": "snug.evidence/1", "node": NODE, "at": 1_800_000_000_u64 }).to_string() + "\n"
        }
        path => {
            let name = path.rsplit('/').next().unwrap_or_default();
            list(name, Vec::new()).to_string()
        }
    }
}

/// A container at the measurement of this number. Its values differ from those of all others.
fn container(row: u64, number: u64) -> Value {
    let name = format!("app{row}");
    let millicores = row * 7 % 4000 + 1;
    let cpu_seconds = (number * STEP) as f64 * millicores as f64 / 1000.0;
    let has_limit = !row.is_multiple_of(3);
    let namespace = if row.is_multiple_of(2) { "shop" } else { "payments" };
    let periods = 10 * number;
    let working_set = ((row + 1) << 20) + row * 1000;
    json!({
        "id": format!("/kubepods/burstable/pod{row:08x}-0000-4000-8000-000000000000/{row:064x}"),
        "level": "container", "kind": "app", "namespace": namespace,
        "pod": format!("{name}-5d4f8c7b9c-x{row:04}"), "container": name, "workload_kind": "Deployment", "workload": name,
        "container_id": format!("{row:064x}"), "runtime": "containerd", "image": "registry.example/app:1",
        "created": 1_799_990_000.0, "cpu_request_cores": 0.1, "cpu_limit_cores": null, "memory_request_bytes": 1 << 20,
        "pod_resources": null, "pod_uid": format!("{row:08x}-0000-4000-8000-000000000000"), "name": "",
        "cpu_seconds": cpu_seconds, "cpu_quota_cores": has_limit.then_some(4.0),
        "cfs_periods": periods, "cfs_throttled_periods": number * (row % 10), "cfs_throttled_seconds": 0.0,
        "cpu_pressure_seconds": 0.0, "memory_pressure_seconds": 0.0, "io_pressure_seconds": 0.0,
        "memory_usage_bytes": working_set, "memory_working_set_bytes": working_set,
        "memory_peak_bytes": working_set + (1 << 20), "memory_limit_bytes": has_limit.then_some(1_u64 << 30),
        "oom_kills": row % 5, "swap_usage_bytes": 0, "tasks": 3,
        "network": {
            "receive_bytes": number * row * 1000, "receive_packets": number, "transmit_bytes": number * 512,
            "transmit_packets": number,
        },
    })
}
