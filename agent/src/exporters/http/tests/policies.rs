//! Who is let in by each policy.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::ServerName};

use super::*;
use crate::{
    access::{Authorizer, TokenFile},
    exporters::series::Limited,
    tls::{
        ServerFiles, ServerTls,
        fixture::{Authority, Identity, write},
    },
};

const TOKEN: &str = "a-token-of-the-file-0123";

struct TlsServer {
    server: Server,
    tls: Arc<ServerTls>,
    folder: tempfile::TempDir,
}

impl TlsServer {
    fn start(authority: &Authority, requires_client_certificate: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        authority.serve_from(folder.path());
        let path = |file| folder.path().join(file);
        write(folder.path(), "tokens", TOKEN);
        let files = ServerFiles {
            certificate: path("tls.crt"),
            key: path("tls.key"),
            client_authorities: Some(path("ca.crt")),
            requires_client_certificate,
        };
        let tls = Arc::new(ServerTls::new(files));
        tls.reload().unwrap();
        let tokens = TokenFile::new(&path("tokens"));
        tokens.reload().unwrap();
        let authorizer = Arc::new(Authorizer::new(Some(tokens), None));
        let policy = AccessPolicy::Tls(Arc::clone(&tls), authorizer);
        let server = Server::start_at(policy, Some(fixture::view()), |_| {});
        Self { server, tls, folder }
    }

    /// The reply over TLS; an error if the handshake fails.
    fn get(&self, trusted: &Authority, identity: Option<&Identity>, headers: &str) -> io::Result<Reply> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some(Identity(certificate, key)) => {
                config.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap()
            }
        };
        let name = ServerName::try_from("snug-agent").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, self.server.connect());
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: any\r\nConnection: close\r\n{headers}\r\n")?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(Reply::parse(&bytes, true))
    }

    fn status(&self, trusted: &Authority, identity: Option<&Identity>, headers: &str) -> u16 {
        self.get(trusted, identity, headers).unwrap().status
    }
}

#[test]
fn a_certificate_or_a_token_is_required() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority, false);
    let status = |headers: &str| server.status(&authority, None, headers);
    let refused = server.get(&authority, None, "").unwrap();
    assert_eq!((refused.status, refused.header("www-authenticate").as_deref()), (401, Some("Bearer")));
    assert!(!refused.text().contains("snug_"), "{}", refused.text());
    assert_eq!(status(&format!("Authorization: Bearer {TOKEN}\r\n")), 200);
    for wrong in ["Bearer a-token-of-the-file-0124", "Bearer ", "Basic YTpi", TOKEN, "Bearer a\u{e9}b"] {
        assert_eq!(status(&format!("Authorization: {wrong}\r\n")), 401, "{wrong}");
    }
    assert_eq!(server.status(&authority, Some(&authority.client()), ""), 200);
    let refused =
        server.server.scrapes.limited().into_iter().find(|(reason, _)| *reason == Limited::Unauthenticated);
    assert!(refused.unwrap().1 >= 6);
    // Whoever verifies the server does not talk to an impostor.
    assert!(server.get(&Authority::new(), None, "").is_err());
    // Plain HTTP gets no answer.
    assert_eq!(server.server.get("/metrics", "").status, 0);
}

#[test]
fn certificates_of_others_expired_ones_and_those_of_servers_do_not_pass() {
    let authority = Authority::new();
    let expired = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    };
    let wrong = [
        Authority::new().client(),
        authority.issue(ExtendedKeyUsagePurpose::ClientAuth, expired).2,
        authority.issue(ExtendedKeyUsagePurpose::ServerAuth, |_| {}).2,
    ];
    for requires_client_certificate in [false, true] {
        let server = TlsServer::start(&authority, requires_client_certificate);
        for (number, identity) in wrong.iter().enumerate() {
            assert!(server.get(&authority, Some(identity), "").is_err(), "{number}");
        }
        assert_eq!(server.status(&authority, Some(&authority.client()), ""), 200);
        let without = server.get(&authority, None, "").map(|reply| reply.status);
        assert_eq!(without.ok(), (!requires_client_certificate).then_some(401));
    }
}

#[test]
fn a_new_certificate_and_a_new_authority_hold_for_new_connections() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = TlsServer::start(&old, true);
    let (of_old, of_new) = (old.client(), new.client());
    assert_eq!(server.status(&old, Some(&of_old), ""), 200);
    new.serve_from(server.folder.path());
    assert!(server.tls.reload().unwrap());
    assert_eq!(server.status(&new, Some(&of_new), ""), 200);
    assert!(server.get(&new, Some(&of_old), "").is_err(), "the old authority is no longer trusted");
    assert!(server.get(&old, Some(&of_new), "").is_err(), "the server has the new certificate");
}

#[test]
fn an_old_connection_is_closed_after_its_response() {
    let view = Some(fixture::view());
    let server =
        Server::start_at(AccessPolicy::Open, view, |state| state.server.connection_age = Duration::ZERO);
    let reply =
        server.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((reply.status, reply.header("connection").as_deref()), (200, Some("close")));
    assert_eq!(reply.text().matches("HTTP/1.1").count(), 0, "the second request is not answered");
}

#[test]
fn a_server_without_a_usable_certificate_answers_nobody_and_takes_one_that_comes_later() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let path = |file| folder.path().join(file);
    let files = ServerFiles {
        certificate: path("tls.crt"),
        key: path("tls.key"),
        client_authorities: Some(path("ca.crt")),
        requires_client_certificate: true,
    };
    let (tls, authorizer) = (Arc::new(ServerTls::new(files)), Arc::new(Authorizer::default()));
    assert!(tls.reload().is_err());
    let policy = AccessPolicy::Tls(Arc::clone(&tls), authorizer);
    let server = Server::start_at(policy, Some(fixture::view()), |_| {});
    let server = TlsServer { server, tls, folder };
    assert!(server.get(&authority, Some(&authority.client()), "").is_err());
    authority.serve_from(server.folder.path());
    assert!(server.tls.reload().unwrap());
    assert_eq!(server.status(&authority, Some(&authority.client()), ""), 200);
}

#[test]
fn on_loopback_the_host_must_be_this_host() {
    let server = Server::start(Some(fixture::view()), |_| {});
    let get = |host: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        server.send(request.as_bytes())
    };
    for host in ["Host: localhost:9750\r\n", "Host: 127.0.0.1\r\n", "Host: [::1]:1\r\n"] {
        assert_eq!(get(host).status, 200, "{host}");
    }
    for host in ["Host: evil.example\r\n", "Host: localhost\r\nHost: evil.example\r\n", "Host: \r\n"] {
        let reply = get(host);
        assert_eq!(reply.status, 421, "{host}");
        assert!(!reply.text().contains("snug_"));
    }
    let absolute = server
        .send(b"GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(absolute.status, 421);
    let open = Server::start_at(AccessPolicy::Open, Some(fixture::view()), |_| {});
    assert_eq!(open.get("/metrics", "").status, 200);
}

#[test]
fn probes_say_nothing_but_healthy_or_ready() {
    let change = |state: &mut ServerState| state.server.stale_after = Duration::from_secs(1);
    let server = Server::start_at(AccessPolicy::Probes, None, change);
    let of = |path: &str| {
        let reply = server.get(path, "");
        (reply.status, reply.text().to_owned())
    };
    let (ok, not) = ((200, "ok\n".to_owned()), (503, "not ok\n".to_owned()));
    assert_eq!((of("/healthz"), of("/readyz")), (ok.clone(), not.clone()));
    server.views.publish(fixture::view());
    assert_eq!((of("/healthz"), of("/readyz")), (ok.clone(), ok.clone()));
    thread::sleep(Duration::from_millis(1100));
    assert_eq!((of("/healthz"), of("/readyz")), (not, ok));
    for path in ["/", "/metrics", "/metrics/cadvisor", "/api/v1/evidence", "/api/v1/containers", "/healthz/"]
    {
        let (status, text) = of(path);
        assert_eq!((status, text.contains("snug")), (404, false), "{path}: {text}");
    }
}
