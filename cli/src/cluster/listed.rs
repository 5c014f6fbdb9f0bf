//! Pods and nodes as one run lists them: once each, cut down to what the command needs.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use snug_sizing::pod::PodRequests;

use super::{
    amounts::{bytes, millicores},
    bare_pod::{BarePod, bare_pod, version},
    live_pod::{LivePod, live_pod},
};
use crate::policy::{ANNOTATION, PolicyAnnotation};

/// Objects per page of a list.
const PAGE: u32 = 500;
/// Allocatable pods of a node without that field: the kubelet's default.
const DEFAULT_PODS: u64 = 110;

/// The pods of a cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct ListedPods {
    /// Pods that have not terminated.
    pub(super) live: Vec<LivePod>,
    /// Namespaces and names of pods in the phase `Running`.
    pub(super) running: BTreeSet<(String, String)>,
    /// Live pods without a controller, by namespace and name, each with its node.
    pub(super) bare: BTreeMap<(String, String), (String, BarePod)>,
    /// Policies in the annotations of all pods, those that have terminated too.
    pub(super) policies: Vec<PolicyAnnotation>,
}

impl ListedPods {
    /// Lists all pods, in pages.
    pub(super) async fn list(client: &Client) -> Result<Self, kube::Error> {
        let api = Api::<Pod>::all(client.clone());
        let mut parameters = ListParams::default().limit(PAGE);
        let mut listed = Self::default();
        loop {
            let page = api.list(&parameters).await?;
            page.items.into_iter().for_each(|pod| listed.add(pod));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(listed),
            }
        }
    }

    pub(super) fn add(&mut self, pod: Pod) {
        let name = (pod.namespace().unwrap_or_default(), pod.name_any());
        if let Some(text) = pod.annotations().get(ANNOTATION) {
            let (namespace, pod) = name.clone();
            self.policies.push(PolicyAnnotation { namespace, pod, text: text.clone() });
        }
        match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
            Some("Succeeded" | "Failed") => return,
            Some("Running") => drop(self.running.insert(name.clone())),
            _ => {}
        }
        let found = bare_pod(&pod);
        if found.is_fixed || !pod.owner_references().iter().any(|owner| owner.controller == Some(true)) {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
            self.bare.insert(name, (node, found));
        }
        self.live.push(live_pod(pod));
    }
}

/// A node of a cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct ListedNode {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) taints: Vec<Taint>,
    /// Whether it is cordoned.
    pub(super) is_unschedulable: bool,
    /// Allocatable CPU and memory; `None` if the kubelet has not reported them.
    pub(super) allocatable: Option<PodRequests>,
    /// Allocatable pods.
    pub(super) pods: u64,
    /// Version of the kubelet, major and minor.
    pub(super) version: Option<(u32, u32)>,
}

impl From<Node> for ListedNode {
    fn from(node: Node) -> Self {
        let kubelet = |node: &Node| {
            let text = node.status.as_ref()?.node_info.as_ref()?.kubelet_version.trim_start_matches('v');
            let mut parts = text.split('.');
            version(parts.next()?, parts.next()?)
        };
        let pods = node.status.as_ref().and_then(|status| bytes(&status.allocatable, "pods"));
        let (allocatable, version, name) = (allocatable(&node), kubelet(&node), node.name_any());
        let spec = node.spec.unwrap_or_default();
        Self {
            name,
            labels: node.metadata.labels.unwrap_or_default(),
            taints: spec.taints.unwrap_or_default(),
            is_unschedulable: spec.unschedulable == Some(true),
            allocatable,
            pods: pods.unwrap_or(DEFAULT_PODS),
            version,
        }
    }
}

/// Allocatable CPU and memory of a node.
fn allocatable(node: &Node) -> Option<PodRequests> {
    let amounts = &node.status.as_ref()?.allocatable;
    Some(PodRequests { cpu: millicores(amounts, "cpu")?, memory: bytes(amounts, "memory")? })
}

/// Lists all nodes, in pages.
pub(super) async fn list_nodes(client: &Client) -> Result<Vec<ListedNode>, kube::Error> {
    let api = Api::<Node>::all(client.clone());
    let mut parameters = ListParams::default().limit(PAGE);
    let mut nodes = Vec::new();
    loop {
        let page = api.list(&parameters).await?;
        nodes.extend(page.items.into_iter().map(ListedNode::from));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(nodes),
        }
    }
}
