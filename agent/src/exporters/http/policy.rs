//! Who may use a listener, and for what.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hyper::{
    Request, Response, StatusCode,
    body::Body,
    header::{AUTHORIZATION, HOST, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};

use super::{ServerState, routes};
use crate::{
    access::{Authorizer, Denial},
    exporters::{series::Limited, stream::ResponseBody},
    tls::ServerTls,
};

/// A kind of listener.
#[derive(Clone, Debug)]
pub enum AccessPolicy {
    /// Everyone on this host or, in a pod, whoever may forward a port to it. The header `Host` must name this host: a browser sends the
    /// name of the page that it shows, so no page can read the agent, whatever address its name resolves to (DNS rebinding).
    Loopback,
    /// Everyone who can connect.
    Open,
    /// Whoever the authorizer admits, over TLS.
    Tls(Arc<ServerTls>, Arc<Authorizer>),
    /// Everyone, but only for the answers to probes.
    Probes,
}

/// The client of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// Whether TLS has verified a certificate of the client.
    pub(super) has_certificate: bool,
}

impl AccessPolicy {
    /// The policy of a plain listener.
    pub fn plain(address: SocketAddr) -> Self {
        if address.ip().to_canonical().is_loopback() { Self::Loopback } else { Self::Open }
    }

    /// The response to a request, if the client may have one.
    pub(super) async fn respond<B: Body>(
        &self,
        request: &Request<B>,
        peer: Peer,
        state: &Arc<ServerState>,
    ) -> Response<ResponseBody> {
        match self {
            Self::Loopback if !names_this_host(request) => {
                let text = "the Host header must be localhost or a loopback address\n";
                return routes::plain(StatusCode::MISDIRECTED_REQUEST, text.to_owned());
            }
            Self::Loopback | Self::Open => {}
            Self::Tls(_, authorizer) => {
                let token = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
                if let Err(denial) = authorizer.authorize(peer.has_certificate, token).await {
                    state.scrapes.limit(match denial {
                        Denial::Unauthenticated => Limited::Unauthenticated,
                        Denial::Forbidden => Limited::Forbidden,
                        Denial::Unavailable => Limited::Unavailable,
                    });
                    return refused(denial);
                }
            }
            Self::Probes => return routes::probe(request, state),
        }
        routes::respond(request, state).await
    }
}

fn refused(denial: Denial) -> Response<ResponseBody> {
    let (status, text) = match denial {
        Denial::Unauthenticated => {
            (StatusCode::UNAUTHORIZED, "a client certificate or a valid bearer token is required\n")
        }
        Denial::Forbidden => (StatusCode::FORBIDDEN, "the permission to get nodes/metrics is required\n"),
        Denial::Unavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, "the token cannot be reviewed at the moment\n")
        }
    };
    let mut response = routes::plain(status, text.to_owned());
    let headers = response.headers_mut();
    match denial {
        Denial::Unauthenticated => headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
        Denial::Forbidden => None,
        Denial::Unavailable => headers.insert(RETRY_AFTER, HeaderValue::from_static("5")),
    };
    response
}

/// Whether a request is for this host. A client of HTTP/1.0 need not say.
fn names_this_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next().map(|host| host.to_str().unwrap_or_default());
    // A target with a host of its own wins over the header (RFC 9112, section 3.2.2).
    let host = request.uri().authority().map(hyper::http::uri::Authority::as_str).or(host);
    host.is_none_or(is_this_host) && hosts.next().is_none()
}

/// Whether the value of a `Host` header names this host, with any port.
fn is_this_host(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let name = without_port.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(without_port);
    let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts() {
        for host in ["localhost", "LocalHost:9750", "127.0.0.1", "127.9.9.9:1", "[::1]:9750", "[::1]", "::1"]
        {
            assert!(is_this_host(host), "{host}");
        }
        for host in [
            "",
            ":9750",
            "x",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1:9750",
            "evil@localhost",
            "localhost:9750:1",
            "127.0.0.1:x",
            "2130706433",
            "[::2]",
            "localhost.",
        ] {
            assert!(!is_this_host(host), "{host}");
        }
    }

    proptest! {
        #[test]
        fn any_host_is_handled(host in ".*", number: u32) {
            let _ = is_this_host(&host);
            let address = std::net::Ipv4Addr::from(number);
            prop_assert_eq!(is_this_host(&format!("{address}:9750")), address.is_loopback());
        }
    }
}
