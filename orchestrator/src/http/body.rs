//! Receives a request's body: bounded in size, in time and, over all requests together, in memory. Knows no format.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::auth::Asking;
use super::{AppState, BODY_UNIT};
use crate::encoding::{Fault, FaultKind};

/// Longest silence inside of a body.
const MAX_SILENCE: Duration = Duration::from_secs(15);
/// How long the rest of a body that is too large is read and thrown away, so that the client gets to see the answer.
const DRAIN: Duration = Duration::from_secs(5);

/// A body must have got so far, in bytes, before room is made for what it announces beyond.
const BELIEVED: usize = 1 << 20;

/// A body in memory, and the right to hold it there.
pub(super) struct Received {
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    _permits: Vec<OwnedSemaphorePermit>,
}

/// Reads the whole body.
pub(super) async fn receive(
    state: &AppState,
    asking: &Asking,
    headers: &HeaderMap,
    body: Body,
) -> Result<Received, Fault> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let text = "compressed bodies are not read here; send the request without Content-Encoding";
        return Err(Fault::malformed(text));
    }
    let own = state.jobs.limits().request(asking.who());
    let (limit, setting) = match own.filter(|own| own.value < state.config.max_body_bytes) {
        Some(own) => (own.value, own.setting),
        None => (state.config.max_body_bytes, "[http] max_body_mb".to_owned()),
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<u64>().ok());
    let mut stream = body.into_data_stream();
    if announced.is_some_and(|length| length > limit) {
        // A client that asks first (RFC 9110 §10.1.1) has not sent anything yet, and need not.
        if !headers.contains_key(header::EXPECT) {
            drain(&mut stream).await;
        }
        return Err(too_large(limit, &setting));
    }
    let end = Instant::now() + state.config.request_timeout;
    let mut received = Received { bytes: Vec::new(), _permits: Vec::new() };
    let mut paid = 0_u64;
    loop {
        let next = timeout_at(end.min(Instant::now() + MAX_SILENCE), stream.next()).await;
        let chunk = match next {
            Ok(None) => return Ok(received),
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(error))) => {
                return Err(Fault::malformed(format!("the body could not be read to its end: {error}")));
            }
            Err(_) => return Err(Fault::new(FaultKind::TooSlow, "the body did not arrive in time")),
        };
        let size = received.bytes.len() as u64 + chunk.len() as u64;
        if size > limit {
            drop(received);
            drain(&mut stream).await;
            return Err(too_large(limit, &setting));
        }
        if size > paid {
            let units = (size - paid).div_ceil(BODY_UNIT);
            let units32 = u32::try_from(units).unwrap_or(u32::MAX);
            match state.bodies.clone().try_acquire_many_owned(units32) {
                Ok(permit) => received._permits.push(permit),
                Err(_) => {
                    drop(received);
                    drain(&mut stream).await;
                    let text = "too many large requests at this moment; try again later";
                    return Err(Fault::new(FaultKind::TooBusy, text));
                }
            }
            paid += units * BODY_UNIT;
        }
        let needed = received.bytes.len() + chunk.len();
        if needed > received.bytes.capacity() {
            // All at once, so that nothing is copied while it grows. If that fails it grows by and by.
            let announced = announced.and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
            let room = if needed > BELIEVED { announced } else { announced.min(BELIEVED) };
            let _ = received.bytes.try_reserve_exact(room.saturating_sub(received.bytes.len()));
        }
        received.bytes.extend_from_slice(&chunk);
    }
}

async fn drain(stream: &mut BodyDataStream) {
    let end = Instant::now() + DRAIN;
    while let Ok(Some(Ok(_))) = timeout_at(end, stream.next()).await {}
}

fn too_large(limit: u64, setting: &str) -> Fault {
    let text =
        format!("the request is larger than {limit} bytes (`{setting}`); give large inputs by reference");
    Fault::new(FaultKind::TooLarge, text)
}
