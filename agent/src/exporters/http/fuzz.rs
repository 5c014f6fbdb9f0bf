//! Private parsers of requests, as functions over bytes for the fuzz targets.

use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue};

use super::negotiate;

/// The headers of content negotiation, one per line.
pub fn accept(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(100) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(ACCEPT, value.clone());
            headers.append(ACCEPT_ENCODING, value);
        }
    }
    negotiate::format(&headers);
    negotiate::gzip(&headers);
}
