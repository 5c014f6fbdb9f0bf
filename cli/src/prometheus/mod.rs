//! Usage history from a Prometheus-compatible server: Prometheus, Thanos, Mimir, VictoriaMetrics.
//!
//! `client` sends queries, `reader` cuts the period into parts that are not too large, and `gather` reads what
//! there is: `discover` and `duplicates` find out of what containers, the others read one kind of metric each.

mod builder;
mod client;
mod discover;
mod duplicates;
mod error;
#[cfg(test)]
pub(crate) mod fake;
#[doc(hidden)]
pub mod fuzz;
mod gather;
mod kube_state;
mod matcher;
mod oom;
mod query;
mod reader;
mod short_runs;
#[cfg(test)]
mod tests;
mod windows;

use std::time::Duration;

use snug_client::http::RootCertificates;

use self::{client::Client, matcher::Selection, reader::Reader};
pub use self::{
    client::{Header, parse_address, parse_header},
    error::PrometheusError,
    gather::PrometheusHistory,
    matcher::{Matchers, parse_label, parse_matchers},
};

/// A Prometheus-compatible server, and which of its series are read.
#[derive(Debug)]
pub struct Prometheus {
    client: Client,
    selection: Selection,
}

impl Prometheus {
    /// From an address that [`parse_address`] has returned. `allow_partial`: a result that the server calls partial is reported
    /// and used, and is no error.
    pub fn new(base: &str, headers: &[Header], trust: &RootCertificates, allow_partial: bool) -> Self {
        Self { client: Client::new(base, headers, trust, allow_partial), selection: Selection::default() }
    }

    /// Only series with these labels, and of these namespaces if there are any.
    #[must_use]
    pub fn selecting(mut self, matchers: &[Matchers], namespaces: &[String]) -> Self {
        self.selection.matchers.extend(matchers.iter().flat_map(|it| it.0.iter().cloned()));
        self.selection.namespaces.extend(namespaces.iter().cloned());
        self
    }

    /// Reads the history of the last `since`, one for each cluster. `label` names clusters; without it, a label that usually does.
    /// Reports progress on standard error after two seconds.
    ///
    /// # Errors
    /// When a query fails, there are no metrics of containers, or labels do not tell clusters apart.
    pub fn histories(
        &self,
        since: Duration,
        label: Option<&str>,
    ) -> Result<Vec<PrometheusHistory>, PrometheusError> {
        let reader = Reader::new(&self.client).reporting();
        gather::read_each(&reader, &self.selection, since.as_secs(), label)
    }
}
