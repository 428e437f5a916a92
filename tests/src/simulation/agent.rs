//! An agent's program: the real engine and what its driver and session do with it (`agent::driver`, `agent::session`): requests
//! are answered when the execution is on disk, endings go out one at a time, what is adopted at the start is followed again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wps_remote_agent::engine::{
    Action, Actions, Answer as Taken, Engine, Event, Peer as Orchestrator, Settings,
};
use wps_remote_protocol::{ExecutionId, FromAgent, ProcessId, Request, ToAgent};

use super::host::ExecutionEvent;
use super::network::{Answer, Body, ConnId, Peer, Stanza};
use super::world::{ANSWER_MS, CAPACITY, Happening, MAX_RUNNING, RETENTION_MS, Sabotage, World, offered};

/// The program.
pub struct Agent {
    /// Which start of it.
    pub incarnation: u64,
    /// Its connection.
    pub conn: Option<ConnId>,
    /// The real engine.
    pub engine: Engine,
    /// What is about to be put down.
    pub starting: BTreeMap<ExecutionId, (ProcessId, Orchestrator, f64)>,
    /// Whose end was asked for.
    pub aborted: BTreeSet<ExecutionId>,
    begun: u64,
    present: BTreeSet<usize>,
    waiting: BTreeMap<ExecutionId, Vec<(ConnId, usize, u64)>>,
    endings: BTreeSet<(usize, ExecutionId)>,
    asked: BTreeMap<u64, (usize, u32, FromAgent)>,
    announce: bool,
    wake: u64,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

/// What happens to an agent's program later.
#[derive(Debug, Clone)]
pub enum AgentEvent {
    /// In its half of an execution.
    Execution(ExecutionId, ExecutionEvent),
    /// A tick is due, unless a later one was asked for.
    Wake(u64),
    /// No answer has come in time.
    NoAnswer(u64),
    /// An answer has been read.
    Answered(u64, Answer),
    /// The load is told to the room.
    Announce,
}

/// The name of an orchestrator in the room.
fn orchestrator(node: usize) -> Orchestrator {
    Orchestrator(format!("n{node}"))
}

fn node_number(peer: &Orchestrator) -> usize {
    peer.0.trim_start_matches('n').parse().unwrap_or(usize::MAX)
}

impl World {
    pub(super) fn agent_later(&mut self, host: usize, wait: u64, event: AgentEvent) {
        if let Some(agent) = &self.hosts[host].agent {
            let incarnation = agent.incarnation;
            self.after(wait, Happening::Agent { host, incarnation, event: Box::new(event) });
        }
    }

    /// Starts the agent: takes over what former ones have left, then logs in.
    pub(super) fn start_agent(&mut self, host: usize) {
        let now = self.now;
        let place = &mut self.hosts[host];
        if place.agent.is_some() || !place.up {
            return;
        }
        let capacity = if self.sabotage == Sabotage::Overload { 1_000.0 } else { CAPACITY };
        let max_running = (self.sabotage != Sabotage::Overload).then_some(MAX_RUNNING);
        let mut engine = Engine::new(Settings {
            capacity,
            max_running,
            load_threshold: 100.0,
            cores: 2,
            labels: Vec::new(),
            keep_endings: Duration::from_secs(3600),
        });
        let mut out = Actions::new();
        engine.drain(place.draining, &mut out);
        place.disk.retain(|_, folder| folder.finished.is_none_or(|at| now - at < RETENTION_MS));
        let mut open = Vec::new();
        for (id, folder) in &place.disk {
            let (id, process, peer) = (id.clone(), folder.process.clone(), folder.originator.clone());
            match &folder.ending {
                _ if folder.finished.is_some() => engine.adopt_finished(id),
                Some(ending) => engine.adopt_ended(id, process, peer, ending.clone(), Duration::ZERO),
                None => {
                    engine.adopt(id.clone(), process, peer, folder.weight);
                    open.push(id);
                }
            }
        }
        engine.offer(if place.offering { offered() } else { vec![] }, &mut out);
        let incarnation = self.net.number();
        place.agent = Some(Agent {
            incarnation,
            conn: None,
            engine,
            starting: BTreeMap::new(),
            aborted: BTreeSet::new(),
            begun: now,
            present: BTreeSet::new(),
            waiting: BTreeMap::new(),
            endings: BTreeSet::new(),
            asked: BTreeMap::new(),
            announce: false,
            wake: 0,
        });
        for execution in open {
            self.resume(host, &execution);
        }
        let wait = self.random.between(1, 300);
        self.after(wait, Happening::Connect { peer: Peer::Agent(host), incarnation });
        self.agent_later(host, 1_000, AgentEvent::Announce);
        self.agent_performs(host, out);
    }

    /// Kills it; `silent` = its host can say nothing either.
    pub(super) fn crash_agent(&mut self, host: usize, silent: bool) {
        if let Some(agent) = self.hosts[host].agent.take() {
            self.connection_of_the_dead(agent.conn, silent);
        }
    }

    /// The load that is in its presence.
    pub(super) fn presence_of(&self, peer: Peer) -> Option<wps_remote_protocol::Load> {
        match peer {
            Peer::Node(_) => None,
            Peer::Agent(host) => self.hosts[host].agent.as_ref().map(|agent| agent.engine.load()),
        }
    }

    pub(super) fn agent_offline(&mut self, host: usize) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        agent.present.clear();
        agent.waiting.clear();
        agent.endings.clear();
        agent.asked.clear();
        agent.engine.offline();
        self.agent_ticks(host);
    }

    fn agent_time(&self, host: usize) -> Duration {
        let begun = self.hosts[host].agent.as_ref().map_or(0, |agent| agent.begun);
        Duration::from_millis(self.now - begun)
    }

    pub(super) fn agent_hears(&mut self, host: usize, stanza: Stanza) {
        match stanza {
            Stanza::Here { who: Peer::Node(node), .. } => {
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.present.insert(node);
                }
            }
            Stanza::Gone { who: Peer::Node(node) } => {
                if let Some(agent) = &mut self.hosts[host].agent
                    && agent.present.remove(&node)
                {
                    agent.engine.peer_left(&orchestrator(node));
                }
                self.agent_ticks(host);
            }
            Stanza::Request { from: Peer::Node(node), id, body: Body::To(message) } => {
                self.agent_asked(host, node, id, message);
            }
            Stanza::Response { id, answer } => {
                let wait = self.random.between(1, 40);
                self.agent_later(host, wait, AgentEvent::Answered(id, answer));
            }
            _ => {}
        }
    }

    fn agent_asked(&mut self, host: usize, node: usize, id: u64, message: ToAgent) {
        let now = self.agent_time(host);
        let (me, them) = (Peer::Agent(host), Peer::Node(node));
        let Some(agent) = &mut self.hosts[host].agent else { return };
        if !agent.present.contains(&node) {
            return self.respond(me, them, id, Answer::Later);
        }
        let mut out = Actions::new();
        match message {
            ToAgent::Invite { executions } => {
                self.respond(me, them, id, Answer::Yes);
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.engine.invite(orchestrator(node), &executions, now, &mut out);
                }
            }
            ToAgent::Request(request) => self.agent_requested(host, node, id, *request, now, &mut out),
            ToAgent::Abort { execution } => {
                let held = agent.engine.abort(&execution, now, &mut out).is_ok();
                self.respond(me, them, id, if held { Answer::Yes } else { Answer::Unknown });
            }
            ToAgent::Finish { execution } => {
                let held = agent.engine.finish(&execution, &mut out).is_ok();
                self.respond(me, them, id, if held { Answer::Yes } else { Answer::Unknown });
            }
            ToAgent::Unknown { execution } => {
                agent.engine.disowned(&orchestrator(node), &execution, &mut out);
                self.respond(me, them, id, Answer::Yes);
            }
            ToAgent::Elsewhere { execution } => {
                if self.sabotage != Sabotage::ForgetTheHeir {
                    agent.engine.elsewhere(&orchestrator(node), &execution, now, &mut out);
                }
                self.respond(me, them, id, Answer::Yes);
            }
            ToAgent::GetLoad => {
                let load = agent.engine.load();
                self.respond(me, them, id, Answer::Load(load));
            }
        }
        self.agent_performs(host, out);
        self.agent_ticks(host);
    }

    fn agent_requested(
        &mut self,
        host: usize,
        node: usize,
        id: u64,
        request: Request,
        now: Duration,
        out: &mut Actions,
    ) {
        let twice = self.sabotage == Sabotage::StartTwice;
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let Some(conn) = agent.conn else { return };
        let execution = request.execution.clone();
        let again = request.clone();
        match agent.engine.request(orchestrator(node), request, now, out) {
            Ok(Taken::Later) => agent.waiting.entry(execution).or_default().push((conn, node, id)),
            Ok(Taken::Known) => {
                if twice {
                    self.hosts[host].disk.remove(&execution);
                    out.push(Action::Start(orchestrator(node), Box::new(again)));
                }
                self.respond(Peer::Agent(host), Peer::Node(node), id, Answer::Yes);
            }
            Err(refusal) => self.respond(Peer::Agent(host), Peer::Node(node), id, Answer::No(refusal)),
        }
    }

    /// Something happened to an execution.
    pub(super) fn agent_happened(&mut self, host: usize, execution: &ExecutionId, event: Event) {
        let now = self.agent_time(host);
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let mut out = Actions::new();
        agent.engine.happened(execution, event, now, &mut out);
        self.agent_performs(host, out);
        self.agent_ticks(host);
    }

    fn agent_ticks(&mut self, host: usize) {
        let now = self.agent_time(host);
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let mut out = Actions::new();
        let next = agent.engine.tick(now, &mut out);
        agent.wake += 1;
        let wake = agent.wake;
        self.agent_performs(host, out);
        if let Some(next) = next {
            let wait = u64::try_from(next.saturating_sub(now).as_millis()).unwrap_or(1).max(1);
            self.agent_later(host, wait, AgentEvent::Wake(wake));
        }
    }

    fn agent_performs(&mut self, host: usize, actions: Actions) {
        for action in actions {
            let Some(agent) = &mut self.hosts[host].agent else { return };
            match action {
                Action::Send(peer, message) => self.agent_says(host, node_number(&peer), message, 1),
                Action::Taken(execution) => {
                    let conn = agent.conn;
                    for (at, node, id) in agent.waiting.remove(&execution).unwrap_or_default() {
                        if conn == Some(at) {
                            self.respond(Peer::Agent(host), Peer::Node(node), id, Answer::Yes);
                        }
                    }
                }
                Action::Refuse(execution, refusal) => {
                    for (_, node, id) in agent.waiting.remove(&execution).unwrap_or_default() {
                        self.respond(Peer::Agent(host), Peer::Node(node), id, Answer::No(refusal.clone()));
                    }
                }
                Action::Start(peer, request) => {
                    let weight = agent.engine.weight_of(&request.execution).unwrap_or(0.0);
                    agent.starting.insert(request.execution.clone(), (request.process, peer, weight));
                    self.begin(host, &request.execution);
                }
                Action::Abort(execution) => {
                    if agent.aborted.insert(execution.clone()) {
                        self.end_program(host, &execution);
                    }
                }
                Action::Release(execution) => self.release(host, &execution),
                Action::Announce => agent.announce = true,
                // Only of a GeoServer's.
                Action::GiveUp(_) | Action::Weigh(_) => {}
            }
        }
    }

    fn release(&mut self, host: usize, execution: &ExecutionId) {
        self.check_release(execution);
        let now = self.now;
        if let Some(folder) = self.hosts[host].disk.get_mut(execution) {
            folder.finished = Some(now);
        }
    }

    /// Says something to an orchestrator that is there.
    fn agent_says(&mut self, host: usize, node: usize, message: FromAgent, attempt: u32) {
        let id = self.net.number();
        let forget = self.sabotage == Sabotage::ForgetTheOutbox;
        let Some(agent) = &mut self.hosts[host].agent else { return };
        if !agent.present.contains(&node) {
            return;
        }
        let from = Peer::Agent(host);
        match &message {
            FromAgent::Completed { execution, .. } | FromAgent::Error { execution, .. } => {
                if !agent.endings.insert((node, execution.clone())) {
                    return;
                }
                if forget {
                    let mut out = Actions::new();
                    let _ = agent.engine.finish(&execution.clone(), &mut out);
                    self.send(
                        from,
                        Peer::Node(node),
                        Stanza::Request { from, id, body: Body::From(message) },
                    );
                    return self.agent_performs(host, out);
                }
            }
            FromAgent::Started { .. } | FromAgent::Progress { .. } | FromAgent::Log { .. } => {
                return self.send(from, Peer::Node(node), Stanza::Message { from, body: message });
            }
            _ => {}
        }
        agent.asked.insert(id, (node, attempt, message.clone()));
        self.send(from, Peer::Node(node), Stanza::Request { from, id, body: Body::From(message) });
        self.agent_later(host, ANSWER_MS, AgentEvent::NoAnswer(id));
    }

    fn agent_answered(&mut self, host: usize, id: u64, answer: Option<Answer>) {
        let now = self.agent_time(host);
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let Some((node, attempt, message)) = agent.asked.remove(&id) else { return };
        let (FromAgent::Completed { execution, .. } | FromAgent::Error { execution, .. }) = &message else {
            if answer.is_none() && attempt < 3 {
                self.agent_says(host, node, message, attempt + 1);
            }
            return;
        };
        agent.endings.remove(&(node, execution.clone()));
        let mut out = Actions::new();
        match answer {
            Some(Answer::Yes) => drop(agent.engine.finish(execution, &mut out)),
            Some(Answer::Unknown) => agent.engine.disowned(&orchestrator(node), execution, &mut out),
            Some(Answer::Elsewhere) if self.sabotage != Sabotage::ForgetTheHeir => {
                agent.engine.elsewhere(&orchestrator(node), execution, now, &mut out);
            }
            Some(Answer::NobodyThere) if !self.rooms_are_told_apart => {
                agent.engine.disowned(&orchestrator(node), execution, &mut out);
            }
            _ => {}
        }
        self.agent_performs(host, out);
        self.agent_ticks(host);
    }

    pub(super) fn agent_event(&mut self, host: usize, event: AgentEvent) {
        match event {
            AgentEvent::Execution(execution, event) => self.execution_event(host, execution, event),
            AgentEvent::Wake(wake) => {
                if self.hosts[host].agent.as_ref().is_some_and(|agent| agent.wake == wake) {
                    self.agent_ticks(host);
                }
            }
            AgentEvent::NoAnswer(id) => self.agent_answered(host, id, None),
            AgentEvent::Answered(id, answer) => self.agent_answered(host, id, Some(answer)),
            AgentEvent::Announce => {
                self.agent_later(host, 1_000, AgentEvent::Announce);
                let Some(agent) = &mut self.hosts[host].agent else { return };
                if std::mem::take(&mut agent.announce) {
                    let load = agent.engine.load();
                    self.set_presence(Peer::Agent(host), load);
                }
            }
        }
    }

    pub(super) fn drain(&mut self, host: usize, on: bool) {
        self.hosts[host].draining = on;
        let mut out = Actions::new();
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.engine.drain(on, &mut out);
        }
        self.agent_performs(host, out);
    }

    pub(super) fn offer(&mut self, host: usize, on: bool) {
        self.hosts[host].offering = on;
        let mut out = Actions::new();
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.engine.offer(if on { offered() } else { vec![] }, &mut out);
        }
        self.agent_performs(host, out);
    }
}
