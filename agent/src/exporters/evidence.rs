//! `/api/v1/evidence`: what the history has of each container, as a recording that `snug` reads.

use std::io::{self, Write};

use snug_sizing::evidence::{Header, Hour};

use crate::{clock::unix_seconds, history::Store};

/// Where it is served.
pub const PATH: &str = "/api/v1/evidence";
/// One JSON object a line.
pub const CONTENT_TYPE: &str = "application/x-ndjson";

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The first hour.
    since: Hour,
}

/// What cannot be asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskedError {
    /// A parameter that there is not.
    #[error("there is no parameter {0:?}; there is since=<seconds since the Unix epoch>")]
    Unknown(String),
    /// Not a time.
    #[error("since={0:?} is not a whole number of seconds since the Unix epoch")]
    Since(String),
}

impl Asked {
    /// From the query of a URL.
    ///
    /// # Errors
    /// When it has another parameter than `since`, or that is no number.
    pub fn parse(query: Option<&str>) -> Result<Self, AskedError> {
        let mut asked = Self::default();
        for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if name != "since" {
                return Err(AskedError::Unknown(name.to_owned()));
            }
            let seconds = value.parse().map_err(|_| AskedError::Since(value.to_owned()))?;
            asked.since = Hour::of(seconds);
        }
        Ok(asked)
    }
}

/// Writes the recording: one container after the other, so that never more than one is in memory.
///
/// # Errors
/// When the history cannot be read or nobody reads the answer.
pub fn write(history: &Store, node: &str, asked: &Asked, out: &mut impl Write) -> io::Result<()> {
    let now = unix_seconds();
    line(&Header::new(node, now), out)?;
    let hours = history.hours().map_err(io::Error::other)?;
    for (subject, of_subject) in hours.subjects(asked.since).map_err(io::Error::other)? {
        let (evidence, skipped) = hours.evidence(&subject, &of_subject).map_err(io::Error::other)?;
        if skipped > 0 {
            tracing::warn!(subject, skipped, "records of the history cannot be understood and are left out");
        }
        if let Some(mut evidence) = evidence {
            // Who was not seen for an hour has no pods now.
            if evidence.span().is_some_and(|(_, last)| last.0.saturating_add(1) < Hour::of(now).0) {
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
    use super::*;

    #[test]
    fn what_can_be_asked() {
        assert_eq!(Asked::parse(None), Ok(Asked { since: Hour(0) }));
        assert_eq!(Asked::parse(Some("since=7205")), Ok(Asked { since: Hour(2) }));
        assert_eq!(Asked::parse(Some("since=1e9")), Err(AskedError::Since("1e9".to_owned())));
        assert_eq!(Asked::parse(Some("from=1")), Err(AskedError::Unknown("from".to_owned())));
    }
}
