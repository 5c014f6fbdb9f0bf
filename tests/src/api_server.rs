//! An API server that serves pods from memory: what a real one does at moments that cannot be ordered from it.
//!
//! It knows `GET /api/v1/pods`, as a list and as a watch, and bearer tokens; nothing else.

use std::{
    io::{BufRead as _, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// Time between two checks of a watch whether it was ended.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The server; its port stays open until the test's process ends.
#[derive(Clone, Debug)]
pub struct ApiServer {
    address: SocketAddr,
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    pods: Vec<Value>,
    /// What watches send, from the first.
    events: Vec<Value>,
    /// Watches that began before this one end.
    watch: u64,
    token: String,
    lists: u64,
    refused: u64,
}

impl ApiServer {
    /// Serves these pods to whoever has the token.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(pods: Vec<Value>, token: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let state = State { pods, token: token.to_owned(), ..State::default() };
        let server =
            Self { address: listener.local_addr()?, shared: Arc::new((Mutex::new(state), Condvar::new())) };
        let serving = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = serving.clone();
                // A client that goes away ends its thread.
                thread::spawn(move || server.serve(&stream).ok());
            }
        });
        Ok(server)
    }

    /// A kubeconfig whose user has the token in this file.
    pub fn kubeconfig(&self, token_file: &std::path::Path) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "agent", "user": { "tokenFile": token_file } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "agent" } }],
        })
        .to_string()
    }

    /// Sends an event to whoever watches; the list stays as it is.
    pub fn send(&self, kind: &str, object: &Value) {
        self.state().events.push(json!({ "type": kind, "object": object }));
        self.shared.1.notify_all();
    }

    /// Tells every watch that it is too old, as after a compaction, and has other pods from now on.
    pub fn expire(&self, pods: Vec<Value>) {
        let gone = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "too old resource version", "reason": "Expired", "code": 410,
        });
        self.send("ERROR", &gone);
        thread::sleep(3 * CHECK_INTERVAL);
        let mut state = self.state();
        state.pods = pods;
        state.events.clear();
        self.end_watches(&mut state);
    }

    /// Takes another token from now on, and ends the watches.
    pub fn rotate(&self, token: &str) {
        let mut state = self.state();
        token.clone_into(&mut state.token);
        self.end_watches(&mut state);
    }

    /// How often the pods were listed, and how many requests had a wrong token.
    pub fn asked(&self) -> (u64, u64) {
        let state = self.state();
        (state.lists, state.refused)
    }

    fn end_watches(&self, state: &mut State) {
        state.watch += 1;
        self.shared.1.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: &TcpStream) -> Result<()> {
        let mut lines = BufReader::new(stream).lines();
        while let Some(request) = lines.next() {
            let request = request?;
            let mut token = String::new();
            for header in lines.by_ref() {
                let header = header?;
                if header.is_empty() {
                    break;
                }
                if let Some((name, value)) = header.split_once(':')
                    && name.eq_ignore_ascii_case("authorization")
                {
                    value.trim().trim_start_matches("Bearer ").clone_into(&mut token);
                }
            }
            let target = request.split(' ').nth(1).context("no target")?;
            self.answer(stream, target, &token)?;
        }
        Ok(())
    }

    fn answer(&self, mut stream: &TcpStream, target: &str, token: &str) -> Result<()> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (status, body) = if token != self.state().token {
            self.state().refused += 1;
            (401, failure(401, "Unauthorized"))
        } else if path != "/api/v1/pods" {
            (404, failure(404, "NotFound"))
        } else if !query.contains("fieldSelector=spec.nodeName") {
            (403, failure(403, "Forbidden"))
        } else if query.contains("watch=true") {
            return self.watch(stream);
        } else {
            let mut state = self.state();
            state.lists += 1;
            let version = json!({ "resourceVersion": "1" });
            let list =
                json!({ "kind": "PodList", "apiVersion": "v1", "metadata": version, "items": state.pods });
            (200, list)
        };
        let body = body.to_string();
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )?;
        Ok(())
    }

    fn watch(&self, mut stream: &TcpStream) -> Result<()> {
        write!(
            stream,
            "HTTP/1.1 200 x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        )?;
        let (watch, mut sent) = (self.state().watch, 0);
        loop {
            let mut state = self.state();
            while state.watch == watch && state.events.len() == sent {
                state = self
                    .shared
                    .1
                    .wait_timeout(state, CHECK_INTERVAL)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            if state.watch != watch {
                break;
            }
            let events: Vec<Value> = state.events[sent..].to_vec();
            sent = state.events.len();
            drop(state);
            for event in events {
                let line = format!("{event}\n");
                write!(stream, "{:x}\r\n{line}\r\n", line.len())?;
            }
        }
        write!(stream, "0\r\n\r\n")?;
        Ok(())
    }
}

fn failure(code: u16, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": reason,
    })
}
