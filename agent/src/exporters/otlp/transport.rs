//! How requests reach the receiver: gRPC, or protobuf in HTTP requests, with or without TLS.

use std::time::Duration;

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
    config::{OtlpCompression, OtlpProtocol},
    exporters::series::Signal,
    tls::TlsError,
};

/// What a receiver may answer at most, bytes.
const ANSWER: usize = 64 << 10;

/// Why nothing can be sent at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No header can be called so.
    #[error("otlp: {name} cannot be the name of a header")]
    HeaderName { name: String, source: InvalidHeaderName },
    /// No header can have this value.
    #[error("otlp: the value of the header {name} has characters that no header can have")]
    HeaderValue { name: String, source: InvalidHeaderValue },
    /// The address with its path is none.
    #[error("otlp: {0} is no address of a receiver")]
    Address(String),
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The receiver took it, all but so many of its items, and said why.
    Taken { rejected: i64, message: String },
    /// It may be sent again, not before this time has passed.
    Again { after: Option<Duration>, why: String },
    /// It will never be taken.
    Refused { why: String },
}

/// A way to a receiver.
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
    /// Reads the certificates; connects only when something is sent.
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
        let address =
            settings.endpoint.parse().map_err(|_| TransportError::Address(settings.endpoint.clone()))?;
        let header = |(name, value): &(String, String)| {
            let key: HeaderName = name
                .to_ascii_lowercase()
                .parse()
                .map_err(|source| TransportError::HeaderName { name: name.clone(), source })?;
            let value =
                value.parse().map_err(|source| TransportError::HeaderValue { name: name.clone(), source })?;
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
        tokio::time::timeout(self.timeout, sent).await.unwrap_or_else(|_| Answer::Again {
            after: None,
            why: format!("no answer within {}", humantime::format_duration(self.timeout)),
        })
    }

    async fn by_grpc(&self, message: Bytes) -> Answer {
        let again = |error: &dyn std::error::Error| Answer::Again { after: None, why: chain(error) };
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
        let refused = |error: &dyn std::error::Error| Answer::Refused { why: chain(error) };
        let again = |error: &dyn std::error::Error| Answer::Again { after: None, why: chain(error) };
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
            Err(error) => return Answer::Again { after: None, why: error.to_string() },
        };
        match status {
            StatusCode::OK => {
                ExportMetricsServiceResponse::decode(body).map_or_else(|error| refused(&error), taken)
            }
            // The four that the specification lets clients try again.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                Answer::Again { after: after.map(Duration::from_secs), why: format!("it answered {status}") }
            }
            _ => Answer::Refused { why: format!("it answered {status}{}", words(&body)) },
        }
    }
}

/// What a body says, if it is for people.
fn words(body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
    let is_text = !text.is_empty()
        && text.chars().all(|c| !c.is_control() || c.is_whitespace())
        && !text.contains('\u{fffd}');
    if is_text { format!(": {}", text.trim()) } else { String::new() }
}

/// Answers to logs have the same fields at the same places, so they are read as those to metrics.
fn taken(response: ExportMetricsServiceResponse) -> Answer {
    let partial = response.partial_success.unwrap_or_default();
    Answer::Taken { rejected: partial.rejected_data_points, message: partial.error_message }
}

/// As the specification of OTLP/gRPC sorts failures: a receiver that is out of something says by its details when it will not be.
fn of_status(status: &Status) -> Answer {
    let why = match std::error::Error::source(status) {
        Some(cause) => chain(cause),
        None => format!("it answered {:?}: {}", status.code(), status.message()),
    };
    let info = status.get_details_retry_info();
    let after = info.as_ref().and_then(|info| info.retry_delay);
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Answer::Again { after, why },
        Code::ResourceExhausted if info.is_some() => Answer::Again { after, why },
        // What hyper reports of a connection that broke has no code of its own.
        Code::Unknown if std::error::Error::source(status).is_some() => Answer::Again { after: None, why },
        _ => Answer::Refused { why },
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn gzipped(message: &[u8]) -> std::io::Result<Bytes> {
    use std::io::Write as _;

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(message)?;
    encoder.finish().map(Bytes::from)
}

/// Messages that are encoded already, and the receiver's answers.
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
            .map_err(|error| Status::internal(format!("the answer cannot be read: {error}")))
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
            Answer::Again { after, .. } => Some(after),
            _ => None,
        };
        let two = Duration::from_secs(2);
        assert_eq!(after(&details(Code::ResourceExhausted, Some(two))), Some(Some(two)));
        assert_eq!(after(&details(Code::ResourceExhausted, None)), Some(None));
        assert_eq!(after(&Status::resource_exhausted("no")), None, "it does not say that it will recover");
        assert_eq!(after(&details(Code::Unavailable, Some(two))), Some(Some(two)));
        assert_eq!(after(&Status::unavailable("no")), Some(None));
        for code in [Code::InvalidArgument, Code::Unauthenticated, Code::Unimplemented, Code::Internal] {
            assert_eq!(after(&Status::new(code, "no")), None, "{code:?}");
        }
    }
}
