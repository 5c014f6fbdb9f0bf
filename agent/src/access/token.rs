//! Bearer tokens.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

/// Maximum length of a token. Service account tokens have about 1 KiB.
const MAX_LENGTH: usize = 8 << 10;

/// Identifies a token without revealing it.
pub(super) type TokenDigest = [u8; 32];

/// A bearer token. It is never displayed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// The token of an `Authorization` header; `None` if that is not `Bearer` with the characters of RFC 6750, section 2.1.
    pub(super) fn from_header(header: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(header).ok()?;
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("Bearer").then(|| Self::new(token.trim()))?
    }

    pub(super) fn new(token: &str) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        let is_token = !token.is_empty() && token.len() <= MAX_LENGTH && token.bytes().all(is_allowed);
        is_token.then(|| Self(token.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Tokens are compared by their digests, so the time of a comparison reveals nothing about a token.
    pub(super) fn digest(&self) -> TokenDigest {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// When the token expires, if it is a JSON Web Token that says so. Nobody has verified that: it can only shorten what a review allows.
    pub(super) fn expires(&self) -> Option<SystemTime> {
        #[derive(serde::Deserialize)]
        struct Claims {
            exp: f64,
        }
        let payload = self.0.split('.').nth(1)?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(claims.exp).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A token with these claims, as the API server issues them; the signature is made up.
    fn jwt(claims: &str) -> Token {
        let parts = [r#"{"alg":"RS256"}"#, claims, "signature"].map(|part| URL_SAFE_NO_PAD.encode(part));
        Token::new(&parts.join(".")).unwrap()
    }

    #[test]
    fn expiry_is_that_of_the_claims() {
        assert_eq!(jwt(r#"{"exp":10,"iss":"x"}"#).expires(), Some(UNIX_EPOCH + Duration::from_secs(10)));
        for none in [r#"{"iss":"x"}"#, r#"{"exp":"10"}"#, r#"{"exp":-1}"#, r#"{"exp":1e300}"#, "[]", ""] {
            assert_eq!(jwt(none).expires(), None, "{none}");
        }
    }

    #[test]
    fn headers() {
        let token = |header: &str| Token::from_header(header.as_bytes()).map(|token| token.0);
        assert_eq!(token("Bearer a.b-c").as_deref(), Some("a.b-c"));
        assert_eq!(token("bearer  a=").as_deref(), Some("a="));
        let long = format!("Bearer {}", "x".repeat(MAX_LENGTH + 1));
        for none in ["", "Bearer", "Bearer ", "Basic abc", "Bearer a b", "Bearer \"a\"", &long] {
            assert_eq!(token(none), None, "{none}");
        }
        assert_eq!(format!("{:?}", Token::new("secret")), "Some(Token)");
    }

    proptest! {
        #[test]
        fn any_header_is_handled(header in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(token) = Token::from_header(&header) {
                let _ = token.expires();
            }
        }
    }
}
