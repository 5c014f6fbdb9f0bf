//! Workloads among the objects of a file.

use std::path::Path;

use super::{Files, Layer, Location, NewPatch, Target, Unplaced, encrypted::encrypted_by};
use crate::yaml::{Step, Value};

/// Kinds whose pod template is where all of them have it.
const BUILT_IN: [&str; 6] =
    ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"];

/// A container of an object, with what sets its values.
#[derive(Clone, Debug)]
pub(super) struct ObjectContainer {
    pub name: String,
    pub is_init: bool,
    pub layers: Vec<Layer>,
}

/// A workload with its containers.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    /// Names that it had before others changed it, the first one first.
    pub names: Vec<String>,
    pub namespace: Option<String>,
    pub labels: Vec<(String, String)>,
    pub annotations: Vec<(String, String)>,
    pub pod: Vec<String>,
    pub containers: Vec<ObjectContainer>,
    /// Where a patch can be added.
    pub new_patch: Option<NewPatch>,
}

/// The keys from an object of this kind to its pod.
pub(super) fn pod_path(kind: &str, object: &Value) -> Option<Vec<String>> {
    let path: &[&str] = match kind {
        "Pod" => &["spec"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template", "spec"],
        _ if BUILT_IN.contains(&kind) => &["spec", "template", "spec"],
        // Argo Rollouts and others have the pod template of a Deployment.
        _ => {
            let path: &[&str] = &["spec", "template", "spec"];
            object.below(path)?.get("containers")?.items().first()?.get("name")?;
            path
        }
    };
    Some(path.iter().map(|key| (*key).to_owned()).collect())
}

/// Whether Kubernetes itself has the kind, so that kustomize merges its lists by name.
pub(super) fn is_built_in(kind: &str) -> bool {
    matches!(kind, "Pod" | "CronJob") || BUILT_IN.contains(&kind)
}

fn texts(value: Option<&Value>) -> Vec<(String, String)> {
    let entries = value.map(Value::entries).unwrap_or_default();
    entries.iter().filter_map(|(key, value)| Some((key.clone(), value.text()?.to_owned()))).collect()
}

/// The two lists of containers of a pod.
pub(super) const LISTS: [(&str, bool); 2] = [("initContainers", true), ("containers", false)];

impl Object {
    /// A workload at a location; `None` if the object is none.
    pub(super) fn new(object: &Value, at: &Location) -> Option<Self> {
        let kind = object.text_at(&["kind"])?;
        let name = object.text_at(&["metadata", "name"])?;
        let pod = pod_path(kind, object)?;
        let keys: Vec<&str> = pod.iter().map(String::as_str).collect();
        let spec = object.below(&keys)?;
        let mut containers = Vec::new();
        for (list, is_init) in LISTS {
            for (number, container) in spec.get(list).map(Value::items).unwrap_or_default().iter().enumerate()
            {
                let Some(name) = container.text_at(&["name"]) else { continue };
                let steps =
                    keys.iter().map(|key| Step::from(*key)).chain([Step::from(list), Step::from(number)]);
                let resources = at.below(steps).below(["resources"]);
                let layer = Layer::new(resources, container.get("resources"), false);
                containers.push(ObjectContainer { name: name.to_owned(), is_init, layers: vec![layer] });
            }
        }
        Some(Self {
            api_version: object.text_at(&["apiVersion"]).unwrap_or_default().to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            names: vec![name.to_owned()],
            namespace: object.text_at(&["metadata", "namespace"]).map(str::to_owned),
            labels: texts(object.below(&["metadata", "labels"])),
            annotations: texts(object.below(&["metadata", "annotations"])),
            pod,
            containers,
            new_patch: None,
        })
    }

    /// Its containers, deployed by `root`.
    pub(super) fn targets(self, root: &str) -> Vec<Target> {
        let of_one = |container: ObjectContainer| Target {
            root: root.to_owned(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            workload: self.name.clone(),
            current: Target::effective(&container.layers),
            container: container.name,
            is_init: container.is_init,
            layers: container.layers,
            new_patch: self.new_patch.clone(),
        };
        self.containers.into_iter().map(of_one).collect()
    }
}

/// The objects of a document, lists of objects taken apart, each with its location.
pub(super) fn objects<'v>(value: &'v Value, at: &Location) -> Vec<(&'v Value, Location)> {
    let is_list = value.text_at(&["kind"]).is_some_and(|kind| kind.ends_with("List"));
    match value.get("items") {
        Some(items) if is_list => items
            .items()
            .iter()
            .enumerate()
            .flat_map(|(number, item)| objects(item, &at.below([Step::from("items"), Step::from(number)])))
            .collect(),
        _ => vec![(value, at.clone())],
    }
}

/// The workloads of a file, and what cannot be placed in it.
pub(super) fn in_file(files: &Files, path: &Path) -> (Vec<Object>, Vec<Unplaced>) {
    let (mut found, mut unplaced) = (Vec::new(), Vec::new());
    let Some(file) = files.get(path) else { return (found, unplaced) };
    let unplaced_at = |line, why: String| Unplaced { file: path.to_owned(), line, why };
    let documents = match &file.parsed {
        Ok(documents) => documents,
        Err(error) => {
            // Only where a workload seems to be in it.
            if file.text.contains("kind:") && file.text.contains("containers:") {
                let template = if file.text.contains("{{") {
                    "; a template is only read as a part of its chart"
                } else {
                    ""
                };
                unplaced.push(unplaced_at(0, format!("not YAML: {error}{template}")));
            }
            return (found, unplaced);
        }
    };
    for (number, (document, value)) in documents.iter().enumerate() {
        if encrypted_by(value).is_some() {
            continue;
        }
        for (object, at) in objects(value, &Location::new(path, number)) {
            match Object::new(object, &at) {
                Some(object) => found.push(object),
                None => {
                    let line = document.line(&at.path);
                    unplaced.extend(custom(object).map(|why| unplaced_at(line, why)));
                }
            }
        }
    }
    (found, unplaced)
}

/// What is said of an object that is no workload but sets requests or limits of some: only its operator knows of which.
fn custom(object: &Value) -> Option<String> {
    let (api, kind) = (object.text_at(&["apiVersion"])?, object.text_at(&["kind"])?);
    let name = object.text_at(&["metadata", "name"]).unwrap_or_default();
    let (group, _) = api.split_once('/')?;
    let is_release = matches!(kind, "HelmRelease" | "Application" | "ApplicationSet");
    let of_kubernetes = !group.contains('.') || group.ends_with(".k8s.io");
    if is_release || of_kubernetes || kind == "Kustomization" || kind == "Component" {
        return None;
    }
    let path = resources_in(object.get("spec")?, "spec")?;
    Some(format!(
        "{kind} {name} sets {path}, but only its operator knows for which containers: change it by hand"
    ))
}

/// The path of the first mapping with requests or limits.
fn resources_in(value: &Value, path: &str) -> Option<String> {
    let is_amount = |value: &Value| value.get("cpu").is_some() || value.get("memory").is_some();
    if ["requests", "limits"].iter().any(|key| value.get(key).is_some_and(is_amount)) {
        return Some(path.to_owned());
    }
    let mut below = value.entries().iter().map(|(key, value)| (value, format!("{path}.{key}")));
    let in_lists = || value.items().iter().enumerate().map(|(at, value)| (value, format!("{path}[{at}]")));
    below
        .find_map(|(value, path)| resources_in(value, &path))
        .or_else(|| in_lists().find_map(|(value, path)| resources_in(value, &path)))
}
