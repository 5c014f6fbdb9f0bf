//! A client of the agent's TLS port, which verifies it by the name of its Service.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};
use snug_agent::tls::TlsFiles;

/// What a client presents.
#[derive(Clone, Copy, Debug)]
pub enum Identity<'a> {
    /// Nothing.
    None,
    /// The client certificate.
    Certificate,
    /// A bearer token.
    Token(&'a str),
}

/// Files with the authority of the agents and the certificate of the client.
#[derive(Clone, Debug)]
pub struct TlsClient {
    /// The authority, in PEM.
    pub authority: PathBuf,
    /// The client certificate, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
    /// The name that the agent's certificate must have.
    pub server_name: String,
}

impl TlsClient {
    /// The status and the body of a response.
    ///
    /// # Errors
    /// When there is no response, or the agent has another certificate.
    pub fn get(&self, address: SocketAddr, path: &str, identity: Identity<'_>) -> Result<(u16, String)> {
        let has_certificate = matches!(identity, Identity::Certificate);
        let files = TlsFiles {
            authorities: Some(self.authority.clone()),
            certificate: has_certificate.then(|| self.certificate.clone()),
            key: has_certificate.then(|| self.key.clone()),
        };
        let name = ServerName::try_from(self.server_name.clone())?;
        let connection = ClientConnection::new(Arc::new(files.client()?), name)?;
        let socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut stream = StreamOwned::new(connection, socket);
        let authorization = match identity {
            Identity::Token(token) => format!("Authorization: Bearer {token}\r\n"),
            _ => String::new(),
        };
        // A response of HTTP/1.0 ends with the connection.
        write!(stream, "GET {path} HTTP/1.0\r\n{authorization}\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let (head, body) = response.split_once("\r\n\r\n").context("not HTTP")?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok((status, body.to_owned()))
    }
}
