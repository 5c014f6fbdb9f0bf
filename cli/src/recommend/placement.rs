//! What stands between a recommendation and the object that it is for.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

/// A warning about the object that a recommendation is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", untagged)]
pub enum Placement {
    /// Somebody applies the workload from a source of their own, and would revert a patch.
    ManagedObject {
        manager: String,
        /// Where the change belongs.
        change: String,
        /// Whether manifests or values have the workload. An operator makes it from another object instead.
        in_manifests: bool,
    },
    /// The pod template does not have the container.
    NotInTemplate {
        /// The webhook that adds it, if it is known.
        injector: Option<&'static str>,
        /// Annotations of the pod template that give it the recommended values.
        annotations: BTreeMap<String, String>,
        /// What sizes it if annotations do not; empty if that is unknown.
        #[serde(skip_serializing_if = "str::is_empty")]
        setting: &'static str,
    },
    /// The container has the name of one that a webhook adds, but the source of the history does not show the pods: it may be in
    /// the template.
    PerhapsInjected {
        /// The webhook.
        injector: &'static str,
        /// As in `NotInTemplate`.
        annotations: BTreeMap<String, String>,
        /// As in `NotInTemplate`.
        #[serde(skip_serializing_if = "str::is_empty")]
        setting: &'static str,
    },
    /// CPU usage was also recorded in windows of other lengths, which are not comparable.
    OtherWindows { left_out_millis: Vec<u64> },
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ManagedObject { manager, change, .. } => {
                write!(f, "{manager} manages this workload and would revert a patch: change it {change}")
            }
            Self::NotInTemplate { injector: Some(injector), annotations, setting } => {
                let remedy = remedy(annotations, setting);
                write!(f, "{injector} adds this container to the pods, so a patch of the template cannot size it: {remedy}")
            }
            Self::PerhapsInjected { injector, annotations, setting } => {
                let remedy = remedy(annotations, setting);
                write!(f, "if {injector} adds this container to the pods, take it out of the patch, which would be refused: {remedy}")
            }
            Self::NotInTemplate { injector: None, .. } => f.write_str(
                "the pod template does not have this container: a webhook adds it to the pods, or it was removed",
            ),
            Self::OtherWindows { left_out_millis } => {
                let lengths: Vec<String> =
                    left_out_millis.iter().map(|millis| format!("{millis} ms")).collect();
                let lengths = lengths.join(" and ");
                write!(f, "CPU usage in windows of {lengths} is not counted: windows of several lengths are not comparable")
            }
        }
    }
}

fn remedy(annotations: &BTreeMap<String, String>, setting: &str) -> String {
    if annotations.is_empty() {
        return format!("change {setting}");
    }
    let annotations: Vec<String> = annotations.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    format!("set the annotations {} on the pod template", annotations.join(", "))
}
