//! All rooms of one session as a synchronous machine: stanzas and commands in, stanzas and events out. Finds the room
//! that something concerns, keeps track of requests in both directions. Knows no sockets and no tasks.

use super::room::Room;
use super::wire;
use super::{MucEvent, Reply, RequestError, RequestToken, RoomConfig, SendError, Shared};
use crate::session::{Application, Ending, Flow, Output, Tracker};
use crate::stream::Outgoing;
use crate::xml::{Build, element, error_of, first_child, ns, result_of};
use crate::{BareJid, Element, FullJid, Jid, StanzaError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

type Out = Output<MucEvent>;

/// What handles ask for.
#[derive(Debug)]
pub(super) enum Command {
    Message { to: FullJid, message: Outgoing },
    Request { to: FullJid, request: Outgoing, reply: oneshot::Sender<Result<Option<Element>, RequestError>> },
    Respond { reply: Reply, answer: Result<Option<Element>, StanzaError> },
    SetPresence(Vec<Element>),
    Join(RoomConfig),
    Leave(BareJid),
    Close,
}

/// Who waits for the answer to one of our requests.
#[derive(Debug)]
pub(super) enum Waiter {
    Caller(oneshot::Sender<Result<Option<Element>, RequestError>>),
    Form(BareJid),
    SelfPing(BareJid),
}

pub(super) struct Machine {
    rooms: BTreeMap<BareJid, Room>,
    presence: Vec<Element>,
    shared: Arc<Shared>,
    commands: mpsc::WeakUnboundedSender<Command>,
    requests: Tracker<Waiter>,
    online: bool,
    connection: u64,
    jitter: fn() -> f64,
}

impl Machine {
    pub(super) fn new(
        rooms: Vec<RoomConfig>,
        presence: Vec<Element>,
        shared: Arc<Shared>,
        commands: mpsc::WeakUnboundedSender<Command>,
    ) -> Self {
        let jitter: fn() -> f64 = rand::random;
        Self {
            rooms: rooms.into_iter().map(|config| (config.room.clone(), Room::new(config, jitter))).collect(),
            presence,
            shared,
            commands,
            requests: Tracker::new(format!("{:08x}", rand::random::<u32>())),
            online: false,
            connection: 0,
            jitter,
        }
    }

    #[cfg(test)]
    pub(super) fn without_jitter(mut self) -> Self {
        self.jitter = || 0.5;
        self.rooms = self
            .rooms
            .into_values()
            .map(|room| (room.config.room.clone(), Room::new(room.config, self.jitter)))
            .collect();
        self
    }

    fn is_joined(&self, room: &BareJid) -> bool {
        self.online && self.rooms.get(room).is_some_and(Room::is_joined)
    }

    fn presence_stanza(&mut self, from: &Jid, stanza: &Element, out: &mut Out) {
        let Some(room) = self.rooms.get_mut(&from.to_bare()) else { return };
        if stanza.attr("type") == Some("error") {
            return room.presence_error(&StanzaError::from_stanza(stanza), out);
        }
        // ejabberd also sends presence of the room itself, to announce its abilities.
        let Some(nick) = from.resource() else { return };
        room.heard(out.now);
        room.presence(nick.as_str(), stanza, &self.presence, &mut self.requests, out);
    }

    fn message_stanza(&mut self, from: &Jid, mut stanza: Element, out: &mut Out) {
        let Some(room) = self.rooms.get_mut(&from.to_bare()) else { return };
        let Some(nick) = from.resource().map(|nick| nick.as_str().to_owned()) else { return };
        let name = room.config.room.clone();
        if stanza.attr("type") == Some("error") {
            let StanzaError { condition, text, .. } = StanzaError::from_stanza(&stanza);
            let id = stanza.attr("id").map(str::to_owned);
            let payload = id.as_deref().and_then(wire::payload_name);
            return room.tell(MucEvent::Bounced { room: name, nick, id, payload, condition, text }, out);
        }
        room.heard(out.now);
        let private = stanza.attr("type") != Some("groupchat");
        // What a server kept for an earlier session or replays from history is not of now.
        let stale = stanza.children().any(|c| c.is("delay", "urn:xmpp:delay"));
        if stale || (!private && nick == room.config.nick) {
            return;
        }
        let body = stanza.get_child("body", ns::CLIENT).map(Element::text);
        let payloads: Vec<_> = stanza
            .take_contents_as_children()
            .filter(|c| !c.is("body", ns::CLIENT) && !c.is("x", ns::MUC_USER) && !c.is("subject", ns::CLIENT))
            .collect();
        if body.is_some() || !payloads.is_empty() {
            room.tell(MucEvent::Message { room: name, nick, private, body, payloads }, out);
        }
    }

    fn iq_stanza(&mut self, from: Option<&Jid>, stanza: Element, out: &mut Out) {
        match stanza.attr("type") {
            Some("result") => self.answer(from, &stanza, Ok(first_child(&stanza).cloned()), out),
            Some("error") => self.answer(from, &stanza, Err(StanzaError::from_stanza(&stanza)), out),
            Some("set") => self.request(from, stanza, out),
            Some("get") if first_child(&stanza).is_some_and(|c| c.is("query", ns::DISCO_INFO)) => {
                out.send(result_of(&stanza).child(about_us(&stanza)));
            }
            _ => out.send(error_of(&stanza, &StanzaError::new("service-unavailable", ""))),
        }
    }

    fn request(&mut self, from: Option<&Jid>, mut stanza: Element, out: &mut Out) {
        let occupant =
            from.and_then(|from| Some((from, self.rooms.get_mut(&from.to_bare())?, from.resource()?)));
        let (Some((from, room, nick)), Some(id)) = (occupant, stanza.attr("id").map(str::to_owned)) else {
            return out.send(error_of(&stanza, &StanzaError::new("service-unavailable", "")));
        };
        room.heard(out.now);
        let Some(payload) = stanza.take_contents_as_children().next() else {
            let nothing = StanzaError::new("bad-request", "the request is empty");
            return out.send(error_of(&stanza, &nothing));
        };
        let reply = Reply { to: from.clone(), id, connection: self.connection };
        let token = RequestToken { reply: Some(reply), commands: self.commands.clone() };
        let (name, nick) = (room.config.room.clone(), nick.as_str().to_owned());
        room.tell(MucEvent::Request { room: name, nick, payload, token }, out);
    }

    fn answer(
        &mut self,
        from: Option<&Jid>,
        stanza: &Element,
        answer: Result<Option<Element>, StanzaError>,
        out: &mut Out,
    ) {
        let Some(waiter) = stanza.attr("id").and_then(|id| self.requests.answer(id, from)) else { return };
        match waiter {
            // The caller may have given up meanwhile.
            Waiter::Caller(reply) => drop(reply.send(answer.map_err(RequestError::Refused))),
            Waiter::Form(room) => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.configured(answer.map(drop), &self.presence, out);
                }
            }
            Waiter::SelfPing(room) => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.pinged(answer.map(drop), out);
                }
            }
        }
    }

    fn join(&mut self, config: RoomConfig, out: &mut Out) {
        let address = config.room.clone();
        match self.rooms.get_mut(&address) {
            Some(room) if room.config == config => return,
            Some(room) => room.leave(out),
            None => {}
        }
        let mut room = Room::new(config, self.jitter);
        if self.online {
            room.enter(&self.presence, out);
        }
        self.rooms.insert(address, room);
    }
}

/// What a curious client learns about us (XEP-0030).
fn about_us(request: &Element) -> Element {
    let mut query = element("query", ns::DISCO_INFO);
    if let Some(node) = first_child(request).and_then(|c| c.attr("node")) {
        query = query.with("node", node);
    }
    query.append_child(
        element("identity", ns::DISCO_INFO)
            .with("category", "automation")
            .with("type", "command-node")
            .with("name", "wps-remote"),
    );
    for feature in [ns::DISCO_INFO, ns::PING, crate::NS_WPS_REMOTE] {
        query.append_child(element("feature", ns::DISCO_INFO).with("var", feature));
    }
    query
}

impl Application for Machine {
    type Command = Command;
    type Event = MucEvent;

    fn online(&mut self, jid: &FullJid, out: &mut Out) {
        self.online = true;
        self.connection += 1;
        self.shared.online.store(true, Relaxed);
        out.tell(MucEvent::Online { jid: jid.clone() });
        for room in self.rooms.values_mut() {
            room.enter(&self.presence, out);
        }
    }

    fn offline(&mut self, ending: &Ending, retry_in: Duration, out: &mut Out) {
        self.online = false;
        self.shared.online.store(false, Relaxed);
        self.rooms.values_mut().for_each(Room::disconnected);
        for waiter in self.requests.drain() {
            if let Waiter::Caller(reply) = waiter {
                // The caller may have given up meanwhile.
                let _ = reply.send(Err(RequestError::ConnectionLost));
            }
        }
        out.tell(MucEvent::Offline { ending: ending.clone(), retry_in });
    }

    fn stanza(&mut self, stanza: Element, out: &mut Out) {
        let from: Option<Jid> = match stanza.attr("from").map(str::parse) {
            None => None,
            Some(Ok(from)) => Some(from),
            Some(Err(_)) => return,
        };
        match (stanza.name(), &from) {
            ("presence", Some(from)) => self.presence_stanza(from, &stanza, out),
            ("message", Some(from)) => self.message_stanza(from, stanza, out),
            ("iq", from) => self.iq_stanza(from.as_ref(), stanza, out),
            _ => {}
        }
    }

    fn command(&mut self, command: Command, out: &mut Out) -> Flow {
        match command {
            Command::Close => return Flow::Close,
            Command::Message { to, message } => {
                if self.is_joined(&to.to_bare()) {
                    out.send(message);
                } else {
                    let id = message.element.attr("id").map(str::to_owned);
                    out.tell(MucEvent::Bounced {
                        room: to.to_bare(),
                        nick: to.resource().to_string(),
                        payload: id.as_deref().and_then(wire::payload_name),
                        id,
                        condition: "not-acceptable".to_owned(),
                        text: "we are not in this room".to_owned(),
                    });
                }
            }
            Command::Request { to, mut request, reply } => {
                let room = to.to_bare();
                if !self.is_joined(&room) {
                    let error = if self.online {
                        RequestError::NotJoined { room }
                    } else {
                        SendError::Offline.into()
                    };
                    // The caller may have given up meanwhile.
                    let _ = reply.send(Err(error));
                } else {
                    let id = self.requests.id("ask");
                    request.element = request.element.with("id", id.clone());
                    out.send(request);
                    self.requests.expect(
                        id,
                        Some(to.into()),
                        Waiter::Caller(reply),
                        |waiter| matches!(waiter, Waiter::Caller(reply) if reply.is_closed()),
                    );
                }
            }
            Command::Respond { reply, answer } => {
                if self.online && reply.connection == self.connection {
                    out.send(response(reply, answer));
                }
            }
            Command::SetPresence(payload) => {
                self.presence = payload;
                self.rooms.values_mut().for_each(|room| room.update(&self.presence, out));
            }
            Command::Join(config) => self.join(config, out),
            Command::Leave(room) => {
                if let Some(mut room) = self.rooms.remove(&room) {
                    room.leave(out);
                }
            }
        }
        Flow::Continue
    }

    fn tick(&mut self, out: &mut Out) {
        for room in self.rooms.values_mut() {
            room.tick(&self.presence, &mut self.requests, out);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.rooms.values().filter_map(Room::deadline).min()
    }
}

fn response(reply: Reply, answer: Result<Option<Element>, StanzaError>) -> Element {
    let iq = element("iq", ns::CLIENT).with("id", reply.id).with("to", reply.to.to_string());
    match answer {
        Ok(None) => iq.with("type", "result"),
        Ok(Some(payload)) => iq.with("type", "result").child(payload),
        Err(error) => iq.with("type", "error").child(error.to_element()),
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
