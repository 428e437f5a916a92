//! Where a stanza goes: to the rooms, to other sessions, or to the server itself, which answers it here (RFC 6120
//! §10, RFC 6121 §8). Knows no connections.

use super::registry::{Delivery, Pressure, Registry};
use super::room::Out;
use super::rooms::Rooms;
use crate::xml::{Build, element, error_of, first_child, ns, result_of};
use crate::{Element, FullJid, Jid, StanzaError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const VCARD: &str = "vcard-temp";
const VERSION: &str = "jabber:iq:version";

pub(super) struct Router {
    domain: String,
    muc_domain: String,
    rooms: Mutex<Rooms>,
    pub(super) registry: Registry,
}

impl Router {
    pub(super) fn new(domain: String, rooms: Rooms, registry: Registry) -> Self {
        Self { domain, muc_domain: rooms.domain.clone(), rooms: Mutex::new(rooms), registry }
    }

    pub(super) fn domain(&self) -> &str {
        &self.domain
    }

    pub(super) fn muc_domain(&self) -> &str {
        &self.muc_domain
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the rooms act and delivers what they say *before* anybody else may act on them: otherwise two sessions
    /// could see a join and a leave in different orders.
    fn with_rooms(&self, action: impl FnOnce(&mut Rooms) -> Out) -> Option<Arc<Pressure>> {
        let mut rooms = self.rooms();
        let mut pressed = None;
        for (to, stanza) in action(&mut rooms) {
            if let Delivery::Pressed(pressure) = self.registry.deliver(&to, stanza) {
                pressed = Some(pressure);
            }
        }
        pressed
    }

    /// Routes a stanza of the session `from`, whose address it must carry already. Gives the pressure of a receiver
    /// for whom the sender should wait.
    pub(super) fn route(&self, stanza: Element, from: &FullJid) -> Option<Arc<Pressure>> {
        let to: Option<Jid> = match stanza.attr("to").map(str::parse) {
            None => None,
            Some(Ok(to)) => Some(to),
            Some(Err(_)) => {
                self.refuse(&stanza, from, "jid-malformed", "");
                return None;
            }
        };
        let Some(to) = to else {
            self.to_server(stanza, from);
            return None;
        };
        let domain = to.domain().as_str();
        if domain == self.muc_domain {
            return self.with_rooms(|rooms| rooms.handle(&stanza, from, &to));
        }
        if domain != self.domain {
            self.refuse(&stanza, from, "remote-server-not-found", "this server is on its own");
        } else if to.node().is_none() || (stanza.name() == "iq" && to.resource().is_none()) {
            self.to_server(stanza, from);
        } else {
            return self.to_user(stanza, from, &to);
        }
        None
    }

    fn to_user(&self, stanza: Element, from: &FullJid, to: &Jid) -> Option<Arc<Pressure>> {
        let delivered = match (stanza.name(), to.try_as_full()) {
            ("presence", _) => {
                let subscription = match stanza.attr("type") {
                    None | Some("unavailable") => {
                        self.registry.note_directed(from, to, stanza.attr("type").is_none());
                        false
                    }
                    Some(kind) => kind != "error",
                };
                // Subscriptions are between accounts (RFC 6121 §3.1.2); they are passed on and not kept.
                let stanza =
                    if subscription { stanza.with("from", from.to_bare().to_string()) } else { stanza };
                self.registry.deliver_any(to, &stanza);
                return None;
            }
            (_, Ok(full)) => self.registry.deliver(full, stanza.clone()),
            (_, Err(bare)) => match self.registry.deliver_available(bare, &stanza) {
                true => Delivery::Done,
                false => Delivery::Absent,
            },
        };
        match delivered {
            Delivery::Done => None,
            Delivery::Pressed(pressure) => Some(pressure),
            Delivery::Absent => {
                self.refuse(&stanza, from, "service-unavailable", "");
                None
            }
        }
    }

    fn refuse(&self, stanza: &Element, from: &FullJid, condition: &str, text: &str) {
        let silent = stanza.name() == "presence" || matches!(stanza.attr("type"), Some("error" | "result"));
        if !silent {
            self.registry.deliver(from, error_of(stanza, &StanzaError::new(condition, text)));
        }
    }

    fn to_server(&self, stanza: Element, from: &FullJid) {
        match (stanza.name(), stanza.attr("type")) {
            ("presence", None | Some("unavailable")) if stanza.attr("to").is_none() => {
                self.registry.broadcast_presence(from, stanza);
            }
            ("iq", Some("get" | "set")) => {
                let answer = match self.answer(&stanza) {
                    Ok(None) => result_of(&stanza),
                    Ok(Some(payload)) => result_of(&stanza).child(payload),
                    Err(condition) => error_of(&stanza, &StanzaError::new(condition, "")),
                };
                self.registry.deliver(from, answer);
            }
            _ => {}
        }
    }

    fn answer(&self, iq: &Element) -> Result<Option<Element>, &'static str> {
        let child = first_child(iq).ok_or("bad-request")?;
        let get = iq.attr("type") == Some("get");
        match child.ns().as_str() {
            ns::PING | ns::SESSION => Ok(None),
            // A stub: contacts are not kept, but clients must be able to ask (RFC 6121 §2.1.3).
            ns::ROSTER => Ok(get.then(|| element("query", ns::ROSTER))),
            VCARD if get => Err("item-not-found"),
            VERSION if get => Ok(Some(
                element("query", VERSION)
                    .child(element("name", VERSION).text_of("wps-remote embedded server"))
                    .child(element("version", VERSION).text_of(env!("CARGO_PKG_VERSION"))),
            )),
            ns::DISCO_INFO if get => {
                let mut query = element("query", ns::DISCO_INFO).child(
                    element("identity", ns::DISCO_INFO)
                        .with("category", "server")
                        .with("type", "im")
                        .with("name", "wps-remote embedded server"),
                );
                for feature in [ns::DISCO_INFO, ns::DISCO_ITEMS, ns::PING, VERSION] {
                    query.append_child(element("feature", ns::DISCO_INFO).with("var", feature));
                }
                Ok(Some(query))
            }
            ns::DISCO_ITEMS if get => {
                let rooms = element("item", ns::DISCO_ITEMS)
                    .with("jid", self.muc_domain.clone())
                    .with("name", "Rooms");
                let account = iq.attr("to").is_some_and(|to| to.contains('@'));
                let query = element("query", ns::DISCO_ITEMS);
                Ok(Some(if account { query } else { query.child(rooms) }))
            }
            _ => Err("service-unavailable"),
        }
    }

    /// A session has ended: its rooms and those who saw it are told. `reason` if it did not end by itself.
    pub(super) fn ended(&self, jid: &FullJid, id: u64, reason: Option<&str>) {
        if let Some(told) = self.registry.release(jid, id) {
            self.with_rooms(|rooms| rooms.leave_all(jid, reason));
            self.registry.announce_end(jid, told);
        }
    }

    /// A session was replaced by one with the same address: the rooms see the old one leave.
    pub(super) fn replaced(&self, jid: &FullJid) {
        self.with_rooms(|rooms| rooms.leave_all(jid, Some("replaced by a new connection")));
    }

    /// Tells everybody in a room that the service stops.
    pub(super) fn announce_shutdown(&self) {
        self.with_rooms(Rooms::shutdown);
    }
}
