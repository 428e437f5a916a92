//! Who is there: service processes, the occupants of running jobs, what they register, their load.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info};
use wps_remote_protocol::legacy::{LegacyLoad, Occupant, Order, Registration, Report};
use wps_remote_protocol::message::RefusalReason;
use wps_remote_protocol::{AgentId, FromAgent, Load, Refusal};

use super::{Agent, CANNOT, Effect, Inbound, LegacyConfig, Machine, SOFTWARE};

/// Least pause between two invitations of one agent: two masters with one name throw each other off every two seconds.
const INVITE_PAUSE: Duration = Duration::from_secs(5);
/// Unanswered questions for the load after which an agent gets no work: its process may be dead and only its socket alive.
const SILENT: u32 = 2;

impl Machine {
    /// Somebody is in a room.
    pub(in crate::bus) fn occupant(
        &mut self,
        namespace: &str,
        nick: &str,
        account: Option<String>,
        fresh: bool,
        now: Instant,
    ) {
        let Some((id, occupant)) = self.identify(namespace, nick) else { return };
        let (Occupant::Master { service, host, .. } | Occupant::Job { service, host, .. }) = &occupant else {
            return;
        };
        if !self.config.agents.lists(namespace, service, host) {
            let why = format!(
                "an agent of the old dialect is in the room but not believed; to use it, add `{service}@{host}` to [legacy] agents"
            );
            self.complaints.about(namespace, nick, now, &why);
            return;
        }
        if !self.config.accounts.is_empty() {
            let known = account.as_ref().is_some_and(|account| self.config.accounts.contains(account));
            if !known {
                let why = "not believed: its account is not disclosed, or not among [legacy] accounts";
                self.complaints.about(namespace, nick, now, why);
                return;
            }
        }
        match occupant {
            Occupant::Master { service, .. } => {
                self.master(&id, namespace, nick, &service, account, fresh, now);
            }
            Occupant::Job { service, execution, .. } => {
                self.job_occupant(&id, namespace, nick, &service, account, &execution, now);
            }
            Occupant::Other => {}
        }
    }

    /// The agent that an occupant belongs to, if it is one of this dialect.
    pub(super) fn identify(&self, namespace: &str, nick: &str) -> Option<(AgentId, Occupant)> {
        let occupant = Occupant::read(nick);
        let (service, own, host) = match &occupant {
            Occupant::Master { service, namespace, host }
            | Occupant::Job { service, namespace, host, .. } => (service, namespace, host),
            Occupant::Other => return None,
        };
        if own.as_ref().is_some_and(|own| !own.eq_ignore_ascii_case(namespace)) {
            return None;
        }
        Some((AgentId::new(format!("{namespace}/{service}@{host}")), occupant))
    }

    /// The agent's entry, made and told to the engine if there was none.
    pub(super) fn present(
        &mut self,
        id: &AgentId,
        namespace: &str,
        service: &str,
        account: Option<String>,
    ) -> &mut Agent {
        if !self.agents.contains_key(id) {
            let (agent, software) = (id.clone(), SOFTWARE.to_owned());
            self.tell(Inbound::Joined { agent, software, account: account.clone(), cannot: &CANNOT });
        }
        self.agents.entry(id.clone()).or_insert_with(|| Agent {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            master: None,
            account,
            jobs: BTreeSet::new(),
            claimed: false,
            invited: None,
            asked: None,
            unanswered: 0,
            load: None,
            description: None,
            offered: false,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "what a presence says, in one call")]
    fn master(
        &mut self,
        id: &AgentId,
        namespace: &str,
        nick: &str,
        service: &str,
        account: Option<String>,
        fresh: bool,
        now: Instant,
    ) {
        let was_present = self.agents.contains_key(id);
        let agent = self.present(id, namespace, service, account);
        if agent.master.as_deref().is_some_and(|other| other != nick) {
            let why = "a second service process of the same service and host is ignored";
            self.complaints.about(namespace, nick, now, why);
            return;
        }
        let appeared = agent.master.is_none();
        agent.master = Some(nick.to_owned());
        // A newly told agent is invited by the engine itself.
        if was_present && (appeared || fresh) {
            self.invite(id, now);
        }
    }

    /// Asks for the registration and the load, unless it was asked a moment ago.
    pub(super) fn invite(&mut self, id: &AgentId, now: Instant) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        let Some(nick) = agent.master.clone() else { return };
        if agent.invited.is_some_and(|at| now.duration_since(at) < INVITE_PAUSE) {
            debug!(agent = %id, "invited a moment ago; the next heartbeat does it");
            return;
        }
        agent.invited = Some(now);
        agent.asked = Some(now);
        agent.unanswered = 0;
        let namespace = agent.namespace.clone();
        self.send(&namespace, &nick, Order::Invite);
        self.send(&namespace, &nick, Order::GetLoad);
    }

    /// Somebody left a room.
    pub(in crate::bus) fn gone(&mut self, namespace: &str, nick: &str, reason: Option<String>, now: Instant) {
        let Some((id, occupant)) = self.identify(namespace, nick) else { return };
        let Some(agent) = self.agents.get_mut(&id) else { return };
        match occupant {
            Occupant::Master { .. } if agent.master.as_deref() == Some(nick) => {
                agent.master = None;
                agent.load = None;
                if !agent.jobs.is_empty() {
                    info!(agent = %id, "the service process has left; its jobs run on");
                    self.withdraw(&id);
                }
            }
            Occupant::Job { execution, .. } if agent.jobs.remove(nick) => {
                self.job_gone(&id, &execution, now);
            }
            _ => return,
        }
        let deserted =
            self.agents.get(&id).is_some_and(|agent| agent.master.is_none() && agent.jobs.is_empty());
        if deserted {
            self.agents.remove(&id);
            let reason = reason.unwrap_or_else(|| "left the room".to_owned());
            self.tell(Inbound::Left { agent: id, reason });
        }
    }

    /// The agent offers nothing and takes nothing, but is not gone.
    pub(super) fn withdraw(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        let offered = std::mem::take(&mut agent.offered);
        let process = agent.description.as_ref().map(|description| description.id.clone());
        let load = load(agent.load, agent.jobs.len(), false);
        if let (true, Some(process)) = (offered, process) {
            self.tell(Inbound::Message { agent: id.clone(), message: FromAgent::Unregister(process) });
        }
        self.tell(Inbound::Message { agent: id.clone(), message: FromAgent::Load(load) });
    }

    /// A room is out of reach, and everybody in it; `None` = all rooms, about which the driver is told by others.
    pub(in crate::bus) fn unreachable(&mut self, namespace: Option<&str>, now: Instant) {
        let lost: Vec<AgentId> = self
            .agents
            .iter()
            .filter(|(_, agent)| namespace.is_none_or(|namespace| agent.namespace == namespace))
            .map(|(id, _)| id.clone())
            .collect();
        for tracked in self.executions.values_mut().filter(|tracked| lost.contains(&tracked.agent)) {
            if tracked.nick.take().is_some() {
                tracked.left = Some(now);
            }
        }
        for id in lost {
            self.agents.remove(&id);
            if namespace.is_some() {
                self.tell(Inbound::Left { agent: id, reason: "out of the room".to_owned() });
            }
        }
    }

    /// A message of the service process about itself.
    pub(super) fn heard_master(&mut self, id: &AgentId, nick: &str, report: Report, now: Instant) {
        match report {
            Report::Register(registration) => self.registered(id, nick, &registration, now),
            Report::Unregister(_) => {
                let Some(agent) = self.agents.get_mut(id) else { return };
                agent.offered = false;
                if let Some(process) = agent.description.as_ref().map(|description| description.id.clone()) {
                    self.tell(Inbound::Message {
                        agent: id.clone(),
                        message: FromAgent::Unregister(process),
                    });
                }
            }
            Report::Load(told) => {
                let refusing = self.overload(told).filter(|_| !self.config.force);
                let accepting = refusing.is_none();
                let Some(agent) = self.agents.get_mut(id) else { return };
                agent.unanswered = 0;
                agent.load = Some(told);
                let offered = agent.offered;
                let load = Load { refusing, ..load(Some(told), agent.jobs.len(), accepting) };
                if !offered {
                    self.invite(id, now);
                }
                self.tell(Inbound::Message { agent: id.clone(), message: FromAgent::Load(load) });
            }
            // Everything else is about executions.
            _ => {}
        }
    }

    /// The threshold that an agent's load has reached, if one is.
    fn overload(&self, load: LegacyLoad) -> Option<Refusal> {
        let LegacyConfig { cpu_threshold, memory_threshold, .. } = self.config;
        let (what, figure, setting, threshold) = if load.cpu_percent >= cpu_threshold {
            ("processors", load.cpu_percent, "cpu_threshold", cpu_threshold)
        } else if load.memory_percent >= memory_threshold {
            ("memory", load.memory_percent, "memory_threshold", memory_threshold)
        } else {
            return None;
        };
        let text = format!(
            "{figure:.0} % of its {what} are in use, and from `[legacy] {setting} = {threshold}` on it gets no work"
        );
        Some(Refusal { reason: RefusalReason::Load, text })
    }

    fn registered(&mut self, id: &AgentId, nick: &str, registration: &Registration, now: Instant) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        let namespace = agent.namespace.clone();
        let service = &registration.service;
        if !service.namespace().eq_ignore_ascii_case(&namespace)
            || !service.name().eq_ignore_ascii_case(&agent.service)
        {
            let why = format!("a registration of `{service}` is refused: another room or another nickname");
            self.complaints.about(&namespace, nick, now, &why);
            return;
        }
        match registration.describe() {
            Ok(description) => {
                agent.description = Some(Arc::new(description.clone()));
                agent.offered = true;
                let message = FromAgent::Register(Box::new(description));
                self.tell(Inbound::Message { agent: id.clone(), message });
            }
            Err(error) => {
                self.complaints.about(&namespace, nick, now, &format!("a registration is refused: {error}"));
            }
        }
    }

    /// Asks those for their load whose turn it is, and notes who has not answered.
    pub(super) fn ask_loads(&mut self, now: Instant) {
        let due: Vec<AgentId> = self
            .agents
            .iter()
            .filter(|(_, agent)| {
                let recent = |at: Instant| now.duration_since(at) < self.config.heartbeat;
                agent.master.is_some() && !agent.asked.is_some_and(recent)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            let Some(agent) = self.agents.get_mut(&id) else { continue };
            agent.asked = Some(now);
            agent.unanswered = agent.unanswered.saturating_add(1);
            let silent = agent.unanswered == SILENT + 1;
            let (namespace, nick) = (agent.namespace.clone(), agent.master.clone().unwrap_or_default());
            if silent {
                let why = "does not tell its load any more: it gets no work until it does";
                self.complaints.about(&namespace, &nick, now, why);
                self.withdraw(&id);
            }
            self.effects.push(Effect::Send { namespace, nick, order: Order::GetLoad, execution: None });
        }
    }
}

/// The load in the engine's words. How much such an agent can take it does not say: each of its jobs weighs as one core.
fn load(told: Option<LegacyLoad>, running: usize, accepting: bool) -> Load {
    let told = told.unwrap_or(LegacyLoad { cpu_percent: 0.0, memory_percent: 0.0 });
    Load {
        cpu_percent: told.cpu_percent,
        memory_percent: told.memory_percent,
        cores: 1,
        capacity: 0.0,
        used: 0.0,
        running: u32::try_from(running).unwrap_or(u32::MAX),
        max_running: None,
        accepting,
        warning: None,
        refusing: None,
        labels: Vec::new(),
    }
}
