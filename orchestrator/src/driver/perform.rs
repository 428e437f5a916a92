//! Performs what the engine decided: stores first, then answers, sends and tells. Also the slow rhythms: storing progress,
//! renewing the view for operators, forgetting what has expired.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, error, info, warn};
use wps_remote_protocol::{AgentId, ExecutionId, Outputs, ToAgent};

use super::{AgentView, Driver, Overview, wall_ms};
use crate::engine::job::{Job, JobId, JobState};
use crate::engine::{Action, Question};
use crate::jobs::{Catalogue, Refusal};
use crate::results::has_files;
use crate::service::{self, News};
use crate::store::StoreError;
use crate::telemetry::Gauges;

/// Tries to write before new jobs are turned away instead of kept waiting.
const PATIENCE: u32 = 3;

impl Driver {
    /// Performs all pending actions in order.
    pub(super) async fn perform(&mut self) {
        if self.out.is_empty() && self.dismissals.is_empty() {
            return;
        }
        let actions = std::mem::take(&mut self.out);
        // Of several states of one job only the newest needs to be stored: they are all justified by it.
        let mut saves: BTreeMap<JobId, Job> = BTreeMap::new();
        for action in &actions {
            if let Action::Save(job) = action {
                saves.insert(job.id, job.as_ref().clone());
            }
        }
        let Some(failures) = self.store_all(&mut saves).await else { return };
        for id in saves.keys().copied().collect::<Vec<_>>() {
            self.dirty.remove(&id);
            let Some(waiter) = self.waiters.remove(&id) else { continue };
            // A client that has gone is nobody's business, but while the store failed it may have been told that its job was
            // not accepted.
            if waiter.reply.send(Ok(waiter.job)).is_err() && failures > 0 {
                saves.remove(&id);
                self.withdraw(id);
            }
        }
        let mut catalogue_changed = false;
        for action in actions {
            match action {
                Action::Save(_) => {}
                Action::SaveSoon(id) => {
                    self.dirty.insert(id);
                }
                Action::Send(agent, message) => self.send(agent, message, &saves),
                Action::Notify(id) => {
                    // In a batch, a job's newest stored state is what everybody may know.
                    let job = self.engine.job(id).cloned().or_else(|| saves.get(&id).cloned());
                    if let (Some(job), Some(watched)) = (job, self.watched.get(&id)) {
                        watched.send_replace(Arc::new(job));
                    }
                }
                Action::Collect(job, execution, outputs) => self.collect(job, execution, outputs),
                Action::Discard(execution) => {
                    let results = self.results.clone();
                    tokio::spawn(async move { results.discard_execution(&execution).await });
                }
                Action::DiscardResults(job) => {
                    let results = self.results.clone();
                    tokio::spawn(async move { results.discard(job).await });
                }
                Action::Inquire(agent, execution, question) => self.inquire(agent, execution, question),
                Action::Catalogue => catalogue_changed = true,
                Action::Release(id) => {
                    if let Some(job) = saves.get(&id) {
                        log_end(job);
                        self.telemetry.job_ended(job.state.name());
                    }
                    self.unwatch(id);
                    let results = self.results.clone();
                    tokio::spawn(async move { results.discard_inputs(id).await });
                }
            }
        }
        if catalogue_changed {
            self.publish_catalogue();
        }
        for (reply, job) in self.dismissals.drain(..) {
            // The client may have gone: then nobody waits for the answer.
            let _ = reply.send(job);
        }
    }

    /// Stores all jobs, trying for ever: what follows must not happen before. New jobs are turned away after a while.
    /// Gives the number of failures; `None` = they are not ours any more, or we end: nothing of what they justify may happen.
    async fn store_all(&mut self, saves: &mut BTreeMap<JobId, Job>) -> Option<u32> {
        let mut attempt = 0u32;
        while !saves.is_empty() {
            let jobs: Vec<Job> = saves.values().cloned().collect();
            match self.store.save(&jobs).await {
                Ok(()) => {
                    self.set_store_works(true);
                    return Some(attempt);
                }
                Err(StoreError::Fenced) => {
                    Box::pin(self.fenced()).await;
                    return None;
                }
                Err(failure) => {
                    attempt += 1;
                    self.set_store_works(false);
                    if attempt > PATIENCE && self.shutdown.is_cancelled() {
                        error!(cause = ?failure, "{failure}; the program ends, agents will tell again what happened");
                        self.out.clear();
                        return None;
                    }
                    // Waiting for a full disk is not hanging, and a restart would not help.
                    if service::sign_of_life().is_some() {
                        service::tell(News::Alive);
                    }
                    error!(cause = ?failure, attempt, "{failure}; nothing is lost, it is tried again");
                    if attempt == PATIENCE {
                        let new: Vec<JobId> =
                            saves.keys().filter(|id| self.waiters.contains_key(id)).copied().collect();
                        for id in new {
                            saves.remove(&id);
                            self.withdraw(id);
                            if let Some(waiter) = self.waiters.remove(&id) {
                                let _ = waiter.reply.send(Err(Refusal::Store(StoreError::Unavailable)));
                            }
                        }
                    }
                    let pause = Duration::from_millis(100u64.saturating_mul(u64::from(attempt)))
                        .min(Duration::from_secs(5));
                    tokio::time::sleep(pause).await;
                }
            }
        }
        Some(attempt)
    }

    /// A new job is not accepted. The answer of the store may be all that was lost, so that it is there all the same: it is taken
    /// out again as soon as possible, and does not run.
    fn withdraw(&mut self, id: JobId) {
        self.engine.forget(id);
        self.unwatch(id);
        self.withdrawn.push(id);
    }

    /// Takes jobs out of the store of which clients were told that they were not accepted. While the store fails, new jobs are
    /// turned away, and there may be nothing else to write: so this is also how it is found out that it works again.
    async fn retract(&mut self) {
        if self.withdrawn.is_empty() && self.store_works.load(Ordering::Relaxed) {
            return;
        }
        let nobody = [JobId::new(uuid::Uuid::nil())];
        let ids = if self.withdrawn.is_empty() { &nobody[..] } else { &self.withdrawn };
        match self.store.retract(ids).await {
            Ok(()) => {
                self.withdrawn.clear();
                self.set_store_works(true);
            }
            Err(failure) => debug!(cause = ?failure, "jobs cannot be taken back now; it is tried again"),
        }
    }

    pub(super) fn set_store_works(&self, works: bool) {
        self.store_works.store(works, Ordering::Relaxed);
    }

    fn send(&mut self, agent: AgentId, message: ToAgent, saves: &BTreeMap<JobId, Job>) {
        if let ToAgent::Request(request) = &message {
            let job = self.engine.job_of_execution(&request.execution);
            // A new job that could not be stored was forgotten: it must not run.
            let Some(job) = job else { return };
            self.telemetry.dispatched(Duration::from_millis(wall_ms().saturating_sub(job.created.0)));
            if saves.contains_key(&job.id) {
                info!(job.id = %job.id, execution.id = %request.execution, %agent, process.id = %job.process, "job sent");
            }
        }
        if self.outbound.send((agent, message)).is_err() {
            warn!("the bus has ended; a message was not sent");
        }
    }

    /// Says to an agent what the store knows of an execution. If it cannot be read now, the agent will ask again.
    fn inquire(&self, agent: AgentId, execution: ExecutionId, question: Question) {
        let (store, outbound) = (self.store.clone(), self.outbound.clone());
        tokio::spawn(async move {
            let stored = match JobId::of_execution(&execution) {
                Some(id) => store.load(id).await,
                None => Ok(None),
            };
            match stored {
                Ok(job) => {
                    if let Some(answer) = question.answer(&execution, job.as_ref()) {
                        debug!(%agent, execution.id = %execution, "an execution that is not held here: {answer:?}");
                        // Without a bus the program is ending.
                        let _ = outbound.send((agent, answer));
                    }
                }
                Err(failure) => {
                    warn!(cause = ?failure, %agent, execution.id = %execution, "the job of an execution cannot be looked up: {failure}");
                }
            }
        });
    }

    fn collect(&self, job: JobId, execution: ExecutionId, outputs: Outputs) {
        // Without files there is nothing to wait for: no task, no turn of the loop later than need be.
        if !has_files(&outputs) {
            let _ = self.collected.send((execution, Ok(outputs)));
            return;
        }
        let (results, collected) = (self.results.clone(), self.collected.clone());
        tokio::spawn(async move {
            let result = results.collect(job, execution.clone(), outputs).await;
            let result = match result {
                Ok(outputs) => Ok(outputs),
                Err(failure) => {
                    error!(job.id = %job, execution.id = %execution, "results could not be taken over: {failure}");
                    Err(failure.to_string())
                }
            };
            // Without a receiver the program is ending; the agent will tell the ending again.
            let _ = collected.send((execution, result));
        });
    }

    /// Makes a job visible to everybody who waits for it.
    pub(super) fn watch(&mut self, job: Arc<Job>) -> watch::Receiver<Arc<Job>> {
        let id = job.id;
        let (sender, receiver) = watch::channel(job);
        self.watched.insert(id, sender);
        self.live.write().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(id, receiver.clone());
        receiver
    }

    pub(super) fn unwatch(&mut self, id: JobId) {
        self.dirty.remove(&id);
        self.watched.remove(&id);
        self.live.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&id);
    }

    fn publish_catalogue(&mut self) {
        let offered = self.engine.fleet().catalogue();
        self.catalogue.send_modify(|catalogue| {
            *catalogue = Arc::new(Catalogue::new(offered, &self.aliases, catalogue.version + 1));
        });
    }

    /// Stores progress and logs that have gathered, and renews the operator's view.
    pub(super) async fn flush(&mut self) {
        self.retract().await;
        let jobs: Vec<Job> = self.dirty.iter().filter_map(|id| self.engine.bump(*id)).collect();
        match self.store.save(&jobs).await {
            Ok(()) => {
                self.dirty.clear();
                if !jobs.is_empty() {
                    self.set_store_works(true);
                }
            }
            Err(StoreError::Fenced) => Box::pin(self.fenced()).await,
            Err(failure) => warn!(cause = ?failure, "progress could not be stored; it is tried again"),
        }
        let version = self.engine.fleet().version();
        if self.conflicts.0 != version {
            self.conflicts = (version, self.engine.fleet().conflicts());
        }
        let view = self.view();
        self.telemetry.set(Gauges {
            connected: view.connected,
            agents: view.agents.len() as u64,
            processes: self.catalogue.borrow().processes.len() as u64,
            queued: view.queued as u64,
            active: view.active.clone(),
        });
        self.overview.send_if_modified(|known| {
            let changed = **known != view;
            if changed {
                warn_of_conflicts(known, &view);
                *known = Arc::new(view);
            }
            changed
        });
    }

    fn view(&self) -> Overview {
        let mut active: BTreeMap<&'static str, u64> = BTreeMap::new();
        for job in self.engine.jobs() {
            *active.entry(job.state.name()).or_default() += 1;
        }
        let conflicts = &self.conflicts.1;
        let agents = self
            .engine
            .fleet()
            .agents()
            .map(|agent| {
                let known = self.agents.get(&agent.id).cloned().unwrap_or_default();
                let differs = |(id, agents): (
                    &wps_remote_protocol::ProcessId,
                    &std::collections::BTreeSet<AgentId>,
                )| { agents.contains(&agent.id).then(|| id.to_string()) };
                AgentView {
                    id: agent.id.clone(),
                    software: known.software,
                    account: known.account,
                    cannot: known.cannot,
                    processes: agent.processes.keys().map(ToString::to_string).collect(),
                    load: agent.load.clone(),
                    executions: agent.executions.keys().cloned().collect(),
                    ready: agent.ready,
                    conflicts: conflicts.iter().filter_map(differs).collect(),
                    drained: agent.drained.clone(),
                }
            })
            .collect();
        Overview {
            connected: self.connected,
            agents,
            active,
            queued: self.engine.queued(),
            store_works: self.store_works.load(Ordering::Relaxed),
            drained: self.drained.clone(),
        }
    }

    /// Forgets jobs whose time is over, with their files.
    pub(super) async fn expire(&mut self) {
        if self.retention.is_zero() {
            return;
        }
        let keep_ms = u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX);
        let now = self.clock.cautious(wall_ms(), self.monotonic_ms());
        let before = crate::engine::job::Timestamp(now.0.saturating_sub(keep_ms));
        let expired = match self.store.expired(before, 1_000).await {
            Ok(expired) if expired.is_empty() => return,
            Ok(expired) => expired,
            Err(failure) => {
                warn!(cause = ?failure, "expired jobs could not be looked for");
                return;
            }
        };
        // The row goes first: a job that cannot be seen any more may lose its files, not the other way round.
        if let Err(failure) = self.store.remove(&expired).await {
            warn!(cause = ?failure, "expired jobs could not be removed");
            return;
        }
        info!(jobs = expired.len(), "expired jobs removed");
        let results = self.results.clone();
        tokio::spawn(async move {
            for id in expired {
                results.discard(id).await;
            }
        });
    }
}

/// Once for each agent that describes a process otherwise than the one whose description clients see.
fn warn_of_conflicts(known: &Overview, view: &Overview) {
    for agent in &view.agents {
        let before = known.agents.iter().find(|other| other.id == agent.id);
        for process in &agent.conflicts {
            if !before.is_some_and(|before| before.conflicts.contains(process)) {
                warn!(
                    agent = %agent.id,
                    process.id = %process,
                    "an agent describes a process otherwise than another does, whose description clients see; \
                     give both the same descriptor"
                );
            }
        }
    }
}

fn log_end(job: &Job) {
    let duration_ms = job.finished().map_or(0, |at| at.since_ms(job.created));
    match &job.state {
        JobState::Failed { failure, .. } => {
            let line = failure.text().lines().next().unwrap_or_default().to_owned();
            info!(job.id = %job.id, process.id = %job.process, duration_ms, "job failed: {line}");
        }
        state => info!(job.id = %job.id, process.id = %job.process, duration_ms, "job {}", state.name()),
    }
}
