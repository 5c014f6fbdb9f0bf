//! Patches of a kustomization.

use std::path::PathBuf;

use regex::Regex;

use super::{Kustomization, Used, json_patch};
use crate::{
    manifests::{
        Layer, Location, Manifests,
        objects::{LISTS, Object, ObjectContainer, pod_path},
    },
    yaml::{self, Step, Value},
};

/// A patch with its location.
struct Patch {
    at: Location,
    value: Value,
    selector: Option<Selector>,
}

/// The objects that a patch is for; a missing field selects all.
#[derive(Default)]
struct Selector {
    kind: Option<Regex>,
    name: Option<Regex>,
    namespace: Option<Regex>,
    labels: Vec<(String, String)>,
    annotations: Vec<(String, String)>,
}

impl Selector {
    /// From the `target` of a patch; `None` if it selects in a way that is not followed.
    fn new(target: &Value) -> Option<Self> {
        let pattern = |key| match target.text_at(&[key]) {
            Some(text) => Regex::new(&format!("^(?:{text})$")).map(Some),
            None => Ok(None),
        };
        let pairs = |key: &str| {
            let text = target.text_at(&[key]).unwrap_or_default();
            let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
            let pair = |pair: &str| {
                let (key, value) = pair.split_once('=')?;
                let is_plain = !key.ends_with('!') && !value.starts_with('=');
                is_plain.then(|| (key.trim().to_owned(), value.trim().to_owned()))
            };
            pairs.map(pair).collect::<Option<Vec<_>>>()
        };
        Some(Self {
            kind: pattern("kind").ok()?,
            name: pattern("name").ok()?,
            namespace: pattern("namespace").ok()?,
            labels: pairs("labelSelector")?,
            annotations: pairs("annotationSelector")?,
        })
    }

    fn selects(&self, object: &Object) -> bool {
        let is = |pattern: &Option<Regex>, text: &str| pattern.as_ref().is_none_or(|it| it.is_match(text));
        let has = |wanted: &[(String, String)], all: &[(String, String)]| {
            wanted.iter().all(|one| all.contains(one))
        };
        let is_named = self.name.as_ref().is_none_or(|it| object.names.iter().any(|name| it.is_match(name)));
        is_named
            && is(&self.kind, &object.kind)
            && is(&self.namespace, object.namespace.as_deref().unwrap_or_default())
            && has(&self.labels, &object.labels)
            && has(&self.annotations, &object.annotations)
    }
}

impl Manifests {
    /// Applies the patches of a kustomization, in the order of kustomize.
    pub(super) fn patch(
        &mut self,
        kustomization: &Kustomization,
        objects: &mut Vec<Object>,
        used: &mut Used,
    ) {
        let mut patches = Vec::new();
        let items = |key| kustomization.value.get(key).map(Value::items).unwrap_or_default().to_vec();
        let at = Location::new(&kustomization.file, 0);
        for (number, item) in items("patchesStrategicMerge").iter().enumerate() {
            let Some(text) = item.text() else { continue };
            let at = at.below([Step::from("patchesStrategicMerge"), Step::from(number)]);
            let path = (!text.contains('\n')).then(|| kustomization.path(text));
            self.add_patches(&at, path, text, None, used, &mut patches);
        }
        for key in ["patches", "patchesJson6902"] {
            for (number, item) in items(key).iter().enumerate() {
                let at = at.below([Step::from(key), Step::from(number), Step::from("patch")]);
                let path = item.text_at(&["path"]).map(|path| kustomization.path(path));
                let text = item.text_at(&["patch"]).unwrap_or_default();
                let target = item.get("target").filter(|target| !target.is_null());
                let selector = target.map(Selector::new);
                if matches!(selector, Some(None)) {
                    let why = "a patch selects objects in a way that is not followed: values that it sets are not seen";
                    self.unplaced(&kustomization.file, self.files.line(&at), why);
                    continue;
                }
                self.add_patches(&at, path, text, Some(selector.flatten()), used, &mut patches);
            }
        }
        for patch in patches {
            self.apply(&patch, objects);
        }
    }

    /// The patches of a file or of a text. `selector` is `None` where there is none by definition.
    fn add_patches(
        &mut self,
        at: &Location,
        path: Option<PathBuf>,
        text: &str,
        selector: Option<Option<Selector>>,
        used: &mut Used,
        patches: &mut Vec<Patch>,
    ) {
        let mut selector = selector.flatten();
        let line = self.files.line(at);
        if let Some(path) = path {
            used.files.insert(path.clone());
            if self.files.load(&path).is_none() {
                self.unplaced(&at.file, line, format!("the patch {} is missing", path.display()));
                return;
            }
            let mut number = 0;
            while let Some(value) = self.files.value(&path, number).cloned() {
                patches.push(Patch { at: Location::new(&path, number), value, selector: selector.take() });
                number += 1;
            }
            return;
        }
        let values = yaml::parse(text)
            .and_then(|all| all.iter().map(yaml::Document::value).collect::<Result<Vec<_>, _>>());
        match values.as_deref() {
            Ok([value]) => {
                let at = at.below([Step::Text]);
                patches.push(Patch { at, value: value.clone(), selector });
            }
            Ok([]) => {}
            Ok(_) => self.unplaced(
                &at.file,
                line,
                "several patches in one text are not followed: give each its own entry",
            ),
            Err(error) => self.unplaced(&at.file, line, format!("a patch is not YAML: {error}")),
        }
    }

    fn apply(&mut self, patch: &Patch, objects: &mut Vec<Object>) {
        let Patch { at, value, selector } = patch;
        if let Value::List(operations) = value {
            let Some(selector) = selector else { return };
            for object in objects.iter_mut().filter(|object| selector.selects(object)) {
                for why in json_patch::apply(object, operations, at) {
                    self.unplaced(&at.file, self.files.line(at), why);
                }
            }
            return;
        }
        let is_own = |object: &Object| {
            let namespace = value.text_at(&["metadata", "namespace"]);
            let is_there =
                namespace.is_none() || object.namespace.is_none() || namespace == object.namespace.as_deref();
            let name = value.text_at(&["metadata", "name"]).unwrap_or_default();
            is_there
                && value.text_at(&["kind"]) == Some(object.kind.as_str())
                && object.names.iter().any(|it| it == name)
        };
        let selected =
            |object: &Object| selector.as_ref().map_or_else(|| is_own(object), |it| it.selects(object));
        if value.text_at(&["$patch"]) == Some("delete") {
            objects.retain(|object| !selected(object));
            return;
        }
        if value.text_at(&["kind"]) == Some("HelmRelease") && value.below(&["spec", "values"]).is_some() {
            let name = value.text_at(&["metadata", "name"]).unwrap_or_default();
            let why = format!("this patch sets values of the HelmRelease {name}, which are not followed");
            self.unplaced(&at.file, self.files.line(at), why);
        }
        let mut found = Vec::new();
        for object in objects.iter_mut().filter(|object| selected(object)) {
            found.extend(merge(object, value, at));
        }
        for why in found {
            self.unplaced(&at.file, self.files.line(at), why);
        }
    }
}

/// Adds the layers of a strategic merge patch. Returns what is not followed.
fn merge(object: &mut Object, patch: &Value, at: &Location) -> Vec<String> {
    let Some(pod) = pod_path(&object.kind, patch).or_else(|| Some(object.pod.clone())) else {
        return Vec::new();
    };
    let keys: Vec<&str> = pod.iter().map(String::as_str).collect();
    let Some(spec) = patch.below(&keys) else { return Vec::new() };
    let mut found = Vec::new();
    for (list, is_init) in LISTS {
        // Containers of the patch come first, in its order.
        let mut first = Vec::new();
        let items = spec.get(list).map(Value::items).unwrap_or_default();
        for (number, item) in items.iter().enumerate() {
            let Some(name) = item.text_at(&["name"]) else {
                if item.text_at(&["$patch"]) == Some("replace") {
                    found.push(format!("$patch: replace of {list} is not followed"));
                }
                continue;
            };
            let is_one = |it: &ObjectContainer| it.name == name && it.is_init == is_init;
            if item.text_at(&["$patch"]) == Some("delete") {
                object.containers.retain(|it| !is_one(it));
                continue;
            }
            if item.get("$patch").is_some()
                || item.get("resources").is_some_and(|it| it.get("$patch").is_some())
            {
                found.push(format!("$patch of the container {name} is not followed"));
                object.containers.retain(|it| !is_one(it));
                continue;
            }
            let steps = keys.iter().map(|key| Step::from(*key)).chain([Step::from(list), Step::from(number)]);
            let resources = at.below(steps).below(["resources"]);
            let layer = |is_patch| Layer::new(resources.clone(), item.get("resources"), is_patch);
            first.push(match object.containers.iter().position(is_one) {
                Some(at) => {
                    let mut container = object.containers.remove(at);
                    container.layers.push(layer(true));
                    container
                }
                None => ObjectContainer { name: name.to_owned(), is_init, layers: vec![layer(false)] },
            });
        }
        object.containers.splice(0..0, first);
    }
    found
}
