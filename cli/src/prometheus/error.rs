//! Why the history cannot be read from a Prometheus-compatible server. Each message names the remedy.

use std::{fmt, time::Duration};

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// The connection failed or broke.
    #[error(
        "cannot reach Prometheus at {base}: {source}; is the address right, and can it be reached from here?"
    )]
    Unreachable { base: String, source: Box<ureq::Error> },
    /// An unexpected HTTP status.
    #[error("{base} responds to a query with status {status}: {text}; {}", remedy(*status))]
    Status {
        base: String,
        status: u16,
        /// The beginning of the response.
        text: String,
    },
    /// A query is larger than the server allows, even for the shortest part of the history.
    #[error(
        "a query is too large for {base}, even for {part}: {text}; select less with -n NAMESPACE, --match or a shorter --since, \
         or raise the server's limits on samples, series and query time", part = Part(*seconds)
    )]
    TooLarge {
        base: String,
        /// The shortest part that was requested, in seconds.
        seconds: u64,
        /// The beginning of the response.
        text: String,
    },
    /// The server stays overloaded, or limits the number of requests.
    #[error(
        "{base} {what} after {} of pauses: {text}; it is overloaded or limits requests: try again later, \
         or select less with -n NAMESPACE or a shorter --since", Part(waited.as_secs())
    )]
    Overloaded {
        base: String,
        /// What it does, such as `responds with status 503`.
        what: String,
        /// How long all pauses were.
        waited: Duration,
        /// The beginning of the response.
        text: String,
    },
    /// A web page in place of a result.
    #[error(
        "{base} responds with a web page{}, not with a query result: it may be a login page; set --header 'Authorization: …', \
         or use an address behind the login; --prometheus takes the address without /api/v1",
        Title(title)
    )]
    WebPage {
        base: String,
        /// Title of the page; empty without one.
        title: String,
    },
    /// A redirection in place of a result.
    #[error(
        "{base} redirects queries to {location}: if that is a login page, set --header 'Authorization: …' or use an address behind \
         the login; else use that address, without /api/v1, for --prometheus"
    )]
    Redirected { base: String, location: String },
    /// A response that is not a query result.
    #[error("the response of {base} is not that of a Prometheus query API: {source}")]
    Response { base: String, source: serde_json::Error },
    /// The server says that data is missing from its result.
    #[error(
        "{base} says that its result is partial: {why}; recommendations from a part of the data may be too low: repair the server, \
         or accept them with --allow-partial"
    )]
    Partial {
        base: String,
        /// What the server says.
        why: String,
    },
    /// The necessary metrics are missing.
    #[error(
        "{base} has no {metric} of containers{matching} in the last 15 minutes; scrape /metrics/cadvisor of the kubelets or of the agents"
    )]
    NoContainers {
        base: String,
        metric: &'static str,
        /// The selection, or nothing.
        matching: String,
    },
    /// A namespace without containers.
    #[error("{base} has no containers in a namespace {name:?}{}", Suggestions(suggestions))]
    NoNamespace {
        base: String,
        name: String,
        /// Similar namespaces that exist.
        suggestions: Vec<String>,
    },
    /// The series are of several clusters.
    #[error(
        "the metrics of {base} are of several clusters, and no label tells all of them apart; select one with {}, or name the label \
         that has a value for each of them with --cluster-label",
        Choices(choices)
    )]
    SeveralClusters {
        base: String,
        /// Matchers, one per cluster.
        choices: Vec<String>,
    },
    /// Containers of the same name that are not the same container.
    #[error(
        "{base} has several containers {container}, which differ in {labels}: these may be several clusters; select one with {}",
        Choices(choices)
    )]
    Ambiguous {
        base: String,
        /// Namespace, pod and name of one of them.
        container: String,
        /// The labels in which their series differ.
        labels: String,
        /// Matchers that tell the series apart.
        choices: Vec<String>,
    },
}

/// Names of choices in a message; more are cut off.
const MAX_CHOICES: usize = 20;

fn remedy(status: u16) -> &'static str {
    match status {
        401 | 403 | 407 => {
            "set authentication or the tenant with --header, such as --header 'Authorization: Bearer …'"
        }
        404 | 405 => "--prometheus takes the address without /api/v1, with the path before it",
        400 | 422 => "the server does not accept this query: it may lack a function of PromQL",
        _ => "look into the log of the server, or try again later",
    }
}

struct Part(u64);

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("one moment"),
            seconds => humantime::format_duration(Duration::from_secs(seconds)).fmt(f),
        }
    }
}

struct Title<'a>(&'a str);

impl fmt::Display for Title<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({:?})", self.0) }
    }
}

struct Suggestions<'a>(&'a [String]);

impl fmt::Display for Suggestions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            names => write!(f, "; did you mean {}?", names.join(" or ")),
        }
    }
}

struct Choices<'a>(&'a [String]);

impl fmt::Display for Choices<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, choice) in self.0.iter().take(MAX_CHOICES).enumerate() {
            write!(f, "{}--match '{choice}'", if number > 0 { " or " } else { "" })?;
        }
        match self.0.len().saturating_sub(MAX_CHOICES) {
            0 => Ok(()),
            more => write!(f, " or {more} others"),
        }
    }
}
