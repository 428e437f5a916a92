//! The stanzas of rooms, built and read: joins, forms, private messages, what a presence says about an occupant.
//! Pure; knows no state.

use super::{Affiliation, Role, RoomConfig};
use crate::xml::{Build, element, ns};
use crate::{Element, FullJid, Jid};

/// Status codes of XEP-0045 §15.6.2 that matter here.
pub(super) const SELF: &str = "110";
pub(super) const CREATED: &str = "201";
pub(super) const NEW_NICK: &str = "303";

/// Presence that joins a room (XEP-0045 §7.2), without asking for old messages.
pub(super) fn join(occupant: &FullJid, password: Option<&str>, payload: &[Element]) -> Element {
    let mut x = element("x", ns::MUC).child(element("history", ns::MUC).with("maxstanzas", "0"));
    if let Some(password) = password {
        x.append_child(element("password", ns::MUC).text_of(password));
    }
    presence(occupant, payload).child(x)
}

/// Presence in a room that we are in.
pub(super) fn presence(occupant: &FullJid, payload: &[Element]) -> Element {
    let mut presence = element("presence", ns::CLIENT).with("to", occupant.to_string());
    for element in payload {
        presence.append_child(element.clone());
    }
    presence
}

/// Presence that leaves a room.
pub(super) fn leave(occupant: &FullJid) -> Element {
    element("presence", ns::CLIENT).with("type", "unavailable").with("to", occupant.to_string())
}

/// The owner's form (XEP-0045 §10.2). Both password fields are always sent: Prosody knows only the secret, ejabberd
/// ignores the secret without the switch.
pub(super) fn configure(config: &RoomConfig, id: &str) -> Element {
    let protect = if config.password.is_some() { "1" } else { "0" };
    let fields = [
        ("FORM_TYPE", ns::MUC_CONFIG),
        ("muc#roomconfig_persistentroom", "0"),
        ("muc#roomconfig_publicroom", "0"),
        ("muc#roomconfig_moderatedroom", "0"),
        ("muc#roomconfig_whois", "moderators"),
        ("muc#roomconfig_passwordprotectedroom", protect),
        ("muc#roomconfig_roomsecret", config.password.as_deref().unwrap_or_default()),
    ];
    let mut form = element("x", ns::DATA_FORM).with("type", "submit");
    for (name, value) in fields {
        let value = element("value", ns::DATA_FORM).text_of(value);
        form.append_child(element("field", ns::DATA_FORM).with("var", name).child(value));
    }
    element("iq", ns::CLIENT)
        .with("type", "set")
        .with("to", config.room.to_string())
        .with("id", id)
        .child(element("query", ns::MUC_OWNER).child(form))
}

/// Asks the room whether we are still in it (XEP-0410).
pub(super) fn self_ping(occupant: &FullJid, id: &str) -> Element {
    element("iq", ns::CLIENT)
        .with("type", "get")
        .with("to", occupant.to_string())
        .with("id", id)
        .child(element("ping", ns::PING))
}

pub(super) fn body(text: &str) -> Element {
    element("body", ns::CLIENT).text_of(text)
}

/// A private message (XEP-0045 §7.5). The mark of §7.5 lets servers tell it from a direct message.
pub(super) fn private_message(to: &FullJid, id: &str, content: Element) -> Element {
    element("message", ns::CLIENT)
        .with("type", "chat")
        .with("to", to.to_string())
        .with("id", id)
        .child(content)
        .child(element("x", ns::MUC_USER))
}

/// A request without its id yet.
pub(super) fn request(to: &FullJid, payload: Element) -> Element {
    element("iq", ns::CLIENT).with("type", "set").with("to", to.to_string()).child(payload)
}

/// Name of the payload inside the id that [`super::Muc::send`] gives its messages.
pub(super) fn payload_name(id: &str) -> Option<String> {
    let (number, name) = id.strip_prefix('m')?.split_once('-')?;
    number.bytes().all(|b| b.is_ascii_digit()).then(|| name.to_owned())
}

/// What the room adds to a presence (`muc#user`).
#[derive(Debug, Default)]
pub(super) struct UserInfo {
    pub(super) role: Option<Role>,
    pub(super) affiliation: Option<Affiliation>,
    pub(super) real_jid: Option<Jid>,
    pub(super) reason: Option<String>,
    pub(super) new_nick: Option<String>,
    pub(super) codes: Vec<String>,
    pub(super) destroyed: bool,
}

impl UserInfo {
    pub(super) fn has(&self, code: &str) -> bool {
        self.codes.iter().any(|c| c == code)
    }

    /// Reads leniently: the strict parser knows a closed list of status codes, and services invent more.
    pub(super) fn read(stanza: &Element) -> Self {
        let mut info = Self::default();
        let Some(x) = stanza.get_child("x", ns::MUC_USER) else { return info };
        for child in x.children() {
            match child.name() {
                "status" => info.codes.extend(child.attr("code").map(str::to_owned)),
                "destroy" => {
                    info.destroyed = true;
                    info.reason = Some(reason(child).unwrap_or_else(|| "the room was destroyed".to_owned()));
                }
                "item" => {
                    info.role = child.attr("role").map(role);
                    info.affiliation = child.attr("affiliation").map(affiliation);
                    info.real_jid = child.attr("jid").and_then(|jid| jid.parse().ok());
                    info.new_nick = child.attr("nick").map(str::to_owned);
                    info.reason = reason(child).or(info.reason);
                }
                _ => {}
            }
        }
        info
    }

    /// Why somebody left, in words.
    pub(super) fn why(&self, stanza: &Element) -> Option<String> {
        let code = self.codes.iter().find_map(|code| match code.as_str() {
            "301" => Some("banned"),
            "303" => Some("changed the name"),
            "307" => Some("kicked"),
            "321" | "322" => Some("no longer a member"),
            "332" => Some("the service shuts down"),
            "333" => Some("lost the connection"),
            _ => None,
        });
        let status = stanza.get_child("status", ns::CLIENT).map(Element::text);
        let said = self.reason.clone().or(status).filter(|text| !text.is_empty());
        match (code, said) {
            (Some(code), Some(said)) => Some(format!("{code}: {said}")),
            (code, said) => said.or(code.map(str::to_owned)),
        }
    }
}

fn reason(element: &Element) -> Option<String> {
    element.children().find(|c| c.name() == "reason").map(Element::text).filter(|text| !text.is_empty())
}

fn role(name: &str) -> Role {
    match name {
        "moderator" => Role::Moderator,
        "participant" => Role::Participant,
        "visitor" => Role::Visitor,
        _ => Role::None,
    }
}

fn affiliation(name: &str) -> Affiliation {
    match name {
        "owner" => Affiliation::Owner,
        "admin" => Affiliation::Admin,
        "member" => Affiliation::Member,
        "outcast" => Affiliation::Outcast,
        _ => Affiliation::None,
    }
}
