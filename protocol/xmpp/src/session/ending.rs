//! Why a session ended, so that a program can say it and a person can act on it.

use crate::net::ConnectError;
use std::io;
use std::sync::Arc;

/// The end of a connection, or of an attempt to get one.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Ending {
    /// This program closed it.
    #[error("closed on request")]
    Requested,
    /// The server refused the login.
    #[error("the server refused the login as {user}: {condition}{}{text} (check user name and password)", if text.is_empty() { "" } else { ", " })]
    Auth {
        /// The local part that tried.
        user: String,
        /// Condition of RFC 6120 §6.5, e.g. `not-authorized`.
        condition: String,
        /// The server's words; may be empty.
        text: String,
    },
    /// No way to authenticate that both sides know and that is safe on this connection.
    #[error("no usable login mechanism (the server offers: {offered})")]
    NoMechanism {
        /// What the server offers, separated by blanks.
        offered: String,
    },
    /// The server could not prove that it knows the password: it may be an impostor.
    #[error("the server could not prove that it knows the password of {user}: it may be an impostor")]
    ServerNotAuthentic {
        /// The local part that tried.
        user: String,
    },
    /// Another session logged in with the same account and resource.
    #[error("another session uses the same account and resource: give every agent its own account")]
    Conflict {
        /// The server's words; may be empty.
        text: String,
    },
    /// The server ended the stream with an error (RFC 6120 §4.9).
    #[error("the server ended the stream: {condition}{}{text}", if text.is_empty() { "" } else { ", " })]
    Stream {
        /// Condition, e.g. `system-shutdown` or `policy-violation`.
        condition: String,
        /// The server's words; may be empty.
        text: String,
    },
    /// The server did not give us a resource.
    #[error("the server refused to bind the resource: {condition}")]
    Bind {
        /// Condition of the stanza error.
        condition: String,
    },
    /// The server's certificate was not accepted, or TLS failed otherwise.
    #[error("{0}")]
    Tls(#[source] Arc<ConnectError>),
    /// No connection.
    #[error("{0}")]
    Connect(#[source] Arc<ConnectError>),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[source] Arc<io::Error>),
    /// The server closed the stream without saying why.
    #[error("the server closed the stream")]
    Closed,
    /// The server sent a stanza larger than this session takes.
    #[error("the server sent a stanza larger than this session takes")]
    Oversize,
    /// The login took too long.
    #[error("the login was not complete within the deadline")]
    LoginTimeout,
    /// The server fell silent and did not answer a ping.
    #[error("the server fell silent and did not answer a ping")]
    Silent,
    /// The other end does not follow the protocol.
    #[error("the other end does not follow the protocol: {what}")]
    Protocol {
        /// What it did.
        what: &'static str,
    },
}

impl Ending {
    /// Whether only a change of configuration will help: credentials, certificates, addresses.
    pub fn needs_configuration(&self) -> bool {
        match self {
            Self::Auth { .. } | Self::NoMechanism { .. } | Self::ServerNotAuthentic { .. } | Self::Tls(_) => {
                true
            }
            Self::Connect(error) => {
                matches!(**error, ConnectError::PlainRefused { .. } | ConnectError::NoStartTls { .. })
            }
            Self::Requested
            | Self::Conflict { .. }
            | Self::Stream { .. }
            | Self::Bind { .. }
            | Self::Io(_)
            | Self::Closed
            | Self::Oversize
            | Self::LoginTimeout
            | Self::Silent
            | Self::Protocol { .. } => false,
        }
    }
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Silent,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(Arc::new(error)),
        }
    }
}

impl From<ConnectError> for Ending {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Stream { condition, text } => Self::from_stream_error(condition, text),
            ConnectError::Tls { .. } | ConnectError::TlsName { .. } | ConnectError::Trust(_) => {
                Self::Tls(Arc::new(error))
            }
            _ => Self::Connect(Arc::new(error)),
        }
    }
}

impl Ending {
    pub(crate) fn from_stream_error(condition: String, text: String) -> Self {
        match condition.as_str() {
            "conflict" => Self::Conflict { text },
            _ => Self::Stream { condition, text },
        }
    }

    /// The whole chain of causes on one line.
    pub fn explain(&self) -> String {
        let mut text = self.to_string();
        let cause = match self {
            Self::Tls(error) | Self::Connect(error) => std::error::Error::source(error.as_ref()),
            _ => None,
        };
        let mut next = cause;
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }
}
