//! Transport to the receiver: gRPC or protobuf over HTTP, with or without TLS.

use std::{error::Error, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    header::{
        CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, InvalidHeaderName, InvalidHeaderValue,
        RETRY_AFTER,
    },
    http::uri::PathAndQuery,
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use tonic::{
    Code, Status,
    body::Body,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
};
use tonic_types::StatusExt as _;

use super::Settings;
use crate::{
    config::{OtlpCompression, OtlpProtocol, without_secrets},
    exporters::series::Signal,
    messages::chain,
    tls::TlsError,
};

/// Maximum size of a response, in bytes.
const ANSWER: usize = 64 << 10;

/// Why the transport cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An invalid name of a header. It is not shown: it may be a part of the value.
    #[error("otlp: a header has an invalid name")]
    HeaderName(#[from] InvalidHeaderName),
    #[error("otlp: the value of the header {name} has characters that are not allowed in headers")]
    HeaderValue { name: String, source: InvalidHeaderValue },
    /// An invalid URL.
    #[error("otlp: {0} is not a valid URL of a receiver")]
    Address(String),
}

/// The result of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The receiver accepted the request, except for this many items, with a message.
    Taken { rejected: i64, message: String },
    /// The request may be retried, after this time at the earliest.
    Retry { after: Option<Duration>, why: String },
    /// The receiver will never accept the request.
    Refused { why: String },
}

/// A connection to a receiver.
#[derive(Debug)]
pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    address: Uri,
    signal: Signal,
    headers: Vec<(HeaderName, HeaderValue)>,
    protocol: OtlpProtocol,
    compression: OtlpCompression,
    timeout: Duration,
}

impl Transport {
    /// Reads the certificates. The connection is opened by the first request.
    pub(super) fn open(settings: &Settings) -> Result<Self, TransportError> {
        let is_grpc = settings.protocol == OtlpProtocol::Grpc;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(settings.timeout));
        let secured = HttpsConnectorBuilder::new().with_tls_config(settings.tls.client()?).https_or_http();
        let connector = if is_grpc {
            secured.enable_http2().wrap_connector(http)
        } else {
            secured.enable_all_versions().wrap_connector(http)
        };
        let client = Client::builder(TokioExecutor::new()).http2_only(is_grpc).build(connector);
        let address = settings
            .endpoint
            .parse()
            .map_err(|_| TransportError::Address(without_secrets(&settings.endpoint)))?;
        let header = |(name, value): &(String, String)| {
            let key: HeaderName = name.to_ascii_lowercase().parse().map_err(TransportError::HeaderName)?;
            let mut value: HeaderValue =
                value.parse().map_err(|source| TransportError::HeaderValue { name: name.clone(), source })?;
            value.set_sensitive(true);
            Ok::<_, TransportError>((key, value))
        };
        let headers = settings.headers.iter().map(header).collect::<Result<_, _>>()?;
        let Settings { signal, protocol, compression, timeout, .. } = *settings;
        Ok(Self { client, address, signal, headers, protocol, compression, timeout })
    }

    /// Sends a request.
    pub(super) async fn send(&self, message: Bytes) -> Answer {
        let sent = async {
            match self.protocol {
                OtlpProtocol::Grpc => self.by_grpc(message).await,
                OtlpProtocol::HttpProtobuf => self.by_http(message).await,
            }
        };
        tokio::time::timeout(self.timeout, sent).await.unwrap_or_else(|_| Answer::Retry {
            after: None,
            why: format!("no response within {}", humantime::format_duration(self.timeout)),
        })
    }

    async fn by_grpc(&self, message: Bytes) -> Answer {
        let again = |error: &(dyn Error + 'static)| Answer::Retry { after: None, why: chain(error) };
        let mut grpc = tonic::client::Grpc::with_origin(self.client.clone(), self.address.clone());
        if self.compression == OtlpCompression::Gzip {
            grpc =
                grpc.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
        }
        if let Err(error) = grpc.ready().await {
            return again(&error);
        }
        let headers = self.headers.iter().cloned().collect();
        let request = tonic::Request::from_parts(
            MetadataMap::from_headers(headers),
            tonic::Extensions::default(),
            message,
        );
        let path = PathAndQuery::from_static(match self.signal {
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        });
        match grpc.unary(request, path, Encoded).await {
            Ok(response) => taken(response.into_inner()),
            Err(status) => of_status(&status),
        }
    }

    async fn by_http(&self, message: Bytes) -> Answer {
        let refused = |error: &(dyn Error + 'static)| Answer::Refused { why: chain(error) };
        let again = |error: &(dyn Error + 'static)| Answer::Retry { after: None, why: chain(error) };
        let mut request = Request::post(self.address.clone()).header(CONTENT_TYPE, "application/x-protobuf");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = match self.compression {
            OtlpCompression::None => message,
            OtlpCompression::Gzip => {
                request = request.header(CONTENT_ENCODING, "gzip");
                match gzipped(&message) {
                    Ok(body) => body,
                    Err(error) => return refused(&error),
                }
            }
        };
        let request = match request.body(Body::new(Full::new(body))) {
            Ok(request) => request,
            Err(error) => return refused(&error),
        };
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => return again(&error),
        };
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = match Limited::new(response.into_body(), ANSWER).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Answer::Retry { after: None, why: chain(&*error) },
        };
        match status {
            StatusCode::OK => {
                ExportMetricsServiceResponse::decode(body).map_or_else(|error| refused(&error), taken)
            }
            // The four status codes that the specification allows clients to retry.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Answer::Retry {
                after: after.map(Duration::from_secs),
                why: format!("the receiver responded {status}"),
            },
            _ => Answer::Refused { why: format!("the receiver responded {status}{}", words(&body)) },
        }
    }
}

/// The text of a body, if it is readable.
fn words(body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
    let is_text = !text.is_empty()
        && text.chars().all(|c| !c.is_control() || c.is_whitespace())
        && !text.contains('\u{fffd}');
    if is_text { format!(": {}", text.trim()) } else { String::new() }
}

/// Decodes a response. Responses for logs have the same fields with the same numbers as those for metrics.
fn taken(response: ExportMetricsServiceResponse) -> Answer {
    let partial = response.partial_success.unwrap_or_default();
    Answer::Taken { rejected: partial.rejected_data_points, message: partial.error_message }
}

/// Classifies failures by the specification of OTLP/gRPC: `RESOURCE_EXHAUSTED` can be retried only if it has retry details.
fn of_status(status: &Status) -> Answer {
    let why = match Error::source(status) {
        Some(cause) => chain(cause),
        None => format!("the receiver responded {:?}: {}", status.code(), status.message()),
    };
    let info = status.get_details_retry_info();
    let after = info.as_ref().and_then(|info| info.retry_delay);
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Answer::Retry { after, why },
        Code::ResourceExhausted if info.is_some() => Answer::Retry { after, why },
        // Errors of hyper about a broken connection have no code of their own.
        Code::Unknown if Error::source(status).is_some() => Answer::Retry { after: None, why },
        _ => Answer::Refused { why },
    }
}

fn gzipped(message: &[u8]) -> std::io::Result<Bytes> {
    use std::io::Write as _;

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(message)?;
    encoder.finish().map(Bytes::from)
}

/// A codec for requests that are already encoded.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = ExportMetricsServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put(buffer, message);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = ExportMetricsServiceResponse;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        ExportMetricsServiceResponse::decode(buffer)
            .map(Some)
            .map_err(|error| Status::internal(format!("the response cannot be decoded: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn failures_are_sorted_as_the_specification_does() {
        let details =
            |code, delay| Status::with_error_details(code, "no", ErrorDetails::with_retry_info(delay));
        let after = |status: &Status| match of_status(status) {
            Answer::Retry { after, .. } => Some(after),
            _ => None,
        };
        let two = Duration::from_secs(2);
        assert_eq!(after(&details(Code::ResourceExhausted, Some(two))), Some(Some(two)));
        assert_eq!(after(&details(Code::ResourceExhausted, None)), Some(None));
        assert_eq!(after(&Status::resource_exhausted("no")), None, "without retry details it is not retried");
        assert_eq!(after(&details(Code::Unavailable, Some(two))), Some(Some(two)));
        assert_eq!(after(&Status::unavailable("no")), Some(None));
        for code in [Code::InvalidArgument, Code::Unauthenticated, Code::Unimplemented, Code::Internal] {
            assert_eq!(after(&Status::new(code, "no")), None, "{code:?}");
        }
    }
}
