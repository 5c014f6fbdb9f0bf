//! The pods of this node, updated by the events of the watch.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Resource as _, core::DeserializeGuard, runtime::watcher::Event};

use crate::{
    identity::pods::without_value,
    model::{Pods, pod::KnownPod},
};

/// An object of the watch, which may not be a valid pod.
pub(super) type Object = DeserializeGuard<Pod>;

/// Pods that are kept. A node has at most some hundreds.
const MAX_PODS: usize = 4096;

/// The changes that an event caused.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Whether a pod was added, changed or removed.
    pub(super) pods: bool,
    /// Whether a list was completed.
    pub(super) synced: bool,
    /// An invalid object: its name and the error. Reported once for each object.
    pub(super) skipped: Option<(String, String)>,
}

/// The pods by uid.
#[derive(Debug, Default)]
pub(super) struct PodCache {
    pods: HashMap<Box<str>, Arc<KnownPod>>,
    /// While a list is received: its pods so far. Pods that are not in the complete list are removed.
    listed: Option<HashMap<Box<str>, Arc<KnownPod>>>,
    /// Names of the invalid objects.
    bad: HashSet<String>,
}

impl PodCache {
    pub(super) fn pods(&self) -> impl Iterator<Item = &Arc<KnownPod>> {
        self.pods.values()
    }

    /// The pods, indexed. `rename` may change the workload of a pod.
    pub(super) fn arranged(&self, rename: impl Fn(&Arc<KnownPod>) -> Arc<KnownPod>) -> Pods {
        let mut pods: Vec<_> = self.pods.values().map(rename).collect();
        pods.sort_unstable_by(|one, other| {
            (&one.names.namespace, &one.names.pod, &one.uid).cmp(&(
                &other.names.namespace,
                &other.names.pod,
                &other.uid,
            ))
        });
        pods.into_iter().collect()
    }

    /// Applies an event. For an invalid object, the last valid version of the pod stays.
    pub(super) fn apply_event(&mut self, event: Event<Object>) -> Change {
        match event {
            Event::Init => {
                self.listed = Some(HashMap::new());
                Change::default()
            }
            Event::InitApply(object) => self.apply(&object, true),
            Event::InitDone => {
                if let Some(listed) = self.listed.take() {
                    self.pods = listed;
                }
                Change { pods: true, synced: true, skipped: None }
            }
            Event::Apply(object) => self.apply(&object, false),
            Event::Delete(object) => {
                let removed = object.meta().uid.as_deref().and_then(|uid| self.pods.remove(uid));
                self.bad.remove(&name_of(&object));
                Change { pods: removed.is_some(), ..Change::default() }
            }
        }
    }

    fn apply(&mut self, object: &Object, listed: bool) -> Change {
        let name = name_of(object);
        let pod = match &object.0 {
            Ok(pod) => KnownPod::from_api(pod).map_err(str::to_owned),
            Err(invalid) => Err(without_value(&invalid.error)),
        };
        let (listing, kept) = (self.listed.as_ref().filter(|_| listed), &self.pods);
        let pods = listing.unwrap_or(kept);
        let pod = match pod {
            Ok(pod) if pods.len() >= MAX_PODS && !pods.contains_key(&pod.uid) => {
                Err(format!("the node has more than {MAX_PODS} pods"))
            }
            pod => pod,
        };
        let pod = match pod {
            Ok(pod) => Arc::new(pod),
            Err(why) => {
                if listed {
                    self.keep(object);
                }
                let is_new = self.bad.len() < MAX_PODS && self.bad.insert(name.clone());
                let skipped = is_new.then_some((name, why));
                return Change { skipped, ..Change::default() };
            }
        };
        self.bad.remove(&name);
        let into = match &mut self.listed {
            Some(list) if listed => list,
            _ => &mut self.pods,
        };
        let before = into.insert(pod.uid.clone(), Arc::clone(&pod));
        // Many status updates change no field that is kept here.
        Change { pods: !listed && before.is_none_or(|before| before != pod), ..Change::default() }
    }

    /// Keeps the last valid version of a pod whose object in the list is invalid.
    fn keep(&mut self, object: &Object) {
        let Err(invalid) = &object.0 else { return };
        if let (Some(list), Some(uid)) = (&mut self.listed, invalid.metadata.uid.as_deref())
            && let Some((uid, pod)) = self.pods.get_key_value(uid)
        {
            list.insert(uid.clone(), Arc::clone(pod));
        }
    }
}

fn name_of(object: &Object) -> String {
    let metadata = object.meta();
    let of = |name: &Option<String>| name.clone().unwrap_or_default();
    format!("{}/{}", of(&metadata.namespace), of(&metadata.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(uid: &str, phase: &serde_json::Value) -> Object {
        let pod = json!({
            "metadata": { "namespace": "shop", "name": format!("web-{uid}"), "uid": uid },
            "status": { "phase": phase },
        });
        serde_json::from_value(pod).unwrap()
    }

    fn good(uid: &str) -> Object {
        object(uid, &json!("Running"))
    }

    fn bad(uid: &str) -> Object {
        object(uid, &json!(["no phase"]))
    }

    fn uids(cache: &PodCache) -> Vec<String> {
        cache.arranged(Arc::clone).iter().map(|pod| pod.uid.to_string()).collect()
    }

    #[test]
    fn a_complete_list_removes_the_pods_that_it_lacks() {
        let mut cache = PodCache::default();
        for event in [Event::Init, Event::InitApply(good("a")), Event::InitApply(good("b"))] {
            assert_eq!(cache.apply_event(event), Change::default());
        }
        assert!(uids(&cache).is_empty());
        let synced = Change { pods: true, synced: true, skipped: None };
        assert_eq!(cache.apply_event(Event::InitDone), synced);
        assert_eq!(uids(&cache), ["a", "b"]);
        // Deleted while the watch was down.
        cache.apply_event(Event::Init);
        cache.apply_event(Event::InitApply(good("b")));
        assert_eq!(uids(&cache), ["a", "b"]);
        cache.apply_event(Event::InitDone);
        assert_eq!(uids(&cache), ["b"]);
        // An incomplete list changes nothing.
        cache.apply_event(Event::Init);
        cache.apply_event(Event::Init);
        cache.apply_event(Event::InitApply(good("b")));
        cache.apply_event(Event::InitDone);
        assert_eq!(uids(&cache), ["b"]);
    }

    #[test]
    fn only_changes_are_reported() {
        let mut cache = PodCache::default();
        assert!(cache.apply_event(Event::Apply(good("a"))).pods);
        assert!(!cache.apply_event(Event::Apply(good("a"))).pods);
        assert!(cache.apply_event(Event::Apply(object("a", &json!("Failed")))).pods);
        assert!(cache.apply_event(Event::Delete(good("a"))).pods);
        assert!(!cache.apply_event(Event::Delete(good("a"))).pods);
        assert!(uids(&cache).is_empty());
    }

    #[test]
    fn an_invalid_object_is_reported_once_and_removes_no_pod() {
        let mut cache = PodCache::default();
        cache.apply_event(Event::Apply(good("a")));
        let change = cache.apply_event(Event::Apply(bad("a")));
        let (name, why) = change.skipped.unwrap();
        assert_eq!((name.as_str(), change.pods), ("shop/web-a", false));
        assert!(!why.is_empty());
        assert_eq!(cache.apply_event(Event::Apply(bad("a"))), Change::default());
        assert_eq!(uids(&cache), ["a"]);
        // In a list, too, the pod stays.
        cache.apply_event(Event::Init);
        cache.apply_event(Event::InitApply(bad("a")));
        cache.apply_event(Event::InitDone);
        assert_eq!(uids(&cache), ["a"]);
        assert!(cache.apply_event(Event::Delete(bad("a"))).pods);
        assert!(uids(&cache).is_empty());
    }
}
