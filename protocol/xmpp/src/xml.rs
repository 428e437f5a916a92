//! Small helpers over `minidom`: building stanzas, answers and errors, and measuring an element before it is sent.
//! Knows names and namespaces of the XMPP core, nothing about sessions, rooms or the wire.

use xmpp_parsers::minidom::rxml::{Namespace, NcName};
use xmpp_parsers::minidom::{Element, Node};

/// Namespaces used in more than one module.
pub(crate) mod ns {
    pub const CLIENT: &str = "jabber:client";
    /// An account that was made for one login gets its password.
    pub const ENROL: &str = "urn:xmpp:wps-remote:enrol:1";
    pub const STREAM: &str = "http://etherx.jabber.org/streams";
    pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
    pub const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
    pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
    pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
    pub const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
    pub const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
    pub const SM: &str = "urn:xmpp:sm:3";
    pub const PING: &str = "urn:xmpp:ping";
    pub const MUC: &str = "http://jabber.org/protocol/muc";
    pub const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
    pub const MUC_ADMIN: &str = "http://jabber.org/protocol/muc#admin";
    pub const MUC_OWNER: &str = "http://jabber.org/protocol/muc#owner";
    pub const MUC_CONFIG: &str = "http://jabber.org/protocol/muc#roomconfig";
    pub const DATA_FORM: &str = "jabber:x:data";
    pub const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
    pub const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
    pub const ROSTER: &str = "jabber:iq:roster";
}

/// Chained building of elements; the names given here are fixed words of our own code.
pub(crate) trait Build: Sized {
    /// Sets an attribute without namespace.
    fn with(self, name: &'static str, value: impl Into<String>) -> Self;
    /// Sets an attribute when there is a value.
    fn with_opt(self, name: &'static str, value: Option<impl Into<String>>) -> Self;
    /// Appends a child element.
    fn child(self, child: Element) -> Self;
    /// Appends text.
    fn text_of(self, text: &str) -> Self;
}

impl Build for Element {
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let name = NcName::try_from(name).expect("attribute names in our code are XML names");
        self.set_attr(Namespace::NONE, name, value.into());
        self
    }

    fn with_opt(self, name: &'static str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    fn child(mut self, child: Element) -> Self {
        self.append_child(child);
        self
    }

    fn text_of(mut self, text: &str) -> Self {
        if !text.is_empty() {
            self.append_text(text);
        }
        self
    }
}

/// An empty element.
pub(crate) fn element(name: &str, ns: &str) -> Element {
    Element::bare(name, ns)
}

/// The positive answer to an IQ, addressed back to its sender (RFC 6120 §8.2.3).
pub(crate) fn result_of(iq: &Element) -> Element {
    element("iq", ns::CLIENT)
        .with("type", "result")
        .with_opt("id", iq.attr("id"))
        .with_opt("to", iq.attr("from"))
        .with_opt("from", iq.attr("to"))
}

/// The error answer to a stanza, addressed back to its sender (RFC 6120 §8.3).
pub(crate) fn error_of(stanza: &Element, error: &crate::StanzaError) -> Element {
    element(stanza.name(), ns::CLIENT)
        .with("type", "error")
        .with_opt("id", stanza.attr("id"))
        .with_opt("to", stanza.attr("from"))
        .with_opt("from", stanza.attr("to"))
        .child(error.to_element())
}

/// The first child element, whatever its name.
pub(crate) fn first_child(element: &Element) -> Option<&Element> {
    element.children().next()
}

/// Why an element cannot be put on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// A character that XML 1.0 cannot carry, escaped or not.
    #[error("the text contains the control character U+{0:04X}, which XML cannot carry")]
    Character(u32),
    /// More levels than [`crate::MAX_DEPTH`].
    #[error("the stanza is nested deeper than {} levels", crate::MAX_DEPTH)]
    Depth,
}

/// Bytes that `element` takes on the wire, at least: escapes counted, namespaces counted where they change.
///
/// Everything that leaves through a session is measured first: the XML writer cannot recover from a character
/// that it refuses in the middle of an element.
pub(crate) fn measure(element: &Element) -> Result<usize, Unsendable> {
    measure_at(element, ns::CLIENT, 1)
}

fn measure_at(element: &Element, parent_ns: &str, depth: usize) -> Result<usize, Unsendable> {
    if depth > crate::MAX_DEPTH {
        return Err(Unsendable::Depth);
    }
    let ns = element.ns();
    let mut bytes = 2 * element.name().len() + 5;
    if ns != parent_ns {
        bytes += ns.len() + 9;
    }
    for ((_, name), value) in element.attrs().iter() {
        bytes += name.len() + 4 + measure_text(value)?;
    }
    for node in element.nodes() {
        bytes += match node {
            Node::Element(child) => measure_at(child, &ns, depth + 1)?,
            Node::Text(text) => measure_text(text)?,
        };
    }
    Ok(bytes)
}

fn measure_text(text: &str) -> Result<usize, Unsendable> {
    let mut bytes = text.len();
    for byte in text.bytes() {
        bytes += match byte {
            b'&' | b'<' | b'>' | b'\'' | b'"' => 5,
            b'\r' | b'\n' | b'\t' => 4,
            _ => 0,
        };
    }
    match text.chars().find(
        |c| matches!(*c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}'),
    ) {
        Some(refused) => Err(Unsendable::Character(refused.into())),
        None => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measure_is_never_below_the_serialised_size() {
        let deep = "<message xmlns='jabber:client' to='a@b/c'><body>1 &lt; 2 &amp; \"x\"\n</body>\
                    <job xmlns='urn:x'><json xmlns='urn:y'>{}</json><part/></job></message>";
        let element: Element = deep.parse().unwrap();
        let mut text = String::from(&element);
        text = text.replace(" xmlns='jabber:client'", "");
        assert!(measure(&element).unwrap() >= text.len(), "{} < {}", measure(&element).unwrap(), text.len());
    }

    #[test]
    fn control_characters_and_depth_are_refused() {
        let bell = element("body", ns::CLIENT).text_of("a\u{7}b");
        assert_eq!(measure(&bell), Err(Unsendable::Character(7)));
        assert!(measure(&element("body", ns::CLIENT).text_of("tab\tand\nline")).is_ok());
        let mut deep = element("a", ns::CLIENT);
        for _ in 0..crate::MAX_DEPTH {
            deep = element("a", ns::CLIENT).child(deep);
        }
        assert_eq!(measure(&deep), Err(Unsendable::Depth));
    }
}
