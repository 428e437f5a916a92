//! The WPS 2.0.2 face: requests in its types → [`Jobs`](crate::jobs::Jobs) → its documents and raw results.

use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use axum::response::Response;
use wps_remote_protocol::Value;

use super::auth::Asking;
use super::cache::Key;
use super::chain::Chain;
use super::wps::Arrival;
use super::{AppState, files, run, xml};
use crate::encoding::delivery;
use crate::encoding::kvp::Query;
use crate::encoding::wps2::execute::{Execute, Mode};
use crate::encoding::wps2::response::{self, Status};
use crate::encoding::wps2::{offerings, request};
use crate::encoding::{Face, Fault, FaultKind};
use crate::engine::job::{Job, JobId, JobState, Timestamp};
use crate::jobs::NewJob;
use crate::matching::{OCTETS, same_media_type};

pub(super) use crate::encoding::wps2::request::Request;

/// How long a job may take whose client leaves the mode to us, before it is told to follow it.
const AUTO: Duration = Duration::from_secs(1);

/// A request from a query.
pub(super) fn from_query(query: &Query) -> Result<Request, Fault> {
    request::from_kvp(query)
}

/// A request from a document.
pub(super) fn from_document(state: &AppState, asking: &Asking, bytes: &[u8]) -> Result<Request, Fault> {
    request::from_xml(bytes, &|id| run::named(state, asking, id))
}

/// Carries a request out.
pub(super) async fn answer(state: &AppState, arrival: &Arrival, asked: Request) -> Result<Response, Fault> {
    let asking = &arrival.asking;
    match asked {
        Request::GetCapabilities { update_sequence } => {
            let catalogue = state.jobs.catalogue();
            run::check_update_sequence(update_sequence, catalogue.version)?;
            let (url, version) = (&arrival.service_url, catalogue.version);
            let make = || {
                offerings::capabilities(
                    &state.config.service,
                    url,
                    version,
                    run::listed(state, asking, &catalogue).iter(),
                )
            };
            let key = Key::Capabilities(
                url.clone() + &run::audience(state, asking, &catalogue).unwrap_or_default(),
            );
            Ok(state.documents.get(Face::Wps2, version, key, make).answer(&arrival.headers))
        }
        Request::DescribeProcess(identifiers) => {
            let described = run::described(state, Face::Wps2, identifiers, asking, offerings::offerings)?;
            Ok(described.answer(&arrival.headers))
        }
        Request::Execute(execute) => self::execute(state, arrival, *execute).await,
        Request::GetStatus(id) => {
            let job = view(state, asking, id).await?;
            Ok(xml(response::status_info(&job, Status::Actual, Some(now()))))
        }
        Request::GetResult(id) => {
            let job = run::view_ended(state, asking, id).await?;
            response::known(&job)?;
            result(state, arrival, &job).await
        }
        Request::Dismiss(id) => {
            view(state, asking, id).await?;
            let job = run::dismiss(state, asking, id).await?;
            let answer = xml(response::status_info(&job, Status::Dismissed, None));
            if !matches!(job.state, JobState::Dismissed { .. } | JobState::Dismissing { .. }) {
                // OGC 14-065r2, Dismiss: dismissing a job that has ended releases its results.
                state.jobs.remove(id).await?;
            }
            Ok(answer)
        }
    }
}

async fn execute(state: &AppState, arrival: &Arrival, execute: Execute) -> Result<Response, Fault> {
    let Execute { process, inputs, form, mode } = execute;
    let caller = &arrival.asking.caller;
    let (owner, role) = (caller.user.clone(), caller.role_names().first().map(|role| (*role).to_owned()));
    let new = NewJob { process, inputs, form, owner, role };
    run::admit(state, &arrival.asking, &new.process)?;
    let job = state.jobs.execute_within(new, &Chain { state, arrival }).await?;
    state.access.audit().did(&arrival.asking.caller, arrival.asking.from, "execute", &job.id.to_string());
    let accepted = |job: &Job| xml(response::status_info(job, Status::Accepted, Some(now())));
    match mode {
        Mode::Sync => {
            let patience = run::patience(state, &arrival.asking, &job);
            let job = run::wait(state, job, patience).await?;
            if job.state.is_final() {
                return result(state, arrival, &job).await;
            }
            if job.form.raw {
                return Err(run::still_running(state, &arrival.asking, &job, &status_url(arrival, job.id)));
            }
            Ok(xml(response::status_info(&job, Status::Actual, Some(now()))))
        }
        Mode::Async => Ok(accepted(&*run::settle(state, job, state.config.settle).await)),
        Mode::Auto => {
            let job = run::settle(state, job, state.config.settle.max(AUTO)).await;
            if job.state.is_final() { result(state, arrival, &job).await } else { Ok(accepted(&job)) }
        }
    }
}

/// The result as it was asked for: a document, or the bytes of the one output.
async fn result(state: &AppState, arrival: &Arrival, job: &Job) -> Result<Response, Fault> {
    let JobState::Successful { .. } = &job.state else { return Err(delivery::not_ready(job)) };
    if !job.form.raw {
        let files = run::load(state, job).await;
        return Ok(xml(response::result(job, &arrival.outputs_url, &files)));
    }
    let all = delivery::deliveries(job);
    let [only] = all.as_slice() else {
        return Err(Fault::new(FaultKind::JobFailed, "the job succeeded, but without the wanted output"));
    };
    // A literal is a document of one element, unless the client wants plain text, or bytes, in so many words.
    let plain = only
        .wanted
        .and_then(|wanted| wanted.media_type.as_deref())
        .is_some_and(|m| m.starts_with("text/plain") || same_media_type(m, OCTETS));
    let bare = plain && matches!(only.output.value, Value::Literal { .. });
    match response::raw_document(only).filter(|_| !bare) {
        Some(document) => files::memory(document.as_bytes(), "text/xml", None, &HeaderMap::new()),
        None => files::raw(state, only, &only.format().media_type).await,
    }
}

async fn view(state: &AppState, asking: &Asking, id: JobId) -> Result<std::sync::Arc<Job>, Fault> {
    let job = run::view(state, asking, id).await?;
    response::known(&job)?;
    Ok(job)
}

fn status_url(arrival: &Arrival, id: JobId) -> String {
    format!("{}?service=WPS&version=2.0.0&request=GetStatus&jobid={id}", arrival.service_url)
}

#[expect(clippy::disallowed_methods, reason = "estimates need the time; no engine sees it")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
