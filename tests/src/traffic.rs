//! Traffic of exactly known size, through new sockets.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;

/// A timeout longer than anything on loopback takes, also on an emulated processor.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends `times` datagrams of `bytes` payload from one socket to another; returns the payload that arrived.
pub(crate) fn datagrams(times: u64, bytes: u64, ipv6: bool) -> u64 {
    let address: SocketAddr =
        if ipv6 { (Ipv6Addr::LOCALHOST, 0).into() } else { (Ipv4Addr::LOCALHOST, 0).into() };
    let (to, from) = (UdpSocket::bind(address).unwrap(), UdpSocket::bind(address).unwrap());
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    let payload = vec![7; usize::try_from(bytes).unwrap()];
    let mut room = vec![0; 1 << 16];
    (0..times)
        .map(|_| {
            // One after the other, so that the receive buffer is never full.
            from.send_to(&payload, to.local_addr().unwrap()).unwrap();
            to.recv(&mut room).unwrap() as u64
        })
        .sum()
}

/// Makes `times` connections, and as many attempts to a port without listener; returns the number of refused attempts.
pub(crate) fn connections(times: u64) -> u64 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..times {
        let mut opened = TcpStream::connect(address).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        opened.write_all(b"hello").unwrap();
        drop(opened);
        accepted.read_to_end(&mut Vec::new()).unwrap();
    }
    drop(listener);
    let refused = |_: &u64| {
        TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    (0..times).filter(refused).count() as u64
}

/// Makes a connection that the accepting side resets; returns 1 if the other side noticed.
pub(crate) fn reset() -> u64 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut opened = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    // Closing with a linger time of 0 sends a reset.
    set_socket_linger(&accepted, Some(Duration::ZERO)).unwrap();
    drop(accepted);
    let seen = opened.read(&mut [0; 1]);
    u64::from(seen.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset))
}
