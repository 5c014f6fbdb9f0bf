//! The HTTP client of the query API: pauses when the server is overloaded, and reports what is not a complete result.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _},
    time::Duration,
};

use serde::Deserialize;
use snug_client::http::{self, RootCertificates};
use ureq::http::{HeaderMap, Response};

use super::{
    error::PrometheusError,
    query::{self, At, Query, QueryApi, Series},
};
use crate::{advice::CommandRule, progress};

/// Upper bound of a response, far above the largest part of a thousand containers.
const MAX_RESPONSE_BYTES: u64 = 256 << 20;
/// A query that takes longer is tried with a shorter part of the history.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How often one query is tried.
const MAX_TRIES: u32 = 6;
/// Longest single pause, whatever `Retry-After` says.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// All pauses of one run together.
const MAX_PAUSES: Duration = Duration::from_secs(180);
/// Bytes of a response that is not a result: enough for the title of a page.
const MAX_TEXT_BYTES: u64 = 4096;
/// Characters of it in a message.
const MAX_TEXT: usize = 300;

/// An HTTP header of requests, for authentication or a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    name: String,
    value: String,
}

impl Header {
    pub fn bearer(token: &str) -> Self {
        Self { name: "Authorization".to_owned(), value: format!("Bearer {token}") }
    }

    /// Whether it says who asks.
    pub fn is_authorization(&self) -> bool {
        self.name.eq_ignore_ascii_case("authorization")
    }
}

/// Parses `--prometheus`: an HTTP or HTTPS address, with a path if the server has one before `/api/v1`.
///
/// # Errors
/// A text that says what is wrong and what is allowed.
pub fn parse_address(text: &str) -> Result<String, String> {
    const ALLOWED: &str = "allowed is http[s]://HOST:PORT[/PATH], such as http://127.0.0.1:9090";
    Ok(http::parse_address(text, ALLOWED)?.1)
}

/// Parses `--header`.
///
/// # Errors
/// A text that says what is wrong.
pub fn parse_header(text: &str) -> Result<Header, String> {
    let (name, value) = text.split_once(':').ok_or("a header is NAME: VALUE")?;
    let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(is_name) || value.chars().any(char::is_control) {
        return Err("a header is NAME: VALUE, in letters, digits and '-'".to_owned());
    }
    Ok(Header { name, value })
}

/// A server with the query API.
#[derive(Debug)]
pub(super) struct Client {
    /// The address for requests.
    address: String,
    /// The address for messages.
    base: String,
    headers: Vec<Header>,
    agent: ureq::Agent,
    /// Whether a partial result is reported and used.
    allow_partial: bool,
    pause: fn(Duration),
    paused: Cell<Duration>,
    /// Queries so far, for the progress.
    queries: Cell<u32>,
    /// Whether a query has succeeded.
    answered: Cell<bool>,
    /// What was reported already.
    reported: RefCell<BTreeSet<String>>,
    /// What the last partial result lacks, until it is asked for.
    partial: RefCell<Option<String>>,
}

#[derive(Default, Deserialize)]
pub(super) struct QueryResponse {
    #[serde(default)]
    pub(super) data: Data,
    #[serde(default)]
    warnings: Vec<String>,
    /// VictoriaMetrics: some storage nodes did not respond.
    #[serde(default, rename = "isPartial")]
    is_partial: bool,
}

#[derive(Default, Deserialize)]
pub(super) struct Data {
    #[serde(default)]
    pub(super) result: Vec<Series>,
}

/// What to do about a query that failed.
enum Failure {
    /// Try it again after a pause.
    Busy {
        what: String,
        pause: Option<Duration>,
        text: String,
    },
    Final(PrometheusError),
}

impl Client {
    /// From an address that [`parse_address`] has returned.
    pub(super) fn new(base: &str, headers: &[Header], trust: &RootCertificates, allow_partial: bool) -> Self {
        Self {
            address: base.to_owned(),
            base: http::without_password(base),
            headers: headers.to_vec(),
            agent: http::client(TIMEOUT, trust),
            allow_partial,
            pause: std::thread::sleep,
            paused: Cell::default(),
            queries: Cell::default(),
            answered: Cell::default(),
            reported: RefCell::default(),
            partial: RefCell::default(),
        }
    }

    /// Sends a query, again after a pause if the server is busy.
    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Vec<Series>, PrometheusError> {
        let mut tries = 0;
        self.queries.set(self.queries.get() + 1);
        progress::step(&format!("asking {}: query {}", self.base, self.queries.get()));
        loop {
            tries += 1;
            let (what, pause, text) = match self.try_get(path, parameters) {
                Ok(series) => {
                    self.answered.set(true);
                    return Ok(series);
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Busy { what, pause, text }) => (what, pause, text),
            };
            let pause = pause.unwrap_or(Duration::from_secs(1 << tries.min(4))).min(MAX_PAUSE);
            let waited = self.paused.get();
            if tries >= MAX_TRIES || waited + pause > MAX_PAUSES {
                return Err(PrometheusError::Overloaded { base: self.base.clone(), what, waited, text });
            }
            (self.pause)(pause);
            self.paused.set(waited + pause);
        }
    }

    fn try_get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Vec<Series>, Failure> {
        let base = || self.base.clone();
        // A redirection is reported: it usually leads to a login page, and headers would not be sent there.
        let url = format!("{}/api/v1/{path}", self.address);
        let mut request = self.agent.get(url).config().max_redirects(0).build();
        for Header { name, value } in &self.headers {
            request = request.header(name, value);
        }
        let response = request
            .query_pairs(parameters.iter().copied())
            .call()
            .map_err(|error| self.unreachable(error))?;
        let (parts, body) = response.into_parts();
        let status = parts.status.as_u16();
        let mut body = BufReader::new(body.into_with_config().limit(MAX_RESPONSE_BYTES).reader());
        // A connection that breaks here breaks again below.
        let starts_as_page = body.fill_buf().is_ok_and(|text| text.trim_ascii_start().starts_with(b"<"));
        let is_page = header(&parts.headers, "content-type").is_some_and(|it| it.contains("html"));
        if status == 200 && !is_page && !starts_as_page {
            let response: QueryResponse = serde_json::from_reader(body)
                .map_err(|source| Failure::Final(PrometheusError::Response { base: base(), source }))?;
            return self.complete(response).map_err(Failure::Final);
        }
        let mut text = Vec::new();
        // An unreadable body is left out of the message.
        let _ = body.take(MAX_TEXT_BYTES).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        Err(failure(&self.base, &Response::from_parts(parts, text.into_owned())))
    }

    /// A broken connection is tried again if the server has responded before.
    fn unreachable(&self, source: ureq::Error) -> Failure {
        match source {
            ureq::Error::Timeout(_) => {
                Failure::Final(too_large(&self.base, &format!("no response in {TIMEOUT:?}")))
            }
            source if self.answered.get() => {
                Failure::Busy { what: "breaks connections".to_owned(), pause: None, text: source.to_string() }
            }
            source => Failure::Final(PrometheusError::Unreachable {
                base: self.base.clone(),
                source: Box::new(source),
            }),
        }
    }

    /// The series of a response, if they are all that there are.
    fn complete(&self, response: QueryResponse) -> Result<Vec<Series>, PrometheusError> {
        let why = missing(response.is_partial, &response.warnings);
        if self.allow_partial && why.is_some() {
            self.partial.borrow_mut().clone_from(&why);
        }
        match why {
            Some(why) if !self.allow_partial => {
                return Err(PrometheusError::Partial { base: self.base.clone(), why });
            }
            Some(why) if self.reported.borrow_mut().insert(why.clone()) => {
                crate::remark!(
                    "WARNING: {} says that its result is partial: {why}; recommendations may be too low",
                    self.base
                );
            }
            _ => {}
        }
        Ok(response.data.result)
    }
}

/// What is missing from a result. Annotations of PromQL are remarks on a query, not on its data.
fn missing(is_partial: bool, warnings: &[String]) -> Option<String> {
    if !CommandRule::Complete.is_on() {
        return None;
    }
    let about_data = |text: &&String| !text.starts_with("PromQL ");
    let mut why: Vec<&str> = warnings.iter().filter(about_data).map(|text| text.trim()).collect();
    if is_partial {
        why.insert(0, "isPartial is true");
    }
    (!why.is_empty()).then(|| shortened(&why.join("; ")))
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn shortened(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

fn too_large(base: &str, text: &str) -> PrometheusError {
    PrometheusError::TooLarge { base: base.to_owned(), seconds: 0, text: shortened(text) }
}

/// What a response means that is not a result.
fn failure(base: &str, response: &Response<String>) -> Failure {
    let base_address = || base.to_owned();
    let (status, text) = (response.status().as_u16(), response.body());
    if (300..400).contains(&status)
        && let Some(location) = header(response.headers(), "location")
    {
        return Failure::Final(PrometheusError::Redirected {
            base: base_address(),
            location: shortened(location),
        });
    }
    let lower = text.to_ascii_lowercase();
    let is_page = lower.trim_start().starts_with('<')
        || header(response.headers(), "content-type").is_some_and(|it| it.contains("html"));
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let timed_out = says(&["timed out", "timeout", "deadline exceeded", "canceled"]) && !is_page;
    // Servers differ in the status for a query above their limits.
    let too_much = says(&["too many", "exceed", "too large", "limit", "would load"]) && !is_page;
    match status {
        429 => {}
        413 | 422 | 504 => return Failure::Final(too_large(base, text)),
        503 | 500 if timed_out => return Failure::Final(too_large(base, text)),
        400 | 500 if too_much => return Failure::Final(too_large(base, text)),
        502 | 503 => {}
        // Some login pages have one of these.
        200 | 401 | 403 if is_page => {
            return Failure::Final(PrometheusError::WebPage { base: base_address(), title: title(text) });
        }
        _ => {
            let text = if is_page { title(text) } else { shortened(text) };
            return Failure::Final(PrometheusError::Status { base: base_address(), status, text });
        }
    }
    let seconds = header(response.headers(), "retry-after").and_then(|seconds| seconds.trim().parse().ok());
    let text = if is_page { title(text) } else { shortened(text) };
    Failure::Busy {
        what: format!("responds with status {status}"),
        pause: seconds.map(Duration::from_secs),
        text,
    }
}

/// The title of a page; empty without one.
fn title(page: &str) -> String {
    // ASCII only, so that positions are the same.
    let lower = page.to_ascii_lowercase();
    let find = || {
        let from = lower.find("<title")?;
        let from = from + lower.get(from..)?.find('>')? + 1;
        let to = from + lower.get(from..)?.find("</title")?;
        page.get(from..to)
    };
    shortened(find().unwrap_or_default())
}

impl QueryApi for Client {
    fn take_partial(&self) -> Option<String> {
        self.partial.take()
    }

    fn base(&self) -> &str {
        &self.base
    }

    fn now(&self) -> Result<u64, PrometheusError> {
        let series = self.get("query", &[("query", "vector(time())")])?;
        Ok(query::time(&series))
    }

    fn query(&self, query: &Query, at: At) -> Result<Vec<Series>, PrometheusError> {
        let query = query.to_string();
        match at {
            At::Time(at) => self.get("query", &[("query", &query), ("time", &at.to_string())]),
            At::Range { from, to, step } => {
                let [from, to, step] = [from, to, step].map(|seconds| seconds.to_string());
                let parameters = [("query", &*query), ("start", &from), ("end", &to), ("step", &step)];
                self.get("query_range", &parameters)
            }
        }
    }
}

#[cfg(test)]
mod tests;
