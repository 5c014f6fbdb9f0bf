//! TLS of connections that the agent opens: whom it trusts, and how it shows who it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// Files in PEM.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Certificates that the server's must be signed by; without, the host's, else Mozilla's.
    pub authorities: Option<PathBuf>,
    /// The agent's own certificate.
    pub certificate: Option<PathBuf>,
    /// The private key to it.
    pub key: Option<PathBuf>,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is absent or not what it should be.
    #[error("{} cannot be used: {why}", path.display())]
    File {
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Only one of the two.
    #[error("a client's certificate and its key belong together; give both or neither")]
    Half,
    /// Certificate and key do not belong together, or are of a kind that TLS will not have.
    #[error("TLS cannot be set up")]
    Refused(#[from] rustls::Error),
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be used.
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        let mut roots = RootCertStore::empty();
        match &self.authorities {
            Some(path) => {
                for certificate in certificates(path)? {
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
                Ok(config.with_client_auth_cert(certificates(certificate)?, key)?)
            }
            _ => Err(TlsError::Half),
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|error| not_pem(path, &error))?;
    if all.is_empty() {
        let why = "there is no certificate in it".to_owned();
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
    fn what_is_wrong_is_said_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("some.pem");
        fs::write(&file, "no certificate").unwrap();
        let of = |files: TlsFiles| files.client().unwrap_err().to_string();
        let empty = of(TlsFiles { authorities: Some(file.clone()), ..TlsFiles::default() });
        assert!(empty.contains("some.pem cannot be used: there is no certificate in it"), "{empty}");
        let absent = of(TlsFiles { authorities: Some(folder.path().join("none")), ..TlsFiles::default() });
        assert!(absent.contains("none cannot be used: No such file"), "{absent}");
        let half = of(TlsFiles { certificate: Some(file), ..TlsFiles::default() });
        assert!(half.contains("belong together"), "{half}");
        assert!(TlsFiles::default().client().is_ok(), "without files it trusts whom the host trusts");
    }
}
