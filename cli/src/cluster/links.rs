//! Connections to the agents of a cluster that stay open between requests.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt as _, stream};
use kube::Client;
use tokio::time::timeout;

use super::{
    AT_ONCE, AgentPod, Cluster, ClusterError, agents,
    forward::{self, Connection, ForwardError},
};

/// The agents of a cluster, by node.
pub struct AgentLinks {
    // The connections end before the runtime of the cluster does.
    links: BTreeMap<String, Link>,
    cluster: Cluster,
}

struct Link {
    agent: AgentPod,
    connection: Option<Connection>,
}

impl AgentLinks {
    /// Finds the agents.
    ///
    /// # Errors
    /// When there are none, or pods cannot be listed.
    pub fn open(cluster: Cluster) -> Result<Self, ClusterError> {
        let mut links = Self { links: BTreeMap::new(), cluster };
        links.refresh()?;
        Ok(links)
    }

    /// Finds the agents again. Connections to those that are still there stay open.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn refresh(&mut self) -> Result<(), ClusterError> {
        let found = self.cluster.runtime.block_on(agents(&self.cluster.client))?;
        let mut before = std::mem::take(&mut self.links);
        for agent in found {
            let known = before.remove(&agent.node).filter(|link| link.agent == agent);
            let link = known.unwrap_or_else(|| Link { agent: agent.clone(), connection: None });
            self.links.insert(agent.node, link);
        }
        // Connections may only be closed where the runtime is.
        let _entered = self.cluster.runtime.enter();
        drop(before);
        Ok(())
    }

    /// Requests a path of all agents. Results by node; an agent that takes longer than `within` has none.
    pub fn get_all(&mut self, path: &str, within: Duration) -> Vec<(String, Result<Vec<u8>, ClusterError>)> {
        let Self { links, cluster } = self;
        let client = &cluster.client;
        let mut pending = Vec::new();
        for (node, link) in links.iter_mut() {
            pending.push(async move { (node.clone(), link.get_within(client, path, within).await) });
        }
        cluster.runtime.block_on(stream::iter(pending).buffer_unordered(AT_ONCE).collect())
    }

    /// Requests a path of the agent on a node.
    ///
    /// # Errors
    /// When the node has no agent, or it does not respond.
    pub fn get(&mut self, node: &str, path: &str, within: Duration) -> Result<Vec<u8>, ClusterError> {
        let link = self.links.get_mut(node).ok_or(ClusterError::NoAgents)?;
        self.cluster.runtime.block_on(link.get_within(&self.cluster.client, path, within))
    }

    /// The connection to the API server.
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for AgentLinks {
    fn drop(&mut self) {
        let _entered = self.cluster.runtime.enter();
        self.links.clear();
    }
}

impl Link {
    async fn get_within(
        &mut self,
        client: &Client,
        path: &str,
        within: Duration,
    ) -> Result<Vec<u8>, ClusterError> {
        match timeout(within, self.get(client, path)).await {
            Ok(response) => response,
            Err(_) => {
                self.connection = None;
                Err(forward::failed(&self.agent, ForwardError::Late(within)))
            }
        }
    }

    async fn get(&mut self, client: &Client, path: &str) -> Result<Vec<u8>, ClusterError> {
        // An open connection may have been closed since the last request; that is not an error of the agent.
        if let Some(connection) = &mut self.connection
            && let Ok(body) = connection.get(path).await
        {
            return Ok(body);
        }
        self.connection = None;
        let mut connection = Connection::open(client, &self.agent).await?;
        let body = connection.get(path).await.map_err(|source| forward::failed(&self.agent, source))?;
        self.connection = Some(connection);
        Ok(body)
    }
}
