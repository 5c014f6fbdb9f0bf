//! The HTTP client that requests to agents and to Prometheus share.

#[cfg(feature = "tls")]
mod roots;

use std::time::Duration;

use ureq::http::Uri;

#[cfg(feature = "tls")]
pub use self::roots::{RootCertificates, parse_root_certificates};

/// Without TLS there are none.
#[cfg(not(feature = "tls"))]
#[derive(Clone, Debug, Default)]
pub struct RootCertificates(());

/// A client that returns responses of any status, redirections too, and uses no proxy.
pub fn client(timeout: Duration, trust: &RootCertificates) -> ureq::Agent {
    let config = ureq::Agent::config_builder();
    #[cfg(feature = "tls")]
    let config = config.tls_config(trust.config());
    #[cfg(not(feature = "tls"))]
    let RootCertificates(()) = trust;
    config
        .timeout_global(Some(timeout))
        .max_redirects(0)
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

/// An address as messages show it, without user and password.
pub fn without_password(address: &str) -> String {
    match (address.split_once("://"), address.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod address_tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (address, shown) in [
            ("http://a:9090/b", "http://a:9090/b"),
            ("https://user:secret@a/b", "https://***@a/b"),
            ("https://user:sec@ret@a", "https://***@a"),
        ] {
            assert_eq!(without_password(address), shown);
        }
    }
}

#[cfg(all(test, feature = "tls"))]
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
