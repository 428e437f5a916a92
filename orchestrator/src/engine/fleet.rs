//! The agents that are present, what they offer together, and who has changed. Pure data about the fleet; which job goes
//! where is decided in `dispatch`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wps_remote_protocol::message::RefusalReason;
use wps_remote_protocol::{AgentId, ExecutionId, Load, ProcessDescription, ProcessId};

use super::agent::Score;
use super::job::Timestamp;
use super::queue::{Class, Open};

pub use super::agent::{Agent, Unfit};

/// Agents whose reasons are named to those who wait.
const REASONS: usize = 3;
/// Labels of one agent that are looked at.
const MAX_LABELS: usize = 64;

/// Points, running jobs, and when it was chosen last: the least is the best.
type Rank = (i64, u32, u64);

/// The agent that was chosen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice {
    pub(super) agent: AgentId,
    pub(super) weight: f64,
    /// Why this one, for people.
    pub(super) why: String,
}

/// All agents that are present.
#[derive(Debug, Default)]
pub struct Fleet {
    slots: Vec<Option<Agent>>,
    names: BTreeMap<AgentId, usize>,
    /// Who offers a process, in the order of registration, with the weight there: the first one's description is shown.
    offers: BTreeMap<ProcessId, Vec<(usize, f64)>>,
    choices: u64,
    stale_ms: u64,
    /// Agents that may be able to take more than when they were looked at last.
    touched: BTreeSet<AgentId>,
    /// Agents that refused, and until when they are left alone.
    pauses: BTreeSet<(Timestamp, AgentId)>,
    /// Agents, present or not, that the operator has taken out of service, and why.
    drained: BTreeMap<AgentId, String>,
    /// Grows with each change of what is offered.
    version: u64,
}

impl Fleet {
    /// One whose agents' reports are believed for so long, in milliseconds.
    pub(super) fn new(stale_ms: u64) -> Self {
        Self { stale_ms, ..Self::default() }
    }

    /// An agent appeared (again). What was known of its processes and load is forgotten; it will tell anew.
    pub fn join(&mut self, id: &AgentId) -> bool {
        let changed = self.leave(id);
        let agent = Agent { drained: self.drained.get(id).cloned(), ..Agent::new(id.clone()) };
        let slot =
            self.slots.iter().position(Option::is_none).filter(|_| self.slots.len() > self.names.len());
        let slot = slot.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(agent);
        self.names.insert(id.clone(), slot);
        changed
    }

    /// An agent has gone. Returns whether the catalogue changed.
    pub fn leave(&mut self, id: &AgentId) -> bool {
        let Some(slot) = self.names.remove(id) else { return false };
        let Some(agent) = self.slots.get_mut(slot).and_then(Option::take) else { return false };
        self.touched.remove(id);
        self.pauses.remove(&(agent.refused_until, id.clone()));
        let mut changed = false;
        for (process, description) in &agent.processes {
            changed |= self.withdraw(process, slot, description);
        }
        changed
    }

    /// Whether what clients see changed.
    fn withdraw(&mut self, process: &ProcessId, slot: usize, gone: &Arc<ProcessDescription>) -> bool {
        self.version += 1;
        let Some(offering) = self.offers.get_mut(process) else { return false };
        let first = offering.first().is_some_and(|(first, _)| *first == slot);
        offering.retain(|(other, _)| *other != slot);
        let Some((next, _)) = offering.first().copied() else {
            self.offers.remove(process);
            return true;
        };
        let shown =
            self.slots.get(next).and_then(Option::as_ref).and_then(|agent| agent.processes.get(process));
        first && shown.is_some_and(|shown| shown != gone)
    }

    /// An agent offers a process. Returns whether what clients see changed.
    pub fn register(&mut self, id: &AgentId, description: ProcessDescription) -> bool {
        let Some(slot) = self.names.get(id).copied() else { return false };
        // Which other names there are is for the administrator of this service to say.
        let description = ProcessDescription { alias: None, ..description };
        let process = description.id.clone();
        let shown = self.offers.get(&process).and_then(|offering| offering.first()).map(|(first, _)| *first);
        let shown_text = shown
            .and_then(|first| self.slots.get(first)?.as_ref()?.processes.get(&process))
            .filter(|shown| ***shown == description)
            .cloned();
        let same_as_shown = shown_text.is_some();
        // Many agents say the same: that is kept once.
        let description = shown_text.unwrap_or_else(|| Arc::new(description));
        let weight = description.weight;
        if let Some(Some(agent)) = self.slots.get_mut(slot) {
            agent.processes.insert(process.clone(), description);
        }
        self.version += 1;
        self.touched.insert(id.clone());
        let offering = self.offers.entry(process).or_default();
        match offering.iter_mut().find(|(other, _)| *other == slot) {
            Some(offer) => offer.1 = weight,
            None => offering.push((slot, weight)),
        }
        match shown {
            None => true,
            Some(first) => first == slot && !same_as_shown,
        }
    }

    /// An agent offers a process no longer. Returns whether what clients see changed.
    pub fn unregister(&mut self, id: &AgentId, process: &ProcessId) -> bool {
        let Some(slot) = self.names.get(id).copied() else { return false };
        let Some(Some(agent)) = self.slots.get_mut(slot) else { return false };
        match agent.processes.remove(process) {
            Some(gone) => self.withdraw(process, slot, &gone),
            None => false,
        }
    }

    /// An agent, to look at.
    pub fn agent(&self, id: &AgentId) -> Option<&Agent> {
        self.slots.get(*self.names.get(id)?)?.as_ref()
    }

    pub(super) fn agent_mut(&mut self, id: &AgentId) -> Option<&mut Agent> {
        self.slots.get_mut(*self.names.get(id)?)?.as_mut()
    }

    /// All agents by name.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.names.values().filter_map(|slot| self.slots.get(*slot)?.as_ref())
    }

    /// Grows with each change of what is offered.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether anybody offers the process.
    pub fn offers(&self, process: &ProcessId) -> bool {
        self.offers.contains_key(process)
    }

    /// What is offered together: of several descriptions of one process the first registered one.
    pub fn catalogue(&self) -> impl Iterator<Item = (&ProcessId, &Arc<ProcessDescription>)> {
        self.offers.iter().filter_map(|(process, offering)| {
            let agent = self.slots.get(offering.first()?.0)?.as_ref()?;
            Some((process, agent.processes.get(process)?))
        })
    }

    /// Processes that agents describe differently, with those agents whose description is not the shown one.
    pub fn conflicts(&self) -> BTreeMap<ProcessId, BTreeSet<AgentId>> {
        let mut conflicts: BTreeMap<ProcessId, BTreeSet<AgentId>> = BTreeMap::new();
        for (process, shown) in self.catalogue() {
            for agent in self.offering(process) {
                let theirs = agent.processes.get(process);
                if theirs.is_some_and(|theirs| !Arc::ptr_eq(theirs, shown) && theirs != shown) {
                    conflicts.entry(process.clone()).or_default().insert(agent.id.clone());
                }
            }
        }
        conflicts
    }

    /// The agents that offer a process, in the order of registration.
    pub(super) fn offering(&self, process: &ProcessId) -> impl Iterator<Item = &Agent> {
        let offering = self.offers.get(process).into_iter().flatten();
        offering.filter_map(|(slot, _)| self.slots.get(*slot)?.as_ref())
    }

    /// The agent that should run one more execution of a class: of these the least loaded one, or why there is none.
    pub(super) fn choose(
        &mut self,
        class: &Class,
        among: &Open,
        now: Timestamp,
    ) -> Result<Choice, Option<Unfit>> {
        let mut best: Option<(Rank, Score, usize, f64)> = None;
        let mut second: Option<(Rank, Score, usize)> = None;
        let (mut fit, mut all) = (0_usize, 0_usize);
        let mut unfit: Option<Unfit> = None;
        let mut look = |slot: usize, weight: f64| {
            let Some(agent) = self.slots.get(slot).and_then(Option::as_ref) else { return };
            all += 1;
            match agent.fitness(weight, &class.needs, self.stale_ms, now) {
                Ok(score) => {
                    fit += 1;
                    let (points, running) = score.rank();
                    let rank = (points, running, agent.last_chosen);
                    if best.as_ref().is_none_or(|(least, ..)| rank < *least) {
                        second = best.take().map(|(rank, score, slot, _)| (rank, score, slot));
                        best = Some((rank, score, slot, weight));
                    } else if second.as_ref().is_none_or(|(least, ..)| rank < *least) {
                        second = Some((rank, score, slot));
                    }
                }
                Err(why) => unfit = Some(unfit.map_or(why, |other| other.min(why))),
            }
        };
        match among {
            Open::All => {
                for (slot, weight) in self.offers.get(&class.process).into_iter().flatten() {
                    look(*slot, *weight);
                }
            }
            Open::Only(agents) => {
                for id in agents {
                    let Some(slot) = self.names.get(id).copied() else { continue };
                    let weight = self.slots.get(slot).and_then(Option::as_ref);
                    if let Some(process) = weight.and_then(|agent| agent.processes.get(&class.process)) {
                        look(slot, process.weight);
                    }
                }
            }
        }
        let name = |slot: usize| self.slots.get(slot).and_then(Option::as_ref).map(|agent| agent.id.clone());
        let Some((id, (_, score, slot, weight))) = best.and_then(|best| Some((name(best.2)?, best))) else {
            return Err(unfit);
        };
        let mut why = match among {
            Open::All => {
                format!("the least loaded of {fit} that could take it, of {all} that offer it ({score})")
            }
            Open::Only(_) => format!("the first that could take it when all others were busy ({score})"),
        };
        if let Some((_, score, slot)) = second
            && let Some(next) = name(slot)
        {
            why.push_str(&format!("; the next was `{next}` ({score})"));
        }
        self.choices += 1;
        if let Some(Some(agent)) = self.slots.get_mut(slot) {
            agent.last_chosen = self.choices;
        }
        Ok(Choice { agent: id, weight, why })
    }

    /// Whether an agent could take a job of this class now.
    pub(super) fn fits(&self, id: &AgentId, class: &Class, now: Timestamp) -> bool {
        self.agent(id).is_some_and(|agent| {
            let weight = agent.processes.get(&class.process).map_or(0.0, |process| process.weight);
            agent.fitness(weight, &class.needs, self.stale_ms, now).is_ok()
        })
    }

    /// What each agent that offers the process of a class says to it, for people.
    pub(super) fn verdicts(&self, class: &Class, now: Timestamp) -> impl Iterator<Item = String> {
        self.offering(&class.process).map(move |agent| {
            let weight = agent.processes.get(&class.process).map_or(0.0, |process| process.weight);
            format!("`{}` {}", agent.id, agent.verdict(weight, &class.needs, self.stale_ms, now))
        })
    }

    /// Why none of the agents that offer the process of a class can take a job now: what would pass soonest. `Ok` = one could.
    pub(super) fn unfit(&self, class: &Class, now: Timestamp) -> Result<(), Option<Unfit>> {
        let mut unfit: Option<Unfit> = None;
        for (slot, weight) in self.offers.get(&class.process).into_iter().flatten() {
            let Some(agent) = self.slots.get(*slot).and_then(Option::as_ref) else { continue };
            match agent.fitness(*weight, &class.needs, self.stale_ms, now) {
                Ok(_) => return Ok(()),
                Err(why) => unfit = Some(unfit.map_or(why, |other| other.min(why))),
            }
        }
        Err(unfit)
    }

    /// Agents that may be able to take more than when they were looked at last.
    pub(super) fn take_touched(&mut self) -> BTreeSet<AgentId> {
        std::mem::take(&mut self.touched)
    }

    /// An agent may be able to take more.
    pub(super) fn touch(&mut self, id: &AgentId) {
        if self.names.contains_key(id) {
            self.touched.insert(id.clone());
        }
    }

    /// An agent refused something: it is left alone for a while.
    pub(super) fn pause(&mut self, id: &AgentId, until: Timestamp, why: String) {
        let Some(agent) = self.agent_mut(id) else { return };
        let before = std::mem::replace(&mut agent.refused_until, until);
        agent.refusals = agent.refusals.saturating_add(1);
        agent.refused = Some(why);
        self.pauses.remove(&(before, id.clone()));
        self.pauses.insert((until, id.clone()));
    }

    /// When the next pause is over.
    pub(super) fn next_pause(&self) -> Option<Timestamp> {
        self.pauses.first().map(|(until, _)| *until)
    }

    /// Ends the pauses that are over.
    pub(super) fn end_pauses(&mut self, now: Timestamp) {
        while let Some((until, id)) = self.pauses.first().cloned()
            && until <= now
        {
            self.pauses.remove(&(until, id.clone()));
            self.touched.insert(id);
        }
    }

    /// The agents that the operator has taken out of service, present or not, and why.
    pub fn set_drained(&mut self, drained: BTreeMap<AgentId, String>) {
        for slot in &mut self.slots {
            let Some(agent) = slot else { continue };
            let now = drained.get(&agent.id).cloned();
            if agent.drained.is_some() && now.is_none() {
                self.touched.insert(agent.id.clone());
            }
            agent.drained = now;
        }
        self.drained = drained;
    }

    /// The agents that the operator has taken out of service, present or not, and why.
    pub fn drained(&self) -> &BTreeMap<AgentId, String> {
        &self.drained
    }

    /// The wall clock was set, by so many milliseconds.
    pub fn clock_set(&mut self, by_ms: i64) {
        for agent in self.slots.iter_mut().flatten() {
            agent.load_at = agent.load_at.shifted_ms(by_ms);
            agent.refused_until = agent.refused_until.shifted_ms(by_ms);
            agent.asked = agent.asked.map(|since| since.shifted_ms(by_ms));
        }
        let pauses = std::mem::take(&mut self.pauses);
        self.pauses = pauses.into_iter().map(|(until, id)| (until.shifted_ms(by_ms), id)).collect();
    }

    /// Why the agents that offer a process take no new work, as they have announced it: without figures, which change all the
    /// time, and of a few agents only; or what they said when they refused a job just now. `None` = none has given a reason.
    pub fn reasons(&self, process: &ProcessId, now: Timestamp) -> Option<String> {
        let reasons = self.offering(process).filter_map(|agent| {
            if let Some(why) = &agent.drained {
                return Some(format!("{} is drained: {why}", agent.id));
            }
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
    pub fn report(&mut self, id: &AgentId, mut load: Load, now: Timestamp) {
        load.labels.truncate(MAX_LABELS);
        if let Some(agent) = self.agent_mut(id) {
            agent.load = Some(load);
            agent.load_at = now;
            agent.unreported.clear();
            self.touched.insert(id.clone());
        }
    }

    /// An execution was sent to an agent.
    pub fn begin(&mut self, id: &AgentId, execution: ExecutionId, weight: f64) {
        if let Some(agent) = self.agent_mut(id) {
            agent.executions.insert(execution.clone(), weight);
            agent.unreported.insert(execution, weight);
        }
    }

    /// An execution is no longer at an agent.
    pub fn end(&mut self, id: &AgentId, execution: &ExecutionId) {
        let Some(agent) = self.agent_mut(id) else { return };
        let Some(weight) = agent.executions.remove(execution) else { return };
        if agent.unreported.remove(execution).is_none()
            && let Some(load) = &mut agent.load
        {
            // The next report will say the same; until then the free place must not look taken.
            load.running = load.running.saturating_sub(1);
            load.used = (load.used - weight).max(0.0);
        }
        self.touched.insert(id.clone());
    }
}
