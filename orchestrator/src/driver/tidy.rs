//! What a crash left in the shared folder: files of jobs whose end was stored, but that nobody was there any more to remove.
//! Looks once, after the start; what belongs to no job that is stored here is left alone.

use tracing::{info, warn};

use crate::engine::job::JobId;
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
    let ended =
        async |job: JobId| store.load(job).await.map(|job| job.is_some_and(|job| job.state.is_final()));
    let mut removed = 0_u32;
    for execution in found.executions {
        let Some(job) = JobId::of_execution(&execution) else { continue };
        match ended(job).await {
            Ok(true) => results.discard_execution(&execution).await,
            Ok(false) => continue,
            // The next start looks again.
            Err(_) => return,
        }
        removed += 1;
    }
    for job in found.inputs {
        match ended(job).await {
            Ok(true) => results.discard_inputs(job).await,
            Ok(false) => continue,
            Err(_) => return,
        }
        removed += 1;
    }
    if removed > 0 {
        info!(folders = removed, "folders of jobs that had ended removed from the shared folder");
    }
}
