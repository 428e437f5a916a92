//! How a new agent gets its account: a token that the operator carries to the agent's host, and what the server says when it
//! was used. Parses and writes texts only.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Beginning of every token, so that scanners for leaked secrets find them.
const PREFIX: &str = "wpse_";
/// Longest token that is read, in bytes.
const MAX_TOKEN: usize = 4096;

/// Everything that a host needs to enrol once: where the server is, how to know it, and a secret for one use.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Host name or address of the XMPP server.
    pub host: String,
    /// Its port, with STARTTLS.
    pub port: u16,
    /// Domain of the account.
    pub domain: String,
    /// The account, without domain.
    pub user: String,
    /// Opens the account once, to give it a password of its own.
    pub secret: String,
    /// SHA-256 of the server's certificate, 64 hexadecimal digits.
    pub pin: String,
}

impl std::fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrolment")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Why a text is no token.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EnrolmentError {
    /// Something else, or a part of a token.
    #[error(
        "this is no token of `wps-orchestrator accounts enrol`: such a token begins with {PREFIX} and is copied as a whole"
    )]
    NotOurs,
    /// Of another version of the programs, or damaged.
    #[error("the token is damaged, or from another version of wps-orchestrator: {0}")]
    Content(String),
}

impl Enrolment {
    /// The token.
    pub fn to_token(&self) -> String {
        // A structure of texts and a number can always be written.
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`EnrolmentError`].
    pub fn from_token(text: &str) -> Result<Self, EnrolmentError> {
        let text = text.trim();
        let body =
            text.strip_prefix(PREFIX).filter(|_| text.len() <= MAX_TOKEN).ok_or(EnrolmentError::NotOurs)?;
        let json =
            URL_SAFE_NO_PAD.decode(body).map_err(|error| EnrolmentError::Content(error.to_string()))?;
        let read: Self =
            serde_json::from_slice(&json).map_err(|error| EnrolmentError::Content(error.to_string()))?;
        let texts = [&read.host, &read.domain, &read.user, &read.secret, &read.pin];
        // They end up in a configuration file, a line each.
        if texts.iter().any(|text| text.is_empty() || text.chars().any(|c| c.is_control())) {
            return Err(EnrolmentError::Content(
                "a part of it is empty or holds control characters".to_owned(),
            ));
        }
        Ok(read)
    }
}

/// What the server tells an agent that has just been enrolled.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Domain of the rooms.
    pub muc_service: String,
    /// Their password.
    pub room_password: String,
    /// Local part of the room in which agents and orchestrators meet.
    pub management_room: String,
}

impl Welcome {
    /// As text.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the text.
    ///
    /// # Errors
    /// [`EnrolmentError::Content`].
    pub fn from_text(text: &str) -> Result<Self, EnrolmentError> {
        let read: Self =
            serde_json::from_str(text).map_err(|error| EnrolmentError::Content(error.to_string()))?;
        let texts = [&read.muc_service, &read.room_password, &read.management_room];
        if texts.iter().any(|text| text.chars().any(char::is_control)) {
            return Err(EnrolmentError::Content("a part of the welcome holds control characters".to_owned()));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrolment() -> Enrolment {
        Enrolment {
            host: "wps.example.org".to_owned(),
            port: 5222,
            domain: "wps.localhost".to_owned(),
            user: "gpu1".to_owned(),
            secret: "s3cret".to_owned(),
            pin: "ab".repeat(32),
        }
    }

    #[test]
    fn a_token_survives_the_way_and_shows_nothing_in_logs() {
        let token = enrolment().to_token();
        assert!(token.starts_with("wpse_"));
        assert_eq!(Enrolment::from_token(&format!(" {token}\n")), Ok(enrolment()));
        assert!(!format!("{:?}", enrolment()).contains("s3cret"));
    }

    #[test]
    fn what_is_no_token_is_told_apart() {
        for text in ["", "wpst_abc", "hello", &"x".repeat(5000)] {
            assert_eq!(Enrolment::from_token(text), Err(EnrolmentError::NotOurs));
        }
        let token = enrolment().to_token();
        for text in ["wpse_", "wpse_!!!", &token[..token.len() / 2]] {
            assert!(matches!(Enrolment::from_token(text), Err(EnrolmentError::Content(_))), "{text}");
        }
        let evil = Enrolment { host: "h\nrun_as = root".to_owned(), ..enrolment() };
        assert!(Enrolment::from_token(&evil.to_token()).is_err());
    }
}
