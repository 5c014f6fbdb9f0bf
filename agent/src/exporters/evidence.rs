//! `/api/v1/evidence`: the usage history of each container, as a snapshot that `snug` reads.

use std::io::{self, Write};

use serde::Deserialize;
use snug_sizing::evidence::{Evidence, HOUR, Header, Hour};

use super::query::matches_filter;
use crate::{clock::unix_seconds, history::Store};

/// The path of the URL.
pub const PATH: &str = "/api/v1/evidence";
/// The media type: one JSON object on each line.
pub const CONTENT_TYPE: &str = "application/x-ndjson";

/// Filters of the usage history. Absent: all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvidenceQuery {
    /// In seconds since the Unix epoch. Hours that ended earlier are left out.
    since: Option<u64>,
    /// In seconds since the Unix epoch. Hours that began at this time or later are left out.
    until: Option<u64>,
    /// Only containers in this namespace.
    namespace: Option<String>,
    /// Only containers of workloads with this name.
    workload: Option<String>,
    /// Also include values by the minute of the last hours.
    minutes: bool,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid query of {PATH}: {0}; times are whole seconds since the Unix epoch, and minutes is true or false"
)]
pub struct EvidenceQueryError(String);

impl EvidenceQuery {
    /// Parses the query of a URL.
    ///
    /// # Errors
    /// When the query has an unknown parameter or an invalid value.
    pub fn parse(query: Option<&str>) -> Result<Self, EvidenceQueryError> {
        serde_urlencoded::from_str(query.unwrap_or_default())
            .map_err(|error| EvidenceQueryError(error.to_string()))
    }

    fn has_begun(&self, hour: Hour) -> bool {
        self.until.is_none_or(|until| u64::from(hour.0) * HOUR < until)
    }

    fn is_of(&self, evidence: &Evidence) -> bool {
        matches_filter(&self.namespace, Some(&evidence.workload.namespace))
            && matches_filter(&self.workload, Some(&evidence.workload.name))
    }
}

/// Writes the snapshot, one container after the other, so that only one is in memory.
///
/// # Errors
/// When the history cannot be read, or when writing to `out` fails.
pub fn write(history: &Store, node: &str, query: &EvidenceQuery, out: &mut impl Write) -> io::Result<()> {
    let now = unix_seconds();
    line(&Header::new(node, now), out)?;
    let hours = history.hours();
    let since = query.since.map_or(Hour(0), Hour::from_seconds);
    for (subject, mut records) in hours.subjects(since).map_err(io::Error::other)? {
        records.retain(|hour| query.has_begun(hour));
        let (evidence, skipped) = hours.evidence(&records).map_err(io::Error::other)?;
        if skipped > 0 {
            tracing::warn!(
                subject,
                skipped,
                "records of the usage history cannot be decoded and are left out"
            );
        }
        if let Some(mut evidence) = evidence.filter(|evidence| query.is_of(evidence)) {
            if query.minutes {
                evidence.minutes = hours.minutes(&records).map_err(io::Error::other)?;
            }
            // A container without samples for an hour has no pods now.
            if evidence.span().is_some_and(|(_, last)| last.0.saturating_add(1) < Hour::from_seconds(now).0) {
                evidence.workload.replicas = 0;
            }
            line(&evidence, out)?;
        }
    }
    Ok(())
}

fn line(value: &impl serde::Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use snug_sizing::workload::{Container, Workload};

    use super::*;

    #[test]
    fn queries_are_parsed_and_checked() {
        assert_eq!(EvidenceQuery::parse(None), Ok(EvidenceQuery::default()));
        let query = EvidenceQuery::parse(Some("since=7205&until=10800&namespace=shop")).unwrap();
        assert_eq!((query.since, query.namespace.as_deref()), (Some(7205), Some("shop")));
        assert_eq!([1, 2, 3].map(|hour| query.has_begun(Hour(hour))), [true, true, false]);
        for (query, why) in [("since=1e9", "invalid digit"), ("from=1", "`from`"), ("until=", "cannot parse")]
        {
            let message = EvidenceQuery::parse(Some(query)).unwrap_err().to_string();
            assert!(message.contains(why) && message.contains(PATH), "{query}: {message}");
        }
    }

    #[test]
    fn only_containers_that_match_the_query_are_written() {
        let store = Store::in_memory();
        let one = |namespace: &str, name: &str, hour: u32| {
            let workload =
                Workload { namespace: namespace.to_owned(), name: name.to_owned(), ..Workload::default() };
            let mut evidence = Evidence::new(workload, Container::default(), 100);
            evidence.hour(Hour(hour)).observed = 1;
            evidence
        };
        store
            .add(&[one("shop", "web", 1), one("shop", "web", 2), one("shop", "api", 3), one("ops", "web", 2)])
            .unwrap();
        let written = |query: &str| {
            let mut out = Vec::new();
            write(&store, "node", &EvidenceQuery::parse(Some(query)).unwrap(), &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            let all: Vec<Evidence> =
                text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
            all.iter()
                .map(|one| {
                    format!("{} {:?}", one.title(), one.hours.keys().map(|hour| hour.0).collect::<Vec<_>>())
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(written("").len(), 3);
        assert_eq!(written("namespace=shop&workload=web"), ["shop/web/ [1, 2]"]);
        assert_eq!(written("since=7200&until=7201"), ["ops/web/ [2]", "shop/web/ [2]"]);
        assert_eq!(written("workload=none"), [""; 0]);
    }
}
