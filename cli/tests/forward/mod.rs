//! The part of an API server that forwards a port of a pod: frames of `v4.channel.k8s.io` in a WebSocket, which carry HTTP.

use std::{io::Write as _, net::TcpStream};

use tungstenite::{Message, WebSocket, handshake::derive_accept_key, protocol::Role};

/// Whether a request is for a forwarded port.
pub(crate) fn is_asked(head: &str) -> bool {
    head.split(' ')
        .nth(1)
        .is_some_and(|target| target.contains("/portforward?") && target.contains("ports=9750"))
}

/// Forwards one request. `respond` makes the body of the response of the agent from the head of the request; `None` refuses the
/// connection, as where nothing listens.
pub(crate) fn serve(
    mut stream: TcpStream,
    head: &str,
    respond: impl Fn(&str) -> Option<String>,
) -> Option<()> {
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
    match respond(&request) {
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
