//! The agents that the view is of: requests to all of them, and which of them respond.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Error, Result, anyhow};
use snug_client::{
    agent::Agent,
    http::{self, RootCertificates},
};

use super::{
    api::{self, Containers},
    details::{self, Details},
    rows::{self, ContainerRow},
    state::{AgentStatus, Picture},
    usage_history::UsageHistory,
};
use crate::cluster::{AgentLinks, Cluster};

/// Time that a response may take. An agent that hangs delays the whole view.
const WITHIN: Duration = Duration::from_secs(5);
/// Time between two lists of the agents and of the selected pods.
const LIST_INTERVAL: Duration = Duration::from_secs(30);
/// Time between two requests for the usage history.
const HISTORY_INTERVAL: Duration = Duration::from_secs(30);
/// How long an agent that came back is shown as such.
const SHOWN_BACK: Duration = Duration::from_secs(20);
/// An agent that is not listed any more is forgotten after this time: its node may be gone for good.
const FORGET: Duration = Duration::from_secs(600);
/// Why an agent that is not listed does not respond.
const UNLISTED: &str = "the node has no running agent";
/// Upper bound of a response.
const MAX_BYTES: u64 = 256 << 20;

/// Which containers are selected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Namespaces; empty for all.
    pub(crate) namespaces: Vec<String>,
    /// A label selector of pods; needs a cluster.
    pub(crate) labels: Option<String>,
}

enum AgentClients {
    /// Addresses and clients.
    Agents(Vec<(String, Agent)>),
    Cluster(Box<AgentLinks>),
}

/// What is known of an agent.
struct Tracked {
    /// Name of its node, once it has responded.
    node: Option<String>,
    before: Option<(Containers, Instant)>,
    rows: Vec<ContainerRow>,
    interval_seconds: f64,
    /// When it responded last, or was first requested.
    last_response: Instant,
    /// Why it does not respond.
    away: Option<String>,
    /// When it came back, and after how many seconds.
    back: Option<(Instant, u64)>,
    history: Option<(UsageHistory, Instant)>,
}

/// The agents.
pub(crate) struct Fleet {
    source: AgentClients,
    selection: Selection,
    /// Time of the plot of CPU usage.
    last: Option<Duration>,
    /// By address, or by node in a cluster.
    tracked: BTreeMap<String, Tracked>,
    /// Namespaces and names of the pods with the selected labels.
    pods: Option<BTreeSet<(String, String)>>,
    listed: Instant,
}

impl Fleet {
    /// The agents at these addresses.
    pub(crate) fn of_agents(addresses: &[String], trust: &RootCertificates, selection: Selection) -> Self {
        let agent =
            |address: &String| (http::without_password(address), Agent::with_timeout(address, trust, WITHIN));
        Self::new(AgentClients::Agents(addresses.iter().map(agent).collect()), selection)
    }

    /// The agents of a cluster.
    pub(crate) fn of_cluster(cluster: Cluster, selection: Selection) -> Result<Self> {
        let mut fleet = Self::new(AgentClients::Cluster(Box::new(AgentLinks::open(cluster)?)), selection);
        fleet.list_pods()?;
        Ok(fleet)
    }

    fn new(source: AgentClients, selection: Selection) -> Self {
        let listed = Instant::now();
        Self { source, selection, last: None, tracked: BTreeMap::new(), pods: None, listed }
    }

    /// Also reads the CPU usage of the last `last`.
    pub(crate) fn with_history(self, last: Option<Duration>) -> Self {
        Self { last, ..self }
    }

    fn list_pods(&mut self) -> Result<()> {
        if let (Some(labels), AgentClients::Cluster(links)) = (&self.selection.labels, &self.source) {
            self.pods = Some(links.cluster().pods(labels)?.into_iter().collect());
        }
        Ok(())
    }

    /// Requests the containers of all agents.
    ///
    /// # Errors
    /// When no agent has ever responded.
    pub(crate) fn poll(&mut self) -> Result<Picture> {
        if self.listed.elapsed() >= LIST_INTERVAL {
            // If that fails, the view goes on with what was listed before.
            let _ = self.list_pods();
            if let AgentClients::Cluster(links) = &mut self.source {
                let _ = links.refresh();
            }
            self.listed = Instant::now();
        }
        let mut failure = None;
        let mut silent: BTreeSet<String> = self.tracked.keys().cloned().collect();
        for (name, response) in self.request() {
            silent.remove(&name);
            let tracked = self.tracked.entry(name.clone()).or_insert_with(Tracked::new);
            match response {
                Ok(containers) => tracked.take(containers),
                Err(error) => {
                    tracked.lose(&crate::columns::message(&error));
                    failure = failure.or(Some(error.context(name)));
                }
            }
        }
        for name in silent {
            if let Some(tracked) = self.tracked.get_mut(&name) {
                tracked.lose(UNLISTED);
            }
        }
        self.tracked.retain(|_, tracked| tracked.last_response.elapsed() < FORGET || tracked.is_listed());
        let count = self.tracked.len();
        if self.tracked.values().all(|tracked| tracked.node.is_none()) {
            let failure = failure.unwrap_or_else(|| anyhow!("there are no agents"));
            return Err(if count > 1 {
                failure.context(format!("none of {count} agents responded"))
            } else {
                failure
            });
        }
        self.read_histories();
        Ok(self.picture())
    }

    fn request(&mut self) -> Vec<(String, Result<Containers>)> {
        let namespace = match self.selection.namespaces.as_slice() {
            [one] => Some(one.as_str()),
            _ => None,
        };
        let first = api::containers_path(namespace, None);
        let bodies: Vec<(String, Result<Vec<u8>>)> = match &mut self.source {
            AgentClients::Agents(agents) => thread::scope(|scope| {
                let first = &first;
                let threads: Vec<_> = agents
                    .iter()
                    .map(|(name, agent)| (name.clone(), scope.spawn(move || get(agent, first))))
                    .collect();
                let join = |(name, thread): (String, thread::ScopedJoinHandle<'_, _>)| {
                    (name, thread.join().unwrap_or_else(|_| Err(anyhow!("the request panicked"))))
                };
                threads.into_iter().map(join).collect()
            }),
            AgentClients::Cluster(links) => {
                let all = links.get_all(&first, WITHIN).into_iter();
                all.map(|(node, body)| (node, body.map_err(Error::from))).collect()
            }
        };
        let namespace = namespace.map(str::to_owned);
        let mut complete = |name: &str, body: Result<Vec<u8>>| -> Result<Containers> {
            let mut all: Containers = parse(&body?)?;
            while let Some(after) = all.next.take() {
                let path = api::containers_path(namespace.as_deref(), Some(&after));
                let page: Containers = parse(&self.get(name, &path)?)?;
                all.containers.extend(page.containers);
                all.next = page.next;
            }
            Ok(all)
        };
        bodies
            .into_iter()
            .map(|(name, body)| {
                let all = complete(&name, body);
                (name, all)
            })
            .collect()
    }

    /// The body of the response of one agent.
    fn get(&mut self, name: &str, path: &str) -> Result<Vec<u8>> {
        match &mut self.source {
            AgentClients::Agents(agents) => {
                let agent = agents.iter().find(|(other, _)| other == name);
                get(&agent.context("there is no such agent")?.1, path)
            }
            AgentClients::Cluster(links) => Ok(links.get(name, path, WITHIN)?),
        }
    }

    /// Requests the details of a container of its agent.
    pub(crate) fn details(&mut self, row: &ContainerRow) -> Details {
        let is_its = |(_, tracked): &(&String, &Tracked)| {
            tracked.node.as_ref() == Some(&row.node) && tracked.rows.iter().any(|other| other.id == row.id)
        };
        let name = self.tracked.iter().find(is_its).map(|(name, _)| name.clone());
        details::request(row, now(), |path| match &name {
            Some(name) => self.get(name, path).map_err(|error| crate::columns::message(&error)),
            None => Err("the container is gone".to_owned()),
        })
    }

    fn read_histories(&mut self) {
        let Some(last) = self.last else { return };
        let is_due = |history: &Option<(UsageHistory, Instant)>| {
            history.as_ref().is_none_or(|(_, at)| at.elapsed() >= HISTORY_INTERVAL)
        };
        let due =
            self.tracked.iter().filter(|(_, tracked)| tracked.away.is_none() && is_due(&tracked.history));
        for name in due.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            let now = now();
            let body = self.get(&name, &UsageHistory::path(now, last));
            let history = body.and_then(|body| UsageHistory::read(&body, now, last));
            if let Some(tracked) = self.tracked.get_mut(&name) {
                // An agent without a history has an empty plot.
                let history = history.unwrap_or_else(|_| UsageHistory::empty(now, last));
                tracked.history = Some((history, Instant::now()));
            }
        }
    }

    fn picture(&self) -> Picture {
        let mut picture = Picture::default();
        for (name, tracked) in &self.tracked {
            let rows = tracked.rows.iter().filter(|row| self.is_selected(row));
            picture.rows.extend(rows.map(|row| ContainerRow {
                is_stale: tracked.away.is_some(),
                cpu_history_cores: tracked.history.as_ref().map(|(history, _)| history.cores(row)),
                ..row.clone()
            }));
            picture.agents.push(tracked.status(name));
            picture.interval_seconds = picture.interval_seconds.max(tracked.interval_seconds);
        }
        picture
    }

    fn is_selected(&self, row: &ContainerRow) -> bool {
        let namespaces = &self.selection.namespaces;
        let has_labels =
            |pods: &BTreeSet<(String, String)>| pods.contains(&(row.namespace.clone(), row.pod.clone()));
        (namespaces.is_empty() || namespaces.contains(&row.namespace))
            && self.pods.as_ref().is_none_or(has_labels)
    }

    /// Containers of all agents, selected or not.
    pub(crate) fn known(&self) -> usize {
        self.tracked.values().map(|tracked| tracked.rows.len()).sum()
    }
}

impl Tracked {
    fn new() -> Self {
        Self {
            node: None,
            before: None,
            rows: Vec::new(),
            interval_seconds: 0.0,
            last_response: Instant::now(),
            away: None,
            back: None,
            history: None,
        }
    }

    /// Takes a response.
    fn take(&mut self, containers: Containers) {
        let now = Instant::now();
        if self.away.take().is_some() && self.node.is_some() {
            self.back = Some((now, self.last_response.elapsed().as_secs()));
        }
        self.last_response = now;
        self.node = Some(containers.node.clone());
        let (before, seconds) = match &self.before {
            Some((before, at)) => {
                let ours = now.saturating_duration_since(*at).as_secs_f64();
                (Some(before), rows::seconds(before, &containers, ours))
            }
            None => (None, 0.0),
        };
        // The same measurement again has no rates; those of the last one still hold.
        if before.is_none() || seconds > 0.0 {
            self.rows = rows::between(before, &containers, seconds);
            self.interval_seconds = seconds;
            self.before = Some((containers, now));
        }
    }

    fn lose(&mut self, why: &str) {
        self.back = None;
        self.away = Some(why.to_owned());
    }

    /// Whether its last request failed by itself, not because the agent is not listed.
    fn is_listed(&self) -> bool {
        self.away.as_deref() != Some(UNLISTED)
    }

    fn status(&self, name: &str) -> AgentStatus {
        let back = self.back.filter(|(at, _)| at.elapsed() < SHOWN_BACK);
        AgentStatus {
            name: self.node.clone().unwrap_or_else(|| name.to_owned()),
            away: self.away.clone().map(|why| (self.last_response.elapsed().as_secs(), why)),
            back_after: back.map(|(_, seconds)| seconds),
        }
    }
}

fn get(agent: &Agent, path: &str) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let response = agent.get(path)?;
    response.take(MAX_BYTES).read_to_end(&mut body).context("the response is incomplete")?;
    Ok(body)
}

fn parse(body: &[u8]) -> Result<Containers> {
    api::parse(body).context("the response is no list of containers; is the server a snug-agent?")
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::api::Container;

    fn response(at: f64, cpu_seconds: f64) -> Containers {
        let container =
            Container { id: "/a".to_owned(), cpu_seconds: Some(cpu_seconds), ..Container::default() };
        Containers { node: "n".to_owned(), at: Some(at), containers: vec![container], next: None }
    }

    #[test]
    fn an_agent_goes_away_and_comes_back() {
        let mut tracked = Tracked::new();
        assert_eq!(
            tracked.status("http://a"),
            AgentStatus { name: "http://a".to_owned(), ..AgentStatus::default() }
        );
        tracked.take(response(1.0, 1.0));
        assert_eq!(tracked.rows[0].cpu_cores, None);
        tracked.take(response(3.0, 2.0));
        assert_eq!((tracked.rows[0].cpu_cores, tracked.interval_seconds), (Some(0.5), 2.0));
        // The same measurement again.
        tracked.take(response(3.0, 2.0));
        assert_eq!(tracked.rows[0].cpu_cores, Some(0.5));
        tracked.lose("gone");
        let status = tracked.status("http://a");
        assert_eq!((status.name.as_str(), status.away), ("n", Some((0, "gone".to_owned()))));
        tracked.take(response(7.0, 4.0));
        let status = tracked.status("http://a");
        assert_eq!((status.away, status.back_after), (None, Some(0)));
        assert_eq!(tracked.rows[0].cpu_cores, Some(0.5));
    }
}
