//! Where recommended values are written, and the texts of the files with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use clap::ValueEnum;

use crate::{
    manifests::{Field, Files, Layer, Location, Manifests, NewPatch, Setting, Target},
    yaml::{
        New, Step, Value,
        edit::{self, Change, Edit},
    },
};

/// What to do where several overlays share a value and need different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Overlays {
    /// A patch in each overlay
    Patch,
    /// The largest one, in the base
    Largest,
}

/// What becomes of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NewValue {
    Set(String),
    Remove,
}

/// The wanted values of a container that differ from its current ones.
pub(super) type NewValues = BTreeMap<Field, NewValue>;

/// What is changed.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The values that containers get, by the number of the target.
    pub changes: BTreeMap<usize, NewValues>,
    /// The new texts of files.
    pub texts: BTreeMap<PathBuf, String>,
    /// The files that each target is changed in.
    pub places: BTreeMap<usize, BTreeSet<PathBuf>>,
    /// Targets that cannot be changed, with the reasons.
    pub failed: BTreeMap<usize, String>,
    /// Remarks on single targets.
    pub remarks: BTreeMap<usize, String>,
}

/// Edits of files with the targets that they are for.
type Edits = BTreeMap<PathBuf, Vec<(usize, Edit)>>;

/// Where a value is written.
enum Spot {
    At { layer: usize, location: Location },
    NewPatch(NewPatch),
}

/// Plans all changes. Targets whose changes are not possible are left as they are, completely.
pub(super) fn plan(manifests: &Manifests, wanted: &BTreeMap<usize, NewValues>, overlays: Overlays) -> Plan {
    let mut failed: BTreeMap<usize, String> = BTreeMap::new();
    loop {
        let mut planner = Planner {
            manifests,
            wanted,
            overlays,
            failed: &failed,
            plan: Plan::default(),
            edits: Edits::new(),
        };
        planner.place_all();
        let Planner { mut plan, mut edits, .. } = planner;
        let before = failed.len();
        failed.append(&mut plan.failed);
        for (file, own) in &mut edits {
            // A mapping that gets a value does not become empty.
            own.sort_by_key(|(_, edit)| edit.change == Change::Remove);
            let text = manifests.files.get(file).map(|file| file.text.as_str()).unwrap_or_default();
            let all: Vec<Edit> = own.iter().map(|(_, edit)| edit.clone()).collect();
            match edit::apply(text, &all) {
                Ok(new) if new != text => drop(plan.texts.insert(file.clone(), new)),
                Ok(_) => {}
                Err(_) => failed.extend(culprits(text, own.as_slice())),
            }
        }
        if failed.len() == before {
            failed.extend(unproved(manifests, &plan));
        }
        if failed.len() == before {
            plan.failed = failed;
            return plan;
        }
    }
}

/// The targets whose edits alone are not possible; all, if each is.
fn culprits(text: &str, edits: &[(usize, Edit)]) -> Vec<(usize, String)> {
    let targets: BTreeSet<usize> = edits.iter().map(|(target, _)| *target).collect();
    let of = |target: usize| edits.iter().filter(move |(it, _)| *it == target).map(|(_, edit)| edit.clone());
    let errors = targets.iter().filter_map(|target| {
        let error = edit::apply(text, &of(*target).collect::<Vec<_>>()).err()?;
        Some((*target, error.to_string()))
    });
    let errors: Vec<_> = errors.collect();
    if !errors.is_empty() {
        return errors;
    }
    let all: Vec<Edit> = edits.iter().map(|(_, edit)| edit.clone()).collect();
    let why = edit::apply(text, &all).err().map(|error| error.to_string()).unwrap_or_default();
    targets.into_iter().map(|target| (target, why.clone())).collect()
}

/// The targets that would not have their values with the new texts, or that would change without being changed.
fn unproved(manifests: &Manifests, plan: &Plan) -> Vec<(usize, String)> {
    if plan.texts.is_empty() {
        return Vec::new();
    }
    let Ok(after) = manifests.with_texts(plan.texts.clone()) else { return Vec::new() };
    let key = |target: &Target| {
        let Target { root, kind, namespace, workload, container, is_init, .. } = target;
        (root.clone(), kind.clone(), namespace.clone(), workload.clone(), container.clone(), *is_init)
    };
    let all: BTreeMap<_, &Target> = after.targets.iter().map(|target| (key(target), target)).collect();
    let mut failed = Vec::new();
    for (number, target) in manifests.targets.iter().enumerate() {
        let now = all.get(&key(target));
        let is_expected = now.is_some_and(|now| {
            Field::ALL.into_iter().all(|field| {
                let wanted = plan.changes.get(&number).and_then(|values| values.get(&field));
                let expected = match wanted {
                    Some(NewValue::Set(text)) => Some(text.as_str()),
                    Some(NewValue::Remove) => None,
                    None => target.text(field),
                };
                is_equal(field, now.text(field), expected)
            })
        });
        if !is_expected {
            // Whoever changes a file of it is not changed.
            let files: BTreeSet<&PathBuf> =
                target.layers.iter().flat_map(|layer| &layer.resources).map(|at| &at.file).collect();
            let others =
                plan.places.iter().filter(|(_, places)| places.iter().any(|place| files.contains(place)));
            let why = "what is rendered would not have these values, or others would change with it";
            failed.extend(others.map(|(number, _)| (*number, why.to_owned())));
            failed.extend(plan.changes.contains_key(&number).then(|| (number, why.to_owned())));
        }
    }
    failed
}

/// Whether two texts are the same amount.
pub(super) fn is_equal(field: Field, one: Option<&str>, other: Option<&str>) -> bool {
    let amount = |text: &str| field.amount(text);
    one == other
        || one.zip(other).is_some_and(|(one, other)| amount(one).is_some() && amount(one) == amount(other))
}

struct Planner<'m> {
    manifests: &'m Manifests,
    wanted: &'m BTreeMap<usize, NewValues>,
    overlays: Overlays,
    failed: &'m BTreeMap<usize, String>,
    plan: Plan,
    edits: Edits,
}

impl Planner<'_> {
    fn place_all(&mut self) {
        // New patches: of each kustomization and workload, values by container.
        let mut patches: BTreeMap<NewPatch, Vec<(usize, Field, NewValue)>> = BTreeMap::new();
        for field in Field::ALL {
            for (number, values) in self.wanted {
                let Some(wanted) = values.get(&field).filter(|_| !self.failed.contains_key(number)) else {
                    continue;
                };
                match self.place(*number, field, wanted) {
                    Ok((Spot::At { layer, location }, wanted)) => {
                        self.write(*number, field, layer, &location, &wanted);
                    }
                    Ok((Spot::NewPatch(patch), wanted)) => {
                        self.record(*number, field, &wanted, &patch.kustomization.file);
                        patches.entry(patch).or_default().push((*number, field, wanted));
                    }
                    Err(why) => drop(self.plan.failed.insert(*number, why)),
                }
            }
        }
        self.add_patches(patches);
    }

    fn target(&self, number: usize) -> Option<&Target> {
        self.manifests.targets.get(number)
    }

    /// Where a value is written, and which: a larger one, if others share it.
    fn place(&mut self, number: usize, field: Field, wanted: &NewValue) -> Result<(Spot, NewValue), String> {
        let target = self.manifests.targets.get(number).ok_or("there is no such container")?;
        let Some((layer, location)) = self.natural(target, field) else {
            return match target.new_patch.clone() {
                Some(patch) => Ok((Spot::NewPatch(patch), wanted.clone())),
                None => Err("the files that set its values are not among those given with -f".to_owned()),
            };
        };
        let affected = self.affected(&location, field);
        let outcomes: Vec<Option<String>> =
            affected.iter().filter_map(|other| self.outcome(*other, field)).collect();
        let own = self.outcome(number, field).ok_or("there is no such container")?;
        let is_shared_value = outcomes.iter().any(|other| !is_equal(field, other.as_deref(), own.as_deref()));
        if !is_shared_value {
            return Ok((Spot::At { layer, location }, wanted.clone()));
        }
        if self.overlays == Overlays::Patch {
            if let Some((layer, location)) = self.private(target, number, field) {
                return Ok((Spot::At { layer, location }, wanted.clone()));
            }
            if let Some(patch) = target.new_patch.clone() {
                return Ok((Spot::NewPatch(patch), wanted.clone()));
            }
        }
        let largest = largest(field, &outcomes);
        let titles: Vec<String> = affected
            .iter()
            .filter(|it| **it != number)
            .filter_map(|it| Some(self.target(*it)?.title()))
            .collect();
        let what = largest.as_deref().unwrap_or("none");
        let remark = format!(
            "{} is {what}, the largest of those that share it, with {}",
            field.name(),
            titles.join(", ")
        );
        self.plan.remarks.insert(number, remark);
        Ok((Spot::At { layer, location }, largest.map_or(NewValue::Remove, NewValue::Set)))
    }

    /// What a target shall have: the wanted value, or its current one.
    fn outcome(&self, number: usize, field: Field) -> Option<Option<String>> {
        let wanted = self.wanted.get(&number).filter(|_| !self.failed.contains_key(&number));
        Some(match wanted.and_then(|values| values.get(&field)) {
            Some(NewValue::Set(text)) => Some(text.clone()),
            Some(NewValue::Remove) => None,
            None => self.target(number)?.text(field).map(str::to_owned),
        })
    }

    fn is_editable(&self, location: &Location) -> bool {
        location.document != usize::MAX && self.manifests.files.is_own(&location.file)
    }

    /// Where a layer has a value, or would have it.
    fn location(layer: &Layer, field: Field) -> Option<Location> {
        let set = layer.setting(field).map(|(location, _)| location.clone());
        set.or_else(|| Some(layer.resources.as_ref()?.below(field.steps())))
    }

    /// The layer that decides, if it is not shared; else the highest one that can.
    fn natural(&self, target: &Target, field: Field) -> Option<(usize, Location)> {
        let decided = Target::decided(&target.layers, field);
        if let Some((at, location, _)) = decided
            && self.is_editable(location)
            && target.layers.get(at).is_some_and(|layer| !layer.is_shared)
        {
            return Some((at, location.clone()));
        }
        let lowest = decided.map_or(0, |(at, ..)| at);
        let all = || {
            let layers = target.layers.iter().enumerate().rev();
            layers.filter(move |(at, layer)| *at >= lowest && layer.resources.is_some()).filter_map(
                |(at, layer)| {
                    let location =
                        Self::location(layer, field).filter(|location| self.is_editable(location))?;
                    Some((at, layer, location))
                },
            )
        };
        let own = all().find(|(_, layer, _)| layer.is_present && !layer.is_shared);
        let found = own.or_else(|| all().find(|(_, layer, _)| !layer.is_shared)).or_else(|| all().next());
        found.map(|(at, _, location)| (at, location))
    }

    /// A layer at or above the one that decides that no other target has.
    fn private(&self, target: &Target, number: usize, field: Field) -> Option<(usize, Location)> {
        let lowest = Target::decided(&target.layers, field).map_or(0, |(at, ..)| at);
        let layers = target.layers.iter().enumerate().rev().filter(|(at, _)| *at >= lowest);
        let mut own = layers.filter_map(|(at, layer)| {
            let location = Self::location(layer, field).filter(|it| self.is_editable(it))?;
            (self.affected(&location, field) == [number]).then_some((at, location))
        });
        own.next()
    }

    /// The targets that a value at a location is for, unless a layer above sets another one.
    fn affected(&self, location: &Location, field: Field) -> Vec<usize> {
        let is_affected = |target: &Target| {
            for layer in target.layers.iter().rev() {
                if Self::location(layer, field).as_ref() == Some(location) {
                    return true;
                }
                if layer.setting(field).is_some() {
                    return false;
                }
            }
            false
        };
        let all = self.manifests.targets.iter().enumerate();
        all.filter(|(_, target)| is_affected(target)).map(|(number, _)| number).collect()
    }

    fn record(&mut self, number: usize, field: Field, wanted: &NewValue, file: &Path) {
        self.plan.changes.entry(number).or_default().insert(field, wanted.clone());
        self.plan.places.entry(number).or_default().insert(file.to_owned());
    }

    fn write(&mut self, number: usize, field: Field, layer: usize, location: &Location, wanted: &NewValue) {
        let Some(target) = self.manifests.targets.get(number) else { return };
        // All that share the value get it.
        for other in self.affected(location, field) {
            let is_new = self.target(other).is_some_and(|other| {
                let text = if let NewValue::Set(text) = wanted { Some(text.as_str()) } else { None };
                !is_equal(field, other.text(field), text)
            });
            if is_new {
                self.record(other, field, wanted, &location.file);
            }
        }
        let below = target.layers.get(..layer).unwrap_or_default();
        let is_set_below = matches!(Target::decided(below, field), Some((_, _, Setting::Set(_))));
        let own = target.layers.get(layer);
        let change = match wanted {
            NewValue::Set(text) => Change::Set(New::Text(text.clone())),
            NewValue::Remove if is_set_below => Change::Set(New::Null),
            NewValue::Remove if own.is_some_and(|own| own.resources.is_none()) => {
                let why = "the CPU limit comes from a JSON 6902 patch or a parameter: remove it there";
                self.plan.failed.insert(number, why.to_owned());
                return;
            }
            NewValue::Remove => Change::Remove,
        };
        let mut path = location.path.clone();
        if change == Change::Remove {
            // Without an empty mapping left behind.
            let limits = Location {
                path: path.split_last().map(|(_, way)| way.to_vec()).unwrap_or_default(),
                ..location.clone()
            };
            let is_only = self.manifests.files.lookup(&limits).is_some_and(|it| it.entries().len() == 1);
            let gets_other = self.wanted.get(&number).is_some_and(|it| it.contains_key(&Field::MemoryLimit));
            if is_only && !gets_other {
                path = limits.path;
            }
        }
        let edit = Edit { document: location.document, path, change };
        let all = self.edits.entry(location.file.clone()).or_default();
        if all.iter().all(|(_, known)| *known != edit) {
            all.push((number, edit));
        }
    }

    /// Adds the patches that kustomizations do not have yet.
    fn add_patches(&mut self, patches: BTreeMap<NewPatch, Vec<(usize, Field, NewValue)>>) {
        let mut added: BTreeMap<Location, usize> = BTreeMap::new();
        for (patch, values) in patches {
            let Some(number) = values.first().map(|(number, ..)| *number) else { continue };
            let mut spec = Value::Map(Vec::new());
            let (targets, values) = (&self.manifests.targets, &values);
            let of_list = |is_init: bool| {
                values.iter().filter_map(move |(number, field, wanted)| {
                    let target = targets.get(*number)?;
                    (target.is_init == is_init).then_some((&target.container, *field, wanted))
                })
            };
            for (name, is_init) in
                patch.containers.iter().filter(|(_, is_init)| of_list(*is_init).next().is_some())
            {
                let list = Step::from(if *is_init { "initContainers" } else { "containers" });
                let at =
                    Step::Index(spec.at(std::slice::from_ref(&list)).map_or(0, |items| items.items().len()));
                spec.set(&[list.clone(), at.clone(), "name".into()], Value::Text(name.clone()));
                for (_, field, wanted) in of_list(*is_init).filter(|(container, ..)| *container == name) {
                    let value = match wanted {
                        NewValue::Set(text) => Value::Text(text.clone()),
                        NewValue::Remove => Value::Null,
                    };
                    let [part, name] = field.steps();
                    spec.set(&[list.clone(), at.clone(), "resources".into(), part, name], value);
                }
            }
            let text = |text: &str| New::Text(text.to_owned());
            let object = New::Map(vec![
                ("apiVersion".to_owned(), text(&patch.api_version)),
                ("kind".to_owned(), text(&patch.kind)),
                ("metadata".to_owned(), New::entry("name", text(&patch.name))),
                (
                    patch.pod.first().cloned().unwrap_or_default(),
                    below(patch.pod.get(1..).unwrap_or_default(), spec.into()),
                ),
            ]);
            let item = New::Map(vec![
                ("patch".to_owned(), New::Literal(object.document())),
                (
                    "target".to_owned(),
                    New::Map(vec![
                        ("kind".to_owned(), text(&patch.kind)),
                        ("name".to_owned(), text(&patch.name)),
                    ]),
                ),
            ]);
            let count = added.entry(patch.kustomization.clone()).or_insert(patch.count);
            let path = patch.kustomization.below(["patches"]).below([*count]).path;
            *count += 1;
            let edit = Edit { document: patch.kustomization.document, path, change: Change::Set(item) };
            self.edits.entry(patch.kustomization.file.clone()).or_default().push((number, edit));
        }
    }
}

/// Content below several keys.
fn below(keys: &[String], content: New) -> New {
    keys.iter().rev().fold(content, |content, key| New::entry(key, content))
}

/// The largest of some values; a missing limit is larger than all, a missing request smaller.
fn largest(field: Field, values: &[Option<String>]) -> Option<String> {
    let is_limit = matches!(field, Field::CpuLimit | Field::MemoryLimit);
    if is_limit && values.iter().any(Option::is_none) {
        return None;
    }
    values.iter().flatten().max_by_key(|text| field.amount(text)).cloned()
}

impl Plan {
    /// Files of the manifests with their old and new texts.
    pub(super) fn files<'p>(
        &'p self,
        files: &'p Files,
    ) -> impl Iterator<Item = (&'p PathBuf, &'p str, &'p str)> {
        self.texts.iter().filter_map(|(path, new)| Some((path, files.get(path)?.text.as_str(), new.as_str())))
    }
}
