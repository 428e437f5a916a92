//! What operators and other orchestrators mean for who gets what: agents that are out of service, the terms of jobs, and jobs of
//! the same users elsewhere.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};
use wps_remote_protocol::AgentId;

use super::Driver;
use crate::engine::job::{Elsewhere, Job, Scope, Terms, Timestamp};
use crate::limits::Who;
use crate::store::{Drained, Group, Store, StoreError};

/// An agent, why it goes out of service or that it comes back, and whom to tell when that is stored.
pub(super) type Drain = (AgentId, Option<String>, oneshot::Sender<Result<(), StoreError>>);

/// Stores what operators say about agents, one after the other, and tells the driver what holds then.
pub(super) async fn store_drains(
    store: Store,
    mut asked: mpsc::UnboundedReceiver<Drain>,
    stored: mpsc::UnboundedSender<Drained>,
) {
    while let Some((agent, why, reply)) = asked.recv().await {
        let done = async {
            store.drain(&agent, why.as_deref()).await?;
            store.drained().await
        };
        let result = done.await.map(|drained| {
            // Without a receiver the program is ending; it is stored.
            let _ = stored.send(drained);
        });
        // The client may have gone: then nobody waits for the answer.
        let _ = reply.send(result);
    }
}

impl Driver {
    /// The terms of a stored job, as the configuration has them now.
    pub(super) fn terms(&self, job: &Job) -> Arc<Terms> {
        self.limit_rules.terms(Who { user: &job.owner, role: job.role.as_deref() }, &job.process)
    }

    pub(super) fn drain_stored(&mut self, drained: Drained) {
        let now = self.now();
        self.set_drained(drained, now);
    }

    pub(super) fn set_drained(&mut self, drained: Drained, now: Timestamp) {
        for (agent, why) in &drained {
            if self.drained.get(agent) != Some(why) {
                info!(%agent, "out of service: {why}; it finishes what it has and gets nothing new");
            }
        }
        for agent in self.drained.keys().filter(|agent| !drained.contains_key(agent)) {
            info!(%agent, "in service again");
        }
        if self.drained != drained {
            self.engine.set_drained(drained.clone(), now, &mut self.out);
            self.drained = drained;
        }
    }

    /// Looks at what other orchestrators do that concerns who gets what here.
    pub(super) async fn look_elsewhere(&mut self) {
        match self.store.drained().await {
            Ok(drained) => self.drain_stored(drained),
            Err(error) => warn!(cause = ?error, "drained agents cannot be looked for: {error}"),
        }
        match self.store.elsewhere().await {
            Ok(groups) => {
                let elsewhere = self.by_scope(&groups);
                let now = self.now();
                self.engine.set_elsewhere(elsewhere, now, &mut self.out);
            }
            Err(error) => warn!(cause = ?error, "jobs of other orchestrators cannot be counted: {error}"),
        }
        self.perform().await;
    }

    fn by_scope(&self, groups: &[Group]) -> HashMap<Scope, Elsewhere> {
        let mut found: HashMap<Scope, Elsewhere> = HashMap::new();
        let mut waiting: HashMap<Scope, BTreeSet<i64>> = HashMap::new();
        for group in groups {
            let Ok(process) = group.process.parse() else { continue };
            let who = Who { user: &group.owner, role: group.role.as_deref() };
            let terms = self.limit_rules.terms(who, &process);
            let bounds = terms.running.iter().chain(&terms.queued).map(|bound| &bound.scope);
            let scopes: BTreeSet<&Scope> = bounds.collect();
            for scope in scopes {
                let count = &mut found.entry(scope.clone()).or_default().count;
                if group.queued {
                    count.queued = count.queued.saturating_add(group.jobs);
                    waiting.entry(scope.clone()).or_default().insert(group.node);
                } else {
                    count.running = count.running.saturating_add(group.jobs);
                }
            }
        }
        for (scope, nodes) in waiting {
            if let Some(there) = found.get_mut(&scope) {
                there.waiting_at = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
            }
        }
        found
    }
}
