//! Accounts of what exporters did: series by endpoint, items by signal. The catalogue exports them as the agent's own metrics.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use super::limits::SeriesLimits;

/// What became of the series of one scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesCounts {
    /// Exported.
    pub written: u64,
    /// Left out by family.
    pub cut_by_family: u64,
    /// Left out by namespace.
    pub cut_by_namespace: u64,
    /// Left out beyond the number.
    pub cut_by_cap: u64,
}

impl SeriesCounts {
    /// Why series were left out, and how many.
    pub const fn cut(&self) -> [(&'static str, u64); 3] {
        let Self { written: _, cut_by_family, cut_by_namespace, cut_by_cap } = *self;
        [("family", cut_by_family), ("namespace", cut_by_namespace), ("cap", cut_by_cap)]
    }

    /// Decides on one series and counts it.
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

/// What an endpoint's last scrape held.
#[derive(Clone, Copy, Debug)]
pub struct EndpointSeries {
    /// Path of the endpoint.
    pub endpoint: &'static str,
    /// Its series.
    pub counts: SeriesCounts,
}

/// What each endpoint's last complete scrape held.
#[derive(Debug, Default)]
pub struct Scrapes(Mutex<Vec<EndpointSeries>>);

impl Scrapes {
    /// Takes the counts of a complete scrape.
    pub fn record(&self, endpoint: &'static str, counts: SeriesCounts) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.iter_mut().find(|series| series.endpoint == endpoint) {
            Some(series) => series.counts = counts,
            None => all.push(EndpointSeries { endpoint, counts }),
        }
    }

    /// What the other endpoints held.
    pub fn others(&self, endpoint: &str) -> Vec<EndpointSeries> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|series| series.endpoint != endpoint).copied().collect()
    }
}

/// What is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// What `/metrics` serves.
    Metrics,
    /// Events, as log records.
    Logs,
}

impl Signal {
    /// The name in labels, and at the end of a receiver's URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// Of two values, the one that is set for this signal.
    pub(super) fn own<T: Clone>(self, metrics: &T, logs: &T) -> T {
        match self {
            Self::Metrics => metrics.clone(),
            Self::Logs => logs.clone(),
        }
    }
}

/// How the export of a signal fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Data points or log records that the receiver took.
    pub sent: u64,
    /// Those that it would not take.
    pub rejected: u64,
    /// Those that were given up because the buffer was full.
    pub dropped: u64,
    /// Requests that failed, those that succeeded later included.
    pub failures: u64,
    /// Bytes that wait to be sent.
    pub waiting_bytes: u64,
}

/// What pushes signals.
pub trait Push: fmt::Debug + Send + Sync {
    /// How each signal that is pushed fares.
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
