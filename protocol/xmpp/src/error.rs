//! Stanza errors (RFC 6120 §8.3): what a peer answers when it does not do what it was asked.
//! One type for both directions; knows no transport.

use crate::payload::NS_WPS_REMOTE;
use crate::xml::{Build, element, ns};
use xmpp_parsers::minidom::Element;

/// The error of a stanza: a kind, a condition from RFC 6120 §8.3.3, and perhaps a text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{condition}{}{text}", if text.is_empty() { "" } else { ": " })]
pub struct StanzaError {
    /// What the sender may do about it.
    pub kind: ErrorKind,
    /// The defined condition, e.g. `resource-constraint` or `item-not-found`.
    pub condition: String,
    /// Text for people; may be empty.
    pub text: String,
    /// Whether the peer itself says so, and not the server or a room on the way, which answer with the same conditions for an
    /// occupant that has just gone. On the wire an application-specific condition (RFC 6120 §8.3.4), `<answer/>` in our
    /// namespace; [`crate::muc::Muc::respond`] adds it.
    pub by_peer: bool,
}

/// The `type` of a stanza error (RFC 6120 §8.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Retry after providing credentials.
    Auth,
    /// Do not retry.
    Cancel,
    /// It was only a warning.
    Continue,
    /// Retry after changing the data sent.
    Modify,
    /// Retry later.
    Wait,
}

impl ErrorKind {
    fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Cancel => "cancel",
            Self::Continue => "continue",
            Self::Modify => "modify",
            Self::Wait => "wait",
        }
    }
}

/// Every condition of RFC 6120 §8.3.3 with the kind that goes with it.
const CONDITIONS: &[(&str, ErrorKind)] = &[
    ("bad-request", ErrorKind::Modify),
    ("conflict", ErrorKind::Cancel),
    ("feature-not-implemented", ErrorKind::Cancel),
    ("forbidden", ErrorKind::Auth),
    ("gone", ErrorKind::Cancel),
    ("internal-server-error", ErrorKind::Cancel),
    ("item-not-found", ErrorKind::Cancel),
    ("jid-malformed", ErrorKind::Modify),
    ("not-acceptable", ErrorKind::Modify),
    ("not-allowed", ErrorKind::Cancel),
    ("not-authorized", ErrorKind::Auth),
    ("policy-violation", ErrorKind::Modify),
    ("recipient-unavailable", ErrorKind::Wait),
    ("redirect", ErrorKind::Modify),
    ("registration-required", ErrorKind::Auth),
    ("remote-server-not-found", ErrorKind::Cancel),
    ("remote-server-timeout", ErrorKind::Wait),
    ("resource-constraint", ErrorKind::Wait),
    ("service-unavailable", ErrorKind::Cancel),
    ("subscription-required", ErrorKind::Auth),
    ("undefined-condition", ErrorKind::Cancel),
    ("unexpected-request", ErrorKind::Wait),
];

/// Marks what a peer itself says.
const ANSWER: &str = "answer";

impl StanzaError {
    /// An error with the kind that RFC 6120 §8.3.3 recommends for `condition`. A condition that the RFC does not
    /// define becomes `undefined-condition`, its name kept in the text, because receivers drop unknown ones.
    pub fn new(condition: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        match CONDITIONS.iter().find(|(name, _)| *name == condition) {
            Some((_, kind)) => Self { kind: *kind, condition: condition.to_owned(), text, by_peer: false },
            None => Self {
                kind: ErrorKind::Cancel,
                condition: "undefined-condition".to_owned(),
                text: if text.is_empty() { condition.to_owned() } else { format!("{condition}: {text}") },
                by_peer: false,
            },
        }
    }

    /// The same error with another kind.
    #[must_use]
    pub fn kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    pub(crate) fn to_element(&self) -> Element {
        let mut error = element("error", ns::CLIENT).with("type", self.kind.name());
        error.append_child(element(&self.condition, ns::STANZA_ERRORS));
        if !self.text.is_empty() {
            error.append_child(element("text", ns::STANZA_ERRORS).text_of(&self.text));
        }
        if self.by_peer {
            error.append_child(element(ANSWER, NS_WPS_REMOTE));
        }
        error
    }

    /// The error inside a stanza of `type='error'`. Never fails: what a careless peer left out is filled in.
    pub(crate) fn from_stanza(stanza: &Element) -> Self {
        let Some(error) = stanza.children().find(|c| c.name() == "error") else {
            return Self::new("undefined-condition", "the peer gave no reason");
        };
        let kind = match error.attr("type") {
            Some("auth") => ErrorKind::Auth,
            Some("continue") => ErrorKind::Continue,
            Some("modify") => ErrorKind::Modify,
            Some("wait") => ErrorKind::Wait,
            _ => ErrorKind::Cancel,
        };
        let own = |c: &&Element| c.ns() == ns::STANZA_ERRORS;
        let condition = error.children().filter(own).find(|c| c.name() != "text");
        let text = error.children().filter(own).find(|c| c.name() == "text");
        Self {
            kind,
            condition: condition.map_or("undefined-condition", Element::name).to_owned(),
            text: text.map(Element::text).unwrap_or_default(),
            by_peer: error.has_child(ANSWER, NS_WPS_REMOTE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_wire() {
        let error = StanzaError::new("resource-constraint", "all 4 slots are taken");
        let stanza = element("iq", ns::CLIENT).child(error.to_element());
        assert_eq!(StanzaError::from_stanza(&stanza), error);
        assert_eq!(error.to_string(), "resource-constraint: all 4 slots are taken");
        let error = StanzaError { by_peer: true, ..error };
        let stanza = element("iq", ns::CLIENT).child(error.to_element());
        assert_eq!(StanzaError::from_stanza(&stanza), error, "a peer can be told from a room");
    }

    #[test]
    fn an_unknown_condition_keeps_its_name_as_text() {
        let error = StanzaError::new("out-of-coffee", "");
        assert_eq!((error.condition.as_str(), error.text.as_str()), ("undefined-condition", "out-of-coffee"));
    }

    #[test]
    fn an_error_without_error_is_still_an_error() {
        let error = StanzaError::from_stanza(&element("iq", ns::CLIENT));
        assert_eq!(error.condition, "undefined-condition");
    }
}
