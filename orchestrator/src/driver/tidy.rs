//! What a crash left in the shared folder: files of jobs whose end was stored, but that nobody was there any more to remove.
//! Looks once, after the start; what belongs to no job that is stored here is left alone.

use tracing::{info, warn};

use crate::results::Results;
use crate::store::Store;

/// Removes the folders of executions and of inputs whose jobs have ended.
pub(super) async fn leftovers(store: Store, results: Results) {
    let found = match results.in_shared().await {
        Ok(found) => found,
        Err(failure) => {
            warn!("what jobs left in the shared folder could not be looked for: {failure}");
            return;
        }
    };
    let mut removed = 0_u32;
    for (job, executions) in found {
        match store.load(job).await {
            Ok(Some(stored)) if stored.state.is_final() => {}
            Ok(_) => continue,
            // The next start looks again.
            Err(_) => return,
        }
        for execution in &executions {
            results.discard_execution(execution).await;
        }
        results.discard_inputs(job).await;
        removed += 1;
    }
    if removed > 0 {
        info!(jobs = removed, "folders of jobs that had ended removed from the shared folder");
    }
}
