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

mod dispatch;
mod executions;
pub mod fleet;
pub mod job;
mod ownership;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use wps_remote_protocol::{AgentId, ExecutionId, LogLevel, ProcessDescription, ProcessId, ToAgent};

use dispatch::Queue;
use fleet::Fleet;
use job::{Failure, Form, Job, JobId, JobState, Timestamp, UserId, Waiting};

/// An agent that has not answered an invitation for so long is invited again.
const ASK_AGAIN_MS: u64 = 60_000;

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
}

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull {
    /// Jobs that wait.
    pub queued: usize,
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    limits: Limits,
    base_url: String,
    jobs: BTreeMap<JobId, Job>,
    queue: Queue,
    executions: HashMap<ExecutionId, JobId>,
    collecting: HashSet<ExecutionId>,
    /// Jobs in `Dismissing`, and since when their agent could have confirmed that.
    dismissing: HashMap<JobId, Timestamp>,
    fleet: Fleet,
    /// Agents that hold executions of ours and are not present, since when.
    away: BTreeMap<AgentId, Timestamp>,
    /// Agents that are present and have not been asked yet for jobs that were adopted.
    claims: BTreeSet<AgentId>,
    /// Set while our own connection is down: agents that were present then.
    offline: Option<(Timestamp, Vec<AgentId>)>,
}

impl Engine {
    /// An engine without jobs and agents.
    pub fn new(limits: Limits, base_url: String) -> Self {
        Self {
            limits,
            base_url,
            jobs: BTreeMap::new(),
            queue: Queue::default(),
            executions: HashMap::new(),
            collecting: HashSet::new(),
            dismissing: HashMap::new(),
            fleet: Fleet::default(),
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
            return Err(QueueFull { queued: self.queue.len() });
        }
        let id = new.id;
        let process = new.description.id.clone();
        self.jobs.insert(
            id,
            Job {
                id,
                process: process.clone(),
                description: new.description,
                owner: new.owner,
                inputs: new.inputs,
                form: new.form,
                created: now,
                started: None,
                state: JobState::Accepted { waiting: Waiting::Turn },
                log: Vec::new(),
                expires: None,
                attempts: 0,
                agent: None,
                version: 0,
            },
        );
        self.queue.push_back(process, id, now);
        let first = out.len();
        self.dispatch(now, out);
        // One write is enough when the job could be sent at once; else it comes before whatever was said about the job.
        if matches!(self.jobs.get(&id).map(|job| &job.state), Some(JobState::Accepted { .. })) {
            let mut save = Vec::new();
            self.save(id, &mut save);
            out.splice(first..first, save);
        }
        Ok(())
    }

    /// A client gives a job up. `false` = it is not active (any more).
    pub fn dismiss(&mut self, id: JobId, now: Timestamp, out: &mut Vec<Action>) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else { return false };
        match &job.state {
            JobState::Created | JobState::Accepted { .. } => {
                self.queue.remove(&job.process.clone(), id);
                self.finish(id, JobState::Dismissed { finished: now, receipt: None }, out);
            }
            JobState::Dispatched { execution } | JobState::Running { execution, .. } => {
                let execution = execution.clone();
                job.note(now, LogLevel::Info, "dismissed by the client");
                job.state = JobState::Dismissing { execution: execution.clone(), since: now };
                self.dismissing.insert(id, now);
                self.save(id, out);
                if self.fleet.agent(&execution.agent).is_some() {
                    out.push(Action::Send(execution.agent, ToAgent::Abort { execution: execution.id }));
                }
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
        if let Some(job) = self.jobs.remove(&id) {
            self.queue.remove(&job.process, id);
            if let Some(execution) = job.state.execution() {
                self.executions.remove(&execution.id);
                self.fleet.end(&execution.agent, &execution.id);
            }
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
        for job in self.jobs.values() {
            if let Some(execution) = job.state.execution().filter(|e| e.agent == *agent) {
                self.fleet.begin(agent, execution.id.clone(), job.description.weight);
            }
        }
        if changed {
            out.push(Action::Catalogue);
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
        for job in self.jobs.values_mut() {
            if job.state.execution().is_none_or(|e| e.agent != *agent) {
                continue;
            }
            any = true;
            if let JobState::Running { lost_since: since @ None, .. } = &mut job.state {
                *since = Some(now);
                job.note(now, LogLevel::Warning, format!("the agent `{agent}` is away"));
                out.push(Action::SaveSoon(job.id));
                out.push(Action::Notify(job.id));
            }
        }
        if any {
            self.away.entry(agent.clone()).or_insert(now);
        }
    }

    fn finish(&mut self, id: JobId, state: JobState, out: &mut Vec<Action>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Some(execution) = job.state.execution() {
            self.executions.remove(&execution.id);
            self.fleet.end(&execution.agent, &execution.id);
        }
        job.state = state;
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
            .filter(|(_, since)| now >= since.plus_ms(self.limits.agent_lost_ms))
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
        if self.limits.max_queue_ms > 0 {
            for id in self.queue.older_than(now, self.limits.max_queue_ms) {
                self.finish(id, JobState::Failed { failure: Failure::NoAgent, finished: now }, out);
            }
        }
        self.dispatch(now, out);
        self.next_deadline(now)
    }

    /// Jobs that are being dismissed: since when, and where.
    fn dismissals(&self) -> impl Iterator<Item = (JobId, Timestamp, &AgentId)> {
        self.dismissing.iter().filter_map(|(id, since)| match &self.jobs.get(id)?.state {
            JobState::Dismissing { execution, .. } => Some((*id, *since, &execution.agent)),
            _ => None,
        })
    }

    fn jobs_at(&self, agent: &AgentId) -> Vec<JobId> {
        let at = |job: &&Job| job.state.execution().is_some_and(|e| e.agent == *agent);
        self.jobs.values().filter(at).map(|job| job.id).collect()
    }

    fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let away = self.away.values().map(|since| since.plus_ms(self.limits.agent_lost_ms));
        let offline = self.offline.iter().map(|(since, _)| since.plus_ms(self.limits.offline_ms));
        let asked = self.fleet.agents().filter_map(|a| a.asked).map(|since| since.plus_ms(ASK_AGAIN_MS));
        let refused = self.fleet.agents().map(|a| a.refused_until).filter(|at| *at > now);
        let dismissing = self
            .dismissals()
            .filter(|(_, _, agent)| !self.away.contains_key(agent))
            .map(|(_, since, _)| since.plus_ms(self.limits.dismiss_ms));
        let queued = (self.limits.max_queue_ms > 0)
            .then(|| self.queue.oldest().map(|at| at.plus_ms(self.limits.max_queue_ms)))
            .flatten();
        away.chain(offline).chain(asked).chain(refused).chain(dismissing).chain(queued).min()
    }

    /// Whether the process is offered by anybody at this moment.
    pub fn offers(&self, process: &ProcessId) -> bool {
        self.fleet.offers(process)
    }
}

#[cfg(test)]
mod tests;
