//! The one envelope of the native dialect: a named element in our namespace that carries a JSON document
//! (XEP-0335). What the JSON means is the business of the protocol crate.

use crate::xml::{Build, element};
use xmpp_parsers::minidom::Element;

/// Namespace of the native dialect.
pub const NS_WPS_REMOTE: &str = "urn:xmpp:wps-remote:1";
/// Namespace of the JSON container (XEP-0335).
pub const NS_JSON: &str = "urn:xmpp:json:0";

/// `<name xmlns='urn:xmpp:wps-remote:1'><json xmlns='urn:xmpp:json:0'>…</json></name>`.
///
/// `name` is a word of our own vocabulary, e.g. `execute`; `json` is put in as it is.
pub fn payload(name: &str, json: &str) -> Element {
    element(name, NS_WPS_REMOTE).child(element("json", NS_JSON).text_of(json))
}

/// The inverse of [`payload`]: name and JSON text, or nothing if the element is not such an envelope.
/// The JSON is not parsed here: it comes from the network and is as trustworthy as its sender.
pub fn parse_payload(payload: &Element) -> Option<(String, String)> {
    if !payload.has_ns(NS_WPS_REMOTE) {
        return None;
    }
    let json = payload.get_child("json", NS_JSON)?;
    Some((payload.name().to_owned(), json.text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_opens_to_what_was_put_in() {
        let json = r#"{"text":"a < b & \"c\" é","n":[1,2]}"#;
        let sent = payload("execute", json);
        let received: Element = String::from(&sent).parse().unwrap();
        assert_eq!(parse_payload(&received), Some(("execute".into(), json.into())));
    }

    #[test]
    fn other_elements_are_not_envelopes() {
        for other in [
            "<execute xmlns='urn:other'><json xmlns='urn:xmpp:json:0'>{}</json></execute>",
            "<execute xmlns='urn:xmpp:wps-remote:1'>{}</execute>",
        ] {
            assert_eq!(parse_payload(&other.parse().unwrap()), None, "{other}");
        }
    }
}
