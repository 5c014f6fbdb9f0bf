//! Servers in the place of the API server that do everything wrong: the agent keeps its pace and its memory.

use std::{
    io::{BufRead as _, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt as _;

use super::{PodWatch, Settings, TokenReviewer, bounds::HEAD_TIMEOUT, run_within};
use crate::{
    messages,
    tls::fixture::{Authority, Identity},
};

/// How long each server is asked.
const TIME: Duration = Duration::from_secs(3);
/// The requests that the pace allows in this time, and one for a rounded second.
const MAX_REQUESTS: u64 = 8 + 3 + 1;
/// What a socket and its buffers take before the agent reads it.
const BUFFERED: usize = 8 << 20;

type Answer = dyn Fn(&Server, &str, &mut TcpStream) -> std::io::Result<()> + Send + Sync;

#[derive(Default)]
struct Server {
    requests: AtomicU64,
    sent: AtomicUsize,
}

impl Server {
    fn send(&self, stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        stream.write_all(bytes)?;
        self.sent.fetch_add(bytes.len(), Ordering::Relaxed);
        Ok(())
    }

    fn reply(&self, stream: &mut TcpStream, status: &str, headers: &str, body: &str) -> std::io::Result<()> {
        let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
        self.send(stream, (head + body).as_bytes())
    }

    fn empty_list(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let list = r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}"#;
        self.reply(stream, "200 OK", "content-type: application/json\r\n", list)
    }

    /// A response without end, and without the end of a line.
    fn endless(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        self.send(stream, b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"kind\":\"")?;
        let chunk = vec![b'x'; 1 << 16];
        while self.sent.load(Ordering::Relaxed) < 20 * BUFFERED {
            self.send(stream, &chunk)?;
        }
        Ok(())
    }

    fn serve(self: &Arc<Self>, mut stream: TcpStream, answer: &Answer) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        while let Some(request) = lines.next().transpose()? {
            while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
            self.requests.fetch_add(1, Ordering::Relaxed);
            answer(self, &request, &mut stream)?;
        }
        Ok(())
    }
}

/// Watches pods at such a server.
fn watch(
    time: Duration,
    answer: impl Fn(&Server, &str, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> (Arc<Server>, Arc<PodWatch>) {
    let (server, address) = serve(answer);
    (server, ask(time, &json!({ "server": format!("http://{address}") }), HEAD_TIMEOUT))
}

fn serve(
    answer: impl Fn(&Server, &str, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> (Arc<Server>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (server, answer) = (Arc::new(Server::default()), Arc::new(answer));
    let of_thread = Arc::clone(&server);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (server, answer) = (Arc::clone(&of_thread), Arc::clone(&answer));
            thread::spawn(move || drop(server.serve(stream, &*answer)));
        }
    });
    (server, address)
}

/// A kubeconfig for a cluster without authentication.
fn kubeconfig(folder: &tempfile::TempDir, cluster: &Value) -> PathBuf {
    let path = folder.path().join("kubeconfig");
    let content = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "t",
        "clusters": [{ "name": "t", "cluster": cluster }],
        "users": [{ "name": "t", "user": {} }],
        "contexts": [{ "name": "t", "context": { "cluster": "t", "user": "t" } }],
    });
    std::fs::write(&path, content.to_string()).unwrap();
    path
}

fn ask(time: Duration, cluster: &Value, head_timeout: Duration) -> Arc<PodWatch> {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = Some(kubeconfig(&folder, cluster));
    let settings = Settings { node: "n".to_owned(), kubeconfig, owner_lookup: false };
    let state = Arc::new(PodWatch::default());
    block_on(async {
        let watching = run_within(settings, Arc::clone(&state), head_timeout);
        let _ = tokio::time::timeout(time, watching).await;
    });
    state
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// What is logged meanwhile on this thread.
fn log_of(action: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_ansi(false);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), action);
    String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
}

fn is_watch(request: &str) -> bool {
    request.contains("watch=true")
}

#[test]
fn lists_and_watches_keep_their_pace() {
    let gone = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"old","reason":"Expired","code":410}}"#;
    let expired = move |server: &Server, request: &str, stream: &mut TcpStream| {
        if is_watch(request) {
            server.reply(stream, "200 OK", "content-type: application/json\r\n", &format!("{gone}\n"))
        } else {
            server.empty_list(stream)
        }
    };
    let closing = |server: &Server, request: &str, stream: &mut TcpStream| {
        if is_watch(request) {
            server.reply(stream, "200 OK", "content-type: application/json\r\n", "")
        } else {
            server.empty_list(stream)
        }
    };
    let impatient = |server: &Server, _: &str, stream: &mut TcpStream| {
        server.reply(stream, "429 Too Many Requests", "retry-after: 0\r\n", "{}")
    };
    let unavailable = |server: &Server, _: &str, stream: &mut TcpStream| {
        server.reply(stream, "503 Service Unavailable", "retry-after: 0\r\n", &"x".repeat(10 << 20))
    };
    // At the same time, because each takes its time.
    let watches: Vec<_> = [
        ("expired", Box::new(expired) as Box<Answer>),
        ("closing", Box::new(closing)),
        ("429", Box::new(impatient)),
        ("503", Box::new(unavailable)),
    ]
    .into_iter()
    .map(|(name, answer)| (name, thread::spawn(move || watch(TIME, answer))))
    .collect();
    for (name, watching) in watches {
        let (server, state) = watching.join().unwrap();
        let requests = server.requests.load(Ordering::Relaxed);
        println!("{name}: {requests} requests in {TIME:?}");
        assert!((2..=MAX_REQUESTS).contains(&requests), "{name}: {requests} requests");
        assert_eq!(state.errors.load(Ordering::Relaxed) > 0, name != "closing", "{name}");
    }
}

#[test]
fn endless_lists_and_events_are_not_read_to_their_end() {
    let watches = [false, true].map(|in_watch| {
        thread::spawn(move || {
            watch(TIME, move |server, request, stream| {
                if is_watch(request) == in_watch { server.endless(stream) } else { server.empty_list(stream) }
            })
        })
    });
    for watching in watches {
        let (server, state) = watching.join().unwrap();
        let requests = server.requests.load(Ordering::Relaxed) as usize;
        let sent = server.sent.load(Ordering::Relaxed);
        assert!(sent <= requests * (BUFFERED + (8 << 20)), "{sent} bytes in {requests} requests");
        assert!(state.errors.load(Ordering::Relaxed) > 0);
    }
}

#[test]
fn a_watch_without_events_is_connected_after_an_outage() {
    let start = Instant::now();
    let (_, state) = watch(Duration::from_secs(5), move |server, request, stream| {
        let is_outage = (1..2).contains(&start.elapsed().as_secs());
        match is_watch(request) {
            _ if is_outage => server.reply(stream, "503 Service Unavailable", "", "{}"),
            false => server.empty_list(stream),
            true => {
                server.send(stream, b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")?;
                if start.elapsed() < Duration::from_secs(1) {
                    thread::sleep(Duration::from_secs(1).saturating_sub(start.elapsed()));
                    return stream.shutdown(std::net::Shutdown::Both);
                }
                thread::sleep(Duration::from_secs(10));
                Ok(())
            }
        }
    });
    assert!(state.errors.load(Ordering::Relaxed) > 0, "the outage is counted");
    assert!(state.connected.load(Ordering::Relaxed));
}

#[test]
fn a_server_that_hangs_is_named_in_the_log_and_counted() {
    const HEAD: Duration = Duration::from_millis(400);
    let (server, address) = serve(|_, _, _| {
        thread::sleep(2 * TIME);
        Ok(())
    });
    let cluster = json!({ "server": format!("http://{address}") });
    let mut errors = 0;
    let log = log_of(|| {
        let state = ask(TIME, &cluster, HEAD);
        errors = state.errors.load(Ordering::Relaxed);
        assert!(!state.connected.load(Ordering::Relaxed) && !state.synced.load(Ordering::Relaxed));
    });
    // An attempt takes the timeout and a pause that doubles from half a second.
    assert!((2..=4).contains(&errors), "{errors} errors");
    assert!(server.requests.load(Ordering::Relaxed) >= errors);
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("will retry")).collect();
    let [line] = lines[..] else { panic!("not logged once: {log}") };
    assert!(line.contains("the API server does not respond within 400ms"), "{line}");
    assert!(line.contains("pods keep their current names"), "{line}");
}

#[test]
fn an_absent_server_is_named_in_the_log_and_counted() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cluster = json!({ "server": format!("http://{address}") });
    let mut errors = 0;
    let log = log_of(|| errors = ask(TIME, &cluster, HEAD_TIMEOUT).errors.load(Ordering::Relaxed));
    assert!((2..=4).contains(&errors), "{errors} errors");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("will retry")).collect();
    let [line] = lines[..] else { panic!("not logged once: {log}") };
    assert!(line.contains("(Connect)") && line.contains("Connection refused"), "{line}");
}

#[test]
fn answers_that_are_half_or_garbage_are_named_in_the_log_and_counted() {
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let half = format!("{json}content-length: 1000\r\n\r\n{{\"kind\":\"PodList\",\"items\":[");
    let garbage = format!("{json}content-length: 4\r\n\r\n\0\u{1}\u{2}\u{3}");
    for answer in [half, garbage, "\u{1}\u{2} garbage\r\n\r\n".to_owned(), String::new()] {
        let sent = answer.clone();
        let (_, address) = serve(move |server, _, stream| {
            server.send(stream, sent.as_bytes())?;
            stream.shutdown(std::net::Shutdown::Both)
        });
        let cluster = json!({ "server": format!("http://{address}") });
        let mut errors = 0;
        let log = log_of(|| errors = ask(TIME, &cluster, HEAD_TIMEOUT).errors.load(Ordering::Relaxed));
        assert!((2..=4).contains(&errors), "{errors} errors for {answer:?}");
        let lines = log.lines().filter(|line| line.contains("will retry")).count();
        assert_eq!(lines, 1, "not logged once for {answer:?}: {log}");
    }
}

#[test]
fn a_wrong_authority_is_named_in_the_log_and_counted() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (_, _, Identity(certificate, key)) = authority.issue(ExtendedKeyUsagePurpose::ServerAuth, |_| {});
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.clone_key())
        .unwrap();
    let (config, accepted) = (Arc::new(config), Arc::new(AtomicU64::new(0)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::clone(&accepted);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
            count.fetch_add(u64::from(!connection.is_handshaking()), Ordering::Relaxed);
        }
    });
    let cluster = |trusted: &Authority| {
        json!({
            "server": format!("https://{address}"), "tls-server-name": "snug-agent",
            "certificate-authority-data": BASE64_STANDARD.encode(trusted.certificate.pem()),
        })
    };
    let mut errors = 0;
    let log = log_of(|| errors = ask(TIME, &cluster(&other), HEAD_TIMEOUT).errors.load(Ordering::Relaxed));
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("will retry")).collect();
    let [line] = lines[..] else { panic!("not logged once: {log}") };
    for cause in ["initial object list", "(Connect)", "invalid peer certificate"] {
        assert!(line.contains(cause), "{cause:?} is not in {line}");
    }
    assert!((2..=4).contains(&errors), "{errors} errors");

    let folder = tempfile::tempdir().unwrap();
    let reviewer = |trusted| {
        TokenReviewer::new("n".to_owned(), Vec::new(), Some(kubeconfig(&folder, &cluster(trusted))))
    };
    let error = block_on(reviewer(&other).review("a-token")).unwrap_err();
    let chain = messages::chain(&error);
    assert!(chain.contains("creates tokenreviews") && chain.contains("invalid peer certificate"), "{chain}");
    assert!(!chain.contains("a-token"), "{chain}");

    assert_eq!(accepted.load(Ordering::Relaxed), 0, "a server of another authority gets no request");
    let error = block_on(reviewer(&authority).review("a-token")).unwrap_err();
    assert!(!messages::chain(&error).contains("certificate"), "{error}");
    assert_eq!(accepted.load(Ordering::Relaxed), 1, "of the right authority it does");
}
