//! `/api/v1/evidence`: what the history has of each container, as a recording that `snug` reads.

use std::io::{self, Write};

use serde::Deserialize;
use snug_sizing::evidence::{Evidence, HOUR, Header, Hour};

use super::query::is_wanted;
use crate::{clock::unix_seconds, history::Store};

/// Where it is served.
pub const PATH: &str = "/api/v1/evidence";
/// One JSON object a line.
pub const CONTENT_TYPE: &str = "application/x-ndjson";

/// What is asked for. Absent: all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvidenceQuery {
    /// Seconds since the Unix epoch: hours that ended before are left out.
    since: Option<u64>,
    /// Seconds since the Unix epoch: hours that began at it or after are left out.
    until: Option<u64>,
    /// Only containers of exactly this namespace.
    namespace: Option<String>,
    /// Only containers of workloads of exactly this name.
    workload: Option<String>,
    /// The course of the last hours, minute by minute, too.
    minutes: bool,
}

/// What cannot be asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the query of {PATH} cannot be used: {0}; times are whole seconds since the Unix epoch, and minutes is true or false"
)]
pub struct EvidenceQueryError(String);

impl EvidenceQuery {
    /// From the query of a URL.
    ///
    /// # Errors
    /// When it has a parameter that there is not, or a time that is no number.
    pub fn parse(query: Option<&str>) -> Result<Self, EvidenceQueryError> {
        serde_urlencoded::from_str(query.unwrap_or_default())
            .map_err(|error| EvidenceQueryError(error.to_string()))
    }

    fn has_begun(&self, hour: Hour) -> bool {
        self.until.is_none_or(|until| u64::from(hour.0) * HOUR < until)
    }

    fn is_of(&self, evidence: &Evidence) -> bool {
        is_wanted(&self.namespace, Some(&evidence.workload.namespace))
            && is_wanted(&self.workload, Some(&evidence.workload.name))
    }
}

/// Writes the recording: one container after the other, so that never more than one is in memory.
///
/// # Errors
/// When the history cannot be read or nobody reads the answer.
pub fn write(history: &Store, node: &str, asked: &EvidenceQuery, out: &mut impl Write) -> io::Result<()> {
    let now = unix_seconds();
    line(&Header::new(node, now), out)?;
    let hours = history.hours();
    let since = asked.since.map_or(Hour(0), Hour::from_seconds);
    for (subject, mut records) in hours.subjects(since).map_err(io::Error::other)? {
        records.retain(|hour| asked.has_begun(hour));
        let (evidence, skipped) = hours.evidence(&records).map_err(io::Error::other)?;
        if skipped > 0 {
            tracing::warn!(subject, skipped, "records of the history cannot be understood and are left out");
        }
        if let Some(mut evidence) = evidence.filter(|evidence| asked.is_of(evidence)) {
            if asked.minutes {
                evidence.minutes = hours.minutes(&records).map_err(io::Error::other)?;
            }
            // Who was not seen for an hour has no pods now.
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
    fn what_can_be_asked() {
        assert_eq!(EvidenceQuery::parse(None), Ok(EvidenceQuery::default()));
        let asked = EvidenceQuery::parse(Some("since=7205&until=10800&namespace=shop")).unwrap();
        assert_eq!((asked.since, asked.namespace.as_deref()), (Some(7205), Some("shop")));
        assert_eq!([1, 2, 3].map(|hour| asked.has_begun(Hour(hour))), [true, true, false]);
        for (query, why) in [("since=1e9", "invalid digit"), ("from=1", "`from`"), ("until=", "cannot parse")]
        {
            let said = EvidenceQuery::parse(Some(query)).unwrap_err().to_string();
            assert!(said.contains(why) && said.contains(PATH), "{query}: {said}");
        }
    }

    #[test]
    fn only_what_is_asked_for_is_written() {
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
