//! Kustomizations: which objects they deploy, under which names, and which files set their values.
//!
//! Only what matters for requests and limits is followed: resources, bases, components, patches, names and namespaces. What is not
//! followed is reported. The tests compare the result with that of kustomize.

mod json_patch;
mod patches;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    Location, Manifests, NewPatch,
    files::clean,
    objects::{self, Object},
};
use crate::yaml::{self, Value};

/// File names of kustomizations.
pub(super) const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
/// Kustomizations within kustomizations.
const MAX_DEPTH: usize = 32;
/// Fields that can set requests and limits in ways that are not followed.
const NOT_FOLLOWED: [&str; 4] = ["helmCharts", "helmChartInflationGenerator", "transformers", "replacements"];
/// Transformers that set no requests and limits.
const HARMLESS: [&str; 4] =
    ["AnnotationsTransformer", "ImageTagTransformer", "LabelTransformer", "ReplicaCountTransformer"];

/// What all kustomizations refer to.
#[derive(Default)]
struct Used {
    /// Files that are part of a kustomization.
    files: BTreeSet<PathBuf>,
    /// Folders of kustomizations that others use.
    folders: BTreeSet<PathBuf>,
}

struct Kustomization {
    folder: PathBuf,
    file: PathBuf,
    value: Value,
}

impl Kustomization {
    fn is_component(&self) -> bool {
        self.value.text_at(&["kind"]) == Some("Component")
    }

    fn texts(&self, key: &str) -> Vec<String> {
        let items = self.value.get(key).map(Value::items).unwrap_or_default();
        items.iter().filter_map(|item| item.text().map(str::to_owned)).collect()
    }

    fn path(&self, relative: &str) -> PathBuf {
        clean(&self.folder.join(relative))
    }
}

/// Whether a resource is somewhere else than in this file system.
fn is_remote(path: &str) -> bool {
    let is_local = path.starts_with(['.', '/']);
    !is_local
        && (path.contains("://")
            || path.contains("?ref=")
            || path.starts_with("github.com/")
            || path.starts_with("git@"))
}

impl Manifests {
    /// Adds the workloads of all kustomizations that no other one uses. Returns the files that are part of any.
    pub(super) fn kustomizations(&mut self) -> BTreeSet<PathBuf> {
        let is_kustomization = |path: &&PathBuf| NAMES.iter().any(|name| path.ends_with(name));
        let paths: Vec<PathBuf> = self.files.manifests().filter(is_kustomization).cloned().collect();
        let folders: Vec<PathBuf> =
            paths.iter().filter_map(|path| path.parent()).map(Path::to_owned).collect();
        let mut used = Used::default();
        let mut built = Vec::new();
        for folder in folders {
            let Some(kustomization) = self.kustomization(&folder) else { continue };
            let is_component = kustomization.is_component();
            // A component is built for what it refers to; its objects come with the kustomizations that use it.
            let objects = self.build(&folder, Vec::new(), &mut used, 0);
            built.push((folder, is_component, objects));
        }
        for (folder, is_component, objects) in built {
            if is_component || used.folders.contains(&folder) {
                continue;
            }
            let root =
                if folder.as_os_str().is_empty() { ".".to_owned() } else { folder.display().to_string() };
            self.targets.extend(objects.into_iter().flat_map(|object| object.targets(&root)));
        }
        used.files
    }

    fn kustomization(&mut self, folder: &Path) -> Option<Kustomization> {
        let file = NAMES.iter().map(|name| folder.join(name)).find(|path| self.files.load(path).is_some())?;
        let value = self.files.value(&file, 0)?.clone();
        // Flux has a kind of the same name.
        let is_other =
            value.text_at(&["apiVersion"]).is_some_and(|api| !api.starts_with("kustomize.config.k8s.io/"));
        (!is_other).then(|| Kustomization { folder: folder.to_owned(), file, value })
    }

    /// The workloads of a kustomization; those of a component with the objects that it is applied to.
    fn build(&mut self, folder: &Path, given: Vec<Object>, used: &mut Used, depth: usize) -> Vec<Object> {
        let mut objects = given;
        let Some(kustomization) = self.kustomization(folder).filter(|_| depth < MAX_DEPTH) else {
            self.unplaced(folder, 0, "this kustomization is missing, or cannot be read");
            return objects;
        };
        let file = kustomization.file.clone();
        used.files.insert(file.clone());
        for resource in [kustomization.texts("resources"), kustomization.texts("bases")].concat() {
            objects.extend(self.resource(&kustomization, &resource, used, depth));
        }
        for component in kustomization.texts("components") {
            if is_remote(&component) {
                self.unplaced(&file, 1, format!("the component {component} is somewhere else, and not read"));
                continue;
            }
            let path = kustomization.path(&component);
            used.folders.insert(path.clone());
            objects = self.build(&path, objects, used, depth + 1);
        }
        for field in NOT_FOLLOWED {
            let items = kustomization.value.get(field).map(Value::items).unwrap_or_default().to_vec();
            let mut is_followed =
                |item: &Value| field == "transformers" && self.is_harmless(&kustomization, item);
            let others: Vec<bool> = items.iter().map(&mut is_followed).collect();
            if others.contains(&false) && !objects.is_empty() {
                self.unplaced(&file, 1, format!("{field} is not followed: values that it sets are not seen"));
            }
        }
        self.patch(&kustomization, &mut objects, used);
        if self.files.is_own(&file) {
            let count = kustomization.value.get("patches").map_or(0, |patches| patches.items().len());
            for object in objects.iter_mut().filter(|object| objects::is_built_in(&object.kind)) {
                object.new_patch = Some(NewPatch {
                    kustomization: Location::new(&file, 0),
                    count,
                    api_version: object.api_version.clone(),
                    kind: object.kind.clone(),
                    name: object.name.clone(),
                    pod: object.pod.clone(),
                    containers: object.containers.iter().map(|it| (it.name.clone(), it.is_init)).collect(),
                });
            }
        }
        rename(&kustomization, &mut objects);
        objects
    }

    /// Whether a transformer, in a file or as text, sets no requests and limits.
    fn is_harmless(&mut self, kustomization: &Kustomization, transformer: &Value) -> bool {
        let text = transformer.text().unwrap_or_default();
        let path = kustomization.path(text);
        let text = self.files.load(&path).map_or_else(|| text.to_owned(), |file| file.text.clone());
        let values = yaml::parse(&text)
            .and_then(|all| all.iter().map(yaml::Document::value).collect::<Result<Vec<_>, _>>());
        let is_one = |value: &Value| value.text_at(&["kind"]).is_some_and(|kind| HARMLESS.contains(&kind));
        values.is_ok_and(|values| !values.is_empty() && values.iter().all(is_one))
    }

    /// The workloads of an entry of `resources`.
    fn resource(
        &mut self,
        kustomization: &Kustomization,
        resource: &str,
        used: &mut Used,
        depth: usize,
    ) -> Vec<Object> {
        if is_remote(resource) {
            let why = format!("the resource {resource} is somewhere else, and not read");
            self.unplaced(&kustomization.file, 1, why);
            return Vec::new();
        }
        let path = kustomization.path(resource);
        if path.is_dir() {
            used.folders.insert(path.clone());
            return self.build(&path, Vec::new(), used, depth + 1);
        }
        used.files.insert(path.clone());
        if self.files.load(&path).is_none() {
            self.unplaced(&kustomization.file, 1, format!("the resource {resource} is missing"));
            return Vec::new();
        }
        let (objects, unplaced) = objects::in_file(&self.files, &path);
        self.unplaced.extend(unplaced);
        objects
    }
}

/// Sets the namespace and the names of objects.
fn rename(kustomization: &Kustomization, objects: &mut [Object]) {
    let text = |key| kustomization.value.text_at(&[key]).unwrap_or_default().to_owned();
    let (namespace, prefix, suffix) = (text("namespace"), text("namePrefix"), text("nameSuffix"));
    for object in objects {
        if !namespace.is_empty() {
            object.namespace = Some(namespace.clone());
        }
        let name = format!("{prefix}{}{suffix}", object.name);
        if name != object.name {
            object.names.push(name.clone());
            object.name = name;
        }
    }
}
