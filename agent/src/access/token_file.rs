//! Bearer tokens in a file, one on each line: with two lines, clients can change to the new token one after the other.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use arc_swap::ArcSwap;

use super::token::{Token, TokenDigest};

/// Minimum length of a token. Shorter ones can be guessed.
const MIN_LENGTH: usize = 16;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file cannot be read.
    #[error("bearer-token-file {} cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A line is not a token. The message does not contain it.
    #[error(
        "bearer-token-file {}, line {line}: not a token of at least {MIN_LENGTH} letters, digits and -._~+/=", path.display()
    )]
    Line { path: PathBuf, line: usize },
    /// The file has no token.
    #[error("bearer-token-file {} has no token", .0.display())]
    Empty(PathBuf),
}

/// The tokens of a file. Nobody has a token of it before it was read.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    digests: ArcSwap<Vec<TokenDigest>>,
}

impl TokenFile {
    /// Does not read the file yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), digests: ArcSwap::default() }
    }

    /// Reads the file. Returns whether its tokens have changed. On an error the last tokens stay.
    ///
    /// # Errors
    /// When the file cannot be read, or has something else than tokens.
    pub fn reload(&self) -> Result<bool, TokenFileError> {
        let path = || self.path.clone();
        let text =
            fs::read_to_string(&self.path).map_err(|source| TokenFileError::Read { path: path(), source })?;
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        let digest = |(line, text): (usize, &str)| {
            let token = Token::new(text).filter(|_| text.len() >= MIN_LENGTH);
            token
                .map(|token| token.digest())
                .ok_or_else(|| TokenFileError::Line { path: path(), line: line + 1 })
        };
        let digests = lines.map(digest).collect::<Result<Vec<_>, _>>()?;
        if digests.is_empty() {
            return Err(TokenFileError::Empty(path()));
        }
        let has_changed = **self.digests.load() != digests;
        self.digests.store(digests.into());
        Ok(has_changed)
    }

    pub(super) fn contains(&self, token: &Token) -> bool {
        self.digests.load().contains(&token.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_replaced_and_errors_do_not_show_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let tokens = TokenFile::new(&path);
        let [old, new, other] = ["old-token-0123456789", "new-token-0123456789", "other-token-01234567"];
        let has = |token: &str| tokens.contains(&Token::new(token).unwrap());
        assert!(tokens.reload().unwrap_err().to_string().contains("cannot be read"));
        assert!(!has(old), "nobody has a token before there is one");
        fs::write(&path, format!("{old}\n\n  {new}\n")).unwrap();
        assert!(tokens.reload().unwrap() && has(old) && has(new) && !has(other));
        fs::write(&path, new).unwrap();
        assert!(tokens.reload().unwrap() && !has(old) && has(new));
        assert!(!tokens.reload().unwrap());
        for wrong in ["short", "has a space 0123456789", "", "\n"] {
            fs::write(&path, wrong).unwrap();
            let error = tokens.reload().unwrap_err().to_string();
            assert!(wrong.trim().is_empty() || !error.contains(wrong), "{error}");
            assert!(has(new) && !has(old));
        }
    }
}
