//! Workloads in files: plain manifests, kustomizations, charts and what deploys them; and where each value of them is set.

mod encrypted;
mod files;
mod helm;
mod kustomize;
mod objects;
mod release;
mod releases;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use snug_sizing::{
    quantity::{self, Quantity},
    workload::Resources,
};

pub use self::files::{FileError, Files, STANDARD_INPUT};
use crate::yaml::{Step, Value};

/// One of the four values of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    CpuRequest,
    CpuLimit,
    MemoryRequest,
    MemoryLimit,
}

impl Field {
    pub const ALL: [Self; 4] = [Self::CpuRequest, Self::CpuLimit, Self::MemoryRequest, Self::MemoryLimit];

    /// Its keys below `resources`.
    pub const fn keys(self) -> [&'static str; 2] {
        match self {
            Self::CpuRequest => ["requests", "cpu"],
            Self::CpuLimit => ["limits", "cpu"],
            Self::MemoryRequest => ["requests", "memory"],
            Self::MemoryLimit => ["limits", "memory"],
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::CpuRequest => "CPU request",
            Self::CpuLimit => "CPU limit",
            Self::MemoryRequest => "memory request",
            Self::MemoryLimit => "memory limit",
        }
    }

    /// Millicores or bytes.
    pub const fn of(self, resources: &Resources) -> Option<u64> {
        match self {
            Self::CpuRequest => resources.cpu_request,
            Self::CpuLimit => resources.cpu_limit,
            Self::MemoryRequest => resources.memory_request,
            Self::MemoryLimit => resources.memory_limit,
        }
    }

    /// As [`Self::of`], to change it.
    pub const fn of_mut(self, resources: &mut Resources) -> &mut Option<u64> {
        match self {
            Self::CpuRequest => &mut resources.cpu_request,
            Self::CpuLimit => &mut resources.cpu_limit,
            Self::MemoryRequest => &mut resources.memory_request,
            Self::MemoryLimit => &mut resources.memory_limit,
        }
    }

    /// Millicores or bytes of a quantity; `None` if it is none.
    pub fn amount(self, text: &str) -> Option<u64> {
        match self {
            Self::CpuRequest | Self::CpuLimit => quantity::millicores(text),
            Self::MemoryRequest | Self::MemoryLimit => quantity::bytes(text),
        }
    }

    /// As Kubernetes writes it.
    pub fn quantity(self, amount: u64) -> String {
        match self {
            Self::CpuRequest | Self::CpuLimit => Quantity::from_millicores(amount).to_string(),
            Self::MemoryRequest | Self::MemoryLimit => Quantity::from_bytes(amount).to_string(),
        }
    }

    /// The path below `resources`.
    pub fn steps(self) -> [Step; 2] {
        self.keys().map(Step::from)
    }
}

/// A node of a document of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    pub file: PathBuf,
    pub document: usize,
    pub path: Vec<Step>,
}

impl Location {
    pub fn new(file: impl Into<PathBuf>, document: usize) -> Self {
        Self { file: file.into(), document, path: Vec::new() }
    }

    /// A node below it.
    #[must_use]
    pub fn below(&self, steps: impl IntoIterator<Item = impl Into<Step>>) -> Self {
        let mut path = self.path.clone();
        path.extend(steps.into_iter().map(Into::into));
        Self { path, ..self.clone() }
    }
}

/// What a layer does with one of the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    Set(String),
    /// It removes what the layers below set.
    Null,
}

/// A text that sets values of a container; later layers override earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Where `resources` is, or would be; `None` where values cannot be added.
    pub resources: Option<Location>,
    /// The values that it sets, with their locations.
    pub settings: Vec<(Field, Location, Setting)>,
    /// Whether the mapping `resources` is there.
    pub is_present: bool,
    /// Whether `null` removes what the layers below set. In a whole object, the key is removed.
    pub is_patch: bool,
    /// What a layer above can set is set there: others use this one, too.
    pub is_shared: bool,
}

impl Layer {
    /// From the mapping `resources` at a location.
    pub fn new(resources: Location, value: Option<&Value>, is_patch: bool) -> Self {
        let mut settings = Vec::new();
        for field in Field::ALL {
            let Some(set) = value.and_then(|value| value.below(&field.keys())) else { continue };
            let setting = match set {
                Value::Text(text) => Setting::Set(text.clone()),
                Value::Null if is_patch => Setting::Null,
                _ => continue,
            };
            settings.push((field, resources.below(field.steps()), setting));
        }
        let is_present = value.is_some_and(|value| !value.is_null());
        Self { resources: Some(resources), settings, is_present, is_patch, is_shared: false }
    }

    pub fn setting(&self, field: Field) -> Option<(&Location, &Setting)> {
        let (_, location, setting) = self.settings.iter().find(|(it, ..)| *it == field)?;
        Some((location, setting))
    }
}

/// A kustomization that a patch can be added to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewPatch {
    /// The document of the kustomization.
    pub kustomization: Location,
    /// Patches that it has.
    pub count: usize,
    pub api_version: String,
    pub kind: String,
    /// The name of the object where the patch would meet it.
    pub name: String,
    /// From the object to the pod.
    pub pod: Vec<String>,
    /// The names of its containers in their order, and whether they are init containers: a patch moves those that it has to the
    /// front.
    pub containers: Vec<(String, bool)>,
}

/// A container of a workload, as it is deployed.
#[derive(Clone, Debug)]
pub struct Target {
    /// What deploys it: a kustomization or a release of a chart; empty for a plain manifest.
    pub root: String,
    pub kind: String,
    /// `None` if no file says it.
    pub namespace: Option<String>,
    pub workload: String,
    pub container: String,
    pub is_init: bool,
    /// What sets its values, the lowest first.
    pub layers: Vec<Layer>,
    /// Its values as they are deployed.
    pub current: [Option<String>; 4],
    pub new_patch: Option<NewPatch>,
}

impl Target {
    /// Its values as they are deployed; those that are no quantities are left out.
    pub fn resources(&self) -> Resources {
        let mut resources = Resources::default();
        for (field, text) in Field::ALL.into_iter().zip(&self.current) {
            *field.of_mut(&mut resources) = text.as_deref().and_then(|text| field.amount(text));
        }
        resources
    }

    /// One of its values as it is written.
    pub fn text(&self, field: Field) -> Option<&str> {
        let at = Field::ALL.iter().position(|it| *it == field)?;
        self.current.get(at)?.as_deref()
    }

    /// `namespace/workload container`.
    pub fn title(&self) -> String {
        let namespace = self.namespace.as_deref().map(|it| format!("{it}/")).unwrap_or_default();
        format!("{namespace}{} {}", self.workload, self.container)
    }

    /// What the layers make of a value: the one that decides, and what it says.
    pub fn decided(layers: &[Layer], field: Field) -> Option<(usize, &Location, &Setting)> {
        let all = layers.iter().enumerate().rev();
        all.filter_map(|(at, layer)| layer.setting(field).map(|(location, it)| (at, location, it))).next()
    }

    /// The values that the layers make.
    pub fn effective(layers: &[Layer]) -> [Option<String>; 4] {
        Field::ALL.map(|field| match Self::decided(layers, field)? {
            (_, _, Setting::Set(text)) => Some(text.clone()),
            (_, _, Setting::Null) => None,
        })
    }
}

/// Something in the files that no value can be placed in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unplaced {
    pub file: PathBuf,
    /// From 1; 0 for the whole file.
    pub line: usize,
    pub why: String,
}

/// What the options say about the files.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// Values files of charts, in the order of `helm --values`.
    pub values: Vec<PathBuf>,
    /// Name of the release of charts without a HelmRelease or an Application.
    pub release: Option<String>,
    /// Namespace of what has none.
    pub namespace: Option<String>,
    /// Folders of charts by the names that releases use.
    pub charts: Vec<(String, PathBuf)>,
    pub helm: PathBuf,
}

/// The workloads of files.
#[derive(Debug, Default)]
pub struct Manifests {
    pub files: Files,
    paths: Vec<PathBuf>,
    options: ReadOptions,
    pub targets: Vec<Target>,
    pub unplaced: BTreeSet<Unplaced>,
}

impl Manifests {
    /// Reads files and folders; `-` is standard input.
    ///
    /// # Errors
    /// When a given path cannot be read.
    pub fn read(paths: &[PathBuf], options: &ReadOptions) -> Result<Self, FileError> {
        Self::read_changed(paths, options, BTreeMap::new())
    }

    /// The workloads if some files had other texts. Charts are rendered with them.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn with_texts(&self, texts: BTreeMap<PathBuf, String>) -> Result<Self, FileError> {
        Self::read_changed(&self.paths, &self.options, texts)
    }

    fn read_changed(
        paths: &[PathBuf],
        options: &ReadOptions,
        texts: BTreeMap<PathBuf, String>,
    ) -> Result<Self, FileError> {
        let mut files = Files::with_changed(texts);
        for path in paths {
            files.add(path)?;
        }
        let mut all = Self { files, paths: paths.to_vec(), options: options.clone(), ..Self::default() };
        all.encrypted();
        let used = all.kustomizations();
        let releases = all.releases(&used);
        all.charts(releases, options);
        all.plain(&used);
        if let Some(namespace) = &options.namespace {
            for target in &mut all.targets {
                target.namespace.get_or_insert_with(|| namespace.clone());
            }
        }
        Ok(all)
    }

    fn unplaced(&mut self, file: impl Into<PathBuf>, line: usize, why: impl Into<String>) {
        self.unplaced.insert(Unplaced { file: file.into(), line, why: why.into() });
    }

    /// Objects in files that no kustomization and no chart uses.
    fn plain(&mut self, used: &BTreeSet<PathBuf>) {
        let paths: Vec<PathBuf> =
            self.files.manifests().filter(|path| !used.contains(*path)).cloned().collect();
        for path in paths {
            let (found, unplaced) = objects::in_file(&self.files, &path);
            self.unplaced.extend(unplaced);
            for object in found {
                self.targets.extend(object.targets(""));
            }
        }
    }
}
