//! What asking an agent and asking a Prometheus have in common.

use std::{fs, sync::Arc, time::Duration};

use ureq::{
    http::Uri,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

/// Whose certificates are trusted.
#[derive(Clone, Debug, Default)]
pub struct RootCertificates(Option<Arc<Vec<Certificate<'static>>>>);

/// Reads `--certificate-authority`: a file of certificates in PEM.
///
/// # Errors
/// With what is wrong.
pub fn parse_root_certificates(file: &str) -> Result<RootCertificates, String> {
    let pem = fs::read(file).map_err(|error| format!("cannot read it: {error}"))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item.map_err(|error| error.to_string())? {
            PemItem::Certificate(certificate) => certificates.push(certificate),
            _ => return Err("it has something else than certificates".to_owned()),
        }
    }
    if certificates.is_empty() {
        return Err("there is no certificate in it; it has to be PEM".to_owned());
    }
    Ok(RootCertificates(Some(Arc::new(certificates))))
}

/// A client that leaves statuses to its user and asks no proxy.
pub fn client(timeout: Duration, trust: &RootCertificates) -> ureq::Agent {
    let roots = trust.0.clone().map_or(RootCerts::PlatformVerifier, RootCerts::Specific);
    ureq::Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into()
}

/// Checks an address: HTTP or HTTPS without a query; `wanted` says what is allowed. Without its last slash.
///
/// # Errors
/// With what is wrong and what is allowed.
pub fn parse_address(text: &str, wanted: &str) -> Result<(Uri, String), String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}; {wanted}"))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.query().is_none() => {}
        Some("http" | "https") => return Err(format!("it has a query; {wanted}")),
        Some(scheme) => return Err(format!("{scheme} is not supported; {wanted}")),
        None => return Err(format!("it has neither http:// nor https://; {wanted}")),
    }
    Ok((uri, text.trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_is_no_authority_is_named() {
        let read = |text: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            parse_root_certificates(file.path().to_str().unwrap()).unwrap_err()
        };
        assert!(read("").contains("no certificate"));
        assert!(
            read("-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n").contains("something else")
        );
        assert!(parse_root_certificates("/absent").unwrap_err().contains("cannot read"));
    }
}
