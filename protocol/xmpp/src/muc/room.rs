//! One room from our side: joining, configuring, staying, losing and joining again. Pure: time comes in, stanzas and
//! events go out. Knows one room only.
//!
//! ```text
//!            enter            self-presence            form taken
//!   Offline ───────► Joining ───────────────► Configuring ──────► Joined ─┐
//!      ▲                │ refused, silence        │ refused               │ kicked, destroyed,
//!      │ connection     ▼                         ▼                       │ no longer known (XEP-0410)
//!      └──────────── Waiting ◄────────────────────┴───────────────────────┘
//! ```
//!
//! `Configuring` is entered only as owner with [`RoomConfig::create`].

use super::machine::Waiter;
use super::wire::{self, UserInfo};
use super::{Affiliation, MucEvent, Occupant, Role, RoomConfig};
use crate::backoff::Backoff;
use crate::session::{Output, Tracker};
use crate::xml::measure;
use crate::{Element, FullJid, StanzaError};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// A join, or a configuration, that is not answered by then has failed.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// After this much silence the room is asked whether we are still in it.
const SELF_PING: Duration = Duration::from_secs(60);
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Short, because a room that does not exist yet appears as soon as its owner is back.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Events that a room may send before it lets us in.
const MAX_HELD: usize = 8192;

type Out = Output<MucEvent>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Offline,
    Joining { until: Instant },
    Configuring { until: Instant },
    Joined { heard: Instant, asked: Option<Instant> },
    Waiting { until: Instant },
}

#[derive(Debug)]
pub(super) struct Room {
    pub(super) config: RoomConfig,
    phase: Phase,
    occupants: HashSet<String>,
    held: Vec<MucEvent>,
    /// Our presence changed while we were joining with the old one.
    outdated: bool,
    backoff: Backoff,
    jitter: fn() -> f64,
}

impl Room {
    pub(super) fn new(config: RoomConfig, jitter: fn() -> f64) -> Self {
        Self {
            config,
            phase: Phase::Offline,
            occupants: HashSet::new(),
            held: Vec::new(),
            outdated: false,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            jitter,
        }
    }

    pub(super) fn is_joined(&self) -> bool {
        matches!(self.phase, Phase::Joined { .. })
    }

    /// Our own address in the room, if the name is possible at all.
    fn me(&self) -> Option<FullJid> {
        self.config.room.with_resource_str(&self.config.nick).ok()
    }

    fn is_me(&self, nick: &str) -> bool {
        self.me().is_some_and(|me| me.resource().as_str() == nick)
    }

    /// Asks to be let in.
    pub(super) fn enter(&mut self, payload: &[Element], out: &mut Out) {
        self.occupants.clear();
        self.held.clear();
        let Some(me) = self.me() else {
            let text = format!("`{}` cannot be a name in a room", self.config.nick);
            return self.refused("jid-malformed", text, out);
        };
        let join = wire::join(&me, self.config.password.as_deref(), payload);
        if let Err(reason) = measure(&join) {
            return self.refused("not-acceptable", reason.to_string(), out);
        }
        out.send(join);
        self.outdated = false;
        self.phase = Phase::Joining { until: out.now + ANSWER_DEADLINE };
    }

    /// The connection is gone, and nothing needs to be said.
    pub(super) fn disconnected(&mut self) {
        self.phase = Phase::Offline;
        self.occupants.clear();
        self.held.clear();
    }

    /// Leaves on our own wish.
    pub(super) fn leave(&mut self, out: &mut Out) {
        let inside = !matches!(self.phase, Phase::Offline | Phase::Waiting { .. });
        if let (true, Some(me)) = (inside, self.me()) {
            out.send(wire::leave(&me));
            out.tell(MucEvent::Left { room: self.config.room.clone(), reason: None });
        }
        self.disconnected();
    }

    /// Our presence has changed.
    pub(super) fn update(&mut self, payload: &[Element], out: &mut Out) {
        match (self.phase, self.me()) {
            (Phase::Joined { .. }, Some(me)) => out.send(wire::presence(&me, payload)),
            (Phase::Joining { .. } | Phase::Configuring { .. }, _) => self.outdated = true,
            _ => {}
        }
    }

    fn refused(&mut self, condition: &str, text: String, out: &mut Out) {
        let retry_in = self.backoff.wait((self.jitter)());
        self.disconnected();
        self.phase = Phase::Waiting { until: out.now + retry_in };
        let (room, condition) = (self.config.room.clone(), condition.to_owned());
        tracing::debug!(%room, condition, text, ?retry_in, "could not join the room");
        out.tell(MucEvent::JoinRefused { room, condition, text, retry_in });
    }

    fn lost(&mut self, reason: Option<String>, out: &mut Out) {
        let was_joined = self.is_joined();
        if !was_joined {
            return self.refused(
                "recipient-unavailable",
                reason.unwrap_or_else(|| "removed while joining".into()),
                out,
            );
        }
        let retry_in = self.backoff.wait((self.jitter)());
        self.disconnected();
        self.phase = Phase::Waiting { until: out.now + retry_in };
        let room = self.config.room.clone();
        tracing::warn!(%room, reason = reason.as_deref().unwrap_or("none given"), ?retry_in, "no longer in the room");
        out.tell(MucEvent::Left { room, reason });
    }

    /// Something came from the room: it is alive, and so is our membership.
    pub(super) fn heard(&mut self, now: Instant) {
        if let Phase::Joined { heard, asked } = &mut self.phase {
            *heard = now;
            *asked = None;
        }
    }

    /// Tells an event of this room, or keeps it until the join is complete.
    pub(super) fn tell(&mut self, event: MucEvent, out: &mut Out) {
        match self.phase {
            Phase::Joined { .. } => out.tell(event),
            Phase::Joining { .. } | Phase::Configuring { .. } if self.held.len() < MAX_HELD => {
                self.held.push(event)
            }
            // Leftovers of a membership that has ended.
            _ => {}
        }
    }

    /// Presence of type error: the join failed. Later ones concern a change of presence and change nothing.
    pub(super) fn presence_error(&mut self, error: &StanzaError, out: &mut Out) {
        if matches!(self.phase, Phase::Joining { .. }) {
            self.refused(&error.condition, error.text.clone(), out);
        } else {
            tracing::warn!(room = %self.config.room, %error, "the room refused our presence");
        }
    }

    /// Presence of an occupant, ourselves included.
    pub(super) fn presence(
        &mut self,
        nick: &str,
        stanza: &Element,
        payload: &[Element],
        ids: &mut Tracker<Waiter>,
        out: &mut Out,
    ) {
        let info = UserInfo::read(stanza);
        let me = info.has(wire::SELF) || self.is_me(nick);
        match (stanza.attr("type"), me) {
            (Some("unavailable"), true) if info.has(wire::NEW_NICK) => {
                // The service renamed us; its next presence shows the new name.
                self.config.nick = info.new_nick.unwrap_or_else(|| nick.to_owned());
            }
            (Some("unavailable"), true) => {
                if !matches!(self.phase, Phase::Offline | Phase::Waiting { .. }) {
                    self.lost(info.why(stanza), out);
                }
            }
            (Some("unavailable"), false) => {
                if self.occupants.remove(nick) {
                    let (room, nick) = (self.config.room.clone(), nick.to_owned());
                    self.tell(MucEvent::Gone { room, nick, reason: info.why(stanza) }, out);
                }
            }
            (None, true) => self.self_presence(nick, &info, payload, ids, out),
            (None, false) => {
                let fresh = self.occupants.insert(nick.to_owned());
                let occupant = Occupant {
                    room: self.config.room.clone(),
                    nick: nick.to_owned(),
                    role: info.role.unwrap_or(Role::None),
                    affiliation: info.affiliation.unwrap_or(Affiliation::None),
                    real_jid: info.real_jid,
                    payloads: stanza
                        .children()
                        .filter(|c| !c.is("x", crate::xml::ns::MUC_USER))
                        .cloned()
                        .collect(),
                    fresh,
                };
                self.tell(MucEvent::Occupant(occupant), out);
            }
            // Subscriptions and probes mean nothing in a room.
            (Some(_), _) => {}
        }
    }

    fn self_presence(
        &mut self,
        nick: &str,
        info: &UserInfo,
        payload: &[Element],
        ids: &mut Tracker<Waiter>,
        out: &mut Out,
    ) {
        if !matches!(self.phase, Phase::Joining { .. }) {
            return;
        }
        self.config.nick = nick.to_owned();
        let owner = info.affiliation == Some(Affiliation::Owner);
        if self.config.create && owner {
            let id = ids.id("form");
            let room = self.config.room.clone();
            out.send(wire::configure(&self.config, &id));
            ids.expect(id, Some(room.clone().into()), Waiter::Form(room), |_| false);
            self.phase = Phase::Configuring { until: out.now + ANSWER_DEADLINE };
        } else if self.config.create {
            tracing::warn!(room = %self.config.room, "the room belongs to another account: its password and settings are not ours to set");
            self.joined(payload, out);
        } else if info.has(wire::CREATED) {
            // A room without owner and password is nowhere to stay: our join came before the real one's.
            self.withdraw(out);
            self.refused("item-not-found", "the room does not exist yet".to_owned(), out);
        } else {
            self.joined(payload, out);
        }
    }

    fn joined(&mut self, payload: &[Element], out: &mut Out) {
        self.backoff.reset();
        self.phase = Phase::Joined { heard: out.now, asked: None };
        tracing::debug!(room = %self.config.room, "joined the room");
        out.tell(MucEvent::Joined { room: self.config.room.clone() });
        out.events.extend(self.held.drain(..));
        if std::mem::take(&mut self.outdated) {
            self.update(payload, out);
        }
    }

    fn withdraw(&mut self, out: &mut Out) {
        if let Some(me) = self.me() {
            out.send(wire::leave(&me));
        }
    }

    /// The answer to our form.
    pub(super) fn configured(&mut self, answer: Result<(), StanzaError>, payload: &[Element], out: &mut Out) {
        if !matches!(self.phase, Phase::Configuring { .. }) {
            return;
        }
        match answer {
            Ok(()) => self.joined(payload, out),
            Err(error) => {
                self.withdraw(out);
                self.refused(
                    &error.condition,
                    format!("the room's configuration was refused {}", error.text),
                    out,
                );
            }
        }
    }

    /// The answer to our self-ping (XEP-0410 §3).
    pub(super) fn pinged(&mut self, answer: Result<(), StanzaError>, out: &mut Out) {
        match answer.map_err(|error| error.condition).as_ref().map_err(String::as_str) {
            Ok(()) | Err("service-unavailable" | "feature-not-implemented") => self.heard(out.now),
            // The way to the room is disturbed: nothing is known about the membership.
            Err("remote-server-not-found" | "remote-server-timeout" | "internal-server-error") => {
                self.heard(out.now)
            }
            Err(condition) if self.is_joined() => {
                let reason = format!("the room no longer knows us: {condition}");
                self.lost(Some(reason), out);
            }
            Err(_) => {}
        }
    }

    /// When [`Room::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Offline => None,
            Phase::Joining { until } | Phase::Configuring { until } | Phase::Waiting { until } => Some(until),
            Phase::Joined { asked: Some(asked), .. } => Some(asked + ANSWER_DEADLINE),
            Phase::Joined { heard, asked: None } => Some(heard + SELF_PING),
        }
    }

    pub(super) fn tick(&mut self, payload: &[Element], ids: &mut Tracker<Waiter>, out: &mut Out) {
        if self.deadline().is_none_or(|deadline| deadline > out.now) {
            return;
        }
        match self.phase {
            Phase::Offline => {}
            Phase::Waiting { .. } => self.enter(payload, out),
            Phase::Joining { .. } | Phase::Configuring { .. } => {
                self.withdraw(out);
                let text = format!("the room did not answer within {} s", ANSWER_DEADLINE.as_secs());
                self.refused("remote-server-timeout", text, out);
            }
            Phase::Joined { asked: Some(_), .. } => {
                self.withdraw(out);
                self.lost(Some("the room does not answer".to_owned()), out);
            }
            Phase::Joined { heard, asked: None } => {
                let Some(me) = self.me() else { return };
                let id = ids.id("self");
                out.send(wire::self_ping(&me, &id));
                ids.expect(id, Some(me.into()), Waiter::SelfPing(self.config.room.clone()), |_| false);
                self.phase = Phase::Joined { heard, asked: Some(out.now) };
            }
        }
    }
}
