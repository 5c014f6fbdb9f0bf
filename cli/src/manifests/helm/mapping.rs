//! Which value of a chart becomes the resources of which container: all candidates get values that nothing else has, and the
//! rendered containers show where each of them went.

use std::collections::{BTreeMap, BTreeSet};

use super::{ContainerName, Helm, HelmError, Release, containers, differences};
use crate::{
    manifests::{
        Field, Location,
        objects::{LISTS, objects, pod_path},
    },
    yaml::{New, Value},
};

/// Keys from the values to a candidate.
type ValuesPath = Vec<String>;

/// Where the values of a chart go.
#[derive(Debug, Default)]
pub(super) struct Mapping {
    /// Containers with the values that are deployed.
    pub current: BTreeMap<ContainerName, [Option<String>; 4]>,
    pub paths: BTreeMap<ContainerName, ValuesPath>,
    /// Candidates that the chart also uses for something else, as sentences.
    pub elsewhere: Vec<String>,
}

/// Candidates among the values: mappings that are named as resources, or that look like some.
fn candidates(value: &Value, path: &[String], found: &mut BTreeSet<ValuesPath>) {
    for (key, value) in value.entries() {
        let path: ValuesPath = path.iter().chain([key]).cloned().collect();
        let is_named =
            key.to_lowercase().ends_with("resources") && matches!(value, Value::Map(_) | Value::Null);
        let has = |part| matches!(value.get(part), Some(Value::Map(_)));
        let looks = has("requests") || has("limits");
        let is_list_of_kubernetes = key == "extraResources";
        if (is_named || looks) && !is_list_of_kubernetes {
            found.insert(path);
        } else {
            candidates(value, &path, found);
        }
    }
}

/// A quantity that no chart has by itself.
fn probe(candidate: usize, field: Field) -> String {
    let number = candidate * Field::ALL.len() + Field::ALL.iter().position(|it| *it == field).unwrap_or(0);
    match field {
        Field::CpuRequest | Field::CpuLimit => format!("{}m", 700_001 + number),
        Field::MemoryRequest | Field::MemoryLimit => format!("{}Mi", 700_001 + number),
    }
}

/// Values with the probes of candidates, as JSON.
fn probes<'c>(candidates: impl IntoIterator<Item = (usize, &'c ValuesPath)>) -> String {
    let mut values = Value::Map(Vec::new());
    for (number, path) in candidates {
        for field in Field::ALL {
            let steps = path.iter().map(|key| key.as_str().into()).chain(field.steps());
            values.set(&steps.collect::<Vec<_>>(), Value::Text(probe(number, field)));
        }
    }
    New::from(values).json()
}

/// Renders the chart as it is and with probes.
pub(super) fn find(helm: &Helm<'_>, release: &Release) -> Result<Mapping, HelmError> {
    let render = |top: &[&str]| helm.template(release, &release.texts(top));
    let as_is = render(&[])?;
    let mut mapping = Mapping { current: containers(&as_is).into_iter().collect(), ..Mapping::default() };
    let mut all = BTreeSet::new();
    for layer in &release.values {
        candidates(&layer.value, &[], &mut all);
    }
    let all: Vec<ValuesPath> = all.into_iter().collect();
    if all.is_empty() || mapping.current.is_empty() {
        return Ok(mapping);
    }
    let probed = render(&[&probes(all.iter().enumerate())])?;
    let mut by_candidate: BTreeMap<usize, Vec<ContainerName>> = BTreeMap::new();
    for (key, values) in containers(&probed) {
        let of_field = |(field, text): (Field, &Option<String>)| {
            let text = text.as_deref()?;
            (0..all.len()).find(|number| probe(*number, field) == text)
        };
        let found: BTreeSet<usize> = Field::ALL.into_iter().zip(&values).filter_map(of_field).collect();
        if let (Some(number), 1) = (found.first(), found.len())
            && mapping.current.contains_key(&key)
        {
            by_candidate.entry(*number).or_default().push(key);
        }
    }
    // What differs between two renderings anyway: random passwords, times.
    let random = differing(&as_is, &render(&[])?, &[]);
    for (number, keys) in by_candidate {
        let Some(path) = all.get(number) else { continue };
        let alone = render(&[&probes([(number, path)])])?;
        let others: Vec<String> = differing(&as_is, &alone, &keys).difference(&random).cloned().collect();
        match others.first() {
            Some(other) => mapping.elsewhere.push(format!(
                "the chart uses the value {} also for {other}: change it by hand",
                path.join(".")
            )),
            None => mapping.paths.extend(keys.into_iter().map(|key| (key, path.clone()))),
        }
    }
    Ok(mapping)
}

/// Where two renderings differ, the resources of these containers aside.
fn differing(one: &[Value], other: &[Value], except: &[ContainerName]) -> BTreeSet<String> {
    let both = [one, other].map(|documents| Value::Map(by_name(documents, except)));
    let mut found = BTreeSet::new();
    differences(&both[0], &both[1], "", &mut found);
    found.into_iter().map(|path| path.trim_start_matches('.').to_owned()).collect()
}

/// Objects by kind and name, without the resources of these containers.
fn by_name(documents: &[Value], except: &[ContainerName]) -> Vec<(String, Value)> {
    let at = Location::new("", 0);
    let all =
        documents.iter().flat_map(|document| objects(document, &at)).filter(|(object, _)| !object.is_null());
    let of_one = |(number, (object, _)): (usize, (&Value, Location))| {
        let mut object = object.clone();
        let text = |keys: &[&str]| object.text_at(keys).map(str::to_owned);
        let (kind, name) =
            (text(&["kind"]).unwrap_or_default(), text(&["metadata", "name"]).unwrap_or_default());
        let namespace = text(&["metadata", "namespace"]);
        let key = if name.is_empty() { format!("{kind} {number}") } else { format!("{kind} {name}") };
        let Some(pod) = pod_path(&kind, &object) else { return (key, object) };
        for (list, is_init) in LISTS {
            let keys: Vec<&str> = pod.iter().map(String::as_str).chain([list]).collect();
            let count = object.below(&keys).map_or(0, |items| items.items().len());
            for item in 0..count {
                let steps: Vec<_> = keys.iter().map(|key| (*key).into()).chain([item.into()]).collect();
                let container =
                    object.at(&steps).and_then(|it| it.text_at(&["name"])).unwrap_or_default().to_owned();
                let own = (kind.clone(), name.clone(), namespace.clone(), container, is_init);
                if except.contains(&own) {
                    let path: Vec<_> = steps.into_iter().chain(["resources".into()]).collect();
                    object.remove(&path);
                }
            }
        }
        (key, object)
    };
    all.enumerate().map(of_one).collect()
}
