//! Reviews by an API server that the tests command, over real sockets and with the real client.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::*;
use crate::kubernetes::TokenReviewer;

/// What the API server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Answers,
    /// Connections are closed without an answer.
    IsGone,
    /// Requests have no answer.
    Hangs,
    /// The agent may not create reviews.
    Refuses,
    /// It knows no audiences, as one before Kubernetes 1.12.
    KnowsNoAudiences,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    /// The user and the audience of each valid token.
    tokens: HashMap<String, (&'static str, &'static str)>,
    /// The users that may get nodes/metrics of the node.
    readers: Vec<&'static str>,
    reviews: usize,
}

#[derive(Clone)]
struct ApiServer(Arc<Mutex<State>>, std::net::SocketAddr);

impl ApiServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tokens = [
            ("scraper-token", ("scraper", "snug-agent")),
            ("other-token", ("nobody", "snug-agent")),
            ("api-token", ("scraper", "https://kubernetes.default.svc")),
        ];
        let tokens = tokens.map(|(token, owner)| (token.to_owned(), owner)).into();
        let state = State { mode: Mode::Answers, tokens, readers: vec!["scraper"], reviews: 0 };
        let server = Self(Arc::new(Mutex::new(state)), listener.local_addr().unwrap());
        let serving = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = serving.clone();
                thread::spawn(move || server.serve(&stream));
            }
        });
        server
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn set(&self, mode: Mode) {
        self.state().mode = mode;
    }

    fn serve(&self, mut stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if reader.read_until(b'\n', &mut head).ok()? == 0 {
                    return None;
                }
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut body).ok()?;
            let mode = self.state().mode;
            let (status, answer) = match mode {
                Mode::IsGone => return None,
                Mode::Hangs => {
                    while self.state().mode == Mode::Hangs {
                        thread::sleep(Duration::from_millis(20));
                    }
                    return None;
                }
                Mode::Refuses => (
                    403,
                    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                    "reason": "Forbidden", "message": "no", "metadata": {} }),
                ),
                _ => (201, self.review(head.lines().next().unwrap(), serde_json::from_slice(&body).unwrap())),
            };
            let answer = answer.to_string();
            write!(
                stream,
                "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
                answer.len()
            )
            .ok()?;
        }
    }

    fn review(&self, request: &str, mut object: Value) -> Value {
        let mut state = self.state();
        let spec = &object["spec"];
        let status = if request.contains("/apis/authentication.k8s.io/v1/tokenreviews") {
            state.reviews += 1;
            let owner = state.tokens.get(spec["token"].as_str().unwrap());
            let wanted = |audience: &str| {
                let audiences = spec["audiences"].as_array();
                audiences.map_or(audience.starts_with("https:"), |all| all.iter().any(|one| one == audience))
            };
            match owner {
                Some((user, _)) if state.mode == Mode::KnowsNoAudiences => {
                    json!({ "authenticated": true, "user": { "username": user } })
                }
                Some((user, audience)) if wanted(audience) => json!({
                    "authenticated": true, "audiences": [audience],
                    "user": { "username": user, "groups": ["system:authenticated"], "uid": "1", "extra": { "a": ["b"] } },
                }),
                _ => json!({ "error": "invalid bearer token" }),
            }
        } else {
            assert!(request.contains("/apis/authorization.k8s.io/v1/subjectaccessreviews"), "{request}");
            let resource = json!({
                "verb": "get", "version": "v1", "resource": "nodes", "subresource": "metrics", "name": "node1",
            });
            assert_eq!(spec["resourceAttributes"], resource);
            assert_eq!((&spec["uid"], &spec["extra"]), (&json!("1"), &json!({ "a": ["b"] })));
            let is_reader = state.readers.iter().any(|reader| spec["user"] == *reader);
            json!({ "allowed": is_reader })
        };
        object["status"] = status;
        object
    }
}

/// An authorizer with reviews by a server, and the folder of its kubeconfig.
struct Fixture {
    server: ApiServer,
    authorizer: Authorizer,
    _folder: tempfile::TempDir,
}

const SHORT: ReviewAges = ReviewAges {
    allowed: Duration::from_millis(300),
    denied: Duration::from_millis(300),
    outage: Duration::from_secs(4),
    retry: Duration::from_millis(50),
};
const LONG: ReviewAges = ReviewAges {
    allowed: Duration::from_secs(600),
    denied: Duration::from_secs(600),
    outage: Duration::from_secs(600),
    retry: Duration::from_millis(50),
};

fn fixture(ages: ReviewAges, audiences: &[&str]) -> Fixture {
    let server = ApiServer::start();
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{ "name": "a", "cluster": { "server": format!("http://{}", server.1) } }],
        "users": [{ "name": "a", "user": {} }],
        "contexts": [{ "name": "a", "context": { "cluster": "a", "user": "a" } }],
    });
    let path = folder.path().join("kubeconfig");
    fs::write(&path, kubeconfig.to_string()).unwrap();
    let audiences = audiences.iter().map(|audience| (*audience).to_owned()).collect();
    let reviewer = TokenReviewer::new("node1".to_owned(), audiences, Some(path));
    Fixture { server, authorizer: Authorizer::new(None, Some(Reviews::new(reviewer, ages))), _folder: folder }
}

impl Fixture {
    async fn authorize(&self, token: &str) -> Result<(), Denial> {
        self.authorizer.authorize(false, Some(format!("Bearer {token}").as_bytes())).await
    }

    /// Repeats the request until it has this result.
    async fn until(&self, token: &str, expected: Result<(), Denial>) {
        let started = Instant::now();
        while self.authorize(token).await != expected {
            assert!(started.elapsed() < Duration::from_secs(20), "never {expected:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn reviews(&self) -> usize {
        self.server.state().reviews
    }
}

#[tokio::test]
async fn the_api_server_decides_by_token_audience_and_permission() {
    let fixture = fixture(LONG, &["snug-agent"]);
    assert_eq!(fixture.authorize("scraper-token").await, Ok(()));
    assert_eq!(fixture.authorize("other-token").await, Err(Denial::Forbidden));
    assert_eq!(fixture.authorize("expired-token").await, Err(Denial::Unauthenticated));
    assert_eq!(fixture.authorize("api-token").await, Err(Denial::Unauthenticated), "for another audience");
    assert_eq!(fixture.authorizer.authorize(false, None).await, Err(Denial::Unauthenticated));
    assert_eq!(fixture.authorizer.authorize(true, None).await, Ok(()), "a certificate needs no token");
    assert_eq!(fixture.reviews(), 4);
}

#[tokio::test]
async fn without_audiences_a_token_for_the_api_server_is_enough() {
    let fixture = fixture(LONG, &[]);
    assert_eq!(fixture.authorize("api-token").await, Ok(()));
    assert_eq!(fixture.authorize("scraper-token").await, Err(Denial::Unauthenticated));
}

#[tokio::test]
async fn an_api_server_that_ignores_audiences_admits_nobody() {
    let fixture = fixture(LONG, &["snug-agent"]);
    fixture.server.set(Mode::KnowsNoAudiences);
    assert_eq!(fixture.authorize("scraper-token").await, Err(Denial::Unauthenticated));
}

#[tokio::test]
async fn verdicts_are_cached() {
    let fixture = fixture(LONG, &["snug-agent"]);
    for _ in 0..100 {
        assert_eq!(fixture.authorize("scraper-token").await, Ok(()));
        assert_eq!(fixture.authorize("made-up").await, Err(Denial::Unauthenticated));
    }
    assert_eq!(fixture.reviews(), 2);
}

#[tokio::test]
async fn a_revoked_token_and_a_revoked_permission_end_after_the_allowed_age() {
    let fixture = fixture(SHORT, &["snug-agent"]);
    assert_eq!(fixture.authorize("scraper-token").await, Ok(()));
    fixture.server.state().tokens.remove("scraper-token");
    fixture.until("scraper-token", Err(Denial::Unauthenticated)).await;
    fixture.server.state().tokens.insert("scraper-token".to_owned(), ("scraper", "snug-agent"));
    fixture.until("scraper-token", Ok(())).await;
    fixture.server.state().readers.clear();
    fixture.until("scraper-token", Err(Denial::Forbidden)).await;
}

#[tokio::test]
async fn while_the_api_server_is_away_allowed_tokens_hold_for_a_time_and_then_nobody_is_admitted() {
    for mode in [Mode::IsGone, Mode::Refuses] {
        let fixture = fixture(SHORT, &["snug-agent"]);
        assert_eq!(fixture.authorize("scraper-token").await, Ok(()));
        fixture.server.set(mode);
        tokio::time::sleep(SHORT.allowed).await;
        assert_eq!(
            fixture.authorize("scraper-token").await,
            Ok(()),
            "{mode:?}: too old, but the last verdict"
        );
        assert_eq!(
            fixture.authorize("other-token").await,
            Err(Denial::Unavailable),
            "{mode:?}: never reviewed"
        );
        fixture.until("scraper-token", Err(Denial::Unavailable)).await;
        fixture.server.set(Mode::Answers);
        fixture.until("scraper-token", Ok(())).await;
        fixture.until("other-token", Err(Denial::Forbidden)).await;
    }
}

#[tokio::test]
async fn a_hanging_api_server_delays_one_request_and_then_none() {
    let fixture = fixture(ReviewAges { retry: Duration::from_secs(600), ..LONG }, &["snug-agent"]);
    fixture.server.set(Mode::Hangs);
    assert_eq!(fixture.authorize("scraper-token").await, Err(Denial::Unavailable));
    for _ in 0..100 {
        assert_eq!(fixture.authorize("scraper-token").await, Err(Denial::Unavailable));
    }
    let reviews = fixture.authorizer.reviews.as_ref().unwrap();
    assert_eq!(
        reviews.counts(),
        ReviewCounts { made: 1, failed: 1 },
        "the others were answered without a review"
    );
}

#[tokio::test]
async fn made_up_tokens_cause_few_reviews_and_do_not_keep_a_known_client_out() {
    let fixture = fixture(SHORT, &["snug-agent"]);
    assert_eq!(fixture.authorize("scraper-token").await, Ok(()));
    let started = Instant::now();
    let mut admitted = 0;
    for number in 0..2000 {
        let refused = fixture.authorize(&format!("made-up-{number}")).await;
        assert!(matches!(refused, Err(Denial::Unauthenticated | Denial::Unavailable)), "{refused:?}");
        if number % 100 == 0 {
            assert_eq!(fixture.authorize("scraper-token").await, Ok(()), "after {number}");
            admitted += 1;
        }
    }
    tokio::time::sleep(SHORT.allowed).await;
    assert_eq!(fixture.authorize("scraper-token").await, Ok(()), "its own limit is not used up");
    let limit =
        2 * (f64::from(reviews::BURST) + started.elapsed().div_duration_f64(reviews::INTERVAL)) as usize + 2;
    assert!(fixture.reviews() <= limit, "{} reviews, at most {limit}", fixture.reviews());
    assert_eq!(admitted, 20);
}
