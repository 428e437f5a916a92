//! Jobs that come from elsewhere and go elsewhere: taken over from the store or from an orchestrator that has died, claimed
//! at the agents that run them, given up when another orchestrator has them. Also what a set clock means for deadlines.

use wps_remote_protocol::message::MAX_CLAIMED;
use wps_remote_protocol::{AgentId, ExecutionId, ToAgent};

use super::dispatch::Queue;
use super::job::{Job, JobId, JobState, Timestamp};
use super::{Action, Engine};

impl Engine {
    /// A stored job that had not ended: at start, or of an orchestrator that has died. After the last one
    /// [`Engine::claim`] must be called, so that agents that are present already tell of these jobs.
    pub fn adopt(&mut self, job: Job, now: Timestamp, out: &mut Vec<Action>) {
        let id = job.id;
        if self.jobs.contains_key(&id) {
            return;
        }
        match &job.state {
            JobState::Accepted { .. } => {
                self.queue.push_back(job.process.clone(), id, self.waiting_since(&job, now));
            }
            JobState::Dispatched { execution }
            | JobState::Running { execution, .. }
            | JobState::Dismissing { execution, .. } => {
                self.executions.insert(execution.id.clone(), id);
                if self.fleet.agent(&execution.agent).is_some() {
                    self.fleet.begin(&execution.agent, execution.id.clone(), job.description.weight);
                    self.claims.insert(execution.agent.clone());
                } else {
                    self.away.entry(execution.agent.clone()).or_insert(now);
                }
                if matches!(job.state, JobState::Dismissing { .. }) {
                    self.dismissing.insert(id, now);
                }
            }
            JobState::Created => {}
            JobState::Successful { .. } | JobState::Failed { .. } | JobState::Dismissed { .. } => return,
        }
        self.jobs.insert(id, job);
        out.push(Action::Notify(id));
    }

    /// Since when an adopted job waits, as far as its deadline is concerned. It was accepted by another clock, perhaps a
    /// wrong one, and while nobody could send it: the moment of its acceptance alone must not end it.
    fn waiting_since(&self, job: &Job, now: Timestamp) -> Timestamp {
        let grace = self.limits.agent_lost_ms.min(self.limits.max_queue_ms);
        let longest = Timestamp(now.0.saturating_sub(self.limits.max_queue_ms.saturating_sub(grace)));
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
        let at = |job: &Job| job.state.execution().filter(|e| e.agent == *agent).map(|e| e.id.clone());
        let executions: Vec<ExecutionId> = self.jobs.values().filter_map(at).collect();
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
        self.queue = Queue::default();
        self.collecting.clear();
        self.dismissing.clear();
        self.away.clear();
        self.claims.clear();
        std::mem::take(&mut self.jobs).into_keys().collect()
    }

    /// The wall clock was set, by so many milliseconds: deadlines are where they were.
    pub fn clock_set(&mut self, by_ms: i64) {
        for since in self.away.values_mut().chain(self.dismissing.values_mut()) {
            *since = since.shifted_ms(by_ms);
        }
        if let Some((since, _)) = &mut self.offline {
            *since = since.shifted_ms(by_ms);
        }
        self.queue.clock_set(by_ms);
        self.fleet.clock_set(by_ms);
    }
}
