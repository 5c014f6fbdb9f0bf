//! The two list calls of CRI v1 (`runtime.v1.RuntimeService`) that name containers, with only the fields that are used:
//! <https://github.com/kubernetes/cri-api/blob/v0.36.0/pkg/apis/runtime/v1/api.proto>
//!
//! Written by hand, because generating the code would require `protoc` on every machine that builds the agent.

use std::collections::HashMap;

pub(super) const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
pub(super) const LIST_SANDBOXES: &str = "/runtime.v1.RuntimeService/ListPodSandbox";

/// The request of both calls, without a filter.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct All {}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Containers {
    #[prost(message, repeated, tag = "1")]
    pub(super) containers: Vec<Container>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Container {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "4")]
    pub(super) image: Option<Image>,
    /// Labels that the kubelet sets: the names of the container, its pod and its namespace.
    #[prost(map = "string, string", tag = "8")]
    pub(super) labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// A reference or an id.
    #[prost(string, tag = "1")]
    pub(super) image: String,
    /// The reference in the pod's spec; since Kubernetes 1.29.
    #[prost(string, tag = "18")]
    pub(super) user_specified_image: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Sandboxes {
    #[prost(message, repeated, tag = "1")]
    pub(super) items: Vec<Sandbox>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Sandbox {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) metadata: Option<SandboxMetadata>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SandboxMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
}
