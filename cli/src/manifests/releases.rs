//! Releases of charts: HelmReleases of Flux and Applications of Argo CD, with the values in them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    Location, Manifests, ReadOptions,
    files::clean,
    objects::objects,
    release::{Release, ValuesLayer},
};
use crate::yaml::{self, Step, Value};

/// A release as its object describes it.
struct Described {
    name: String,
    namespace: Option<String>,
    /// A folder or the name of a chart.
    chart: String,
    /// Values files within the chart.
    files: Vec<String>,
    /// Keys below the object to inline values, and whether those are a text.
    inline: Option<(Vec<Step>, bool)>,
    parameters: Vec<Step>,
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value.map(Value::items).unwrap_or_default().iter().filter_map(|it| it.text().map(str::to_owned)).collect()
}

fn steps(keys: &[&str]) -> Vec<Step> {
    keys.iter().map(|key| Step::from(*key)).collect()
}

/// What a HelmRelease of Flux describes.
fn flux(object: &Value) -> Option<Described> {
    let text = |keys: &[&str]| object.text_at(keys).map(str::to_owned);
    let name = text(&["metadata", "name"])?;
    let target = text(&["spec", "targetNamespace"]);
    // As Flux names releases.
    let default = target.as_ref().map_or_else(|| name.clone(), |target| format!("{target}-{name}"));
    Some(Described {
        name: text(&["spec", "releaseName"]).unwrap_or(default),
        namespace: target.or_else(|| text(&["metadata", "namespace"])),
        chart: text(&["spec", "chart", "spec", "chart"]).or_else(|| text(&["spec", "chartRef", "name"]))?,
        files: texts(object.below(&["spec", "chart", "spec", "valuesFiles"])),
        inline: Some((steps(&["spec", "values"]), false)),
        parameters: Vec::new(),
    })
}

/// What an Application of Argo CD describes: a release for each source that is a chart.
fn argo(object: &Value) -> Vec<Described> {
    let text = |keys: &[&str]| object.text_at(keys).map(str::to_owned);
    let Some(name) = text(&["metadata", "name"]) else { return Vec::new() };
    let one = object.below(&["spec", "source"]).map(|source| (steps(&["spec", "source"]), source));
    let several = object.below(&["spec", "sources"]).map(Value::items).unwrap_or_default().iter().enumerate();
    let several = several
        .map(|(number, source)| ([steps(&["spec", "sources"]), vec![Step::from(number)]].concat(), source));
    let of_source = |(path, source): (Vec<Step>, &Value)| {
        let helm = source.get("helm").cloned().unwrap_or(Value::Null);
        let below = |key: &str| [path.clone(), steps(&["helm", key])].concat();
        let inline = match (helm.get("valuesObject"), helm.text_at(&["values"])) {
            (Some(_), _) => (below("valuesObject"), false),
            (None, Some(_)) => (below("values"), true),
            (None, None) => (below("valuesObject"), false),
        };
        Some(Described {
            name: helm.text_at(&["releaseName"]).map_or_else(|| name.clone(), str::to_owned),
            namespace: text(&["spec", "destination", "namespace"]),
            chart: source.text_at(&["chart"]).or_else(|| source.text_at(&["path"]))?.to_owned(),
            files: texts(helm.get("valueFiles")),
            inline: Some(inline),
            parameters: below("parameters"),
        })
    };
    one.into_iter().chain(several).filter_map(of_source).collect()
}

impl Manifests {
    /// The releases in all files.
    pub(super) fn releases(&mut self, used: &BTreeSet<PathBuf>) -> Vec<Release> {
        let options = self.options.clone();
        let own = self.files.manifests().cloned();
        let paths: BTreeSet<PathBuf> =
            own.chain(used.iter().filter(|path| self.files.is_own(path)).cloned()).collect();
        let mut found = Vec::new();
        for path in paths {
            let mut number = 0;
            while let Some(value) = self.files.value(&path, number).cloned() {
                for (object, at) in objects(&value, &Location::new(&path, number)) {
                    let group = object.text_at(&["apiVersion"]).unwrap_or_default();
                    let described = match object.text_at(&["kind"]) {
                        Some("HelmRelease") if group.starts_with("helm.toolkit.fluxcd.io/") => {
                            flux(object).into_iter().collect()
                        }
                        Some("Application") if group.starts_with("argoproj.io/") => argo(object),
                        _ => Vec::new(),
                    };
                    for one in described {
                        found.extend(self.release(object, &at, one, &options));
                    }
                }
                number += 1;
            }
        }
        found
    }

    fn release(
        &mut self,
        object: &Value,
        at: &Location,
        described: Described,
        options: &ReadOptions,
    ) -> Option<Release> {
        let kind = object.text_at(&["kind"]).unwrap_or_default();
        let name = object.text_at(&["metadata", "name"]).unwrap_or_default();
        let title = format!("{kind} {name}");
        let line = self.files.line(at);
        let Some(chart) = self.chart(&described.chart, options) else {
            // A folder of an Application may be anything; a chart that is not here matters only with values for it.
            let is_chart = kind == "HelmRelease" || object.below(&["spec", "source", "chart"]).is_some();
            if is_chart {
                let why = format!(
                    "{title}: the chart {0} is not among the files, so what its values set is unknown: name its folder with --chart {0}=FOLDER",
                    described.chart
                );
                self.unplaced(&at.file, line, why);
            }
            return None;
        };
        let mut values = self.chart_values(&chart, true);
        for file in &described.files {
            let path = clean(&chart.join(file));
            let Some(text) = self.files.load(&path).map(|file| file.text.clone()) else {
                self.unplaced(&at.file, line, format!("{title}: the values file {file} is missing"));
                continue;
            };
            let value = self.files.value(&path, 0).cloned().unwrap_or(Value::Null);
            values.push(ValuesLayer { at: Location::new(path, 0), value, text, is_shared: true });
        }
        if let Some((path, is_text)) = described.inline {
            let value = object.at(&path).cloned();
            let (mut inline, mut text) = (at.below(path), String::new());
            let value = if is_text {
                inline = inline.below([Step::Text]);
                text = value.as_ref().and_then(Value::text).unwrap_or_default().to_owned();
                let parsed = yaml::parse(&text).ok().and_then(|all| all.first()?.value().ok());
                parsed.unwrap_or(Value::Map(Vec::new()))
            } else {
                // With the types that the file has, which helm sees.
                text += &self.typed(&inline).unwrap_or_default();
                value.unwrap_or(Value::Map(Vec::new()))
            };
            values.push(ValuesLayer { at: inline, value, text, is_shared: false });
        }
        let parameters = at.below(described.parameters.clone());
        let items = object.at(&described.parameters).map(Value::items).unwrap_or_default();
        let mut set = Vec::new();
        for (number, item) in items.iter().enumerate() {
            let (Some(name), Some(value)) = (item.text_at(&["name"]), item.text_at(&["value"])) else {
                continue;
            };
            let at = parameters.below([Step::from(number), Step::from("value")]);
            set.push((name.to_owned(), at, value.to_owned()));
        }
        Some(Release {
            title,
            at: at.clone(),
            name: described.name,
            namespace: described.namespace,
            chart,
            values,
            parameters: set,
        })
    }

    /// The folder of a chart: as the options name it, or one of the charts that were read.
    fn chart(&self, named: &str, options: &ReadOptions) -> Option<PathBuf> {
        if let Some((_, folder)) = options.charts.iter().find(|(name, _)| name == named) {
            return Some(clean(folder));
        }
        let path = clean(Path::new(named.trim_start_matches('/')));
        let is_path = named.contains('/') || named.starts_with('.');
        let mut found = self.files.charts().filter(|folder| is_path && folder.ends_with(&path));
        let first = found.next().cloned();
        first.filter(|_| found.next().is_none())
    }

    /// A mapping as JSON, with numbers as numbers.
    fn typed(&self, at: &Location) -> Option<String> {
        let text = &self.files.get(&at.file)?.text;
        let all: Vec<serde_json::Value> = serde_saphyr::from_multiple(text).ok()?;
        let document = all.into_iter().nth(at.document)?;
        let found = at.path.iter().try_fold(&document, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Index(index) => value.get(index),
            Step::Text => None,
        })?;
        Some(found.to_string())
    }
}
