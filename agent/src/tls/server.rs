//! TLS of connections that the agent accepts. The files are read again when they change, as those of cert-manager do.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwapOption;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use super::{TlsError, certificates, not_pem, read};

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// The certificate, followed by those of intermediate authorities.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// Authorities of clients' certificates.
    pub client_authorities: Option<PathBuf>,
    /// Whether a client without a certificate is refused in the handshake.
    pub requires_client_certificate: bool,
}

/// A configuration, and when its certificate expires.
#[derive(Debug)]
struct Served {
    config: Arc<ServerConfig>,
    expires: Option<u64>,
}

/// The current TLS configuration of a server; none until the files are usable for the first time.
#[derive(Debug)]
pub struct ServerTls {
    files: ServerFiles,
    current: ArcSwapOption<Served>,
    /// The contents of the files that `current` was made from.
    contents: Mutex<Vec<Vec<u8>>>,
}

impl ServerTls {
    /// Does not read the files yet.
    pub fn new(files: ServerFiles) -> Self {
        Self { files, current: ArcSwapOption::empty(), contents: Mutex::default() }
    }

    /// The configuration for new connections.
    pub fn current(&self) -> Option<Arc<ServerConfig>> {
        self.current.load().as_ref().map(|served| Arc::clone(&served.config))
    }

    /// When the served certificate, or that of one of its intermediate authorities, expires first: seconds since the Unix epoch.
    pub fn expires(&self) -> Option<u64> {
        self.current.load().as_ref().and_then(|served| served.expires)
    }

    /// Reads the files. Returns whether they have changed. On an error the last usable configuration stays.
    ///
    /// # Errors
    /// When a file cannot be used, or the key is not that of the certificate.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let files = &self.files;
        let mut contents = vec![read(&files.certificate)?, read(&files.key)?];
        if let Some(path) = &files.client_authorities {
            contents.push(read(path)?);
        }
        let mut known = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == contents {
            return Ok(false);
        }
        let chain = certificates(&files.certificate, &contents[0])?;
        let key = PrivateKeyDer::from_pem_slice(&contents[1]).map_err(|error| not_pem(&files.key, &error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match &files.client_authorities {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path, &contents[2])? {
                    roots.add(certificate)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = if files.requires_client_certificate {
                    verifier
                } else {
                    verifier.allow_unauthenticated()
                };
                let verifier = verifier
                    .build()
                    .map_err(|error| TlsError::File { path: path.clone(), why: error.to_string() })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let expires = chain.iter().filter_map(|certificate| not_after(certificate)).min();
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        self.current.store(Some(Arc::new(Served { config: Arc::new(config), expires })));
        *known = contents;
        Ok(true)
    }
}

/// The last second of a certificate's validity, since the Unix epoch; 0 before it.
fn not_after(certificate: &[u8]) -> Option<u64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use proptest::prelude::*;
    use rcgen::{CertifiedKey, ExtendedKeyUsagePurpose, date_time_ymd, generate_simple_self_signed};

    use super::*;
    use crate::tls::fixture::Authority;

    fn pair(folder: &Path) -> CertifiedKey<rcgen::KeyPair> {
        fs::create_dir_all(folder).unwrap();
        let pair = generate_simple_self_signed(["snug-agent".to_owned()]).unwrap();
        fs::write(folder.join("tls.crt"), pair.cert.pem()).unwrap();
        fs::write(folder.join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
        pair
    }

    fn tls(folder: &Path) -> ServerTls {
        ServerTls::new(ServerFiles {
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
            client_authorities: None,
            requires_client_certificate: false,
        })
    }

    #[test]
    fn files_that_come_later_and_change_by_a_symlink_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("..data");
        let tls = tls(&link);
        assert!(tls.reload().unwrap_err().to_string().contains("tls.crt cannot be used: No such file"));
        assert!(tls.current().is_none());
        // As the kubelet does: a folder for each version, and a link that is replaced.
        let version = |name: &str| {
            pair(&folder.path().join(name));
            symlink(name, folder.path().join("next")).unwrap();
            fs::rename(folder.path().join("next"), &link).unwrap();
        };
        version("1");
        assert!(tls.reload().unwrap());
        assert!(!tls.reload().unwrap(), "nothing has changed");
        let first = tls.current().unwrap();
        version("2");
        assert!(tls.reload().unwrap());
        assert!(!Arc::ptr_eq(&first, &tls.current().unwrap()));
    }

    #[test]
    fn the_expiry_is_the_first_of_the_chain() {
        let authority = Authority::new();
        let folder = tempfile::tempdir().unwrap();
        let tls = tls(folder.path());
        assert_eq!(tls.expires(), None);
        let until = |year| {
            authority.issue(ExtendedKeyUsagePurpose::ServerAuth, |params| {
                params.not_after = date_time_ymd(year, 1, 1);
            })
        };
        let (own, key, _) = until(2040);
        fs::write(folder.path().join("tls.key"), key).unwrap();
        for (chain, expires) in [
            (own.clone(), 2_208_988_800),
            (format!("{own}{}", until(2030).0), 1_893_456_000),
            (format!("{own}{}", until(2060).0), 2_208_988_800),
        ] {
            fs::write(folder.path().join("tls.crt"), chain).unwrap();
            assert!(tls.reload().unwrap());
            assert_eq!(tls.expires(), Some(expires));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = not_after(&bytes);
        }
    }

    #[test]
    fn unusable_files_leave_the_last_configuration() {
        let folder = tempfile::tempdir().unwrap();
        pair(folder.path());
        let tls = tls(folder.path());
        tls.reload().unwrap();
        let first = tls.current().unwrap();
        let other = generate_simple_self_signed(["other".to_owned()]).unwrap();
        for (file, content, named) in [
            ("tls.key", other.signing_key.serialize_pem(), "TLS cannot be set up"),
            ("tls.key", String::new(), "tls.key"),
            ("tls.crt", "-----BEGIN CERTIFICATE-----\n".to_owned(), "tls.crt"),
        ] {
            fs::write(folder.path().join(file), content).unwrap();
            let error = tls.reload().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
            assert!(!error.contains("PRIVATE"), "{error}");
            assert!(Arc::ptr_eq(&first, &tls.current().unwrap()));
        }
    }
}
