//! The WPS entry: receives a request by GET or POST, finds out which version of the standard it speaks, and hands it to
//! that face. Versions are told apart by the namespace of the root element or the parameter `version`.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::response::Response;

use super::auth::Asking;
use super::body;
use super::chain::Position;
use super::guard::{self, method_not_allowed};
use super::{AppState, Operation, Peer, RequestId, links, report_on, wps1, wps2};
use crate::encoding::kvp::Query;
use crate::encoding::wps2::WPS_2_0;
use crate::encoding::{Face, Fault, FaultKind, xml};

/// Bodies above this size are decoded on a thread of their own (bytes), so that others are not kept waiting.
const LONG: usize = 256 * 1024;

/// Where a request came in and how.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    /// Our own address as the client sees it.
    pub(super) base: String,
    /// Address of the service under which the client sees us, without query.
    pub(super) service_url: String,
    /// Address below which results are.
    pub(super) outputs_url: String,
    /// Address below which inputs of jobs are that repeat them.
    pub(super) inputs_url: String,
    /// Who asks.
    pub(super) asking: Asking,
    /// Whether it came from another request to us.
    pub(super) position: Position,
    /// By POST.
    pub(super) post: bool,
    /// Headers that say what the client has already; none by POST.
    pub(super) headers: HeaderMap,
    /// By HEAD: nothing may be changed.
    head: bool,
}

impl Arrival {
    fn new(base: String, path: &str, method: &Method, asking: Asking) -> Self {
        Self {
            service_url: format!("{base}{}", path.trim_end_matches('/')),
            outputs_url: format!("{base}/outputs"),
            inputs_url: format!("{base}/inputs"),
            base,
            asking,
            position: Position::default(),
            post: *method == Method::POST,
            head: *method == Method::HEAD,
            headers: HeaderMap::new(),
        }
    }

    /// That of a request that this one leads to.
    pub(super) fn within(&self, path: &str, post: bool, position: Position) -> Self {
        let method = if post { Method::POST } else { Method::GET };
        let asking = self.asking.clone();
        Self { position, ..Self::new(self.base.clone(), path, &method, asking) }
    }

    /// Address of a job's status document.
    pub(super) fn status_url(&self, job: impl std::fmt::Display) -> String {
        format!("{}?service=WPS&version=1.0.0&request=GetExecutionStatus&executionId={job}", self.service_url)
    }
}

/// A request of either version.
enum Asked {
    Wps1(wps1::Request),
    Wps2(wps2::Request),
}

/// Handles everything that comes to an address of WPS.
pub(super) async fn entry(State(state): State<AppState>, request: Request) -> Response {
    let id = request.extensions().get::<RequestId>().cloned();
    let mut operation = Operation("unknown");
    let mut face = default_face(request.uri().path());
    let mut response = match handle(&state, request, &mut operation, &mut face).await {
        Ok(response) => response,
        Err(mut fault) => {
            if let (FaultKind::Internal, Some(RequestId(id))) = (fault.kind, id) {
                fault.text = format!("{}; request id {id}", fault.text);
            }
            tracing::debug!(operation = operation.0, fault = %fault.text, "refused");
            report_on(&fault, face)
        }
    };
    guard::allow(&mut response, "GET, HEAD, POST, OPTIONS");
    response.extensions_mut().insert(operation);
    response
}

async fn handle(
    state: &AppState,
    request: Request,
    operation: &mut Operation,
    face: &mut Face,
) -> Result<Response, Fault> {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let base = links::base(&state.config, request.headers(), request.uri(), peer);
    let method = request.method().clone();
    let asking = Asking::of(request.extensions());
    let mut arrival = Arrival::new(base, request.uri().path(), &method, asking.clone());
    if !arrival.post {
        let known = request.headers().iter().filter(|(name, _)| **name == header::IF_NONE_MATCH);
        arrival.headers = known.map(|(name, value)| (name.clone(), value.clone())).collect();
    }
    let uri = request.uri().clone();
    let asked = match method {
        Method::GET | Method::HEAD => from_query(state, &asking, &query(&uri)?, face)?,
        Method::POST => from_post(state, &asking, request, &uri, face).await?,
        other => return Err(method_not_allowed(&other)),
    };
    let name = match &asked {
        Asked::Wps1(asked) => asked.operation(),
        Asked::Wps2(asked) => asked.operation(),
    };
    *operation = Operation(name);
    if arrival.head && matches!(name, "Execute" | "Dismiss") {
        // HEAD must not change anything (RFC 9110 §9.2.1).
        return Err(method_not_allowed(&Method::HEAD));
    }
    answer(state, &arrival, asked).await
}

async fn answer(state: &AppState, arrival: &Arrival, asked: Asked) -> Result<Response, Fault> {
    match asked {
        Asked::Wps1(asked) => wps1::answer(state, arrival, asked).await,
        Asked::Wps2(asked) => wps2::answer(state, arrival, asked).await,
    }
}

/// Carries out a request that an input of another one names: a query, or a document.
pub(super) async fn within(
    state: &AppState,
    arrival: &Arrival,
    query: &str,
    document: Option<&[u8]>,
) -> Result<Response, Fault> {
    let mut face = default_face(&arrival.service_url);
    let asked = match document {
        Some(document) => {
            face = face_of_document(document)?;
            from_document(state, &arrival.asking, face, document)?
        }
        None => from_query(state, &arrival.asking, &Query::parse(query)?, &mut face)?,
    };
    answer(state, arrival, asked).await
}

/// Whoever names no version means 1.0.0, except at the address that says otherwise.
fn default_face(path: &str) -> Face {
    if path.trim_end_matches('/').ends_with("/2.0.0") { Face::Wps2 } else { Face::Wps1 }
}

fn face_of_document(document: &[u8]) -> Result<Face, Fault> {
    Ok(if xml::root(document)?.namespace == WPS_2_0 { Face::Wps2 } else { Face::Wps1 })
}

fn query(uri: &Uri) -> Result<Query, Fault> {
    Query::parse(uri.query().unwrap_or_default())
}

fn from_query(state: &AppState, asking: &Asking, query: &Query, face: &mut Face) -> Result<Asked, Fault> {
    *face = face_of_query(query, *face)?;
    match face {
        Face::Wps1 => wps1::from_query(state, asking, query).map(Asked::Wps1),
        Face::Wps2 => wps2::from_query(query).map(Asked::Wps2),
    }
}

/// Which version a query speaks: the first that it accepts, or names, or has an operation of; else `default`.
fn face_of_query(query: &Query, default: Face) -> Result<Face, Fault> {
    let known = |version: &str| match version {
        "1.0.0" => Some(Face::Wps1),
        "2.0.0" | "2.0.2" => Some(Face::Wps2),
        _ => None,
    };
    let operation = query.get("request")?.unwrap_or_default().to_ascii_lowercase();
    match operation.as_str() {
        "getcapabilities" => {
            let accepted = query.names("acceptversions")?;
            if !accepted.is_empty() {
                return Ok(accepted.iter().find_map(|version| known(version)).unwrap_or(default));
            }
        }
        "getstatus" | "getresult" => return Ok(Face::Wps2),
        "getexecutionstatus" | "getexecutionresult" | "getexecutions" => return Ok(Face::Wps1),
        "dismiss" if query.has("executionid") => return Ok(Face::Wps1),
        "dismiss" if query.has("jobid") => return Ok(Face::Wps2),
        _ => {}
    }
    Ok(query.get("version")?.and_then(|version| known(&version)).unwrap_or(default))
}

async fn from_post(
    state: &AppState,
    asking: &Asking,
    request: Request,
    uri: &Uri,
    face: &mut Face,
) -> Result<Asked, Fault> {
    let (parts, body) = request.into_parts();
    let received = body::receive(state, asking, &parts.headers, body).await?;
    let first = received.bytes.iter().position(|b| !b.is_ascii_whitespace());
    let Some(first) = first else {
        *face = face_of_query(&query(uri)?, *face)?;
        return wps1::from_empty_post(state, asking, &query(uri)?).map(Asked::Wps1);
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
    let document = &received.bytes[first..];
    *face = face_of_document(document)?;
    let face = *face;
    if document.len() <= LONG {
        return from_document(state, asking, face, document);
    }
    let (state, asking) = (state.clone(), asking.clone());
    let decode = move || from_document(&state, &asking, face, &received.bytes[first..]);
    let decoded = tokio::task::spawn_blocking(decode).await;
    decoded.unwrap_or_else(|error| Err(super::internal("a request could not be decoded", &error)))
}

fn from_document(state: &AppState, asking: &Asking, face: Face, document: &[u8]) -> Result<Asked, Fault> {
    match face {
        Face::Wps1 => wps1::from_document(state, asking, document).map(Asked::Wps1),
        Face::Wps2 => wps2::from_document(state, asking, document).map(Asked::Wps2),
    }
}
