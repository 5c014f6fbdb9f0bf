//! Asks the API server whose token this is, and whether its owner may read metrics of nodes, as the kubelet does.

use std::{fmt, path::PathBuf, time::Duration};

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::sync::OnceCell;

use super::{
    ConnectError,
    bounds::{Bounds, HEAD_TIMEOUT},
    connect,
};

/// A connection without an answer for this time is given up. The caller waits less.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// What the API server says about a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its owner may `get nodes/metrics`.
    Allowed,
    /// Its owner may not.
    Forbidden,
    /// Not a token of this cluster, expired, revoked, or for another audience.
    Unknown,
}

/// Why there is no verdict.
#[derive(Debug, Error)]
pub enum ReviewError {
    /// There is no client.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The service account lacks a permission.
    #[error(
        "the service account of the agent may not create {0}; apply deploy/components/token-reviews, or set token-review = \"off\""
    )]
    Denied(&'static str),
    /// The API server does not answer as it should.
    #[error("the API server does not answer as it should to a request that creates {what}")]
    Failed { what: &'static str, source: Box<kube::Error> },
    /// No answer in time.
    #[error("no answer of the API server within {0:?}")]
    Timeout(Duration),
}

/// Reviews tokens with a client of its own, which connects when the first token comes.
pub struct TokenReviewer {
    node: String,
    audiences: Vec<String>,
    kubeconfig: Option<PathBuf>,
    client: OnceCell<Client>,
}

impl fmt::Debug for TokenReviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, audiences, .. } = self;
        f.debug_struct("TokenReviewer")
            .field("node", node)
            .field("audiences", audiences)
            .finish_non_exhaustive()
    }
}

impl TokenReviewer {
    /// A token must have one of these audiences; without any, one of the API server's. The permission is that for this node. Without a
    /// kubeconfig the service account of the agent's pod is used.
    pub fn new(node: String, audiences: Vec<String>, kubeconfig: Option<PathBuf>) -> Self {
        Self { node, audiences, kubeconfig, client: OnceCell::new() }
    }

    /// Reviews a token.
    ///
    /// # Errors
    /// When the API server gives no verdict.
    pub async fn review(&self, token: &str) -> Result<Verdict, ReviewError> {
        let connecting = || {
            connect(
                self.kubeconfig.as_deref(),
                READ_TIMEOUT,
                Bounds { head_timeout: HEAD_TIMEOUT, watch: None },
            )
        };
        let client = self.client.get_or_try_init(connecting).await?.clone();
        let audiences = (!self.audiences.is_empty()).then(|| self.audiences.clone());
        let spec = TokenReviewSpec { audiences, token: Some(token.to_owned()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let status =
            create(&Api::all(client.clone()), &review, "tokenreviews").await?.status.unwrap_or_default();
        // An API server that knows no audiences ignores those of the request, and returns none.
        let granted = status.audiences.unwrap_or_default();
        let has_audience =
            self.audiences.is_empty() || self.audiences.iter().any(|audience| granted.contains(audience));
        if status.authenticated != Some(true) || !has_audience {
            return Ok(Verdict::Unknown);
        }
        let user = status.user.unwrap_or_default();
        let resource = ResourceAttributes {
            verb: Some("get".to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some("metrics".to_owned()),
            name: Some(self.node.clone()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: user.username,
            groups: user.groups,
            uid: user.uid,
            extra: user.extra,
            resource_attributes: Some(resource),
            non_resource_attributes: None,
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let status =
            create(&Api::all(client), &review, "subjectaccessreviews").await?.status.unwrap_or_default();
        let is_allowed = status.allowed && status.denied != Some(true);
        Ok(if is_allowed { Verdict::Allowed } else { Verdict::Forbidden })
    }
}

async fn create<K>(api: &Api<K>, object: &K, what: &'static str) -> Result<K, ReviewError>
where
    K: Clone + fmt::Debug + Serialize + DeserializeOwned,
{
    api.create(&PostParams::default(), object).await.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 403 => ReviewError::Denied(what),
        error => ReviewError::Failed { what, source: Box::new(error) },
    })
}
