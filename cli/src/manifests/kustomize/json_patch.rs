//! JSON 6902 patches: which of their operations set values of containers.

use crate::{
    manifests::{
        Field, Layer, Location, Setting,
        objects::{LISTS, Object, ObjectContainer},
    },
    yaml::{Step, Value},
};

/// Adds the layers of the operations at a location. Returns what is not followed.
pub(super) fn apply(object: &mut Object, operations: &[Value], at: &Location) -> Vec<String> {
    let mut found = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        let (Some(op), Some(path)) = (operation.text_at(&["op"]), operation.text_at(&["path"])) else {
            continue;
        };
        let pointer: Vec<String> =
            path.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
        let Some(rest) = below_pod(&pointer, &object.pod) else { continue };
        let value = at.below([Step::from(number), Step::from("value")]);
        if !apply_one(object, op, rest, &value, operation.get("value").unwrap_or(&Value::Null)) {
            found.push(format!("the operation {op} {path} is not followed"));
        }
    }
    found
}

/// What follows the path to the pod; `None` if the pointer leads elsewhere. A pointer above the pod has nothing that is followed.
fn below_pod<'p>(pointer: &'p [String], pod: &[String]) -> Option<&'p [String]> {
    pointer.strip_prefix(pod)
}

/// Whether the operation is followed.
fn apply_one(object: &mut Object, op: &str, rest: &[String], at: &Location, value: &Value) -> bool {
    let Some((list, rest)) = rest.split_first() else { return false };
    let Some((_, is_init)) = LISTS.iter().find(|(it, _)| it == list) else { return true };
    let Some((index, rest)) = rest.split_first() else { return false };
    let own: Vec<usize> = object
        .containers
        .iter()
        .enumerate()
        .filter(|(_, container)| container.is_init == *is_init)
        .map(|(position, _)| position)
        .collect();
    if rest.is_empty() {
        let at_end = index == "-" || index.parse() == Ok(own.len());
        return match (op, value.text_at(&["name"])) {
            ("add", Some(name)) if at_end => {
                let layer = Layer::new(at.below(["resources"]), value.get("resources"), false);
                let layers = vec![layer];
                object.containers.push(ObjectContainer { name: name.to_owned(), is_init: *is_init, layers });
                true
            }
            _ => false,
        };
    }
    let position = index.parse::<usize>().ok().and_then(|index| own.get(index));
    let Some(container) = position.and_then(|position| object.containers.get_mut(*position)) else {
        return false;
    };
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    match (op, rest.as_slice()) {
        (_, [other, ..]) if *other != "resources" => *other != "name",
        ("add" | "replace", ["resources"]) => {
            // All of it is replaced: what lies below no longer counts.
            let layer = Layer::new(at.clone(), Some(value), false);
            container.layers = vec![layer];
            true
        }
        ("remove", ["resources"]) => {
            container.layers = vec![operation(Vec::new())];
            true
        }
        (_, ["resources", part]) => {
            let fields = Field::ALL.into_iter().filter(|field| field.keys()[0] == *part);
            let set = fields.map(|field| {
                let text = value.text_at(&[field.keys()[1]]).filter(|_| op != "remove");
                (
                    field,
                    at.below([field.keys()[1]]),
                    text.map_or(Setting::Null, |text| Setting::Set(text.to_owned())),
                )
            });
            container.layers.push(operation(set.collect()));
            matches!(op, "add" | "replace" | "remove")
        }
        (_, ["resources", part, name]) => {
            let field = Field::ALL.into_iter().find(|field| field.keys() == [*part, *name]);
            let setting = match value.text().filter(|_| op != "remove") {
                Some(text) => Setting::Set(text.to_owned()),
                None => Setting::Null,
            };
            container.layers.extend(field.map(|field| operation(vec![(field, at.clone(), setting)])));
            matches!(op, "add" | "replace" | "remove")
        }
        _ => false,
    }
}

/// The layer of an operation that sets some values. Others cannot be added to it.
fn operation(settings: Vec<(Field, Location, Setting)>) -> Layer {
    let is_present = !settings.is_empty();
    Layer { resources: None, settings, is_present, is_patch: false, is_shared: false }
}
