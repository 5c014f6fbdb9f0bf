//! TLS: of connections that the agent opens here, with trusted certificate authorities and the client certificate; of those that
//! it accepts in `server`.

#[cfg(test)]
pub(crate) mod fixture;
mod server;

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

pub use self::server::{ServerFiles, ServerTls};

/// Files in PEM.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Trusted certificate authorities. Default: those of the host, else Mozilla's.
    pub authorities: Option<PathBuf>,
    /// The client certificate of the agent.
    pub certificate: Option<PathBuf>,
    /// The private key of the client certificate.
    pub key: Option<PathBuf>,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no certificate or key.
    #[error("{} cannot be used: {why}", path.display())]
    File { path: PathBuf, why: String },
    /// Only one of certificate and key was given.
    #[error("a client's certificate and its key belong together; give both or neither")]
    Half,
    /// The TLS library refuses the certificate or the key.
    #[error("TLS cannot be set up")]
    Refused(#[from] rustls::Error),
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be used, or only one of certificate and key is given.
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        let mut roots = RootCertStore::empty();
        match &self.authorities {
            Some(path) => {
                for certificate in certificates(path, &read(path)?)? {
                    roots.add(certificate)?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
                }
            }
        }
        let provider = rustls::crypto::ring::default_provider().into();
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        match (&self.certificate, &self.key) {
            (None, None) => Ok(config.with_no_client_auth()),
            (Some(certificate), Some(path)) => {
                let key =
                    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| not_pem(path, &error))?;
                let chain = certificates(certificate, &read(certificate)?)?;
                Ok(config.with_client_auth_cert(chain, key)?)
            }
            _ => Err(TlsError::Half),
        }
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| not_pem(path, &error))?;
    if all.is_empty() {
        let why = "it contains no certificate".to_owned();
        return Err(TlsError::File { path: path.to_owned(), why });
    }
    Ok(all)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::File { path: path.to_owned(), why: error.to_string() })
}

fn not_pem(path: &Path, error: &dyn std::error::Error) -> TlsError {
    TlsError::File { path: path.to_owned(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file_and_the_problem() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("some.pem");
        fs::write(&file, "no certificate").unwrap();
        let error_of = |files: TlsFiles| files.client().unwrap_err().to_string();
        let empty = error_of(TlsFiles { authorities: Some(file.clone()), ..TlsFiles::default() });
        assert!(empty.contains("some.pem cannot be used: it contains no certificate"), "{empty}");
        let absent =
            error_of(TlsFiles { authorities: Some(folder.path().join("none")), ..TlsFiles::default() });
        assert!(absent.contains("none cannot be used: No such file"), "{absent}");
        let half = error_of(TlsFiles { certificate: Some(file), ..TlsFiles::default() });
        assert!(half.contains("belong together"), "{half}");
        assert!(TlsFiles::default().client().is_ok(), "without files the host's authorities are trusted");
    }
}
