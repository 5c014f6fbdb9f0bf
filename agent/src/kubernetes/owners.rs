//! Reads the owners that pods do not show for certain: the owner of a Job, and of a ReplicaSet whose name does not match.
//!
//! Each owner is read once, its metadata only, and cached as long as a pod refers to it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::{apps::v1::ReplicaSet, batch::v1::Job},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, core::PartialObjectMeta};

use crate::{
    identity::workload::{Workload, controller},
    model::pod::{KnownPod, Owner},
};

const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The cached owners.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// The owner of each owner, by uid. `None`: it has no owner itself, or cannot be read.
    found: HashMap<Box<str>, Option<Workload>>,
    /// Kinds for which the API server denied access and the agent has logged it.
    refused: HashSet<&'static str>,
}

/// A kind of owner that may have an owner itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Job,
    ReplicaSet,
}

impl Kind {
    const fn resource(self) -> &'static str {
        match self {
            Self::Job => "jobs.batch",
            Self::ReplicaSet => "replicasets.apps",
        }
    }
}

/// The owner that must be read, with its kind; `None` if the pod shows its workload for certain.
fn uncertain(pod: &KnownPod) -> Option<(Kind, &Owner)> {
    let owner = pod.owner.as_ref().filter(|owner| owner.controller)?;
    // If the pod shows its workload, the workload is of another kind already.
    if *pod.names.workload_kind != *owner.kind {
        return None;
    }
    let group = owner.api_version.split('/').next().unwrap_or_default();
    match (group, &*owner.kind) {
        ("batch", "Job") => Some((Kind::Job, owner)),
        ("apps", "ReplicaSet") => Some((Kind::ReplicaSet, owner)),
        _ => None,
    }
}

impl Owners {
    /// The pod with its workload. While the owner is not read yet the pod has none, so that its usage is not counted twice.
    pub(super) fn rename(&self, pod: &Arc<KnownPod>) -> Arc<KnownPod> {
        let Some((_, owner)) = uncertain(pod) else { return Arc::clone(pod) };
        match self.found.get(&owner.uid) {
            Some(Some(workload)) => Arc::new(pod.with_workload(workload)),
            Some(None) => Arc::clone(pod),
            None => Arc::new(pod.with_workload(&Workload { kind: String::new(), name: String::new() })),
        }
    }

    /// Reads the owners that are not cached. Returns the number of reads; `None` if all owners were cached.
    pub(super) async fn resolve(
        &mut self,
        client: &Client,
        pods: impl Iterator<Item = &Arc<KnownPod>>,
    ) -> Option<u64> {
        let mut named = HashSet::new();
        let mut unread: Vec<(Kind, Owner, String)> = Vec::new();
        for pod in pods {
            let Some((kind, owner)) = uncertain(pod) else { continue };
            if named.insert(owner.uid.clone()) && !self.found.contains_key(&owner.uid) {
                unread.push((kind, owner.clone(), pod.names.namespace.clone()));
            }
        }
        self.found.retain(|uid, _| named.contains(uid));
        if unread.is_empty() {
            return None;
        }
        let mut reads = 0;
        for (kind, owner, namespace) in unread {
            let resource = kind.resource();
            if self.refused.contains(resource) {
                self.found.insert(owner.uid, None);
                continue;
            }
            reads += 1;
            let read = tokio::time::timeout(READ_TIMEOUT, read(client, kind, &namespace, &owner.name)).await;
            let workload = match read {
                Ok(Ok(metadata)) => controller(&metadata)
                    .map(|owner| Workload { kind: owner.kind.clone(), name: owner.name.clone() }),
                Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => {
                    tracing::warn!(
                        resource,
                        namespace,
                        "owners of this kind cannot be read, so they count as workloads themselves; allow get, or \
                         switch owner-lookup off"
                    );
                    self.refused.insert(resource);
                    None
                }
                // The owner may be deleted already. Its pods will be deleted too, so there is no retry.
                Ok(Err(error)) => {
                    tracing::debug!(resource, namespace, name = %owner.name, %error, "an owner cannot be read");
                    None
                }
                Err(_) => {
                    tracing::debug!(resource, namespace, name = %owner.name, "reading an owner timed out");
                    None
                }
            };
            self.found.insert(owner.uid, workload);
        }
        Some(reads)
    }
}

async fn read(client: &Client, kind: Kind, namespace: &str, name: &str) -> kube::Result<ObjectMeta> {
    match kind {
        Kind::Job => {
            let api: Api<PartialObjectMeta<Job>> = Api::namespaced(client.clone(), namespace);
            api.get(name).await.map(|object| object.metadata)
        }
        Kind::ReplicaSet => {
            let api: Api<PartialObjectMeta<ReplicaSet>> = Api::namespaced(client.clone(), namespace);
            api.get(name).await.map(|object| object.metadata)
        }
    }
}
