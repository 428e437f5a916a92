//! The WPS 1.0.0 face: requests in its types → [`Jobs`](crate::jobs::Jobs) → its documents and raw results.

use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::response::Response;
use wps_remote_protocol::{ProcessDescription, Value};

use super::guard::method_not_allowed;
use super::wps::Arrival;
use super::{AppState, files, xml};
use crate::encoding::delivery::{self, Delivery, Files};
use crate::encoding::kvp::Query;
use crate::encoding::wps1::execute::Execute;
use crate::encoding::wps1::request::{self, Identifiers};
use crate::encoding::wps1::response::{self, View};
use crate::encoding::wps1::{capabilities, describe};
use crate::encoding::{Fault, FaultKind};
use crate::engine::job::{Job, JobId, JobState, UserId};
use crate::jobs::{Jobs, NewJob};

pub(super) use crate::encoding::wps1::request::Request;

/// Most jobs in the answer to GetExecutions.
const MAX_LISTED: u32 = 200;
/// How long a Dismiss waits for the confirmation that everything has ended.
const DISMISS_WAIT: std::time::Duration = std::time::Duration::from_secs(2);
/// Most addresses for which capabilities are kept.
const MAX_CACHED: usize = 16;

/// Capabilities documents by address, for one version of the catalogue.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Cached>);

#[derive(Debug, Default)]
struct Cached {
    version: u64,
    documents: Vec<(String, Bytes)>,
}

impl Cache {
    fn get(&self, version: u64, url: &str, make: impl FnOnce() -> String) -> Bytes {
        if let Some(document) = self.lock().find(version, url) {
            return document;
        }
        // Made without the lock: others need not wait for it.
        let document = Bytes::from(make());
        let mut cached = self.lock();
        // A slow maker must not put an old document over a newer one.
        if cached.version < version {
            *cached = Cached { version, documents: Vec::new() };
        }
        if cached.version == version
            && cached.documents.len() < MAX_CACHED
            && cached.find(version, url).is_none()
        {
            cached.documents.push((url.to_owned(), document.clone()));
        }
        document
    }

    fn lock(&self) -> MutexGuard<'_, Cached> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Cached {
    fn find(&self, version: u64, url: &str) -> Option<Bytes> {
        let mut documents = self.documents.iter().filter(|_| self.version == version);
        documents.find(|(known, _)| known == url).map(|(_, document)| document.clone())
    }
}

/// A request from a query.
pub(super) fn from_query(state: &AppState, query: &Query) -> Result<Request, Fault> {
    let catalogue = state.jobs.catalogue();
    request::from_kvp(query, &|id| catalogue.processes.get(id).cloned())
}

/// A request from a document.
pub(super) fn from_document(state: &AppState, bytes: &[u8]) -> Result<Request, Fault> {
    let catalogue = state.jobs.catalogue();
    request::from_xml(bytes, &|id| catalogue.processes.get(id).cloned())
}

/// A POST without a body: only the polls of the vendor operations come that way (OGC 05-007r7 §8.2.1 forbids the rest).
pub(super) fn from_empty_post(state: &AppState, query: &Query) -> Result<Request, Fault> {
    let operation = query.get("request")?.unwrap_or_default().to_ascii_lowercase();
    if ["getexecutionstatus", "getexecutionresult", "dismiss"].contains(&operation.as_str()) {
        return from_query(state, query);
    }
    Err(Fault::malformed("the body of the POST is empty; send a document, or the query by GET"))
}

/// Carries a request out.
pub(super) async fn answer(state: &AppState, arrival: &Arrival, asked: Request) -> Result<Response, Fault> {
    match asked {
        Request::GetCapabilities { update_sequence } => capabilities(state, arrival, update_sequence),
        Request::DescribeProcess(identifiers) => descriptions(state, &identifiers),
        Request::Execute(execute) => {
            if arrival.head {
                return Err(method_not_allowed(&axum::http::Method::HEAD));
            }
            self::execute(state, arrival, *execute).await
        }
        Request::GetExecutionStatus(id) => {
            let job = view(&state.jobs, id).await?;
            Ok(document(state, arrival, &job, Told::Status).await)
        }
        Request::GetExecutionResult { job, output, media_type } => {
            let job = view(&state.jobs, job).await?;
            let delivery = delivery::one(&job, output.as_deref())?;
            raw(state, &delivery, media_type.as_deref()).await
        }
        Request::Dismiss(id) => {
            if arrival.head {
                return Err(method_not_allowed(&axum::http::Method::HEAD));
            }
            dismiss(state, arrival, id).await
        }
        Request::GetExecutions => {
            let jobs = state.jobs.list(MAX_LISTED).await?;
            Ok(xml(response::list(&jobs, |job| arrival.status_url(job.id))))
        }
    }
}

fn capabilities(state: &AppState, arrival: &Arrival, known: Option<u64>) -> Result<Response, Fault> {
    let catalogue = state.jobs.catalogue();
    if let Some(known) = known.filter(|&known| known > catalogue.version) {
        let text = format!("the updateSequence is {}, {known} has not been reached yet", catalogue.version);
        return Err(Fault::at(FaultKind::UpdateSequence, "updateSequence", text));
    }
    let url = &arrival.service_url;
    let make = || {
        capabilities::document(&state.config.service, url, catalogue.version, catalogue.processes.values())
    };
    Ok(xml(state.capabilities.get(catalogue.version, url, make)))
}

fn descriptions(state: &AppState, identifiers: &Identifiers) -> Result<Response, Fault> {
    let catalogue = state.jobs.catalogue();
    let wanted: Vec<Arc<ProcessDescription>> = match identifiers {
        Identifiers::All => catalogue.processes.values().cloned().collect(),
        Identifiers::Some(names) => {
            let find = |name: &String| {
                catalogue.processes.get(name).cloned().ok_or_else(|| Fault::no_such_process(name))
            };
            names.iter().map(find).collect::<Result<_, _>>()?
        }
    };
    Ok(xml(describe::document(&wanted)))
}

async fn execute(state: &AppState, arrival: &Arrival, execute: Execute) -> Result<Response, Fault> {
    let Execute { process, inputs, form } = execute;
    let (at_once, is_raw) = (form.store && !form.raw, form.raw);
    let job = state.jobs.execute(NewJob { process, inputs, form, owner: UserId::anonymous() }).await?;
    let id = job.id;
    if at_once {
        let job = if state.config.settle.is_zero() {
            job
        } else {
            state.jobs.wait(id, state.config.settle).await?.unwrap_or(job)
        };
        return Ok(document(state, arrival, &job, Told::Follow).await);
    }
    let mut waiting = Waiting { jobs: Some(state.jobs.clone()), id };
    let ended = tokio::select! {
        ended = state.jobs.wait(id, state.config.sync_timeout) => ended,
        // The job outlives us; its client is told where to follow it.
        () = state.stopping.cancelled() => state.jobs.view(id).await,
    };
    waiting.jobs = None;
    let job = ended?.ok_or_else(|| Fault::no_such_job(&id.to_string()))?;
    if !job.state.is_final() {
        if is_raw {
            let text = format!(
                "the job has not ended within the time that a request may take ({} s); it goes on, follow it at {}",
                state.config.sync_timeout.as_secs(),
                arrival.status_url(id)
            );
            return Err(Fault::new(FaultKind::StillRunning, text));
        }
        return Ok(document(state, arrival, &job, Told::Follow).await);
    }
    if !is_raw {
        return Ok(document(state, arrival, &job, Told::Ended).await);
    }
    let JobState::Successful { .. } = &job.state else { return Err(delivery::not_ready(&job)) };
    let all = delivery::deliveries(&job);
    let [only] = all.as_slice() else {
        return Err(Fault::new(FaultKind::JobFailed, "the job succeeded, but without the wanted output"));
    };
    raw(state, only, None).await
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

async fn dismiss(state: &AppState, arrival: &Arrival, id: JobId) -> Result<Response, Fault> {
    let none = || Fault::no_such_job(&id.to_string());
    let job = state.jobs.dismiss(id).await?.ok_or_else(none)?;
    // With a little patience the answer can tell what was ended.
    let job =
        if job.state.is_final() { job } else { state.jobs.wait(id, DISMISS_WAIT).await?.unwrap_or(job) };
    Ok(document(state, arrival, &job, Told::Dismissed).await)
}

async fn view(jobs: &Jobs, id: JobId) -> Result<Arc<Job>, Fault> {
    jobs.view(id).await?.ok_or_else(|| Fault::no_such_job(&id.to_string()))
}

/// On which occasion a client gets an ExecuteResponse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// It has waited for the end.
    Ended,
    /// The job goes on; the client can follow it.
    Follow,
    /// It asked for the status.
    Status,
    /// It gave the job up.
    Dismissed,
}

/// The ExecuteResponse of a job, with small results in it.
async fn document(state: &AppState, arrival: &Arrival, job: &Job, told: Told) -> Response {
    let files = load(state, job).await;
    let status_url = (told != Told::Ended || job.form.store).then(|| arrival.status_url(job.id));
    let view = View {
        service_url: &arrival.service_url,
        status_url: status_url.as_deref(),
        outputs_url: &arrival.outputs_url,
        files: &files,
        percent_always: arrival.post && told == Told::Status,
        dismissing: told == Told::Dismissed,
    };
    xml(response::document(job, &view))
}

/// Reads the result files that stand in the document. A file that cannot be read, or is too large, stays a link.
async fn load(state: &AppState, job: &Job) -> Files {
    let mut files = Files::new();
    let mut left = state.config.max_inline_bytes;
    for delivery in delivery::deliveries(job) {
        let linked = delivery.wanted.is_some_and(|wanted| wanted.as_reference);
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

/// One output as it is, under the wanted MIME type.
async fn raw(state: &AppState, delivery: &Delivery<'_>, media_type: Option<&str>) -> Result<Response, Fault> {
    let media_type = media_type.map_or_else(|| delivery.format().media_type, str::to_owned);
    match &delivery.output.value {
        Value::Literal { text, .. } => {
            files::memory(text.as_bytes(), "text/plain; charset=utf-8", None, &HeaderMap::new())
        }
        Value::BoundingBox(area) => {
            files::memory(response::box_document(area).as_bytes(), "text/xml", None, &HeaderMap::new())
        }
        Value::Reference { href, .. } => Err(Fault::new(
            FaultKind::JobFailed,
            format!("the output is not kept here; it is at {}", crate::encoding::clip(href, 1000)),
        )),
        Value::Complex { .. } => files::output(state, delivery, &media_type, &HeaderMap::new()).await,
    }
}
