//! The agents that are present, what they offer together, and what they can take. Pure data about the fleet; which job
//! goes where is decided in `dispatch`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use wps_remote_protocol::message::RefusalReason;
use wps_remote_protocol::{AgentId, ExecutionId, Load, ProcessDescription, ProcessId};

use crate::engine::job::Timestamp;

/// Agents whose reasons are named to those who wait.
const REASONS: usize = 3;

/// One agent as far as it is known here.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its name.
    pub id: AgentId,
    /// What it offers.
    pub processes: BTreeMap<ProcessId, Arc<ProcessDescription>>,
    /// Its newest load, once it has told one.
    pub load: Option<Load>,
    /// When the newest load arrived.
    pub load_at: Timestamp,
    /// Whether it has told which executions it holds since it joined: before that nothing is sent to it.
    pub ready: bool,
    /// Since when it owes us the answer to an invitation.
    pub asked: Option<Timestamp>,
    /// Our executions there, with the weight of each.
    pub executions: HashMap<ExecutionId, f64>,
    /// Those of them that were sent after its newest report, with the weight of each: no report counts them yet.
    unreported: HashMap<ExecutionId, f64>,
    /// Nothing is sent before this moment, because it refused something.
    pub refused_until: Timestamp,
    /// What it said when it refused.
    pub refused: Option<String>,
    /// Refusals in a row.
    pub refusals: u32,
    /// Grows with each dispatch in the fleet: the agent with the smallest number waited longest.
    pub last_chosen: u64,
}

/// Why an agent cannot take a job at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// Full: it could take the job later.
    Busy,
    /// Takes no new work, has just refused one, or is not known well enough.
    NotAccepting,
}

impl Agent {
    fn new(id: AgentId) -> Self {
        Self {
            id,
            processes: BTreeMap::new(),
            load: None,
            load_at: Timestamp::default(),
            ready: false,
            asked: None,
            executions: HashMap::new(),
            unreported: HashMap::new(),
            refused_until: Timestamp::default(),
            refused: None,
            refusals: 0,
            last_chosen: 0,
        }
    }

    /// How many executions run there: those of its newest report, which may be other orchestrators', and those that were
    /// sent since.
    fn running(&self) -> u32 {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let ours = count(self.executions.len());
        let since = count(self.unreported.len());
        self.load.as_ref().map_or(ours, |load| load.running.saturating_add(since).max(ours))
    }

    /// How much capacity is in use there, counted in the same way.
    fn used(&self) -> f64 {
        let ours: f64 = self.executions.values().sum();
        let since: f64 = self.unreported.values().sum();
        self.load.as_ref().map_or(ours, |load| (load.used + since).max(ours))
    }

    /// Whether it can take one more execution of this weight, and with which score: the lowest is the best.
    pub fn fitness(&self, weight: f64, now: Timestamp) -> Result<f64, Unfit> {
        if !self.ready || now < self.refused_until {
            return Err(Unfit::NotAccepting);
        }
        let Some(load) = &self.load else { return Err(Unfit::NotAccepting) };
        if !load.accepting {
            return Err(Unfit::NotAccepting);
        }
        let running = self.running();
        if load.max_running.is_some_and(|max| running >= max) {
            return Err(Unfit::Busy);
        }
        // A weight above the whole capacity would never fit: such a job runs alone.
        let used = self.used();
        if weight > 0.0 && used > 0.0 && used + weight > load.capacity {
            return Err(Unfit::Busy);
        }
        let slots = f64::from(load.max_running.unwrap_or(load.cores).max(1));
        let share = f64::from(running) / slots;
        let capacity = if load.capacity > 0.0 { used / load.capacity } else { 0.0 };
        Ok(load.cpu_percent + 100.0 * share.max(capacity))
    }
}

/// All agents that are present.
#[derive(Debug, Default)]
pub struct Fleet {
    agents: BTreeMap<AgentId, Agent>,
    /// Who offers a process, in the order of registration: the first one's description is shown.
    offers: BTreeMap<ProcessId, Vec<AgentId>>,
    choices: u64,
}

impl Fleet {
    /// An agent appeared (again). What was known of its processes and load is forgotten; it will tell anew.
    pub fn join(&mut self, id: &AgentId) -> bool {
        let changed = self.leave(id);
        self.agents.insert(id.clone(), Agent::new(id.clone()));
        changed
    }

    /// An agent has gone. Returns whether the catalogue changed.
    pub fn leave(&mut self, id: &AgentId) -> bool {
        let Some(agent) = self.agents.remove(id) else { return false };
        for process in agent.processes.keys() {
            self.withdraw(process, id);
        }
        !agent.processes.is_empty()
    }

    fn withdraw(&mut self, process: &ProcessId, agent: &AgentId) {
        if let Some(offering) = self.offers.get_mut(process) {
            offering.retain(|other| other != agent);
            if offering.is_empty() {
                self.offers.remove(process);
            }
        }
    }

    /// An agent offers a process. Returns whether the catalogue changed.
    pub fn register(&mut self, id: &AgentId, description: ProcessDescription) -> bool {
        let Some(agent) = self.agents.get_mut(id) else { return false };
        // Which other names there are is for the administrator of this service to say.
        let description = ProcessDescription { alias: None, ..description };
        let process = description.id.clone();
        let known = agent.processes.get(&process).is_some_and(|old| **old == description);
        agent.processes.insert(process.clone(), Arc::new(description));
        let offering = self.offers.entry(process).or_default();
        if !offering.contains(id) {
            offering.push(id.clone());
            return true;
        }
        !known
    }

    /// An agent offers a process no longer. Returns whether the catalogue changed.
    pub fn unregister(&mut self, id: &AgentId, process: &ProcessId) -> bool {
        let Some(agent) = self.agents.get_mut(id) else { return false };
        if agent.processes.remove(process).is_none() {
            return false;
        }
        self.withdraw(process, id);
        true
    }

    /// An agent, to look at.
    pub fn agent(&self, id: &AgentId) -> Option<&Agent> {
        self.agents.get(id)
    }

    /// An agent, to change.
    pub fn agent_mut(&mut self, id: &AgentId) -> Option<&mut Agent> {
        self.agents.get_mut(id)
    }

    /// All agents by name.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values()
    }

    /// Whether anybody offers the process.
    pub fn offers(&self, process: &ProcessId) -> bool {
        self.offers.contains_key(process)
    }

    /// What is offered together: of several descriptions of one process the first registered one.
    pub fn catalogue(&self) -> impl Iterator<Item = (&ProcessId, &Arc<ProcessDescription>)> {
        self.offers.iter().filter_map(|(process, agents)| {
            let agent = self.agents.get(agents.first()?)?;
            Some((process, agent.processes.get(process)?))
        })
    }

    /// Processes that agents describe differently, with those agents whose description is not the shown one.
    pub fn conflicts(&self) -> BTreeMap<ProcessId, BTreeSet<AgentId>> {
        let mut conflicts: BTreeMap<ProcessId, BTreeSet<AgentId>> = BTreeMap::new();
        for (process, shown) in self.catalogue() {
            for agent in self.offers.get(process).into_iter().flatten() {
                let theirs = self.agents.get(agent).and_then(|a| a.processes.get(process));
                if theirs.is_some_and(|theirs| theirs != shown) {
                    conflicts.entry(process.clone()).or_default().insert(agent.clone());
                }
            }
        }
        conflicts
    }

    /// The agent that should run one more execution of a process: the least loaded one, or why there is none.
    pub fn choose(&mut self, process: &ProcessId, now: Timestamp) -> Result<(AgentId, f64), Option<Unfit>> {
        let mut best: Option<(f64, u64, AgentId, f64)> = None;
        let mut unfit: Option<Unfit> = None;
        for id in self.offers.get(process).into_iter().flatten() {
            let Some(agent) = self.agents.get(id) else { continue };
            let weight = agent.processes.get(process).map_or(0.0, |p| p.weight);
            match agent.fitness(weight, now) {
                Ok(score) => {
                    let better = best.as_ref().is_none_or(|(least, chosen, ..)| {
                        score < *least || (score == *least && agent.last_chosen < *chosen)
                    });
                    if better {
                        best = Some((score, agent.last_chosen, id.clone(), weight));
                    }
                }
                Err(why) => unfit = Some(unfit.map_or(why, |other| other.min(why))),
            }
        }
        let Some((_, _, id, weight)) = best else { return Err(unfit) };
        self.choices += 1;
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.last_chosen = self.choices;
        }
        Ok((id, weight))
    }

    /// The wall clock was set, by so many milliseconds.
    pub fn clock_set(&mut self, by_ms: i64) {
        for agent in self.agents.values_mut() {
            agent.load_at = agent.load_at.shifted_ms(by_ms);
            agent.refused_until = agent.refused_until.shifted_ms(by_ms);
            agent.asked = agent.asked.map(|since| since.shifted_ms(by_ms));
        }
    }

    /// Why the agents that offer a process take no new work, as they have announced it: without figures, which change all the
    /// time, and of a few agents only; or what they said when they refused a job just now. `None` = none has given a reason.
    pub fn reasons(&self, process: &ProcessId, now: Timestamp) -> Option<String> {
        let agents = self.offers.get(process).into_iter().flatten().filter_map(|id| self.agents.get(id));
        let reasons = agents.filter_map(|agent| {
            if now < agent.refused_until
                && let Some(why) = &agent.refused
            {
                return Some(format!("{} refused a job: {why}", agent.id));
            }
            let why = match agent.load.as_ref()?.refusing.as_ref()?.reason {
                RefusalReason::Capacity => "is full",
                RefusalReason::Load => "is overloaded",
                RefusalReason::Blacklist => "runs a program that goes first",
                RefusalReason::Draining => "is draining",
                RefusalReason::NoSuchProcess | RefusalReason::Undeliverable => return None,
            };
            Some(format!("{} {why}", agent.id))
        });
        let mut reasons: Vec<String> = reasons.collect();
        let more = reasons.len().saturating_sub(REASONS);
        reasons.truncate(REASONS);
        let text = reasons.join(", ");
        match (text.is_empty(), more) {
            (true, _) => None,
            (false, 0) => Some(text),
            (false, more) => Some(format!("{text}, and {more} more")),
        }
    }

    /// An agent tells its load.
    pub fn report(&mut self, id: &AgentId, load: Load, now: Timestamp) {
        if let Some(agent) = self.agents.get_mut(id) {
            agent.load = Some(load);
            agent.load_at = now;
            agent.unreported.clear();
        }
    }

    /// An execution was sent to an agent.
    pub fn begin(&mut self, id: &AgentId, execution: ExecutionId, weight: f64) {
        if let Some(agent) = self.agents.get_mut(id) {
            agent.executions.insert(execution.clone(), weight);
            agent.unreported.insert(execution, weight);
        }
    }

    /// An execution is no longer at an agent.
    pub fn end(&mut self, id: &AgentId, execution: &ExecutionId) {
        if let Some(agent) = self.agents.get_mut(id)
            && let Some(weight) = agent.executions.remove(execution)
            && agent.unreported.remove(execution).is_none()
            && let Some(load) = &mut agent.load
        {
            // The next report will say the same; until then the free place must not look taken.
            load.running = load.running.saturating_sub(1);
            load.used = (load.used - weight).max(0.0);
        }
    }
}
