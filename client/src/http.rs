//! The HTTP client that requests to agents and to Prometheus share.

use std::{fs, sync::Arc, time::Duration};

use ureq::{
    http::Uri,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

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

/// A client that returns responses of any status and uses no proxy.
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

/// Parses an HTTP or HTTPS address without a query, and removes its last slash. `allowed` describes valid addresses.
///
/// # Errors
/// A text that says what is wrong and what is allowed.
pub fn parse_address(text: &str, allowed: &str) -> Result<(Uri, String), String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}; {allowed}"))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.query().is_none() => {}
        Some("http" | "https") => return Err(format!("a query is not allowed; {allowed}")),
        Some(scheme) => return Err(format!("the scheme {scheme} is not supported; {allowed}")),
        None => return Err(format!("http:// or https:// is missing; {allowed}")),
    }
    Ok((uri, text.trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn files_without_certificates_are_errors() {
        let read = |text: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            parse_root_certificates(file.path().to_str().unwrap()).unwrap_err()
        };
        assert!(read("").contains("no certificate"));
        assert!(
            read("-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n")
                .contains("not certificates")
        );
        assert!(parse_root_certificates("/absent").unwrap_err().contains("cannot read"));
    }
}
