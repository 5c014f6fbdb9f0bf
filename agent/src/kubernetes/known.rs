//! The pods that a watch has told of: what each of its events changes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Resource as _, core::DeserializeGuard, runtime::watcher::Event};

use crate::model::{Pods, pod::KnownPod};

/// A pod as the watch has it: not every object is one.
pub(super) type Object = DeserializeGuard<Pod>;

/// What an event has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Whether other pods are known than before.
    pub(super) pods: bool,
    /// Whether a list is complete.
    pub(super) synced: bool,
    /// An object that cannot be used: its name, and why. Told once for each object.
    pub(super) skipped: Option<(String, String)>,
}

/// The pods by uid.
#[derive(Debug, Default)]
pub(super) struct PodCache {
    pods: HashMap<Box<str>, Arc<KnownPod>>,
    /// While a list is read: what it has had so far. What it does not have is gone when it is complete.
    listed: Option<HashMap<Box<str>, Arc<KnownPod>>>,
    /// Names of objects that cannot be used.
    bad: HashSet<String>,
}

impl PodCache {
    pub(super) fn pods(&self) -> impl Iterator<Item = &Arc<KnownPod>> {
        self.pods.values()
    }

    /// All of them, arranged; `rename` may give a pod another workload.
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

    /// Takes an event over. An object that cannot be used leaves what was known of it as it was.
    pub(super) fn take(&mut self, event: Event<Object>) -> Change {
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
                let known = object.meta().uid.as_deref().and_then(|uid| self.pods.remove(uid));
                self.bad.remove(&name_of(&object));
                Change { pods: known.is_some(), ..Change::default() }
            }
        }
    }

    fn apply(&mut self, object: &Object, listed: bool) -> Change {
        let name = name_of(object);
        let pod = match &object.0 {
            Ok(pod) => KnownPod::of(pod).map_err(str::to_owned),
            Err(invalid) => Err(invalid.error.clone()),
        };
        let pod = match pod {
            Ok(pod) => Arc::new(pod),
            Err(why) => {
                if listed {
                    self.keep(object);
                }
                let skipped = self.bad.insert(name.clone()).then_some((name, why));
                return Change { skipped, ..Change::default() };
            }
        };
        self.bad.remove(&name);
        let into = match &mut self.listed {
            Some(list) if listed => list,
            _ => &mut self.pods,
        };
        let before = into.insert(pod.uid.clone(), Arc::clone(&pod));
        // Kubelets write statuses in which nothing has changed that is kept here.
        Change { pods: !listed && before.is_none_or(|before| before != pod), ..Change::default() }
    }

    /// A list has an object that cannot be used: the pod is still there.
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

    fn uids(known: &PodCache) -> Vec<String> {
        known.arranged(Arc::clone).iter().map(|pod| pod.uid.to_string()).collect()
    }

    #[test]
    fn what_a_new_list_does_not_have_is_gone_and_only_when_it_is_complete() {
        let mut known = PodCache::default();
        for event in [Event::Init, Event::InitApply(good("a")), Event::InitApply(good("b"))] {
            assert_eq!(known.take(event), Change::default());
        }
        assert!(uids(&known).is_empty());
        let synced = Change { pods: true, synced: true, skipped: None };
        assert_eq!(known.take(Event::InitDone), synced);
        assert_eq!(uids(&known), ["a", "b"]);
        // Deleted while the watch was down.
        known.take(Event::Init);
        known.take(Event::InitApply(good("b")));
        assert_eq!(uids(&known), ["a", "b"]);
        known.take(Event::InitDone);
        assert_eq!(uids(&known), ["b"]);
        // A list that breaks off changes nothing.
        known.take(Event::Init);
        known.take(Event::Init);
        known.take(Event::InitApply(good("b")));
        known.take(Event::InitDone);
        assert_eq!(uids(&known), ["b"]);
    }

    #[test]
    fn changes_are_told_and_repetitions_are_not() {
        let mut known = PodCache::default();
        assert!(known.take(Event::Apply(good("a"))).pods);
        assert!(!known.take(Event::Apply(good("a"))).pods);
        assert!(known.take(Event::Apply(object("a", &json!("Failed")))).pods);
        assert!(known.take(Event::Delete(good("a"))).pods);
        assert!(!known.take(Event::Delete(good("a"))).pods);
        assert!(uids(&known).is_empty());
    }

    #[test]
    fn an_object_that_is_no_pod_is_told_once_and_takes_nothing_away() {
        let mut known = PodCache::default();
        known.take(Event::Apply(good("a")));
        let change = known.take(Event::Apply(bad("a")));
        let (name, why) = change.skipped.unwrap();
        assert_eq!((name.as_str(), change.pods), ("shop/web-a", false));
        assert!(!why.is_empty());
        assert_eq!(known.take(Event::Apply(bad("a"))), Change::default());
        assert_eq!(uids(&known), ["a"]);
        // In a list too: it is still there.
        known.take(Event::Init);
        known.take(Event::InitApply(bad("a")));
        known.take(Event::InitDone);
        assert_eq!(uids(&known), ["a"]);
        assert!(known.take(Event::Delete(bad("a"))).pods);
        assert!(uids(&known).is_empty());
    }
}
