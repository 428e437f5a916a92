//! Requests to a room itself: what it is (XEP-0030), the owner's form and the end of the room (XEP-0045 §10), roles
//! and kicks (XEP-0045 §8, §9). Pure.

use super::room::{Farewell, Out, Room};
use crate::xml::{Build, element, error_of, first_child, ns, result_of};
use crate::{Element, FullJid, StanzaError};

pub(super) fn handle(room: &mut Room, owner: bool, from: &FullJid, stanza: &Element, out: &mut Out) {
    if stanza.name() != "iq" || !matches!(stanza.attr("type"), Some("get" | "set")) {
        return;
    }
    let set = stanza.attr("type") == Some("set");
    let answer = match first_child(stanza) {
        None => Err(StanzaError::new("bad-request", "")),
        Some(child) => match child.ns().as_str() {
            ns::DISCO_INFO => Ok(Some(about(room))),
            ns::DISCO_ITEMS => Ok(Some(element("query", ns::DISCO_ITEMS))),
            ns::PING => Ok(None),
            ns::MUC_OWNER if !owner => Err(StanzaError::new("forbidden", "only for owners of the room")),
            ns::MUC_OWNER if set => configure(room, child, out),
            ns::MUC_OWNER => Ok(Some(form(room))),
            ns::MUC_ADMIN => administer(room, owner, from, child, set, out),
            _ => Err(StanzaError::new("service-unavailable", "")),
        },
    };
    let answer = match answer {
        Ok(None) => result_of(stanza),
        Ok(Some(payload)) => result_of(stanza).child(payload),
        Err(error) => error_of(stanza, &error),
    };
    out.push((from.clone(), answer));
}

fn about(room: &Room) -> Element {
    let settings = &room.settings;
    let name = if settings.title.is_empty() { room.address.clone() } else { settings.title.clone() };
    let mut query = element("query", ns::DISCO_INFO).child(
        element("identity", ns::DISCO_INFO)
            .with("category", "conference")
            .with("type", "text")
            .with("name", name),
    );
    let either = |yes: bool, a: &'static str, b: &'static str| if yes { a } else { b };
    for feature in [
        ns::MUC,
        either(settings.password.is_some(), "muc_passwordprotected", "muc_unsecured"),
        either(settings.moderated, "muc_moderated", "muc_unmoderated"),
        either(settings.persistent, "muc_persistent", "muc_temporary"),
        either(settings.public, "muc_public", "muc_hidden"),
        either(settings.members_see_addresses, "muc_nonanonymous", "muc_semianonymous"),
        "muc_open",
        "http://jabber.org/protocol/muc#self-ping-optimization",
    ] {
        query.append_child(element("feature", ns::DISCO_INFO).with("var", feature));
    }
    let field = |name: &str, kind: Option<&str>, value: String| {
        element("field", ns::DATA_FORM)
            .with("var", name)
            .with_opt("type", kind)
            .child(element("value", ns::DATA_FORM).text_of(&value))
    };
    query.child(
        element("x", ns::DATA_FORM)
            .with("type", "result")
            .child(field("FORM_TYPE", Some("hidden"), "http://jabber.org/protocol/muc#roominfo".to_owned()))
            .child(field("muc#roominfo_occupants", None, room.len().to_string())),
    )
}

const TITLE: &str = "muc#roomconfig_roomname";
const PERSISTENT: &str = "muc#roomconfig_persistentroom";
const PUBLIC: &str = "muc#roomconfig_publicroom";
const MODERATED: &str = "muc#roomconfig_moderatedroom";
const WHOIS: &str = "muc#roomconfig_whois";
const PROTECTED: &str = "muc#roomconfig_passwordprotectedroom";
const SECRET: &str = "muc#roomconfig_roomsecret";

fn form(room: &Room) -> Element {
    let settings = &room.settings;
    let switch = |on: bool| if on { "1" } else { "0" }.to_owned();
    let whois = if settings.members_see_addresses { "anyone" } else { "moderators" };
    let fields = [
        ("FORM_TYPE", "hidden", ns::MUC_CONFIG.to_owned()),
        (TITLE, "text-single", settings.title.clone()),
        (PERSISTENT, "boolean", switch(settings.persistent)),
        (PUBLIC, "boolean", switch(settings.public)),
        (MODERATED, "boolean", switch(settings.moderated)),
        (WHOIS, "list-single", whois.to_owned()),
        (PROTECTED, "boolean", switch(settings.password.is_some())),
        (SECRET, "text-private", settings.password.clone().unwrap_or_default()),
    ];
    let mut form = element("x", ns::DATA_FORM).with("type", "form");
    for (name, kind, value) in fields {
        let mut field =
            element("field", ns::DATA_FORM).with("var", name).with("type", kind).with("label", name);
        field.append_child(element("value", ns::DATA_FORM).text_of(&value));
        if name == WHOIS {
            for option in ["moderators", "anyone"] {
                let value = element("value", ns::DATA_FORM).text_of(option);
                field.append_child(element("option", ns::DATA_FORM).child(value));
            }
        }
        form.append_child(field);
    }
    element("query", ns::MUC_OWNER).child(form)
}

fn configure(room: &mut Room, query: &Element, out: &mut Out) -> Result<Option<Element>, StanzaError> {
    if let Some(destroy) = query.get_child("destroy", ns::MUC_OWNER) {
        let reason = destroy.get_child("reason", ns::MUC_OWNER).map(Element::text);
        room.settings.persistent = false;
        room.destroy(reason, out);
        return Ok(None);
    }
    let Some(form) = query.get_child("x", ns::DATA_FORM) else {
        return Err(StanzaError::new("bad-request", "no form"));
    };
    if form.attr("type") == Some("cancel") {
        return Ok(None);
    }
    let value = |name: &str| {
        let field = form.children().find(|field| field.attr("var") == Some(name))?;
        Some(field.get_child("value", ns::DATA_FORM).map(Element::text).unwrap_or_default())
    };
    let switch =
        |name: &str, now: bool| value(name).map_or(now, |value| matches!(value.as_str(), "1" | "true"));
    let settings = &mut room.settings;
    settings.title = value(TITLE).unwrap_or_else(|| settings.title.clone());
    settings.persistent = switch(PERSISTENT, settings.persistent);
    settings.public = switch(PUBLIC, settings.public);
    settings.moderated = switch(MODERATED, settings.moderated);
    settings.members_see_addresses =
        value(WHOIS).map_or(settings.members_see_addresses, |whois| whois == "anyone");
    if let Some(secret) = value(SECRET) {
        settings.password = Some(secret).filter(|secret| !secret.is_empty());
    }
    if !switch(PROTECTED, true) {
        settings.password = None;
    }
    Ok(None)
}

/// Lists and changes of roles. Affiliations belong to the server's configuration and are only shown.
fn administer(
    room: &mut Room,
    owner: bool,
    from: &FullJid,
    query: &Element,
    set: bool,
    out: &mut Out,
) -> Result<Option<Element>, StanzaError> {
    let moderator = room.nick_of(from).and_then(|nick| room.role_of(nick)) == Some("moderator");
    if !(owner || moderator) {
        return Err(StanzaError::new("forbidden", "only for moderators"));
    }
    if !set {
        let wanted = first_child(query).and_then(|item| item.attr("role")).unwrap_or_default().to_owned();
        let mut list = element("query", ns::MUC_ADMIN);
        for (nick, jid, affiliation) in room.with_role(&wanted) {
            list.append_child(
                element("item", ns::MUC_ADMIN)
                    .with("nick", nick)
                    .with("jid", jid.to_string())
                    .with("role", wanted.clone())
                    .with("affiliation", affiliation),
            );
        }
        return Ok(Some(list));
    }
    for item in query.children().filter(|child| child.name() == "item") {
        let (Some(nick), Some(role)) = (item.attr("nick"), item.attr("role")) else {
            return Err(StanzaError::new(
                "not-allowed",
                "affiliations are set in the server's configuration",
            ));
        };
        if room.role_of(nick).is_none() {
            return Err(StanzaError::new("item-not-found", "nobody of this name is in the room"));
        }
        let role = match role {
            "none" => {
                let reason = item.children().find(|child| child.name() == "reason").map(Element::text);
                tracing::info!(room = %room.address, nick, by = %from, "occupant kicked");
                room.leave(
                    nick,
                    Farewell { codes: &["307"], reason: reason.as_deref(), new_nick: None },
                    out,
                );
                continue;
            }
            "visitor" => "visitor",
            "participant" => "participant",
            "moderator" => "moderator",
            _ => return Err(StanzaError::new("bad-request", "no such role")),
        };
        room.set_role(nick, role, out);
    }
    Ok(None)
}
