//! Events that only the status of a pod shows: evictions, and images that cannot be pulled.
//!
//! Metric: `snug_agent_events_total` (`eviction`, `image_pull_failure`).

use std::{collections::HashSet, sync::Arc};

use super::{Component, Round};
use crate::{
    clock::unix_now,
    model::{
        EventDetails, Pods, Subject,
        pod::{KnownContainer, KnownPod, State},
    },
};

/// The kubelet's reasons for a container to wait that mean its image (`pkg/kubelet/images/types.go`).
const IMAGE_REASONS: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];
const EVICTED: &str = "Evicted";

/// Detects new evictions and image pull failures.
#[derive(Debug, Default)]
pub(super) struct Statuses {
    seen: Option<Arc<Pods>>,
    /// Uids of evicted pods.
    evicted: HashSet<Box<str>>,
    /// Pod uids and container names whose image cannot be pulled.
    without_image: HashSet<(Box<str>, Box<str>)>,
}

impl Component for Statuses {
    fn round(&mut self, round: &mut Round) {
        if round.is_full {
            for (subject, details) in self.detect(round.naming.pods()) {
                round.store.record(subject, details, unix_now(), round.now);
            }
        }
    }
}

impl Statuses {
    /// Events since the last call. The first pods cause no events: their status is older than the agent.
    fn detect(&mut self, pods: &Arc<Pods>) -> Vec<(Subject, EventDetails)> {
        if self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, pods)) {
            return Vec::new();
        }
        let is_first = self.seen.as_ref().is_none_or(|seen| seen.is_empty());
        self.seen = Some(Arc::clone(pods));
        let mut events = Vec::new();
        let (mut evicted, mut without_image) = (HashSet::new(), HashSet::new());
        for pod in pods.iter() {
            if *pod.reason == *EVICTED {
                if !self.evicted.contains(&pod.uid) {
                    events.push((
                        Subject::from_status(&pod.names, &pod.uid, ""),
                        EventDetails::Eviction(pod.message.clone()),
                    ));
                }
                evicted.insert(pod.uid.clone());
            }
            for (container, reason) in images_missing(pod) {
                let container_key = (pod.uid.clone(), container.names.container.as_str().into());
                if !self.without_image.contains(&container_key) {
                    let subject = Subject::from_status(&container.names, &pod.uid, "");
                    events.push((subject, EventDetails::ImagePullFailure(reason.into())));
                }
                without_image.insert(container_key);
            }
        }
        (self.evicted, self.without_image) = (evicted, without_image);
        if is_first { Vec::new() } else { events }
    }
}

fn images_missing(pod: &KnownPod) -> impl Iterator<Item = (&KnownContainer, &str)> {
    pod.containers.iter().filter_map(|container| match &container.status.as_ref()?.state {
        State::Waiting(reason) if IMAGE_REASONS.contains(&&**reason) => Some((container, &**reason)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods(status: &serde_json::Value) -> Arc<Pods> {
        let list = json!({ "kind": "List", "items": [{
            "metadata": { "namespace": "shop", "name": "web", "uid": "u" },
            "spec": { "containers": [{ "name": "main", "image": "a" }] },
            "status": status,
        }] });
        Arc::new(Pods::from_json(list.to_string().as_bytes()).unwrap().pods)
    }

    fn waiting(reason: &str) -> Arc<Pods> {
        pods(&json!({ "containerStatuses": [{
            "name": "main", "image": "a", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": reason } },
        }] }))
    }

    fn detected(statuses: &mut Statuses, pods: &Arc<Pods>) -> Vec<String> {
        let kind = |(subject, details): (Subject, EventDetails)| format!("{subject} {details:?}");
        statuses.detect(pods).into_iter().map(kind).collect()
    }

    #[test]
    fn a_missing_image_is_reported_once_until_it_is_there() {
        let mut statuses = Statuses::default();
        assert_eq!(detected(&mut statuses, &waiting("ContainerCreating")), [""; 0]);
        let failed = ["shop/web/main ImagePullFailure(\"ErrImagePull\")"];
        assert_eq!(detected(&mut statuses, &waiting("ErrImagePull")), failed);
        assert_eq!(detected(&mut statuses, &waiting("ImagePullBackOff")), [""; 0], "the same");
        assert_eq!(detected(&mut statuses, &waiting("ContainerCreating")), [""; 0]);
        assert_eq!(detected(&mut statuses, &waiting("ErrImagePull")), failed, "and again");
    }

    #[test]
    fn an_eviction_is_reported_with_its_message_unless_it_is_older_than_the_agent() {
        let evicted = pods(&json!({
            "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory.",
        }));
        let mut statuses = Statuses::default();
        assert_eq!(detected(&mut statuses, &evicted), [""; 0]);
        let mut statuses = Statuses::default();
        detected(&mut statuses, &Arc::default());
        detected(&mut statuses, &waiting("ContainerCreating"));
        let expected = ["shop/web Eviction(\"The node was low on resource: memory.\")"];
        assert_eq!(detected(&mut statuses, &evicted), expected);
        assert_eq!(
            detected(&mut statuses, &pods(&json!({ "reason": "Evicted", "phase": "Failed" }))),
            [""; 0]
        );
    }
}
