//! `/api/v1/…`: what a program asks that is no time series. JSON; within a version fields are only ever added.
//!
//! Answers are bounded: what has more rows than `limit` says after which row to go on.

mod containers;
mod events;
mod node;
mod terminations;
mod workloads;

use std::io::{self, Write};

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    model::{self, Names, View},
    values::Network,
};

const VERSION: &str = "v1";
/// Rows of an answer: by default, and at most.
const USUAL_ROWS: u32 = 1000;
const MAX_ROWS: u32 = 10_000;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The node, and the agent on it.
    Node,
    /// Containers that exist now.
    Containers,
    /// What workloads did since the agent started.
    Workloads,
    /// What happened.
    Events,
    /// Containers that terminated last.
    Terminations,
    /// The same under its former name, for one version.
    Ends,
    /// The form of all of these.
    Schema,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Node,
        Self::Containers,
        Self::Workloads,
        Self::Events,
        Self::Terminations,
        Self::Ends,
        Self::Schema,
    ];

    /// Where it is served.
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

    /// What is served at a path.
    pub fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.path() == path)
    }

    /// What it is, in a few words.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Node => "the node and its agent",
            Self::Containers => "containers that exist now",
            Self::Workloads => "what workloads did since the agent started",
            Self::Events => "what happened: OOM kills, terminations, throttling, evictions, missing images",
            Self::Terminations => "containers that terminated last",
            Self::Ends => "deprecated: the same as /api/v1/terminations",
            Self::Schema => "JSON Schema of these answers",
        }
    }
}

/// Why a query is refused.
#[derive(Debug, thiserror::Error)]
#[error("the query of {path} cannot be used: {what}")]
pub struct QueryError {
    path: &'static str,
    what: String,
}

/// A resource, and what of it is asked for.
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

/// Which containers or workloads. Absent: all.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RowQuery {
    namespace: Option<String>,
    workload: Option<String>,
    pod: Option<String>,
    container: Option<String>,
    /// The row to go on after: `next` of the answer before.
    after: Option<String>,
    limit: Limit,
}

/// Which events. Absent: all that are remembered.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventQuery {
    kind: Option<String>,
    namespace: Option<String>,
    pod: Option<String>,
    /// The number of the last event that is known already.
    after: u64,
    limit: Limit,
}

/// Rows of one answer.
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
            Err(format!("limit is from 1 to {MAX_ROWS}, not {rows}"))
        }
    }
}

impl Limit {
    const fn rows(self) -> usize {
        self.0 as usize
    }
}

/// Nothing can be asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoQuery {}

impl Query {
    /// What a URL asks for.
    ///
    /// # Errors
    /// When the query has a parameter that there is not, or a value that it cannot have.
    pub fn parse(resource: Resource, query: Option<&str>) -> Result<Self, QueryError> {
        fn of<Q: DeserializeOwned>(resource: Resource, query: Option<&str>) -> Result<Q, QueryError> {
            serde_urlencoded::from_str(query.unwrap_or_default())
                .map_err(|error| QueryError { path: resource.path(), what: error.to_string() })
        }
        let no_query = || of(resource, query).map(|NoQuery {}| ());
        match resource {
            Resource::Node => no_query().map(|()| Self::Node),
            Resource::Containers => of(resource, query).map(Self::Containers),
            Resource::Workloads => {
                let asked: RowQuery = of(resource, query)?;
                if asked.pod.is_some() {
                    let what = "workloads have no pod; ask for containers".to_owned();
                    return Err(QueryError { path: resource.path(), what });
                }
                Ok(Self::Workloads(asked))
            }
            Resource::Events => {
                let asked: EventQuery = of(resource, query)?;
                events::check(&asked).map_err(|what| QueryError { path: resource.path(), what })?;
                Ok(Self::Events(asked))
            }
            Resource::Terminations => no_query().map(|()| Self::Terminations),
            Resource::Ends => no_query().map(|()| Self::Ends),
            Resource::Schema => no_query().map(|()| Self::Schema),
        }
    }

    /// Writes the answer.
    ///
    /// # Errors
    /// When nobody reads it.
    pub fn write(&self, published: &View, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Node => to_json(out, &node::Node::of(published)),
            Self::Containers(asked) => to_json(out, &containers::Containers::of(published, asked)),
            Self::Workloads(asked) => to_json(out, &workloads::Workloads::of(published, asked)),
            Self::Events(asked) => to_json(out, &events::Events::of(published, asked)),
            Self::Terminations => to_json(out, &terminations::Terminations::new(published)),
            Self::Ends => to_json(out, &terminations::Ends::new(published)),
            Self::Schema => to_json(out, &schema()),
        }
    }
}

fn to_json(out: &mut impl Write, answer: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, answer)?;
    out.write_all(b"\n")
}

/// The schema of all answers: under `properties`, by the last part of the path.
pub fn schema() -> Schema {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut answers = serde_json::Map::new();
    let mut add = |resource: Resource, of: fn(&mut SchemaGenerator) -> Schema| {
        let name = resource.path().rsplit('/').next().unwrap_or_default().to_owned();
        answers.insert(name, of(&mut generator).to_value());
    };
    add(Resource::Node, SchemaGenerator::subschema_for::<node::Node<'_>>);
    add(Resource::Containers, SchemaGenerator::subschema_for::<containers::Containers<'_>>);
    add(Resource::Workloads, SchemaGenerator::subschema_for::<workloads::Workloads<'_>>);
    add(Resource::Events, SchemaGenerator::subschema_for::<events::Events<'_>>);
    add(Resource::Terminations, SchemaGenerator::subschema_for::<terminations::Terminations<'_>>);
    add(Resource::Ends, SchemaGenerator::subschema_for::<terminations::Ends<'_>>);
    schemars::json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Answers of snug-agent below /api/v1/",
        "type": "object",
        "properties": answers,
        "$defs": generator.take_definitions(true),
    })
}

/// What pod metadata tells; empty where nothing does.
#[derive(Debug, Serialize, JsonSchema)]
struct Who<'a> {
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    image: &'a str,
    workload_kind: &'a str,
    workload: &'a str,
}

impl<'a> Who<'a> {
    fn of(names: Option<&'a Names>) -> Self {
        let name = |of: fn(&Names) -> &String| names.map_or("", |names| of(names));
        Self {
            namespace: name(|names| &names.namespace),
            pod: name(|names| &names.pod),
            container: name(|names| &names.container),
            image: name(|names| &names.image),
            workload_kind: name(|names| &names.workload_kind),
            workload: name(|names| &names.workload),
        }
    }
}

/// An OOM kill.
#[derive(Debug, Serialize, JsonSchema)]
struct OomKill<'a> {
    /// Whose limit: `container`, `pod`, `ancestor` or `node`.
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

/// What went through sockets, both versions of IP together.
#[derive(Debug, Serialize, JsonSchema)]
struct Traffic {
    receive_bytes: u64,
    receive_packets: u64,
    transmit_bytes: u64,
    transmit_packets: u64,
}

impl Traffic {
    const fn of(network: &Network) -> Self {
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

/// The first rows, and after which to go on if there are more.
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
