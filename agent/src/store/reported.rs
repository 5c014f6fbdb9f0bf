//! Terminations that only pods' statuses tell of: of containers whose program never began to run (`StartError`), of those that
//! ended while the agent was away, and, where no kernel program tells of exits, of all.
//!
//! A status and the kernel tell of the same end under the container's id, so no end counts twice: the kernel has its say
//! first, and what it has counted is not counted again.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::Store;
use crate::model::{
    EventDetails, Pods, Subject, Termination, WorkloadKey,
    pod::{KnownContainer, State, Terminated},
};

/// How long a status waits for the kernel's own word: longer than an end can be in doubt.
const GRACE: Duration = Duration::from_secs(10);
/// Ids that no status mentions any more, or not yet, are forgotten beyond this many.
const MAX_IDS: usize = 4096;

/// Which ends are counted already.
#[derive(Debug, Default)]
pub(super) struct ReportedTerminations {
    /// Ids of containers whose end has been counted, or is none to count.
    accounted: HashSet<Box<str>>,
    /// Ids of ended containers that wait for the kernel's word, and since when.
    waiting: HashMap<Box<str>, Instant>,
}

impl ReportedTerminations {
    /// The end of a container is counted, and not to be counted again.
    pub(super) fn account(&mut self, id: &str) {
        self.waiting.remove(id);
        self.accounted.insert(id.into());
    }

    /// Whether an end is to be counted now.
    fn is_due(&mut self, id: &str, now: Instant) -> bool {
        if self.accounted.contains(id) {
            return false;
        }
        let since = *self.waiting.entry(id.into()).or_insert(now);
        if now.saturating_duration_since(since) < GRACE {
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
    /// Counts the ends that statuses tell of and nobody else. `began_unix` is when the agent started, `downtime_seconds` for how
    /// long there was none before: what ended earlier was counted by its predecessor, whose counters are gone.
    pub fn count_reported(&mut self, pods: &Pods, began_unix: f64, downtime_seconds: f64, now: Instant) {
        // Statuses have whole seconds.
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
                    self.count_end(container, ended, again && unseen);
                    let (names, uid) = (&container.names, pod.uid.as_ref());
                    let details = EventDetails::Termination(Termination::from_status(ended));
                    let subject = Subject::from_status(names, uid, &ended.id);
                    self.record(subject, details, ended.finished_unix, now);
                }
            }
        }
        self.reported.forget(&mentioned);
    }

    /// `restarted`: whether it runs again, and nobody saw it start.
    fn count_end(&mut self, container: &KnownContainer, ended: &Terminated, restarted: bool) {
        let names = &container.names;
        if names.workload.is_empty() {
            return;
        }
        let key = self.workloads.admit(WorkloadKey::named(names));
        let Termination { reason, exit_code, .. } = Termination::from_status(ended);
        self.workloads.reported(&key, reason, exit_code, restarted);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{
        model::{
            AgentRow, Exit, ExitStatus, Init, Level, PathIdentity, Runtime, TerminationReason, WorkloadRow,
        },
        store::Appearance,
    };

    const BEGAN: f64 = 1_795_782_000.7;
    const FOUND: &str = "2026-11-27T12:20:10Z";
    const AWAY: &str = "2026-11-27T12:19:30Z";
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
        json!({ "running": { "startedAt": FOUND } })
    }

    fn row(store: &mut Store, now: Instant) -> WorkloadRow {
        store.count_workloads(now);
        let published = store.publish(AgentRow::default(), now);
        published.workloads.iter().find(|row| &*row.workload == "job").cloned().unwrap_or_default()
    }

    /// Counts twice, before and after the grace.
    fn count(store: &mut Store, pods: &Pods) -> WorkloadRow {
        let now = Instant::now();
        store.count_reported(pods, BEGAN, 60.0, now);
        store.count_reported(pods, BEGAN, 60.0, now + GRACE / 2);
        assert_eq!(row(store, now).terminations.iter().count(), 0, "the kernel has its say first");
        for _ in 0..2 {
            store.count_reported(pods, BEGAN, 60.0, now + GRACE);
        }
        row(store, now)
    }

    #[test]
    fn what_never_began_is_counted_once() {
        let mut store = Store::new(10);
        let pods = pods(&ended("a", "StartError", 128, FOUND), &json!({}));
        let row = count(&mut store, &pods);
        assert_eq!(row.terminations, [(TerminationReason::StartError, 128)].into_iter().collect());
        assert_eq!((&*row.container, row.restarts), ("main", 0));
    }

    #[test]
    fn what_ended_while_the_agent_was_away_is_counted_and_so_is_the_restart() {
        let mut store = Store::new(10);
        let row = count(&mut store, &pods(&running(), &ended("a", "OOMKilled", 137, AWAY)));
        assert_eq!(row.terminations, [(TerminationReason::OomKilled, 137)].into_iter().collect());
        assert_eq!(row.restarts, 1);
    }

    #[test]
    fn what_an_earlier_agent_counted_and_what_has_no_time_is_not() {
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
    fn what_the_kernel_counted_is_not_counted_again_whoever_comes_first() {
        let exit = || Exit {
            init: Init { pid: 5, comm: "main".to_owned(), started_unix: BEGAN, contained: true },
            ended_unix: BEGAN + 1.0,
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
            let appearance = Appearance { path, of_path, created_unix: BEGAN, present_at_start: false };
            let key = store.appear(appearance, 0, Instant::now());
            store.name(key, names, Level::Container);
            key
        };
        let now = Instant::now();
        let pods = pods(&ended("a", "Error", 3, FOUND), &json!({}));
        for status_first in [false, true] {
            let mut store = Store::new(10);
            let key = appear(&mut store, &pods);
            if status_first {
                store.count_reported(&pods, BEGAN, 0.0, now);
            }
            store.exited(key, exit(), now);
            store.count_reported(&pods, BEGAN, 0.0, now);
            store.count_reported(&pods, BEGAN, 0.0, now + 2 * GRACE);
            let row = row(&mut store, now);
            assert_eq!(
                row.terminations,
                [(TerminationReason::Error, 3)].into_iter().collect(),
                "{status_first}"
            );
        }
    }

    #[test]
    fn ids_are_forgotten_and_those_still_mentioned_are_not() {
        let mut told = ReportedTerminations::default();
        for id in 0..=MAX_IDS {
            told.account(&id.to_string());
        }
        told.waiting.insert("gone".into(), Instant::now());
        told.forget(&HashSet::from(["7", "8"]));
        assert_eq!((told.accounted.len(), told.waiting.len()), (2, 0));
        assert!(!told.is_due("7", Instant::now() + 2 * GRACE));
    }
}
