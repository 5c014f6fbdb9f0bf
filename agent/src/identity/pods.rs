//! Parses lists of pods, as the API server or a kubelet prints them.

use std::{path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::model::{Pods, pod::KnownPod};

/// A parsed list: the usable pods and the skipped items.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The usable pods.
    pub pods: Pods,
    /// The items that were skipped.
    pub skipped: Vec<SkippedPod>,
}

/// An item of a pod list that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedPod {
    /// Its index in the list, from 0.
    pub index: usize,
    /// `namespace/name`, if it has a name.
    pub name: Option<String>,
    /// Why the item was skipped.
    pub reason: String,
}

/// Why a list of pods cannot be used.
#[derive(Debug, Error)]
pub enum PodsError {
    /// Not JSON, cut short, or without `items`.
    #[error("not a list of pods in JSON; write it with `kubectl get pods -A -o json`")]
    Json { source: serde_json::Error },
    /// JSON of another kind.
    #[error("its kind is {found:?}, not List or PodList; write it with `kubectl get pods -A -o json`")]
    Kind {
        /// The `kind` in the JSON.
        found: String,
    },
    /// The content of the file is not a list of pods.
    #[error("the pods file {} cannot be used", path.display())]
    Content { path: PathBuf, source: Box<PodsError> },
    /// The file cannot be read.
    #[error("the pods file {} cannot be read; check that it exists and that the agent may read it", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// A directory, pipe or device.
    #[error("the pods file {} is not a regular file; write `kubectl get pods -A -o json` to one", path.display())]
    NotRegular { path: PathBuf },
    /// The file exceeds the maximum size.
    #[error(
        "the pods file {} is larger than {limit} bytes; list this node's pods only, with \
         `--field-selector spec.nodeName=<node>`",
        path.display()
    )]
    TooLarge {
        path: PathBuf,
        /// The maximum size, bytes.
        limit: u64,
    },
}

#[derive(Deserialize)]
struct RawList<'a> {
    kind: String,
    /// A kubelet without pods prints `null`.
    #[serde(borrow, deserialize_with = "Option::deserialize")]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct KindOnly {
    kind: String,
}

impl Pods {
    /// Reads a `List` or `PodList` as `kubectl get pods -o json` and a kubelet's `/pods` print it.
    ///
    /// An unusable item is skipped and reported. Of two pods with the same uid, the later one counts.
    pub fn from_json(json: &[u8]) -> Result<Loaded, PodsError> {
        let list: RawList<'_> = match serde_json::from_slice(json) {
            Ok(list) => list,
            Err(source) => {
                return Err(match serde_json::from_slice::<KindOnly>(json) {
                    Ok(KindOnly { kind }) if !is_list(&kind) => PodsError::Kind { found: kind },
                    _ => PodsError::Json { source },
                });
            }
        };
        if !is_list(&list.kind) {
            return Err(PodsError::Kind { found: list.kind });
        }
        let mut pods = Vec::new();
        let mut skipped = Vec::new();
        for (index, item) in list.items.unwrap_or_default().into_iter().enumerate() {
            let pod =
                serde_json::from_str::<Pod>(item.get()).map_err(|error| without_value(&error.to_string()));
            match pod.and_then(|pod| KnownPod::from_api(&pod).map_err(str::to_owned)) {
                Ok(pod) => pods.push(Arc::new(pod)),
                Err(reason) => skipped.push(SkippedPod { index, name: name_of(item), reason }),
            }
        }
        Ok(Loaded { pods: pods.into_iter().collect(), skipped })
    }
}

/// The message of a failed conversion without the value that has the wrong type: it may be a secret of the pod's environment.
pub(crate) fn without_value(message: &str) -> String {
    const WRONG_TYPE: &str = "invalid type: ";
    let parts = message.split_once(WRONG_TYPE).and_then(|(before, rest)| {
        // The value may contain the separator. What is expected does not.
        let (found, expected) = rest.rsplit_once(", expected ")?;
        let kind = found.split(['`', '"']).next()?.trim_end();
        Some(format!("{before}{WRONG_TYPE}{kind}, expected {expected}"))
    });
    parts.unwrap_or_else(|| message.to_owned())
}

fn is_list(kind: &str) -> bool {
    matches!(kind, "List" | "PodList")
}

/// The name of an unusable item, if it has one.
fn name_of(item: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default)]
        namespace: Option<String>,
        name: String,
    }
    let Metadata { namespace, name } = serde_json::from_str::<Named>(item.get()).ok()?.metadata;
    Some(namespace.map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}")))
}

#[cfg(test)]
mod tests;
