//! `/metrics`: the catalogue in OpenMetrics 1.0 text, in Prometheus text 0.0.4, and in Prometheus protobuf for clients that
//! read native histograms, which the text formats do not have.

mod protobuf;
mod text;
mod walk;

use std::{io, sync::Arc, time::Instant};

use super::{
    limits::SeriesLimits,
    series::{EndpointSeries, Progress, SeriesCounts, ServerRow, Signal},
    stream::Sink,
};
use crate::model::View;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Text,
    /// Prometheus protobuf, length-delimited.
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

#[derive(Debug)]
pub struct Scrape {
    /// The view to export.
    pub view: Arc<View>,
    pub limits: Arc<SeriesLimits>,
    /// The time of the scrape.
    pub now: Instant,
    /// The path of the endpoint, for the `endpoint` label.
    pub endpoint: &'static str,
    /// Series counts of the other endpoints at their last scrape.
    pub others: Vec<EndpointSeries>,
    /// Progress of the OTLP export by signal; empty without OTLP.
    pub otlp: Vec<(Signal, Progress)>,
    /// The state of the HTTP server.
    pub server: ServerRow,
    /// Whether histograms also have classic buckets.
    pub classic_histograms: bool,
}

impl Scrape {
    /// Writes the exposition and returns the counts of its series.
    pub fn encode(self, out: &mut dyn Sink, format: Format) -> io::Result<SeriesCounts> {
        match format {
            Format::OpenMetrics | Format::Text => text::encode(&self, out, format),
            Format::Protobuf => protobuf::encode(&self, out),
        }
    }
}

#[cfg(test)]
mod tests;
