//! Who gets what: why a job waits, what a caller has and may have, and agents that operators take out of service.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};

use super::admin::{answer, job_of};
use super::auth::Asking;
use super::{AppState, report};
use crate::encoding::kvp::Query;
use crate::encoding::{Fault, FaultKind, clip};
use crate::engine::job::UserId;
use crate::limits::{Set, Who};

/// Longest reason for a drain, in characters.
const MAX_REASON: usize = 200;
/// Longest name of an agent, in bytes.
const MAX_AGENT: usize = 200;

fn parameter(uri: &Uri, name: &str) -> Result<Option<String>, Fault> {
    Query::parse(uri.query().unwrap_or_default())?.get(name)
}

/// Why a job waits, or runs where it runs. Other agents and figures are for operators.
pub(super) async fn explain(
    State(state): State<AppState>,
    Extension(asking): Extension<Asking>,
    Path(id): Path<String>,
) -> Response {
    match job_of(&state, &asking, &id).await {
        Ok(job) => {
            let mut lines = state.jobs.explain(&job).await;
            if !asking.caller.is_operator() {
                lines.truncate(1);
            }
            answer(
                "explain",
                StatusCode::OK,
                &json!({ "id": job.id, "state": job.state.name(), "why": lines }),
            )
        }
        Err(fault) => report(&fault),
    }
}

/// What the caller has and may have; an operator asks for others with `?user=NAME`.
pub(super) async fn usage(
    State(state): State<AppState>,
    Extension(asking): Extension<Asking>,
    uri: Uri,
) -> Response {
    match usage_of(&state, &asking, &uri).await {
        Ok(usage) => answer("usage", StatusCode::OK, &usage),
        Err(fault) => report(&fault),
    }
}

async fn usage_of(state: &AppState, asking: &Asking, uri: &Uri) -> Result<Value, Fault> {
    let named = parameter(uri, "user")?.filter(|user| !user.is_empty() && *user != asking.caller.user.0);
    if named.is_some() && !asking.caller.is_operator() {
        return Err(asking.denied("see what others use"));
    }
    let other = named.map(UserId);
    let who = match &other {
        // Which roles somebody has is known when it logs in; what its own section says holds in any case.
        Some(user) => Who { user, role: None },
        None => asking.who(),
    };
    let usage = state.jobs.usage(who.user).await?;
    let limits = state.jobs.limits();
    let bound = |bounds: &[crate::limits::Bound]| {
        let own = bounds.iter().find(|bound| matches!(&bound.scope, crate::limits::Scope::User(_)))?;
        Some(json!({ "max": own.max, "setting": own.setting }))
    };
    let size = |set: Option<Set<u64>>| set.map(|set| json!({ "max": set.value, "setting": set.setting }));
    let (running, queued) = limits.of_user(who);
    Ok(json!({
        "user": who.user,
        "role": who.role,
        "running": { "jobs": usage.running, "limit": bound(&running) },
        "queued": { "jobs": usage.queued, "limit": bound(&queued) },
        "stored_jobs": { "jobs": usage.jobs(), "limit": size(limits.stored_jobs(who)) },
        "stored_bytes": { "bytes": usage.bytes, "limit": size(limits.stored(who)) },
        "request_bytes": { "limit": size(limits.request(who)) },
    }))
}

/// Takes an agent out of service, `?reason=TEXT`: it gets nothing new, what it runs goes on.
pub(super) async fn drain(
    State(state): State<AppState>,
    Extension(asking): Extension<Asking>,
    Path(agent): Path<String>,
    uri: Uri,
) -> Response {
    let reason = match parameter(&uri, "reason") {
        Ok(reason) => reason.unwrap_or_default(),
        Err(fault) => return report(&fault),
    };
    let clean: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let reason = clip(clean.trim(), MAX_REASON);
    let why = if reason.is_empty() { "maintenance".to_owned() } else { reason };
    serve_or_not(&state, &asking, &agent, Some(why)).await
}

/// Takes an agent back into service.
pub(super) async fn undrain(
    State(state): State<AppState>,
    Extension(asking): Extension<Asking>,
    Path(agent): Path<String>,
) -> Response {
    serve_or_not(&state, &asking, &agent, None).await
}

async fn serve_or_not(state: &AppState, asking: &Asking, agent: &str, why: Option<String>) -> Response {
    let (what, verb) = if why.is_some() { ("drain", "drain agents") } else { ("undrain", "undrain agents") };
    if !asking.caller.is_operator() {
        return report(&asking.denied(verb));
    }
    let overview = state.overview.borrow().clone();
    let present = overview.agents.iter().find(|known| known.id.as_str() == agent);
    let drained = overview.drained.keys().any(|known| known.as_str() == agent);
    // One that is away now can be drained before it comes back, but only by a name that an agent can have.
    let usable = !agent.is_empty() && agent.len() <= MAX_AGENT && !agent.chars().any(char::is_control);
    if !usable || (why.is_none() && !drained && present.is_none()) {
        let text = format!("there is no agent `{}`; /agents lists them", clip(agent, 80));
        return report(&Fault::new(FaultKind::NotFound, text));
    }
    state.access.audit().did(&asking.caller, asking.from, what, agent);
    if let Err(refusal) = state.jobs.drain(agent, why.clone()).await {
        return report(&refusal.into());
    }
    answer(
        what,
        StatusCode::OK,
        &json!({
            "agent": agent,
            "drained": why,
            "present": present.is_some(),
            "running": present.map_or(0, |agent| agent.executions.len()),
        }),
    )
}
