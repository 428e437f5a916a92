//! One room of the embedded server (XEP-0045): who is in it, who may enter, who is told what. Pure: stanzas in,
//! addressed stanzas out. Knows no sessions and no other room.

use crate::xml::{Build, element, error_of, ns};
use crate::{Element, FullJid, StanzaError};
use std::collections::{BTreeMap, HashMap};

/// Stanzas and the sessions they go to, in order.
pub(super) type Out = Vec<(FullJid, Element)>;

/// Occupants of one room.
const MAX_OCCUPANTS: usize = 5000;
/// Bytes of a presence that a room keeps and shows to everybody.
const MAX_PRESENCE: usize = 64 << 10;

/// What is set about a room.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    pub(super) password: Option<String>,
    pub(super) moderated: bool,
    pub(super) persistent: bool,
    pub(super) public: bool,
    pub(super) members_see_addresses: bool,
    pub(super) title: String,
}

#[derive(Debug)]
struct Occupant {
    jid: FullJid,
    role: &'static str,
    affiliation: &'static str,
    /// The elements of the last presence.
    shown: Vec<Element>,
}

#[derive(Debug)]
pub(super) struct Room {
    /// Address of the room.
    pub(super) address: String,
    pub(super) settings: Settings,
    occupants: BTreeMap<String, Occupant>,
    nicks: HashMap<FullJid, String>,
    subject: String,
}

/// Why and how somebody leaves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Farewell<'a> {
    pub(super) codes: &'a [&'a str],
    pub(super) reason: Option<&'a str>,
    pub(super) new_nick: Option<&'a str>,
}

impl Room {
    pub(super) fn new(address: String, settings: Settings) -> Self {
        Self { address, settings, occupants: BTreeMap::new(), nicks: HashMap::new(), subject: String::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.occupants.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.occupants.len()
    }

    pub(super) fn nick_of(&self, jid: &FullJid) -> Option<&str> {
        self.nicks.get(jid).map(String::as_str)
    }

    pub(super) fn nicks(&self) -> impl Iterator<Item = &str> {
        self.occupants.keys().map(String::as_str)
    }

    pub(super) fn jid_of(&self, nick: &str) -> Option<&FullJid> {
        self.occupants.get(nick).map(|occupant| &occupant.jid)
    }

    pub(super) fn role_of(&self, nick: &str) -> Option<&'static str> {
        self.occupants.get(nick).map(|occupant| occupant.role)
    }

    /// The presence of `nick` as `viewer` sees it.
    fn presence(
        &self,
        nick: &str,
        occupant: &Occupant,
        viewer: &Occupant,
        farewell: Option<Farewell<'_>>,
    ) -> Element {
        let mut presence = element("presence", ns::CLIENT)
            .with("from", format!("{}/{nick}", self.address))
            .with("to", viewer.jid.to_string());
        let mut item = element("item", ns::MUC_USER).with("affiliation", occupant.affiliation);
        let own = viewer.jid == occupant.jid;
        if own || viewer.role == "moderator" || self.settings.members_see_addresses {
            item = item.with("jid", occupant.jid.to_string());
        }
        match farewell {
            None => {
                for shown in &occupant.shown {
                    presence.append_child(shown.clone());
                }
                item = item.with("role", occupant.role);
            }
            Some(farewell) => {
                presence = presence.with("type", "unavailable");
                item = item.with("role", if farewell.new_nick.is_some() { occupant.role } else { "none" });
                item = item.with_opt("nick", farewell.new_nick);
                if let Some(reason) = farewell.reason {
                    item.append_child(element("reason", ns::MUC_USER).text_of(reason));
                }
            }
        }
        let mut x = element("x", ns::MUC_USER).child(item);
        let own_code = own.then_some("110");
        for code in own_code.into_iter().chain(farewell.iter().flat_map(|f| f.codes.iter().copied())) {
            x.append_child(element("status", ns::MUC_USER).with("code", code));
        }
        presence.child(x)
    }

    fn show_to_all(&self, nick: &str, farewell: Option<Farewell<'_>>, out: &mut Out) {
        let Some(occupant) = self.occupants.get(nick) else { return };
        for viewer in self.occupants.values() {
            out.push((viewer.jid.clone(), self.presence(nick, occupant, viewer, farewell)));
        }
    }

    /// Presence without `type` to `nick` in this room: a join, a change of name, or a change of presence.
    pub(super) fn enter(
        &mut self,
        from: &FullJid,
        nick: &str,
        stanza: &Element,
        standing: Standing,
        out: &mut Out,
    ) {
        let join = stanza.get_child("x", ns::MUC);
        let shown: Vec<Element> = stanza.children().filter(|c| !is_rooms_own(c)).cloned().collect();
        let refuse = |out: &mut Out, condition: &str, text: &str| {
            out.push((from.clone(), error_of(stanza, &StanzaError::new(condition, text))));
        };
        let size: usize = shown.iter().filter_map(|element| crate::xml::measure(element).ok()).sum();
        if size > MAX_PRESENCE {
            return refuse(out, "policy-violation", "the presence is too large for a room");
        }
        if self.occupants.get(nick).is_some_and(|occupant| occupant.jid != *from) {
            tracing::info!(room = %self.address, nick, jid = %from, "a join was refused: the name is taken");
            return refuse(out, "conflict", "this name is taken");
        }
        match (self.nicks.get(from).cloned(), join) {
            (Some(old), None) if old == nick => {
                if let Some(occupant) = self.occupants.get_mut(nick) {
                    occupant.shown = shown;
                }
                return self.show_to_all(nick, None, out);
            }
            (Some(old), _) if old != nick => return self.rename(&old, nick, shown, out),
            (None, None) => return refuse(out, "not-acceptable", "join the room first"),
            (Some(_), _) | (None, Some(_)) => {}
        }
        let given = join.and_then(|x| x.get_child("password", ns::MUC)).map(Element::text);
        let locked = self.settings.password.as_ref().is_some_and(|password| {
            !super::scram::equal(password.as_bytes(), given.as_deref().unwrap_or_default().as_bytes())
        });
        if locked && !standing.owner {
            tracing::warn!(room = %self.address, nick, jid = %from, "a join was refused: wrong room password");
            return refuse(out, "not-authorized", "wrong room password");
        }
        if self.occupants.len() >= MAX_OCCUPANTS {
            return refuse(out, "service-unavailable", "the room is full");
        }
        self.admit(from, nick, shown, standing, out);
    }

    fn admit(&mut self, from: &FullJid, nick: &str, shown: Vec<Element>, standing: Standing, out: &mut Out) {
        let (role, affiliation) = match (standing.owner, self.settings.moderated) {
            (true, _) => ("moderator", "owner"),
            (false, true) => ("visitor", "none"),
            (false, false) => ("participant", "none"),
        };
        let me = Occupant { jid: from.clone(), role, affiliation, shown };
        // XEP-0045 §7.2.2: first the others, then oneself, then the subject.
        for (name, occupant) in self.occupants.iter().filter(|(name, _)| *name != nick) {
            out.push((from.clone(), self.presence(name, occupant, &me, None)));
        }
        self.occupants.insert(nick.to_owned(), me);
        self.nicks.insert(from.clone(), nick.to_owned());
        let Some(me) = self.occupants.get(nick) else { return };
        for viewer in self.occupants.values().filter(|viewer| viewer.jid != *from) {
            out.push((viewer.jid.clone(), self.presence(nick, me, viewer, None)));
        }
        let mut own = self.presence(nick, me, me, None);
        if let (true, Some(x)) = (standing.created, own.get_child_mut("x", ns::MUC_USER)) {
            x.append_child(element("status", ns::MUC_USER).with("code", "201"));
        }
        out.push((from.clone(), own));
        let subject = element("message", ns::CLIENT)
            .with("type", "groupchat")
            .with("from", self.address.clone())
            .with("to", from.to_string())
            .child(element("subject", ns::CLIENT).text_of(&self.subject));
        out.push((from.clone(), subject));
    }

    /// XEP-0045 §7.6.
    fn rename(&mut self, old: &str, new: &str, shown: Vec<Element>, out: &mut Out) {
        self.show_to_all(old, Some(Farewell { codes: &["303"], reason: None, new_nick: Some(new) }), out);
        if let Some(mut occupant) = self.occupants.remove(old) {
            occupant.shown = shown;
            self.nicks.insert(occupant.jid.clone(), new.to_owned());
            self.occupants.insert(new.to_owned(), occupant);
        }
        self.show_to_all(new, None, out);
    }

    /// Somebody leaves, on whatever ground; all are told, the leaving one included.
    pub(super) fn leave(&mut self, nick: &str, farewell: Farewell<'_>, out: &mut Out) {
        self.show_to_all(nick, Some(farewell), out);
        if let Some(occupant) = self.occupants.remove(nick) {
            self.nicks.remove(&occupant.jid);
        }
    }

    /// A message to the room or, with `nick`, to one occupant.
    pub(super) fn message(&mut self, from: &FullJid, nick: Option<&str>, stanza: &Element, out: &mut Out) {
        let kind = stanza.attr("type").unwrap_or("normal");
        let refuse = |out: &mut Out, condition: &str, text: &str| {
            if kind != "error" {
                out.push((from.clone(), error_of(stanza, &StanzaError::new(condition, text))));
            }
        };
        let Some(sender) = self.nicks.get(from) else {
            return refuse(out, "not-acceptable", "only occupants may send to the room");
        };
        let sent_by = format!("{}/{sender}", self.address);
        match nick {
            Some(_) if kind == "groupchat" => {
                refuse(out, "bad-request", "a private message is not of type groupchat")
            }
            Some(nick) => match self.occupants.get(nick) {
                None => refuse(out, "item-not-found", "nobody of this name is in the room"),
                Some(target) => {
                    let mut message = stanza.clone().with("from", sent_by).with("to", target.jid.to_string());
                    if !message.has_child("x", ns::MUC_USER) {
                        message.append_child(element("x", ns::MUC_USER));
                    }
                    out.push((target.jid.clone(), message));
                }
            },
            None if kind != "groupchat" => {
                refuse(out, "bad-request", "a message to the room is of type groupchat")
            }
            None => {
                let role = self.occupants.get(sender).map_or("none", |occupant| occupant.role);
                let subject =
                    stanza.get_child("subject", ns::CLIENT).filter(|_| !stanza.has_child("body", ns::CLIENT));
                if role == "visitor" || (subject.is_some() && role != "moderator") {
                    return refuse(out, "forbidden", "your role does not allow this");
                }
                if let Some(subject) = subject {
                    self.subject = subject.text();
                }
                for viewer in self.occupants.values() {
                    let message =
                        stanza.clone().with("from", sent_by.clone()).with("to", viewer.jid.to_string());
                    out.push((viewer.jid.clone(), message));
                }
            }
        }
    }

    /// A request to an occupant: passed on with the id as it is, so that answers find their way back; a ping to
    /// oneself is answered here (XEP-0410).
    pub(super) fn occupant_iq(&self, from: &FullJid, nick: &str, stanza: &Element, out: &mut Out) {
        let request = matches!(stanza.attr("type"), Some("get" | "set"));
        let refuse = |out: &mut Out, condition: &str, text: &str| {
            if request {
                out.push((from.clone(), error_of(stanza, &StanzaError::new(condition, text))));
            }
        };
        let Some(sender) = self.nicks.get(from) else {
            return refuse(out, "not-acceptable", "only occupants may ask occupants");
        };
        match self.occupants.get(nick) {
            None => refuse(out, "item-not-found", "nobody of this name is in the room"),
            Some(_) if request && sender == nick => out.push((from.clone(), crate::xml::result_of(stanza))),
            Some(target) => {
                let stanza = stanza
                    .clone()
                    .with("from", format!("{}/{sender}", self.address))
                    .with("to", target.jid.to_string());
                out.push((target.jid.clone(), stanza));
            }
        }
    }

    /// Ends the room (XEP-0045 §10.9).
    pub(super) fn destroy(&mut self, reason: Option<String>, out: &mut Out) {
        for (nick, occupant) in &self.occupants {
            let mut destroy = element("destroy", ns::MUC_USER);
            if let Some(reason) = &reason {
                destroy.append_child(element("reason", ns::MUC_USER).text_of(reason));
            }
            let item = element("item", ns::MUC_USER).with("affiliation", "none").with("role", "none");
            let presence = element("presence", ns::CLIENT)
                .with("type", "unavailable")
                .with("from", format!("{}/{nick}", self.address))
                .with("to", occupant.jid.to_string())
                .child(element("x", ns::MUC_USER).child(item).child(destroy));
            out.push((occupant.jid.clone(), presence));
        }
        self.occupants.clear();
        self.nicks.clear();
    }

    /// Occupants by role, for the lists of XEP-0045 §9.
    pub(super) fn with_role<'a>(
        &'a self,
        role: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a FullJid, &'static str)> {
        self.occupants
            .iter()
            .filter(move |(_, occupant)| occupant.role == role)
            .map(|(nick, occupant)| (nick.as_str(), &occupant.jid, occupant.affiliation))
    }

    /// Gives an occupant another role and tells all.
    pub(super) fn set_role(&mut self, nick: &str, role: &'static str, out: &mut Out) {
        if let Some(occupant) = self.occupants.get_mut(nick) {
            occupant.role = role;
        }
        self.show_to_all(nick, None, out);
    }
}

/// How an account stands to a room that it enters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) owner: bool,
    pub(super) created: bool,
}

fn is_rooms_own(child: &Element) -> bool {
    child.has_ns(ns::MUC) || child.has_ns(ns::MUC_USER)
}
