//! A proxy that counts queries, and refuses those of long periods.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// What a server had to do.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    pub(super) queries: u64,
    pub(super) refused: u64,
    /// Queries at the same time, at most.
    pub(super) at_once: u64,
    running: u64,
    /// Points per series of one query, at most.
    pub(super) points: u64,
    /// Bytes of a response, at most.
    pub(super) bytes: u64,
}

pub(super) struct Proxy {
    address: SocketAddr,
    load: Arc<Mutex<Load>>,
}

impl Proxy {
    /// Each query takes `delay` longer. Those of more than `longest` seconds are refused.
    pub(super) fn start(server: SocketAddr, delay: Duration, longest: Option<u64>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let load = Arc::new(Mutex::new(Load::default()));
        let counted = Arc::clone(&load);
        // It ends with the process of the test.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                thread::spawn(move || {
                    if let Err(error) = serve(stream, server, delay, longest, &counted) {
                        println!("proxy: {error:#}");
                    }
                });
            }
        });
        Ok(Self { address, load })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn load(&self) -> Load {
        self.load.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(
    mut client: TcpStream,
    server: SocketAddr,
    delay: Duration,
    longest: Option<u64>,
    load: &Mutex<Load>,
) -> Result<()> {
    let lock = || load.lock().unwrap_or_else(PoisonError::into_inner);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.extend(byte);
    }
    let head = String::from_utf8(head)?;
    let path = head.split(' ').nth(1).context("no path")?.to_owned();
    let query: BTreeMap<&str, &str> = path
        .split_once('?')
        .unwrap_or_default()
        .1
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .collect();
    let number = |name: &str| query.get(name).and_then(|value| value.parse::<u64>().ok());
    let seconds = number("end").zip(number("start")).map_or(0, |(end, start)| end.saturating_sub(start));
    {
        let mut load = lock();
        load.queries += 1;
        load.running += 1;
        load.at_once = load.at_once.max(load.running);
        load.points = load.points.max(seconds / number("step").unwrap_or(1).max(1) + 1);
    }
    thread::sleep(delay);
    let mut response = Vec::new();
    if longest.is_some_and(|longest| seconds > longest) {
        lock().refused += 1;
        let text = "{\"status\":\"error\",\"errorType\":\"execution\",\"error\":\"too many samples\"}";
        write!(
            response,
            "HTTP/1.1 422 X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        )?;
    } else {
        let mut upstream = TcpStream::connect(server)?;
        write!(upstream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
        upstream.read_to_end(&mut response)?;
    }
    {
        let mut load = lock();
        load.running -= 1;
        load.bytes = load.bytes.max(response.len() as u64);
    }
    client.write_all(&response).context("the client is gone")
}
