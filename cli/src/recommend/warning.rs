//! Warnings before a recommendation is applied.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use snug_sizing::constraints::{Adjusted, Scaled, Violation};

use super::placement::Placement;
use crate::renamed;

/// Fields of a [`WarningKind`] that belong to one workload: names of its own objects, and what has to be set there.
const OF_ONE_WORKLOAD: [&str; 6] = ["annotations", "autoscaler", "budget", "change", "container", "name"];

/// A warning before a recommendation is applied, as a sentence and as data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Warning {
    pub text: String,
    /// The container, if it is one without a recommendation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    #[serde(flatten, serialize_with = "renamed::violation")]
    pub kind: WarningKind,
}

/// The cause of a warning.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", untagged)]
pub enum WarningKind {
    /// The cluster would reject the recommendation, or cannot apply it.
    Violation(Violation),
    /// The cluster would reject the values that annotations give to a container which a patch cannot size.
    OfAnnotations(Violation),
    /// A value was changed so that the cluster accepts the recommendation.
    Adjusted(Adjusted),
    /// A HorizontalPodAutoscaler scales on the utilization of the request, so its target must change with the request.
    Autoscaled(Scaled),
    /// Another object changes requests or replicas of the workload.
    Managed { kind: &'static str, name: String },
    /// Something stands between the recommendation and the object that it is for.
    Placement(Placement),
}

impl WarningKind {
    /// What it has in common with warnings that differ in numbers and in names of a workload's own objects only.
    pub(super) fn cause(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Value::Object(fields) = &mut value {
            fields.retain(|name, value| {
                let is_number =
                    value.is_number() || value.as_array().is_some_and(|all| all.iter().all(Value::is_number));
                !is_number && !OF_ONE_WORKLOAD.contains(&name.as_str())
            });
        }
        // Not all variants have a tag in their data.
        let variant = format!("{self:?}");
        format!("{} {value}", variant.split('{').next().unwrap_or_default())
    }

    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Violation(violation) if violation.is_refusal())
    }
}

impl fmt::Display for WarningKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(violation) => violation.fmt(f),
            Self::OfAnnotations(violation) => write!(f, "with these annotations: {violation}"),
            Self::Adjusted(adjusted) => adjusted.fmt(f),
            Self::Autoscaled(Scaled { autoscaler, container, resource, target_now, target, raised }) => {
                write!(f, "the HorizontalPodAutoscaler {autoscaler} scales on {resource} utilization")?;
                if let Some(container) = container {
                    write!(f, " of the container {container}")?;
                }
                write!(
                    f,
                    ": change its target from {target_now} % to {target} % together with the request, to keep scaling at the same load"
                )?;
                match (raised, target) {
                    (true, ..=90) => {
                        f.write_str("; the request was raised to keep the target at or below 90 %")
                    }
                    _ => Ok(()),
                }
            }
            Self::Managed { kind: kind @ "VerticalPodAutoscaler", name } => {
                write!(f, "the {kind} {name} also sets requests of this workload: use only one of the two")
            }
            Self::Managed { kind, name } => write!(f, "the {kind} {name} scales this workload"),
            Self::Placement(placement) => placement.fmt(f),
        }
    }
}

impl Warning {
    /// A warning about a container that has no recommendation, and so no entry of its own.
    pub fn about(container: &str, kind: WarningKind) -> Self {
        Self { text: format!("container {container}: {kind}"), container: Some(container.to_owned()), kind }
    }
}

impl From<WarningKind> for Warning {
    fn from(kind: WarningKind) -> Self {
        Self { text: kind.to_string(), container: None, kind }
    }
}
