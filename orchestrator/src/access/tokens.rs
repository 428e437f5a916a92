//! Bearer tokens (RFC 6750) that stand in for a user: shown once when they are made, kept as a hash, narrower than the
//! user if wanted, expiring, revocable. One JSON object per line in a file.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::file::{Watched, locked, read, replace};
use super::rules::Scope;
use super::users::is_name;
use crate::engine::job::Timestamp;

/// Beginning of every token, so that scanners for leaked secrets find them.
const PREFIX: &str = "wpst_";
/// Bytes of the public part of a token.
const ID_BYTES: usize = 9;
/// Bytes of the secret part.
const SECRET_BYTES: usize = 32;
/// Longest description, in bytes.
const MAX_NAME: usize = 100;

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// Capabilities, descriptions, status and results.
    Read,
    /// Also executing and dismissing.
    Execute,
    /// Also what operators may, if the user may.
    Operate,
}

impl Use {
    fn scope(self) -> Scope {
        Scope { execute: self >= Self::Execute, operate: self >= Self::Operate }
    }
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Names it, for revoking.
    pub id: String,
    /// What it is for, in its maker's words.
    pub name: String,
    /// Whom it stands in for.
    pub user: String,
    /// Its roles; empty = those of the user in the file of users.
    #[serde(default)]
    pub roles: Vec<String>,
    /// How far it reaches.
    #[serde(rename = "use")]
    pub usage: Use,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends to count; `None` = never.
    pub expires: Option<Timestamp>,
    /// SHA-256 of its secret, in hexadecimal.
    sha256: String,
}

/// What is wanted of a new token.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// What it is for.
    pub name: String,
    /// Whom it stands in for.
    pub user: String,
    /// Its roles; empty = those of the user.
    pub roles: Vec<String>,
    /// How far it reaches.
    pub usage: Use,
    /// When it ends to count.
    pub expires: Option<Timestamp>,
}

/// Why the file of tokens cannot be used.
#[derive(Debug, Error)]
pub enum TokensError {
    /// The description or the user is not usable.
    #[error("`{0}` is no user name, or the description is empty or longer than {MAX_NAME} bytes")]
    Name(String),
    /// The file says something else than tokens.
    #[error("{0}")]
    Content(String),
    /// The file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

fn parse(text: &str) -> Result<Vec<Token>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| format!("line {}: {error}", index + 1))
        })
        .collect()
}

fn digest(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether two texts are the same, in a time that says nothing about where they differ.
pub(super) fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Makes a token; the text is its only copy.
pub fn create(path: &Path, new: NewToken, now: Timestamp) -> Result<(Token, String), TokensError> {
    if !is_name(&new.user) || new.name.trim().is_empty() || new.name.len() > MAX_NAME {
        return Err(TokensError::Name(new.user));
    }
    let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
    super::random(&mut id);
    super::random(&mut secret);
    let (id, secret) = (URL_SAFE_NO_PAD.encode(id), URL_SAFE_NO_PAD.encode(secret));
    let text = format!("{PREFIX}{id}{secret}");
    let NewToken { name, user, roles, usage, expires } = new;
    let sha256 = digest(&secret);
    let token = Token { id, name, user, roles, usage, created: now, expires, sha256 };
    change(path, |tokens| tokens.push(token.clone()))?;
    Ok((token, text))
}

/// Takes a token out of force. Returns whether there was one.
pub fn revoke(path: &Path, id: &str) -> Result<bool, TokensError> {
    change(path, |tokens| {
        let before = tokens.len();
        tokens.retain(|token| token.id != id);
        tokens.len() < before
    })
}

/// All tokens, expired ones too.
pub fn list(path: &Path) -> Result<Vec<Token>, TokensError> {
    let text = read(path).map_err(|source| TokensError::Io { path: path.to_owned(), source })?;
    parse(&text).map_err(|why| TokensError::Content(format!("{}: {why}", path.display())))
}

fn change<T>(path: &Path, edit: impl FnOnce(&mut Vec<Token>) -> T) -> Result<T, TokensError> {
    let io = |source| TokensError::Io { path: path.to_owned(), source };
    let changed = locked(path, || {
        let text = read(path)?;
        let mut tokens = match parse(&text) {
            Ok(tokens) => tokens,
            Err(why) => return Ok(Err(TokensError::Content(format!("{}: {why}", path.display())))),
        };
        let answer = edit(&mut tokens);
        let mut text = String::new();
        for token in &tokens {
            text.push_str(&serde_json::to_string(token).map_err(std::io::Error::other)?);
            text.push('\n');
        }
        replace(path, &text)?;
        Ok(Ok(answer))
    });
    changed.map_err(io)?
}

/// Looks tokens up.
#[derive(Debug)]
pub(super) struct Tokens(Watched<Vec<Token>>);

impl Tokens {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(Watched::new(path, parse))
    }

    /// Whether there is any token at all.
    pub(super) fn is_used(&self) -> bool {
        self.0.get().is_ok_and(|tokens| !tokens.is_empty())
    }

    /// Reads the file, so that what is wrong with it is known at the start.
    pub(super) fn examine(&self) -> Result<(), String> {
        self.0.get().map(|_| ())
    }

    /// Whether a text looks like one of ours.
    pub(super) fn is_ours(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// The token that this text is, if it counts at this moment.
    pub(super) fn check(&self, text: &str, now: Timestamp) -> Result<Option<(Token, Scope)>, String> {
        let tokens = self.0.get()?;
        let id_length = ID_BYTES.div_ceil(3) * 4;
        let Some(text) = text.strip_prefix(PREFIX).filter(|text| text.is_char_boundary(id_length)) else {
            return Ok(None);
        };
        if text.len() <= id_length {
            return Ok(None);
        }
        let (id, secret) = text.split_at(id_length);
        let digest = digest(secret);
        let found = tokens.iter().find(|token| token.id == id && same(&token.sha256, &digest));
        let valid = found.filter(|token| token.expires.is_none_or(|end| now < end));
        Ok(valid.map(|token| (token.clone(), token.usage.scope())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(usage: Use, expires: Option<Timestamp>) -> NewToken {
        NewToken { name: "cron".to_owned(), user: "ann".to_owned(), roles: vec![], usage, expires }
    }

    #[test]
    fn a_token_counts_from_its_making_to_its_end_or_revocation() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens");
        let tokens = Tokens::new(path.clone());
        let now = Timestamp(1_000);
        let (token, text) = create(&path, new(Use::Execute, Some(Timestamp(2_000))), now).expect("made");
        assert!(!std::fs::read_to_string(&path).expect("a file").contains(&text[20..]));
        let (found, scope) = tokens.check(&text, now).expect("readable").expect("it counts");
        assert_eq!(found, token);
        assert_eq!(scope, Scope { execute: true, operate: false });
        assert_eq!(tokens.check(&text, Timestamp(2_000)), Ok(None), "it has expired");
        let mut wrong = text.clone();
        let last = wrong.pop().expect("a character");
        wrong.push(if last == 'A' { 'B' } else { 'A' });
        for wrong in [wrong.as_str(), "", "wpst_", "wpst_short", &text[..text.len() - 1], "wpst_ééééééééé"]
        {
            assert_eq!(tokens.check(wrong, now), Ok(None), "{wrong}");
        }
        assert!(revoke(&path, &token.id).expect("changed"));
        assert_eq!(tokens.check(&text, now), Ok(None), "it was revoked");
        assert!(!revoke(&path, &token.id).expect("nothing to do"));
    }
}
