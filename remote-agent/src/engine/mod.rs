//! What the agent decides: which requests it takes, who is told what, and what must be told again. Pure and synchronous:
//! events and the time go in, actions come out. Knows no clock, no disk, no XMPP and no processes.
//!
//! ```text
//!            request                 Started              Ended                 Finish
//!  (unknown) ───────► Starting ──────────────► Running ─────────► Ended (outbox) ──────► Finished
//!      │ refusal                                                   │  ▲
//!      ▼                                                           └──┘ told again: 2 s, 4 s … 60 s
//!  CannotExecute
//! ```

mod admission;
#[cfg(test)]
mod legacy_tests;
mod memory;
mod outbox;
#[cfg(test)]
mod ownership_tests;
#[cfg(test)]
mod tests;
mod view;
mod weighing;

pub use admission::{Measured, Settings};
pub use view::{Phase, View};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use wps_remote_protocol::message::RefusalReason;
use wps_remote_protocol::{
    ExecutionId, FromAgent, Load, LogLevel, ProcessDescription, ProcessId, Refusal, Request,
};

use self::memory::{Memory, too_late};
use self::outbox::Delivery;
use crate::workdir::Ending;

/// Finished executions that are remembered, so that a late repetition of a request is recognised at once. Older ones are
/// recognised by their folder.
const REMEMBERED: usize = 10_000;

/// An orchestrator: by its nickname in the management room, or, if it speaks the dialect of GeoServer's plugin, by its whole
/// address in the room of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer(pub String);

impl Peer {
    /// A GeoServer, or whoever speaks its dialect. What it has asked for is of no interest to anybody else: it forgets its
    /// jobs when it stops, and no other knows them.
    pub fn is_legacy(&self) -> bool {
        self.0.split_once('/').is_some_and(|(room, _)| room.contains('@'))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What must be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Tell an orchestrator. An ending that arrives is confirmed by [`Engine::finish`].
    Send(Peer, FromAgent),
    /// Answer the request for this execution: it is taken.
    Taken(ExecutionId),
    /// Find out the weight of this execution; [`Engine::weighed`] wants to know it.
    Weigh(Box<Request>),
    /// Answer the request for this execution: it is not taken.
    Refuse(ExecutionId, Refusal),
    /// Start an execution.
    Start(Peer, Box<Request>),
    /// Ask a running execution to end.
    Abort(ExecutionId),
    /// The execution is over and known to be so: its folder may go after the retention time.
    Release(ExecutionId),
    /// Nobody has come for the ending of this execution in all the time that it is kept.
    GiveUp(ExecutionId),
    /// The load that is announced to everybody has changed.
    Announce,
}

/// Actions of one call.
pub type Actions = Vec<Action>;

/// What is answered to a request at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is known already: taken.
    Known,
    /// [`Action::Taken`] follows when it is safe on disk.
    Later,
}

/// Why a message about an execution has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such execution here")]
pub struct NotHeld;

/// What happens to an execution.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It is on disk and its program is about to run.
    Started,
    /// How far it is.
    Progress(f64),
    /// A line for its log.
    Log(LogLevel, String),
    /// It is over.
    Ended(Ending),
}

struct Execution {
    process: ProcessId,
    originator: Peer,
    weight: f64,
    state: State,
}

enum State {
    Starting,
    Running { percent: Option<f64> },
    Ended(Delivery),
}

impl Execution {
    /// It is this one that is told from now on.
    fn belongs_to(&mut self, originator: Peer) {
        self.originator = originator;
        if let State::Ended(delivery) = &mut self.state {
            delivery.set_for_anybody(false);
        }
    }

    /// Whether it takes capacity.
    fn is_live(&self) -> bool {
        match self.state {
            State::Starting | State::Running { .. } => true,
            State::Ended(_) => false,
        }
    }
}

/// The agent's state.
pub struct Engine {
    settings: Settings,
    processes: BTreeMap<ProcessId, ProcessDescription>,
    /// Processes whose weight depends on the inputs.
    weighed: BTreeSet<ProcessId>,
    /// Requests whose weight is being found out: nothing is promised yet, and nothing taken.
    weighing: BTreeMap<ExecutionId, (Peer, Box<Request>)>,
    executions: BTreeMap<ExecutionId, Execution>,
    finished: Memory,
    /// Executions that were refused, or given up before they were heard of: never started any more.
    barred: Memory,
    /// Orchestrators that have invited us and are present.
    subscribers: BTreeSet<Peer>,
    measured: Measured,
    draining: bool,
    announced: Option<Load>,
}

impl Engine {
    /// Nothing offered, nothing running.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            processes: BTreeMap::new(),
            weighed: BTreeSet::new(),
            weighing: BTreeMap::new(),
            executions: BTreeMap::new(),
            finished: Memory::new(REMEMBERED),
            barred: Memory::new(REMEMBERED),
            subscribers: BTreeSet::new(),
            measured: Measured::default(),
            draining: false,
            announced: None,
        }
    }

    /// An orchestrator wants to know everything, and to be kept informed. The executions that it names are its own from now
    /// on. Of those that are not held none will ever be started: it may give their jobs to others.
    pub fn invite(&mut self, from: Peer, claimed: &[ExecutionId], now: Duration, out: &mut Actions) {
        let mut unknown = Vec::new();
        for id in claimed {
            match self.executions.get_mut(id) {
                Some(execution) if execution.originator.is_legacy() => unknown.push(id.clone()),
                Some(execution) => execution.belongs_to(from.clone()),
                None => {
                    self.barred.add(id.clone());
                    unknown.push(id.clone());
                }
            }
        }
        out.push(Action::Send(from.clone(), FromAgent::Executions { held: self.held(), unknown }));
        for process in self.processes.values() {
            out.push(Action::Send(from.clone(), FromAgent::Register(Box::new(process.clone()))));
        }
        out.push(Action::Send(from.clone(), FromAgent::Load(self.load())));
        self.subscribers.insert(from.clone());
        for (id, execution) in &mut self.executions {
            let own = execution.originator == from;
            match &mut execution.state {
                // What was told while nobody listened is lost; the last of it matters.
                State::Running { percent } if own => {
                    out.push(Action::Send(from.clone(), FromAgent::Started { execution: id.clone() }));
                    if let Some(percent) = *percent {
                        out.push(Action::Send(from.clone(), progress(id, percent)));
                    }
                }
                State::Ended(delivery)
                    if own
                        || !from.is_legacy()
                            && (delivery.for_anybody()
                                || !self.subscribers.contains(&execution.originator)) =>
                {
                    delivery.hurry(now);
                }
                State::Starting | State::Running { .. } | State::Ended(_) => {}
            }
        }
        self.deliver(now, out);
    }

    /// An orchestrator is no longer there.
    pub fn peer_left(&mut self, peer: &Peer) {
        self.subscribers.remove(peer);
    }

    /// The connection to the management room is gone, and everybody there with it. A GeoServer has connections of its own.
    pub fn offline(&mut self) {
        self.subscribers.retain(Peer::is_legacy);
        // Nobody waits for the answers; who still wants it will ask again.
        self.weighing.retain(|_, (asking, _)| asking.is_legacy());
    }

    /// An orchestrator asks for an execution. One that is refused is never started: should its request come twice, the second
    /// one is refused as well.
    pub fn request(
        &mut self,
        from: Peer,
        request: Request,
        now: Duration,
        out: &mut Actions,
    ) -> Result<Answer, Refusal> {
        let execution = request.execution.clone();
        // A GeoServer asks again under the same name.
        let names_anew = !from.is_legacy();
        let answer = self.requested(from, request, now, out);
        if answer.is_err() && names_anew {
            self.barred.add(execution);
        }
        answer
    }

    fn requested(
        &mut self,
        from: Peer,
        request: Request,
        now: Duration,
        out: &mut Actions,
    ) -> Result<Answer, Refusal> {
        if self.finished.holds(&request.execution) {
            return Ok(Answer::Known);
        }
        if let Some(execution) = self.executions.get_mut(&request.execution) {
            if execution.originator != from && (from.is_legacy() || execution.originator.is_legacy()) {
                return Err(Refusal {
                    reason: RefusalReason::Undeliverable,
                    text: format!("execution `{}` belongs to another orchestrator", request.execution),
                });
            }
            // Asked again, perhaps by the orchestrator that took the job over: from now on it is told.
            execution.belongs_to(from);
            let answer = match &mut execution.state {
                State::Starting => Answer::Later,
                State::Running { .. } => Answer::Known,
                State::Ended(delivery) => {
                    delivery.hurry(now);
                    Answer::Known
                }
            };
            self.deliver(now, out);
            return Ok(answer);
        }
        if self.barred.holds(&request.execution) {
            return Err(too_late());
        }
        let weight = match self.processes.get(&request.process) {
            Some(process) => process.weight,
            None => {
                return Err(Refusal {
                    reason: RefusalReason::NoSuchProcess,
                    text: format!("process `{}` is not offered here", request.process),
                });
            }
        };
        if self.weighed.contains(&request.process) {
            return self.weigh(from, request, out);
        }
        self.take(from, Box::new(request), weight, out)?;
        Ok(Answer::Later)
    }

    /// An orchestrator wants an execution to end. Its end is told like every other; one that is not known here will not begin,
    /// should its request be late.
    pub fn abort(
        &mut self,
        execution: &ExecutionId,
        now: Duration,
        out: &mut Actions,
    ) -> Result<(), NotHeld> {
        if self.finished.holds(execution) {
            return Ok(());
        }
        if self.weighing.remove(execution).is_some() {
            self.barred.add(execution.clone());
            let text = "it was given up before it was taken".to_owned();
            out.push(Action::Refuse(execution.clone(), Refusal { reason: RefusalReason::Capacity, text }));
            return Ok(());
        }
        let Some(held) = self.executions.get_mut(execution) else {
            self.barred.add(execution.clone());
            return Err(NotHeld);
        };
        match &mut held.state {
            State::Starting | State::Running { .. } => out.push(Action::Abort(execution.clone())),
            State::Ended(delivery) => {
                delivery.hurry(now);
                self.deliver(now, out);
            }
        }
        Ok(())
    }

    /// An orchestrator has stored the ending. Said of a running execution it means nothing: its ending is still to come.
    pub fn finish(&mut self, execution: &ExecutionId, out: &mut Actions) -> Result<(), NotHeld> {
        if self.finished.holds(execution) {
            return Ok(());
        }
        let held = self.executions.get(execution).ok_or(NotHeld)?;
        if !held.is_live() {
            self.executions.remove(execution);
            self.finished.add(execution.clone());
            out.push(Action::Release(execution.clone()));
        }
        Ok(())
    }

    /// An orchestrator has no such job. Only the one that the execution belongs to can know.
    pub fn disowned(&mut self, by: &Peer, execution: &ExecutionId, out: &mut Actions) {
        if self.executions.get(execution).is_some_and(|held| held.originator == *by) {
            // Said of a running execution it means nothing, as in `finish`.
            let _ = self.finish(execution, out);
        }
    }

    /// An orchestrator says of an ending that another one has the job. If the execution was believed to be its own, it claimed
    /// it too late, and the other one was not told: everybody is, until somebody claims it anew.
    pub fn elsewhere(&mut self, by: &Peer, execution: &ExecutionId, now: Duration, out: &mut Actions) {
        // A job of a GeoServer is never taken over.
        let held =
            self.executions.get_mut(execution).filter(|held| held.originator == *by && !by.is_legacy());
        if let Some(Execution { state: State::Ended(delivery), .. }) = held
            && !delivery.for_anybody()
        {
            delivery.set_for_anybody(true);
            delivery.hurry(now);
            self.deliver(now, out);
        }
    }

    /// Something happened to an execution.
    pub fn happened(&mut self, id: &ExecutionId, event: Event, now: Duration, out: &mut Actions) {
        let Some(execution) = self.executions.get_mut(id) else { return };
        let listener = Some(execution.originator.clone()).filter(|peer| self.subscribers.contains(peer));
        let mut tell = |message| out.extend(listener.clone().map(|peer| Action::Send(peer, message)));
        match (event, &mut execution.state) {
            (Event::Started, State::Starting) => {
                execution.state = State::Running { percent: None };
                tell(FromAgent::Started { execution: id.clone() });
                out.push(Action::Taken(id.clone()));
            }
            (Event::Progress(percent), State::Running { percent: last }) => {
                *last = Some(percent);
                tell(progress(id, percent));
            }
            (Event::Log(level, text), State::Starting | State::Running { .. }) => {
                tell(FromAgent::Log { execution: id.clone(), level, text });
            }
            (Event::Ended(ending), State::Starting | State::Running { .. }) => {
                if matches!(execution.state, State::Starting) {
                    out.push(Action::Taken(id.clone()));
                }
                execution.state = State::Ended(Delivery::new(ending, now));
                self.deliver(now, out);
                self.announce(out);
            }
            // An execution has one ending; what comes after it, or twice, is an echo.
            (Event::Started | Event::Progress(_) | Event::Log(..) | Event::Ended(_), _) => {}
        }
    }

    /// An execution that a former agent has started; it is followed again.
    pub fn adopt(&mut self, id: ExecutionId, process: ProcessId, originator: Peer, weight: f64) {
        let state = State::Starting;
        self.executions.insert(id, Execution { process, originator, weight, state });
    }

    /// An ending that a former agent could not deliver.
    pub fn adopt_ended(
        &mut self,
        id: ExecutionId,
        process: ProcessId,
        originator: Peer,
        ending: Ending,
        now: Duration,
    ) {
        let state = State::Ended(Delivery::new(ending, now));
        self.executions.insert(id, Execution { process, originator, weight: 0.0, state });
    }

    /// An execution that a former agent has finished.
    pub fn adopt_finished(&mut self, id: ExecutionId) {
        self.finished.add(id);
    }

    /// What is offered is now this. Running executions of what is gone go on.
    pub fn offer(&mut self, processes: Vec<ProcessDescription>, out: &mut Actions) {
        let new: BTreeMap<ProcessId, ProcessDescription> =
            processes.into_iter().map(|process| (process.id.clone(), process)).collect();
        let gone: Vec<ProcessId> =
            self.processes.keys().filter(|id| !new.contains_key(*id)).cloned().collect();
        let changed: Vec<&ProcessDescription> =
            new.values().filter(|process| self.processes.get(&process.id) != Some(*process)).collect();
        for peer in &self.subscribers {
            for id in &gone {
                out.push(Action::Send(peer.clone(), FromAgent::Unregister(id.clone())));
            }
            for process in &changed {
                let message = FromAgent::Register(Box::new((*process).clone()));
                out.push(Action::Send(peer.clone(), message));
            }
        }
        self.processes = new;
    }

    /// What the host's load is now.
    pub fn measure(&mut self, measured: Measured, out: &mut Actions) {
        self.measured = measured;
        self.announce(out);
    }

    /// What the administrator allows is now this. What runs already goes on.
    pub fn configure(&mut self, settings: Settings, out: &mut Actions) {
        self.settings = settings;
        self.announce(out);
    }

    /// From now on no new work is taken, or it is again.
    pub fn drain(&mut self, draining: bool, out: &mut Actions) {
        self.draining = draining;
        self.announce(out);
    }

    /// Takes note of the time; gives the time at which this wants to be called again.
    pub fn tick(&mut self, now: Duration, out: &mut Actions) -> Option<Duration> {
        self.give_up(now, out);
        self.deliver(now, out);
        self.executions
            .values()
            .filter_map(|execution| match &execution.state {
                State::Ended(delivery) => Some(delivery.due()),
                State::Starting | State::Running { .. } => None,
            })
            .min()
    }

    /// What is announced of the load.
    pub fn load(&self) -> Load {
        admission::load(&self.settings, &self.measured, self.draining, &self.usage())
    }

    /// The process of an execution that is held.
    pub fn process_of(&self, execution: &ExecutionId) -> Option<&ProcessId> {
        self.executions.get(execution).map(|execution| &execution.process)
    }

    /// How many executions take capacity.
    pub fn live(&self) -> usize {
        self.executions.values().filter(|execution| execution.is_live()).count()
    }

    /// Everything held: live, or ended and not yet known to be stored.
    pub fn held(&self) -> Vec<ExecutionId> {
        self.executions.keys().cloned().collect()
    }

    /// A GeoServer that comes back has forgotten its jobs, and one that never does cannot be waited for for ever.
    fn give_up(&mut self, now: Duration, out: &mut Actions) {
        let keep = self.settings.keep_endings;
        let is_stale = |execution: &Execution| match &execution.state {
            State::Ended(delivery) => {
                execution.originator.is_legacy() && delivery.born().saturating_add(keep) <= now
            }
            State::Starting | State::Running { .. } => false,
        };
        let stale: Vec<ExecutionId> = self
            .executions
            .iter()
            .filter(|(_, execution)| is_stale(execution))
            .map(|(id, _)| id.clone())
            .collect();
        for id in stale {
            self.executions.remove(&id);
            self.finished.add(id.clone());
            out.push(Action::GiveUp(id));
        }
    }

    /// Sends every ending that is due: to its originator, or, while that one is away or has not got the job, to whoever is
    /// there, since a job can have been taken over. A job of a GeoServer is never taken over.
    fn deliver(&mut self, now: Duration, out: &mut Actions) {
        for (id, execution) in &mut self.executions {
            let State::Ended(delivery) = &mut execution.state else { continue };
            if delivery.due() > now {
                continue;
            }
            let to: Vec<Peer> = if self.subscribers.contains(&execution.originator) && !delivery.for_anybody()
            {
                vec![execution.originator.clone()]
            } else if execution.originator.is_legacy() {
                Vec::new()
            } else {
                self.subscribers.iter().filter(|peer| !peer.is_legacy()).cloned().collect()
            };
            let message = delivery.message(id);
            out.extend(to.iter().map(|peer| Action::Send(peer.clone(), message.clone())));
            delivery.sent(now, !to.is_empty());
        }
    }

    fn announce(&mut self, out: &mut Actions) {
        let load = self.load();
        let changed = self.announced.as_ref().is_none_or(|told| admission::differs(told, &load));
        if changed {
            self.announced = Some(load);
            out.push(Action::Announce);
        }
    }

    fn usage(&self) -> admission::Usage {
        let live = self.executions.values().filter(|execution| execution.is_live());
        live.fold(admission::Usage::default(), |sum, execution| admission::Usage {
            running: sum.running + 1,
            units: sum.units + execution.weight,
        })
    }
}

fn progress(id: &ExecutionId, percent: f64) -> FromAgent {
    FromAgent::Progress { execution: id.clone(), percent, message: String::new() }
}
