//! What only pods' statuses tell: evictions, and images that cannot be had.

use std::{collections::HashSet, sync::Arc};

use crate::model::{
    EventDetails, Pods, Subject,
    pod::{KnownContainer, KnownPod, State},
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

/// Tells what is new in the statuses of pods.
#[derive(Debug, Default)]
pub(super) struct Statuses {
    seen: Option<Arc<Pods>>,
    /// Uids of evicted pods.
    evicted: HashSet<Box<str>>,
    /// Pods' uids and containers' names whose image cannot be had.
    without_image: HashSet<(Box<str>, Box<str>)>,
}

impl Statuses {
    /// What has happened since the pods were last looked at. Of the first pods there are nothing is told: it happened
    /// before.
    pub(super) fn detect(&mut self, pods: &Arc<Pods>) -> Vec<(Subject, EventDetails)> {
        if self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, pods)) {
            return Vec::new();
        }
        let is_first = self.seen.as_ref().is_none_or(|seen| seen.is_empty());
        self.seen = Some(Arc::clone(pods));
        let mut told = Vec::new();
        let (mut evicted, mut without_image) = (HashSet::new(), HashSet::new());
        for pod in pods.iter() {
            if *pod.reason == *EVICTED {
                if !self.evicted.contains(&pod.uid) {
                    told.push((
                        Subject::from_status(&pod.names, &pod.uid, ""),
                        EventDetails::Eviction(pod.message.clone()),
                    ));
                }
                evicted.insert(pod.uid.clone());
            }
            for (container, reason) in images_missing(pod) {
                let who = (pod.uid.clone(), container.names.container.as_str().into());
                if !self.without_image.contains(&who) {
                    let subject = Subject::from_status(&container.names, &pod.uid, "");
                    told.push((subject, EventDetails::ImagePullFailure(reason.into())));
                }
                without_image.insert(who);
            }
        }
        (self.evicted, self.without_image) = (evicted, without_image);
        if is_first { Vec::new() } else { told }
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

    fn told(statuses: &mut Statuses, pods: &Arc<Pods>) -> Vec<String> {
        let kind = |(subject, details): (Subject, EventDetails)| format!("{subject} {details:?}");
        statuses.detect(pods).into_iter().map(kind).collect()
    }

    #[test]
    fn a_missing_image_is_told_once_until_it_is_there() {
        let mut statuses = Statuses::default();
        assert_eq!(told(&mut statuses, &waiting("ContainerCreating")), [""; 0]);
        let failed = ["shop/web/main ImagePullFailure(\"ErrImagePull\")"];
        assert_eq!(told(&mut statuses, &waiting("ErrImagePull")), failed);
        assert_eq!(told(&mut statuses, &waiting("ImagePullBackOff")), [""; 0], "the same");
        assert_eq!(told(&mut statuses, &waiting("ContainerCreating")), [""; 0]);
        assert_eq!(told(&mut statuses, &waiting("ErrImagePull")), failed, "and again");
    }

    #[test]
    fn an_eviction_is_told_with_its_message_and_not_if_it_is_older_than_the_agent() {
        let evicted = pods(&json!({
            "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory.",
        }));
        let mut statuses = Statuses::default();
        assert_eq!(told(&mut statuses, &evicted), [""; 0]);
        let mut statuses = Statuses::default();
        told(&mut statuses, &Arc::default());
        told(&mut statuses, &waiting("ContainerCreating"));
        let expected = ["shop/web Eviction(\"The node was low on resource: memory.\")"];
        assert_eq!(told(&mut statuses, &evicted), expected);
        assert_eq!(told(&mut statuses, &pods(&json!({ "reason": "Evicted", "phase": "Failed" }))), [""; 0]);
    }
}
