//! What surrounds every request: its id, log line, figures, cross-origin headers, and the net under a handler that
//! panics. Knows no operation.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt;
use tracing::Instrument;

use super::{AppState, Operation, RequestId, report};
use crate::encoding::{Fault, FaultKind, clip};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The outermost layer.
pub(super) async fn around(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let id = request_id();
    request.extensions_mut().insert(RequestId(id.clone()));
    let origin = request.headers().get(header::ORIGIN).cloned();
    let method = request.method().clone();
    let path = clip(request.uri().path(), 200);
    let span = tracing::info_span!("request", request.id = %id, method = %method, path = %path);
    let mut response = if method == Method::OPTIONS {
        preflight(request.headers())
    } else {
        let handled = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
        match handled {
            Ok(response) => response,
            Err(_) => {
                // The panic's own text has been logged by the panic hook.
                let _entered = span.enter();
                tracing::error!("a request's handler panicked; this is a defect");
                report(&Fault::new(FaultKind::Internal, format!("internal error; request id {id}")))
            }
        }
    };
    cross_origin(&state.config.cors_origins, origin.as_ref(), response.headers_mut());
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let operation = response.extensions().get::<Operation>().map_or("other", |operation| operation.0);
    let status = response.status().as_u16();
    let duration = begin.elapsed();
    state.telemetry.answered(operation, status, duration);
    let _entered = span.enter();
    tracing::debug!(operation, status, duration_ms = duration.as_secs_f64() * 1000.0, "answered");
    response
}

#[expect(clippy::disallowed_methods, reason = "request ids are made at the edge; no engine sees them")]
fn request_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Answers the question of a browser whether a page of another origin may send a request.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");
    headers.insert(header::ALLOW, methods.clone());
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let wanted = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let wanted = wanted.unwrap_or(HeaderValue::from_static("Content-Type, Accept, Authorization, Range"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response.extensions_mut().insert(Operation("OPTIONS"));
    response
}

fn cross_origin(allowed: &[String], origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    let Some(origin) = origin else { return };
    let value = if allowed.iter().any(|known| known == "*") {
        HeaderValue::from_static("*")
    } else {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        let known =
            origin.to_str().is_ok_and(|text| allowed.iter().any(|known| known.eq_ignore_ascii_case(text)));
        if !known {
            return;
        }
        origin.clone()
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value);
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "Content-Disposition, Content-Length, Content-Range, ETag, Retry-After, X-Request-Id",
        ),
    );
}

/// No such page.
pub(super) async fn nothing_here(request: Request) -> Response {
    let path = clip(request.uri().path(), 200);
    report(&Fault::new(FaultKind::NotFound, format!("there is nothing at `{path}`; the service is at /wps")))
}

/// A page that answers to GET only.
pub(super) async fn wrong_method(request: Request) -> Response {
    report(&method_not_allowed(request.method()))
}

/// Tells which methods fit, where one did not (RFC 9110 §15.5.6).
pub(super) fn allow(response: &mut Response, methods: &'static str) {
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    }
}

/// The fault for a method that does not fit.
pub(super) fn method_not_allowed(method: &Method) -> Fault {
    let method = clip(method.as_str(), 20);
    Fault::at(
        FaultKind::MethodNotAllowed,
        method.clone(),
        format!("the method {method} is not possible here"),
    )
}
