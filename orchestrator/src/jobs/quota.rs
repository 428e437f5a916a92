//! What a new job may bring and what may be kept for its user, looked at before anything is staged or fetched for it.

use wps_remote_protocol::{ProcessDescription, Value};

use super::{NewJob, Refusal};
use crate::limits::{LimitRules, Scope, Set, Who};
use crate::store::Store;

/// Who asks for a job.
pub(super) fn who(new: &NewJob) -> Who<'_> {
    Who { user: &new.owner, role: new.role.as_deref() }
}

pub(super) fn too_large(input: &str, bytes: u64, limit: Set<u64>, remedy: &'static str) -> Refusal {
    Refusal::InputTooLarge { input: input.chars().take(100).collect(), bytes, limit, remedy }
}

/// Whether each input in the request is small enough.
pub(super) fn inputs(
    limits: &LimitRules,
    new: &NewJob,
    description: &ProcessDescription,
) -> Result<(), Refusal> {
    let Some(limit) = limits.input_inline(who(new), &description.id) else { return Ok(()) };
    for input in &new.inputs {
        if matches!(input.value, Value::Reference { .. }) {
            continue;
        }
        let bytes = u64::try_from(input.value.inline_bytes()).unwrap_or(u64::MAX);
        if bytes > limit.value {
            return Err(too_large(&input.id, bytes, limit, "give it by reference"));
        }
    }
    Ok(())
}

/// Whether more may be kept for the user.
pub(super) async fn room(
    limits: &LimitRules,
    store: &Store,
    new: &NewJob,
    description: &ProcessDescription,
) -> Result<(), Refusal> {
    let (bytes, jobs) = (limits.stored(who(new)), limits.stored_jobs(who(new)));
    let own = Scope::User(new.owner.clone());
    // Each orchestrator knows its own queue; what the user has waiting in all of them is in the store.
    let terms = store.is_shared().then(|| limits.terms(who(new), &description.id));
    let bound = terms.iter().flat_map(|terms| &terms.queued).find(|bound| bound.scope == own);
    if bytes.is_none() && jobs.is_none() && bound.is_none() {
        return Ok(());
    }
    let usage = store.usage(&new.owner).await?;
    for (used, limit, what) in [(usage.bytes, bytes, "bytes stored"), (usage.jobs(), jobs, "jobs stored")] {
        if let Some(limit) = limit.filter(|limit| used >= limit.value) {
            return Err(Refusal::QuotaFull { user: new.owner.clone(), used, what, limit });
        }
    }
    if let Some(bound) = bound.filter(|bound| usage.queued >= u64::from(bound.max)) {
        let queued = usize::try_from(usage.queued).unwrap_or(usize::MAX);
        return Err(Refusal::TooMany { queued, bound: Box::new(bound.clone()) });
    }
    Ok(())
}
