//! Answers of Prometheus as functions over bytes, for the fuzz targets.

use crate::evidence::Snapshot;

use super::{
    client::QueryResponse,
    error::PrometheusError,
    gather,
    matcher::Selection,
    query::{At, Query, QueryApi, Series, time},
    reader::Reader,
};

/// A server that answers all queries alike.
struct SameAnswer(Vec<Series>);

impl QueryApi for SameAnswer {
    fn base(&self) -> &str {
        "http://prometheus"
    }

    fn now(&self) -> Result<u64, PrometheusError> {
        Ok(time(&self.0))
    }

    fn query(&self, _: &Query, _: At) -> Result<Vec<Series>, PrometheusError> {
        Ok(self.0.clone())
    }

    fn take_partial(&self) -> Option<String> {
        None
    }
}

/// The usage history that a server has which answers each query with this body.
pub fn answer(bytes: &[u8]) -> Option<Snapshot> {
    let response: QueryResponse = serde_json::from_slice(bytes).ok()?;
    let api = SameAnswer(response.data.result);
    let histories = gather::read_each(&Reader::new(&api), &Selection::default(), 6 * 3600, None);
    Some(histories.ok()?.into_iter().next()?.snapshot)
}
