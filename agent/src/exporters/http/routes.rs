//! The response of each path.

use std::{io, sync::Arc, time::Instant};

use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes},
    header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY},
};

use super::{ServerState, clients::Requester, negotiate};
use crate::{
    exporters::{
        api, evidence, kubelet,
        prometheus::{self, Format},
        series::SeriesCounts,
        stream::{self, EncodePermit, Output, ResponseBody, Sink},
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
        let text = format!("unknown path; known paths:\n{}", list(state));
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
            None => no_view_yet(),
        },
        _ => plain(StatusCode::OK, format!("snug-agent {}\n{}", env!("CARGO_PKG_VERSION"), list(state))),
    }
}

fn list(state: &ServerState) -> String {
    let of_kubelet = if state.kubelet {
        "/metrics/cadvisor  metrics under the names of the kubelet\n/metrics/resource  metrics for metrics-server\n"
    } else {
        ""
    };
    let of_api: String = api::Resource::ALL
        .iter()
        .map(|resource| format!("{:<21} {}, in JSON\n", resource.path(), resource.description()))
        .collect();
    format!(
        "/metrics           all metrics\n{of_kubelet}\
         {of_api}\
         /api/v1/evidence   usage history of containers by the hour, as JSON lines\n\
         /healthz           200 if measurements are recent\n\
         /readyz            200 after the first measurement\n"
    )
}

/// A resource of `/api/v1`.
async fn answer<B: Body>(
    request: &Request<B>,
    state: &Arc<ServerState>,
    resource: api::Resource,
) -> Response<ResponseBody> {
    match api::Query::parse(resource, request.uri().query()) {
        Ok(query) => {
            exposition(request, state, "application/json", move |view, _, out| query.write(&view, out)).await
        }
        Err(error) => plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

/// The usage history.
async fn evidence_of<B: Body>(request: &Request<B>, state: &Arc<ServerState>) -> Response<ResponseBody> {
    let Some(history) = state.history.clone() else {
        return plain(StatusCode::NOT_FOUND, "this agent has no usage history\n".into());
    };
    let query = match evidence::EvidenceQuery::parse(request.uri().query()) {
        Ok(query) => query,
        Err(error) => return plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    exposition(request, state, evidence::CONTENT_TYPE, move |view, _, out| {
        evidence::write(&history, &view.agent.node, &query, out)
    })
    .await
}

/// The response to a probe: it says nothing but whether the agent is healthy or ready.
pub(super) fn probe<B>(request: &Request<B>, state: &ServerState) -> Response<ResponseBody> {
    let status = match request.uri().path() {
        "/healthz" => health(state).status(),
        "/readyz" if state.views.last().is_some() => StatusCode::OK,
        "/readyz" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::NOT_FOUND,
    };
    let text = match status {
        StatusCode::OK => "ok\n",
        StatusCode::NOT_FOUND => "only /healthz and /readyz are served here\n",
        _ => "not ok\n",
    };
    plain(status, text.to_owned())
}

/// Liveness: whether the sampler still produces views.
fn health(state: &ServerState) -> Response<ResponseBody> {
    let now = Instant::now();
    let limits = &state.server;
    let (age, max_age, what) = match state.views.last() {
        Some(view) => {
            (now.saturating_duration_since(view.at), limits.stale_after, "the last measurement was made")
        }
        None => (
            now.saturating_duration_since(state.started),
            limits.first_within,
            "there is no measurement yet, and the agent started",
        ),
    };
    if age <= max_age {
        plain(StatusCode::OK, "ok\n".into())
    } else {
        let text =
            format!("{what} {:.1} s ago; the maximum is {:.1} s\n", age.as_secs_f64(), max_age.as_secs_f64());
        plain(StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

fn no_view_yet() -> Response<ResponseBody> {
    let text = "there is no measurement yet; try again in a second\n".into();
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

pub(super) fn plain(status: StatusCode, text: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Whole(Some(Bytes::from(text))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

async fn metrics<B: Body>(request: &Request<B>, state: &Arc<ServerState>) -> Response<ResponseBody> {
    let format = negotiate::format(request.headers());
    exposition(request, state, format.content_type(), move |view, state, out| {
        let scrape = prometheus::Scrape {
            view,
            limits: Arc::clone(&state.limits),
            now: Instant::now(),
            endpoint: METRICS,
            others: state.scrapes.others(METRICS),
            classic_histograms: state.classic_histograms,
            server: state.scrapes.server(),
            otlp: state.push.as_ref().map(|push| push.progress()).unwrap_or_default(),
        };
        let counts = scrape.encode(out, format)?;
        state.scrapes.record(METRICS, counts);
        Ok(())
    })
    .await
}

type Encode = fn(&kubelet::Scrape<'_>, &mut dyn Sink) -> io::Result<SeriesCounts>;

async fn of_kubelet<B: Body>(
    request: &Request<B>,
    state: &Arc<ServerState>,
    endpoint: &'static str,
    encode: Encode,
) -> Response<ResponseBody> {
    exposition(request, state, Format::Text.content_type(), move |view, state, out| {
        let counts = encode(&kubelet::Scrape::now(&view, &state.limits), out)?;
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
        return no_view_yet();
    }
    let gzip = negotiate::gzip(request.headers());
    let body = if request.method() == Method::HEAD {
        ResponseBody::Whole(None)
    } else {
        let requester = request.extensions().get::<Requester>().cloned().unwrap_or_default();
        let place = state.open_responses.enter(&requester).await;
        let Some(permit) = EncodePermit::wait_for(&state.expositions).await else { return no_view_yet() };
        // Take the view only now: a request that waited gets the newest view, and holds no old one while waiting.
        let Some(view) = state.views.newest().await else { return no_view_yet() };
        let (pieces, body) = stream::channel(state.server.body_within, place);
        let state = Arc::clone(state);
        tokio::task::spawn_blocking(move || {
            let mut out = Output::new(pieces, permit, gzip);
            let result = encode(view, &state, &mut out).and_then(|()| out.finish());
            if let Err(error) = result {
                tracing::debug!(%error, "a client did not read a whole exposition");
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
