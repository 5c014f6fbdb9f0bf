//! Content negotiation: the format and compression of a response (RFC 9110, section 12).

use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName};

use crate::exporters::prometheus::Format;

/// The format that `Accept` prefers; text 0.0.4 without a preference, as for a browser or curl.
pub(super) fn format(headers: &HeaderMap) -> Format {
    // On a tie the more specific media range wins, then the first of these.
    let mut formats =
        [Format::Text, Format::OpenMetrics, Format::Protobuf].map(|of| (of, Preference::default()));
    let [(_, text), (_, open_metrics), (_, protobuf)] = &mut formats;
    for item in items(headers, &ACCEPT) {
        let parameter = |name| item.parameter(name);
        match item.value.to_ascii_lowercase().as_str() {
            "application/openmetrics-text" => match parameter("version") {
                None | Some("1.0.0") => open_metrics.offer(3, item.quality),
                Some(_) => {}
            },
            "application/vnd.google.protobuf" => {
                let message =
                    parameter("proto").is_none_or(|name| name == "io.prometheus.client.MetricFamily");
                if message && parameter("encoding") == Some("delimited") {
                    protobuf.offer(3, item.quality);
                }
            }
            "application/*" => open_metrics.offer(1, item.quality),
            "text/plain" => match parameter("version") {
                None | Some("0.0.4") => text.offer(3, item.quality),
                Some(_) => {}
            },
            "text/*" => text.offer(1, item.quality),
            "*/*" => {
                open_metrics.offer(0, item.quality);
                text.offer(0, item.quality);
            }
            _ => {}
        }
    }
    let mut best = (Format::Text, Preference::default());
    for (format, preference) in formats {
        if preference.quality > 0
            && (preference.quality, preference.specific) > (best.1.quality, best.1.specific)
        {
            best = (format, preference);
        }
    }
    best.0
}

/// Whether `Accept-Encoding` allows gzip.
pub(super) fn gzip(headers: &HeaderMap) -> bool {
    let mut gzip = Preference::default();
    for item in items(headers, &ACCEPT_ENCODING) {
        match item.value.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip.offer(1, item.quality),
            "*" => gzip.offer(0, item.quality),
            _ => {}
        }
    }
    gzip.quality > 0
}

/// The quality of the most specific media range that matched; of equals the first.
#[derive(Clone, Copy, Default)]
struct Preference {
    specific: u8,
    quality: u16,
    matched: bool,
}

impl Preference {
    fn offer(&mut self, specific: u8, quality: u16) {
        if !self.matched || specific > self.specific {
            *self = Self { specific, quality, matched: true };
        }
    }
}

struct Item<'a> {
    value: &'a str,
    parameters: &'a str,
    /// In thousandths.
    quality: u16,
}

impl<'a> Item<'a> {
    fn parse(text: &'a str) -> Self {
        let (value, parameters) = text.split_once(';').unwrap_or((text, ""));
        let mut item = Self { value: value.trim(), parameters, quality: 1000 };
        if let Some(q) = item.parameter("q") {
            item.quality = quality(q);
        }
        item
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.split(';').find_map(|parameter| {
            let (key, value) = parameter.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
        })
    }
}

/// A q value in thousandths. An invalid one counts as 0.
fn quality(text: &str) -> u16 {
    match text.parse::<f32>() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
        Ok(q) if (0.0..=1.0).contains(&q) => (q * 1000.0).round() as u16,
        _ => 0,
    }
}

/// The items of a list header; a line that is not text is ignored.
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Item<'a>> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(Item::parse)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn formats() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let native_histograms = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
            encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,\
            text/plain;version=0.0.4;q=0.4,*/*;q=0.2";
        for (accept, expected) in [
            (&[][..], Format::Text),
            (&["*/*"], Format::Text),
            (&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], Format::Text),
            (&[prometheus_3], Format::OpenMetrics),
            (&["application/openmetrics-text"], Format::OpenMetrics),
            (&["Application/OpenMetrics-Text; Version=\"1.0.0\""], Format::OpenMetrics),
            (&["application/openmetrics-text;version=0.0.1"], Format::Text),
            (&["application/openmetrics-text;q=0.5,text/plain"], Format::Text),
            (&["application/openmetrics-text;q=0.5,text/plain;q=0.4"], Format::OpenMetrics),
            (&["text/plain;q=0.4", "application/openmetrics-text;q=0.5"], Format::OpenMetrics),
            (&["application/openmetrics-text;q=0"], Format::Text),
            (&["application/openmetrics-text;q=0,*/*"], Format::Text),
            (&["application/openmetrics-text;q=x"], Format::Text),
            (&["application/openmetrics-text;q=7"], Format::Text),
            (&["application/openmetrics-text,*/*"], Format::OpenMetrics),
            (&[native_histograms], Format::Protobuf),
            (
                &[
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;q=0.7,text/plain;q=0.3",
                ],
                Format::Text,
            ),
        ] {
            assert_eq!(format(&headers(&ACCEPT, accept)), expected, "{accept:?}");
        }
    }

    #[test]
    fn compressions() {
        for (accept, expected) in [
            (&[][..], false),
            (&["gzip"], true),
            (&["deflate, GZIP;q=0.1"], true),
            (&["gzip;q=0"], false),
            (&["*"], true),
            (&["gzip;q=0, *"], false),
            (&["*;q=0, gzip"], true),
            (&["identity"], false),
            (&["gzipped"], false),
        ] {
            assert_eq!(gzip(&headers(&ACCEPT_ENCODING, accept)), expected, "{accept:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_has_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut map = HeaderMap::new();
                map.insert(ACCEPT, value.clone());
                map.insert(ACCEPT_ENCODING, value);
                format(&map);
                gzip(&map);
            }
        }
    }
}
