//! A small HTTP server on loopback. The tests of the command, which build on all systems, include this file.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

/// Hands each connection to `handle`, in a thread of its own, with the head of its first request. Returns the address,
/// `http://127.0.0.1:PORT`. It serves as long as the process lives.
///
/// # Panics
/// When no port is free.
pub fn listen(handle: impl Fn(TcpStream, String) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let handle = handle.clone();
            thread::spawn(move || {
                if let Some(head) = read_head(&mut stream) {
                    handle(stream, head);
                }
            });
        }
    });
    address
}

/// The head of the next request, which has no body; `None` when the client has closed the connection.
pub fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => head.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// Sends an answer. The client may have closed the connection: then it is lost.
pub fn answer(stream: &mut TcpStream, status: &str, kind: &str, body: &str) -> Option<()> {
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).ok()
}
