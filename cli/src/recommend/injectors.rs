//! Containers that known webhooks add to pods, and the annotations of the pod template that size them.
//!
//! Sources: Istio, "Resource Annotations" (istio.io/latest/docs/reference/config/annotations); Linkerd, "Proxy Configuration"
//! (linkerd.io/2/reference/proxy-configuration); Vault, "Agent Injector annotations"
//! (developer.hashicorp.com/vault/docs/deploy/kubernetes/injector/annotations); Consul, "Annotations and labels"
//! (developer.hashicorp.com/consul/docs/reference/k8s/annotation-label); Dapr, "Dapr arguments and annotations"
//! (docs.dapr.io/reference/arguments-annotations-overview); GKE, "Cloud Storage FUSE CSI driver sidecar"; Kuma, "Kubernetes
//! annotations and labels" (kuma.io/docs); OpenTelemetry Operator, "Instrumentation" and "OpenTelemetryCollector"
//! (github.com/open-telemetry/opentelemetry-operator).

use std::collections::BTreeMap;

use super::report::Quantities;

/// Annotations in the order CPU request, CPU limit, memory request, memory limit.
type Annotations = [&'static str; 4];

/// A webhook that adds containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Injector {
    pub(super) name: &'static str,
    /// Names of its containers.
    containers: &'static [&'static str],
    /// Annotations that size them.
    annotations: Option<Annotations>,
    /// What sizes them where annotations do not.
    setting: &'static str,
}

const INJECTORS: [Injector; 10] = [
    Injector {
        name: "Istio",
        containers: &["istio-proxy"],
        annotations: Some([
            "sidecar.istio.io/proxyCPU",
            "sidecar.istio.io/proxyCPULimit",
            "sidecar.istio.io/proxyMemory",
            "sidecar.istio.io/proxyMemoryLimit",
        ]),
        setting: "",
    },
    Injector {
        name: "Istio",
        containers: &["istio-init", "istio-validation", "enable-core-dump"],
        annotations: None,
        setting: "the injection template of Istio, `global.proxy_init.resources` in its values",
    },
    Injector {
        name: "Linkerd",
        containers: &["linkerd-proxy"],
        annotations: Some([
            "config.linkerd.io/proxy-cpu-request",
            "config.linkerd.io/proxy-cpu-limit",
            "config.linkerd.io/proxy-memory-request",
            "config.linkerd.io/proxy-memory-limit",
        ]),
        setting: "",
    },
    Injector {
        name: "Linkerd",
        containers: &["linkerd-init", "linkerd-network-validator", "linkerd-debug"],
        annotations: None,
        setting: "the values of Linkerd's chart (`proxyInit`, `networkValidator`)",
    },
    Injector {
        name: "the Vault agent injector",
        containers: &["vault-agent", "vault-agent-init"],
        annotations: Some([
            "vault.hashicorp.com/agent-requests-cpu",
            "vault.hashicorp.com/agent-limits-cpu",
            "vault.hashicorp.com/agent-requests-mem",
            "vault.hashicorp.com/agent-limits-mem",
        ]),
        setting: "",
    },
    Injector {
        name: "Consul",
        containers: &["consul-dataplane", "envoy-sidecar"],
        annotations: Some([
            "consul.hashicorp.com/sidecar-proxy-cpu-request",
            "consul.hashicorp.com/sidecar-proxy-cpu-limit",
            "consul.hashicorp.com/sidecar-proxy-memory-request",
            "consul.hashicorp.com/sidecar-proxy-memory-limit",
        ]),
        setting: "",
    },
    Injector {
        name: "Dapr",
        containers: &["daprd"],
        annotations: Some([
            "dapr.io/sidecar-cpu-request",
            "dapr.io/sidecar-cpu-limit",
            "dapr.io/sidecar-memory-request",
            "dapr.io/sidecar-memory-limit",
        ]),
        setting: "",
    },
    Injector {
        name: "the Cloud Storage FUSE driver of GKE",
        containers: &["gke-gcsfuse-sidecar"],
        annotations: Some([
            "gke-gcsfuse/cpu-request",
            "gke-gcsfuse/cpu-limit",
            "gke-gcsfuse/memory-request",
            "gke-gcsfuse/memory-limit",
        ]),
        setting: "",
    },
    Injector {
        name: "Kuma",
        containers: &["kuma-sidecar", "kuma-init", "kuma-validation"],
        annotations: None,
        setting: "a ContainerPatch that the annotation kuma.io/container-patches names",
    },
    Injector {
        name: "the OpenTelemetry operator",
        containers: &[
            "otc-container",
            "opentelemetry-auto-instrumentation",
            "opentelemetry-auto-instrumentation-java",
            "opentelemetry-auto-instrumentation-nodejs",
            "opentelemetry-auto-instrumentation-python",
            "opentelemetry-auto-instrumentation-dotnet",
        ],
        annotations: None,
        setting: "`resources` of the OpenTelemetryCollector or the Instrumentation",
    },
];

impl Injector {
    /// The injector of a container, by its name.
    pub(super) fn of(container: &str) -> Option<&'static Self> {
        INJECTORS.iter().find(|injector| injector.containers.contains(&container))
    }

    /// The annotations that give the container these requests and limits.
    pub(super) fn annotations(&self, values: &Quantities) -> BTreeMap<String, String> {
        let quantities =
            [&values.requests.cpu, &values.limits.cpu, &values.requests.memory, &values.limits.memory];
        let keys = self.annotations.iter().flatten().zip(quantities);
        keys.filter_map(|(key, quantity)| Some(((*key).to_owned(), quantity.clone()?))).collect()
    }

    /// How its container is sized where no annotation does it; empty otherwise.
    pub(super) const fn setting(&self) -> &'static str {
        self.setting
    }

    /// Names of all containers of known injectors.
    #[cfg(test)]
    pub(super) fn all_containers() -> Vec<&'static str> {
        INJECTORS.iter().flat_map(|injector| injector.containers).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recommend::report::Pair;

    #[test]
    fn annotations_have_the_recommended_values() {
        let pair = |cpu: Option<&str>, memory: &str| Pair {
            cpu: cpu.map(str::to_owned),
            memory: Some(memory.to_owned()),
        };
        let values = Quantities { requests: pair(Some("11m"), "46Mi"), limits: pair(None, "46Mi") };
        let annotations = Injector::of("istio-proxy").unwrap().annotations(&values);
        let expected = [
            ("sidecar.istio.io/proxyCPU", "11m"),
            ("sidecar.istio.io/proxyMemory", "46Mi"),
            ("sidecar.istio.io/proxyMemoryLimit", "46Mi"),
        ];
        assert_eq!(annotations, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        assert_eq!(Injector::of("app"), None);
    }

    #[test]
    fn each_container_has_one_injector_that_says_how_it_is_sized() {
        let mut all = Injector::all_containers();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        for injector in INJECTORS {
            assert_ne!(injector.annotations.is_some(), !injector.setting.is_empty(), "{}", injector.name);
        }
    }
}
