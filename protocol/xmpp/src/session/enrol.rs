//! Uses an account that was made for one login: gives it a password of its own. One short session, without rooms.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::login::{LoggedIn, login, stopped};
use super::{Ending, SessionConfig};
use crate::xml::{Build, element, first_child, ns};
use crate::{Element, StanzaError};

/// Why an account did not get its password.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No session.
    #[error("{}", .0.explain())]
    Session(Ending),
    /// The server did not take the password.
    #[error("the server refused: {0}")]
    Refused(StanzaError),
}

/// What an account has from now on.
#[derive(Clone)]
pub struct Enrolled {
    /// Its password, made here: 256 random bits.
    pub password: String,
    /// What the server says to newcomers.
    pub welcome: String,
}

/// Logs in with the secret in `config` and gives the account a password of its own.
///
/// # Errors
/// [`EnrolError`]; after [`EnrolError::Refused`] and a failed login nothing has changed.
pub async fn enrol(config: &SessionConfig) -> Result<Enrolled, EnrolError> {
    let password = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    match tokio::time::timeout(config.negotiation_timeout * 2, exchange(config, &password)).await {
        Ok(done) => done.map(|welcome| Enrolled { password, welcome }),
        Err(_) => Err(EnrolError::Session(Ending::LoginTimeout)),
    }
}

async fn exchange(config: &SessionConfig, password: &str) -> Result<String, EnrolError> {
    let LoggedIn { mut link, .. } = login(config).await.map_err(EnrolError::Session)?;
    let id = "enrol";
    let request = element("iq", ns::CLIENT)
        .with("type", "set")
        .with("id", id)
        .with("to", config.jid.domain().to_string())
        .child(element("enrol", ns::ENROL).text_of(password));
    link.send(&request).await.map_err(|error| EnrolError::Session(error.into()))?;
    let answer = loop {
        let stanza = link.receive().await.map_err(|stop| EnrolError::Session(stopped(stop)))?;
        if stanza.name() == "iq" && stanza.attr("id") == Some(id) {
            break stanza;
        }
    };
    link.close(super::drive::CLOSE_PATIENCE).await;
    if answer.attr("type") == Some("result") {
        return Ok(first_child(&answer).map(Element::text).unwrap_or_default());
    }
    Err(EnrolError::Refused(StanzaError::from_stanza(&answer)))
}
