//! Owners that pods do not tell for certain: whose Job, and whose ReplicaSet if its name does not tell.
//!
//! One read for each owner, of its metadata alone, remembered as long as a pod refers to it.

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

/// The longest that a read may take.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// What was found out.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// By the owner's uid. `None`: it has no owner itself, or cannot be read.
    found: HashMap<Box<str>, Option<Workload>>,
    /// Kinds that the API server refuses to show, as far as was said.
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

/// The owner that has to be asked for: its kind, and the owner itself.
fn uncertain(pod: &KnownPod) -> Option<(Kind, &Owner)> {
    let owner = pod.owner.as_ref().filter(|owner| owner.controller)?;
    // Where the pod tells, its workload is of another kind already.
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
    /// The pod under its workload; without one while that is still to be found out, so that it is not counted twice.
    pub(super) fn rename(&self, pod: &Arc<KnownPod>) -> Arc<KnownPod> {
        let Some((_, owner)) = uncertain(pod) else { return Arc::clone(pod) };
        match self.found.get(&owner.uid) {
            Some(Some(workload)) => Arc::new(pod.with_workload(workload)),
            Some(None) => Arc::clone(pod),
            None => Arc::new(pod.with_workload(&Workload { kind: String::new(), name: String::new() })),
        }
    }

    /// Asks for the owners of the pods that are not known yet; returns how many reads that took, `None` if all are known.
    pub(super) async fn resolve(
        &mut self,
        client: &Client,
        pods: impl Iterator<Item = &Arc<KnownPod>>,
    ) -> Option<u64> {
        let mut named = HashSet::new();
        let mut asked: Vec<(Kind, Owner, String)> = Vec::new();
        for pod in pods {
            let Some((kind, owner)) = uncertain(pod) else { continue };
            if named.insert(owner.uid.clone()) && !self.found.contains_key(&owner.uid) {
                asked.push((kind, owner.clone(), pod.names.namespace.clone()));
            }
        }
        self.found.retain(|uid, _| named.contains(uid));
        if asked.is_empty() {
            return None;
        }
        let mut reads = 0;
        for (kind, owner, namespace) in asked {
            let resource = kind.resource();
            if self.refused.contains(resource) {
                self.found.insert(owner.uid, None);
                continue;
            }
            reads += 1;
            let read = tokio::time::timeout(READ_WITHIN, read(client, kind, &namespace, &owner.name)).await;
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
                // It may be gone already. Its pods go too, and nobody asks again.
                Ok(Err(error)) => {
                    tracing::debug!(resource, namespace, name = %owner.name, %error, "an owner cannot be read");
                    None
                }
                Err(_) => {
                    tracing::debug!(resource, namespace, name = %owner.name, "an owner was not told in time");
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
