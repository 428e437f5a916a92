//! The WPS 1.0.0 face: requests in its types → [`Jobs`](crate::jobs::Jobs) → its documents and raw results.

use axum::http::HeaderMap;
use axum::response::Response;

use super::auth::Asking;
use super::cache::Key;
use super::chain::Chain;
use super::wps::Arrival;
use super::{AppState, files, run, xml};
use crate::encoding::delivery;
use crate::encoding::kvp::Query;
use crate::encoding::wps1::execute::Execute;
use crate::encoding::wps1::request;
use crate::encoding::wps1::response::{self, View};
use crate::encoding::wps1::{capabilities, describe};
use crate::encoding::{Face, Fault, FaultKind};
use crate::engine::job::{Job, JobState};
use crate::jobs::NewJob;
use crate::matching;

pub(super) use crate::encoding::wps1::request::Request;

/// Most jobs in the answer to GetExecutions.
const MAX_LISTED: u32 = 200;
/// A request from a query.
pub(super) fn from_query(state: &AppState, asking: &Asking, query: &Query) -> Result<Request, Fault> {
    request::from_kvp(query, &|id| run::named(state, asking, id))
}

/// A request from a document.
pub(super) fn from_document(state: &AppState, asking: &Asking, bytes: &[u8]) -> Result<Request, Fault> {
    request::from_xml(bytes, &|id| run::named(state, asking, id))
}

/// A POST without a body: only the polls of the vendor operations come that way (OGC 05-007r7 §8.2.1 forbids the rest).
pub(super) fn from_empty_post(state: &AppState, asking: &Asking, query: &Query) -> Result<Request, Fault> {
    let operation = query.get("request")?.unwrap_or_default().to_ascii_lowercase();
    if ["getexecutionstatus", "getexecutionresult", "dismiss"].contains(&operation.as_str()) {
        return from_query(state, asking, query);
    }
    Err(Fault::malformed("the body of the POST is empty; send a document, or the query by GET"))
}

/// Carries a request out.
pub(super) async fn answer(state: &AppState, arrival: &Arrival, asked: Request) -> Result<Response, Fault> {
    let asking = &arrival.asking;
    match asked {
        Request::GetCapabilities { update_sequence } => capabilities(state, arrival, update_sequence),
        Request::DescribeProcess(identifiers) => {
            let described = run::described(state, Face::Wps1, identifiers, asking, describe::document)?;
            Ok(described.answer(&arrival.headers))
        }
        Request::Execute(execute) => self::execute(state, arrival, *execute).await,
        Request::GetExecutionStatus(id) => {
            let job = run::view(state, asking, id).await?;
            Ok(document(state, arrival, &job, Told::Status).await)
        }
        Request::GetExecutionResult { job, output, media_type } => {
            let job = run::view_ended(state, asking, job).await?;
            let delivery = delivery::one(&job, output.as_deref())?;
            if let Some(declared) = delivery.declared {
                matching::fit_output(declared, media_type.as_deref(), None)?;
            }
            let media_type = media_type.unwrap_or_else(|| delivery.format().media_type);
            files::output(state, &delivery, &media_type, &HeaderMap::new()).await
        }
        Request::Dismiss(id) => {
            let job = run::dismiss(state, asking, id).await?;
            Ok(document(state, arrival, &job, Told::Dismissed).await)
        }
        Request::GetExecutions => {
            let jobs = run::jobs_of(state, asking, MAX_LISTED).await?;
            Ok(xml(response::list(&jobs, |job| arrival.status_url(job.id))))
        }
    }
}

fn capabilities(state: &AppState, arrival: &Arrival, known: Option<u64>) -> Result<Response, Fault> {
    let asking = &arrival.asking;
    let catalogue = state.jobs.catalogue();
    run::check_update_sequence(known, catalogue.version)?;
    let url = &arrival.service_url;
    let make = || {
        capabilities::document(
            &state.config.service,
            url,
            catalogue.version,
            run::listed(state, asking, &catalogue).iter(),
        )
    };
    let key = Key::Capabilities(url.clone() + &run::audience(state, asking, &catalogue).unwrap_or_default());
    Ok(state.documents.get(Face::Wps1, catalogue.version, key, make).answer(&arrival.headers))
}

async fn execute(state: &AppState, arrival: &Arrival, execute: Execute) -> Result<Response, Fault> {
    let Execute { process, inputs, form } = execute;
    let (at_once, is_raw) = (form.store && !form.raw, form.raw);
    let caller = &arrival.asking.caller;
    let (owner, role) = (caller.user.clone(), caller.role_names().first().map(|role| (*role).to_owned()));
    let new = NewJob { process, inputs, form, owner, role };
    run::admit(state, &arrival.asking, &new.process)?;
    let job = state.jobs.execute_within(new, &Chain { state, arrival }).await?;
    state.access.audit().did(&arrival.asking.caller, arrival.asking.from, "execute", &job.id.to_string());
    if at_once {
        let job = run::settle(state, job, state.config.settle).await;
        return Ok(document(state, arrival, &job, Told::Follow).await);
    }
    let patience = run::patience(state, &arrival.asking, &job);
    let job = run::wait(state, job, patience).await?;
    if !job.state.is_final() {
        if is_raw {
            return Err(run::still_running(state, &arrival.asking, &job, &arrival.status_url(job.id)));
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
    files::raw(state, only, &only.format().media_type).await
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
    let mut files = run::load(state, job).await;
    if job.form.lineage {
        run::load_inputs(state, job, &mut files).await;
    }
    let status_url = (told != Told::Ended || job.form.store).then(|| arrival.status_url(job.id));
    let view = View {
        service_url: &arrival.service_url,
        status_url: status_url.as_deref(),
        outputs_url: &arrival.outputs_url,
        inputs_url: &arrival.inputs_url,
        files: &files,
        percent_always: arrival.post && told == Told::Status,
        dismissing: told == Told::Dismissed,
    };
    xml(response::document(job, &view))
}
