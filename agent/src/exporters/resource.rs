//! OpenTelemetry resources: the attributes that identify the subject of a row. OTLP and the event log each encode them.

use crate::model::{CgroupRow, Level, Names, Subject, View, WorkloadRow, pod::KnownContainer};

/// Attributes of the semantic conventions that resources carry.
#[cfg(test)]
pub(super) const CONVENTIONAL: &[&str] = &[
    "container.id",
    "container.image.name",
    "container.image.repo_digests",
    "container.image.tags",
    "container.runtime.name",
    "host.id",
    "host.name",
    "k8s.container.name",
    "k8s.cronjob.name",
    "k8s.daemonset.name",
    "k8s.deployment.name",
    "k8s.job.name",
    "k8s.namespace.name",
    "k8s.node.name",
    "k8s.pod.name",
    "k8s.pod.uid",
    "k8s.replicaset.name",
    "k8s.statefulset.name",
    "os.type",
    "service.instance.id",
    "service.name",
    "service.version",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AttributeValue {
    Text(String),
    Texts(Vec<String>),
}

/// The attributes of a resource. Of several values for a name the first one stays; empty values are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes(Vec<(String, AttributeValue)>);

impl IntoIterator for Attributes {
    type Item = (String, AttributeValue);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Attributes {
    fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.add(name, AttributeValue::Text(value.to_owned()));
        }
    }

    fn texts(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.add(name, AttributeValue::Texts(vec![value.to_owned()]));
        }
    }

    fn add(&mut self, name: &str, value: AttributeValue) {
        if !self.0.iter().any(|(there, _)| there == name) {
            self.0.push((name.to_owned(), value));
        }
    }

    fn workload(&mut self, kind: &str, name: &str) {
        let known = match kind {
            "CronJob" => "k8s.cronjob.name",
            "DaemonSet" => "k8s.daemonset.name",
            "Deployment" => "k8s.deployment.name",
            "Job" => "k8s.job.name",
            "ReplicaSet" => "k8s.replicaset.name",
            "StatefulSet" => "k8s.statefulset.name",
            _ => "",
        };
        if !known.is_empty() {
            self.text(known, name);
        }
        self.text("snug.workload.kind", kind);
        self.text("snug.workload.name", name);
    }

    fn names(&mut self, names: &Names) {
        self.text("k8s.namespace.name", &names.namespace);
        self.text("k8s.pod.name", &names.pod);
        self.text("k8s.container.name", &names.container);
        if let Some(kind) = names.kind {
            self.text("snug.container.kind", kind.as_str());
        }
        self.workload(&names.workload_kind, &names.workload);
    }

    fn image(&mut self, reference: &str) {
        let (named, digest) = reference.split_once('@').unwrap_or((reference, ""));
        let (name, tag) = match named.rsplit_once(':') {
            // A colon before a slash is a port's.
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (named, ""),
        };
        self.text("container.image.name", name);
        self.texts("container.image.tags", tag);
        if !digest.is_empty() {
            self.texts("container.image.repo_digests", reference);
        }
    }
}

/// Attributes that all resources have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Common {
    /// Attributes from the configuration. They win over attributes of the host, but not over those that identify a row.
    pub(super) given: Vec<(String, String)>,
}

impl Common {
    fn finish(&self, mut attributes: Attributes, view: &View) -> Attributes {
        for (name, value) in &self.given {
            attributes.text(name, value);
        }
        attributes.text("host.name", &view.agent.node);
        attributes.text("host.id", &view.host.machine.machine_id);
        if view.agent.kubernetes.is_some() {
            attributes.text("k8s.node.name", &view.agent.node);
        }
        attributes.text("os.type", "linux");
        attributes
    }

    /// A container, unit, other cgroup, or pod.
    pub(super) fn cgroup(&self, row: &CgroupRow, view: &View) -> Attributes {
        self.subject(&Subject::new(&row.identity), view)
    }

    /// The subject of an event.
    pub(super) fn subject(&self, subject: &Subject, view: &View) -> Attributes {
        let mut attributes = Attributes::default();
        if let Some(names) = &subject.names {
            attributes.names(names);
            attributes.image(&names.image);
        } else {
            attributes.text("snug.container.kind", subject.level.as_str());
        }
        attributes.text("k8s.pod.uid", &subject.pod_uid);
        if matches!(subject.level, Level::Container | Level::Sandbox) {
            attributes.text("container.id", &subject.id);
        }
        attributes.text("container.runtime.name", subject.runtime.as_str());
        attributes.text("snug.cgroup.path", &subject.path);
        self.finish(attributes, view)
    }

    /// A container of a known pod, running or not.
    pub(super) fn status(&self, container: &KnownContainer, uid: &str, view: &View) -> Attributes {
        let mut attributes = Attributes::default();
        attributes.names(&container.names);
        attributes.text("k8s.pod.uid", uid);
        self.finish(attributes, view)
    }

    /// The containers of a workload with the same name.
    pub(super) fn workload(&self, row: &WorkloadRow, view: &View) -> Attributes {
        let mut attributes = Attributes::default();
        attributes.text("k8s.namespace.name", &row.namespace);
        attributes.text("k8s.container.name", &row.container);
        attributes.workload(&row.workload_kind, &row.workload);
        self.finish(attributes, view)
    }

    pub(super) fn agent(&self, view: &View) -> Attributes {
        let mut attributes = Attributes::default();
        attributes.text("service.name", "snug-agent");
        attributes.text("service.version", env!("CARGO_PKG_VERSION"));
        attributes.text("service.instance.id", &view.agent.node);
        self.finish(attributes, view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(reference: &str) -> Vec<(String, String)> {
        let mut attributes = Attributes::default();
        attributes.image(reference);
        let text = |value| match value {
            AttributeValue::Text(text) => text,
            AttributeValue::Texts(texts) => format!("[{}]", texts.join(", ")),
        };
        attributes.into_iter().map(|(name, value)| (name, text(value))).collect()
    }

    #[test]
    fn images_are_taken_apart() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs
                .iter()
                .map(|(name, value)| (format!("container.image.{name}"), (*value).to_owned()))
                .collect()
        };
        assert_eq!(image("registry.example:5000/a/b"), pairs(&[("name", "registry.example:5000/a/b")]));
        assert_eq!(image("nginx:1.27"), pairs(&[("name", "nginx"), ("tags", "[1.27]")]));
        assert_eq!(
            image("r.example:5000/a:7@sha256:ab"),
            pairs(&[
                ("name", "r.example:5000/a"),
                ("tags", "[7]"),
                ("repo_digests", "[r.example:5000/a:7@sha256:ab]")
            ])
        );
        assert_eq!(image(""), []);
    }

    #[test]
    fn configured_attributes_win_over_those_of_the_host_but_not_of_the_row() {
        let given = [("host.name", "mine"), ("k8s.cluster.name", "c"), ("k8s.namespace.name", "no")];
        let common =
            Common { given: given.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec() };
        let view = crate::exporters::fixture::view();
        let row = view.workloads.iter().find(|row| !row.namespace.is_empty()).unwrap();
        let resource = common.workload(row, &view);
        let get = |name: &str| {
            let all: Vec<_> = resource.clone().into_iter().filter(|(there, _)| there == name).collect();
            assert_eq!(all.len(), 1, "{name}");
            match &all[0].1 {
                AttributeValue::Text(text) => text.clone(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((get("host.name"), get("k8s.cluster.name")), ("mine".into(), "c".into()));
        assert_eq!(get("k8s.namespace.name"), *row.namespace);
    }
}
