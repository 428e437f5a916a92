//! Which waiting job goes to which agent, and when. Knows the queue and the fleet; nothing here does I/O.

use std::collections::{BTreeMap, VecDeque};

use wps_remote_protocol::{
    AgentId, ExecutionError, ExecutionId, Input, LogLevel, ProcessId, Refusal, Request, ToAgent,
    message::RefusalReason,
};

use super::fleet::Unfit;
use super::job::{Execution, Failure, JobId, JobState, Timestamp, Waiting};
use super::{Action, Engine};

/// First pause after a refusal, doubled with each further one up to [`MAX_BACKOFF_MS`].
const BACKOFF_MS: u64 = 2_000;
const MAX_BACKOFF_MS: u64 = 60_000;

/// Waiting jobs: one line per process, first in, first out, so that a process without agents holds up no other.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lines: BTreeMap<ProcessId, Line>,
    len: usize,
}

#[derive(Debug)]
struct Line {
    jobs: VecDeque<(JobId, Timestamp)>,
    waiting: Waiting,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn line(&mut self, process: ProcessId) -> &mut Line {
        self.lines.entry(process).or_insert_with(|| Line { jobs: VecDeque::new(), waiting: Waiting::Turn })
    }

    pub(super) fn push_back(&mut self, process: ProcessId, id: JobId, since: Timestamp) {
        self.line(process).jobs.push_back((id, since));
        self.len += 1;
    }

    pub(super) fn push_front(&mut self, process: ProcessId, id: JobId, since: Timestamp) {
        self.line(process).jobs.push_front((id, since));
        self.len += 1;
    }

    pub(super) fn remove(&mut self, process: &ProcessId, id: JobId) {
        if let Some(line) = self.lines.get_mut(process) {
            let before = line.jobs.len();
            line.jobs.retain(|(other, _)| *other != id);
            self.len -= before - line.jobs.len();
            if line.jobs.is_empty() {
                self.lines.remove(process);
            }
        }
    }

    fn pop(&mut self, process: &ProcessId) {
        if let Some(line) = self.lines.get_mut(process) {
            if line.jobs.pop_front().is_some() {
                self.len -= 1;
            }
            if line.jobs.is_empty() {
                self.lines.remove(process);
            }
        }
    }

    /// Takes out the jobs that have waited longer than allowed.
    pub(super) fn older_than(&mut self, now: Timestamp, limit_ms: u64) -> Vec<JobId> {
        let mut old = Vec::new();
        for line in self.lines.values_mut() {
            while let Some((id, since)) = line.jobs.front().copied() {
                if now < since.plus_ms(limit_ms) {
                    break;
                }
                line.jobs.pop_front();
                old.push(id);
            }
        }
        self.lines.retain(|_, line| !line.jobs.is_empty());
        self.len -= old.len();
        old
    }

    /// The wall clock was set, by so many milliseconds.
    pub(super) fn clock_set(&mut self, by_ms: i64) {
        for (_, since) in self.lines.values_mut().flat_map(|line| line.jobs.iter_mut()) {
            *since = since.shifted_ms(by_ms);
        }
    }

    /// Since when the oldest job waits.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.lines.values().filter_map(|line| line.jobs.front().map(|(_, since)| *since)).min()
    }
}

fn resolved(input: &Input) -> Input {
    Input { id: input.id.clone(), value: input.value.resolved().clone() }
}

impl Engine {
    /// Sends what can be sent.
    pub(super) fn dispatch(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        if self.queue.len == 0 {
            return;
        }
        let processes: Vec<ProcessId> = self.queue.lines.keys().cloned().collect();
        for process in processes {
            while let Some((id, _)) =
                self.queue.lines.get(&process).and_then(|line| line.jobs.front()).copied()
            {
                match self.fleet.choose(&process, now) {
                    Ok((agent, weight)) => {
                        self.queue.pop(&process);
                        self.send(id, agent, weight, now, out);
                    }
                    Err(unfit) => {
                        let waiting = match unfit {
                            None => Waiting::NoAgent,
                            Some(Unfit::Busy) => Waiting::AllBusy,
                            Some(Unfit::NotAccepting) => self
                                .fleet
                                .reasons(&process, now)
                                .map_or(Waiting::NotAccepting, Waiting::Declined),
                        };
                        self.explain(&process, waiting, out);
                        break;
                    }
                }
            }
        }
    }

    fn send(&mut self, id: JobId, agent: AgentId, weight: f64, now: Timestamp, out: &mut Vec<Action>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.attempts = job.attempts.saturating_add(1);
        let execution = Execution {
            id: id.execution(job.attempts),
            agent: agent.clone(),
            attempt: job.attempts,
            sent: now,
        };
        job.agent = Some(execution.agent.clone());
        job.state = JobState::Dispatched { execution: execution.clone() };
        job.note(now, LogLevel::Info, format!("sent to the agent `{agent}`"));
        let request = Request {
            execution: execution.id.clone(),
            process: job.process.clone(),
            inputs: job.inputs.iter().map(resolved).collect(),
            base_url: self.base_url.clone(),
        };
        self.executions.insert(execution.id.clone(), id);
        self.fleet.begin(&agent, execution.id, weight);
        self.save(id, out);
        out.push(Action::Send(agent, ToAgent::Request(Box::new(request))));
        out.push(Action::Notify(id));
    }

    /// Tells the jobs of one line why they wait, when the reason changed or a job does not know it yet.
    fn explain(&mut self, process: &ProcessId, waiting: Waiting, out: &mut Vec<Action>) {
        let Some(line) = self.queue.lines.get_mut(process) else { return };
        let changed = line.waiting != waiting;
        line.waiting = waiting.clone();
        // Without a change only the newest job can be without the reason: the others were told before.
        let newest = line.jobs.len().saturating_sub(1);
        let told = line.jobs.iter().skip(if changed { 0 } else { newest });
        for (id, _) in told {
            if let Some(job) = self.jobs.get_mut(id)
                && let JobState::Accepted { waiting: known } = &mut job.state
                && *known != waiting
            {
                *known = waiting.clone();
                out.push(Action::Notify(*id));
            }
        }
    }

    /// An agent did not take a request: nothing was started, so the same attempt goes out again elsewhere or later.
    pub(super) fn refused(
        &mut self,
        from: &AgentId,
        execution: ExecutionId,
        refusal: Refusal,
        now: Timestamp,
        out: &mut Vec<Action>,
    ) {
        let Some(id) = self.job_of(from, &execution) else { return };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let process = job.process.clone();
        match &job.state {
            JobState::Dismissing { .. } => {
                self.finish(id, JobState::Dismissed { finished: now, receipt: None }, out);
                return;
            }
            JobState::Dispatched { .. } => {}
            // Once it runs, a late refusal is an echo of an old message.
            _ => return,
        }
        let live = job.state.execution().cloned();
        job.attempts = job.attempts.saturating_sub(1);
        job.agent = None;
        job.note(now, LogLevel::Info, format!("the agent `{from}` refused the job: {}", refusal.text));
        match refusal.reason {
            RefusalReason::Undeliverable => {
                let error = ExecutionError {
                    kind: wps_remote_protocol::ErrorKind::NotStarted,
                    text: refusal.text,
                    receipt: None,
                };
                self.finish(id, JobState::Failed { failure: Failure::Execution(error), finished: now }, out);
                return;
            }
            RefusalReason::NoSuchProcess => {
                if self.fleet.unregister(from, &process) {
                    out.push(Action::Catalogue);
                }
            }
            RefusalReason::Capacity
            | RefusalReason::Load
            | RefusalReason::Blacklist
            | RefusalReason::Draining => {
                if let Some(agent) = self.fleet.agent_mut(from) {
                    let pause = BACKOFF_MS.saturating_mul(1 << agent.refusals.min(10)).min(MAX_BACKOFF_MS);
                    agent.refusals = agent.refusals.saturating_add(1);
                    agent.refused_until = now.plus_ms(pause);
                    agent.refused = Some(refusal.text.clone());
                }
            }
        }
        if let Some(live) = live {
            self.requeue(id, &live, Waiting::Refused(refusal.text), now, out);
        }
        self.dispatch(now, out);
    }
}
