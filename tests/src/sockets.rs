//! TCP connections between workers, which stay open so that all their packets are counted.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use socket2::{SockFilter, SockRef};

/// Jobs with TCP sockets. They use the last listener and the last connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketJob {
    /// Listen on every address. The answer is the port.
    Listen {
        /// On IPv6 instead of IPv4.
        ipv6: bool,
    },
    /// Connect. The answer is 1, or 0 if the attempt timed out.
    Connect {
        address: IpAddr,
        port: u16,
        /// `TCP_USER_TIMEOUT` of the attempt and of the connection, milliseconds.
        timeout_ms: u64,
        /// Whether received packets are dropped, as on a broken network.
        deaf: bool,
    },
    /// Accept a connection, receive `bytes` and send `reply` bytes. The answer is the number of bytes received.
    Receive {
        /// Bytes to receive.
        bytes: u64,
        /// Bytes to send back.
        reply: u64,
    },
    /// Send `bytes` over the connection and receive `reply` bytes. The answer is the number of bytes received.
    Send {
        /// Bytes to send.
        bytes: u64,
        /// Bytes to take.
        reply: u64,
    },
    /// Send a byte over the connection and wait for data. The answer is 1 if the connection timed out.
    SendInVain,
    /// Drop received packets, as on a broken network: on the connection, else on the listener.
    Deafen,
}

impl SocketJob {
    pub(crate) fn line(self) -> String {
        match self {
            Self::Listen { ipv6 } => format!("listen {ipv6}"),
            Self::Connect { address, port, timeout_ms, deaf } => {
                format!("connect {address} {port} {timeout_ms} {deaf}")
            }
            Self::Receive { bytes, reply } => format!("receive {bytes} {reply}"),
            Self::Send { bytes, reply } => format!("send {bytes} {reply}"),
            Self::SendInVain => "send-in-vain".to_owned(),
            Self::Deafen => "deafen".to_owned(),
        }
    }

    pub(crate) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        Some(match words.as_slice() {
            ["listen", ipv6] => Self::Listen { ipv6: ipv6.parse().ok()? },
            ["connect", address, port, timeout_ms, deaf] => Self::Connect {
                address: address.parse().ok()?,
                port: port.parse().ok()?,
                timeout_ms: timeout_ms.parse().ok()?,
                deaf: deaf.parse().ok()?,
            },
            ["receive", bytes, reply] => {
                Self::Receive { bytes: bytes.parse().ok()?, reply: reply.parse().ok()? }
            }
            ["send", bytes, reply] => Self::Send { bytes: bytes.parse().ok()?, reply: reply.parse().ok()? },
            ["send-in-vain"] => Self::SendInVain,
            ["deafen"] => Self::Deafen,
            _ => return None,
        })
    }
}

/// A worker's listener and connections.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    listener: Option<TcpListener>,
    /// The last one is used. Earlier ones stay open, because the packets that close a connection may have no socket any more.
    connections: Vec<TcpStream>,
}

impl Sockets {
    pub(crate) fn run(&mut self, job: SocketJob) -> u64 {
        match job {
            SocketJob::Listen { ipv6 } => {
                let any: IpAddr =
                    if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
                let listener = TcpListener::bind((any, 0)).unwrap();
                let port = listener.local_addr().unwrap().port();
                self.listener = Some(listener);
                port.into()
            }
            SocketJob::Connect { address, port, timeout_ms, deaf } => {
                let connected = connect((address, port).into(), Duration::from_millis(timeout_ms), deaf);
                let outcome = connected.is_some().into();
                self.connections.extend(connected);
                outcome
            }
            SocketJob::Receive { bytes, reply } => {
                let (mut connection, _) = self.listener.as_ref().unwrap().accept().unwrap();
                let taken = take(&mut connection, bytes);
                connection.write_all(&vec![7; usize::try_from(reply).unwrap()]).unwrap();
                self.connections.push(connection);
                taken
            }
            SocketJob::Send { bytes, reply } => {
                let connection = self.connections.last_mut().unwrap();
                connection.write_all(&vec![7; usize::try_from(bytes).unwrap()]).unwrap();
                take(connection, reply)
            }
            SocketJob::SendInVain => {
                let connection = self.connections.last_mut().unwrap();
                connection.write_all(&[7]).unwrap();
                let end = connection.read(&mut [0; 1]);
                u64::from(end.is_err_and(|error| error.kind() == ErrorKind::TimedOut))
            }
            SocketJob::Deafen => {
                let socket = match (self.connections.last(), &self.listener) {
                    (Some(connection), _) => SockRef::from(connection),
                    (None, listener) => SockRef::from(listener.as_ref().unwrap()),
                };
                socket.attach_filter(&[DROP]).unwrap();
                0
            }
        }
    }
}

/// `BPF_RET` of `include/uapi/linux/bpf_common.h` with 0: drop the packet.
const DROP: SockFilter = SockFilter::new(0x06, 0, 0, 0);

/// `None` if it timed out.
fn connect(to: SocketAddr, timeout: Duration, deaf: bool) -> Option<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
    socket.set_tcp_user_timeout(Some(timeout)).unwrap();
    if deaf {
        socket.attach_filter(&[DROP]).unwrap();
    }
    match socket.connect(&to.into()) {
        Ok(()) => Some(socket.into()),
        Err(error) if error.kind() == ErrorKind::TimedOut => None,
        Err(error) => panic!("cannot connect to {to}: {error}"),
    }
}

fn take(connection: &mut TcpStream, bytes: u64) -> u64 {
    std::io::copy(&mut connection.take(bytes), &mut std::io::sink()).unwrap()
}
