//! Where a job is counted: in the queue, at an agent, against its times. Each change of place goes through here, so that queue,
//! counts and deadlines agree with the state of the job.

use wps_remote_protocol::{LogLevel, ToAgent};

use super::due::Kind;
use super::job::{Execution, Failure, JobId, JobState, Span, Timestamp};
use super::{Action, Engine};

impl Engine {
    /// Puts a job into the queue, at its end or before all others, and notes until when it may be there.
    pub(super) fn enqueue(&mut self, id: JobId, front: bool, since: Timestamp) {
        let Some(job) = self.jobs.get(&id) else { return };
        if front {
            self.queue.push_front(&job.process, &job.owner, &job.terms, id);
        } else {
            self.queue.push_back(&job.process, &job.owner, &job.terms, id);
        }
        self.counts.queued(&job.owner, &job.terms);
        let longest = job.terms.queue_time.as_ref().map_or(self.limits.max_queue_ms, |span| span.ms);
        if longest > 0 {
            self.due.set(id, Kind::Queue, since.plus_ms(longest));
        }
        if let Some(total) = &job.terms.total_time {
            self.due.set(id, Kind::Total, job.created.plus_ms(total.ms));
        }
    }

    /// Takes a job out of the queue.
    pub(super) fn dequeue(&mut self, id: JobId) {
        if self.queue.remove(id)
            && let Some(job) = self.jobs.get(&id)
        {
            self.counts.unqueued(&job.owner, &job.terms);
        }
        self.due.clear(id, Kind::Queue);
    }

    /// An execution of a job is at an agent.
    pub(super) fn place(&mut self, id: JobId, execution: &Execution, weight: f64) {
        self.executions.insert(execution.id.clone(), id);
        self.placed.entry(execution.agent.clone()).or_default().insert(id);
        self.fleet.begin(&execution.agent, execution.id.clone(), weight);
        if let Some(job) = self.jobs.get(&id) {
            self.counts.begun(&job.owner, &job.terms);
        }
    }

    /// An execution of a job is no longer at its agent.
    pub(super) fn displace(&mut self, id: JobId, execution: &Execution) {
        if self.executions.remove(&execution.id).is_none() {
            return;
        }
        if let Some(jobs) = self.placed.get_mut(&execution.agent) {
            jobs.remove(&id);
            if jobs.is_empty() {
                self.placed.remove(&execution.agent);
            }
        }
        self.fleet.end(&execution.agent, &execution.id);
        self.due.clear(id, Kind::Run);
        if let Some(job) = self.jobs.get(&id) {
            self.counts.ended(&job.owner, &job.terms);
        }
    }

    /// Tells the agent of a job to end it.
    pub(super) fn abort(&mut self, id: JobId, now: Timestamp, out: &mut Vec<Action>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(execution) = job.state.execution().cloned() else { return };
        job.state = JobState::Dismissing { execution: execution.clone(), since: now };
        self.due.forget(id);
        self.dismissing.insert(id, now);
        self.save(id, out);
        if self.fleet.agent(&execution.agent).is_some() {
            out.push(Action::Send(execution.agent, ToAgent::Abort { execution: execution.id }));
        }
    }

    /// A time is over that a limit gives.
    pub(super) fn overdue(&mut self, id: JobId, kind: Kind, now: Timestamp, out: &mut Vec<Action>) {
        let waiting = self.waiting(id, now);
        let default = || Span { ms: self.limits.max_queue_ms, setting: "[limits] max_queue_time_s".into() };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let (what, span) = match kind {
            Kind::Queue => ("waited in the queue", job.terms.queue_time.clone().or_else(|| Some(default()))),
            Kind::Run => ("ran", job.terms.run_time.clone()),
            Kind::Total => ("waited and ran together", job.terms.total_time.clone()),
        };
        let Some(Span { ms, setting }) = span else { return };
        let mut text = format!("the job {what} for {} s, which is as long as `{setting}` allows", ms / 1000);
        match &waiting {
            Some(waiting) => text.push_str(&format!(" ({waiting}); ask for it again later")),
            None => text.push_str("; give it less to do"),
        }
        text.push_str(", or ask the operator for a higher limit");
        let failure = Failure::Overdue(text);
        match &job.state {
            JobState::Created | JobState::Accepted { .. } => {
                self.finish(id, JobState::Failed { failure, finished: now }, out);
            }
            JobState::Dispatched { execution } | JobState::Running { execution, .. } => {
                // It has completed already: only its files are still on their way.
                if self.collecting.contains(&execution.id) {
                    return;
                }
                job.note(now, LogLevel::Warning, failure.text());
                job.overdue = Some(failure);
                self.abort(id, now, out);
            }
            JobState::Dismissing { .. }
            | JobState::Successful { .. }
            | JobState::Failed { .. }
            | JobState::Dismissed { .. } => {}
        }
    }
}
