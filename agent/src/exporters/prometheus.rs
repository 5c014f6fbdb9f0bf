//! `/metrics`: the catalogue in OpenMetrics 1.0 text, in Prometheus text 0.0.4, and in Prometheus protobuf for clients that
//! read native histograms, which no text can say.

mod protobuf;
mod text;
mod walk;

use std::{
    io::{self, Write},
    sync::Arc,
    time::Instant,
};

use super::{
    limits::SeriesLimits,
    series::{EndpointSeries, Progress, SeriesCounts, Signal},
};
use crate::model::View;

/// The formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Text,
    /// Prometheus protobuf, its messages one after the other.
    Protobuf,
}

impl Format {
    /// The media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// One scrape.
#[derive(Debug)]
pub struct Scrape {
    /// What to export.
    pub published: Arc<View>,
    /// What to leave out.
    pub limits: Arc<SeriesLimits>,
    /// The moment of the scrape.
    pub now: Instant,
    /// The path under which this is served, in the `endpoint` label.
    pub endpoint: &'static str,
    /// What the other endpoints held when last scraped.
    pub others: Vec<EndpointSeries>,
    /// How the push by OTLP fares; `None` where there is none.
    pub otlp: Vec<(Signal, Progress)>,
    /// Whether histograms have buckets with fixed bounds, too.
    pub classic_histograms: bool,
}

impl Scrape {
    /// Writes the whole exposition and says what was in it.
    pub fn encode(self, out: &mut dyn Write, format: Format) -> io::Result<SeriesCounts> {
        match format {
            Format::OpenMetrics | Format::Text => text::encode(self, out, format),
            Format::Protobuf => protobuf::encode(&self, out),
        }
    }
}

#[cfg(test)]
mod tests;
