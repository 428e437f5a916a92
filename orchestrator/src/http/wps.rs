//! The WPS entry: receives a request by GET or POST, finds out which version of the standard it speaks, and hands it to
//! that face. Versions are told apart by the namespace of the root element or the parameter `version`.

use axum::extract::{Request, State};
use axum::http::{Method, Uri, header};
use axum::response::Response;

use super::body;
use super::guard::method_not_allowed;
use super::{AppState, Operation, Peer, RequestId, links, report, wps1};
use crate::encoding::kvp::Query;
use crate::encoding::{Fault, FaultKind};

/// Bodies above this size are decoded on a thread of their own (bytes), so that others are not kept waiting.
const LARGE: usize = 256 * 1024;

/// Where a request came in and how.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    /// Address of the service under which the client sees us, without query.
    pub(super) service_url: String,
    /// Address below which results are.
    pub(super) outputs_url: String,
    /// By POST.
    pub(super) post: bool,
    /// By HEAD: nothing may be changed.
    pub(super) head: bool,
}

impl Arrival {
    /// Address of a job's status document.
    pub(super) fn status_url(&self, job: impl std::fmt::Display) -> String {
        format!("{}?service=WPS&version=1.0.0&request=GetExecutionStatus&executionId={job}", self.service_url)
    }
}

/// Handles everything that comes to an address of WPS.
pub(super) async fn entry(State(state): State<AppState>, request: Request) -> Response {
    let id = request.extensions().get::<RequestId>().cloned();
    let mut operation = Operation("unknown");
    let mut response = match handle(&state, request, &mut operation).await {
        Ok(response) => response,
        Err(mut fault) => {
            if let (FaultKind::Internal, Some(RequestId(id))) = (fault.kind, id) {
                fault.text = format!("{}; request id {id}", fault.text);
            }
            tracing::debug!(operation = operation.0, fault = %fault.text, "refused");
            report(&fault)
        }
    };
    response.extensions_mut().insert(operation);
    response
}

async fn handle(state: &AppState, request: Request, operation: &mut Operation) -> Result<Response, Fault> {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let base = links::base(&state.config, request.headers(), request.uri(), peer);
    let method = request.method().clone();
    let arrival = Arrival {
        service_url: format!("{base}{}", request.uri().path().trim_end_matches('/')),
        outputs_url: format!("{base}/outputs"),
        post: method == Method::POST,
        head: method == Method::HEAD,
    };
    let uri = request.uri().clone();
    let asked = match method {
        Method::GET | Method::HEAD => wps1::from_query(state, &query(&uri)?)?,
        Method::POST => from_post(state, request, &uri).await?,
        other => return Err(method_not_allowed(&other)),
    };
    *operation = Operation(asked.operation());
    wps1::answer(state, &arrival, asked).await
}

fn query(uri: &Uri) -> Result<Query, Fault> {
    Query::parse(uri.query().unwrap_or_default())
}

async fn from_post(state: &AppState, request: Request, uri: &Uri) -> Result<wps1::Request, Fault> {
    let (parts, body) = request.into_parts();
    let received = body::receive(state, &parts.headers, body).await?;
    let first = received.bytes.iter().position(|b| !b.is_ascii_whitespace());
    let Some(first) = first else {
        return wps1::from_empty_post(state, &query(uri)?);
    };
    // Many clients name a wrong type, or none; what counts is what is there.
    if !matches!(received.bytes[first], b'<' | 0xEF | 0xFE | 0xFF) {
        let named =
            parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("none");
        return Err(Fault::malformed(format!(
            "the body is no XML document (Content-Type: {}); key-value requests go by GET",
            crate::encoding::clip(named, 80)
        )));
    }
    if received.bytes.len() <= LARGE {
        return wps1::from_document(state, &received.bytes[first..]);
    }
    let state = state.clone();
    let decoded =
        tokio::task::spawn_blocking(move || wps1::from_document(&state, &received.bytes[first..])).await;
    decoded.unwrap_or_else(|error| Err(super::internal("a request could not be decoded", &error)))
}
