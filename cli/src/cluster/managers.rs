//! Who manages an object, and would revert a change of it.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Who applies an object from a source of its own. A patch of the object lasts until the manager applies it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manager {
    /// A controller that made the object from another one.
    Operator {
        kind: String,
        name: String,
    },
    ArgoCd {
        application: String,
    },
    /// A `Kustomization` or `HelmRelease` of Flux.
    Flux {
        kind: &'static str,
        namespace: String,
        name: String,
    },
    /// A release that `helm` installed.
    Helm {
        release: String,
    },
}

impl Manager {
    /// From the metadata that the manager sets. Argo CD and Flux come before Helm, whose charts they apply.
    ///
    /// - The controller in `ownerReferences`.
    /// - Flux: `kustomize.toolkit.fluxcd.io/name`, `helm.toolkit.fluxcd.io/name` (labels).
    /// - Argo CD: `argocd.argoproj.io/tracking-id` (annotation, `APPLICATION:…`), `argocd.argoproj.io/instance` (label), or its
    ///   field manager together with `app.kubernetes.io/instance`, the tracking label of its defaults before version 3.
    /// - Helm: `meta.helm.sh/release-name` (annotation), or the label `app.kubernetes.io/managed-by: Helm`.
    pub fn of(metadata: &ObjectMeta) -> Option<Self> {
        let owners = metadata.owner_references.as_deref().unwrap_or_default();
        if let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) {
            return Some(Self::Operator { kind: owner.kind.clone(), name: owner.name.clone() });
        }
        let label = |key: &str| metadata.labels.as_ref()?.get(key).cloned();
        let annotation = |key: &str| metadata.annotations.as_ref()?.get(key).cloned();
        for (kind, group) in [("HelmRelease", "helm"), ("Kustomization", "kustomize")] {
            if let Some(name) = label(&format!("{group}.toolkit.fluxcd.io/name")) {
                let namespace = label(&format!("{group}.toolkit.fluxcd.io/namespace")).unwrap_or_default();
                return Some(Self::Flux { kind, namespace, name });
            }
        }
        let tracked = annotation("argocd.argoproj.io/tracking-id")
            .and_then(|id| id.split_once(':').map(|(application, _)| application.to_owned()))
            .or_else(|| label("argocd.argoproj.io/instance"));
        let mut field_managers =
            metadata.managed_fields.iter().flatten().filter_map(|entry| entry.manager.as_deref());
        let is_applied = field_managers.any(|manager| manager.starts_with("argocd"));
        let by_argo = tracked.or_else(|| label("app.kubernetes.io/instance").filter(|_| is_applied));
        if let Some(application) = by_argo {
            return Some(Self::ArgoCd { application });
        }
        let release = annotation("meta.helm.sh/release-name");
        let is_of_helm = label("app.kubernetes.io/managed-by").as_deref() == Some("Helm");
        let release = release.or_else(|| label("app.kubernetes.io/instance").filter(|_| is_of_helm));
        (release.is_some() || is_of_helm).then(|| Self::Helm { release: release.unwrap_or_default() })
    }

    /// Where a change of the object belongs.
    pub fn source(&self) -> String {
        match self {
            Self::Operator { kind, name } => format!("in the {kind} {name}"),
            Self::ArgoCd { application } => format!("in the source of the Argo CD application {application}"),
            Self::Flux { kind, namespace, name } => {
                let what = if *kind == "HelmRelease" { "in the values" } else { "in the source" };
                let slash = if namespace.is_empty() { "" } else { "/" };
                format!("{what} of Flux's {kind} {namespace}{slash}{name}")
            }
            Self::Helm { release } if release.is_empty() => "in the values of its Helm release".to_owned(),
            Self::Helm { release } => format!("in the values of the Helm release {release}"),
        }
    }

    /// Whether a controller made the object from another one, so that no manifest of the user has it.
    pub const fn is_operator(&self) -> bool {
        matches!(self, Self::Operator { .. })
    }
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator { kind, name } => write!(f, "the {kind} {name}"),
            Self::ArgoCd { application } => write!(f, "Argo CD (application {application})"),
            Self::Flux { kind, name, .. } => write!(f, "Flux ({kind} {name})"),
            Self::Helm { release } if release.is_empty() => f.write_str("Helm"),
            Self::Helm { release } => write!(f, "Helm (release {release})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(metadata: Value) -> Option<String> {
        Manager::of(&serde_json::from_value(metadata).unwrap()).map(|manager| manager.source())
    }

    #[test]
    fn managers_are_known_by_what_they_set() {
        let owner = |controller: bool| json!([{ "apiVersion": "x/v1", "kind": "Kafka", "name": "main", "uid": "u", "controller": controller }]);
        let labels = |labels: Value| json!({ "labels": labels });
        let instance =
            json!({ "app.kubernetes.io/instance": "shop", "app.kubernetes.io/managed-by": "Helm" });
        let by_argo = json!({ "labels": instance, "managedFields": [{ "manager": "argocd-controller" }] });
        for (metadata, expected) in [
            (json!({}), None),
            (labels(json!({ "app.kubernetes.io/instance": "shop" })), None),
            (json!({ "ownerReferences": owner(false) }), None),
            (json!({ "ownerReferences": owner(true) }), Some("in the Kafka main")),
            (
                labels(
                    json!({ "kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system" }),
                ),
                Some("in the source of Flux's Kustomization flux-system/apps"),
            ),
            (
                labels(
                    json!({ "helm.toolkit.fluxcd.io/name": "shop", "app.kubernetes.io/managed-by": "Helm" }),
                ),
                Some("in the values of Flux's HelmRelease shop"),
            ),
            (
                json!({ "annotations": { "argocd.argoproj.io/tracking-id": "shop:apps/Deployment:shop/web" } }),
                Some("in the source of the Argo CD application shop"),
            ),
            (
                labels(json!({ "argocd.argoproj.io/instance": "shop" })),
                Some("in the source of the Argo CD application shop"),
            ),
            (by_argo, Some("in the source of the Argo CD application shop")),
            (labels(instance.clone()), Some("in the values of the Helm release shop")),
            (
                json!({ "annotations": { "meta.helm.sh/release-name": "shop" } }),
                Some("in the values of the Helm release shop"),
            ),
            (
                labels(json!({ "app.kubernetes.io/managed-by": "Helm" })),
                Some("in the values of its Helm release"),
            ),
        ] {
            assert_eq!(found(metadata.clone()).as_deref(), expected, "{metadata}");
        }
    }
}
