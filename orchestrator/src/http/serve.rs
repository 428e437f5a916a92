//! Accepts connections and serves them: a bounded number, with a time limit for headers, and an orderly end. Knows no
//! route.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::stall::Stalling;
use super::{AppState, Peer, router};

/// Most connections at once; further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 2048;
/// Longest time to send the head of a request, also the longest silence between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head of a request in bytes: query strings carry whole Execute requests.
const MAX_HEAD: usize = 128 * 1024;
/// Most header fields.
const MAX_HEADERS: usize = 100;
/// How long answers that are on their way may take after the end was asked for.
const DRAIN: Duration = Duration::from_secs(10);
/// Pause after a failure to accept, for instance because file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown`, then finishes what is on its way and returns. Clients that wait for a synchronous job are
/// told where to follow it.
pub async fn serve(listener: TcpListener, mut state: AppState, shutdown: CancellationToken) {
    state.stopping = shutdown.clone();
    let stall = state.config.stall_timeout;
    let app = router(state);
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let tracker = TaskTracker::new();
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = connections.clone().acquire_owned() => permit,
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                tracker.spawn(connection(stream, Peer(peer), app.clone(), stall, shutdown.clone(), permit));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(DRAIN, tracker.wait()).await.is_err() {
        tracing::warn!(connections = tracker.len(), "some answers could not be finished before the end");
    }
}

async fn connection(
    stream: TcpStream,
    peer: Peer,
    app: Router,
    stall: Duration,
    shutdown: CancellationToken,
    _permit: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let inner = TowerToHyperService::new(app);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let answer = inner.call(request);
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS);
    let serving = http.serve_connection(TokioIo::new(Stalling::new(stream, stall)), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        // Clients that go away in the middle are everyday life.
        tracing::debug!(peer = %peer.0, %error, "a connection ended early");
    }
}
