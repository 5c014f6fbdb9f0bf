//! Many clients at once, which do what they should not.

use std::{net::Ipv4Addr, sync::Weak};

use tokio::net::TcpSocket;

use super::*;
use crate::exporters::series::Limited;

/// A connection from an address of this host's own. Clients are distinguished by their addresses.
fn connect_from(server: &Server, last: u8) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
        socket.connect(server.address).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream
}

fn limited(server: &Server, reason: Limited) -> u64 {
    server.scrapes.limited().iter().find(|(one, _)| *one == reason).unwrap().1
}

#[test]
fn heads_without_end_keep_nobody_out() {
    let server = Server::start(Some(fixture::view()), |state| {
        state.server.head_within = Duration::from_secs(600);
    });
    let begin = |address| {
        let mut stream = connect_from(&server, address);
        drop(stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: loc"));
        stream
    };
    // One client with many connections, then many clients.
    let mut sleepers = Vec::from([99; 30].map(begin));
    for _ in 0..200 {
        if limited(&server, Limited::PerClient) > 0 {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    sleepers.extend((0..200).map(|number| begin(2 + number % 10)));
    for _ in 0..20 {
        assert_eq!(server.get("/readyz", "").status, 200);
        assert_eq!(server.get("/metrics", "").status, 200);
    }
    assert!(limited(&server, Limited::PerClient) > 0 && limited(&server, Limited::Crowded) > 0);
}

#[test]
fn slow_readers_keep_neither_old_views_nor_others_waiting() {
    const READERS: u8 = 32;
    let server = Server::start(Some(large()), |state| {
        (state.server.stall, state.server.body_within) = (Duration::from_secs(600), Duration::from_secs(600));
        state.server.slow_after = Duration::from_millis(500);
        state.server.head_within = Duration::from_secs(600);
    });
    let mut views: Vec<Weak<View>> = Vec::new();
    let mut readers = Vec::new();
    for number in 0..READERS {
        let mut stream = connect_from(&server, 2 + number / 8);
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        readers.push(stream);
        drop(server.views.publish(large()));
        views.push(Arc::downgrade(&server.views.last().unwrap()));
    }
    let reply = server.get("/metrics", "");
    assert_eq!((reply.status, reply.complete), (200, true));
    let held = views.iter().filter(|view| view.strong_count() > 0).count();
    let most = ServerLimits::default().responses + 1;
    assert!(held <= most, "{held} views are held");
    assert!(limited(&server, Limited::SlowReader) > 0);
    drop(readers);
    let started = Instant::now();
    while views.iter().filter(|view| view.strong_count() > 0).count() > 1 {
        assert!(started.elapsed() < Duration::from_secs(20), "views are freed");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_client_that_asks_too_often_is_told_so() {
    let server = Server::start(Some(fixture::view()), |_| {});
    let mut stream = connect_from(&server, 9);
    let mut ask = || {
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = [0; 1024];
        let read = stream.read(&mut answer).unwrap();
        Reply::parse(&answer[..read], true)
    };
    let refused = (0..2000).map(|_| ask()).find(|reply| reply.status != 200).unwrap();
    assert_eq!((refused.status, refused.header("retry-after").as_deref()), (429, Some("1")));
    assert_eq!(server.get("/readyz", "").status, 200, "others are served");
    assert!(limited(&server, Limited::Rate) > 0);
}
