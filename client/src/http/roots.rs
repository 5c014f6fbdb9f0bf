//! Root certificates of a TLS client.

use std::{fs, sync::Arc};

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Root certificates of a TLS client; the default is the system's trust store.
#[derive(Clone, Debug, Default)]
pub struct RootCertificates(Option<Arc<Vec<Certificate<'static>>>>);

/// Reads `--certificate-authority`: a file of certificates in PEM.
///
/// # Errors
/// A text that says what is wrong with the file.
pub fn parse_root_certificates(file: &str) -> Result<RootCertificates, String> {
    let pem = fs::read(file).map_err(|error| format!("cannot read the file: {error}"))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item.map_err(|error| error.to_string())? {
            PemItem::Certificate(certificate) => certificates.push(certificate),
            _ => return Err("the file has PEM items that are not certificates".to_owned()),
        }
    }
    if certificates.is_empty() {
        return Err("the file has no certificate in PEM".to_owned());
    }
    Ok(RootCertificates(Some(Arc::new(certificates))))
}

impl RootCertificates {
    /// The TLS configuration of a client.
    pub(super) fn config(&self) -> TlsConfig {
        let roots = self.0.clone().map_or(RootCerts::PlatformVerifier, RootCerts::Specific);
        TlsConfig::builder().root_certs(roots).build()
    }
}
