//! For operators and monitors: health, figures, agents and jobs, as JSON and as Prometheus text.

use std::fmt::Write;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use serde_json::{Value, json};
use wps_remote_protocol::{Content, Output};

use super::auth::{Asking, now};
use super::{AppState, Operation, report, run};
use crate::encoding::delivery;
use crate::encoding::iso_time;
use crate::encoding::kvp::Query;
use crate::encoding::{Fault, FaultKind};
use crate::engine::job::{Job, JobId, JobState, LogLine, Timestamp};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Jobs in one answer, unless the client says otherwise.
const LISTED: u32 = 100;
/// Most jobs in one answer.
const MAX_LISTED: u32 = 1000;

/// Whether everything that the service needs works; 503 if not.
pub(super) async fn health(State(state): State<AppState>) -> Response {
    let overview = state.overview.borrow().clone();
    // The sender is the driver's: it is gone when the driver has ended.
    let driver = state.overview.has_changed().is_ok();
    let checks = [("xmpp", overview.connected), ("store", overview.store_works), ("driver", driver)];
    let good = checks.iter().all(|(_, works)| *works);
    let checks: serde_json::Map<String, Value> = checks
        .iter()
        .map(|(name, works)| ((*name).to_owned(), json!(if *works { "ok" } else { "failed" })))
        .collect();
    let body = json!({
        "status": if good { "ok" } else { "failed" },
        "checks": checks,
        "agents": overview.agents.len(),
        "processes": state.jobs.catalogue().processes.len(),
        "queued": overview.queued,
        "version": env!("CARGO_PKG_VERSION"),
    });
    answer("health", if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

/// Figures in the Prometheus text format 0.0.4.
pub(super) async fn metrics(State(state): State<AppState>) -> Response {
    let mut response = Response::new(Body::from(state.telemetry.page()));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.extensions_mut().insert(Operation("metrics"));
    response
}

/// All agents that are present.
pub(super) async fn agents(State(state): State<AppState>, Extension(asking): Extension<Asking>) -> Response {
    if !asking.caller.is_operator() {
        return report(&asking.denied("see the agents"));
    }
    let overview = state.overview.borrow().clone();
    let agents: Vec<Value> = overview
        .agents
        .iter()
        .map(|agent| {
            json!({
                "id": agent.id,
                "software": agent.software,
                "account": agent.account,
                "ready": agent.ready,
                "accepts": agent.accepts(),
                "processes": agent.processes,
                "load": agent.load,
                "running": agent.executions,
                "conflicts": agent.conflicts,
                "cannot": agent.cannot,
                "labels": agent.load.as_ref().map(|load| &load.labels),
                "drained": agent.drained,
            })
        })
        .collect();
    let incidents: Vec<Value> = state
        .telemetry
        .incidents()
        .iter()
        .map(|incident| {
            let since = incident.at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let at = Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
            json!({
                "what": incident.what,
                "sender": incident.sender,
                "account": incident.account,
                "why": incident.why,
                "last": iso_time(at),
                "count": incident.count,
            })
        })
        .collect();
    answer(
        "agents",
        StatusCode::OK,
        &json!({ "agents": agents, "drained": overview.drained, "not_believed": incidents }),
    )
}

/// The newest jobs; `?limit=n`.
pub(super) async fn jobs(
    State(state): State<AppState>,
    Extension(asking): Extension<Asking>,
    uri: Uri,
) -> Response {
    let limit = Query::parse(uri.query().unwrap_or_default()).and_then(|query| query.get("limit"));
    let limit = match limit {
        Ok(limit) => limit.and_then(|text| text.parse().ok()).unwrap_or(LISTED).clamp(1, MAX_LISTED),
        Err(fault) => return report(&fault),
    };
    match run::jobs_of(&state, &asking, limit).await {
        Ok(jobs) => {
            let jobs: Vec<Value> = jobs.iter().map(job).collect();
            answer("jobs", StatusCode::OK, &json!({ "jobs": jobs }))
        }
        Err(fault) => report(&fault),
    }
}

/// One job, with its log.
pub(super) async fn one_job(
    State(state): State<AppState>,
    Extension(asking): Extension<Asking>,
    Path(id): Path<String>,
) -> Response {
    match job_of(&state, &asking, &id).await {
        Ok(found) => {
            let mut entry = job(&found);
            let line = |line: &LogLine| json!({ "at": iso_time(line.at), "level": line.level.to_string(), "text": line.text });
            if let Some(entry) = entry.as_object_mut() {
                entry.insert("log".to_owned(), found.log.iter().map(line).collect());
            }
            answer("job", StatusCode::OK, &entry)
        }
        Err(fault) => report(&fault),
    }
}

pub(super) async fn job_of(state: &AppState, asking: &Asking, id: &str) -> Result<Arc<Job>, Fault> {
    let none = || Fault::new(FaultKind::NotFound, "there is no such job");
    let id: JobId = id.parse().map_err(|_| none())?;
    let found = state.jobs.view(id).await?.filter(|job| asking.caller.may_see(&job.owner));
    found.ok_or_else(none)
}

/// Links to the results of a job that open for whoever has them, for `?hours=n` at most as long as the configuration says.
pub(super) async fn share(
    State(state): State<AppState>,
    Extension(asking): Extension<Asking>,
    Path(id): Path<String>,
    uri: Uri,
) -> Response {
    let query = Query::parse(uri.query().unwrap_or_default()).and_then(|query| query.get("hours"));
    let hours = match query {
        Ok(hours) => hours,
        Err(fault) => return report(&fault),
    };
    let found = match job_of(&state, &asking, &id).await {
        Ok(found) => found,
        Err(fault) => return report(&fault),
    };
    let longest = state.access.config().link_ttl_s;
    let seconds = match hours.map(|text| text.parse::<u64>()) {
        None => longest,
        Some(Ok(hours)) if hours > 0 => hours.saturating_mul(3600).min(longest),
        Some(_) => return report(&Fault::invalid("hours", "is a whole number from 1")),
    };
    if !asking.caller.scope.execute {
        return report(&asking.denied("share results with this token"));
    }
    let until = now().plus_ms(seconds.saturating_mul(1000));
    let query = state.access.shares().query(found.id, until);
    let links: serde_json::Map<String, Value> = delivery::deliveries(&found)
        .iter()
        .map(|delivery| {
            let part = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let (output, file) = (part(&delivery.output.id), part(&delivery.file_name()));
            let path = format!("/outputs/{}/{output}/{file}?{query}", found.id);
            (delivery.output.id.clone(), Value::String(path))
        })
        .collect();
    state.access.audit().did(&asking.caller, asking.from, "share", &found.id.to_string());
    answer("share", StatusCode::OK, &json!({ "job": found.id, "until": iso_time(until), "links": links }))
}

fn job(job: &Job) -> Value {
    let mut entry = json!({
        "id": job.id,
        "process": job.process,
        "state": job.state.name(),
        "percent": job.percent(),
        "owner": job.owner,
        "created": iso_time(job.created),
    });
    if let Some(entry) = entry.as_object_mut() {
        let mut set = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                entry.insert(key.to_owned(), Value::String(value));
            }
        };
        set("started", job.started.map(iso_time));
        set("finished", job.finished().map(iso_time));
        // A job that was stored by a version that did not keep the agent still has it while it runs.
        let agent = job.agent.as_ref().or_else(|| job.state.execution().map(|execution| &execution.agent));
        set("agent", agent.map(ToString::to_string));
        let message = match &job.state {
            JobState::Accepted { waiting } => Some(waiting.to_string()),
            JobState::Running { execution, lost_since: Some(since), .. } => {
                let since = iso_time(*since);
                Some(format!(
                    "the agent `{}` is away since {since}; waiting for it to come back",
                    execution.agent
                ))
            }
            JobState::Running { message, .. } => Some(message.clone()),
            JobState::Dismissing { .. } if job.overdue.is_some() => {
                job.overdue.as_ref().map(|limit| format!("being ended: {}", limit.text()))
            }
            JobState::Dismissing { execution, .. } => {
                Some(format!("dismissed; the agent `{}` has not confirmed it yet", execution.agent))
            }
            JobState::Failed { failure, .. } => Some(crate::encoding::clip(&failure.text(), 1000)),
            JobState::Created
            | JobState::Dispatched { .. }
            | JobState::Successful { .. }
            | JobState::Dismissed { .. } => None,
        };
        set("message", message.filter(|message| !message.is_empty()));
    }
    if let JobState::Successful { outputs, .. } = &job.state {
        let files: Vec<Value> = outputs.iter().filter_map(file).collect();
        if !files.is_empty() {
            entry["files"] = Value::Array(files);
        }
    }
    entry
}

fn file(output: &Output) -> Option<Value> {
    let wps_remote_protocol::Value::Complex { content: Content::Shared(file), .. } = &output.value else {
        return None;
    };
    Some(json!({ "output": output.id, "path": file.path, "bytes": file.bytes, "sha256": file.sha256 }))
}

pub(super) fn answer(operation: &'static str, status: StatusCode, body: &Value) -> Response {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{body:#}");
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.extensions_mut().insert(Operation(operation));
    response
}
