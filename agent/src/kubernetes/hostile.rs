//! Servers in the place of the API server that do everything wrong: the agent keeps its pace and its memory.

use std::{
    io::{BufRead as _, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{PodWatch, Settings, run};

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
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let content = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "t",
        "clusters": [{ "name": "t", "cluster": { "server": format!("http://{address}") } }],
        "users": [{ "name": "t", "user": {} }],
        "contexts": [{ "name": "t", "context": { "cluster": "t", "user": "t" } }],
    });
    std::fs::write(&kubeconfig, content.to_string()).unwrap();
    let settings = Settings { node: "n".to_owned(), kubeconfig: Some(kubeconfig), owner_lookup: false };
    let state = Arc::new(PodWatch::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _ = runtime.block_on(async { tokio::time::timeout(time, run(settings, Arc::clone(&state))).await });
    (server, state)
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
