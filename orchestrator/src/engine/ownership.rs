//! Jobs that come from elsewhere and go elsewhere: taken over from the store or from an orchestrator that has died, claimed
//! at the agents that run them, given up when another orchestrator has them. Also what a set clock means for deadlines.

use wps_remote_protocol::message::MAX_CLAIMED;
use wps_remote_protocol::{AgentId, ExecutionId, ToAgent};

use super::due::{Due, Kind};
use super::job::{Job, JobId, JobState, Timestamp};
use super::queue::Queue;
use super::{Action, Away, Engine};

impl Engine {
    /// A stored job that had not ended: at start, or of an orchestrator that has died. After the last one
    /// [`Engine::claim`] must be called, so that agents that are present already tell of these jobs.
    pub fn adopt(&mut self, job: Job, now: Timestamp, out: &mut Vec<Action>) {
        let id = job.id;
        if self.jobs.contains_key(&id) {
            return;
        }
        if job.state.is_final() {
            return;
        }
        let (state, weight, terms) = (job.state.clone(), job.description.weight, job.terms.clone());
        let (created, started) = (job.created, job.started);
        self.jobs.insert(id, job);
        let since = self.waiting_since(id, now);
        match &state {
            JobState::Accepted { .. } => self.enqueue(id, false, since),
            JobState::Dispatched { execution }
            | JobState::Running { execution, .. }
            | JobState::Dismissing { execution, .. } => {
                self.place(id, execution, weight);
                if self.fleet.agent(&execution.agent).is_some() {
                    self.claims.insert(execution.agent.clone());
                } else {
                    self.away.entry(execution.agent.clone()).or_insert(Away::since(now));
                }
                match &state {
                    JobState::Dismissing { .. } => {
                        self.dismissing.insert(id, now);
                    }
                    JobState::Running { .. } if terms.run_time.is_some() => {
                        let begun = started.unwrap_or(execution.sent).max(execution.sent).min(now);
                        let longest = terms.run_time.as_ref().map_or(0, |span| span.ms);
                        self.due.set(id, Kind::Run, begun.plus_ms(longest));
                    }
                    _ => {}
                }
                if let (Some(total), false) =
                    (&terms.total_time, matches!(state, JobState::Dismissing { .. }))
                {
                    self.due.set(id, Kind::Total, created.min(now).plus_ms(total.ms));
                }
            }
            JobState::Created
            | JobState::Successful { .. }
            | JobState::Failed { .. }
            | JobState::Dismissed { .. } => {}
        }
        out.push(Action::Notify(id));
    }

    /// Since when a job waits that comes into the queue not for the first time, as far as its deadline is concerned. It was
    /// accepted by another clock, or by ours before that was set, and while nobody could send it: the moment of its
    /// acceptance alone must not end it.
    pub(super) fn waiting_since(&self, id: JobId, now: Timestamp) -> Timestamp {
        let Some(job) = self.jobs.get(&id) else { return now };
        let allowed = job.terms.queue_time.as_ref().map_or(self.limits.max_queue_ms, |span| span.ms);
        let grace = self.limits.agent_lost_ms.min(allowed);
        let longest = Timestamp(now.0.saturating_sub(allowed.saturating_sub(grace)));
        job.created.max(longest).min(now)
    }

    /// Jobs were adopted: asks those agents that are present for what they hold of them.
    pub fn claim(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        for agent in std::mem::take(&mut self.claims) {
            self.invite(&agent, now, out);
        }
        self.dispatch(now, out);
    }

    /// Asks an agent for everything, and names what we believe to run there.
    pub(super) fn invite(&mut self, agent: &AgentId, now: Timestamp, out: &mut Vec<Action>) {
        let Some(asked) = self.fleet.agent_mut(agent) else { return };
        asked.asked = Some(now);
        let live = |id: &JobId| self.jobs.get(id)?.state.execution().map(|execution| execution.id.clone());
        let executions: Vec<ExecutionId> =
            self.placed.get(agent).into_iter().flatten().filter_map(live).collect();
        if let Some(asked) = self.fleet.agent_mut(agent) {
            asked.unclear = executions.iter().cloned().collect();
        }
        let mut named = executions.chunks(MAX_CLAIMED);
        let first = named.next().unwrap_or_default();
        for executions in std::iter::once(first).chain(named) {
            out.push(Action::Send(agent.clone(), ToAgent::Invite { executions: executions.to_vec() }));
        }
    }

    /// All jobs belong to somebody else from now on: they are forgotten here, and what agents say of them changes nothing.
    /// Returns their names.
    pub fn abandon(&mut self) -> Vec<JobId> {
        for (execution, id) in self.executions.drain() {
            if let Some(at) = self.jobs.get(&id).and_then(|job| job.state.execution()) {
                self.fleet.end(&at.agent, &execution);
            }
        }
        self.placed.clear();
        self.queue = Queue::default();
        self.due = Due::default();
        self.counts.forget_here();
        self.collecting.clear();
        self.dismissing.clear();
        self.away.clear();
        self.claims.clear();
        std::mem::take(&mut self.jobs).into_keys().collect()
    }

    /// The wall clock was set, by so many milliseconds: deadlines are where they were.
    pub fn clock_set(&mut self, by_ms: i64) {
        for away in self.away.values_mut() {
            away.since = away.since.shifted_ms(by_ms);
            away.returned = away.returned.map(|at| at.shifted_ms(by_ms));
        }
        for since in self.dismissing.values_mut() {
            *since = since.shifted_ms(by_ms);
        }
        if let Some((since, _)) = &mut self.offline {
            *since = since.shifted_ms(by_ms);
        }
        self.due.clock_set(by_ms);
        self.fleet.clock_set(by_ms);
    }
}
