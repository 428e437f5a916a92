//! All rooms of the embedded server: which exist, who may create them, and which one a stanza concerns. Pure, like
//! `room`. Rooms are created by owner accounts only, or preset in the configuration.

use super::room::{Farewell, Out, Room, Settings, Standing};
use super::room_admin;
use crate::xml::{Build, element, error_of, first_child, ns, result_of};
use crate::{Element, FullJid, Jid, StanzaError};
use std::collections::{BTreeMap, BTreeSet};

/// Rooms of one server.
const MAX_ROOMS: usize = 1000;

pub(super) struct Rooms {
    pub(super) domain: String,
    owners: BTreeSet<String>,
    rooms: BTreeMap<String, Room>,
}

impl Rooms {
    pub(super) fn new(domain: String, owners: BTreeSet<String>, preset: Vec<(String, Settings)>) -> Self {
        let rooms = preset
            .into_iter()
            .map(|(name, settings)| {
                let room = Room::new(format!("{name}@{domain}"), Settings { persistent: true, ..settings });
                (name, room)
            })
            .collect();
        Self { domain, owners, rooms }
    }

    fn is_owner(&self, jid: &FullJid) -> bool {
        jid.node().is_some_and(|node| self.owners.contains(node.as_str()))
    }

    fn tidy(&mut self) {
        self.rooms.retain(|_, room| room.settings.persistent || !room.is_empty());
    }

    /// A session has ended: it leaves all rooms. Nothing is sent to it any more.
    pub(super) fn leave_all(&mut self, jid: &FullJid, reason: Option<&str>) -> Out {
        let mut out = Out::new();
        let codes: &[&str] = if reason.is_some() { &["333"] } else { &[] };
        for room in self.rooms.values_mut() {
            if let Some(nick) = room.nick_of(jid).map(str::to_owned) {
                room.leave(&nick, Farewell { codes, reason, new_nick: None }, &mut out);
            }
        }
        out.retain(|(to, _)| to != jid);
        self.tidy();
        out
    }

    /// The service stops: everybody is told (XEP-0045 §17.3, status 332).
    pub(super) fn shutdown(&mut self) -> Out {
        let mut out = Out::new();
        for room in self.rooms.values_mut() {
            let nicks: Vec<String> = room.nicks().map(str::to_owned).collect();
            for nick in nicks {
                let mut own = Out::new();
                let jid = room.jid_of(&nick).cloned();
                room.leave(&nick, Farewell { codes: &["332"], ..Farewell::default() }, &mut own);
                // Each hears of its own end only; telling all of all would be quadratic.
                out.extend(own.into_iter().filter(|(to, _)| Some(to) == jid.as_ref()));
            }
        }
        out
    }

    /// A stanza to the service, a room, or an occupant.
    pub(super) fn handle(&mut self, stanza: &Element, from: &FullJid, to: &Jid) -> Out {
        let mut out = Out::new();
        let Some(name) = to.node().map(|node| node.as_str().to_owned()) else {
            self.service(stanza, from, &mut out);
            return out;
        };
        let nick = to.resource().map(|nick| nick.as_str());
        let kind = stanza.attr("type");
        match (stanza.name(), nick) {
            ("presence", Some(nick)) if kind.is_none() => self.enter(&name, nick, stanza, from, &mut out),
            ("presence", Some(nick)) if kind == Some("unavailable") => {
                if let Some(room) = self.rooms.get_mut(&name)
                    && room.nick_of(from) == Some(nick)
                {
                    let status = stanza.get_child("status", ns::CLIENT).map(Element::text);
                    room.leave(nick, Farewell { reason: status.as_deref(), ..Farewell::default() }, &mut out);
                }
                self.tidy();
            }
            ("presence", _) => {}
            (what, nick) => match self.rooms.get_mut(&name) {
                None => refuse(stanza, from, "item-not-found", "no such room", &mut out),
                Some(room) if what == "message" => room.message(from, nick, stanza, &mut out),
                Some(room) => match nick {
                    Some(nick) => room.occupant_iq(from, nick, stanza, &mut out),
                    None => {
                        let owner = from.node().is_some_and(|node| self.owners.contains(node.as_str()));
                        room_admin::handle(room, owner, from, stanza, &mut out);
                        self.tidy();
                    }
                },
            },
        }
        out
    }

    fn enter(&mut self, name: &str, nick: &str, stanza: &Element, from: &FullJid, out: &mut Out) {
        let owner = self.is_owner(from);
        let created = !self.rooms.contains_key(name);
        if created {
            let joining = stanza.has_child("x", ns::MUC);
            if !owner || !joining || self.rooms.len() >= MAX_ROOMS {
                tracing::debug!(room = name, jid = %from, "a join was refused: no such room");
                return refuse(
                    stanza,
                    from,
                    "item-not-found",
                    "no such room; only its owner may create it",
                    out,
                );
            }
            tracing::info!(room = name, jid = %from, "room created");
            self.rooms
                .insert(name.to_owned(), Room::new(format!("{name}@{}", self.domain), Settings::default()));
        }
        if let Some(room) = self.rooms.get_mut(name) {
            room.enter(from, nick, stanza, Standing { owner, created }, out);
        }
        self.tidy();
    }

    /// Requests to the service itself (XEP-0045 §6).
    fn service(&self, stanza: &Element, from: &FullJid, out: &mut Out) {
        if stanza.name() != "iq" || !matches!(stanza.attr("type"), Some("get" | "set")) {
            return;
        }
        let Some(child) = first_child(stanza) else {
            return refuse(stanza, from, "bad-request", "", out);
        };
        let answer = match child.ns().as_str() {
            ns::DISCO_INFO => {
                let mut query = element("query", ns::DISCO_INFO).child(
                    element("identity", ns::DISCO_INFO)
                        .with("category", "conference")
                        .with("type", "text")
                        .with("name", "Rooms"),
                );
                for feature in [ns::DISCO_INFO, ns::DISCO_ITEMS, ns::MUC, ns::PING] {
                    query.append_child(element("feature", ns::DISCO_INFO).with("var", feature));
                }
                query
            }
            ns::DISCO_ITEMS => {
                let mut query = element("query", ns::DISCO_ITEMS);
                let owner = self.is_owner(from);
                for (name, room) in self.rooms.iter().filter(|(_, room)| owner || room.settings.public) {
                    let item = element("item", ns::DISCO_ITEMS)
                        .with("jid", room.address.clone())
                        .with("name", name.clone());
                    query.append_child(item);
                }
                query
            }
            ns::PING => return out.push((from.clone(), result_of(stanza))),
            _ => return refuse(stanza, from, "service-unavailable", "", out),
        };
        out.push((from.clone(), result_of(stanza).child(answer)));
    }

    #[cfg(test)]
    pub(super) fn room(&self, name: &str) -> Option<&Room> {
        self.rooms.get(name)
    }
}

fn refuse(stanza: &Element, from: &FullJid, condition: &str, text: &str, out: &mut Out) {
    if !matches!(stanza.attr("type"), Some("error" | "result")) {
        out.push((from.clone(), error_of(stanza, &StanzaError::new(condition, text))));
    }
}

#[cfg(test)]
#[path = "rooms_tests.rs"]
mod tests;
