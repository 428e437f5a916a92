//! Which waiting job goes to which agent, and when. Knows the queue and the fleet; nothing here does I/O.

use wps_remote_protocol::{
    AgentId, ExecutionError, ExecutionId, Input, LogLevel, Refusal, Request, ToAgent, message::RefusalReason,
};

use super::due::Kind;
use super::fleet::Choice;
use super::job::{Execution, Failure, JobId, JobState, Timestamp, Waiting};
use super::terms::Bound;
use super::{Action, Engine};

/// First pause after a refusal, doubled with each further one up to [`MAX_BACKOFF_MS`].
const BACKOFF_MS: u64 = 2_000;
const MAX_BACKOFF_MS: u64 = 60_000;

fn resolved(input: &Input) -> Input {
    Input { id: input.id.clone(), value: input.value.resolved().clone() }
}

impl Engine {
    /// Sends what can be sent. Looks only at what has changed: agents that may take more than before, and classes of jobs that
    /// some agent may be able to take.
    pub(super) fn dispatch(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        let touched = self.fleet.take_touched();
        if self.queue.len() == 0 {
            return;
        }
        for id in touched {
            let Some(agent) = self.fleet.agent(&id) else { continue };
            for process in agent.processes.keys() {
                self.queue.reopen(process, &id, |class| self.fleet.fits(&id, class, now));
            }
        }
        while let Some((id, class)) = self.queue.next(|id| self.barred(id).is_none()) {
            let Some(among) = self.queue.candidates(&class) else { return };
            match self.fleet.choose(&class, among, now) {
                Ok(choice) => self.send(id, choice, now, out),
                Err(_) => self.queue.close(&class),
            }
        }
    }

    /// The limit for which a job may not run now.
    pub(super) fn barred(&self, id: JobId) -> Option<&Bound> {
        let bounds = &self.jobs.get(&id)?.terms.running;
        bounds.iter().find(|bound| !self.counts.may_run(&bound.scope, bound.max))
    }

    fn send(&mut self, id: JobId, choice: Choice, now: Timestamp, out: &mut Vec<Action>) {
        let Choice { agent, weight, why } = choice;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        self.queue.serve(id, job.terms.weight);
        self.counts.unqueued(&job.owner, &job.terms);
        self.due.clear(id, Kind::Queue);
        // A job that was stored by an older version knows its attempts only.
        job.sent = job.sent.max(job.attempts.into()).saturating_add(1);
        job.attempts = job.attempts.saturating_add(1);
        let execution =
            Execution { id: id.execution(job.sent), agent: agent.clone(), attempt: job.attempts, sent: now };
        job.agent = Some(agent.clone());
        job.state = JobState::Dispatched { execution: execution.clone() };
        job.note(now, LogLevel::Info, format!("sent to the agent `{agent}`: {why}"));
        job.chosen = Some(why);
        let request = Request {
            execution: execution.id.clone(),
            process: job.process.clone(),
            inputs: job.inputs.iter().map(resolved).collect(),
            base_url: self.base_url.clone(),
        };
        self.place(id, &execution, weight);
        self.save(id, out);
        out.push(Action::Send(agent, ToAgent::Request(Box::new(request))));
        out.push(Action::Notify(id));
    }

    /// An agent did not take a request: nothing was started, so the same attempt goes out again elsewhere or later, under
    /// another execution id.
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
        job.chosen = None;
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
                if let Some(agent) = self.fleet.agent(from) {
                    let pause = BACKOFF_MS.saturating_mul(1 << agent.refusals.min(10)).min(MAX_BACKOFF_MS);
                    self.fleet.pause(from, now.plus_ms(pause), refusal.text.clone());
                }
            }
        }
        if let Some(live) = live {
            self.requeue(id, &live, Waiting::Refused(refusal.text), now, out);
        }
        self.dispatch(now, out);
    }
}
