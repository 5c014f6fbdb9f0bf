//! An API server for the command. It forwards the port of agents: frames of `v4.channel.k8s.io` in a WebSocket, which carry HTTP.

use std::{io::Write as _, net::TcpStream};

use serde_json::json;
use tungstenite::{Message, WebSocket, handshake::derive_accept_key, protocol::Role};

use crate::http;

/// Starts an API server and returns a kubeconfig for it. `answer` makes the status and the JSON of a response from the head of a
/// request. `agent` makes the body of an agent's response from the head of the request for its port; `None` refuses the connection.
pub(crate) fn start(
    answer: impl Fn(&str) -> (&'static str, String) + Clone + Send + 'static,
    agent: impl Fn(&str) -> Option<String> + Clone + Send + 'static,
) -> tempfile::NamedTempFile {
    let server = http::listen(move |mut stream, head| {
        if is_forward(&head) {
            forward(stream, &head, &agent);
        } else {
            let (status, body) = answer(&head);
            http::answer(&mut stream, &format!("{status}\r\nConnection: close"), "application/json", &body);
        }
    });
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        "clusters": [{ "name": "c", "cluster": { "server": server } }],
        "users": [{ "name": "u", "user": {} }],
    });
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(kubeconfig.to_string().as_bytes()).unwrap();
    file
}

/// Whether a request is for a forwarded port.
fn is_forward(head: &str) -> bool {
    head.split(' ')
        .nth(1)
        .is_some_and(|target| target.contains("/portforward?") && target.contains("ports=9750"))
}

/// Forwards one request.
fn forward(mut stream: TcpStream, head: &str, agent: &impl Fn(&str) -> Option<String>) -> Option<()> {
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let accept = derive_accept_key(header("sec-websocket-key")?.as_bytes());
    assert!(header("sec-websocket-protocol")?.contains("v4.channel.k8s.io"));
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
    )
    .ok()?;
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
    let port = 9750_u16.to_le_bytes();
    for channel in [0, 1] {
        socket.send(Message::binary([&[channel][..], &port].concat())).ok()?;
    }
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match socket.read().ok()? {
            Message::Binary(frame) if frame.first() == Some(&0) => request.extend_from_slice(&frame[1..]),
            Message::Close(_) => return None,
            _ => {}
        }
    }
    let request = String::from_utf8(request).ok()?;
    assert!(request.to_ascii_lowercase().contains("host: localhost"), "{request}");
    match agent(head) {
        Some(body) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let response = [head.as_bytes(), body.as_bytes()].concat();
            for part in response.chunks(4096) {
                socket.send(Message::binary([&[0][..], part].concat())).ok()?;
            }
        }
        None => socket.send(Message::binary([&[1][..], b"connection refused"].concat())).ok()?,
    }
    let _ = socket.close(None);
    // Until the client has closed, too.
    while socket.read().is_ok() {}
    Some(())
}
