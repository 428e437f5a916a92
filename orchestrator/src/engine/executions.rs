//! What agents say about executions, and what becomes of the jobs: started, progress, completed, failed, lost. The other
//! half of the engine, apart only for its length.

use wps_remote_protocol::{
    AgentId, Content, ErrorKind, ExecutionError, ExecutionId, FromAgent, LogLevel, Outputs, ToAgent, Value,
};

use super::due::Kind;
use super::job::{Execution, Failure, Job, JobId, JobState, Timestamp, Waiting};
use super::{Action, Engine, Question};

impl Engine {
    /// A message from an agent.
    pub fn receive(&mut self, from: &AgentId, message: FromAgent, now: Timestamp, out: &mut Vec<Action>) {
        match message {
            FromAgent::Register(description) => {
                if self.fleet.register(from, *description) {
                    out.push(Action::Catalogue);
                }
                self.dispatch(now, out);
            }
            FromAgent::Unregister(process) => {
                if self.fleet.unregister(from, &process) {
                    out.push(Action::Catalogue);
                }
            }
            FromAgent::Executions { held, unknown } => self.reconcile(from, &held, &unknown, now, out),
            FromAgent::Load(load) => {
                self.fleet.report(from, load, now);
                self.dispatch(now, out);
            }
            FromAgent::Started { execution } => {
                // A request that was late, perhaps, of a job that has been given up meanwhile.
                if self.job_of(from, &execution).is_none() {
                    out.push(Action::Inquire(from.clone(), execution, Question::Held));
                } else {
                    self.alive(from, &execution, now, out);
                }
            }
            FromAgent::Progress { execution, percent, message } => {
                if let Some(job) = self.alive(from, &execution, now, out)
                    && let JobState::Running { percent: known, message: text, .. } = &mut job.state
                {
                    // Never falling: clients take a falling figure for a fault.
                    *known = (*known).max(percent.clamp(0.0, 100.0).floor() as u8);
                    *text = message;
                    let id = job.id;
                    out.push(Action::SaveSoon(id));
                    out.push(Action::Notify(id));
                }
            }
            FromAgent::Log { execution, level, text } => {
                if let Some(job) = self.alive(from, &execution, now, out) {
                    job.note(now, level, text);
                    let id = job.id;
                    out.push(Action::SaveSoon(id));
                    out.push(Action::Notify(id));
                }
            }
            FromAgent::Completed { execution, outputs } => self.completed(from, execution, outputs, now, out),
            FromAgent::Error { execution, error } => self.failed(from, execution, error, now, out),
            FromAgent::CannotExecute { execution, refusal } => {
                self.refused(from, execution, refusal, now, out)
            }
        }
    }

    /// The job of an execution that runs at this agent; brings it to `Running` and ends its being lost.
    pub(super) fn alive(
        &mut self,
        from: &AgentId,
        execution: &ExecutionId,
        now: Timestamp,
        out: &mut Vec<Action>,
    ) -> Option<&mut Job> {
        let id = self.job_of(from, execution)?;
        let job = self.jobs.get_mut(&id)?;
        match &mut job.state {
            JobState::Dispatched { execution } => {
                let execution = execution.clone();
                if let Some(agent) = self.fleet.agent_mut(from) {
                    agent.refusals = 0;
                }
                if let Some(longest) = &job.terms.run_time {
                    self.due.set(id, Kind::Run, now.plus_ms(longest.ms));
                }
                job.started = job.started.or(Some(now));
                job.state =
                    JobState::Running { execution, percent: 0, message: String::new(), lost_since: None };
                out.push(Action::SaveSoon(id));
                out.push(Action::Notify(id));
            }
            JobState::Running { lost_since: since @ Some(_), .. } => {
                *since = None;
                job.note(now, LogLevel::Info, format!("the agent `{from}` is back"));
                out.push(Action::SaveSoon(id));
                out.push(Action::Notify(id));
            }
            JobState::Running { .. } => {}
            JobState::Created
            | JobState::Accepted { .. }
            | JobState::Dismissing { .. }
            | JobState::Successful { .. }
            | JobState::Failed { .. }
            | JobState::Dismissed { .. } => return None,
        }
        Some(job)
    }

    /// The active job whose live execution this is, if it runs at this agent.
    pub(super) fn job_of(&self, from: &AgentId, execution: &ExecutionId) -> Option<JobId> {
        let id = *self.executions.get(execution)?;
        let live = self.jobs.get(&id)?.state.execution()?;
        (live.id == *execution && live.agent == *from).then_some(id)
    }

    /// What the agent holds, and what of ours it does not: that has been lost there, or never arrived and never will.
    fn reconcile(
        &mut self,
        from: &AgentId,
        held: &[ExecutionId],
        unknown: &[ExecutionId],
        now: Timestamp,
        out: &mut Vec<Action>,
    ) {
        let Some(agent) = self.fleet.agent_mut(from) else { return };
        agent.ready = true;
        let mut unclear = std::mem::take(&mut agent.unclear);
        self.fleet.touch(from);
        self.away.remove(from);
        for execution in held {
            let Some(id) = self.job_of(from, execution) else {
                out.push(Action::Inquire(from.clone(), execution.clone(), Question::Held));
                continue;
            };
            match self.jobs.get(&id).map(|job| &job.state) {
                // First thing on its return. Its time for a confirmation begins now.
                Some(JobState::Dismissing { .. }) => {
                    self.dismissing.insert(id, now);
                    out.push(Action::Send(from.clone(), ToAgent::Abort { execution: execution.clone() }));
                }
                Some(JobState::Running { lost_since: Some(_), .. }) => {
                    self.alive(from, execution, now, out);
                }
                _ => {}
            }
        }
        for execution in unknown {
            if let Some(id) = self.job_of(from, execution) {
                self.lost(id, Failure::Interrupted(format!("the agent `{from}` lost it")), now, out);
            }
        }
        // Of jobs that were claimed after this answer had been asked for it says nothing: the agent still owes us that.
        unclear.retain(|id| !held.contains(id) && !unknown.contains(id) && self.job_of(from, id).is_some());
        if let Some(agent) = self.fleet.agent_mut(from) {
            if unclear.is_empty() {
                agent.asked = None;
            }
            agent.unclear = unclear;
        }
        self.dispatch(now, out);
    }

    fn completed(
        &mut self,
        from: &AgentId,
        execution: ExecutionId,
        outputs: Outputs,
        now: Timestamp,
        out: &mut Vec<Action>,
    ) {
        let Some(id) = self.job_of(from, &execution) else {
            out.push(Action::Inquire(from.clone(), execution, Question::Ended));
            return;
        };
        if matches!(self.jobs.get(&id).map(|job| &job.state), Some(JobState::Dismissing { .. })) {
            self.finish(id, JobState::Dismissed { finished: now, receipt: None }, out);
            out.push(Action::Discard(execution.clone()));
            out.push(Action::Send(from.clone(), ToAgent::Finish { execution }));
            self.dispatch(now, out);
            return;
        }
        if let Some(job) = self.alive(from, &execution, now, out) {
            job.started = job.started.or(Some(now));
        }
        if let Some(why) = self.too_much(id, &outputs) {
            self.finish(id, JobState::Failed { failure: Failure::Results(why), finished: now }, out);
            out.push(Action::Discard(execution.clone()));
            out.push(Action::Send(from.clone(), ToAgent::Finish { execution }));
            self.dispatch(now, out);
        } else if self.collecting.insert(execution.clone()) {
            out.push(Action::Collect(id, execution, outputs));
        }
    }

    /// Why a job gives out more than it may.
    fn too_much(&self, id: JobId, outputs: &Outputs) -> Option<String> {
        let limit = self.jobs.get(&id)?.terms.output.as_ref()?;
        let size = |value: &Value| match value {
            Value::Complex { content: Content::Shared(file), .. } => file.bytes,
            other => u64::try_from(other.inline_bytes()).unwrap_or(u64::MAX),
        };
        let bytes = outputs.iter().map(|output| size(&output.value)).fold(0, u64::saturating_add);
        (bytes > limit.bytes).then(|| {
            format!(
                "they have {bytes} bytes, but `{}` allows {}; ask for less, or the operator for a higher limit",
                limit.setting, limit.bytes
            )
        })
    }

    /// The files of a completed execution are in the result store, or could not be taken over.
    pub fn collected(
        &mut self,
        execution: &ExecutionId,
        result: Result<Outputs, String>,
        now: Timestamp,
        out: &mut Vec<Action>,
    ) {
        self.collecting.remove(execution);
        let Some(id) = self.executions.get(execution).copied() else { return };
        let Some(agent) =
            self.jobs.get(&id).and_then(|job| job.state.execution()).map(|execution| execution.agent.clone())
        else {
            return;
        };
        let dismissing = matches!(self.jobs.get(&id).map(|j| &j.state), Some(JobState::Dismissing { .. }));
        // With the state, not before it: if the job is another orchestrator's by now, so are its results.
        if dismissing || result.is_err() {
            out.push(Action::DiscardResults(id));
        }
        let state = match result {
            _ if dismissing => JobState::Dismissed { finished: now, receipt: None },
            Ok(outputs) => JobState::Successful { outputs, finished: now },
            Err(why) => JobState::Failed { failure: Failure::Results(why), finished: now },
        };
        self.finish(id, state, out);
        out.push(Action::Discard(execution.clone()));
        out.push(Action::Send(agent, ToAgent::Finish { execution: execution.clone() }));
        self.dispatch(now, out);
    }

    fn failed(
        &mut self,
        from: &AgentId,
        execution: ExecutionId,
        error: ExecutionError,
        now: Timestamp,
        out: &mut Vec<Action>,
    ) {
        let Some(id) = self.job_of(from, &execution) else {
            out.push(Action::Inquire(from.clone(), execution, Question::Ended));
            return;
        };
        // It has completed already; the agent may forget it when that is stored.
        if self.collecting.contains(&execution) {
            return;
        }
        let dismissing = matches!(self.jobs.get(&id).map(|j| &j.state), Some(JobState::Dismissing { .. }));
        if dismissing {
            // Without a receipt the words are all that there is about what became of the program.
            if error.receipt.is_none()
                && let Some(job) = self.jobs.get_mut(&id)
            {
                job.note(now, LogLevel::Warning, error.text);
            }
            let state = JobState::Dismissed { finished: now, receipt: error.receipt.map(|receipt| *receipt) };
            self.finish(id, state, out);
        } else if error.kind == ErrorKind::Lost {
            self.lost(id, Failure::Execution(error), now, out);
        } else {
            self.finish(id, JobState::Failed { failure: Failure::Execution(error), finished: now }, out);
        }
        out.push(Action::Discard(execution.clone()));
        self.dispatch(now, out);
        out.push(Action::Send(from.clone(), ToAgent::Finish { execution }));
    }

    /// An attempt is lost for good: again if the descriptor allows it, else the job has failed.
    pub(super) fn lost(&mut self, id: JobId, failure: Failure, now: Timestamp, out: &mut Vec<Action>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(execution) = job.state.execution().cloned() else { return };
        // It has completed already: only its files are still on their way.
        if self.collecting.contains(&execution.id) {
            return;
        }
        let dismissing = matches!(job.state, JobState::Dismissing { .. });
        // A request of which the agent knows nothing was never started: it can go out again without any risk.
        let never_started =
            matches!(job.state, JobState::Dispatched { .. }) && matches!(failure, Failure::Interrupted(_));
        let again = never_started || (job.description.repeatable && job.attempts < self.limits.max_attempts);
        if dismissing {
            self.finish(id, JobState::Dismissed { finished: now, receipt: None }, out);
        } else if again {
            if never_started {
                job.attempts = job.attempts.saturating_sub(1);
            }
            job.note(now, LogLevel::Warning, format!("{}; the job is queued again", failure.text()));
            self.requeue(id, &execution, Waiting::Turn, now, out);
        } else {
            self.finish(id, JobState::Failed { failure, finished: now }, out);
        }
    }

    pub(super) fn requeue(
        &mut self,
        id: JobId,
        execution: &Execution,
        waiting: Waiting,
        now: Timestamp,
        out: &mut Vec<Action>,
    ) {
        self.displace(id, execution);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.state = JobState::Accepted { waiting };
        let since = self.waiting_since(id, now);
        self.enqueue(id, true, since);
        self.save(id, out);
        out.push(Action::Notify(id));
    }
}
