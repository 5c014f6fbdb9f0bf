//! Who may read: clients with a certificate of a trusted authority, clients with a bearer token from a file, and clients whose token
//! the API server knows and allows to `get nodes/metrics`, as the kubelet asks for. The first two work without an API server.

mod cache;
mod reviews;
mod token;
mod token_file;

use self::token::Token;
pub use self::{
    reviews::{ReviewAges, ReviewCounts, Reviews},
    token_file::{TokenFile, TokenFileError},
};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No known identity: no certificate and no token, or a token that nobody knows.
    Unauthenticated,
    /// A known identity without the permission.
    Forbidden,
    /// The token cannot be reviewed now.
    Unavailable,
}

/// Decides about each request.
#[derive(Debug, Default)]
pub struct Authorizer {
    /// Tokens from a file.
    pub tokens: Option<TokenFile>,
    /// Tokens that the API server reviews.
    pub reviews: Option<Reviews>,
}

impl Authorizer {
    /// An authorizer for these tokens. A client with a certificate that TLS has verified always passes.
    pub fn new(tokens: Option<TokenFile>, reviews: Option<Reviews>) -> Self {
        Self { tokens, reviews }
    }

    /// Whether a client may read. `authorization` is the header of that name.
    ///
    /// # Errors
    /// The reason why not.
    pub async fn authorize(&self, has_certificate: bool, authorization: Option<&[u8]>) -> Result<(), Denial> {
        if has_certificate {
            return Ok(());
        }
        let token = authorization.and_then(Token::from_header).ok_or(Denial::Unauthenticated)?;
        if self.tokens.as_ref().is_some_and(|tokens| tokens.contains(&token)) {
            return Ok(());
        }
        match &self.reviews {
            Some(reviews) => reviews.authorize(&token).await,
            None => Err(Denial::Unauthenticated),
        }
    }
}

#[cfg(test)]
mod tests;
