//! Counters of exporters: series by endpoint, items by signal. The catalogue exports them as the agent's own metrics.

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::limits::SeriesLimits;
use crate::{
    access::{Authorizer, ReviewCounts, Reviews},
    tls::ServerTls,
};

/// Counts of the series of one scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesCounts {
    /// Exported.
    pub written: u64,
    /// Left out by family.
    pub cut_by_family: u64,
    /// Left out by namespace.
    pub cut_by_namespace: u64,
    /// Left out above the maximum number.
    pub cut_by_cap: u64,
}

impl SeriesCounts {
    /// Series that were left out, by reason.
    pub const fn cut(&self) -> [(&'static str, u64); 3] {
        let Self { written: _, cut_by_family, cut_by_namespace, cut_by_cap } = *self;
        [("family", cut_by_family), ("namespace", cut_by_namespace), ("cap", cut_by_cap)]
    }

    /// Decides whether to export a series, and counts it.
    pub fn admit(&mut self, limits: &SeriesLimits, family: bool, namespace: bool) -> bool {
        if !family {
            self.cut_by_family += 1;
        } else if !namespace {
            self.cut_by_namespace += 1;
        } else if self.written >= limits.max_series {
            self.cut_by_cap += 1;
        } else {
            self.written += 1;
            return true;
        }
        false
    }
}

/// Series counts of the last scrape of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct EndpointSeries {
    /// Path of the endpoint.
    pub endpoint: &'static str,
    pub counts: SeriesCounts,
}

/// Why the server closed a connection, refused a request or cut off a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Its client has too many connections.
    PerClient,
    /// There are too many connections.
    Crowded,
    /// Its client sends too many requests.
    Rate,
    /// Its client read slowly while others waited.
    SlowReader,
    /// Its client has neither a certificate nor a valid token.
    Unauthenticated,
    /// The owner of its token lacks the permission.
    Forbidden,
    /// Its token cannot be reviewed at the moment.
    Unavailable,
}

impl Limited {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 7] = [
        Self::PerClient,
        Self::Crowded,
        Self::Rate,
        Self::SlowReader,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::Unavailable,
    ];

    /// The reason in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PerClient => "connections_of_client",
            Self::Crowded => "connections",
            Self::Rate => "request_rate",
            Self::SlowReader => "slow_reader",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Unavailable => "review_unavailable",
        }
    }
}

/// What the limits of the server refused, by reason.
pub type LimitedCounts = [(Limited, u64); Limited::ALL.len()];

/// The state of the HTTP server, for the agent's metrics.
#[derive(Clone, Copy, Debug)]
pub struct ServerRow {
    /// What its limits refused.
    pub limited: LimitedCounts,
    /// When its certificate expires, seconds since the Unix epoch; `None` without a usable one.
    pub certificate_expires: Option<u64>,
    /// Reviews of tokens; `None` if there are none.
    pub reviews: Option<ReviewCounts>,
}

/// Series counts of the last complete scrape of each endpoint, and the state of the server.
#[derive(Debug, Default)]
pub struct Scrapes {
    series: Mutex<Vec<EndpointSeries>>,
    limited: [AtomicU64; Limited::ALL.len()],
    tls: OnceLock<(Arc<ServerTls>, Arc<Authorizer>)>,
}

impl Scrapes {
    /// Records the counts of a complete scrape.
    pub fn record(&self, endpoint: &'static str, counts: SeriesCounts) {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        match all.iter_mut().find(|series| series.endpoint == endpoint) {
            Some(series) => series.counts = counts,
            None => all.push(EndpointSeries { endpoint, counts }),
        }
    }

    /// Counts and logs that the server refuses a client or cuts it off.
    pub fn limit(&self, reason: Limited) {
        self.limited[reason as usize].fetch_add(1, Ordering::Relaxed);
        tracing::warn!(reason = reason.as_str(), "a client is refused or cut off");
    }

    /// What the limits of the server refused.
    pub fn limited(&self) -> LimitedCounts {
        Limited::ALL.map(|reason| (reason, self.limited[reason as usize].load(Ordering::Relaxed)))
    }

    /// The certificate and the reviews of the listener with TLS, which [`Self::server`] reports from now on.
    pub fn report_tls(&self, tls: Arc<ServerTls>, authorizer: Arc<Authorizer>) {
        // There is one such listener.
        let _ = self.tls.set((tls, authorizer));
    }

    /// The state of the server.
    pub fn server(&self) -> ServerRow {
        let (tls, authorizer) = self.tls.get().map(|(tls, authorizer)| (&**tls, &**authorizer)).unzip();
        ServerRow {
            limited: self.limited(),
            certificate_expires: tls.and_then(ServerTls::expires),
            reviews: authorizer.and_then(|authorizer| authorizer.reviews.as_ref()).map(Reviews::counts),
        }
    }

    /// The counts of the other endpoints.
    pub fn others(&self, endpoint: &str) -> Vec<EndpointSeries> {
        let all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|series| series.endpoint != endpoint).copied().collect()
    }
}

/// A signal of OpenTelemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The metrics of the catalogue.
    Metrics,
    /// Events, as log records.
    Logs,
}

impl Signal {
    /// The name in labels and in the path of OTLP over HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// The one of two values that belongs to this signal.
    pub(super) fn own<T: Clone>(self, metrics: &T, logs: &T) -> T {
        match self {
            Self::Metrics => metrics.clone(),
            Self::Logs => logs.clone(),
        }
    }
}

/// Progress of the export of a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Data points or log records that the receiver accepted.
    pub sent: u64,
    /// Data points or log records that the receiver rejected.
    pub rejected: u64,
    /// Data points or log records dropped because the buffer was full.
    pub dropped: u64,
    /// Failed requests, including those whose retry succeeded.
    pub failures: u64,
    /// Bytes that wait to be sent.
    pub waiting_bytes: u64,
}

/// An exporter that pushes signals.
pub trait Push: fmt::Debug + Send + Sync {
    fn progress(&self) -> Vec<(Signal, Progress)>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_counted_once() {
        let limits = SeriesLimits { max_series: 1, ..SeriesLimits::default() };
        let mut counts = SeriesCounts::default();
        assert!(!counts.admit(&limits, false, false));
        assert!(!counts.admit(&limits, true, false));
        assert!(counts.admit(&limits, true, true));
        assert!(!counts.admit(&limits, true, true));
        assert_eq!(counts, SeriesCounts { written: 1, cut_by_family: 1, cut_by_namespace: 1, cut_by_cap: 1 });
    }
}
