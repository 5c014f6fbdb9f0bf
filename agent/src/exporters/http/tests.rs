//! A real server, on a runtime with one thread as in the agent, and real sockets.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread::{self, JoinHandle},
};

use flate2::read::GzDecoder;
use tokio::sync::oneshot;

use super::*;
use crate::{
    exporters::fixture,
    model::{ContainerKind, Level, View},
    patterns::Pattern,
};

mod crowd;
mod policies;

struct Server {
    address: SocketAddr,
    views: Arc<CurrentView>,
    scrapes: Arc<Scrapes>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Server {
    fn start(view: Option<View>, change: impl FnOnce(&mut ServerState)) -> Self {
        Self::start_at(AccessPolicy::Loopback, view, change)
    }

    fn start_at(policy: AccessPolicy, view: Option<View>, change: impl FnOnce(&mut ServerState)) -> Self {
        let views = Arc::new(CurrentView::from_view(view));
        let quick = ServerLimits {
            head_within: Duration::from_millis(300),
            stall: Duration::from_millis(400),
            shutdown_within: Duration::from_millis(500),
            ..ServerLimits::default()
        };
        let mut state = ServerState::new(Arc::clone(&views), SeriesLimits::default(), true, quick);
        change(&mut state);
        // `change` may set values that the state was built from.
        state.expositions = Arc::new(Semaphore::new(state.server.expositions));
        state.open_responses = OpenResponses::new(state.server.responses, Arc::clone(&state.scrapes));
        let scrapes = Arc::clone(&state.scrapes);
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, address) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, policy, Arc::new(state), async { drop(stopped.await) }).await
            })
        });
        Self { address: address.recv().unwrap(), views, scrapes, stop: Some(stop), thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn send(&self, request: &[u8]) -> Reply {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut bytes = Vec::new();
        let end = stream.read_to_end(&mut bytes);
        Reply::parse(&bytes, end.is_ok())
    }

    fn get(&self, path: &str, headers: &str) -> Reply {
        self.send(
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")
                .as_bytes(),
        )
    }

    fn stop(&mut self) -> Duration {
        let started = Instant::now();
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap().unwrap();
        started.elapsed()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
    /// Whether the body ended where the head said, or with the last chunk.
    complete: bool,
}

impl Reply {
    fn parse(bytes: &[u8], ended: bool) -> Self {
        let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            return Self { status: 0, head: String::new(), body: bytes.to_vec(), complete: false };
        };
        let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut reply = Self { status, head, body: bytes[at + 4..].to_vec(), complete: ended };
        if reply.header("transfer-encoding").as_deref() == Some("chunked") {
            (reply.body, reply.complete) = unchunk(&reply.body);
        }
        reply
    }

    fn header(&self, name: &str) -> Option<String> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(at) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
        let from = at + 2;
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = rest.get(from..from + size) else { break };
        body.extend_from_slice(chunk);
        rest = rest.get(from + size + 2..).unwrap_or_default();
    }
    (body, false)
}

/// More than sockets and channels hold for a client that does not read, some 30 MB, in few series.
fn large() -> View {
    with_paths_of(2500)
}

fn with_paths_of(length: usize) -> View {
    let mut view = fixture::view();
    let long = "x".repeat(length);
    for n in 0..120 {
        let names = fixture::names("default", "app", "image", Some(ContainerKind::App));
        let path = format!("/kubepods/burstable/{long}/{n:064}");
        view.cgroups.push(fixture::cgroup(&path, Level::Container, &format!("{n:064}"), Some(names)));
    }
    view
}

#[test]
fn metrics_have_the_format_of_the_accept_header() {
    let server = Server::start(Some(fixture::view()), |_| {});
    let plain = server.get("/metrics", "");
    assert_eq!((plain.status, plain.complete), (200, true));
    assert_eq!(plain.header("content-type").unwrap(), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(plain.header("vary").unwrap(), "Accept, Accept-Encoding");
    let exposition = fixture::parse(plain.text()).unwrap();
    assert_eq!(exposition.get("snug_pod_memory_usage_bytes", &[]), [4096.0]);

    let open =
        server.get("/metrics", "Accept: application/openmetrics-text;version=1.0.0;q=0.6,*/*;q=0.1\r\n");
    assert_eq!(
        open.header("content-type").unwrap(),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(open.text().ends_with("# EOF\n"));

    let cadvisor = server.get("/metrics/cadvisor", "Accept: application/openmetrics-text\r\n");
    assert_eq!(cadvisor.header("content-type").unwrap(), "text/plain; version=0.0.4; charset=utf-8");
    let exposition = fixture::parse(cadvisor.text()).unwrap();
    assert_eq!(exposition.get("container_memory_rss", &[("container", "app")]), [41.0]);

    let resource = server.get("/metrics/resource", "");
    assert_eq!(resource.header("content-type").unwrap(), "text/plain; version=0.0.4; charset=utf-8");
    let exposition = fixture::parse(resource.text()).unwrap();
    assert_eq!(exposition.get("pod_memory_working_set_bytes", &[("pod", "web-0")]), [3072.0]);

    // Now that all were scraped, all are counted.
    let again = fixture::parse(server.get("/metrics?x=y", "").text()).unwrap();
    for endpoint in ["/metrics", "/metrics/cadvisor", "/metrics/resource"] {
        assert_ne!(again.get("snug_agent_series", &[("endpoint", endpoint)]), [0.0; 0], "{endpoint}");
    }
}

#[test]
fn compression_does_not_change_the_content() {
    let server = Server::start(Some(with_paths_of(50)), |_| {});
    for path in ["/metrics", "/metrics/cadvisor"] {
        let plain = server.get(path, "");
        let packed = server.get(path, "Accept-Encoding: gzip\r\n");
        assert_eq!(packed.header("content-encoding").unwrap(), "gzip");
        assert_eq!(plain.header("content-encoding"), None);
        assert!(plain.complete && packed.complete);
        assert!(packed.body.len() * 10 < plain.body.len(), "{} of {}", packed.body.len(), plain.body.len());
        let mut text = String::new();
        GzDecoder::new(&packed.body[..]).read_to_string(&mut text).unwrap();
        let (a, b) = (fixture::parse(&text).unwrap(), fixture::parse(plain.text()).unwrap());
        assert!(a.samples.len() > 5_000);
        // The second scrape also counts the first.
        assert!(b.samples.keys().all(|series| a.samples.contains_key(series)));
    }
}

#[test]
fn an_http_1_0_client_is_served() {
    let server = Server::start(Some(fixture::view()), |_| {});
    let reply = server.send(b"GET /metrics HTTP/1.0\r\n\r\n");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("transfer-encoding"), None);
    fixture::parse(reply.text()).unwrap();
}

#[test]
fn head_has_no_body() {
    let server = Server::start(Some(fixture::view()), |_| {});
    for path in ["/", "/metrics", "/metrics/cadvisor", "/metrics/resource", "/healthz", "/readyz"] {
        let request = format!(
            "HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n"
        );
        let reply = server.send(request.as_bytes());
        assert_eq!((reply.status, reply.body.len()), (200, 0), "{path}");
        assert_ne!(reply.header("content-length").as_deref(), Some("0"), "{path}: GET would have a body");
        assert_eq!(reply.header("content-type"), server.get(path, "").header("content-type"), "{path}");
    }
}

#[test]
fn other_methods_and_paths_get_a_list_of_paths() {
    let server = Server::start(Some(fixture::view()), |state| state.kubelet = false);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let reply = server.send(
            format!(
                "{method} /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
            .as_bytes(),
        );
        assert_eq!(reply.status, 405, "{method}");
        assert_eq!(reply.header("allow").unwrap(), "GET, HEAD");
    }
    for path in ["/metric", "/metrics/", "//", "/%2e%2e", "/metrics/cadvisor/x"] {
        let reply = server.get(path, "");
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.text().contains("/healthz") && !reply.text().contains("cadvisor"), "{}", reply.text());
    }
    for path in ["/metrics/cadvisor", "/metrics/resource"] {
        let off = server.get(path, "");
        assert_eq!(off.status, 404);
        assert!(off.text().starts_with(&format!("{path} is switched off")), "{}", off.text());
    }
    assert!(server.get("/", "").text().contains("/metrics"));
}

#[test]
fn health_and_readiness_follow_the_views() {
    let server = Server::start(None, |state| state.server.stale_after = Duration::from_millis(200));
    assert_eq!(server.get("/healthz", "").status, 200, "the first view may take some time");
    for path in ["/readyz", "/metrics", "/metrics/cadvisor"] {
        let reply = server.get(path, "");
        assert_eq!((reply.status, reply.header("retry-after").as_deref()), (503, Some("1")), "{path}");
    }
    drop(server.views.publish(fixture::view()));
    for path in ["/readyz", "/healthz", "/metrics"] {
        assert_eq!(server.get(path, "").status, 200, "{path}");
    }
    thread::sleep(Duration::from_millis(300));
    let stale = server.get("/healthz", "");
    assert_eq!(stale.status, 503);
    assert!(stale.text().contains("the maximum is 0.2 s"), "{}", stale.text());
    assert_eq!(server.get("/readyz", "").status, 200);
    assert_eq!(server.get("/metrics", "").status, 200, "the age of old values is a metric of its own");
}

#[test]
fn without_a_first_view_the_agent_becomes_unhealthy() {
    let server = Server::start(None, |state| state.server.first_within = Duration::ZERO);
    let reply = server.get("/healthz", "");
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("there is no measurement yet"), "{}", reply.text());
}

#[test]
fn invalid_requests_are_refused_and_do_no_harm() {
    let server = Server::start(Some(fixture::view()), |_| {});
    let long_line = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000));
    let folded = "GET / HTTP/1.1\r\nHost: localhost\r\n y\r\n\r\n";
    let requests: [&[u8]; 8] = [
        b"\r\n\r\n\r\nhello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\0/ HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        folded.as_bytes(),
        long_line.as_bytes(),
        many.as_bytes(),
    ];
    for request in requests {
        let mut stream = server.connect();
        // The server may hang up before it has read everything.
        drop(stream.write_all(request));
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes).is_ok();
        let status = Reply::parse(&bytes, ended).status;
        assert!(
            status == 0 || (400..500).contains(&status),
            "{status} to {:?}",
            &request[..request.len().min(40)]
        );
        assert_eq!(server.get("/readyz", "").status, 200);
    }
}

#[test]
fn a_client_that_sends_no_request_is_cut_off() {
    let server = Server::start(Some(fixture::view()), |state| state.server.connections = 2);
    let mut idle = [server.connect(), server.connect()];
    idle[1].write_all(b"GET / HT").unwrap();
    // There is no room: this connection ends the one that has been idle for longest, and the other one ends in time.
    assert_eq!(server.get("/readyz", "").status, 200);
    for stream in &mut idle {
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest));
    }
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_and_is_cut_off() {
    let server = Server::start(Some(large()), |state| {
        state.server.expositions = 1;
        state.server.stall = Duration::from_secs(3);
        // The other exposition is short and takes almost no time.
        let allow_families = vec![Pattern::new("snug_*"), Pattern::new("container_last_seen")];
        state.limits = Arc::new(SeriesLimits { allow_families, ..SeriesLimits::default() });
    });
    let mut slow = server.connect();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    thread::sleep(Duration::from_millis(100));
    let started = Instant::now();
    assert_eq!(server.get("/readyz", "").status, 200, "requests without an exposition do not wait");
    assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
    let reply = server.get("/metrics/cadvisor", "");
    assert_eq!((reply.status, reply.complete), (200, true));
    assert!(started.elapsed() < Duration::from_secs(2), "the only place was lent: {:?}", started.elapsed());
    // It has read nothing for longer than the stall timeout.
    thread::sleep(Duration::from_millis(3_500).saturating_sub(started.elapsed()));
    let mut rest = Vec::new();
    let end = slow.read_to_end(&mut rest);
    assert!(!Reply::parse(&rest, end.is_ok()).complete, "a cut exposition must not look whole");
}

#[test]
fn a_client_that_reads_too_slowly_is_cut_off() {
    let server = Server::start(Some(large()), |state| state.server.body_within = Duration::from_millis(300));
    let mut slow = server.connect();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    let end = loop {
        thread::sleep(Duration::from_millis(5));
        match slow.read(&mut piece) {
            Ok(0) => break true,
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
            Err(_) => break false,
        }
    };
    assert!(!Reply::parse(&bytes, end).complete);
}

#[test]
fn clients_at_once_all_get_everything() {
    let server = Server::start(Some(with_paths_of(50)), |_| {});
    thread::scope(|scope| {
        for n in 0..12 {
            let server = &server;
            scope.spawn(move || {
                let path = if n % 2 == 0 { "/metrics" } else { "/metrics/cadvisor" };
                let reply = server.get(path, if n % 3 == 0 { "Accept-Encoding: gzip\r\n" } else { "" });
                assert!(reply.status == 200 && reply.complete, "{n}");
            });
        }
    });
}

#[test]
fn one_connection_serves_many_requests() {
    let server = Server::start(Some(fixture::view()), |_| {});
    let mut stream = server.connect();
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("200 OK").count(), 2);
}

#[test]
fn shutdown_waits_for_readers_and_not_for_sleepers() {
    let mut server = Server::start(Some(fixture::view()), |state| {
        state.server.head_within = Duration::from_secs(30);
    });
    let idle = server.connect();
    assert_eq!(server.get("/readyz", "").status, 200);
    assert!(server.stop() < Duration::from_secs(2));
    drop(idle);

    let mut server = Server::start(Some(large()), |state| state.server.stall = Duration::from_secs(30));
    let mut slow = server.connect();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    thread::sleep(Duration::from_millis(100));
    let took = server.stop();
    assert!((Duration::from_millis(400)..Duration::from_secs(5)).contains(&took), "{took:?}");

    let mut server =
        Server::start(Some(large()), |state| state.server.shutdown_within = Duration::from_secs(20));
    let mut reader = server.connect();
    reader.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut first = [0; 1024];
    reader.read_exact(&mut first).unwrap();
    let reading = thread::spawn(move || {
        let mut rest = first.to_vec();
        let end = reader.read_to_end(&mut rest);
        Reply::parse(&rest, end.is_ok()).complete
    });
    server.stop();
    assert!(reading.join().unwrap(), "an exposition under way is finished");
}
