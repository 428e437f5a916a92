//! The sessions that GeoServer's plugin wants to see: opens and closes them as the machine says, brings their events to it
//! and its bodies to the rooms. Decides nothing.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use wps_remote_protocol::{ExecutionId, FromAgent, Load, ProcessId, Refusal};
use wps_remote_xmpp::muc::{self, Muc, MucConfig, MucEvent, RoomConfig, SendError};
use wps_remote_xmpp::session::{Ending, SessionConfig};
use wps_remote_xmpp::{BareJid, Element, Jid};

use super::{Inbound, SessionSettings, Token, Trusted};
use crate::engine::Peer;
use crate::legacy::{Asked, Effect, Heard, Machine, Offer, Standing, Who};

/// Events of all these sessions together that may wait for the driver; each session has a backlog of its own behind that.
const EVENTS: usize = 256;

/// An event of one of the sessions.
#[derive(Debug)]
pub struct LegacyEvent {
    who: Who,
    /// Which opening of it: events of a closed session mean nothing.
    opening: u64,
    event: MucEvent,
}

/// A session with its room.
struct Open {
    muc: Muc,
    room: BareJid,
    opening: u64,
    /// That its room is not there was said.
    waits: bool,
}

/// All of them.
pub(super) struct Legacy {
    machine: Machine,
    /// The account, its password and the way to the server.
    session: SessionConfig,
    muc_service: String,
    room_password: Option<String>,
    /// What says in our presence who we are, for orchestrators of ours in the same room.
    mark: Element,
    trusted: Trusted,
    open: HashMap<Who, Open>,
    openings: u64,
    events: mpsc::Sender<LegacyEvent>,
    begun: Instant,
}

impl Legacy {
    pub(super) fn new(
        settings: &SessionSettings,
        machine: Machine,
        muc_service: String,
        mark: Element,
    ) -> (Self, mpsc::Receiver<LegacyEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        let legacy = Self {
            machine,
            session: settings.session.clone(),
            muc_service,
            room_password: settings.room_password.clone(),
            mark,
            trusted: settings.trusted.clone(),
            open: HashMap::new(),
            openings: 0,
            events,
            begun: Instant::now(),
        };
        (legacy, receiver)
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Brings an event to the machine.
    pub(super) fn event(&mut self, LegacyEvent { who, opening, event }: LegacyEvent) {
        let now = self.now();
        let Some(open) = self.open.get_mut(&who).filter(|open| open.opening == opening) else { return };
        match event {
            MucEvent::Online { .. } => {}
            // The session in the management room tells of a server that is away; this concerns only this one.
            MucEvent::Offline { ending: ending @ Ending::Conflict { .. }, .. } => {
                warn!(session = ?who, "not connected: {}; or is a second agent with this agent_name running?", ending.explain());
                self.machine.out(&who);
            }
            MucEvent::Offline { ending, .. } => {
                debug!(session = ?who, "not connected: {ending}");
                self.machine.out(&who);
            }
            MucEvent::Joined { room } => {
                if let Who::Service(process) = &who {
                    info!(%room, process.id = %process, "in the room of the namespace, ready for GeoServer");
                }
                open.waits = false;
                self.machine.joined(&who, now);
            }
            MucEvent::JoinRefused { room, condition, text, retry_in } => {
                if std::mem::replace(&mut open.waits, true) {
                    debug!(%room, %condition, session = ?who, "the room does not let us in: {text}");
                } else if condition == "item-not-found" {
                    info!(%room, "waiting for the room: no GeoServer has opened it yet");
                } else {
                    let remedy = match condition.as_str() {
                        "conflict" => "another agent has our name: give each its own agent_name",
                        "not-authorized" => "check mucServicePassword in remote.config",
                        _ => "check mucService in remote.config, and the namespace in the descriptor",
                    };
                    warn!(%room, %condition, retry_in_s = retry_in.as_secs(), "the room does not let us in: {text}; {remedy}");
                }
            }
            MucEvent::Left { room, reason } => {
                warn!(%room, session = ?who, "out of the room: {}", reason.as_deref().unwrap_or("no reason given"));
                self.machine.out(&who);
            }
            MucEvent::Occupant(occupant) => {
                let standing = Standing { trusted: self.trusted.admits(&occupant) };
                self.machine.occupant(&who, &occupant.nick, standing, now);
            }
            MucEvent::Gone { nick, .. } => self.machine.gone(&who, &nick),
            MucEvent::Message { nick, body: Some(body), private: true, .. } => {
                self.machine.message(&who, &nick, &body, now);
            }
            MucEvent::Bounced { nick, condition, .. } => {
                debug!(session = ?who, %nick, %condition, "a message came back");
                self.machine.bounced(&who);
            }
            // A request that nobody answers is refused by itself.
            MucEvent::Message { .. } | MucEvent::Request { .. } => {}
        }
    }

    /// Does what the machine wants; gives what the driver shall hear.
    pub(super) fn settle(&mut self, heard: &mut VecDeque<Inbound>) {
        loop {
            let effects = self.machine.take();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Open { who, namespace, resource, nick } => {
                        self.open(who, &namespace, &resource, nick);
                    }
                    Effect::Close(who) => {
                        if let Some(open) = self.open.remove(&who) {
                            tokio::spawn(open.muc.close());
                        }
                    }
                    Effect::Say { who, to, body } => self.say(&who, &to, &body),
                    Effect::Tell(told) => heard.push_back(inbound(told)),
                    Effect::Warn(text) => warn!("{text}"),
                }
            }
        }
    }

    fn open(&mut self, who: Who, namespace: &str, resource: &str, nick: String) {
        let account = self.session.jid.to_bare();
        let room = format!("{namespace}@{}", self.muc_service);
        let (Ok(jid), Ok(room)) = (account.with_resource_str(resource), room.parse::<BareJid>()) else {
            warn!(session = ?who, "GeoServer cannot be served: `{account}/{resource}` or the room `{room}` is no XMPP address");
            return;
        };
        let (muc, mut events) = muc::start(MucConfig {
            session: SessionConfig { jid: Jid::from(jid), ..self.session.clone() },
            rooms: vec![RoomConfig {
                room: room.clone(),
                nick,
                password: self.room_password.clone(),
                create: false,
            }],
            presence: vec![self.mark.clone()],
        });
        self.openings += 1;
        let opening = self.openings;
        let (to, of) = (self.events.clone(), who.clone());
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                // The driver has ended: so does the session.
                if to.send(LegacyEvent { who: of.clone(), opening, event }).await.is_err() {
                    return;
                }
            }
        });
        self.open.insert(who, Open { muc, room, opening, waits: false });
    }

    fn say(&mut self, who: &Who, to: &str, body: &str) {
        let Some(open) = self.open.get(who) else { return };
        match open.muc.send_body(&open.room, to, body) {
            Ok(_) => {}
            Err(error @ (SendError::TooBig { .. } | SendError::Unsendable(_))) => {
                debug!(session = ?who, "not said: {error}");
                self.machine.unsayable(who, body, &error.to_string(), self.begun.elapsed());
            }
            Err(error) => {
                debug!(session = ?who, "not said: {error}");
                self.machine.bounced(who);
            }
        }
    }

    pub(super) fn offer(&mut self, offers: Vec<Offer>) {
        self.machine.offer(offers);
    }

    pub(super) fn adopt(&mut self, execution: ExecutionId, process: ProcessId, peer: Peer, base_url: String) {
        self.machine.adopt(execution, process, peer, base_url);
    }

    pub(super) fn report(&mut self, message: FromAgent) {
        self.machine.report(message, self.begun.elapsed());
    }

    pub(super) fn forget(&mut self, execution: &ExecutionId) {
        self.machine.forget(execution);
    }

    pub(super) fn accepted(&mut self, execution: &ExecutionId) {
        self.machine.accepted(execution);
    }

    pub(super) fn known(&mut self, asked: &Asked) {
        self.machine.known(asked);
    }

    pub(super) fn refused(&mut self, asked: &Asked, refusal: &Refusal) {
        self.machine.refused(asked, refusal);
    }

    pub(super) fn refused_later(&mut self, execution: &ExecutionId, refusal: &Refusal) {
        self.machine.refused_later(execution, refusal);
    }

    pub(super) fn tell_load(&mut self, asked: &Asked, load: &Load) {
        self.machine.tell_load(asked, load);
    }

    /// Who may give orders has changed. It holds for each occupant from its next presence on, at the latest when it comes.
    pub(super) fn trust(&mut self, trusted: Trusted) {
        self.trusted = trusted;
        self.machine.trust_changed();
    }

    /// Takes note of the time; gives how long until this wants to be called again.
    pub(super) fn tick(&mut self) -> Option<Duration> {
        let now = self.now();
        self.machine.tick(now).map(|at| at.saturating_sub(now))
    }

    /// Leaves all rooms in order.
    pub(super) async fn close(self) {
        let closing: Vec<_> = self.open.into_values().map(|open| tokio::spawn(open.muc.close())).collect();
        for session in closing {
            // A session that panicked is closed as well.
            let _ = session.await;
        }
    }
}

fn inbound(heard: Heard) -> Inbound {
    match heard {
        Heard::Invited(from) => Inbound::Invited { from, executions: Vec::new() },
        Heard::Left(peer) => Inbound::PeerLeft(peer),
        Heard::Request(from, request, asked) => {
            Inbound::Request { from, request, token: Token::Legacy(Some(asked)) }
        }
        Heard::Abort(execution) => Inbound::Abort { execution, token: Token::Legacy(None) },
        Heard::Finish(execution) => Inbound::Finish { execution, token: Token::Legacy(None) },
        Heard::GetLoad(asked) => Inbound::GetLoad { token: Token::Legacy(Some(asked)) },
    }
}
