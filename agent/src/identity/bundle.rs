//! Names of containers from the runtime's bundles on disk: the annotations in `config.json`.
//!
//! The bundle exists before the container runs, while the pod status has the container's id a second or more later. Only
//! the annotations of the file are kept, because it also holds the environment of the container.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use thiserror::Error;

/// The maximum size of a `config.json`, bytes.
const MAX_BYTES: u64 = 4 << 20;

/// The paths of bundles below the host's `/run`: the parts before and after the container's id.
///
/// containerd's shim v2 in the CRI namespace, the same for k3s and RKE2, and CRI-O's storage.
const BUNDLE_PATHS: [(&str, &str); 3] = [
    ("containerd/io.containerd.runtime.v2.task/k8s.io", "config.json"),
    ("k3s/containerd/io.containerd.runtime.v2.task/k8s.io", "config.json"),
    ("containers/storage/overlay-containers", "userdata/config.json"),
];

/// A container or sandbox of a pod, as its runtime names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container in the pod; `None` for the sandbox.
    pub container: Option<String>,
    /// Image reference; empty if the runtime does not record it.
    pub image: String,
}

/// Why a bundle cannot be used.
#[derive(Debug, Error)]
pub enum BundleError {
    /// The file exists but cannot be read.
    #[error("the bundle {} cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file is not a runtime configuration in JSON.
    #[error("the bundle {} is not a runtime configuration", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
}

/// Finds the bundle of a container below `run_root`, the host's `/run`. `None` if there is none, or if the container is not
/// part of a pod.
///
/// # Errors
/// When the bundle exists but cannot be read or parsed.
pub fn find(run_root: &Path, id: &str) -> Result<Option<Bundle>, BundleError> {
    if !is_id(id) {
        return Ok(None);
    }
    for (before, after) in BUNDLE_PATHS {
        let path = run_root.join(before).join(id).join(after);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                continue;
            }
            Err(source) => return Err(BundleError::Read { path, source }),
        };
        let mut json = Vec::new();
        if let Err(source) = file.take(MAX_BYTES).read_to_end(&mut json) {
            return Err(BundleError::Read { path, source });
        }
        return parse(&json).map_err(|source| BundleError::Json { path, source });
    }
    Ok(None)
}

/// Whether `id` has the form of a container id. Ids become parts of paths, so nothing else is accepted.
fn is_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    annotations: Annotations,
}

/// The annotations of containerd, with those of CRI-O as aliases.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "io.kubernetes.cri.container-type", alias = "io.kubernetes.cri-o.ContainerType")]
    kind: Option<String>,
    #[serde(rename = "io.kubernetes.cri.sandbox-namespace", alias = "io.kubernetes.pod.namespace")]
    namespace: Option<String>,
    #[serde(rename = "io.kubernetes.cri.sandbox-name", alias = "io.kubernetes.pod.name")]
    pod: Option<String>,
    #[serde(rename = "io.kubernetes.cri.container-name", alias = "io.kubernetes.container.name")]
    container: Option<String>,
    #[serde(
        rename = "io.kubernetes.cri.image-name",
        alias = "io.kubernetes.cri.podsandbox.image-name",
        alias = "io.kubernetes.cri-o.ImageName"
    )]
    image: Option<String>,
}

pub(super) fn parse(json: &[u8]) -> Result<Option<Bundle>, serde_json::Error> {
    let Config { annotations } = serde_json::from_slice(json)?;
    let Annotations { kind, namespace, pod, container, image } = annotations;
    let container = match kind.as_deref() {
        Some("sandbox") => None,
        Some("container") => container.filter(|name| !name.is_empty()),
        _ => return Ok(None),
    };
    let (Some(namespace), Some(pod)) = (namespace, pod) else { return Ok(None) };
    // A container without a name must not be taken for the sandbox.
    if container.is_none() && kind.as_deref() != Some("sandbox") {
        return Ok(None);
    }
    Ok(Some(Bundle { namespace, pod, container, image: image.unwrap_or_default() }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn write(run_root: &Path, place: usize, content: &str) {
        let (before, after) = BUNDLE_PATHS[place];
        let path = run_root.join(before).join(ID).join(after);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn containerd_and_cri_o_name_their_containers() {
        let containerd = json!({ "ociVersion": "1.0.2", "process": { "env": ["TOKEN=secret"] }, "annotations": {
            "io.kubernetes.cri.container-name": "main",
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.image-name": "registry.example/app:1",
            "io.kubernetes.cri.sandbox-id": ID,
            "io.kubernetes.cri.sandbox-name": "web-0",
            "io.kubernetes.cri.sandbox-namespace": "shop",
        } });
        // CRI-O names the pause container of a sandbox "POD".
        let cri_o = json!({ "annotations": {
            "io.kubernetes.container.name": "POD",
            "io.kubernetes.cri-o.ContainerType": "sandbox",
            "io.kubernetes.pod.name": "web-0",
            "io.kubernetes.pod.namespace": "shop",
        } });
        let main = Bundle {
            namespace: "shop".into(),
            pod: "web-0".into(),
            container: Some("main".into()),
            image: "registry.example/app:1".into(),
        };
        for place in [0, 1] {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), place, &containerd.to_string());
            assert_eq!(find(folder.path(), ID).unwrap(), Some(main.clone()));
        }
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 2, &cri_o.to_string());
        let sandbox = Bundle { container: None, image: String::new(), ..main };
        assert_eq!(find(folder.path(), ID).unwrap(), Some(sandbox));
    }

    #[test]
    fn a_bundle_without_pod_annotations_gives_no_names() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(find(folder.path(), ID).unwrap(), None);
        assert_eq!(find(folder.path(), "../../etc").unwrap(), None);
        // Docker's shim keeps bundles without CRI's annotations.
        write(folder.path(), 0, r#"{"ociVersion":"1.0.2"}"#);
        assert_eq!(find(folder.path(), ID).unwrap(), None);
        let unnamed = json!({ "annotations": {
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-name": "web-0",
            "io.kubernetes.cri.sandbox-namespace": "shop",
        } });
        write(folder.path(), 0, &unnamed.to_string());
        assert_eq!(find(folder.path(), ID).unwrap(), None);
    }

    #[test]
    fn the_error_for_a_broken_bundle_names_it() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 0, r#"{"annotations": {"#);
        let error = find(folder.path(), ID).unwrap_err().to_string();
        assert!(error.contains(ID) && error.contains("not a runtime configuration"), "{error}");
    }

    proptest! {
        #[test]
        fn no_content_panics(json in "\\{\"annotations\": ?\\{(\"io\\.kubernetes\\.[a-z.-]{0,20}\": ?\"?[a-z]{0,5}\"?,?){0,3}\\}\\}") {
            let _ = parse(json.as_bytes());
        }
    }
}
