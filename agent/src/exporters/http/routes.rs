//! What each path answers.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Instant,
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes},
    header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY},
};

use super::{ServerState, negotiate};
use crate::{
    exporters::{
        api, evidence, kubelet,
        prometheus::{self, Format},
        series::SeriesCounts,
        stream::{self, EncodePermit, Output, ResponseBody},
    },
    model::View,
};

const METRICS: &str = "/metrics";
const CADVISOR: &str = "/metrics/cadvisor";
const RESOURCE: &str = "/metrics/resource";

pub(super) async fn respond<B: Body>(
    request: &Request<B>,
    state: &Arc<ServerState>,
) -> Response<ResponseBody> {
    let path = request.uri().path();
    let of_api = api::Resource::at(path);
    let others = ["/", METRICS, CADVISOR, RESOURCE, evidence::PATH, "/healthz", "/readyz"];
    if of_api.is_none() && !others.contains(&path) {
        let text = format!("nothing is served under this path; there are:\n{}", list(state));
        return plain(StatusCode::NOT_FOUND, text);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served\n".into());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if let Some(resource) = of_api {
        return answer(request, state, resource).await;
    }
    match path {
        METRICS => metrics(request, state).await,
        CADVISOR if state.kubelet => {
            of_kubelet(request, state, CADVISOR, |scrape, out| scrape.encode(out)).await
        }
        RESOURCE if state.kubelet => {
            of_kubelet(request, state, RESOURCE, |scrape, out| scrape.encode_resource(out)).await
        }
        CADVISOR | RESOURCE => plain(
            StatusCode::NOT_FOUND,
            format!("{path} is switched off: the kubelet's own endpoint is to be scraped instead\n"),
        ),
        evidence::PATH => evidence_of(request, state).await,
        "/healthz" => health(state),
        "/readyz" => match state.views.last() {
            Some(_) => plain(StatusCode::OK, "ready\n".into()),
            None => not_published(),
        },
        _ => plain(StatusCode::OK, format!("snug-agent {}\n{}", env!("CARGO_PKG_VERSION"), list(state))),
    }
}

fn list(state: &ServerState) -> String {
    let of_kubelet = if state.kubelet {
        "/metrics/cadvisor  the kubelet's families\n/metrics/resource  what metrics-server reads\n"
    } else {
        ""
    };
    let of_api: String = api::Resource::ALL
        .iter()
        .map(|resource| format!("{:<21} {}, in JSON\n", resource.path(), resource.description()))
        .collect();
    format!(
        "/metrics           everything measured\n{of_kubelet}\
         {of_api}\
         /api/v1/evidence   what containers used, by the hour, a JSON object a line\n\
         /healthz           whether measurements are fresh\n\
         /readyz            whether there are any\n"
    )
}

/// What a program asks that is no time series.
async fn answer<B: Body>(
    request: &Request<B>,
    state: &Arc<ServerState>,
    resource: api::Resource,
) -> Response<ResponseBody> {
    match api::Query::parse(resource, request.uri().query()) {
        Ok(asked) => {
            exposition(request, state, "application/json", move |published, _, out| {
                asked.write(&published, out)
            })
            .await
        }
        Err(error) => plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

/// What the history has.
async fn evidence_of<B: Body>(request: &Request<B>, state: &Arc<ServerState>) -> Response<ResponseBody> {
    let Some(history) = state.history.clone() else {
        return plain(StatusCode::NOT_FOUND, "this agent keeps no history\n".into());
    };
    let asked = match evidence::EvidenceQuery::parse(request.uri().query()) {
        Ok(asked) => asked,
        Err(error) => return plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    exposition(request, state, evidence::CONTENT_TYPE, move |published, _, out| {
        evidence::write(&history, &published.agent.node, &asked, out)
    })
    .await
}

/// Alive, and so is the sampler.
fn health(state: &ServerState) -> Response<ResponseBody> {
    let now = Instant::now();
    let limits = &state.server;
    let (age, most, what) = match state.views.last() {
        Some(published) => (
            now.saturating_duration_since(published.at),
            limits.stale_after,
            "the last measurement was published",
        ),
        None => (
            now.saturating_duration_since(state.started),
            limits.first_within,
            "nothing was published yet, and the agent started",
        ),
    };
    if age <= most {
        plain(StatusCode::OK, "ok\n".into())
    } else {
        let text = format!(
            "{what} {:.1} s ago; at most {:.1} s are healthy\n",
            age.as_secs_f64(),
            most.as_secs_f64()
        );
        plain(StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

fn not_published() -> Response<ResponseBody> {
    let text = "nothing has been measured yet; try again in a second\n".into();
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn plain(status: StatusCode, text: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Whole(Some(Bytes::from(text))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

async fn metrics<B: Body>(request: &Request<B>, state: &Arc<ServerState>) -> Response<ResponseBody> {
    let format = negotiate::format(request.headers());
    exposition(request, state, format.content_type(), move |published, state, out| {
        let scrape = prometheus::Scrape {
            published,
            limits: Arc::clone(&state.limits),
            now: Instant::now(),
            endpoint: METRICS,
            others: state.scrapes.others(METRICS),
            classic_histograms: state.classic_histograms,
            otlp: state.push.as_ref().map(|push| push.progress()).unwrap_or_default(),
        };
        let counts = scrape.encode(out, format)?;
        state.scrapes.record(METRICS, counts);
        Ok(())
    })
    .await
}

type Encode = fn(&kubelet::Scrape<'_>, &mut dyn Write) -> io::Result<SeriesCounts>;

async fn of_kubelet<B: Body>(
    request: &Request<B>,
    state: &Arc<ServerState>,
    endpoint: &'static str,
    encode: Encode,
) -> Response<ResponseBody> {
    exposition(request, state, Format::Text.content_type(), move |published, state, out| {
        let counts = encode(&kubelet::Scrape::now(&published, &state.limits), out)?;
        state.scrapes.record(endpoint, counts);
        Ok(())
    })
    .await
}

async fn exposition<B: Body>(
    request: &Request<B>,
    state: &Arc<ServerState>,
    content_type: &'static str,
    encode: impl FnOnce(Arc<View>, &ServerState, &mut Output) -> io::Result<()> + Send + 'static,
) -> Response<ResponseBody> {
    if state.views.last().is_none() {
        return not_published();
    }
    let gzip = negotiate::gzip(request.headers());
    let body = if request.method() == Method::HEAD {
        ResponseBody::Whole(None)
    } else {
        let Some(turn) = EncodePermit::wait_for(&state.expositions).await else { return not_published() };
        // Only now: whoever waited long gets what is new, and holds nothing old while waiting.
        let Some(published) = state.views.newest().await else { return not_published() };
        let (pieces, body) = stream::channel(state.server.body_within);
        let state = Arc::clone(state);
        tokio::task::spawn_blocking(move || {
            let mut out = Output::new(pieces, turn, gzip);
            let result = encode(published, &state, &mut out).and_then(|()| out.finish());
            if let Err(error) = result {
                tracing::debug!(%error, "an exposition was not read to its end");
            }
        });
        body
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}
