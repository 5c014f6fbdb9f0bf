//! A release of a chart, with its values.

use std::path::PathBuf;

use super::{Field, Layer, Location, Setting};
use crate::yaml::{self, Step, Value};

/// Values of a release, the lowest first.
#[derive(Clone, Debug)]
pub(super) struct ValuesLayer {
    /// Where the values are.
    pub at: Location,
    pub value: Value,
    /// As `helm --values` reads it; empty for what the chart brings itself.
    pub text: String,
    /// Others use it, too, so values are rather added above it.
    pub is_shared: bool,
}

/// A release of a chart.
#[derive(Clone, Debug)]
pub(super) struct Release {
    /// How it is called in messages.
    pub title: String,
    /// What defines it.
    pub at: Location,
    pub name: String,
    pub namespace: Option<String>,
    pub chart: PathBuf,
    pub values: Vec<ValuesLayer>,
    /// Single values above all others: their dotted names and locations.
    pub parameters: Vec<(String, Location, String)>,
}

impl Release {
    /// The layer of parameters that set the values at a path.
    pub(super) fn parameters(&self, path: &[Step]) -> Option<Layer> {
        let path = yaml::shown(path);
        let mut settings = Vec::new();
        for (name, at, text) in &self.parameters {
            let field =
                Field::ALL.into_iter().find(|field| *name == format!("{path}.{}", field.keys().join(".")));
            settings.extend(field.map(|field| (field, at.clone(), Setting::Set(text.clone()))));
        }
        (!settings.is_empty()).then_some(Layer {
            resources: None,
            settings,
            is_present: true,
            is_patch: false,
            is_shared: false,
        })
    }
}

impl Release {
    /// The texts of its values with others on top.
    pub(super) fn texts<'t>(&'t self, top: &[&'t str]) -> Vec<&'t str> {
        let own = self.values.iter().map(|layer| layer.text.as_str()).filter(|text| !text.is_empty());
        own.chain(top.iter().copied()).collect()
    }
}
