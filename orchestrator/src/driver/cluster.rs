//! What several orchestrators on one store mean for the driver: jobs of others are adopted, dismissals of other nodes carried
//! out, and jobs that belong to somebody else by now let go.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Driver;
use super::lease::Told;
use crate::jobs::Refusal;
use crate::store::StoreError;

/// Jobs that are taken over in one transaction.
const ADOPT: u32 = 200;
/// Without XMPP for so long, we leave our jobs to nodes that can talk to agents.
const CUT_OFF: Duration = Duration::from_secs(15);
/// Looks between two searches for jobs without an owner, if nothing says that there are some.
const SEARCH_EVERY: u32 = 8;

impl Driver {
    /// News of the other nodes, or a moment to look for them.
    pub(super) async fn told(&mut self, told: Told) {
        match told {
            // The news may be older than our return.
            Told::Fenced(lease) if lease != self.store.lease() => {}
            Told::Fenced(_) => self.fenced().await,
            Told::Look { others, died } => {
                self.looks = self.looks.wrapping_add(1);
                let cut_off = self.offline_since.is_some_and(|since| since.elapsed() >= CUT_OFF);
                if cut_off && others > 0 && self.engine.jobs().next().is_some() {
                    self.step_down().await;
                    return;
                }
                self.dismiss_asked().await;
                self.look_elsewhere().await;
                if died || self.looks % SEARCH_EVERY == 1 {
                    self.adopt().await;
                }
            }
        }
    }

    /// Another node has done something.
    pub(super) async fn woken(&mut self) {
        self.dismiss_asked().await;
        self.adopt().await;
        self.look_elsewhere().await;
    }

    /// Gives up jobs on behalf of clients of other nodes.
    async fn dismiss_asked(&mut self) {
        match self.store.asked_dismissals().await {
            Ok(ids) => {
                let now = self.now();
                for id in ids {
                    if self.engine.dismiss(id, now, &mut self.out) {
                        info!(job.id = %id, "job dismissed by a client of another node");
                    }
                }
            }
            Err(error) => warn!(cause = ?error, "dismissals of other nodes cannot be looked for: {error}"),
        }
        self.perform().await;
    }

    /// Takes jobs over that have no owner. Only who can talk to agents can do anything for them.
    pub(super) async fn adopt(&mut self) {
        while self.connected && self.store.is_shared() {
            match self.store.adopt(ADOPT).await {
                Ok((jobs, unreadable)) => {
                    for row in &unreadable {
                        error!(cause = ?row, "{row}; it is left alone");
                    }
                    let taken = jobs.len() + unreadable.len();
                    if taken == 0 {
                        return;
                    }
                    info!(jobs = jobs.len(), "jobs of another orchestrator are taken over");
                    let now = self.now();
                    for mut job in jobs {
                        job.terms = self.terms(&job);
                        self.watch(Arc::new(job.clone()));
                        self.engine.adopt(job, now, &mut self.out);
                    }
                    self.engine.claim(now, &mut self.out);
                    // Those that were given up while nobody owned them.
                    Box::pin(self.dismiss_asked()).await;
                    if taken < ADOPT as usize {
                        return;
                    }
                }
                Err(error) => {
                    warn!(cause = ?error, "jobs without an owner cannot be looked for: {error}");
                    return;
                }
            }
        }
    }

    /// Cut off from all agents, while others may not be: hands all jobs over.
    async fn step_down(&mut self) {
        warn!("out of reach of all agents; the jobs are left to the other orchestrators");
        self.flush().await;
        if let Err(error) = self.store.leave().await {
            warn!(cause = ?error, "the jobs cannot be handed over: {error}");
            return;
        }
        self.let_go();
        self.enter_again().await;
    }

    /// Our lease is over, and our jobs belong to others: nothing that was decided about them since may happen.
    pub(super) async fn fenced(&mut self) {
        warn!(
            jobs = self.engine.jobs().count(),
            "another orchestrator has taken the jobs of this one over (was it stopped, or without its database?)"
        );
        self.let_go();
        self.enter_again().await;
    }

    fn let_go(&mut self) {
        self.out.clear();
        self.dirty.clear();
        for id in self.engine.abandon() {
            self.unwatch(id);
        }
        for (id, waiter) in self.waiters.drain() {
            self.withdrawn.push(id);
            // Nobody knows whether it was stored. The client may have gone: then nobody waits for the answer.
            let _ = waiter.reply.send(Err(Refusal::Store(StoreError::Unavailable)));
        }
        for (reply, _) in self.dismissals.drain(..) {
            // Looked up in the store, the job is a foreign one by now.
            let _ = reply.send(None);
        }
    }

    /// Becomes a node without jobs, unless another process has our name.
    async fn enter_again(&mut self) {
        let begun = Instant::now();
        while !self.shutdown.is_cancelled() {
            match self.store.enter_again(&self.node).await {
                Ok(()) => {
                    info!(node = %self.node, "in service again, without the former jobs");
                    return;
                }
                Err(StoreError::NameTaken) => {
                    error!(node = %self.node, "another orchestrator runs under our node name on the same store, so this one ends; give each its own [store] node");
                    self.shutdown.cancel();
                    return;
                }
                Err(error) => {
                    self.set_store_works(false);
                    warn!(cause = ?error, waiting_s = begun.elapsed().as_secs(), "the job store cannot be entered: {error}; it is tried again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}
