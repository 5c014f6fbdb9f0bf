//! What asking an agent and asking a Prometheus have in common.

use std::time::Duration;

use ureq::http::Uri;

/// A client that leaves statuses to its user and asks no proxy.
pub(crate) fn client(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into()
}

/// Checks an address: HTTP without a query; `wanted` says what is allowed. Without its last slash.
///
/// # Errors
/// With what is wrong and what is allowed.
pub(crate) fn parse_address(text: &str, wanted: &str) -> Result<(Uri, String), String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}; {wanted}"))?;
    match uri.scheme_str() {
        Some("http") if uri.query().is_none() => {}
        Some("http") => return Err(format!("it has a query; {wanted}")),
        Some(scheme) => return Err(format!("{scheme} is not supported; {wanted}")),
        None => return Err(format!("it has no http://; {wanted}")),
    }
    Ok((uri, text.trim_end_matches('/').to_owned()))
}
