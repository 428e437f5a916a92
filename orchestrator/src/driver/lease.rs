//! Keeps the lease of this node and watches those of the others, in a task of its own: a driver that waits for a slow disk
//! must not lose its jobs for that.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::store::{Keeper, Lease, Store, StoreError};

/// What the driver is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Another node may have left something to do; how many others there are.
    Look {
        /// Other nodes.
        others: usize,
        /// Whether one of them was declared dead just now.
        died: bool,
    },
    /// This lease of ours has gone.
    Fenced(Lease),
}

/// Beats four times in each lease, until the driver has gone.
pub(super) async fn keep(
    store: Store,
    lease: Duration,
    driver: mpsc::Sender<Told>,
    shutdown: CancellationToken,
) {
    let begun = Instant::now();
    let mut keeper = Keeper::new(lease);
    let mut beat = tokio::time::interval(lease / 4);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = beat.tick() => {}
        }
        let lease = store.lease();
        let told = match store.beat().await {
            Ok(nodes) => {
                let mut died = false;
                for node in keeper.look(&nodes, begun.elapsed()) {
                    match store.bury(&node).await {
                        Ok(true) => {
                            warn!(node = %node.name, "another orchestrator gives no sign of life; its jobs are taken over");
                            died = true;
                        }
                        Ok(false) => {}
                        Err(error) => debug!(node = %node.name, %error, "a node cannot be declared dead now"),
                    }
                }
                Told::Look { others: nodes.len().saturating_sub(1), died }
            }
            Err(StoreError::Fenced) => Told::Fenced(lease),
            Err(error) => {
                // While nobody can beat, nobody is dead.
                keeper.forget();
                debug!(cause = ?error, "no sign of life could be given: {error}");
                continue;
            }
        };
        if driver.send(told).await.is_err() {
            return;
        }
    }
}
