//! The agent's XMPP session: who is in the management room and whom of them we obey, stanzas into what the engine
//! understands and back. Knows the native dialect, and hands what concerns a GeoServer to the sessions that are kept for its
//! plugin; decides nothing about executions.

mod geoserver;
mod outgoing;
mod probe;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{debug, info, warn};
use wps_remote_protocol::native::{self, Announcement, NativeError};
use wps_remote_protocol::{ExecutionId, FromAgent, Load, ProcessId, Refusal, Request, ToAgent};
use wps_remote_xmpp::muc::{
    self, Affiliation, Muc, MucConfig, MucEvent, Occupant, RequestToken, Role, RoomConfig,
};
use wps_remote_xmpp::session::SessionConfig;
use wps_remote_xmpp::{BareJid, Element, StanzaError, parse_payload, payload};

use self::geoserver::Legacy;
pub use self::geoserver::LegacyEvent;
use self::outgoing::{Lines, Outgoing};
use crate::descriptor::model::ServiceDescriptor;
use crate::engine::Peer;
use crate::legacy::{self, Asked, Machine, Offer};

/// Whom we obey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    /// Occupants that are moderators of the room, or admins or owners.
    Moderators,
    /// These accounts; where the room hides accounts, these names.
    Listed(Vec<String>),
    /// Everybody who may speak.
    Anyone,
}

impl Trusted {
    fn admits(&self, occupant: &Occupant) -> bool {
        match self {
            Self::Moderators => {
                occupant.role == Role::Moderator
                    || matches!(occupant.affiliation, Affiliation::Owner | Affiliation::Admin)
            }
            Self::Listed(names) => match &occupant.real_jid {
                Some(jid) => names.iter().any(|name| *name == jid.to_bare().to_string()),
                None => names.contains(&occupant.nick),
            },
            Self::Anyone => matches!(occupant.role, Role::Moderator | Role::Participant),
        }
    }
}

impl fmt::Display for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moderators => f.write_str("moderators"),
            Self::Listed(names) => f.write_str(&names.join(", ")),
            Self::Anyone => f.write_str("*"),
        }
    }
}

/// Who we are on the bus.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// Our account and the way to the server.
    pub session: SessionConfig,
    /// The management room.
    pub room: BareJid,
    /// Its password.
    pub room_password: Option<String>,
    /// Our name in it.
    pub nick: String,
    /// Whom we obey.
    pub trusted: Trusted,
    /// Changes with each start of the program.
    pub instance: String,
    /// The shared folder, for the doctor of an orchestrator.
    pub shared: Option<PathBuf>,
    /// How GeoServer's plugin is served, if it is.
    pub legacy: Option<legacy::Settings>,
}

/// What a request is answered with.
#[derive(Debug)]
pub enum Token {
    /// As the stanza that it is.
    Native(RequestToken),
    /// In words, if at all.
    Legacy(Option<Asked>),
}

/// What the session tells the driver.
#[derive(Debug)]
pub enum Inbound {
    /// An orchestrator wants to know all.
    Invited {
        /// Which one.
        from: Peer,
        /// The executions that it claims.
        executions: Vec<ExecutionId>,
    },
    /// An orchestrator has left.
    PeerLeft(Peer),
    /// Nobody can be reached.
    Offline,
    /// A request. It is answered with [`Session::taken`] or [`Session::refuse`].
    Request {
        /// Who asks.
        from: Peer,
        /// For what.
        request: Box<Request>,
        /// To answer with.
        token: Token,
    },
    /// An execution is to end.
    Abort {
        /// Which one.
        execution: ExecutionId,
        /// To answer with.
        token: Token,
    },
    /// An ending is stored.
    Finish {
        /// Which one.
        execution: ExecutionId,
        /// To answer with.
        token: Token,
    },
    /// An orchestrator has no job for an execution.
    Disowned {
        /// Which one.
        by: Peer,
        /// For which execution.
        execution: ExecutionId,
        /// To answer with.
        token: Token,
    },
    /// An orchestrator says that another one has the job of an execution.
    Elsewhere {
        /// Which one says so.
        by: Peer,
        /// Of which execution.
        execution: ExecutionId,
        /// To answer with.
        token: Token,
    },
    /// The load is asked for.
    GetLoad {
        /// To answer with.
        token: Token,
    },
}

/// An ending was answered.
#[derive(Debug)]
pub struct Delivered {
    /// Which one.
    pub execution: ExecutionId,
    /// Who answered.
    pub by: Peer,
    /// What was answered.
    pub verdict: Verdict,
}

/// What an orchestrator says of an ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is stored.
    Stored,
    /// There is no such job.
    Unknown,
    /// Another orchestrator has the job.
    Elsewhere,
}

struct Present {
    trusted: bool,
    /// What trust depends on; without the payloads.
    occupant: Occupant,
    is_orchestrator: bool,
    /// What is said to it in order; made when there is something to say.
    lines: Option<Lines>,
}

/// The session.
pub struct Session {
    settings: SessionSettings,
    muc: Muc,
    occupants: HashMap<String, Present>,
    /// Refused senders that were logged.
    warned: HashSet<String>,
    waiting: HashMap<ExecutionId, Vec<RequestToken>>,
    outgoing: Outgoing,
    /// What GeoServer's plugin sees of us.
    legacy: Option<Legacy>,
    /// What it said and the driver has not heard yet.
    heard: VecDeque<Inbound>,
}

/// What the driver listens to.
pub struct Events {
    /// Of the management room, for [`Session::understand`].
    pub bus: mpsc::Receiver<MucEvent>,
    /// Of the sessions for GeoServer, for [`Session::understand_legacy`].
    pub legacy: mpsc::Receiver<LegacyEvent>,
    /// Answered endings.
    pub delivered: mpsc::Receiver<Delivered>,
}

/// Logs in and joins the management room; both are repeated for ever.
pub fn start(settings: SessionSettings, load: Load) -> Result<(Session, Events), NativeError> {
    let presence = presence(&settings, load)?;
    let (muc, events) = muc::start(MucConfig {
        session: settings.session.clone(),
        rooms: vec![RoomConfig {
            room: settings.room.clone(),
            nick: settings.nick.clone(),
            password: settings.room_password.clone(),
            create: false,
        }],
        presence: vec![presence],
    });
    let (outgoing, delivered) = Outgoing::new(muc.clone(), settings.room.clone());
    let (legacy, legacy_events) = match settings.legacy.clone() {
        Some(wanted) => {
            let mark = mark(&settings, None)?;
            let service = wanted.muc_service.clone();
            let (legacy, events) = Legacy::new(&settings, Machine::new(wanted), service, mark);
            (Some(legacy), events)
        }
        // Its sender is gone: it never has anything.
        None => (None, mpsc::channel(1).1),
    };
    let session = Session {
        settings,
        muc,
        occupants: HashMap::new(),
        warned: HashSet::new(),
        waiting: HashMap::new(),
        outgoing,
        legacy,
        heard: VecDeque::new(),
    };
    Ok((session, Events { bus: events, legacy: legacy_events, delivered }))
}

fn presence(settings: &SessionSettings, load: Load) -> Result<Element, NativeError> {
    mark(settings, Some(load))
}

fn mark(settings: &SessionSettings, load: Option<Load>) -> Result<Element, NativeError> {
    let announcement = Announcement {
        versions: native::VERSIONS.to_vec(),
        software: format!("wps-remote-agent {}", env!("CARGO_PKG_VERSION")),
        instance: settings.instance.clone(),
        load,
    };
    let written = native::encode_peer(&native::Peer::Agent(announcement))?;
    Ok(payload(written.name, &written.json))
}

impl Session {
    /// What an event means for the agent, if anything.
    pub fn understand(&mut self, event: MucEvent) -> Option<Inbound> {
        match event {
            MucEvent::Online { jid } => {
                debug!(%jid, "logged in to the XMPP server");
                None
            }
            MucEvent::Offline { ending, retry_in } => {
                let retry_in_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
                warn!(retry_in_ms, "not connected to the XMPP server: {}", ending.explain());
                self.nobody_there()
            }
            MucEvent::Joined { room } => {
                info!(%room, nick = %self.settings.nick, "in the management room, ready for orchestrators");
                None
            }
            MucEvent::JoinRefused { room, condition, text, retry_in } => {
                let retry_in_s = retry_in.as_secs();
                if condition == "item-not-found" {
                    info!(%room, retry_in_s, "waiting for the management room: no orchestrator has opened it yet");
                } else {
                    let remedy = match condition.as_str() {
                        "conflict" => {
                            "another agent has our name: give each its own account, or its own agent_name"
                        }
                        "not-authorized" => "check mucServicePassword in remote.config",
                        _ => "check mucService and management_room in remote.config",
                    };
                    warn!(%room, %condition, retry_in_s, "the room does not let us in: {text}; {remedy}");
                }
                None
            }
            MucEvent::Left { room, reason } => {
                warn!(%room, "out of the management room: {}", reason.as_deref().unwrap_or("no reason given"));
                self.nobody_there()
            }
            MucEvent::Occupant(occupant) => {
                self.occupant(occupant);
                None
            }
            MucEvent::Gone { nick, .. } => {
                let present = self.occupants.remove(&nick)?;
                present.is_orchestrator.then(|| {
                    info!(orchestrator = %nick, "an orchestrator has left");
                    Inbound::PeerLeft(Peer(nick))
                })
            }
            // Orders are requests, because they must be answered; what an orchestrator says otherwise means nothing.
            MucEvent::Message { .. } => None,
            MucEvent::Request { nick, payload, token, .. } => self.request(nick, &payload, token),
            MucEvent::Bounced { nick, condition, payload, .. } => {
                let payload = payload.unwrap_or_default();
                debug!(orchestrator = %nick, %condition, %payload, "a message came back");
                None
            }
        }
    }

    fn nobody_there(&mut self) -> Option<Inbound> {
        self.occupants.clear();
        self.outgoing.forget_all();
        // Answers would reach nobody: a request that is still open is asked again.
        self.waiting.clear();
        Some(Inbound::Offline)
    }

    fn occupant(&mut self, occupant: Occupant) {
        let trusted = self.settings.trusted.admits(&occupant);
        let peer = occupant.payloads.iter().find_map(parse_payload);
        let is_orchestrator = match peer.map(|(name, json)| native::decode_peer(&name, &json)) {
            Some(Ok(native::Peer::Orchestrator(announcement))) => {
                if native::negotiate(&announcement.versions).is_none() {
                    warn!(orchestrator = %occupant.nick, theirs = ?announcement.versions, ours = ?native::VERSIONS,
                        "an orchestrator has no version of the dialect in common with this agent; update the older one");
                }
                true
            }
            Some(Ok(native::Peer::Agent(_)) | Err(_)) | None => false,
        };
        if is_orchestrator && occupant.fresh {
            info!(orchestrator = %occupant.nick, trusted, "an orchestrator is there");
        }
        let lines = self.occupants.remove(&occupant.nick).filter(|_| !occupant.fresh).and_then(|p| p.lines);
        let nick = occupant.nick.clone();
        let occupant = Occupant { payloads: Vec::new(), ..occupant };
        self.occupants.insert(nick, Present { trusted, occupant, is_orchestrator, lines });
    }

    fn request(&mut self, nick: String, element: &Element, token: RequestToken) -> Option<Inbound> {
        let refuse = |condition: &str, why: String| Err(StanzaError::new(condition, why));
        let Some((name, json)) = parse_payload(element) else {
            self.muc.respond(token, refuse("service-unavailable", String::new()));
            return None;
        };
        if !self.occupants.get(&nick).is_some_and(|present| present.trusted) {
            if self.warned.len() < 1000 && self.warned.insert(nick.clone()) {
                warn!(sender = %nick, order = %name, trusted = %self.settings.trusted,
                    "an order was refused: to obey this sender, add its account to `trusted_orchestrators` in remote.config");
            }
            self.muc
                .respond(token, refuse("forbidden", "you are no trusted orchestrator of this agent".into()));
            return None;
        }
        if name == native::probe::PROBE {
            self.probe(&json, token);
            return None;
        }
        let message = match native::decode_to_agent(&name, &json) {
            Ok(message) => message,
            Err(error) => {
                warn!(orchestrator = %nick, "an order is not understood: {error}");
                self.muc.respond(token, refuse("bad-request", error.to_string()));
                return None;
            }
        };
        Some(match message {
            ToAgent::Invite { executions } => {
                self.muc.respond(token, Ok(None));
                if let Some(present) = self.occupants.get_mut(&nick) {
                    present.is_orchestrator = true;
                }
                Inbound::Invited { from: Peer(nick), executions }
            }
            ToAgent::Request(request) => {
                Inbound::Request { from: Peer(nick), request, token: Token::Native(token) }
            }
            ToAgent::Abort { execution } => Inbound::Abort { execution, token: Token::Native(token) },
            ToAgent::Finish { execution } => Inbound::Finish { execution, token: Token::Native(token) },
            ToAgent::Unknown { execution } => {
                Inbound::Disowned { by: Peer(nick), execution, token: Token::Native(token) }
            }
            ToAgent::Elsewhere { execution } => {
                Inbound::Elsewhere { by: Peer(nick), execution, token: Token::Native(token) }
            }
            ToAgent::GetLoad => Inbound::GetLoad { token: Token::Native(token) },
        })
    }

    /// From now on these are obeyed.
    pub fn trust(&mut self, trusted: Trusted) {
        for present in self.occupants.values_mut() {
            present.trusted = trusted.admits(&present.occupant);
        }
        self.warned.clear();
        if let Some(legacy) = &mut self.legacy {
            legacy.trust(trusted.clone());
        }
        self.settings.trusted = trusted;
    }

    /// Our name in the room.
    pub fn nick(&self) -> &str {
        &self.settings.nick
    }

    /// Answers the doctor, aside: a shared folder that hangs must hang nothing else.
    fn probe(&self, json: &str, token: RequestToken) {
        let question = match native::probe::decode_probe(json) {
            Ok(question) => question,
            Err(error) => {
                return self.muc.respond(token, Err(StanzaError::new("bad-request", error.to_string())));
            }
        };
        let (muc, shared) = (self.muc.clone(), self.settings.shared.clone());
        tokio::task::spawn_blocking(move || {
            let probed = probe::look(shared.as_deref(), &question);
            let answer = native::probe::encode_probed(&probed)
                .map(|written| Some(payload(written.name, &written.json)))
                .map_err(|error| StanzaError::new("internal-server-error", error.to_string()));
            muc.respond(token, answer);
        });
    }

    /// Tells an orchestrator something.
    pub fn send(&mut self, to: &Peer, message: FromAgent) {
        if to.is_legacy() {
            return self.with_legacy(|legacy| legacy.report(message));
        }
        match self.occupants.get_mut(&to.0) {
            Some(present) => self.outgoing.send(to, &mut present.lines, message),
            None => debug!(orchestrator = %to, "not sent: the orchestrator is not there"),
        }
    }

    /// Keeps a request open until the execution is safe on disk.
    pub fn keep(&mut self, execution: ExecutionId, token: Token) {
        match token {
            Token::Native(token) => self.waiting.entry(execution).or_default().push(token),
            Token::Legacy(_) => self.with_legacy(|legacy| legacy.accepted(&execution)),
        }
    }

    /// Answers all open requests for an execution.
    pub fn taken(&mut self, execution: &ExecutionId) {
        for token in self.waiting.remove(execution).unwrap_or_default() {
            self.muc.respond(token, Ok(None));
        }
    }

    /// Answers all open requests for an execution: not taken, and why.
    pub fn refuse_all(&mut self, execution: &ExecutionId, refusal: &Refusal) {
        for token in self.waiting.remove(execution).unwrap_or_default() {
            self.refuse(Token::Native(token), refusal);
        }
        self.with_legacy(|legacy| legacy.refused_later(execution, refusal));
    }

    /// Answers: done, or taken.
    pub fn confirm(&mut self, token: Token) {
        match token {
            Token::Native(token) => self.muc.respond(token, Ok(None)),
            Token::Legacy(Some(asked)) => self.with_legacy(|legacy| legacy.known(&asked)),
            Token::Legacy(None) => {}
        }
    }

    /// Answers: not taken, and why.
    pub fn refuse(&mut self, token: Token, refusal: &Refusal) {
        match token {
            Token::Native(token) => {
                let condition = native::refusal_condition(refusal.reason);
                self.muc.respond(token, Err(StanzaError::new(condition, refusal.text.clone())));
            }
            Token::Legacy(Some(asked)) => self.with_legacy(|legacy| legacy.refused(&asked, refusal)),
            Token::Legacy(None) => {}
        }
    }

    /// Answers: no such execution. The dialect of GeoServer has no words for that.
    pub fn unknown(&self, token: Token) {
        if let Token::Native(token) = token {
            let error = StanzaError::new("item-not-found", "there is no such execution here");
            self.muc.respond(token, Err(error));
        }
    }

    /// Answers a question for the load.
    pub fn tell_load(&mut self, token: Token, load: Load) {
        match token {
            Token::Native(token) => {
                let answer = native::encode_from_agent(&FromAgent::Load(load))
                    .map(|written| Some(payload(written.name, &written.json)))
                    .map_err(|error| StanzaError::new("internal-server-error", error.to_string()));
                self.muc.respond(token, answer);
            }
            Token::Legacy(Some(asked)) => self.with_legacy(|legacy| legacy.tell_load(&asked, &load)),
            Token::Legacy(None) => {}
        }
    }

    fn with_legacy(&mut self, act: impl FnOnce(&mut Legacy)) {
        if let Some(legacy) = &mut self.legacy {
            act(legacy);
            legacy.settle(&mut self.heard);
        }
    }

    /// What an event of a session for GeoServer means; [`Session::heard`] gives it.
    pub fn understand_legacy(&mut self, event: LegacyEvent) {
        self.with_legacy(|legacy| legacy.event(event));
    }

    /// What a GeoServer wants and was not yet heard.
    pub fn heard(&mut self) -> Option<Inbound> {
        self.heard.pop_front()
    }

    /// Takes note of the time for what is said to GeoServers; gives how long until this wants to be called again.
    pub fn tick(&mut self) -> Option<Duration> {
        let mut next = None;
        self.with_legacy(|legacy| next = legacy.tick());
        next
    }

    /// What is offered is now this.
    pub fn offer(&mut self, descriptors: &[Arc<ServiceDescriptor>]) {
        let Some(names) = self.settings.legacy.as_ref().map(|legacy| legacy.result_names) else { return };
        let offers = descriptors.iter().map(|descriptor| Offer::new(descriptor, names)).collect();
        self.with_legacy(|legacy| legacy.offer(offers));
    }

    /// An execution of a former agent is here again.
    pub fn adopt(&mut self, execution: &ExecutionId, process: &ProcessId, peer: &Peer, base_url: &str) {
        if peer.is_legacy() {
            let (execution, process) = (execution.clone(), process.clone());
            self.with_legacy(|legacy| legacy.adopt(execution, process, peer.clone(), base_url.to_owned()));
        }
    }

    /// An execution is of no interest any more.
    pub fn forget(&mut self, execution: &ExecutionId) {
        self.with_legacy(|legacy| legacy.forget(execution));
    }

    /// Announces the load to everybody.
    pub fn announce(&self, load: Load) {
        let written = presence(&self.settings, load).map_err(|error| error.to_string());
        let sent = written
            .and_then(|element| self.muc.set_presence(vec![element]).map_err(|error| error.to_string()));
        if let Err(error) = sent {
            warn!("the presence is not refreshed: {error}");
        }
    }

    /// Leaves the room and closes the connection in order.
    pub async fn close(self) {
        drop(self.outgoing);
        if let Some(legacy) = self.legacy {
            legacy.close().await;
        }
        self.muc.leave(&self.settings.room);
        self.muc.close().await;
    }
}
