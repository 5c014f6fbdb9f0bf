//! `/api/v1/…`: JSON for programs, for data that is not a time series. Within a version fields are only ever added.
//!
//! Responses are paged: a response with more rows than `limit` has the row to continue after in `next`.

mod containers;
mod events;
mod node;
mod terminations;
mod workloads;

use std::{
    borrow::Cow,
    io::{self, Write},
};

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    model::{self, Identity, Names, View, WorkloadKey},
    values::Network,
};

const VERSION: &str = "v1";
/// Rows in a response: the default and the maximum.
const USUAL_ROWS: u32 = 1000;
const MAX_ROWS: u32 = 10_000;

/// A resource of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The node, and the agent on it.
    Node,
    /// Containers that exist now.
    Containers,
    /// Counters of workloads since the agent started.
    Workloads,
    /// The last events.
    Events,
    /// The containers that terminated last.
    Terminations,
    /// The same under its previous name, for one version.
    Ends,
    /// The JSON Schema of all responses.
    Schema,
}

impl Resource {
    /// All resources.
    pub const ALL: [Self; 7] = [
        Self::Node,
        Self::Containers,
        Self::Workloads,
        Self::Events,
        Self::Terminations,
        Self::Ends,
        Self::Schema,
    ];

    /// The path of the URL.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Node => "/api/v1/node",
            Self::Containers => "/api/v1/containers",
            Self::Workloads => "/api/v1/workloads",
            Self::Events => "/api/v1/events",
            Self::Terminations => "/api/v1/terminations",
            Self::Ends => "/api/v1/ends",
            Self::Schema => "/api/v1/schema",
        }
    }

    /// The resource at a path.
    pub fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.path() == path)
    }

    /// A short description.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Node => "the node and the agent on it",
            Self::Containers => "containers that exist now",
            Self::Workloads => "counters of workloads since the agent started",
            Self::Events => "events: OOM kills, terminations, throttling, evictions, image pull failures",
            Self::Terminations => "the containers that terminated last",
            Self::Ends => "deprecated: the same as /api/v1/terminations",
            Self::Schema => "JSON Schema of the responses",
        }
    }
}

/// Why a query is rejected.
#[derive(Debug, thiserror::Error)]
#[error("invalid query of {path}: {what}")]
pub struct QueryError {
    path: &'static str,
    what: String,
}

/// A parsed request: the resource and its query.
#[derive(Clone, Debug)]
pub enum Query {
    /// [`Resource::Node`].
    Node,
    /// [`Resource::Containers`].
    Containers(RowQuery),
    /// [`Resource::Workloads`].
    Workloads(RowQuery),
    /// [`Resource::Events`].
    Events(EventQuery),
    /// [`Resource::Terminations`].
    Terminations,
    /// [`Resource::Ends`].
    Ends,
    /// [`Resource::Schema`].
    Schema,
}

/// Filters of containers or workloads. Absent: all.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RowQuery {
    namespace: Option<String>,
    workload: Option<String>,
    pod: Option<String>,
    container: Option<String>,
    /// The row to continue after: `next` of the previous response.
    after: Option<String>,
    limit: Limit,
}

/// Filters of events. Absent: all in memory.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventQuery {
    kind: Option<String>,
    namespace: Option<String>,
    pod: Option<String>,
    /// The number of the last event that the client has.
    after: u64,
    limit: Limit,
}

/// The maximum number of rows in a response.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u32")]
struct Limit(u32);

impl Default for Limit {
    fn default() -> Self {
        Self(USUAL_ROWS)
    }
}

impl TryFrom<u32> for Limit {
    type Error = String;

    fn try_from(rows: u32) -> Result<Self, String> {
        let allowed = 1..=MAX_ROWS;
        if allowed.contains(&rows) {
            Ok(Self(rows))
        } else {
            Err(format!("limit must be from 1 to {MAX_ROWS}, not {rows}"))
        }
    }
}

impl Limit {
    const fn rows(self) -> usize {
        self.0 as usize
    }
}

/// A query without parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoQuery {}

impl Query {
    /// Parses the query of a URL.
    ///
    /// # Errors
    /// When the query has an unknown parameter or an invalid value.
    pub fn parse(resource: Resource, query: Option<&str>) -> Result<Self, QueryError> {
        fn parse<Q: DeserializeOwned>(resource: Resource, query: Option<&str>) -> Result<Q, QueryError> {
            serde_urlencoded::from_str(query.unwrap_or_default())
                .map_err(|error| QueryError { path: resource.path(), what: error.to_string() })
        }
        let no_query = || parse(resource, query).map(|NoQuery {}| ());
        match resource {
            Resource::Node => no_query().map(|()| Self::Node),
            Resource::Containers => parse(resource, query).map(Self::Containers),
            Resource::Workloads => {
                let query: RowQuery = parse(resource, query)?;
                if query.pod.is_some() {
                    let what = "workloads have no pod; use /api/v1/containers".to_owned();
                    return Err(QueryError { path: resource.path(), what });
                }
                Ok(Self::Workloads(query))
            }
            Resource::Events => {
                let query: EventQuery = parse(resource, query)?;
                events::check(&query).map_err(|what| QueryError { path: resource.path(), what })?;
                Ok(Self::Events(query))
            }
            Resource::Terminations => no_query().map(|()| Self::Terminations),
            Resource::Ends => no_query().map(|()| Self::Ends),
            Resource::Schema => no_query().map(|()| Self::Schema),
        }
    }

    /// Writes the response.
    ///
    /// # Errors
    /// When writing to `out` fails, for instance because the client disconnected.
    pub fn write(&self, view: &View, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Node => to_json(out, &node::Node::new(view)),
            Self::Containers(query) => to_json(out, &containers::Containers::new(view, query)),
            Self::Workloads(query) => to_json(out, &workloads::Workloads::new(view, query)),
            Self::Events(query) => to_json(out, &events::Events::new(view, query)),
            Self::Terminations => to_json(out, &terminations::Terminations::new(view)),
            Self::Ends => to_json(out, &terminations::Ends::new(view)),
            Self::Schema => to_json(out, &schema()),
        }
    }
}

fn to_json(out: &mut impl Write, answer: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, answer)?;
    out.write_all(b"\n")
}

/// The schema of all responses, in `properties` by the last part of the path.
pub fn schema() -> Schema {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut answers = serde_json::Map::new();
    let mut add = |resource: Resource, subschema: fn(&mut SchemaGenerator) -> Schema| {
        let name = resource.path().rsplit('/').next().unwrap_or_default().to_owned();
        answers.insert(name, subschema(&mut generator).to_value());
    };
    add(Resource::Node, SchemaGenerator::subschema_for::<node::Node<'_>>);
    add(Resource::Containers, SchemaGenerator::subschema_for::<containers::Containers<'_>>);
    add(Resource::Workloads, SchemaGenerator::subschema_for::<workloads::Workloads<'_>>);
    add(Resource::Events, SchemaGenerator::subschema_for::<events::Events<'_>>);
    add(Resource::Terminations, SchemaGenerator::subschema_for::<terminations::Terminations<'_>>);
    add(Resource::Ends, SchemaGenerator::subschema_for::<terminations::Ends<'_>>);
    schemars::json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Responses of snug-agent under /api/v1/",
        "type": "object",
        "properties": answers,
        "$defs": generator.take_definitions(true),
    })
}

/// Names from pod metadata; empty if unknown.
#[derive(Debug, Serialize, JsonSchema)]
struct Who<'a> {
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    image: &'a str,
    workload_kind: Cow<'a, str>,
    workload: Cow<'a, str>,
}

impl<'a> Who<'a> {
    fn new(names: Option<&'a Names>) -> Self {
        let name = |field: fn(&Names) -> &String| names.map_or("", |names| field(names));
        Self {
            namespace: name(|names| &names.namespace),
            pod: name(|names| &names.pod),
            container: name(|names| &names.container),
            image: name(|names| &names.image),
            workload_kind: name(|names| &names.workload_kind).into(),
            workload: name(|names| &names.workload).into(),
        }
    }

    /// Also with the workload of a container outside of a pod: `Unit`, `Container` or `Cgroup`.
    fn from_identity(identity: &'a Identity) -> Self {
        let who = Self::new(identity.names.as_deref());
        match WorkloadKey::from_identity(identity).filter(|_| identity.names.is_none()) {
            Some(key) => {
                let (_, kind, name, _) = key.parts();
                Self { workload_kind: kind.to_owned().into(), workload: name.to_owned().into(), ..who }
            }
            None => who,
        }
    }
}

/// An OOM kill.
#[derive(Debug, Serialize, JsonSchema)]
struct OomKill<'a> {
    /// The cgroup whose limit was hit: `container`, `pod`, `ancestor` or `node`.
    limit: &'static str,
    usage_bytes: u64,
    limit_bytes: Option<u64>,
    victim_pid: u32,
    victim: &'a str,
}

impl<'a> OomKill<'a> {
    fn new(kill: &'a model::OomKill) -> Self {
        Self {
            limit: kill.scope.as_str(),
            usage_bytes: kill.usage_bytes,
            limit_bytes: kill.limit_bytes,
            victim_pid: kill.pid,
            victim: &kill.comm,
        }
    }
}

/// Traffic of sockets, IPv4 and IPv6 together.
#[derive(Debug, Serialize, JsonSchema)]
struct Traffic {
    receive_bytes: u64,
    receive_packets: u64,
    transmit_bytes: u64,
    transmit_packets: u64,
}

impl Traffic {
    const fn new(network: &Network) -> Self {
        let (four, six) = (network.ipv4, network.ipv6);
        Self {
            receive_bytes: four.receive_bytes + six.receive_bytes,
            receive_packets: four.receive_packets + six.receive_packets,
            transmit_bytes: four.transmit_bytes + six.transmit_bytes,
            transmit_packets: four.transmit_packets + six.transmit_packets,
        }
    }
}

fn seconds(nanos: u64) -> f64 {
    std::time::Duration::from_nanos(nanos).as_secs_f64()
}

/// The rows of a page, and the row to continue after if there are more.
fn page<T>(
    rows: impl Iterator<Item = T>,
    limit: Limit,
    id: impl Fn(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let mut rows = rows.peekable();
    let first: Vec<T> = rows.by_ref().take(limit.rows()).collect();
    let next = rows.peek().and(first.last()).map(id);
    (first, next)
}

#[cfg(test)]
mod tests;
