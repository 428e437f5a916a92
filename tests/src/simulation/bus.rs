//! The orchestrator's end of the bus, as `orchestrator::bus` behaves: presence into agents, requests that are repeated while it
//! is not known whether they arrived, endings whose answer waits for the store, heartbeats.

use std::collections::BTreeMap;

use wps_remote_protocol::message::RefusalReason;
use wps_remote_protocol::{ErrorKind, ExecutionError, ExecutionId, FromAgent, Refusal, ToAgent};

use super::network::{Answer, Body, ConnId, Peer, Stanza};
use super::node::{Input, NodeEvent};
use super::world::{ANSWER_MS, World};

#[derive(Debug)]
struct Present {
    instance: u64,
    appearance: u64,
    misses: u32,
    silent: bool,
    endings: BTreeMap<ExecutionId, Vec<(ConnId, u64)>>,
}

/// What is known of the room.
#[derive(Debug, Default)]
pub struct Bus {
    agents: BTreeMap<usize, Present>,
    asked: BTreeMap<u64, (usize, u64, ToAgent)>,
    appearances: u64,
}

impl World {
    fn bus(&mut self, n: usize) -> Option<&mut Bus> {
        self.nodes[n].process.as_mut().map(|process| &mut process.bus)
    }

    pub(super) fn node_offline(&mut self, n: usize) {
        if let Some(bus) = self.bus(n) {
            bus.agents.clear();
            bus.asked.clear();
        }
        self.node_input(n, Input::Offline);
    }

    pub(super) fn node_hears(&mut self, n: usize, stanza: Stanza) {
        match stanza {
            Stanza::Joined => self.node_input(n, Input::Online),
            Stanza::Here { who: Peer::Agent(agent), fresh, instance, load } => {
                let Some(bus) = self.bus(n) else { return };
                let known = bus.agents.get(&agent).is_some_and(|p| p.instance == instance && !p.silent);
                if fresh || !known {
                    bus.appearances += 1;
                    let appearance = bus.appearances;
                    let endings = BTreeMap::new();
                    bus.agents
                        .insert(agent, Present { instance, appearance, misses: 0, silent: false, endings });
                    self.node_input(n, Input::Joined(agent));
                }
                if let Some(load) = load {
                    self.node_input(n, Input::Message(agent, Box::new(FromAgent::Load(load))));
                }
            }
            Stanza::Gone { who: Peer::Agent(agent) } => {
                let gone = self.bus(n).and_then(|bus| bus.agents.remove(&agent));
                if gone.is_some_and(|present| !present.silent) {
                    self.node_input(n, Input::Left(agent));
                }
            }
            Stanza::Here { .. } | Stanza::Gone { .. } => {}
            Stanza::Message { from: Peer::Agent(agent), body } => self.bus_heard(n, agent, body),
            Stanza::Request { from: Peer::Agent(agent), id, body: Body::From(message) } => {
                self.bus_asked(n, agent, id, message);
            }
            Stanza::Response { id, answer } => {
                let wait = self.random.between(1, 40);
                self.node_later(n, wait, NodeEvent::Answered(id, answer));
            }
            Stanza::Message { .. } | Stanza::Request { .. } => {}
        }
    }

    fn bus_heard(&mut self, n: usize, agent: usize, message: FromAgent) {
        let Some(present) = self.bus(n).and_then(|bus| bus.agents.get_mut(&agent)) else { return };
        present.misses = 0;
        if std::mem::take(&mut present.silent) {
            self.node_input(n, Input::Joined(agent));
        }
        self.node_input(n, Input::Message(agent, Box::new(message)));
    }

    fn bus_asked(&mut self, n: usize, agent: usize, id: u64, message: FromAgent) {
        let Some(conn) = self.nodes[n].process.as_ref().and_then(|process| process.conn) else { return };
        let Some(present) = self.bus(n).and_then(|bus| bus.agents.get_mut(&agent)) else {
            return self.respond(Peer::Node(n), Peer::Agent(agent), id, Answer::Later);
        };
        match &message {
            FromAgent::Completed { execution, .. } | FromAgent::Error { execution, .. } => {
                present.endings.entry(execution.clone()).or_default().push((conn, id));
            }
            _ => self.respond(Peer::Node(n), Peer::Agent(agent), id, Answer::Yes),
        }
        self.bus_heard(n, agent, message);
    }

    /// Answers a request.
    pub(super) fn respond(&mut self, from: Peer, to: Peer, id: u64, answer: Answer) {
        self.send(from, to, Stanza::Response { id, answer });
    }

    pub(super) fn bus_send(&mut self, n: usize, agent: usize, message: ToAgent) {
        let conn = self.nodes[n].process.as_ref().and_then(|process| process.conn);
        let Some(present) = self.bus(n).and_then(|bus| bus.agents.get_mut(&agent)) else { return };
        let answer = match &message {
            ToAgent::Finish { execution } => Some((execution, Answer::Yes)),
            ToAgent::Unknown { execution } => Some((execution, Answer::Unknown)),
            ToAgent::Elsewhere { execution } => Some((execution, Answer::Elsewhere)),
            _ => None,
        };
        if let Some((execution, answer)) = answer
            && let Some(tokens) = present.endings.remove(execution)
        {
            for (at, id) in tokens {
                // An answer belongs to the connection of its question.
                if conn == Some(at) {
                    self.respond(Peer::Node(n), Peer::Agent(agent), id, answer.clone());
                }
            }
            return;
        }
        let appearance = present.appearance;
        self.bus_asks(n, agent, appearance, message);
    }

    pub(super) fn bus_asks(&mut self, n: usize, agent: usize, appearance: u64, message: ToAgent) {
        let id = self.net.number();
        let Some(bus) = self.bus(n) else { return };
        bus.asked.insert(id, (agent, appearance, message.clone()));
        let from = Peer::Node(n);
        self.send(from, Peer::Agent(agent), Stanza::Request { from, id, body: Body::To(message) });
        self.node_later(n, ANSWER_MS, NodeEvent::NoAnswer(id));
    }

    pub(super) fn bus_heartbeat(&mut self, n: usize) {
        self.node_later(n, 30_000, NodeEvent::Heartbeat);
        let Some(bus) = self.bus(n) else { return };
        let agents: Vec<_> = bus.agents.iter().map(|(agent, present)| (*agent, present.appearance)).collect();
        for (agent, appearance) in agents {
            self.bus_asks(n, agent, appearance, ToAgent::GetLoad);
        }
    }

    /// A request was answered, or (`None`) was not in time.
    pub(super) fn bus_answered(&mut self, n: usize, id: u64, answer: Option<Answer>) {
        let Some(bus) = self.bus(n) else { return };
        let Some((agent, appearance, message)) = bus.asked.remove(&id) else { return };
        let Some(present) = bus.agents.get_mut(&agent).filter(|p| p.appearance == appearance) else { return };
        match (&message, &answer) {
            (_, Some(_)) => present.misses = 0,
            (ToAgent::GetLoad, None) => present.misses += 1,
            (_, None) => {}
        }
        if present.misses >= 2 && !present.silent {
            present.silent = true;
            self.node_input(n, Input::Left(agent));
        }
        let refuse = |reason, text: &str| Refusal { reason, text: text.to_owned() };
        match (message, answer) {
            (ToAgent::GetLoad, Some(Answer::Load(load))) => self.bus_heard(n, agent, FromAgent::Load(load)),
            (ToAgent::Request(request), answer) => {
                let refusal = match answer {
                    Some(Answer::Yes) => return,
                    Some(Answer::No(refusal)) => refusal,
                    Some(Answer::NobodyThere) => {
                        refuse(RefusalReason::Capacity, "nobody of this name is there")
                    }
                    Some(_) => refuse(RefusalReason::Capacity, "not now"),
                    None => return self.bus_again(n, agent, appearance, ToAgent::Request(request)),
                };
                let execution = request.execution;
                self.bus_heard(n, agent, FromAgent::CannotExecute { execution, refusal });
            }
            (ToAgent::Abort { execution }, answer) => match answer {
                Some(Answer::Unknown) => {
                    let text = "the agent does not know this execution".to_owned();
                    let error = ExecutionError { kind: ErrorKind::Lost, text, receipt: None };
                    self.bus_heard(n, agent, FromAgent::Error { execution, error });
                }
                Some(_) => {}
                None => self.bus_again(n, agent, appearance, ToAgent::Abort { execution }),
            },
            (ToAgent::Invite { executions }, None) => {
                self.bus_again(n, agent, appearance, ToAgent::Invite { executions });
            }
            _ => {}
        }
    }

    fn bus_again(&mut self, n: usize, agent: usize, appearance: u64, message: ToAgent) {
        self.node_later(n, 1_000, NodeEvent::Again(agent, appearance, Box::new(message)));
    }
}
