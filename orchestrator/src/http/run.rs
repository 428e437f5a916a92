//! What the faces of WPS do alike: start a job and wait for it, give it up, read its small results. Writes no
//! document.

use std::sync::Arc;
use std::time::Duration;

use wps_remote_protocol::{Content, ProcessDescription, Value};

use super::AppState;
use super::auth::Asking;
use super::cache::{Document, Key};
use crate::access::Verdict;
use crate::encoding::delivery::{self, Files};
use crate::encoding::ows::Identifiers;
use crate::encoding::{Face, Fault, FaultKind};
use crate::engine::job::{Job, JobId};
use crate::jobs::{Catalogue, Jobs};

/// How long a Dismiss waits for the confirmation that everything has ended.
const DISMISS_WAIT: Duration = Duration::from_secs(2);
/// The document with the descriptions that a client wants, in the words of a face.
pub(super) fn described(
    state: &AppState,
    face: Face,
    identifiers: Identifiers,
    asking: &Asking,
    document: impl Fn(&[Arc<ProcessDescription>]) -> String,
) -> Result<Document, Fault> {
    let catalogue = state.jobs.catalogue();
    let (key, wanted) = match identifiers {
        Identifiers::All => {
            let key =
                audience(state, asking, &catalogue).map_or(Key::All, |audience| Key::Some(vec![audience]));
            (key, listed(state, asking, &catalogue))
        }
        Identifiers::Some(names) => {
            let find = |name: &String| {
                let found =
                    catalogue.processes.get(name).cloned().ok_or_else(|| Fault::no_such_process(name))?;
                match state.access.rules().may_describe(&asking.caller, &found) {
                    Verdict::Allowed => Ok(found),
                    Verdict::Hidden => Err(Fault::no_such_process(name)),
                    Verdict::Denied => Err(asking.denied(&format!("see the process `{name}`"))),
                }
            };
            let wanted = names.iter().map(find).collect::<Result<Vec<_>, _>>()?;
            (Key::Some(names), wanted)
        }
    };
    Ok(state.documents.get(face, catalogue.version, key, || document(&wanted)))
}

/// What tells documents for this caller from those for others; `None` where all get the same.
pub(super) fn audience(state: &AppState, asking: &Asking, catalogue: &Catalogue) -> Option<String> {
    let open = state.access.rules().are_open() && catalogue.processes.values().all(|p| p.roles.is_empty());
    // A line break is in no identifier and no address.
    (!open).then(|| format!("\n{}", asking.caller.role_names().join("\n")))
}

/// The processes that stand in lists for this caller.
pub(super) fn listed(
    state: &AppState,
    asking: &Asking,
    catalogue: &Catalogue,
) -> Vec<Arc<ProcessDescription>> {
    let rules = state.access.rules();
    let all = catalogue.processes.values();
    all.filter(|process| rules.lists(&asking.caller, process)).cloned().collect()
}

/// The process that this caller means by a name, for reading its request.
pub(super) fn named(state: &AppState, asking: &Asking, id: &str) -> Option<Arc<ProcessDescription>> {
    let found = state.jobs.catalogue().processes.get(id).cloned()?;
    let verdict = state.access.rules().may_execute(&asking.caller, &found);
    (verdict != Verdict::Hidden).then_some(found)
}

/// Whether this caller may execute a process.
pub(super) fn admit(state: &AppState, asking: &Asking, id: &str) -> Result<(), Fault> {
    // What is not there is told by whoever looks for it.
    let Some(found) = state.jobs.catalogue().processes.get(id).cloned() else { return Ok(()) };
    match state.access.rules().may_execute(&asking.caller, &found) {
        Verdict::Allowed => Ok(()),
        Verdict::Hidden => Err(Fault::no_such_process(id)),
        Verdict::Denied => Err(asking.denied(&format!("execute the process `{id}`"))),
    }
}

/// A client cannot know a later version of the catalogue than ours (OGC 06-121r3 §7.3.4).
pub(super) fn check_update_sequence(known: Option<u64>, current: u64) -> Result<(), Fault> {
    match known {
        Some(known) if known > current => {
            let text = format!("the updateSequence is {current}, {known} has not been reached yet");
            Err(Fault::at(FaultKind::UpdateSequence, "updateSequence", text))
        }
        _ => Ok(()),
    }
}

/// The job, or the fault that there is none.
pub(super) async fn view(state: &AppState, asking: &Asking, id: JobId) -> Result<Arc<Job>, Fault> {
    let found = state.jobs.view(id).await?.filter(|job| asking.caller.may_see(&job.owner));
    found.ok_or_else(|| Fault::no_such_job(&id.to_string()))
}

/// The same for somebody who wants its result.
pub(super) async fn view_ended(state: &AppState, asking: &Asking, id: JobId) -> Result<Arc<Job>, Fault> {
    let found = state.jobs.view_ended(id).await?.filter(|job| asking.caller.may_see(&job.owner));
    found.ok_or_else(|| Fault::no_such_job(&id.to_string()))
}

/// The newest jobs that this caller sees in lists: everybody's, or its own. What nobody owns is in no list but the
/// operators', since its id is all that protects it.
pub(super) async fn jobs_of(state: &AppState, asking: &Asking, limit: u32) -> Result<Vec<Job>, Fault> {
    let caller = &asking.caller;
    if caller.sees_all() {
        return Ok(state.jobs.list(None, limit).await?);
    }
    if !caller.is_logged_in() {
        return Ok(Vec::new());
    }
    Ok(state.jobs.list(Some(&caller.user), limit).await?)
}

/// The job when it has ended, or as it is known when the time that a request may take is over, or our own end is near: the job
/// outlives us, and its client is told where to follow it. That the store does not answer is no reason to say that the job was
/// not accepted.
pub(super) async fn wait(state: &AppState, job: Arc<Job>, limit: Duration) -> Result<Arc<Job>, Fault> {
    let id = job.id;
    let mut waiting = Waiting { jobs: Some(state.jobs.clone()), id };
    let known = tokio::select! {
        known = state.jobs.wait(id, limit) => known,
        () = state.stopping.cancelled() => state.jobs.view(id).await,
    };
    waiting.jobs = None;
    known.unwrap_or(Some(job)).ok_or_else(|| Fault::no_such_job(&id.to_string()))
}

/// The same for a client that gets an answer in any case, soon: going away, it gives nothing up.
pub(super) async fn settle(state: &AppState, job: Arc<Job>, limit: Duration) -> Arc<Job> {
    if limit.is_zero() {
        return job;
    }
    state.jobs.wait(job.id, limit).await.ok().flatten().unwrap_or(job)
}

/// How long a synchronous request of this caller may wait for this job.
pub(super) fn patience(state: &AppState, asking: &Asking, job: &Job) -> Duration {
    let own = state.jobs.limits().sync_timeout(asking.who(), &job.process);
    own.map_or(state.config.sync_timeout, |set| Duration::from_millis(set.value))
}

/// What a client is told that wanted the bare result of a job that has not ended.
pub(super) fn still_running(state: &AppState, asking: &Asking, job: &Job, status_url: &str) -> Fault {
    let why = match state.stopping.is_cancelled() {
        true => "the orchestrator stops before the job has ended".to_owned(),
        false => {
            let setting = state.jobs.limits().sync_timeout(asking.who(), &job.process);
            let setting = setting.map_or_else(|| "[http] sync_timeout_s".to_owned(), |set| set.setting);
            let limit = patience(state, asking, job).as_secs();
            format!("the job has not ended within the time that a request may take ({limit} s, `{setting}`)")
        }
    };
    Fault::new(FaultKind::StillRunning, format!("{why}; it goes on, follow it at {status_url}"))
}

/// Gives a job up. With a little patience the answer can tell what was ended.
pub(super) async fn dismiss(state: &AppState, asking: &Asking, id: JobId) -> Result<Arc<Job>, Fault> {
    view(state, asking, id).await?;
    if !asking.caller.scope.execute {
        return Err(asking.denied("dismiss jobs with this token"));
    }
    state.access.audit().did(&asking.caller, asking.from, "dismiss", &id.to_string());
    let job = state.jobs.dismiss(id).await?.ok_or_else(|| Fault::no_such_job(&id.to_string()))?;
    if job.state.is_final() {
        return Ok(job);
    }
    Ok(settle(state, job, DISMISS_WAIT).await)
}

/// A client that waits for its job. If it goes away, nobody would ever fetch the result: the job is given up.
struct Waiting {
    jobs: Option<Jobs>,
    id: JobId,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(jobs) = self.jobs.take() else { return };
        let id = self.id;
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            tracing::info!(job.id = %id, "the client of a synchronous job went away; the job is dismissed");
            if let Err(error) = jobs.dismiss(id).await {
                tracing::warn!(job.id = %id, %error, "the job of a client that went away could not be dismissed");
            }
        });
    }
}

/// Reads the result files that stand in the document. A file that cannot be read, or is too large, stays a link.
pub(super) async fn load(state: &AppState, job: &Job) -> Files {
    let mut files = Files::new();
    let mut left = state.config.max_inline_bytes;
    for delivery in delivery::deliveries(job) {
        let linked = delivery.wants_link();
        let Some(file) = delivery.file().filter(|file| !linked && file.bytes <= left) else { continue };
        let read = match state.jobs.results().path(file) {
            Ok(path) => tokio::fs::read(path).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(bytes) => {
                left = left.saturating_sub(bytes.len() as u64);
                files.insert(file.path.clone(), bytes);
            }
            Err(error) => {
                tracing::warn!(job.id = %job.id, file = %file.path, error, "a result file could not be read");
            }
        }
    }
    files
}

/// Reads the inputs that stand in a document which repeats them, into what is left beside the results. One that cannot be
/// read, or is too large, becomes a link.
pub(super) async fn load_inputs(state: &AppState, job: &Job, files: &mut Files) {
    let used: u64 = files.values().map(|bytes| bytes.len() as u64).sum();
    let mut left = state.config.max_inline_bytes.saturating_sub(used);
    for (n, input) in job.inputs.iter().enumerate() {
        let Value::Complex { content: Content::Shared(file), .. } = &input.value else { continue };
        if file.bytes > left {
            continue;
        }
        if let Ok(bytes) = tokio::fs::read(state.jobs.results().kept_input(job.id, n)).await {
            left = left.saturating_sub(bytes.len() as u64);
            files.insert(file.path.clone(), bytes);
        }
    }
}
