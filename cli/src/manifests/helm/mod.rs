//! Charts: which of their values become requests and limits of which containers, proved by rendering.

mod mapping;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    Layer, Location, Manifests, ReadOptions, Target, Unplaced,
    files::Files,
    objects::{Object, objects},
    release::{Release, ValuesLayer},
};
use crate::{
    columns::one_line,
    yaml::{self, Step, Value},
};

/// Why a chart cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelmError {
    #[error(
        "cannot run {program}: {source}; charts are rendered with helm: install it, or name it with --helm"
    )]
    Run { program: String, source: io::Error },
    #[error("helm cannot render it: {0}")]
    Render(String),
    #[error("cannot write values for helm: {0}")]
    Write(#[from] io::Error),
    #[error("what helm renders is not YAML: {0}")]
    Output(#[from] yaml::YamlError),
}

/// The program that renders charts.
#[derive(Clone, Debug)]
pub(super) struct Helm<'p> {
    pub program: &'p Path,
}

impl Helm<'_> {
    /// The documents of a chart with values, the last ones first in rank.
    fn template(&self, release: &Release, values: &[&str]) -> Result<Vec<Value>, HelmError> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(self.program);
        // A relative path without a dot may be taken for the name of a chart elsewhere.
        command.args(["template", &release.name]).arg(Path::new(".").join(&release.chart));
        if let Some(namespace) = &release.namespace {
            command.args(["--namespace", namespace]);
        }
        for (number, text) in values.iter().enumerate() {
            let path = folder.path().join(format!("{number}.yaml"));
            std::fs::write(&path, text)?;
            command.arg("--values").arg(path);
        }
        let program = || self.program.display().to_string();
        for (name, _, text) in &release.parameters {
            command.arg("--set").arg(format!("{name}={}", text.replace(',', "\\,")));
        }
        let output = command.output().map_err(|source| HelmError::Run { program: program(), source })?;
        if !output.status.success() {
            return Err(HelmError::Render(one_line(&String::from_utf8_lossy(&output.stderr))));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(yaml::parse(&text)?.iter().map(yaml::Document::value).collect::<Result<_, _>>()?)
    }
}

/// A container in what a chart renders.
type ContainerName = (String, String, Option<String>, String, bool);

/// The workloads in what a chart renders.
fn workloads(documents: &[Value]) -> Vec<Object> {
    let at = Location::new("", 0);
    let all = documents.iter().flat_map(|document| objects(document, &at));
    all.filter_map(|(object, _)| Object::new(object, &at)).collect()
}

/// Each container with its values.
fn containers(documents: &[Value]) -> Vec<(ContainerName, [Option<String>; 4])> {
    let of_object = |object: Object| {
        let Object { kind, name, namespace, containers, .. } = object;
        let of_one = move |container: super::objects::ObjectContainer| {
            let key = (kind.clone(), name.clone(), namespace.clone(), container.name, container.is_init);
            (key, Target::effective(&container.layers))
        };
        containers.into_iter().map(of_one).collect::<Vec<_>>()
    };
    workloads(documents).into_iter().flat_map(of_object).collect()
}

impl Manifests {
    /// Adds the workloads of charts: of releases, and of charts that no release is of.
    pub(super) fn charts(&mut self, releases: Vec<Release>, options: &ReadOptions) {
        let mut all = releases;
        let charts: Vec<PathBuf> = self.files.charts().cloned().collect();
        for chart in charts
            .iter()
            .filter(|chart| all.iter().all(|release| release.chart != **chart))
            .cloned()
            .collect::<Vec<_>>()
        {
            all.push(self.release_of(&chart, options));
        }
        let helm = Helm { program: &options.helm };
        for mut release in all {
            // Texts that are not written yet are rendered in a copy.
            let copy = copy_changed(&release.chart, &self.files);
            if let Some(copy) = &copy {
                release.chart = copy.path().to_owned();
            }
            match targets(&helm, &release, &self.files) {
                Ok((targets, unplaced)) => {
                    self.targets.extend(targets);
                    self.unplaced.extend(unplaced);
                }
                Err(error) => {
                    let (file, line) = (release.at.file.clone(), self.files.line(&release.at));
                    self.unplaced(file, line, error.to_string());
                }
            }
        }
    }

    /// The release of a chart that only the options are known of.
    fn release_of(&mut self, chart: &Path, options: &ReadOptions) -> Release {
        let file = chart.join("Chart.yaml");
        let value =
            self.files.load(&file).and_then(|file| Some(file.parsed.as_ref().ok()?.first()?.1.clone()));
        let of_chart =
            value.as_ref().and_then(|value| value.text_at(&["name"])).unwrap_or("release").to_owned();
        let name = options.release.clone().unwrap_or_else(|| of_chart.clone());
        let mut values = self.chart_values(chart, !options.values.is_empty());
        for (number, path) in options.values.iter().enumerate() {
            let path = super::files::clean(path);
            let Some(file) = self.files.load(&path) else {
                self.unplaced(path, 0, "this values file cannot be read");
                continue;
            };
            let text = file.text.clone();
            let value = self.files.value(&path, 0).cloned().unwrap_or(Value::Map(Vec::new()));
            let is_shared = number + 1 < options.values.len();
            values.push(ValuesLayer { at: Location::new(path, 0), value, text, is_shared });
        }
        Release {
            title: format!("chart {of_chart}"),
            at: Location::new(file, 0),
            name,
            namespace: options.namespace.clone(),
            chart: chart.to_owned(),
            values,
            parameters: Vec::new(),
        }
    }

    /// The values that a chart brings, its own above those of the charts in it.
    pub(super) fn chart_values(&mut self, chart: &Path, is_shared: bool) -> Vec<ValuesLayer> {
        let mut values = Vec::new();
        let below = std::fs::read_dir(chart.join("charts")).into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> =
            below.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        folders.sort();
        for folder in folders {
            let Some(name) = folder.file_name().map(|name| name.to_string_lossy().into_owned()) else {
                continue;
            };
            let path = folder.join("values.yaml");
            let Some(own) =
                self.files.load(&path).and_then(|file| Some(file.parsed.as_ref().ok()?.first()?.1.clone()))
            else {
                continue;
            };
            // Below its name, as the chart above sees it; a location that is never written.
            let value = Value::Map(vec![(name, own)]);
            values.push(ValuesLayer {
                at: Location::new(path, usize::MAX),
                value,
                text: String::new(),
                is_shared: true,
            });
        }
        let path = chart.join("values.yaml");
        let own = self.files.load(&path).and_then(|file| Some(file.parsed.as_ref().ok()?.first()?.1.clone()));
        let value = own.unwrap_or(Value::Map(Vec::new()));
        values.push(ValuesLayer { at: Location::new(path, 0), value, text: String::new(), is_shared });
        values
    }
}

/// A copy of a chart with the texts that are not written yet, if there are any.
fn copy_changed(chart: &Path, files: &Files) -> Option<tempfile::TempDir> {
    let changed: Vec<(&Path, &str)> =
        files.all_changed().filter(|(path, _)| path.starts_with(chart)).collect();
    if changed.is_empty() {
        return None;
    }
    let copy = tempfile::tempdir().ok()?;
    copy_all(chart, copy.path()).ok()?;
    for (path, text) in changed {
        std::fs::write(copy.path().join(path.strip_prefix(chart).ok()?), text).ok()?;
    }
    Some(copy)
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    let from = if from.as_os_str().is_empty() { Path::new(".") } else { from };
    for entry in std::fs::read_dir(from)? {
        let (entry, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if entry.is_dir() {
            std::fs::create_dir_all(&to)?;
            copy_all(&entry, &to)?;
        } else if entry.is_file() && !to.exists() {
            std::fs::copy(entry, to)?;
        }
    }
    Ok(())
}

/// The containers of a release with the values that set theirs, and those that no value sets.
fn targets(
    helm: &Helm<'_>,
    release: &Release,
    files: &Files,
) -> Result<(Vec<Target>, Vec<Unplaced>), HelmError> {
    let found = mapping::find(helm, release)?;
    let line = files.line(&release.at);
    let unplaced = |why: String| Unplaced { file: release.at.file.clone(), line, why };
    let mut not_placed: Vec<Unplaced> = found.elsewhere.iter().map(|why| unplaced(why.clone())).collect();
    let mut targets = Vec::new();
    for (key, current) in found.current {
        let (kind, workload, namespace, container, is_init) = key.clone();
        let Some(path) = found.paths.get(&key) else {
            let why = format!(
                "{kind} {workload}: no value of the chart sets the resources of the container {container}"
            );
            not_placed.push(unplaced(why));
            continue;
        };
        let steps: Vec<Step> = path.iter().map(|key| Step::Key(key.clone())).collect();
        let mut layers: Vec<Layer> = Vec::new();
        for values in &release.values {
            let value = values.value.at(&steps);
            let is_patch = layers.iter().any(|layer| layer.is_present);
            let mut layer = Layer::new(values.at.below(steps.clone()), value, is_patch);
            layer.is_shared = values.is_shared;
            layers.push(layer);
        }
        layers.extend(release.parameters(&steps));
        targets.push(Target {
            root: release.title.clone(),
            kind,
            namespace: namespace.or_else(|| release.namespace.clone()),
            workload,
            container,
            is_init,
            layers,
            current,
            new_patch: None,
        });
    }
    Ok((targets, not_placed))
}

/// The paths at which two values differ.
fn differences(one: &Value, other: &Value, path: &str, found: &mut BTreeSet<String>) {
    match (one, other) {
        (Value::Map(one), Value::Map(other)) => {
            let keys: BTreeSet<&String> = one.iter().chain(other).map(|(key, _)| key).collect();
            let of = |map: &[(String, Value)], key: &str| {
                map.iter().find(|(it, _)| it == key).map(|(_, it)| it.clone())
            };
            for key in keys {
                let both = (of(one, key).unwrap_or(Value::Null), of(other, key).unwrap_or(Value::Null));
                differences(&both.0, &both.1, &format!("{path}.{key}"), found);
            }
        }
        (Value::List(one), Value::List(other)) if one.len() == other.len() => {
            for (number, (one, other)) in one.iter().zip(other).enumerate() {
                differences(one, other, &format!("{path}[{number}]"), found);
            }
        }
        _ if one == other => {}
        _ => {
            found.insert(path.to_owned());
        }
    }
}
