//! Requests to agents through a port that the API server forwards to the loopback interface of their pods.
//!
//! The agent cannot know who sends such a request: the API server decides, by the permission on `pods/portforward`.

use std::time::Duration;

use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{ACCEPT_ENCODING, HOST},
};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::Portforwarder};
use tokio::{task::JoinHandle, time::timeout};

use super::{AgentPod, ClusterError};
use crate::evidence::MAX_RESPONSE_BYTES;

/// Timeout of each step: the connection, the head of the response, and each part of its body.
const STEP: Duration = Duration::from_secs(30);

/// Why an agent gives no response through a forwarded port.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The node cannot connect to the port.
    #[error(
        "nothing accepts connections on port {port} of the pod's loopback interface ({why}); the agent listens there unless \
         its option `listen` is off, which is the default with the host's network"
    )]
    Refused { port: u16, why: String },
    /// The connection broke.
    #[error("the connection to the agent broke")]
    Broken(#[source] hyper::Error),
    /// No progress.
    #[error("the agent sent nothing for {STEP:?}")]
    Timeout,
    /// No response so far.
    #[error("the agent did not respond within {0:?}")]
    Late(Duration),
    /// More than any agent has.
    #[error("the response is larger than {MAX_RESPONSE_BYTES} bytes")]
    TooLarge,
    /// An unexpected HTTP status.
    #[error("the agent responds with status {0}; is it at least as new as this command?")]
    Status(StatusCode),
}

/// The body of a response of an agent, over a connection of its own.
pub(super) async fn get(client: &Client, agent: &AgentPod, path: &str) -> Result<Vec<u8>, ClusterError> {
    let mut connection = Connection::open(client, agent).await?;
    connection.get(path).await.map_err(|source| failed(agent, source))
}

/// The error of an agent that does not respond.
pub(super) fn failed(agent: &AgentPod, source: ForwardError) -> ClusterError {
    ClusterError::Agent { what: what(agent), source }
}

fn what(agent: &AgentPod) -> String {
    format!("a forwarded port of {}/{}", agent.namespace, agent.name)
}

/// A connection to an agent through a forwarded port, for one request after the other.
pub(super) struct Connection {
    forwarder: Portforwarder,
    sender: http1::SendRequest<Empty<Bytes>>,
    task: JoinHandle<Result<(), hyper::Error>>,
    /// The reason why the connection breaks comes on a channel of its own.
    refusal: Option<BoxFuture<'static, Option<String>>>,
    port: u16,
}

impl Connection {
    /// Has the port forwarded. Whether something listens on it is known only after a request.
    pub(super) async fn open(client: &Client, agent: &AgentPod) -> Result<Self, ClusterError> {
        let AgentPod { namespace, name, port, .. } = agent;
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let forwarded = timeout(STEP, pods.portforward(name, &[*port])).await;
        let mut forwarder = match forwarded {
            Err(_) => return Err(failed(agent, ForwardError::Timeout)),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                let what = format!("pods/portforward in the namespace {namespace}");
                return Err(ClusterError::Denied { verb: "get and create", what });
            }
            Ok(Err(error)) => {
                return Err(ClusterError::Failed { what: what(agent), source: Box::new(error) });
            }
            Ok(Ok(forwarder)) => forwarder,
        };
        // Each is there once.
        let (Some(stream), Some(refusal)) = (forwarder.take_stream(*port), forwarder.take_error(*port))
        else {
            return Err(failed(agent, ForwardError::Timeout));
        };
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(agent, ForwardError::Broken(error)))?;
        let task = tokio::spawn(connection);
        Ok(Self { forwarder, sender, task, refusal: Some(Box::pin(refusal)), port: *port })
    }

    /// The body of the response for a path. After an error the connection is of no use any more.
    pub(super) async fn get(&mut self, path: &str) -> Result<Vec<u8>, ForwardError> {
        // The reader detects gzip by the first bytes.
        let request = Request::get(path).header(HOST, "localhost").header(ACCEPT_ENCODING, "gzip");
        let request = request.body(Empty::<Bytes>::new()).unwrap_or_default();
        let exchange = async {
            let sent = timeout(STEP, self.sender.send_request(request)).await;
            read(sent.map_err(|_| ForwardError::Timeout)?.map_err(ForwardError::Broken)?).await
        };
        match (exchange.await, self.refusal.take()) {
            (Err(ForwardError::Broken(error)), Some(refusal)) => {
                match timeout(Duration::from_secs(1), refusal).await {
                    Ok(Some(why)) => {
                        Err(ForwardError::Refused { port: self.port, why: why.trim().to_owned() })
                    }
                    _ => Err(ForwardError::Broken(error)),
                }
            }
            (response, refusal) => {
                self.refusal = refusal;
                response
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
        self.forwarder.abort();
    }
}

async fn read(response: Response<Incoming>) -> Result<Vec<u8>, ForwardError> {
    if response.status() != StatusCode::OK {
        return Err(ForwardError::Status(response.status()));
    }
    let (mut rest, mut body) = (response.into_body(), Vec::new());
    while let Some(frame) = timeout(STEP, rest.frame()).await.map_err(|_| ForwardError::Timeout)? {
        if let Ok(data) = frame.map_err(ForwardError::Broken)?.into_data() {
            body.extend_from_slice(&data);
            if body.len() as u64 > MAX_RESPONSE_BYTES {
                return Err(ForwardError::TooLarge);
            }
        }
    }
    Ok(body)
}
