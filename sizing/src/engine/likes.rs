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

/// What alike containers have in common: the image without its version, the stem of the container's name, its role, and how their pods
/// start and end. The owner's name does not count: notebooks of all users, and static pods of all nodes, are alike. Nor does the registry:
/// mirrors serve the same images.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Like {
    /// Empty where likes are of the whole cluster.
    namespace: String,
    container: String,
    /// Empty if unknown.
    image: String,
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
            image: repository(&container.image).to_owned(),
            role: container.role,
            kind: workload.kind,
        }
    }
}

/// The last part of an image's name, without registry, path, tag and digest.
fn repository(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let last = name.rsplit('/').next().unwrap_or_default();
    last.split_once(':').map_or(last, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{
        Container,
        tests::{container, workload},
    };

    #[test]
    fn likes_have_the_same_image_in_any_version_and_from_any_registry() {
        let like = |image: &str| {
            let container = Container { image: image.to_owned(), ..container("app") };
            Like::new(&Evidence::new(workload("web"), container, 100), LikesScope::Namespace)
        };
        let nginx = like("nginx");
        for image in [
            "nginx:1.27",
            "library/nginx@sha256:4c0fdaa8b634",
            "localhost:5000/nginx",
            "docker.io/library/nginx:1.27@sha256:4c0fdaa8b634",
        ] {
            assert_eq!(like(image), nginx, "{image}");
        }
        assert!(like("envoy:1.27") != nginx && like("") != nginx);
    }
}
