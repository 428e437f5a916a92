//! Results as downloads: streamed, resumable, under a safe name. A client's words never become a path: they are held
//! against what the stored job says.

use std::io::SeekFrom;
use std::time::UNIX_EPOCH;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use futures::TryStreamExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::{ReaderStream, StreamReader};
use wps_remote_protocol::{Content, Value};

use super::auth::{Asking, now};
use super::guard::{self, method_not_allowed};
use super::{AppState, Operation, RequestId, encoded, report};
use crate::encoding::delivery::{self, Delivery};
use crate::encoding::kvp::Query;
use crate::encoding::wps1::response::box_document;
use crate::encoding::wps2::VERSION;
use crate::encoding::wps2::response::raw_document;
use crate::encoding::{Fault, FaultKind, clip};
use crate::engine::job::{Job, JobId};
use crate::matching::{OCTETS, same_media_type};

/// Size of the pieces in which a file goes out, in bytes.
const PIECE: usize = 256 * 1024;

/// `/outputs/<job>/<output>/<file>`.
pub(super) async fn download(
    State(state): State<AppState>,
    path: Result<Path<(String, String, String)>, PathRejection>,
    request: Request,
) -> Response {
    let parts = parts(request);
    let answered = match path {
        _ if !matches!(parts.method, Method::GET | Method::HEAD) => Err(method_not_allowed(&parts.method)),
        Ok(Path((job, output, file))) => {
            let visitor = Visitor::of(&parts);
            find(&state, &visitor, &job, &output, &file, &parts.headers).await
        }
        Err(_) => Err(not_found()),
    };
    told(answered, &parts)
}

/// `/inputs/<job>/<n>`: an input of a job whose documents repeat its inputs, counted from 0.
pub(super) async fn input(
    State(state): State<AppState>,
    path: Result<Path<(String, usize)>, PathRejection>,
    request: Request,
) -> Response {
    let parts = parts(request);
    let answered = match path {
        _ if !matches!(parts.method, Method::GET | Method::HEAD) => Err(method_not_allowed(&parts.method)),
        Ok(Path((job, n))) => {
            find_input(&state, &Asking::of(&parts.extensions), &job, n, &parts.headers).await
        }
        Err(_) => Err(not_found()),
    };
    told(answered, &parts)
}

/// The head of a request, without what does not count.
fn parts(request: Request) -> Parts {
    let (mut parts, _) = request.into_parts();
    if parts.method != Method::GET {
        // RFC 9110 §14.2: a range is defined for GET only.
        parts.headers.remove(header::RANGE);
    }
    parts
}

fn told(answered: Result<Response, Fault>, parts: &Parts) -> Response {
    let mut response = answered.unwrap_or_else(|mut fault| {
        if let (FaultKind::Internal, Some(RequestId(id))) = (fault.kind, parts.extensions.get::<RequestId>())
        {
            fault.text = format!("{}; request id {id}", fault.text);
        }
        report(&fault)
    });
    guard::allow(&mut response, "GET, HEAD, OPTIONS");
    response.extensions_mut().insert(Operation("download"));
    response
}

async fn find_input(
    state: &AppState,
    asking: &Asking,
    job: &str,
    n: usize,
    headers: &HeaderMap,
) -> Result<Response, Fault> {
    let id: JobId = job.parse().map_err(|_| not_found())?;
    let job = state.jobs.view(id).await?.filter(|job| job.form.lineage).ok_or_else(not_found)?;
    if !asking.caller.may_see(&job.owner) {
        return Err(not_found());
    }
    let input = job.inputs.get(n).ok_or_else(not_found)?;
    let Value::Complex { content: Content::Shared(_), media_type, .. } = &input.value else {
        return Err(not_found());
    };
    let name = format!("input-{n}");
    stream(&state.jobs.results().kept_input(id, n), None, media_type, &name, headers).await
}

/// Who wants a result, and the signature that its link may carry.
pub(super) struct Visitor {
    asking: Asking,
    /// End and signature.
    link: Option<(String, String)>,
    /// The link came from a document of WPS 2.0.
    second: bool,
}

impl Visitor {
    /// Another request of this caller, from within.
    pub(super) fn within(asking: &Asking) -> Self {
        Self { asking: asking.clone(), link: None, second: false }
    }

    fn of(parts: &Parts) -> Self {
        let query = Query::parse(parts.uri.query().unwrap_or_default()).ok();
        let value = |name: &str| query.as_ref().and_then(|query| query.get(name).ok().flatten());
        let link = value("until").zip(value("signature"));
        let second = value("version").is_some_and(|version| version == VERSION);
        Self { asking: Asking::of(&parts.extensions), link, second }
    }

    fn may_have(&self, state: &AppState, job: &Job) -> bool {
        // A service that wants a login from everybody wants it for what nobody owns, too.
        let nobody = self.asking.caller.roles.is_empty();
        let signed = self
            .link
            .as_ref()
            .is_some_and(|(until, signature)| state.access.shares().opens(job.id, until, signature, now()));
        signed || (!nobody && self.asking.caller.may_see(&job.owner))
    }

    /// Others' results do not exist for those who have logged in; a login may help the rest.
    fn refused(&self) -> Fault {
        if self.asking.caller.is_logged_in() { not_found() } else { self.asking.denied("fetch this result") }
    }
}

/// A result by the parts of its address.
pub(super) async fn find(
    state: &AppState,
    visitor: &Visitor,
    job: &str,
    output: &str,
    file: &str,
    headers: &HeaderMap,
) -> Result<Response, Fault> {
    let id: JobId = job.parse().map_err(|_| not_found())?;
    let job = state.jobs.view_ended(id).await?.ok_or_else(not_found)?;
    if !visitor.may_have(state, &job) {
        return Err(visitor.refused());
    }
    let delivery = delivery::one(&job, Some(output)).map_err(|_| not_found())?;
    if delivery.file_name() != file {
        return Err(not_found());
    }
    let media_type = delivery.format().media_type;
    if let (true, Value::BoundingBox(_)) = (visitor.second, &delivery.output.value)
        && let Some(document) = raw_document(&delivery)
    {
        return memory(document.as_bytes(), "text/xml", Some(&delivery.file_name()), headers);
    }
    self::output(state, &delivery, &media_type, headers).await
}

fn not_found() -> Fault {
    Fault::new(FaultKind::NotFound, "there is no such result (any more)")
}

/// An output as it is: a file, or what is in the job itself.
pub(super) async fn output(
    state: &AppState,
    delivery: &Delivery<'_>,
    media_type: &str,
    headers: &HeaderMap,
) -> Result<Response, Fault> {
    let name = delivery.file_name();
    match &delivery.output.value {
        Value::Literal { text, .. } => {
            let octets = same_media_type(media_type, OCTETS);
            let media_type = if octets { OCTETS } else { "text/plain; charset=utf-8" };
            memory(text.as_bytes(), media_type, Some(&name), headers)
        }
        Value::BoundingBox(area) => memory(box_document(area).as_bytes(), "text/xml", Some(&name), headers),
        Value::Complex { content: Content::Shared(file), .. } => {
            let path = state.jobs.results().path(file)?;
            stream(&path, file.sha256.as_deref(), media_type, &name, headers).await
        }
        Value::Complex { content: Content::Text(text), .. } => {
            memory(text.as_bytes(), media_type, Some(&name), headers)
        }
        Value::Complex { content: Content::Bytes(bytes), .. } => {
            memory(bytes, media_type, Some(&name), headers)
        }
        Value::Reference { href, .. } => Err(Fault::new(
            FaultKind::JobFailed,
            format!("the output is not kept here; it is at {}", clip(href, 1000)),
        )),
    }
}

/// An output as the answer to an Execute: as it is, or in base64 if the client wants it so.
pub(super) async fn raw(
    state: &AppState,
    delivery: &Delivery<'_>,
    media_type: &str,
) -> Result<Response, Fault> {
    let mut response = output(state, delivery, media_type, &HeaderMap::new()).await?;
    if !delivery.wants_base64() {
        return Ok(response);
    }
    let headers = response.headers_mut();
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    for name in [header::CONTENT_LENGTH, header::ETAG, header::ACCEPT_RANGES] {
        headers.remove(name);
    }
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(encoded::encoded_len(length)));
    }
    let pieces = std::mem::take(response.body_mut()).into_data_stream().map_err(std::io::Error::other);
    *response.body_mut() = encoded::body(StreamReader::new(pieces));
    Ok(response)
}

/// Bytes that are in memory.
pub(super) fn memory(
    bytes: &[u8],
    media_type: &str,
    name: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, Fault> {
    let digest = Sha256::digest(bytes);
    let tag: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let mut response = Response::new(Body::empty());
    let part = prepare(&mut response, bytes.len() as u64, &tag, media_type, name, headers);
    if let Some((begin, length)) = part {
        let begin = usize::try_from(begin).unwrap_or(usize::MAX).min(bytes.len());
        let end = begin.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)).min(bytes.len());
        *response.body_mut() = Body::from(bytes[begin..end].to_vec());
    }
    Ok(response)
}

async fn stream(
    path: &std::path::Path,
    sha256: Option<&str>,
    media_type: &str,
    name: &str,
    headers: &HeaderMap,
) -> Result<Response, Fault> {
    let mut opened = match tokio::fs::File::open(path).await {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(not_found()),
        Err(error) => return Err(super::internal("a result could not be opened", &error)),
    };
    let metadata = opened
        .metadata()
        .await
        .map_err(|error| super::internal("a result could not be looked at", &error))?;
    if !metadata.is_file() {
        return Err(not_found());
    }
    let length = metadata.len();
    let tag = match sha256 {
        Some(sha256) => sha256.to_owned(),
        None => {
            let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            format!("{length:x}-{:x}", changed.unwrap_or_default().as_nanos())
        }
    };
    let mut response = Response::new(Body::empty());
    if let Some((begin, count)) = prepare(&mut response, length, &tag, media_type, Some(name), headers) {
        if begin > 0 {
            opened
                .seek(SeekFrom::Start(begin))
                .await
                .map_err(|error| super::internal("a result could not be read", &error))?;
        }
        *response.body_mut() = Body::from_stream(ReaderStream::with_capacity(opened.take(count), PIECE));
    }
    Ok(response)
}

/// Sets status and headers. Answers which part of the content is to be sent, if any.
fn prepare(
    response: &mut Response,
    length: u64,
    tag: &str,
    media_type: &str,
    name: Option<&str>,
    asked: &HeaderMap,
) -> Option<(u64, u64)> {
    let text = |name: header::HeaderName| asked.get(name).and_then(|value| value.to_str().ok());
    let value = |text: String| HeaderValue::from_str(&text).ok();
    let etag = format!("\"{tag}\"");
    let mut set = |name: header::HeaderName, value: Option<HeaderValue>| {
        if let Some(value) = value {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::ETAG, value(etag.clone()));
    set(header::ACCEPT_RANGES, Some(HeaderValue::from_static("bytes")));
    set(header::CACHE_CONTROL, Some(HeaderValue::from_static("private, no-cache")));
    // Results are what programs of others wrote: they must not become pages of our origin.
    set(header::CONTENT_SECURITY_POLICY, Some(HeaderValue::from_static("sandbox; default-src 'none'")));
    set(header::X_CONTENT_TYPE_OPTIONS, Some(HeaderValue::from_static("nosniff")));
    let octets = HeaderValue::from_static("application/octet-stream");
    set(header::CONTENT_TYPE, Some(HeaderValue::from_str(media_type).unwrap_or(octets)));
    if let Some(name) = name {
        set(header::CONTENT_DISPOSITION, value(disposition(name)));
    }
    // RFC 9110 §13.1.1, §13.2.2: what the client has a part of must be the same still.
    if let Some(tags) = text(header::IF_MATCH)
        && !tags.split(',').any(|tag| tag.trim() == "*" || tag.trim() == etag)
    {
        *response.status_mut() = StatusCode::PRECONDITION_FAILED;
        return None;
    }
    if is_known(asked, &etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return None;
    }
    // A range counts only for the very content that the client has a part of (RFC 9110 §13.1.5).
    let same = text(header::IF_RANGE).is_none_or(|tag| tag.trim() == etag);
    let range = text(header::RANGE).filter(|_| same).map_or(Range::Whole, |range| parse_range(range, length));
    let (begin, count) = match range {
        Range::Whole => (0, length),
        Range::Part(begin, count) => {
            set(header::CONTENT_RANGE, value(format!("bytes {begin}-{}/{length}", begin + count - 1)));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            (begin, count)
        }
        Range::Impossible => {
            set(header::CONTENT_RANGE, value(format!("bytes */{length}")));
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return None;
        }
    };
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(count));
    Some((begin, count))
}

/// Whether a client has what this tag stands for (RFC 9110 §13.1.2).
pub(super) fn is_known(asked: &HeaderMap, etag: &str) -> bool {
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    known.flat_map(|tags| tags.split(',')).any(|tag| tag.trim() == "*" || weak(tag) == etag)
}

fn weak(tag: &str) -> &str {
    let tag = tag.trim();
    tag.strip_prefix("W/").unwrap_or(tag)
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    /// First byte and number of bytes, at least one.
    Part(u64, u64),
    Impossible,
}

/// One range of bytes (RFC 9110 §14.1.2). Several, or what is no range, count as none.
fn parse_range(text: &str, length: u64) -> Range {
    let Some(spec) = text.trim().strip_prefix("bytes=") else { return Range::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Range::Whole };
    let (first, last) = (first.trim(), last.trim());
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => Range::Whole,
        (Some(first), _) if first >= length && (last.is_empty() || number(last).is_some()) => {
            Range::Impossible
        }
        (Some(first), Some(last)) => Range::Part(first, last.min(length - 1) - first + 1),
        (Some(first), None) if last.is_empty() => Range::Part(first, length - first),
        (None, Some(0)) if first.is_empty() => Range::Impossible,
        (None, Some(_)) if first.is_empty() && length == 0 => Range::Impossible,
        (None, Some(count)) if first.is_empty() => Range::Part(length - count.min(length), count.min(length)),
        _ => Range::Whole,
    }
}

/// RFC 6266: a plain name for everybody and the exact one for those who can read it.
fn disposition(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.() ".contains(c) { c } else { '_' })
        .collect();
    let exact = utf8_percent_encode(name, NON_ALPHANUMERIC);
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_single_and_inside() {
        for (text, expected) in [
            ("bytes=0-3", Range::Part(0, 4)),
            ("bytes=2-", Range::Part(2, 8)),
            ("bytes=-3", Range::Part(7, 3)),
            ("bytes=-30", Range::Part(0, 10)),
            ("bytes=5-99", Range::Part(5, 5)),
            ("bytes=9-9", Range::Part(9, 1)),
            ("bytes=10-", Range::Impossible),
            ("bytes=-0", Range::Impossible),
            ("bytes=3-1", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("bytes=a-b", Range::Whole),
            ("bytes=+1-2", Range::Whole),
            ("bytes=-", Range::Whole),
            ("lines=1-2", Range::Whole),
            ("bytes=99999999999999999999-", Range::Whole),
        ] {
            assert_eq!(parse_range(text, 10), expected, "{text}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Range::Impossible);
        assert_eq!(parse_range("bytes=-5", 0), Range::Impossible);
    }

    #[test]
    fn names_cannot_leave_their_header() {
        assert_eq!(
            disposition("a\"b\r\nü.zip"),
            "attachment; filename=\"a_b___.zip\"; filename*=UTF-8''a%22b%0D%0A%C3%BC%2Ezip"
        );
    }
}
