//! What an orchestrator's driver does with the engine's decisions (`orchestrator::driver::perform`): stores them, trying for
//! ever, and only then answers, sends and tells.

use std::collections::BTreeMap;

use wps_orchestrator::engine::Action;
use wps_orchestrator::engine::job::{Job, JobId};
use wps_remote_protocol::{ExecutionId, Outputs, ToAgent};

use super::node::{NodeEvent, Stalled, agent_number};
use super::store::Failed;
use super::world::{Sabotage, World};

impl World {
    /// Stores jobs, if it can.
    pub(super) fn node_saves(&mut self, n: usize, jobs: &[Job]) -> Result<(), Failed> {
        let node = &mut self.nodes[n];
        let Some(process) = &node.process else { return Err(Failed::Unreachable) };
        if jobs.is_empty() {
            return Ok(());
        }
        if node.store_cut {
            return Err(Failed::Unreachable);
        }
        let lease = process.lease;
        self.check_saves(n, lease, jobs);
        let saved = match self.sabotage {
            Sabotage::IgnoreTheLease => self.store.save_as_anybody(lease, jobs),
            _ => self.store.save(lease, jobs),
        };
        if std::mem::take(&mut self.nodes[n].doubtful) && saved.is_ok() {
            return Err(Failed::Unreachable);
        }
        saved
    }

    pub(super) fn node_flush(&mut self, n: usize) {
        let away = self.nodes[n].store_cut;
        let Some(process) = &mut self.nodes[n].process else { return };
        let withdrawn = if away { vec![] } else { std::mem::take(&mut process.withdrawn) };
        withdrawn.into_iter().for_each(|id| self.store.remove(id));
        let jobs: Vec<Job> = process.dirty.iter().filter_map(|id| process.engine.bump(*id)).collect();
        match self.node_saves(n, &jobs) {
            Ok(()) => {
                if let Some(process) = &mut self.nodes[n].process {
                    process.dirty.clear();
                }
            }
            Err(Failed::Fenced) => self.node_fenced(n),
            Err(Failed::Unreachable) => {}
        }
    }

    /// Performs what the engine has decided.
    pub(super) fn node_perform(&mut self, n: usize) {
        let Some(process) = &mut self.nodes[n].process else { return };
        if process.stalled.is_some() || (process.out.is_empty() && process.dismissals.is_empty()) {
            return;
        }
        let actions = std::mem::take(&mut process.out);
        let mut saves: BTreeMap<JobId, Job> = BTreeMap::new();
        for action in &actions {
            if let Action::Save(job) = action {
                saves.insert(job.id, job.as_ref().clone());
            }
        }
        if self.sabotage == Sabotage::SendBeforeSave {
            saves.retain(|_, job| job.state.name() != "dispatched");
        }
        self.node_store_all(n, actions, saves, 0);
    }

    pub(super) fn node_store_all(
        &mut self,
        n: usize,
        actions: Vec<Action>,
        mut saves: BTreeMap<JobId, Job>,
        attempt: u32,
    ) {
        if self.nodes[n].dies_within == Some(0) && !actions.is_empty() {
            return self.crash_node(n);
        }
        let jobs: Vec<Job> = saves.values().cloned().collect();
        match self.node_saves(n, &jobs) {
            Ok(()) => self.node_acts(n, actions, &saves),
            Err(Failed::Fenced) => self.node_fenced(n),
            Err(Failed::Unreachable) => {
                let attempt = attempt + 1;
                let Some(process) = &mut self.nodes[n].process else { return };
                if attempt == 3 {
                    let new: Vec<JobId> =
                        saves.keys().filter(|id| process.waiters.remove(id)).copied().collect();
                    for id in new {
                        saves.remove(&id);
                        process.engine.forget(id);
                        process.withdrawn.push(id);
                        self.ledger.turned_away(id);
                    }
                }
                process.stalled = Some(Stalled::Saving { actions, saves, attempt });
                self.node_later(n, (100 * u64::from(attempt)).min(5_000), NodeEvent::Retry);
            }
        }
    }

    pub(super) fn node_retries(&mut self, n: usize) {
        let Some(process) = &mut self.nodes[n].process else { return };
        match process.stalled.take() {
            Some(Stalled::Saving { actions, saves, attempt }) => {
                self.node_store_all(n, actions, saves, attempt)
            }
            Some(Stalled::Entering) => self.node_enters_again(n),
            None => {}
        }
        self.node_run(n);
    }

    pub(super) fn node_acts(&mut self, n: usize, actions: Vec<Action>, saves: &BTreeMap<JobId, Job>) {
        let Some(process) = &mut self.nodes[n].process else { return };
        for id in saves.keys() {
            process.dirty.remove(id);
            if process.waiters.remove(id) {
                let stored = self.store.load(*id).is_some();
                self.ledger.accepted(*id, self.now, stored);
            }
        }
        for id in std::mem::take(&mut process.dismissals) {
            let state = self.store.load(id).map(|job| job.state.clone());
            self.ledger.dismissal_confirmed(id, state.as_ref());
        }
        let mut left = self.nodes[n].dies_within.take();
        for action in actions {
            match &mut left {
                Some(0 | 1) => return self.crash_node(n),
                Some(left) => *left -= 1,
                None => {}
            }
            self.node_acts_on(n, action, saves);
            if self.nodes[n].process.is_none() {
                return;
            }
        }
    }

    pub(super) fn node_acts_on(&mut self, n: usize, action: Action, saves: &BTreeMap<JobId, Job>) {
        let wait = self.random.between(1, 60);
        let Some(process) = &mut self.nodes[n].process else { return };
        match action {
            Action::Save(_) | Action::Catalogue => {}
            Action::SaveSoon(id) => drop(process.dirty.insert(id)),
            Action::Send(agent, message) => {
                if let ToAgent::Request(request) = &message
                    && process.engine.job_of_execution(&request.execution).is_none()
                {
                    return;
                }
                self.check_sends(n, &message);
                self.bus_send(n, agent_number(&agent), message);
            }
            Action::Notify(id) => {
                if let Some(job) = process.engine.job(id).or_else(|| saves.get(&id)) {
                    let state = job.state.clone();
                    self.check_tells(id, &state);
                }
            }
            Action::Collect(job, execution, outputs) => {
                let wait = if self.random.in_thousand(100) { 8_000 } else { wait };
                self.node_later(n, wait, NodeEvent::Collect(job, execution, outputs));
            }
            Action::Discard(execution) => drop(self.shared.remove(&execution)),
            Action::DiscardResults(job) => drop(self.results.remove(&job)),
            Action::Inquire(agent, execution, question) => {
                self.node_later(n, wait, NodeEvent::Inquire(agent, execution, question));
            }
            Action::Release(_) => {}
        }
    }

    /// Files of an execution go into the result store.
    pub(super) fn take_over(
        &mut self,
        job: JobId,
        execution: &ExecutionId,
        outputs: Outputs,
    ) -> Result<Outputs, String> {
        if !self.results.contains(&job) {
            if self.bad_folder > 0 {
                self.bad_folder -= 1;
                return Err("the shared folder is gone".to_owned());
            }
            if !self.shared.contains(execution) {
                return Err("the file is not there".to_owned());
            }
            self.results.insert(job);
        }
        Ok(outputs)
    }
}
