//! The one task behind the bus: presence into agents, payloads into messages, answers to where they belong.

mod doubts;
mod old;

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{debug, info, warn};
use wps_remote_protocol::message::RefusalReason;
use wps_remote_protocol::native::{self, Peer};
use wps_remote_protocol::{AgentId, ErrorKind, ExecutionError, ExecutionId, FromAgent, Refusal, ToAgent};
use wps_remote_xmpp::muc::{Muc, MucEvent, Occupant, RequestError, RequestToken, SendError};
use wps_remote_xmpp::session::Ending;
use wps_remote_xmpp::{Element, StanzaError, parse_payload, payload};

use super::complaints::Complaints;
use super::legacy::Machine;
use super::trust::Trust;
use super::{BusConfig, Inbound};
use old::Collected;

/// Occupants under a wrong name that are remembered.
const MAX_UNBELIEVED: usize = 1000;
/// Unanswered heartbeats after which an agent counts as gone.
const MISSES: u32 = 2;

struct Present {
    instance: String,
    /// Starts of the program that it has replaced without having left in between.
    former: Vec<String>,
    software: String,
    account: Option<String>,
    /// Grows with each appearance: an answer for an earlier one is worth nothing.
    appearance: u64,
    misses: u32,
    /// It is in the room but does not answer: the engine believes that it has left.
    silent: bool,
    /// Its endings that wait for our `finish`.
    endings: HashMap<ExecutionId, Vec<RequestToken>>,
}

impl Present {
    /// Notes an answer or its absence; whether the agent counts as gone now. Only heartbeats count, which go out one after
    /// the other: of hundreds of requests that were sent at once to a busy agent, many are late for one and the same reason.
    fn counts_as_gone(&mut self, heartbeat: bool, unanswered: bool) -> bool {
        match (heartbeat, unanswered) {
            (_, false) => self.misses = 0,
            (true, true) => self.misses += 1,
            (false, true) => {}
        }
        self.misses >= MISSES
    }
}

struct Answered {
    agent: AgentId,
    appearance: u64,
    message: ToAgent,
    result: Result<Option<Element>, RequestError>,
}

struct Task {
    config: BusConfig,
    muc: Muc,
    driver: mpsc::Sender<Inbound>,
    answers: mpsc::UnboundedSender<Answered>,
    agents: HashMap<AgentId, Present>,
    appearances: u64,
    joined: bool,
    trust: Trust,
    complaints: Complaints,
    /// Occupants that are no agents for us, because their name is another account's.
    unbelieved: HashMap<AgentId, String>,
    /// Agents of the old dialect.
    old: Machine,
    collected: mpsc::UnboundedSender<Collected>,
}

pub(super) async fn run(
    config: BusConfig,
    muc: Muc,
    mut events: mpsc::Receiver<MucEvent>,
    mut outbound: mpsc::UnboundedReceiver<(AgentId, ToAgent)>,
    driver: mpsc::Sender<Inbound>,
) {
    // Unbounded: one entry per request under way, and those are bounded by the engine.
    let (answers, mut answered) = mpsc::unbounded_channel();
    let mut heartbeat = tokio::time::interval(config.heartbeat);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Unbounded: one entry per execution whose files are being taken over.
    let (collected, mut taken) = mpsc::unbounded_channel();
    let mut tick = tokio::time::interval(old::TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let complaints = Complaints::counted(config.telemetry.clone(), "old");
    let old = Machine::new(config.legacy.clone()).complaining(complaints);
    let trust = Trust::new(config.trust.clone());
    let mut task = Task {
        config,
        muc,
        driver,
        answers,
        agents: HashMap::new(),
        appearances: 0,
        joined: false,
        trust,
        complaints: Complaints::default(),
        unbelieved: HashMap::new(),
        old,
        collected,
    };
    loop {
        let told = tokio::select! {
            event = events.recv() => match event {
                Some(event) => task.event(event).await,
                None => return,
            },
            Some((agent, message)) = outbound.recv() => task.send(agent, message).await,
            Some(answer) = answered.recv() => task.answered(answer).await,
            Some(done) = taken.recv() => task.taken_over(done).await,
            _ = heartbeat.tick() => { task.ask_all(); Ok(()) }
            _ = tick.tick() => task.old_tick().await,
        };
        if told.is_err() {
            // The driver has gone: so does the program.
            return;
        }
    }
}

/// The driver has gone.
struct Gone;

impl Task {
    async fn tell(&self, inbound: Inbound) -> Result<(), Gone> {
        self.driver.send(inbound).await.map_err(|_| Gone)
    }

    async fn event(&mut self, event: MucEvent) -> Result<(), Gone> {
        let event = match self.old_room(&event) {
            Some(namespace) => return self.old_event(namespace, event).await,
            None => event,
        };
        match event {
            MucEvent::Online { jid } => debug!(%jid, "logged in to the XMPP server"),
            // Our own shutdown is nothing to warn about.
            MucEvent::Offline { ending: Ending::Requested, .. } => {
                self.disconnected(Ending::Requested.to_string()).await?;
            }
            MucEvent::Offline { ending, retry_in } => {
                warn!(
                    retry_in_ms = retry_in.as_millis() as u64,
                    "not connected to the XMPP server: {}",
                    ending.explain()
                );
                self.disconnected(ending.to_string()).await?;
            }
            MucEvent::Joined { room } => {
                info!(%room, "in the management room, ready for agents");
                self.joined = true;
                self.tell(Inbound::Online).await?;
            }
            MucEvent::JoinRefused { room, condition, text, retry_in } => {
                let remedy = match condition.as_str() {
                    "conflict" => "another orchestrator has our name there: set another [xmpp] nick",
                    "not-authorized" => "check [xmpp] muc_password",
                    _ => "check [xmpp] muc_service and management_room",
                };
                warn!(%room, %condition, retry_in_s = retry_in.as_secs(), "the room does not let us in: {text}; {remedy}");
            }
            MucEvent::Left { room, reason } => {
                warn!(%room, "out of the management room: {}", reason.as_deref().unwrap_or("no reason given"));
                self.disconnected(reason.unwrap_or_else(|| "out of the management room".to_owned())).await?;
            }
            MucEvent::Occupant(occupant) => self.occupant(occupant).await?,
            MucEvent::Gone { nick, reason, .. } => {
                let agent = AgentId::new(nick);
                self.unbelieved.remove(&agent);
                if let Some(present) = self.agents.remove(&agent)
                    && !present.silent
                {
                    let reason = reason.unwrap_or_else(|| "left the room".to_owned());
                    self.tell(Inbound::Left { agent, reason }).await?;
                }
            }
            MucEvent::Message { nick, payloads, private: true, .. } => {
                let agent = AgentId::new(nick);
                for element in &payloads {
                    if let Some((name, json)) = parse_payload(element) {
                        match native::decode_from_agent(&name, &json) {
                            Ok(message) => {
                                if self.believe(&agent, &message).is_ok() {
                                    self.heard(&agent, message).await?;
                                }
                            }
                            Err(error) => warn!(%agent, "a message of an agent is dropped: {error}"),
                        }
                    }
                }
            }
            MucEvent::Message { .. } => {}
            MucEvent::Request { nick, payload, token, .. } => {
                self.asked(AgentId::new(nick), &payload, token).await?
            }
            MucEvent::Bounced { nick, condition, .. } => {
                debug!(agent = %nick, %condition, "a message came back");
            }
        }
        Ok(())
    }

    async fn disconnected(&mut self, reason: String) -> Result<(), Gone> {
        self.agents.clear();
        self.unbelieved.clear();
        self.old.unreachable(None, std::time::Instant::now());
        if std::mem::take(&mut self.joined) {
            self.tell(Inbound::Offline { reason }).await?;
        }
        Ok(())
    }

    /// Presence: an agent appears, starts anew under the same name, or tells its load.
    async fn occupant(&mut self, occupant: Occupant) -> Result<(), Gone> {
        let Some((name, json)) = occupant.payloads.iter().find_map(parse_payload) else { return Ok(()) };
        let agent = AgentId::new(occupant.nick);
        if self.old.knows(&agent) {
            warn!(%agent, "an occupant of the management room is ignored: its name is one of an agent of the old dialect");
            return Ok(());
        }
        let announcement = match native::decode_peer(&name, &json) {
            Ok(Peer::Agent(announcement)) => announcement,
            Ok(Peer::Orchestrator(_)) => return Ok(()),
            Err(error) => {
                warn!(%agent, "an announcement in the management room is ignored: {error}");
                return Ok(());
            }
        };
        if native::negotiate(&announcement.versions).is_none() {
            warn!(%agent, theirs = ?announcement.versions, ours = ?native::VERSIONS,
                "the agent and this orchestrator have no version of the dialect in common; update the older one");
            return Ok(());
        }
        let account = occupant.real_jid.map(|jid| jid.to_bare().to_string());
        if !Trust::may_be(agent.as_str(), account.as_deref()) {
            let account = account.unwrap_or_default();
            let why =
                format!("it appears under the name of an agent of another account; its own is {account}");
            self.doubt("name", &agent, Some(&account), &why);
            if self.unbelieved.len() < MAX_UNBELIEVED {
                self.unbelieved.insert(agent, account);
            }
            return Ok(());
        }
        let known = self.agents.get(&agent).is_some_and(|p| p.instance == announcement.instance && !p.silent);
        if occupant.fresh || !known {
            let former = self.replaced(&agent, &announcement.instance, occupant.fresh, account.as_deref());
            self.appearances += 1;
            let present = Present {
                instance: announcement.instance,
                former,
                software: announcement.software,
                account,
                appearance: self.appearances,
                misses: 0,
                silent: false,
                endings: HashMap::new(),
            };
            let joined = Inbound::Joined {
                agent: agent.clone(),
                software: present.software.clone(),
                account: present.account.clone(),
                cannot: &[],
            };
            self.agents.insert(agent.clone(), present);
            self.tell(joined).await?;
        }
        if let Some(load) = announcement.load {
            self.tell(Inbound::Message { agent, message: FromAgent::Load(load) }).await?;
        }
        Ok(())
    }

    /// A message of an occupant that is known as an agent.
    async fn heard(&mut self, agent: &AgentId, message: FromAgent) -> Result<(), Gone> {
        let Some(present) = self.agents.get_mut(agent) else {
            debug!(%agent, "a message of an occupant that is no agent is ignored");
            return Ok(());
        };
        present.misses = 0;
        if present.silent {
            present.silent = false;
            let joined = Inbound::Joined {
                agent: agent.clone(),
                software: present.software.clone(),
                account: present.account.clone(),
                cannot: &[],
            };
            self.tell(joined).await?;
        }
        self.tell(Inbound::Message { agent: agent.clone(), message }).await
    }

    /// A request of an occupant. Endings are answered by the engine's `finish`, everything else at once.
    async fn asked(&mut self, agent: AgentId, element: &Element, token: RequestToken) -> Result<(), Gone> {
        let decoded = parse_payload(element).map(|(name, json)| native::decode_from_agent(&name, &json));
        let message = match decoded {
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                let account = self.agents.get(&agent).and_then(|present| present.account.clone());
                let sender = format!("{agent} ({})", account.unwrap_or_default());
                let why = format!("its request is refused: {error}");
                self.complaints.about(
                    &self.config.room.to_string(),
                    &sender,
                    std::time::Instant::now(),
                    &why,
                );
                self.muc.respond(token, Err(StanzaError::new("bad-request", error.to_string())));
                return Ok(());
            }
            None => {
                self.muc.respond(token, Err(StanzaError::new("service-unavailable", "")));
                return Ok(());
            }
        };
        if let Err((condition, why)) = self.believe(&agent, &message) {
            self.muc.respond(token, Err(StanzaError::new(condition, why)));
            return Ok(());
        }
        match &message {
            FromAgent::Completed { execution, .. } | FromAgent::Error { execution, .. } => {
                if let Some(present) = self.agents.get_mut(&agent) {
                    present.endings.entry(execution.clone()).or_default().push(token);
                }
            }
            FromAgent::Register(_)
            | FromAgent::Unregister(_)
            | FromAgent::Executions { .. }
            | FromAgent::Started { .. }
            | FromAgent::Progress { .. }
            | FromAgent::Log { .. }
            | FromAgent::CannotExecute { .. }
            | FromAgent::Load(_) => self.muc.respond(token, Ok(None)),
        }
        self.heard(&agent, message).await
    }

    async fn send(&mut self, agent: AgentId, message: ToAgent) -> Result<(), Gone> {
        if self.old.knows(&agent) {
            return self.old_order(&agent, message).await;
        }
        let Some(present) = self.agents.get_mut(&agent) else { return Ok(()) };
        if let ToAgent::Finish { execution } = &message
            && let Some(tokens) = present.endings.remove(execution)
        {
            for token in tokens {
                self.muc.respond(token, Ok(None));
            }
            return Ok(());
        }
        if let Some((execution, condition, why)) = not_taken(&message)
            && let Some(tokens) = present.endings.remove(execution)
        {
            for token in tokens {
                self.muc.respond(token, Err(StanzaError::new(condition, why)));
            }
            return Ok(());
        }
        let appearance = present.appearance;
        match &message {
            ToAgent::Request(request) => self.trust.place(&request.execution, &agent),
            ToAgent::Invite { executions } => {
                for execution in executions {
                    self.trust.place(execution, &agent);
                }
            }
            _ => {}
        }
        match native::encode_to_agent(&message) {
            Ok(encoded) => {
                let element = payload(encoded.name, &encoded.json);
                self.request(agent, appearance, message, element);
                Ok(())
            }
            Err(error) => {
                let result = Err(RequestError::Refused(StanzaError::new("bad-request", error.to_string())));
                self.answered(Answered { agent, appearance, message, result }).await
            }
        }
    }

    fn request(&self, agent: AgentId, appearance: u64, message: ToAgent, element: Element) {
        let (muc, room, answers) = (self.muc.clone(), self.config.room.clone(), self.answers.clone());
        let deadline = self.config.answer_timeout;
        tokio::spawn(async move {
            let result = muc.request(&room, agent.as_str(), element, deadline).await;
            // Without a receiver the program is ending.
            let _ = answers.send(Answered { agent, appearance, message, result });
        });
    }

    fn ask_all(&mut self) {
        let Ok(encoded) = native::encode_to_agent(&ToAgent::GetLoad) else { return };
        for (agent, present) in &self.agents {
            let element = payload(encoded.name, &encoded.json);
            self.request(agent.clone(), present.appearance, ToAgent::GetLoad, element);
        }
    }

    async fn answered(&mut self, answer: Answered) -> Result<(), Gone> {
        let Answered { agent, appearance, message, result } = answer;
        let present = self.agents.get_mut(&agent).filter(|p| p.appearance == appearance);
        let Some(present) = present else { return Ok(()) };
        let unanswered = matches!(result, Err(RequestError::Timeout { .. }));
        if present.counts_as_gone(matches!(message, ToAgent::GetLoad), unanswered) && !present.silent {
            present.silent = true;
            let reason = format!(
                "does not answer (for {} s)",
                self.config.answer_timeout.as_secs() * u64::from(MISSES)
            );
            warn!(%agent, "the agent is in the room but {reason}");
            self.tell(Inbound::Left { agent: agent.clone(), reason }).await?;
        }
        match (message, result) {
            (ToAgent::GetLoad, Ok(Some(element))) => {
                let load =
                    parse_payload(&element).map(|(name, json)| native::decode_from_agent(&name, &json));
                match load {
                    Some(Ok(load @ FromAgent::Load(_))) => self.heard(&agent, load).await?,
                    Some(Err(error)) => warn!(%agent, "the agent's load is not understood: {error}"),
                    _ => debug!(%agent, "the agent's answer holds no load"),
                }
            }
            (ToAgent::Request(request), Err(error)) => {
                let execution = request.execution.clone();
                match refusal(&error) {
                    Some(refusal) => {
                        debug!(%agent, execution.id = %execution, "execute was refused: {}", refusal.text);
                        self.heard(&agent, FromAgent::CannotExecute { execution, refusal }).await?;
                    }
                    // Whether it arrived is unknown. Asking again cannot do harm: the agent knows its executions.
                    None => self.again(agent, ToAgent::Request(request)),
                }
            }
            (ToAgent::Abort { execution }, Err(error)) => match error {
                // The agent's own answer: a room says the same of one that has just gone, and whose program may go on.
                RequestError::Refused(refused)
                    if refused.by_peer && refused.condition == "item-not-found" =>
                {
                    let text = "the agent does not know this execution (any more)".to_owned();
                    let error = ExecutionError { kind: ErrorKind::Lost, text, receipt: None };
                    self.heard(&agent, FromAgent::Error { execution, error }).await?;
                }
                RequestError::Refused(refused) if refused.by_peer => {
                    warn!(%agent, execution.id = %execution, "abort was refused: {refused}")
                }
                _ => self.again(agent, ToAgent::Abort { execution }),
            },
            (ToAgent::Invite { executions }, Err(error)) => match error {
                RequestError::Refused(refused) => {
                    warn!(%agent, "the agent refuses to serve this orchestrator: {refused}");
                }
                _ => self.again(agent, ToAgent::Invite { executions }),
            },
            (ToAgent::Finish { execution }, Err(error)) => {
                debug!(%agent, execution.id = %execution, "finish was not answered: {error}; the agent will ask again");
            }
            (_, _) => {}
        }
        Ok(())
    }

    /// The same message once more in a while, if the agent is still there then.
    fn again(&self, agent: AgentId, message: ToAgent) {
        let Some(present) = self.agents.get(&agent) else { return };
        let appearance = present.appearance;
        let Ok(encoded) = native::encode_to_agent(&message) else { return };
        let (muc, room, answers) = (self.muc.clone(), self.config.room.clone(), self.answers.clone());
        let deadline = self.config.answer_timeout;
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let element = payload(encoded.name, &encoded.json);
            let result = muc.request(&room, agent.as_str(), element, deadline).await;
            let _ = answers.send(Answered { agent, appearance, message, result });
        });
    }
}

/// How an ending is answered that is not stored here.
fn not_taken(message: &ToAgent) -> Option<(&ExecutionId, &'static str, &'static str)> {
    match message {
        ToAgent::Unknown { execution } => Some((execution, "item-not-found", "there is no such job here")),
        ToAgent::Elsewhere { execution } => {
            Some((execution, "conflict", "another orchestrator has this job"))
        }
        _ => None,
    }
}

/// What an unsuccessful `execute` means, or `None` if the agent may have taken it.
fn refusal(error: &RequestError) -> Option<Refusal> {
    match error {
        RequestError::Refused(refused) if refused.by_peer => Some(Refusal {
            reason: native::refusal_reason(&refused.condition),
            text: if refused.text.is_empty() { refused.condition.clone() } else { refused.text.clone() },
        }),
        // The room knows nobody of that name: it has not arrived. Of other bounces nobody knows that.
        RequestError::Refused(refused) => (refused.condition == "item-not-found")
            .then(|| Refusal { reason: RefusalReason::Capacity, text: refused.to_string() }),
        RequestError::NotSent(SendError::TooBig { .. } | SendError::Unsendable(_)) => {
            Some(Refusal { reason: RefusalReason::Undeliverable, text: error.to_string() })
        }
        RequestError::NotSent(_) | RequestError::NotJoined { .. } => {
            Some(Refusal { reason: RefusalReason::Capacity, text: error.to_string() })
        }
        RequestError::Timeout { .. } | RequestError::ConnectionLost => None,
    }
}

#[cfg(test)]
mod tests;
