//! Names of metrics and attributes in OpenTelemetry.
//!
//! A family that the semantic conventions define has their name, unit and instrument. All others are `snug.<subject>.<rest>`.
//! Names do not include the unit, so a receiver that translates them to Prometheus gets the names of `/metrics`.

use crate::exporters::catalogue::{Family, Kind, Scope, Unit};

/// The release of the semantic conventions.
pub(super) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// The instrument of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instrument {
    /// Only increases.
    Counter,
    /// Increases and decreases; can be summed over resources.
    UpDownCounter,
    /// Increases and decreases.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A metric of the semantic conventions, with the samples that are its points.
#[derive(Clone, Copy, Debug)]
struct Convention {
    family: &'static str,
    /// The value of the family's only label, if the metric has only samples with that value.
    only: Option<&'static str>,
    name: &'static str,
    unit: &'static str,
    instrument: Instrument,
    /// Attributes for information that only the family's name has.
    attribute: Option<(&'static str, &'static str)>,
}

const fn same(
    family: &'static str,
    name: &'static str,
    unit: &'static str,
    instrument: Instrument,
) -> Convention {
    Convention { family, only: None, name, unit, instrument, attribute: None }
}

const fn directed(family: &'static str, direction: &'static str) -> Convention {
    let attribute = Some(("network.io.direction", direction));
    Convention { attribute, ..same(family, "container.network.io", "By", Instrument::Counter) }
}

const fn staged(
    family: &'static str,
    stage: &'static str,
    name: &'static str,
    unit: &'static str,
) -> Convention {
    Convention { only: Some(stage), ..same(family, name, unit, Instrument::UpDownCounter) }
}

const CONVENTIONS: &[Convention] = &[
    same("snug_container_cpu_usage_seconds", "container.cpu.time", "s", Instrument::Counter),
    same("snug_container_memory_usage_bytes", "container.memory.usage", "By", Instrument::UpDownCounter),
    same(
        "snug_container_memory_working_set_bytes",
        "container.memory.working_set",
        "By",
        Instrument::UpDownCounter,
    ),
    same("snug_container_io_bytes", "container.disk.io", "By", Instrument::Counter),
    directed("snug_container_network_receive_bytes", "receive"),
    directed("snug_container_network_transmit_bytes", "transmit"),
    same("snug_pod_cpu_usage_seconds", "k8s.pod.cpu.time", "s", Instrument::Counter),
    same("snug_pod_memory_usage_bytes", "k8s.pod.memory.usage", "By", Instrument::UpDownCounter),
    same("snug_pod_memory_working_set_bytes", "k8s.pod.memory.working_set", "By", Instrument::UpDownCounter),
    staged("snug_pod_container_cpu_request_cores", "desired", "k8s.container.cpu.request.desired", "{cpu}"),
    staged("snug_pod_container_cpu_request_cores", "applied", "k8s.container.cpu.request.current", "{cpu}"),
    staged("snug_pod_container_cpu_limit_cores", "desired", "k8s.container.cpu.limit.desired", "{cpu}"),
    staged("snug_pod_container_cpu_limit_cores", "applied", "k8s.container.cpu.limit.current", "{cpu}"),
    staged(
        "snug_pod_container_memory_request_bytes",
        "desired",
        "k8s.container.memory.request.desired",
        "By",
    ),
    staged(
        "snug_pod_container_memory_request_bytes",
        "applied",
        "k8s.container.memory.request.current",
        "By",
    ),
    staged("snug_pod_container_memory_limit_bytes", "desired", "k8s.container.memory.limit.desired", "By"),
    staged("snug_pod_container_memory_limit_bytes", "applied", "k8s.container.memory.limit.current", "By"),
    same(
        "snug_pod_container_restarts",
        "k8s.container.restart.count",
        "{restart}",
        Instrument::UpDownCounter,
    ),
    same("snug_pod_container_ready", "k8s.container.ready", "{container}", Instrument::UpDownCounter),
    same(
        "snug_pod_container_waiting",
        "k8s.container.status.reason",
        "{container}",
        Instrument::UpDownCounter,
    ),
];

/// Labels that are attributes of the semantic conventions; others are `snug.<label>`.
const ATTRIBUTES: &[(Scope, &str, &str)] = &[
    (Scope::Container, "device", "system.device"),
    (Scope::Container, "direction", "disk.io.direction"),
    (Scope::Container, "ip", "network.type"),
    (Scope::Workload, "ip", "network.type"),
    (Scope::Status, "reason", "k8s.container.status.reason"),
];

/// The OpenTelemetry name of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Called {
    /// Name of the metric.
    pub(super) name: String,
    /// Unit in UCUM; empty for plain numbers, because receivers take "1" for a ratio.
    pub(super) unit: &'static str,
    pub(super) instrument: Instrument,
    /// Attributes with their values.
    pub(super) attributes: Vec<(String, String)>,
}

/// The OpenTelemetry name of a sample with these values of the family's own labels.
pub(super) fn called(family: &Family, own: &[&str]) -> Called {
    let convention = CONVENTIONS.iter().find(|convention| {
        convention.family == family.name && convention.only.is_none_or(|only| own.first() == Some(&only))
    });
    let labels = family.labels.iter().zip(own).map(|(label, value)| {
        let scope = family.scope();
        let known = ATTRIBUTES.iter().find(|(of, name, _)| *of == scope && name == label);
        let name = known.map_or_else(|| format!("snug.{label}"), |(.., name)| (*name).to_owned());
        let value = if name == "network.type" { format!("ipv{value}") } else { (*value).to_owned() };
        (name, value)
    });
    match convention {
        Some(convention) => {
            let fixed = convention.attribute.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let labels = labels.filter(|_| convention.only.is_none());
            Called {
                name: convention.name.to_owned(),
                unit: convention.unit,
                instrument: convention.instrument,
                attributes: labels.chain(fixed).collect(),
            }
        }
        None => Called {
            name: own_name(family),
            unit: match family.unit {
                Unit::None => "",
                Unit::Seconds => "s",
                Unit::Bytes => "By",
                Unit::Cores => "{cpu}",
                Unit::BytesPerSecond => "By/s",
            },
            instrument: match family.kind {
                Kind::Counter => Instrument::Counter,
                Kind::Gauge => Instrument::Gauge,
                Kind::Histogram => Instrument::Histogram,
            },
            attributes: labels.collect(),
        },
    }
}

fn own_name(family: &Family) -> String {
    let stem = family.stem();
    let subject = match family.scope() {
        Scope::Container => "container",
        Scope::Pod => "pod",
        Scope::Workload => "workload",
        Scope::Status => "pod_container",
        Scope::KubeState => "kube_state",
        Scope::Agent => "agent",
    };
    let rest = stem.strip_prefix("snug_").and_then(|rest| rest.strip_prefix(subject));
    let rest = rest.and_then(|rest| rest.strip_prefix('_')).unwrap_or(stem);
    format!("snug.{}.{rest}", subject.replace('_', "."))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::exporters::{catalogue, events, fixture};

    /// The model of the semantic conventions, as published.
    #[derive(serde::Deserialize)]
    struct Model {
        metrics: BTreeMap<String, Metric>,
        attributes: Vec<String>,
    }

    #[derive(serde::Deserialize)]
    struct Metric {
        instrument: String,
        unit: String,
        attributes: Vec<String>,
    }

    fn model() -> Model {
        serde_json::from_str(include_str!("model/semantic-conventions-1.44.0.json")).unwrap()
    }

    #[test]
    fn names_units_and_instruments_are_the_published_model_s() {
        let model = model();
        for convention in CONVENTIONS {
            let metric = &model.metrics[convention.name];
            let instrument = match convention.instrument {
                Instrument::Counter => "counter",
                Instrument::UpDownCounter => "updowncounter",
                Instrument::Gauge => "gauge",
                Instrument::Histogram => "histogram",
            };
            assert_eq!(
                (instrument, convention.unit),
                (&*metric.instrument, &*metric.unit),
                "{}",
                convention.name
            );
            if let Some((name, _)) = convention.attribute {
                assert!(metric.attributes.iter().any(|of| of == name), "{} has no {name}", convention.name);
            }
            assert!(
                catalogue::families().any(|family| family.name == convention.family),
                "{}",
                convention.family
            );
        }
        let view = fixture::view();
        let of_events = view.events.iter().flat_map(|event| events::attributes(event)).map(|(name, _)| name);
        let attributes = ATTRIBUTES.iter().map(|(.., attribute)| *attribute);
        for attribute in attributes.chain(of_events.filter(|name| !name.starts_with("snug."))) {
            assert!(model.attributes.iter().any(|name| name == attribute), "{attribute}");
        }
        for attribute in crate::exporters::resource::CONVENTIONAL {
            assert!(model.attributes.iter().any(|name| name == attribute), "{attribute}");
        }
    }

    #[test]
    fn names_without_a_convention_are_those_of_prometheus_with_dots() {
        let called = |name: &str, own: &[&str]| {
            let family = catalogue::families().find(|family| family.name == name).unwrap();
            let called = called(family, own);
            (called.name, called.unit, called.attributes)
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            called("snug_container_cpu_cfs_throttled_seconds", &[]),
            ("snug.container.cpu_cfs_throttled".to_owned(), "s", vec![])
        );
        assert_eq!(
            called("snug_workload_oom_kills", &["container"]),
            ("snug.workload.oom_kills".to_owned(), "", vec![pair("snug.limit", "container")])
        );
        assert_eq!(
            called("snug_pod_container_cpu_limit_cores", &["allocated"]),
            ("snug.pod.container.cpu_limit".to_owned(), "{cpu}", vec![pair("snug.stage", "allocated")])
        );
        assert_eq!(
            called("snug_pod_container_cpu_limit_cores", &["applied"]),
            ("k8s.container.cpu.limit.current".to_owned(), "{cpu}", vec![])
        );
        assert_eq!(
            called("snug_container_network_receive_bytes", &["6"]),
            (
                "container.network.io".to_owned(),
                "By",
                vec![pair("network.type", "ipv6"), pair("network.io.direction", "receive")]
            )
        );
    }

    #[test]
    fn no_two_samples_are_called_the_same() {
        let mut seen = BTreeMap::new();
        for family in catalogue::families().filter(|family| family.scope() != Scope::KubeState) {
            let own: Vec<&str> = family.labels.iter().map(|_| "x").collect();
            let called = called(family, &own);
            let before = seen.insert((called.name.clone(), called.attributes.clone()), family.name);
            assert_eq!(before, None, "{called:?}");
        }
    }
}
