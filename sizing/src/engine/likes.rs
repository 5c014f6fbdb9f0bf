//! Likes: which containers lend each other their past.

use serde::{Deserialize, Serialize};

use crate::{
    evidence::Evidence,
    families,
    workload::{Role, WorkloadKind},
};

/// How far containers lend each other their past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LikesScope {
    /// Within a namespace: no advice depends on another tenant's likes.
    #[default]
    Namespace,
    /// Within the cluster.
    Cluster,
}

/// What alike containers have in common: the stem of the container's name, its role, and how their pods start and end. The owner's
/// name does not count: notebooks of all users, and static pods of all nodes, are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Like {
    /// Empty where likes are of the whole cluster.
    namespace: String,
    container: String,
    role: Role,
    kind: WorkloadKind,
}

impl Like {
    /// What a container has in common with its likes.
    pub fn new(evidence: &Evidence, scope: LikesScope) -> Self {
        let Evidence { workload, container, .. } = evidence;
        let namespace = match scope {
            LikesScope::Namespace => workload.namespace.clone(),
            LikesScope::Cluster => String::new(),
        };
        Self {
            namespace,
            container: families::stem(&container.name),
            role: container.role,
            kind: workload.kind,
        }
    }
}
