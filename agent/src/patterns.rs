//! Name patterns and droppable labels, which the configuration parses and the exporters apply.

use std::str::FromStr;

use wildmatch::WildMatch;

/// A pattern for names: `*` matches any characters, `?` matches one.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern(WildMatch);

impl Pattern {
    /// Parses a pattern. Every text is a valid pattern.
    pub fn new(text: &str) -> Self {
        Self(WildMatch::new(text))
    }

    /// Whether the pattern matches the whole name.
    pub fn matches(&self, name: &str) -> bool {
        self.0.matches(name)
    }

    /// The pattern as it was written.
    pub fn as_text(&self) -> String {
        self.0.to_string()
    }
}

/// A label that cannot be dropped: without it series would collide, or no series has it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("label `{0}` cannot be dropped, because series would collide or no series has it; these can: {names}", names = DroppableLabel::names())]
pub struct NotDroppable(String);

/// A label that may be dropped, because `id` or the labels of the workload still distinguish the series.
///
/// The namespace, pod and container labels stay too: one series without them breaks queries that join on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DroppableLabel {
    /// The runtime's id, on `snug_container_info`.
    ContainerId,
    /// The image, on `snug_container_info` and on every kubelet series.
    Image,
    /// The kind of container, on container series.
    Kind,
    /// The container's id, on kubelet series.
    Name,
    /// The pod's uid, on `snug_container_info`.
    PodUid,
    /// The QoS class, on `snug_container_info`.
    Qos,
    /// The runtime, on `snug_container_info`.
    Runtime,
    /// The workload's name, on container and pod series.
    Workload,
    /// The workload's kind, on container and pod series.
    WorkloadKind,
}

impl DroppableLabel {
    pub const ALL: [Self; 9] = [
        Self::ContainerId,
        Self::Image,
        Self::Kind,
        Self::Name,
        Self::PodUid,
        Self::Qos,
        Self::Runtime,
        Self::Workload,
        Self::WorkloadKind,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ContainerId => "container_id",
            Self::Image => "image",
            Self::Kind => "kind",
            Self::Name => "name",
            Self::PodUid => "pod_uid",
            Self::Qos => "qos",
            Self::Runtime => "runtime",
            Self::Workload => "workload",
            Self::WorkloadKind => "workload_kind",
        }
    }

    /// All names, for a message.
    pub fn names() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl FromStr for DroppableLabel {
    type Err = NotDroppable;

    fn from_str(text: &str) -> Result<Self, NotDroppable> {
        Self::ALL
            .into_iter()
            .find(|label| label.as_str() == text)
            .ok_or_else(|| NotDroppable(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_distinguish_series_cannot_be_dropped() {
        for label in ["id", "namespace", "pod", "container", "event", "device", "cpu", "", "Image"] {
            let error = label.parse::<DroppableLabel>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{label}`")) && error.contains("workload_kind"), "{error}");
        }
        for label in DroppableLabel::ALL {
            assert_eq!(label.as_str().parse(), Ok(label));
        }
    }
}
