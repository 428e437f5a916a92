//! The orchestrator's engine: which jobs there are, where they run, what happens next. Pure and synchronous: events, time
//! and ids come in as arguments, actions go out; it knows no clock, no socket, no store.
//!
//! ```text
//!              execute                 a place is free               the program runs
//!   (client) ─────────► Accepted ───────────────────► Dispatched ─────────────────► Running
//!                          ▲  │ dismiss                   │  │ dismiss               │ │ dismiss
//!                          │  ▼                           │  ▼                       │ ▼
//!                          │ Dismissed ◄──────────── Dismissing ◄────────────────────┘ │
//!                          │           ended, or silent                                │
//!                          └── refused, or lost and repeatable ◄───────────────────────┤
//!                                                                                      ▼
//!                                                           completed and collected: Successful
//!                                                           error, lost for good:    Failed
//! ```
//!
//! Invariants, each a property test: a final state never changes; `Save` precedes every `Send` and `Notify` that it
//! justifies; one live execution per job; a message about an unknown or old execution changes nothing; the capacity of
//! no agent is exceeded; every accepted job reaches a final state if time goes on.

mod agent;
mod dispatch;
mod due;
mod executions;
mod explain;
pub mod fleet;
pub mod job;
mod ownership;
mod places;
mod queue;
pub mod terms;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use wps_remote_protocol::{AgentId, ExecutionId, LogLevel, ProcessDescription, ProcessId, ToAgent};

use due::Due;
use fleet::Fleet;
use job::{Failure, Form, Job, JobId, JobState, Timestamp, UserId, Waiting};
use queue::{Counts, Queue};
use terms::{Bound, Elsewhere, Scope, Terms};

pub use explain::{Explanation, sentence};

/// An agent that has not answered an invitation for so long is invited again.
const ASK_AGAIN_MS: u64 = 60_000;
/// An agent that is back just before it would have been given up has so long to say what it holds.
const RETURN_MS: u64 = 30_000;

/// Times and bounds, in milliseconds and numbers.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most jobs that may wait.
    pub max_queued: usize,
    /// Longest wait for an agent; 0 = for ever.
    pub max_queue_ms: u64,
    /// How long an agent may be away before its jobs count as lost.
    pub agent_lost_ms: u64,
    /// How long an agent that is present may take to confirm a dismissal.
    pub dismiss_ms: u64,
    /// How long processes stay listed when our own connection is down.
    pub offline_ms: u64,
    /// Most attempts of a repeatable job.
    pub max_attempts: u8,
    /// How long an ended job is kept; 0 = for ever.
    pub retention_ms: u64,
    /// How long an agent's report of its load is believed.
    pub stale_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_queued: 10_000,
            max_queue_ms: 24 * 3600 * 1000,
            agent_lost_ms: 300_000,
            dismiss_ms: 60_000,
            offline_ms: 20_000,
            max_attempts: 3,
            retention_ms: 7 * 24 * 3600 * 1000,
            stale_ms: 35_000,
        }
    }
}

/// What must happen now, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make this state of the job durable before anything that follows.
    Save(Box<Job>),
    /// The job changed in a way that may be stored a little later (progress, log).
    SaveSoon(JobId),
    /// Send it.
    Send(AgentId, ToAgent),
    /// Those who watch the job shall see it.
    Notify(JobId),
    /// Take the execution's files over into the result store, then call [`Engine::collected`].
    Collect(JobId, ExecutionId, wps_remote_protocol::Outputs),
    /// The execution's files in the shared folder are not needed (any more).
    Discard(ExecutionId),
    /// What was taken over into the result store for this job is not needed.
    DiscardResults(JobId),
    /// An agent names an execution that is not held here. What the store says of its job decides, see [`Question::answer`].
    Inquire(AgentId, ExecutionId, Question),
    /// The set of offered processes changed.
    Catalogue,
    /// The job is final and was saved; it is no longer held here.
    Release(JobId),
}

/// What an agent says of an execution that is not held here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// It has ended, and the agent waits until somebody has stored that.
    Ended,
    /// The agent holds it.
    Held,
}

impl Question {
    /// What to say to the agent, given the stored job of the execution. An execution whose job is another orchestrator's is
    /// left to that one; one that is over is not needed any more; and of one that nobody here has ever heard of nothing can
    /// be said but that.
    pub fn answer(self, execution: &ExecutionId, stored: Option<&Job>) -> Option<ToAgent> {
        let execution = execution.clone();
        match (self, stored) {
            (Self::Ended, None) => Some(ToAgent::Unknown { execution }),
            (Self::Held, None) => None,
            (question, Some(job)) if job.state.execution().is_some_and(|live| live.id == execution) => {
                (question == Self::Ended).then_some(ToAgent::Elsewhere { execution })
            }
            (Self::Ended, Some(_)) => Some(ToAgent::Finish { execution }),
            (Self::Held, Some(_)) => Some(ToAgent::Abort { execution }),
        }
    }
}

/// Everything that a new job is made of.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Its name.
    pub id: JobId,
    /// What it runs.
    pub description: Arc<ProcessDescription>,
    /// With what.
    pub inputs: wps_remote_protocol::Inputs,
    /// Which answer was asked for.
    pub form: Form,
    /// Whose it is.
    pub owner: UserId,
    /// The role by whose limits it is run, if its owner has one.
    pub role: Option<String>,
    /// Its limits.
    pub terms: Arc<Terms>,
}

impl Accepted {
    /// The job as it begins: not stored yet, and not sent.
    pub fn into_job(self, now: Timestamp) -> Job {
        Job {
            id: self.id,
            process: self.description.id.clone(),
            description: self.description,
            owner: self.owner,
            inputs: self.inputs,
            form: self.form,
            created: now,
            started: None,
            state: JobState::Accepted { waiting: Waiting::Turn },
            log: Vec::new(),
            expires: None,
            attempts: 0,
            sent: 0,
            agent: None,
            role: self.role,
            terms: self.terms,
            chosen: None,
            overdue: None,
            version: 0,
        }
    }
}

/// The queue is full, or what one user, role or process may have in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFull {
    /// Jobs that wait, of those that are counted.
    pub queued: usize,
    /// The limit, if it is not that of the whole queue.
    pub bound: Option<Box<Bound>>,
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    limits: Limits,
    base_url: String,
    jobs: BTreeMap<JobId, Job>,
    queue: Queue,
    /// How many jobs of whom run and wait.
    counts: Counts,
    due: Due,
    executions: HashMap<ExecutionId, JobId>,
    /// Active jobs by the agent of their live execution.
    placed: HashMap<AgentId, BTreeSet<JobId>>,
    collecting: HashSet<ExecutionId>,
    /// Jobs in `Dismissing`, and since when their agent could have confirmed that.
    dismissing: BTreeMap<JobId, Timestamp>,
    fleet: Fleet,
    /// Agents that hold executions of ours and have not said so since they were away.
    away: BTreeMap<AgentId, Away>,
    /// Agents that are present and have not been asked yet for jobs that were adopted.
    claims: BTreeSet<AgentId>,
    /// Set while our own connection is down: agents that were present then.
    offline: Option<(Timestamp, Vec<AgentId>)>,
}

/// The absence of an agent.
#[derive(Debug, Clone, Copy)]
struct Away {
    since: Timestamp,
    /// When it was seen again for the first time.
    returned: Option<Timestamp>,
}

impl Away {
    fn since(now: Timestamp) -> Self {
        Self { since: now, returned: None }
    }

    /// When its jobs are lost. One that comes and goes without a word gains nothing.
    fn over(self, lost_ms: u64) -> Timestamp {
        let over = self.since.plus_ms(lost_ms);
        self.returned.map_or(over, |at| over.max(at.plus_ms(RETURN_MS.min(lost_ms))))
    }
}

impl Engine {
    /// An engine without jobs and agents.
    pub fn new(limits: Limits, base_url: String) -> Self {
        Self {
            fleet: Fleet::new(limits.stale_ms),
            limits,
            base_url,
            jobs: BTreeMap::new(),
            queue: Queue::default(),
            counts: Counts::default(),
            due: Due::default(),
            executions: HashMap::new(),
            placed: HashMap::new(),
            collecting: HashSet::new(),
            dismissing: BTreeMap::new(),
            away: BTreeMap::new(),
            claims: BTreeSet::new(),
            offline: None,
        }
    }

    /// The agents that are present.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// An active job.
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// The active job whose live execution this is.
    pub fn job_of_execution(&self, execution: &ExecutionId) -> Option<&Job> {
        self.jobs.get(self.executions.get(execution)?)
    }

    /// An active job with a new version, to be stored because of what was said by [`Action::SaveSoon`].
    pub fn bump(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.get_mut(&id)?;
        job.version += 1;
        Some(job.clone())
    }

    /// All active jobs.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// How many jobs wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// A client wants a process to be executed.
    pub fn execute(&mut self, new: Accepted, now: Timestamp, out: &mut Vec<Action>) -> Result<(), QueueFull> {
        if self.queue.len() >= self.limits.max_queued {
            return Err(QueueFull { queued: self.queue.len(), bound: None });
        }
        for bound in &new.terms.queued {
            let queued = self.counts.total(&bound.scope).queued;
            if queued >= bound.max {
                let bound = Some(Box::new(bound.clone()));
                return Err(QueueFull { queued: usize::try_from(queued).unwrap_or(usize::MAX), bound });
            }
        }
        let id = new.id;
        self.jobs.insert(id, new.into_job(now));
        self.enqueue(id, false, now);
        let first = out.len();
        self.dispatch(now, out);
        // One write is enough when the job could be sent at once; else it comes before whatever was said about the job.
        let waiting = self.waiting(id, now);
        if let (Some(Job { state: JobState::Accepted { waiting: known }, .. }), Some(waiting)) =
            (self.jobs.get_mut(&id), waiting)
        {
            *known = waiting;
            let mut save = Vec::new();
            self.save(id, &mut save);
            save.push(Action::Notify(id));
            out.splice(first..first, save);
        }
        Ok(())
    }

    /// A client gives a job up. `false` = it is not active (any more).
    pub fn dismiss(&mut self, id: JobId, now: Timestamp, out: &mut Vec<Action>) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else { return false };
        match &job.state {
            JobState::Created | JobState::Accepted { .. } => {
                self.finish(id, JobState::Dismissed { finished: now, receipt: None }, out);
                // Somebody else may have waited for its turn.
                self.dispatch(now, out);
            }
            JobState::Dispatched { .. } | JobState::Running { .. } => {
                job.note(now, LogLevel::Info, "dismissed by the client");
                self.abort(id, now, out);
            }
            JobState::Dismissing { .. } => {}
            JobState::Successful { .. } | JobState::Failed { .. } | JobState::Dismissed { .. } => {
                return false;
            }
        }
        true
    }

    /// A new job could not be stored: it never was.
    pub fn forget(&mut self, id: JobId) {
        self.dequeue(id);
        if let Some(execution) = self.jobs.get(&id).and_then(|job| job.state.execution()).cloned() {
            self.displace(id, &execution);
        }
        self.due.forget(id);
        self.jobs.remove(&id);
    }

    /// The agents that the operator has taken out of service, present or not, and why. They get nothing new.
    pub fn set_drained(&mut self, drained: BTreeMap<AgentId, String>, now: Timestamp, out: &mut Vec<Action>) {
        self.fleet.set_drained(drained);
        self.dispatch(now, out);
    }

    /// What other orchestrators of the same store run and have waiting.
    pub fn set_elsewhere(
        &mut self,
        elsewhere: HashMap<Scope, Elsewhere>,
        now: Timestamp,
        out: &mut Vec<Action>,
    ) {
        if self.counts.set_elsewhere(elsewhere) {
            self.dispatch(now, out);
        }
    }

    /// An agent is present.
    pub fn agent_joined(&mut self, agent: &AgentId, now: Timestamp, out: &mut Vec<Action>) {
        let was_listed = match &mut self.offline {
            // After an outage of our own an agent keeps its processes listed until it has told them anew.
            Some((_, present)) => {
                present.retain(|other| other != agent);
                self.fleet.agent(agent).map(|a| a.processes.values().cloned().collect::<Vec<_>>())
            }
            None => None,
        };
        if self.offline.as_ref().is_some_and(|(_, present)| present.is_empty()) {
            self.offline = None;
        }
        let changed = self.fleet.join(agent);
        for process in was_listed.into_iter().flatten() {
            self.fleet.register(agent, process.as_ref().clone());
        }
        for id in self.placed.get(agent).into_iter().flatten() {
            if let Some(job) = self.jobs.get(id)
                && let Some(execution) = job.state.execution()
            {
                self.fleet.begin(agent, execution.id.clone(), job.description.weight);
            }
        }
        if changed {
            out.push(Action::Catalogue);
        }
        if let Some(away) = self.away.get_mut(agent) {
            away.returned = away.returned.or(Some(now));
        }
        self.invite(agent, now, out);
    }

    /// An agent has gone.
    pub fn agent_left(&mut self, agent: &AgentId, now: Timestamp, out: &mut Vec<Action>) {
        self.gone(agent, now, out);
        self.dispatch(now, out);
    }

    fn gone(&mut self, agent: &AgentId, now: Timestamp, out: &mut Vec<Action>) {
        if self.fleet.leave(agent) {
            out.push(Action::Catalogue);
        }
        if let Some((_, present)) = &mut self.offline {
            present.retain(|other| other != agent);
        }
        self.mark_away(agent, now, out);
    }

    /// Our own connection to the bus is down: all agents are out of reach, but most will be back with it.
    pub fn disconnected(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        let present: Vec<AgentId> = self.fleet.agents().map(|a| a.id.clone()).collect();
        for agent in &present {
            if let Some(agent) = self.fleet.agent_mut(agent) {
                agent.ready = false;
            }
            self.mark_away(agent, now, out);
        }
        if !present.is_empty() {
            self.offline = Some((now, present));
        }
    }

    fn mark_away(&mut self, agent: &AgentId, now: Timestamp, out: &mut Vec<Action>) {
        let mut any = false;
        for id in self.placed.get(agent).into_iter().flatten() {
            let Some(job) = self.jobs.get_mut(id) else { continue };
            any = true;
            if let JobState::Running { lost_since: since @ None, .. } = &mut job.state {
                *since = Some(now);
                job.note(now, LogLevel::Warning, format!("the agent `{agent}` is away"));
                out.push(Action::SaveSoon(job.id));
                out.push(Action::Notify(job.id));
            }
        }
        if any {
            self.away.entry(agent.clone()).or_insert(Away::since(now));
        }
    }

    fn finish(&mut self, id: JobId, state: JobState, out: &mut Vec<Action>) {
        self.dequeue(id);
        if let Some(execution) = self.jobs.get(&id).and_then(|job| job.state.execution()).cloned() {
            self.displace(id, &execution);
        }
        self.due.forget(id);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.state = match (state, job.overdue.take()) {
            // It was not its client that gave it up.
            (JobState::Dismissed { finished, receipt }, Some(failure)) => {
                if let Some(receipt) = receipt {
                    job.note(finished, LogLevel::Info, receipt.to_string());
                }
                JobState::Failed { failure, finished }
            }
            (state, _) => state,
        };
        let kept = self.limits.retention_ms;
        job.expires = job.finished().filter(|_| kept > 0).map(|finished| finished.plus_ms(kept));
        self.dismissing.remove(&id);
        self.save(id, out);
        out.push(Action::Notify(id));
        out.push(Action::Release(id));
        self.jobs.remove(&id);
    }

    fn save(&mut self, id: JobId, out: &mut Vec<Action>) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.version += 1;
            out.push(Action::Save(Box::new(job.clone())));
        }
    }

    /// Time has passed. Returns the next moment at which something is due.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Action>) -> Option<Timestamp> {
        if let Some((since, present)) = self.offline.clone()
            && now >= since.plus_ms(self.limits.offline_ms)
        {
            self.offline = None;
            for agent in present {
                self.gone(&agent, now, out);
            }
        }
        let overdue: Vec<AgentId> = self
            .away
            .iter()
            .filter(|(_, away)| now >= away.over(self.limits.agent_lost_ms))
            .map(|(agent, _)| agent.clone())
            .collect();
        for agent in overdue {
            self.away.remove(&agent);
            for id in self.jobs_at(&agent) {
                self.lost(id, Failure::AgentLost(agent.clone()), now, out);
            }
        }
        let unanswered: Vec<AgentId> = self
            .fleet
            .agents()
            .filter(|agent| agent.asked.is_some_and(|since| now >= since.plus_ms(ASK_AGAIN_MS)))
            .map(|agent| agent.id.clone())
            .collect();
        for agent in unanswered {
            self.invite(&agent, now, out);
        }
        let patience = self.limits.dismiss_ms;
        let silent: Vec<JobId> = self
            .dismissals()
            .filter(|(_, since, agent)| now >= since.plus_ms(patience) && !self.away.contains_key(agent))
            .map(|(id, ..)| id)
            .collect();
        for id in silent {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.note(
                    now,
                    LogLevel::Warning,
                    "the agent did not confirm in time that the execution has ended",
                );
            }
            self.finish(id, JobState::Dismissed { finished: now, receipt: None }, out);
        }
        while let Some((id, kind)) = self.due.pop(now) {
            self.overdue(id, kind, now, out);
        }
        self.fleet.end_pauses(now);
        self.dispatch(now, out);
        self.next_deadline()
    }

    /// Jobs that are being dismissed: since when, and where.
    fn dismissals(&self) -> impl Iterator<Item = (JobId, Timestamp, &AgentId)> {
        self.dismissing.iter().filter_map(|(id, since)| match &self.jobs.get(id)?.state {
            JobState::Dismissing { execution, .. } => Some((*id, *since, &execution.agent)),
            _ => None,
        })
    }

    fn jobs_at(&self, agent: &AgentId) -> Vec<JobId> {
        self.placed.get(agent).into_iter().flatten().copied().collect()
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let away = self.away.values().map(|away| away.over(self.limits.agent_lost_ms));
        let offline = self.offline.iter().map(|(since, _)| since.plus_ms(self.limits.offline_ms));
        let asked = self.fleet.agents().filter_map(|a| a.asked).map(|since| since.plus_ms(ASK_AGAIN_MS));
        let refused = self.fleet.next_pause();
        let dismissing = self
            .dismissals()
            .filter(|(_, _, agent)| !self.away.contains_key(agent))
            .map(|(_, since, _)| since.plus_ms(self.limits.dismiss_ms));
        away.chain(offline).chain(asked).chain(refused).chain(dismissing).chain(self.due.next()).min()
    }

    /// Whether the process is offered by anybody at this moment.
    pub fn offers(&self, process: &ProcessId) -> bool {
        self.fleet.offers(process)
    }
}

#[cfg(test)]
mod tests;
