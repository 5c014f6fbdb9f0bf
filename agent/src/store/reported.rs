//! Terminations and OOM kills that only pod statuses report: of containers whose program never started (`StartError`), of
//! containers that terminated while no agent ran, and of all containers where no eBPF program reports exits and kills.
//!
//! Statuses and eBPF programs both report a termination with the container's id, so no termination counts twice. A
//! status waits until the eBPF program has had time to report the same termination.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Key, Store};
use crate::model::{
    AgentRule, EventDetails, Pods, Subject, Termination, TerminationReason, WorkloadKey,
    pod::{KnownContainer, KnownPod, State, Terminated},
};

/// How long a status waits for the eBPF program: longer than a termination can be unconfirmed.
pub const KERNEL_REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum number of counted ids. Beyond it, ids that no status mentions are dropped.
const MAX_IDS: usize = 4096;

/// An OOM kill that only a pod status reports.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedKill {
    pub pod: Arc<KnownPod>,
    /// Name of the container in the pod.
    pub container: String,
    /// The id of the run that was killed.
    pub id: Box<str>,
    /// Time of its end, seconds since the Unix epoch.
    pub at_unix: f64,
}

/// Which terminations, or which OOM kills, are counted already.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// Ids of containers whose termination or kill is counted, or must not count.
    accounted: HashSet<Box<str>>,
    /// Ids of terminated containers that wait for the eBPF program, and since when.
    waiting: HashMap<Box<str>, Instant>,
}

impl Reported {
    /// Marks the termination or the kill of a container as counted.
    pub(super) fn account(&mut self, id: &str) {
        self.waiting.remove(id);
        self.accounted.insert(id.into());
    }

    /// Whether a termination or a kill must be counted now.
    fn is_due(&mut self, id: &str, now: Instant) -> bool {
        if self.accounted.contains(id) {
            return false;
        }
        let since = *self.waiting.entry(id.into()).or_insert(now);
        if now.saturating_duration_since(since) < KERNEL_REPORT_TIMEOUT {
            return false;
        }
        self.account(id);
        true
    }

    fn forget(&mut self, mentioned: &HashSet<&str>) {
        self.waiting.retain(|id, _| mentioned.contains(&**id));
        if self.accounted.len() > MAX_IDS.max(2 * mentioned.len()) {
            self.accounted.retain(|id| mentioned.contains(&**id));
        }
    }
}

impl Store {
    /// Counts the terminations that only statuses report. `began_unix` is when the agent started, `downtime_seconds` how long
    /// no agent ran before. The previous agent counted earlier terminations, and its counters are gone.
    pub fn count_reported(&mut self, pods: &Pods, began_unix: f64, downtime_seconds: f64, now: Instant) {
        // Times in statuses are whole seconds.
        let (began, since) = (began_unix.floor(), (began_unix - downtime_seconds).floor());
        let mut mentioned = HashSet::new();
        let containers = pods.iter().flat_map(|pod| pod.containers.iter().map(move |one| (pod, one)));
        for (pod, container) in containers {
            let Some(status) = &container.status else { continue };
            for ended in status.terminations().filter(|ended| !ended.id.is_empty()) {
                mentioned.insert(&*ended.id);
                if ended.finished_unix >= since && self.reported.is_due(&ended.id, now) {
                    let again = !matches!(&status.state, State::Terminated(now) if now.id == ended.id);
                    let unseen = ended.finished_unix < began;
                    self.count_reported_termination(container, ended, again && unseen);
                    let (names, uid) = (&container.names, pod.uid.as_ref());
                    let details = EventDetails::Termination(Termination::from_status(ended));
                    let subject = Subject::from_status(names, uid, &ended.id);
                    self.record(subject, details, ended.finished_unix, now);
                }
            }
        }
        self.reported.forget(&mentioned);
    }

    /// OOM kills since `since_unix` that only statuses report, each once. A run of a container counts once, because its status has only
    /// its end.
    pub fn take_reported_kills(&mut self, pods: &Pods, since_unix: f64, now: Instant) -> Vec<ReportedKill> {
        if !AgentRule::ReportedKills.is_on() {
            return Vec::new();
        }
        // Times in statuses are whole seconds, and 0 if unknown.
        let since = since_unix.floor().max(1.0);
        let (mut mentioned, mut kills) = (HashSet::new(), Vec::new());
        let containers = pods.iter().flat_map(|pod| pod.containers.iter().map(move |one| (pod, one)));
        for (pod, container) in containers {
            mentioned.extend(container.ids.iter().map(|id| &**id));
            let Some(status) = &container.status else { continue };
            for ended in status.terminations().filter(|ended| !ended.id.is_empty()) {
                let is_kill = TerminationReason::from_status(&ended.reason) == TerminationReason::OomKilled;
                mentioned.insert(&*ended.id);
                if is_kill && ended.finished_unix >= since && self.reported_kills.is_due(&ended.id, now) {
                    kills.push(ReportedKill {
                        pod: Arc::clone(pod),
                        container: container.names.container.clone(),
                        id: ended.id.clone(),
                        at_unix: ended.finished_unix,
                    });
                }
            }
        }
        self.reported_kills.forget(&mentioned);
        kills
    }

    /// An OOM kill in a container is counted: no status needs to report it.
    pub fn account_oom_kill(&mut self, key: Key) {
        if let Some(entry) = self.entries.get(&key) {
            self.reported_kills.account(&entry.identity.of_path.id);
        }
    }

    /// `restarted`: whether the container runs again and no agent saw its start.
    fn count_reported_termination(
        &mut self,
        container: &KnownContainer,
        ended: &Terminated,
        restarted: bool,
    ) {
        let names = &container.names;
        if names.workload.is_empty() {
            return;
        }
        let key = self.workloads.admit(WorkloadKey::from_names(names));
        let Termination { reason, exit_code, .. } = Termination::from_status(ended);
        self.workloads.count_termination(&key, reason, exit_code, restarted);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{
        model::{
            AgentRow, Exit, ExitStatus, Init, Level, PathIdentity, Runtime, TerminationReason, WorkloadRow,
        },
        store::Appearance,
    };

    const AGENT_START: f64 = 1_795_782_000.7;
    const AFTER_START: &str = "2026-11-27T12:20:10Z";
    const DURING_DOWNTIME: &str = "2026-11-27T12:19:30Z";
    const LONG_AGO: &str = "2026-11-27T11:00:00Z";

    fn pods(state: &serde_json::Value, last: &serde_json::Value) -> Pods {
        let list = json!({ "kind": "List", "items": [{
            "metadata": { "namespace": "shop", "name": "job", "uid": "u" },
            "spec": { "containers": [{ "name": "main", "image": "a" }] },
            "status": { "containerStatuses": [{
                "name": "main", "image": "a", "imageID": "", "ready": false, "restartCount": 1,
                "state": state, "lastState": last,
            }] },
        }] });
        Pods::from_json(list.to_string().as_bytes()).unwrap().pods
    }

    fn ended(id: &str, reason: &str, code: i32, at: &str) -> serde_json::Value {
        json!({ "terminated": {
            "containerID": format!("containerd://{id}"), "reason": reason, "exitCode": code, "finishedAt": at,
        } })
    }

    fn running() -> serde_json::Value {
        json!({ "running": { "startedAt": AFTER_START } })
    }

    fn row(store: &mut Store, now: Instant) -> WorkloadRow {
        store.count_workloads(now);
        let view = store.build_view(AgentRow::default(), now);
        view.workloads.iter().find(|row| &*row.workload == "job").cloned().unwrap_or_default()
    }

    /// Counts before and after the timeout.
    fn count(store: &mut Store, pods: &Pods) -> WorkloadRow {
        let now = Instant::now();
        store.count_reported(pods, AGENT_START, 60.0, now);
        store.count_reported(pods, AGENT_START, 60.0, now + KERNEL_REPORT_TIMEOUT / 2);
        assert_eq!(row(store, now).terminations.iter().count(), 0, "the kernel's report comes first");
        for _ in 0..2 {
            store.count_reported(pods, AGENT_START, 60.0, now + KERNEL_REPORT_TIMEOUT);
        }
        row(store, now)
    }

    #[test]
    fn a_container_that_never_started_is_counted_once() {
        let mut store = Store::new(10);
        let pods = pods(&ended("a", "StartError", 128, AFTER_START), &json!({}));
        let row = count(&mut store, &pods);
        assert_eq!(row.terminations, [(TerminationReason::StartError, 128)].into_iter().collect());
        assert_eq!((&*row.container, row.restarts), ("main", 0));
    }

    #[test]
    fn a_termination_during_downtime_is_counted_with_its_restart() {
        let mut store = Store::new(10);
        let row = count(&mut store, &pods(&running(), &ended("a", "OOMKilled", 137, DURING_DOWNTIME)));
        assert_eq!(row.terminations, [(TerminationReason::OomKilled, 137)].into_iter().collect());
        assert_eq!(row.restarts, 1);
    }

    #[test]
    fn terminations_before_the_downtime_or_without_a_time_are_not_counted() {
        for last in [
            ended("a", "Error", 1, LONG_AGO),
            json!({ "terminated": {
            "containerID": "containerd://a", "exitCode": 137, "reason": "ContainerStatusUnknown",
        } }),
        ] {
            let row = count(&mut Store::new(10), &pods(&running(), &last));
            assert_eq!(row.terminations.iter().count(), 0, "{last}");
        }
    }

    #[test]
    fn a_termination_that_the_kernel_reports_is_counted_once_in_either_order() {
        let exit = || Exit {
            init: Init { pid: 5, comm: "main".to_owned(), started_unix: AGENT_START, contained: true },
            ended_unix: AGENT_START + 1.0,
            status: ExitStatus::Code(3),
        };
        let appear = |store: &mut Store, pods: &Pods| {
            let of_path = PathIdentity {
                level: Level::Container,
                runtime: Runtime::Containerd,
                pod_uid: Some("u".to_owned()),
                qos: None,
                id: "a".to_owned(),
            };
            let names = pods.names(&of_path).unwrap();
            let path: Arc<str> = "/pod/a".into();
            let appearance = Appearance { path, of_path, created_unix: AGENT_START, present_at_start: false };
            let key = store.appear(appearance, 0, Instant::now());
            store.set_names(key, names, Level::Container);
            key
        };
        let now = Instant::now();
        let pods = pods(&ended("a", "Error", 3, AFTER_START), &json!({}));
        for status_first in [false, true] {
            let mut store = Store::new(10);
            let key = appear(&mut store, &pods);
            if status_first {
                store.count_reported(&pods, AGENT_START, 0.0, now);
            }
            store.record_exit(key, exit(), now);
            store.count_reported(&pods, AGENT_START, 0.0, now);
            store.count_reported(&pods, AGENT_START, 0.0, now + 2 * KERNEL_REPORT_TIMEOUT);
            let row = row(&mut store, now);
            assert_eq!(
                row.terminations,
                [(TerminationReason::Error, 3)].into_iter().collect(),
                "{status_first}"
            );
        }
    }

    /// A run of a container: whether it was killed by the OOM killer, when the kernel reports a kill relative to the status, and
    /// the seconds from the start of the agent to its end.
    #[derive(Clone, Debug)]
    struct Run {
        is_killed: bool,
        kernel_reports: Option<bool>,
        ended: i32,
    }

    fn runs() -> impl Strategy<Value = Vec<Run>> {
        let run = (any::<bool>(), prop::option::of(any::<bool>()), -90..90_i32);
        let run = run.prop_map(|(is_killed, kernel_reports, ended)| Run { is_killed, kernel_reports, ended });
        prop::collection::vec(run, 1..5)
    }

    #[test]
    fn an_oom_kill_that_only_a_status_reports_is_counted_once() {
        // What the agent before this one may have counted.
        let since = AGENT_START - 60.0;
        let is_missed = |run: &Run| run.is_killed && run.kernel_reports.is_none() && run.ended >= -60;
        AgentRule::ReportedKills.prove(
            &runs(),
            |runs| runs.iter().any(is_missed),
            |runs| {
                let (mut store, begun) = (Store::new(10), Instant::now());
                let (mut found, mut now) = (Vec::new(), begun);
                for (number, run) in runs.iter().enumerate() {
                    let id = format!("{number}");
                    // The agent started at 20 minutes past the hour.
                    let second = 20 * 60 + run.ended;
                    let at = format!("2026-11-27T12:{:02}:{:02}Z", second / 60, second % 60);
                    let reason = if run.is_killed { "OOMKilled" } else { "Error" };
                    let pods = pods(&running(), &ended(&id, reason, 137, &at));
                    let of_path = PathIdentity {
                        level: Level::Container,
                        runtime: Runtime::Containerd,
                        pod_uid: Some("u".to_owned()),
                        qos: None,
                        id: id.clone(),
                    };
                    let path: Arc<str> = format!("/pod/{id}").into();
                    let appearance =
                        Appearance { path, of_path, created_unix: AGENT_START, present_at_start: false };
                    let key = store.appear(appearance, 0, now);
                    for kernel_is_first in [true, false] {
                        if run.kernel_reports == Some(kernel_is_first) {
                            store.account_oom_kill(key);
                        }
                        found.extend(store.take_reported_kills(&pods, since, now));
                    }
                    for _ in 0..3 {
                        now += KERNEL_REPORT_TIMEOUT;
                        found.extend(store.take_reported_kills(&pods, since, now));
                    }
                }
                let found: Vec<(String, f64)> =
                    found.into_iter().map(|kill| (kill.id.to_string(), kill.at_unix)).collect();
                let missed = runs.iter().enumerate().filter(|(_, run)| is_missed(run));
                let expected: Vec<(String, f64)> = missed
                    .map(|(number, run)| (number.to_string(), AGENT_START.floor() + f64::from(run.ended)))
                    .collect();
                if found == expected { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
            },
        );
    }

    #[test]
    fn ids_that_no_status_mentions_are_dropped() {
        let mut reported = Reported::default();
        for id in 0..=MAX_IDS {
            reported.account(&id.to_string());
        }
        reported.waiting.insert("gone".into(), Instant::now());
        reported.forget(&HashSet::from(["7", "8"]));
        assert_eq!((reported.accounted.len(), reported.waiting.len()), (2, 0));
        assert!(!reported.is_due("7", Instant::now() + 2 * KERNEL_REPORT_TIMEOUT));
    }
}
